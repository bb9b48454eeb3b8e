//! An order of hosts, best first, kept by group: hosts that are equally crowded for whoever is spread (see `spread`). It is put right one host at a
//! time, and read from the least crowded group on. It does not know what makes a rank.
//!
//! Many workloads share it. What one of them has to pass over, since it has instances there, is *set aside* while it is that workload's turn
//! and put back after it: so a workload of a thousand passes over each of its hosts once a turn, and not once for each that is still to come. The
//! groups stand in an order of their own for that turn, in which only the group that was taken from changes its place, and with it what else it makes
//! more crowded. That is not looked for: counts only grow in a turn, so nothing is better than where it stood when it was last looked at, and it is
//! enough to look at what stands first.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, binary_heap::PeekMut},
};

use super::{
    ledger::Slot,
    spread::{Burden, Look, Neighbourhood, OUT, Siblings},
};

/// How good a host is.
pub(super) type Rank = i64;

/// Number of a group of hosts.
type Group = u32;

/// Entries that are out of date are thrown out when there are so many times as many entries as hosts.
const MAX_STALE: usize = 2;
/// Entries that are put up with however few hosts there are.
const MIN_ENTRIES: usize = 1_024;

/// A host with its rank; of equals the first slot is the best. A slot takes half the bytes of an index: this is what most memory goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    rank: Rank,
    slot: Reverse<u32>,
}

impl Entry {
    fn slot(self) -> Slot {
        self.slot.0 as Slot
    }
}

/// The best of a group for a workload: the less it minds who is there, and then by rank.
type Best = (Reverse<Burden>, Entry);

/// Hosts by rank, ties by slot.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// Groups by what is narrowest of their places.
    numbers: Vec<Option<Group>>,
    /// Those whose narrowest was another one's before.
    crossing: HashMap<Neighbourhood, Group>,
    groups: Vec<Ranked>,
    seats: Vec<Seat>,
    /// Entries of all groups, with those set aside.
    entries: usize,
    /// What whose turn it is has passed over.
    aside: BTreeMap<Group, BinaryHeap<Best>>,
    /// The groups as whose turn it is takes from them.
    order: Option<Order>,
    /// Groups that may not be where they stand in it.
    moved: Vec<Group>,
}

/// Groups by area: how crowded an area is changes for all its groups at once.
#[derive(Debug, Default)]
struct Order {
    areas: Vec<Area>,
    /// The areas as they stood when they were last looked at, the best at the top: least crowded, and then by their best group.
    line: BinaryHeap<(Reverse<u64>, Standing, usize)>,
    /// Number of each group's area.
    of_group: Vec<usize>,
}

/// The groups that are the same but for what is narrowest, and have a host; the best at the top, as they stood when they were last looked at.
#[derive(Debug)]
struct Area {
    place: Neighbourhood,
    groups: BinaryHeap<Standing>,
}

/// How a group stands in its area: the less crowded the better, and then by its best host.
type Standing = (Reverse<u32>, Best, Group);

/// The hosts of one group. What stands here otherwise than in its seat is out of date.
#[derive(Debug)]
struct Ranked {
    place: Neighbourhood,
    best: BinaryHeap<Entry>,
    /// The first of `best` that is not out of date, where that is known.
    top: Option<Entry>,
}

/// How a host stands now.
#[derive(Debug, Clone, Copy)]
struct Seat {
    group: Group,
    /// `None`: it is out.
    rank: Option<Rank>,
}

impl Ranking {
    /// Of all hosts, in the order of their slots.
    pub(super) fn of(hosts: impl Iterator<Item = (Neighbourhood, Option<Rank>)>) -> Self {
        let mut ranking = Self::default();
        let seat = |(place, rank)| Seat { group: ranking.group(place), rank };
        ranking.seats = hosts.map(seat).collect();
        ranking.fill();
        ranking
    }

    /// Gives each group the entries of its seats, and no others.
    fn fill(&mut self) {
        let mut sizes = vec![0; self.groups.len()];
        let ranked = self.seats.iter().filter(|seat| seat.rank.is_some());
        ranked.for_each(|seat| sizes[seat.group as usize] += 1);
        let mut lists: Vec<Vec<Entry>> = sizes.into_iter().map(Vec::with_capacity).collect();
        for (slot, seat) in self.seats.iter().enumerate() {
            if let Some(rank) = seat.rank {
                lists[seat.group as usize].push(Entry { rank, slot: Reverse(slot as u32) });
            }
        }
        self.entries = lists.iter().map(Vec::len).sum();
        for (ranked, list) in self.groups.iter_mut().zip(lists) {
            ranked.best = BinaryHeap::from(list);
            ranked.top = None;
        }
    }

    /// Says how a host stands now; those before it have been put in. What whose turn it is minds is set aside at once.
    pub(super) fn put(&mut self, slot: Slot, place: Neighbourhood, rank: Option<Rank>, look: Look<'_>) {
        let group = self.group(place);
        self.seat(slot, Seat { group, rank }, look);
    }

    /// The same of a host that stands where it stood.
    pub(super) fn rerank(&mut self, slot: Slot, rank: Option<Rank>, look: Look<'_>) {
        let group = self.seats[slot].group;
        self.seat(slot, Seat { group, rank }, look);
    }

    fn seat(&mut self, slot: Slot, now: Seat, look: Look<'_>) {
        let before = match self.seats.get_mut(slot) {
            Some(seat) => Some(std::mem::replace(seat, now)),
            None => {
                self.seats.push(now);
                None
            }
        };
        if let Some(before) = before {
            if before.group == now.group && before.rank == now.rank {
                return;
            }
            self.forget_top(before.group, slot);
        }
        let Some(rank) = now.rank else { return };
        let entry = Entry { rank, slot: Reverse(slot as u32) };
        let burden = look.burden(slot);
        if burden > 0 {
            self.aside.entry(now.group).or_default().push((Reverse(burden), entry));
        } else {
            let ranked = &mut self.groups[now.group as usize];
            ranked.best.push(entry);
            ranked.top = ranked.top.map(|top| top.max(entry));
        }
        self.entries += 1;
        self.note_moved(now.group);
    }

    fn group(&mut self, place: Neighbourhood) -> Group {
        let Self { groups, numbers, crossing, .. } = self;
        if let [only] = &groups[..]
            && only.place == place
        {
            return 0;
        }
        let number = place.narrowest();
        if number >= numbers.len() {
            numbers.resize(number + 1, None);
        }
        let first = *numbers[number].get_or_insert(groups.len() as Group);
        if groups.get(first as usize).is_some_and(|group| group.place == place) {
            return first;
        }
        let new = groups.len() as Group;
        let group = if first == new { first } else { *crossing.entry(place).or_insert(new) };
        if group == new {
            groups.push(Ranked { place, best: BinaryHeap::new(), top: None });
        }
        group
    }

    fn forget_top(&mut self, group: Group, slot: Slot) {
        let ranked = &mut self.groups[group as usize];
        ranked.top = ranked.top.filter(|top| top.slot() != slot);
        self.note_moved(group);
    }

    fn note_moved(&mut self, group: Group) {
        if self.order.is_some() && self.moved.last() != Some(&group) {
            self.moved.push(group);
        }
    }

    /// Leaves a host out until it is put in again.
    pub(super) fn leave_out(&mut self, slot: Slot) {
        self.forget_top(self.seats[slot].group, slot);
        self.seats[slot].rank = None;
    }

    /// The best host of the least crowded group that has any.
    pub(super) fn best(&mut self, look: Look<'_>) -> Option<Slot> {
        if self.groups.len() <= 1 {
            return self.best_of(0, look).map(|(_, entry)| entry.slot());
        }
        let mut order = self.order.take().unwrap_or_default();
        let mut moved = std::mem::take(&mut self.moved);
        let is_right =
            !order.areas.is_empty() && moved.drain(..).all(|group| self.put_right(&mut order, group, look));
        self.moved = moved;
        if !is_right {
            order = self.order_for(look);
        }
        let found = order.first(&self.groups, look.siblings);
        self.order = Some(order);
        let (slot, group) = found?;
        // Whoever takes from it makes it more crowded.
        self.moved.push(group);
        Some(slot)
    }

    /// Puts a group right that was the first of all; any other one is not found.
    fn put_right(&mut self, order: &mut Order, group: Group, look: Look<'_>) -> bool {
        let Some(number) = order.of_group.get(group as usize) else { return false };
        let area = &mut order.areas[*number];
        let is_first = order.line.peek().is_some_and(|(.., first)| first == number)
            && area.groups.peek().is_some_and(|(.., first)| *first == group);
        if is_first {
            area.groups.pop();
            area.groups.extend(self.standing(group, look));
        }
        is_first
    }

    fn order_for(&mut self, look: Look<'_>) -> Order {
        let (mut order, mut numbers) = (Order::default(), BTreeMap::new());
        let mut lists: Vec<(Neighbourhood, Vec<Standing>)> = Vec::new();
        for group in 0..self.groups.len() as Group {
            let place = self.groups[group as usize].place.wider();
            let number = *numbers.entry(place).or_insert(lists.len());
            if number == lists.len() {
                lists.push((place, Vec::new()));
            }
            lists[number].1.extend(self.standing(group, look));
            order.of_group.push(number);
        }
        let area = |(place, list)| Area { place, groups: BinaryHeap::from(list) };
        order.areas = lists.into_iter().map(area).collect();
        let stands = |(number, area): (usize, &mut Area)| {
            area.stands(&self.groups, look.siblings).map(|(crowd, standing)| (crowd, standing, number))
        };
        order.line = order.areas.iter_mut().enumerate().filter_map(stands).collect();
        order
    }

    /// Where a group stands in its area; nowhere if it has no host.
    fn standing(&mut self, group: Group, look: Look<'_>) -> Option<Standing> {
        let best = self.best_of(group, look)?;
        let crowd = look.siblings.crowd_within(&self.groups[group as usize].place);
        Some((Reverse(crowd), best, group))
    }

    /// The best host of a group. What the workload minds is set aside.
    fn best_of(&mut self, group: Group, look: Look<'_>) -> Option<Best> {
        if self.groups.is_empty() {
            return None;
        }
        while let Some(top) = self.top(group) {
            let burden = look.burden(top.slot());
            if burden == 0 {
                return Some((Reverse(0), top));
            }
            let ranked = &mut self.groups[group as usize];
            (ranked.top, _) = (None, ranked.best.pop());
            self.aside.entry(group).or_default().push((Reverse(burden), top));
        }
        self.best_aside(group, look)
    }

    /// The first of a group that is not out of date. What is above it is thrown out.
    fn top(&mut self, group: Group) -> Option<Entry> {
        let Self { groups, seats, entries, .. } = self;
        let ranked = &mut groups[group as usize];
        while ranked.top.is_none() {
            let first = *ranked.best.peek()?;
            if seats[first.slot()].is(group, first) {
                ranked.top = Some(first);
            } else {
                ranked.best.pop();
                *entries -= 1;
            }
        }
        ranked.top
    }

    /// The best of those set aside, unless they are all out.
    fn best_aside(&mut self, group: Group, look: Look<'_>) -> Option<Best> {
        let aside = self.aside.get_mut(&group)?;
        loop {
            let best = *aside.peek()?;
            let (Reverse(counted), entry) = best;
            let is_current = self.seats[entry.slot()].is(group, entry);
            let burden = look.burden(entry.slot());
            if is_current && burden == counted {
                return (burden != OUT).then_some(best);
            }
            aside.pop();
            if is_current {
                aside.push((Reverse(burden), entry));
            } else {
                self.entries -= 1;
            }
        }
    }

    /// Ends a workload's turn.
    pub(super) fn put_back(&mut self) {
        for (group, aside) in std::mem::take(&mut self.aside) {
            let ranked = &mut self.groups[group as usize];
            ranked.best.extend(aside.into_iter().map(|(_, entry)| entry));
            ranked.top = None;
        }
        self.order = None;
        self.moved.clear();
    }

    /// Throws out what is out of date, when it is much.
    pub(super) fn tidy(&mut self) {
        if self.entries <= MIN_ENTRIES.max(self.seats.len() * MAX_STALE) {
            return;
        }
        self.aside.clear();
        self.fill();
    }
}

impl Order {
    /// The best host of the first group, and that group.
    fn first(&mut self, groups: &[Ranked], siblings: &Siblings) -> Option<(Slot, Group)> {
        loop {
            let mut first = self.line.peek_mut()?;
            let (crowd, standing, number) = *first;
            match self.areas[number].stands(groups, siblings) {
                None => drop(PeekMut::pop(first)),
                Some(now) if now == (crowd, standing) => {
                    let (_, (_, entry), group) = standing;
                    return Some((entry.slot(), group));
                }
                Some((crowd, standing)) => *first = (crowd, standing, number),
            }
        }
    }
}

impl Area {
    /// How it stands now, with its first group; nowhere if no group in it has a host.
    fn stands(&mut self, groups: &[Ranked], siblings: &Siblings) -> Option<(Reverse<u64>, Standing)> {
        loop {
            let mut first = self.groups.peek_mut()?;
            let crowd = Reverse(siblings.crowd_within(&groups[first.2 as usize].place));
            if first.0 == crowd {
                return Some((Reverse(siblings.crowd_around(&self.place)), *first));
            }
            first.0 = crowd;
        }
    }
}

impl Seat {
    /// Whether the entry of a group says how the host stands.
    fn is(&self, group: Group, entry: Entry) -> bool {
        self.rank == Some(entry.rank) && self.group == group
    }
}
