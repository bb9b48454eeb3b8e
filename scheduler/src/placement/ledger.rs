//! The hosts as a pass sees them: what the state says is given away of each, and what has been given or taken back since. It decides nothing.
//!
//! Hosts stand in slots, in the order of their ids, so that a slot is an index and the order of slots breaks ties. What changed is kept as a
//! list of slots, so that whoever holds an order of hosts repairs it by what changed instead of making it anew.

use std::borrow::Cow;

use supercloud_proto::{amount::Amounts, id::HostId};

use crate::state::{
    Host, HostUse, Instance, State,
    fits::{Candidate, Request},
};

/// A host's place in a ledger.
pub(super) type Slot = usize;

/// All hosts, and what is given away of each.
pub(super) struct Ledger<'a> {
    state: &'a State,
    seats: Vec<Seat<'a>>,
    changes: Vec<Slot>,
}

struct Seat<'a> {
    host: &'a Host,
    /// What the host can give away in all: kept here, since looking it up there costs more than all that is done with it.
    allocatable: Amounts,
    used: Cow<'a, HostUse>,
}

impl<'a> Ledger<'a> {
    /// As the state has it.
    pub(super) fn new(state: &'a State) -> Self {
        let seat = |host: &'a Host| Seat {
            host,
            allocatable: host.inventory.allocatable(),
            used: Cow::Borrowed(state.used(host.id)),
        };
        let seats = state.hosts().values().map(|host| seat(host)).collect();
        Self { state, seats, changes: Vec::new() }
    }

    /// The state it is of.
    pub(super) fn state(&self) -> &'a State {
        self.state
    }

    /// All slots.
    pub(super) fn slots(&self) -> std::ops::Range<Slot> {
        0..self.seats.len()
    }

    /// The slot of a host.
    pub(super) fn slot(&self, host: HostId) -> Option<Slot> {
        self.seats.binary_search_by_key(&host, |seat| seat.host.id).ok()
    }

    /// The host in a slot, as it now stands.
    pub(super) fn candidate(&self, slot: Slot) -> Candidate<'_> {
        let seat = &self.seats[slot];
        Candidate { state: self.state, host: seat.host, allocatable: seat.allocatable, used: &seat.used }
    }

    /// Gives an instance room and ports on a host.
    pub(super) fn give(&mut self, slot: Slot, instance: &Instance, request: &Request<'_>, ports: &[u16]) {
        let used = self.seats[slot].used.to_mut();
        used.taken += request.demand;
        used.instances.insert(instance.id);
        for ((_, port), number) in request.spec.ports().zip(ports) {
            used.ports.insert((port.protocol, *number));
        }
        self.changes.push(slot);
    }

    /// Takes back what an instance of the state has of its host.
    pub(super) fn take_back(&mut self, instance: &Instance) {
        let Some(placed) = &instance.placed else { return };
        let Some(slot) = self.slot(placed.host) else { return };
        let used = self.seats[slot].used.to_mut();
        used.instances.remove(&instance.id);
        if instance.takes().is_some() {
            used.take_back(instance, placed);
        }
        self.changes.push(slot);
    }

    /// How many changes there have been.
    pub(super) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// The slots that changed after so many changes, in order; one may come more than once.
    pub(super) fn changed_since(&self, changes: usize) -> &[Slot] {
        self.changes.get(changes..).unwrap_or(&[])
    }
}
