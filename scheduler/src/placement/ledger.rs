//! The hosts as a pass sees them: what the state says is given away of each, and what has been given or taken back since. It decides nothing.
//!
//! Hosts stand in slots, in the order of their ids, so that a slot is an index and the order of slots breaks ties. What changed is kept as a
//! list of slots, so that whoever holds an order of hosts repairs it by what changed instead of making it anew. A slot knows its last change: as a host is filled
//! it changes time and again, and who looks later looks at it once.
//!
//! A ledger outlives a pass: [`Ledger::catch_up`] takes in what is different in a newer state, in time that goes by what changed and not by how many
//! hosts there are (the state's maps share what they have in common). Changes are tried in the same way, from one changed copy of a state to the next ([`Ledger::try_on`]). A host that is gone leaves its slot behind; when too many slots are
//! vacant, the ledger is made anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use supercloud_proto::{
    amount::Amounts,
    id::{HostId, InstanceId},
    name::BoroughName,
    spec::Spread,
};

use super::{
    fair::Whole,
    outlook::{Asked, MixNumber, Numbered, Outlook, Prospect},
    spread::{Domain, Domains, Share, Whereabouts, labels},
};
use crate::state::{
    Host, HostUse, RevisionRecord, State,
    fits::{Candidate, Known, Request},
};

use giving::Trial;
pub(super) use glance::Glance;

mod giving;
mod glance;

/// A host's place in a ledger.
pub(super) type Slot = usize;

/// Vacant slots that are always put up with.
const MIN_VACANT: usize = 64;
/// Changes that are kept, in changes a slot: who has not looked for longer makes its order of hosts anew, which costs as much.
const KEPT_CHANGES: usize = 2;
/// Changes that are kept however few hosts there are.
const MIN_KEPT_CHANGES: usize = 1_024;

/// All hosts, and what is given away of each.
pub(super) struct Ledger {
    state: State,
    outlook: Outlook,
    seats: Vec<Seat>,
    /// How each of them looks at a glance.
    glances: Vec<Glance>,
    /// Number of the last change of each.
    last_changes: Vec<usize>,
    domains: Domains,
    /// Where hosts stand has other numbers than before the last catching up.
    is_renumbered: bool,
    /// Processor, memory and devices that all hosts have to give away.
    whole: Whole,
    /// The most of each amount that anything could ask for on any host, or ever could.
    largest: Amounts,
    vacant: usize,
    changes: Vec<Change>,
    /// Number of the last change of a record.
    last_of_record: usize,
    /// Number of the first of `changes`.
    first_change: usize,
    /// The mix with which so many changed that they are not among these.
    upset: MixNumber,
    /// Slots in which something was given or taken back that the state does not know of.
    given: Vec<Slot>,
    /// Slots in which room is kept, with the highest rank for which.
    kept: BTreeMap<Slot, u32>,
    /// Slots that a borough keeps to itself, with whose private instances are there.
    private: BTreeMap<Slot, BoroughName>,
    /// Hosts that boroughs began to keep to themselves in this pass.
    claimed: BTreeMap<BoroughName, BTreeSet<HostId>>,
    /// Instances that are to make way, of which the state does not know.
    doomed: HashSet<InstanceId>,
    /// Slots in which somebody was to make way when the last pass was over, or room that was kept was free.
    left: BTreeSet<Slot>,
    /// Boroughs of those for whom room is kept no more, or less firmly, since that was asked last: nobody is their company any more.
    unkept: BTreeSet<BoroughName>,
    /// What was before [`Ledger::begin_trial`], where that was.
    trial: Option<Trial>,
}

/// Something about a slot is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) slot: Slot,
    /// Whether the host's record is another one, and not only what is given away of it.
    pub(super) is_of_record: bool,
}

/// What came of taking in a newer state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CaughtUp {
    /// Slots stand for the hosts they stood for. What fitted nowhere may now fit in these, and in no others.
    Improved(Vec<Slot>),
    /// All orders of hosts that were made from the ledger are void.
    Anew,
}

struct Seat {
    id: HostId,
    host: Arc<Host>,
    /// Whether the host is still there.
    taken: bool,
    /// What the host can give away in all: kept here, since looking it up there costs more than all that is done with it.
    allocatable: Amounts,
    whereabouts: Whereabouts,
    used: Arc<HostUse>,
    /// What is free of its devices, if it has any.
    devices: Option<Numbered>,
}

impl Seat {
    fn of(state: &State, host: &Arc<Host>, domains: &mut Domains, outlook: &Outlook) -> Self {
        let used = state.used_shared(host.id);
        Self {
            id: host.id,
            host: host.clone(),
            taken: true,
            allocatable: host.inventory.allocatable(),
            whereabouts: domains.of(&host.inventory),
            devices: outlook.free(host, &used),
            used,
        }
    }

    /// Notes what is free of its devices now.
    fn note_devices(&mut self, outlook: &Outlook) {
        if self.devices.is_some() {
            self.devices = outlook.free(&self.host, &self.used);
        }
    }

    /// The most that anything could ask for there.
    fn bears(&self) -> Amounts {
        self.used.policy.bears_at_most(self.allocatable)
    }
}

/// Whether something may fit now that did not fit before: unless nothing was given back.
fn gave_back(before: &HostUse, now: &HostUse) -> bool {
    let only_more = before.taken.within(now.taken)
        && before.network <= now.network
        && before.ports.is_within(&now.ports)
        && before.devices.is_within(&now.devices)
        && before.cores.is_within(&now.cores)
        && before.instances.is_within(&now.instances)
        && now.leaving <= before.leaving
        && before.awaited.is_within(&now.awaited)
        && (before.private.is_none() || now.private.is_some());
    !only_more
}

/// The highest priority of those for whom room is kept.
fn most_urgent(used: &HostUse) -> Option<u32> {
    used.awaited.last().map(|(priority, _)| *priority)
}

impl Ledger {
    /// As the state has it.
    pub(super) fn new(state: &State) -> Self {
        let mut domains = Domains::default();
        let outlook = Outlook::of(state);
        let seat = |host| Seat::of(state, host, &mut domains, &outlook);
        let seats: Vec<Seat> = state.hosts().values().map(seat).collect();
        let mut whole = Whole::default();
        seats.iter().for_each(|seat| whole.add(&seat.host.inventory));
        let largest = seats.iter().fold(Amounts::default(), |largest, seat| largest.most(seat.bears()));
        let (changes, given) = (Vec::new(), Vec::new());
        let kept = |(slot, seat): (Slot, &Seat)| Some((slot, most_urgent(&seat.used)?));
        let private = |(slot, seat): (Slot, &Seat)| Some((slot, seat.used.private.as_ref()?.0.clone()));
        Self {
            kept: seats.iter().enumerate().filter_map(kept).collect(),
            private: seats.iter().enumerate().filter_map(private).collect(),
            claimed: BTreeMap::new(),
            doomed: HashSet::new(),
            left: BTreeSet::new(),
            unkept: BTreeSet::new(),
            trial: None,
            state: state.clone(),
            outlook,
            glances: seats.iter().map(Glance::of).collect(),
            last_changes: vec![0; seats.len()],
            seats,
            domains,
            is_renumbered: false,
            whole,
            largest,
            vacant: 0,
            changes,
            last_of_record: 0,
            first_change: 0,
            upset: 0,
            given,
        }
    }

    /// As this state has it.
    pub(super) fn catch_up(&mut self, state: &State) -> CaughtUp {
        let known = std::mem::replace(&mut self.state, state.clone());
        let mut stale = std::mem::take(&mut self.given);
        let mut improved = Vec::new();
        for host in state.hosts_changed_since(&known) {
            match self.slot(host) {
                Some(slot) => stale.push(slot),
                None if self.seats.last().is_none_or(|last| last.id < host) => {
                    improved.push(self.seats.len());
                    self.push(host);
                }
                // Slots would no longer stand in the order of ids.
                None => return self.begin_anew(),
            }
        }
        stale.sort_unstable();
        stale.dedup();
        // Who is to go keeps nobody away any more who must not meet him; in the pass that decided it he still did. And who had his turn before room was free has not seen it.
        let left = std::mem::take(&mut self.left);
        improved.extend(stale.into_iter().filter(|slot| self.refresh(*slot) || left.contains(slot)));
        for host in state.kept_since(&known) {
            let Some(slot) = self.slot(host) else { continue };
            self.note(slot, false);
            improved.push(slot);
        }
        if self.vacant > MIN_VACANT.max(self.seats.len() / 2) || self.outlook.is_overgrown() {
            return self.begin_anew();
        }
        self.is_renumbered = self.domains.is_overgrown(self.seats.len());
        if self.is_renumbered {
            self.renumber();
        }
        self.look_out(&known);
        let kept = MIN_KEPT_CHANGES.max(self.seats.len() * KEPT_CHANGES);
        let surplus = self.changes.len().saturating_sub(kept);
        self.changes.drain(..surplus);
        self.first_change += surplus;
        CaughtUp::Improved(improved)
    }

    /// As a state has it that is like the one before but for some changes, whichever of the two is older. What was given since is forgotten.
    pub(super) fn try_on(&mut self, state: &State) {
        self.rest();
        self.unkept.clear();
        // Nobody keeps an order of hosts from one to the next.
        let _caught_up = self.catch_up(state);
    }

    /// Takes in the mix of requests for devices. Where it is another one, hosts with devices are not as good as they were: most hosts are not, or these
    /// changed one by one.
    fn look_out(&mut self, known: &State) {
        if self.state.device_demands().ptr_eq(known.device_demands()) {
            return;
        }
        if !self.outlook.look_again(&self.state) {
            return;
        }
        let with_devices: Vec<Slot> = self.slots().filter(|slot| self.glances[*slot].has_devices).collect();
        if with_devices.len() > self.seats.len() / 2 {
            self.upset = self.outlook.mix();
        } else {
            with_devices.into_iter().for_each(|slot| self.note(slot, false));
        }
    }

    /// The mix of requests for devices with which most hosts were not as good any more as they had been.
    pub(super) fn upset(&self) -> MixNumber {
        self.upset
    }

    /// Forgets the labels that were spread over. What fits where does not depend on them.
    fn renumber(&mut self) {
        self.domains = Domains::default();
        let Self { seats, domains, .. } = self;
        seats.iter_mut().for_each(|seat| seat.whereabouts = domains.of(&seat.host.inventory));
    }

    /// Whether orders of hosts that go by where these stand are void since the last catching up.
    pub(super) fn is_renumbered(&self) -> bool {
        self.is_renumbered
    }

    fn begin_anew(&mut self) -> CaughtUp {
        *self = Self::new(&self.state);
        CaughtUp::Anew
    }

    /// Lets go of all of the state but what a later one is compared with.
    pub(super) fn rest(&mut self) {
        self.doomed.clear();
        self.claimed.clear();
        self.state = self.state.only_compared();
    }

    fn push(&mut self, host: HostId) {
        if let Some(host) = self.state.host(host) {
            self.outlook.learn(host);
            let seat = Seat::of(&self.state, host, &mut self.domains, &self.outlook);
            self.domains.note(self.seats.len(), &host.inventory);
            self.whole.add(&seat.host.inventory);
            self.largest = self.largest.most(seat.bears());
            self.glances.push(Glance::of(&seat));
            self.last_changes.push(self.changes());
            self.seats.push(seat);
            self.note(self.seats.len() - 1, true);
            self.note_kept(self.seats.len() - 1);
            self.note_private(self.seats.len() - 1);
        }
    }

    /// Notes who keeps a slot to itself.
    fn note_private(&mut self, slot: Slot) {
        match &self.seats[slot].used.private {
            Some((borough, _)) => drop(self.private.insert(slot, borough.clone())),
            None => drop(self.private.remove(&slot)),
        }
    }

    /// Notes for whom room is kept in a slot.
    fn note_kept(&mut self, slot: Slot) {
        match most_urgent(&self.seats[slot].used) {
            Some(priority) => drop(self.kept.insert(slot, priority)),
            None => drop(self.kept.remove(&slot)),
        }
    }

    /// Takes a slot's host as the state has it. Says whether something may fit there that did not.
    fn refresh(&mut self, slot: Slot) -> bool {
        let may_fit = self.refresh_seat(slot);
        self.note_kept(slot);
        self.note_private(slot);
        may_fit
    }

    fn refresh_seat(&mut self, slot: Slot) -> bool {
        let seat = &mut self.seats[slot];
        let Some(host) = self.state.host(seat.id) else {
            if std::mem::replace(&mut seat.taken, false) {
                self.vacant += 1;
                self.whole.remove(&seat.host.inventory);
            }
            self.note(slot, true);
            return false;
        };
        if seat.taken && Arc::ptr_eq(&seat.host, host) {
            let before = std::mem::replace(&mut seat.used, self.state.used_shared(host.id));
            // Mostly it is what was given here, and orders of hosts know.
            if before == seat.used {
                return false;
            }
            if before.devices != seat.used.devices || before.policy != seat.used.policy {
                seat.note_devices(&self.outlook);
            }
            let gave_back = gave_back(&before, &seat.used);
            let awaited = before.awaited.iter().filter(|place| !seat.used.awaited.contains(place));
            let awaited = awaited.filter_map(|(_, id)| self.state.instance(*id));
            self.unkept.extend(awaited.map(|one| one.workload().borough.clone()));
            self.note(slot, false);
            return gave_back;
        }
        if seat.taken {
            self.whole.remove(&seat.host.inventory);
        } else {
            self.vacant -= 1;
        }
        self.outlook.learn(host);
        *seat = Seat::of(&self.state, host, &mut self.domains, &self.outlook);
        self.domains.note(slot, &host.inventory);
        self.whole.add(&seat.host.inventory);
        self.largest = self.largest.most(seat.bears());
        self.note(slot, true);
        true
    }

    /// Boroughs of those for whom room is kept no more, or less firmly, since this was asked last.
    pub(super) fn take_unkept(&mut self) -> BTreeSet<BoroughName> {
        std::mem::take(&mut self.unkept)
    }

    /// Keeps room in a slot for an instance no more, with whatever rank that was.
    fn forget_awaited(&mut self, slot: Slot, id: InstanceId) -> Option<()> {
        let used = &mut self.seats[slot].used;
        let place = used.awaited.iter().find(|(_, other)| *other == id).copied()?;
        Arc::make_mut(used).awaited.remove(&place);
        self.unkept.extend(self.state.instance(id).map(|one| one.workload().borough.clone()));
        Some(())
    }

    /// The state it is of.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Processor, memory and devices that all hosts have to give away.
    pub(super) fn whole(&self) -> &Whole {
        &self.whole
    }

    /// The most of each amount that anything could ask for on any host, or ever could.
    pub(super) fn largest(&self) -> Amounts {
        self.largest
    }

    /// The mix of requests for devices, and the devices there are.
    pub(super) fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    /// How the devices in a slot look to whoever asks for these.
    pub(super) fn prospect<'p>(&'p self, slot: Slot, asked: &'p [Asked]) -> Prospect<'p> {
        Prospect { outlook: &self.outlook, free: self.seats[slot].devices.as_ref(), asked }
    }

    /// All slots, vacant ones too.
    pub(super) fn slots(&self) -> std::ops::Range<Slot> {
        0..self.seats.len()
    }

    /// The slots in which hosts are.
    pub(super) fn hosts(&self) -> impl Iterator<Item = Slot> {
        self.slots().filter(|slot| self.is_taken(*slot))
    }

    /// Whether a host is in the slot.
    pub(super) fn is_taken(&self, slot: Slot) -> bool {
        self.seats[slot].taken
    }

    /// The slot of a host.
    pub(super) fn slot(&self, host: HostId) -> Option<Slot> {
        // Ids are given in turn, so that few are missing in between: mostly a slot is as far from the first as its id.
        let likely = host.0.checked_sub(self.seats.first()?.id.0)? as Slot;
        if self.seats.get(likely).is_some_and(|seat| seat.id == host) {
            return Some(likely);
        }
        self.seats.binary_search_by_key(&host, |seat| seat.id).ok()
    }

    /// How the host in a slot looks at a glance.
    pub(super) fn glance(&self, slot: Slot) -> &Glance {
        &self.glances[slot]
    }

    /// The host in a slot, as it now stands; in a vacant one the host that was there.
    pub(super) fn candidate(&self, slot: Slot) -> Candidate<'_> {
        let seat = &self.seats[slot];
        let (host, used) = (&seat.host, &seat.used);
        Candidate { state: &self.state, host, allocatable: seat.allocatable, used, known: Known::default() }
    }

    /// The same for whom is asked: whether its borough may keep the host to itself is as of now.
    pub(super) fn candidate_for(&self, slot: Slot, request: &Request<'_>) -> Candidate<'_> {
        self.candidate_beside(slot, request, &BTreeSet::new())
    }

    /// The same beside slots that its borough would keep to itself, too.
    pub(super) fn candidate_beside(
        &self,
        slot: Slot,
        request: &Request<'_>,
        others: &BTreeSet<Slot>,
    ) -> Candidate<'_> {
        let mut candidate = self.candidate(slot);
        if request.spec.place.private {
            let borough = &request.key.borough;
            let is_claimed = others.contains(&slot) || self.has_claimed(slot, borough);
            let may_keep = is_claimed || self.may_keep_beside(borough, others.len() as u32);
            candidate.known.may_keep = Some(may_keep);
        }
        candidate
    }

    /// Whether a borough may keep one more host to itself, with those that it began to keep in this pass.
    pub(super) fn may_keep(&self, borough: &BoroughName) -> bool {
        self.may_keep_beside(borough, 0)
    }

    /// The same with so many beside these.
    fn may_keep_beside(&self, borough: &BoroughName, others: u32) -> bool {
        let claimed = self.claimed.get(borough).map_or(0, BTreeSet::len) as u32;
        self.state.kept_hosts(borough) + claimed + others < self.state.allowance_of(borough).private_hosts
    }

    /// The slot in which room is kept for an instance, for which others make way.
    pub(super) fn kept_for(&self, id: InstanceId) -> Option<Slot> {
        self.slot(self.state.instance(id)?.awaited_host()?)
    }

    /// For whom room is kept in a slot, with the rank; to the end of the pass also who was given it.
    pub(super) fn awaited_in(&self, slot: Slot) -> impl Iterator<Item = &(u32, InstanceId)> {
        self.seats[slot].used.awaited.iter()
    }

    /// The slot to which an instance of a revision goes and to no other, since its volumes live there.
    #[inline]
    pub(super) fn home(&self, record: &RevisionRecord, id: InstanceId) -> Option<Slot> {
        if !record.spec.has_volumes() {
            return None;
        }
        self.slot(self.state.home_of(id)?)
    }

    /// Whether a borough began to keep a host to itself in this pass.
    fn has_claimed(&self, slot: Slot, borough: &BoroughName) -> bool {
        self.claimed.get(borough).is_some_and(|hosts| hosts.contains(&self.seats[slot].id))
    }

    /// How many hosts boroughs began to keep to themselves in this pass.
    pub(super) fn claimed(&self) -> impl Iterator<Item = (&BoroughName, u32)> {
        self.claimed.iter().map(|(borough, hosts)| (borough, hosts.len() as u32))
    }

    /// Slots that are kept to a borough, with the borough.
    pub(super) fn private(&self) -> &BTreeMap<Slot, BoroughName> {
        &self.private
    }

    /// Whether a borough would begin to keep a host to itself with something private there.
    pub(super) fn would_claim(&self, slot: Slot, borough: &BoroughName) -> bool {
        !self.state.keeps(borough, self.seats[slot].id) && !self.has_claimed(slot, borough)
    }

    /// Counts a host that a borough keeps to itself for something private.
    fn claim(&mut self, slot: Slot, borough: &BoroughName) {
        if self.would_claim(slot, borough) {
            let host = self.seats[slot].id;
            self.claimed.entry(borough.clone()).or_default().insert(host);
        }
    }

    /// Where the host in a slot stands.
    pub(super) fn whereabouts(&self, slot: Slot) -> Whereabouts {
        self.seats[slot].whereabouts
    }

    /// The numbers of where hosts stand.
    pub(super) fn domains(&self) -> &Domains {
        &self.domains
    }

    /// Where the host in a slot is of one thing that is spread over, and which share is to be there. Labels were [learnt](Self::learn) before.
    pub(super) fn domain(&self, slot: Slot, spread: &Spread) -> (Domain, Share) {
        let seat = &self.seats[slot];
        self.domains.find(slot, &seat.host.inventory, seat.whereabouts, spread)
    }

    /// Tells hosts apart by the labels that are spread over, from now on.
    pub(super) fn learn(&mut self, spread: &[Spread]) {
        let Self { domains, seats, .. } = self;
        for label in labels(spread) {
            if !domains.knows(label) {
                let hosts = seats.iter().map(|seat| &*seat.host.inventory);
                domains.learn(label, hosts.enumerate());
            }
        }
    }

    fn note(&mut self, slot: Slot, is_of_record: bool) {
        let seat = &self.seats[slot];
        self.glances[slot] = Glance::of(seat);
        if let Some(devices) = &seat.devices {
            devices.forget_worth();
        }
        self.last_changes[slot] = self.changes();
        if is_of_record {
            self.last_of_record = self.changes();
        }
        self.changes.push(Change { slot, is_of_record });
    }

    fn note_given(&mut self, slot: Slot) {
        self.note(slot, false);
        if self.given.last() != Some(&slot) {
            self.given.push(slot);
        }
    }

    /// Whether no record changed after so many changes.
    pub(super) fn are_records_of(&self, changes: usize) -> bool {
        changes > self.last_of_record || self.changes() == 0
    }

    /// How many changes there have been.
    pub(super) fn changes(&self) -> usize {
        self.first_change + self.changes.len()
    }

    /// What changed after so many changes, in order: of a slot the last change, and those of its host's record. `None`: that is too long ago.
    pub(super) fn changed_since(&self, changes: usize) -> Option<impl Iterator<Item = Change>> {
        let changed = self.changes.get(changes.checked_sub(self.first_change)?..)?;
        let is_last = |(number, change): &(usize, &Change)| self.last_changes[change.slot] == *number;
        let counts = move |one: &(usize, &Change)| one.1.is_of_record || is_last(one);
        Some((changes..).zip(changed).filter(counts).map(|(_, change)| *change))
    }
}
