//! Conversions between these types and the API's messages.

use std::collections::BTreeSet;

use super::{Cores, Cpu, MAX_CPUS, MAX_NODES, Numa, NumaNode};
use crate::{
    amount::Bytes,
    problem::{Faults, Problem, Problems},
    v1,
    wire::wire_enum,
};

wire_enum!(Numa, "any or one", { Any, One }, 0 => Any);

impl Numa {
    /// Its number where it stands in a message: none for the usual one, so that what older versions wrote has the bytes that it had.
    pub(crate) fn number(self) -> i32 {
        if self == Self::default() { 0 } else { self.into() }
    }
}

impl From<Cores> for v1::GivenCores {
    fn from(cores: Cores) -> Self {
        (&cores).into()
    }
}

impl From<&Cores> for v1::GivenCores {
    fn from(cores: &Cores) -> Self {
        Self { cpus: cores.cpus.iter().map(|cpu| (*cpu).into()).collect(), node: cores.node.map(Into::into) }
    }
}

impl TryFrom<v1::GivenCores> for Cores {
    type Error = Problems;

    fn try_from(message: v1::GivenCores) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let cpus = faults.each("cpus", message.cpus, cpu_number);
        let node = message.node.map(|node| faults.take("node", node_number(node)));
        let is_sound = |cpus: &Vec<u16>| !cpus.is_empty() && cpus.is_sorted_by(|one, next| one < next);
        if let Some(cpus) = cpus.as_ref().filter(|cpus| !is_sound(cpus)) {
            faults.push(Problem::new("cpus", "processors, ascending", format!("{cpus:?}")));
        }
        let whole = || {
            let node = match node {
                Some(node) => Some(node?),
                None => None,
            };
            Some(Self { cpus: cpus?.into(), node })
        };
        let whole = whole();
        faults.finish(whole)
    }
}

fn cpu_number(number: u32) -> Result<u16, Problem> {
    let known = u16::try_from(number).ok().filter(|number| usize::from(*number) < MAX_CPUS);
    known.ok_or_else(|| Problem::new("", format!("a processor below {MAX_CPUS}"), number.to_string()))
}

fn node_number(number: u32) -> Result<u16, Problem> {
    u16::try_from(number).map_err(|_| Problem::new("", "a NUMA node below 65536", number.to_string()))
}

/// The nodes of a host as the API lists them.
pub fn nodes_to_wire(nodes: &[NumaNode]) -> Vec<v1::NumaNode> {
    let core = |cpus: &[Cpu]| v1::Core {
        cpus: cpus.iter().map(|cpu| cpu.number.into()).collect(),
        kept: cpus.iter().any(|cpu| cpu.kept),
    };
    let node = |node: &NumaNode| v1::NumaNode {
        number: node.number.into(),
        memory_bytes: node.memory.0,
        cores: node.cores().map(core).collect(),
    };
    nodes.iter().map(node).collect()
}

/// The nodes of a host, by number. Refuses a node or a processor that is listed twice, a core without processors, and too many of them.
pub fn nodes_from_wire(messages: Vec<v1::NumaNode>) -> Result<Vec<NumaNode>, Problems> {
    let mut faults = Faults::default();
    let (count, cpus) = (messages.len(), messages.iter().flat_map(|node| &node.cores));
    let cpus: usize = cpus.map(|core| core.cpus.len()).sum();
    if count > MAX_NODES || cpus > MAX_CPUS {
        let expected = format!("at most {MAX_NODES} nodes and {MAX_CPUS} processors");
        faults.push(Problem::new("", expected, format!("{count} and {cpus}")));
        return faults.finish(None);
    }
    let (mut seen_nodes, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut nodes = Vec::new();
    for (i, message) in messages.into_iter().enumerate() {
        let path = format!("[{i}].number");
        let Some(number) = faults.take(&path, node_number(message.number)) else { continue };
        if !seen_nodes.insert(number) {
            faults.push(Problem::new(path, "each node once", format!("{number} again")));
        }
        let mut cpus = Vec::new();
        for (j, core) in message.cores.into_iter().enumerate() {
            let path = format!("[{i}].cores[{j}].cpus");
            let Some(numbers) = faults.each(&path, core.cpus, cpu_number) else { continue };
            let Some(lowest) = numbers.iter().min().copied() else {
                faults.push(Problem::new(path, "the processors of the core", "nothing"));
                continue;
            };
            for number in numbers {
                if !seen.insert(number) {
                    faults.push(Problem::new(&path, "each processor once", format!("{number} again")));
                }
                cpus.push(Cpu { core: lowest, number, kept: core.kept });
            }
        }
        cpus.sort_unstable();
        nodes.push(NumaNode { number, memory: Bytes(message.memory_bytes), cpus });
    }
    nodes.sort_by_key(|node| node.number);
    faults.finish(Some(nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named() {
        let core = |cpus: &[u32]| v1::Core { cpus: cpus.to_vec(), kept: false };
        let node =
            |number, cores: &[v1::Core]| v1::NumaNode { number, memory_bytes: 1, cores: cores.to_vec() };
        let listed = vec![
            node(0, &[core(&[0, 1]), core(&[1]), core(&[])]),
            node(0, &[core(&[9_000])]),
            node(70_000, &[]),
        ];
        let problems = nodes_from_wire(listed).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["[0].cores[1].cpus", "[0].cores[2].cpus", "[1].number", "[1].cores[0].cpus[0]", "[2].number"]
        );
        let too_many = vec![node(0, &[]); MAX_NODES + 1];
        assert_eq!(nodes_from_wire(too_many).unwrap_err().0[0].found, "65 and 0");
        for (cpus, node) in [(vec![], None), (vec![2, 1], None), (vec![1, 1], None), (vec![1], Some(70_000))]
        {
            assert!(Cores::try_from(v1::GivenCores { cpus, node }).is_err());
        }
    }

    #[test]
    fn nodes_and_cores_are_put_in_order() {
        let core = |cpus: &[u32]| v1::Core { cpus: cpus.to_vec(), kept: cpus.contains(&0) };
        let listed = vec![
            v1::NumaNode { number: 1, memory_bytes: 2, cores: vec![core(&[7, 3]), core(&[6, 2])] },
            v1::NumaNode { number: 0, memory_bytes: 1, cores: vec![core(&[0, 4])] },
        ];
        let nodes = nodes_from_wire(listed).unwrap();
        let cpus: Vec<u16> = nodes.iter().flat_map(|node| &node.cpus).map(|cpu| cpu.number).collect();
        assert_eq!(cpus, [0, 4, 2, 6, 3, 7]);
        assert_eq!(nodes_from_wire(nodes_to_wire(&nodes)), Ok(nodes));
    }
}
