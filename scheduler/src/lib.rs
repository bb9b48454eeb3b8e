//! The replicated scheduler. From the ground: `state` (pure) · `placement` (pure) · `raft` (the log) · `archive`, `replica`, `peers` · `watch`,
//! `heartbeats`, `compare` and `leader` (loops that run while leading) · `core` (the handle on all of these) · `peer_service`, `admission`, `sessions` (of
//! agents) · `api` · `config`, `home`, `logging` · `server`, `commands`, `restore` and `main`.

pub mod admission;
pub mod api;
pub mod archive;
pub mod ca;
pub mod clock;
pub mod commands;
pub mod compare;
pub mod config;
pub mod core;
pub mod heartbeats;
pub mod home;
pub mod leader;
pub mod logging;
pub mod metrics;
pub mod peer_service;
pub mod peers;
pub mod placement;
#[cfg(feature = "planted")]
pub mod planted;
pub mod raft;
pub mod replica;
pub mod restore;
pub mod server;
pub mod sessions;
pub mod space;
pub mod state;
pub mod watch;
