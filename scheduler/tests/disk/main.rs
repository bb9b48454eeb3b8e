//! What a node makes of a data directory: one of an earlier version of the program, and one of a later version.

mod formats;
mod levels;
#[path = "../support/mod.rs"]
mod support;
