//! Properties over random histories: what is equal stays equal, what must hold holds after every step, and a snapshot loses nothing.

use std::sync::Arc;

use proptest::{prelude::*, sample::select, test_runner::TestCaseError};
use supercloud_proto::{
    amount::MilliCpu,
    cores::Numa,
    host::HostState,
    id::{HostId, InstanceId},
    instance::{Desired, InstanceState},
    name::WorkloadKey,
    spec::{Class, WorkloadKind},
};

use super::{
    checker::{bears, check, check_quotas, volumes_are_used_once},
    tally::Tally,
    world::{World, inventory, mounting, service, web},
};
use crate::state::{
    BoroughChange, Command, Done, Entry, HostVerdict, Instance, Packing, Preemption, SiteChange, State,
    codec::{DecodeError, RestoreError},
    level::{FIRST, FOURTH, KNOWN},
};

/// How many histories are played.
const CASES: u32 = 1_024;

/// One step of a history, in small numbers that always mean something. `Preempt` fills a host up, and for one of those that then wait the first few make way that may,
/// from one of them on; with `Gone` one is gone that was to stop; and with `EndWaiting` room is kept for one no more.
#[derive(Debug, Clone)]
enum Step {
    Apply(Wanted),
    Scale { workload: u8, count: u32 },
    Stop { workload: u8, purge: bool },
    Register { host: u8 },
    Judge { host: u8, state: u8 },
    Remove { host: u8 },
    Close { host: u8, open: bool },
    Place { nth: usize, host: u8 },
    Replace { nth: usize },
    Report { nth: usize, state: usize, restarts: u32, from: Option<u8> },
    Preempt { nth: usize, host: u8, from: usize },
    Gone { nth: usize },
    EndWaiting { nth: usize },
    Allow(Allowed),
    Site { host: u8, percents: (u32, u32), cost: u32 },
    Wait { millis: u64 },
    Forget { workload: u8, host: u8 },
    Raise,
}

/// What is wanted of a workload.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    workload: u8,
    count: u32,
    variant: u8,
    priority: u32,
    cpu: u64,
}

/// What the borough of a workload may have.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    workload: u8,
    cpu: Option<u64>,
    guarantee: u64,
    weight: u32,
    priority: u32,
}

prop_compose! {
    fn wanted()(
        workload in 0..3u8, count in 0..7u32, variant in 0..14u8, priority in select(vec![10, 50, 50, 80]), cpu in select(vec![500, 2_000, 3_500]),
    ) -> Wanted {
        Wanted { workload, count, variant, priority, cpu }
    }
}

prop_compose! {
    fn allowed()(
        workload in 0..3u8, cpu in proptest::option::of(0..4_000u64), guarantee in 0..2_000u64, weight in 1..4u32, priority in select(vec![49, 50, 100]),
    ) -> Allowed {
        Allowed { workload, cpu, guarantee, weight, priority }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => wanted().prop_map(Step::Apply),
        1 => (0..3u8, 0..6u32).prop_map(|(workload, count)| Step::Scale { workload, count }),
        1 => (0..3u8, any::<bool>()).prop_map(|(workload, purge)| Step::Stop { workload, purge }),
        2 => (0..3u8).prop_map(|host| Step::Register { host }),
        2 => (0..3u8, 0..4u8).prop_map(|(host, state)| Step::Judge { host, state }),
        1 => (0..3u8).prop_map(|host| Step::Remove { host }),
        1 => (0..3u8, any::<bool>()).prop_map(|(host, open)| Step::Close { host, open }),
        8 => (any::<usize>(), 0..3u8).prop_map(|(nth, host)| Step::Place { nth, host }),
        2 => any::<usize>().prop_map(|nth| Step::Replace { nth }),
        8 => (any::<usize>(), 0..InstanceState::ALL.len(), 0..3u32, proptest::option::weighted(0.1, 0..3u8))
            .prop_map(|(nth, state, restarts, from)| Step::Report { nth, state, restarts, from }),
        10 => (any::<usize>(), 0..3u8, any::<usize>()).prop_map(|(nth, host, from)| Step::Preempt { nth, host, from }),
        6 => any::<usize>().prop_map(|nth| Step::Gone { nth }),
        1 => any::<usize>().prop_map(|nth| Step::EndWaiting { nth }),
        1 => allowed().prop_map(Step::Allow),
        1 => (0..3u8, (100..300u32, 100..1_100u32), 0..2u32)
            .prop_map(|(host, percents, cost)| Step::Site { host, percents, cost }),
        1 => (0..100_000u64).prop_map(|millis| Step::Wait { millis }),
        1 => (0..3u8, 0..3u8).prop_map(|(workload, host)| Step::Forget { workload, host }),
        1 => Just(Step::Raise),
    ]
}

fn nth(state: &State, n: usize) -> Option<InstanceId> {
    let count = state.instances().len();
    (count > 0).then(|| *state.instances().keys().nth(n % count).unwrap())
}

fn host_named(world: &World, host: u8) -> HostId {
    world.state.host_named(&format!("h{host}")).map_or(HostId(99), |host| host.id)
}

/// One that waits.
fn nth_waiting(state: &State, n: usize) -> Option<InstanceId> {
    let count = state.pending().count();
    (count > 0).then(|| state.pending().nth(n % count).unwrap().id)
}

/// The last workload is another borough's than the others.
fn key(workload: u8) -> WorkloadKey {
    let borough = if workload == 2 { "barnet" } else { "camden" };
    WorkloadKey { borough: borough.parse().unwrap(), workload: format!("w{workload}").parse().unwrap() }
}

/// Applies one of the sorts of workloads, and looks whether it is let in as its borough may.
fn apply(world: &mut World, wanted: Wanted) {
    let Wanted { workload, count, variant, priority, cpu } = wanted;
    let name = format!("w{workload}");
    let mut spec = match variant {
        0 => service(&name, count),
        1 => web(&name, count, None),
        2 => web(&name, count, Some(80)),
        11..14 => mounting(&name, count),
        _ => service(&name, count),
    };
    (spec.borough, spec.priority, spec.resources.cpu) = (key(workload).borough, priority, MilliCpu(cpu));
    if variant == 3 {
        spec.kind = WorkloadKind::Batch;
        spec.place.distinct_hosts = true;
    }
    spec.place.all_or_none = variant == 7;
    if variant == 9 || variant == 10 {
        spec.resources.cpu = MilliCpu(1_000);
        spec.resources.dedicated = true;
        spec.resources.numa = if variant == 9 { Numa::One } else { Numa::Any };
    }
    if variant == 5 || variant == 6 {
        spec.class = if variant == 5 { Class::Spare } else { Class::Guaranteed };
    }
    if variant == 4 {
        spec.place.apart = vec![format!("w{}", (workload + 1) % 3).parse().unwrap()];
    }
    let most = world.state.allowance_of(&spec.borough).max_priority;
    let private_hosts = world.state.allowance_of(&spec.borough).private_hosts;
    spec.place.private = variant == 8;
    let is_let_in = spec.priority <= most && (!spec.place.private || private_hosts > 0);
    let applied = world.apply(Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None });
    assert_eq!(applied.outcome.result.is_ok(), is_let_in, "a highest priority of {most}");
}

/// Lets a few make way for one that waits, if that is right with as many as one to four: of those on the host, or of those of its borough.
fn preempt(world: &mut World, instance: InstanceId, host: HostId, from: usize) -> bool {
    let waiting = world.state.instance(instance).unwrap().clone();
    let is_other = |other: &&Arc<Instance>| other.placed.is_some() && other.workload() != waiting.workload();
    let others: Vec<Arc<Instance>> = world.state.instances().values().filter(is_other).cloned().collect();
    let there = |other: &Instance| other.host() == Some(host);
    let own = |other: &Instance| other.workload().borough == waiting.workload().borough;
    for may in [&there as &dyn Fn(&Instance) -> bool, &own] {
        let mut may: Vec<InstanceId> =
            others.iter().filter(|other| may(other)).map(|other| other.id).collect();
        let first = from % may.len().max(1);
        may.rotate_left(first);
        for few in 1..=may.len().min(4) {
            let (before, victims) = (waiting.awaited_host(), may[..few].to_vec());
            let made = Preemption { instance, before, host: Some(host), victims };
            if world.must(Command::Preempt(vec![made])) == Done::Instances(1) {
                return true;
            }
        }
    }
    false
}

fn place(world: &mut World, nth: usize, host: u8, tally: &Tally) {
    // Mostly what others made way for, and where.
    let awaited = world.state.pending().find(|one| one.awaited_host().is_some()).map(|one| one.id);
    let Some(id) = awaited.filter(|_| !nth.is_multiple_of(4)).or_else(|| nth_waiting(&world.state, nth))
    else {
        return;
    };
    let waiting = world.state.instance(id).unwrap().clone();
    let kept = waiting.awaited_host().filter(|_| !nth.is_multiple_of(4));
    let host = kept.unwrap_or_else(|| host_named(world, host));
    if world.place(id, host) {
        check_quotas(&world.state, &waiting.workload().borough);
        bears(&world.state, world.state.host(host).unwrap());
        tally.note("placed where it is awaited", waiting.awaited_host() == Some(host));
    } else if world.place_with_all(id, nth) {
        check_quotas(&world.state, &waiting.workload().borough);
        tally.note("gangs placed", true);
    }
}

fn displace(world: &mut World, nth: usize, host: u8, from: usize, tally: &Tally) {
    // Before every member knows of it nobody says so.
    if world.state.level() < FOURTH {
        return;
    }
    let host = host_named(world, host);
    // Where there is room nobody makes way.
    world.place_all(&[host]);
    let mut waiting: Vec<InstanceId> = world.state.pending().map(|one| one.id).collect();
    let first = nth % waiting.len().max(1);
    waiting.rotate_left(first);
    for id in waiting {
        let before = world.state.instance(id).unwrap().awaited_host();
        if preempt(world, id, host, from) {
            tally.note("displaced", true);
            tally.note("awaited elsewhere than before", before.is_some_and(|before| before != host));
            return;
        }
    }
}

fn gone(world: &mut World, nth: usize) {
    let stops = |one: &&Arc<Instance>| one.desired == Desired::Stop && one.placed.is_some();
    let stopping: Vec<_> = world.state.instances().values().filter(stops).map(|one| one.id).collect();
    if let Some(id) = stopping.get(nth % stopping.len().max(1)) {
        world.report(*id, InstanceState::Stopped);
    }
}

fn end_waiting(world: &mut World, nth: usize, tally: &Tally) {
    let pending = world.state.pending();
    let awaited: Vec<_> = pending.filter_map(|one| Some((one.id, one.awaited_host()?))).collect();
    if let Some((instance, host)) = awaited.get(nth % awaited.len().max(1)) {
        let made = Preemption { instance: *instance, before: Some(*host), host: None, victims: Vec::new() };
        assert_eq!(world.must(Command::Preempt(vec![made])), Done::Instances(1));
        tally.note("awaited no more", true);
    }
}

fn allow(world: &mut World, allowed: Allowed) {
    let Allowed { workload, cpu, guarantee, weight, priority } = allowed;
    let change = BoroughChange {
        quota_cpu: Some(cpu.map(MilliCpu)),
        guarantee_cpu: Some(MilliCpu(cpu.map_or(guarantee, |quota| quota.min(guarantee)))),
        weight: Some(weight),
        max_priority: Some(priority),
        private_hosts: Some(weight - 1),
        ..BoroughChange::default()
    };
    world.apply(Command::SetBorough { name: key(workload).borough, change });
}

fn play(world: &mut World, step: &Step, tally: &Tally) {
    match step {
        Step::Apply(wanted) => apply(world, *wanted),
        Step::Scale { workload, count } => {
            world.apply(Command::ScaleWorkload { key: key(*workload), count: *count });
        }
        Step::Stop { workload, purge } => {
            world.apply(Command::StopWorkload { key: key(*workload), purge: *purge });
        }
        Step::Register { host } => {
            let name = format!("h{host}");
            world.apply(Command::RegisterHost {
                name: name.parse().unwrap(),
                inventory: Box::new(inventory("site")),
                incarnation: "i".to_owned(),
            });
        }
        Step::Judge { host, state } => {
            let state = [HostState::Ready, HostState::Degraded, HostState::Suspect, HostState::Lost]
                [usize::from(*state)];
            let verdict = HostVerdict { host: host_named(world, *host), state, reason: String::new() };
            world.apply(Command::JudgeHosts(vec![verdict]));
        }
        Step::Remove { host } => {
            world.apply(Command::RemoveHost { name: format!("h{host}").parse().unwrap() });
        }
        Step::Close { host, open } => {
            world.apply(Command::SetSchedulable {
                name: format!("h{host}").parse().unwrap(),
                schedulable: *open,
            });
        }
        Step::Place { nth, host } => place(world, *nth, *host, tally),
        Step::Preempt { nth, host, from } => displace(world, *nth, *host, *from, tally),
        Step::Gone { nth } => gone(world, *nth),
        Step::EndWaiting { nth } => end_waiting(world, *nth, tally),
        Step::Replace { nth: n } => {
            if let Some(id) = nth(&world.state, *n) {
                world.apply(Command::Replace { instances: vec![id], reason: "rollout".to_owned() });
            }
        }
        Step::Report { nth: n, state, restarts, from } => {
            if let Some(id) = nth(&world.state, *n) {
                let own = world.state.instance(id).and_then(|instance| instance.host());
                let host = from.map(|host| host_named(world, host)).or(own);
                world.report_from(host.unwrap_or(HostId(1)), id, InstanceState::ALL[*state], *restarts);
            }
        }
        Step::Allow(allowed) => allow(world, *allowed),
        Step::Site { host, percents: (standard, spare), cost } => {
            let change = SiteChange {
                standard_cpu_percent: Some(*standard),
                spare_cpu_percent: Some(*spare),
                packing: Some(if cost % 2 == 0 { Packing::Pack } else { Packing::Spread }),
                cost: Some(*cost),
            };
            let name =
                [format!("site-h{host}"), "site".to_owned()][usize::from(*spare % 2 == 0)].parse().unwrap();
            world.apply(Command::SetSite { name, change });
        }
        Step::Wait { millis } => world.now += millis,
        Step::Forget { workload, host } => {
            let (key, host) = (key(*workload), format!("h{host}").parse().unwrap());
            world.apply(Command::ForgetVolumes { key, host });
        }
        Step::Raise => {
            world.apply(Command::RaiseLevel { level: KNOWN });
        }
    }
}

#[test]
fn every_history_keeps_the_state_sound() {
    let (tally, steps) = (Tally::default(), || proptest::collection::vec(step(), 1..60));
    proptest!(ProptestConfig::with_cases(CASES), |(steps in steps(), is_new: bool)| {
        history(&steps, is_new, &tally)?;
    });
    tally.expect(&[
        ("displaced", CASES / 16),
        ("placed where it is awaited", 1),
        ("awaited no more", CASES / 128),
        ("gangs placed", CASES / 2),
    ]);
}

fn history(steps: &[Step], is_new: bool, tally: &Tally) -> Result<(), TestCaseError> {
    let mut world = World::with_hosts(&["h0", "h1"]);
    let barnet = Command::CreateBorough { name: "barnet".parse().unwrap(), title: "Barnet".to_owned() };
    world.must(barnet);
    if is_new {
        play(&mut world, &Step::Raise, tally);
    }
    let mut twin = world.clone();
    for step in steps {
        play(&mut world, step, tally);
        check(&world.state);
        if is_new {
            volumes_are_used_once(&world.state);
        }
        play(&mut twin, step, tally);
    }
    prop_assert_eq!(world.state.hash(), twin.state.hash(), "the same log gives the same state");
    prop_assert_eq!(&world.events, &twin.events);

    let mut bytes = Vec::new();
    world.state.write(&mut bytes).unwrap();
    let restored = State::read(&mut bytes.as_slice()).unwrap();
    check(&restored);
    prop_assert_eq!(restored.hash(), world.state.hash(), "a snapshot loses nothing");

    let mut copy = World { state: restored, ..world.clone() };
    for step in steps {
        play(&mut world, step, tally);
        play(&mut copy, step, tally);
    }
    prop_assert_eq!(world.state.hash(), copy.state.hash(), "and goes on the same way");
    Ok(())
}

#[test]
fn a_damaged_snapshot_is_refused_wherever_the_damage_is() {
    let mut world = World::with_hosts(&["h0"]);
    world.apply_spec(&web("web", 3, None));
    let mut bytes = Vec::new();
    world.state.write(&mut bytes).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(State::read(&mut damaged.as_slice()).is_err(), "a flipped bit at {at}");
        assert!(State::read(&mut &bytes[..at]).is_err(), "cut off at {at}");
    }
    let later = KNOWN + 1;
    let newer = State::read(&mut [4u8, 10, 2, 8, later as u8].as_slice());
    assert!(matches!(newer, Err(RestoreError::Level { found }) if found == later));
}

#[test]
fn a_level_goes_up_alone_and_what_needs_a_later_one_is_not_read() {
    let mut world = World::with_hosts(&["h0"]);
    assert_eq!(world.state.level(), FIRST);
    for (level, then, events) in [(KNOWN, KNOWN, 1), (FIRST, KNOWN, 0), (KNOWN, KNOWN, 0)] {
        assert_eq!(world.apply(Command::RaiseLevel { level }).events.len(), events);
        assert_eq!(world.state.level(), then);
    }
    let mut bytes = Vec::new();
    world.state.write(&mut bytes).unwrap();
    assert_eq!(State::read(&mut bytes.as_slice()).unwrap().level(), KNOWN);
    let later = Command::RaiseLevel { level: KNOWN + 1 };
    let entry = Entry { time: 1, by: "scheduler".to_owned(), request_id: String::new(), command: later };
    let error = Entry::decode(&entry.encode()).unwrap_err();
    assert!(matches!(error, DecodeError::Level { found } if found == KNOWN + 1), "{error}");
}
