//! The naive judge's part on cores of one's own: hosts of its estates have the same number of processors on each core.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_proto::{
    cores::{Numa, NumaNode},
    spec::WorkloadSpec,
};

use crate::state::{Host, Instance};

/// How many processors share each core of a host.
fn threads(host: &Host) -> u64 {
    let mut cores = host.inventory.nodes.iter().flat_map(|node| &node.cpus);
    let first = cores.next().map(|cpu| cpu.core);
    1 + cores.take_while(|cpu| Some(cpu.core) == first).count() as u64
}

/// How many processors something has that asks for so many thousandths of them, on whole cores.
pub(super) fn needed(host: &Host, cpu: u64) -> u64 {
    let (asked, threads) = (cpu.div_ceil(1_000), threads(host));
    asked.div_ceil(threads) * threads
}

/// How many processors of a node are nobody's and may be somebody's.
fn free(cpus: &BTreeSet<u16>, node: &NumaNode) -> u64 {
    node.cpus.iter().filter(|cpu| !cpu.kept && !cpus.contains(&cpu.number)).count() as u64
}

/// Whether an instance with this memory finds cores of its own beside those that are given away, as far as it asks for some.
pub(super) fn are_free(
    cpus: &BTreeSet<u16>,
    bound: &BTreeMap<u16, u64>,
    host: &Host,
    spec: &WorkloadSpec,
    memory: u64,
) -> bool {
    if !spec.resources.dedicated {
        return true;
    }
    let (nodes, needed) = (&host.inventory.nodes, needed(host, spec.resources.cpu.0));
    let kept = host.inventory.reserved.memory.0.div_ceil(nodes.len().max(1) as u64);
    match spec.resources.numa {
        Numa::Any => nodes.iter().map(|node| free(cpus, node)).sum::<u64>() >= needed,
        Numa::One => nodes.iter().any(|node| {
            let bound = bound.get(&node.number).copied().unwrap_or(0);
            free(cpus, node) >= needed && bound + memory + kept <= node.memory.0
        }),
    }
}

/// Adds the cores of an instance up, and says what is wrong with them.
pub(super) fn load(
    cpus: &mut BTreeSet<u16>,
    bound: &mut BTreeMap<u16, u64>,
    host: &Host,
    instance: &Instance,
) {
    let (id, resources) = (instance.id, &instance.spec().resources);
    assert_eq!(instance.cores().is_some(), resources.dedicated, "{id} has what it asks for");
    let Some(cores) = instance.cores() else { return };
    assert_eq!(cores.cpus.len() as u64, needed(host, resources.cpu.0), "{id} has as many as it needs");
    assert_eq!(
        cores.node.is_some(),
        resources.numa == Numa::One,
        "{id} is of one node where it asks for that"
    );
    let known = |number: &u16| {
        let of = |node: &&NumaNode| node.cpus.iter().any(|cpu| cpu.number == *number && !cpu.kept);
        host.inventory.nodes.iter().find(of)
    };
    for cpu in &cores.cpus {
        assert!(cpus.insert(*cpu), "processor {cpu} of {} is given twice", host.name);
        let node =
            known(cpu).unwrap_or_else(|| panic!("processor {cpu} of {} is not to be given", host.name));
        assert!(cores.node.is_none_or(|number| number == node.number), "{id} is of two nodes");
        let core = node.cpus.iter().find(|of| of.number == *cpu).unwrap().core;
        let mut siblings = node.cpus.iter().filter(|of| of.core == core);
        assert!(siblings.all(|of| cores.cpus.contains(&of.number)), "{id} shares a core with others");
    }
    if let Some(node) = cores.node {
        *bound.entry(node).or_default() += instance.placed.as_ref().unwrap().taken.memory.0;
        let has = host.inventory.nodes.iter().find(|known| known.number == node).unwrap().memory.0;
        assert!(bound[&node] <= has, "node {node} of {} gives too much memory", host.name);
    }
}
