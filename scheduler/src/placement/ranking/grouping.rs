//! Which host stands in which group. It goes by the records of hosts alone, so that orders of hosts that are spread alike share one; an order in
//! which a host comes to stand elsewhere has its own from then on.

use std::collections::HashMap;

use super::Group;
use crate::placement::{
    by_number::ByNumber,
    ledger::Slot,
    spread::{Domain, Neighbourhood},
};

/// The groups, and who stands in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Grouping {
    /// Groups by what is narrowest of their places.
    numbers: ByNumber<Domain, Group>,
    /// Those whose narrowest was another one's before.
    crossing: HashMap<Neighbourhood, Group>,
    places: Vec<Neighbourhood>,
    /// How many slots there are.
    hosts: usize,
    /// The group of each slot; empty while there is only one group.
    groups: Vec<Group>,
    /// Slots by their groups; `None`: a host has come to stand elsewhere since.
    members: Option<Members>,
}

/// Slots in the order of their groups, and where those of each begin, with the end of the last.
#[derive(Debug, Clone)]
struct Members {
    slots: Vec<u32>,
    begins: Vec<u32>,
}

impl Grouping {
    /// Of hosts that stand in these places, in the order of their slots.
    pub(super) fn of(places: impl Iterator<Item = Neighbourhood>) -> Self {
        let mut grouping = Self::default();
        for (slot, place) in places.enumerate() {
            let group = grouping.find(place).unwrap_or_else(|| grouping.add(place));
            grouping.put(slot, group);
        }
        grouping.list_members();
        grouping
    }

    /// Of so many hosts that all stand in the same place.
    pub(super) fn of_one(place: Neighbourhood, hosts: usize) -> Self {
        let mut grouping = Self { hosts, ..Self::default() };
        if hosts > 0 {
            grouping.add(place);
        }
        grouping
    }

    /// Where the hosts of each group stand.
    pub(super) fn places(&self) -> &[Neighbourhood] {
        &self.places
    }

    /// The group of a slot.
    #[inline]
    pub(super) fn group(&self, slot: Slot) -> Group {
        if self.groups.is_empty() { 0 } else { self.groups[slot] }
    }

    /// The group whose hosts stand there, if it is known.
    pub(super) fn find(&self, place: Neighbourhood) -> Option<Group> {
        let is_there = |group: &Group| self.places[*group as usize] == place;
        let by_narrowest = || self.numbers.get(&place.narrowest()).copied();
        match &self.places[..] {
            [only] => (*only == place).then_some(0),
            _ => by_narrowest().filter(is_there).or_else(|| self.crossing.get(&place).copied()),
        }
    }

    /// Makes a group of those who stand there.
    pub(super) fn add(&mut self, place: Neighbourhood) -> Group {
        let new = self.places.len() as Group;
        self.places.push(place);
        if *self.numbers.entry(place.narrowest()).or_insert(new) != new {
            self.crossing.insert(place, new);
        }
        new
    }

    /// Puts the host in a slot, which may be the next one, into a group.
    pub(super) fn put(&mut self, slot: Slot, group: Group) {
        self.members = None;
        self.hosts = self.hosts.max(slot + 1);
        if self.places.len() > 1 {
            // All others stand in the first until they are put elsewhere.
            self.groups.resize(self.hosts, 0);
            self.groups[slot] = group;
        }
    }

    /// Lists who stands in which group, where that is not known.
    pub(super) fn list_members(&mut self) {
        if self.members.is_some() || self.places.len() <= 1 {
            return;
        }
        let mut begins = vec![0; self.places.len() + 1];
        self.groups.iter().for_each(|group| begins[*group as usize + 1] += 1);
        for group in 1..begins.len() {
            begins[group] += begins[group - 1];
        }
        let mut next = begins.clone();
        let mut slots = vec![0; self.groups.len()];
        for (slot, group) in self.groups.iter().enumerate() {
            let place = &mut next[*group as usize];
            slots[*place as usize] = slot as u32;
            *place += 1;
        }
        self.members = Some(Members { slots, begins });
    }

    /// Whether it is known who stands in which group.
    pub(super) fn has_members(&self) -> bool {
        self.members.is_some()
    }

    /// The slots of a group, where there are several groups and it is known who stands in them.
    pub(super) fn members(&self, group: Group) -> &[u32] {
        let of = |members: &'_ Members| {
            let [begin, end] = [group, group + 1].map(|group| members.begins[group as usize] as usize);
            begin..end
        };
        self.members.as_ref().map_or(&[], |members| &members.slots[of(members)])
    }
}
