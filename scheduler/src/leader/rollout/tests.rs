//! Cases of the rollout's rule: each is a line of old and new instances and what the next step replaces.

use supercloud_proto::{
    instance::InstanceState::{self, Completed, Failed, Placed, Preparing, Restarting, Running, Unknown},
    spec::{Driver, WorkloadKind, WorkloadSpec},
};

use super::*;
use crate::state::tests::world::{World, key, service};
use crate::state::{Command, Done};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// A world where each slot of `portal` is in one of these states, and revision 2 has been applied since.
fn world(states: &[InstanceState], spec: impl Fn(&mut WorkloadSpec)) -> World {
    let mut world = World::with_hosts(&HOSTS);
    let mut first = service("portal", states.len() as u32);
    spec(&mut first);
    world.apply_spec(&first);
    place(&mut world);
    for (id, state) in world.live("portal").into_iter().zip(states) {
        if *state != Placed {
            world.report(id, *state);
        }
    }
    apply_next(&mut world, first);
    world
}

fn apply_next(world: &mut World, mut spec: WorkloadSpec) {
    if let Driver::Container(container) = &mut spec.tasks[0].driver {
        container.image = format!("{}1", container.image);
    }
    world.apply_spec(&spec);
}

fn place(world: &mut World) {
    let hosts: Vec<_> = world.state.hosts().keys().copied().collect();
    world.place_all(&hosts);
}

/// The slots that the next step replaces.
fn slots(world: &World) -> Vec<u32> {
    let steps = next(&world.state, [&key("portal")], world.now);
    let ids = steps.into_iter().flat_map(|(_, instances)| instances);
    ids.filter_map(|id| world.state.instance(id)).map(|instance| instance.slot).collect()
}

#[track_caller]
fn check(states: &[InstanceState], max_unavailable: u32, expected: &[u32]) {
    let world = world(states, |spec| spec.update.max_unavailable = max_unavailable);
    assert_eq!(slots(&world), expected, "{states:?} with {max_unavailable}");
}

#[test]
fn running_ones_go_as_far_as_the_budget_reaches() {
    check(&[Running, Running, Running], 1, &[0]);
    check(&[Running, Running, Running], 2, &[0, 1]);
    check(&[Running, Running, Running], 9, &[0, 1, 2]);
    check(&[Running], 0, &[0]);
}

#[test]
fn a_gang_is_replaced_in_one_step() {
    let mut world = World::with_hosts(&HOSTS);
    let mut first = service("portal", 3);
    first.place.all_or_none = true;
    world.apply_spec(&first);
    assert!(world.place_with_all(world.live("portal")[0], 0));
    apply_next(&mut world, first);
    assert_eq!(slots(&world), [0, 1, 2], "whatever may be missing");
}

#[test]
fn what_is_missing_anyway_goes_first_and_takes_the_budget() {
    check(&[Running, Placed, Running], 1, &[1]);
    check(&[Running, Placed, Running], 2, &[1, 0]);
    check(&[Restarting, Preparing, Running, Running], 1, &[0, 1]);
    check(&[Placed, Placed, Placed], 1, &[0, 1, 2]);
}

#[test]
fn what_may_serve_is_replaced_under_a_budget_and_blocks_nothing() {
    check(&[Unknown, Unknown, Unknown], 1, &[0]);
    check(&[Unknown, Running, Running], 1, &[0]);
    check(&[Unknown, Running, Placed], 1, &[2]);
    check(&[Unknown, Running, Running], 2, &[0, 1]);
}

#[test]
fn a_revision_that_does_not_start_stops_the_rollout() {
    let mut world = world(&[Running, Running, Running], |_| {});
    replace(&mut world);
    assert_eq!(slots(&world), [] as [u32; 0], "the successor is not there yet");
    place(&mut world);
    let successor = world.live("portal")[0];
    world.report(successor, Failed);
    assert_eq!(slots(&world), [] as [u32; 0]);
    assert!(is_under_way(&world.state, &key("portal")));
}

#[test]
fn a_rollout_ends_with_all_of_the_new_revision_and_never_misses_more_than_it_may() {
    let mut world = world(&[Running; 5], |spec| spec.update.max_unavailable = 2);
    let mut steps = 0;
    while is_under_way(&world.state, &key("portal")) {
        replace(&mut world);
        let running = world
            .live("portal")
            .into_iter()
            .filter(|id| world.state.instance(*id).is_some_and(|instance| instance.state == Running));
        assert!(running.count() >= 3, "after step {steps}: {:?}", world.shape("portal"));
        place(&mut world);
        for id in world.live("portal") {
            world.report(id, Running);
        }
        steps += 1;
        assert!(steps <= 5, "the rollout does not end: {:?}", world.shape("portal"));
    }
    assert_eq!(steps, 3);
    assert!(world.live("portal").iter().all(|id| world.state.instance(*id).unwrap().revision() == 2));
}

#[test]
fn completed_batches_are_done_in_the_new_revision_and_free_in_the_old() {
    let mut world = world(&[Completed, Running, Running], |spec| spec.kind = WorkloadKind::Batch);
    assert_eq!(slots(&world), [0], "replacing it costs nothing; the others have to wait for its successor");
    replace(&mut world);
    place(&mut world);
    assert_eq!(slots(&world), [] as [u32; 0]);
    let successor = world.live("portal")[0];
    world.report(successor, Completed);
    assert_eq!(slots(&world), [1], "a completed one is not missing");
}

#[test]
fn a_new_instance_counts_once_it_has_been_well_for_long_enough() {
    let mut world = world(&[Running, Running], |spec| spec.update.healthy_for = 5_000);
    replace(&mut world);
    place(&mut world);
    let successor = world.live("portal")[0];
    world.report(successor, Running);
    assert_eq!(slots(&world), [] as [u32; 0]);
    world.now += 5_000;
    assert_eq!(slots(&world), [1]);
}

#[test]
fn nothing_is_replaced_without_an_older_revision_or_a_wish() {
    let mut world = World::with_hosts(&HOSTS);
    world.apply_spec(&service("portal", 2));
    place(&mut world);
    assert_eq!(slots(&world), [] as [u32; 0]);
    assert!(!is_under_way(&world.state, &key("portal")));
    apply_next(&mut world, service("portal", 2));
    world.must(Command::StopWorkload { key: key("portal"), purge: false });
    assert_eq!(slots(&world), [] as [u32; 0]);
    assert_eq!(next(&world.state, [&key("elsewhere")], 0), []);
}

/// Does the next step.
fn replace(world: &mut World) {
    for (_, instances) in next(&world.state, [&key("portal")], world.now) {
        let count = instances.len() as u32;
        let done = world.must(Command::Replace { instances, reason: "a step".to_owned() });
        assert_eq!(done, Done::Instances(count), "apply agrees with the step");
    }
}
