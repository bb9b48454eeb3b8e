//! Counting refusals over all hosts: by filter, by what their reasons have in common, and which hosts came closest.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{FilterReason, FilterResult, MAX_NEAREST, MAX_REASONS, Shortfall};
use crate::{
    placement::ledger::Slot,
    state::fits::{Misfit, Reason},
};

/// The whole of what is needed, for the share of it that is missing.
const THOUSAND: u128 = 1000;

/// What each filter ruled out.
#[derive(Default)]
pub(super) struct Tally {
    filters: BTreeMap<&'static str, Refused>,
}

#[derive(Default)]
struct Refused {
    hosts: u32,
    groups: BTreeMap<Reason, Group>,
}

/// Hosts whose reasons have this in common.
struct Group {
    hosts: u32,
    first: Reason,
    /// Whether all gave the very same reason.
    alike: bool,
    /// The most that any of them has free.
    most_free: u64,
}

impl Tally {
    /// Counts one host's first refusal.
    pub(super) fn count(&mut self, misfit: &Misfit) {
        let refused = self.filters.entry(misfit.filter).or_default();
        refused.hosts += 1;
        for reason in &misfit.reasons {
            let free = reason.amounts().map_or(0, |(_, _, free)| free);
            let group = refused.groups.entry(reason.common()).or_insert_with(|| Group {
                hosts: 0,
                first: reason.clone(),
                alike: true,
                most_free: 0,
            });
            group.hosts += 1;
            group.alike &= group.first == *reason;
            group.most_free = group.most_free.max(free);
        }
    }

    /// Hosts that this filter ruled out.
    pub(super) fn ruled_out(&self, filter: &str) -> u32 {
        self.filters.get(filter).map_or(0, |refused| refused.hosts)
    }

    /// What this filter ruled out.
    pub(super) fn told(&self, filter: &'static str) -> FilterResult {
        let Some(refused) = self.filters.get(filter) else {
            return FilterResult { filter, hosts: 0, reasons: Vec::new(), others: 0 };
        };
        let mut groups: Vec<(&Reason, &Group)> = refused.groups.iter().collect();
        groups.sort_by_key(|(_, group)| Reverse(group.hosts));
        let words = |(common, group): &(&Reason, &Group)| FilterReason {
            reason: if group.alike { group.first.to_string() } else { common.with_at_most(group.most_free) },
            hosts: group.hosts,
        };
        let others = groups.len().saturating_sub(MAX_REASONS) as u32;
        let reasons = groups.iter().take(MAX_REASONS).map(words).collect();
        FilterResult { filter, hosts: refused.hosts, reasons, others }
    }
}

/// The hosts that came closest, the nearest first: with the fewest reasons that are no amount, then with the smallest share missing of what is needed, then with
/// the fewest amounts missing, then the oldest.
#[derive(Default)]
pub(super) struct Nearest {
    best: Vec<(Distance, Slot, Vec<Misfit>)>,
}

/// How far a host is from fitting; smaller is nearer.
type Distance = (usize, u128, usize);

impl Nearest {
    /// Looks at one more host; hosts come in the order of their slots.
    pub(super) fn offer(&mut self, slot: Slot, misfits: Vec<Misfit>) {
        let distance = distance(&misfits);
        let place = self.best.partition_point(|(other, _, _)| *other <= distance);
        if place < MAX_NEAREST {
            self.best.truncate(MAX_NEAREST - 1);
            self.best.insert(place, (distance, slot, misfits));
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Slot, &[Misfit])> {
        self.best.iter().map(|(_, slot, misfits)| (*slot, misfits.as_slice()))
    }
}

fn distance(misfits: &[Misfit]) -> Distance {
    let reasons = || misfits.iter().flat_map(|misfit| &misfit.reasons);
    let amounts = || reasons().filter_map(Reason::amounts).filter(|(_, needed, _)| *needed > 0);
    let missing = |(_, needed, free): (&str, u64, u64)| {
        u128::from(needed.saturating_sub(free)) * THOUSAND / u128::from(needed)
    };
    (reasons().count() - amounts().count(), amounts().map(missing).max().unwrap_or(0), amounts().count())
}

/// All that is missing on a host.
pub(super) fn shortfalls(misfits: &[Misfit]) -> Vec<Shortfall> {
    misfits
        .iter()
        .flat_map(|misfit| misfit.reasons.iter().map(move |reason| (misfit.filter, reason)))
        .map(|(filter, reason)| {
            let (what, needed, free) = reason.amounts().unwrap_or((filter, 0, 0));
            Shortfall { what, needed, free, reason: reason.to_string() }
        })
        .collect()
}
