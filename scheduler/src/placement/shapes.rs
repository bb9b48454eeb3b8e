//! Shapes: what instances want, without whose they are. Instances of one shape fit the same hosts with the same scores, so they share one ordered list of
//! hosts, whatever workload they belong to. It is made once and repaired by what changed, over many passes; that of a shape that is spread is made from that
//! of the same shape without, for which all hosts are judged already.
//!
//! What depends on the workload does not part shapes: where its instances are is counted once a pass (`spread`) and laid over the list while it is
//! that workload's turn, and likewise where those are whom it must be apart from, where room is kept, where volumes of the workload live, and which hosts other boroughs keep to themselves. An instance whose own volumes live somewhere looks at no list, but at that host. As long as a workload has no instance that the next one could meet, it shares the list of those that are not
//! spread, which is one and not one for each rack.
//!
//! What is private is of a shape that no other borough has: of hosts with nobody else on them. While its borough may keep no more hosts to itself, it is of another
//! one, of the hosts that it keeps.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use supercloud_proto::{
    amount::{Amounts, Mbits},
    condition::Condition,
    cores::Numa,
    device::DeviceRequest,
    id::{HostId, InstanceId},
    name::{BoroughName, SiteName, WorkloadKey},
    spec::{Class, DriverKind, Prefer, Protocol, Spread, SpreadOver, WorkloadSpec},
    taint::Toleration,
};

use super::{
    ledger::{Change, Glance, Ledger, Slot},
    outlook::{Asked, MixNumber},
    ranking::{Rank, Ranking},
    score::{score, score_by_amounts},
    spread::{Apart, Look, Neighbourhood, Siblings},
};
use crate::state::{
    Instance, Placement, RevisionRecord,
    fits::{Request, choose_ports},
};

/// Hosts in the lists of all shapes together: each takes about 30 bytes, and half of that as long as its group is not listed.
const MAX_LISTED: usize = 4_000_000;
/// Shapes that are kept however many hosts there are: to make one for a hundred thousand hosts takes as long as thousands of decisions, and the trace that the benches
/// draw from has a hundred sorts of requests without GPUs, each plain or spread. On so many hosts they are 3 MB each.
const MIN_SHAPES: usize = 256;
/// Shapes that are kept however few hosts there are.
pub(super) const MAX_SHAPES: usize = 4_096;

/// All of a spec that decides on which hosts its instances fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Needs {
    demand: Amounts,
    class: Class,
    network: Mbits,
    drivers: Vec<DriverKind>,
    ports: Vec<(Protocol, Option<u16>)>,
    devices: Vec<DeviceRequest>,
    dedicated: bool,
    numa: Numa,
    sites: Vec<SiteName>,
    tolerate: Vec<Toleration>,
    require: Vec<Condition>,
    together: Vec<WorkloadKey>,
    /// Whose host it must be alone, where it is private.
    private: Option<BoroughName>,
}

impl Needs {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let WorkloadSpec { tasks, place, .. } = request.spec;
        let mut drivers: Vec<DriverKind> = tasks.iter().map(|task| task.driver.kind()).collect();
        drivers.sort_unstable();
        drivers.dedup();
        Self {
            demand: request.demand,
            class: request.spec.class,
            network: request.spec.resources.network,
            drivers,
            ports: request.spec.ports().map(|(_, port)| (port.protocol, port.host)).collect(),
            devices: request.spec.resources.devices.clone(),
            dedicated: request.spec.resources.dedicated,
            numa: request.spec.resources.numa,
            sites: place.sites.clone(),
            tolerate: place.tolerate.clone(),
            require: place.require.clone(),
            together: place.together.iter().map(|workload| request.key.beside(workload)).collect(),
            private: place.private.then(|| request.key.borough.clone()),
        }
    }
}

/// What makes a shape: where its instances fit, and how well.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wants {
    needs: Needs,
    spread: Vec<Spread>,
    prefer: Vec<Prefer>,
    /// Whether it is private, and its borough may keep one more host to itself.
    may_keep: bool,
}

impl Wants {
    /// Whether nothing is asked of a host, beside what its record says, but amounts and devices of one sort.
    fn go_by_amounts(&self) -> bool {
        let Needs { network, devices, dedicated, together, private, .. } = &self.needs;
        network.0 == 0
            && devices.len() <= 1
            && !dedicated
            && together.is_empty()
            && private.is_none()
            && self.prefer.is_empty()
    }
}

impl Hash for Wants {
    /// By what tells most shapes apart: a turn begins with this, and to hash all texts takes longer than to compare those of the few that are the same in this.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Needs { demand: Amounts { cpu, memory, disk }, ports, devices, require, .. } = &self.needs;
        (cpu.0, memory.0, disk.0, devices.len(), require, self.spread.len()).hash(hasher);
        ports.iter().filter_map(|(_, host)| *host).for_each(|host| host.hash(hasher));
    }
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
    given: Given,
    /// The turns of a gang that is not known to have hosts for all.
    trial: Option<Vec<Turn>>,
}

/// Whose turn it is: the next instance is mostly another one of the same.
#[derive(Debug)]
struct Turn {
    record: Arc<RevisionRecord>,
    shape: usize,
    /// Which of the siblings are its, where that matters.
    family: Option<usize>,
    /// Slots in which somebody is whom it must be apart from, or volumes of its workload live.
    unwanted: HashSet<Slot>,
    /// Slots that it was given.
    given: Vec<Slot>,
    /// Whether it is private, and its borough may keep one more host to itself.
    may_keep: bool,
}

impl Shapes {
    /// Gives an instance of this revision the best host that is left; before all others the one on which room is kept for it.
    pub(super) fn place(
        &mut self,
        ledger: &mut Ledger,
        record: &Arc<RevisionRecord>,
        id: InstanceId,
        kept: Option<Slot>,
    ) -> Option<Placement> {
        let is_turn =
            |turn: &Turn| Arc::ptr_eq(&turn.record, record) && turn.may_keep == may_keep(ledger, record);
        if !self.turn.as_ref().is_some_and(is_turn) {
            self.begin_turn(ledger, record);
        }
        let Self { live, turn, siblings, .. } = self;
        let turn = turn.as_mut()?;
        let nobody = Siblings::default();
        let own = turn.family.map_or(&nobody, |family| &siblings[family]);
        let around = Around { siblings: own, unwanted: &turn.unwanted, kept, home: ledger.home(record, id) };
        let (placement, slot) = live[turn.shape].place(ledger, record, id, around)?;
        turn.given.push(slot);
        if record.spec.has_volumes() && ledger.state().has_homes() {
            turn.unwanted.insert(slot);
        }
        if let Some(family) = turn.family {
            let own = &mut siblings[family];
            let is_first = own.is_empty();
            own.add(ledger, slot);
            if is_first {
                // The next one has a sibling, and so another shape.
                self.end_turn();
            }
        }
        Some(placement)
    }

    /// Gives all of these instances of a revision the best hosts that are left, one after the other, or none of them any: then it says how many would find
    /// some. Which devices one is given does not look at what the next one needs.
    pub(super) fn place_all(
        &mut self,
        ledger: &mut Ledger,
        record: &Arc<RevisionRecord>,
        ids: &[InstanceId],
    ) -> Result<Vec<Placement>, usize> {
        let before = self.begin_trial(ledger, record);
        let placed: Vec<Placement> =
            ids.iter().map_while(|id| self.place(ledger, record, *id, ledger.kept_for(*id))).collect();
        if placed.len() < ids.len() {
            self.undo_trial(ledger, before);
            return Err(placed.len());
        }
        self.end_turn();
        ledger.keep_trial();
        let turns = self.trial.take().unwrap_or_default();
        turns.into_iter().for_each(|turn| self.given.note(turn));
        Ok(placed)
    }

    /// The slot that an instance of this revision would be given.
    pub(super) fn would_take(
        &mut self,
        ledger: &mut Ledger,
        record: &Arc<RevisionRecord>,
        id: InstanceId,
        kept: Option<Slot>,
    ) -> Option<Slot> {
        let before = self.begin_trial(ledger, record);
        let placed = self.place(ledger, record, id, kept);
        self.undo_trial(ledger, before);
        placed.and_then(|placed| ledger.slot(placed.host))
    }

    /// Whether all of these would be given hosts.
    pub(super) fn would_take_all(
        &mut self,
        ledger: &mut Ledger,
        record: &Arc<RevisionRecord>,
        ids: &[InstanceId],
    ) -> bool {
        let before = self.begin_trial(ledger, record);
        let are_placed = ids.iter().all(|id| self.place(ledger, record, *id, ledger.kept_for(*id)).is_some());
        self.undo_trial(ledger, before);
        are_placed
    }

    /// What instances of a revision are given from now on can be taken back. Gives its family, if that matters, with the siblings it has.
    fn begin_trial(&mut self, ledger: &mut Ledger, record: &RevisionRecord) -> Option<(usize, Siblings)> {
        self.end_turn();
        ledger.learn(&record.spec.place.spread);
        let family = self.family_of(ledger, record);
        self.trial = Some(Vec::new());
        ledger.begin_trial();
        family.map(|family| (family, self.siblings[family].clone()))
    }

    fn undo_trial(&mut self, ledger: &mut Ledger, before: Option<(usize, Siblings)>) {
        self.end_turn();
        self.trial = None;
        ledger.undo_trial();
        if let Some((family, siblings)) = before {
            self.siblings[family] = siblings;
        }
    }

    /// Forgets what holds only for the pass that ends.
    pub(super) fn rest(&mut self) {
        self.end_turn();
        self.families.clear();
        self.siblings.clear();
        self.given = Given::default();
    }

    fn end_turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.live[turn.shape].ranking.put_back();
            match &mut self.trial {
                Some(turns) => turns.push(turn),
                None => self.given.note(turn),
            }
        }
    }

    fn begin_turn(&mut self, ledger: &mut Ledger, record: &Arc<RevisionRecord>) {
        self.end_turn();
        let place = &record.spec.place;
        ledger.learn(&place.spread);
        let family = self.family_of(ledger, record);
        // The first one, too, goes where shares say.
        let has_shares = place.spread.iter().any(|spread| !spread.shares.is_empty());
        let matters = has_shares || family.is_some_and(|family| !self.siblings[family].is_empty());
        // Hosts are told apart one by one, not by lists.
        let over = place.spread.iter().filter(|spread| matters && spread.over != SpreadOver::Host);
        let needs = Needs::of(&Request::new(&record.key, &record.spec));
        let (may_keep, prefer) = (may_keep(ledger, record), place.prefer.clone());
        let wants = Wants { needs, spread: over.cloned().collect(), prefer, may_keep };
        let shape = self.shape(ledger, wants, record);
        let mut unwanted = self.given.unwanted(ledger, record);
        if record.spec.has_volumes() {
            unwanted.extend(self.given.homes(ledger, &record.key));
            // What this gang was given before in the trial is not taken down yet.
            let before = self.trial.iter().flatten().filter(|turn| turn.record.key == record.key);
            unwanted.extend(before.flat_map(|turn| &turn.given));
        }
        self.turn =
            Some(Turn { record: record.clone(), shape, family, unwanted, given: Vec::new(), may_keep });
    }

    /// The siblings of a revision's instances, where they matter.
    fn family_of(&mut self, ledger: &Ledger, record: &RevisionRecord) -> Option<usize> {
        let place = &record.spec.place;
        (place.distinct_hosts || !place.spread.is_empty()).then(|| self.family(ledger, record))
    }

    fn family(&mut self, ledger: &Ledger, record: &RevisionRecord) -> usize {
        let Self { families, siblings, .. } = self;
        let key = &record.key;
        let family = families.get(key).copied().unwrap_or_else(|| {
            families.insert(key.clone(), siblings.len());
            siblings.push(Siblings::of(ledger, key, None));
            siblings.len() - 1
        });
        siblings[family].watch(ledger, &record.spec.place.spread);
        family
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
        let shape = Shape::new(wants.clone(), example.clone(), self.clock);
        let shape = match self.plain(ledger, &wants) {
            Some(plain) => {
                let (plain, alike) = (&self.live[plain], self.spread_alike(ledger, &wants));
                shape.ranked_as(ledger, plain, alike)
            }
            None => shape.ranked(ledger),
        };
        self.numbers.insert(wants, self.live.len());
        self.live.push(shape);
        self.live.len() - 1
    }

    /// The shape that is the same but not spread, as of now. Mostly there is one, since a workload's first instance is of it.
    fn plain(&mut self, ledger: &Ledger, wants: &Wants) -> Option<usize> {
        if wants.spread.is_empty() {
            return None;
        }
        let number = *self.numbers.get(&Wants { spread: Vec::new(), ..wants.clone() })?;
        self.live[number].repair_for_all(ledger);
        Some(number)
    }

    /// A shape that is spread in the same way, and knows where all hosts stand.
    fn spread_alike(&self, ledger: &Ledger, wants: &Wants) -> Option<&Shape> {
        let is_alike =
            |shape: &&Shape| shape.wants.spread == wants.spread && ledger.are_records_of(shape.seen);
        self.live.iter().find(is_alike)
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

/// Whether a revision is private, and its borough may keep one more host to itself.
fn may_keep(ledger: &Ledger, record: &RevisionRecord) -> bool {
    record.spec.place.private && ledger.may_keep(&record.key.borough)
}

/// Who was given what in this pass, which the state does not know of.
#[derive(Debug, Default)]
struct Given {
    /// Slots in which a workload was given room, as far as anybody asked.
    to: HashMap<WorkloadKey, Vec<Slot>>,
    /// The same of turns since then.
    since: Vec<(Arc<RevisionRecord>, Vec<Slot>)>,
    /// Slots in which somebody was given room that must be apart from a workload.
    minding: HashMap<WorkloadKey, Vec<Slot>>,
}

impl Given {
    fn note(&mut self, turn: Turn) {
        let Turn { record, given, .. } = turn;
        if given.is_empty() {
            return;
        }
        for workload in &record.spec.place.apart {
            self.minding.entry(record.key.beside(workload)).or_default().extend(&given);
        }
        self.since.push((record, given));
    }

    /// Slots in which a workload was given room.
    fn to(&mut self, key: &WorkloadKey) -> impl Iterator<Item = Slot> {
        for (record, given) in self.since.drain(..) {
            self.to.entry(record.key.clone()).or_default().extend(given);
        }
        self.to.get(key).into_iter().flatten().copied()
    }

    /// Slots in which volumes of a workload live or are in use: another of its instances does not come to live there.
    fn homes(&mut self, ledger: &Ledger, key: &WorkloadKey) -> Vec<Slot> {
        let state = ledger.state();
        if !state.has_homes() {
            return Vec::new();
        }
        let homes = state.homes_of(key).into_iter().flat_map(|homes| homes.iter().map(|home| home.host));
        let uses = |one: &&Arc<Instance>| !one.state.is_over() && one.spec().has_volumes();
        let used = state.instances_of(key).filter(uses).filter_map(|instance| instance.host());
        let hosts: Vec<HostId> = homes.chain(used).collect();
        hosts.into_iter().filter_map(|host| ledger.slot(host)).chain(self.to(key)).collect()
    }

    /// Slots in which somebody is whom the instances of a revision must be apart from, whichever of the two says so.
    fn unwanted(&mut self, ledger: &Ledger, record: &RevisionRecord) -> HashSet<Slot> {
        let state = ledger.state();
        let slot = |instance: &Arc<Instance>| instance.host().and_then(|host| ledger.slot(host));
        let mut slots: HashSet<Slot> = state.minding(&record.key).filter_map(slot).collect();
        slots.extend(self.minding.get(&record.key).into_iter().flatten());
        for workload in &record.spec.place.apart {
            let key = record.key.beside(workload);
            let staying = state.instances_of(&key).filter(|instance| instance.is_to_stay());
            slots.extend(staying.filter_map(slot));
            slots.extend(self.to(&key));
        }
        slots
    }
}

/// What is around an instance that is placed.
#[derive(Clone, Copy)]
struct Around<'s> {
    /// Others of its workload.
    siblings: &'s Siblings,
    /// Where somebody is whom it must be apart from, or volumes of its workload live.
    unwanted: &'s HashSet<Slot>,
    /// Where room is kept for it.
    kept: Option<Slot>,
    /// The one to which it may go, since its own volumes live there.
    home: Option<Slot>,
}

/// The hosts with room for one shape, best first.
struct Shape {
    wants: Arc<Wants>,
    /// Whether hosts that suit are judged by their amounts and devices alone.
    goes_by_amounts: bool,
    last_used: u64,
    /// A revision of this shape.
    example: Arc<RevisionRecord>,
    ranking: Ranking,
    /// Whether hosts suit by their records, where that was asked since these changed. Those that do not are not offered again.
    suits: Vec<Option<bool>>,
    /// Changes of the ledger that are taken into account.
    seen: usize,
    /// The mix of requests for devices by which hosts are ranked.
    mix: MixNumber,
}

impl Shape {
    fn new(wants: Arc<Wants>, example: Arc<RevisionRecord>, last_used: u64) -> Self {
        let (ranking, suits) = (Ranking::default(), Vec::new());
        let goes_by_amounts = wants.go_by_amounts();
        Self { wants, goes_by_amounts, last_used, example, ranking, suits, seen: 0, mix: 0 }
    }

    fn ranked(mut self, ledger: &Ledger) -> Self {
        self.begin_anew(ledger);
        self
    }

    /// With the same hosts as good as for a shape that differs only in how it is spread, and standing as for one that is spread alike.
    fn ranked_as(mut self, ledger: &Ledger, plain: &Self, alike: Option<&Self>) -> Self {
        let rank = |slot| plain.ranking.rank(slot);
        self.ranking = match alike {
            Some(alike) => Ranking::like(&alike.ranking, ledger.slots().map(rank)),
            None => Ranking::of(self.neighbourhoods(ledger), ledger.slots().map(rank)),
        };
        (self.suits, self.seen, self.mix) = (plain.suits.clone(), plain.seen, plain.mix);
        self
    }

    fn begin_anew(&mut self, ledger: &Ledger) {
        self.suits = vec![None; ledger.slots().len()];
        self.rank_all(ledger, false);
    }

    /// Ranks all hosts; whether they stand in the same places as before is told.
    fn rank_all(&mut self, ledger: &Ledger, stand_alike: bool) {
        let asked = self.asked(ledger);
        let ranks = ledger.slots().map(|slot| self.judged(ledger, slot, &asked));
        self.ranking = if self.wants.spread.is_empty() {
            Ranking::of_one_group(Neighbourhood::default(), ranks)
        } else if stand_alike {
            Ranking::like(&self.ranking, ranks)
        } else {
            Ranking::of(self.neighbourhoods(ledger), ranks)
        };
        (self.seen, self.mix) = (ledger.changes(), ledger.outlook().mix());
    }

    /// Ranks a host with room. Of ten thousand hosts only the best are looked at more closely.
    fn judge(&mut self, ledger: &Ledger, change: Change, asked: &[Asked], look: Look<'_>) {
        let (slot, rank) = (change.slot, self.judged(ledger, change.slot, asked));
        // Where it stands is in its record.
        if change.is_of_record {
            self.ranking.put(slot, self.neighbourhood(ledger, slot), rank, look);
        } else {
            self.ranking.rerank(slot, rank, look);
        }
    }

    fn neighbourhood(&self, ledger: &Ledger, slot: Slot) -> Neighbourhood {
        Neighbourhood::of(ledger, slot, &self.wants.spread)
    }

    fn neighbourhoods(&self, ledger: &Ledger) -> impl Iterator<Item = Neighbourhood> {
        ledger.slots().map(|slot| self.neighbourhood(ledger, slot))
    }

    /// What is asked for of devices, as the ledger numbers it now.
    fn asked(&self, ledger: &Ledger) -> Vec<Asked> {
        ledger.outlook().asked(&self.wants.needs.devices)
    }

    fn judged(&self, ledger: &Ledger, slot: Slot, asked: &[Asked]) -> Option<Rank> {
        let glance = ledger.glance(slot);
        if !self.may_go_there(slot, glance) {
            debug_assert_eq!(self.judged_closely(ledger, slot, asked), None, "a glance is enough");
            return None;
        }
        if self.goes_by_amounts {
            let judged = self.judged_at_a_glance(ledger, slot, glance, asked);
            debug_assert_eq!(judged, self.judged_closely(ledger, slot, asked), "a glance is enough");
            return judged;
        }
        self.judged_closely(ledger, slot, asked)
    }

    /// How good a host with room for all amounts is, by what is seen of it and by what is free of its devices.
    fn judged_at_a_glance(
        &self,
        ledger: &Ledger,
        slot: Slot,
        glance: &Glance,
        asked: &[Asked],
    ) -> Option<Rank> {
        let left = glance.free.saturating_sub(self.taken(glance));
        let loss =
            if glance.has_devices { ledger.prospect(slot, asked).loss_of(glance.free, left)? } else { 0 };
        Some(score_by_amounts(&glance.policy, glance.whole, left, loss))
    }

    /// Whether nothing that can be seen at a glance speaks against a host. How many whole cores one would take cannot be.
    fn may_go_there(&self, slot: Slot, glance: &Glance) -> bool {
        let Needs { devices, dedicated, .. } = &self.wants.needs;
        let has_room = || *dedicated || self.taken(glance).within(glance.free) && glance.may_grant(devices);
        glance.is_taken && self.suits[slot] != Some(false) && has_room()
    }

    /// What one takes of a host, where it has no cores of its own: it counts as of its class then.
    #[inline]
    fn taken(&self, glance: &Glance) -> Amounts {
        let Needs { demand, class, .. } = &self.wants.needs;
        glance.policy.takes(*class, *demand)
    }

    fn judged_closely(&self, ledger: &Ledger, slot: Slot, asked: &[Asked]) -> Option<Rank> {
        let request = self.request(&self.example);
        let (candidate, prospect) = (ledger.candidate_for(slot, &request), ledger.prospect(slot, asked));
        let may_be_private = |borough: &BoroughName| candidate.may_be_private(borough);
        let is_open = ledger.is_taken(slot)
            && self.suits[slot] != Some(false)
            && prospect.has_room(&candidate, &request)
            && candidate.has_company(&request)
            && self.wants.needs.private.as_ref().is_none_or(may_be_private);
        is_open.then(|| score(&candidate, &request, prospect))
    }

    /// What an instance of a revision of this shape asks for.
    fn request<'r>(&self, record: &'r RevisionRecord) -> Request<'r> {
        Request {
            instance: None,
            key: &record.key,
            spec: &record.spec,
            demand: self.wants.needs.demand,
            ports: None,
            devices: None,
            cores: None,
        }
    }

    /// Takes into account what changed since, when it is nobody's turn.
    fn repair_for_all(&mut self, ledger: &Ledger) {
        let (siblings, unwanted) = (&Siblings::default(), &HashSet::new());
        let (kept, private, borough) =
            (&BTreeMap::new(), &BTreeMap::new(), &self.example.clone().key.borough);
        let apart = Apart::Indifferent;
        self.repair(ledger, Look { siblings, apart, unwanted, kept, priority: 0, private, borough });
    }

    /// Takes into account what changed since.
    fn repair(&mut self, ledger: &Ledger, look: Look<'_>) {
        let Some(changed) = ledger.changed_since(self.seen) else { return self.begin_anew(ledger) };
        self.suits.resize(ledger.slots().len(), None);
        // The mix changes between passes: nobody's turn is on then.
        let is_upset = self.mix < ledger.upset();
        let asked = self.asked(ledger);
        for change in changed {
            if change.is_of_record {
                self.suits[change.slot] = None;
            }
            if !is_upset {
                self.judge(ledger, change, &asked, look);
            }
        }
        if is_upset {
            self.rank_all(ledger, ledger.are_records_of(self.seen));
        }
        (self.seen, self.mix) = (ledger.changes(), ledger.outlook().mix());
        self.ranking.tidy();
    }

    /// The best host that fits; those above it that do not are out until they change.
    fn top(&mut self, ledger: &Ledger, request: &Request<'_>, look: Look<'_>) -> Option<Slot> {
        loop {
            let slot = self.ranking.best(look)?;
            let mut candidate = ledger.candidate_for(slot, request);
            // Whoever must be apart from it is not offered.
            candidate.known.sibling = Some(look.siblings.on(slot) > 0);
            candidate.known.unwanted = Some(false);
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
        around: Around<'_>,
    ) -> Option<(Placement, Slot)> {
        let request = Request { instance: Some(id), ..self.request(record) };
        let Around { siblings, unwanted, kept, home } = around;
        let apart = Apart::asked_by(&record.spec.place);
        let (priority, borough) = (record.spec.priority, &record.key.borough);
        let (kept_for, private) = (ledger.kept(), ledger.private());
        let look = Look { siblings, apart, unwanted, kept: kept_for, priority, private, borough };
        self.repair(ledger, look);
        let is_free = |slot: &Slot| {
            ledger.is_taken(*slot) && ledger.candidate_for(*slot, &request).fits(&request).is_ok()
        };
        let slot = match home {
            Some(home) => Some(home).filter(is_free),
            None => kept.filter(is_free).or_else(|| self.top(ledger, &request, look)),
        }?;
        let candidate = ledger.candidate(slot);
        let host = candidate.host.id;
        // The filters let the host pass, so there are ports, devices and cores; were they ever to disagree, the instance would be pending, not misplaced.
        let ports = choose_ports(candidate.host, candidate.used, request.spec, id)?;
        let devices = ledger.prospect(slot, &self.asked(ledger)).choose(&candidate, &request)?;
        let cores = candidate.choose_cores(&request).map(Box::new);
        let placement = Placement { instance: id, host, ports, devices, cores };
        ledger.give(slot, &placement, &request);
        Some((placement, slot))
    }
}
