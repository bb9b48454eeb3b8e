//! How many hosts a mix of requests needs, by the compaction of the Borg paper (EuroSys 2015, section 5.1): hosts are taken away in random order, and
//! the whole mix is placed anew from nothing, until it no longer fits. Beside it the fewest hosts, in the same order, that have as much of each
//! resource as is asked for: no policy needs fewer. All hosts are there [`COPIES`] times, for policies that need more than there are. Processor and
//! memory alone count, so that hosts with devices are hosts like others.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use supercloud_proto::{
    amount::{Amounts, Bytes},
    spec::WorkloadSpec,
};
use supercloud_scheduler::{
    placement::{Engine, Limits, pass::MAX_PLACEMENTS},
    state::{Command, State},
};
use supercloud_tests::{Outcome, wrong};

use super::{begin, lists, seeds};
use crate::{
    Options,
    records::{NOW, apply, inventory, register, spec},
    report::Report,
};

const HOSTS: &str = "openb_node_list_all_node.csv";
const REQUESTS: &str = "openb_pod_list_default.csv";
/// How many times all hosts are there.
const COPIES: usize = 4;

/// Measures ours and the others. `hosts_vs_bound` is ours by the bound, the median of the seeds; the other keys are the same of other policies, which
/// see the same hosts and requests in the same order.
pub(super) fn run(options: &Options, report: &mut Report) -> Outcome {
    let files =
        (lists::file(options.hosts.as_ref(), HOSTS), lists::file(options.requests.as_ref(), REQUESTS));
    let (Some(hosts), Some(requests)) = files else { return Ok(()) };
    let hosts: Vec<Amounts> = lists::hosts(&hosts)?.into_iter().map(|host| host.amounts).collect();
    let mut requests: Vec<Amounts> =
        lists::requests(&requests)?.into_iter().map(|request| request.amounts).collect();
    let largest = |of: fn(&Amounts) -> u64| hosts.iter().map(of).max().unwrap_or(0);
    let (cpu, memory) = (largest(|host| host.cpu.0), largest(|host| host.memory.0));
    requests.retain(|request| request.cpu.0 <= cpu && request.memory.0 <= memory);
    if requests.is_empty() || requests.len() > MAX_PLACEMENTS {
        return wrong(format!(
            "{} requests that fit a host; 1 to {MAX_PLACEMENTS} are wanted",
            requests.len()
        ));
    }
    let mut cells =
        seeds(options).iter().map(|seed| Cell::new(*seed, &hosts, &requests)).collect::<Outcome<Vec<_>>>()?;
    report.note("compaction_requests", requests.len() as f64);
    let ours = cells.iter_mut().map(Cell::ours).collect::<Outcome<Vec<_>>>()?;
    note(report, "hosts_vs_bound", ours);
    for (name, policy) in POLICIES {
        let theirs = cells.iter_mut().map(|cell| cell.theirs(policy)).collect::<Outcome<Vec<_>>>()?;
        note(report, &format!("hosts_vs_bound_{name}"), theirs);
    }
    Ok(())
}

/// The median and the worst of the seeds.
fn note(report: &mut Report, key: &str, mut ratios: Vec<f64>) {
    ratios.sort_unstable_by(f64::total_cmp);
    report.note(key, ratios[ratios.len() / 2]);
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
        let requests = shuffled(requests);
        let hosts: Vec<Amounts> = (0..COPIES).flat_map(|_| shuffled(hosts)).collect();
        let asked = requests.iter().fold(Amounts::default(), |sum, request| sum + *request);
        let mut have = Amounts::default();
        let reached = hosts.iter().position(|host| {
            have += *host;
            asked.within(Amounts { disk: asked.disk, ..have })
        });
        let bound = reached.ok_or("all hosts together have less than is asked for")? + 1;
        let mut state = begin()?;
        for (number, request) in (1..).zip(&requests) {
            let mut spec: WorkloadSpec = spec(number, 1)?;
            (spec.resources.cpu, spec.resources.memory, spec.resources.disk) =
                (request.cpu, request.memory, request.disk);
            apply(&mut state, Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None })?;
        }
        Ok(Self { hosts, requests, bound, random, state })
    }

    /// The fewest of the first hosts on which all fits, by the bound. By halving: what fits on some fits on more.
    fn compacted(&mut self, mut fits: impl FnMut(&mut Self, usize) -> Outcome<bool>) -> Outcome<f64> {
        let (mut few, mut many) = (self.bound, self.hosts.len());
        if !fits(self, many)? {
            return wrong("all hosts together do not bear all requests");
        }
        while few < many {
            let middle = (few + many) / 2;
            if fits(self, middle)? { many = middle } else { few = middle + 1 }
        }
        Ok(many as f64 / self.bound as f64)
    }

    fn ours(&mut self) -> Outcome<f64> {
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

    fn theirs(&mut self, policy: Policy) -> Outcome<f64> {
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
        assert_eq!(cell.ours()?, 1.0);
        let (_, random) = POLICIES[0];
        assert!(cell.theirs(random)? >= 1.0);
        Ok(())
    }
}
