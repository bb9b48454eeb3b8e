//! Where the programs are: in `SUPERCLOUD_BIN_DIR`, or beside the test executable's folder, where cargo puts them.

use std::{env, path::PathBuf};

use crate::{Outcome, wrong};

/// The operator's command.
pub const CLI: &str = "supercloud";
/// A scheduler node.
pub const SCHEDULER: &str = "supercloud-scheduler";
/// A host's agent.
pub const AGENT: &str = "supercloud-agent";

/// The path of a program.
pub fn find(name: &str) -> Outcome<PathBuf> {
    let folder = match env::var_os("SUPERCLOUD_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => beside_the_test()?,
    };
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    wrong(format!(
        "no program {}: build it (cargo build --workspace --bins) or set SUPERCLOUD_BIN_DIR",
        path.display()
    ))
}

/// A test executable lies in `debug/deps`, the programs in `debug`.
fn beside_the_test() -> Outcome<PathBuf> {
    let test = env::current_exe()?;
    let folder = test.parent().and_then(|deps| deps.parent());
    match folder {
        Some(folder) => Ok(folder.to_owned()),
        None => wrong(format!("{} lies in no build directory", test.display())),
    }
}

/// The folder with the guest's kernel, initramfs and disk.
pub fn images() -> PathBuf {
    env::var_os("SUPERCLOUD_IMAGES")
        .map_or_else(|| PathBuf::from("/var/lib/supercloud/images"), PathBuf::from)
}

/// The repository that is being tested.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
