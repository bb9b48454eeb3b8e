//! Space on the disk that holds a node's directory: watched, so that a write never meets a full disk. Knows one file system and one file of ours.
//!
//! A write that fails ends the process (`raft`): after it nobody knows what the disk holds. So a full disk is foreseen. Below [`NEEDED`] the node
//! is *short*: the log takes nothing more from callers or from a leader, hands a leadership on, begins no snapshot, and goes on answering reads and
//! voting (`raft::node::space`). Above [`AGAIN`] all of that ends by itself.
//!
//! Decisions
//! * **A ballast is held and given back.** What is under way when the disk runs full must still be written, and a start must open its stores. A file of
//!   [`BALLAST`] bytes is allocated while there is plenty, and deleted below [`LAST`]. It is made anew once there is plenty again. (A file system that
//!   copies on write does not keep the promise of an allocation; there [`NEEDED`] alone must do.)
//! * **A thread of its own asks** ([`LOOK_EVERY`]): the call blocks where the file system hangs. Between two looks a fast disk takes some MiB,
//!   `raft::limits` bounds what is under way beyond them, and both together fit below `NEEDED` and the ballast.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{fcntl::posix_fallocate, sys::statvfs::statvfs};

use crate::raft::Space;

/// Free bytes below which a node takes no writes.
pub const NEEDED: u64 = 64 << 20;
/// Free bytes above which it takes them again; apart from `NEEDED`, so that it does not waver.
pub const AGAIN: u64 = 80 << 20;
/// Bytes that are held for what is under way, and for a start.
pub const BALLAST: u64 = 32 << 20;
/// Free bytes below which they are given back.
pub const LAST: u64 = 24 << 20;
/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The file that holds them.
const FILE: &str = "ballast";

/// Free bytes on the file system of a directory.
///
/// # Errors
/// When it cannot be asked.
pub fn free(directory: &Path) -> io::Result<u64> {
    let found = statvfs(directory)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Gives the ballast back where a start would find too little space.
pub fn make_room(directory: &Path) {
    if free(directory).is_ok_and(|free| free < LAST) {
        give_back(directory);
    }
}

fn give_back(directory: &Path) {
    match fs::remove_file(directory.join(FILE)) {
        Ok(()) => {
            tracing::warn!(directory = %directory.display(), "the disk is full: the reserve is given back")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::error!(%error, "the disk is full, and the reserve cannot be given back"),
    }
}

/// Allocates the ballast, unless it is there.
fn hold(directory: &Path) {
    let path = directory.join(FILE);
    let allocate = || -> io::Result<()> {
        if fs::metadata(&path).is_ok_and(|found| found.len() == BALLAST) {
            return Ok(());
        }
        let file = File::create(&path)?;
        Ok(posix_fallocate(&file, 0, BALLAST as i64)?)
    };
    if let Err(error) = allocate() {
        tracing::warn!(%error, "no reserve on the disk");
    }
}

/// What follows from the bytes that are free.
fn judge(was: Space, free: u64) -> Space {
    let limit = if was.short { AGAIN } else { NEEDED };
    Space { free, short: free < limit }
}

/// Watches the disk until it is dropped.
pub(crate) struct Watch {
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Tells what is found, at first and whenever it changes.
    pub(crate) fn start(directory: PathBuf, tell: impl Fn(Space) + Send + 'static) -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        thread::Builder::new().name("disk-space".to_owned()).spawn(move || {
            let mut known = Space::default();
            while !stop.load(Ordering::Relaxed) {
                known = look(&directory, known);
                tell(known);
                thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(Self { ended })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn look(directory: &Path, was: Space) -> Space {
    let free = match free(directory) {
        Ok(free) => free,
        Err(error) => {
            tracing::debug!(%error, "the disk does not say how much space is free");
            return was;
        }
    };
    let now = judge(was, free);
    if free < LAST {
        give_back(directory);
    } else if free > AGAIN + BALLAST {
        hold(directory);
    }
    if now.short != was.short {
        let (directory, mebibytes) = (directory.display(), free >> 20);
        if now.short {
            tracing::error!(%directory, mebibytes, "too little space on the disk: this node takes no writes until there is more");
        } else {
            tracing::info!(%directory, mebibytes, "there is space on the disk again");
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_short_until_there_is_clearly_enough() {
        let mut known = Space::default();
        for (free, short) in [
            (NEEDED, false),
            (NEEDED - 1, true),
            (0, true),
            (NEEDED, true),
            (AGAIN - 1, true),
            (AGAIN, false),
            (NEEDED, false),
        ] {
            known = judge(known, free);
            assert_eq!(known.short, short, "{free}");
        }
    }

    #[test]
    fn a_reserve_is_held_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(folder.path()).unwrap() > 0);
        hold(folder.path());
        hold(folder.path());
        assert_eq!(fs::metadata(folder.path().join(FILE)).unwrap().len(), BALLAST);
        give_back(folder.path());
        give_back(folder.path());
        assert!(!folder.path().join(FILE).exists());
    }
}
