//! Cases and properties of the state, and the small world that they play in.

mod boroughs;
mod cases;
mod checker;
mod gangs;
mod properties;
mod sites;
pub mod tally;
mod volumes;
pub mod world;
