//! The replicated scheduler. From the ground: `state` (pure) · `placement` (pure) · `raft` (the log) · `archive`, `replica`, `peers` · `watch`,
//! `heartbeats` and `leader` (loops that run while leading) · `core` (the handle on all of these) · `peer_service` · `api` · `server` and
//! `main`.

pub mod archive;
pub mod ca;
pub mod clock;
pub mod core;
pub mod heartbeats;
pub mod leader;
pub mod peer_service;
pub mod peers;
pub mod placement;
pub mod raft;
pub mod replica;
pub mod state;
pub mod watch;
