//! What is stopped leaves nothing, within its grace; the programs themselves end in order.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use supercloud_tests::{
    Outcome, World, docker, hold, libvirt,
    specs::{self, GREETING, RECORDS, WEB},
    wait::{LATER, SOON, until},
    world::SMALL,
};

use crate::estate::Both;

/// The web server's grace is 2 s and the VM's 10 s; then each has a few seconds to be removed in.
const WITHIN: Duration = Duration::from_secs(16);
/// "Within seconds": a SIGTERM is answered by an end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn stop_of_both_leaves_nothing_of_ours_within_the_grace_period() -> Outcome {
    World::with(SMALL, |world| {
        Both::start(world)?;
        let cli = &world.cluster.cli;
        // A guest that boots does not feel the power button yet.
        until("the guest has booted", LATER, || {
            let console = cli.ok(&["logs", RECORDS])?;
            hold(console.contains(GREETING), || console)
        })?;
        for workload in [WEB, RECORDS] {
            cli.ok(&["stop", workload])?;
        }
        until("nothing of ours is left", WITHIN, || nothing_is_left(world))?;
        for workload in [WEB, RECORDS] {
            cli.stop_and_wait(workload)?;
            assert_eq!(cli.instances(workload)?, Vec::<serde_json::Value>::new());
            // Stopped is not forgotten: a new apply brings it back.
            assert_eq!(supercloud_tests::cli::text(&cli.workload(workload)?, "state"), "stopped");
        }
        let disks = world.agents[0].data.join("vms");
        let left = fs::read_dir(&disks).map_or(0, Iterator::count);
        hold(left == 0, || format!("{left} folders are left in {}", disks.display()))
    })
}

#[test]
fn a_stopped_workload_comes_back_and_a_purged_one_is_forgotten() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::web(1))?;
        cli.stop_and_wait(WEB)?;
        cli.apply_and_wait(&specs::web(1))?;
        docker::only_container(&world.cluster.id)?;
        cli.ok(&["stop", WEB, "--purge", "--wait", "--timeout", "60s"])?;
        until("it is forgotten", SOON, || cli.run(&["workload", "show", WEB])?.with_code(1).map(drop))?;
        until("nothing of ours is left", SOON, || nothing_is_left(world))
    })
}

#[test]
fn sigterm_ends_agent_and_scheduler_with_0_and_the_workloads_go_on() -> Outcome {
    World::with(SMALL, |world| {
        let both = Both::start(world)?;
        let agent = world.agents[0].process()?.end_by(Signal::SIGTERM, ENDS_WITHIN)?;
        assert_eq!(agent.code(), Some(0), "{}", world.agents[0].tail());
        let node = world.cluster.nodes[0].process()?.end_by(Signal::SIGTERM, ENDS_WITHIN)?;
        assert_eq!(node.code(), Some(0), "{}", world.cluster.nodes[0].tail());
        both.must_go_on(world)?;
        world.cluster.nodes[0].start()?;
        world.agents[0].run()?;
        crate::agent_killed::must_answer_for(world)?;
        both.must_go_on(world)
    })
}

fn nothing_is_left(world: &World) -> Outcome {
    let id = &world.cluster.id;
    let (containers, domains, rest) =
        (docker::containers(id)?, libvirt::domains(id)?, docker::volumes_and_networks(id)?);
    hold(containers.is_empty() && domains.is_empty() && rest.is_empty(), || {
        format!("{containers:?} {domains:?} {rest:?}")
    })
}
