//! Cases and properties of the state, and the small world that they play in.

mod boroughs;
mod cases;
mod checker;
mod gangs;
mod properties;
mod sites;
mod volumes;
pub mod world;
