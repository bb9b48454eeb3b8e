//! What a test that was killed left behind: a process that is ended by force cannot clean up, so the next world does it for it.
//!
//! Each world's folder holds the number of its process and, as soon as it is known, the id of its cluster and the number of its network. A folder whose process is no
//! more is a leftover; nothing else is ever touched. Its processes are those that were started with the folder's path, which is like no
//! other, among their arguments or in their environment.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use tempfile::TempDir;

use crate::{Outcome, disk, docker, libvirt, netns, process::write};

/// Where worlds are. Under /var/tmp, since QEMU's user must be able to pass.
pub const PLACE: &str = "/var/tmp";
/// How their folders' names begin.
pub const PREFIX: &str = "supercloud-tests.";
/// Others may pass through a world's folder (QEMU's user must), and see no names.
const FOLDER_MODE: u32 = 0o711;
const PROCESS: &str = "process";
const CLUSTER: &str = "cluster";

/// A folder for a world, once what others left is cleared away; it notes whose it is.
pub fn folder() -> Outcome<TempDir> {
    clear()?;
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(PLACE)?;
    fs::set_permissions(folder.path(), Permissions::from_mode(FOLDER_MODE))?;
    write(&folder.path().join(PROCESS), &std::process::id().to_string())?;
    Ok(folder)
}

/// Notes the cluster.
pub fn note_cluster(folder: &Path, cluster: &str) -> Outcome {
    write(&folder.join(CLUSTER), cluster)
}

/// Clears away what tests that are no more have left.
pub fn clear() -> Outcome {
    for entry in fs::read_dir(PLACE)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            clear_folder(&entry.path())?;
        }
    }
    Ok(())
}

fn clear_folder(folder: &Path) -> Outcome {
    let Some(process) = read(&folder.join(PROCESS)).and_then(|text| text.parse::<u32>().ok()) else {
        // It is being made this moment, or is nobody's; the latter does no harm.
        return Ok(());
    };
    if PathBuf::from(format!("/proc/{process}")).exists() {
        return Ok(());
    }
    eprintln!("clearing away what test process {process} left");
    end_processes(folder)?;
    // After the processes, which have files open there and sockets; a process whose disk is frozen ends once it thaws.
    disk::clear(folder)?;
    netns::clear(folder)?;
    docker::clear_foreign(process)?;
    libvirt::clear_foreign(process)?;
    if let Some(cluster) = read(&folder.join(CLUSTER)).filter(|cluster| !cluster.is_empty()) {
        docker::clear(&cluster)?;
        libvirt::clear(&cluster)?;
    }
    Ok(fs::remove_dir_all(folder)?)
}

/// Ends the nodes, agents and commands that outlived their test.
fn end_processes(folder: &Path) -> Outcome {
    let place = folder.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(process) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let started_there = ["cmdline", "environ"].iter().any(|file| {
            // One that has ended meanwhile, or is somebody else's, cannot be read.
            let text = fs::read(entry.path().join(file)).unwrap_or_default();
            text.windows(place.len()).any(|part| part == place)
        });
        // libvirt's QEMU has the folder among its arguments as well; its domain is cleared by libvirt.
        let ours = fs::read_to_string(entry.path().join("comm"))
            .is_ok_and(|name| name.starts_with("supercloud") || name.trim() == "etcd");
        if started_there && ours {
            // It may end by itself this very moment.
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
