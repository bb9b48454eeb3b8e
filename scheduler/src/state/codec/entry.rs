//! Entries of the log as messages.

use supercloud_proto::{
    host::HostState,
    id::{HostId, InstanceId},
    log::v1 as stored,
    name::WorkloadKey,
    problem::{Problem, Problems},
    v1,
};

use crate::state::{
    command::{Command, Entry, HostVerdict, Placement},
    model::Grant,
};

type Stored = stored::entry::Command;

/// A problem with a field, alone.
pub(super) fn wrong(path: &str, expected: &str, found: impl ToString) -> Problems {
    Problems(vec![Problem::new(path, expected, found.to_string())])
}

/// Parses a name or id that stands in a field.
pub(super) fn parsed<T>(path: &str, text: &str) -> Result<T, Problems>
where
    T: std::str::FromStr,
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| wrong(path, &error.to_string(), text))
}

pub(super) fn to_message(entry: &Entry) -> stored::Entry {
    stored::Entry {
        format: entry.command.needs(),
        time_ms: entry.time,
        by: entry.by.clone(),
        request_id: entry.request_id.clone(),
        command: Some(command(&entry.command)),
    }
}

/// The command alone, for its fingerprint.
pub(super) fn command_message(of: &Command) -> stored::Entry {
    stored::Entry { command: Some(command(of)), ..stored::Entry::default() }
}

pub(super) fn from_message(message: stored::Entry) -> Result<Entry, Problems> {
    let found =
        message.command.ok_or_else(|| wrong("command", "a command that this version knows", "none"))?;
    Ok(Entry {
        time: message.time_ms,
        by: message.by,
        request_id: message.request_id,
        command: parse(found)?,
    })
}

fn command(command: &Command) -> Stored {
    match command {
        Command::Initialise { cluster_id } => {
            Stored::Initialise(stored::Initialise { cluster_id: cluster_id.clone() })
        }
        Command::CreateBorough { name, title } => {
            Stored::CreateBorough(stored::CreateBorough { name: name.into(), title: title.clone() })
        }
        Command::ApplyWorkload { spec, expect_revision } => Stored::ApplyWorkload(stored::ApplyWorkload {
            spec: Some(spec.as_ref().into()),
            expect_revision: *expect_revision,
        }),
        Command::ScaleWorkload { key, count } => Stored::ScaleWorkload(stored::ScaleWorkload {
            borough: (&key.borough).into(),
            workload: (&key.workload).into(),
            count: *count,
        }),
        Command::StopWorkload { key, purge } => Stored::StopWorkload(stored::StopWorkload {
            borough: (&key.borough).into(),
            workload: (&key.workload).into(),
            purge: *purge,
        }),
        Command::RegisterHost { name, inventory, incarnation } => {
            Stored::RegisterHost(stored::RegisterHost {
                name: name.into(),
                inventory: Some(inventory.as_ref().into()),
                incarnation: incarnation.clone(),
            })
        }
        Command::JudgeHosts(verdicts) => {
            Stored::JudgeHosts(stored::JudgeHosts { verdicts: verdicts.iter().map(verdict).collect() })
        }
        Command::SetSchedulable { name, schedulable } => {
            Stored::SetSchedulable(stored::SetSchedulable { name: name.into(), schedulable: *schedulable })
        }
        Command::RemoveHost { name } => Stored::RemoveHost(stored::RemoveHost { name: name.into() }),
        Command::Place(placements) => {
            Stored::Place(stored::Place { placements: placements.iter().map(placement).collect() })
        }
        Command::Replace { instances, reason } => Stored::Replace(stored::Replace {
            instances: instances.iter().map(ToString::to_string).collect(),
            reason: reason.clone(),
        }),
        Command::Report { host, reports } => Stored::Report(stored::Report {
            host_id: host.0,
            reports: reports.iter().map(Into::into).collect(),
        }),
        Command::CreateToken { id, secret_hash, grant, expires } => {
            Stored::CreateToken(token(id, secret_hash, grant, *expires))
        }
        Command::UseToken { id, secret_hash } => {
            Stored::UseToken(stored::UseToken { id: id.clone(), secret_hash: secret_hash.clone() })
        }
        Command::RaiseLevel { level } => Stored::RaiseLevel(stored::RaiseLevel { level: *level }),
        Command::CompareStates => Stored::CompareStates(stored::CompareStates {}),
    }
}

fn verdict(verdict: &HostVerdict) -> stored::HostVerdict {
    stored::HostVerdict {
        host_id: verdict.host.0,
        state: verdict.state.into(),
        reason: verdict.reason.clone(),
    }
}

fn placement(placement: &Placement) -> stored::Placement {
    stored::Placement {
        instance: placement.instance.to_string(),
        host_id: placement.host.0,
        host_ports: placement.ports.iter().map(|port| u32::from(*port)).collect(),
    }
}

fn parse(command: Stored) -> Result<Command, Problems> {
    Ok(match command {
        Stored::Initialise(m) => Command::Initialise { cluster_id: m.cluster_id },
        Stored::CreateBorough(m) => Command::CreateBorough { name: parsed("name", &m.name)?, title: m.title },
        Stored::ApplyWorkload(m) => {
            let spec = m.spec.ok_or_else(|| wrong("spec", "a spec", "none"))?;
            Command::ApplyWorkload { spec: Box::new(spec.try_into()?), expect_revision: m.expect_revision }
        }
        Stored::ScaleWorkload(m) => {
            Command::ScaleWorkload { key: key(&m.borough, &m.workload)?, count: m.count }
        }
        Stored::StopWorkload(m) => {
            Command::StopWorkload { key: key(&m.borough, &m.workload)?, purge: m.purge }
        }
        Stored::RegisterHost(m) => {
            let inventory = m.inventory.ok_or_else(|| wrong("inventory", "an inventory", "none"))?;
            Command::RegisterHost {
                name: parsed("name", &m.name)?,
                inventory: Box::new(inventory.try_into()?),
                incarnation: m.incarnation,
            }
        }
        Stored::JudgeHosts(m) => {
            Command::JudgeHosts(m.verdicts.into_iter().map(parse_verdict).collect::<Result<_, _>>()?)
        }
        Stored::SetSchedulable(m) => {
            Command::SetSchedulable { name: parsed("name", &m.name)?, schedulable: m.schedulable }
        }
        Stored::RemoveHost(m) => Command::RemoveHost { name: parsed("name", &m.name)? },
        Stored::Place(m) => {
            Command::Place(m.placements.into_iter().map(parse_placement).collect::<Result<_, _>>()?)
        }
        Stored::Replace(m) => Command::Replace {
            instances: m.instances.iter().map(|id| parsed("instances", id)).collect::<Result<_, _>>()?,
            reason: m.reason,
        },
        Stored::Report(m) => Command::Report {
            host: HostId(m.host_id),
            reports: m.reports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        },
        Stored::CreateToken(m) => Command::CreateToken {
            grant: parse_grant(m.role(), &m.name, &m.borough)?,
            id: m.id,
            secret_hash: m.secret_hash,
            expires: m.expires_ms,
        },
        Stored::UseToken(m) => Command::UseToken { id: m.id, secret_hash: m.secret_hash },
        Stored::RaiseLevel(m) => Command::RaiseLevel { level: m.level },
        Stored::CompareStates(_) => Command::CompareStates,
    })
}

pub(super) fn key(borough: &str, workload: &str) -> Result<WorkloadKey, Problems> {
    Ok(WorkloadKey { borough: parsed("borough", borough)?, workload: parsed("workload", workload)? })
}

fn parse_verdict(message: stored::HostVerdict) -> Result<HostVerdict, Problems> {
    let state = HostState::try_from(message.state)?;
    Ok(HostVerdict { host: HostId(message.host_id), state, reason: message.reason })
}

fn parse_placement(message: stored::Placement) -> Result<Placement, Problems> {
    Ok(Placement {
        instance: parsed::<InstanceId>("instance", &message.instance)?,
        host: HostId(message.host_id),
        ports: message.host_ports.into_iter().map(port).collect::<Result<_, _>>()?,
    })
}

/// A port number that stands in a field.
pub(super) fn port(number: u32) -> Result<u16, Problems> {
    u16::try_from(number).map_err(|_| wrong("host_ports", "a port up to 65535", number))
}

/// A token as a message.
pub(super) fn token(id: &str, secret_hash: &[u8], grant: &Grant, expires: u64) -> stored::CreateToken {
    let (role, name, borough) = grant_parts(grant);
    stored::CreateToken {
        id: id.to_owned(),
        secret_hash: secret_hash.to_owned(),
        role: role.into(),
        name,
        borough,
        expires_ms: expires,
    }
}

/// A grant as role, name and borough.
pub(super) fn grant_parts(grant: &Grant) -> (v1::TokenRole, String, String) {
    match grant {
        Grant::Scheduler => (v1::TokenRole::Scheduler, String::new(), String::new()),
        Grant::Agent(host) => (v1::TokenRole::Agent, host.into(), String::new()),
        Grant::Operator(name) => (v1::TokenRole::Operator, name.clone(), String::new()),
        Grant::Borough(borough, name) => (v1::TokenRole::Borough, name.clone(), borough.into()),
    }
}

/// A grant from role, name and borough.
pub(super) fn parse_grant(role: v1::TokenRole, name: &str, borough: &str) -> Result<Grant, Problems> {
    Ok(match role {
        v1::TokenRole::Scheduler => Grant::Scheduler,
        v1::TokenRole::Agent => Grant::Agent(parsed("name", name)?),
        v1::TokenRole::Operator => Grant::Operator(name.to_owned()),
        v1::TokenRole::Borough => Grant::Borough(parsed("borough", borough)?, name.to_owned()),
        v1::TokenRole::Unspecified => return Err(wrong("role", "a role", "none")),
    })
}
