//! What real requests ask for of processor, memory and GPUs, so that hosts fill up as unevenly as they do.

use std::{path::PathBuf, sync::Arc};

use rand::{Rng as _, SeedableRng as _, distr::weighted::WeightedIndex, rngs::StdRng};
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    spec::Resources,
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

/// Draws requests as often as they are asked for, by a seed.
#[derive(Clone)]
pub(crate) struct Wants {
    random: StdRng,
    all: Arc<[Resources]>,
    often: WeightedIndex<u32>,
}

impl Wants {
    /// Of processor and memory alone.
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
        Self::of(seed, OFTEN.map(resources).into(), &OFTEN.map(|(_, _, often)| often))
    }

    /// Of GPUs too.
    pub(crate) fn with_gpus(seed: u64) -> Outcome<Self> {
        let requests = lists::requests(&of_trace("requests.csv"))?;
        let resources = |request: &lists::Request| {
            let devices = packing::gpus::device_requests(request)?;
            let (cpu, memory) = (request.amounts.cpu, request.amounts.memory);
            Ok(Resources { cpu, memory, disk: Bytes(MIB), devices, ..Resources::default() })
        };
        let all: Vec<_> = requests.iter().map(resources).collect::<Outcome<_>>()?;
        Self::of(seed, all.into(), &vec![1; requests.len()])
    }

    fn of(seed: u64, all: Arc<[Resources]>, often: &[u32]) -> Outcome<Self> {
        Ok(Self { random: StdRng::seed_from_u64(seed), all, often: WeightedIndex::new(often)? })
    }

    pub(crate) fn draw(&mut self) -> Resources {
        self.all[self.random.sample(&self.often)].clone()
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
        let draws: Vec<u64> = (0..20_000).map(|_| one.draw().cpu.0).collect();
        assert!(draws.iter().all(|cpu| *cpu == other.draw().cpu.0));
        let (drawn, mean) = (draws.iter().sum::<u64>() / 20_000, Wants::of_many(1).0.0);
        assert!(drawn.abs_diff(mean) * 50 < mean, "{drawn} drawn, {mean} on average");
        Ok(())
    }
}
