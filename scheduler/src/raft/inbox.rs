//! Everything that waits for the log's thread, bounded in number and bytes. Knows queues, no raft.
//!
//! Three queues under one lock: peers' messages, proposals, the rest. A flood of proposals therefore never keeps a
//! heartbeat waiting, and a turn takes a bounded share of each.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::limits::{
    COMPANY_WAIT, MAX_BATCH_BYTES, MAX_BATCH_PROPOSALS, MAX_QUEUED_CONTROL, MAX_QUEUED_MESSAGE_BYTES,
    MAX_QUEUED_MESSAGES, MAX_QUEUED_PROPOSAL_BYTES, MAX_QUEUED_PROPOSALS, RETRY_AFTER,
};
use super::members::NodeId;
use super::meter::Queued;
use super::node::{Control, Inputs};
use super::proposals::Proposal;
use super::wire::Incoming;
use super::{ChangeError, ProposeError, ReadError};

struct Queues<O> {
    messages: VecDeque<Incoming>,
    message_bytes: usize,
    proposals: VecDeque<Proposal<O>>,
    proposal_bytes: usize,
    /// When the oldest of the proposals came, or when the last batch before it was taken.
    waiting_since: Option<Instant>,
    control: VecDeque<Control>,
    stopping: bool,
    closed: bool,
}

/// See the head of the module.
pub(super) struct Inbox<O> {
    queues: Mutex<Queues<O>>,
    woken: Condvar,
}

/// What `Inbox::take` found.
pub(super) enum Taken<O> {
    Inputs(Inputs<O>),
    /// The node is to stop.
    Stop,
}

impl<O> Inbox<O> {
    pub(super) fn new() -> Self {
        let queues = Queues {
            messages: VecDeque::new(),
            message_bytes: 0,
            proposals: VecDeque::new(),
            proposal_bytes: 0,
            waiting_since: None,
            control: VecDeque::new(),
            stopping: false,
            closed: false,
        };
        Self { queues: Mutex::new(queues), woken: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queues<O>> {
        // The queues are whole between two statements, so a panic elsewhere does not spoil them.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a peer's message, or drops it when there are too many: raft repeats what matters.
    pub(super) fn message(&self, incoming: Incoming) {
        let mut queues = self.lock();
        let full = queues.messages.len() >= MAX_QUEUED_MESSAGES
            || queues.message_bytes + incoming.bytes > MAX_QUEUED_MESSAGE_BYTES;
        if full || queues.closed {
            return;
        }
        queues.message_bytes += incoming.bytes;
        queues.messages.push_back(incoming);
        drop(queues);
        self.woken.notify_one();
    }

    pub(super) fn propose(&self, proposal: Proposal<O>) {
        let mut queues = self.lock();
        if queues.closed {
            return proposal.refuse(ProposeError::Stopped);
        }
        let full = queues.proposals.len() >= MAX_QUEUED_PROPOSALS
            || queues.proposal_bytes + proposal.entry.len() > MAX_QUEUED_PROPOSAL_BYTES;
        if full {
            return proposal.refuse(ProposeError::Overloaded { retry_after: RETRY_AFTER });
        }
        queues.proposal_bytes += proposal.entry.len();
        queues.proposals.push_back(proposal);
        queues.waiting_since.get_or_insert_with(Instant::now);
        drop(queues);
        self.woken.notify_one();
    }

    pub(super) fn control(&self, control: Control) {
        let mut queues = self.lock();
        let bounded = matches!(control, Control::Read(_) | Control::Change(..) | Control::Transfer(..));
        if queues.closed || (bounded && queues.control.len() >= MAX_QUEUED_CONTROL) {
            let stopped = queues.closed;
            drop(queues);
            return refuse(control, stopped);
        }
        queues.control.push_back(control);
        drop(queues);
        self.woken.notify_one();
    }

    /// What waits.
    pub(super) fn queued(&self) -> Queued {
        let queues = self.lock();
        Queued {
            proposals: queues.proposals.len(),
            messages: queues.messages.len(),
            control: queues.control.len(),
        }
    }

    /// Asks the thread to end.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.woken.notify_one();
    }

    /// Nothing is taken any more; whoever waits is told.
    pub(super) fn close(&self) {
        let mut queues = self.lock();
        queues.closed = true;
        queues.messages.clear();
        let proposals = std::mem::take(&mut queues.proposals);
        let control = std::mem::take(&mut queues.control);
        drop(queues);
        proposals.into_iter().for_each(|proposal| proposal.refuse(ProposeError::Stopped));
        control.into_iter().for_each(|control| refuse(control, true));
    }

    /// Waits until something is there, at most `wait`, and takes a turn's share of it. With `company`, proposals wait a
    /// little for more of their kind: as long as nothing else wakes the thread, at most [`COMPANY_WAIT`].
    pub(super) fn take(&self, wait: Duration, company: bool) -> Taken<O> {
        let end = Instant::now() + wait;
        let mut queues = self.lock();
        loop {
            if queues.stopping {
                return Taken::Stop;
            }
            let now = Instant::now();
            let ripe = queues.ripe_at(company);
            let ready = !queues.messages.is_empty()
                || !queues.control.is_empty()
                || ripe.is_some_and(|ripe| ripe <= now);
            if ready || end <= now {
                return Taken::Inputs(queues.take(ripe.is_some_and(|ripe| ripe <= now)));
            }
            let until = ripe.map_or(end, |ripe| ripe.min(end));
            (queues, _) = self
                .woken
                .wait_timeout(queues, until.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<O> Queues<O> {
    /// When the proposals that wait are to be taken; `None` when there are none.
    fn ripe_at(&self, company: bool) -> Option<Instant> {
        let full = self.proposals.len() >= MAX_BATCH_PROPOSALS || self.proposal_bytes >= MAX_BATCH_BYTES;
        let patience = if company && !full { COMPANY_WAIT } else { Duration::ZERO };
        self.waiting_since.map(|since| since + patience)
    }

    fn take(&mut self, with_proposals: bool) -> Inputs<O> {
        let messages = self.messages.drain(..).collect();
        self.message_bytes = 0;
        let proposals = if with_proposals { self.batch() } else { Vec::new() };
        let control = self.control.drain(..).collect();
        Inputs { tick: false, messages, proposals, control }
    }

    fn batch(&mut self) -> Vec<Proposal<O>> {
        let mut batch: Vec<Proposal<O>> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.proposals.front() {
            let fits = batch.is_empty() || bytes + next.entry.len() <= MAX_BATCH_BYTES;
            if !fits || batch.len() >= MAX_BATCH_PROPOSALS {
                break;
            }
            bytes += next.entry.len();
            batch.extend(self.proposals.pop_front());
        }
        self.proposal_bytes -= bytes;
        self.waiting_since = (!self.proposals.is_empty()).then(Instant::now);
        batch
    }
}

fn refuse(control: Control, stopped: bool) {
    match control {
        Control::Read(reply) => {
            let _ = reply.send(Err(if stopped { ReadError::Stopped } else { ReadError::Overloaded }));
        }
        Control::Change(_, reply) | Control::Transfer(_, reply) => {
            let _ = reply.send(Err(if stopped { ChangeError::Stopped } else { ChangeError::Overloaded }));
        }
        // Reports to a node that has stopped.
        Control::Unreachable(_)
        | Control::SnapshotSent { .. }
        | Control::SnapshotTaken(_)
        | Control::SnapshotReceived(..)
        | Control::Written(_)
        | Control::Space(_)
        | Control::Removed => {}
    }
}

/// Where a transport tells what became of what it sent. Cheap to clone.
#[derive(Clone)]
pub struct Reports {
    sink: Arc<dyn Fn(Control) + Send + Sync>,
}

impl Reports {
    pub(super) fn new<O: Send + 'static>(inbox: Arc<Inbox<O>>) -> Self {
        Self { sink: Arc::new(move |control| inbox.control(control)) }
    }

    /// A message could not be sent. Tell it once an outage, not once a message.
    pub fn unreachable(&self, peer: NodeId) {
        (self.sink)(Control::Unreachable(peer));
    }

    /// The snapshot is on the peer's disk (`good`), or did not get there. Must be told once for each snapshot.
    pub fn snapshot_sent(&self, to: NodeId, good: bool) {
        (self.sink)(Control::SnapshotSent { to, good });
    }

    /// A peer says that this node was removed from the cluster.
    pub fn removed(&self) {
        (self.sink)(Control::Removed);
    }
}
