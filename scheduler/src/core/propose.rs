//! The way of a proposal to whichever node leads. What is decided here is when it may be tried again: always when nothing can have been
//! appended, and otherwise only under a request id, by which the state knows a repetition.

use std::{error::Error as _, time::Duration};

use supercloud_proto::v1;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, ConnectError};

use super::{Core, LevelTooLow, levels};
use crate::{
    raft::{self, Member, NodeId, Role, limits::MAX_ENTRY_BYTES},
    space,
    state::{Command, Entry, Outcome},
};

/// Within which a proposal is answered: several elections long.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Wait before a node is asked again that should know better soon.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why there is no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No node led, or none that leads was reached, in time. Nothing was done.
    #[error("no leader was reached within {} s", PROPOSE_DEADLINE.as_secs())]
    NoLeader,
    /// It may have been done, or may still be. A repetition with the same request id is answered, not done again.
    #[error("whether the request was carried out is not known; repeat it with the same request id")]
    OutcomeUnknown,
    /// Too much is under way. Nothing was done.
    #[error("too much is under way; try again in {} ms", .retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// It is too large for the log. Nothing was done.
    #[error("the request makes an entry of {found} bytes, the limit is {limit}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// Its size in bytes.
        found: usize,
    },
    /// The nodes cannot read it, or not all of them. Nothing was done.
    #[error("the request makes an entry that the log must not hold: {0}")]
    Unreadable(String),
    /// Not every member would know it. Nothing was done.
    #[error("{why}")]
    LevelTooLow {
        /// In the leader's words.
        why: String,
    },
    /// There is too little space on the disks that would have to keep it. Nothing was done.
    #[error("{why}")]
    NoSpace {
        /// Whose, and how little; in the leader's words.
        why: String,
    },
    /// This node has stopped. Nothing was done.
    #[error("the node has stopped")]
    Stopped,
}

impl From<LevelTooLow> for ProposeError {
    fn from(error: LevelTooLow) -> Self {
        Self::LevelTooLow { why: error.to_string() }
    }
}

impl From<raft::ProposeError> for ProposeError {
    fn from(error: raft::ProposeError) -> Self {
        match error {
            raft::ProposeError::NotLeader { .. } => Self::NoLeader,
            raft::ProposeError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            raft::ProposeError::NoSpace { .. } => Self::NoSpace { why: error.to_string() },
            raft::ProposeError::TooLarge { limit, found } => Self::TooLarge { limit, found },
            raft::ProposeError::Empty => Self::Unreadable("it is empty".to_owned()),
            // The node may have stopped after it appended.
            raft::ProposeError::OutcomeUnknown | raft::ProposeError::Stopped => Self::OutcomeUnknown,
        }
    }
}

/// What became of one attempt.
enum Attempt {
    Done(Outcome),
    /// Nothing was appended; another attempt may do better.
    NotTaken,
    /// It may have been appended.
    Unknown,
    Refused(ProposeError),
}

pub(super) async fn anywhere(core: &Core, entry: &Entry) -> Result<Outcome, ProposeError> {
    let bytes = encode(entry)?;
    let repeatable = !entry.request_id.is_empty();
    let deadline = Instant::now() + PROPOSE_DEADLINE;
    // Once an attempt may have been appended, running out of time means that the outcome is not known.
    let mut unknown = false;
    while Instant::now() < deadline {
        let mut news = core.news();
        match attempt(core, &entry.command, &bytes, deadline).await {
            Attempt::Done(outcome) => return Ok(outcome),
            Attempt::NotTaken => {}
            Attempt::Unknown if repeatable => unknown = true,
            Attempt::Unknown => return Err(ProposeError::OutcomeUnknown),
            Attempt::Refused(_) if unknown => return Err(ProposeError::OutcomeUnknown),
            Attempt::Refused(error) => return Err(error),
        }
        // Sooner when this node learns something; an end of the channel shows at the next attempt.
        let _ = timeout_at((Instant::now() + AGAIN_AFTER).min(deadline), news.changed()).await;
    }
    Err(if unknown { ProposeError::OutcomeUnknown } else { ProposeError::NoLeader })
}

fn encode(entry: &Entry) -> Result<Vec<u8>, ProposeError> {
    let bytes = entry.encode();
    if bytes.len() > MAX_ENTRY_BYTES {
        return Err(ProposeError::TooLarge { limit: MAX_ENTRY_BYTES, found: bytes.len() });
    }
    // Placements are many, and made of numbers and checked names, which always read back.
    if !matches!(entry.command, Command::Place(_) | Command::PlaceMany(_)) {
        Entry::decode(&bytes).map_err(|error| ProposeError::Unreadable(error.to_string()))?;
    }
    Ok(bytes)
}

async fn attempt(core: &Core, command: &Command, bytes: &[u8], deadline: Instant) -> Attempt {
    if core.role() == Role::Leader {
        return match levels::admit(core, command).await {
            Ok(()) => here(core, bytes, deadline).await,
            Err(error) => Attempt::Refused(error.into()),
        };
    }
    let status = core.status();
    match status.leader.filter(|id| *id != status.id).and_then(|id| status.members.get(id)) {
        Some(leader) => forward(core, leader, status.term, bytes, deadline).await,
        None if status.role == Role::Removed => Attempt::Refused(ProposeError::Stopped),
        None => Attempt::NotTaken,
    }
}

async fn here(core: &Core, bytes: &[u8], deadline: Instant) -> Attempt {
    match timeout_at(deadline, core.log().propose(bytes.to_vec())).await {
        Ok(Ok(committed)) => Attempt::Done(committed.outcome),
        Ok(Err(raft::ProposeError::NotLeader { .. })) => Attempt::NotTaken,
        Ok(Err(raft::ProposeError::NoSpace { nodes })) => no_space(core, &nodes),
        Ok(Err(raft::ProposeError::OutcomeUnknown)) => Attempt::Unknown,
        Ok(Err(error)) => Attempt::Refused(error.into()),
        Err(_) => Attempt::Unknown,
    }
}

/// A leader without space is about to hand the leadership to a node with space, if there is one.
fn no_space(core: &Core, nodes: &[NodeId]) -> Attempt {
    if core.status().successor().is_some() && nodes.contains(&core.node()) {
        return Attempt::NotTaken;
    }
    Attempt::Refused(ProposeError::NoSpace { why: space_wanted(core, nodes) })
}

/// Where space is wanted, in words.
pub(crate) fn space_wanted(core: &Core, nodes: &[NodeId]) -> String {
    let goes_on = "free some there, and it goes on by itself";
    if nodes.contains(&core.node()) {
        let (free, needed) = (core.log().space().free >> 20, space::NEEDED >> 20);
        let directory = core.directory().display();
        return format!(
            "node {} has too little space in {directory}: {free} MiB are free, {needed} MiB are needed; {goes_on}",
            core.node()
        );
    }
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    format!(
        "too many nodes have too little space on their disks to keep a write (node {}); {goes_on}",
        nodes.join(", node ")
    )
}

/// Sends the entry to the leader, and gives that up when this node learns of another one: the first may hang.
async fn forward(core: &Core, leader: &Member, term: u64, bytes: &[u8], deadline: Instant) -> Attempt {
    let connected = timeout_at(deadline, core.peers().client(leader)).await;
    let mut client = match connected {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            tracing::debug!(leader = %leader.id, %error, "the leader is not reached");
            return Attempt::NotTaken;
        }
        Err(_) => return Attempt::NotTaken,
    };
    let call = client.propose(v1::ProposeRequest { command: bytes.to_vec() });
    let mut terms = core.terms();
    let answer = tokio::select! {
        answer = timeout_at(deadline, call) => answer.ok(),
        _ = terms.wait_for(|now| *now > term) => None,
    };
    match answer {
        Some(Ok(response)) => match Outcome::decode(&response.into_inner().outcome) {
            Ok(outcome) => Attempt::Done(outcome),
            Err(error) => {
                tracing::warn!(leader = %leader.id, %error, "the leader's answer cannot be read");
                Attempt::Refused(ProposeError::OutcomeUnknown)
            }
        },
        Some(Err(status)) => {
            let attempt = read_refusal(&status);
            if matches!(attempt, Attempt::Unknown) || never_sent(&status) {
                core.peers().forget(leader.id);
            }
            attempt
        }
        None => {
            core.peers().forget(leader.id);
            Attempt::Unknown
        }
    }
}

/// What the leader's `peer_service` said, or what became of the connection.
fn read_refusal(status: &tonic::Status) -> Attempt {
    // The leader's own word comes without a cause. A cause means that the connection broke, and some of its faults are
    // given the very codes of a refusal, although the entry may have been appended.
    if status.source().is_some() {
        return if never_sent(status) { Attempt::NotTaken } else { Attempt::Unknown };
    }
    match status.code() {
        Code::FailedPrecondition => Attempt::NotTaken,
        Code::ResourceExhausted => {
            Attempt::Refused(ProposeError::Overloaded { retry_after: raft::limits::RETRY_AFTER })
        }
        Code::OutOfRange => Attempt::Refused(ProposeError::NoSpace { why: status.message().to_owned() }),
        Code::Unimplemented => {
            Attempt::Refused(ProposeError::LevelTooLow { why: status.message().to_owned() })
        }
        Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => {
            Attempt::Refused(ProposeError::Unreadable(status.message().to_owned()))
        }
        _ => Attempt::Unknown,
    }
}

/// Whether the connection could not even be opened, so that nothing was sent.
fn never_sent(status: &tonic::Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_not_taken_for_a_refusal() {
        let refused = tonic::Status::resource_exhausted("too many proposals are under way");
        assert!(matches!(read_refusal(&refused), Attempt::Refused(ProposeError::Overloaded { .. })));
        let mut broken = tonic::Status::resource_exhausted("the connection was ended: enhance your calm");
        broken.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        assert!(matches!(read_refusal(&broken), Attempt::Unknown));
    }
}
