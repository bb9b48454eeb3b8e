//! A leader whose process stands still, as on a machine that hangs or is moved, and goes on as if nothing had been.

use std::time::{Duration, Instant};

use supercloud_tests::{
    Outcome, hold,
    load::USUAL,
    testbed::{Setting, Testbed},
    wait,
};

use crate::length::stops;

const THREE: Setting = Setting { nodes: 3, proxies: false, disks: None };
/// A leader that stands still for so long has been replaced; for less, it may have been.
const REPLACED_AFTER: Duration = Duration::from_secs(5);

#[test]
fn a_leader_that_stands_still_is_replaced_and_does_no_harm_when_it_goes_on() -> Outcome {
    Testbed::with(THREE, |bed| {
        for stop in stops()? {
            let load = bed.load(&format!("stop-{}", stop.as_secs()), USUAL)?;
            bed.await_served(&load)?;
            let leader = bed.leader()?;
            let others = bed.others(&[leader]);
            let stopped = Instant::now();
            bed.cluster.nodes[leader].process()?.pause()?;
            if stop >= REPLACED_AFTER {
                bed.await_served(&load)?;
                let new = bed.leader_among(&others, wait::SOON)?;
                hold(new != leader, || format!("node {leader} stands still and leads"))?;
            }
            wait::throughout("the others run", stop.saturating_sub(stopped.elapsed()), || {
                others.iter().try_for_each(|place| bed.cluster.nodes[*place].process()?.must_run())
            })?;
            bed.cluster.nodes[leader].process()?.resume()?;
            bed.await_served(&load)?;
            load.finish()?;
            bed.await_agreement()?;
        }
        Ok(())
    })
}
