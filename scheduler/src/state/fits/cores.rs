//! Cores of one's own: whether enough whole physical cores are free, of one NUMA node where that is asked for, and which of them an instance gets.
//!
//! Decisions. *Whole physical cores are given*: where logical processors share a core, all of them, so that nobody's neighbour is on it; what that is more
//! than was asked for counts as taken, too. *Cores are counted once and in full*: what has none of its own must fit into the processor time that is left, by
//! its site's policy, and stays off the cores that are given. *Nodes are left whole*: a request goes to the node on which the fewest processors stay
//! free (where cores differ, the fewest are taken), and over several nodes only where none has enough. *Memory is bound where the node is*: what must be of one node gets memory of that node alone,
//! and no node gives more of it than it has; who may have memory anywhere is not held against a node.

use std::cmp::Reverse;

use supercloud_proto::{
    amount::Bytes,
    cores::{Cores, Cpu, Numa, NumaNode},
};

use super::{Candidate, Reason, Request};
use crate::state::model::{CoresUse, cpus_needed};

/// Enough whole cores are free; chosen ones are whole cores that are free, and no more than it takes. That they are free as processor time too, beside what
/// has none of its own, the filter `resources` asks.
pub(super) fn cores(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let is_asked = request.spec.resources.dedicated;
    match request.cores {
        None | Some(None) if !is_asked => Vec::new(),
        None => candidate.any_cores(request).into_iter().collect(),
        Some(None) => vec![Reason::CoresUnasked],
        Some(Some(chosen)) => candidate.chosen_cores(request, chosen).into_iter().collect(),
    }
}

/// They are all of one node with all of the memory, where that is asked for.
pub(super) fn numa(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    if !request.spec.resources.dedicated || request.spec.resources.numa == Numa::Any {
        return Vec::new();
    }
    let needed = cpus_needed(request.spec);
    let all = &candidate.host.inventory.nodes;
    let most = all.iter().map(|node| candidate.free_cpus_of(node)).max().unwrap_or(0);
    if most < needed {
        return vec![Reason::FewCoresOfNode { needed, free: most }];
    }
    let fits = |node: &&NumaNode| candidate.free_cpus_of(node) >= needed;
    let memory = all.iter().filter(fits).map(|node| candidate.free_memory_of(node)).max();
    let (needed, free) = (request.demand.memory, memory.unwrap_or_default());
    if needed <= free { Vec::new() } else { vec![Reason::LittleMemoryOfNode { needed, free }] }
}

impl Candidate<'_> {
    fn any_cores(&self, request: &Request<'_>) -> Option<Reason> {
        let nodes = &self.host.inventory.nodes;
        if nodes.is_empty() {
            return Some(Reason::CoresUntold);
        }
        let needed = cpus_needed(request.spec);
        let free = self.free_cpus();
        (free < needed).then_some(Reason::FewCores { needed, free })
    }

    fn chosen_cores(&self, request: &Request<'_>, chosen: &Cores) -> Option<Reason> {
        let is_of = |node: &&NumaNode| chosen.node.is_none_or(|number| number == node.number);
        let nodes = self.host.inventory.nodes.iter().filter(is_of);
        let is_chosen = |core: &&[Cpu]| core.iter().all(|cpu| chosen.cpus.binary_search(&cpu.number).is_ok());
        let whole: Vec<&[Cpu]> = nodes.flat_map(NumaNode::cores).filter(is_chosen).collect();
        let count: usize = whole.iter().map(|core| core.len()).sum();
        let needed = cpus_needed(request.spec);
        let least = whole.iter().map(|core| core.len()).min().unwrap_or(0);
        let is_asked = request.spec.resources.dedicated
            && chosen.node.is_some() == (request.spec.resources.numa == Numa::One)
            && count == chosen.cpus.len()
            && count as u64 >= needed
            && ((count - least) as u64) < needed
            && !whole.iter().any(|core| core.iter().any(|cpu| cpu.kept));
        if !is_asked {
            return Some(Reason::CoresUnasked);
        }
        if let Some(taken) = chosen.cpus.iter().find(|cpu| self.used.cores.holds(**cpu)) {
            return Some(Reason::CoreTaken(*taken));
        }
        let node = self.host.inventory.nodes.iter().find(|node| Some(node.number) == chosen.node);
        let free = node.map(|node| self.free_memory_of(node)).filter(|free| *free < request.demand.memory)?;
        Some(Reason::LittleMemoryOfNode { needed: request.demand.memory, free })
    }

    /// Logical processors of the cores that are free.
    pub fn free_cpus(&self) -> u64 {
        self.host.inventory.nodes.iter().map(|node| self.free_cpus_of(node)).sum()
    }

    /// The same of one node.
    pub fn free_cpus_of(&self, node: &NumaNode) -> u64 {
        free_cores(node, &self.used.cores).map(|core| core.len() as u64).sum()
    }

    /// Memory of a node that is free for what must have all of its memory there.
    fn free_memory_of(&self, node: &NumaNode) -> Bytes {
        let whole = self.host.inventory.allocatable_memory_of(node);
        Bytes(whole.0.saturating_sub(self.used.cores.memory_of(node.number).0))
    }

    /// The cores that an instance should get; `None` where there are too few, or none are asked for.
    pub fn choose_cores(&self, request: &Request<'_>) -> Option<Cores> {
        let needed = cpus_needed(request.spec);
        if needed == 0 {
            return None;
        }
        let nodes = &self.host.inventory.nodes;
        let is_one = request.spec.resources.numa == Numa::One;
        let has_memory = |node: &&NumaNode| !is_one || self.free_memory_of(node) >= request.demand.memory;
        let fitting = nodes.iter().filter(has_memory).map(|node| (self.free_cpus_of(node), node));
        let choices = fitting.filter(|(free, _)| *free >= needed).map(|(free, node)| {
            (free, node.number, fewest(free_cores(node, &self.used.cores).collect(), needed))
        });
        let best = choices.min_by_key(|(free, number, cores)| (cpus_of(cores), *free, *number));
        if let Some((_, number, cores)) = best {
            return Some(Cores { cpus: ascending(cores), node: is_one.then_some(number) });
        }
        if is_one { None } else { self.over_several(needed) }
    }

    /// Cores of several nodes, of as few as can be: of those with the most free ones all, and of the last one what is still needed.
    fn over_several(&self, needed: u64) -> Option<Cores> {
        let mut nodes: Vec<(u64, &NumaNode)> =
            self.host.inventory.nodes.iter().map(|node| (self.free_cpus_of(node), node)).collect();
        nodes.sort_by_key(|(free, node)| (Reverse(*free), node.number));
        let (mut cores, mut missing) = (Vec::new(), needed);
        while missing > 0 {
            // The fullest of those that have the rest; else the emptiest.
            let last = nodes.iter().rposition(|(free, _)| *free >= missing);
            let (free, node) = if nodes.is_empty() { return None } else { nodes.remove(last.unwrap_or(0)) };
            cores.extend(fewest(free_cores(node, &self.used.cores).collect(), missing.min(free)));
            missing = missing.saturating_sub(free);
        }
        without_spare(&mut cores, needed);
        Some(Cores { cpus: ascending(cores), node: None })
    }
}

/// The cores of a node that may be given and are not, lowest first.
fn free_cores<'n>(node: &'n NumaNode, used: &CoresUse) -> impl Iterator<Item = &'n [Cpu]> {
    node.cores().filter(move |core| !core.iter().any(|cpu| cpu.kept || used.holds(cpu.number)))
}

/// Logical processors of as many of these cores as have so many, with few too many: the largest cores that are not too large, and then the smallest that has the rest.
fn fewest(mut cores: Vec<&[Cpu]>, needed: u64) -> Vec<&[Cpu]> {
    cores.sort_by_key(|core| Reverse(core.len()));
    let (mut chosen, mut left, mut missing) = (Vec::new(), Vec::new(), needed);
    for core in cores {
        let count = core.len() as u64;
        if count <= missing {
            missing -= count;
            chosen.push(core);
        } else {
            left.push(core);
        }
    }
    if missing > 0
        && let Some(last) = left.into_iter().min_by_key(|core| core.len())
    {
        chosen.push(last);
        // One that covers more than the rest may make a smaller one needless.
        without_spare(&mut chosen, needed);
    }
    chosen
}

/// Leaves out cores without which there are enough, the smallest first: then each that is left is needed.
fn without_spare(cores: &mut Vec<&[Cpu]>, needed: u64) {
    cores.sort_by_key(|core| Reverse(core.len()));
    let mut spare = cpus_of(cores).saturating_sub(needed);
    while let Some(place) = cores.iter().rposition(|core| core.len() as u64 <= spare) {
        spare -= cores.remove(place).len() as u64;
    }
}

/// How many logical processors these cores have.
fn cpus_of(cores: &[&[Cpu]]) -> u64 {
    cores.iter().map(|core| core.len() as u64).sum()
}

fn ascending(cores: Vec<&[Cpu]>) -> Box<[u16]> {
    let mut cpus: Vec<u16> = cores.into_iter().flatten().map(|cpu| cpu.number).collect();
    cpus.sort_unstable();
    cpus.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use supercloud_proto::amount::MilliCpu;

    use super::*;
    use crate::state::tests::world::{World, service};

    /// A node of cores of these sizes; the numbers of its processors go on from `first`.
    fn node(number: u16, sizes: &[(u16, u8)], first: &mut u16) -> NumaNode {
        let mut cpus = Vec::new();
        for (size, standing) in sizes {
            let core = *first;
            *first += size;
            cpus.extend((core..*first).map(|number| Cpu { core, number, kept: *standing == 1 }));
        }
        NumaNode { number, memory: Bytes(1 << 30), cpus }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_chosen_may_be_given_and_there_is_a_choice_wherever_there_are_enough(
            // The sizes of cores, and whether they are free, kept or taken.
            sizes in prop::collection::vec(prop::collection::vec((1u16..4, 0u8..3), 0..5), 1..4),
            needed in 1u64..12,
            is_one in any::<bool>(),
        ) {
            let world = World::with_hosts(&["h1"]);
            let mut host = crate::state::Host::clone(world.state.host_named("h1").unwrap());
            let mut first = 0;
            std::sync::Arc::make_mut(&mut host.inventory).nodes = (0..).zip(&sizes).map(|(number, sizes)| node(number, sizes, &mut first)).collect();
            let mut used = world.state.used(host.id).clone();
            let standing: Vec<u8> = sizes.iter().flatten().flat_map(|(size, standing)| vec![*standing; usize::from(*size)]).collect();
            let taken: Vec<u16> = (0..first).filter(|cpu| standing[usize::from(*cpu)] == 2).collect();
            used.cores.give(&Cores { cpus: taken.into(), node: None }, Bytes(0));
            let candidate = Candidate { host: &host, used: &used, ..Candidate::new(&world.state, &host) };
            let mut spec = service("own", 1);
            (spec.resources.dedicated, spec.resources.cpu) = (true, MilliCpu(needed * 1_000));
            (spec.resources.memory, spec.resources.numa) = (Bytes(1 << 20), if is_one { Numa::One } else { Numa::Any });
            let key = spec.key();
            let request = Request::new(&key, &spec);
            let most = host.inventory.nodes.iter().map(|node| candidate.free_cpus_of(node));
            let most = if is_one { most.max().unwrap_or(0) } else { most.sum() };
            let chosen = candidate.choose_cores(&request);
            prop_assert_eq!(chosen.is_some(), most >= needed);
            if let Some(cores) = chosen {
                prop_assert_eq!(candidate.chosen_cores(&request, &cores), None);
            }
        }
    }

    fn chosen(sizes: &[usize], needed: u64) -> usize {
        let mut number = 0;
        let mut core = |size: usize| -> Vec<Cpu> {
            let first = number;
            number += size as u16;
            (first..number).map(|number| Cpu { core: first, number, kept: false }).collect()
        };
        let cores: Vec<Vec<Cpu>> = sizes.iter().map(|size| core(*size)).collect();
        cpus_of(&fewest(cores.iter().map(Vec::as_slice).collect(), needed)) as usize
    }

    #[test]
    fn as_few_too_many_as_can_be() {
        for (sizes, needed, count) in [
            (&[1, 1, 1][..], 2, 2),
            (&[2, 2, 2], 3, 4),
            (&[2, 2, 1], 3, 3),
            (&[2, 1, 1], 1, 1),
            (&[2, 2], 1, 2),
            (&[4, 2, 1], 3, 3),
            (&[2, 4], 3, 4),
            (&[8, 8], 9, 16),
        ] {
            assert_eq!(chosen(sizes, needed), count, "{needed} of {sizes:?}");
        }
    }
}
