//! Nodes that end in order, and a minority that cannot decide.

use std::time::Duration;

use nix::sys::signal::Signal;
use supercloud_tests::{
    Outcome, World, Wrong, hold,
    wait::{SOON, until},
    world::Shape,
};

/// "Within seconds".
const ENDS_WITHIN: Duration = Duration::from_secs(10);
const THREE: Shape = Shape { nodes: 3, hosts: 0 };

#[test]
fn sigterm_ends_each_node_with_0_and_the_cluster_comes_back() -> Outcome {
    World::with(THREE, |world| {
        for node in &mut world.cluster.nodes {
            let status = node.process()?.end_by(Signal::SIGTERM, ENDS_WITHIN)?;
            assert_eq!(status.code(), Some(0), "{}", node.tail());
        }
        for node in &mut world.cluster.nodes {
            node.start()?;
        }
        world.cluster.leader()?;
        let boroughs = world.cluster.cli.ok(&["borough", "list", "-o", "name"])?;
        hold(boroughs.lines().count() == supercloud_tests::world::BOROUGHS.len(), || boroughs)
    })
}

#[test]
fn a_minority_refuses_writes_and_reads_but_tells_what_it_has_when_asked_for_that() -> Outcome {
    World::with(THREE, |world| {
        let leader = world.cluster.leader()?;
        for at in 0..3 {
            if at != leader {
                world.cluster.nodes[at].kill()?;
            }
        }
        let alone =
            world.cluster.cli.speaking_to(std::slice::from_ref(&world.cluster.nodes[leader].place.api));
        // Each goes on trying for a while, so both do at the same time.
        let (write, read) = std::thread::scope(|scope| {
            let write = scope.spawn(|| alone.run(&["borough", "create", "nowhere"]));
            let read = alone.run(&["borough", "list"]);
            (write.join(), read)
        });
        let write = write.map_err(|_| Wrong("a thread broke down".to_owned()))??.with_code(3)?;
        assert!(!write.stderr.is_empty(), "{write}");
        read?.with_code(3)?;
        let stale = alone.ok(&["borough", "list", "--stale", "-o", "name"])?;
        assert!(stale.contains("camden"), "{stale}");
        alone.ok(&["scheduler", "list"])?;

        for at in 0..3 {
            if at != leader {
                world.cluster.nodes[at].start()?;
            }
        }
        until("reads are answered again", SOON, || alone.ok(&["borough", "list"]).map(drop))
    })
}
