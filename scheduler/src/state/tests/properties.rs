//! Properties over random histories: what is equal stays equal, what must hold holds after every step, and a snapshot loses nothing.

use proptest::prelude::*;
use supercloud_proto::{
    amount::MilliCpu,
    cores::Numa,
    host::HostState,
    id::{HostId, InstanceId},
    instance::InstanceState,
    spec::{Class, WorkloadKind},
};

use super::{
    checker::{bears, check, check_quotas, volumes_are_used_once},
    world::{World, inventory, key, mounting, service, web},
};
use crate::state::{
    BoroughChange, Command, Entry, HostVerdict, Packing, SiteChange, State,
    codec::{DecodeError, RestoreError},
    level::{FIRST, KNOWN},
};

/// One step of a history, in small numbers that always mean something.
#[derive(Debug, Clone)]
enum Step {
    Apply { workload: u8, count: u32, variant: u8 },
    Scale { workload: u8, count: u32 },
    Stop { workload: u8, purge: bool },
    Register { host: u8 },
    Judge { host: u8, state: u8 },
    Remove { host: u8 },
    Close { host: u8, open: bool },
    Place { nth: usize, host: u8 },
    Replace { nth: usize },
    Report { nth: usize, state: usize, restarts: u32, from: Option<u8> },
    Allow { cpu: Option<u64>, weight: u32, priority: u32 },
    Site { host: u8, percents: (u32, u32), cost: u32 },
    Wait { millis: u64 },
    Forget { workload: u8, host: u8 },
    Raise,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3u8, 0..5u32, 0..14u8).prop_map(|(workload, count, variant)| Step::Apply { workload, count, variant }),
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
        1 => (proptest::option::of(0..4_000u64), 1..4u32, proptest::sample::select(vec![49, 50, 100]))
            .prop_map(|(cpu, weight, priority)| Step::Allow { cpu, weight, priority }),
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

/// Applies one of the sorts of workloads, and looks whether it is let in as its borough may.
fn apply(world: &mut World, workload: u8, count: u32, variant: u8) {
    let name = format!("w{workload}");
    let mut spec = match variant {
        0 => service(&name, count),
        1 => web(&name, count, None),
        2 => web(&name, count, Some(80)),
        11..14 => mounting(&name, count),
        _ => service(&name, count),
    };
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

fn play(world: &mut World, step: &Step) {
    match step {
        Step::Apply { workload, count, variant } => apply(world, *workload, *count, *variant),
        Step::Scale { workload, count } => {
            world.apply(Command::ScaleWorkload { key: key(&format!("w{workload}")), count: *count });
        }
        Step::Stop { workload, purge } => {
            world.apply(Command::StopWorkload { key: key(&format!("w{workload}")), purge: *purge });
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
        Step::Place { nth: n, host } => {
            let waiting = world.state.pending().count();
            if waiting > 0 {
                let id = world.state.pending().nth(n % waiting).unwrap().id;
                let host = host_named(world, *host);
                if world.place(id, host) {
                    check_quotas(&world.state);
                    bears(&world.state, world.state.host(host).unwrap());
                } else if world.place_with_all(id, *n) {
                    check_quotas(&world.state);
                }
            }
        }
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
        Step::Allow { cpu, weight, priority } => {
            let quota_cpu = Some(cpu.map(MilliCpu));
            let (weight, max_priority, private_hosts) = (Some(*weight), Some(*priority), Some(*weight - 1));
            let change =
                BoroughChange { quota_cpu, weight, max_priority, private_hosts, ..BoroughChange::default() };
            world.apply(Command::SetBorough { name: "camden".parse().unwrap(), change });
        }
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
            let (key, host) = (key(&format!("w{workload}")), format!("h{host}").parse().unwrap());
            world.apply(Command::ForgetVolumes { key, host });
        }
        Step::Raise => {
            world.apply(Command::RaiseLevel { level: KNOWN });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_history_keeps_the_state_sound(steps in proptest::collection::vec(step(), 1..60), is_new: bool) {
        let mut world = World::with_hosts(&["h0", "h1"]);
        if is_new {
            play(&mut world, &Step::Raise);
        }
        let mut twin = world.clone();
        for step in &steps {
            play(&mut world, step);
            check(&world.state);
            if is_new {
                volumes_are_used_once(&world.state);
            }
            play(&mut twin, step);
        }
        prop_assert_eq!(world.state.hash(), twin.state.hash(), "the same log gives the same state");
        prop_assert_eq!(&world.events, &twin.events);

        let mut bytes = Vec::new();
        world.state.write(&mut bytes).unwrap();
        let restored = State::read(&mut bytes.as_slice()).unwrap();
        check(&restored);
        prop_assert_eq!(restored.hash(), world.state.hash(), "a snapshot loses nothing");

        let mut copy = World { state: restored, ..world.clone() };
        for step in &steps {
            play(&mut world, step);
            play(&mut copy, step);
        }
        prop_assert_eq!(world.state.hash(), copy.state.hash(), "and goes on the same way");
    }
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
