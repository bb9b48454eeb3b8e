//! What holds for the hosts of a site: how much of their processors is given away to each class of work, which of them are filled first, and how dear they are.
//! Pure; it knows neither the state nor instances.
//!
//! The one rule of what a request takes of a host is [`SitePolicy::takes`]: of its processor time the part that the policy says for its class, rounded up,
//! and everything else whole. What is given away of a host (`HostUse`) is counted by it, and carries the policy by which it was; who asks whether something
//! fits there asks the same. Where a policy is changed, what is given away is counted anew: tightened below what is given, it stops nothing that
//! runs, and only lets nothing more in. Quotas, guarantees and turns go by what was asked for.

use supercloud_proto::{
    amount::{Amounts, MilliCpu},
    problem::Problem,
    spec::Class,
};

/// All of a processor, in percent.
const WHOLE: u32 = 100;

/// What holds for the hosts of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SitePolicy {
    /// How much of the processors is given away to the class standard, from [`SitePolicy::LEAST_PERCENT`] to [`SitePolicy::MOST_PERCENT`].
    pub standard_cpu_percent: u32,
    /// The same for the class spare.
    pub spare_cpu_percent: u32,
    /// Which hosts are filled first.
    pub packing: Packing,
    /// How dear it is, up to [`SitePolicy::MOST_COST`].
    pub cost: u32,
}

/// Which hosts of a site are filled first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Packing {
    /// The fullest with room.
    #[default]
    Pack,
    /// The emptiest.
    Spread,
}

/// What changes of a site's policy. `None`: it stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SiteChange {
    /// Percent for the class standard.
    pub standard_cpu_percent: Option<u32>,
    /// Percent for the class spare.
    pub spare_cpu_percent: Option<u32>,
    /// Which hosts are filled first.
    pub packing: Option<Packing>,
    /// Cost.
    pub cost: Option<u32>,
}

impl Packing {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Spread => "spread",
        }
    }
}

impl Default for SitePolicy {
    /// Processors are given away once, the fullest hosts are filled first, and it costs nothing.
    fn default() -> Self {
        Self { standard_cpu_percent: WHOLE, spare_cpu_percent: WHOLE, packing: Packing::Pack, cost: 0 }
    }
}

impl SitePolicy {
    /// Smallest percent: processors are given away once.
    pub const LEAST_PERCENT: u32 = WHOLE;
    /// Largest percent. The agent's weights of the classes go by it.
    pub const MOST_PERCENT: u32 = 10 * WHOLE;
    /// Largest cost.
    pub const MOST_COST: u32 = 1_000;

    /// This with what a change changes of it.
    #[must_use]
    pub fn with(self, change: SiteChange) -> Self {
        Self {
            standard_cpu_percent: change.standard_cpu_percent.unwrap_or(self.standard_cpu_percent),
            spare_cpu_percent: change.spare_cpu_percent.unwrap_or(self.spare_cpu_percent),
            packing: change.packing.unwrap_or(self.packing),
            cost: change.cost.unwrap_or(self.cost),
        }
    }

    fn percent(self, class: Class) -> u32 {
        match class {
            Class::Guaranteed => WHOLE,
            Class::Standard => self.standard_cpu_percent,
            Class::Spare => self.spare_cpu_percent,
        }
    }

    /// What something of a class that asks for so much takes of a host.
    #[inline]
    #[must_use]
    pub fn takes(self, class: Class, asked: Amounts) -> Amounts {
        Amounts { cpu: self.takes_cpu(class, asked.cpu), ..asked }
    }

    /// The same of processor time alone.
    #[inline]
    #[must_use]
    pub fn takes_cpu(self, class: Class, asked: MilliCpu) -> MilliCpu {
        match self.percent(class) {
            WHOLE => asked,
            percent => part_of(asked, WHOLE, percent.max(1)),
        }
    }

    /// The most that something of a class may ask for where so much is free.
    #[must_use]
    pub fn bears(self, class: Class, free: Amounts) -> Amounts {
        let cpu = u128::from(free.cpu.0) * u128::from(self.percent(class)) / u128::from(WHOLE);
        Amounts { cpu: MilliCpu(u64::try_from(cpu).unwrap_or(u64::MAX)), ..free }
    }

    /// The most that anything may ask for where so much is free.
    #[must_use]
    pub fn bears_at_most(self, free: Amounts) -> Amounts {
        Class::ALL.into_iter().fold(free, |most, class| most.most(self.bears(class, free)))
    }

    /// What is wrong with it, by the fields of the request that change it.
    #[must_use]
    pub fn problems(self) -> Vec<Problem> {
        let percents = (Self::LEAST_PERCENT, Self::MOST_PERCENT);
        [
            ("change.standard_cpu_percent", percents, self.standard_cpu_percent),
            ("change.spare_cpu_percent", percents, self.spare_cpu_percent),
            ("change.cost", (0, Self::MOST_COST), self.cost),
        ]
        .into_iter()
        .filter(|(_, (least, most), found)| !(least..=most).contains(&found))
        .map(|(field, (least, most), found)| {
            Problem::new(field, format!("{least} to {most}"), found.to_string())
        })
        .collect()
    }

    /// All that can be changed of it, in words.
    #[must_use]
    pub fn facts(self) -> [(&'static str, String); 4] {
        [
            ("standard_cpu_percent", self.standard_cpu_percent.to_string()),
            ("spare_cpu_percent", self.spare_cpu_percent.to_string()),
            ("packing", self.packing.as_str().to_owned()),
            ("cost", self.cost.to_string()),
        ]
    }
}

/// `amount` times `of` by `whole`, rounded up.
fn part_of(amount: MilliCpu, of: u32, whole: u32) -> MilliCpu {
    let part = (u128::from(amount.0) * u128::from(of)).div_ceil(u128::from(whole));
    MilliCpu(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use supercloud_proto::amount::Bytes;

    use super::*;

    fn policy(standard: u32, spare: u32) -> SitePolicy {
        SitePolicy { standard_cpu_percent: standard, spare_cpu_percent: spare, ..SitePolicy::default() }
    }

    #[test]
    fn each_class_takes_its_part_of_processors_rounded_up_and_memory_whole() {
        let asked = Amounts { cpu: MilliCpu(1_001), memory: Bytes(7), disk: Bytes(9) };
        let taken = |policy: SitePolicy| Class::ALL.map(|class| policy.takes(class, asked).cpu.0);
        assert_eq!(taken(SitePolicy::default()), [1_001, 1_001, 1_001]);
        assert_eq!(taken(policy(200, 1_000)), [1_001, 501, 101]);
        assert_eq!(policy(300, 300).takes(Class::Spare, asked), Amounts { cpu: MilliCpu(334), ..asked });
        assert_eq!(
            policy(1_000, 100).takes_cpu(Class::Standard, MilliCpu(u64::MAX)).0,
            u64::MAX.div_ceil(10)
        );
    }

    #[test]
    fn what_a_host_bears_is_the_most_that_is_within_what_is_free() {
        for percent in [100, 101, 150, 333, 1_000] {
            for free in [0, 1, 7, 100, 999, 64_000] {
                let (policy, free) =
                    (policy(percent, 100), Amounts { cpu: MilliCpu(free), ..Amounts::default() });
                let most = policy.bears(Class::Standard, free).cpu;
                assert!(policy.takes_cpu(Class::Standard, most) <= free.cpu, "{percent} {most}");
                assert!(
                    policy.takes_cpu(Class::Standard, MilliCpu(most.0 + 1)) > free.cpu,
                    "{percent} {most}"
                );
                assert_eq!(policy.bears_at_most(free).cpu, most);
            }
        }
    }
}
