//! Cases of `reconcile`, each through one estate of one instance.

use std::sync::Arc;

use supercloud_proto::{
    cores::Cores,
    instance::InstanceState,
    spec::{DriverKind, WorkloadKind},
};

use super::{
    Doing, Sight, UNKNOWN_AFTER,
    history::{Outcome, Run},
    world::{World, batch, instance, service},
};
use crate::driver::Phase;

fn ended(exit_code: i32) -> Phase {
    Phase::Ended { exit_code: Some(exit_code), at: Some(5), reason: format!("exit code {exit_code}") }
}

#[test]
fn what_is_ordered_is_started_once_and_then_runs() {
    let mut world = World::new(vec![service(1)]);
    assert_eq!(world.step(), ["start i-1-0/main"]);
    assert_eq!(world.state(1), InstanceState::Preparing);
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Running);
    assert_eq!(world.restarts(1), 0);
}

#[test]
fn what_runs_already_is_adopted() {
    let mut world = World::new(vec![service(1)]);
    world.put(1, 1, Phase::Running { since: Some(3) });
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Running);
    assert_eq!(world.status(1).tasks[0].started, Some(3));
}

#[test]
fn an_end_is_counted_once_and_waited_for_and_its_reason_is_told() {
    let mut world = World::new(vec![service(1)]);
    world.settle();
    world.put(1, 1, Phase::Ended { exit_code: Some(137), at: Some(9), reason: "killed by signal 9".into() });
    assert_eq!(world.step(), [""; 0], "the policy asks for a delay of 1 s");
    assert_eq!(world.state(1), InstanceState::Restarting);
    assert_eq!(world.status(1).reason, "main: killed by signal 9; restart 1 of 3");
    assert_eq!(world.plan().wake_in, Some(1000));
    world.advance(1000);
    assert_eq!(world.step(), ["start i-1-0/main"]);
    world.step();
    assert_eq!(world.state(1), InstanceState::Running);
    let task = &world.status(1).tasks[0];
    assert_eq!((task.restarts, task.exit_code, task.reason.as_str()), (1, Some(137), "killed by signal 9"));
}

#[test]
fn restarts_used_up_are_failed_for_good_and_the_object_stays() {
    let mut world = World::new(vec![service(1)]);
    world.settle();
    for expected_wait in [1000, 2000, 4000] {
        world.put(1, 1, ended(1));
        world.step();
        assert_eq!(world.plan().wake_in, Some(expected_wait));
        world.settle();
    }
    world.put(1, 1, ended(1));
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Failed);
    world.advance(100_000_000);
    assert_eq!(world.step(), [""; 0], "failed is final, also when the window has passed");
    assert!(world.object(1).is_some(), "kept for its logs");
    world.order_stop(1);
    assert_eq!(world.settle(), ["remove i-1-0"]);
    assert_eq!(world.state(1), InstanceState::Stopped);
}

#[test]
fn a_batch_that_ended_well_is_completed_and_not_restarted_even_when_its_object_goes() {
    let mut world = World::new(vec![batch(1)]);
    world.settle();
    world.put(1, 1, ended(0));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Completed);
    world.take(1);
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Completed);
}

#[test]
fn a_service_that_ended_well_is_restarted() {
    let mut world = World::new(vec![service(1)]);
    world.settle();
    world.put(1, 1, ended(0));
    assert_eq!(world.settle(), ["start i-1-0/main"]);
}

#[test]
fn a_stop_order_stops_then_removes_then_says_so() {
    let mut world = World::new(vec![service(1)]);
    world.settle();
    world.order_stop(1);
    assert_eq!(world.step(), ["stop i-1-0 grace 10000"]);
    assert_eq!(world.state(1), InstanceState::Stopping);
    assert_eq!(world.step(), ["remove i-1-0"]);
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Stopped);
}

#[test]
fn a_stop_order_breaks_off_a_preparation() {
    let mut world = World::new(vec![service(1)]);
    world.in_flight.insert(instance(1), Doing::Preparing);
    world.order_stop(1);
    assert_eq!(world.plan().cancels, [instance(1)]);
    assert!(world.plan().actions.is_empty());
}

#[test]
fn a_silent_driver_means_unknown_never_dead_or_stopped() {
    for stop in [false, true] {
        let mut world = World::new(vec![service(1)]);
        world.settle();
        if stop {
            world.order_stop(1);
        }
        world.silence(DriverKind::Docker);
        assert_eq!(world.step(), [""; 0]);
        assert!(!world.plan().states.contains_key(&instance(1)), "what was said holds at first");
        world.advance(UNKNOWN_AFTER);
        assert_eq!(world.step(), [""; 0]);
        assert_eq!(world.state(1), InstanceState::Unknown);
    }
}

#[test]
fn a_completed_instance_does_not_become_unknown() {
    let mut world = World::new(vec![batch(1)]);
    world.settle();
    world.put(1, 1, ended(0));
    world.settle();
    world.silence(DriverKind::Docker);
    world.advance(UNKNOWN_AFTER);
    world.step();
    assert_eq!(world.state(1), InstanceState::Completed);
}

#[test]
fn what_nobody_ordered_is_left_alone_and_told() {
    let mut world = World::new(vec![]);
    world.put(7, 1, Phase::Running { since: None });
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.state(7), InstanceState::Running);
    assert!(world.status(7).unordered);
}

#[test]
fn an_order_older_than_the_object_is_not_obeyed() {
    let mut world = World::new(vec![service(1)]);
    world.order_stop(1);
    world.put(1, 1_000_000, Phase::Running { since: None });
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Running);
}

#[test]
fn a_container_removed_behind_the_agents_back_is_made_again_and_counted() {
    let mut world = World::new(vec![service(1)]);
    world.settle();
    world.take(1);
    assert_eq!(world.settle(), ["start i-1-0/main"]);
    assert_eq!(world.restarts(1), 1);
    assert!(world.status(1).reason.contains("behind the agent's back"), "{}", world.status(1).reason);
}

#[test]
fn an_exclusive_instance_stops_with_its_lease_and_comes_back_with_it_uncounted() {
    let mut order = service(1);
    order.exclusive = true;
    let mut world = World::new(vec![order]);
    world.settle();
    assert_eq!(world.plan().wake_in, Some(world.lease.until - world.now.boot), "the loop must not oversleep");
    world.advance(world.lease.until - world.now.boot);
    assert_eq!(world.step(), ["stop i-1-0 grace 5000"]);
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Restarting);
    world.lease = world.lease.renewed(world.now.boot, 30_000);
    assert_eq!(world.step(), ["start i-1-0/main"]);
    world.step();
    assert_eq!((world.state(1), world.restarts(1)), (InstanceState::Running, 0));
}

#[test]
fn an_assumed_lease_lets_run_and_starts_nothing() {
    let mut order = service(1);
    order.exclusive = true;
    let mut world = World::new(vec![order]);
    world.lease.confirmed = false;
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Placed);
    world.put(1, 1, Phase::Running { since: None });
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Running);
}

#[test]
fn a_refused_start_counts_as_an_attempt_and_ends_in_failed() {
    let mut world = World::new(vec![service(1)]);
    world.refuse = Some("image absent:1 is not here and could not be pulled".to_owned());
    assert_eq!(world.settle(), ["start i-1-0/main"; 4], "the first start and three restarts");
    assert_eq!(world.state(1), InstanceState::Failed);
    assert_eq!(world.status(1).reason, "main: image absent:1 is not here and could not be pulled");
    assert_eq!(world.restarts(1), 3);
}

#[test]
fn when_one_task_is_given_up_its_siblings_are_stopped_and_kept() {
    let mut order = service(1);
    order.restart.attempts = 0;
    let mut second = order.tasks[0].clone();
    second.name = "side".parse().expect("a name");
    order.tasks.push(second);
    let mut world = World::new(vec![order]);
    assert_eq!(world.settle(), ["start i-1-0/main", "start i-1-0/side"]);
    world.put(1, 1, ended(2));
    assert_eq!(world.settle(), ["stop i-1-0 grace 10000"]);
    assert_eq!(world.state(1), InstanceState::Failed);
    assert_eq!(world.objects.len(), 2, "both are kept for their logs");
}

#[test]
fn nothing_new_begins_before_the_agent_may() {
    let mut world = World::new(vec![service(1)]);
    world.may_begin = false;
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Placed);
}

#[test]
fn a_driver_that_this_host_has_not_is_a_failure_with_a_reason() {
    let mut world = World::new(vec![service(1)]);
    world.sights.remove(&DriverKind::Docker);
    assert_eq!(world.step(), [""; 0]);
    assert_eq!(world.state(1), InstanceState::Failed);
    assert_eq!(world.status(1).reason, "main: this host's agent has no driver for docker");
}

#[test]
fn a_clock_that_goes_back_does_not_lengthen_the_wait() {
    let mut world = World::new(vec![service(1)]);
    world.settle();
    world.put(1, 1, ended(1));
    world.step();
    world.now.unix -= 3_000_000;
    assert_eq!(world.step(), ["start i-1-0/main"]);
}

#[test]
fn histories_tell_runs_and_outcomes() {
    let mut world = World::new(vec![batch(1)]);
    assert_eq!(world.orders[&instance(1)].kind, WorkloadKind::Batch);
    world.settle();
    assert_eq!(world.history(1).run, Run::Open);
    world.put(1, 1, ended(0));
    world.settle();
    assert_eq!(world.history(1).outcome, Some(Outcome::Completed));
    let Some(Sight::Seen(seen)) = world.sights.get(&DriverKind::Docker) else { panic!("silent") };
    assert_eq!(seen.len(), 1);
}

#[test]
fn whoever_has_cores_is_alone_on_them_until_he_is_gone() {
    let mut world = World::new(vec![service(1), service(2)]);
    world.settle();
    assert_eq!(world.object(1).unwrap().cpus, None, "a host on which nobody has cores is left as it is");
    let mut own = service(3);
    own.cores = Some(Cores { cpus: [2, 3].into(), node: None });
    world.orders.insert(own.instance, Arc::new(own));
    let done = world.step();
    assert_eq!(done, ["pin i-1-0 to 0-1,4-7", "pin i-2-0 to 0-1,4-7", "start i-3-0/main"]);
    assert_eq!(world.object(3).unwrap().cpus, Some(vec![2, 3]));
    assert_eq!(world.step(), [""; 0]);
    // The agent ended in between: one was put right, one was not, and one runs where somebody else put it.
    world.move_to(2, None);
    world.move_to(3, Some(vec![2]));
    assert_eq!(world.step(), ["pin i-2-0 to 0-1,4-7", "pin i-3-0 to 2-3"]);
    world.order_stop(3);
    assert_eq!(world.step(), ["stop i-3-0 grace 10000"]);
    let done = world.settle();
    assert_eq!(done, ["pin i-1-0 to 0-7", "pin i-2-0 to 0-7", "remove i-3-0"]);
}

#[test]
fn a_completed_batch_holds_no_cores() {
    let mut own = batch(1);
    own.cores = Some(Cores { cpus: [2, 3].into(), node: None });
    let mut world = World::new(vec![own, service(2)]);
    world.settle();
    assert_eq!(world.object(2).unwrap().cpus, Some(vec![0, 1, 4, 5, 6, 7]));
    world.put(1, 10, ended(0));
    assert_eq!(world.settle(), ["pin i-2-0 to 0-7"]);
    assert_eq!(world.state(1), InstanceState::Completed);
}

#[test]
fn cores_are_free_while_what_had_them_is_cleared_away() {
    let mut own = service(1);
    own.cores = Some(Cores { cpus: [2, 3].into(), node: None });
    let mut world = World::new(vec![own, service(2)]);
    world.settle();
    world.order_stop(1);
    assert_eq!(world.step(), ["stop i-1-0 grace 10000"]);
    world.in_flight.insert(instance(1), Doing::Removing);
    assert_eq!(world.step(), ["pin i-2-0 to 0-7"], "nobody is told one thing and then another");
    assert_eq!(world.step(), [""; 0]);
}
