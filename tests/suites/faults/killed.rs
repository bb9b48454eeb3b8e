//! Processes that are killed: leaders under load, one after the other, and all nodes at once.

use supercloud_tests::{
    Outcome,
    failover::Failover,
    hold,
    load::USUAL,
    testbed::{Setting, Testbed},
};

use crate::length::{KILLS, number};

const THREE: Setting = Setting { nodes: 3, proxies: false, disks: None };
/// Kills under one history: a longer one says no more and takes longer to judge, and nodes that check themselves after every entry are slower
/// to come back the longer their log is.
const KILLS_A_HISTORY: usize = 20;
/// What half of all failovers may take, in milliseconds. The budget is 500 with the machine to itself and optimised programs; this is
/// for a busy one with programs that are not.
const HALF_WITHIN_MS: f64 = 4_000.0;

#[test]
fn leaders_killed_under_load_are_replaced_soon_and_nothing_is_lost() -> Outcome {
    let kills = number(KILLS)?;
    let mut failover = killed_under_load(kills.min(KILLS_A_HISTORY))?;
    for done in (KILLS_A_HISTORY..kills).step_by(KILLS_A_HISTORY) {
        failover.absorb(&killed_under_load((kills - done).min(KILLS_A_HISTORY))?)?;
    }
    eprintln!("{failover}");
    hold(failover.percentile_ms(50.0) <= HALF_WITHIN_MS, || format!("too slow:\n{failover}"))
}

/// So many kills under one history, on a cluster of their own.
fn killed_under_load(kills: usize) -> Outcome<Failover> {
    Testbed::with(THREE, |bed| {
        let mut failover = Failover::of(&bed.cluster)?;
        let load = bed.load("kills", USUAL)?;
        for _ in 0..kills {
            bed.await_served(&load)?;
            failover.once(&mut bed.cluster)?;
        }
        bed.await_served(&load)?;
        load.finish()?;
        bed.await_agreement()?;
        Ok(failover)
    })
}

#[test]
fn all_nodes_killed_at_once_come_back_with_everything() -> Outcome {
    Testbed::with(THREE, |bed| {
        for round in 0..2 {
            let load = bed.load(&format!("all-{round}"), USUAL)?;
            bed.await_served(&load)?;
            for node in &mut bed.cluster.nodes {
                node.kill()?;
            }
            for node in &mut bed.cluster.nodes {
                node.start()?;
            }
            bed.await_served(&load)?;
            load.finish()?;
            bed.await_agreement()?;
        }
        Ok(())
    })
}
