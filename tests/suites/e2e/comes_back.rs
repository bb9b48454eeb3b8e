//! What ends behind our back comes back, counted, with its reason.

use std::time::Duration;

use serde_json::Value;
use supercloud_tests::{
    Outcome, World,
    cli::{number, task, text},
    docker, libvirt,
    specs::{RECORDS, WEB},
    wait::{SOON, timed, until},
    world::SMALL,
    wrong,
};

use crate::estate::Both;

/// "Within seconds", on a machine with busy neighbours: the first restart waits one second.
const BACK_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn docker_kill_back_within_seconds_counted_and_explained() -> Outcome {
    World::with(SMALL, |world| {
        let both = Both::start(world)?;
        docker::docker(&["kill", &both.container.id])?;
        let (back, took) = timed(|| {
            until("the container runs again", SOON, || {
                let now = docker::only_container(&world.cluster.id)?;
                if now.running && now.started != both.container.started {
                    Ok(now)
                } else {
                    wrong(format!("{now:?}"))
                }
            })
        });
        assert_eq!(back?.id, both.container.id, "the same container is started again");
        assert!(took < BACK_WITHIN, "back after {took:?}");
        let task = restarted(world, WEB)?;
        assert!(text(&task, "reason").contains("killed by signal 9"), "{task}");
        assert_eq!(task.get("exit_code").and_then(Value::as_i64), Some(137), "{task}");
        told(world, WEB)
    })
}

#[test]
fn a_vm_destroyed_behind_our_back_comes_back_counted_and_explained() -> Outcome {
    World::with(SMALL, |world| {
        let both = Both::start(world)?;
        libvirt::virsh(&["destroy", &both.domain.name])?;
        let (back, took) = timed(|| {
            until("the domain runs again", SOON, || {
                let now = libvirt::only_domain(&world.cluster.id)?;
                if now.state == "running" && now.run != both.domain.run {
                    Ok(now)
                } else {
                    wrong(format!("{now:?}"))
                }
            })
        });
        assert_eq!(back?.uuid, both.domain.uuid, "the same domain is started again");
        assert!(took < BACK_WITHIN, "back after {took:?}");
        let task = restarted(world, RECORDS)?;
        assert!(text(&task, "reason").contains("destroyed"), "{task}");
        told(world, RECORDS)
    })
}

/// The task of a workload, once its restart is counted and it runs.
fn restarted(world: &World, workload: &str) -> Outcome<Value> {
    until("one restart is counted", SOON, || {
        let instance = world.cluster.cli.running(workload)?;
        let task = task(&instance)?;
        if number(task, "restarts") == 1 { Ok(task.clone()) } else { wrong(instance.to_string()) }
    })
}

/// The restart is shown where people look: in the instance, and among the events.
fn told(world: &World, workload: &str) -> Outcome {
    let instance = world.cluster.cli.running(workload)?;
    let shown = world.cluster.cli.ok(&["instance", "show", text(&instance, "id")])?;
    assert!(shown.contains("restarts:"), "{shown}");
    until("the restart is an event", SOON, || {
        let events = world.cluster.cli.ok(&["event", "list", "--workload", workload])?;
        if events.contains("instance-restarted") { Ok(()) } else { wrong(events) }
    })
}
