//! The way of a change of the membership, or of the leadership, to whichever node leads. Knows no operator.
//!
//! Decisions
//! * **Repeated freely.** A removal that is asked for again finds the node removed, a transfer finds it leading. So an attempt whose outcome is
//!   not known is simply repeated, but a transfer to "any": that would move the leadership twice.
//! * **A leader that is to go hands the leadership over by itself**, and the removal goes on to the next leader: an operator should not have to
//!   know who leads.

use std::time::Duration;

use supercloud_proto::v1;
use tokio::time::{Instant, timeout_at};

use super::Core;
use crate::raft::{ChangeError, Member, NodeId, Role};

/// Within which a change is done: a transfer takes up to three seconds, and a removal of the leader needs one and an election's calm.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// Wait before the next attempt, where this node learns nothing sooner.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Remove this node for good.
    Remove(NodeId),
    /// Hand the leadership to this node, or to the best one.
    Transfer(Option<NodeId>),
    /// Make this learner a voter.
    Promote(NodeId),
}

/// Why it was not done, or is not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// No leader was reached in time. Nothing was done.
    #[error("no leader was reached within {} s", CHANGE_DEADLINE.as_secs())]
    NoLeader,
    /// Other changes were under way all the time. Nothing was done.
    #[error("another change of the membership is under way")]
    Busy,
    /// There is no such node.
    #[error("{why}")]
    NotMember {
        /// In the leader's words.
        why: String,
    },
    /// The leader refuses it.
    #[error("{why}")]
    Refused {
        /// In the leader's words.
        why: String,
    },
    /// It may have been done, or may still be.
    #[error("whether the change was made is not known; look at the list of nodes")]
    OutcomeUnknown,
}

/// What became of one attempt.
enum Attempt {
    /// With the node it was about; for a transfer the new leader.
    Done(NodeId),
    /// Nothing was done; there is, or will be, another leader.
    NotTaken,
    /// Nothing was done; another change is under way.
    Busy,
    NotMember(String),
    Refused(String),
    Unknown,
}

pub(super) async fn anywhere(core: &Core, change: MemberChange) -> Result<NodeId, MemberError> {
    let deadline = Instant::now() + CHANGE_DEADLINE;
    let mut last = MemberError::NoLeader;
    while Instant::now() < deadline {
        let mut news = core.news();
        match attempt(core, change, deadline).await {
            Attempt::Done(node) => return Ok(node),
            Attempt::NotMember(why) => return Err(MemberError::NotMember { why }),
            Attempt::Refused(why) => return Err(MemberError::Refused { why }),
            Attempt::Unknown if change == MemberChange::Transfer(None) => {
                return Err(MemberError::OutcomeUnknown);
            }
            Attempt::Unknown => last = MemberError::OutcomeUnknown,
            Attempt::Busy if last == MemberError::NoLeader => last = MemberError::Busy,
            Attempt::Busy | Attempt::NotTaken => {}
        }
        // Sooner when this node learns something; an end of the channel shows at the next attempt.
        let _ = timeout_at((Instant::now() + AGAIN_AFTER).min(deadline), news.changed()).await;
    }
    Err(last)
}

async fn attempt(core: &Core, change: MemberChange, deadline: Instant) -> Attempt {
    let status = core.status();
    if let MemberChange::Remove(id) = change
        && (status.members.was_removed(id) || (status.role == Role::Removed && id == status.id))
    {
        return Attempt::Done(id);
    }
    match status.role {
        Role::Leader => return timeout_at(deadline, here(core, change)).await.unwrap_or(Attempt::Unknown),
        Role::Removed => return Attempt::Refused("this node was removed; ask another one".to_owned()),
        Role::Follower | Role::Candidate => {}
    }
    match status.leader.filter(|id| *id != status.id).and_then(|id| status.members.get(id)) {
        Some(leader) => forward(core, leader, change, deadline).await,
        None => Attempt::NotTaken,
    }
}

async fn here(core: &Core, change: MemberChange) -> Attempt {
    match change {
        MemberChange::Remove(id) => match core.log().remove(id).await {
            // The removal is not done yet, but the next leader can do it.
            Err(ChangeError::Leads { .. }) => match transfer(core, None).await {
                Attempt::Done(_) => Attempt::NotTaken,
                other => other,
            },
            // A repetition: the first one may have come by another node.
            Err(ChangeError::NotMember { .. }) if core.status().members.was_removed(id) => Attempt::Done(id),
            answer => told(answer.map(|()| id)),
        },
        MemberChange::Transfer(to) => transfer(core, to).await,
        MemberChange::Promote(id) => match core.log().promote(id).await {
            // A repetition, or the leader was quicker.
            Err(ChangeError::AlreadyMember { .. }) => Attempt::Done(id),
            answer => told(answer.map(|()| id)),
        },
    }
}

async fn transfer(core: &Core, to: Option<NodeId>) -> Attempt {
    let Some(to) = to.or_else(|| core.status().successor()) else {
        return Attempt::Refused(
            "there is no other voter within reach to take over the leadership".to_owned(),
        );
    };
    told(core.log().transfer_leadership(to).await.map(|()| to))
}

fn told(answer: Result<NodeId, ChangeError>) -> Attempt {
    let error = match answer {
        Ok(node) => return Attempt::Done(node),
        Err(error) => error,
    };
    match error {
        ChangeError::NotLeader { .. } => Attempt::NotTaken,
        ChangeError::Busy | ChangeError::Overloaded => Attempt::Busy,
        ChangeError::NotMember { .. } => Attempt::NotMember(error.to_string()),
        ChangeError::OutcomeUnknown | ChangeError::Stopped => Attempt::Unknown,
        _ => Attempt::Refused(error.to_string()),
    }
}

async fn forward(core: &Core, leader: &Member, change: MemberChange, deadline: Instant) -> Attempt {
    let mut client = match timeout_at(deadline, core.peers().client(leader)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            tracing::debug!(leader = %leader.id, %error, "the leader is not reached");
            return Attempt::NotTaken;
        }
        Err(_) => return Attempt::NotTaken,
    };
    let answer = match timeout_at(deadline, client.change_members(change.to_wire())).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            tracing::debug!(leader = %leader.id, %status, "the leader did not answer");
            core.peers().forget(leader.id);
            return Attempt::Unknown;
        }
        Err(_) => return Attempt::Unknown,
    };
    match answer.outcome() {
        v1::ChangeOutcome::Done => Attempt::Done(NodeId(answer.node_id)),
        v1::ChangeOutcome::NotLeader => Attempt::NotTaken,
        v1::ChangeOutcome::Busy => Attempt::Busy,
        v1::ChangeOutcome::NotMember => Attempt::NotMember(answer.message),
        v1::ChangeOutcome::Refused => Attempt::Refused(answer.message),
        v1::ChangeOutcome::Unspecified => Attempt::Unknown,
    }
}

impl MemberChange {
    fn to_wire(self) -> v1::ChangeMembersRequest {
        use v1::change_members_request::Change;
        let change = match self {
            Self::Remove(id) => Change::Remove(id.0),
            Self::Transfer(to) => Change::TransferTo(to.map_or(0, |id| id.0)),
            Self::Promote(id) => Change::Promote(id.0),
        };
        v1::ChangeMembersRequest { change: Some(change) }
    }

    fn from_wire(request: &v1::ChangeMembersRequest) -> Option<Self> {
        use v1::change_members_request::Change;
        match request.change.as_ref()? {
            Change::Remove(id) => Some(Self::Remove(NodeId(*id))),
            Change::TransferTo(to) => Some(Self::Transfer(Some(*to).filter(|id| *id != 0).map(NodeId))),
            Change::Promote(id) => Some(Self::Promote(NodeId(*id))),
        }
    }
}

/// Answers another node, if this one leads.
pub(crate) async fn serve(core: &Core, request: &v1::ChangeMembersRequest) -> v1::ChangeMembersResponse {
    let attempt = match MemberChange::from_wire(request) {
        Some(change) => {
            timeout_at(Instant::now() + CHANGE_DEADLINE, here(core, change)).await.unwrap_or(Attempt::Unknown)
        }
        None => Attempt::Refused("this node does not know that change".to_owned()),
    };
    let answer = |outcome: v1::ChangeOutcome, message: String| v1::ChangeMembersResponse {
        outcome: outcome.into(),
        message,
        node_id: 0,
    };
    match attempt {
        Attempt::Done(node) => {
            v1::ChangeMembersResponse { node_id: node.0, ..answer(v1::ChangeOutcome::Done, String::new()) }
        }
        Attempt::NotTaken => answer(v1::ChangeOutcome::NotLeader, String::new()),
        Attempt::Busy => answer(v1::ChangeOutcome::Busy, String::new()),
        Attempt::NotMember(why) => answer(v1::ChangeOutcome::NotMember, why),
        Attempt::Refused(why) => answer(v1::ChangeOutcome::Refused, why),
        Attempt::Unknown => answer(v1::ChangeOutcome::Unspecified, String::new()),
    }
}
