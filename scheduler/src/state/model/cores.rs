//! What is given away of a host's cores, and of the memory of its NUMA nodes: nothing on the many hosts on which nobody has cores of his own.

use supercloud_proto::{amount::Bytes, cores::Cores, spec::WorkloadSpec};

use crate::state::sorted::Sorted;

/// The cores that instances have for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoresUse(Option<Box<Given>>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Given {
    /// Logical processors.
    cpus: Sorted<u16>,
    /// Memory that must be of one node, by node; those of which none is are not there.
    memory: Vec<(u16, Bytes)>,
}

impl CoresUse {
    /// Whether a logical processor is given away.
    pub fn holds(&self, cpu: u16) -> bool {
        self.0.as_ref().is_some_and(|given| given.cpus.contains(&cpu))
    }

    /// The logical processors that are given away, ascending.
    pub fn cpus(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|given| given.cpus.iter().copied())
    }

    /// Memory of a node that is given away to what must have all of its memory there.
    pub fn memory_of(&self, node: u16) -> Bytes {
        let of = self.0.iter().flat_map(|given| &given.memory).find(|(number, _)| *number == node);
        of.map_or(Bytes(0), |(_, memory)| *memory)
    }

    /// Gives cores away to something that takes so much memory.
    pub fn give(&mut self, cores: &Cores, memory: Bytes) {
        let given = self.0.get_or_insert_default();
        cores.cpus.iter().for_each(|cpu| given.cpus.insert(*cpu));
        let Some(node) = cores.node else { return };
        match given.memory.binary_search_by_key(&node, |(number, _)| *number) {
            Ok(place) => given.memory[place].1.0 += memory.0,
            Err(place) => given.memory.insert(place, (node, memory)),
        }
    }

    /// Takes them back.
    pub fn take_back(&mut self, cores: &Cores, memory: Bytes) {
        let Some(given) = &mut self.0 else { return };
        cores.cpus.iter().for_each(|cpu| given.cpus.remove(cpu));
        if let Some(node) = cores.node
            && let Ok(place) = given.memory.binary_search_by_key(&node, |(number, _)| *number)
        {
            let left = given.memory[place].1.0.saturating_sub(memory.0);
            given.memory[place].1 = Bytes(left);
            if left == 0 {
                given.memory.remove(place);
            }
        }
        if **given == Given::default() {
            self.0 = None;
        }
    }

    /// Whether no less is given away in another one.
    pub fn is_within(&self, other: &Self) -> bool {
        let Some(given) = &self.0 else { return true };
        given.cpus.iter().all(|cpu| other.holds(*cpu))
            && given.memory.iter().all(|(node, memory)| *memory <= other.memory_of(*node))
    }
}

/// Processor time that cores make: what something that has them takes, whatever it asked for.
pub fn cpu_of(cores: &Cores) -> u64 {
    cores.cpus.len() as u64 * 1_000
}

/// How many logical processors of its own something of a spec needs; 0: none.
pub fn cpus_needed(spec: &WorkloadSpec) -> u64 {
    if spec.resources.dedicated { spec.resources.cpu.0.div_ceil(1_000) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_adds_up_and_nothing_is_left_of_what_is_taken_back() {
        let [first, second]: [Cores; 2] =
            [Cores { cpus: [2, 3].into(), node: Some(1) }, Cores { cpus: [0, 1].into(), node: Some(1) }];
        let mut used = CoresUse::default();
        used.give(&first, Bytes(5));
        let before = used.clone();
        used.give(&second, Bytes(7));
        assert_eq!(used.cpus().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((used.memory_of(1), used.memory_of(0)), (Bytes(12), Bytes(0)));
        assert!(used.holds(3) && !before.holds(0) && before.is_within(&used) && !used.is_within(&before));
        used.take_back(&second, Bytes(7));
        assert_eq!(used, before);
        used.take_back(&first, Bytes(5));
        assert_eq!(used, CoresUse::default());
        used.give(&Cores { cpus: [9].into(), node: None }, Bytes(5));
        assert_eq!(used.memory_of(0), Bytes(0), "memory of any node is nobody's");
    }
}
