//! Cores: the processors of a host as the kernel tells them, by NUMA node and physical core, and those that an instance has for itself. Conversions to and from
//! the API's messages stand in `wire`.
//!
//! Decision: *a physical core is called by the lowest of its logical processors*, and processors stand in one list a node, those of a core side by side: a host of
//! hundreds of processors takes some kilobytes.

use std::fmt;

use crate::amount::Bytes;

mod wire;

pub use self::wire::{nodes_from_wire, nodes_to_wire};

/// Most NUMA nodes of a host.
pub const MAX_NODES: usize = 64;
/// Most logical processors of a host: as many as the kernel can be built for.
pub const MAX_CPUS: usize = 8_192;

/// Processors and memory of a host that are near each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub number: u16,
    /// Its memory.
    pub memory: Bytes,
    /// Its logical processors, by core and number.
    pub cpus: Vec<Cpu>,
}

/// One logical processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    /// The lowest number of a processor of the same physical core.
    pub core: u16,
    /// Its number.
    pub number: u16,
    /// Whether its core is kept for what has no cores of its own.
    pub kept: bool,
}

impl NumaNode {
    /// Its physical cores, each by its logical processors.
    pub fn cores(&self) -> impl Iterator<Item = &[Cpu]> {
        self.cpus.chunk_by(|one, other| one.core == other.core)
    }
}

/// Where the cores of an instance are, and its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Numa {
    /// Of any NUMA nodes.
    #[default]
    Any,
    /// All of one.
    One,
}

impl Numa {
    /// Every word.
    pub const ALL: [Self; 2] = [Self::Any, Self::One];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::One => "one",
        }
    }
}

/// The cores that an instance has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores {
    /// Logical processors, ascending: all of each physical core.
    pub cpus: Box<[u16]>,
    /// The node of all of them and of the memory, where it is to be one.
    pub node: Option<u16>,
}

impl fmt::Display for Cores {
    /// `2-3,6`, `2-3 of node 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&cpu_list(self.cpus.iter().copied()))?;
        self.node.map_or(Ok(()), |node| write!(f, " of node {node}"))
    }
}

/// Processors, which come ascending, as the kernel lists them: `0-3,8`.
pub fn cpu_list(cpus: impl Iterator<Item = u16>) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let text = |(first, last): (u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// What a list of processors looks like.
pub const CPU_LIST_EXPECTED: &str = "processors as \"0-3,8\"";

/// The processors that a list names, ascending and each once; `None`: it is no list.
pub fn parse_cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| is_number && usize::from(*number) < MAX_CPUS)
    };
    for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, cpus) in
            [("", vec![]), ("0", vec![0]), ("0-3,8", vec![0, 1, 2, 3, 8]), ("1,3", vec![1, 3])]
        {
            assert_eq!(parse_cpu_list(text).as_ref(), Some(&cpus), "{text}");
            assert_eq!(cpu_list(cpus.into_iter()), text);
        }
        assert_eq!(parse_cpu_list("3,0-1,1\n"), Some(vec![0, 1, 3]));
        for bad in ["a", "1-", "-1", "2-1", "1,,2", "8192", "99999", "+1", "0x1"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn processors_of_a_core_stand_together() {
        let cpu = |core, number| Cpu { core, number, kept: false };
        let cpus = vec![cpu(0, 0), cpu(0, 4), cpu(1, 1), cpu(2, 2), cpu(2, 6)];
        let node = NumaNode { number: 0, memory: Bytes(0), cpus };
        let cores: Vec<Vec<u16>> =
            node.cores().map(|core| core.iter().map(|cpu| cpu.number).collect()).collect();
        assert_eq!(cores, [vec![0, 4], vec![1], vec![2, 6]]);
        assert_eq!(Cores { cpus: [0, 4].into(), node: Some(0) }.to_string(), "0,4 of node 0");
    }
}
