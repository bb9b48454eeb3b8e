//! How many hosts a mix of requests needs, by the compaction of the Borg paper (EuroSys 2015, section 5.1): hosts are taken away in random order, and
//! the whole mix is placed anew from nothing, until it no longer fits. Beside it the fewest hosts, in the same order, that have as much of each
//! resource as is asked for: no policy needs fewer. The list of hosts is repeated as often as it takes, and there are [`TIMES`] as many as that bound, for
//! policies that need more. Processor and memory alone count, so that hosts with devices are hosts like others.
//!
//! Of a longer list [`MOST`] requests are drawn at random, another sample for each seed: other policies look at every host for every request. What is
//! compared is a ratio, which a sample of thousands keeps. What fits no host by itself is left out beforehand.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use supercloud_proto::{
    amount::{Amounts, Bytes},
    spec::WorkloadSpec,
};
use supercloud_scheduler::{
    placement::{Engine, Limits, pass::MAX_PLACEMENTS},
    state::{Command, State, demand::demand},
};
use supercloud_tests::{Outcome, wrong};

use super::{begin, lists::Source, seeds};
use crate::{
    Options,
    records::{NOW, apply, inventory, register, spec},
    report::Report,
};

const HOSTS: &str = "openb_node_list_all_node.csv";
const REQUESTS: &str = "openb_pod_list_default.csv";
/// Times the hosts of the bound that there are.
const TIMES: usize = 4;
/// Requests of which all are looked at, and the size of a sample of more: what one pass may place.
const MOST: usize = MAX_PLACEMENTS;

/// Measures ours and the others. `hosts_vs_bound` is ours by the bound, the median of the seeds; the other keys are the same of other policies, which
/// see the same hosts and requests in the same order.
pub(super) fn run(options: &Options, source: &Source, report: &mut Report) -> Outcome {
    let hosts: Vec<Amounts> = source.hosts(HOSTS)?.into_iter().map(|host| host.amounts).collect();
    let mut requests: Vec<Amounts> =
        source.requests(REQUESTS)?.into_iter().map(|request| request.amounts).collect();
    let all = requests.len();
    let overhead = overhead()?;
    requests.retain(|request| hosts.iter().any(|host| (*request + overhead).within(*host)));
    if requests.is_empty() {
        return wrong(format!("hosts needed: expected a request that fits a host, found none of {all}"));
    }
    if requests.len() > MOST {
        println!("hosts needed: of {} requests {MOST} are drawn at random for each seed", requests.len());
    }
    let mut cells =
        seeds(options).iter().map(|seed| Cell::new(*seed, &hosts, &requests)).collect::<Outcome<Vec<_>>>()?;
    report.note("compaction_requests", requests.len().min(MOST) as f64);
    let ours = cells.iter_mut().map(Cell::ours).collect::<Outcome<Vec<_>>>()?;
    note(report, "hosts_vs_bound", ours);
    for (name, policy) in POLICIES {
        let theirs = cells.iter_mut().map(|cell| cell.theirs(policy)).collect::<Outcome<Vec<_>>>()?;
        note(report, &format!("hosts_vs_bound_{name}"), theirs);
    }
    Ok(())
}

/// What running one costs on top of what it asks for.
fn overhead() -> Outcome<Amounts> {
    let spec = spec(1, 1)?;
    Ok(demand(&spec).saturating_sub(spec.resources.amounts()))
}

/// The median of the seeds, the 90th percentile, which the Borg paper goes by, and the worst; nothing, said plainly, where one needed more hosts than there were.
fn note(report: &mut Report, key: &str, ratios: Vec<Option<f64>>) {
    let Some(mut ratios) = ratios.into_iter().collect::<Option<Vec<f64>>>() else {
        report.leave_out(key, format!("more than {TIMES} times the hosts of the bound were needed"));
        return;
    };
    ratios.sort_unstable_by(f64::total_cmp);
    report.note(key, ratios[ratios.len() / 2]);
    report.note(format!("{key}_p90"), ratios[(ratios.len() * 9).div_ceil(10) - 1]);
    report.note(format!("{key}_worst"), ratios[ratios.len() - 1]);
}

/// Hosts and requests in the order of one seed.
struct Cell {
    hosts: Vec<Amounts>,
    requests: Vec<Amounts>,
    /// No policy needs fewer hosts.
    bound: usize,
    random: StdRng,
    /// All requests, as workloads that wait.
    state: State,
}

impl Cell {
    fn new(seed: u64, hosts: &[Amounts], requests: &[Amounts]) -> Outcome<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut shuffled = |list: &[Amounts]| {
            let mut list = list.to_vec();
            list.shuffle(&mut random);
            list
        };
        let mut requests = shuffled(requests);
        requests.truncate(MOST);
        let asked = requests.iter().fold(Amounts::default(), |sum, request| sum + *request);
        let (mut list, mut have, mut bound) = (Vec::new(), Amounts::default(), None);
        while bound.is_none_or(|bound| list.len() < bound * TIMES) {
            for host in shuffled(hosts) {
                have += host;
                list.push(host);
                if bound.is_none() && asked.within(have) {
                    bound = Some(list.len());
                }
            }
        }
        let (hosts, bound) = (list, bound.unwrap_or_default());
        let mut state = begin()?;
        for (number, request) in (1..).zip(&requests) {
            let mut spec: WorkloadSpec = spec(number, 1)?;
            (spec.resources.cpu, spec.resources.memory, spec.resources.disk) =
                (request.cpu, request.memory, request.disk);
            apply(&mut state, Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None })?;
        }
        Ok(Self { hosts, requests, bound, random, state })
    }

    /// The fewest of the first hosts on which all fits, by the bound; nothing where it does not fit on all of them. By halving: what fits on some fits on more.
    fn compacted(&mut self, mut fits: impl FnMut(&mut Self, usize) -> Outcome<bool>) -> Outcome<Option<f64>> {
        let (mut few, mut many) = (self.bound, self.bound * TIMES);
        if !fits(self, many)? {
            return Ok(None);
        }
        while few < many {
            let middle = (few + many) / 2;
            if fits(self, middle)? { many = middle } else { few = middle + 1 }
        }
        Ok(Some(many as f64 / self.bound as f64))
    }

    fn ours(&mut self) -> Outcome<Option<f64>> {
        self.compacted(|cell, hosts| {
            let mut state = cell.state.clone();
            for (number, host) in (1..).zip(&cell.hosts[..hosts]) {
                let mut inventory = inventory(number)?;
                (inventory.capacity.cpu, inventory.capacity.memory) = (host.cpu, host.memory);
                register(&mut state, number, inventory)?;
            }
            let plan = Engine::new(&state).pass(&state, NOW, Limits::default());
            Ok(plan.placements.len() == cell.requests.len())
        })
    }

    fn theirs(&mut self, policy: Policy) -> Outcome<Option<f64>> {
        self.compacted(|cell, hosts| {
            let whole = &cell.hosts[..hosts];
            let mut free = whole.to_vec();
            let largest = whole.iter().fold(Amounts::default(), |largest, host| Amounts {
                cpu: largest.cpu.max(host.cpu),
                memory: largest.memory.max(host.memory),
                disk: Bytes(0),
            });
            let all = cell.requests.iter().all(|request| {
                let fitting = (0..hosts).filter(|host| request.within(free[*host]));
                let mut rank =
                    |host: &usize| policy(&mut cell.random, [free[*host], whole[*host], largest, *request]);
                let ranked = fitting.map(|host| (rank(&host), host));
                let best = ranked.min_by(|(one, _), (other, _)| one.total_cmp(other));
                best.map(|(_, host)| free[host] = free[host].saturating_sub(*request)).is_some()
            });
            Ok(all)
        })
    }
}

/// How good a host is, the lower the better: of what is free there, what it has in all, what the largest hosts have, and what is asked for.
type Policy = fn(&mut StdRng, [Amounts; 4]) -> f64;

/// What we are compared with.
const POLICIES: [(&str, Policy); 4] = [
    ("random", |random, _| random.random()),
    ("first_fit", |_, _| 0.0),
    // What would be left, as shares of the host, added up.
    ("best_fit", |_, [free, whole, _, request]| {
        let [cpu, memory] = shares(free.saturating_sub(request), whole);
        cpu + memory
    }),
    // The least product of what is free and what is asked for.
    ("dot_product", |_, [free, _, largest, request]| {
        let ([cpu, memory], [asked_cpu, asked_memory]) = (shares(free, largest), shares(request, largest));
        cpu * asked_cpu + memory * asked_memory
    }),
];

/// Processor and memory as shares of a host.
fn shares(part: Amounts, whole: Amounts) -> [f64; 2] {
    [part.cpu.0 as f64 / whole.cpu.0 as f64, part.memory.0 as f64 / whole.memory.0 as f64]
}

#[cfg(test)]
mod tests {
    use supercloud_proto::amount::MilliCpu;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_fills_hosts_to_the_brim_needs_no_more_than_the_bound() -> Outcome {
        let amounts =
            |cpu, memory| Amounts { cpu: MilliCpu(cpu), memory: Bytes(memory * MIB), disk: Bytes(0) };
        // Eight halves of hosts and eight quarters: six hosts in all, with room for what running a container costs.
        let hosts = vec![amounts(4_000, 9_000); 20];
        let requests: Vec<_> = (0..16).map(|i| amounts(if i < 8 { 2_000 } else { 1_000 }, 2_000)).collect();
        let mut cell = Cell::new(42, &hosts, &requests)?;
        assert_eq!(cell.bound, 6);
        assert_eq!(cell.ours()?, Some(1.0));
        let (_, random) = POLICIES[0];
        assert!(cell.theirs(random)?.is_some_and(|ratio| ratio >= 1.0));
        Ok(())
    }

    #[test]
    fn any_list_is_compacted() -> Outcome {
        let amounts =
            |cpu, memory| Amounts { cpu: MilliCpu(cpu), memory: Bytes(memory * MIB), disk: Bytes(0) };
        // More requests than are looked at, on one host that bears four of them.
        let cell = Cell::new(42, &[amounts(4_000, 9_000)], &vec![amounts(1_000, 1_000); MOST + 1])?;
        assert_eq!((cell.requests.len(), cell.bound), (MOST, MOST / 4));
        assert_eq!(cell.hosts.len(), MOST / 4 * TIMES);
        // No two of these fit on a host, though half of all processors would do.
        let mut cell = Cell::new(42, &[amounts(4_000, 9_000)], &vec![amounts(2_001, 10); 10])?;
        assert_eq!((cell.bound, cell.ours()?), (6, Some(10.0 / 6.0)));
        assert_eq!(overhead()?, amounts(0, 8));
        Ok(())
    }
}
