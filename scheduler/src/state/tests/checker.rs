//! An independent judge of a state. It recounts everything from the records alone and shares no code with what it judges.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_proto::instance::{Desired, InstanceState};

use crate::state::{Derived, State};

/// Panics with a reason where the state is not as it must be.
pub(super) fn check(state: &State) {
    no_host_bears_too_much(state);
    every_slot_once(state);
    what_is_derived_follows(state);
    nothing_dangles(state);
}

/// I4: what is given away of a host is at most what it has, and no port is given away twice.
fn no_host_bears_too_much(state: &State) {
    let mut sums: BTreeMap<u32, (u64, u64, u64, u64)> = BTreeMap::new();
    let mut ports = BTreeSet::new();
    for instance in state.instances().values() {
        let Some(placed) = &instance.placed else { continue };
        let over = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed];
        if over.contains(&instance.state) {
            continue;
        }
        let sum = sums.entry(placed.host.0).or_default();
        sum.0 += placed.taken.cpu.0;
        sum.1 += placed.taken.memory.0;
        sum.2 += placed.taken.disk.0;
        sum.3 += instance.spec().resources.network.0;
        for port in &placed.ports {
            assert!(ports.insert((placed.host, *port)), "port {port} of host {} twice", placed.host);
        }
    }
    for host in state.hosts().values() {
        let has = host.inventory.capacity;
        let kept = host.inventory.reserved;
        let (cpu, memory, disk, network) = sums.get(&host.id.0).copied().unwrap_or_default();
        assert!(cpu + kept.cpu.0 <= has.cpu.0, "cpu of {}", host.name);
        assert!(memory + kept.memory.0 <= has.memory.0, "memory of {}", host.name);
        assert!(disk + kept.disk.0 <= has.disk.0, "disk of {}", host.name);
        let has_network = host.inventory.network.0.saturating_sub(host.inventory.network_reserved.0);
        assert!(network <= has_network, "network of {}", host.name);
        assert_eq!(state.used(host.id).network.0, network, "network of {} adds up", host.name);
        let used = state.used(host.id).taken;
        assert_eq!((used.cpu.0, used.memory.0, used.disk.0), (cpu, memory, disk), "what is used adds up");
    }
}

/// No borough has more than its quota: true whenever something has just been placed.
pub(super) fn check_quotas(state: &State) {
    for (name, borough) in state.boroughs() {
        let gone =
            [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed, InstanceState::Lost];
        let own = state.instances().values().filter(|instance| instance.workload().borough == *name);
        let there = own.filter(|instance| !gone.contains(&instance.state));
        let cpu: u64 = there.filter_map(|instance| Some(instance.placed.as_ref()?.taken.cpu.0)).sum();
        assert!(borough.allowance.quota.cpu.is_none_or(|most| cpu <= most.0), "{name} has {cpu}");
    }
}

/// At most one instance of a slot is wanted, and as many slots as the workload wants.
fn every_slot_once(state: &State) {
    let mut slots = BTreeMap::new();
    for instance in state.instances().values().filter(|i| i.desired == Desired::Run) {
        let before = slots.insert((instance.workload().clone(), instance.slot), instance.id);
        assert_eq!(before, None, "slot {} of {} twice", instance.slot, instance.workload());
    }
    for workload in state.workloads().values() {
        let wanted = if workload.stopped { 0 } else { workload.current().spec.count };
        let live = slots.keys().filter(|(key, _)| *key == workload.key).count();
        assert_eq!(live, wanted as usize, "instances of {}", workload.key);
        let in_range = slots.keys().filter(|(key, slot)| *key == workload.key && *slot < wanted).count();
        assert_eq!(in_range, live, "slots of {}", workload.key);
    }
}

/// What is derived equals what a fresh start would derive.
fn what_is_derived_follows(state: &State) {
    let mut fresh = Derived::default();
    for host in state.hosts().values() {
        fresh.add_host(host);
    }
    for instance in state.instances().values() {
        fresh.add(instance);
    }
    assert_eq!(fresh, state.derived, "what is derived");
}

/// Every record that another speaks of is there.
fn nothing_dangles(state: &State) {
    for instance in state.instances().values() {
        let workload = state.workload(instance.workload()).expect("the workload of an instance");
        let revision = workload.revision(instance.revision()).expect("the revision of an instance");
        assert_eq!(revision.spec.tasks, instance.spec().tasks);
        if let Some(placed) = &instance.placed {
            assert!(state.host(placed.host).is_some(), "the host of {}", instance.id);
        }
        assert!(
            instance.placed.is_some() || instance.desired == Desired::Run,
            "{} waits for nothing",
            instance.id
        );
    }
    for workload in state.workloads().values() {
        assert!(state.boroughs().contains_key(&workload.key.borough));
        let idle = state.instances_of(&workload.key).next().is_none();
        assert!(!(workload.purging && idle), "{} should be forgotten", workload.key);
    }
}
