//! What kind of run a seed makes: how many nodes, who writes how fast, which faults.

use supercloud_scheduler::{
    leader::Timing,
    state::level::{self, Level},
};

use super::{Micros, dice::Dice};

/// One second.
pub(super) const SECOND: Micros = 1_000_000;

/// So many runs of a thousand have hosts with agents. They last longer: a host is lost after 25 s.
const ESTATE_PERMILLE: u64 = 300;

/// So many runs of a thousand are of a cluster of the first feature level.
const OLD_PERMILLE: u64 = 200;

/// See the head of the module.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) nodes: u64,
    /// Feature level of the cluster.
    pub(super) level: Level,
    pub(super) clients: usize,
    /// Hosts with agents; none in runs about the log alone.
    pub(super) hosts: usize,
    pub(super) sites: usize,
    pub(super) timing: Timing,
    /// After so many messages of a thousand to an agent, orders that it had before come again.
    pub(super) old_orders: u64,
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
    pub(super) host_cut: u64,
    pub(super) hosts_cut: u64,
    pub(super) agent_crash: u64,
    pub(super) power_off: u64,
    pub(super) runtime_silent: u64,
    pub(super) task_ends: u64,
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
            weather: weight(6),
            slow_disk: weight(3),
            disk_failure: weight(3),
            damage: weight(1),
            clock: weight(1),
            membership: weight(4),
            host_cut: weight(4),
            hosts_cut: weight(1),
            agent_crash: weight(4),
            power_off: weight(2),
            runtime_silent: weight(2),
            task_ends: weight(3),
        };
        let estate = dice.permille(ESTATE_PERMILLE);
        let slow = dice.permille(300);
        Self {
            nodes,
            level: if dice.permille(OLD_PERMILLE) { level::FIRST } else { level::KNOWN },
            clients: dice.between(1, if estate { 2 } else { 9 }) as usize,
            hosts: if estate { dice.between(2, 6) as usize } else { 0 },
            sites: dice.between(1, 2) as usize,
            timing: Timing::default(),
            old_orders: if dice.permille(500) { 100 } else { 0 },
            pace: match (estate, slow) {
                (true, _) => (SECOND / 2, 5 * SECOND),
                (false, true) => (100_000, 2 * SECOND),
                (false, false) => (1_000, 200_000),
            },
            snapshot_entries: dice.between(8, if estate { 300 } else { 80 }),
            snapshot_tail: dice.between(0, 30),
            first_fault: dice.between(SECOND / 2, 3 * SECOND),
            faults: if estate {
                (SECOND / 2, 8 * SECOND)
            } else {
                (50_000, dice.between(300_000, 3 * SECOND))
            },
            end: if estate { dice.between(50, 110) } else { dice.between(8, 16) } * SECOND,
            weights,
        }
    }
}
