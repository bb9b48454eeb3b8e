//! What a node makes of a data directory: one of an earlier version of the program.

mod formats;
#[path = "../support/mod.rs"]
mod support;
