//! Instances as seen: states, tasks, ports and the reports of agents. Conversions stand in `wire`.

use crate::{
    id::{InstanceId, LogIndex, UnixMillis},
    name::{PortName, TaskName},
    spec::Protocol,
};

mod wire;

/// What is wanted of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Desired {
    /// It shall run.
    Run,
    /// It shall stop and leave nothing behind.
    Stop,
}

/// What is seen of an instance or a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceState {
    /// No host yet.
    Pending,
    /// Its host has the order, or will soon.
    Placed,
    /// Image or disks are being made ready.
    Preparing,
    /// The runtime starts it.
    Starting,
    /// All tasks run.
    Running,
    /// Ended by itself; to be started anew.
    Restarting,
    /// Asked to stop, not yet gone.
    Stopping,
    /// Nothing is left of it on its host.
    Stopped,
    /// A batch that ended well.
    Completed,
    /// Ended, restarts used up.
    Failed,
    /// The runtime does not answer.
    Unknown,
    /// Its host is lost.
    Lost,
}

impl InstanceState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::Placed,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::Restarting,
        Self::Stopping,
        Self::Stopped,
        Self::Completed,
        Self::Failed,
        Self::Unknown,
        Self::Lost,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Placed => "placed",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Lost => "lost",
        }
    }

    /// Whether it runs no more and will not by itself: it needs nothing of its host but the clearing away.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed)
    }
}

/// One task as its host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    /// Which.
    pub name: TaskName,
    /// Its state.
    pub state: InstanceState,
    /// Container id or domain UUID; empty: not made yet.
    pub runtime_id: String,
    /// Start of the present run.
    pub started: Option<UnixMillis>,
    /// End of the last run.
    pub finished: Option<UnixMillis>,
    /// Exit code of the last run.
    pub exit_code: Option<i32>,
    /// Times it was started anew on this host.
    pub restarts: u32,
    /// Why it is in that state, or why it last ended.
    pub reason: String,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// Name in the spec.
    pub name: PortName,
    /// Task that listens.
    pub task: TaskName,
    /// Inside the container.
    pub port: u16,
    /// On the host.
    pub host_port: u16,
    /// Address of the host.
    pub address: String,
    /// Transport.
    pub protocol: Protocol,
}

/// What an agent saw of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReport {
    /// Which.
    pub instance: InstanceId,
    /// Grows with every report of the host, also over restarts.
    pub sequence: u64,
    /// Index of the order acted on; 0: there was none.
    pub order_index: LogIndex,
    /// What it saw.
    pub state: InstanceState,
    /// Why.
    pub reason: String,
    /// Its tasks.
    pub tasks: Vec<TaskStatus>,
    /// When, by the host's clock.
    pub time: UnixMillis,
    /// Found running without an order.
    pub unordered: bool,
}
