//! The replicated scheduler. From the ground: `state` (pure) · `placement` (pure) · `raft` (the log) · `watch` and `leader` · `api` ·
//! `server` and `main`.

pub mod ca;
pub mod placement;
pub mod raft;
pub mod state;
