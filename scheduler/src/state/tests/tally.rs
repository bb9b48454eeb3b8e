//! How often what a property is about came to pass over a whole run: of a property whose cases are mostly empty nobody knows whether it holds.

use std::{cell::RefCell, collections::BTreeMap};

/// Counts by what is counted.
#[derive(Debug, Default)]
pub struct Tally(RefCell<BTreeMap<&'static str, u32>>);

impl Tally {
    /// Counts something if it is so.
    pub fn note(&self, what: &'static str, is_so: bool) {
        *self.0.borrow_mut().entry(what).or_default() += u32::from(is_so);
    }

    /// Panics where something came to pass more seldom than this.
    pub fn expect(&self, least: &[(&'static str, u32)]) {
        let counts = self.0.borrow();
        println!("{counts:?}");
        let is_rare = |(what, least): &&(&'static str, u32)| counts.get(what).copied().unwrap_or(0) < *least;
        let rare: Vec<_> = least.iter().filter(is_rare).collect();
        assert!(rare.is_empty(), "too seldom: {rare:?}, found {counts:?}");
    }
}
