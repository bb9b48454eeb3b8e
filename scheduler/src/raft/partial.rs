//! What came in of a snapshot whose transfer broke: kept, so that the next attempt goes on from there. Knows files and marks, no stream.
//!
//! Decisions. *One at a time*: the next snapshot that begins takes the place of what was kept, and a start sweeps it, so that a disk holds at
//! most one. *Only checked pieces count*, and nothing of it is believed for having been kept: the whole is read through once more when it is
//! complete. *By mark, not by sender*: a new leader goes on where the old one was, if it sends the very same bytes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use supercloud_proto::v1::SnapshotMark;

use super::limits::SNAPSHOT_MARK_BYTES;

/// A path whose file is deleted unless somebody else has taken it over.
#[derive(Debug)]
pub(super) struct Temporary(Option<PathBuf>);

impl Temporary {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What stays behind is swept at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The first checked bytes of a snapshot.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) mark: SnapshotMark,
    pub(super) file: Temporary,
    /// So many.
    pub(super) bytes: u64,
}

/// Where it is kept. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    partial: Arc<Mutex<Option<Partial>>>,
}

impl Kept {
    /// Keeps it in the place of any other.
    pub(super) fn put(&self, partial: Partial) {
        *self.slot() = Some(partial);
    }

    /// How much of this snapshot is here.
    pub(super) fn offset(&self, mark: &SnapshotMark) -> u64 {
        self.slot().as_ref().filter(|partial| partial.mark == *mark).map_or(0, |partial| partial.bytes)
    }

    /// Takes what was kept, if it is of this snapshot and ends there. Whatever else was kept is deleted: another one begins.
    pub(super) fn take(&self, mark: Option<&SnapshotMark>, offset: u64) -> Option<Partial> {
        let kept = self.slot().take()?;
        (offset > 0 && Some(&kept.mark) == mark && kept.bytes == offset).then_some(kept)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Partial>> {
        // A place that is whole between two statements.
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a mark is one: what a stranger sends is kept in memory.
pub(super) fn is_mark(mark: &SnapshotMark) -> bool {
    mark.head.len() <= SNAPSHOT_MARK_BYTES && mark.tail.len() <= SNAPSHOT_MARK_BYTES
}
