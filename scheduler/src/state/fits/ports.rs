//! Host ports: whether those that are needed are free, and which ones an instance gets. TCP and UDP are apart.

use std::collections::BTreeSet;

use supercloud_proto::{
    host::PortRange,
    id::InstanceId,
    spec::{Protocol, WorkloadSpec},
};

use super::{Candidate, Reason, Request};
use crate::state::{
    host_use::HostUse,
    model::{Host, Ports},
};

/// The host ports asked for are free, and enough of the others are; chosen ones are each what the spec asks for, free and the host's to give.
pub(super) fn ports(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    match request.ports {
        Some(chosen) => chosen_ports(candidate, request.spec, chosen),
        None => any_ports(candidate, request.spec),
    }
}

fn chosen_ports(candidate: &Candidate<'_>, spec: &WorkloadSpec, chosen: &[u16]) -> Vec<Reason> {
    if spec.ports().count() != chosen.len() {
        return vec![Reason::PortsUnasked];
    }
    let range = candidate.host.inventory.ports;
    let mut reasons = Vec::new();
    for (place, ((_, port), number)) in spec.ports().zip(chosen).enumerate() {
        let held = (port.protocol, *number);
        // There are few, and apply asks this for every placement: comparing takes no memory.
        let mut before = spec.ports().zip(chosen).take(place);
        match port.host {
            Some(asked) if asked != *number => reasons.push(Reason::PortsUnasked),
            None if !contains(range, *number) => reasons.push(Reason::PortOutside(held.0, held.1)),
            _ => {}
        }
        if candidate.used.ports.contains(&held)
            || before.any(|((_, other), taken)| (other.protocol, *taken) == held)
        {
            reasons.push(Reason::PortTaken(held.0, held.1));
        }
    }
    reasons
}

fn any_ports(candidate: &Candidate<'_>, spec: &WorkloadSpec) -> Vec<Reason> {
    let mut own = BTreeSet::new();
    let mut reasons = Vec::new();
    for held in fixed_ports(spec) {
        if candidate.used.ports.contains(&held) || !own.insert(held) {
            reasons.push(Reason::PortTaken(held.0, held.1));
        }
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let dynamic = spec.ports().filter(|(_, port)| port.protocol == protocol && port.host.is_none());
        let needed = dynamic.count() as u64;
        if needed == 0 {
            continue;
        }
        let free = free_ports(candidate.host.inventory.ports, candidate.used, protocol, &own);
        if free < needed {
            reasons.push(Reason::FewPorts { protocol, needed, free });
        }
    }
    reasons
}

/// Host ports that the spec names.
fn fixed_ports(spec: &WorkloadSpec) -> impl Iterator<Item = (Protocol, u16)> {
    spec.ports().filter_map(|(_, port)| Some((port.protocol, port.host?)))
}

/// How many ports of the range nobody has and the request does not itself name.
fn free_ports(range: PortRange, used: &HostUse, protocol: Protocol, own: &BTreeSet<(Protocol, u16)>) -> u64 {
    if range.last < range.first {
        return 0;
    }
    let (first, last) = ((protocol, range.first), (protocol, range.last));
    let named = own.range(first..=last).filter(|held| !used.ports.contains(held)).count();
    let taken = used.ports.count_between(first, last);
    (u64::from(range.last - range.first) + 1).saturating_sub((named + taken) as u64)
}

fn contains(range: PortRange, port: u16) -> bool {
    (range.first..=range.last).contains(&port)
}

/// Host ports for an instance, in the order of [`WorkloadSpec::ports`], or `None` where the filter `ports` would say no. Those that the spec
/// names are as named; the others are the first free ones of the host's range from a place that the instance's id gives, round and round.
pub fn choose_ports(host: &Host, used: &HostUse, spec: &WorkloadSpec, instance: InstanceId) -> Option<Ports> {
    // There are few, mostly one, which meets no other: then no memory is taken.
    let are_several = spec.ports().nth(1).is_some();
    let mut own = Vec::with_capacity(if are_several { spec.ports().count() } else { 0 });
    for held in fixed_ports(spec) {
        if used.ports.contains(&held) || own.contains(&held) {
            return None;
        }
        own.extend(are_several.then_some(held));
    }
    let range = host.inventory.ports;
    spec.ports()
        .map(|(_, port)| match port.host {
            Some(number) => Some(number),
            None => {
                let is_free = |held: &(Protocol, u16)| !used.ports.contains(held) && !own.contains(held);
                let mut turn = rotation(range, instance).map(|number| (port.protocol, number));
                let held = turn.find(is_free)?;
                own.extend(are_several.then_some(held));
                Some(held.1)
            }
        })
        .collect()
}

/// All ports of the range once, from a place that moves on by one with every log index and every instance created there.
fn rotation(range: PortRange, instance: InstanceId) -> impl Iterator<Item = u16> {
    let length = (u64::from(range.last) + 1).saturating_sub(u64::from(range.first));
    let turn = instance.index.wrapping_add(u64::from(instance.ordinal)).checked_rem(length).unwrap_or(0);
    (0..length).map(move |step| range.first + ((turn + step) % length) as u16)
}
