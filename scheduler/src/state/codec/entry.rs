//! Entries of the log as messages.

use supercloud_proto::{
    cores::Cores,
    host::HostState,
    id::{HostId, InstanceId},
    instance::InstanceReport,
    log::v1 as stored,
    name::WorkloadKey,
    problem::{Problem, Problems},
    v1,
};

use crate::state::{
    command::{Command, Entry, HostReports, HostVerdict, Placement, Preemption},
    model::Grant,
};

use super::{boroughs, sites};

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
        Command::SetBorough { name, change } => Stored::SetBorough(stored::SetBorough {
            name: name.into(),
            change: Some(boroughs::change_message(change)),
        }),
        Command::SetSite { name, change } => Stored::SetSite(stored::SetSite {
            name: name.into(),
            change: Some(sites::change_message(*change)),
        }),
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
        Command::ForgetVolumes { key, host } => Stored::ForgetVolumes(stored::ForgetVolumes {
            borough: (&key.borough).into(),
            workload: (&key.workload).into(),
            host: host.into(),
        }),
        Command::Place(placements) => {
            Stored::Place(stored::Place { placements: placements.iter().map(placement).collect() })
        }
        Command::Replace { instances, reason } => Stored::Replace(stored::Replace {
            instances: instances.iter().map(ToString::to_string).collect(),
            reason: reason.clone(),
        }),
        Command::Report { host, reports } => Stored::Report(report(*host, reports)),
        Command::CreateToken { id, secret_hash, grant, expires } => {
            Stored::CreateToken(token(id, secret_hash, grant, *expires))
        }
        Command::UseToken { id, secret_hash } => {
            Stored::UseToken(stored::UseToken { id: id.clone(), secret_hash: secret_hash.clone() })
        }
        Command::PlaceMany(placements) => Stored::PlaceMany(columns(placements)),
        Command::ReportMany(hosts) => {
            Stored::ReportMany(stored::ReportMany { reports: hosts.iter().map(host_reports).collect() })
        }
        Command::Preempt(preemptions) => {
            Stored::Preempt(stored::Preempt { preemptions: preemptions.iter().map(preemption).collect() })
        }
        Command::RaiseLevel { level } => Stored::RaiseLevel(stored::RaiseLevel { level: *level }),
        Command::CompareStates => Stored::CompareStates(stored::CompareStates {}),
    }
}

fn preemption(of: &Preemption) -> stored::Preemption {
    stored::Preemption {
        instance: of.instance.to_string(),
        host_id: of.host.map_or(0, |host| host.0),
        before_host_id: of.before.map_or(0, |host| host.0),
        victims: of.victims.iter().map(ToString::to_string).collect(),
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
        devices: placement.devices.iter().map(Into::into).collect(),
        cores: placement.cores.as_deref().map(Into::into),
    }
}

/// Placements as columns of differences.
fn columns(placements: &[Placement]) -> stored::PlaceMany {
    let column = |value: fn(&Placement) -> u64| {
        let mut differences = Differences::default();
        placements.iter().map(|placement| differences.pack(value(placement))).collect()
    };
    stored::PlaceMany {
        indexes: column(|placement| placement.instance.index),
        ordinals: column(|placement| placement.instance.ordinal.into()),
        hosts: column(|placement| placement.host.0.into()),
        port_counts: placements.iter().map(|placement| placement.ports.len() as u32).collect(),
        host_ports: placements
            .iter()
            .flat_map(|placement| &placement.ports)
            .map(|port| (*port).into())
            .collect(),
        device_counts: if placements.iter().all(|placement| placement.devices.is_empty()) {
            Vec::new()
        } else {
            placements.iter().map(|placement| placement.devices.len() as u32).collect()
        },
        devices: placements.iter().flat_map(|placement| &placement.devices).map(Into::into).collect(),
        cores: (0..).zip(placements).filter_map(placed_cores).collect(),
    }
}

fn placed_cores((place, placement): (u32, &Placement)) -> Option<stored::PlacedCores> {
    placement.cores.as_deref().map(|cores| stored::PlacedCores { place, cores: Some(cores.into()) })
}

fn parse_columns(message: &stored::PlaceMany) -> Result<Vec<Placement>, Problems> {
    let whole = message.indexes.len();
    let lengths = [message.ordinals.len(), message.hosts.len(), message.port_counts.len()];
    let sum = |counts: &[u32]| counts.iter().map(|count| u64::from(*count)).sum::<u64>();
    let of_devices = message.device_counts.len();
    if lengths != [whole; 3]
        || (of_devices != 0 && of_devices != whole)
        || sum(&message.port_counts) != message.host_ports.len() as u64
        || sum(&message.device_counts) != message.devices.len() as u64
    {
        return Err(wrong("place_many", "columns of one length", format!("{lengths:?}, {of_devices}")));
    }
    let (mut index, mut ordinal, mut host) =
        (Differences::default(), Differences::default(), Differences::default());
    let (mut ports, mut devices) = (message.host_ports.as_slice(), message.devices.as_slice());
    let small =
        |path, number: u64| u32::try_from(number).map_err(|_| wrong(path, "a number of 32 bits", number));
    let mut placements = Vec::with_capacity(message.indexes.len());
    for (place, count) in message.port_counts.iter().enumerate() {
        let (own, rest) = ports.split_at(*count as usize);
        ports = rest;
        let count = message.device_counts.get(place).copied().unwrap_or_default();
        let (own_devices, rest) = devices.split_at(count as usize);
        devices = rest;
        placements.push(Placement {
            instance: InstanceId {
                index: index.unpack(message.indexes[place]),
                ordinal: small("ordinals", ordinal.unpack(message.ordinals[place]))?,
            },
            host: HostId(small("hosts", host.unpack(message.hosts[place]))?),
            ports: own.iter().map(|number| port(*number)).collect::<Result<_, _>>()?,
            devices: own_devices.iter().map(|name| parsed("devices", name)).collect::<Result<_, _>>()?,
            cores: None,
        });
    }
    for stored::PlacedCores { place, cores } in &message.cores {
        let placement = placements.get_mut(*place as usize);
        let placement = placement.ok_or_else(|| wrong("cores", "the place of a placement", place))?;
        placement.cores = parse_cores(cores.clone())?;
    }
    Ok(placements)
}

/// Numbers as the differences between them, which are small where the numbers grow slowly.
#[derive(Default)]
struct Differences(u64);

impl Differences {
    fn pack(&mut self, number: u64) -> i64 {
        let difference = number.wrapping_sub(self.0);
        self.0 = number;
        difference as i64
    }

    fn unpack(&mut self, difference: i64) -> u64 {
        self.0 = self.0.wrapping_add(difference as u64);
        self.0
    }
}

fn report(host: HostId, reports: &[InstanceReport]) -> stored::Report {
    stored::Report { host_id: host.0, reports: reports.iter().map(Into::into).collect() }
}

fn host_reports(of: &HostReports) -> stored::Report {
    report(of.host, &of.reports)
}

fn parse_host_reports(message: stored::Report) -> Result<HostReports, Problems> {
    let reports = message.reports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    Ok(HostReports { host: HostId(message.host_id), reports })
}

fn parse(command: Stored) -> Result<Command, Problems> {
    Ok(match command {
        Stored::Initialise(m) => Command::Initialise { cluster_id: m.cluster_id },
        Stored::CreateBorough(m) => Command::CreateBorough { name: parsed("name", &m.name)?, title: m.title },
        Stored::SetBorough(m) => {
            let change = m.change.ok_or_else(|| wrong("change", "a change", "none"))?;
            Command::SetBorough { name: parsed("name", &m.name)?, change: boroughs::parse_change(change) }
        }
        Stored::SetSite(m) => {
            let change = m.change.ok_or_else(|| wrong("change", "a change", "none"))?;
            Command::SetSite { name: parsed("name", &m.name)?, change: sites::parse_change(change)? }
        }
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
        Stored::ForgetVolumes(m) => {
            Command::ForgetVolumes { key: key(&m.borough, &m.workload)?, host: parsed("host", &m.host)? }
        }
        Stored::Place(m) => {
            Command::Place(m.placements.into_iter().map(parse_placement).collect::<Result<_, _>>()?)
        }
        Stored::Replace(m) => Command::Replace {
            instances: m.instances.iter().map(|id| parsed("instances", id)).collect::<Result<_, _>>()?,
            reason: m.reason,
        },
        Stored::Report(m) => {
            let HostReports { host, reports } = parse_host_reports(m)?;
            Command::Report { host, reports }
        }
        Stored::PlaceMany(m) => Command::PlaceMany(parse_columns(&m)?),
        Stored::ReportMany(m) => {
            Command::ReportMany(m.reports.into_iter().map(parse_host_reports).collect::<Result<_, _>>()?)
        }
        Stored::CreateToken(m) => Command::CreateToken {
            grant: parse_grant(m.role(), &m.name, &m.borough)?,
            id: m.id,
            secret_hash: m.secret_hash,
            expires: m.expires_ms,
        },
        Stored::UseToken(m) => Command::UseToken { id: m.id, secret_hash: m.secret_hash },
        Stored::Preempt(m) => {
            Command::Preempt(m.preemptions.iter().map(parse_preemption).collect::<Result<_, _>>()?)
        }
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

fn parse_preemption(message: &stored::Preemption) -> Result<Preemption, Problems> {
    Ok(Preemption {
        instance: parsed("instance", &message.instance)?,
        before: (message.before_host_id != 0).then_some(HostId(message.before_host_id)),
        host: (message.host_id != 0).then_some(HostId(message.host_id)),
        victims: message.victims.iter().map(|id| parsed("victims", id)).collect::<Result<_, _>>()?,
    })
}

fn parse_placement(message: stored::Placement) -> Result<Placement, Problems> {
    Ok(Placement {
        instance: parsed::<InstanceId>("instance", &message.instance)?,
        host: HostId(message.host_id),
        ports: message.host_ports.into_iter().map(port).collect::<Result<_, _>>()?,
        devices: message.devices.iter().map(|name| parsed("devices", name)).collect::<Result<_, _>>()?,
        cores: parse_cores(message.cores)?,
    })
}

fn parse_cores(message: Option<v1::GivenCores>) -> Result<Option<Box<Cores>>, Problems> {
    let cores = message.map(Cores::try_from).transpose().map_err(|problems| problems.within("cores"))?;
    Ok(cores.map(Box::new))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn placement() -> impl Strategy<Value = Placement> {
        let devices = proptest::collection::vec("[a-z]{1,4}", 0..3);
        let ports = proptest::collection::vec(any::<u16>(), 0..10);
        let cpus = proptest::collection::btree_set(0..999_u16, 1..4);
        let cores = proptest::option::of((cpus, any::<Option<u16>>()));
        let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), ports, devices, cores);
        numbers.prop_map(|(index, ordinal, host, ports, devices, cores)| Placement {
            instance: InstanceId { index, ordinal },
            host: HostId(host),
            ports: ports.into_iter().collect(),
            devices: devices.iter().map(|name| name.parse().unwrap()).collect(),
            cores: cores.map(|(cpus, node)| Box::new(Cores { cpus: cpus.into_iter().collect(), node })),
        })
    }

    proptest! {
        #[test]
        fn columns_read_back(placements in proptest::collection::vec(placement(), 0..20)) {
            prop_assert_eq!(parse_columns(&columns(&placements)).unwrap(), placements);
        }
    }

    #[test]
    fn columns_that_do_not_match_are_refused() {
        let whole = || {
            columns(&[Placement {
                instance: InstanceId { index: 5, ordinal: 6 },
                host: HostId(7),
                ports: [80].into_iter().collect(),
                devices: vec!["gpu0".parse().unwrap()],
                cores: Some(Box::new(Cores { cpus: [1].into(), node: None })),
            }])
        };
        let spoil: [fn(&mut stored::PlaceMany); 12] = [
            |m| m.ordinals.clear(),
            |m| m.hosts.push(1),
            |m| m.port_counts[0] = 2,
            |m| m.host_ports[0] = 70_000,
            |m| m.ordinals[0] = -1,
            |m| m.hosts[0] = 1 << 32,
            |m| m.device_counts[0] = 2,
            |m| m.device_counts.push(0),
            |m| m.devices.clear(),
            |m| m.devices[0].clear(),
            |m| m.cores[0].place = 1,
            |m| m.cores[0].cores = Some(v1::GivenCores { cpus: vec![2, 1], node: None }),
        ];
        for spoil in spoil {
            let mut message = whole();
            spoil(&mut message);
            assert!(parse_columns(&message).is_err(), "{message:?}");
        }
    }
}
