//! Generates the messages and services of `supercloud.v1` and `supercloud.log.v1`, and the descriptor set for reflection.

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 12] = [
    "supercloud/v1/agent.proto",
    "supercloud/v1/borough.proto",
    "supercloud/v1/error.proto",
    "supercloud/v1/event.proto",
    "supercloud/v1/host.proto",
    "supercloud/v1/instance.proto",
    "supercloud/v1/peer.proto",
    "supercloud/v1/scheduler.proto",
    "supercloud/v1/spec.proto",
    "supercloud/v1/volume.proto",
    "supercloud/v1/workload.proto",
    "supercloud/log/v1/log.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptor = PathBuf::from(env::var("OUT_DIR")?).join("supercloud.v1.bin");
    tonic_prost_build::configure()
        .file_descriptor_set_path(descriptor)
        .btree_map(".")
        .compile_protos(&FILES, &["."])?;
    println!("cargo:rerun-if-changed=supercloud");
    Ok(())
}
