//! What mounts volumes is where they live, whatever happens to hosts and workloads: random histories, after each step of which what then still waits goes
//! nowhere, says the naive judge.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use supercloud_proto::{
    host::HostState,
    instance::{Desired, InstanceState},
    name::WorkloadKey,
    spec::Driver,
};

use super::{
    estate::Estate,
    judge::{check_loads, gang_of, must_wait, would_go},
    random::{RandomHost, RandomWorkload, estate_of, random_host, random_workload, wanted},
};
use crate::{
    placement::Explainer,
    state::{Command, Instance},
};

/// Something that happens.
#[derive(Debug, Clone)]
enum Upheaval {
    Judge(u8, bool),
    Open(u8, bool),
    /// A new revision, and all of the older ones stop.
    Roll(u8),
    Scale(u8, u32),
    Forget(u8, u8),
    Remove(u8),
    /// One that is stopping is gone.
    Gone(u8),
}

fn upheaval() -> impl Strategy<Value = Upheaval> {
    let (host, workload) = (|| 0u8..5, || 0u8..4);
    prop_oneof![
        2 => (host(), any::<bool>()).prop_map(|(host, is_lost)| Upheaval::Judge(host, is_lost)),
        1 => (host(), any::<bool>()).prop_map(|(host, open)| Upheaval::Open(host, open)),
        2 => workload().prop_map(Upheaval::Roll),
        1 => (workload(), 0u32..5).prop_map(|(workload, count)| Upheaval::Scale(workload, count)),
        1 => (workload(), host()).prop_map(|(workload, host)| Upheaval::Forget(workload, host)),
        1 => host().prop_map(Upheaval::Remove),
        5 => any::<u8>().prop_map(Upheaval::Gone),
    ]
}

fn happen(estate: &mut Estate, workloads: &[RandomWorkload], upheaval: &Upheaval) {
    let key = |number: u8| wanted(&format!("w{number}"), &workloads[usize::from(number)]).key();
    let name = |host: u8| format!("h{host}");
    match *upheaval {
        Upheaval::Judge(host, is_lost) if estate.state.host_named(&name(host)).is_some() => {
            let state = if is_lost { HostState::Lost } else { HostState::Ready };
            estate.judge(&name(host), state, "");
        }
        Upheaval::Open(host, open) if estate.state.host_named(&name(host)).is_some() => {
            estate.schedulable(&name(host), open);
        }
        Upheaval::Roll(workload) => {
            let known = estate.state.workload(&key(workload)).unwrap().current().spec.clone();
            let mut spec = (*known).clone();
            spec.stop_grace += 1_000;
            estate.workload(&spec);
            estate.replace(&spec.key());
        }
        // A gang may be too large.
        Upheaval::Scale(workload, count) => {
            drop(estate.apply(Command::ScaleWorkload { key: key(workload), count }));
        }
        Upheaval::Forget(workload, host) => drop(estate.forget(&key(workload), &name(host))),
        Upheaval::Remove(host) => {
            drop(estate.apply(Command::RemoveHost { name: name(host).parse().unwrap() }));
        }
        Upheaval::Gone(nth) => {
            let instances = estate.state.instances().values();
            let stopping = instances.filter(|one| one.desired == Desired::Stop && one.placed.is_some());
            let stopping: Vec<Arc<Instance>> = stopping.cloned().collect();
            if let Some(instance) = stopping.get(usize::from(nth) % stopping.len().max(1)) {
                estate.report(instance, InstanceState::Stopped, "");
            }
        }
        Upheaval::Judge(..) | Upheaval::Open(..) => {}
    }
}

fn mounts(instance: &Instance) -> bool {
    matches!(&instance.spec().tasks[0].driver, Driver::Container(container) if !container.mounts.is_empty())
}

/// Whoever is wanted and mounts volumes is at home, and nobody else of its workload does there.
fn check_homes(estate: &Estate) {
    let mut users: BTreeMap<(WorkloadKey, u32), u32> = BTreeMap::new();
    for instance in estate.state.instances().values().filter(|instance| mounts(instance)) {
        let Some(host) = instance.host() else { continue };
        *users.entry((instance.workload().clone(), host.0)).or_default() += 1;
        if instance.desired == Desired::Run {
            let homes = &estate.state.homes()[instance.workload()];
            let home = homes.iter().find(|home| home.slot == instance.slot).unwrap();
            assert_eq!(home.host, host, "{} is not at home", instance.id);
        }
    }
    assert!(users.values().all(|users| *users == 1), "volumes are used twice at a time: {users:?}");
    for homes in estate.state.homes().values() {
        let hosts: std::collections::BTreeSet<u32> = homes.iter().map(|home| home.host.0).collect();
        assert_eq!(hosts.len(), homes.iter().count(), "two slots are at home on one host");
        assert!(homes.iter().all(|home| estate.state.host(home.host).is_some()));
    }
}

/// What waits goes nowhere, says the judge, and explain says as much.
fn check_waiting(estate: &Estate) {
    let state = &estate.state;
    let is_stopping = state.instances().values().any(|other| other.desired == Desired::Stop);
    for instance in state.pending().filter(|one| mounts(one) && one.awaited_host().is_none()) {
        let going = state.hosts().values().filter(|host| would_go(state, host, instance)).count();
        let told = Explainer::of(state, estate.now).instance(instance);
        if gang_of(state, instance) == 1 {
            assert_eq!(told.fitting as usize, going, "{}", told.summary);
            // What is stopping somewhere may be waited for by others who come first.
            assert!(going == 0 || is_stopping, "{} would go somewhere", instance.id);
        }
        // What is told of a gang is of the first of it that finds no host.
        if let Some(home) = state.home_of(instance.id).filter(|_| gang_of(state, instance) == 1) {
            let home = state.host_name(home).unwrap();
            assert_eq!(told.home.as_ref().map(|told| &told.host), Some(home));
            assert!(
                going > 0
                    || must_wait(state, instance)
                    || told.summary.contains(&format!("waits for {home}")),
                "{}",
                told.summary
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_mounts_volumes_is_where_they_live(
        hosts in prop::collection::vec(random_host(), 1..6),
        workloads in prop::collection::vec(random_workload().prop_map(RandomWorkload::mounting), 4),
        upheavals in prop::collection::vec(upheaval(), 1..30),
    ) {
        let hosts: Vec<RandomHost> = hosts.into_iter().map(RandomHost::well).collect();
        let mut estate = estate_of(&hosts, &[], &[], &[]);
        estate.raise_level();
        super::random::hand_in_all(&mut estate, 0, &workloads);
        for upheaval in &upheavals {
            estate.passes(40);
            check_homes(&estate);
            check_waiting(&estate);
            check_loads(&estate.state);
            happen(&mut estate, &workloads, upheaval);
        }
    }
}
