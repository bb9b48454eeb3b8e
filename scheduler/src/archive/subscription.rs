//! Following events: a place in the archive that moves on as it grows. It reads the store and is never sent to, so it misses nothing and
//! sees nothing twice, however slow it is; when what it has not seen is no longer kept, it says so and ends.

use supercloud_proto::{id::LogIndex, v1};
use tokio::sync::watch;

use super::{Archive, ArchiveError, Status, read, record::Position};

/// Most events of one batch: far below a message's limit, since an event is at most 5 KiB and mostly 200 bytes.
const MAX_BATCH: usize = 500;

/// Some events.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// In order; never empty.
    pub events: Vec<v1::Event>,
    /// Everything up to this log index has now been seen; resume from here.
    pub index: LogIndex,
}

/// Why a subscription ends.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Events that were not seen are no longer kept: list again.
    #[error("events up to log index {floor} are no longer kept; list again and watch from there")]
    Compacted {
        /// The index.
        floor: LogIndex,
    },
    /// The archive does not answer; try again.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// See the head of the module.
pub struct Subscription {
    archive: Archive,
    status: watch::Receiver<Status>,
    /// The last event that was seen, or the end of an index.
    at: Position,
    /// Everything up to this index has been seen.
    seen: LogIndex,
}

impl Subscription {
    pub(super) fn new(archive: Archive, after: Option<LogIndex>) -> Result<Self, WatchError> {
        let status = archive.status();
        let (index, floor) = {
            let now = status.borrow();
            (now.index, now.floor)
        };
        let seen = after.unwrap_or(index);
        if seen < floor {
            return Err(WatchError::Compacted { floor });
        }
        Ok(Self { archive, status, at: read::end_of(seen), seen })
    }

    /// Everything up to this log index has been seen.
    #[must_use]
    pub fn seen(&self) -> LogIndex {
        self.seen
    }

    /// The next events; waits for them. May be dropped at any time and called again.
    ///
    /// # Errors
    /// See [`WatchError`]; the subscription is of no use after it, but for [`WatchError::Archive`].
    pub async fn next(&mut self) -> Result<EventBatch, WatchError> {
        loop {
            let status = self.status.borrow_and_update().clone();
            if self.seen < status.floor {
                return Err(WatchError::Compacted { floor: status.floor });
            }
            if status.index > self.seen {
                let (at, upto) = (self.at, status.index);
                let (events, whole) =
                    self.archive.read(move |store, _| read::page(store, at, upto, MAX_BATCH)).await?;
                // Between looking at the floor and reading it may have risen.
                let floor = self.status.borrow().floor;
                if self.seen < floor {
                    return Err(WatchError::Compacted { floor });
                }
                match events.last() {
                    Some(last) if !whole => {
                        self.at = read::behind(last);
                        self.seen = self.seen.max(last.index - 1);
                    }
                    _ => (self.at, self.seen) = (read::end_of(upto), upto),
                }
                if !events.is_empty() {
                    return Ok(EventBatch { events, index: self.seen });
                }
            }
            self.status.changed().await.map_err(|_| WatchError::Stopped)?;
        }
    }
}
