//! The Supercloud API (`supercloud.v1`) and the words it is made of.
//!
//! Two layers. [`v1`] and [`log`] are generated from the `.proto` files and are what travels and what is stored. Everything
//! else is the vocabulary: ids, names, amounts, the spec, hosts, instances and orders as types that cannot hold nonsense. A
//! conversion stands beside the domain type it makes; [`saved`] is the file of a saved state. This crate knows no scheduler, no agent and no runtime.

pub mod amount;
pub mod condition;
pub mod cores;
pub mod device;
pub mod host;
pub mod id;
pub mod instance;
pub mod name;
pub mod order;
pub mod pki;
pub mod problem;
pub mod saved;
pub mod spec;
pub mod taint;
pub mod version;
mod wire;

#[cfg(test)]
mod samples;

/// Messages and services of the public API, generated.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("supercloud.v1");

    /// Encoded descriptors of all services, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("supercloud.v1");
}

/// Entries of the replicated log and records of snapshots, generated.
pub mod log {
    /// Format 1.
    #[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("supercloud.log.v1");
    }
}
