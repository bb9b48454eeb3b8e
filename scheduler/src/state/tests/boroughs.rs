//! What boroughs may have: changed field by field, told, refused where it cannot be, and kept to when instances are placed.

use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    host::HostState,
    id::{HostId, InstanceId},
    instance::InstanceState,
    spec::WorkloadSpec,
};

use super::world::{GIB, World, service};
use crate::state::{
    Allowance, BoroughChange, Change, Command, Done, HostVerdict, Preemption, Quota, Rejection, State,
    level::{FIFTH, FOURTH, Level, SIXTH},
};

fn set(change: BoroughChange) -> Command {
    Command::SetBorough { name: "camden".parse().unwrap(), change }
}

fn allowance(world: &World) -> Allowance {
    world.state.allowance_of(&"camden".parse().unwrap())
}

fn quota_cpu(millis: u64) -> Command {
    set(BoroughChange { quota_cpu: Some(Some(MilliCpu(millis))), ..BoroughChange::default() })
}

#[test]
fn only_what_is_given_changes_and_an_event_says_what() {
    let mut world = World::with_hosts(&[]);
    let all = BoroughChange {
        title: Some("Borough of Camden".to_owned()),
        quota_cpu: Some(Some(MilliCpu(4_000))),
        quota_memory: Some(Some(Bytes(8 * GIB))),
        quota_disk: Some(None),
        guarantee_cpu: Some(MilliCpu(1_500)),
        guarantee_disk: Some(Bytes(GIB)),
        weight: Some(200),
        max_priority: Some(70),
        private_hosts: Some(2),
        ..BoroughChange::default()
    };
    assert_eq!(world.must(set(all.clone())), Done::Applied(Change::Updated));
    let told = world.events.last().unwrap().clone();
    assert_eq!((told.kind.as_str(), told.subject.borough), ("borough-changed", "camden".parse().ok()));
    assert_eq!(
        told.message,
        "title from \"Camden\" to \"Borough of Camden\", quota.cpu from none to 4, guarantee.cpu from 0 to 1500m, \
         quota.memory from none to 8GiB, guarantee.disk from 0B to 1GiB, weight from 100 to 200, max_priority from 100 to 70, \
         private_hosts from 0 to 2"
    );
    let events = world.events.len();
    assert_eq!(world.must(set(all)), Done::Applied(Change::Unchanged));
    assert_eq!(world.events.len(), events, "nothing happened");
    let lift = BoroughChange { quota_cpu: Some(None), ..BoroughChange::default() };
    assert_eq!(world.must(set(lift)), Done::Applied(Change::Updated));
    assert_eq!(world.events.last().unwrap().message, "quota.cpu from 4 to none");
    let expected = Allowance {
        quota: Quota { memory: Some(Bytes(8 * GIB)), ..Quota::default() },
        guarantee: Amounts { cpu: MilliCpu(1_500), disk: Bytes(GIB), ..Amounts::default() },
        weight: 200,
        max_priority: 70,
        private_hosts: 2,
    };
    assert_eq!(allowance(&world), expected);
    let mut bytes = Vec::new();
    world.state.write(&mut bytes).unwrap();
    let restored = State::read(&mut bytes.as_slice()).unwrap();
    assert_eq!(restored.boroughs(), world.state.boroughs());
}

#[test]
fn what_cannot_be_is_refused_with_field_expectation_and_value() {
    let mut world = World::with_hosts(&[]);
    let change = BoroughChange {
        quota_cpu: Some(Some(MilliCpu(1_000))),
        guarantee_cpu: Some(MilliCpu(1_500)),
        weight: Some(0),
        max_priority: Some(101),
        ..BoroughChange::default()
    };
    let Rejection::Invalid(problems) = world.refused(set(change)) else { panic!("refused otherwise") };
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "change.guarantee_cpu_millis: expected at most the quota of 1, found 1500m",
            "change.weight: expected 1 to 1000, found 0",
            "change.max_priority: expected 0 to 100, found 101"
        ]
    );
    assert_eq!(allowance(&world), Allowance::default());
    world.must(set(BoroughChange { guarantee_cpu: Some(MilliCpu(1_500)), ..BoroughChange::default() }));
    let too_small = world.refused(quota_cpu(1_499));
    let Rejection::Invalid(problems) = too_small else { panic!("less than is guaranteed") };
    assert_eq!(
        problems[0].to_string(),
        "change.quota_cpu_millis: expected at least the guarantee of 1500m, found 1499m"
    );
    world.must(quota_cpu(1_500));
    let nowhere = Command::SetBorough { name: "nowhere".parse().unwrap(), change: BoroughChange::default() };
    assert_eq!(world.refused(nowhere), Rejection::NotFound("borough nowhere".to_owned()));
}

#[test]
fn what_is_applied_keeps_to_the_highest_priority_and_what_is_there_stays() {
    let mut world = World::with_hosts(&["h1"]);
    let limit = |most| set(BoroughChange { max_priority: Some(most), ..BoroughChange::default() });
    let apply = |priority| Command::ApplyWorkload {
        spec: Box::new(WorkloadSpec { priority, ..service("web", 2) }),
        expect_revision: None,
    };
    world.must(apply(50));
    world.must(limit(40));
    let key = service("web", 1).key();
    assert_eq!(world.must(Command::ScaleWorkload { key, count: 3 }), Done::Scaled { before: 2 });
    assert_eq!(world.shape("web").len(), 3, "it is there as before");
    for priority in [50, 41] {
        let refused = world.refused(apply(priority)).to_string();
        let expected = "priority: expected at most 40, which is what operators let camden have";
        assert_eq!(refused, format!("{expected}, found {priority}"));
    }
    world.must(apply(40));
    world.must(limit(0));
    world.must(apply(0));
}

#[test]
fn what_is_private_takes_leave_of_operators_and_hosts_are_counted() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let hosts: Vec<_> = world.state.hosts().keys().copied().collect();
    let leave = |most| set(BoroughChange { private_hosts: Some(most), ..BoroughChange::default() });
    let mut spec = service("vault", 4);
    spec.place.private = true;
    let apply = || Command::ApplyWorkload { spec: Box::new(spec.clone()), expect_revision: None };
    assert_eq!(
        world.refused(apply()).to_string(),
        "place.private: expected false, since operators let camden keep no host to itself, found true"
    );
    world.must(leave(1));
    world.must(apply());
    let camden = "camden".parse().unwrap();
    let first = world.state.pending().next().unwrap().id;
    assert!(world.place(first, hosts[1]));
    assert_eq!(world.place_all(&hosts[..1]), 0, "another one would be kept");
    assert_eq!((world.place_all(&hosts[1..]), world.state.kept_hosts(&camden)), (3, 1));
    let lost = |state| HostVerdict { host: hosts[1], state, reason: String::new() };
    world.must(Command::JudgeHosts(vec![lost(HostState::Lost)]));
    assert_eq!((world.state.kept_hosts(&camden), world.place_all(&hosts[..1])), (0, 4), "successors may go");
}

#[test]
fn a_quota_is_kept_to_and_what_is_lost_is_not_charged() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let hosts: Vec<_> = world.state.hosts().keys().copied().collect();
    world.must(quota_cpu(1_400));
    world.apply_spec(&service("web", 4));
    assert_eq!(world.place_all(&hosts), 2, "half a core each");
    world.must(quota_cpu(500));
    assert_eq!(world.shape("web").iter().filter(|shape| shape.contains("placed")).count(), 2, "they stay");
    assert_eq!(world.place_all(&hosts), 0);
    world.must(quota_cpu(1_500));
    assert_eq!(world.place_all(&hosts), 1);
    // All of them are lost with their host, so their successors find the quota unused; one goes with what is over.
    world.must(Command::JudgeHosts(vec![HostVerdict {
        host: hosts[0],
        state: HostState::Lost,
        reason: String::new(),
    }]));
    assert_eq!(world.state.taken_by(&"camden".parse().unwrap()), Amounts::default());
    assert_eq!(world.place_all(&hosts[1..]), 3);
    let first = world.state.instances_on(hosts[1]).next().unwrap().id;
    world.report(first, InstanceState::Completed);
    assert_eq!(world.place_all(&hosts[1..]), 1);
}

#[test]
fn at_a_quota_only_those_of_the_borough_make_way_that_are_needed() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let hosts: Vec<_> = world.state.hosts().keys().copied().collect();
    world.must(quota_cpu(1_000));
    let mut apply = |name: &str, borough: &str, count: u32, priority: u32| -> Vec<InstanceId> {
        let mut spec = service(name, count);
        (spec.borough, spec.priority) = (borough.parse().unwrap(), priority);
        drop(world.apply(Command::CreateBorough { name: spec.borough.clone(), title: String::new() }));
        world.apply_spec(&spec);
        world.state.instances_of(&spec.key()).map(|instance| instance.id).collect()
    };
    let (batch, others) = (apply("batch", "camden", 2, 10), apply("batch", "brent", 1, 5));
    let (urgent, same) = (apply("urgent", "camden", 1, 80)[0], apply("same", "camden", 1, 10)[0]);
    for (instance, host) in [(batch[0], hosts[0]), (batch[1], hosts[1]), (others[0], hosts[1])] {
        assert!(world.place(instance, host));
    }
    let displace = |world: &mut World, victims: &[InstanceId]| {
        let made =
            Preemption { instance: urgent, before: None, host: Some(hosts[0]), victims: victims.to_vec() };
        world.must(Command::Preempt(vec![made])) == Done::Instances(1)
    };
    world.must(Command::RaiseLevel { level: FOURTH });
    assert!(!displace(&mut world, &batch[1..]), "not every member knows it");
    world.must(Command::RaiseLevel { level: FIFTH });
    assert!(!displace(&mut world, &batch), "one is enough");
    assert!(!displace(&mut world, &[batch[1], others[0]]), "others are no matter to the quota");
    assert!(!displace(&mut world, &others));
    assert!(displace(&mut world, &batch[1..]), "on whatever host it is");
    let camden = "camden".parse().unwrap();
    assert_eq!(world.state.taken_by(&camden).cpu.0, 1_500, "who makes way counts until it is gone");
    assert!(!world.place(urgent, hosts[0]));
    world.report(batch[1], InstanceState::Stopped);
    assert!(!world.place(same, hosts[0]), "what leaves is kept");
    assert!(world.place(urgent, hosts[0]));
    assert_eq!(world.state.taken_by(&camden).cpu.0, 1_000);
}

/// Three of a batch, of which one makes way for a middling one that waits, at a quota of three, and an urgent one: these, and the hosts of all.
fn with_one_that_waits(level: Level) -> (World, Vec<InstanceId>, InstanceId, InstanceId, HostId) {
    let mut world = World::with_hosts(&["h1"]);
    let host = *world.state.hosts().keys().next().unwrap();
    world.must(quota_cpu(1_500));
    world.must(Command::RaiseLevel { level });
    let mut apply = |name: &str, count: u32, priority: u32| -> Vec<InstanceId> {
        let spec = WorkloadSpec { priority, ..service(name, count) };
        world.apply_spec(&spec);
        world.state.instances_of(&spec.key()).map(|instance| instance.id).collect()
    };
    let (batch, middling, urgent) = (apply("batch", 3, 10), apply("middling", 1, 50), apply("urgent", 1, 80));
    assert!(batch.iter().all(|one| world.place(*one, host)));
    assert!(displace(&mut world, middling[0], None, host, &batch[2..]));
    (world, batch, middling[0], urgent[0], host)
}

fn displace(
    world: &mut World,
    instance: InstanceId,
    before: Option<HostId>,
    host: HostId,
    victims: &[InstanceId],
) -> bool {
    let made = Preemption { instance, before, host: Some(host), victims: victims.to_vec() };
    world.must(Command::Preempt(vec![made])) == Done::Instances(1)
}

#[test]
fn at_a_quota_what_waits_makes_way_before_what_runs_from_level_six_on() {
    let camden = "camden".parse().unwrap();
    let on_hosts = |world: &World| world.state.use_of(&camden).on_hosts().cpu.0;
    let (mut world, batch, middling, urgent, host) = with_one_that_waits(FIFTH);
    world.report(batch[2], InstanceState::Stopped);
    assert!(!world.place(urgent, host), "what waits is charged to everybody");
    assert!(displace(&mut world, urgent, None, host, &batch[1..2]), "one of those that run is needed");
    assert!(world.place(urgent, host), "it comes first even so");

    let (mut world, batch, middling_now, urgent, host) = with_one_that_waits(SIXTH);
    assert_eq!(middling, middling_now);
    assert!(!displace(&mut world, urgent, None, host, &batch[1..2]), "what stops already is enough");
    assert!(!world.place(urgent, host), "it has not stopped yet");
    world.report(batch[2], InstanceState::Stopped);
    assert!(world.place(urgent, host), "nobody else stops for it");
    assert_eq!(on_hosts(&world), 1_500);
    assert!(!world.place(middling, host), "it waits until it is borne");
    assert_eq!(on_hosts(&world), 1_500, "and hosts have no more than the quota");
    assert!(displace(&mut world, middling, Some(host), host, &batch[1..2]), "for which one more may stop");
    world.report(batch[1], InstanceState::Stopped);
    assert!(world.place(middling, host));
    assert_eq!((on_hosts(&world), world.state.taken_by(&camden).cpu.0), (1_500, 1_500));
}

#[test]
fn a_gang_goes_before_what_merely_waits_and_is_less_urgent() {
    for (level, held) in [(FIFTH, 0), (SIXTH, 1)] {
        let (mut world, batch, _, _, host) = with_one_that_waits(level);
        world.report(batch[2], InstanceState::Stopped);
        let mut spec = WorkloadSpec { priority: 60, ..service("gang", 1) };
        spec.place.all_or_none = true;
        world.apply_spec(&spec);
        let gang = world.state.instances_of(&spec.key()).next().unwrap().id;
        assert_eq!(u32::from(world.place(gang, host)), held);
    }
}

#[test]
fn a_borough_as_it_always_was_has_the_bytes_that_it_always_had() {
    let mut world = World::with_hosts(&[]);
    let before = world.state.hash();
    let weight = |weight| set(BoroughChange { weight: Some(weight), ..BoroughChange::default() });
    let index = world.state.applied();
    world.must(weight(99));
    assert_ne!(world.state.hash(), before);
    world.must(weight(100));
    for most in [99, 100] {
        world.must(set(BoroughChange { max_priority: Some(most), ..BoroughChange::default() }));
    }
    world.state.skip(index);
    assert_eq!(world.state.hash(), before, "what older versions do not know is not written");
}
