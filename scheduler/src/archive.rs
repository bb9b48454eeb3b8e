//! The archive of one node: events and finished instances, looked up by borough, workload, instance and host, followed live, and resumed.
//!
//! ```text
//!   Replica ──Feed──> queue (bounded) ──> writer (one thread) ──> sled, flush, fdatasync ──> Status (index)
//!                                           ^                                                   │
//!   peers ──FetchArchive── heal ────────────┘                      list, finished, subscribe <──┘
//! ```
//!
//! Decisions
//! * **It can be lost.** No acknowledged write hangs on it. A store that does not open is set aside with an alarm and filled again from
//!   the other nodes; so is what was missed because the archive was slow or because a snapshot went past the log.
//! * **Whole up to an index.** What is archived is everything up to [`Status::index`] and after [`Status::floor`]. A batch that does not
//!   continue it waits while the gap is filled; where nobody can fill it, the floor rises and the loss is told.
//! * **Applied twice, archived once.** After a restart the log is applied again from the last snapshot; batches up to the index are
//!   passed over.
//! * **A subscription reads the store**, it is not sent to: so it has no buffer that overflows, and whoever is slow is just late. It ends
//!   only when what it has not seen is no longer kept.
//! * **Events lie in blocks** of at most 8 KiB, as many of one batch as fit, with one key a block and borough, workload or host that occurs
//!   in it. A thousand placements cost some fifty keys and not four thousand.
//!
//! Files, from the ground: `record`, `store` · `read` · `writer` · `subscription` · `heal`.

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
    time::Duration,
};

use supercloud_proto::{
    id::{InstanceId, LogIndex},
    v1,
};
use tokio::sync::watch;

pub(crate) mod heal;
mod read;
mod record;
mod store;
mod subscription;
#[cfg(test)]
mod tests;
mod writer;

pub use read::{EventFilter, EventList, MAX_LISTED};
pub use record::event_message;
pub use subscription::{EventBatch, Subscription, WatchError};

use store::{Store, StoreError};
pub(crate) use writer::Message;

/// Batches that wait for the writer.
const MAX_QUEUED_BATCHES: usize = 16_384;
/// Events and instances in them: some seconds of the busiest cluster, below 200 MiB.
const MAX_QUEUED_RECORDS: usize = 200_000;
/// Longest wait of a reader for what was applied before it asked.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for the writer to end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events; the oldest go first.
    pub events: u64,
    /// Finished instances; those created first go first.
    pub finished: u64,
}

impl Default for Retention {
    /// About a GiB of disk at most.
    fn default() -> Self {
        Self { events: 1_000_000, finished: 200_000 }
    }
}

/// What an archive must be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its directory. Belongs to it alone.
    pub directory: PathBuf,
    /// The cluster; an archive of another one is set aside.
    pub cluster: String,
    /// How much is kept.
    pub retention: Retention,
}

/// What one batch of the log brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// It goes on from this log index.
    pub after: LogIndex,
    /// Up to this one.
    pub index: LogIndex,
    /// Events, in order.
    pub events: Vec<v1::Event>,
    /// Instances that left the state, each with the index at which it did.
    pub finished: Vec<(LogIndex, v1::Instance)>,
}

impl Batch {
    fn records(&self) -> usize {
        self.events.len() + self.finished.len()
    }
}

/// Where the archive stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Everything up to this log index is archived.
    pub index: LogIndex,
    /// The same, and on disk.
    pub durable: LogIndex,
    /// Up to and including this index events are no longer kept, or were never had.
    pub floor: LogIndex,
    /// What is missing before what waits: up to this index. `None`: nothing.
    pub gap: Option<LogIndex>,
    /// Why nothing can be archived at present.
    pub broken: Option<String>,
}

/// Why the archive does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not open; it will be again.
    #[error("the archive is not available: {0}")]
    Unavailable(String),
    /// It turned out to be damaged, and is filled again from the other nodes.
    #[error("the archive is damaged and is being filled again: {0}")]
    Damaged(String),
}

/// A handle on the archive. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    shared: Arc<Shared>,
}

struct Shared {
    slot: RwLock<Option<Arc<Store>>>,
    status: watch::Sender<Status>,
    queue: SyncSender<Message>,
    queued: AtomicUsize,
    /// Index of the last batch that was handed over, kept or not.
    reached: AtomicU64,
    /// The last batch did not fit the queue.
    overflowing: AtomicBool,
}

/// Where the replica hands over what happened. Never blocks.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

/// Tells a snapshot how far the archive is on disk.
#[derive(Clone)]
pub struct Durable {
    status: watch::Receiver<Status>,
}

impl Durable {
    /// Whether everything up to `index` is on disk, or will not be for a reason that waiting does not mend.
    #[must_use]
    pub fn reaches(&self, index: LogIndex) -> bool {
        let status = self.status.borrow();
        status.durable >= index || status.broken.is_some() || status.gap.is_some()
    }
}

impl Feed {
    /// Hands over a batch. What is archived already is passed over; what does not fit the queue is left out and healed later.
    pub fn push(&self, batch: Batch) {
        let shared = &self.shared;
        shared.reached.store(batch.index, Ordering::Release);
        if batch.index <= shared.status.borrow().index {
            return;
        }
        let records = batch.records();
        let queued = shared.queued.fetch_add(records, Ordering::AcqRel);
        let fits = queued == 0 || queued + records <= MAX_QUEUED_RECORDS;
        let refused = if fits { shared.queue.try_send(Message::Batch(batch)).err() } else { None };
        match refused {
            None if fits => return shared.overflowing.store(false, Ordering::Release),
            Some(TrySendError::Disconnected(_)) => {}
            // Told once a burst.
            _ if shared.overflowing.swap(true, Ordering::AcqRel) => {}
            _ => tracing::warn!("the archive is too slow; what it misses is fetched from another node later"),
        }
        shared.queued.fetch_sub(records, Ordering::AcqRel);
    }

    /// For a snapshot.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable { status: self.shared.status.subscribe() }
    }
}

impl Archive {
    /// Opens the archive and starts its writer. Blocks while the store recovers. An archive that cannot be used is set aside or, when
    /// the disk refuses altogether, opened later: this never fails, see [`Status::broken`].
    #[must_use]
    pub fn open(settings: Settings) -> (Self, Feed) {
        let (queue, messages) = std::sync::mpsc::sync_channel(MAX_QUEUED_BATCHES);
        let shared = Arc::new(Shared {
            slot: RwLock::new(None),
            status: watch::channel(Status::default()).0,
            queue,
            queued: AtomicUsize::new(0),
            reached: AtomicU64::new(0),
            overflowing: AtomicBool::new(false),
        });
        writer::start(settings, shared.clone(), messages);
        (Self { shared: shared.clone() }, Feed { shared })
    }

    /// A feed that leads nowhere, for a simulation: what happened is forgotten, and no snapshot waits for it.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn absent() -> Feed {
        let (queue, _nobody) = std::sync::mpsc::sync_channel(1);
        let absent = Status { broken: Some("there is none".to_owned()), ..Status::default() };
        let shared = Shared {
            slot: RwLock::new(None),
            status: watch::channel(absent).0,
            queue,
            queued: AtomicUsize::new(0),
            reached: AtomicU64::new(0),
            overflowing: AtomicBool::new(false),
        };
        Feed { shared: Arc::new(shared) }
    }

    /// Where it stands, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Waits until everything up to a log index is archived; not for longer than a reader should wait, and not where waiting does not help.
    pub async fn reach(&self, index: LogIndex) {
        let mut status = self.status();
        let is_there =
            |status: &Status| status.index >= index || status.broken.is_some() || status.gap.is_some();
        if tokio::time::timeout(READ_PATIENCE, status.wait_for(is_there)).await.is_err() {
            tracing::warn!(index, "the archive lags behind; it is read as it is");
        }
    }

    /// The latest kept events that match, oldest first.
    ///
    /// # Errors
    /// When the archive is not open, or damaged.
    pub async fn events(&self, filter: EventFilter, limit: usize) -> Result<EventList, ArchiveError> {
        self.read(move |store, status| read::events(store, status, &filter, limit)).await
    }

    /// An instance that has left the state, as it last was; `None` when there was none, or it is no longer kept.
    ///
    /// # Errors
    /// When the archive is not open, or damaged.
    pub async fn finished(&self, id: InstanceId) -> Result<Option<v1::Instance>, ArchiveError> {
        self.read(move |store, _| Ok(store.finished(id)?.map(|(_, instance)| instance))).await
    }

    /// Follows the events after a log index, or from now on.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when events after that index are no longer kept.
    pub fn subscribe(&self, after: Option<LogIndex>) -> Result<Subscription, WatchError> {
        Subscription::new(self.clone(), after)
    }

    /// Ends the writer, which syncs first, and waits for it. What is handed over later is left out.
    pub async fn stop(&self) {
        let shared = self.shared.clone();
        // The queue may be full for a moment; the writer takes everything before it.
        let sent = tokio::task::spawn_blocking(move || shared.queue.send(Message::Stop).is_ok()).await;
        let mut status = self.status();
        let ended = status.wait_for(|status| status.broken.as_deref() == Some(writer::STOPPED));
        if sent.unwrap_or(false) && tokio::time::timeout(STOP_DEADLINE, ended).await.is_err() {
            tracing::warn!("the archive's writer did not end in time");
        }
    }

    /// Reads on a thread that may block. What turns out to be damaged is told to the writer, which sets the store aside.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store, &Status) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let status = shared.status.borrow().clone();
            let Some(store) = shared.store() else {
                let why = status.broken.unwrap_or_else(|| "it is being opened".to_owned());
                return Err(ArchiveError::Unavailable(why));
            };
            read(&store, &status).map_err(|error| match error {
                StoreError::Damaged(what) => {
                    // A full queue only means that the next reader tells it.
                    let _ = shared.queue.try_send(Message::Damaged(what.clone()));
                    ArchiveError::Damaged(what)
                }
                error => ArchiveError::Unavailable(error.to_string()),
            })
        });
        task.await.unwrap_or_else(|error| Err(ArchiveError::Unavailable(error.to_string())))
    }
}

impl Shared {
    fn store(&self) -> Option<Arc<Store>> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put_store(&self, store: Option<Arc<Store>>) -> Option<Arc<Store>> {
        std::mem::replace(&mut *self.slot.write().unwrap_or_else(PoisonError::into_inner), store)
    }
}
