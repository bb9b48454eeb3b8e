//! A lost or damaged ledger costs the agent its memory and the workloads nothing.

use std::{
    fs::{self, OpenOptions},
    time::Duration,
};

use supercloud_tests::{
    Outcome, World,
    agent::Agent,
    docker, hold,
    specs::WEB,
    wait::{LATER, throughout, until},
    world::SMALL,
};

use crate::{
    agent_killed::must_answer_for,
    estate::{Both, must_be_known},
};

/// How long things are watched in which nothing may happen.
const A_WHILE: Duration = Duration::from_secs(3);

#[test]
fn with_its_ledger_deleted_the_agent_adopts_and_destroys_nothing() -> Outcome {
    adopts_after(|agent| Ok(fs::remove_dir_all(agent.ledger())?))
}

#[test]
fn with_its_ledger_truncated_the_agent_adopts_and_destroys_nothing() -> Outcome {
    adopts_after(|agent| {
        let files = agent.ledger_files()?;
        hold(!files.is_empty(), || "there is no ledger to truncate".to_owned())?;
        for file in files {
            let length = fs::metadata(&file)?.len();
            OpenOptions::new().write(true).open(&file)?.set_len(length / 2)?;
        }
        Ok(())
    })
}

#[test]
fn with_its_ledger_filled_with_garbage_the_agent_adopts_and_destroys_nothing() -> Outcome {
    adopts_after(|agent| {
        let files = agent.ledger_files()?;
        hold(!files.is_empty(), || "there is no ledger to damage".to_owned())?;
        for file in files {
            let length = usize::try_from(fs::metadata(&file)?.len())?;
            let garbage: Vec<u8> =
                (0..length.max(64)).map(|at| u8::try_from(at * 151 % 251).unwrap_or(7)).collect();
            fs::write(&file, garbage)?;
        }
        Ok(())
    })
}

/// Kills the agent, damages its ledger, starts it, and holds that both go on under it as if nothing had been.
fn adopts_after(damage: impl FnOnce(&Agent) -> Outcome) -> Outcome {
    World::with(SMALL, |world| {
        let both = Both::start(world)?;
        world.agents[0].kill()?;
        damage(&world.agents[0])?;
        world.agents[0].run()?;
        must_answer_for(world)?;
        throughout("both go on", A_WHILE, || both.must_go_on(world))?;
        until("the scheduler knows both", LATER, || must_be_known(world, &both))?;
        // The agent acts on orders again, and what it adopted stays beside what it starts.
        let cli = &world.cluster.cli;
        cli.ok(&["workload", "scale", WEB, "2", "--wait", "--timeout", "60s"])?;
        let containers = docker::containers(&world.cluster.id)?;
        hold(containers.len() == 2 && containers.contains(&both.container), || format!("{containers:?}"))?;
        // And it stops what it adopted, when told to.
        cli.stop_and_wait(WEB)?;
        cli.stop_and_wait(supercloud_tests::specs::RECORDS)?;
        hold(docker::containers(&world.cluster.id)?.is_empty(), || "a container is left".to_owned())
    })
}
