//! Cases: one behaviour each, through the same commands that the log carries.

use std::sync::Arc;

use supercloud_proto::{
    amount::Amounts,
    host::HostState,
    id::{HostId, InstanceId},
    instance::{Desired, InstanceReport, InstanceState},
    spec::WorkloadKind,
};

use super::{
    checker::check,
    world::{World, key, service, web},
};
use crate::state::{
    Change, Command, Done, Entry, EventKind, Grant, HostReports, HostVerdict, Outcome, Placement, Ports,
    Rejection, Run, State, apply::telling::AGENTS,
};

fn judge(world: &mut World, host: HostId, state: HostState) {
    world.must(Command::JudgeHosts(vec![HostVerdict { host, state, reason: "silent".to_owned() }]));
}

#[test]
fn a_workload_is_created_scaled_changed_and_stopped() {
    let mut world = World::with_hosts(&["h1"]);
    assert_eq!(world.apply_spec(&service("web", 2)), Done::Applied(Change::Created));
    assert_eq!(world.shape("web"), ["0:pending:run", "1:pending:run"]);
    assert_eq!(world.apply_spec(&service("web", 2)), Done::Applied(Change::Unchanged));
    assert_eq!(world.apply_spec(&service("web", 3)), Done::Applied(Change::Scaled));
    assert_eq!(world.must(Command::ScaleWorkload { key: key("web"), count: 1 }), Done::Scaled { before: 3 });
    assert_eq!(world.shape("web"), ["0:pending:run"], "what waits goes at once");
    let changed = service("web", 1);
    let changed = supercloud_proto::spec::WorkloadSpec { priority: 60, ..changed };
    assert_eq!(world.apply_spec(&changed), Done::Applied(Change::Updated));
    assert_eq!(world.state.workload(&key("web")).unwrap().current().revision, 2);
    assert_eq!(
        world.state.pending().next().unwrap().revision(),
        2,
        "what waits takes the new revision at once"
    );
    assert_eq!(world.must(Command::StopWorkload { key: key("web"), purge: false }), Done::Instances(1));
    assert!(world.shape("web").is_empty());
    let scaled = world.refused(Command::ScaleWorkload { key: key("web"), count: 5 });
    assert!(matches!(scaled, Rejection::Precondition(_)));
    assert_eq!(world.apply_spec(&changed), Done::Applied(Change::Updated), "applying lets it run again");
    assert_eq!(world.shape("web"), ["0:pending:run"]);
    check(&world.state);
}

#[test]
fn instances_are_found_by_their_ids_whatever_is_missing_between() {
    let mut world = World::with_hosts(&[]);
    world.apply_spec(&service("web", 9));
    let web: Vec<InstanceId> = world.state.instances().keys().copied().collect();
    world.apply_spec(&service("api", 2));
    world.must(Command::ScaleWorkload { key: key("web"), count: 6 });
    let all: Vec<InstanceId> = world.state.instances().keys().copied().collect();
    let gone = InstanceId { index: 1, ordinal: 7 };
    let orders =
        [web.clone(), all.clone(), all.iter().rev().copied().collect(), [&web[4..], &[gone], &all].concat()];
    for ids in orders {
        let one_by_one: Vec<_> = ids.iter().filter_map(|id| world.state.instance(*id)).collect();
        let together: Vec<_> = world.state.instances_by(ids.iter().copied()).collect();
        assert_eq!(together, one_by_one, "{ids:?}");
    }
    let has_gap = web.iter().filter(|id| world.state.instance(**id).is_none()).count();
    assert_eq!((web.len(), has_gap), (9, 3));
}

#[test]
fn a_workload_of_an_unknown_borough_is_refused_and_nothing_changes() {
    let mut world = World::with_hosts(&[]);
    let mut spec = service("web", 1);
    spec.borough = "atlantis".parse().unwrap();
    let refused = world.refused(Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None });
    assert_eq!(refused, Rejection::NotFound("borough atlantis".to_owned()));
    assert_eq!(world.state.workloads().len() + world.state.instances().len(), 0);
}

#[test]
fn an_expected_revision_guards_against_another_writer() {
    let mut world = World::with_hosts(&[]);
    let apply =
        |expect| Command::ApplyWorkload { spec: Box::new(service("web", 1)), expect_revision: expect };
    assert!(matches!(world.refused(apply(Some(1))), Rejection::Precondition(_)));
    world.must(apply(Some(0)));
    assert!(matches!(world.refused(apply(Some(0))), Rejection::Precondition(_)));
    world.must(apply(Some(1)));
}

#[test]
fn a_repeated_request_is_answered_and_not_repeated() {
    let mut world = World::with_hosts(&[]);
    let scale = |count| Command::ScaleWorkload { key: key("web"), count };
    world.apply_spec(&service("web", 1));
    let first = world.entry("r1", scale(5)).outcome;
    world.must(scale(2));
    let again = world.entry("r1", scale(5));
    assert_eq!(again.outcome, first);
    assert_eq!(world.live("web").len(), 2, "the repetition changed nothing");
    let Outcome { result, .. } = world.entry("r1", scale(7)).outcome;
    assert!(matches!(result, Err(Rejection::Precondition(text)) if text.contains("r1")));
}

#[test]
fn a_placement_that_no_longer_fits_leaves_the_instance_pending() {
    let mut world = World::with_hosts(&["h1"]);
    let host = world.state.host_named("h1").unwrap().id;
    world.apply_spec(&service("big", 9));
    assert_eq!(world.place_all(&[host]), 8, "eight halves of a core fit four");
    assert_eq!(world.state.pending().count(), 1);
    check(&world.state);
}

#[test]
fn orders_follow_decisions_and_a_stopped_instance_leaves_when_its_host_says_so() {
    let mut world = World::with_hosts(&["h1"]);
    let host = world.state.host_named("h1").unwrap().id;
    world.apply_spec(&web("web", 1, None));
    world.place_all(&[host]);
    let id = world.live("web")[0];
    let order = world.state.orders_of(host, 0).next().unwrap();
    assert_eq!((order.instance, order.desired, order.index), (id, Desired::Run, world.state.applied()));
    assert_eq!(order.ports.len(), 1);
    assert_eq!(world.state.orders_of(host, order.index).count(), 0, "nothing newer");
    world.report(id, InstanceState::Running);
    world.must(Command::StopWorkload { key: key("web"), purge: true });
    let stop = world.state.orders_of(host, order.index).next().unwrap();
    assert_eq!((stop.instance, stop.desired), (id, Desired::Stop));
    assert_eq!(world.state.orders_indexes()[&host], stop.index);
    world.report(id, InstanceState::Stopped);
    assert!(world.state.instance(id).is_none());
    assert!(world.state.workload(&key("web")).is_none(), "purged with its last instance");
    assert_eq!(world.events.last().unwrap().kind, EventKind::WorkloadPurged);
    check(&world.state);
}

#[test]
fn a_failed_instance_is_replaced_after_a_wait_that_grows() {
    let mut world = World::with_hosts(&["h1"]);
    let host = world.state.host_named("h1").unwrap().id;
    world.apply_spec(&service("web", 1));
    let mut waits = Vec::new();
    for _ in 0..3 {
        world.now += 1_000_000;
        world.place_all(&[host]);
        let id = world.live("web")[0];
        world.report(id, InstanceState::Failed);
        let next = world.state.instance(world.live("web")[0]).unwrap().clone();
        assert_eq!(next.replaces(), Some(id));
        waits.push(next.not_before() - world.now);
        world.report(id, InstanceState::Stopped);
    }
    assert_eq!(waits, [5_000, 10_000, 20_000]);
    check(&world.state);
}

#[test]
fn what_ran_on_a_lost_host_is_replaced_and_stops_when_the_host_is_back() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let [h1, h2] = ["h1", "h2"].map(|name| world.state.host_named(name).unwrap().id);
    world.apply_spec(&service("web", 2));
    world.place_all(&[h1]);
    for id in world.live("web") {
        world.report(id, InstanceState::Running);
    }
    judge(&mut world, h1, HostState::Suspect);
    assert_eq!(world.shape("web"), ["0:running:run", "1:running:run"], "a suspect host loses nothing");
    judge(&mut world, h1, HostState::Lost);
    assert_eq!(world.shape("web"), ["0:lost:stop", "1:lost:stop", "0:pending:run", "1:pending:run"]);
    assert_eq!(world.place_all(&[h1, h2]), 2);
    assert!(world.live("web").iter().all(|id| world.state.instance(*id).unwrap().host() == Some(h2)));
    let old: Vec<_> = world.state.instances_on(h1).map(|i| i.id).collect();
    world.register("h1");
    assert_eq!(world.state.host(h1).unwrap().state, HostState::Ready);
    assert_eq!(world.state.orders_of(h1, 0).filter(|o| o.desired == Desired::Stop).count(), 2);
    for id in old {
        world.report_from(h1, id, InstanceState::Running, 0);
        world.report_from(h1, id, InstanceState::Stopped, 0);
    }
    assert_eq!(world.state.instances_on(h1).count(), 0);
    check(&world.state);
}

#[test]
fn the_successor_of_an_exclusive_instance_waits_until_its_slot_is_free() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let [h1, h2] = ["h1", "h2"].map(|name| world.state.host_named(name).unwrap().id);
    let mut spec = service("records", 1);
    spec.exclusive = Some(true);
    world.apply_spec(&spec);
    world.place_all(&[h1]);
    let old = world.live("records")[0];
    world.report(old, InstanceState::Running);
    spec.priority += 1;
    world.apply_spec(&spec);
    world.must(Command::Replace { instances: vec![old], reason: "rollout".to_owned() });
    let new = world.live("records")[0];
    assert!(!world.place(new, h2), "the old one may still run");
    world.report(old, InstanceState::Stopped);
    assert!(world.place(new, h2));
    judge(&mut world, h2, HostState::Lost);
    let next = world.live("records")[0];
    assert!(world.place(next, h1), "on a lost host nothing exclusive runs any more");
    check(&world.state);
}

#[test]
fn a_gang_is_placed_as_a_whole_or_not_at_all() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let [h1, h2] = ["h1", "h2"].map(|name| world.state.host_named(name).unwrap().id);
    let mut spec = service("job", 3);
    spec.place.all_or_none = true;
    spec.place.distinct_hosts = true;
    world.apply_spec(&spec);
    let [a, b, c] = world.live("job").try_into().unwrap();
    let on = |instance, host| Placement {
        instance,
        host,
        ports: Ports::default(),
        devices: Vec::new(),
        cores: None,
    };
    let before = world.state.clone();
    let parted = vec![on(a, h1), on(b, h2)];
    let [doubled, unfit] = [vec![on(a, h1), on(b, h2), on(b, h2)], vec![on(a, h1), on(b, h2), on(c, h2)]];
    for refused in [parted, doubled, unfit] {
        let applied = world.apply(Command::Place(refused));
        assert_eq!(applied.outcome.result, Ok(Done::Instances(0)));
        assert!(applied.events.is_empty(), "nothing is told of what did not happen");
        let pending = |state: &State| state.pending().map(|instance| instance.id).collect::<Vec<_>>();
        assert_eq!(pending(&world.state), pending(&before));
        assert_eq!([h1, h2].map(|host| world.state.used(host).taken), [Amounts::default(); 2]);
        check(&world.state);
    }
    let h3 = world.register("h3");
    // Others in the entry are placed, or not, for themselves; a gang is in any order.
    world.apply_spec(&service("web", 1));
    let web = world.live("web")[0];
    let held = world.must(Command::Place(vec![on(web, h1), on(c, h1), on(a, h2), on(b, h3), on(web, h1)]));
    assert_eq!(held, Done::Instances(4));
    check(&world.state);
    let too_many = world.refused(Command::ScaleWorkload { key: spec.key(), count: 1_001 });
    assert!(matches!(&too_many, Rejection::Invalid(problems) if problems[0].path == "count"), "{too_many}");
}

#[test]
fn a_lost_host_can_be_removed_and_a_living_one_cannot() {
    let mut world = World::with_hosts(&["h1"]);
    let host = world.state.host_named("h1").unwrap().id;
    world.apply_spec(&service("web", 1));
    world.place_all(&[host]);
    let remove = || Command::RemoveHost { name: "h1".parse().unwrap() };
    assert!(matches!(world.refused(remove()), Rejection::Precondition(_)));
    judge(&mut world, host, HostState::Lost);
    assert_eq!(world.must(remove()), Done::Instances(1));
    assert_eq!(world.shape("web"), ["0:pending:run"]);
    assert!(world.state.host_named("h1").is_none());
    assert_ne!(world.register("h1"), host, "a number is never used again");
    check(&world.state);
}

#[test]
fn a_rollout_step_stops_old_instances_and_creates_successors() {
    let mut world = World::with_hosts(&["h1"]);
    let host = world.state.host_named("h1").unwrap().id;
    world.apply_spec(&service("web", 2));
    world.place_all(&[host]);
    let old = world.live("web");
    let mut changed = service("web", 2);
    changed.stop_grace = 1;
    world.apply_spec(&changed);
    assert_eq!(world.live("web"), old, "what runs waits for the rollout");
    let replace = |instances: Vec<_>| Command::Replace { instances, reason: "revision 2".to_owned() };
    assert_eq!(world.must(replace(vec![old[0]])), Done::Instances(1));
    assert_eq!(world.must(replace(vec![old[0]])), Done::Instances(0), "a repetition does nothing");
    let next = world.state.instance(world.live("web")[0]).unwrap();
    assert_eq!((next.revision(), next.replaces()), (2, Some(old[0])));
    check(&world.state);
}

#[test]
fn old_and_foreign_reports_change_nothing() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let [h1, h2] = ["h1", "h2"].map(|name| world.state.host_named(name).unwrap().id);
    world.apply_spec(&service("web", 1));
    world.place_all(&[h1]);
    let id = world.live("web")[0];
    world.report(id, InstanceState::Running);
    let mut late = world.clone();
    late.report_from(h2, id, InstanceState::Failed, 0);
    assert_eq!(late.shape("web"), ["0:running:run"], "another host has no say");
    assert_eq!(late.events.last().unwrap().kind, EventKind::InstanceUnrecognised);
    let before = Arc::clone(world.state.instance(id).unwrap());
    world.apply(Command::Report {
        host: h1,
        reports: vec![supercloud_proto::instance::InstanceReport {
            instance: id,
            sequence: before.report_sequence,
            order_index: 0,
            state: InstanceState::Failed,
            reason: String::new(),
            tasks: Vec::new(),
            time: 0,
            unordered: false,
        }],
    });
    assert_eq!(*world.state.instance(id).unwrap(), before, "a repeated sequence is passed over");
}

#[test]
fn a_new_installation_of_an_agent_is_heard_though_its_clock_stands_behind() {
    let mut world = World::with_hosts(&["h1"]);
    let h1 = world.state.host_named("h1").unwrap().id;
    world.apply_spec(&service("web", 1));
    world.place_all(&[h1]);
    let id = world.live("web")[0];
    world.sequence = 1_000_000;
    world.report(id, InstanceState::Running);
    let register = |incarnation: &str| Command::RegisterHost {
        name: "h1".parse().unwrap(),
        inventory: Arc::unwrap_or_clone(world.state.host(h1).unwrap().inventory.clone()).into(),
        incarnation: incarnation.to_owned(),
    };
    let (again, anew) = (register("inc-h1"), register("inc-anew"));
    let mut late = world.clone();
    late.must(again);
    late.sequence = 5;
    late.report(id, InstanceState::Failed);
    assert_eq!(late.shape("web"), ["0:running:run"], "the same installation never goes back");
    world.must(anew);
    world.sequence = 5;
    world.report(id, InstanceState::Restarting);
    assert_eq!(world.shape("web"), ["0:restarting:run"]);
    check(&world.state);
}

#[test]
fn restarts_are_told_once_each() {
    let mut world = World::with_hosts(&["h1"]);
    let host = world.state.host_named("h1").unwrap().id;
    world.apply_spec(&service("web", 1));
    world.place_all(&[host]);
    let id = world.live("web")[0];
    for restarts in [0, 1, 1, 2] {
        world.report_from(host, id, InstanceState::Running, restarts);
    }
    let told = world.events.iter().filter(|event| event.kind == EventKind::InstanceRestarted).count();
    assert_eq!(told, 2);
}

#[test]
fn a_batch_that_ended_well_keeps_its_slot_and_frees_its_host() {
    let mut world = World::with_hosts(&["h1"]);
    let host = world.state.host_named("h1").unwrap().id;
    let mut spec = service("job", 1);
    spec.kind = WorkloadKind::Batch;
    world.apply_spec(&spec);
    world.place_all(&[host]);
    world.report(world.live("job")[0], InstanceState::Completed);
    assert_eq!(world.shape("job"), ["0:completed:run"]);
    assert_eq!(world.state.used(host).taken.cpu.0, 0);
    judge(&mut world, host, HostState::Lost);
    assert_eq!(world.shape("job"), ["0:completed:run"], "what is done is not done again");
    check(&world.state);
}

#[test]
fn a_token_is_used_once_and_lapses() {
    let mut world = World::with_hosts(&[]);
    let create = |id: &str, expires| Command::CreateToken {
        id: id.to_owned(),
        secret_hash: vec![7; 32],
        grant: Grant::Scheduler,
        expires,
    };
    let using = |id: &str, hash: u8| Command::UseToken { id: id.to_owned(), secret_hash: vec![hash; 32] };
    world.must(create("t1", world.now + 10));
    assert!(matches!(world.refused(using("t1", 8)), Rejection::Denied(_)), "a wrong secret uses nothing up");
    assert_eq!(world.must(using("t1", 7)), Done::Granted(Grant::Scheduler));
    assert!(matches!(world.refused(using("t1", 7)), Rejection::Denied(_)));
    world.must(create("t2", world.now + 10));
    world.now += 10;
    assert!(matches!(world.refused(using("t2", 7)), Rejection::Denied(_)));
}

#[test]
fn what_happens_to_many_alike_is_told_once_with_all_of_them_in_it() {
    let mut world = World::with_hosts(&["h0", "h1", "h2"]);
    world.events.clear();
    world.apply_spec(&service("web", 20));
    assert_eq!(
        told(&world),
        ["workload-applied created with 20 instances", "instance-created 20 instances created"]
    );
    let (runs, first) = (world.events[1].runs.clone(), world.live("web")[0]);
    assert_eq!(runs, [Run { first, count: 20, host: None }]);

    let (ids, index) = (world.live("web"), world.state.applied() + 1);
    let placement = |(place, id): (usize, &InstanceId)| Placement {
        instance: *id,
        host: HostId([1, 2, 3][place / 8]),
        ports: Ports::default(),
        devices: Vec::new(),
        cores: None,
    };
    world.events.clear();
    world.must(Command::Place(ids.iter().enumerate().map(placement).collect()));
    assert_eq!(told(&world), ["instance-placed 20 instances placed on 3 hosts"]);
    let runs: Vec<(InstanceId, u32, &str)> = world.events[0]
        .runs
        .iter()
        .map(|run| (run.first, run.count, run.host.as_ref().unwrap().as_str()))
        .collect();
    assert_eq!(runs, [(ids[0], 8, "h0"), (ids[8], 8, "h1"), (ids[16], 4, "h2")]);
    assert_eq!((world.events[0].index, world.events[0].ordinal), (index, 0));

    world.events.clear();
    for id in &ids[..2] {
        world.report(*id, InstanceState::Running);
    }
    assert_eq!(told(&world), ["instance-state running: as seen"; 2], "a few are told one by one");
}

/// What was told, without who and when.
fn told(world: &World) -> Vec<String> {
    world.events.iter().map(|event| format!("{} {}", event.kind.as_str(), event.message)).collect()
}

#[test]
fn reports_of_many_hosts_in_one_entry_count_as_each_hosts_own() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    world.apply_spec(&service("web", 2));
    let ids = world.live("web");
    for (id, host) in ids.iter().zip([1, 2]) {
        assert!(world.place(*id, HostId(host)));
    }
    let seen = |host: u32, sequence, state| HostReports {
        host: HostId(host),
        reports: vec![InstanceReport {
            instance: ids[(host - 1) as usize % 2],
            sequence,
            order_index: 0,
            state,
            reason: String::new(),
            tasks: Vec::new(),
            time: 0,
            unordered: false,
        }],
    };
    let running = InstanceState::Running;
    let together = vec![seen(1, 7, running), seen(9, 7, running), seen(2, 7, running)];
    let entry = |command| Entry { time: 5, by: AGENTS.to_owned(), request_id: String::new(), command };
    let index = world.state.applied() + 1;
    let applied = world.state.apply(index, &entry(Command::ReportMany(together.clone())));
    assert_eq!(applied.outcome.result, Ok(Done::Nothing), "a host that is not known is passed over");
    let by: Vec<&str> = applied.events.iter().map(|event| event.by.as_str()).collect();
    assert_eq!(by, ["agent:h1", "agent:h2"]);
    assert_eq!(world.shape("web"), ["0:running:run", "1:running:run"]);

    let late = vec![seen(1, 6, InstanceState::Failed), seen(2, 7, InstanceState::Failed)];
    for repeated in [together, late] {
        let applied = world.state.apply(world.state.applied() + 1, &entry(Command::ReportMany(repeated)));
        assert!(applied.events.is_empty(), "neither a repetition nor what is older changes anything");
    }
    assert_eq!(world.shape("web"), ["0:running:run", "1:running:run"]);
    check(&world.state);
}
