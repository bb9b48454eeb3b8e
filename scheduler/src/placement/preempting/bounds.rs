//! What making room costs at least on each host, for those that ask for the same amounts: kept over passes in that order, and put right by what changed. So one more
//! search looks at few hosts, and not at all there are.

use std::{cmp::Reverse, collections::BinaryHeap};

use supercloud_proto::{
    amount::{Amounts, Mbits},
    spec::Class,
};

use super::{Cost, at_least};
use crate::{
    placement::ledger::{Ledger, Slot},
    state::{fits::Request, host_use::Hold},
};

/// So many orders are kept. Each takes some twenty bytes a host.
const MOST: usize = 32;

/// The orders that were asked for last, the last one first.
#[derive(Default)]
pub(super) struct Bounds(Vec<(Asked, Order)>);

/// What decides on what it costs at least.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    demand: Amounts,
    class: Class,
    network: Mbits,
    priority: u32,
    has_claim: bool,
}

impl Asked {
    fn of(request: &Request<'_>, has_claim: bool) -> Self {
        let spec = request.spec;
        let (class, network) = (spec.counting_class(), spec.resources.network);
        Self { demand: request.demand, class, network, priority: spec.priority, has_claim }
    }
}

/// How firmly at least its room is held by one of those that make way on a host; `None`: perhaps nobody has to.
type Bound = Option<Hold>;

/// Hosts in the order of what it costs at least.
#[derive(Default)]
pub(super) struct Order {
    /// Also what is right no more: what counts is in `bounds`.
    heap: BinaryHeap<Reverse<(Bound, u32)>>,
    /// By slots; `None`: there is no room whoever goes.
    bounds: Vec<Option<Bound>>,
    /// So many changes of the ledger are in it.
    seen: usize,
    /// What the search that goes on was given, all of which is right.
    given: Vec<(Bound, u32)>,
}

impl Bounds {
    /// The order for a request that may go to any host, as hosts stand now.
    pub(super) fn order(&mut self, ledger: &Ledger, request: &Request<'_>, has_claim: bool) -> &mut Order {
        let asked = Asked::of(request, has_claim);
        let place = self.0.iter().position(|(of, _)| *of == asked).unwrap_or_else(|| {
            self.0.truncate(MOST - 1);
            self.0.push((asked, Order::default()));
            self.0.len() - 1
        });
        self.0[..=place].rotate_right(1);
        let (_, order) = &mut self.0[0];
        order.begin(ledger, |slot| bound(ledger, slot, request, has_claim));
        order
    }
}

/// What it costs at least on a host. Whom a host suits is not asked.
fn bound(ledger: &Ledger, slot: Slot, request: &Request<'_>, has_claim: bool) -> Option<Bound> {
    at_least(&ledger.candidate(slot), request, has_claim, false).map(|cost| cost.highest)
}

impl Order {
    /// Begins a search, with all that changed.
    fn begin(&mut self, ledger: &Ledger, bound: impl Fn(Slot) -> Option<Bound>) {
        self.heap.extend(self.given.drain(..).map(Reverse));
        let is_known = !self.bounds.is_empty();
        match ledger.changed_since(self.seen).filter(|_| is_known) {
            Some(changes) => changes.for_each(|change| self.note(change.slot, bound(change.slot))),
            None => {
                self.bounds = ledger.slots().map(bound).collect();
                self.sort();
            }
        }
        self.seen = ledger.changes();
        if self.heap.len() > 2 * self.bounds.len() {
            self.sort();
        }
    }

    fn note(&mut self, slot: Slot, bound: Option<Bound>) {
        if self.bounds.len() <= slot {
            self.bounds.resize(slot + 1, None);
        }
        if self.bounds[slot] != bound {
            self.bounds[slot] = bound;
            self.heap.extend(bound.map(|bound| Reverse((bound, slot as u32))));
        }
    }

    fn sort(&mut self) {
        let bounds = self.bounds.iter().zip(0..);
        self.heap = bounds.filter_map(|(bound, slot)| Some(Reverse(((*bound)?, slot)))).collect();
    }

    /// Whether there may be room on a host.
    pub(super) fn may_have_room(&self, slot: Slot) -> bool {
        self.bounds.get(slot).is_some_and(Option::is_some)
    }
}

/// The hosts from the cheapest on, each once. Of two that may cost as little the first.
impl Iterator for Order {
    type Item = (Cost, Slot);

    fn next(&mut self) -> Option<(Cost, Slot)> {
        loop {
            let Reverse(next) = self.heap.pop()?;
            let (bound, slot) = next;
            // What was right, then wrong and right again, is there twice.
            if self.bounds[slot as Slot] == Some(bound) && self.given.last() != Some(&next) {
                self.given.push(next);
                return Some((Cost::at_least(bound), slot as Slot));
            }
        }
    }
}
