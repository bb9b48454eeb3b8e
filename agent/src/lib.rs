//! The per-host agent: keeps running what the scheduler ordered, and reports what really happened.
//!
//! From the ground: `reconcile` (pure) · `driver` with `docker` and `libvirt`, `inventory`, `ledger` · `executor` · `session` · `main`.

pub mod docker;
pub mod driver;
pub mod ledger;
pub mod libvirt;
pub mod reconcile;
