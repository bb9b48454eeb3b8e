//! Disks that are slow or hang, each node's its own.

use std::time::Duration;

use supercloud_tests::{
    Outcome,
    load::USUAL,
    testbed::{Setting, Testbed},
    wait,
};

const ON_DISKS: Setting = Setting { nodes: 3, proxies: false, disks: Some(256) };
/// A disk that makes every write wait up to a tenth of a second: some hundred times its usual cost.
const HOLD: Duration = Duration::from_millis(100);
/// How long it works in between.
const BETWEEN: Duration = Duration::from_millis(10);
/// A disk that hangs: longer than an election.
const HANGS: Duration = Duration::from_secs(3);

#[test]
fn slow_and_hanging_disks_cost_time_and_nothing_else() -> Outcome {
    Testbed::with(ON_DISKS, |bed| {
        for (name, after) in [("leader-slow", 0), ("follower-slow", 1)] {
            let load = bed.load(name, USUAL)?;
            bed.await_served(&load)?;
            let node = (bed.leader()? + after) % 3;
            let slow = bed.disks[node].slow(HOLD, BETWEEN);
            bed.await_served(&load)?;
            slow.stop()?;
            bed.await_served(&load)?;
            load.finish()?;
            bed.await_agreement()?;
        }

        let load = bed.load("leader-hangs", USUAL)?;
        bed.await_served(&load)?;
        let leader = bed.leader()?;
        bed.disks[leader].freeze()?;
        bed.await_served(&load)?;
        wait::throughout("the others run", HANGS, || {
            bed.others(&[leader])
                .into_iter()
                .try_for_each(|place| bed.cluster.nodes[place].process()?.must_run())
        })?;
        bed.disks[leader].thaw()?;
        bed.await_served(&load)?;
        load.finish()?;
        bed.await_agreement()
    })
}
