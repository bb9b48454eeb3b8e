//! One node of the scheduler, without its API: the log, the replicated state, the archive, the way to the other nodes, and the loops that
//! run while this node leads. [`Core`] is the one handle that the API holds; it hides every channel. It knows no caller's rights and no
//! session.
//!
//! Decisions
//! * **Any node will do.** A proposal on a follower goes to the leader, heartbeats likewise; reads are confirmed by the leader and served
//!   here.
//! * **Nothing is done twice.** A proposal is repeated by itself only when nothing can have been appended, or when its request id makes the
//!   state answer instead of doing it again. Otherwise the answer is [`ProposeError::OutcomeUnknown`].
//! * **Nothing unreadable is proposed.** An entry that some node cannot decode would stop that node for good, so it is read back before.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use supercloud_proto::{
    id::{LogIndex, Millis, UnixMillis},
    v1::peer_service_client::PeerServiceClient,
};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    archive::{self, Archive, Retention},
    clock,
    compare::{self, Hashes},
    heartbeats::{self, Heartbeats},
    leader::{self, Lead, Timing},
    metrics::Metrics,
    peer_service::{PeerApi, RelayHandler, Service},
    peers::{PeerError, PeerTrust, Peers},
    raft::{self, ChangeError, GrpcTransport, Log, NodeId, OpenError, Role, SnapshotPolicy, Start, Status},
    replica::Replica,
    space,
    state::{
        Command, Entry, Outcome, State,
        level::{self, Level},
    },
    watch as waits,
};

mod contact;
pub(crate) mod health;
pub mod levels;
pub(crate) mod membership;
pub(crate) mod propose;

pub use levels::{Known, LevelTooLow, Levels};
pub use membership::{MemberChange, MemberError};
pub use propose::{PROPOSE_DEADLINE, ProposeError};

/// Longest wait of a read for this node to apply what the leader confirmed; the confirmation has a deadline of its own.
pub const READ_DEADLINE: Duration = Duration::from_secs(5);

/// What a node must be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Id of the cluster, the same on all nodes; the log's and the state's.
    pub cluster: String,
    /// Which history of the cluster the log belongs to; empty: the first. See `restore`.
    pub history: String,
    /// Number of this node.
    pub node: NodeId,
    /// Its data: `raft/` and `archive/` within.
    pub directory: PathBuf,
    /// Where the other nodes reach it, `host:port`.
    pub peer_address: String,
    /// When snapshots are taken.
    pub snapshots: SnapshotPolicy,
    /// Length of a tick of the log; [`raft::limits::TICK`] but for tests.
    pub tick: Duration,
    /// Heartbeats, lease and margin.
    pub timing: Timing,
    /// How much the archive keeps.
    pub retention: Retention,
    /// Feature level that this node says it knows; [`level::KNOWN`] but for tests of mixed versions.
    pub knows: Level,
}

impl Settings {
    /// With everything else as it is in production.
    #[must_use]
    pub fn new(cluster: String, node: NodeId, directory: PathBuf, peer_address: String) -> Self {
        Self {
            cluster,
            history: String::new(),
            node,
            directory,
            peer_address,
            snapshots: SnapshotPolicy::default(),
            tick: raft::limits::TICK,
            timing: Timing::default(),
            retention: Retention::default(),
            knows: level::KNOWN,
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log does not open.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The state was found to differ from the other nodes'.
    #[error("{}: {found}. This node's state is wrong and is not served", .path.display())]
    Deviates {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Whether it was cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The task that opens it was ended.
    #[error("the start was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl StartError {
    /// Whether the node has lost what it had, or must not use it, so that only the other nodes can give it back.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Log(error) => error.is_loss(),
            Self::Deviates { .. } => true,
            Self::Io { .. } | Self::Interrupted(_) => false,
        }
    }
}

/// Why there is no linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed it in time.
    #[error("no leader confirmed the read in time")]
    NoLeader,
    /// This node is too far behind the leader.
    #[error("this node has not applied log index {index} in time")]
    Behind {
        /// The index.
        index: LogIndex,
    },
    /// Too many reads wait.
    #[error("too many reads are waiting")]
    Overloaded,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// The handle. Cheap to clone. A node runs until [`Core::shutdown`].
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: String,
    history: String,
    timing: Timing,
    log: Log<Outcome>,
    nodes: watch::Receiver<Status>,
    terms: watch::Receiver<u64>,
    states: watch::Receiver<State>,
    archive: Archive,
    peers: Peers,
    heartbeats: Heartbeats,
    lead: Lead,
    levels: Levels,
    hashes: Hashes,
    space: Mutex<Option<space::Watch>>,
    deviation: watch::Sender<Option<String>>,
    directory: PathBuf,
    missed: health::Missed,
    contact: contact::Contact,
    metrics: Metrics,
    began: Instant,
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Core {
    /// Opens the node's data and starts everything. Returns before the log after the newest snapshot is applied; a [`Core::read`] that
    /// succeeds shows that it is. Needs the peer port's server to be up soon: see [`Core::peer_service`].
    ///
    /// # Errors
    /// When the log does not open: the directory is another node's, blank though the node is known, or damaged.
    pub async fn start(settings: Settings, start: Start, trust: PeerTrust) -> Result<Self, StartError> {
        refuse_deviating(&settings)?;
        space::make_room(&settings.directory);
        let peers = Peers::new(trust);
        let runtime = Handle::current();
        let opening = {
            let (settings, peers) = (settings.clone(), peers.clone());
            move || open(&settings, &start, &peers, runtime)
        };
        let (log, states, archive, hashes) = tokio::task::spawn_blocking(opening).await??;
        let nodes = log.status();
        let (term, terms) = watch::channel(nodes.borrow().term);
        let log_of_space = log.clone();
        let lead = Lead::new(log.clone());
        let (heartbeats, queue) = Heartbeats::new();
        let metrics = Metrics::new(log.meter());
        let inner = Inner {
            cluster: settings.cluster,
            history: settings.history,
            timing: settings.timing,
            log,
            nodes: nodes.clone(),
            terms,
            states,
            archive: archive.clone(),
            peers: peers.clone(),
            heartbeats,
            lead: lead.clone(),
            levels: Levels::new(settings.knows),
            hashes,
            space: Mutex::new(Some(watch_space(&settings.directory, &log_of_space)?)),
            deviation: watch::channel(None).0,
            directory: settings.directory,
            missed: health::Missed::default(),
            contact: contact::Contact::default(),
            metrics,
            began: Instant::now(),
            tasks: Mutex::new(None),
        };
        let core = Self { inner: Arc::new(inner) };
        let mut tasks = JoinSet::new();
        tasks.spawn(tell_terms(nodes.clone(), term));
        tasks.spawn(heartbeats::run(queue, lead, peers.clone(), nodes.clone(), core.changes()));
        tasks.spawn(archive::heal::run(archive, peers, nodes));
        tasks.spawn(leader::run(core.clone()));
        tasks.spawn(compare::run(core.clone()));
        tasks.spawn(Metrics::count_leaders(core.clone(), core.nodes()));
        tasks.spawn(core.inner.missed.clone().run(core.nodes()));
        tasks.spawn(core.inner.contact.clone().run(core.nodes()));
        *core.tasks() = Some(tasks);
        Ok(core)
    }

    /// Proposes a command, on whichever node leads, and waits until it is on disk on a majority and applied.
    ///
    /// `by` is the caller ("operator:alice"), `request_id` the caller's id for this request, by which a repeated one is answered and not
    /// done again; empty: not remembered. The time is stamped by the clock of the node that leads.
    ///
    /// # Errors
    /// See [`ProposeError`]. A rejection by the state is an [`Outcome`], not an error.
    pub async fn propose(
        &self,
        by: &str,
        request_id: &str,
        command: Command,
    ) -> Result<Outcome, ProposeError> {
        let entry = Entry { time: now(), by: by.to_owned(), request_id: request_id.to_owned(), command };
        let began = Instant::now();
        let answer = propose::anywhere(self, &entry).await;
        self.inner.metrics.proposed(&answer, began.elapsed());
        answer
    }

    /// Proposes a command if this node leads; for the loops that run while it does.
    pub(crate) async fn propose_here(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.admit(&command).await?;
        let entry = Entry { time: now(), by: SCHEDULER.to_owned(), request_id: String::new(), command };
        Ok(self.inner.log.propose(entry.encode()).await?.outcome)
    }

    /// Whether every member knows a command, so that it may be proposed; asked also for one that is only tried.
    ///
    /// # Errors
    /// [`ProposeError::LevelTooLow`].
    pub(crate) async fn admit(&self, command: &Command) -> Result<(), ProposeError> {
        Ok(levels::admit(self, command).await?)
    }

    /// This node's latest state; may be behind. Costs nothing and needs no leader.
    #[must_use]
    pub fn view(&self) -> State {
        self.inner.states.borrow().clone()
    }

    /// How long ago this node heard the leader, in milliseconds: the age of [`Core::view`]. 0 where it leads; `None`: never since it started.
    #[must_use]
    pub fn view_age(&self) -> Option<Millis> {
        self.inner.contact.age(&self.inner.nodes.borrow())
    }

    /// A message of another node has come.
    pub(crate) fn heard(&self, from: NodeId) {
        self.inner.contact.heard(from, &self.inner.nodes.borrow());
    }

    /// A state that holds every write acknowledged before this call.
    ///
    /// # Errors
    /// When no leader confirms it in time, or this node is too far behind.
    pub async fn read(&self) -> Result<State, ReadError> {
        let index = self.inner.log.read_index().await.map_err(|error| match error {
            raft::ReadError::TimedOut => ReadError::NoLeader,
            raft::ReadError::Overloaded => ReadError::Overloaded,
            raft::ReadError::Stopped => ReadError::Stopped,
        })?;
        waits::applied(&self.inner.states, index, READ_DEADLINE).await.map_err(|error| match error {
            waits::WaitError::TimedOut { index, .. } => ReadError::Behind { index },
            waits::WaitError::Stopped => ReadError::Stopped,
        })
    }

    /// This node's states as they are published, one for each batch of the log.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<State> {
        self.inner.states.clone()
    }

    /// This node as it sees itself and the others.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.nodes.borrow().clone()
    }

    /// The same, now and from now on.
    #[must_use]
    pub fn nodes(&self) -> watch::Receiver<Status> {
        self.inner.nodes.clone()
    }

    /// The same, but only what is new from now on: for whoever is about to look, and waits where that did not help.
    fn news(&self) -> watch::Receiver<Status> {
        let mut nodes = self.nodes();
        nodes.mark_unchanged();
        nodes
    }

    /// What this node is to the others.
    pub(crate) fn role(&self) -> Role {
        self.inner.nodes.borrow().role
    }

    /// The term, now and from now on. A status changes with every entry, and would wake all that wait for another leader.
    pub(crate) fn terms(&self) -> watch::Receiver<u64> {
        self.inner.terms.clone()
    }

    /// The feature level of the state here.
    pub(crate) fn level(&self) -> Level {
        self.inner.states.borrow().level()
    }

    /// Id of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    /// Which history of the cluster this is; empty: the first.
    #[must_use]
    pub fn history(&self) -> &str {
        &self.inner.history
    }

    /// Number of this node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.nodes.borrow().id
    }

    /// Heartbeats, lease and margin, as agents are told.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.inner.timing
    }

    /// Events and finished instances.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.inner.archive
    }

    /// What the members know, as far as this node asked them.
    #[must_use]
    pub fn levels(&self) -> &Levels {
        &self.inner.levels
    }

    /// Where this node's data is.
    pub(crate) fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Hashes of this node's state at the indexes that were marked.
    #[must_use]
    pub fn hashes(&self) -> &Hashes {
        &self.inner.hashes
    }

    /// This node's state was found to differ from the others', in words: it must not serve any more.
    pub(crate) fn deviates(&self, text: String) {
        if let Err(error) = compare::note_deviation(&self.inner.directory, &text) {
            tracing::error!(%error, "the deviation could not be noted in the node's directory");
        }
        self.inner.deviation.send_replace(Some(text));
    }

    /// Waits until this node's state is found to differ from the others'; why, in words.
    pub async fn deviation(&self) -> String {
        let mut found = self.inner.deviation.subscribe();
        // The sender lives as long as this handle.
        let found = found.wait_for(Option::is_some).await.map(|text| text.clone());
        found.ok().flatten().unwrap_or_default()
    }

    /// Where sessions hand in heartbeats.
    #[must_use]
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.inner.heartbeats
    }

    /// Adds a node that is about to start with [`Start::Join`]; gives its number. It becomes a voter by itself.
    ///
    /// # Errors
    /// See [`ChangeError`]; `NotLeader` names the node to ask, `AlreadyMember` answers a repeated call.
    pub async fn add_node(&self, peer_address: String, api_address: String) -> Result<NodeId, ChangeError> {
        self.inner.log.add_learner(peer_address, api_address).await
    }

    /// Changes the membership or the leadership, on whichever node leads. Gives the node it was about; for a transfer the new leader.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn change_members(&self, change: MemberChange) -> Result<NodeId, MemberError> {
        membership::anywhere(self, change).await
    }

    /// Hands the leadership to another node, if this one leads.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), ChangeError> {
        self.inner.log.transfer_leadership(to).await
    }

    /// A client of another node, for relays.
    ///
    /// # Errors
    /// When it is no member, or is not reached.
    pub async fn peer(&self, id: NodeId) -> Result<PeerServiceClient<Channel>, PeerError> {
        let members = self.inner.nodes.borrow().members.clone();
        let member = members.get(id).ok_or(PeerError::NotMember(id))?;
        self.inner.peers.client(member).await
    }

    /// The service of the peer port, to be served with the credentials' `peer_server_tls`.
    #[must_use]
    pub fn peer_service(&self, relay: Arc<dyn RelayHandler>) -> Service {
        PeerApi::service(self.clone(), relay)
    }

    /// Stops everything and waits until the directory is free.
    pub async fn shutdown(&self) {
        let tasks = self.tasks().take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
        drop(self.inner.space.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.inner.log.clone().shutdown().await;
        self.inner.archive.stop().await;
    }

    /// What this node counts and measures.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn log(&self) -> &Log<Outcome> {
        &self.inner.log
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub(crate) fn lead(&self) -> &Lead {
        &self.inner.lead
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Option<JoinSet<()>>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who proposes what the scheduler decides by itself.
pub const SCHEDULER: &str = "scheduler";

/// Passes on the term whenever it is another, until the node stops.
async fn tell_terms(mut nodes: watch::Receiver<Status>, term: watch::Sender<u64>) {
    while nodes.changed().await.is_ok() {
        let now = nodes.borrow_and_update().term;
        term.send_if_modified(|known| std::mem::replace(known, now) != now);
    }
}

fn now() -> UnixMillis {
    clock::unix_now()
}

/// What the log takes for its cluster: nodes of two histories of one cluster must not talk to each other.
pub(crate) fn log_cluster(cluster: &str, history: &str) -> String {
    if history.is_empty() { cluster.to_owned() } else { format!("{cluster}/{history}") }
}

/// A node whose state was found to be wrong does not start again: it would serve it.
fn refuse_deviating(settings: &Settings) -> Result<(), StartError> {
    match compare::deviation(&settings.directory) {
        Ok(None) => Ok(()),
        Ok(Some((path, found))) => Err(StartError::Deviates { path, found }),
        Err(source) => Err(StartError::Io { path: settings.directory.clone(), source }),
    }
}

fn watch_space(directory: &Path, log: &Log<Outcome>) -> Result<space::Watch, StartError> {
    let log = log.clone();
    let watch = space::Watch::start(directory.to_owned(), move |space| log.tell_space(space));
    watch.map_err(|source| StartError::Io { path: directory.to_owned(), source })
}

type Opened = (Log<Outcome>, watch::Receiver<State>, Archive, Hashes);

fn open(settings: &Settings, start: &Start, peers: &Peers, runtime: Handle) -> Result<Opened, OpenError> {
    let (archive, feed) = Archive::open(archive::Settings {
        directory: settings.directory.join("archive"),
        cluster: settings.cluster.clone(),
        retention: settings.retention,
    });
    let (replica, states) = Replica::new(feed);
    let hashes = replica.hashes();
    let raft_settings = raft::Settings {
        cluster: log_cluster(&settings.cluster, &settings.history),
        id: settings.node,
        directory: settings.directory.join("raft"),
        peer_address: settings.peer_address.clone(),
        snapshots: settings.snapshots,
        tick: settings.tick,
    };
    let (id, connect) = (settings.node, peers.log_connect());
    let log = raft::start(raft_settings, start, replica, |reports| {
        GrpcTransport::new(id, connect, reports, runtime)
    })?;
    Ok((log, states, archive, hashes))
}

#[cfg(test)]
mod tests;
