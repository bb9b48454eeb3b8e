//! The thread that owns a node: waits, ticks, takes turns. The only place here that reads a clock.
//!
//! A fatal fault and a panic (the engine panics when a sync fails) end the process: a node that does not know what is
//! on its disk must not go on, and must not pretend.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Machine;
use super::engine_store::EngineStore;
use super::handle::Log;
use super::inbox::{Inbox, Reports, Taken};
use super::limits::APPENDS_BEFORE_COMPANY;
use super::log_store::StoreError;
use super::meter::Meter;
use super::node::{Control, Fatal, Inputs, Node, SnapshotJob, Status};
use super::open::{self, OpenError, Settings, Start};
use super::transport::Transport;

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
    let sink = inbox.clone();
    let written = move |outcome: Result<_, StoreError>| sink.control(Control::Written(outcome));
    let (node, snapshots, meter) = open::open(&settings, start, machine, random, Box::new(written))?;
    let transport = transport(Reports::new(inbox.clone()));
    let (status, watched) = watch::channel(node.status());
    let (stopped, has_stopped) = watch::channel(false);
    let measured = meter.clone();
    let owner = Owner {
        node,
        inbox: inbox.clone(),
        transport,
        status,
        tick: settings.tick,
        job: None,
        meter: measured,
    };
    let io = |source| OpenError::Io { path: "a thread".to_owned(), source };
    thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || {
            run_or_abort(owner);
            // Nobody may be left to hear it.
            let _ = stopped.send(true);
        })
        .map_err(io)?;
    Ok(Log::new(settings.cluster, inbox, watched, has_stopped, snapshots).measured_by(meter))
}

struct Owner<M: Machine, T> {
    node: Node<M, EngineStore>,
    inbox: Arc<Inbox<M::Outcome>>,
    transport: T,
    status: watch::Sender<Status>,
    tick: Duration,
    job: Option<thread::JoinHandle<()>>,
    meter: Meter,
}

fn run_or_abort<M: Machine, T: Transport>(mut owner: Owner<M, T>) {
    let inbox = owner.inbox.clone();
    match std::panic::catch_unwind(AssertUnwindSafe(|| owner.run())) {
        Ok(Ok(())) => {}
        Ok(Err(fatal)) => abort(&fatal),
        Err(_) => abort(&"the log's thread panicked"),
    }
    inbox.close();
}

fn abort(why: &dyn std::fmt::Display) -> ! {
    tracing::error!(%why, "the log cannot go on, the process ends");
    // The log line may sit in a buffer that nobody flushes any more.
    eprintln!("supercloud-scheduler: the log cannot go on, the process ends: {why}");
    std::process::abort()
}

impl<M: Machine, T: Transport> Owner<M, T> {
    fn run(&mut self) -> Result<(), Fatal> {
        let mut due = Instant::now() + self.tick;
        let mut more = false;
        loop {
            let now = Instant::now();
            let wait = if more { Duration::ZERO } else { due.saturating_duration_since(now) };
            let company = self.node.appends_under_way() >= APPENDS_BEFORE_COMPANY;
            let mut inputs = match self.inbox.take(wait, company) {
                Taken::Inputs(inputs) => inputs,
                Taken::Stop => break,
            };
            let now = Instant::now();
            inputs.tick = now >= due;
            if inputs.tick {
                // At most one tick a turn: whoever was held up must hear the others before it judges them.
                due = now + self.tick;
            }
            more = self.turn(inputs)?;
        }
        self.node.stop();
        if let Some(job) = self.job.take() {
            // A snapshot that is being written ends first; the directory may be opened again right after.
            let _ = job.join();
        }
        Ok(())
    }

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
            let changed = *known != status;
            *known = status;
            changed
        });
        Ok(more)
    }

    fn spawn(&self, job: Box<SnapshotJob<M>>) -> std::io::Result<thread::JoinHandle<()>> {
        let inbox = self.inbox.clone();
        thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            match std::panic::catch_unwind(AssertUnwindSafe(|| job.run())) {
                Ok(result) => inbox.control(Control::SnapshotTaken(result.map(Box::new))),
                Err(_) => abort(&"the snapshot's thread panicked"),
            }
        })
    }
}
