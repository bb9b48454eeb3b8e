//! What is more urgent displaces what is less, whose borough it may be: the displaced container is told, has its grace, and comes back once there is room.

use supercloud_tests::{
    Outcome, World,
    cli::{Cli, items, text},
    docker, hold,
    specs::script,
    wait::{SOON, until},
    world::SMALL,
};

/// Two of these are more than the one core that a host offers.
const CPU: &str = "cpu: 700m";
/// Ends by itself when it is told to, well within its grace, and says so first.
const ORDERLY: &str =
    "trap 'echo told; sleep 1; echo ended; exit 0' TERM; echo begun; while true; do sleep 0.1; done";

fn asking(borough: &str, workload: &str, priority: u32) -> String {
    script(workload, "service", ORDERLY)
        .replace("borough: camden", &format!("borough: {borough}\npriority: {priority}"))
        .replace("stop_grace: 1s", "stop_grace: 20s")
        .replace("cpu: 50m", CPU)
}

/// The one container of a workload that runs.
fn only_runs(world: &World, workload: &str) -> Outcome {
    let running: Vec<_> =
        docker::containers(&world.cluster.id)?.into_iter().filter(|container| container.running).collect();
    hold(running.len() == 1 && running[0].label("workload") == workload, || format!("{running:?}"))
}

fn waits(cli: &Cli, workload: &str, because: &str) -> Outcome {
    let instance = cli.instance(workload)?;
    let told = cli.json(&["explain", workload])?;
    let told = items(&told)?.iter().any(|one| text(one, "summary").contains(because));
    hold(text(&instance, "state") == "pending" && told, || format!("{instance}"))
}

#[test]
fn an_urgent_container_displaces_one_of_another_borough_that_comes_back_after_it() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.ok(&["borough", "create", "brent"])?;
        cli.apply_and_wait(&asking("brent", "batch-like", 20))?;
        let displaced = cli.running("brent/batch-like")?;
        let id = text(&displaced, "id");
        let logs = world.file("displaced.log");
        let following = cli.follow(&["logs", id, "--follow"], &logs)?;
        until("it has begun", SOON, || {
            let written = following.written()?;
            hold(written.contains("begun"), || written)
        })?;

        cli.apply_and_wait(&asking("camden", "urgent", 80))?;
        until("the urgent one runs alone", SOON, || only_runs(world, "urgent"))?;
        until("it was told, and had its grace", SOON, || {
            let written = following.written()?;
            hold(written.contains("told") && written.contains("ended"), || written)
        })?;
        let events = cli.json(&["event", "list", "--workload", "brent/batch-like"])?;
        let reasons: Vec<&str> = items(&events)?.iter().map(|event| text(event, "message")).collect();
        let told = reasons.iter().any(|reason| reason.contains("makes way for more urgent work"));
        assert!(told, "{events}");
        until("its successor is told why it waits", SOON, || waits(cli, "brent/batch-like", "cpu"))?;

        // As urgent is not more urgent: nobody is displaced in a circle.
        cli.apply(&asking("brent", "as-urgent", 80))?;
        until("it waits", SOON, || waits(cli, "brent/as-urgent", "cpu"))?;
        only_runs(world, "urgent")?;
        cli.stop_and_wait("brent/as-urgent")?;

        cli.stop_and_wait("camden/urgent")?;
        until("what was displaced is back", SOON, || cli.running("brent/batch-like").map(drop))?;
        only_runs(world, "batch-like")?;
        a_gang_displaces_it_for_both(world, cli)
    })
}

/// Beside what runs there is no room for one of two that are placed at once or not at all, and without it for both.
fn a_gang_displaces_it_for_both(world: &World, cli: &Cli) -> Outcome {
    let gang = asking("camden", "ring", 80).replace(CPU, "cpu: 450m");
    cli.apply_and_wait(&format!("{gang}count: 2\nplace: {{ all_or_none: true }}\n"))?;
    until("both run, and nobody else", SOON, || {
        let all = docker::containers(&world.cluster.id)?;
        let running: Vec<_> = all.into_iter().filter(|container| container.running).collect();
        let are_of_gang = running.iter().all(|container| container.label("workload") == "ring");
        hold(running.len() == 2 && are_of_gang, || format!("{running:?}"))
    })?;
    let events = cli.json(&["event", "list", "--workload", "camden/ring"])?;
    let of = |kind: &str| -> Outcome<Vec<String>> {
        let events = items(&events)?.iter().filter(|event| text(event, "kind") == kind);
        Ok(events.map(|event| text(event, "message").to_owned()).collect())
    };
    assert_eq!(of("instance-awaiting")?.len(), 2, "each of it was kept room: {events}");
    assert!(
        of("instance-awaiting")?.iter().all(|told| told.contains("waits with its gang, for which 1 stop"))
    );
    assert_eq!(of("instance-placed")?.len(), 2, "{events}");
    cli.stop_and_wait("camden/ring")?;
    until("it is back again", SOON, || cli.running("brent/batch-like").map(drop))
}
