//! What the replicated state is made of: boroughs, workloads, instances, hosts and tokens as records. Plain data; what may happen to
//! them is decided in `apply`, and nothing here knows the log, a clock or a wire.

use std::sync::Arc;

use imbl::Vector;
use supercloud_proto::{
    host::{HostState, Inventory},
    id::{HostId, InstanceId, LogIndex, Revision, UnixMillis},
    name::{BoroughName, HostName, WorkloadKey},
    spec::WorkloadSpec,
};

use super::quota::Allowance;

mod cores;
mod devices;
mod instance;
mod ports;
mod task;

pub use cores::{CoresUse, cpu_of, cpus_needed};
pub use devices::DevicesUse;
pub use instance::{Awaited, Background, Instance, Placed};
pub use ports::Ports;
pub use task::{TaskSeen, TaskText};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borough {
    /// Its name.
    pub name: BoroughName,
    /// As people write it.
    pub title: String,
    /// When it was created.
    pub created: UnixMillis,
    /// What it may have.
    pub allowance: Allowance,
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
    /// Of which workload.
    pub key: WorkloadKey,
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
    /// The instances that it happened to, where those are many at once; the subject names none then.
    pub runs: Vec<Run>,
}

/// Instances that follow each other, on one host or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The first one.
    pub first: InstanceId,
    /// How many, created at the same log index one after the other.
    pub count: u32,
    /// Their host.
    pub host: Option<HostName>,
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
    /// What a borough may have was changed, or its title.
    BoroughChanged,
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
    /// Others make way for it on a host.
    InstanceAwaiting,
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
    /// The volumes of a workload no longer keep it on a host.
    VolumesForgotten,
    /// The policy of a site was changed.
    SiteChanged,
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
            Self::BoroughChanged => "borough-changed",
            Self::WorkloadApplied => "workload-applied",
            Self::WorkloadScaled => "workload-scaled",
            Self::WorkloadStopped => "workload-stopped",
            Self::WorkloadPurged => "workload-purged",
            Self::InstanceCreated => "instance-created",
            Self::InstanceAwaiting => "instance-awaiting",
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
            Self::VolumesForgotten => "volumes-forgotten",
            Self::SiteChanged => "site-changed",
            Self::TokenCreated => "token-created",
            Self::TokenUsed => "token-used",
            Self::LevelRaised => "level-raised",
        }
    }
}
