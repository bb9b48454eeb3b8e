//! A disk that is nearly full: what the log still does. It knows what it was told of its own disk, and what the others say of theirs in every
//! message; how much is too little is decided above.
//!
//! * A *leader* takes no proposals while its own disk is short, or while those of so many voters are that no majority could keep them. It could not
//!   take back what it appended.
//! * A *follower* passes over appends with data. Raft repeats them; heartbeats, votes and the commit index go on, so it stays readable. The empty
//!   entry of a new leader is taken: before it is committed that leader confirms no read, and an election is no reason to grow mute.
//! * *No snapshot* is begun that would not fit.

use ::raft::eraftpb::{Message, MessageType};

use super::super::limits::SNAPSHOT_SPARE_BYTES;
use super::super::members::NodeId;
use super::{LogStore, Machine, Node};

/// What is known of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free bytes.
    pub free: u64,
    /// Whether they are too few to take writes.
    pub short: bool,
}

impl Default for Space {
    /// Plenty, as far as is known.
    fn default() -> Self {
        Self { free: u64::MAX, short: false }
    }
}

impl Space {
    /// Whether a snapshot of so many bytes fits.
    pub(in crate::raft) fn takes(self, bytes: u64) -> bool {
        !self.short && self.free > bytes.saturating_add(SNAPSHOT_SPARE_BYTES)
    }
}

impl<M: Machine, L: LogStore> Node<M, L> {
    /// Whether a message is not taken for want of space.
    pub(super) fn has_no_room_for(&self, message: &Message) -> bool {
        let holds_data = || message.entries.iter().any(|entry| !entry.data.is_empty());
        self.space.short && message.get_msg_type() == MessageType::MsgAppend && holds_data()
    }

    /// Members whose disks are short, as far as this node knows.
    pub(super) fn short_of_space(&self) -> impl Iterator<Item = NodeId> {
        let short = |id: &NodeId| if id.0 == self.id { self.space.short } else { self.short.contains(&id.0) };
        self.members.members.keys().copied().filter(short)
    }

    /// Whose disks keep this leader from taking proposals; nobody's where it may take them.
    pub(super) fn hindered_by(&self) -> Vec<NodeId> {
        let short: Vec<NodeId> = self.short_of_space().collect();
        let voters = self.membership.conf().voters.len();
        let able = voters - short.iter().filter(|id| self.membership.is_voter(id.0)).count();
        let hindered = self.space.short || able <= voters / 2;
        if hindered { short } else { Vec::new() }
    }
}
