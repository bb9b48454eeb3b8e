//! The thread that writes and syncs the log, so that raft's own thread goes on meanwhile. Knows the engine and bytes.
//!
//! Whatever has gathered while it wrote goes to the disk together: each write is a batch of the engine (all of it or
//! nothing after a crash), and one sync ends them all. The engine syncs a file before it begins the next one, so the
//! sync of the last write covers those before it. Tickets are told in their order, after the sync, never before.
//!
//! The queue has no bound of its own: raft bounds what it holds (`limits::MAX_UNCOMMITTED_BYTES` on a leader, the
//! messages in flight on a follower).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use prost::Message as _;
use raft_engine::{Command, Engine, LogBatch};

use super::limits::MAX_MERGED_WRITES;
use super::log_store::{LogWrite, OnWritten, StoreError, Ticket};
use super::meter::Meter;
use super::record::{Record, Records};

/// The only raft group there is.
pub(super) const GROUP: u64 = 1;
pub(super) const BASE: &[u8] = b"base";
pub(super) const HARD_STATE: &[u8] = b"hard-state";
pub(super) const INSTALLING: &[u8] = b"installing";
pub(super) const OWNER: &[u8] = b"owner";

/// A place in the log, as its value in the engine.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredPosition {
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
}

/// Who is told when a job is done.
enum Done {
    Ticket(Ticket),
    Caller(mpsc::SyncSender<Result<(), StoreError>>),
}

/// One write on its way. Always holds a hard state, so that it is never an empty batch, which the engine would not sync.
struct Job {
    write: LogWrite,
    /// Forget everything up to here, with `write.base`.
    forget: Option<u64>,
    sync: bool,
    done: Done,
}

/// The way to the thread. Ends it, and waits for its end, when dropped.
pub(super) struct EngineWriter {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    synced_term: Arc<AtomicU64>,
    directory: String,
    meter: Meter,
}

impl EngineWriter {
    /// Starts the thread. `term` is that of the hard state on disk.
    pub(super) fn start(
        engine: Arc<Engine>,
        directory: String,
        term: u64,
        written: OnWritten,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let synced_term = Arc::new(AtomicU64::new(term));
        let meter = Meter::default();
        let (name, measured) = (directory.clone(), meter.clone());
        let worker = Worker { engine, directory: name, synced_term: synced_term.clone(), meter: measured };
        let thread = thread::Builder::new()
            .name("raft-disk".to_owned())
            .spawn(move || worker.run(&queue, &written))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), synced_term, directory, meter })
    }

    /// The highest term that is known to be on disk.
    pub(super) fn synced_term(&self) -> u64 {
        self.synced_term.load(Ordering::Acquire)
    }

    /// What the thread measures.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(super) fn submit(&self, write: LogWrite, forget: Option<u64>, ticket: Ticket) {
        // A thread that has ended has told why before.
        self.send(Job { write, forget, sync: true, done: Done::Ticket(ticket) });
    }

    pub(super) fn write(&self, write: LogWrite, forget: Option<u64>, sync: bool) -> Result<(), StoreError> {
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        if own == Some(thread::current().id()) {
            // It takes turns of the node as well, and would wait for itself for ever; `Node::is_at_ease` keeps such turns from it.
            return Err(StoreError::Write {
                directory: self.directory.clone(),
                found: "the thread that writes it was to wait for itself".to_owned(),
            });
        }
        let (caller, answer) = mpsc::sync_channel(1);
        self.send(Job { write, forget, sync, done: Done::Caller(caller) });
        let ended = |_| StoreError::Write {
            directory: self.directory.clone(),
            found: "the thread that writes it has ended".to_owned(),
        };
        answer.recv().map_err(ended)?
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A job that nobody takes is answered by its own drop: the caller's channel closes, a ticket never comes.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for EngineWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has caught its own panic.
            let _ = thread.join();
        }
    }
}

struct Worker {
    engine: Arc<Engine>,
    directory: String,
    synced_term: Arc<AtomicU64>,
    meter: Meter,
}

impl Worker {
    fn run(&self, queue: &mpsc::Receiver<Job>, written: &OnWritten) {
        while let Ok(first) = queue.recv() {
            let more = queue.try_iter().take(MAX_MERGED_WRITES - 1);
            let jobs: Vec<Job> = std::iter::once(first).chain(more).collect();
            // The engine panics when a sync fails; that must reach the node, and end the process.
            let outcome =
                std::panic::catch_unwind(AssertUnwindSafe(|| self.round(jobs))).unwrap_or_else(|_| {
                    Err(self.unwritten(&"the engine panicked, as it does when a sync fails"))
                });
            match outcome {
                Ok(Some(ticket)) => written(Ok(ticket)),
                Ok(None) => {}
                Err(error) => return written(Err(error)),
            }
        }
    }

    /// Writes jobs in their order, syncs once, answers those who wait. Gives the last ticket among them.
    fn round(&self, jobs: Vec<Job>) -> Result<Option<Ticket>, StoreError> {
        let sync = jobs.iter().any(|job| job.sync);
        let last = jobs.len() - 1;
        let began = Instant::now();
        let entries: usize = jobs.iter().map(|job| job.write.entries.len()).sum();
        let (mut term, mut ticket, mut callers) = (0, None, Vec::new());
        for (place, job) in jobs.into_iter().enumerate() {
            term = term.max(job.write.hard_state.map_or(0, |state| state.term));
            let mut batch = batch(job.write, job.forget).map_err(|error| self.unwritten(&error))?;
            self.engine.write(&mut batch, sync && place == last).map_err(|error| self.unwritten(&error))?;
            match job.done {
                Done::Ticket(number) => ticket = Some(number),
                Done::Caller(caller) => callers.push(caller),
            }
        }
        if sync {
            self.meter.sync_seconds.observe(began.elapsed().as_secs_f64());
            self.meter.sync_entries.observe(entries as f64);
            self.synced_term.fetch_max(term, Ordering::AcqRel);
        }
        for caller in callers {
            // It waits for this.
            let _ = caller.send(Ok(()));
        }
        Ok(ticket)
    }

    fn unwritten(&self, found: &dyn std::fmt::Display) -> StoreError {
        StoreError::Write { directory: self.directory.clone(), found: found.to_string() }
    }
}

fn batch(write: LogWrite, forget: Option<u64>) -> Result<LogBatch, raft_engine::Error> {
    let mut batch = LogBatch::default();
    if let Some(forget) = forget {
        batch.add_command(GROUP, Command::Compact { index: forget + 1 });
    }
    if let Some(base) = write.base {
        let stored = StoredPosition { index: base.index, term: base.term };
        batch.put(GROUP, BASE.to_vec(), stored.encode_to_vec())?;
    }
    let records: Vec<Record> =
        write.entries.into_iter().map(|(index, bytes)| Record::new(index, bytes)).collect();
    batch.add_entries::<Records>(GROUP, &records)?;
    if let Some(hard_state) = write.hard_state {
        batch.put(GROUP, HARD_STATE.to_vec(), hard_state.encode_to_vec())?;
    }
    if let Some(index) = write.installing {
        let stored = StoredPosition { index, term: 0 };
        batch.put(GROUP, INSTALLING.to_vec(), stored.encode_to_vec())?;
    }
    if let Some(owner) = write.owner {
        batch.put(GROUP, OWNER.to_vec(), owner)?;
    }
    Ok(batch)
}
