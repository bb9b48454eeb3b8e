//! The processors of this machine by NUMA node and physical core, as the kernel tells them under `/sys`. A machine that tells no nodes is one node, and a
//! processor that tells no siblings is a core of its own.

use std::{collections::BTreeSet, fs, path::Path};

use supercloud_proto::{
    amount::Bytes,
    cores::{Cpu, MAX_NODES, NumaNode, parse_cpu_list},
};

/// Where the kernel tells of processors and nodes.
const SYSTEM: &str = "/sys/devices/system";

/// The nodes of this machine, which has so much memory; none where the kernel does not tell which processors are online.
pub(super) fn nodes(memory: Bytes) -> Vec<NumaNode> {
    nodes_below(Path::new(SYSTEM), memory)
}

fn nodes_below(system: &Path, memory: Bytes) -> Vec<NumaNode> {
    let list = |path: &str| parse_cpu_list(&fs::read_to_string(system.join(path)).ok()?);
    let Some(online) = list("cpu/online").filter(|online| !online.is_empty()) else { return Vec::new() };
    let cpu = |number: u16| {
        let folder = format!("cpu/cpu{number}/topology");
        // The older name is told by all kernels, the newer one by some.
        let siblings = list(&format!("{folder}/thread_siblings_list"));
        let mut siblings = siblings.unwrap_or_default();
        siblings.retain(|sibling| online.contains(sibling));
        Cpu { core: siblings.first().copied().unwrap_or(number), number, kept: false }
    };
    let numbers = list("node/online").unwrap_or_default();
    let node = |number: u16| {
        let mut cpus = list(&format!("node/node{number}/cpulist"))?;
        cpus.retain(|cpu| online.contains(cpu));
        let memory = memory_in(&fs::read_to_string(system.join(format!("node/node{number}/meminfo"))).ok()?)?;
        let mut cpus: Vec<Cpu> = cpus.into_iter().map(cpu).collect();
        cpus.sort_unstable();
        Some(NumaNode { number, memory, cpus })
    };
    let mut told: Vec<NumaNode> = numbers.into_iter().filter_map(node).collect();
    told.retain(|node| !node.cpus.is_empty());
    let is_whole = told.iter().map(|node| node.cpus.len()).sum::<usize>() == online.len();
    if is_whole && told.len() <= MAX_NODES && !has_shared_core(&told) {
        return told;
    }
    let mut cpus: Vec<Cpu> = online.iter().copied().map(cpu).collect();
    cpus.sort_unstable();
    vec![NumaNode { number: 0, memory, cpus }]
}

/// Whether siblings of one core stand in several nodes: each node would have a part of it.
fn has_shared_core(nodes: &[NumaNode]) -> bool {
    let mut cores = BTreeSet::new();
    nodes.iter().flat_map(NumaNode::cores).any(|core| core.first().is_some_and(|cpu| !cores.insert(cpu.core)))
}

/// `Node 0 MemTotal:  24684084 kB`.
fn memory_in(meminfo: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.split_once("MemTotal:"))?.1;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Bytes(kib.saturating_mul(1024)))
}

/// Marks the cores that are kept for what has none of its own: those of these processors, and as many more, from the first on, as make so many processors.
/// At least one is: everything else has to run somewhere.
pub(super) fn keep(nodes: &mut [NumaNode], shared: &[u16], least: u64) {
    let is_named = |cpu: &&Cpu| shared.contains(&cpu.number);
    let mut kept: Vec<u16> =
        nodes.iter().flat_map(|node| &node.cpus).filter(is_named).map(|cpu| cpu.core).collect();
    let mut cores: Vec<u16> = nodes.iter().flat_map(|node| &node.cpus).map(|cpu| cpu.core).collect();
    cores.sort_unstable();
    for core in cores {
        let of_kept = nodes.iter().flat_map(|node| &node.cpus).filter(|cpu| kept.contains(&cpu.core));
        if (of_kept.count() as u64) < least.max(1) {
            kept.push(core);
        }
    }
    let cpus = nodes.iter_mut().flat_map(|node| &mut node.cpus);
    cpus.for_each(|cpu| cpu.kept = kept.contains(&cpu.core));
}

#[cfg(test)]
mod tests {
    use supercloud_proto::cores::cpu_list;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Eight processors of which 7 is offline, two to a core; two nodes.
    fn machine() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cpu/online", "0-6\n");
        write(dir.path(), "node/online", "0-1\n");
        write(dir.path(), "node/node0/cpulist", "0-1,4-5\n");
        write(dir.path(), "node/node1/cpulist", "2-3,6-7\n");
        for node in 0..2 {
            let text = format!("Node {node} MemTotal:       2048 kB\nNode {node} MemFree: 1 kB\n");
            write(dir.path(), &format!("node/node{node}/meminfo"), &text);
        }
        for cpu in 0..8 {
            let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
            write(dir.path(), &format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &siblings);
        }
        dir
    }

    fn cores(nodes: &[NumaNode]) -> Vec<String> {
        let text = |core: &[Cpu]| {
            let list = cpu_list(core.iter().map(|cpu| cpu.number));
            if core.iter().all(|cpu| cpu.kept) { format!("{list} kept") } else { list }
        };
        nodes.iter().flat_map(NumaNode::cores).map(text).collect()
    }

    #[test]
    fn nodes_cores_and_siblings_are_read() {
        let dir = machine();
        let nodes = nodes_below(dir.path(), Bytes(9));
        assert_eq!(cores(&nodes), ["0,4", "1,5", "2,6", "3"]);
        let told: Vec<_> = nodes.iter().map(|node| (node.number, node.memory)).collect();
        assert_eq!(told, [(0, Bytes(2 << 20)), (1, Bytes(2 << 20))]);
    }

    #[test]
    fn a_machine_that_tells_less_is_one_node_of_single_cores() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nodes_below(dir.path(), Bytes(9)), []);
        write(dir.path(), "cpu/online", "0-1\n");
        let nodes = nodes_below(dir.path(), Bytes(9));
        assert_eq!((cores(&nodes), nodes[0].memory), (vec!["0".to_owned(), "1".to_owned()], Bytes(9)));
        // A node that does not tell all of its processors would leave some out.
        write(dir.path(), "node/online", "0\n");
        write(dir.path(), "node/node0/cpulist", "0\n");
        write(dir.path(), "node/node0/meminfo", "Node 0 MemTotal: 1 kB\n");
        assert_eq!(nodes_below(dir.path(), Bytes(9)), nodes);
    }

    #[test]
    fn nodes_that_share_a_core_or_are_too_many_are_told_as_one() {
        let dir = machine();
        write(dir.path(), "node/node0/cpulist", "0-1,6\n");
        write(dir.path(), "node/node1/cpulist", "2-5\n");
        assert_eq!(nodes_below(dir.path(), Bytes(9)).len(), 1);
        let dir = tempfile::tempdir().unwrap();
        let last = MAX_NODES + 1;
        write(dir.path(), "cpu/online", &format!("0-{last}\n"));
        write(dir.path(), "node/online", &format!("0-{last}\n"));
        for node in 0..=last {
            write(dir.path(), &format!("node/node{node}/cpulist"), &format!("{node}\n"));
            write(dir.path(), &format!("node/node{node}/meminfo"), "Node MemTotal: 1 kB\n");
        }
        let told = nodes_below(dir.path(), Bytes(9));
        assert_eq!((told.len(), told[0].cpus.len()), (1, last + 1));
    }

    #[test]
    fn this_machine_tells_its_processors() {
        let count = std::thread::available_parallelism().unwrap().get();
        let nodes = nodes(Bytes(1));
        assert!(nodes.iter().map(|node| node.cpus.len()).sum::<usize>() >= count, "{nodes:?}");
    }

    #[test]
    fn what_is_named_is_kept_and_as_much_as_is_reserved_and_never_nothing() {
        let kept = |shared: &[u16], least| {
            let dir = machine();
            let mut nodes = nodes_below(dir.path(), Bytes(9));
            keep(&mut nodes, shared, least);
            cores(&nodes).into_iter().filter(|core| core.ends_with("kept")).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(kept(&[], 0), "0,4 kept");
        assert_eq!(kept(&[], 3), "0,4 kept; 1,5 kept");
        assert_eq!(kept(&[6], 1), "2,6 kept");
        assert_eq!(kept(&[3], 2), "0,4 kept; 3 kept");
        assert_eq!(kept(&[0, 1, 2, 3, 99], 0), "0,4 kept; 1,5 kept; 2,6 kept; 3 kept");
    }
}
