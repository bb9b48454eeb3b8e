//! Shapes: what instances want, without whose they are. Instances of one shape fit the same hosts with the same scores, so they share one ordered list of
//! hosts, whatever workload they belong to. It is made once and repaired by what changed, over many passes.
//!
//! A shape that is spread keeps a list for each group of hosts (see `spread`); a workload's counts tell which group it takes from. What depends on
//! the workload host by host cannot be shared: one whose instances must not meet on a host, or are spread over hosts, has a shape of its
//! own, and for one pass only, since whether its instances are in each other's way changes with more than what is given away of a host. As long as a
//! workload has no instance that the next one could meet, it needs neither, and shares the shape of those that are not spread.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use supercloud_proto::{
    amount::Amounts,
    condition::Condition,
    name::{SiteName, WorkloadKey},
    spec::{DriverKind, Protocol, SpreadOver, WorkloadSpec},
};

use super::{
    ledger::{Ledger, Slot},
    ranking::{Put, Rank, Ranking},
    score::score,
    spread::{Counts, Siblings},
};
use crate::state::{
    Instance, Placement, RevisionRecord,
    fits::{Request, choose_ports},
};

/// Most shapes that are kept, those used last: each takes 16 bytes for a host and as much again for its order, a third of a MiB for 10,000 hosts.
const MAX_SHAPES: usize = 64;

/// All of a spec that decides where its instances fit, and how well.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wants {
    demand: Amounts,
    drivers: Vec<DriverKind>,
    ports: Vec<(Protocol, Option<u16>)>,
    sites: Vec<SiteName>,
    require: Vec<Condition>,
    /// Whether its instances must not meet on a host.
    distinct: bool,
    /// What it is spread over.
    spread: Vec<SpreadOver>,
    /// Whose they are, where that matters.
    of: Option<WorkloadKey>,
}

impl Wants {
    /// Of an instance with or without siblings.
    fn of(request: &Request<'_>, has_siblings: bool) -> Self {
        let WorkloadSpec { tasks, place, .. } = request.spec;
        let mut drivers: Vec<DriverKind> = tasks.iter().map(|task| task.driver.kind()).collect();
        drivers.sort_unstable();
        drivers.dedup();
        let spread = if has_siblings { place.spread.clone() } else { Vec::new() };
        let distinct = has_siblings && place.distinct_hosts;
        let is_own = distinct || spread.contains(&SpreadOver::Host);
        Self {
            demand: request.demand,
            drivers,
            ports: request.spec.ports().map(|(_, port)| (port.protocol, port.host)).collect(),
            sites: place.sites.clone(),
            require: place.require.clone(),
            distinct,
            spread,
            of: is_own.then(|| request.key.clone()),
        }
    }
}

/// Whether it matters where the other instances of the workload are.
fn looks_at_siblings(spec: &WorkloadSpec) -> bool {
    spec.place.distinct_hosts || !spec.place.spread.is_empty()
}

/// The shapes that were met of late.
#[derive(Default)]
pub(super) struct Shapes {
    /// Those used last, the latest at the end.
    live: Vec<Shape>,
    /// Whose shape the latest is: the next instance is mostly another one of the same.
    latest: Option<Arc<RevisionRecord>>,
    /// Where the instances are of the workloads that were met in this pass and for which it matters.
    siblings: BTreeMap<WorkloadKey, Siblings>,
}

impl Shapes {
    /// Gives the instance the best host that is left.
    pub(super) fn place(&mut self, ledger: &mut Ledger, instance: &Instance) -> Option<Placement> {
        let key = instance.workload();
        if looks_at_siblings(instance.spec()) && !self.siblings.contains_key(key) {
            self.siblings.insert(key.clone(), Siblings::of(ledger, key, None));
        }
        let nobody = Siblings::default();
        let siblings = self.siblings.get(key).unwrap_or(&nobody);
        bring_up(&mut self.live, &mut self.latest, ledger, instance, siblings);
        let (placement, slot) = self.live.last_mut()?.place(ledger, instance, siblings)?;
        // Where it does not matter for this revision, it may for another one.
        if let Some(siblings) = self.siblings.get_mut(key) {
            // The first one makes that the next has a sibling, and so another shape.
            self.latest = self.latest.take().filter(|_| !siblings.is_empty());
            siblings.add(slot);
        }
        Some(placement)
    }

    /// Ends a pass: what holds for it only is forgotten.
    pub(super) fn rest(&mut self) {
        self.live.retain(|shape| shape.wants.of.is_none());
        self.live.iter_mut().for_each(|shape| shape.counts.clear());
        self.siblings.clear();
        self.latest = None;
    }
}

/// Puts the shape of an instance at the end of those that are live, made anew where it is not there.
fn bring_up(
    live: &mut Vec<Shape>,
    latest: &mut Option<Arc<RevisionRecord>>,
    ledger: &Ledger,
    instance: &Instance,
    siblings: &Siblings,
) {
    if latest.as_ref().is_some_and(|latest| Arc::ptr_eq(latest, &instance.record)) {
        return;
    }
    let wants = Wants::of(&Request::of(instance), !siblings.is_empty());
    match live.iter().position(|shape| shape.wants == wants) {
        Some(at) => live[at..].rotate_left(1),
        None => {
            if live.len() == MAX_SHAPES {
                live.remove(0);
            }
            live.push(Shape::new(ledger, wants, instance.record.clone(), siblings));
        }
    }
    *latest = Some(instance.record.clone());
}

/// The hosts with room for one shape, best first.
struct Shape {
    wants: Wants,
    /// A revision of this shape.
    example: Arc<RevisionRecord>,
    ranking: Ranking,
    /// Changes of the ledger that are taken into account.
    seen: usize,
    /// For each workload of this pass that is spread, where its instances are.
    counts: BTreeMap<WorkloadKey, Counts>,
}

impl Shape {
    fn new(ledger: &Ledger, wants: Wants, example: Arc<RevisionRecord>, siblings: &Siblings) -> Self {
        let (ranking, counts) = (Ranking::new(&wants.spread), BTreeMap::new());
        let mut shape = Self { wants, example, ranking, seen: 0, counts };
        shape.begin_anew(ledger, siblings);
        shape
    }

    fn begin_anew(&mut self, ledger: &Ledger, siblings: &Siblings) {
        self.ranking = Ranking::new(&self.wants.spread);
        for slot in ledger.slots() {
            let rank = self.judge(ledger, slot, siblings);
            self.ranking.put(slot, ledger.candidate(slot).host, rank);
        }
        self.seen = ledger.changes();
        self.counts.clear();
    }

    /// The rank of a host with room. Of ten thousand hosts only the best are looked at more closely.
    fn judge(&self, ledger: &Ledger, slot: Slot, siblings: &Siblings) -> Option<Rank> {
        let candidate = ledger.candidate(slot);
        let request = self.request(&self.example);
        if !(ledger.is_taken(slot) && candidate.has_room(&request)) {
            return None;
        }
        let over_hosts = self.wants.spread.contains(&SpreadOver::Host);
        let there = if over_hosts { siblings.on(slot) } else { 0 };
        Some((Reverse(there), score(&candidate, &request)))
    }

    /// What an instance of a revision of this shape asks for.
    fn request<'r>(&self, record: &'r RevisionRecord) -> Request<'r> {
        Request { key: &record.key, spec: &record.spec, demand: self.wants.demand, ports: None }
    }

    /// Takes into account what changed since.
    fn repair(&mut self, ledger: &Ledger, siblings: &Siblings) {
        let Some(changed) = ledger.changed_since(self.seen) else { return self.begin_anew(ledger, siblings) };
        for slot in changed {
            let rank = self.judge(ledger, *slot, siblings);
            if self.ranking.put(*slot, ledger.candidate(*slot).host, rank) == Put::Moved {
                // It was counted where it was.
                self.counts.clear();
            }
        }
        self.seen = ledger.changes();
        self.ranking.tidy();
    }

    /// The best host that fits; those above it that do not are out until they change.
    fn top(&mut self, ledger: &Ledger, request: &Request<'_>, siblings: &Siblings) -> Option<Slot> {
        let nothing = Counts::default();
        let counts = if self.wants.spread.is_empty() {
            &nothing
        } else {
            if !self.counts.contains_key(request.key) {
                self.counts.insert(request.key.clone(), Counts::default());
            }
            let counts = self.counts.get_mut(request.key)?;
            counts.take_in(siblings, |slot| self.ranking.domains(slot));
            counts
        };
        loop {
            let slot = self.ranking.best(counts)?;
            if ledger.candidate(slot).fits(request).is_ok() {
                return Some(slot);
            }
            self.ranking.leave_out(slot);
        }
    }

    /// A placement, and the slot of its host.
    fn place(
        &mut self,
        ledger: &mut Ledger,
        instance: &Instance,
        siblings: &Siblings,
    ) -> Option<(Placement, Slot)> {
        self.repair(ledger, siblings);
        let request = self.request(&instance.record);
        let slot = self.top(ledger, &request, siblings)?;
        let candidate = ledger.candidate(slot);
        let host = candidate.host.id;
        // The filter let the host pass, so there are ports; were the two ever to disagree, the instance would be pending, not misplaced.
        let ports = choose_ports(candidate.host, candidate.used, request.spec, instance.id)?;
        ledger.give(slot, instance, &request, &ports);
        Some((Placement { instance: instance.id, host, ports }, slot))
    }
}
