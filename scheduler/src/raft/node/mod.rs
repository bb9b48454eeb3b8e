//! One node of the log: raft, the store and the machine, driven in turns.
//!
//! It knows no thread, no clock and no socket. A turn takes what has come in (messages, proposals, reports, perhaps a
//! tick), does all that follows from it, and is over; the same turns run in production (`driver`) and in a simulation.
//! The Ready protocol is in `ready`, applying in `apply`, changes of the membership in `membership`.

mod apply;
mod backlog;
mod membership;
mod ready;
mod space;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ::raft::eraftpb::{Entry, Message, MessageType};
use ::raft::{Progress, RawNode, SnapshotStatus, StateRole};

use self::backlog::Backlog;
use self::membership::{PendingChange, PendingTransfer};
use self::ready::Promise;
pub use self::space::Space;
pub use self::status::{Role, Status};
use super::changes::{Change, ChangeReply};
use super::limits::{self, SnapshotPolicy};
use super::log_store::{LogStore, Position, StoreError, Ticket};
use super::members::{Member, Members, NodeId};
use super::membership::Membership;
use super::proposals::{Appended, Proposal};
use super::reads::{ReadReply, Reads};
use super::snapshot_dir::{Received, SnapshotDir};
use super::snapshot_file::{SnapshotError, SnapshotMeta};
use super::storage::Storage;
use super::transport::Transport;
use super::wire::Incoming;
use super::{Machine, ProposeError, RestoreError};

/// Why the process must end. What is on disk is not known, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A snapshot could not be written or put in its place.
    #[error("cannot write a snapshot: {0}")]
    SnapshotWrite(std::io::Error),
    /// A snapshot that was whole when it came is not any more.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The machine cannot use it.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Raft holds something that only a fault in the program explains.
    #[error("raft: {0}")]
    Raft(String),
}

/// What is not a message and not a proposal.
pub(super) enum Control {
    Read(ReadReply),
    Change(Change, ChangeReply),
    Transfer(NodeId, ChangeReply),
    /// A message to the node could not be sent.
    Unreachable(NodeId),
    /// A snapshot reached the node, or did not.
    SnapshotSent {
        to: NodeId,
        good: bool,
    },
    /// Our own snapshot is in its place; with it the places that are left, newest first.
    SnapshotTaken(Result<Box<(SnapshotMeta, Vec<Position>)>, Fatal>),
    /// A snapshot came in, whole, with the message that announced it.
    SnapshotReceived(Box<Incoming>, Received),
    /// Submitted writes up to a ticket are on disk, or one failed.
    Written(Result<Ticket, StoreError>),
    /// A peer says that we are no member any more.
    Removed,
    /// What is known of this node's disk.
    Space(Space),
}

/// What a turn starts from.
pub(super) struct Inputs<O> {
    pub(super) tick: bool,
    pub(super) messages: Vec<Incoming>,
    pub(super) proposals: Vec<Proposal<O>>,
    pub(super) control: Vec<Control>,
}

/// A snapshot to be written on another thread.
pub(super) struct SnapshotJob<M: Machine> {
    meta: SnapshotMeta,
    copy: M::Copy,
    directory: SnapshotDir,
    reclaim: super::log_store::Reclaim,
}

impl<M: Machine> SnapshotJob<M> {
    /// Writes it, deletes what is older than the last two, and frees what the log has forgotten before.
    pub(super) fn run(self) -> Result<(SnapshotMeta, Vec<Position>), Fatal> {
        let Self { meta, copy, directory, reclaim } = self;
        let meta =
            directory.create(meta, |out| M::write_snapshot(copy, out)).map_err(Fatal::SnapshotWrite)?;
        let kept = directory.keep_last().map_err(Fatal::SnapshotWrite)?;
        reclaim()?;
        Ok((meta, kept))
    }
}

enum Job<M: Machine> {
    Idle,
    Ready(Box<SnapshotJob<M>>),
    Running,
}

/// Log since the last snapshot.
#[derive(Default)]
struct Grown {
    entries: u64,
    bytes: u64,
}

/// What a node is made of.
pub(super) struct Parts<M, L> {
    pub(super) id: u64,
    pub(super) cluster: String,
    pub(super) address: String,
    pub(super) store: L,
    pub(super) machine: M,
    pub(super) snapshots: SnapshotDir,
    /// The snapshot that `machine` was restored from; index 0 when there is none.
    pub(super) snapshot: SnapshotMeta,
    pub(super) policy: SnapshotPolicy,
    /// Random; differs between two lives of the process.
    pub(super) life: u64,
}

/// See the head of the module.
pub(super) struct Node<M: Machine, L: LogStore> {
    raw: RawNode<Storage<L>>,
    id: u64,
    cluster: String,
    address: String,
    machine: M,
    applied: Position,
    membership: Membership,
    members: Arc<Members>,
    appended: Appended<M::Outcome>,
    /// In the order of their tickets.
    promises: VecDeque<Promise>,
    reads: Reads,
    change: Option<PendingChange>,
    transfer: Option<PendingTransfer>,
    /// The term in which this node leads.
    led: Option<u64>,
    now: u64,
    /// Tick at which each peer was last heard, and the address it gave.
    heard: BTreeMap<u64, u64>,
    addresses: BTreeMap<u64, String>,
    snapshots: SnapshotDir,
    snapshot_bytes: u64,
    policy: SnapshotPolicy,
    grown: Grown,
    backlog: Backlog,
    job: Job<M>,
    received: Option<Received>,
    /// Peers whose snapshot could not even be started.
    unsent: Vec<u64>,
    removed: bool,
    space: Space,
    /// Peers whose disks are short, by their own word.
    short: BTreeSet<u64>,
}

impl<M: Machine, L: LogStore> Node<M, L> {
    /// Sets raft up on what is on disk. What lies after the snapshot is applied in the turns that follow.
    pub(super) fn new(parts: Parts<M, L>) -> Result<Self, Fatal> {
        let Parts { id, cluster, address, store, mut machine, snapshots, snapshot, policy, life } = parts;
        let SnapshotMeta { position, membership, bytes, .. } = snapshot;
        let storage = Storage::new(store, position, membership.clone());
        let alone = membership.conf().voters == [id];
        let mut raw =
            RawNode::new(&limits::config(id, position.index), storage, &super::slog_drain::logger())
                .map_err(|error| Fatal::Raft(error.to_string()))?;
        if alone {
            // Nobody else could lead, so there is nobody to wait for.
            raw.campaign().map_err(|error| Fatal::Raft(error.to_string()))?;
        }
        let members = Arc::new(membership.view());
        let backlog = Backlog::new(raw.raft.raft_log.last_index());
        machine.applied_batch(position.index, &members);
        Ok(Self {
            raw,
            id,
            cluster,
            address,
            machine,
            applied: position,
            membership,
            members,
            appended: Appended::default(),
            promises: VecDeque::new(),
            reads: Reads::new(id, life),
            change: None,
            transfer: None,
            led: None,
            now: 0,
            heard: BTreeMap::new(),
            addresses: BTreeMap::new(),
            snapshots,
            snapshot_bytes: bytes,
            policy,
            grown: Grown::default(),
            backlog,
            job: Job::Idle,
            received: None,
            unsent: Vec::new(),
            removed: false,
            space: Space::default(),
            short: BTreeSet::new(),
        })
    }

    /// One turn. Returns whether there is more to do without new inputs.
    pub(super) fn turn(
        &mut self,
        inputs: Inputs<M::Outcome>,
        network: &mut dyn Transport,
    ) -> Result<bool, Fatal> {
        for incoming in inputs.messages {
            self.step(incoming);
        }
        for control in inputs.control {
            self.control(control, network)?;
        }
        if inputs.tick {
            self.tick();
        }
        self.settle();
        self.propose(inputs.proposals);
        self.ask_for_reads();
        self.rounds(network)?;
        // For those that nobody could answer before: the first commit of a term makes them answerable.
        self.ask_for_reads();
        self.settle();
        self.consider_snapshot();
        Ok(self.raw.has_ready())
    }

    /// Whether a turn with little to take in is short and waits for no disk: whoever brings something may take it.
    pub(super) fn is_at_ease(&self) -> bool {
        self.received.is_none() && self.backlog.is_short(self.applied.index) && !self.must_read_for_others()
    }

    /// Whether a follower is next to get entries that only the disk has. One that does not answer gets none.
    fn must_read_for_others(&self) -> bool {
        let first = self.raw.store().first_recent();
        let raft = &self.raw.raft;
        let behind = |progress: &Progress| progress.next_idx < first && !progress.is_paused();
        raft.state == StateRole::Leader
            && raft.prs().iter().any(|(id, progress)| *id != self.id && behind(progress))
    }

    /// A snapshot to be written on another thread; its result comes back as `Control::SnapshotTaken`.
    pub(super) fn take_job(&mut self) -> Option<Box<SnapshotJob<M>>> {
        match std::mem::replace(&mut self.job, Job::Running) {
            Job::Ready(job) => Some(job),
            other => {
                self.job = other;
                None
            }
        }
    }

    /// Answers everybody who still waits. The node is not used after it.
    pub(super) fn stop(&mut self) {
        self.appended.fail(&ProposeError::Stopped);
        self.reads.stop();
        self.fail_changes(&super::ChangeError::Stopped);
    }

    /// Fixes the election timeout, which raft rolls anew whenever it starts to count.
    #[cfg(feature = "simulation")]
    pub(super) fn stand_after(&mut self, ticks: usize) {
        if self.raw.raft.election_elapsed == 0 {
            self.raw.raft.set_randomized_election_timeout(ticks);
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        self.reads.tick(self.now);
        self.appended.tick();
        if !self.removed && !self.must_not_stand() {
            self.raw.tick();
            self.judge_disk();
        }
        for peer in std::mem::take(&mut self.unsent) {
            self.raw.report_snapshot(peer, SnapshotStatus::Failure);
        }
        self.promote_ripe();
    }

    /// Whether this node is the only voter.
    fn alone(&self) -> bool {
        self.membership.conf().voters == [self.id]
    }

    /// Whether raft would break if this node stood for election now: while a snapshot that it has installed is not known to
    /// be on disk, and where it would elect itself on the spot with entries of an older term on their way there. (Where
    /// others vote, the request to them waits for the disk.)
    fn must_not_stand(&self) -> bool {
        let installing = self.applied.index > self.raw.raft.raft_log.persisted;
        let alone = self.alone() && self.raw.raft.state != StateRole::Leader;
        installing || (alone && !self.promises.is_empty())
    }

    /// Appends that were handed to the disk and are not known to be there.
    pub(super) fn appends_under_way(&self) -> usize {
        self.promises.len()
    }

    /// Whether new proposals are to wait a little for company.
    pub(super) fn wants_company(&self) -> bool {
        self.appends_under_way() >= limits::APPENDS_BEFORE_COMPANY
            || self.appended.most() >= limits::ANSWERS_BEFORE_COMPANY
    }

    fn step(&mut self, incoming: Incoming) {
        let Incoming { address, message, short, .. } = incoming;
        let kind = message.get_msg_type();
        // Proposals are not forwarded, and a snapshot's message counts only with its file.
        let unwanted = matches!(kind, MessageType::MsgPropose | MessageType::MsgSnapshot);
        if self.removed || unwanted || message.to != self.id || message.from == self.id {
            tracing::debug!(from = message.from, to = message.to, ?kind, "peer message ignored");
            return;
        }
        self.hear(message.from, address, short);
        if self.has_no_room_for(&message) {
            return;
        }
        self.step_raft(message);
    }

    fn hear(&mut self, from: u64, address: String, short: bool) {
        if short {
            self.short.insert(from);
        } else {
            self.short.remove(&from);
        }
        self.heard.insert(from, self.now);
        if !self.membership.contains(from) && self.addresses.len() < limits::MAX_VOTERS + limits::MAX_LEARNERS
        {
            self.addresses.insert(from, address);
        }
    }

    /// A planted fault: what a learner has counts for a voter.
    #[cfg(feature = "planted")]
    fn count_learner(&mut self, message: &Message) {
        let conf = self.membership.conf();
        let told = message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject;
        if told && conf.learners.contains(&message.from) {
            let voters = conf.voters.iter().copied().filter(|voter| *voter != self.id);
            let matched = self.matched();
            let lags = voters.min_by_key(|voter| matched.get(&NodeId(*voter)).copied());
            if let Some(from) = lags {
                // Refused where raft does not see the point.
                let _ = self.raw.step(Message { from, ..message.clone() });
            }
        }
    }

    fn step_raft(&mut self, message: Message) {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Fault::CountLearner) {
            self.count_learner(&message);
        }
        let (from, kind) = (message.from, message.get_msg_type());
        if let Err(error) = self.raw.step(message) {
            // Messages of nodes that raft does not know (yet, or any more) are normal around a change of members.
            tracing::debug!(from, ?kind, %error, "peer message refused");
        }
    }

    fn control(&mut self, control: Control, network: &mut dyn Transport) -> Result<(), Fatal> {
        match control {
            Control::Read(reply) => self.reads.add(reply, self.now),
            Control::Change(change, reply) => self.propose_change(&change, reply),
            Control::Transfer(to, reply) => self.begin_transfer(to, reply),
            Control::Unreachable(peer) => self.raw.report_unreachable(peer.0),
            Control::SnapshotSent { to, good } => {
                let status = if good { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raw.report_snapshot(to.0, status);
            }
            Control::SnapshotTaken(taken) => self.snapshot_taken(taken)?,
            Control::SnapshotReceived(incoming, file) => {
                self.snapshot_received(*incoming, file);
                // At once, so that the file and what raft makes of its message cannot be confused with another.
                self.rounds(network)?;
                self.received = None;
            }
            Control::Written(ticket) => self.written(ticket?, network)?,
            Control::Removed => self.removed = true,
            Control::Space(space) => self.space = space,
        }
        Ok(())
    }

    fn snapshot_received(&mut self, incoming: Incoming, file: Received) {
        let message = incoming.message;
        let announced = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let matches = announced.is_some_and(|metadata| {
            Position { index: metadata.index, term: metadata.term } == file.position()
        });
        let expected = message.get_msg_type() == MessageType::MsgSnapshot && message.to == self.id;
        if self.removed || !matches || !expected {
            tracing::warn!(from = message.from, "a snapshot that does not match its message is dropped");
            return;
        }
        self.received = Some(file);
        self.hear(message.from, incoming.address, incoming.short);
        self.step_raft(message);
    }

    fn propose(&mut self, proposals: Vec<Proposal<M::Outcome>>) {
        if proposals.is_empty() {
            return;
        }
        if self.led.is_none() {
            let leader = self.leader();
            for proposal in proposals {
                proposal.refuse(ProposeError::NotLeader { leader: leader.clone() });
            }
            return;
        }
        let nodes = self.hindered_by();
        if !nodes.is_empty() {
            for proposal in proposals {
                proposal.refuse(ProposeError::NoSpace { nodes: nodes.clone() });
            }
            return;
        }
        let first = self.raw.raft.raft_log.last_index() + 1;
        let term = self.raw.raft.term;
        let mut replies = Vec::with_capacity(proposals.len());
        let mut entries = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            entries.push(Entry { data: proposal.entry, ..Entry::default() });
            replies.push(proposal.reply);
        }
        let mut message = Message { from: self.id, entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        match self.raw.step(message) {
            Ok(()) => {
                for (reply, index) in replies.into_iter().zip(first..) {
                    self.appended.push(index, term, reply);
                }
            }
            // Too much is uncommitted, or the leadership is being handed over: both pass.
            Err(error) => {
                tracing::debug!(%error, count = replies.len(), "proposals dropped");
                for reply in replies {
                    let _ = reply.send(Err(ProposeError::Overloaded { retry_after: limits::RETRY_AFTER }));
                }
            }
        }
    }

    fn ask_for_reads(&mut self) {
        let raft = &self.raw.raft;
        // A leader that has committed nothing in its term yet does not know the commit index, and would not answer.
        let answerable = match raft.state {
            StateRole::Leader => raft.commit_to_current_term(),
            _ => raft.leader_id != ::raft::INVALID_ID,
        };
        if !answerable || self.removed {
            return;
        }
        if let Some(context) = self.reads.ask(raft.term, self.now) {
            self.raw.read_index(context);
        }
    }

    /// Notices that leadership was won or lost.
    fn settle(&mut self) {
        let leads = self.raw.raft.state == StateRole::Leader && !self.removed;
        let led = leads.then_some(self.raw.raft.term);
        if self.led != led {
            self.appended.fail(&ProposeError::OutcomeUnknown);
            if self.led.is_some() {
                self.fail_changes(&super::ChangeError::OutcomeUnknown);
            }
            self.led = led;
        }
        self.settle_transfer();
    }

    fn leader(&self) -> Option<Member> {
        self.members.get(NodeId(self.raw.raft.leader_id)).cloned()
    }
}
