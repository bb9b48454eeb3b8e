//! Many faults at once, drawn at random: what no scenario thought of.
//!
//! A storm is drawn from its seed, which is printed; the same seed draws the same faults in the same order. What real processes make of
//! them is never twice the same, so a seed that failed is a hint, not a replay: that is the business of the simulation.

use std::{thread, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use supercloud_tests::{
    Outcome, Wrong,
    load::USUAL,
    partition::{Lost, isolate, one_way},
    proxy::Conditions,
    testbed::{Setting, Testbed},
};

use crate::length::{SEED, STORMS, number};

const NODES: usize = 3;
const EVERYTHING: Setting = Setting { nodes: NODES, proxies: true, disks: Some(256) };
/// Faults of one storm.
const FAULTS: usize = 12;
/// How long the next fault is waited for, in milliseconds: from within an election to well after it.
const CALM_MS: std::ops::Range<u64> = 50..1_500;
/// Faults at a time; one more, and the oldest is mended.
const AT_ONCE: usize = 2;

/// Something that is wrong for a while.
#[derive(Debug, Clone)]
enum Fault {
    Dead(usize),
    Still(usize),
    DiskHangs(usize),
    Cut(Lost),
    Weather(Conditions),
}

#[test]
fn nothing_is_lost_in_a_storm() -> Outcome {
    let first = match number(SEED)? {
        0 => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
        seed => seed as u64,
    };
    Testbed::with(EVERYTHING, |bed| {
        for seed in (first..).take(number(STORMS)?) {
            storm(bed, seed).map_err(|error| Wrong(format!("the storm of seed {seed}: {error}")))?;
        }
        Ok(())
    })
}

fn storm(bed: &mut Testbed, seed: u64) -> Outcome {
    let mut chance = StdRng::seed_from_u64(seed);
    let load = bed.load(&format!("storm-{seed}"), USUAL)?;
    bed.await_served(&load)?;
    let mut faults: Vec<Fault> = Vec::new();
    for _ in 0..FAULTS {
        let fault = draw(&mut chance);
        // What is wrong with the same thing already ends first.
        if let Some(at) = faults.iter().position(|other| other.touches(&fault)) {
            mend(bed, &faults.remove(at))?;
        }
        if faults.len() == AT_ONCE {
            mend(bed, &faults.remove(0))?;
        }
        begin(bed, &fault)?;
        faults.push(fault);
        // Nothing is awaited: how long faults last is part of what is drawn.
        thread::sleep(Duration::from_millis(chance.random_range(CALM_MS)));
    }
    faults.iter().try_for_each(|fault| mend(bed, fault))?;
    bed.await_served(&load)?;
    load.finish()?;
    bed.await_agreement()
}

fn draw(chance: &mut StdRng) -> Fault {
    let node = chance.random_range(0..NODES);
    match chance.random_range(0..6) {
        0 => Fault::Dead(node),
        1 => Fault::Still(node),
        2 => Fault::DiskHangs(node),
        3 => Fault::Cut(isolate(node, NODES)),
        4 => Fault::Cut(one_way(node, (node + chance.random_range(1..NODES)) % NODES)),
        _ => Fault::Weather(Conditions {
            delay: Duration::from_millis(chance.random_range(0..50)),
            jitter: Duration::from_millis(chance.random_range(0..50)),
            lost: chance.random_range(0..200),
            resets: chance.random_range(0..20),
            bandwidth: 0,
        }),
    }
}

impl Fault {
    /// Whether both are wrong with one thing: a node's process and disk, the network, the proxies.
    fn touches(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Dead(one) | Self::Still(one) | Self::DiskHangs(one),
                Self::Dead(other) | Self::Still(other) | Self::DiskHangs(other),
            ) => one == other,
            (Self::Cut(_), Self::Cut(_)) | (Self::Weather(_), Self::Weather(_)) => true,
            _ => false,
        }
    }
}

fn begin(bed: &mut Testbed, fault: &Fault) -> Outcome {
    eprintln!("{fault:?}");
    match fault {
        Fault::Dead(node) => bed.cluster.nodes[*node].kill(),
        Fault::Still(node) => bed.cluster.nodes[*node].process()?.pause(),
        Fault::DiskHangs(node) => bed.disks[*node].freeze(),
        Fault::Cut(lost) => bed.network.lose(lost),
        Fault::Weather(conditions) => {
            bed.weather(*conditions);
            Ok(())
        }
    }
}

fn mend(bed: &mut Testbed, fault: &Fault) -> Outcome {
    match fault {
        Fault::Dead(node) => bed.cluster.nodes[*node].start(),
        Fault::Still(node) => bed.cluster.nodes[*node].process()?.resume(),
        Fault::DiskHangs(node) => bed.disks[*node].thaw(),
        Fault::Cut(_) => bed.network.heal(),
        Fault::Weather(_) => {
            bed.weather(Conditions::default());
            Ok(())
        }
    }
}
