//! Who is in the cluster, as everybody above the log sees it. Knows no raft types.

use std::collections::BTreeMap;
use std::fmt;

/// Number of a scheduler node. Never 0, never used twice in a cluster's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a member counts in a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// It does.
    Voter,
    /// It still catches up, or is about to leave.
    Learner,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Where the other nodes reach it, `host:port`.
    pub peer_address: String,
    /// Where clients and agents reach it, `host:port`.
    pub api_address: String,
    /// Whether it votes.
    pub kind: MemberKind,
}

/// The whole membership at one index of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// All ids below it have been given out, and are never given out again.
    pub next_id: u64,
    /// The nodes, by number.
    pub members: BTreeMap<NodeId, Member>,
}

impl Members {
    /// One node by its number.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Those that count in a majority.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.kind == MemberKind::Voter)
    }

    /// Those that do not.
    pub fn learners(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.kind == MemberKind::Learner)
    }

    /// Whether `id` was a member once and is none any more.
    #[must_use]
    pub fn was_removed(&self, id: NodeId) -> bool {
        id.0 < self.next_id && !self.members.contains_key(&id)
    }
}
