//! The folder with the snapshots: the last two, and nothing half-made for long. Knows names and the order of steps.
//!
//! A snapshot becomes one by its name: it is written beside under another name, synced, renamed, and the folder is
//! synced. A crash at any step leaves either the old state of affairs or the new one; leftovers are swept at a start.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::files::Files;
use super::limits::SNAPSHOTS_KEPT;
use super::log_store::Position;
use super::snapshot_file::{self, SnapshotError, SnapshotMeta, Verified};

/// A place for snapshots. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct SnapshotDir {
    files: Arc<dyn Files>,
    path: Arc<PathBuf>,
    cluster: Arc<str>,
    /// Numbers incoming files, so that two that arrive at once do not meet.
    incoming: Arc<AtomicU64>,
}

/// A snapshot that came from another node, whole, synced, and not yet in its place. Deleted when dropped.
#[derive(Debug)]
pub(super) struct Received {
    files: Arc<dyn Files>,
    verified: Box<Verified>,
}

impl Received {
    pub(super) fn position(&self) -> Position {
        self.verified.meta.position
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // After the installation the file has another name, and there is nothing to delete.
        let _ = self.files.remove(self.verified.path());
    }
}

impl SnapshotDir {
    /// Uses `path`, makes it if need be, and sweeps what a crash left behind.
    pub(super) fn open(files: Arc<dyn Files>, path: PathBuf, cluster: &str) -> io::Result<Self> {
        files.make_directory(&path)?;
        for found in files.list(&path)? {
            if found.extension().is_some_and(|extension| extension == "tmp") {
                files.remove(&found)?;
            }
        }
        let cluster = Arc::from(cluster);
        Ok(Self { files, path: Arc::new(path), cluster, incoming: Arc::new(AtomicU64::new(0)) })
    }

    /// Places of the snapshots, newest first.
    pub(super) fn positions(&self) -> io::Result<Vec<Position>> {
        let mut found = Vec::new();
        for path in self.files.list(&self.path)? {
            found.extend(path.file_name().and_then(|name| name.to_str()).and_then(parse));
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Where the snapshot of a place lies.
    pub(super) fn file(&self, position: Position) -> PathBuf {
        self.path.join(format!("snapshot-{:020}-{:010}", position.index, position.term))
    }

    /// Reads a snapshot through.
    pub(super) fn verify(&self, position: Position) -> Result<Verified, SnapshotError> {
        snapshot_file::verify(&self.files, &self.file(position), &self.cluster)
    }

    /// Takes a damaged snapshot out of the way, for whoever wants to look at it.
    pub(super) fn set_aside(&self, position: Position) -> io::Result<()> {
        let path = self.file(position);
        self.files.rename(&path, &path.with_extension("damaged"))?;
        self.files.sync_directory(&self.path)
    }

    /// Writes a new snapshot. Older ones stay until `keep_last`.
    pub(super) fn create(
        &self,
        mut meta: SnapshotMeta,
        payload: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotMeta> {
        let beside = self.path.join("creating.tmp");
        meta.bytes = snapshot_file::write(&*self.files, &beside, &meta, payload)?;
        self.put_in_place(&beside, meta.position)?;
        Ok(meta)
    }

    /// A name under which a snapshot from elsewhere may be written.
    pub(super) fn incoming(&self) -> PathBuf {
        let number = self.incoming.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("incoming-{number}.tmp"))
    }

    /// Accepts a file that was written to a name from `incoming` and synced.
    pub(super) fn received(&self, path: &Path) -> Result<Received, SnapshotError> {
        let verified = Box::new(snapshot_file::verify(&self.files, path, &self.cluster)?);
        Ok(Received { files: self.files.clone(), verified })
    }

    /// Gives a received snapshot its name.
    pub(super) fn install(&self, received: Received) -> io::Result<()> {
        self.put_in_place(received.verified.path(), received.position())
    }

    /// Deletes all but the last ones. Returns what is left, newest first.
    pub(super) fn keep_last(&self) -> io::Result<Vec<Position>> {
        let mut positions = self.positions()?;
        for old in positions.drain(SNAPSHOTS_KEPT.min(positions.len())..) {
            self.files.remove(&self.file(old))?;
        }
        self.files.sync_directory(&self.path)?;
        Ok(positions)
    }

    fn put_in_place(&self, from: &Path, position: Position) -> io::Result<()> {
        self.files.rename(from, &self.file(position))?;
        self.files.sync_directory(&self.path)
    }
}

fn parse(name: &str) -> Option<Position> {
    let (index, term) = name.strip_prefix("snapshot-")?.split_once('-')?;
    Some(Position { index: index.parse().ok()?, term: term.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::raft::{files::Disk, membership::Membership};

    fn meta(index: u64) -> SnapshotMeta {
        let position = Position { index, term: 1 };
        SnapshotMeta { cluster: "c".into(), position, membership: Membership::default(), bytes: 0 }
    }

    fn indexes(directory: &SnapshotDir) -> Vec<u64> {
        directory.positions().unwrap().iter().map(|position| position.index).collect()
    }

    fn open(path: PathBuf) -> SnapshotDir {
        SnapshotDir::open(Arc::new(Disk), path, "c").unwrap()
    }

    #[test]
    fn the_last_two_are_kept_and_leftovers_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(folder.path().into());
        for index in [1, 20, 300] {
            directory.create(meta(index), |out| out.write_all(b"state")).unwrap();
        }
        assert_eq!(indexes(&directory), [300, 20, 1]);
        directory.keep_last().unwrap();
        fs::write(directory.incoming(), b"half").unwrap();
        let directory = open(folder.path().into());
        assert_eq!(indexes(&directory), [300, 20]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_received_snapshot_is_installed_or_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let from = open(folder.path().join("a"));
        let to = open(folder.path().join("b"));
        let made = from.create(meta(7), |out| out.write_all(b"state")).unwrap();
        for install in [false, true] {
            let path = to.incoming();
            fs::copy(from.file(made.position), &path).unwrap();
            let received = to.received(&path).unwrap();
            if install {
                to.install(received).unwrap()
            } else {
                drop(received)
            }
            assert_eq!(indexes(&to), if install { vec![7] } else { vec![] });
        }
        assert_eq!(fs::read_dir(folder.path().join("b")).unwrap().count(), 1);
    }
}
