//! Networks that do not carry everything, in every shape between three and five nodes. Clients reach every node all the time.

use supercloud_tests::{
    Outcome, Wrong, hold,
    load::USUAL,
    partition::{Lost, bridge, deaf, hears_majority, isolate, mute, one_way, ring, split},
    testbed::{Setting, Testbed},
};

const THREE: Setting = Setting { nodes: 3, proxies: false, disks: None };
const FOUR: Setting = Setting { nodes: 4, proxies: false, disks: None };
const FIVE: Setting = Setting { nodes: 5, proxies: false, disks: None };

/// A name, and what is lost when this node leads.
type Shape = (&'static str, fn(usize) -> Lost);

/// Cuts the network in each shape, one after the other; while it is cut somebody leads and clients are served, and afterwards all is whole.
fn check(setting: Setting, shapes: &[Shape]) -> Outcome {
    Testbed::with(setting, |bed| {
        for (name, shape) in shapes {
            let load = bed.load(name, USUAL)?;
            let cut = || -> Outcome {
                bed.await_served(&load)?;
                let leader = bed.leader()?;
                let lost = shape(leader);
                bed.network.lose(&lost)?;
                let now = bed.await_stable_leader()?;
                hold(now != leader || hears_majority(leader, &lost, setting.nodes), || {
                    format!("node {leader} hears no majority and leads")
                })?;
                bed.await_served(&load)?;
                bed.network.heal()?;
                bed.await_served(&load)?;
                load.finish()?;
                bed.await_agreement()
            };
            cut().map_err(|error| Wrong(format!("{name}: {error}")))?;
        }
        Ok(())
    })
}

/// Cuts the network so that nobody hears a majority: nothing is written until it is whole again, and nothing is made up meanwhile.
fn check_silence(setting: Setting, lost: &Lost) -> Outcome {
    Testbed::with(setting, |bed| {
        let load = bed.load("silence", USUAL)?;
        bed.await_served(&load)?;
        bed.network.lose(lost)?;
        bed.await_silence(&load)?;
        bed.network.heal()?;
        bed.await_served(&load)?;
        load.finish()?;
        bed.await_agreement()
    })
}

/// The node so many places after another one.
fn after(leader: usize, steps: usize, of: usize) -> usize {
    (leader + steps) % of
}

#[test]
fn three_nodes_in_every_shape() -> Outcome {
    check(
        THREE,
        &[
            ("leader-isolated", |leader| isolate(leader, 3)),
            ("follower-isolated", |leader| isolate(after(leader, 1, 3), 3)),
            ("leader-deaf", |leader| deaf(leader, 3)),
            ("leader-mute", |leader| mute(leader, 3)),
            ("follower-unheard-by-leader", |leader| one_way(after(leader, 1, 3), leader)),
            ("follower-not-hearing-leader", |leader| one_way(leader, after(leader, 1, 3))),
            ("leader-in-the-middle", |leader| bridge(leader, &[after(leader, 1, 3)], 3)),
            ("leader-at-the-end", |leader| bridge(after(leader, 1, 3), &[leader], 3)),
        ],
    )
}

#[test]
fn three_nodes_that_hear_nobody_decide_nothing() -> Outcome {
    check_silence(THREE, &(0..3).flat_map(|node| isolate(node, 3)).collect())
}

#[test]
fn two_halves_of_four_nodes_decide_nothing() -> Outcome {
    check_silence(FOUR, &split(&[0, 1], 4))
}

#[test]
fn five_nodes_in_every_shape() -> Outcome {
    check(
        FIVE,
        &[
            ("leader-in-the-minority", |leader| split(&[leader, after(leader, 1, 5)], 5)),
            ("leader-in-the-majority", |leader| split(&[after(leader, 1, 5), after(leader, 2, 5)], 5)),
            ("ring", |_| ring(5)),
            ("bridge-beside-leader", |leader| bridge(after(leader, 2, 5), &[leader, after(leader, 1, 5)], 5)),
            ("leader-is-the-bridge", |leader| bridge(leader, &[after(leader, 1, 5), after(leader, 2, 5)], 5)),
        ],
    )
}
