//! A ledger in memory, for a simulation: the same records, without a disk. What was written is there after a crash; what was not is not.

use std::collections::BTreeMap;

use super::{Batch, Contents, record};

/// See the head of the module.
#[derive(Debug, Clone)]
pub struct Memory {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Memory {
    /// A new one with this random id.
    #[must_use]
    pub fn begin(incarnation: &str) -> Self {
        Self { records: BTreeMap::from([(record::INCARNATION.to_vec(), record::text(incarnation))]) }
    }

    /// Writes a batch, whole.
    pub fn write(&mut self, batch: Batch) {
        for (key, value) in batch.changes {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
    }

    /// What it holds, as it is read at a start. Records that make no sense are left out.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for (key, value) in &self.records {
            // There is nobody to tell: nothing damages this ledger.
            let _ = record::load(&mut contents, key, value);
        }
        contents
    }
}
