//! The scheduling pass: instances that wait are given hosts, on a snapshot, many at a time. It changes nothing and tells nobody; `State::apply`
//! checks each placement again by the same rule, and what it refuses is still pending.
//!
//! Instances are taken in the state's order, most urgent and then oldest first, and each gets the best host that is left. What one takes, the
//! next one misses. Instances of one *shape* (a revision of a workload) want the same and share one heap of the hosts with room, made once and
//! repaired by what changed; whether a host fits is asked when it comes to the top. Within a pass hosts only fill up, so a host that fell out
//! of a shape's heap stays out, and a shape without hosts is not tried again.
//!
//! Deliberately absent: preemption, spreading, moving what already runs.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use supercloud_proto::{
    id::{InstanceId, Revision, UnixMillis},
    name::WorkloadKey,
};

use super::{
    ledger::{Ledger, Slot},
    score::score,
};
use crate::state::{
    Instance, Placement, State,
    fits::{Request, choose_ports, must_wait_for},
};

/// Most placements of one pass: so many fit into one log entry of about half a MiB, and apply is done with them in some tens of milliseconds.
pub const MAX_PLACEMENTS: usize = 10_000;
/// Most shapes whose list of hosts is kept: a list for 10,000 hosts takes about half a MiB. Instances of a workload stand together in the
/// order, so that a list that is dropped is seldom wanted again.
const MAX_SHAPES: usize = 16;

/// How much one pass may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most placements, at most [`MAX_PLACEMENTS`].
    pub placements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { placements: MAX_PLACEMENTS }
    }
}

/// What a pass proposes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order in which they were decided; to be applied in this order.
    pub placements: Vec<Placement>,
    /// What found no host, by shape, most urgent first.
    pub unplaced: Vec<Unplaced>,
    /// The earliest time at which an instance may be placed that had to wait for its time.
    pub next_wake: Option<UnixMillis>,
    /// The limit was reached: what is not mentioned here was not looked at; run another pass once this plan is applied.
    pub more: bool,
}

/// Instances of one shape that found no host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Workload.
    pub workload: WorkloadKey,
    /// Revision.
    pub revision: Revision,
    /// How many.
    pub instances: u32,
    /// The first of them.
    pub first: InstanceId,
}

/// Gives hosts to the instances that wait and whose time has come.
pub fn pass(state: &State, now: UnixMillis, limits: Limits) -> Plan {
    let mut plan = Plan::default();
    let mut ledger = Ledger::new(state);
    let mut shapes = Shapes::default();
    for instance in state.pending() {
        if instance.not_before() > now {
            plan.next_wake =
                Some(plan.next_wake.map_or(instance.not_before(), |at| at.min(instance.not_before())));
            continue;
        }
        if must_wait_for(state, instance).is_some() {
            // The report that it is gone is a change of the state, and brings another pass.
            continue;
        }
        if plan.placements.len() >= limits.placements.min(MAX_PLACEMENTS) {
            plan.more = true;
            break;
        }
        match shapes.place(&mut ledger, instance) {
            Some(placement) => plan.placements.push(placement),
            None => shapes.count_unplaced(instance),
        }
    }
    plan.unplaced = shapes.unplaced;
    plan
}

/// What makes instances alike.
type ShapeKey<'a> = (&'a WorkloadKey, Revision);

/// The shapes that a pass has met.
#[derive(Default)]
struct Shapes<'a> {
    /// Those used last, the latest at the end.
    live: Vec<(ShapeKey<'a>, Shape<'a>)>,
    /// Those that found no host, with their place in `unplaced`.
    exhausted: BTreeMap<ShapeKey<'a>, usize>,
    unplaced: Vec<Unplaced>,
}

impl<'a> Shapes<'a> {
    fn place(&mut self, ledger: &mut Ledger<'_>, instance: &'a Instance) -> Option<Placement> {
        let key = (instance.workload(), instance.revision());
        if self.exhausted.contains_key(&key) {
            return None;
        }
        self.bring_up(key, ledger, instance);
        self.live.last_mut().and_then(|(_, shape)| shape.place(ledger, instance))
    }

    /// Puts the shape at the end of `live`, made anew where it is not there.
    fn bring_up(&mut self, key: ShapeKey<'a>, ledger: &Ledger<'_>, instance: &'a Instance) {
        match self.live.iter().position(|(live, _)| *live == key) {
            Some(at) => self.live[at..].rotate_left(1),
            None => {
                if self.live.len() == MAX_SHAPES {
                    self.live.remove(0);
                }
                self.live.push((key, Shape::new(ledger, Request::of(instance))));
            }
        }
    }

    fn count_unplaced(&mut self, instance: &'a Instance) {
        let key = (instance.workload(), instance.revision());
        if let Some(at) = self.exhausted.get(&key) {
            self.unplaced[*at].instances += 1;
            return;
        }
        self.live.retain(|(live, _)| *live != key);
        self.exhausted.insert(key, self.unplaced.len());
        self.unplaced.push(Unplaced {
            workload: instance.workload().clone(),
            revision: instance.revision(),
            instances: 1,
            first: instance.id,
        });
    }
}

/// The hosts with room for one shape, best first.
struct Shape<'a> {
    request: Request<'a>,
    /// Hosts by score, ties by slot. What stands here with another score than in `scores` is out of date.
    best: BinaryHeap<(i64, Reverse<Slot>)>,
    /// The present score of a slot; `None`: it is out.
    scores: Vec<Option<i64>>,
    /// Changes of the ledger that are taken into account.
    seen: usize,
}

impl<'a> Shape<'a> {
    fn new(ledger: &Ledger<'_>, request: Request<'a>) -> Self {
        let scores: Vec<Option<i64>> = ledger.slots().map(|slot| judge(ledger, slot, &request)).collect();
        let best = scores
            .iter()
            .enumerate()
            .filter_map(|(slot, score)| score.map(|score| (score, Reverse(slot))))
            .collect();
        Self { request, best, scores, seen: ledger.changes() }
    }

    /// Takes into account what changed since.
    fn repair(&mut self, ledger: &Ledger<'_>) {
        for slot in ledger.changed_since(self.seen) {
            // Within a pass hosts only fill up: one that has dropped out does not come back.
            let before = self.scores[*slot];
            if before.is_none() {
                continue;
            }
            let score = judge(ledger, *slot, &self.request);
            self.scores[*slot] = score;
            if let Some(score) = score.filter(|_| score != before) {
                self.best.push((score, Reverse(*slot)));
            }
        }
        self.seen = ledger.changes();
    }

    /// The best host that fits; those above it that do not are out for good.
    fn top(&mut self, ledger: &Ledger<'_>) -> Option<Slot> {
        loop {
            let (score, Reverse(slot)) = *self.best.peek()?;
            if self.scores[slot] == Some(score) {
                if ledger.candidate(slot).fits(&self.request).is_ok() {
                    return Some(slot);
                }
                self.scores[slot] = None;
            }
            self.best.pop();
        }
    }

    /// Gives the instance the best host that is left.
    fn place(&mut self, ledger: &mut Ledger<'_>, instance: &Instance) -> Option<Placement> {
        self.repair(ledger);
        let slot = self.top(ledger)?;
        let candidate = ledger.candidate(slot);
        let host = candidate.host.id;
        // The filter let the host pass, so there are ports; were the two ever to disagree, the instance would be pending, not misplaced.
        let ports = choose_ports(candidate.host, candidate.used, self.request.spec, instance.id)?;
        ledger.give(slot, instance, &self.request, &ports);
        Some(Placement { instance: instance.id, host, ports })
    }
}

/// The score of a host with room. Of ten thousand hosts only the best are looked at more closely.
fn judge(ledger: &Ledger<'_>, slot: Slot, request: &Request<'_>) -> Option<i64> {
    let candidate = ledger.candidate(slot);
    candidate.has_room(request).then(|| score(&candidate, request))
}
