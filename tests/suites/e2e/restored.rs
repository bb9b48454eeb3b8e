//! Everything of the scheduler is lost but a saved state and the authority's file: the cluster goes on, and what runs is adopted.

use std::fs;

use supercloud_tests::{
    Outcome, World, docker, hold, specs,
    wait::{LATER, until},
    world::SMALL,
    wrong,
};

#[test]
fn a_cluster_that_is_gone_goes_on_from_a_saved_state_and_its_containers_are_adopted() -> Outcome {
    World::with(SMALL, |world| {
        world.cluster.cli.apply_and_wait(&specs::web(2))?;
        let (file, authority) = (world.file("state.saved"), world.file("ca.pem"));
        let text = file.to_string_lossy().into_owned();
        world.cluster.cli.ok(&["scheduler", "snapshot", "save", &text])?;
        fs::copy(world.cluster.nodes[0].place.data.join("ca.pem"), &authority)?;
        // What is ordered later is not in the file. The agent obeys it all the same, and its container stays.
        world.cluster.cli.apply_and_wait(&specs::web(3))?;
        let all = docker::containers(&world.cluster.id)?;
        hold(all.len() == 3, || format!("{all:?}"))?;

        let node = &mut world.cluster.nodes[0];
        node.kill()?;
        fs::remove_dir_all(&node.place.data)?;
        node.prepare("restore", &["--from", &text, "--authority", &authority.to_string_lossy()])?;
        node.start()?;

        until("the agent is back, and tells what it has no order for", LATER, || {
            let events = world.cluster.cli.ok(&["event", "list"])?;
            if events.contains("instance-unrecognised") { Ok(()) } else { wrong(events) }
        })?;
        let shown = world.cluster.cli.ok(&["status", specs::WEB])?;
        hold(shown.contains("2 of 2 running"), || shown)?;
        let after = docker::containers(&world.cluster.id)?;
        hold(after == all, || format!("{all:?} became {after:?}"))?;
        // And the way round works: a new one gets an id that the old cluster never gave, and the agent obeys.
        world.cluster.cli.ok(&["workload", "scale", specs::WEB, "3", "--wait", "--timeout", "60s"])?;
        let more = docker::containers(&world.cluster.id)?;
        hold(more.len() == 4 && all.iter().all(|one| more.contains(one)), || {
            format!("{all:?} became {more:?}")
        })
    })
}
