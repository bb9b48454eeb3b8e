//! The real machine of the log, with the observer beside it.

use std::io::{Read, Write};

use supercloud_scheduler::{
    archive::Archive,
    raft::{Machine, Members, NodeId, RestoreError},
    replica::{Replica, ReplicaCopy},
    state::{Outcome, State},
};
use tokio::sync::watch;

use super::ghost::Ghost;

/// States are compared at every index that this divides: hashing is most of what a run costs.
const HASH_EVERY: u64 = 4;

/// See the head of the module.
pub(super) struct Watched {
    replica: Replica,
    states: watch::Receiver<State>,
    /// The last one that was looked at.
    looked: State,
    node: NodeId,
    ghost: Ghost,
}

impl Watched {
    /// A machine with nothing in it, and where its states are published.
    pub(super) fn new(node: NodeId, ghost: Ghost) -> (Self, watch::Receiver<State>) {
        let (replica, states) = Replica::new(Archive::absent());
        (Self { replica, states: states.clone(), looked: State::default(), node, ghost }, states)
    }
}

impl Machine for Watched {
    type Outcome = Outcome;
    type Copy = ReplicaCopy;

    fn apply(&mut self, index: u64, entry: &[u8]) -> Outcome {
        self.ghost.applied(self.node, index, entry);
        self.replica.apply(index, entry)
    }

    fn is_long(&self, entry: &[u8]) -> bool {
        self.replica.is_long(entry)
    }

    fn applied_batch(&mut self, applied_index: u64, members: &Members) {
        self.replica.applied_batch(applied_index, members);
        self.ghost.membership(applied_index, members);
        let state = self.states.borrow().clone();
        let index = state.applied();
        if index > 0 && index.is_multiple_of(HASH_EVERY) {
            self.ghost.state(self.node, index, state.hash());
        }
        if self.ghost.is_first(index)
            && let Some(fault) = super::estate::fault(&self.looked, &state)
        {
            self.ghost.accuse(|| format!("{fault}, at index {index}"));
        }
        self.looked = state;
    }

    fn copy(&self) -> ReplicaCopy {
        self.replica.copy()
    }

    fn write_snapshot(copy: ReplicaCopy, out: &mut dyn Write) -> std::io::Result<()> {
        Replica::write_snapshot(copy, out)
    }

    fn restore(&mut self, index: u64, input: &mut dyn Read) -> Result<(), RestoreError> {
        self.replica.restore(index, input)
    }
}
