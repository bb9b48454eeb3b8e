//! A network that carries everything, but late, unevenly, and over connections that break.

use std::time::Duration;

use supercloud_tests::{
    Outcome,
    load::USUAL,
    proxy::Conditions,
    testbed::{Setting, Testbed},
};

const BEHIND_PROXIES: Setting = Setting { nodes: 3, proxies: true, disks: None };
/// As between two cities far apart.
const FAR: Conditions = Conditions {
    delay: Duration::from_millis(30),
    jitter: Duration::from_millis(10),
    lost: 0,
    resets: 0,
    bandwidth: 0,
};
/// As over a bad line: one piece in a hundred is repeated, one in two thousand breaks its connection, and 4 MB/s.
const BAD: Conditions = Conditions {
    delay: Duration::from_millis(5),
    jitter: Duration::from_millis(20),
    lost: 100,
    resets: 5,
    bandwidth: 4_000_000,
};

#[test]
fn a_slow_and_a_bad_network_cost_time_and_nothing_else() -> Outcome {
    Testbed::with(BEHIND_PROXIES, |bed| {
        for (name, conditions) in [("far", FAR), ("bad", BAD)] {
            let load = bed.load(name, USUAL)?;
            bed.await_served(&load)?;
            bed.weather(conditions);
            bed.await_served(&load)?;
            bed.await_stable_leader()?;
            let leader = bed.leader()?;
            bed.cluster.nodes[leader].kill()?;
            bed.await_served(&load)?;
            bed.cluster.nodes[leader].start()?;
            bed.await_served(&load)?;
            bed.weather(Conditions::default());
            load.finish()?;
            bed.await_agreement()?;
        }
        Ok(())
    })
}
