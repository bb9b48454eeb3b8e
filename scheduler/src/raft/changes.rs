//! Changes of the membership: what is asked, what is refused and why. Pure: it sees numbers, not raft.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::limits::{MAX_LEARNERS, MAX_VOTERS, PROMOTE_GAP, REACHABLE_TICKS};
use super::members::{Member, NodeId};
use super::membership::{Membership, StoredMember};

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    AddLearner { peer_address: String, api_address: String },
    Promote(NodeId),
    Remove(NodeId),
}

/// Where it is answered, with the node it was about.
pub(super) type ChangeReply = oneshot::Sender<Result<NodeId, ChangeError>>;

/// Why the membership was not changed, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<Member>,
    },
    /// Another change is under way. Try again.
    #[error("another change of the membership is under way")]
    Busy,
    /// A member is already reached at that address.
    #[error("node {id} is already a member with this address")]
    AlreadyMember {
        /// The member.
        id: NodeId,
    },
    /// There is no such member.
    #[error("node {id} is not a member")]
    NotMember {
        /// The node.
        id: NodeId,
    },
    /// The member does not vote yet.
    #[error("node {id} does not vote yet; wait until it has caught up")]
    NotVoter {
        /// The member.
        id: NodeId,
    },
    /// The member was not heard of lately.
    #[error("node {id} was not heard of in the last second")]
    Unreachable {
        /// The member.
        id: NodeId,
    },
    /// There are already as many members of that kind as there may be.
    #[error("there are already {limit} {kind}")]
    TooMany {
        /// "voters" or "learners".
        kind: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The learner lacks too much of the log to be promoted.
    #[error("node {id} is {behind} entries behind")]
    NotCaughtUp {
        /// The learner.
        id: NodeId,
        /// Entries it lacks.
        behind: u64,
    },
    /// Without the node too few of the others could be reached to agree on anything.
    #[error("without node {id} only {reachable} voters can be reached, and {needed} are needed")]
    NoQuorum {
        /// The node that was to go.
        id: NodeId,
        /// Voters left that were heard of lately.
        reachable: usize,
        /// The majority of the voters left.
        needed: usize,
    },
    /// The leader is not removed while it leads; transfer the leadership first.
    #[error("node {id} leads: transfer the leadership first")]
    Leads {
        /// The leader.
        id: NodeId,
    },
    /// The transfer did not happen in time.
    #[error("node {id} did not take over the leadership in time")]
    NotTransferred {
        /// Who should have.
        id: NodeId,
    },
    /// Leadership was lost on the way. The change may still happen, or may not.
    #[error("leadership was lost before the outcome was known")]
    OutcomeUnknown,
    /// Too much is under way.
    #[error("too much is under way")]
    Overloaded,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// What the leader knows when it judges a change.
pub(super) struct Judge<'a> {
    pub(super) membership: &'a Membership,
    pub(super) leader: u64,
    pub(super) commit: u64,
    /// Highest index known to be on each member's disk.
    pub(super) matched: &'a BTreeMap<NodeId, u64>,
    /// Tick at which each member was last heard.
    pub(super) heard: &'a BTreeMap<u64, u64>,
    pub(super) now: u64,
}

/// A change that may be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Permitted {
    Add(StoredMember),
    Promote(u64),
    Remove(u64),
}

impl Judge<'_> {
    pub(super) fn permit(&self, change: &Change) -> Result<Permitted, ChangeError> {
        match change {
            Change::AddLearner { peer_address, api_address } => self.add(peer_address, api_address),
            Change::Promote(id) => self.promote(*id),
            Change::Remove(id) => self.remove(*id),
        }
    }

    fn add(&self, peer_address: &str, api_address: &str) -> Result<Permitted, ChangeError> {
        if let Some(id) = self.membership.at(peer_address) {
            return Err(ChangeError::AlreadyMember { id: NodeId(id) });
        }
        if self.membership.conf().learners.len() >= MAX_LEARNERS {
            return Err(ChangeError::TooMany { kind: "learners", limit: MAX_LEARNERS });
        }
        Ok(Permitted::Add(StoredMember {
            id: self.membership.next_id(),
            peer_address: peer_address.to_owned(),
            api_address: api_address.to_owned(),
        }))
    }

    fn promote(&self, id: NodeId) -> Result<Permitted, ChangeError> {
        if !self.membership.conf().learners.contains(&id.0) {
            return Err(if self.membership.contains(id.0) {
                ChangeError::AlreadyMember { id }
            } else {
                ChangeError::NotMember { id }
            });
        }
        if self.membership.conf().voters.len() >= MAX_VOTERS {
            return Err(ChangeError::TooMany { kind: "voters", limit: MAX_VOTERS });
        }
        let behind = self.commit.saturating_sub(self.matched.get(&id).copied().unwrap_or(0));
        if behind > PROMOTE_GAP || !self.reachable(id.0) {
            return Err(ChangeError::NotCaughtUp { id, behind });
        }
        Ok(Permitted::Promote(id.0))
    }

    fn remove(&self, id: NodeId) -> Result<Permitted, ChangeError> {
        if !self.membership.contains(id.0) {
            return Err(ChangeError::NotMember { id });
        }
        if self.membership.is_voter(id.0) {
            let left: Vec<u64> =
                self.membership.conf().voters.iter().copied().filter(|voter| *voter != id.0).collect();
            let reachable = left.iter().filter(|voter| self.reachable(**voter)).count();
            let needed = left.len() / 2 + 1;
            if reachable < needed {
                return Err(ChangeError::NoQuorum { id, reachable, needed });
            }
        }
        // Last, so that a leadership is not handed over for a removal that is refused then.
        if id.0 == self.leader {
            return Err(ChangeError::Leads { id });
        }
        Ok(Permitted::Remove(id.0))
    }

    /// Whether the leadership may be handed to this node: a voter that was heard of lately.
    pub(super) fn may_lead(&self, id: NodeId) -> Result<(), ChangeError> {
        if !self.membership.contains(id.0) {
            Err(ChangeError::NotMember { id })
        } else if !self.membership.is_voter(id.0) {
            Err(ChangeError::NotVoter { id })
        } else if !self.reachable(id.0) {
            Err(ChangeError::Unreachable { id })
        } else {
            Ok(())
        }
    }

    /// Whether it was heard of in the last [`REACHABLE_TICKS`]; of use while leading.
    pub(super) fn reachable(&self, id: u64) -> bool {
        id == self.leader || self.heard.get(&id).is_some_and(|at| at + REACHABLE_TICKS > self.now)
    }

    /// A learner that has caught up, if there is one.
    pub(super) fn ripe(&self) -> Option<Permitted> {
        self.membership.conf().learners.iter().find_map(|id| self.promote(NodeId(*id)).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(voters: u64, heard: &[u64], change: Change, expected: Result<Permitted, ChangeError>) {
        let judge = Judge {
            membership: &Membership::of_voters(voters),
            leader: 1,
            commit: 10,
            matched: &BTreeMap::new(),
            heard: &heard.iter().map(|id| (*id, 100)).collect(),
            now: 101,
        };
        assert_eq!(judge.permit(&change), expected);
    }

    #[test]
    fn a_removal_leaves_a_majority_that_is_heard() {
        let (two, three) = (NodeId(2), NodeId(3));
        check(3, &[2], Change::Remove(three), Ok(Permitted::Remove(3)));
        check(3, &[2], Change::Remove(two), Err(ChangeError::NoQuorum { id: two, reachable: 1, needed: 2 }));
        check(2, &[], Change::Remove(two), Ok(Permitted::Remove(2)));
        check(2, &[], Change::Remove(three), Err(ChangeError::NotMember { id: three }));
        check(3, &[2, 3], Change::Remove(NodeId(1)), Err(ChangeError::Leads { id: NodeId(1) }));
        let one = NodeId(1);
        check(3, &[2], Change::Remove(one), Err(ChangeError::NoQuorum { id: one, reachable: 1, needed: 2 }));
        check(1, &[], Change::Remove(one), Err(ChangeError::NoQuorum { id: one, reachable: 0, needed: 1 }));
    }

    #[test]
    fn a_new_node_gets_a_number_that_was_never_used() {
        let add =
            |address: &str| Change::AddLearner { peer_address: address.into(), api_address: "a".into() };
        let added = StoredMember { id: 4, peer_address: "p9".into(), api_address: "a".into() };
        check(3, &[], add("p9"), Ok(Permitted::Add(added)));
        check(3, &[], add("p2"), Err(ChangeError::AlreadyMember { id: NodeId(2) }));
    }
}
