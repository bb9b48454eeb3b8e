//! The scheduler's death stops no workload, and what it acknowledged is there again.

use std::time::Duration;

use supercloud_tests::{
    Outcome, World,
    cli::{items, text},
    docker, hold,
    specs::{self, RECORDS, WEB},
    wait::{LATER, until},
    world::{BOROUGHS, Shape},
};

use crate::estate::{Both, must_be_known};

/// Within this time `supercloud status` answers after the leader was killed.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// How often the leader is killed, until an answer came in time.
const KILLS: usize = 3;

fn kill_the_leader(world: &mut World) -> Outcome<usize> {
    let leader = world.cluster.leader()?;
    world.cluster.nodes[leader].kill()?;
    Ok(leader)
}

#[test]
fn kill_9_of_the_leader_is_answered_within_two_seconds_and_an_apply_succeeds() -> Outcome {
    World::with(Shape { nodes: 3, hosts: 1 }, |world| {
        world.cluster.cli.apply_and_wait(&specs::web(1))?;
        let before = docker::only_container(&world.cluster.id)?;
        let mut leader = kill_the_leader(world)?;
        let mut status = world.cluster.cli.run(&["status"])?.with_code(0)?;
        // A vote that is split, or a disk that is slow just then, costs time and says nothing of the next one.
        for _ in 1..KILLS {
            if status.took < STATUS_WITHIN {
                break;
            }
            world.cluster.nodes[leader].start()?;
            world.cluster.leader()?;
            leader = kill_the_leader(world)?;
            status = world.cluster.cli.run(&["status"])?.with_code(0)?;
        }
        assert!(status.took < STATUS_WITHIN, "{status}");
        assert!(status.stdout.contains(WEB), "{status}");
        world.cluster.cli.apply_and_wait(&specs::script("second", "service", "exec sleep 1000"))?;

        let containers = docker::containers(&world.cluster.id)?;
        assert_eq!(containers.len(), 2, "{containers:?}");
        assert!(containers.contains(&before), "expected {before:?} among {containers:?}");
        // The killed node comes back and agrees on who leads.
        world.cluster.nodes[leader].start()?;
        world.cluster.leader()?;
        Ok(())
    })
}

#[test]
fn kill_9_of_all_three_and_a_restart_everything_is_there_again() -> Outcome {
    World::with(Shape { nodes: 3, hosts: 1 }, |world| {
        let both = Both::start(world)?;
        let instances = [world.cluster.cli.instance(WEB)?, world.cluster.cli.instance(RECORDS)?];
        for node in &mut world.cluster.nodes {
            node.kill()?;
        }
        both.must_go_on(world)?;
        let nobody = world.cluster.cli.run(&["status"])?.with_code(3)?;
        assert!(nobody.stderr.contains("no scheduler could be reached"), "{nobody}");
        for node in &mut world.cluster.nodes {
            node.start()?;
        }

        let cli = &world.cluster.cli;
        until("both workloads are known to run", LATER, || must_be_known(world, &both))?;
        let again = [cli.instance(WEB)?, cli.instance(RECORDS)?];
        for (before, after) in instances.iter().zip(&again) {
            assert_eq!(text(before, "id"), text(after, "id"));
        }
        let boroughs = cli.json(&["borough", "list"])?;
        let names: Vec<&str> = items(&boroughs)?.iter().map(|one| text(one, "name")).collect();
        assert_eq!(names, BOROUGHS);
        both.must_go_on(world)?;
        // And the way round works as before, through the agent's old process.
        cli.ok(&["workload", "scale", WEB, "2", "--wait", "--timeout", "60s"])?;
        let containers = docker::containers(&world.cluster.id)?;
        hold(containers.len() == 2 && containers.contains(&both.container), || format!("{containers:?}"))
    })
}
