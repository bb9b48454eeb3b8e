//! Lines: instances of one revision that wait, and what keeps them from hosts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use supercloud_proto::{
    amount::Amounts,
    id::{InstanceId, Revision},
    name::{WorkloadKey, WorkloadName},
};

use super::{Line, Place};
use crate::{
    placement::{
        fair::{Boroughs, Number},
        shapes::Needs,
    },
    state::{RevisionRecord, fits::Request},
};

/// What a borough would be charged, and what of its work makes way, or does not count while it waits: what is of a lower priority than this.
pub(super) type KeptBy = (Amounts, u32);

/// Instances of one revision.
pub(super) struct Waiters {
    pub(super) record: Arc<RevisionRecord>,
    /// Others make way for them: they are looked at in every pass. Of a gang see `awaited`.
    pub(super) are_awaited: bool,
    /// For whom of a gang others make way: for all, but for those who joined it since.
    pub(super) awaited: BTreeSet<InstanceId>,
    /// The slot of the only one, where its volumes live somewhere: its home is its own.
    pub(super) slot: Option<u32>,
    pub(super) borough: Number,
    /// Whether something was guaranteed to the borough when they became stuck.
    pub(super) is_guaranteed: bool,
    /// What each of them takes.
    pub(super) demand: Amounts,
    /// Whether its borough's quota did not let them in when they became stuck.
    pub(super) is_over: bool,
    /// What it would have been charged that its borough's quota did not let it in; see `kept`.
    pub(super) kept_by: KeptBy,
    /// For how many of a gang there was no host at least, as far as something was given back since.
    pub(super) missing: u64,
    /// The first of each run, with the last one.
    pub(super) runs: BTreeMap<InstanceId, InstanceId>,
    /// Where the line stands among the open ones: where the first of it does. `None`: it is stuck or kept.
    pub(super) place: Option<Place>,
}

impl Waiters {
    #[inline]
    pub(super) fn is_gang(&self) -> bool {
        self.record.spec.place.all_or_none
    }

    /// What the borough is charged at once.
    #[inline]
    pub(super) fn charge(&self) -> Amounts {
        if !self.is_gang() {
            return self.demand;
        }
        self.demand.times(self.count() - self.awaited.len() as u64)
    }

    /// What the next one takes, or all of a gang.
    pub(super) fn demand_of_all(&self) -> Amounts {
        if self.is_gang() { self.demand.times(self.count()) } else { self.demand }
    }

    /// How many there are.
    fn count(&self) -> u64 {
        let length = |(first, last): (&InstanceId, &InstanceId)| u64::from(last.ordinal - first.ordinal) + 1;
        self.runs.iter().map(length).sum()
    }

    /// Whether others make way for all of them.
    pub(super) fn are_all_awaited(&self) -> bool {
        if self.is_gang() { self.awaited.len() as u64 == self.count() } else { self.are_awaited }
    }

    /// Why it has no host: what its quota does not let in is not asked for any.
    pub(super) fn why(&self, boroughs: &Boroughs) -> Why {
        let (charge, priority) = self.keep();
        if boroughs.admits(self.borough, priority, charge) { Why::Hosts } else { Why::Quota }
    }

    /// What keeps it from its borough's quota.
    pub(super) fn keep(&self) -> KeptBy {
        (self.charge(), self.record.spec.priority)
    }

    #[inline]
    pub(super) fn place_of(&self, id: InstanceId) -> Place {
        ((Reverse(self.record.spec.priority), self.borough), id)
    }

    pub(super) fn first(&self) -> Option<InstanceId> {
        self.runs.keys().next().copied()
    }

    #[inline]
    pub(super) fn after(&self, id: InstanceId) -> Option<InstanceId> {
        let before = self.runs.range(..=id).next_back();
        if before.is_some_and(|(_, last)| id < *last) {
            return id.after();
        }
        self.runs.range((Excluded(id), Unbounded)).next().map(|(id, _)| *id)
    }

    pub(super) fn reopen(&mut self, line: Line, open: &mut BTreeMap<Place, Line>) {
        self.place = self.first().map(|first| self.place_of(first));
        open.extend(self.place.map(|place| (place, line)));
    }

    /// Those from one on.
    pub(super) fn unplaced(&self, from: InstanceId, why: Why) -> Unplaced {
        let length = |(first, last): (&InstanceId, &InstanceId)| {
            (last.ordinal + 1).saturating_sub(first.ordinal.max(if first.index == from.index {
                from.ordinal
            } else {
                0
            }))
        };
        let all = self.runs.iter().filter(|(_, last)| **last >= from);
        Unplaced {
            workload: self.record.key.clone(),
            revision: self.record.revision,
            instances: all.map(length).sum(),
            first: from,
            why,
        }
    }
}

/// What keeps a line from all hosts: what it needs, and where it says whom its instances must not meet, whose they are.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct StuckBy {
    needs: Needs,
    /// What is less urgent may make way.
    priority: u32,
    /// The borough, where something is guaranteed to it: what is beyond the guarantees of others may make way then.
    guaranteed: Option<Number>,
    /// The borough whose quota does not let it in, for whose sake what is less urgent of its own may make way.
    pub(super) over: Option<Number>,
    /// Whether it is a gang: how many hosts are missing goes by how many it is.
    pub(super) is_gang: bool,
    apart: Option<(WorkloadKey, bool, Vec<WorkloadName>)>,
    /// Whose volumes it mounts, if it mounts any.
    volumes: Option<(WorkloadKey, Option<u32>)>,
}

impl StuckBy {
    /// Whether it depends on what its borough has that others make way for it.
    pub(super) fn goes_by_accounts(&self) -> bool {
        self.guaranteed.is_some() || self.over.is_some()
    }

    pub(super) fn of(waiters: &Waiters) -> Self {
        let Waiters { record, borough, is_guaranteed, is_over, slot, .. } = waiters;
        let (key, place) = (&record.key, &record.spec.place);
        let is_apart = place.distinct_hosts || !place.apart.is_empty();
        let needs = Needs::of(&Request::new(key, &record.spec));
        let priority = record.spec.priority;
        Self {
            needs,
            priority,
            guaranteed: is_guaranteed.then_some(*borough),
            over: is_over.then_some(*borough),
            is_gang: place.all_or_none,
            apart: is_apart.then(|| (key.clone(), place.distinct_hosts, place.apart.clone())),
            volumes: record.spec.has_volumes().then(|| (key.clone(), *slot)),
        }
    }
}

impl StuckBy {
    /// Whether it mounts volumes of one of these workloads.
    pub(super) fn is_of_any(&self, workloads: &BTreeSet<WorkloadKey>) -> bool {
        self.volumes.as_ref().is_some_and(|(key, _)| workloads.contains(key))
    }
}

/// Instances of one revision that get no host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Workload.
    pub workload: WorkloadKey,
    /// Revision.
    pub revision: Revision,
    /// How many.
    pub instances: u32,
    /// The first of them.
    pub first: InstanceId,
    /// Why.
    pub why: Why,
}

/// Why something gets no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It fits none.
    Hosts,
    /// The quota of its borough does not let it in.
    Quota,
}
