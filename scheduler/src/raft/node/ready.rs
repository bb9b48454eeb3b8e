//! The Ready protocol of raft: what is sent before the sync, what after it, and when something is applied.
//!
//! A Ready is handed to the disk and not waited for: the next one may follow at once, so several appends are under way,
//! and what is committed is applied while the disk writes. A leader's messages go out before its own sync, so that
//! followers write at the same time; it counts itself only after it. Everything that promises something (votes,
//! acknowledgements) waits for the sync of its own Ready, and what comes after it waits behind it.

use ::raft::eraftpb::{Message, MessageType};
use ::raft::{Ready, StateRole};

use super::super::limits::{DISK_HANGS_TICKS, MAX_PEER_QUEUE, MAX_READIES_PER_TURN, SNAPSHOT_MAX_LOG_BYTES};
use super::super::log_store::{Position, Ticket};
use super::super::members::NodeId;
use super::super::snapshot_file::SnapshotMeta;
use super::super::transport::{PeerAddress, SnapshotToSend};
use super::super::wire;
use super::{Fatal, Grown, Job, LogStore, Machine, Node, SnapshotJob, Transport};
#[cfg(feature = "planted")]
use crate::planted;

/// What waits for a Ready to be on disk.
pub(super) struct Promise {
    ticket: Ticket,
    /// Number of the Ready, or of a later one that had nothing to write.
    ready: u64,
    messages: Vec<Message>,
    /// Tick at which it was handed to the disk.
    since: u64,
}

impl<M: Machine, L: LogStore> Node<M, L> {
    /// Handles what raft has ready, round by round; something may be left.
    pub(super) fn rounds(&mut self, network: &mut dyn Transport) -> Result<(), Fatal> {
        for _ in 0..MAX_READIES_PER_TURN {
            if !self.raw.has_ready() {
                break;
            }
            self.round(network)?;
        }
        Ok(())
    }

    fn round(&mut self, network: &mut dyn Transport) -> Result<(), Fatal> {
        let mut ready = self.raw.ready();
        let (now, later) = self.sort(ready.take_messages(), ready.take_persisted_messages());
        self.send(now, network);
        for state in ready.take_read_states() {
            self.reads.confirmed(&state.request_ctx, state.index, self.raw.raft.term);
        }
        if !ready.snapshot().is_empty() {
            self.install(&ready)?;
        }
        let (entries, sync) = (ready.take_entries(), ready.must_sync());
        self.backlog.appended(&entries, &self.machine);
        let ticket = self.raw.mut_store().append(entries, ready.hs(), sync);
        let promise = Promise {
            ticket: ticket.unwrap_or_default(),
            ready: ready.number(),
            messages: later,
            since: self.now,
        };
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        self.promise(promise, network);
        self.apply(committed, network)?;
        self.tell_applied();
        Ok(())
    }

    /// Parts messages into those that go at once, and those that are true only once their Ready is on disk.
    ///
    /// A leader's appends go at once, and the followers sync while it does: its own vote reached the disk before the others
    /// were asked for theirs. A lone voter asks nobody, so its learners must hear of its term only after its disk. An answer
    /// to a heartbeat promises nothing, and a leader that got none for a slow disk would step down for it.
    fn sort(&self, leading: Vec<Message>, persisted: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
        let (mut now, mut later): (Vec<Message>, Vec<Message>) = persisted
            .into_iter()
            .partition(|message| message.get_msg_type() == MessageType::MsgHeartbeatResponse);
        if self.alone() { &mut later } else { &mut now }.extend(leading);
        (now, later)
    }

    /// Keeps what must wait for the disk, or does it at once where nothing does.
    fn promise(&mut self, promise: Promise, network: &mut dyn Transport) {
        #[cfg(feature = "planted")]
        if planted::is(planted::Fault::AcknowledgeBeforeSync) {
            return self.keep(promise, network);
        }
        match self.promises.back_mut() {
            _ if promise.ticket != 0 => self.promises.push_back(promise),
            Some(last) => {
                last.ready = promise.ready;
                // What a disk that hangs holds up is bounded; raft repeats what is dropped.
                let room = MAX_PEER_QUEUE.saturating_sub(last.messages.len());
                last.messages.extend(promise.messages.into_iter().take(room));
            }
            None => self.keep(promise, network),
        }
    }

    /// Everything up to a ticket is on disk: what was promised on it may be said.
    pub(super) fn written(&mut self, ticket: Ticket, network: &mut dyn Transport) -> Result<(), Fatal> {
        self.raw.mut_store().written(ticket);
        // A vote is about to leave: a log that forgets its term must be known to have lost something.
        self.raw.mut_store().witness(self.applied.index)?;
        while self.promises.front().is_some_and(|promise| promise.ticket <= ticket) {
            let Some(promise) = self.promises.pop_front() else { break };
            self.keep(promise, network);
        }
        self.tell_applied();
        Ok(())
    }

    fn keep(&mut self, promise: Promise, network: &mut dyn Transport) {
        // Raft does not expect a leader that is no member any more to count its own disk.
        if !self.removed {
            self.raw.on_persist_ready(promise.ready);
        }
        self.send(promise.messages, network);
    }

    /// A leader whose disk hangs acknowledges nothing, although its heartbeats go out and the others hold still for them. It
    /// steps down, and cannot lead again before its disk is back: it would have to write its vote.
    pub(super) fn judge_disk(&mut self) {
        let leads = self.raw.raft.state == StateRole::Leader && !self.alone();
        let hangs = |promise: &Promise| promise.since + DISK_HANGS_TICKS <= self.now;
        if leads && self.promises.front().is_some_and(hangs) {
            tracing::warn!(
                term = self.raw.raft.term,
                "the disk of this leader hangs; another node is to lead"
            );
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, ::raft::INVALID_ID);
        }
    }

    /// Tells raft and the readers how far this node has applied. A snapshot counts for raft once its Ready is on disk.
    fn tell_applied(&mut self) {
        if self.applied.index <= self.raw.raft.raft_log.persisted {
            self.raw.advance_apply_to(self.applied.index);
        }
        self.reads.applied(self.applied.index, self.raw.raft.term);
    }

    fn send(&mut self, messages: Vec<Message>, network: &mut dyn Transport) {
        for message in messages {
            if message.from != self.id {
                // A question about a read that raft passes on under the asker's name, to whoever leads by now. The receiver
                // would refuse it with the whole stream; the asker asks again soon.
                continue;
            }
            let id = NodeId(message.to);
            let learned = || self.addresses.get(&message.to).map(String::as_str);
            let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let Some(address) = self.membership.address(message.to).or_else(learned) else {
                tracing::debug!(to = message.to, "no address is known for a peer");
                self.unsent.extend(snapshot.then_some(message.to));
                continue;
            };
            let to = PeerAddress { id, address: address.to_owned() };
            let bytes = wire::encode(&self.cluster, &self.address, self.space.short, &message);
            if snapshot {
                let metadata = message.get_snapshot().get_metadata();
                let position = Position { index: metadata.index, term: metadata.term };
                let file = self.snapshots.file(position);
                network.send_snapshot(&to, SnapshotToSend { message: bytes, file });
            } else {
                network.send(&to, bytes);
            }
        }
    }

    /// Puts a received snapshot in the place of log and state. After a crash at any step the start finishes it or
    /// finds things as they were: the intent is synced first, then the name, then the log.
    fn install(&mut self, ready: &Ready) -> Result<(), Fatal> {
        let metadata = ready.snapshot().get_metadata();
        let position = Position { index: metadata.index, term: metadata.term };
        let received = self.received.take().filter(|received| received.position() == position);
        let received = received.ok_or_else(|| {
            Fatal::Raft(format!("it wants to install snapshot {} that never came", position.index))
        })?;
        let store = self.raw.mut_store();
        store.begin_install(position.index)?;
        self.snapshots.install(received).map_err(Fatal::SnapshotWrite)?;
        let verified = self.snapshots.verify(position)?;
        let membership = verified.meta.membership.clone();
        store.end_install(position, ready.hs(), membership.clone())?;
        let mut payload = verified.payload().map_err(Fatal::SnapshotWrite)?;
        self.machine.restore(position.index, &mut payload)?;
        self.snapshot_bytes = verified.meta.bytes;
        self.grown = Grown::default();
        self.applied = position;
        self.membership = membership;
        self.publish_members();
        self.machine.applied_batch(position.index, &self.members);
        tracing::info!(index = position.index, term = position.term, "snapshot installed");
        Ok(())
    }

    /// Plans a snapshot when the log has grown enough, or when a follower needs one. Never two at once.
    pub(super) fn consider_snapshot(&mut self) {
        if !self.space.takes(self.snapshot_bytes) {
            return;
        }
        let limit = self.policy.bytes.max(self.snapshot_bytes.min(SNAPSHOT_MAX_LOG_BYTES));
        let grown = self.grown.entries >= self.policy.entries || self.grown.bytes >= limit;
        let storage = self.raw.store();
        let newer = self.applied.index > storage.snapshot_position().index;
        if !matches!(self.job, Job::Idle) || !newer || !(storage.take_wanted() || grown) {
            return;
        }
        let meta = SnapshotMeta {
            cluster: self.cluster.clone(),
            position: self.applied,
            membership: self.membership.clone(),
            bytes: 0,
        };
        let reclaim = storage.store().reclaim();
        self.grown = Grown::default();
        self.job = Job::Ready(Box::new(SnapshotJob {
            meta,
            copy: self.machine.copy(),
            directory: self.snapshots.clone(),
            reclaim,
        }));
    }

    /// A snapshot of ours is in its place: the log before the older of the two may go, but for a tail.
    pub(super) fn snapshot_taken(
        &mut self,
        taken: Result<Box<(SnapshotMeta, Vec<Position>)>, Fatal>,
    ) -> Result<(), Fatal> {
        let (meta, kept) = *taken?;
        self.job = Job::Idle;
        let storage = self.raw.mut_store();
        if meta.position.index <= storage.snapshot_position().index {
            // One from the leader came in between and is newer.
            return Ok(());
        }
        self.snapshot_bytes = meta.bytes;
        storage.set_snapshot(meta.position, meta.membership);
        let oldest = kept.last().copied().unwrap_or(meta.position);
        storage.compact(oldest.index.saturating_sub(self.policy.tail))?;
        tracing::info!(index = meta.position.index, bytes = meta.bytes, "snapshot taken");
        Ok(())
    }
}
