//! Who takes the turns of a node: whoever brings something. A thread of the log's own ticks, takes the long turns, and is called where
//! nobody else would come. The only place here that reads a clock.
//!
//! # Decision: no hand-over to a thread
//! A write of one client passes through three nodes and comes back. With a thread that owned the node, each message, each proposal and each
//! end of a sync woke that thread, and its answer woke another: eleven in a row, which cost more than the disk. So the node lies
//! under a lock that is only tried: a task that brought something takes the turn itself if the node is free, and otherwise goes away, since
//! whoever has the node looks for more before it goes. What it causes (messages to peers, answers to callers) is then handed on
//! within the same thread of the runtime.
//!
//! Such a turn must be short. What is long by its nature (a snapshot, a change of the membership, a large batch) or by its size
//! (`limits::LONG_TURN_BYTES`) is left to the log's thread, and so is everything that waits for the disk: the disk's own thread takes turns too.
//!
//! A fatal fault and a panic (the engine panics when a sync fails) end the process, whoever takes the turn: a node that does
//! not know what is on its disk must not go on, and must not pretend.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Machine;
use super::engine_store::EngineStore;
use super::handle::Log;
use super::inbox::{Due, Inbox, Reports};
use super::limits::MAX_TURNS_AT_ONCE;
use super::log_store::StoreError;
use super::meter::Meter;
use super::node::{Control, Fatal, Inputs, Node, SnapshotJob, Status};
use super::open::{self, OpenError, Settings, Start};
use super::transport::Transport;

/// Sees to it that a turn is taken.
pub(super) trait Turns: Send + Sync {
    /// Something was put into the inbox. Takes a turn here if the node is free and the turn is short.
    fn take(&self);
}

/// Starts a node and its thread. Blocks while the newest snapshot is restored; the log after it is applied by the
/// thread, so look at `Status::applied` before serving.
///
/// # Errors
/// When the directory is not this node's, not whole, or damaged.
pub fn start<M: Machine, T: Transport>(
    settings: Settings,
    start: &Start,
    machine: M,
    transport: impl FnOnce(Reports) -> T,
) -> Result<Log<M::Outcome>, OpenError> {
    let mut random = [0; 16];
    let io = |source| OpenError::Io { path: "the system's randomness".to_owned(), source };
    getrandom::fill(&mut random).map_err(|error| io(std::io::Error::other(error)))?;
    let inbox = Arc::new(Inbox::new());
    let table: Arc<OnceLock<Arc<Table<M, T>>>> = Arc::default();
    let written = disk_tells(inbox.clone(), table.clone());
    let (node, snapshots, meter) = open::open(&settings, start, machine, random, Box::new(written))?;
    let transport = transport(Reports::new(inbox.clone()));
    let (status, watched) = watch::channel(node.status());
    let (stopped, has_stopped) = watch::channel(false);
    let owner = Owner { node, inbox: inbox.clone(), transport, status, job: None, meter: meter.clone() };
    let seat = Arc::new(Table {
        inbox: inbox.clone(),
        owner: Mutex::new(Some(owner)),
        thread_waits: AtomicBool::new(false),
        company: AtomicBool::new(false),
    });
    // Nobody else sets it.
    let _ = table.set(seat.clone());
    let io = |source| OpenError::Io { path: "a thread".to_owned(), source };
    let turns: Arc<dyn Turns> = seat.clone();
    let tick = settings.tick;
    thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || {
            seat.serve(tick);
            // Nobody may be left to hear it.
            let _ = stopped.send(true);
        })
        .map_err(io)?;
    Ok(Log::new(settings.cluster, inbox, watched, has_stopped, snapshots).measured_by(meter).driven_by(turns))
}

/// What the disk's thread does once it has written: it goes on with what waited for it.
fn disk_tells<M: Machine, T: Transport>(
    inbox: Arc<Inbox<M::Outcome>>,
    table: Arc<OnceLock<Arc<Table<M, T>>>>,
) -> impl Fn(Result<u64, StoreError>) + Send + 'static {
    move |outcome| {
        inbox.control(Control::Written(outcome));
        match table.get() {
            // Once: the next write may be waiting for this thread.
            Some(table) => table.take_up_to(1),
            None => inbox.call(),
        }
    }
}

/// The node, and who waits for it.
struct Table<M: Machine, T> {
    inbox: Arc<Inbox<M::Outcome>>,
    /// `None` once the node has stopped.
    owner: Mutex<Option<Owner<M, T>>>,
    /// The log's thread wants the node, and takes all there is: nobody else is to come before it.
    thread_waits: AtomicBool,
    /// Whether proposals are to wait for company, as of the last turn.
    company: AtomicBool,
}

struct Owner<M: Machine, T> {
    node: Node<M, EngineStore>,
    inbox: Arc<Inbox<M::Outcome>>,
    transport: T,
    status: watch::Sender<Status>,
    job: Option<thread::JoinHandle<()>>,
    meter: Meter,
}

fn abort(why: &dyn std::fmt::Display) -> ! {
    tracing::error!(%why, "the log cannot go on, the process ends");
    // The log line may sit in a buffer that nobody flushes any more.
    eprintln!("supercloud-scheduler: the log cannot go on, the process ends: {why}");
    std::process::abort()
}

/// Does it, or ends the process.
fn or_abort<R>(work: impl FnOnce() -> Result<R, Fatal>) -> R {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => done,
        Ok(Err(fatal)) => abort(&fatal),
        Err(_) => abort(&"a turn of the log panicked"),
    }
}

impl<M: Machine, T: Transport> Turns for Table<M, T> {
    fn take(&self) {
        self.take_up_to(MAX_TURNS_AT_ONCE);
    }
}

impl<M: Machine, T: Transport> Table<M, T> {
    /// Takes as many turns if they are short, and leaves what is due then to the log's thread.
    fn take_up_to(&self, turns: usize) {
        for left in (0..=turns).rev() {
            // Asked anew after each turn, with the node given back: who found it taken meanwhile went away.
            match self.inbox.due(self.wants_company()) {
                Due::Nothing => return,
                Due::Turn if left > 0 => {}
                Due::Turn | Due::LongTurn | Due::Later => break,
            }
            if self.thread_waits.load(Ordering::Acquire) {
                return;
            }
            let mut seat = match self.owner.try_lock() {
                Ok(seat) => seat,
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            };
            let Some(owner) = seat.as_mut() else { return };
            if !owner.node.is_at_ease() {
                break;
            }
            let Some(inputs) = self.inbox.take_short(self.wants_company()) else { continue };
            if self.turn(owner, inputs) {
                break;
            }
        }
        self.inbox.call();
    }

    fn wants_company(&self) -> bool {
        self.company.load(Ordering::Acquire)
    }

    /// One turn. Returns whether there is more to do at once.
    fn turn(&self, owner: &mut Owner<M, T>, inputs: Inputs<M::Outcome>) -> bool {
        let more = or_abort(|| owner.turn(inputs));
        self.company.store(owner.node.wants_company(), Ordering::Release);
        more
    }

    /// What the log's thread does until the node is to stop.
    fn serve(&self, tick: Duration) {
        let mut due = Instant::now() + tick;
        let mut more = false;
        while self.inbox.wait(if more { Instant::now() } else { due }, self.wants_company()) {
            let mut seat = self.lock();
            let Some(owner) = seat.as_mut() else { return };
            let mut inputs = self.inbox.take(self.wants_company());
            let now = Instant::now();
            inputs.tick = now >= due;
            if inputs.tick {
                // At most one tick a turn: whoever was held up must hear the others before it judges them.
                due = now + tick;
            }
            more = self.turn(owner, inputs);
        }
        // Taken out of the lock first: its end waits for the disk's thread, which may be about to take a turn.
        let owner = self.lock().take();
        if let Some(owner) = owner {
            or_abort(|| {
                owner.stop();
                Ok(())
            });
        }
        self.inbox.close();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Owner<M, T>>> {
        self.thread_waits.store(true, Ordering::Release);
        // A turn that panics ends the process.
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        self.thread_waits.store(false, Ordering::Release);
        owner
    }
}

impl<M: Machine, T: Transport> Owner<M, T> {
    fn turn(&mut self, inputs: Inputs<M::Outcome>) -> Result<bool, Fatal> {
        if !inputs.proposals.is_empty() {
            self.meter.batch_proposals.observe(inputs.proposals.len() as f64);
        }
        let more = self.node.turn(inputs, &mut self.transport)?;
        if let Some(job) = self.node.take_job() {
            self.job = Some(self.spawn(job).map_err(Fatal::SnapshotWrite)?);
        }
        let status = self.node.status();
        self.status.send_if_modified(|known| {
            let news = status.is_news_after(known);
            *known = status;
            news
        });
        Ok(more)
    }

    fn stop(mut self) {
        self.node.stop();
        if let Some(job) = self.job.take() {
            // A snapshot that is being written ends first; the directory may be opened again right after.
            let _ = job.join();
        }
    }

    fn spawn(&self, job: Box<SnapshotJob<M>>) -> std::io::Result<thread::JoinHandle<()>> {
        let inbox = self.inbox.clone();
        thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            match std::panic::catch_unwind(AssertUnwindSafe(|| job.run())) {
                Ok(result) => inbox.control(Control::SnapshotTaken(result.map(Box::new))),
                Err(_) => abort(&"the snapshot's thread panicked"),
            }
            inbox.call();
        })
    }
}
