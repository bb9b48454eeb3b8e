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

/// A node as it sees itself and the others. Up to date after every turn; who watches it is woken by [news](Status::is_news_after) only.
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
    /// Whether more is new than how far the log has come, which changes with every entry.
    #[must_use]
    pub fn is_news_after(&self, before: &Self) -> bool {
        let Self { id, role, term, leader, first_index, snapshot, members, reachable, short, .. } = self;
        (*id, *role, *term, *leader) != (before.id, before.role, before.term, before.leader)
            || (*first_index, *snapshot) != (before.first_index, before.snapshot)
            || (members, reachable, short) != (&before.members, &before.reachable, &before.short)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_the_log_has_come_is_no_news() {
        let before = Status {
            id: NodeId(1),
            role: Role::Leader,
            term: 2,
            leader: Some(NodeId(1)),
            commit: 5,
            applied: 5,
            last_index: 6,
            first_index: 1,
            snapshot: 0,
            members: Arc::new(Members { next_id: 2, members: BTreeMap::new() }),
            matched: BTreeMap::new(),
            reachable: BTreeSet::new(),
            short: BTreeSet::new(),
        };
        let matched = BTreeMap::from([(NodeId(2), 6)]);
        let further = Status { commit: 6, applied: 6, last_index: 7, matched, ..before.clone() };
        assert!(!further.is_news_after(&before));
        assert!(Status { term: 3, ..before.clone() }.is_news_after(&before));
        assert!(Status { snapshot: 4, ..before.clone() }.is_news_after(&before));
        assert!(Status { reachable: [NodeId(2)].into(), ..before.clone() }.is_news_after(&before));
    }
}
