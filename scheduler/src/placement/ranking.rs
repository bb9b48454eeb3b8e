//! An order of hosts, best first, kept by group: hosts that are equally crowded for whoever is spread (see `spread`). It is put right one host at a
//! time, and read from the least crowded group on. It does not know what makes a rank.
//!
//! Many workloads share it. What one of them has to pass over, since it has instances there, is *set aside* while it is that workload's turn
//! and put back after it: so a workload of a thousand passes over each of its hosts once a turn, and not once for each that is still to come. The same
//! goes for the groups, which stand in an order of their own (`order`).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use super::{
    by_number::ByNumber,
    ledger::Slot,
    spread::{Burden, Domain, Look, Neighbourhood, OUT, Siblings},
};

mod order;

use order::{AreaNumber, AreaStanding, Order, Standing};

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
    numbers: ByNumber<Domain, Group>,
    /// Those whose narrowest was another one's before.
    crossing: HashMap<Neighbourhood, Group>,
    groups: Vec<Ranked>,
    seats: Vec<Seat>,
    /// Entries of all groups, with those set aside.
    entries: usize,
    /// What whose turn it is has passed over.
    aside: BTreeMap<Group, BinaryHeap<Best>>,
    /// The groups, where there is more than one.
    order: Order,
}

/// The hosts of one group. What stands here otherwise than in its seat is out of date.
#[derive(Debug)]
struct Ranked {
    place: Neighbourhood,
    best: BinaryHeap<Entry>,
    /// The first of `best` that is not out of date, where that is known.
    top: Option<Entry>,
}

impl Ranked {
    fn of(place: Neighbourhood) -> Self {
        Self { place, best: BinaryHeap::new(), top: None }
    }
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
        ranking.begin()
    }

    /// Of hosts that stand in the same groups as in another one, with these ranks.
    pub(super) fn like(other: &Self, ranks: impl Iterator<Item = Option<Rank>>) -> Self {
        let (numbers, crossing) = (other.numbers.clone(), other.crossing.clone());
        let mut ranking = Self { numbers, crossing, ..Self::default() };
        for Ranked { place, .. } in &other.groups {
            ranking.groups.push(Ranked::of(*place));
            ranking.order.add(*place);
        }
        let seats = other.seats.iter().zip(ranks);
        ranking.seats = seats.map(|(seat, rank)| Seat { group: seat.group, rank }).collect();
        ranking.begin()
    }

    /// Once the seats are known.
    fn begin(mut self) -> Self {
        self.fill();
        if self.groups.len() > 1 {
            (0..self.groups.len() as Group).for_each(|group| self.raise(group));
        }
        self
    }

    /// How good the host in a slot is; `None`: it is out.
    pub(super) fn rank(&self, slot: Slot) -> Option<Rank> {
        self.seats[slot].rank
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
        if self.groups.len() > 1 {
            let crowd = look.siblings.crowd_within(&self.groups[now.group as usize].place);
            let standing = (Reverse(crowd), (Reverse(burden), entry), now.group);
            self.order.raise(standing, look.siblings);
            self.order.touch(now.group);
        }
    }

    fn group(&mut self, place: Neighbourhood) -> Group {
        let Self { groups, numbers, crossing, order, .. } = self;
        if let [only] = &groups[..]
            && only.place == place
        {
            return 0;
        }
        let first = *numbers.entry(place.narrowest()).or_insert(groups.len() as Group);
        if groups.get(first as usize).is_some_and(|group| group.place == place) {
            return first;
        }
        let new = groups.len() as Group;
        let group = if first == new { first } else { *crossing.entry(place).or_insert(new) };
        if group == new {
            groups.push(Ranked::of(place));
            order.add(place);
            // As long as it was the only one, nobody asked for its place in an order.
            if group == 1 {
                self.raise(0);
            }
        }
        group
    }

    fn forget_top(&mut self, group: Group, slot: Slot) {
        let ranked = &mut self.groups[group as usize];
        ranked.top = ranked.top.filter(|top| top.slot() != slot);
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
        loop {
            let (listed, area) = self.order.first()?;
            let now = self.area_standing(area, look);
            if now == Some(listed) {
                let (_, (_, (_, entry), _)) = listed;
                return Some(entry.slot());
            }
            self.order.set_first(now);
        }
    }

    /// How an area stands, with its first group; nowhere if no group in it has a host.
    fn area_standing(&mut self, area: AreaNumber, look: Look<'_>) -> Option<AreaStanding> {
        loop {
            let listed = self.order.first_of(area)?;
            let now = self.standing(listed.2, look);
            if now == Some(listed) {
                return Some((self.order.crowd_around(area, look.siblings), listed));
            }
            self.order.set_first_of(area, now);
        }
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
            self.touch(group);
        }
        for group in self.order.take_touched() {
            self.raise(group);
        }
        self.order.raise_areas();
    }

    /// Lists a group as good as it is to whom nothing belongs yet.
    fn raise(&mut self, group: Group) {
        let best = self.top(group).map(|top| (Reverse(0), top));
        let aside = self.aside.get(&group).and_then(|aside| aside.peek().copied());
        if let Some(best) = best.or(aside) {
            let nobody = Siblings::default();
            let crowd = nobody.crowd_within(&self.groups[group as usize].place);
            self.order.raise((Reverse(crowd), best, group), &nobody);
        }
    }

    fn touch(&mut self, group: Group) {
        if self.groups.len() > 1 {
            self.order.touch(group);
        }
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

impl Seat {
    /// Whether the entry of a group says how the host stands.
    fn is(&self, group: Group, entry: Entry) -> bool {
        self.rank == Some(entry.rank) && self.group == group
    }
}
