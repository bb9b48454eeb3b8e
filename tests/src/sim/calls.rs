//! Calls between places: from clients to nodes, from a node to the one that leads, and their answers. Each may get lost; nobody is told.

use supercloud_scheduler::{
    heartbeats::Beat,
    raft::{ChangeError, NodeId},
    state::{Entry, Outcome},
};

use super::{
    Micros,
    network::{Place, Stream},
    world::{Event, World},
};

/// Number of a call. Never used twice in a run.
pub(super) type CallId = u64;

/// A process that stands still has a call waiting in its socket.
const STANDSTILL: Micros = 50_000;

/// What is asked of a node.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// A write. The node that leads stamps the time.
    Propose {
        /// What is to be done.
        entry: Entry,
        /// It comes from a node that does not lead.
        passed_on: bool,
    },
    /// A linearizable read.
    Read,
    /// A change of the membership or of the leadership.
    Change(Change),
    /// Heartbeats, for the leader.
    Beats {
        /// Of agents with a session on the node.
        beats: Vec<Beat>,
        /// They come from a node that does not lead.
        passed_on: bool,
    },
}

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A node that is about to join.
    Add {
        /// Where it is to be reached.
        peer_address: String,
    },
    /// A member goes for good.
    Remove(NodeId),
    /// Another node is to lead.
    Lead(NodeId),
}

/// What became of it.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// The write is on a majority's disks and applied.
    Done {
        /// At this index.
        index: u64,
        /// What the state said.
        outcome: Outcome,
    },
    /// Nothing was done.
    NotTaken,
    /// It may have been done.
    Unknown,
    /// The state as of an index that the leader has confirmed.
    Read {
        /// Who shows it.
        node: NodeId,
        /// The index; the node has applied at least so much.
        index: u64,
    },
    /// There is no linearizable read now.
    NoRead,
    /// The leader has the heartbeats; everything it had decided before is in the log up to this index.
    Taken {
        /// The index.
        index: u64,
    },
    /// The membership was changed or not; a node that was added has this number.
    Changed(Result<Option<NodeId>, ChangeError>),
}

impl World {
    pub(super) fn next_call(&mut self) -> CallId {
        self.calls += 1;
        self.calls
    }

    /// Sends a call on its way.
    pub(super) fn call(&mut self, from: Place, node: NodeId, id: CallId, request: Request) {
        // A call that comes twice would be another call: only its being lost or late is simulated.
        let arrival =
            self.network.arrivals(self.now, from, Place::Node(node), Stream::Calls).first().copied();
        if let Some(at) = arrival {
            self.at(at, Event::Call { node, id, from, request });
        }
    }

    pub(super) fn on_call_event(&mut self, node: NodeId, id: CallId, from: Place, request: Request) {
        if self.servers.get(&node).is_some_and(|server| server.paused && server.running.is_some()) {
            return self.after(STANDSTILL, Event::Call { node, id, from, request });
        }
        self.on_call(node, id, from, request);
    }

    /// Sends an answer back, or takes it where it was asked.
    pub(super) fn answer(&mut self, node: NodeId, to: Place, id: CallId, answer: Answer) {
        if to == Place::Node(node) {
            return self.on_own_answer(node, id, answer);
        }
        let arrival = self.network.arrivals(self.now, Place::Node(node), to, Stream::Calls).first().copied();
        if let Some(at) = arrival {
            self.at(at, Event::Answer { to, id, answer });
        }
    }

    pub(super) fn on_answer(&mut self, to: Place, id: CallId, answer: Answer) {
        match to {
            Place::Node(node) => self.on_passed_on(node, id, answer),
            Place::Client(client) => self.on_client_answer(client, id, answer),
            // Agents speak through sessions alone.
            Place::Host(_) => {}
        }
    }
}
