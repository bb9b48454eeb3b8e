//! Shapes: what instances want, without whose they are. Instances of one shape fit the same hosts with the same scores, so they share one ordered list of
//! hosts, whatever workload they belong to. It is made once and repaired by what changed, over many passes.
//!
//! What depends on the workload itself cannot be shared: a workload whose instances must not meet on a host has a shape of its own, and for
//! one pass only, since whether its instances are in each other's way changes with more than what is given away of a host.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use supercloud_proto::{
    amount::Amounts,
    condition::Condition,
    name::{SiteName, WorkloadKey},
    spec::{DriverKind, Protocol, WorkloadSpec},
};

use super::{
    ledger::{Ledger, Slot},
    score::score,
};
use crate::state::{
    Instance, Placement, RevisionRecord,
    fits::{Request, choose_ports},
};

/// Most shapes that are kept, those used last: each takes 16 bytes for a host and as much again for its order, a third of a MiB for 10,000 hosts.
const MAX_SHAPES: usize = 64;
/// An order may hold so many times as many entries as there are hosts, before those that are out of date are thrown out.
const MAX_STALE: usize = 2;
/// Entries that are put up with however few hosts there are.
const MIN_ENTRIES: usize = 1_024;

/// All of a spec that decides where its instances fit, and how well.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wants {
    demand: Amounts,
    drivers: Vec<DriverKind>,
    ports: Vec<(Protocol, Option<u16>)>,
    sites: Vec<SiteName>,
    require: Vec<Condition>,
    /// Whose they are, where that matters.
    of: Option<WorkloadKey>,
}

impl Wants {
    fn of(request: &Request<'_>) -> Self {
        let WorkloadSpec { tasks, place, .. } = request.spec;
        let mut drivers: Vec<DriverKind> = tasks.iter().map(|task| task.driver.kind()).collect();
        drivers.sort_unstable();
        drivers.dedup();
        Self {
            demand: request.demand,
            drivers,
            ports: request.spec.ports().map(|(_, port)| (port.protocol, port.host)).collect(),
            sites: place.sites.clone(),
            require: place.require.clone(),
            of: place.distinct_hosts.then(|| request.key.clone()),
        }
    }
}

/// The shapes that were met of late.
#[derive(Default)]
pub(super) struct Shapes {
    /// Those used last, the latest at the end.
    live: Vec<Shape>,
    /// Whose shape the latest is: the next instance is mostly another one of the same.
    latest: Option<Arc<RevisionRecord>>,
}

impl Shapes {
    /// Gives the instance the best host that is left.
    pub(super) fn place(&mut self, ledger: &mut Ledger, instance: &Instance) -> Option<Placement> {
        self.bring_up(ledger, instance);
        self.live.last_mut().and_then(|shape| shape.place(ledger, instance))
    }

    /// Puts the shape of an instance at the end of `live`, made anew where it is not there.
    fn bring_up(&mut self, ledger: &Ledger, instance: &Instance) {
        if self.latest.as_ref().is_some_and(|latest| Arc::ptr_eq(latest, &instance.record)) {
            return;
        }
        let wants = Wants::of(&Request::of(instance));
        match self.live.iter().position(|shape| shape.wants == wants) {
            Some(at) => self.live[at..].rotate_left(1),
            None => {
                if self.live.len() == MAX_SHAPES {
                    self.live.remove(0);
                }
                self.live.push(Shape::new(ledger, wants, instance.record.clone()));
            }
        }
        self.latest = Some(instance.record.clone());
    }

    /// Ends a pass: what holds for it only is forgotten.
    pub(super) fn rest(&mut self) {
        self.live.retain(|shape| shape.wants.of.is_none());
        self.latest = None;
    }
}

/// The hosts with room for one shape, best first.
struct Shape {
    wants: Wants,
    /// A revision of this shape.
    example: Arc<RevisionRecord>,
    /// Hosts by score, ties by slot. What stands here with another score than in `scores` is out of date.
    best: BinaryHeap<(i64, Reverse<Slot>)>,
    /// The present score of a slot; `None`: it is out, until it changes.
    scores: Vec<Option<i64>>,
    /// Changes of the ledger that are taken into account.
    seen: usize,
}

impl Shape {
    fn new(ledger: &Ledger, wants: Wants, example: Arc<RevisionRecord>) -> Self {
        let mut shape = Self { wants, example, best: BinaryHeap::new(), scores: Vec::new(), seen: 0 };
        shape.begin_anew(ledger);
        shape
    }

    fn begin_anew(&mut self, ledger: &Ledger) {
        self.scores = ledger.slots().map(|slot| self.judge(ledger, slot)).collect();
        self.seen = ledger.changes();
        self.order();
    }

    /// Makes the order of hosts from their scores.
    fn order(&mut self) {
        let scored = self.scores.iter().enumerate();
        self.best = scored.filter_map(|(slot, score)| score.map(|score| (score, Reverse(slot)))).collect();
    }

    /// The score of a host with room. Of ten thousand hosts only the best are looked at more closely.
    fn judge(&self, ledger: &Ledger, slot: Slot) -> Option<i64> {
        let candidate = ledger.candidate(slot);
        let request = self.request(&self.example);
        let has_room = ledger.is_taken(slot) && candidate.has_room(&request);
        has_room.then(|| score(&candidate, &request))
    }

    /// What an instance of a revision of this shape asks for.
    fn request<'r>(&self, record: &'r RevisionRecord) -> Request<'r> {
        Request { key: &record.key, spec: &record.spec, demand: self.wants.demand, ports: None }
    }

    /// Takes into account what changed since.
    fn repair(&mut self, ledger: &Ledger) {
        let Some(changed) = ledger.changed_since(self.seen) else { return self.begin_anew(ledger) };
        self.scores.resize(ledger.slots().len(), None);
        for slot in changed {
            let score = self.judge(ledger, *slot);
            if let Some(score) = score.filter(|_| score != self.scores[*slot]) {
                self.best.push((score, Reverse(*slot)));
            }
            self.scores[*slot] = score;
        }
        self.seen = ledger.changes();
        if self.best.len() > MIN_ENTRIES.max(self.scores.len() * MAX_STALE) {
            self.order();
        }
    }

    /// The best host that fits; those above it that do not are out until they change.
    fn top(&mut self, ledger: &Ledger, request: &Request<'_>) -> Option<Slot> {
        loop {
            let (score, Reverse(slot)) = *self.best.peek()?;
            if self.scores[slot] == Some(score) {
                if ledger.candidate(slot).fits(request).is_ok() {
                    return Some(slot);
                }
                self.scores[slot] = None;
            }
            self.best.pop();
        }
    }

    fn place(&mut self, ledger: &mut Ledger, instance: &Instance) -> Option<Placement> {
        self.repair(ledger);
        let request = self.request(&instance.record);
        let slot = self.top(ledger, &request)?;
        let candidate = ledger.candidate(slot);
        let host = candidate.host.id;
        // The filter let the host pass, so there are ports; were the two ever to disagree, the instance would be pending, not misplaced.
        let ports = choose_ports(candidate.host, candidate.used, request.spec, instance.id)?;
        ledger.give(slot, instance, &request, &ports);
        Some(Placement { instance: instance.id, host, ports })
    }
}
