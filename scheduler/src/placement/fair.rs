//! Fairness between boroughs: whose turn it is among those that wait with the same priority.
//!
//! It is the turn of whoever has the smallest *dominant share* of the estate (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011): the larger of its
//! shares of all processors and of all memory, by what its placed instances take. So ten thousand requests of one borough do not delay the one of
//! another, and whoever has little of the estate comes before whoever has much.
//!
//! Shares are compared in [steps](STEPS) of the estate, and equal ones by the boroughs' names. A turn lasts until its borough comes to the next step, so
//! that on a small estate boroughs take turns one by one, and on a large one hundreds of instances of a workload stay together, which makes them cheap.
//! Whose turn ends when depends on nobody else: so it does not matter who else waits in vain.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use supercloud_proto::{amount::Amounts, name::BoroughName};

use crate::state::State;

/// Steps in which shares are compared: the whole estate. A step of an estate of a million instances is some 250 of them.
const STEPS: u128 = 4_096;

/// Number of a borough. Numbers say nothing of an order.
pub(super) type Number = usize;

/// Processor and memory of all hosts. No host can make the sum say less than what the others have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Whole {
    cpu: u128,
    memory: u128,
}

impl Whole {
    pub(super) fn add(&mut self, amounts: Amounts) {
        self.cpu += u128::from(amounts.cpu.0);
        self.memory += u128::from(amounts.memory.0);
    }

    /// Takes out what was added.
    pub(super) fn remove(&mut self, amounts: Amounts) {
        self.cpu -= u128::from(amounts.cpu.0);
        self.memory -= u128::from(amounts.memory.0);
    }
}

/// What each borough has.
#[derive(Default)]
pub(super) struct Boroughs {
    numbers: HashMap<BoroughName, Number>,
    /// By number, with what its placed instances take.
    known: Vec<(BoroughName, Amounts)>,
    whole: Whole,
}

impl Boroughs {
    /// Takes what they have from a state whose hosts have so much in all.
    pub(super) fn catch_up(&mut self, state: &State, whole: Whole) {
        self.whole = whole;
        self.known.iter_mut().for_each(|(_, taken)| *taken = Amounts::default());
        for (borough, taken) in state.taken_by_borough() {
            let number = self.number(borough);
            self.known[number].1 = *taken;
        }
    }

    /// The number of a borough.
    pub(super) fn number(&mut self, borough: &BoroughName) -> Number {
        if let Some(number) = self.numbers.get(borough) {
            return *number;
        }
        self.numbers.insert(borough.clone(), self.known.len());
        self.known.push((borough.clone(), Amounts::default()));
        self.known.len() - 1
    }

    /// Counts what an instance of a borough is given.
    pub(super) fn give(&mut self, borough: Number, amounts: Amounts) {
        self.known[borough].1 += amounts;
    }

    /// How many whole steps of the estate a borough has.
    fn steps(&self, borough: Number) -> u64 {
        let (_, taken) = self.known[borough];
        let steps = |part: u64, whole: u128| (u128::from(part) * STEPS).checked_div(whole).unwrap_or(0);
        let dominant = steps(taken.cpu.0, self.whole.cpu).max(steps(taken.memory.0, self.whole.memory));
        u64::try_from(dominant).unwrap_or(u64::MAX)
    }

    /// Processor and memory of which a borough must have less to have no more than so many whole steps.
    fn bounds(&self, steps: u64) -> [u64; 2] {
        [self.whole.cpu, self.whole.memory].map(|whole| {
            let bound = whole.saturating_mul(u128::from(steps) + 1).div_ceil(STEPS);
            u64::try_from(bound).unwrap_or(u64::MAX)
        })
    }
}

/// The boroughs that wait, and whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    waiting: BinaryHeap<Reverse<(u64, BoroughName, Number)>>,
    /// The borough, and the processor and the memory at which its turn ends.
    turn: Option<(Number, [u64; 2])>,
}

impl Turns {
    /// A borough waits.
    pub(super) fn join(&mut self, boroughs: &Boroughs, borough: Number) {
        let (name, _) = &boroughs.known[borough];
        self.waiting.push(Reverse((boroughs.steps(borough), name.clone(), borough)));
    }

    /// Whose turn it is.
    pub(super) fn whose(&mut self, boroughs: &Boroughs) -> Option<Number> {
        if let Some((borough, [cpu, memory])) = self.turn {
            let (_, taken) = boroughs.known[borough];
            if taken.cpu.0 < cpu && taken.memory.0 < memory {
                return Some(borough);
            }
            self.join(boroughs, borough);
        }
        let Reverse((steps, _, borough)) = self.waiting.pop()?;
        self.turn = Some((borough, boroughs.bounds(steps)));
        Some(borough)
    }

    /// Whose turn it is has nobody left.
    pub(super) fn end(&mut self) {
        self.turn = None;
    }
}
