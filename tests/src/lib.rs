//! The harness of the suites: real scheduler nodes, real agents on the real Docker and libvirt of this machine, and the operator's
//! command, all as processes of their own, looked at from outside.
//!
//! A test asks for a [`World`], acts on it, and polls for facts with a deadline ([`wait::until`]). Whatever a world started or
//! made is gone when it is dropped; what a killed test left behind is cleared away by the next world.
//!
//! The harness knows the programs by their command lines, files and API alone, never by their code.

pub mod agent;
pub mod api;
pub mod cli;
pub mod disk;
pub mod docker;
pub mod failover;
pub mod history;
pub mod leftovers;
pub mod libvirt;
pub mod linearizable;
pub mod listeners;
pub mod load;
pub mod netns;
pub mod page;
pub mod partition;
pub mod ports;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod registers;
pub mod scheduler;
pub mod sim;
pub mod specs;
pub mod testbed;
pub mod wait;
pub mod ways;
pub mod world;

pub use world::{Shape, World};

/// What a test, or a step of one, comes to. The error is read by a person, and nobody acts on its kind.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A fact that should hold and does not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);

/// An error that says what was seen.
pub fn wrong<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Wrong(what.into()).into())
}

/// Holds that something is so; otherwise says what was seen.
pub fn hold(so: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if so { Ok(()) } else { wrong(otherwise()) }
}
