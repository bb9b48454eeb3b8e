//! An order of hosts, best first, kept by group: hosts that are equally crowded for whoever is spread (see `spread`). It is put right one host at a
//! time, and read from the least crowded group on. It does not know what makes a rank.
//!
//! Many workloads share it. What one of them has to pass over, since it has instances there, is *set aside* while it is that workload's turn
//! and put back after it: so a workload of a thousand passes over each of its hosts once a turn, and not once for each that is still to come. The same
//! goes for the groups, which stand in an order of their own (`order`).
//!
//! Of a group at first only the best host is known. The others are *listed* once somebody asks who comes after it: most groups of a large estate are never asked.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use super::{
    ledger::Slot,
    spread::{Burden, Look, Neighbourhood, OUT, Siblings},
};

mod grouping;
mod order;

use grouping::Grouping;
use order::{AreaNumber, AreaStanding, Order, Standing};

/// How good a host is.
pub(super) type Rank = i64;

/// Number of a group of hosts.
type Group = u32;

/// Entries that are out of date are thrown out when there are so many times as many entries as hosts.
const MAX_STALE: usize = 2;
/// Entries that are put up with however few hosts there are.
const MIN_ENTRIES: usize = 1_024;
/// Where hosts are listed, this part of the room is spare: the first change would move all of them otherwise.
const SPARE: usize = 4;

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
    grouping: Arc<Grouping>,
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
#[derive(Debug, Default)]
struct Ranked {
    best: BinaryHeap<Entry>,
    /// The first that is not out of date, where that is known; where hosts are listed, it is at the top of `best`.
    top: Option<Entry>,
    /// Whether all hosts with room are in `best`, or set aside.
    is_listed: bool,
}

impl Ranked {
    /// Takes out the host that is at the top, and says how many entries went with it.
    fn take_top(&mut self) -> usize {
        self.top = None;
        usize::from(self.is_listed && self.best.pop().is_some())
    }

    /// Puts the host that is at the top where it now belongs.
    fn move_top(&mut self, now: Entry) {
        self.top = self.top.filter(|before| *before <= now).map(|_| now);
        if let Some(mut first) = self.best.peek_mut().filter(|_| self.is_listed) {
            *first = now;
        }
    }

    /// Puts in one that is better than it was, or that was not in.
    fn put(&mut self, entry: Entry) -> usize {
        self.top = self.top.map(|top| top.max(entry));
        if self.is_listed {
            self.best.push(entry);
        }
        usize::from(self.is_listed)
    }
}

/// How a host stands now: its rank, or a number that no rank is, so that both take the bytes of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat(Rank);

impl Seat {
    /// It is out.
    const OUT: Self = Self(Rank::MIN);

    fn of(rank: Option<Rank>) -> Self {
        rank.map_or(Self::OUT, |rank| Self(rank.max(Rank::MIN + 1)))
    }

    #[inline]
    fn entry(self, slot: Slot) -> Option<Entry> {
        (self != Self::OUT).then_some(Entry { rank: self.0, slot: Reverse(slot as u32) })
    }
}

impl Ranking {
    /// Of all hosts, in the order of their slots: where they stand, and how good they are.
    pub(super) fn of(
        places: impl Iterator<Item = Neighbourhood>,
        ranks: impl Iterator<Item = Option<Rank>>,
    ) -> Self {
        Self::grouped(Grouping::of(places), ranks)
    }

    /// The same of hosts that all stand in the same place.
    pub(super) fn of_one_group(
        place: Neighbourhood,
        ranks: impl ExactSizeIterator<Item = Option<Rank>>,
    ) -> Self {
        Self::grouped(Grouping::of_one(place, ranks.len()), ranks)
    }

    fn grouped(grouping: Grouping, ranks: impl Iterator<Item = Option<Rank>>) -> Self {
        let mut order = Order::default();
        grouping.places().iter().for_each(|place| order.add(*place));
        Self::begin(Arc::new(grouping), order, ranks)
    }

    /// Of hosts that stand in the same groups as in another one, with these ranks.
    pub(super) fn like(other: &Self, ranks: impl Iterator<Item = Option<Rank>>) -> Self {
        Self::begin(other.grouping.clone(), other.order.begin_anew(), ranks)
    }

    fn begin(grouping: Arc<Grouping>, order: Order, ranks: impl Iterator<Item = Option<Rank>>) -> Self {
        let seats = ranks.map(Seat::of).collect();
        let mut ranking = Self { grouping, order, seats, ..Self::default() };
        ranking.groups.resize_with(ranking.grouping.places().len(), Ranked::default);
        ranking.fill();
        match ranking.groups.len() {
            0 => {}
            // Sooner or later it is asked for its second, and would be in the midst of decisions.
            1 => ranking.list(0),
            groups => (0..groups as Group).for_each(|group| ranking.raise(group)),
        }
        ranking
    }

    /// How good the host in a slot is; `None`: it is out.
    pub(super) fn rank(&self, slot: Slot) -> Option<Rank> {
        self.seats[slot].entry(slot).map(|entry| entry.rank)
    }

    /// Gives each group the best of its hosts, and no others.
    fn fill(&mut self) {
        if self.groups.len() > 1 && !self.grouping.has_members() {
            Arc::make_mut(&mut self.grouping).list_members();
        }
        self.entries = 0;
        let tops = self.tops();
        let ranked = |top: Option<Entry>| Ranked { best: BinaryHeap::new(), top, is_listed: top.is_none() };
        self.groups = tops.into_iter().map(ranked).collect();
    }

    /// The best host of each group.
    fn tops(&self) -> Vec<Option<Entry>> {
        if self.groups.len() == 1 {
            return vec![self.entries_of(0).max()];
        }
        let mut tops = vec![None; self.groups.len()];
        // Slot by slot, since to go from group to group is to go to and fro among them.
        for (slot, seat) in self.seats.iter().enumerate() {
            let top = &mut tops[self.grouping.group(slot) as usize];
            *top = (*top).max(seat.entry(slot));
        }
        tops
    }

    /// The hosts with room of a group, as far as none has come to stand elsewhere.
    fn entries_of(&self, group: Group) -> impl Iterator<Item = Entry> {
        let is_only = self.groups.len() == 1;
        let all = if is_only { 0..self.seats.len() } else { 0..0 };
        let members = if is_only { &[] } else { self.grouping.members(group) };
        let slots = all.chain(members.iter().map(|slot| *slot as Slot));
        slots.filter_map(|slot| self.seats[slot].entry(slot))
    }

    /// Lists all hosts of a group.
    fn list(&mut self, group: Group) {
        if !self.groups[group as usize].is_listed {
            let entries = self.entries_of(group);
            let most = entries.size_hint().1.unwrap_or(0);
            let mut best = Vec::with_capacity(most + most / SPARE);
            best.extend(entries);
            self.entries += best.len();
            let ranked = &mut self.groups[group as usize];
            (ranked.best, ranked.is_listed) = (BinaryHeap::from(best), true);
        }
    }

    /// Says how a host stands now; those before it have been put in. What whose turn it is minds is set aside at once.
    pub(super) fn put(&mut self, slot: Slot, place: Neighbourhood, rank: Option<Rank>, look: Look<'_>) {
        let group = self.grouping.find(place);
        if slot < self.seats.len() && group == Some(self.grouping.group(slot)) {
            return self.rerank(slot, rank, look);
        }
        // From now on it is not known who stands in which group: all are listed, if they were not yet.
        if self.groups.len() <= 1 || self.grouping.has_members() {
            (0..self.groups.len() as Group).for_each(|group| self.list(group));
        }
        if slot == self.seats.len() {
            self.seats.push(Seat::OUT);
        } else {
            self.leave_out(slot);
        }
        let grouping = Arc::make_mut(&mut self.grouping);
        let group = group.unwrap_or_else(|| grouping.add(place));
        grouping.put(slot, group);
        if group as usize == self.groups.len() {
            self.groups.push(Ranked { is_listed: true, ..Ranked::default() });
            self.order.add(place);
            // As long as it was the only one, nobody asked for its place in an order.
            if group == 1 {
                self.raise(0);
            }
        }
        self.rerank(slot, rank, look);
    }

    /// The same of a host that stands where it stood.
    pub(super) fn rerank(&mut self, slot: Slot, rank: Option<Rank>, look: Look<'_>) {
        let now = Seat::of(rank);
        let before = std::mem::replace(&mut self.seats[slot], now);
        if before == now {
            return;
        }
        let group = self.grouping.group(slot);
        let ranked = &mut self.groups[group as usize];
        let was_top = ranked.top.is_some_and(|top| top.slot() == slot);
        let Some(entry) = now.entry(slot) else {
            if was_top {
                self.entries -= ranked.take_top();
            }
            return;
        };
        let burden = look.burden(slot);
        let is_aside = burden > 0 && ranked.is_listed;
        if was_top && !is_aside {
            ranked.move_top(entry);
        } else {
            if was_top {
                self.entries -= ranked.take_top();
            }
            if is_aside {
                self.aside.entry(group).or_default().push((Reverse(burden), entry));
                self.entries += 1;
            } else {
                self.entries += ranked.put(entry);
            }
        }
        if self.groups.len() > 1 {
            let crowd = look.siblings.crowd_within(&self.grouping.places()[group as usize]);
            self.order.raise((Reverse(crowd), (Reverse(burden), entry), group), look.siblings);
            self.order.touch(group);
        }
    }

    /// Leaves a host out until it is put in again.
    pub(super) fn leave_out(&mut self, slot: Slot) {
        let ranked = &mut self.groups[self.grouping.group(slot) as usize];
        if ranked.top.is_some_and(|top| top.slot() == slot) {
            self.entries -= ranked.take_top();
        }
        self.seats[slot] = Seat::OUT;
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
        let crowd = look.siblings.crowd_within(&self.grouping.places()[group as usize]);
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
            self.list(group);
            self.groups[group as usize].take_top();
            self.aside.entry(group).or_default().push((Reverse(burden), top));
        }
        self.best_aside(group, look)
    }

    /// The first of a group that is not out of date. What is above it is thrown out.
    fn top(&mut self, group: Group) -> Option<Entry> {
        if self.groups[group as usize].top.is_none() {
            self.list(group);
            self.find_top(group);
        }
        self.groups[group as usize].top
    }

    fn find_top(&mut self, group: Group) {
        let Self { grouping, groups, seats, entries, .. } = self;
        let ranked = &mut groups[group as usize];
        while let Some(first) = ranked.best.peek_mut() {
            let (entry, slot) = (*first, first.slot());
            if seats[slot].entry(slot) == Some(entry) && grouping.group(slot) == group {
                ranked.top = Some(entry);
                return;
            }
            PeekMut::pop(first);
            *entries -= 1;
        }
    }

    /// The best of those set aside, unless they are all out.
    fn best_aside(&mut self, group: Group, look: Look<'_>) -> Option<Best> {
        let aside = self.aside.get_mut(&group)?;
        loop {
            let best = *aside.peek()?;
            let (Reverse(counted), entry) = best;
            let slot = entry.slot();
            let is_current =
                self.seats[slot].entry(slot) == Some(entry) && self.grouping.group(slot) == group;
            let burden = look.burden(slot);
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
            let crowd = nobody.crowd_within(&self.grouping.places()[group as usize]);
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
