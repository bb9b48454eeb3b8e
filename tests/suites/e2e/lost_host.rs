//! A host that falls silent is replaced, and one that comes back gives up what was replaced.

use std::time::Duration;

use supercloud_tests::{
    Outcome, World,
    cli::{Cli, number, text},
    docker, hold, page,
    specs::{self, WEB},
    wait::{LATER, until},
    world::Shape,
    wrong,
};

/// Lease and margin are 20 s together; a replacement starts within a few more.
const REPLACED_WITHIN: Duration = Duration::from_secs(45);

#[test]
fn an_instance_whose_host_is_lost_is_replaced_on_the_other_host() -> Outcome {
    World::with(Shape { nodes: 1, hosts: 2 }, |world| {
        world.cluster.cli.apply_and_wait(&specs::web(1))?;
        let before = world.cluster.cli.running(WEB)?;
        let old = docker::only_container(&world.cluster.id)?;
        let lost = world.agents.iter().position(|agent| agent.name == text(&before, "host"));
        let lost = lost.ok_or_else(|| supercloud_tests::Wrong(format!("on no host: {before}")))?;
        world.agents[lost].kill()?;

        let cli = world.cluster.cli.clone();
        let after = until("a replacement runs on the other host", REPLACED_WITHIN, || {
            let now = cli.running(WEB)?;
            let elsewhere = text(&now, "host") != text(&before, "host");
            if elsewhere { Ok(now) } else { wrong(now.to_string()) }
        })?;
        assert_ne!(text(&after, "id"), text(&before, "id"));
        assert_eq!(text(&after, "replaces"), text(&before, "id"));
        assert_eq!(world.agents[lost].state(&world.cluster)?, "lost");
        until("the replacement serves", LATER, || {
            let port = after.pointer("/ports/0").cloned().unwrap_or_default();
            page::fetch(text(&port, "address"), number(&port, "host_port")).map(drop)
        })?;
        // The agent is dead, so nobody has stopped the old one: that is what replacing on silence means.
        let found = docker::inspect(&old.id)?;
        hold(found.as_ref() == Some(&old), || format!("{found:?}"))?;

        world.agents[lost].run()?;
        world.agents[lost].await_ready(&world.cluster)?;
        until("the host that came back has given up the old one", LATER, || {
            let left = docker::only_container(&world.cluster.id)?;
            if left.id == old.id { wrong("the old one is left") } else { Ok(()) }
        })?;
        one_runs(&cli)
    })
}

fn one_runs(cli: &Cli) -> Outcome {
    let running = cli.running(WEB)?;
    hold(number(&running, "slot") == 0, || running.to_string())
}
