//! An agent that dies takes nothing with it, and one that starts adopts what runs.

use std::time::Duration;

use supercloud_tests::{
    Outcome, World, docker,
    specs::{RECORDS, WEB},
    wait::{LATER, SOON, throughout, until},
    world::SMALL,
    wrong,
};

use crate::estate::{Both, must_be_known};

/// How long things are watched in which nothing may happen.
const A_WHILE: Duration = Duration::from_secs(3);

#[test]
fn kill_9_of_the_agent_container_and_vm_go_on_and_are_adopted() -> Outcome {
    World::with(SMALL, |world| {
        let both = Both::start(world)?;
        world.agents[0].kill()?;
        throughout("container and VM go on", A_WHILE, || both.must_go_on(world))?;
        world.agents[0].run()?;
        must_answer_for(world)?;
        must_be_known(world, &both)?;
        throughout("nothing is doubled or started anew", A_WHILE, || both.must_go_on(world))
    })
}

#[test]
fn a_container_that_ends_while_no_agent_runs_comes_back_with_the_agent() -> Outcome {
    World::with(SMALL, |world| {
        let both = Both::start(world)?;
        world.agents[0].kill()?;
        docker::docker(&["kill", &both.container.id])?;
        world.agents[0].run()?;
        until("the container runs again", LATER, || {
            let now = docker::only_container(&world.cluster.id)?;
            if now.running { Ok(()) } else { wrong(format!("{now:?}")) }
        })?;
        until("the end was counted once", SOON, || {
            let instance = world.cluster.cli.running(WEB)?;
            let restarts = supercloud_tests::cli::number(supercloud_tests::cli::task(&instance)?, "restarts");
            if restarts == 1 { Ok(()) } else { wrong(instance.to_string()) }
        })
    })
}

/// Waits until the agent's new process answers for both: what it streams comes from the objects that run.
pub(crate) fn must_answer_for(world: &World) -> Outcome {
    let cli = &world.cluster.cli;
    until("the agent answers for the container", LATER, || cli.ok(&["exec", WEB, "true"]).map(drop))?;
    until("the agent answers for the VM", LATER, || {
        let console = cli.ok(&["logs", RECORDS])?;
        if console.contains(supercloud_tests::specs::GREETING) { Ok(()) } else { wrong(console) }
    })
}
