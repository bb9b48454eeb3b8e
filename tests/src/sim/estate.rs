//! What must hold of a state, recounted from its records alone (I4), and of what a leader may conclude from silence. It shares no code with what
//! it judges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use supercloud_proto::{
    host::HostState,
    instance::{Desired, InstanceState},
    name::BoroughName,
};
use supercloud_scheduler::state::{Instance, State};

const OVER: [InstanceState; 3] = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed];

/// What does not hold of a state that follows another one.
pub(super) fn fault(before: &State, after: &State) -> Option<String> {
    too_much(after)
        .or_else(|| twice(after))
        .or_else(|| over_quota(before, after))
        .or_else(|| parted(before, after))
        .or_else(|| side_by_side(before, after))
        .or_else(|| given_up_in_silence(before, after))
}

/// No host is given more than it has, no port twice.
fn too_much(state: &State) -> Option<String> {
    let mut sums: BTreeMap<u32, (u64, u64, u64, u64)> = BTreeMap::new();
    let mut ports = BTreeSet::new();
    for instance in state.instances().values().filter(|instance| !OVER.contains(&instance.state)) {
        let Some(placed) = &instance.placed else { continue };
        let sum = sums.entry(placed.host.0).or_default();
        sum.0 += placed.taken.cpu.0;
        sum.1 += placed.taken.memory.0;
        sum.2 += placed.taken.disk.0;
        sum.3 += instance.spec().resources.network.0;
        if placed.ports.iter().any(|port| !ports.insert((placed.host, *port))) {
            return Some(format!("I4: a port of host {} is given away twice", placed.host));
        }
    }
    for host in state.hosts().values() {
        let (has, kept) = (host.inventory.capacity, host.inventory.reserved);
        let (cpu, memory, disk, network) = sums.get(&host.id.0).copied().unwrap_or_default();
        let used = state.used(host.id);
        let (taken, taken_network) = (used.taken, used.network.0);
        if (taken.cpu.0, taken.memory.0, taken.disk.0, taken_network) != (cpu, memory, disk, network) {
            return Some(format!("I4: what is used of host {} does not add up", host.name));
        }
        let fits = cpu + kept.cpu.0 <= has.cpu.0
            && memory + kept.memory.0 <= has.memory.0
            && disk + kept.disk.0 <= has.disk.0
            && network <= host.inventory.network.0;
        if !fits {
            return Some(format!("I4: host {} is given more than it has", host.name));
        }
    }
    None
}

/// Of each slot at most one instance is wanted.
fn twice(state: &State) -> Option<String> {
    let mut slots = BTreeSet::new();
    let wanted = state.instances().values().filter(|instance| instance.desired == Desired::Run);
    let mut again = wanted.filter(|instance| !slots.insert((instance.workload().clone(), instance.slot)));
    again.next().map(|instance| format!("slot {} of {} is wanted twice", instance.slot, instance.workload()))
}

/// Whoever is waited for to have an end is not counted as having a host.
fn has_host(instance: &Instance) -> bool {
    instance.placed.is_some() && !OVER.contains(&instance.state)
}

/// Whether an instance has been given a host since.
fn came(before: &State, instance: &Instance) -> bool {
    has_host(instance) && before.instance(instance.id).is_none_or(|was| was.placed.is_none())
}

/// Nobody is given a host beyond the quota of its borough. What a host brings back that had been given up is not given, and where a quota is tightened, what
/// runs stays.
fn over_quota(before: &State, after: &State) -> Option<String> {
    let mut charged: BTreeMap<&BoroughName, (u64, bool)> = BTreeMap::new();
    let kept = |instance: &&Arc<Instance>| has_host(instance) && instance.state != InstanceState::Lost;
    for instance in after.instances().values().filter(kept) {
        let (sum, given) = charged.entry(&instance.workload().borough).or_default();
        *sum += instance.spec().resources.cpu.0;
        *given |= came(before, instance);
    }
    let mut boroughs = after.boroughs().values();
    let over = boroughs.find(|borough| {
        let known = before.boroughs().get(&borough.name);
        let same = known.is_some_and(|known| known.allowance == borough.allowance);
        let (sum, given) = charged.get(&borough.name).copied().unwrap_or_default();
        same && given && borough.allowance.quota.cpu.is_some_and(|most| sum > most.0)
    });
    over.map(|borough| format!("quota: {} is given more than it may have", borough.name))
}

/// Of a gang nobody is left waiting where others of it that waited are given hosts, and room is not kept for some of it where it is for others.
fn parted(before: &State, after: &State) -> Option<String> {
    let waited = |instance: &&Arc<Instance>| {
        instance.spec().place.all_or_none && instance.is_pending() && instance.not_before() == 0
    };
    let of_gang = |instance: &Instance| (instance.workload().clone(), instance.revision());
    let now = |instance: &Arc<Instance>| after.instance(instance.id).cloned();
    let went = before.instances().values().filter(waited).filter_map(now);
    let (placed, left): (Vec<_>, Vec<_>) = went.partition(|instance| instance.placed.is_some());
    let placed: BTreeSet<_> = placed.iter().map(|instance| of_gang(instance)).collect();
    let is_newly_awaited = |instance: &&Arc<Instance>| {
        let host = before.instance(instance.id).and_then(|earlier| earlier.awaited_host());
        instance.awaited_host().is_some_and(|now| Some(now) != host)
    };
    let awaited: BTreeSet<_> =
        left.iter().filter(is_newly_awaited).map(|instance| of_gang(instance)).collect();
    let mut left = left.iter().filter(|instance| instance.is_pending());
    let parted = left.find(|instance| {
        let gang = of_gang(instance);
        placed.contains(&gang) || awaited.contains(&gang) && instance.awaited_host().is_none()
    });
    parted
        .map(|instance| format!("gang: {} waits while others of {} do not", instance.id, instance.workload()))
}

/// Nobody is given a host on which somebody is to stay from whom it keeps apart.
fn side_by_side(before: &State, after: &State) -> Option<String> {
    let mut came = after.instances().values().filter(|instance| came(before, instance));
    let hostile = |one: &Instance, other: &Instance| {
        one.workload().borough == other.workload().borough
            && one.spec().place.apart.contains(&other.workload().workload)
    };
    let beside = came.find(|instance| {
        let host = instance.placed.as_ref().map(|placed| placed.host);
        let mut others = host.into_iter().flat_map(|host| after.instances_on(host));
        let is_hostile = |other: &Instance| hostile(instance, other) || hostile(other, instance);
        others.any(|other| has_host(other) && other.desired == Desired::Run && is_hostile(other))
    });
    beside.map(|instance| format!("apart: {} is beside what it keeps apart from", instance.id))
}

/// While every host is silent none is given up: the network is the suspect.
fn given_up_in_silence(before: &State, after: &State) -> Option<String> {
    let silent = |state| matches!(state, HostState::Suspect | HostState::Lost);
    let hosts = after.hosts();
    if hosts.len() < 2 || !hosts.values().all(|host| silent(host.state)) {
        return None;
    }
    let lost_now =
        |id, now| now == HostState::Lost && before.host(id).is_some_and(|host| host.state != HostState::Lost);
    let given_up = hosts.values().find(|host| lost_now(host.id, host.state));
    given_up.map(|host| format!("the brake: host {} was given up while all hosts are silent", host.name))
}
