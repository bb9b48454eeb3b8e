//! Hash maps whose keys are numbers of our own, as slots and ids of hosts. Nobody outside chooses these, so that a product will do for a hash, at a tenth
//! of what the standard one costs.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// By numbers that follow each other more or less.
pub(super) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<OfNumber>>;

/// An odd number with its bits well mixed: 2^64 by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes one number.
#[derive(Debug, Default)]
pub(super) struct OfNumber(u64);

impl Hasher for OfNumber {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(FACTOR);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
