//! The hosts as a pass sees them: what the state says is given away of each, and what has been given or taken back since. It decides nothing.
//!
//! Hosts stand in slots, in the order of their ids, so that a slot is an index and the order of slots breaks ties. What changed is kept as a
//! list of slots, so that whoever holds an order of hosts repairs it by what changed instead of making it anew.
//!
//! A ledger outlives a pass: [`Ledger::catch_up`] takes in what is different in a newer state, in time that goes by what changed and not by how many
//! hosts there are (the state's maps share what they have in common). A host that is gone leaves its slot behind; when too many slots are
//! vacant, the ledger is made anew.

use std::sync::Arc;

use supercloud_proto::{amount::Amounts, id::HostId};

use crate::state::{
    Host, HostUse, Instance, State,
    fits::{Candidate, Request},
};

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
    seats: Vec<Seat>,
    vacant: usize,
    changes: Vec<Slot>,
    /// Number of the first of `changes`.
    first_change: usize,
    /// Slots in which something was given or taken back that the state does not know of.
    given: Vec<Slot>,
}

struct Seat {
    id: HostId,
    host: Arc<Host>,
    /// Whether the host is still there.
    taken: bool,
    /// What the host can give away in all: kept here, since looking it up there costs more than all that is done with it.
    allocatable: Amounts,
    used: Arc<HostUse>,
}

impl Seat {
    fn of(state: &State, host: &Arc<Host>) -> Self {
        Self {
            id: host.id,
            host: host.clone(),
            taken: true,
            allocatable: host.inventory.allocatable(),
            used: state.used_shared(host.id),
        }
    }
}

impl Ledger {
    /// As the state has it.
    pub(super) fn new(state: &State) -> Self {
        Self {
            state: state.clone(),
            seats: state.hosts().values().map(|host| Seat::of(state, host)).collect(),
            vacant: 0,
            changes: Vec::new(),
            first_change: 0,
            given: Vec::new(),
        }
    }

    /// As this state has it. `false`: all orders of hosts that were made from the ledger are void.
    pub(super) fn catch_up(&mut self, state: &State) -> bool {
        let known = std::mem::replace(&mut self.state, state.clone());
        for slot in std::mem::take(&mut self.given) {
            self.refresh(slot);
        }
        for host in state.hosts_changed_since(&known) {
            match self.slot(host) {
                Some(slot) => self.refresh(slot),
                None if self.seats.last().is_none_or(|last| last.id < host) => self.push(host),
                // Slots would no longer stand in the order of ids.
                None => return self.begin_anew(),
            }
        }
        if self.vacant > MIN_VACANT.max(self.seats.len() / 2) {
            return self.begin_anew();
        }
        let kept = MIN_KEPT_CHANGES.max(self.seats.len() * KEPT_CHANGES);
        let surplus = self.changes.len().saturating_sub(kept);
        self.changes.drain(..surplus);
        self.first_change += surplus;
        true
    }

    fn begin_anew(&mut self) -> bool {
        *self = Self::new(&self.state);
        false
    }

    /// Lets go of all of the state but what a later one is compared with.
    pub(super) fn rest(&mut self) {
        self.state = self.state.only_hosts();
    }

    fn push(&mut self, host: HostId) {
        if let Some(host) = self.state.host(host) {
            self.changes.push(self.seats.len());
            self.seats.push(Seat::of(&self.state, host));
        }
    }

    /// Takes a slot's host as the state has it.
    fn refresh(&mut self, slot: Slot) {
        let seat = &mut self.seats[slot];
        let was_taken = seat.taken;
        match self.state.host(seat.id) {
            Some(host) => *seat = Seat::of(&self.state, host),
            None => seat.taken = false,
        }
        self.vacant = self.vacant + usize::from(was_taken) - usize::from(seat.taken);
        self.changes.push(slot);
    }

    /// The state it is of.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// All slots, vacant ones too.
    pub(super) fn slots(&self) -> std::ops::Range<Slot> {
        0..self.seats.len()
    }

    /// Whether a host is in the slot.
    pub(super) fn is_taken(&self, slot: Slot) -> bool {
        self.seats[slot].taken
    }

    /// The slot of a host.
    pub(super) fn slot(&self, host: HostId) -> Option<Slot> {
        self.seats.binary_search_by_key(&host, |seat| seat.id).ok()
    }

    /// The host in a slot, as it now stands; in a vacant one the host that was there.
    pub(super) fn candidate(&self, slot: Slot) -> Candidate<'_> {
        let seat = &self.seats[slot];
        Candidate { state: &self.state, host: &seat.host, allocatable: seat.allocatable, used: &seat.used }
    }

    /// Gives an instance room and ports on a host.
    pub(super) fn give(&mut self, slot: Slot, instance: &Instance, request: &Request<'_>, ports: &[u16]) {
        let used = Arc::make_mut(&mut self.seats[slot].used);
        used.taken += request.demand;
        used.instances.insert(instance.id);
        for ((_, port), number) in request.spec.ports().zip(ports) {
            used.ports.insert((port.protocol, *number));
        }
        self.note_given(slot);
    }

    /// Takes back what an instance of the state has of its host.
    pub(super) fn take_back(&mut self, instance: &Instance) {
        let Some(placed) = &instance.placed else { return };
        let Some(slot) = self.slot(placed.host) else { return };
        let used = Arc::make_mut(&mut self.seats[slot].used);
        used.instances.remove(&instance.id);
        if instance.takes().is_some() {
            used.take_back(instance, placed);
        }
        self.note_given(slot);
    }

    fn note_given(&mut self, slot: Slot) {
        self.changes.push(slot);
        if self.given.last() != Some(&slot) {
            self.given.push(slot);
        }
    }

    /// How many changes there have been.
    pub(super) fn changes(&self) -> usize {
        self.first_change + self.changes.len()
    }

    /// The slots that changed after so many changes, in order; one may come more than once. `None`: that is too long ago.
    pub(super) fn changed_since(&self, changes: usize) -> Option<&[Slot]> {
        self.changes.get(changes.checked_sub(self.first_change)?..)
    }
}
