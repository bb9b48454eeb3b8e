//! The seam between the agent and a runtime: one small trait, implemented for Docker and for libvirt, and by a recording fake in
//! tests. It speaks of one task at a time. A driver acts and reports what is there; it decides nothing, knows no order's fate, and
//! never touches what does not bear this agent's mark.
//!
//! Every runtime object has a deterministic name and carries its [`Mark`], so that a retry, or an agent that lost its memory, finds
//! what is there instead of making it twice.

use std::{sync::Arc, time::Duration};

use futures::stream::BoxStream;
use supercloud_proto::{
    host::DriverInfo,
    id::{InstanceId, LogIndex, Millis, Revision, UnixMillis},
    name::{HostName, TaskName, WorkloadKey},
    order::Order,
    spec::DriverKind,
    v1,
};
use tokio::sync::mpsc;
use tonic::async_trait;

/// Whose agent this is: what it makes bears this, and what does not bear this is none of its business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The cluster, 32 hex digits.
    pub cluster: String,
    /// This host. Two agents may share one runtime; each sees its own.
    pub host: HostName,
}

/// What a runtime object says of itself in labels (Docker) or metadata (libvirt).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whose it is.
    pub owner: Owner,
    /// Instance.
    pub instance: InstanceId,
    /// Workload.
    pub workload: WorkloadKey,
    /// Its revision.
    pub revision: Revision,
    /// Task.
    pub task: TaskName,
    /// Index of the order that made it.
    pub order_index: LogIndex,
}

/// One task to run: the order, and which of its tasks.
#[derive(Debug, Clone)]
pub struct TaskRun {
    /// The mark that its runtime object shall bear.
    pub mark: Mark,
    /// The order. `order.tasks[task]` is the task; its driver matches the driver that is called.
    pub order: Arc<Order>,
    /// Index into `order.tasks`.
    pub task: usize,
    /// On which processors it may run; `None`: on any.
    pub pin: Option<Pin>,
}

/// The processors on which a task may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Ascending, never empty.
    pub cpus: Vec<u16>,
    /// Whether they are its own.
    pub own: bool,
}

/// A runtime object that bears this agent's mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its mark.
    pub mark: Mark,
    /// Container id or domain UUID.
    pub runtime_id: String,
    /// What it does.
    pub phase: Phase,
    /// The processors on which it may run, ascending, where it was told which; `None`: any.
    pub cpus: Option<Vec<u16>>,
}

/// What a runtime object does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It was made and never started.
    Created,
    /// It runs.
    Running {
        /// Since when, by the world's clock, where the runtime tells.
        since: Option<UnixMillis>,
    },
    /// It runs no more.
    Ended {
        /// Exit code; a VM has none.
        exit_code: Option<i32>,
        /// When.
        at: Option<UnixMillis>,
        /// Why, in words: "exit code 1", "killed by signal 9", "out of memory", "guest shut down", "destroyed".
        reason: String,
    },
}

/// Why a driver could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The runtime did not answer in time or not at all: nothing is known, the object may well run. The host is degraded.
    #[error("{runtime} does not answer: {reason}")]
    Silent {
        /// "docker" or "libvirt".
        runtime: &'static str,
        /// What was tried and what came back.
        reason: String,
    },
    /// The runtime refuses this very task, and would again: image missing, bad path, port taken. Counts as an attempt.
    #[error("{0}")]
    Refused(String),
    /// There is no such object.
    #[error("no such object")]
    Missing,
}

/// Something may have changed; look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// About this instance.
    Instance(InstanceId),
    /// About anything: events may have been missed.
    Anything,
}

/// What logs to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is written later, until the object is gone or the reader stops.
    pub follow: bool,
    /// Only this many last lines.
    pub tail: Option<u32>,
}

/// A running exec: input goes in, output comes out and ends with the exit code.
pub struct ExecIo {
    /// Input and new terminal sizes. Dropping it ends standard input.
    pub input: mpsc::Sender<v1::exec_request::Message>,
    /// Output; the last item is an exit code.
    pub output: BoxStream<'static, Result<v1::exec_response::Message, DriverError>>,
}

/// A runtime. Every call has a deadline of its own and answers [`DriverError::Silent`] past it; every call may be repeated.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Which.
    fn kind(&self) -> DriverKind;

    /// Whether the runtime answers, which version it is, what acceleration was probed to work.
    async fn probe(&self) -> DriverInfo;

    /// All objects that bear the owner's mark, whatever they do. Objects with a damaged mark are left out and logged.
    async fn list(&self) -> Result<Vec<Seen>, DriverError>;

    /// Makes ready what the task needs and may take long: pulls the image, fetches or checks disk images. `Refused` says what is missing.
    async fn prepare(&self, run: &TaskRun) -> Result<(), DriverError>;

    /// Makes the object under its deterministic name, unless it is there, and starts it, unless it runs. Also starts an ended one anew.
    async fn start(&self, run: &TaskRun) -> Result<Seen, DriverError>;

    /// Asks the task to stop and kills it after `grace`. Fine when it does not run; `Missing` when it is not there.
    async fn stop(&self, seen: &Seen, grace: Millis) -> Result<(), DriverError>;

    /// Lets a running task run on these processors and no others.
    async fn pin(&self, seen: &Seen, pin: &Pin) -> Result<(), DriverError>;

    /// Removes the object with all that was made for it alone (overlay disks, seed images, logs). Fine when it is not there. Named
    /// volumes of a workload stay.
    async fn remove(&self, seen: &Seen) -> Result<(), DriverError>;

    /// What the task has written.
    async fn logs(
        &self,
        seen: &Seen,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<v1::LogsResponse, DriverError>>, DriverError>;

    /// Runs a command in the task. A VM refuses.
    async fn exec(&self, seen: &Seen, start: v1::ExecStart) -> Result<ExecIo, DriverError>;

    /// Hints that something changed. Ends never; after a gap it says [`Hint::Anything`].
    fn hints(&self) -> BoxStream<'static, Hint>;
}

/// The reason of an ended VM whose guest shut itself down. A batch VM has no exit code: this is how it says that its work is done.
pub const SHUT_DOWN: &str = "guest shut down";

/// Deadline of a call that only asks.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of a call that makes, starts or removes, beyond any grace.
pub const ACT_DEADLINE: Duration = Duration::from_secs(90);
/// Deadline of a preparation: a large image over a slow line.
pub const PREPARE_DEADLINE: Duration = Duration::from_secs(1800);
