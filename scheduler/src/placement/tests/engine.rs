//! What an engine knows from passes before changes nothing: over random histories it decides what a new one decides.

use proptest::prelude::*;
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    host::{HostState, PortRange},
    id::HostId,
    instance::{Desired, InstanceState},
    name::{HostName, WorkloadKey},
    spec::{Driver, WorkloadSpec},
};

use super::{
    allowances::{RandomAllowance, allow, random_allowance},
    estate::{Estate, inventory, mount, publish, spec},
    judge::must_wait,
    random::{
        RandomHost, RandomSite, RandomWorkload, add_host, hand_in, random_host, random_site, random_workload,
        set_site, wanted,
    },
};
use crate::{
    placement::{
        pass::{Engine, Limits, Plan, pass},
        shapes::MAX_SHAPES,
    },
    state::{BoroughChange, Command, Done, Instance, Placed, Placement, State, tests::tally::Tally},
};

/// One thing that happens between two passes.
#[derive(Debug, Clone)]
enum Event {
    Host(u8, RandomHost),
    Judge(u8, u8),
    Close(u8, bool),
    Remove(u8),
    Workload(u8, RandomWorkload),
    Scale(u8, u32),
    Report(u8, u8),
    RaiseLevel,
    Allow(u8, RandomAllowance),
    /// Seconds go by.
    Wait(u64),
    Stop(u8, bool),
    Site(u8, RandomSite),
    /// One step of a rollout for all of it.
    Replace(u8),
    Forget(u8, u8),
}

fn event() -> impl Strategy<Value = Event> {
    let number = || 0u8..6;
    prop_oneof![
        2 => (number(), random_host()).prop_map(|(number, host)| Event::Host(number, host)),
        2 => (number(), 0u8..4).prop_map(|(number, state)| Event::Judge(number, state)),
        1 => (number(), any::<bool>()).prop_map(|(number, open)| Event::Close(number, open)),
        1 => number().prop_map(Event::Remove),
        3 => (number(), random_workload()).prop_map(|(number, workload)| Event::Workload(number, workload)),
        2 => (number(), 0u32..8).prop_map(|(number, count)| Event::Scale(number, count)),
        3 => (any::<u8>(), 0u8..3).prop_map(|(which, state)| Event::Report(which, state)),
        1 => Just(Event::RaiseLevel),
        2 => (1u64..20).prop_map(Event::Wait),
        1 => (number(), any::<bool>()).prop_map(|(number, purge)| Event::Stop(number, purge)),
        2 => number().prop_map(Event::Replace),
        1 => (number(), number()).prop_map(|(workload, host)| Event::Forget(workload, host)),
        1 => (0u8..2, random_site()).prop_map(|(number, site)| Event::Site(number, site)),
        2 => (0u8..3, random_allowance()).prop_map(|(borough, allowance)| Event::Allow(borough, allowance)),
    ]
}

/// The workload of a number, as far as it is the first borough's.
fn key_of(number: u8) -> WorkloadKey {
    wanted(&format!("w{number}"), &RandomWorkload::default()).key()
}

fn happen(estate: &mut Estate, event: &Event) {
    let host = |number: u8| HostName::new(format!("h{number}")).unwrap();
    let known = |estate: &Estate, number: u8| estate.state.host_named(host(number).as_str()).is_some();
    match event {
        Event::Host(number, random) => add_host(estate, host(*number).as_str(), random),
        Event::Judge(number, state) if known(estate, *number) => {
            let states = [HostState::Ready, HostState::Suspect, HostState::Lost, HostState::Degraded];
            estate.judge(host(*number).as_str(), states[usize::from(*state)], "");
        }
        Event::Close(number, open) if known(estate, *number) => {
            estate.schedulable(host(*number).as_str(), *open);
        }
        // Only a lost host is removed; anything else is rejected, and nothing happens.
        Event::Remove(number) => drop(estate.apply(Command::RemoveHost { name: host(*number) })),
        Event::Workload(number, random) => hand_in(estate, &format!("w{number}"), random),
        Event::Scale(number, count) => {
            drop(estate.apply(Command::ScaleWorkload { key: key_of(*number), count: *count }));
        }
        Event::Report(which, state) => report(estate, usize::from(*which), *state),
        Event::Allow(borough, allowance) => allow(estate, *borough, allowance),
        Event::Site(number, site) => set_site(estate, *number, site),
        Event::RaiseLevel => estate.raise_level(),
        Event::Replace(number) => estate.replace(&key_of(*number)),
        // Where nothing lives there, or is in use, it is rejected.
        Event::Forget(workload, of) => drop(estate.forget(&key_of(*workload), host(*of).as_str())),
        Event::Wait(seconds) => estate.now += seconds * 1000,
        Event::Stop(number, purge) => {
            drop(estate.apply(Command::StopWorkload { key: key_of(*number), purge: *purge }));
        }
        Event::Judge(..) | Event::Close(..) => {}
    }
}

/// Lets one of the placed instances say how it is.
fn report(estate: &mut Estate, which: usize, state: u8) {
    let placed: Vec<_> =
        estate.state.instances().values().filter(|instance| instance.placed.is_some()).cloned().collect();
    let states = [InstanceState::Running, InstanceState::Failed, InstanceState::Stopped];
    if let Some(instance) = placed.get(which % placed.len().max(1)) {
        estate.report(instance, states[usize::from(state)], "");
    }
}

/// Histories that are played.
const HISTORIES: u32 = 5_000;

/// Whether a pass did nothing, and leaves nothing to do.
fn is_idle(plan: &Plan) -> bool {
    plan.placements.is_empty() && plan.preemptions.is_empty() && !plan.more
}

/// Whether what waits may be left alone until something changes: nobody is to go, and nobody waits for somebody, or of a gang that is searched for in each pass.
fn may_sleep(state: &State) -> bool {
    let goes = |one: &Instance| one.desired == Desired::Stop && !one.state.is_over();
    let is_watched = |one: &Instance| {
        one.awaited_host().is_some() || must_wait(state, one) || one.spec().place.all_or_none
    };
    !state.instances().values().any(|one| goes(one)) && !state.pending().any(|one| is_watched(one))
}

#[test]
fn an_old_engine_decides_what_a_new_one_does() {
    let tally = Tally::default();
    let config = ProptestConfig { cases: HISTORIES, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(
        events in prop::collection::vec(event(), 1..60),
        limit in 1usize..12,
        is_new in prop::bool::weighted(0.8),
    )| {
        let mut estate = Estate::default();
        if is_new {
            estate.raise_level();
        }
        let mut engine = Engine::new(&estate.state);
        for event in &events {
            happen(&mut estate, event);
            let limits = Limits { placements: limit };
            let plan = engine.pass(&estate.state, estate.now, limits);
            let mut new = Engine::new(&estate.state);
            let fresh = new.pass(&estate.state, estate.now, limits);
            prop_assert_eq!(&plan.preemptions, &fresh.preemptions, "after {:?}", event);
            prop_assert_eq!((&plan.placements, plan.next_wake), (&fresh.placements, fresh.next_wake), "after {:?}", event);
            prop_assert_eq!(&plan.gangs, &fresh.gangs, "after {:?}", event);
            // What an old engine knows to fit nowhere it does not count as still to be looked at.
            prop_assert!(fresh.more || !plan.more);
            // Who must wait for somebody of its slot is not looked at, and was perhaps when it did not have to.
            let nobody_holds_up = || estate.state.pending().all(|one| !must_wait(&estate.state, one));
            if !fresh.more && nobody_holds_up() {
                prop_assert_eq!(engine.unplaced(), new.unplaced());
            }
            if is_idle(&plan) && may_sleep(&estate.state) {
                let again = engine.pass(&estate.state, estate.now, limits);
                prop_assert!(is_idle(&again) && again.unplaced.is_empty(), "looked at again after {event:?}: {:?}", again.unplaced);
                tally.note("left alone", estate.state.pending_count() > 0);
            }
            for placement in &plan.placements {
                let instance = estate.state.instance(placement.instance).unwrap();
                prop_assert!(!must_wait(&estate.state, instance), "{} runs twice", instance.id);
                tally.note("placed", true);
                tally.note("placed where it is awaited", instance.awaited_host() == Some(placement.host));
                tally.note("placed as exclusive", instance.spec().exclusive == Some(true));
            }
            tally.note("gangs", !plan.gangs.is_empty());
            tally.note("displacing", !plan.preemptions.is_empty());
            tally.note("awaited no more", plan.preemptions.iter().any(|made| made.host.is_none()));
            tally.note("must wait", estate.state.pending().any(|one| must_wait(&estate.state, one)));
            tally.note("waiting for its time", plan.next_wake.is_some());
            // Every other plan comes to nothing, as when the log refuses it.
            if estate.state.applied() % 2 == 0 {
                estate.pass(limit);
            }
        }
    });
    tally.expect(&[
        ("placed", HISTORIES),
        ("placed where it is awaited", HISTORIES / 300),
        ("placed as exclusive", HISTORIES / 10),
        ("gangs", HISTORIES / 20),
        ("displacing", HISTORIES / 30),
        ("awaited no more", HISTORIES / 1_500),
        ("must wait", HISTORIES / 60),
        ("waiting for its time", HISTORIES),
        ("left alone", HISTORIES),
    ]);
}

#[test]
fn shapes_are_shared_and_forgotten_without_a_trace() {
    let mut estate = Estate::default();
    for number in 0..16 {
        estate.host(&format!("h{number}"), inventory());
    }
    let mut engine = Engine::new(&estate.state);
    // More shapes than are kept, each met again when it is long forgotten.
    let shapes = MAX_SHAPES as u64 + 4;
    for round in 0..3 {
        for shape in 0..shapes {
            let mut wanted = spec(&format!("camden/w{round}-{shape}"));
            wanted.resources.disk = Bytes(1 + shape);
            estate.workload(&wanted);
        }
        let limits = Limits::default();
        let plan = engine.pass(&estate.state, 0, limits);
        assert_eq!(plan, pass(&estate.state, 0, limits));
        assert_eq!(plan.placements.len() as u64, shapes);
        estate.full_pass();
    }
}

#[test]
fn a_gang_wakes_though_one_that_is_stuck_beside_it_may_not_go_there() {
    let mut estate = Estate::default();
    estate.raise_level();
    estate.host("h", inventory());
    let mut workload = |key: &str, cpu: u64, change: &dyn Fn(&mut WorkloadSpec)| {
        let mut wanted = spec(key);
        wanted.resources.cpu = MilliCpu(cpu);
        change(&mut wanted);
        estate.workload(&wanted);
        estate.full_pass();
    };
    workload("camden/minder", 1, &|spec| spec.place.apart.push("minded".parse().unwrap()));
    workload("camden/fill", 3_000, &|_| {});
    for gang in ["camden/minded", "brent/free"] {
        workload(gang, 1_500, &|spec| (spec.place.all_or_none, spec.count) = (true, 2));
    }
    let mut engine = Engine::new(&estate.state);
    assert!(engine.pass(&estate.state, 0, Limits::default()).placements.is_empty());
    let fill = estate.instance(&spec("camden/fill").key(), 0);
    drop(estate.apply(Command::StopWorkload { key: fill.workload().clone(), purge: false }));
    estate.report(&fill, InstanceState::Stopped, "");
    let plan = engine.pass(&estate.state, 0, Limits::default());
    assert_eq!((plan.placements.len(), &plan), (2, &pass(&estate.state, 0, Limits::default())));
}

#[test]
fn who_waits_for_what_another_leaves_is_looked_at_in_that_pass() {
    let with_port = || {
        let mut found = inventory();
        found.ports = PortRange { first: 20_000, last: 20_000 };
        found
    };
    let asking = |key: &str, gib: u64, priority: u32, has_port: bool| {
        let mut wanted = WorkloadSpec { priority, ..spec(key) };
        wanted.resources.memory = Bytes(gib << 30);
        if has_port {
            publish(&mut wanted);
        }
        wanted
    };
    let mut estate = Estate::default();
    estate.raise_level();
    estate.host("h0", with_port());
    estate.workload(&asking("camden/low", 6, 10, false));
    estate.full_pass();
    let mut urgent = asking("camden/urgent", 5, 50, true);
    urgent.place.tolerate.push("team".parse().unwrap());
    estate.workload(&urgent);
    assert_eq!(estate.full_pass().preemptions.len(), 1);
    estate.workload(&asking("camden/small", 0, 50, true));
    let mut engine = Engine::new(&estate.state);
    assert!(engine.pass(&estate.state, 0, Limits::default()).placements.is_empty(), "the port is kept");
    let mut tainted = with_port();
    tainted.taints.insert("team".to_owned(), String::new());
    estate.host("h1", tainted);
    let plan = engine.pass(&estate.state, 0, Limits::default());
    assert_eq!((plan.placements.len(), &plan), (2, &pass(&estate.state, 0, Limits::default())));
}

#[test]
fn hosts_that_come_and_go_leave_nothing_behind() {
    let mut estate = Estate::default();
    estate.host("stays", inventory());
    let mut engine = Engine::new(&estate.state);
    for number in 0..300u32 {
        let name = format!("h{number}");
        estate.host(&name, inventory());
        estate.workload(&spec(&format!("camden/w{number}")));
        let plan = engine.pass(&estate.state, 0, Limits::default());
        assert_eq!(plan, pass(&estate.state, 0, Limits::default()));
        assert!(plan.placements.iter().all(|placement| placement.host != HostId(0)));
        estate.full_pass();
        estate.judge(&name, HostState::Lost, "");
        drop(estate.apply(Command::RemoveHost { name: HostName::new(&name).unwrap() }));
    }
    assert_eq!(estate.state.hosts().len(), 1);
}

#[test]
fn what_comes_back_with_its_host_keeps_it_again() {
    let mut estate = Estate::default();
    let leave = BoroughChange { private_hosts: Some(1), ..BoroughChange::default() };
    estate.allow(&"camden".parse().unwrap(), &leave);
    let host = |cores: u64| {
        let mut found = inventory();
        found.capacity.cpu = MilliCpu(cores * 1_000);
        found
    };
    let private = |name: &str, cores: u64| {
        let mut wanted = spec(name);
        (wanted.resources.cpu, wanted.place.private) = (MilliCpu(cores * 1_000), true);
        wanted
    };
    let mut engine = Engine::new(&estate.state);
    let mut placed = |estate: &mut Estate| {
        let plan = engine.pass(&estate.state, estate.now, Limits::default());
        assert_eq!(plan.placements, estate.full_pass().placements);
        plan.placements.len()
    };
    estate.host("h0", host(8));
    estate.workload(&private("camden/vault", 3));
    assert_eq!(placed(&mut estate), 1);
    let vault = estate.state.instances().values().next().unwrap().id;
    // Its successor goes to another host, which is then the one that may be kept, and has no room for more.
    estate.judge("h0", HostState::Lost, "");
    estate.host("h1", host(4));
    assert_eq!(placed(&mut estate), 1);
    estate.workload(&private("camden/keys", 2));
    assert_eq!(placed(&mut estate), 0);
    estate.judge("h0", HostState::Ready, "");
    assert_eq!(placed(&mut estate), 0, "nothing keeps it as far as is known");
    let vault = estate.state.instance(vault).unwrap().clone();
    estate.report(&vault, InstanceState::Running, "");
    assert_eq!(placed(&mut estate), 1, "it is kept after all");
}

#[test]
fn what_waits_for_its_host_wakes_when_that_is_its_home_no_more() {
    for is_removed in [false, true] {
        let mut estate = Estate::default();
        estate.raise_level();
        let mut wanted = spec("camden/db");
        if let Driver::Container(container) = &mut wanted.tasks[0].driver {
            container.mounts.push(mount());
        }
        estate.host("h0", inventory());
        estate.workload(&wanted);
        assert_eq!(estate.full_pass().placements.len(), 1);
        estate.host("h1", inventory());
        estate.judge("h0", HostState::Lost, "");
        let mut engine = Engine::new(&estate.state);
        assert!(engine.pass(&estate.state, 0, Limits::default()).placements.is_empty());
        if is_removed {
            estate.remove("h0");
        } else {
            assert!(estate.forget(&wanted.key(), "h0").result.is_ok());
        }
        let plan = engine.pass(&estate.state, 0, Limits::default());
        assert_eq!((plan.placements.len(), &plan), (1, &pass(&estate.state, 0, Limits::default())));
    }
}

/// An estate of one host of so many cores on which these stand, each of a workload of its own: borough and name, priority, thousandths of a core.
fn estate_with(cores: u64, workloads: &[(&str, u32, u64)]) -> Estate {
    let mut estate = Estate::default();
    estate.raise_level();
    let mut found = inventory();
    found.capacity.cpu = MilliCpu(cores * 1_000);
    estate.host("h", found);
    for of in workloads {
        add(&mut estate, *of);
    }
    assert_eq!(estate.full_pass().placements.len(), workloads.len());
    estate
}

fn add(estate: &mut Estate, (key, priority, cpu): (&str, u32, u64)) {
    let mut wanted = spec(key);
    (wanted.priority, wanted.resources.cpu) = (priority, MilliCpu(cpu));
    estate.workload(&wanted);
}

#[test]
fn who_gains_by_others_making_way_gains_in_the_same_pass() {
    let mut estate = estate_with(6, &[("camden/firm", 70, 4_000), ("camden/loose", 10, 2_000)]);
    let mut engine = Engine::new(&estate.state);
    add(&mut estate, ("brent/stuck", 60, 3_000));
    assert!(engine.pass(&estate.state, 0, Limits::default()).preemptions.is_empty(), "two cores are too few");
    // What it leaves of the firm one's room is enough with the loose one's.
    add(&mut estate, ("hackney/urgent", 80, 2_500));
    let plan = engine.pass(&estate.state, 0, Limits::default());
    assert_eq!((plan.preemptions.len(), &plan), (2, &pass(&estate.state, 0, Limits::default())));
}

#[test]
fn what_a_quota_keeps_wakes_when_less_urgent_work_stands_where_more_urgent_stood() {
    let mut estate = estate_with(8, &[]);
    let quota = BoroughChange { quota_cpu: Some(Some(MilliCpu(4_000))), ..BoroughChange::default() };
    estate.allow(&"camden".parse().unwrap(), &quota);
    add(&mut estate, ("camden/first", 90, 4_000));
    estate.full_pass();
    let mut engine = Engine::new(&estate.state);
    add(&mut estate, ("camden/urgent", 80, 3_000));
    add(&mut estate, ("camden/loose", 10, 4_000));
    assert!(engine.pass(&estate.state, 0, Limits::default()).preemptions.is_empty());
    // Its borough has as much as before.
    let first = estate.instance(&spec("camden/first").key(), 0);
    drop(estate.apply(Command::StopWorkload { key: first.workload().clone(), purge: false }));
    estate.report(&first, InstanceState::Stopped, "");
    let instance = estate.instance(&spec("camden/loose").key(), 0).id;
    let Placed { host, ports, .. } = first.placed.clone().unwrap();
    let placement = Placement { instance, host, ports, devices: Vec::new(), cores: None };
    assert_eq!(estate.apply(Command::Place(vec![placement])).result, Ok(Done::Instances(1)));
    let plan = engine.pass(&estate.state, 0, Limits::default());
    assert_eq!(
        (plan.preemptions.len(), &plan.preemptions),
        (1, &pass(&estate.state, 0, Limits::default()).preemptions)
    );
}
