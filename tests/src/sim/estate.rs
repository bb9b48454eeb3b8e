//! What must hold of a state, recounted from its records alone (I4), and of what a leader may conclude from silence. It shares no code with what
//! it judges.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_proto::{
    host::HostState,
    instance::{Desired, InstanceState},
};
use supercloud_scheduler::state::State;

const OVER: [InstanceState; 3] = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed];

/// What does not hold of a state that follows another one.
pub(super) fn fault(before: &State, after: &State) -> Option<String> {
    too_much(after).or_else(|| twice(after)).or_else(|| given_up_in_silence(before, after))
}

/// No host is given more than it has, no port twice.
fn too_much(state: &State) -> Option<String> {
    let mut sums: BTreeMap<u32, (u64, u64, u64)> = BTreeMap::new();
    let mut ports = BTreeSet::new();
    for instance in state.instances().values().filter(|instance| !OVER.contains(&instance.state)) {
        let Some(placed) = &instance.placed else { continue };
        let sum = sums.entry(placed.host.0).or_default();
        sum.0 += placed.taken.cpu.0;
        sum.1 += placed.taken.memory.0;
        sum.2 += placed.taken.disk.0;
        if placed.ports.iter().any(|port| !ports.insert((placed.host, *port))) {
            return Some(format!("I4: a port of host {} is given away twice", placed.host));
        }
    }
    for host in state.hosts().values() {
        let (has, kept) = (host.inventory.capacity, host.inventory.reserved);
        let (cpu, memory, disk) = sums.get(&host.id.0).copied().unwrap_or_default();
        let used = state.used(host.id).taken;
        if (used.cpu.0, used.memory.0, used.disk.0) != (cpu, memory, disk) {
            return Some(format!("I4: what is used of host {} does not add up", host.name));
        }
        let fits = cpu + kept.cpu.0 <= has.cpu.0
            && memory + kept.memory.0 <= has.memory.0
            && disk + kept.disk.0 <= has.disk.0;
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
