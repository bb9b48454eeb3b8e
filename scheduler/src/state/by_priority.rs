//! Amounts by the priority of those who have them, the lowest first. Shared, so that a copy costs nothing and whoever holds one sees whether anything was counted since.

use std::sync::Arc;

use supercloud_proto::amount::Amounts;

/// What some have, by their priorities; of none that have nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ByPriority(Option<Arc<Vec<(u32, Amounts)>>>);

impl ByPriority {
    /// Counts what somebody has that had nothing.
    pub fn add(&mut self, priority: u32, amounts: Amounts) {
        self.change(priority, |of| of.saturating_add(amounts));
    }

    /// Counts no more what somebody had.
    pub fn take(&mut self, priority: u32, amounts: Amounts) {
        self.change(priority, |of| of.saturating_sub(amounts));
    }

    fn change(&mut self, priority: u32, change: impl FnOnce(Amounts) -> Amounts) {
        let of = Arc::make_mut(self.0.get_or_insert_default());
        let place = of.partition_point(|(other, _)| *other < priority);
        if of.get(place).is_none_or(|(other, _)| *other != priority) {
            of.insert(place, (priority, Amounts::default()));
        }
        of[place].1 = change(of[place].1);
        if of[place].1 == Amounts::default() {
            of.remove(place);
        }
        self.0.take_if(|of| of.is_empty());
    }

    fn each(&self) -> &[(u32, Amounts)] {
        self.0.as_ref().map_or(&[], |of| of.as_slice())
    }

    /// What those with lower priorities have.
    #[must_use]
    pub fn below(&self, priority: u32) -> Amounts {
        sum(self.each().iter().take_while(|(other, _)| *other < priority))
    }

    /// What those with higher priorities have.
    #[must_use]
    pub fn above(&self, priority: u32) -> Amounts {
        sum(self.each().iter().rev().take_while(|(other, _)| *other > priority))
    }

    /// What all have.
    #[must_use]
    pub fn all(&self) -> Amounts {
        sum(self.each().iter())
    }

    /// Whether nobody has anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether nothing was counted since the one was copied from the other.
    #[must_use]
    pub fn is_untouched(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

fn sum<'a>(of: impl Iterator<Item = &'a (u32, Amounts)>) -> Amounts {
    of.fold(Amounts::default(), |sum, (_, amounts)| sum.saturating_add(*amounts))
}

#[cfg(test)]
mod tests {
    use supercloud_proto::amount::{Bytes, MilliCpu};

    use super::*;

    #[test]
    fn what_is_counted_is_told_by_priority_until_it_is_no_more() {
        let of = |cpu: u64| Amounts { cpu: MilliCpu(cpu), memory: Bytes(cpu), disk: Bytes(0) };
        let mut counted = ByPriority::default();
        for (priority, cpu) in [(50, 1), (10, 2), (50, 4), (90, 8)] {
            counted.add(priority, of(cpu));
        }
        let copy = counted.clone();
        assert!(counted.is_untouched(&copy));
        assert_eq!((counted.below(50), counted.above(50), counted.all()), (of(2), of(8), of(15)));
        counted.take(50, of(5));
        assert!(!counted.is_untouched(&copy));
        assert_eq!((counted.below(90), copy.below(90)), (of(2), of(7)));
        for (priority, cpu) in [(10, 2), (90, 8)] {
            counted.take(priority, of(cpu));
        }
        assert!(counted.is_empty());
    }
}
