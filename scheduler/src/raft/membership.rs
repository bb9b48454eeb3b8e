//! The membership as raft needs it and as it is stored: raft's configuration, the addresses, the next id.
//!
//! Decision: one truth. On disk the membership stands in the head of each snapshot, and in the log as the changes
//! since; nowhere else. A restart takes both together, so that state, applied index and membership cannot part. Before
//! a change is applied the commit index that covers it is synced (see `node::apply`), because a node that forgot an
//! applied change could otherwise elect itself by a majority of yesterday.

use std::collections::BTreeMap;

use ::raft::eraftpb::ConfState;
use prost11::Message as _;

use super::members::{Member, MemberKind, Members, NodeId};

/// Where to reach one member.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct StoredMember {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) peer_address: String,
    #[prost(string, tag = "3")]
    pub(super) api_address: String,
}

/// How the membership is written down.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct StoredMembership {
    #[prost(uint64, tag = "1")]
    pub(super) next_id: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) members: Vec<StoredMember>,
    /// raft's `ConfState`, in its own encoding.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) conf_state: Vec<u8>,
}

/// What travels with a change of the membership.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ChangeContext {
    /// The node that is added; absent in other changes.
    #[prost(message, optional, tag = "1")]
    pub(super) added: Option<StoredMember>,
}

/// See the head of the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Membership {
    conf: ConfState,
    addresses: BTreeMap<u64, StoredMember>,
    next_id: u64,
}

impl Membership {
    /// The first membership of a cluster: all are voters.
    pub(super) fn founded_by(members: &[Member]) -> Self {
        let stored = |member: &Member| StoredMember {
            id: member.id.0,
            peer_address: member.peer_address.clone(),
            api_address: member.api_address.clone(),
        };
        let addresses: BTreeMap<u64, StoredMember> =
            members.iter().map(|member| (member.id.0, stored(member))).collect();
        let conf = ConfState { voters: addresses.keys().copied().collect(), ..ConfState::default() };
        let next_id = addresses.keys().last().map_or(1, |id| id + 1);
        Self { conf, addresses, next_id }
    }

    /// So many voters, numbered from 1, at `p1`, `p2` and so on.
    #[cfg(test)]
    pub(super) fn of_voters(count: u64) -> Self {
        let member = |id| Member {
            id: NodeId(id),
            peer_address: format!("p{id}"),
            api_address: format!("a{id}"),
            kind: MemberKind::Voter,
        };
        Self::founded_by(&(1..=count).map(member).collect::<Vec<_>>())
    }

    pub(super) fn to_stored(&self) -> StoredMembership {
        StoredMembership {
            next_id: self.next_id,
            members: self.addresses.values().cloned().collect(),
            conf_state: self.conf.encode_to_vec(),
        }
    }

    pub(super) fn from_stored(stored: &StoredMembership) -> Result<Self, prost11::DecodeError> {
        let conf = ConfState::decode(stored.conf_state.as_slice())?;
        let addresses = stored.members.iter().map(|member| (member.id, member.clone())).collect();
        Ok(Self { conf, addresses, next_id: stored.next_id })
    }

    pub(super) fn conf(&self) -> &ConfState {
        &self.conf
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(super) fn address(&self, id: u64) -> Option<&str> {
        self.addresses.get(&id).map(|member| member.peer_address.as_str())
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.addresses.contains_key(&id)
    }

    pub(super) fn is_voter(&self, id: u64) -> bool {
        self.conf.voters.contains(&id)
    }

    /// The member that is reached at `address`, if there is one.
    pub(super) fn at(&self, address: &str) -> Option<u64> {
        self.addresses.values().find(|member| member.peer_address == address).map(|member| member.id)
    }

    /// Whether the change may be applied: an added node must carry a number that was never used.
    pub(super) fn admits(&self, context: &ChangeContext) -> bool {
        context.added.as_ref().is_none_or(|added| added.id >= self.next_id)
    }

    /// Takes over what raft made of an applied change.
    pub(super) fn changed(&mut self, conf: ConfState, context: ChangeContext) {
        if let Some(added) = context.added {
            self.next_id = self.next_id.max(added.id + 1);
            self.addresses.insert(added.id, added);
        }
        let kept = |id: &u64| {
            [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next]
                .iter()
                .any(|set| set.contains(id))
        };
        self.addresses.retain(|id, _| kept(id));
        self.conf = conf;
    }

    /// What the layers above see.
    pub(super) fn view(&self) -> Members {
        let member = |stored: &StoredMember| Member {
            id: NodeId(stored.id),
            peer_address: stored.peer_address.clone(),
            api_address: stored.api_address.clone(),
            kind: if self.is_voter(stored.id) { MemberKind::Voter } else { MemberKind::Learner },
        };
        let members = self.addresses.values().map(|stored| (NodeId(stored.id), member(stored))).collect();
        Members { next_id: self.next_id, members }
    }
}

/// Encodes the context of a change.
pub(super) fn encode_context(context: &ChangeContext) -> Vec<u8> {
    prost::Message::encode_to_vec(context)
}

/// Decodes it.
pub(super) fn decode_context(bytes: &[u8]) -> Result<ChangeContext, prost::DecodeError> {
    <ChangeContext as prost::Message>::decode(bytes)
}
