//! What a node tells about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::raft::StateRole;

use super::{LogStore, Machine, Members, Node, NodeId};

/// What a node is to the others right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows, as a voter or a learner.
    Follower,
    /// It stands for election, or asks whether it should.
    Candidate,
    /// It is no member any more. It neither votes nor serves.
    Removed,
}

/// A node as it sees itself and the others. Published after every turn that changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who leads in this term, as far as it knows.
    pub leader: Option<NodeId>,
    /// Index up to which entries are committed.
    pub commit: u64,
    /// Index up to which they are applied here.
    pub applied: u64,
    /// Last entry in its log.
    pub last_index: u64,
    /// First entry that its log still holds.
    pub first_index: u64,
    /// Index of its newest snapshot.
    pub snapshot: u64,
    /// The membership as applied here.
    pub members: Arc<Members>,
    /// Highest index known to be on each member's disk. Empty while it does not lead.
    pub matched: BTreeMap<NodeId, u64>,
    /// Members that were heard of in the last second, itself among them. Empty while it does not lead.
    pub reachable: BTreeSet<NodeId>,
    /// Members whose disks are nearly full, as far as this node heard.
    pub short: BTreeSet<NodeId>,
}

impl Status {
    /// Who should lead instead of this leader: of the other voters that are reachable and have space, the one with most of the log.
    #[must_use]
    pub fn successor(&self) -> Option<NodeId> {
        let others = self.members.voters().map(|member| member.id);
        let reachable =
            others.filter(|id| *id != self.id && self.reachable.contains(id) && !self.short.contains(id));
        reachable.max_by_key(|id| self.matched.get(id).copied())
    }
}

impl<M: Machine, L: LogStore> Node<M, L> {
    pub(in crate::raft) fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let role = match raft.state {
            _ if self.removed => Role::Removed,
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        let leader =
            (raft.leader_id != ::raft::INVALID_ID && !self.removed).then_some(NodeId(raft.leader_id));
        Status {
            id: NodeId(self.id),
            role,
            term: raft.term,
            leader,
            commit: raft.raft_log.committed,
            applied: self.applied.index,
            last_index: raft.raft_log.last_index(),
            first_index: raft.raft_log.first_index(),
            snapshot: raft.store().snapshot_position().index,
            members: self.members.clone(),
            matched: if role == Role::Leader { self.matched() } else { BTreeMap::new() },
            short: self.short_of_space().collect(),
            reachable: if role == Role::Leader { self.reachable() } else { BTreeSet::new() },
        }
    }
}
