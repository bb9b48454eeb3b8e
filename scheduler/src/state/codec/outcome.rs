//! Outcomes as messages.

use supercloud_proto::{id::HostId, log::v1 as stored, problem::Problems, v1};
use tonic::Code;

use super::entry::{grant_parts, parse_grant, wrong};
use crate::state::command::{Change, Done, Outcome, Rejection};

type Result_ = stored::outcome::Result;

pub(super) fn to_message(outcome: &Outcome) -> stored::Outcome {
    let result = match &outcome.result {
        Ok(done) => Result_::Done(done_message(done)),
        Err(rejection) => Result_::Rejected(rejected_message(rejection)),
    };
    stored::Outcome { index: outcome.index, result: Some(result) }
}

pub(super) fn from_message(message: stored::Outcome) -> Result<Outcome, Problems> {
    let result = match message.result.ok_or_else(|| wrong("result", "a result", "none"))? {
        Result_::Done(done) => Ok(parse_done(done)?),
        Result_::Rejected(rejected) => Err(parse_rejected(rejected)?),
    };
    Ok(Outcome { index: message.index, result })
}

fn done_message(done: &Done) -> stored::Done {
    use stored::done::What;
    let what = match done {
        Done::Nothing => What::Nothing(true),
        Done::Applied(change) => What::Change(change_message(*change).into()),
        Done::Scaled { before } => What::CountBefore(*before),
        Done::Instances(instances) => What::Instances(*instances),
        Done::Registered(host) => What::HostId(host.0),
        Done::Granted(grant) => {
            let (role, name, borough) = grant_parts(grant);
            What::Granted(stored::Granted { role: role.into(), name, borough })
        }
    };
    stored::Done { what: Some(what) }
}

fn parse_done(message: stored::Done) -> Result<Done, Problems> {
    use stored::done::What;
    Ok(
        match message.what.ok_or_else(|| wrong("done", "what was done", "nothing that this version knows"))? {
            What::Nothing(_) => Done::Nothing,
            What::Change(change) => Done::Applied(parse_change(change)?),
            What::CountBefore(before) => Done::Scaled { before },
            What::Instances(instances) => Done::Instances(instances),
            What::HostId(host) => Done::Registered(HostId(host)),
            What::Granted(granted) => {
                Done::Granted(parse_grant(granted.role(), &granted.name, &granted.borough)?)
            }
        },
    )
}

/// A change as the API names it.
pub fn change_message(change: Change) -> v1::ApplyChange {
    match change {
        Change::Created => v1::ApplyChange::Created,
        Change::Updated => v1::ApplyChange::Updated,
        Change::Scaled => v1::ApplyChange::Scaled,
        Change::Unchanged => v1::ApplyChange::Unchanged,
    }
}

fn parse_change(change: i32) -> Result<Change, Problems> {
    match v1::ApplyChange::try_from(change) {
        Ok(v1::ApplyChange::Created) => Ok(Change::Created),
        Ok(v1::ApplyChange::Updated) => Ok(Change::Updated),
        Ok(v1::ApplyChange::Scaled) => Ok(Change::Scaled),
        Ok(v1::ApplyChange::Unchanged) => Ok(Change::Unchanged),
        Ok(v1::ApplyChange::Unspecified) | Err(_) => Err(wrong("change", "a change", change)),
    }
}

fn rejected_message(rejection: &Rejection) -> stored::Rejected {
    let (code, message, problems) = match rejection {
        Rejection::NotFound(what) => (Code::NotFound, what.clone(), Vec::new()),
        Rejection::Exists(what) => (Code::AlreadyExists, what.clone(), Vec::new()),
        Rejection::Precondition(text) => (Code::FailedPrecondition, text.clone(), Vec::new()),
        Rejection::Limit(text) => (Code::ResourceExhausted, text.clone(), Vec::new()),
        Rejection::Denied(text) => (Code::PermissionDenied, text.clone(), Vec::new()),
        Rejection::Invalid(problems) => {
            (Code::InvalidArgument, String::new(), problems.iter().cloned().map(Into::into).collect())
        }
    };
    stored::Rejected { code: code as u32, message, problems }
}

fn parse_rejected(message: stored::Rejected) -> Result<Rejection, Problems> {
    let text = message.message;
    Ok(match Code::from(message.code as i32) {
        Code::NotFound => Rejection::NotFound(text),
        Code::AlreadyExists => Rejection::Exists(text),
        Code::FailedPrecondition => Rejection::Precondition(text),
        Code::ResourceExhausted => Rejection::Limit(text),
        Code::PermissionDenied => Rejection::Denied(text),
        Code::InvalidArgument => Rejection::Invalid(message.problems.into_iter().map(Into::into).collect()),
        code => return Err(wrong("code", "the code of a rejection", code)),
    })
}
