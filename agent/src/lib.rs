//! The per-host agent: keeps running what the scheduler ordered, and reports what really happened.
//!
//! From the ground: `reconcile` (pure) · `driver` with `docker` and `libvirt`, `devices`, `inventory`, `ledger` · `executor` · `keeper` (decides, pure) · `run` (the loop) · `session` · `main`.

pub mod agent;
pub mod belonging;
pub mod clock;
mod command;
pub mod config;
pub mod desired;
pub mod devices;
pub mod docker;
pub mod driver;
pub mod executor;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod inventory;
pub mod join;
pub mod keeper;
pub mod ledger;
pub mod libvirt;
pub mod observed;
#[cfg(feature = "planted")]
pub mod planted;
pub mod reconcile;
pub mod reports;
#[cfg(test)]
mod rig;
pub mod run;
pub mod session;
