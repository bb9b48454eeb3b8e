//! Everything that waits for a turn of the node, bounded in number and bytes. Knows queues, no raft.
//!
//! Three queues under one lock: peers' messages, proposals, the rest. A flood of proposals therefore never keeps a
//! heartbeat waiting, and a turn takes a bounded share of each. Putting something in wakes nobody: who does so sees to it
//! that a turn is taken (`driver`).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::limits::{
    COMPANY_WAIT, LONG_TURN_BYTES, MAX_BATCH_BYTES, MAX_BATCH_PROPOSALS, MAX_QUEUED_CONTROL,
    MAX_QUEUED_MESSAGE_BYTES, MAX_QUEUED_MESSAGES, MAX_QUEUED_PROPOSAL_BYTES, MAX_QUEUED_PROPOSALS,
    RETRY_AFTER,
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
    /// How many of `control` only the log's own thread may see to.
    long: usize,
    /// The log's thread was called and has not come yet.
    called: bool,
    stopping: bool,
    closed: bool,
}

/// See the head of the module.
pub(super) struct Inbox<O> {
    queues: Mutex<Queues<O>>,
    woken: Condvar,
}

/// What is to be done about what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A turn.
    Turn,
    /// A turn of the log's own thread, which may take long.
    LongTurn,
    /// Proposals are waiting for company; nothing else is there.
    Later,
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
            long: 0,
            called: false,
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
    }

    pub(super) fn control(&self, control: Control) {
        let mut queues = self.lock();
        let bounded = matches!(control, Control::Read(_) | Control::Change(..) | Control::Transfer(..));
        if queues.closed || (bounded && queues.control.len() >= MAX_QUEUED_CONTROL) {
            let stopped = queues.closed;
            drop(queues);
            return refuse(control, stopped);
        }
        queues.long += usize::from(is_long(&control));
        queues.control.push_back(control);
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

    /// Calls the log's thread.
    pub(super) fn call(&self) {
        if !std::mem::replace(&mut self.lock().called, true) {
            self.woken.notify_one();
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

    /// Waits until there is something for the log's thread, which others have not seen to: at most until `end`, and not
    /// beyond the time at which proposals have waited for company long enough. `false`: the node is to stop.
    pub(super) fn wait(&self, end: Instant, company: bool) -> bool {
        let mut queues = self.lock();
        loop {
            if queues.stopping {
                return false;
            }
            let now = Instant::now();
            let ready = match queues.due(company, now) {
                Due::Turn | Due::LongTurn => true,
                Due::Nothing => queues.called,
                // It stays called, so that it is not called for each of the proposals that come.
                Due::Later => false,
            };
            if ready || end <= now {
                queues.called = false;
                return true;
            }
            let until = queues.ripe_at(company).map_or(end, |ripe| ripe.min(end));
            (queues, _) = self
                .woken
                .wait_timeout(queues, until.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is to be done about what waits now. With `company`, proposals wait a little for more of their kind: as long as
    /// nothing else is there, at most [`COMPANY_WAIT`].
    pub(super) fn due(&self, company: bool) -> Due {
        let queues = self.lock();
        if queues.stopping { Due::Nothing } else { queues.due(company, Instant::now()) }
    }

    /// A turn's share of what waits.
    pub(super) fn take(&self, company: bool) -> Inputs<O> {
        self.lock().take(company)
    }

    /// The same, if that makes a short turn. Asked and taken under one lock: what came since somebody asked may be long.
    pub(super) fn take_short(&self, company: bool) -> Option<Inputs<O>> {
        let mut queues = self.lock();
        let short = !queues.stopping && queues.due(company, Instant::now()) == Due::Turn;
        short.then(|| queues.take(company))
    }
}

impl<O> Queues<O> {
    /// When the proposals that wait are to be taken; `None` when there are none.
    fn ripe_at(&self, company: bool) -> Option<Instant> {
        let full = self.proposals.len() >= MAX_BATCH_PROPOSALS || self.proposal_bytes >= MAX_BATCH_BYTES;
        let patience = if company && !full { COMPANY_WAIT } else { Duration::ZERO };
        self.waiting_since.map(|since| since + patience)
    }

    fn due(&self, company: bool, now: Instant) -> Due {
        let ripe = self.ripe_at(company).map(|ripe| ripe <= now);
        let bytes = self.message_bytes + if ripe == Some(true) { self.proposal_bytes } else { 0 };
        if self.long > 0 || bytes > LONG_TURN_BYTES {
            return Due::LongTurn;
        }
        if !self.messages.is_empty() || !self.control.is_empty() {
            return Due::Turn;
        }
        match ripe {
            Some(true) => Due::Turn,
            Some(false) => Due::Later,
            None => Due::Nothing,
        }
    }

    fn take(&mut self, company: bool) -> Inputs<O> {
        let ripe = self.ripe_at(company).is_some_and(|ripe| ripe <= Instant::now());
        let messages = self.messages.drain(..).collect();
        self.message_bytes = 0;
        let proposals = if ripe { self.batch() } else { Vec::new() };
        let control = self.control.drain(..).collect();
        self.long = 0;
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

/// Whether it may take long, or waits for the disk.
fn is_long(control: &Control) -> bool {
    match control {
        Control::Read(_) | Control::Written(_) | Control::Unreachable(_) | Control::Space(_) => false,
        Control::Change(..)
        | Control::Transfer(..)
        | Control::SnapshotSent { .. }
        | Control::SnapshotTaken(_)
        | Control::SnapshotReceived(..)
        | Control::Removed => true,
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
        let sink = move |control| {
            inbox.control(control);
            // It may be told in the middle of a turn.
            inbox.call();
        };
        Self { sink: Arc::new(sink) }
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn proposal(bytes: usize) -> Proposal<()> {
        Proposal { entry: vec![0; bytes], reply: oneshot::channel().0 }
    }

    #[test]
    fn what_is_long_is_left_to_the_thread_of_the_log() {
        let inbox = Inbox::<()>::new();
        assert_eq!(inbox.due(false), Due::Nothing);
        inbox.control(Control::Read(oneshot::channel().0));
        assert_eq!(inbox.due(false), Due::Turn);
        inbox.control(Control::Removed);
        assert_eq!(inbox.due(false), Due::LongTurn);
        inbox.take(false);
        assert_eq!(inbox.due(false), Due::Nothing);
        inbox.propose(proposal(9));
        assert_eq!(inbox.due(false), Due::Turn);
        inbox.propose(proposal(LONG_TURN_BYTES));
        assert_eq!(inbox.due(false), Due::LongTurn);
    }

    #[test]
    fn what_came_since_somebody_asked_is_not_taken_for_short() {
        let inbox = Inbox::<()>::new();
        inbox.propose(proposal(1));
        assert_eq!(inbox.due(false), Due::Turn);
        inbox.control(Control::Removed);
        assert!(inbox.take_short(false).is_none());
        let inputs = inbox.take(false);
        assert_eq!((inputs.proposals.len(), inputs.control.len()), (1, 1), "nothing of it is lost");
        inbox.propose(proposal(1));
        assert_eq!(inbox.take_short(false).map(|inputs| inputs.proposals.len()), Some(1));
        assert!(inbox.take_short(false).is_none(), "nothing is left");
    }

    #[test]
    fn proposals_wait_for_company_and_not_for_long() {
        let inbox = Inbox::<()>::new();
        inbox.propose(proposal(1));
        // Read before, since the wait began earlier still.
        assert_eq!(inbox.due(false), Due::Turn);
        let began = Instant::now();
        assert!(inbox.wait(began + SOON, true), "it is not to stop");
        assert!(began.elapsed() < SOON && inbox.due(true) == Due::Turn);
        assert_eq!(inbox.take(true).proposals.len(), 1);
    }

    #[test]
    fn nobody_is_woken_but_by_a_call() {
        let inbox = Arc::new(Inbox::<()>::new());
        let began = Instant::now();
        inbox.call();
        assert!(
            inbox.wait(began + SOON, false) && began.elapsed() < SOON,
            "a call is kept until it is heard"
        );
        let end = Instant::now() + Duration::from_millis(20);
        assert!(inbox.wait(end, false) && Instant::now() >= end, "and heard once");
        inbox.stop();
        assert!(!inbox.wait(began + SOON, false));
    }
}
