//! What a borough may have: a quota that it does not exceed, a guarantee up to which it comes first and takes back what it lent, its weight beside the others, the
//! highest priority that its workloads may have, and how many hosts it may keep to itself. Pure; it knows neither the state nor instances.
//!
//! The one rule of quotas is [`Quota::excesses`]: what a borough is charged and what it would take on top must be within its quota. The pass asks it of its
//! own running account, apply and explain of the state's. A quota that is lowered below what is used stops nothing that runs; it only lets nothing
//! more in. Who comes first is decided in `placement::fair`, and who makes way for whom in `state::preempt`.
//!
//! A highest priority is asked of what is applied (`apply::workloads`), and of nothing else: like a quota, one that is lowered changes nothing that is there. What has a higher
//! priority keeps it, scaled or replaced, until it is applied again.

use std::fmt;

use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    name::BoroughName,
    spec::MAX_PRIORITY,
};

use super::fits::Amount;

/// What a borough may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Most that its instances may take that are placed or have room made for them.
    pub quota: Quota,
    /// Up to this much it comes before others; within the quota.
    pub guarantee: Amounts,
    /// How much it may have before it waits for others, from [`Allowance::LEAST_WEIGHT`] to [`Allowance::MOST_WEIGHT`].
    pub weight: u32,
    /// Highest priority with which its workloads may be applied, up to [`MAX_PRIORITY`].
    pub max_priority: u32,
    /// Most hosts that it may keep to itself with private work.
    pub private_hosts: u32,
}

/// Most of each amount; `None`: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Processor time.
    pub cpu: Option<MilliCpu>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// Disk space.
    pub disk: Option<Bytes>,
}

/// An amount of its quota that a borough would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// Of what.
    pub what: Amount,
    /// The quota.
    pub quota: u64,
    /// What of it is in use; may be more than the quota.
    pub used: u64,
    /// What is needed on top.
    pub needed: u64,
}

/// What changes of a borough. `None`: it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoroughChange {
    /// As people write it.
    pub title: Option<String>,
    /// Most processor time; `Some(None)`: as much as there is.
    pub quota_cpu: Option<Option<MilliCpu>>,
    /// Most memory, likewise.
    pub quota_memory: Option<Option<Bytes>>,
    /// Most disk space, likewise.
    pub quota_disk: Option<Option<Bytes>>,
    /// Guaranteed processor time.
    pub guarantee_cpu: Option<MilliCpu>,
    /// Guaranteed memory.
    pub guarantee_memory: Option<Bytes>,
    /// Guaranteed disk space.
    pub guarantee_disk: Option<Bytes>,
    /// Weight.
    pub weight: Option<u32>,
    /// Highest priority.
    pub max_priority: Option<u32>,
    /// Most hosts that it may keep to itself.
    pub private_hosts: Option<u32>,
}

impl Allowance {
    /// Weight of a borough that was given none.
    pub const USUAL_WEIGHT: u32 = 100;
    /// Smallest weight.
    pub const LEAST_WEIGHT: u32 = 1;
    /// Largest weight.
    pub const MOST_WEIGHT: u32 = 1_000;

    /// This with what a change changes of it.
    #[must_use]
    pub fn with(self, change: &BoroughChange) -> Self {
        let Self { quota, guarantee, weight, max_priority, private_hosts } = self;
        Self {
            quota: Quota {
                cpu: change.quota_cpu.unwrap_or(quota.cpu),
                memory: change.quota_memory.unwrap_or(quota.memory),
                disk: change.quota_disk.unwrap_or(quota.disk),
            },
            guarantee: Amounts {
                cpu: change.guarantee_cpu.unwrap_or(guarantee.cpu),
                memory: change.guarantee_memory.unwrap_or(guarantee.memory),
                disk: change.guarantee_disk.unwrap_or(guarantee.disk),
            },
            weight: change.weight.unwrap_or(weight),
            max_priority: change.max_priority.unwrap_or(max_priority),
            private_hosts: change.private_hosts.unwrap_or(private_hosts),
        }
    }

    /// How much of each amount may make way for others, of a borough of whose work so much stays: what is beyond its guarantee. The largest number where
    /// nothing is guaranteed.
    #[must_use]
    pub fn surplus(self, staying: Amounts) -> Amounts {
        let of = |guarantee: u64, staying: u64| match guarantee {
            0 => u64::MAX,
            guarantee => staying.saturating_sub(guarantee),
        };
        let Amounts { cpu, memory, disk } = self.guarantee;
        Amounts {
            cpu: MilliCpu(of(cpu.0, staying.cpu.0)),
            memory: Bytes(of(memory.0, staying.memory.0)),
            disk: Bytes(of(disk.0, staying.disk.0)),
        }
    }

    /// How much of each amount a borough of whose work so much stays lacks of its guarantee.
    #[must_use]
    pub fn lack(self, staying: Amounts) -> Amounts {
        self.guarantee.saturating_sub(staying)
    }

    /// Whether a borough may take back what it is guaranteed for something more: of every amount that this needs, it would have no more than is guaranteed with
    /// it. So who is guaranteed processors alone has no claim on memory.
    #[must_use]
    pub fn claims(self, staying: Amounts, needed: Amounts) -> bool {
        let Amounts { cpu, memory, disk } = self.guarantee;
        let amounts = [
            (cpu.0, staying.cpu.0, needed.cpu.0),
            (memory.0, staying.memory.0, needed.memory.0),
            (disk.0, staying.disk.0, needed.disk.0),
        ];
        let mut needed = amounts.into_iter().filter(|(_, _, needed)| *needed > 0).peekable();
        needed.peek().is_some()
            && needed.all(|(guarantee, staying, needed)| staying.saturating_add(needed) <= guarantee)
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            quota: Quota::default(),
            guarantee: Amounts::default(),
            weight: Self::USUAL_WEIGHT,
            max_priority: MAX_PRIORITY,
            private_hosts: 0,
        }
    }
}

impl Quota {
    /// The same as amounts: the largest number, which nobody comes to, where there is no limit.
    #[must_use]
    pub fn most(self) -> Amounts {
        Amounts {
            cpu: self.cpu.unwrap_or(MilliCpu(u64::MAX)),
            memory: self.memory.unwrap_or(Bytes(u64::MAX)),
            disk: self.disk.unwrap_or(Bytes(u64::MAX)),
        }
    }

    /// The amounts that would be exceeded were something needed on top of what is used. None: it is let in.
    pub fn excesses(self, used: Amounts, needed: Amounts) -> impl Iterator<Item = Excess> {
        let most = self.most();
        [
            Excess { what: Amount::Cpu, quota: most.cpu.0, used: used.cpu.0, needed: needed.cpu.0 },
            Excess {
                what: Amount::Memory,
                quota: most.memory.0,
                used: used.memory.0,
                needed: needed.memory.0,
            },
            Excess { what: Amount::Disk, quota: most.disk.0, used: used.disk.0, needed: needed.disk.0 },
        ]
        .into_iter()
        .filter(|amount| amount.used.saturating_add(amount.needed) > amount.quota)
    }

    /// What of what is used has to go for something to be let in that is needed on top of the rest.
    #[must_use]
    pub fn overdraft(self, used: Amounts, needed: Amounts) -> Amounts {
        used.saturating_add(needed).saturating_sub(self.most())
    }

    /// Whether something that is needed on top of what is used is let in.
    #[must_use]
    pub fn admits(self, used: Amounts, needed: Amounts) -> bool {
        self.excesses(used, needed).next().is_none()
    }
}

/// All that a quota of a borough would be exceeded by, in words.
#[must_use]
pub fn words(borough: &BoroughName, excesses: &[Excess]) -> String {
    let excesses: Vec<String> = excesses.iter().map(ToString::to_string).collect();
    format!("{borough}'s {}", excesses.join(", and its "))
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, quota, used, needed } = *self;
        let word = match () {
            () if needed > quota => "is too small",
            () if used >= quota => "is used up",
            () => "has too little left",
        };
        write!(
            f,
            "{} quota of {} {word}: {} in use, {} needed",
            what.as_str(),
            what.exact(quota),
            what.exact(used),
            what.exact(needed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(cpu: u64, memory: u64, disk: u64) -> Amounts {
        Amounts { cpu: MilliCpu(cpu), memory: Bytes(memory), disk: Bytes(disk) }
    }

    #[test]
    fn each_amount_counts_for_itself() {
        let quota = Quota { cpu: Some(MilliCpu(4_000)), memory: None, disk: Some(Bytes(10)) };
        let what = |used, needed| -> Vec<&str> {
            quota.excesses(used, needed).map(|excess| excess.what.as_str()).collect()
        };
        assert!(quota.admits(amounts(3_000, 7, 5), amounts(1_000, u64::MAX, 5)));
        assert_eq!(what(amounts(3_000, 0, 5), amounts(1_001, 0, 5)), ["cpu"]);
        assert_eq!(what(amounts(u64::MAX, 0, 5), amounts(1, 0, 6)), ["cpu", "disk"]);
        assert!(Quota::default().admits(amounts(u64::MAX, u64::MAX, 0), amounts(1, 1, 1)));
    }

    #[test]
    fn what_a_quota_was_lowered_below_lets_nothing_more_in() {
        let quota = Quota { cpu: Some(MilliCpu(2_000)), ..Quota::default() };
        assert!(!quota.admits(amounts(4_000, 0, 0), amounts(0, 1, 0)));
    }

    #[test]
    fn an_excess_tells_its_figures() {
        let quota = Quota { cpu: Some(MilliCpu(4_000)), memory: Some(Bytes(1 << 30)), disk: None };
        let told: Vec<String> = quota
            .excesses(amounts(3_500, 0, 0), amounts(1_000, 2 << 30, 0))
            .map(|excess| excess.to_string())
            .collect();
        assert_eq!(
            told,
            [
                "cpu quota of 4 has too little left: 3500m in use, 1 needed",
                "memory quota of 1GiB is too small: 0B in use, 2GiB needed"
            ]
        );
    }
}
