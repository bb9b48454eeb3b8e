//! The one place where errors become gRPC statuses, with `ErrorDetails` for programs: what is wrong, when to try again, and whether the call
//! may have taken effect. A status' message stands alone: not every client reads details.

use std::time::Duration;

use prost::Message as _;
use supercloud_proto::{
    problem::{self, Problem, Problems},
    v1,
};
use tonic::{Code, Status};

use crate::{
    archive::WatchError,
    ca::SignError,
    core::{MemberError, ProposeError, ReadError},
    raft::ChangeError,
    state::Rejection,
    watch::WaitError,
};

/// What a caller is told to wait where there is no leader: an election takes less than half a second.
const RETRY_ELECTION: Duration = Duration::from_millis(300);
/// What a caller is told to wait where disks are full: somebody has to clear them.
const RETRY_SPACE: Duration = Duration::from_secs(10);
/// What a caller is told to wait where too much is under way.
const RETRY_BUSY: Duration = Duration::from_millis(500);

fn with(code: Code, message: impl Into<String>, details: &v1::ErrorDetails) -> Status {
    Status::with_details(code, message, details.encode_to_vec().into())
}

fn try_again(code: Code, message: impl Into<String>, after: Duration) -> Status {
    let retry_after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    with(code, message, &v1::ErrorDetails { retry_after_ms, ..Default::default() })
}

/// The call may have taken effect, or may yet.
fn unknown(message: impl Into<String>) -> Status {
    let details = v1::ErrorDetails { outcome_unknown: true, ..Default::default() };
    with(Code::Unavailable, message, &details)
}

/// `INVALID_ARGUMENT` with all problems.
#[must_use]
pub fn invalid(problems: Problems) -> Status {
    let message = match problems.0.as_slice() {
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        [] => "the request is not valid".to_owned(),
    };
    problem::status(Code::InvalidArgument, message, problems.0)
}

/// `INVALID_ARGUMENT` with one problem.
#[must_use]
pub fn problem(path: &str, expected: impl Into<String>, found: impl Into<String>) -> Status {
    invalid(Problem::new(path, expected, found).into())
}

/// `NOT_FOUND`, in the words of the state.
#[must_use]
pub fn not_found(what: impl Into<String>) -> Status {
    rejection(Rejection::NotFound(what.into()))
}

/// What the state refused.
#[must_use]
pub fn rejection(rejection: Rejection) -> Status {
    let message = rejection.to_string();
    match rejection {
        Rejection::NotFound(_) => Status::not_found(message),
        Rejection::Exists(_) => Status::already_exists(message),
        Rejection::Precondition(_) => Status::failed_precondition(message),
        Rejection::Limit(_) => Status::resource_exhausted(message),
        Rejection::Denied(_) => Status::permission_denied(message),
        Rejection::Invalid(problems) => invalid(Problems(problems)),
    }
}

/// What became of a proposal that was not acknowledged.
#[must_use]
pub fn propose(error: &ProposeError) -> Status {
    let message = error.to_string();
    match error {
        ProposeError::NoLeader | ProposeError::Stopped => {
            try_again(Code::Unavailable, message, RETRY_ELECTION)
        }
        ProposeError::OutcomeUnknown => unknown(message),
        ProposeError::Overloaded { retry_after } => try_again(Code::ResourceExhausted, message, *retry_after),
        ProposeError::NoSpace { .. } => try_again(Code::ResourceExhausted, message, RETRY_SPACE),
        ProposeError::LevelTooLow { .. } => Status::failed_precondition(message),
        ProposeError::TooLarge { .. } | ProposeError::Unreadable(_) => Status::invalid_argument(message),
    }
}

/// Why a linearizable read got nothing.
#[must_use]
pub fn read(error: &ReadError) -> Status {
    let message = format!("{error}; a stale read needs no leader");
    match error {
        ReadError::NoLeader | ReadError::Behind { .. } | ReadError::Stopped => {
            try_again(Code::Unavailable, message, RETRY_ELECTION)
        }
        ReadError::Overloaded => try_again(Code::ResourceExhausted, message, RETRY_BUSY),
    }
}

/// The change took effect, but this node has not seen it in time.
#[must_use]
pub fn not_seen(error: &WaitError) -> Status {
    unknown(format!("the change was accepted, but this node cannot show it: {error}"))
}

/// Why the membership was not changed.
#[must_use]
pub fn change(error: &ChangeError) -> Status {
    let message = error.to_string();
    match error {
        ChangeError::NotLeader { .. } | ChangeError::Stopped => {
            try_again(Code::Unavailable, message, RETRY_ELECTION)
        }
        ChangeError::Busy | ChangeError::Overloaded => try_again(Code::Unavailable, message, RETRY_BUSY),
        ChangeError::OutcomeUnknown => unknown(message),
        _ => Status::failed_precondition(message),
    }
}

/// Why an operator's change of the membership was not made.
#[must_use]
pub fn members(error: &MemberError) -> Status {
    let message = error.to_string();
    match error {
        MemberError::NoLeader => try_again(Code::Unavailable, message, RETRY_ELECTION),
        MemberError::Busy => try_again(Code::Unavailable, message, RETRY_BUSY),
        MemberError::NotMember { .. } => Status::not_found(message),
        MemberError::Refused { .. } => Status::failed_precondition(message),
        MemberError::OutcomeUnknown => unknown(message),
    }
}

/// Why events are not listed or followed.
#[must_use]
pub fn watch(error: &WatchError) -> Status {
    match error {
        WatchError::Compacted { .. } => Status::out_of_range(error.to_string()),
        WatchError::Archive(_) | WatchError::Stopped => {
            try_again(Code::Unavailable, error.to_string(), RETRY_BUSY)
        }
    }
}

/// Why a certificate was not signed.
#[must_use]
pub fn sign(error: &SignError) -> Status {
    let text = match error {
        SignError::Request(source) => format!("{error} ({source})"),
        _ => error.to_string(),
    };
    match error {
        SignError::TooLarge { .. } | SignError::Request(_) | SignError::KeyKind => {
            self::problem("csr_pem", "a certificate request as supercloud makes it", text)
        }
        SignError::ServerNames { .. } => self::problem("server_names", "names of a scheduler's host", text),
        SignError::CaExpired => Status::failed_precondition(text),
        SignError::Randomness(_) | SignError::Sign(_) => Status::internal(text),
    }
}

/// Too many of something on this node; another one may do.
#[must_use]
pub fn too_many(what: &str, limit: usize) -> Status {
    let message = format!("this node serves {limit} {what} already; try another node");
    try_again(Code::ResourceExhausted, message, RETRY_BUSY)
}

/// A long call that ends because the node does.
#[must_use]
pub fn shutting_down() -> Status {
    try_again(Code::Unavailable, "this node is shutting down; go on with another one", RETRY_ELECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(status: &Status) -> v1::ErrorDetails {
        problem::of_status(status).unwrap_or_default()
    }

    #[test]
    fn each_refusal_has_its_code() {
        let text = || "x".to_owned();
        let cases = [
            (rejection(Rejection::NotFound(text())), Code::NotFound),
            (rejection(Rejection::Exists(text())), Code::AlreadyExists),
            (rejection(Rejection::Precondition(text())), Code::FailedPrecondition),
            (rejection(Rejection::Limit(text())), Code::ResourceExhausted),
            (rejection(Rejection::Denied(text())), Code::PermissionDenied),
            (rejection(Rejection::Invalid(Vec::new())), Code::InvalidArgument),
            (propose(&ProposeError::TooLarge { limit: 1, found: 2 }), Code::InvalidArgument),
            (read(&ReadError::NoLeader), Code::Unavailable),
            (read(&ReadError::Overloaded), Code::ResourceExhausted),
            (change(&ChangeError::Busy), Code::Unavailable),
            (members(&MemberError::Busy), Code::Unavailable),
            (members(&MemberError::NotMember { why: text() }), Code::NotFound),
            (members(&MemberError::Refused { why: text() }), Code::FailedPrecondition),
            (change(&ChangeError::NotMember { id: crate::raft::NodeId(4) }), Code::FailedPrecondition),
        ];
        for (status, code) in cases {
            assert_eq!(status.code(), code, "{status}");
        }
    }

    #[test]
    fn what_may_have_happened_is_told_from_what_did_not() {
        let unknown = propose(&ProposeError::OutcomeUnknown);
        assert_eq!((unknown.code(), details(&unknown).outcome_unknown), (Code::Unavailable, true));
        let after = Duration::from_millis(100);
        let busy = details(&propose(&ProposeError::Overloaded { retry_after: after }));
        assert_eq!((busy.outcome_unknown, busy.retry_after_ms), (false, 100));
        assert!(details(&change(&ChangeError::OutcomeUnknown)).outcome_unknown);
    }

    #[test]
    fn all_problems_travel_and_the_first_is_read_without_them() {
        let one = Problem::new("count", "at most 5", "6");
        let status = invalid(Problems(vec![one.clone(), one]));
        assert_eq!(status.message(), "count: expected at most 5, found 6 (and 1 more)");
        assert_eq!(details(&status).problems.len(), 2);
    }
}
