//! What must hold at size, on a real state: a rack that is lost comes back elsewhere within one pass, and nobody is held up by how much others ask for.

use std::collections::BTreeMap;

use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    host::HostState,
    instance::{Desired, InstanceState},
    name::BoroughName,
    spec::{Class, SpreadOver, WorkloadSpec},
};

use super::{
    estate::{Estate, inventory, spec},
    judge::check_loads,
};
use crate::{
    placement::pass::{Engine, Limits, Plan, pass},
    state::{BoroughChange, Command, HostVerdict},
};

/// Adds so many hosts of a rack, of so many cores each.
fn add_rack(estate: &mut Estate, rack: &str, hosts: u32, cores: u64) {
    for number in 0..hosts {
        let mut found = inventory();
        found.rack = Some(rack.parse().unwrap());
        found.capacity.cpu = MilliCpu(cores * 1_000);
        estate.host(&format!("{rack}-{number}"), found);
    }
}

/// So many instances of a core each.
fn asking(key: &str, count: u32, priority: u32) -> WorkloadSpec {
    let mut wanted = WorkloadSpec { count, priority, ..spec(key) };
    wanted.resources.cpu = MilliCpu(1_000);
    wanted
}

/// Two passes on an estate, by an engine that knows it from before and by a new one, decide the same, and apply takes it.
fn pass_of(estate: &mut Estate, engine: &mut Engine) -> Plan {
    let plan = engine.pass(&estate.state, estate.now, Limits::default());
    assert!(plan == pass(&estate.state, estate.now, Limits::default()), "a new engine decides otherwise");
    assert!(plan == estate.full_pass());
    plan
}

/// How many have been placed of each borough after each placement of a plan.
fn shares_over(estate: &Estate, plan: &Plan) -> Vec<BTreeMap<String, u32>> {
    let mut shares = BTreeMap::new();
    let add = |placement: &crate::state::Placement| {
        let borough = estate.state.instance(placement.instance).unwrap().workload().borough.to_string();
        *shares.entry(borough).or_insert(0) += 1;
        shares.clone()
    };
    plan.placements.iter().map(add).collect()
}

/// Twenty hosts of a rack are lost with a thousand instances of three boroughs on them, while elsewhere half of the cores are taken and so many are free.
fn lose_a_rack(free: u32) -> (Estate, Plan) {
    let mut estate = Estate::default();
    estate.raise_level();
    add_rack(&mut estate, "r0", 20, 50);
    for (number, borough) in ["camden", "barnet", "hackney"].iter().cycle().take(20).enumerate() {
        let mut wanted = asking(&format!("{borough}/w{number}"), 50, 10 + number as u32);
        wanted.class = if number % 2 == 0 { Class::Standard } else { Class::Spare };
        wanted.place.spread = if number % 3 == 0 { vec![SpreadOver::Rack.into()] } else { Vec::new() };
        estate.workload(&wanted);
    }
    assert_eq!(estate.full_pass().placements.len(), 1_000);
    for rack in 1..=5 {
        add_rack(&mut estate, &format!("r{rack}"), 20, u64::from(free) / 50);
    }
    // As urgent as the most urgent that is lost, so that nothing makes way.
    estate.workload(&asking("brent/stays", free, 29));
    assert_eq!(estate.full_pass().placements.len() as u32, free);
    let mut engine = Engine::new(&estate.state);
    assert!(pass_of(&mut estate, &mut engine).placements.is_empty());
    let hosts = (0..20).map(|number| estate.state.host_named(&format!("r0-{number}")).unwrap().id);
    let lost = |host| HostVerdict { host, state: HostState::Lost, reason: String::new() };
    let verdicts = hosts.map(lost).collect();
    assert!(estate.apply(Command::JudgeHosts(verdicts)).result.is_ok());
    assert_eq!(estate.state.pending_count(), 1_000);
    let plan = pass_of(&mut estate, &mut engine);
    check_loads(&estate.state);
    (estate, plan)
}

#[test]
fn a_lost_rack_of_a_thousand_comes_back_within_one_pass() {
    let (estate, plan) = lose_a_rack(1_000);
    assert_eq!((plan.placements.len(), plan.more, estate.state.pending_count()), (1_000, false, 0));
    let spread = spec("camden/w18").key();
    let mut racks = BTreeMap::new();
    for instance in estate.state.instances_of(&spread).filter(|one| one.desired == Desired::Run) {
        let host = estate.state.host(instance.host().unwrap()).unwrap();
        *racks.entry(host.inventory.rack.clone().unwrap().to_string()).or_insert(0) += 1;
    }
    // Three racks have room, and it is the second most urgent.
    let mut counts: Vec<u32> = racks.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [16, 17, 17], "what is spread is spread over what is left");
}

#[test]
fn where_there_is_room_for_fewer_than_a_lost_rack_had_the_most_urgent_come_back() {
    let (estate, plan) = lose_a_rack(800);
    assert_eq!((plan.placements.len(), plan.more, estate.state.pending_count()), (800, false, 200));
    assert!(estate.state.pending().all(|left| left.spec().priority < 14), "four workloads of twenty wait");
    assert!(plan.preemptions.is_empty());
}

/// An estate of ten thousand cores.
fn of_ten_thousand() -> Estate {
    let mut estate = Estate::default();
    estate.raise_level();
    add_rack(&mut estate, "r0", 100, 100);
    estate
}

/// Shares are looked at in 4096ths of an estate, here of ten thousand instances: so far may who comes first be ahead.
const STEP: u32 = 10_000_u32.div_ceil(4_096);

#[test]
fn one_of_a_borough_does_not_wait_behind_ten_thousand_of_another() {
    let mut estate = of_ten_thousand();
    let mut engine = Engine::new(&estate.state);
    estate.workload(&asking("barnet/many", 10_000, 50));
    estate.workload(&asking("camden/one", 1, 50));
    let plan = engine.pass(&estate.state, 0, Limits::default());
    let turn = shares_over(&estate, &plan).iter().position(|shares| shares.contains_key("camden")).unwrap();
    assert!(turn as u32 <= STEP, "it is placed after {turn} others");
    // Nor where the other one has half of the estate already, however many may be placed at a time.
    let first = estate.pass(5_000);
    assert_eq!(first.placements.len(), 5_000);
    estate.workload(&asking("camden/next", 1, 50));
    estate.workload(&asking("hackney/one", 1, 50));
    let plan = engine.pass(&estate.state, 0, Limits { placements: 2 });
    assert_eq!(shares_over(&estate, &plan).last().unwrap().get("barnet"), None, "both come first");
    assert_eq!(estate.pass(2), plan);
}

#[test]
fn what_boroughs_are_given_is_as_their_weights_at_every_moment() {
    let mut estate = of_ten_thousand();
    for (borough, weight) in [("camden", 100), ("barnet", 300)] {
        let change = BoroughChange { weight: Some(weight), ..BoroughChange::default() };
        estate.allow(&BoroughName::new(borough).unwrap(), &change);
        estate.workload(&asking(&format!("{borough}/many"), 10_000, 50));
    }
    let plan = estate.full_pass();
    assert_eq!(plan.placements.len(), 10_000);
    for shares in shares_over(&estate, &plan) {
        let [one, three] = ["camden", "barnet"].map(|borough| shares.get(borough).copied().unwrap_or(0));
        let ahead = (3 * i64::from(one) - i64::from(three)).unsigned_abs();
        assert!(ahead <= u64::from(3 * (STEP + 1)), "{one} and {three}");
    }
}

/// Lets all go that are to stop.
fn let_go(estate: &mut Estate) -> usize {
    let stops =
        |one: &&std::sync::Arc<crate::state::Instance>| one.desired == Desired::Stop && one.takes().is_some();
    let stopping: Vec<_> = estate.state.instances().values().filter(stops).cloned().collect();
    stopping.iter().for_each(|one| estate.report(one, InstanceState::Stopped, ""));
    stopping.len()
}

#[test]
fn what_is_guaranteed_is_taken_back_of_ten_thousand_and_no_more() {
    let mut estate = of_ten_thousand();
    let change = BoroughChange {
        guarantee_cpu: Some(MilliCpu(100_000)),
        guarantee_memory: Some(Bytes(1 << 30)),
        ..BoroughChange::default()
    };
    estate.allow(&BoroughName::new("camden").unwrap(), &change);
    estate.workload(&asking("barnet/many", 10_000, 90));
    assert_eq!(estate.full_pass().placements.len(), 10_000);
    estate.workload(&asking("camden/one", 1, 0));
    let plan = estate.full_pass();
    assert_eq!(plan.preemptions.iter().map(|made| made.victims.len()).sum::<usize>(), 1);
    assert_eq!(let_go(&mut estate), 1);
    // Whoever made way is more urgent, and does not get its room.
    assert_eq!(estate.full_pass().placements.len(), 1);
    assert_eq!(estate.state.taken_by(&"camden".parse().unwrap()).cpu, MilliCpu(1_000));
    // Of ten thousand those come that are guaranteed, and nobody makes way for the rest.
    estate.workload(&asking("camden/many", 10_000, 0));
    let mut gone = 0;
    for round in 0.. {
        assert!(round < 4, "passes do not end");
        estate.passes(10_000);
        match let_go(&mut estate) {
            0 => break,
            more => gone += more,
        }
    }
    assert_eq!(gone, 99);
    assert_eq!(estate.state.taken_by(&"camden".parse().unwrap()).cpu, MilliCpu(100_000));
}
