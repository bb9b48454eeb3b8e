//! Gangs: when they are looked at again, and who makes way for them, judged by adding up from the specs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    device::{Device, DeviceRequest, Share},
    host::{Inventory, PortRange},
    id::{HostId, InstanceId},
    instance::InstanceState,
    spec::WorkloadSpec,
};

use super::{
    allowances::{self, check_quotas},
    estate::{Estate, inventory, publish, spec},
    judge::{check_loads, how_many_would_go, is_company, is_simple},
    own::let_go,
    random::{estate_of, hand_in, random_boroughs, random_host, random_sites, random_workload, wanted},
};
use crate::{
    placement::{
        Plan,
        pass::{Engine, Limits, pass},
    },
    state::{BoroughChange, Command, Host, Instance, State},
};

fn of_size(cores: u64, gib: u64) -> Inventory {
    let mut found = inventory();
    (found.capacity.cpu, found.capacity.memory) = (MilliCpu(cores * 1_000), Bytes(gib << 30));
    found
}

fn asking(key: &str, count: u32, cpu: u64) -> WorkloadSpec {
    let mut wanted = spec(key);
    (wanted.count, wanted.resources.cpu, wanted.resources.memory) = (count, MilliCpu(cpu), Bytes(64 << 20));
    wanted
}

#[test]
fn a_gang_that_what_is_given_after_it_helps_is_looked_at_again() {
    let mut estate = Estate::default();
    estate.raise_level();
    // The fullest hosts come first: with the last one, of three ports, three hosts would do, and without it they do not.
    for (name, cores, gib, ports) in [("h0", 1, 1, 1), ("h1", 1, 1, 1), ("h2", 1, 2, 2), ("h3", 2, 3, 3)] {
        let ports = PortRange { first: 20_000, last: 20_000 + ports - 1 };
        estate.host(name, Inventory { ports, ..of_size(cores, gib) });
    }
    let change = BoroughChange { private_hosts: Some(3), ..BoroughChange::default() };
    estate.allow(&"camden".parse().unwrap(), &change);
    let mut gang = WorkloadSpec { priority: 80, ..asking("camden/gang", 5, 100) };
    (gang.place.all_or_none, gang.place.private) = (true, true);
    publish(&mut gang);
    estate.workload(&gang);
    estate.workload(&asking("brent/one", 1, 100));
    let plan = estate.pass(1);
    assert_eq!((plan.placements.len(), plan.more), (1, true), "another one has taken a host from its choice");
    estate.passes(1);
    assert_eq!(estate.state.pending_count(), 0, "three hosts have ports for all of it");
}

/// An estate of hosts of two devices each, which somebody of brent has, of a priority given.
fn with_devices_taken(priorities: &[u32]) -> Estate {
    let mut estate = Estate::default();
    estate.raise_level();
    for (number, priority) in priorities.iter().enumerate() {
        let mut found = inventory();
        let (kind, model) = ("gpu".parse().unwrap(), "T4".to_owned());
        let (labels, fault) = (BTreeMap::new(), String::new());
        let device = Device { kind, model, labels, shared: false, fault, pci: None };
        found.devices.extend(["gpu0", "gpu1"].map(|name| (name.parse().unwrap(), device.clone())));
        estate.host(&format!("h{number}"), found);
        estate.workload(&WorkloadSpec {
            priority: *priority,
            ..asking_devices(&format!("brent/w{number}"), 2)
        });
        estate.passes(1);
    }
    estate
}

fn asking_devices(key: &str, count: u32) -> WorkloadSpec {
    let mut wanted = asking(key, 1, 100);
    let kind = "gpu".parse().unwrap();
    wanted.resources.devices = vec![DeviceRequest {
        kind,
        count,
        share: Share::WHOLE,
        models: Vec::new(),
        require: Vec::new(),
        to_vm: false,
    }];
    wanted
}

/// Hands in a gang that cannot be whole, which is looked at once, though others are placed meanwhile; and then lets one of brent go, after which it can.
fn check_wait(estate: &mut Estate, gang: &WorkloadSpec, leaver: &str) {
    estate.workload(gang);
    let mut engine = Engine::new(&estate.state);
    let mut decide = |estate: &mut Estate| {
        let plan = engine.pass(&estate.state, 0, Limits::default());
        let anew = pass(&estate.state, 0, Limits::default());
        assert_eq!((&plan.placements, &plan.preemptions), (&anew.placements, &anew.preemptions));
        drop(estate.apply(Command::Place(plan.placements.clone())));
        plan
    };
    assert_eq!(decide(estate).unplaced.len(), 1);
    for number in 0..3 {
        estate.workload(&asking(&format!("camden/other{number}"), 1, 1));
        let plan = decide(estate);
        assert_eq!(
            (plan.placements.len(), plan.unplaced.len()),
            (1, 0),
            "it is looked at though nothing left"
        );
    }
    let leaver = estate.instance(&spec(leaver).key(), 0);
    drop(estate.apply(Command::StopWorkload { key: leaver.workload().clone(), purge: false }));
    estate.report(&leaver, InstanceState::Stopped, "");
    let plan = decide(estate);
    assert_eq!(plan.placements.len().max(plan.preemptions.len()), gang.count as usize, "{plan:?}");
}

#[test]
fn a_gang_that_asks_for_devices_waits_until_there_are_more() {
    let mut estate = with_devices_taken(&[50, 50]);
    let mut gang = WorkloadSpec { count: 2, ..asking_devices("camden/gang", 1) };
    gang.place.all_or_none = true;
    check_wait(&mut estate, &gang, "brent/w0");
}

#[test]
fn a_gang_that_takes_of_whom_something_is_guaranteed_waits_until_more_can_go() {
    let mut estate = with_devices_taken(&[10, 10, 90]);
    let change = BoroughChange { guarantee_cpu: Some(MilliCpu(50)), ..BoroughChange::default() };
    estate.allow(&"brent".parse().unwrap(), &change);
    estate.workload(&asking("brent/aside", 1, 100));
    estate.passes(1);
    let mut gang = WorkloadSpec { count: 3, ..asking_devices("camden/gang", 2) };
    gang.place.all_or_none = true;
    check_wait(&mut estate, &gang, "brent/w2");
}

#[test]
fn a_gang_wakes_as_what_is_awaited_and_less_urgent_takes_no_room_from_it() {
    let mut estate = Estate::default();
    estate.raise_level();
    estate.host("h0", of_size(4, 8));
    let with_memory = |key: &str, cpu: u64, priority: u32| {
        let mut wanted = WorkloadSpec { priority, ..asking(key, 1, cpu) };
        wanted.resources.memory = Bytes(7 << 30);
        wanted
    };
    for wanted in [with_memory("brent/low", 100, 10), with_memory("camden/mid", 3_500, 40)] {
        estate.workload(&wanted);
        estate.pass(9);
    }
    let mut gang = WorkloadSpec { priority: 60, ..asking("camden/gang", 5, 1_000) };
    gang.place.all_or_none = true;
    estate.workload(&gang);
    let mut engine = Engine::new(&estate.state);
    assert!(engine.pass(&estate.state, 0, Limits::default()).placements.is_empty(), "three of it would fit");
    estate.host("h1", of_size(2, 1));
    let plan = engine.pass(&estate.state, 0, Limits::default());
    assert_eq!(
        (plan.placements.len(), &plan.placements),
        (5, &pass(&estate.state, 0, Limits::default()).placements)
    );
}

/// How many like an instance could go to hosts, were all gone that are less urgent.
fn room_for(state: &State, instance: &Instance, most: usize) -> usize {
    let of = |host: &Arc<Host>| {
        let may_go = |other: &&Arc<Instance>| {
            let priority = instance.spec().priority;
            let is_lower = other.host() == Some(host.id) && other.spec().priority < priority;
            is_lower && !is_company(state, other, priority)
        };
        let gone: Vec<InstanceId> = state.instances().values().filter(may_go).map(|other| other.id).collect();
        how_many_would_go(state, host, instance, most, &gone)
    };
    state.hosts().values().map(of).sum()
}

/// Who goes to which host for a gang by a plan, and who makes way there.
type Made = BTreeMap<HostId, (usize, BTreeSet<InstanceId>)>;

fn made_for(plan: &Plan, gang: &BTreeSet<InstanceId>) -> Made {
    let mut made = Made::new();
    for one in plan.preemptions.iter().filter(|made| gang.contains(&made.instance)) {
        let (count, victims) = made.entry(one.host.unwrap()).or_default();
        *count += 1;
        victims.extend(&one.victims);
    }
    made
}

/// That there is room for all on their hosts with those gone that make way, and not with any of them left.
fn check_made(state: &State, instance: &Instance, made: &Made) {
    for (host, (count, victims)) in made {
        let host = state.host(*host).unwrap();
        let victims: Vec<InstanceId> = victims.iter().copied().collect();
        let room = |gone: &[InstanceId]| how_many_would_go(state, host, instance, *count, gone);
        assert_eq!(room(&victims), *count, "{} has no room", host.name);
        for left in 0..victims.len() {
            let mut fewer = victims.clone();
            let id = fewer.remove(left);
            assert!(room(&fewer) < *count, "{id} is not needed on {}", host.name);
        }
    }
}

/// That whoever makes way is less urgent, or has what is guaranteed to nobody of his borough while the whole gang is guaranteed to its own.
fn check_victims(state: &State, instance: &Instance, made: &Made, count: usize) {
    let ids = made.values().flat_map(|(_, victims)| victims);
    let victims: Vec<&Instance> = ids.map(|id| &**state.instance(*id).unwrap()).collect();
    let is_guaranteed = allowances::would_all_be_guaranteed(state, instance, count as u64);
    let own = &instance.workload().borough;
    for victim in &victims {
        let is_lower = victim.spec().priority < instance.spec().priority;
        assert!(is_lower || is_guaranteed && victim.workload().borough != *own, "{} is as urgent", victim.id);
    }
    assert!(allowances::are_lent(state, own, &victims), "somebody loses what is guaranteed to it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn others_make_way_for_all_of_a_gang_or_nobody_does(
        hosts in prop::collection::vec(random_host(), 1..5),
        workloads in prop::collection::vec(random_workload(), 1..6),
        urgent in random_workload(),
        (count, priority) in (2u32..5, 1u32..4),
        boroughs in random_boroughs(),
        sites in random_sites(),
    ) {
        let mut estate = estate_of(&hosts, &workloads, &boroughs, &sites);
        while estate.pass(40).more {}
        estate.raise_level();
        let urgent = urgent.in_a_gang(count, priority);
        hand_in(&mut estate, "urgent", &urgent);
        let before = estate.state.clone();
        let plan = estate.full_pass();
        let members: Vec<Arc<Instance>> = before.instances_of(&wanted("urgent", &urgent).key()).cloned().collect();
        let gang: BTreeSet<InstanceId> = members.iter().map(|member| member.id).collect();
        let is_of_gang = |id: &InstanceId| gang.contains(id);
        let given = plan.placements.iter().map(|given| given.instance).filter(is_of_gang).count();
        let made = made_for(&plan, &gang);
        let awaited = gang.iter().filter(|id| estate.state.instance(**id).unwrap().awaited_host().is_some()).count();
        prop_assert!(given == 0 || given == gang.len(), "half of it is placed");
        prop_assert_eq!(awaited, made.values().map(|(count, _)| count).sum::<usize>(), "apply refused some");
        prop_assert!(awaited == 0 || awaited == gang.len() && given == 0, "half of it is awaited");
        // Whom others displace, or what they take, before it is its turn is not seen.
        let mut others = plan.preemptions.iter().map(|made| made.instance).chain(plan.placements.iter().map(|given| given.instance));
        let is_alone = others.all(|id| is_of_gang(&id));
        let first = &members[0];
        let is_let_in = allowances::would_be_let_in(&before, first);
        let nothing_is_guaranteed = before.boroughs().values().all(|of| of.allowance.guarantee == Amounts::default());
        if is_alone && is_simple(&before, first) {
            check_made(&before, first, &made);
            let has_room = room_for(&before, first, gang.len()) >= gang.len();
            if nothing_is_guaranteed {
                prop_assert_eq!(is_let_in && has_room, given + awaited > 0, "it is not as it should be");
            }
        }
        if is_alone {
            check_victims(&before, first, &made, gang.len());
        }
        check_loads(&estate.state);
        check_quotas(&estate.state);
        let_go(&mut estate);
        // What is more urgent and waited, too, may take what leaves, and so may what is guaranteed to its borough.
        let comes_later = |one: &Instance| {
            one.spec().priority < priority && !allowances::would_all_be_guaranteed(&before, one, 1)
        };
        let is_first = before.pending().all(|one| is_of_gang(&one.id) || comes_later(one));
        if awaited > 0 && is_alone && is_first {
            let placed = gang.iter().all(|id| estate.state.instance(*id).is_some_and(|one| one.placed.is_some()));
            prop_assert!(placed, "it waits for ever");
        }
    }
}
