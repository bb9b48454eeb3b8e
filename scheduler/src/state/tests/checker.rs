//! An independent judge of a state. It recounts everything from the records alone and shares no code with what it judges.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_proto::{
    instance::{Desired, InstanceState},
    name::BoroughName,
    spec::{Class, Driver, Task},
};

use crate::state::{Derived, Host, Instance, State};

/// Panics with a reason where the state is not as it must be.
pub(super) fn check(state: &State) {
    what_is_used_adds_up(state);
    if state.sites().is_empty() {
        state.hosts().values().for_each(|host| bears(state, host));
    }
    every_slot_once(state);
    what_is_derived_follows(state);
    nothing_dangles(state);
    volumes_are_where_they_are_used(state);
}

/// What the instances on a host that are not over count as there: processor, memory, disk and network.
fn counted(state: &State, host: &Host) -> (u64, u64, u64, u64) {
    let over = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed];
    let site = state.sites().get(&host.inventory.site);
    let percent = |class: Class| match (class, site) {
        (Class::Guaranteed, _) | (_, None) => 100,
        (Class::Standard, Some(site)) => u64::from(site.standard_cpu_percent),
        (Class::Spare, Some(site)) => u64::from(site.spare_cpu_percent),
    };
    let mut sum = (0, 0, 0, 0);
    for instance in state.instances().values().filter(|instance| !over.contains(&instance.state)) {
        let Some(placed) = instance.placed.as_ref().filter(|placed| placed.host == host.id) else { continue };
        let (hundredfold, percent) = (placed.taken.cpu.0 * 100, percent(instance.spec().class));
        sum.0 += match instance.cores() {
            Some(cores) => cores.cpus.len() as u64 * 1_000,
            None => hundredfold / percent + u64::from(hundredfold % percent > 0),
        };
        sum.1 += placed.taken.memory.0;
        sum.2 += placed.taken.disk.0;
        sum.3 += instance.spec().resources.network.0;
    }
    sum
}

/// I4: what is given away of a host is at most what it has, by its site's policy. Always true where there are none; else whenever something has just been placed
/// there: a policy that is tightened stops nothing.
pub(super) fn bears(state: &State, host: &Host) {
    let (cpu, memory, disk, network) = counted(state, host);
    let has_network = host.inventory.network.0.saturating_sub(host.inventory.network_reserved.0);
    assert!(network <= has_network, "network of {}", host.name);
    let (has, kept) = (host.inventory.capacity, host.inventory.reserved);
    assert!(cpu + kept.cpu.0 <= has.cpu.0, "cpu of {}", host.name);
    assert!(memory + kept.memory.0 <= has.memory.0, "memory of {}", host.name);
    assert!(disk + kept.disk.0 <= has.disk.0, "disk of {}", host.name);
}

/// What is used adds up, and no port and no processor is given away twice.
fn what_is_used_adds_up(state: &State) {
    let over = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed];
    let (mut ports, mut cpus) = (BTreeSet::new(), BTreeSet::new());
    for instance in state.instances().values().filter(|instance| !over.contains(&instance.state)) {
        let Some(placed) = &instance.placed else { continue };
        for port in &placed.ports {
            assert!(ports.insert((placed.host, *port)), "port {port} of host {} twice", placed.host);
        }
        let own = instance.cores();
        assert_eq!(own.is_some(), instance.spec().resources.dedicated, "cores of {}", instance.id);
        for cpu in own.iter().flat_map(|cores| &cores.cpus) {
            assert!(cpus.insert((placed.host, *cpu)), "processor {cpu} of host {} twice", placed.host);
        }
    }
    for host in state.hosts().values() {
        let used = state.used(host.id);
        let taken = used.taken;
        let sums = (taken.cpu.0, taken.memory.0, taken.disk.0, used.network.0);
        assert_eq!(sums, counted(state, host), "what is used adds up");
        let own = cpus.iter().filter(|(of, _)| *of == host.id).map(|(_, cpu)| *cpu);
        assert!(used.cores.cpus().eq(own), "the cores of {} add up", host.name);
    }
}

/// A borough has no more than its quota: true whenever something of it has just been placed.
pub(super) fn check_quotas(state: &State, name: &BoroughName) {
    let gone = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed, InstanceState::Lost];
    let own = state.instances().values().filter(|instance| instance.workload().borough == *name);
    let there = own.filter(|instance| !gone.contains(&instance.state));
    let cpu: u64 = there.filter_map(|instance| Some(instance.placed.as_ref()?.taken.cpu.0)).sum();
    let quota = &state.boroughs()[name].allowance.quota;
    assert!(quota.cpu.is_none_or(|most| cpu <= most.0), "{name} has {cpu}");
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
        fresh.set_policy(host.id, state.policy_of(&host.inventory.site), &[]);
    }
    for instance in state.instances().values() {
        fresh.add(instance);
    }
    assert_eq!(fresh, state.derived, "what is derived");
}

/// Whether a container of an instance mounts a volume.
fn mounts(instance: &Instance) -> bool {
    let of =
        |task: &Task| matches!(&task.driver, Driver::Container(container) if !container.mounts.is_empty());
    instance.spec().tasks.iter().any(of)
}

/// Each slot has one home, of a workload and on a host that are there; and what is wanted, and mounts volumes, is at home.
fn volumes_are_where_they_are_used(state: &State) {
    assert!(state.level() >= 5 || state.homes().is_empty(), "homes before all members know them");
    for (key, homes) in state.homes() {
        assert!(state.workload(key).is_some(), "homes of {key}");
        let slots: BTreeSet<u32> = homes.iter().map(|home| home.slot).collect();
        assert_eq!((slots.len(), slots.is_empty()), (homes.iter().count(), false), "a home a slot of {key}");
        assert!(homes.iter().all(|home| state.host(home.host).is_some()), "the hosts of {key}");
    }
    let over = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed];
    let live = state.instances().values().filter(|one| one.desired == Desired::Run && mounts(one));
    for instance in live.filter(|one| state.level() >= 5 && !over.contains(&one.state)) {
        let Some(host) = instance.host() else { continue };
        let homes = state.homes().get(instance.workload());
        let home = homes.and_then(|homes| homes.iter().find(|home| home.slot == instance.slot));
        assert_eq!(home.map(|home| home.host), Some(host), "the home of {}", instance.id);
    }
}

/// No volumes are used by two at a time: true wherever all members knew of homes from the beginning.
pub(super) fn volumes_are_used_once(state: &State) {
    let over = [InstanceState::Stopped, InstanceState::Completed, InstanceState::Failed];
    let mut users = BTreeSet::new();
    for instance in state.instances().values().filter(|one| mounts(one) && !over.contains(&one.state)) {
        let Some(host) = instance.host() else { continue };
        assert!(users.insert((instance.workload(), host)), "{} uses what another one does", instance.id);
    }
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
        if let Some(host) = instance.awaited_host() {
            assert!(
                instance.placed.is_none() && instance.desired == Desired::Run,
                "{} is awaited",
                instance.id
            );
            assert!(state.host(host).is_some(), "the host that awaits {}", instance.id);
        }
    }
    for workload in state.workloads().values() {
        assert!(state.boroughs().contains_key(&workload.key.borough));
        let idle = state.instances_of(&workload.key).next().is_none();
        assert!(!(workload.purging && idle), "{} should be forgotten", workload.key);
    }
}
