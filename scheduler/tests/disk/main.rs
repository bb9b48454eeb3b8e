//! What a node makes of a data directory: one of an earlier version of the program, one of a later version, and one that is damaged.

mod damage;
mod formats;
mod levels;
#[path = "../support/mod.rs"]
mod support;
