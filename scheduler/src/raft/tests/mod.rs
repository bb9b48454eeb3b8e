//! Several nodes of the log in one process: real threads, real disks, a network in memory that can be cut.

mod disk;
mod failures;
mod grpc;
pub(super) mod harness;
mod incoming;
mod membership;
mod pipeline;
mod replication;
mod space;
