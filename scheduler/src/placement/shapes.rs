//! Shapes: what instances want, without whose they are. Instances of one shape fit the same hosts with the same scores, so they share one ordered list of
//! hosts, whatever workload they belong to. It is made once and repaired by what changed, over many passes.
//!
//! What depends on the workload does not part shapes: where its instances are is counted once a pass (`spread`) and laid over the list while it is
//! that workload's turn. As long as a workload has no instance that the next one could meet, it shares the list of those that are not
//! spread, which is one and not one for each rack.

use std::{collections::HashMap, sync::Arc};

use supercloud_proto::{
    amount::Amounts,
    condition::Condition,
    device::DeviceRequest,
    id::InstanceId,
    name::{SiteName, WorkloadKey},
    spec::{DriverKind, Prefer, Protocol, SpreadOver, WorkloadSpec},
    taint::Toleration,
};

use super::{
    ledger::{Ledger, Slot},
    ranking::{Rank, Ranking},
    score::score,
    spread::{Apart, Look, Siblings, Whereabouts},
};
use crate::state::{
    Placement, RevisionRecord,
    fits::{Request, choose_ports},
};

/// Hosts in the lists of all shapes together: each takes about 50 bytes.
const MAX_LISTED: usize = 2_000_000;
/// Shapes that are kept however many hosts there are.
const MIN_SHAPES: usize = 32;
/// Shapes that are kept however few hosts there are.
const MAX_SHAPES: usize = 4_096;

/// All of a spec that decides on which hosts its instances fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Needs {
    demand: Amounts,
    drivers: Vec<DriverKind>,
    ports: Vec<(Protocol, Option<u16>)>,
    devices: Vec<DeviceRequest>,
    sites: Vec<SiteName>,
    tolerate: Vec<Toleration>,
    require: Vec<Condition>,
}

impl Needs {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let WorkloadSpec { tasks, place, .. } = request.spec;
        let mut drivers: Vec<DriverKind> = tasks.iter().map(|task| task.driver.kind()).collect();
        drivers.sort_unstable();
        drivers.dedup();
        Self {
            demand: request.demand,
            drivers,
            ports: request.spec.ports().map(|(_, port)| (port.protocol, port.host)).collect(),
            devices: request.spec.resources.devices.clone(),
            sites: place.sites.clone(),
            tolerate: place.tolerate.clone(),
            require: place.require.clone(),
        }
    }
}

/// What makes a shape: where its instances fit, and how well.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Wants {
    needs: Needs,
    over: Vec<SpreadOver>,
    prefer: Vec<Prefer>,
}

/// The shapes that were met of late, and where the workloads are that were met in this pass.
#[derive(Default)]
pub(super) struct Shapes {
    live: Vec<Shape>,
    numbers: HashMap<Arc<Wants>, usize>,
    /// Counts turns.
    clock: u64,
    turn: Option<Turn>,
    /// Of workloads for which it matters.
    families: HashMap<WorkloadKey, usize>,
    siblings: Vec<Siblings>,
}

/// Whose turn it is: the next instance is mostly another one of the same.
#[derive(Debug)]
struct Turn {
    record: Arc<RevisionRecord>,
    shape: usize,
    /// Which of the siblings are its, where that matters.
    family: Option<usize>,
}

impl Shapes {
    /// Gives an instance of this revision the best host that is left.
    pub(super) fn place(
        &mut self,
        ledger: &mut Ledger,
        record: &Arc<RevisionRecord>,
        id: InstanceId,
    ) -> Option<Placement> {
        if self.turn.as_ref().is_none_or(|turn| !Arc::ptr_eq(&turn.record, record)) {
            self.begin_turn(ledger, record);
        }
        let Self { live, turn, siblings, .. } = self;
        let Turn { shape, family, .. } = *turn.as_ref()?;
        let nobody = Siblings::default();
        let own = family.map_or(&nobody, |family| &siblings[family]);
        let (placement, slot) = live[shape].place(ledger, record, id, own)?;
        if let Some(family) = family {
            let own = &mut siblings[family];
            if own.is_empty() {
                // The next one has a sibling, and so another shape.
                self.turn = None;
            }
            own.add(ledger, slot);
        }
        Some(placement)
    }

    /// Forgets what holds only for the pass that ends.
    pub(super) fn rest(&mut self) {
        self.end_turn();
        self.families.clear();
        self.siblings.clear();
    }

    fn end_turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.live[turn.shape].ranking.put_back();
        }
    }

    fn begin_turn(&mut self, ledger: &Ledger, record: &Arc<RevisionRecord>) {
        self.end_turn();
        let place = &record.spec.place;
        let family =
            (place.distinct_hosts || !place.spread.is_empty()).then(|| self.family(ledger, &record.key));
        let has_siblings = family.is_some_and(|family| !self.siblings[family].is_empty());
        // Hosts are told apart one by one, not by lists.
        let over = place.spread.iter().filter(|over| has_siblings && **over != SpreadOver::Host);
        let needs = Needs::of(&Request::new(&record.key, &record.spec));
        let wants = Wants { needs, over: over.copied().collect(), prefer: place.prefer.clone() };
        let shape = self.shape(ledger, wants, record);
        self.turn = Some(Turn { record: record.clone(), shape, family });
    }

    fn family(&mut self, ledger: &Ledger, key: &WorkloadKey) -> usize {
        if let Some(family) = self.families.get(key) {
            return *family;
        }
        self.families.insert(key.clone(), self.siblings.len());
        self.siblings.push(Siblings::of(ledger, key, None));
        self.siblings.len() - 1
    }

    /// A shape, made anew where it is not there.
    fn shape(&mut self, ledger: &Ledger, wants: Wants, example: &Arc<RevisionRecord>) -> usize {
        self.clock += 1;
        if let Some(number) = self.numbers.get(&wants) {
            self.live[*number].last_used = self.clock;
            return *number;
        }
        if self.live.len() >= (MAX_LISTED / ledger.slots().len().max(1)).clamp(MIN_SHAPES, MAX_SHAPES) {
            self.forget_oldest();
        }
        let wants = Arc::new(wants);
        self.numbers.insert(wants.clone(), self.live.len());
        self.live.push(Shape::new(ledger, wants, example.clone(), self.clock));
        self.live.len() - 1
    }

    fn forget_oldest(&mut self) {
        let age = |(_, shape): &(usize, &Shape)| shape.last_used;
        let Some((oldest, _)) = self.live.iter().enumerate().min_by_key(age) else { return };
        self.numbers.remove(&self.live.swap_remove(oldest).wants);
        if let Some(moved) = self.live.get(oldest) {
            self.numbers.insert(moved.wants.clone(), oldest);
        }
    }
}

/// The hosts with room for one shape, best first.
struct Shape {
    wants: Arc<Wants>,
    last_used: u64,
    /// A revision of this shape.
    example: Arc<RevisionRecord>,
    ranking: Ranking,
    /// Whether hosts suit by their records, where that was asked since these changed. Those that do not are not offered again.
    suits: Vec<Option<bool>>,
    /// Changes of the ledger that are taken into account.
    seen: usize,
}

impl Shape {
    fn new(ledger: &Ledger, wants: Arc<Wants>, example: Arc<RevisionRecord>, last_used: u64) -> Self {
        let (ranking, suits) = (Ranking::default(), Vec::new());
        let mut shape = Self { wants, last_used, example, ranking, suits, seen: 0 };
        shape.begin_anew(ledger);
        shape
    }

    fn begin_anew(&mut self, ledger: &Ledger) {
        self.suits = vec![None; ledger.slots().len()];
        self.ranking = Ranking::of(ledger.slots().map(|slot| self.judged(ledger, slot)));
        self.seen = ledger.changes();
    }

    /// Ranks a host with room. Of ten thousand hosts only the best are looked at more closely.
    fn judge(&mut self, ledger: &Ledger, slot: Slot, look: Look<'_>) {
        let (place, rank) = self.judged(ledger, slot);
        self.ranking.put(slot, place, rank, look);
    }

    fn judged(&self, ledger: &Ledger, slot: Slot) -> (Whereabouts, Option<Rank>) {
        let (candidate, outlook) = (ledger.candidate(slot), ledger.outlook());
        let request = self.request(&self.example);
        let is_open = ledger.is_taken(slot)
            && self.suits[slot] != Some(false)
            && outlook.has_room(&candidate, &request);
        let rank: Option<Rank> = is_open.then(|| score(&candidate, &request, outlook));
        (ledger.whereabouts(slot).as_far_as(&self.wants.over), rank)
    }

    /// What an instance of a revision of this shape asks for.
    fn request<'r>(&self, record: &'r RevisionRecord) -> Request<'r> {
        Request {
            key: &record.key,
            spec: &record.spec,
            demand: self.wants.needs.demand,
            ports: None,
            devices: None,
        }
    }

    /// Takes into account what changed since.
    fn repair(&mut self, ledger: &Ledger, look: Look<'_>) {
        let Some(changed) = ledger.changed_since(self.seen) else { return self.begin_anew(ledger) };
        self.suits.resize(ledger.slots().len(), None);
        for change in changed {
            self.suits[change.slot] = self.suits[change.slot].filter(|_| !change.is_of_record);
            self.judge(ledger, change.slot, look);
        }
        self.seen = ledger.changes();
        self.ranking.tidy();
    }

    /// The best host that fits; those above it that do not are out until they change.
    fn top(&mut self, ledger: &Ledger, request: &Request<'_>, look: Look<'_>) -> Option<Slot> {
        loop {
            let slot = self.ranking.best(look)?;
            let mut candidate = ledger.candidate(slot);
            candidate.has_sibling = Some(look.siblings.on(slot) > 0);
            let suits = *self.suits[slot].get_or_insert_with(|| candidate.suits(request));
            if suits && candidate.fits_if_suiting(request) {
                return Some(slot);
            }
            self.ranking.leave_out(slot);
        }
    }

    /// A placement, and the slot of its host.
    fn place(
        &mut self,
        ledger: &mut Ledger,
        record: &RevisionRecord,
        id: InstanceId,
        siblings: &Siblings,
    ) -> Option<(Placement, Slot)> {
        let look = Look { siblings, apart: Apart::asked_by(&record.spec.place) };
        self.repair(ledger, look);
        let request = self.request(record);
        let slot = self.top(ledger, &request, look)?;
        let candidate = ledger.candidate(slot);
        let host = candidate.host.id;
        // The filters let the host pass, so there are ports and devices; were they ever to disagree, the instance would be pending, not misplaced.
        let ports = choose_ports(candidate.host, candidate.used, request.spec, id)?;
        let devices = ledger.outlook().choose(&candidate, request.demand, request.spec)?;
        let placement = Placement { instance: id, host, ports, devices };
        ledger.give(slot, &placement, &request);
        Some((placement, slot))
    }
}
