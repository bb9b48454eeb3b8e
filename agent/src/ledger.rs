//! The agent's memory on disk: the orders it accepted, what happened to their tasks, what is still to be reported, and how far the
//! scheduler was heard. It knows no driver and no network, and decides nothing.
//!
//! Decisions:
//! - *sled, by its rules* (its `flush` is no promise across a power cut): one writer thread; every batch is flushed and `fdatasync`ed
//!   before it counts; values stay small enough never to become blobs; each carries a checksum of its own; all in one tree, so that a
//!   batch is whole or absent.
//! - *Read once, at the start.* Afterwards the agent's loop holds the contents in memory and only writes. So the store needs no cache.
//! - *Losing it is not fatal.* A store that does not open, or opens empty although it was used before, is set aside under another name
//!   and a new one is begun; the caller is told, and takes its knowledge from labels and from the scheduler. A record with a bad
//!   checksum is dropped and counted. Report sequences start at the time in microseconds, so that they grow over a lost ledger too.
//! - *A failed write is final.* After a failed sync nobody knows what is on disk: every later write fails too, and the agent ends and is
//!   started anew. Workloads run on.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use supercloud_proto::{
    id::{InstanceId, LogIndex, UnixMillis},
    instance::InstanceReport,
    name::TaskName,
    order::Order,
};
use tokio::sync::{mpsc, oneshot};

mod record;
#[cfg(feature = "simulation")]
mod simulated;
mod store;
#[cfg(test)]
mod tests;

use crate::reconcile::{Histories, history::TaskHistory};
pub use record::LeaseRecord;
#[cfg(feature = "simulation")]
pub use simulated::Memory;

/// Batches that may wait for the writer; it takes all that wait into one sync.
const QUEUE: usize = 256;

/// What the ledger holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// Random id of this ledger, 32 hex digits.
    pub incarnation: String,
    /// Accepted orders.
    pub orders: BTreeMap<InstanceId, Order>,
    /// The highest index ever accepted for each instance, also for some that are forgotten.
    pub fences: BTreeMap<InstanceId, LogIndex>,
    /// Histories.
    pub histories: Histories,
    /// Reports that are not acknowledged.
    pub reports: BTreeMap<InstanceId, InstanceReport>,
    /// The last report sequence given.
    pub sequence: u64,
    /// The last lease.
    pub lease: Option<LeaseRecord>,
    /// Log index of the last full set of orders; 0: there never was one.
    pub synced: LogIndex,
}

/// Something about the ledger that an operator must know; nothing to stop for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The old one could not be used; a new one was begun.
    SetAside {
        /// Where the old one is now.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// Some records could not be read and were dropped.
    Dropped {
        /// How many.
        records: usize,
    },
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SetAside { path, reason } => write!(
                f,
                "the ledger could not be used ({reason}); it was set aside as {} and a new one was begun: what runs is adopted, and \
                 orders come from the scheduler",
                path.display()
            ),
            Self::Dropped { records } => {
                write!(
                    f,
                    "{records} damaged records of the ledger were dropped; they come anew from the scheduler"
                )
            }
        }
    }
}

/// Why no ledger can be had at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent holds it. Two agents must not share one.
    #[error("{path}: another agent is using this ledger")]
    InUse {
        /// The ledger.
        path: PathBuf,
    },
    /// Not even a new one can be made.
    #[error("{path}: no ledger can be made: {reason}")]
    Impossible {
        /// The ledger.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A write is not known to be on disk, nor is any later one. The agent must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot be written: {0}")]
pub struct WriteError(pub String);

/// Changes that become durable together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Bytes to keep under a key, or `None`: remove.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Keeps an order, and its index as the instance's fence.
    pub fn accept(&mut self, order: &Order) -> &mut Self {
        self.set(record::fence_key(order.instance), record::number(order.index));
        self.set(record::order_key(order.instance), record::order(order))
    }

    /// Keeps an instance's fence by itself.
    pub fn fence(&mut self, instance: InstanceId, index: LogIndex) -> &mut Self {
        self.set(record::fence_key(instance), record::number(index))
    }

    /// Drops an order. Its fence stays.
    pub fn drop_order(&mut self, instance: InstanceId) -> &mut Self {
        self.unset(record::order_key(instance))
    }

    /// Drops the fence of an instance that was forgotten long ago.
    pub fn drop_fence(&mut self, instance: InstanceId) -> &mut Self {
        self.unset(record::fence_key(instance))
    }

    /// Keeps a task's history.
    pub fn history(&mut self, instance: InstanceId, task: &TaskName, history: &TaskHistory) -> &mut Self {
        self.set(record::history_key(instance, task), record::history(history))
    }

    /// Drops a task's history.
    pub fn drop_history(&mut self, instance: InstanceId, task: &TaskName) -> &mut Self {
        self.unset(record::history_key(instance, task))
    }

    /// Keeps a report until it is acknowledged, with its sequence as the last given.
    pub fn report(&mut self, report: &InstanceReport) -> &mut Self {
        self.set(record::SEQUENCE.to_vec(), record::number(report.sequence));
        self.set(record::report_key(report.instance), record::report(report))
    }

    /// Drops an acknowledged report.
    pub fn drop_report(&mut self, instance: InstanceId) -> &mut Self {
        self.unset(record::report_key(instance))
    }

    /// Keeps the lease.
    pub fn lease(&mut self, lease: &LeaseRecord) -> &mut Self {
        self.set(record::LEASE.to_vec(), record::lease(lease))
    }

    /// Marks that all orders as of `index` are in.
    pub fn synced(&mut self, index: LogIndex) -> &mut Self {
        self.set(record::SYNCED.to_vec(), record::number(index))
    }

    fn set(&mut self, key: Vec<u8>, value: Vec<u8>) -> &mut Self {
        self.changes.insert(key, Some(value));
        self
    }

    fn unset(&mut self, key: Vec<u8>) -> &mut Self {
        self.changes.insert(key, None);
        self
    }
}

/// Sent to the writer.
struct Write {
    batch: Batch,
    done: oneshot::Sender<Result<(), WriteError>>,
}

/// An open ledger. Dropping it ends the writer once it has written what waits.
#[derive(Debug)]
pub struct Ledger {
    /// `None`: nothing is kept.
    writer: Option<Writer>,
}

/// The way to the thread that writes.
#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<Write>,
    thread: std::thread::JoinHandle<()>,
}

/// An opened ledger with what it holds and what is to be told about it.
#[derive(Debug)]
pub struct Opened {
    /// To write.
    pub ledger: Ledger,
    /// What it held.
    pub contents: Contents,
    /// To tell.
    pub alarms: Vec<Alarm>,
}

impl Ledger {
    /// Opens the ledger in `dir`, or begins one. Blocks: not for the loop. `now` names what is set aside and starts the sequence.
    pub fn open(dir: &Path, now: UnixMillis) -> Result<Opened, OpenError> {
        let mut alarms = Vec::new();
        let loaded = store::open(dir, now, &mut alarms)?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let store = loaded.store;
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write_all(store, waiting))
            .map_err(|error| OpenError::Impossible { path: dir.to_owned(), reason: error.to_string() })?;
        let ledger = Self { writer: Some(Writer { queue, thread }) };
        Ok(Opened { ledger, contents: loaded.contents, alarms })
    }

    /// One that keeps nothing and has no thread, since a ledger is read only when it is opened: for thousands of agents on one machine.
    #[cfg(any(test, feature = "fake"))]
    pub fn forgetful(now: UnixMillis) -> Opened {
        let contents = store::beginning(now);
        Opened { ledger: Self { writer: None }, contents, alarms: Vec::new() }
    }

    /// Writes a batch and returns when it is on disk.
    pub async fn write(&self, batch: Batch) -> Result<(), WriteError> {
        let Some(Writer { queue, .. }) = self.writer.as_ref().filter(|_| !batch.is_empty()) else {
            return Ok(());
        };
        let gone = || WriteError("its writer has ended".to_owned());
        let (done, answer) = oneshot::channel();
        queue.send(Write { batch, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Writes what waits and closes the store. Blocks for as long as that takes.
    pub fn close(self) {
        let Some(Writer { queue, thread }) = self.writer else { return };
        drop(queue);
        if thread.join().is_err() {
            tracing::error!("the ledger's writer broke down");
        }
    }
}

/// The writer: takes all that waits into one batch and one sync.
fn write_all(mut store: store::Store, mut waiting: mpsc::Receiver<Write>) {
    let mut failed: Option<WriteError> = None;
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = first.batch;
        let mut answers = vec![first.done];
        while let Ok(next) = waiting.try_recv() {
            batch.changes.extend(next.batch.changes);
            answers.push(next.done);
        }
        if failed.is_none() {
            failed = store.write(batch.changes).err().map(|error| WriteError(error.to_string()));
        }
        for answer in answers {
            // Nobody waits any more when the loop ended meanwhile; the write has happened all the same.
            let _ = answer.send(failed.clone().map_or(Ok(()), Err));
        }
    }
}
