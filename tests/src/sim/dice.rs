//! All chance of a run, from its seed. Nobody else in the simulation may roll dice, read a clock, or walk a hash map.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// The dice of one run.
#[derive(Debug)]
pub(super) struct Dice(StdRng);

impl Dice {
    /// The dice of a seed.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Any number.
    pub(super) fn any(&mut self) -> u64 {
        self.0.random()
    }

    /// A number below `end`; 0 where there is none.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// A number from `low` to `high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// So many times of a thousand.
    pub(super) fn permille(&mut self, times: u64) -> bool {
        times > 0 && self.below(1000) < times
    }

    /// One of these.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }

    /// Dice of their own for a part of the run, so that one more roll there changes no other part.
    pub(super) fn fork(&mut self) -> Self {
        Self::new(self.any())
    }
}
