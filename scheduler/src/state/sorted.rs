//! Order that saves memory: a small set in one piece, and the way to fill a tree.
//!
//! The set is for what is some hundreds at most, such as what one host has: there it takes a third of the memory of a tree and is copied in one
//! go.

/// A set of few.
#[derive(Debug, PartialEq, Eq)]
pub struct Sorted<T>(Vec<T>);

/// Places that a copy has to spare: mostly it is made to put one in, and would be moved at once.
const SPARE: usize = 2;

impl<T: Clone> Clone for Sorted<T> {
    fn clone(&self) -> Self {
        let mut copy = Vec::with_capacity(self.0.len() + SPARE);
        copy.extend_from_slice(&self.0);
        Self(copy)
    }
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord + Copy> Sorted<T> {
    /// Puts one in.
    pub fn insert(&mut self, item: T) {
        if self.0.last().is_none_or(|last| *last < item) {
            // What grows with the log comes in order.
            self.0.push(item);
        } else if let Err(place) = self.0.binary_search(&item) {
            self.0.insert(place, item);
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, item: &T) {
        if let Ok(place) = self.0.binary_search(item) {
            self.0.remove(place);
        }
    }

    /// Whether it is in.
    pub fn contains(&self, item: &T) -> bool {
        self.0.binary_search(item).is_ok()
    }

    /// Whether all of it is in another one.
    pub fn is_within(&self, other: &Self) -> bool {
        let mut others = other.0.iter();
        self.0.iter().all(|item| others.any(|other| other == item))
    }

    /// How many there are from `first` to `last`, both included.
    pub fn count_between(&self, first: T, last: T) -> usize {
        let (from, to) =
            (self.0.partition_point(|item| *item < first), self.0.partition_point(|item| *item <= last));
        to.saturating_sub(from)
    }

    /// The last one.
    pub fn last(&self) -> Option<&T> {
        self.0.last()
    }

    /// All, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a, T> IntoIterator for &'a Sorted<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Items that come in order, in the order in which they fill a B-tree's leaves: every other one first, and then those between. A tree that is
/// filled in plain order splits its last leaf in halves again and again, and leaves each of them half empty for ever.
pub fn densely<T>(items: Vec<T>) -> impl Iterator<Item = T> {
    let (mut first, mut between) =
        (Vec::with_capacity(items.len().div_ceil(2)), Vec::with_capacity(items.len() / 2));
    for (place, item) in items.into_iter().enumerate() {
        if place % 2 == 0 { first.push(item) } else { between.push(item) }
    }
    first.into_iter().chain(between)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_lost_between() {
        assert_eq!(densely(vec![0, 1, 2, 3, 4]).collect::<Vec<_>>(), [0, 2, 4, 1, 3]);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_tree_holds(steps in proptest::collection::vec((any::<bool>(), 0..20u8), 0..60)) {
            let (mut sorted, mut tree) = (Sorted::default(), BTreeSet::new());
            for (insert, item) in steps {
                if insert { sorted.insert(item) } else { sorted.remove(&item) }
                if insert { tree.insert(item) } else { tree.remove(&item) };
                prop_assert!(sorted.iter().eq(tree.iter()));
                prop_assert_eq!(sorted.contains(&item), insert);
                prop_assert_eq!(sorted.count_between(5, 9), tree.range(5..=9).count());
                let mut more = sorted.clone();
                more.insert(20);
                prop_assert!(sorted.is_within(&more) && sorted.is_within(&sorted) && !more.is_within(&sorted));
            }
        }
    }
}
