//! How many more instances of workloads may be missing, as far as that was asked in a pass.

use std::{collections::HashMap, sync::Arc};

use supercloud_proto::name::WorkloadKey;

use crate::{placement::ledger::Ledger, state::Instance};

/// Each workload that was asked about has a number.
#[derive(Debug, Clone, Default)]
pub(super) struct Spares {
    numbers: HashMap<WorkloadKey, usize>,
    left: Vec<u32>,
}

impl Spares {
    /// The number of a workload, which is looked up where it was not yet.
    pub(super) fn number(&mut self, ledger: &Ledger, key: &WorkloadKey) -> usize {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = self.left.len();
        self.left.push(may_miss(ledger, key));
        self.numbers.insert(key.clone(), number);
        number
    }

    /// How many more may be missing.
    pub(super) fn left(&self, number: usize) -> u32 {
        self.left[number]
    }

    /// Counts that one makes way.
    pub(super) fn count_gone(&mut self, key: &WorkloadKey) {
        if let Some(number) = self.numbers.get(key) {
            let left = &mut self.left[*number];
            *left = left.saturating_sub(1);
        }
    }
}

/// How many more instances of a workload may be missing: as many as in a rollout.
fn may_miss(ledger: &Ledger, key: &WorkloadKey) -> u32 {
    let Some(workload) = ledger.state().workload(key) else { return u32::MAX };
    let may = workload.current().spec.update.max_unavailable;
    if may == 0 {
        return 0;
    }
    let is_there = |instance: &&Arc<Instance>| {
        instance.placed.is_some() && instance.is_to_stay() && !ledger.is_doomed(instance.id)
    };
    let there = ledger.state().instances_of(key).filter(is_there).count() as u32;
    may.saturating_sub(workload.wanted().saturating_sub(there))
}
