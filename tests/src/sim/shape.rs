//! What kind of run a seed makes: how many nodes, who writes how fast, which faults.

use super::{Micros, dice::Dice};

/// One second.
pub(super) const SECOND: Micros = 1_000_000;

/// See the head of the module.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) nodes: u64,
    pub(super) clients: usize,
    /// A client's pause between two things.
    pub(super) pace: (Micros, Micros),
    pub(super) snapshot_entries: u64,
    pub(super) snapshot_tail: u64,
    pub(super) first_fault: Micros,
    /// Pause between two faults.
    pub(super) faults: (Micros, Micros),
    /// Faults go on until then.
    pub(super) end: Micros,
    /// How often each fault comes, of their sum.
    pub(super) weights: Weights,
}

/// How often each fault comes beside the others; 0: never in this run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    pub(super) crash: u64,
    pub(super) black_out: u64,
    pub(super) pause: u64,
    pub(super) partition: u64,
    pub(super) weather: u64,
    pub(super) slow_disk: u64,
    pub(super) disk_failure: u64,
    pub(super) damage: u64,
    pub(super) clock: u64,
    pub(super) membership: u64,
}

impl Shape {
    /// Rolls one. Each fault is left out of every other run, so that the others are seen by themselves.
    pub(super) fn roll(dice: &mut Dice) -> Self {
        let nodes = [1, 3, 3, 3, 3, 5, 5].get(dice.below(7) as usize).copied().unwrap_or(3);
        let mut weight = |most: u64| if dice.permille(500) { most } else { 0 };
        let weights = Weights {
            crash: weight(6),
            black_out: weight(2),
            pause: weight(4),
            partition: weight(6),
            weather: weight(3),
            slow_disk: weight(3),
            disk_failure: weight(3),
            damage: weight(1),
            clock: weight(1),
            membership: weight(4),
        };
        let slow = dice.permille(300);
        Self {
            nodes,
            clients: dice.between(1, 5) as usize,
            pace: if slow { (100_000, 2 * SECOND) } else { (1_000, 200_000) },
            snapshot_entries: dice.between(8, 80),
            snapshot_tail: dice.between(0, 30),
            first_fault: dice.between(SECOND / 2, 3 * SECOND),
            faults: (50_000, dice.between(300_000, 3 * SECOND)),
            end: dice.between(8, 16) * SECOND,
            weights,
        }
    }
}
