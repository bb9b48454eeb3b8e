//! An order of hosts, best first, kept by group (see `spread`): put right one host at a time, and read from the least crowded group on. It does not know
//! what makes a rank.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use supercloud_proto::spec::SpreadOver;

use super::{
    ledger::Slot,
    spread::{Counts, Domain, Domains},
};
use crate::state::Host;

/// How good a host is: the fewer siblings are on it, where that matters, and then by its score.
pub(super) type Rank = (Reverse<u32>, i64);

/// Number of a group of hosts: those that are in the same domains.
type Group = usize;

/// A ranking may hold so many times as many entries as there are hosts, before those that are out of date are thrown out.
const MAX_STALE: usize = 2;
/// Entries that are put up with however few hosts there are.
const MIN_ENTRIES: usize = 1_024;

/// Hosts by rank, ties by slot.
#[derive(Debug)]
pub(super) struct Ranking {
    over: Vec<SpreadOver>,
    numbers: BTreeMap<Domain, usize>,
    group_numbers: BTreeMap<Domains, Group>,
    groups: Vec<Ranked>,
    /// Entries of all groups.
    entries: usize,
    seats: Vec<Seat>,
}

/// The hosts of one group. What stands here otherwise than in its seat is out of date.
#[derive(Debug)]
struct Ranked {
    domains: Domains,
    best: BinaryHeap<(Rank, Reverse<Slot>)>,
}

/// How a host stands now.
#[derive(Debug, Clone, Copy)]
struct Seat {
    group: Group,
    /// `None`: it is out.
    rank: Option<Rank>,
}

/// What became of a host that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is new, or in the domains it was in.
    Stays,
    /// It is in other domains.
    Moved,
}

impl Ranking {
    pub(super) fn new(over: &[SpreadOver]) -> Self {
        Self {
            over: over.to_vec(),
            numbers: BTreeMap::new(),
            group_numbers: BTreeMap::new(),
            groups: Vec::new(),
            entries: 0,
            seats: Vec::new(),
        }
    }

    /// Says how a host stands now; those before it have been put in.
    pub(super) fn put(&mut self, slot: Slot, host: &Host, rank: Option<Rank>) -> Put {
        let group = self.group(slot, host);
        let now = Seat { group, rank };
        let before = match self.seats.get_mut(slot) {
            Some(seat) => Some(std::mem::replace(seat, now)),
            None => {
                self.seats.push(now);
                None
            }
        };
        let stands = before.is_some_and(|before| before.group == group && before.rank == rank);
        if let Some(rank) = rank.filter(|_| !stands) {
            self.groups[group].best.push((rank, Reverse(slot)));
            self.entries += 1;
        }
        if before.is_some_and(|before| before.group != group) { Put::Moved } else { Put::Stays }
    }

    fn group(&mut self, slot: Slot, host: &Host) -> Group {
        if self.over.is_empty() && slot < self.seats.len() {
            return self.seats[slot].group;
        }
        let Self { over, numbers, group_numbers, groups, .. } = self;
        let domains: Domains = over
            .iter()
            .filter_map(|over| Domain::of(host, *over))
            .map(|domain| {
                let next = numbers.len();
                *numbers.entry(domain).or_insert(next)
            })
            .collect();
        *group_numbers.entry(domains).or_insert_with_key(|domains| {
            groups.push(Ranked { domains: domains.clone(), best: BinaryHeap::new() });
            groups.len() - 1
        })
    }

    /// The domains that a host is in, the most important first.
    pub(super) fn domains(&self, slot: Slot) -> &Domains {
        &self.groups[self.seats[slot].group].domains
    }

    /// Leaves a host out until it is put in again.
    pub(super) fn leave_out(&mut self, slot: Slot) {
        self.seats[slot].rank = None;
    }

    /// The best host of the least crowded group that has any.
    pub(super) fn best(&mut self, counts: &Counts) -> Option<Slot> {
        let mut least: Option<(u64, (Rank, Reverse<Slot>))> = None;
        for group in 0..self.groups.len() {
            let crowd = counts.of(&self.groups[group].domains);
            if least.is_some_and(|(least, _)| crowd > least) {
                continue;
            }
            if let Some(best) = self.best_of(group)
                && least.is_none_or(|(least, other)| crowd < least || best > other)
            {
                least = Some((crowd, best));
            }
        }
        least.map(|(_, (_, Reverse(slot)))| slot)
    }

    /// The best host of a group. What is out of date above it is thrown out.
    fn best_of(&mut self, group: Group) -> Option<(Rank, Reverse<Slot>)> {
        let Self { groups, seats, entries, .. } = self;
        loop {
            let best = *groups[group].best.peek()?;
            let (rank, Reverse(slot)) = best;
            if seats[slot].rank == Some(rank) && seats[slot].group == group {
                return Some(best);
            }
            groups[group].best.pop();
            *entries -= 1;
        }
    }

    /// Throws out what is out of date, when it is much.
    pub(super) fn tidy(&mut self) {
        if self.entries <= MIN_ENTRIES.max(self.seats.len() * MAX_STALE) {
            return;
        }
        let mut lists = vec![Vec::new(); self.groups.len()];
        for (slot, seat) in self.seats.iter().enumerate() {
            if let Some(rank) = seat.rank {
                lists[seat.group].push((rank, Reverse(slot)));
            }
        }
        self.entries = lists.iter().map(Vec::len).sum();
        for (group, list) in self.groups.iter_mut().zip(lists) {
            group.best = BinaryHeap::from(list);
        }
    }
}
