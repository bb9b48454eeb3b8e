//! What real requests ask for of processor, memory and GPUs, so that hosts fill up as unevenly as they do, and on which hosts.

use std::{path::PathBuf, sync::Arc};

use rand::{Rng as _, SeedableRng as _, distr::weighted::WeightedIndex, rngs::StdRng};
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    condition::Condition,
    name::SiteName,
    spec::{Resources, WorkloadSpec},
};
use supercloud_tests::{Outcome, programs};

use crate::packing::{self, lists};

/// Thousandths of a core, MiB, and how often: the 24 combinations that are asked for most in `openb_pod_list_default.csv` of Alibaba's trace of a
/// cluster with GPUs of 2023 (cluster-trace-gpu-v2023 in alibaba/clusterdata, as kept in hkust-adsl/kubernetes-scheduler-simulator, Apache-2.0); nine
/// tenths of its 8,152 requests.
const OFTEN: [(u64, u64, u32); 24] = [
    (3_152, 5_600, 1_592),
    (11_300, 49_152, 857),
    (11_908, 47_104, 778),
    (8_000, 30_517, 649),
    (11_400, 48_128, 534),
    (12_500, 57_344, 364),
    (32_000, 49_152, 284),
    (18_708, 64_512, 255),
    (9_810, 41_560, 195),
    (4_000, 22_888, 189),
    (4_000, 15_258, 182),
    (12_000, 24_576, 162),
    (15_700, 58_368, 158),
    (4_152, 10_600, 152),
    (4_000, 30_517, 136),
    (15_400, 51_200, 120),
    (16_000, 32_768, 110),
    (8_000, 16_384, 106),
    (4_000, 24_576, 104),
    (12_000, 16_384, 99),
    (16_500, 51_200, 95),
    (14_200, 58_368, 93),
    (24_200, 93_184, 84),
    (11_400, 77_824, 65),
];
/// Bytes of one MiB.
const MIB: u64 = 1 << 20;

/// A part of the same trace with its GPUs: every tenth of `openb_node_list_all_node.csv`, every twentieth of `openb_pod_list_gpuspec33.csv`.
const TRACE: &str = "tests/src/bin/supercloud-bench/trace";

/// The site that some ask for, of the two that hosts are in.
const SITE: &str = "hounslow";
/// The condition on a label that some have.
const LABEL: &str = "label.disk == nvme";
/// The condition on a version that some have.
const VERSION: &str = "docker >= 28";

/// What one asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Want {
    resources: Resources,
    sites: Vec<SiteName>,
    require: Vec<Condition>,
}

impl Want {
    /// Of resources alone.
    fn anywhere(resources: Resources) -> Self {
        Self { resources, sites: Vec::new(), require: Vec::new() }
    }

    /// The same on certain hosts, by the number of the combination: of a hundred requests 24 want a label, 12 a site and 6 a version. It goes
    /// by the combination, since in a real estate too those who ask for the same are copies of the same service.
    fn somewhere(mut self, number: usize) -> Outcome<Self> {
        match number % 8 {
            1 | 5 => self.require.push(LABEL.parse()?),
            3 => self.sites.push(SITE.parse()?),
            7 => self.require.push(VERSION.parse()?),
            _ => {}
        }
        Ok(self)
    }

    /// Lets a spec ask for it.
    pub(crate) fn of(self, spec: &mut WorkloadSpec) {
        spec.resources = self.resources;
        (spec.place.sites, spec.place.require) = (self.sites, self.require);
    }
}

/// Draws requests as often as they are asked for, by a seed.
#[derive(Clone)]
pub(crate) struct Wants {
    random: StdRng,
    all: Arc<[Want]>,
    often: WeightedIndex<u32>,
}

impl Wants {
    /// Of processor and memory alone, and where.
    pub(crate) fn new(seed: u64) -> Outcome<Self> {
        let resources = |(cpu, memory, _)| Resources {
            cpu: MilliCpu(cpu),
            memory: Bytes(memory * MIB),
            disk: Bytes(MIB),
            pids: None,
            devices: Vec::new(),
            network: Default::default(),
            ..Resources::default()
        };
        let each = OFTEN.map(resources).map(Want::anywhere).into_iter().enumerate();
        let all: Vec<_> = each.map(|(number, want)| want.somewhere(number)).collect::<Outcome<_>>()?;
        Self::of(seed, all.into(), &OFTEN.map(|(_, _, often)| often))
    }

    /// Of GPUs too.
    pub(crate) fn with_gpus(seed: u64) -> Outcome<Self> {
        let requests = lists::requests(&of_trace("requests.csv"))?;
        let resources = |request: &lists::Request| {
            let devices = packing::gpus::device_requests(request)?;
            let (cpu, memory) = (request.amounts.cpu, request.amounts.memory);
            Ok(Want::anywhere(Resources { cpu, memory, disk: Bytes(MIB), devices, ..Resources::default() }))
        };
        let all: Vec<_> = requests.iter().map(resources).collect::<Outcome<_>>()?;
        Self::of(seed, all.into(), &vec![1; requests.len()])
    }

    fn of(seed: u64, all: Arc<[Want]>, often: &[u32]) -> Outcome<Self> {
        Ok(Self { random: StdRng::seed_from_u64(seed), all, often: WeightedIndex::new(often)? })
    }

    pub(crate) fn draw(&mut self) -> Want {
        self.all[self.random.sample(&self.often)].clone()
    }

    /// Everything that may be asked for, once.
    pub(crate) fn each(&self) -> Vec<Want> {
        let mut each: Vec<Want> = Vec::new();
        for want in self.all.iter() {
            if !each.contains(want) {
                each.push(want.clone());
            }
        }
        each
    }

    /// What so many ask for on average.
    pub(crate) fn of_many(number: u64) -> (MilliCpu, Bytes) {
        let all: u64 = OFTEN.iter().map(|(_, _, often)| u64::from(*often)).sum();
        let sum = |of: fn(&(u64, u64, u32)) -> u64| {
            OFTEN.iter().map(|want| of(want) * u64::from(want.2)).sum::<u64>() * number / all
        };
        (MilliCpu(sum(|want| want.0)), Bytes(sum(|want| want.1) * MIB))
    }
}

/// Hosts as they are there.
pub(crate) fn hosts() -> Outcome<Vec<lists::Host>> {
    lists::hosts(&of_trace("hosts.csv"))
}

fn of_trace(file: &str) -> PathBuf {
    programs::repository().join(TRACE).join(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_and_the_mean_is_that_of_the_draws() -> Outcome {
        let (mut one, mut other) = (Wants::new(42)?, Wants::new(42)?);
        let draws: Vec<u64> = (0..20_000).map(|_| one.draw().resources.cpu.0).collect();
        assert!(draws.iter().all(|cpu| *cpu == other.draw().resources.cpu.0));
        let (drawn, mean) = (draws.iter().sum::<u64>() / 20_000, Wants::of_many(1).0.0);
        assert!(drawn.abs_diff(mean) * 50 < mean, "{drawn} drawn, {mean} on average");
        Ok(())
    }
}
