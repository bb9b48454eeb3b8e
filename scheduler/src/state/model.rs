//! What the replicated state is made of: boroughs, workloads, instances, hosts and tokens as records. Plain data; what may happen to
//! them is decided in `apply`, and nothing here knows the log, a clock or a wire.

use std::sync::Arc;

use imbl::Vector;
use supercloud_proto::{
    amount::Amounts,
    host::{HostState, Inventory},
    id::{HostId, InstanceId, LogIndex, Revision, UnixMillis},
    instance::{Desired, InstanceState, TaskStatus},
    name::{BoroughName, HostName, WorkloadKey},
    spec::WorkloadSpec,
};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borough {
    /// Its name.
    pub name: BoroughName,
    /// As people write it.
    pub title: String,
    /// When it was created.
    pub created: UnixMillis,
}

/// A workload with its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Borough and name.
    pub key: WorkloadKey,
    /// Kept revisions, oldest first, never empty; the last is the present one. Those that instances still run are always kept.
    pub revisions: Vector<Arc<RevisionRecord>>,
    /// Whether it was stopped: its instances go and none come.
    pub stopped: bool,
    /// Whether it is forgotten once its instances are gone.
    pub purging: bool,
    /// When it was created.
    pub created: UnixMillis,
    /// When it was last changed.
    pub changed: UnixMillis,
    /// Log index of the last change.
    pub changed_index: LogIndex,
}

/// One revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRecord {
    /// Its number, from 1.
    pub revision: Revision,
    /// What was wanted. In the present revision `count` follows every scale.
    pub spec: Arc<WorkloadSpec>,
    /// When it was applied.
    pub applied: UnixMillis,
    /// Who applied it.
    pub applied_by: String,
}

impl Workload {
    /// The present revision.
    pub fn current(&self) -> &Arc<RevisionRecord> {
        #[expect(
            clippy::expect_used,
            reason = "every constructor pushes a revision and pruning keeps the last one"
        )]
        self.revisions.last().expect("a workload has a revision")
    }

    /// A kept revision by its number.
    pub fn revision(&self, revision: Revision) -> Option<&Arc<RevisionRecord>> {
        self.revisions.iter().rev().find(|record| record.revision == revision)
    }

    /// Instances wanted now.
    pub fn wanted(&self) -> u32 {
        if self.stopped { 0 } else { self.current().spec.count }
    }
}

/// One running copy of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Id.
    pub id: InstanceId,
    /// Whose.
    pub workload: WorkloadKey,
    /// Revision that it runs; always kept in the workload while this exists.
    pub revision: Revision,
    /// What that revision wants; shared with the workload's record.
    pub spec: Arc<WorkloadSpec>,
    /// Which copy, from 0. At most one instance of a slot has `desired == Run`.
    pub slot: u32,
    /// What is wanted of it.
    pub desired: Desired,
    /// Why, where there is more to say than the spec does.
    pub desired_reason: Arc<str>,
    /// Where it is; `None` while pending.
    pub placed: Option<Placed>,
    /// What is seen of it.
    pub state: InstanceState,
    /// Why it is in that state.
    pub state_reason: Arc<str>,
    /// Log index of the latest decision about it.
    pub order_index: LogIndex,
    /// Created at.
    pub created: UnixMillis,
    /// State last changed at.
    pub changed: UnixMillis,
    /// Not to be placed before; 0: at once.
    pub not_before: UnixMillis,
    /// Its tasks as last reported.
    pub tasks: Vec<TaskStatus>,
    /// The one it took over from.
    pub replaces: Option<InstanceId>,
    /// Failed instances in a row in this slot before it.
    pub failures: u32,
    /// Sequence of the last report taken into account.
    pub report_sequence: u64,
}

/// Where an instance is and what it takes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its host.
    pub host: HostId,
    /// Host ports, in the order of [`WorkloadSpec::ports`].
    pub ports: Vec<u16>,
    /// What it takes there, with a VM's overhead, as decided when it was placed.
    pub taken: Amounts,
}

impl Instance {
    /// Its host.
    pub fn host(&self) -> Option<HostId> {
        self.placed.as_ref().map(|placed| placed.host)
    }

    /// Whether it waits for a host.
    pub fn is_pending(&self) -> bool {
        self.desired == Desired::Run && self.placed.is_none()
    }

    /// Whether it still takes what it was given: everything placed does, until its host says that it is over, or the host is gone.
    pub fn takes(&self) -> Option<&Placed> {
        self.placed.as_ref().filter(|_| !self.state.is_over())
    }
}

/// A machine with an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Number.
    pub id: HostId,
    /// Name.
    pub name: HostName,
    /// What it is.
    pub inventory: Arc<Inventory>,
    /// Id of its agent's installation.
    pub incarnation: String,
    /// Verdict.
    pub state: HostState,
    /// Why.
    pub state_reason: String,
    /// Since when.
    pub state_since: UnixMillis,
    /// Whether it takes new work when it is ready.
    pub schedulable: bool,
    /// When it first registered.
    pub registered: UnixMillis,
    /// Log index of the last change of its orders; sessions send what is newer than what they sent.
    pub orders_index: LogIndex,
}

/// A join token. Its secret is known to nobody but the bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Id, part of its text.
    pub id: String,
    /// SHA-256 of the secret.
    pub secret_hash: Vec<u8>,
    /// What the bearer becomes.
    pub grant: Grant,
    /// When it lapses.
    pub expires: UnixMillis,
}

/// What the bearer of a token becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// A node of the cluster.
    Scheduler,
    /// The agent of this host.
    Agent(HostName),
    /// An operator of this name.
    Operator(String),
    /// A person of a borough.
    Borough(BoroughName, String),
}

/// Something that happened, for the archive and for watchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Log index.
    pub index: LogIndex,
    /// Place among the events of that index.
    pub ordinal: u32,
    /// When.
    pub time: UnixMillis,
    /// What.
    pub kind: EventKind,
    /// What it is about.
    pub subject: Subject,
    /// In words.
    pub message: String,
    /// Who caused it.
    pub by: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// Owner.
    pub borough: Option<BoroughName>,
    /// Workload.
    pub workload: Option<WorkloadKey>,
    /// Instance.
    pub instance: Option<InstanceId>,
    /// Host.
    pub host: Option<HostName>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A borough was created.
    BoroughCreated,
    /// A workload was created or changed.
    WorkloadApplied,
    /// Its count was changed.
    WorkloadScaled,
    /// It was stopped.
    WorkloadStopped,
    /// It was forgotten.
    WorkloadPurged,
    /// An instance was created.
    InstanceCreated,
    /// It got a host.
    InstancePlaced,
    /// Its state changed.
    InstanceState,
    /// A task of it was started anew.
    InstanceRestarted,
    /// It was told to stop.
    InstanceStopping,
    /// It is gone.
    InstanceGone,
    /// A host runs something of ours that nobody ordered.
    InstanceUnrecognised,
    /// A host registered or changed.
    HostRegistered,
    /// The verdict about a host changed.
    HostState,
    /// A host was opened or closed.
    HostSchedulable,
    /// A host was forgotten.
    HostRemoved,
    /// A join token was made.
    TokenCreated,
    /// A join token was used.
    TokenUsed,
    /// Every member knows a higher feature level.
    LevelRaised,
}

impl EventKind {
    /// Its word, as the API and the CLI show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BoroughCreated => "borough-created",
            Self::WorkloadApplied => "workload-applied",
            Self::WorkloadScaled => "workload-scaled",
            Self::WorkloadStopped => "workload-stopped",
            Self::WorkloadPurged => "workload-purged",
            Self::InstanceCreated => "instance-created",
            Self::InstancePlaced => "instance-placed",
            Self::InstanceState => "instance-state",
            Self::InstanceRestarted => "instance-restarted",
            Self::InstanceStopping => "instance-stopping",
            Self::InstanceGone => "instance-gone",
            Self::InstanceUnrecognised => "instance-unrecognised",
            Self::HostRegistered => "host-registered",
            Self::HostState => "host-state",
            Self::HostSchedulable => "host-schedulable",
            Self::HostRemoved => "host-removed",
            Self::TokenCreated => "token-created",
            Self::TokenUsed => "token-used",
            Self::LevelRaised => "level-raised",
        }
    }
}
