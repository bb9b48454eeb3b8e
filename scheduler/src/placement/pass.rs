//! The scheduling pass: instances that wait are given hosts, on a snapshot, many at a time. It changes nothing and tells nobody; `State::apply`
//! checks each placement again by the same rule, and what it refuses is still pending.
//!
//! The most urgent instances are taken first, among them boroughs in turn (`fair`) and of each borough the oldest, and each gets the best host that is
//! left, as far as its borough's quota goes (`state::quota`). What one takes, the next one misses. What waits (`queue`), what hosts have (`ledger`) and in which order they are good for which shape of instance (`shapes`) is
//! kept by an [`Engine`] from pass to pass and repaired by what changed, so that a pass costs what it decides: neither what the estate holds nor
//! what waits in vain. What an engine knows from before never changes what it decides: [`pass`], which begins with a new one, decides
//! the same; a test compares.
//!
//! Deliberately absent: preemption, moving what already runs.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use supercloud_proto::{
    id::{InstanceId, UnixMillis},
    name::WorkloadKey,
};

pub use super::queue::{Unplaced, Why};
use super::{
    fair::Boroughs,
    ledger::{CaughtUp, Ledger},
    queue::{Progress, Queue},
    shapes::Shapes,
};
use crate::state::{Placement, RevisionRecord, State, fits::held_slots};

/// Most placements of one pass: so many fit into one log entry of about half a MiB, and apply is done with them in some tens of milliseconds.
pub const MAX_PLACEMENTS: usize = 10_000;
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
    /// What was looked at and is kept by its borough's quota or found no host, by revision, most urgent first. What is known from before to get none is
    /// not looked at.
    pub unplaced: Vec<Unplaced>,
    /// The earliest time at which an instance may be placed that has to wait for its time.
    pub next_wake: Option<UnixMillis>,
    /// The limit was reached: what is not mentioned here was not looked at; run another pass once this plan is applied.
    pub more: bool,
}

/// Gives hosts to the instances that wait and whose time has come.
pub fn pass(state: &State, now: UnixMillis, limits: Limits) -> Plan {
    Engine::new(state).pass(state, now, limits)
}

/// What is kept from pass to pass. Costs for each host what is given away of it, for each instance that waits its id, and see `shapes`.
pub struct Engine {
    ledger: Ledger,
    boroughs: Boroughs,
    queue: Queue,
    shapes: Shapes,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // All that it knows would be pages; what it decides does not depend on it.
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Knows the hosts of this state and what waits in it.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut boroughs = Boroughs::default();
        let queue = Queue::new(state, &mut boroughs);
        Self { ledger: Ledger::new(state), boroughs, queue, shapes: Shapes::default() }
    }

    /// A pass on this state, which is of the same cluster as that of the pass before and mostly newer, at a time that is not earlier.
    pub fn pass(&mut self, state: &State, now: UnixMillis, limits: Limits) -> Plan {
        self.catch_up(state, now);
        let plan = self.decide(now, limits);
        self.ledger.rest();
        self.shapes.rest();
        plan
    }

    /// All that is known to get no host, most urgent first.
    #[must_use]
    pub fn unplaced(&self) -> Vec<Unplaced> {
        self.queue.unplaced(&self.boroughs)
    }

    fn catch_up(&mut self, state: &State, now: UnixMillis) {
        if state.applied() < self.ledger.state().applied() {
            *self = Self::new(state);
        }
        let waiting = state.pending_since(self.ledger.state());
        self.queue.catch_up(state, &waiting, &mut self.boroughs);
        self.queue.ripen(state, now, &mut self.boroughs);
        let caught_up = self.ledger.catch_up(state);
        if caught_up == CaughtUp::Anew {
            self.shapes = Shapes::default();
        }
        let roomier = self.boroughs.catch_up(state, self.ledger.whole());
        self.queue.wake(&self.ledger, &caught_up);
        self.queue.admit(&self.boroughs, &roomier);
    }

    fn decide(&mut self, now: UnixMillis, limits: Limits) -> Plan {
        debug_assert!(self.queue.next_wake().is_none_or(|at| at > now), "its time had come");
        let mut plan = Plan { next_wake: self.queue.next_wake(), ..Plan::default() };
        let (mut progress, mut held) = (Progress::default(), Held::default());
        while let Some((line, id)) = self.queue.next(&mut progress, &self.boroughs) {
            let record = self.queue.record(line);
            if held.holds(self.ledger.state(), record, id) {
                // The report that it is gone is a change of the state, and brings another pass.
                continue;
            }
            if plan.placements.len() >= limits.placements.min(MAX_PLACEMENTS) {
                plan.more = true;
                break;
            }
            let (borough, demand) = self.queue.charge(line);
            // What a pass gives is not given back in it: what its quota keeps, or what found no host, fares no better later.
            if !self.boroughs.admits(borough, demand) {
                plan.unplaced.push(self.queue.keep(line, id));
                continue;
            }
            match self.shapes.place(&mut self.ledger, record, id) {
                Some(placement) => {
                    self.boroughs.give(borough, demand);
                    plan.placements.push(placement);
                }
                None => plan.unplaced.push(self.queue.stick(line, id)),
            }
        }
        plan
    }
}

/// Slots of exclusive workloads whose instances may still run, and so must not be placed a second time.
#[derive(Default)]
struct Held {
    slots: HashMap<WorkloadKey, BTreeSet<u32>>,
}

impl Held {
    fn holds(&mut self, state: &State, record: &Arc<RevisionRecord>, id: InstanceId) -> bool {
        if !record.spec.is_exclusive() {
            return false;
        }
        let Some(instance) = state.instance(id) else { return false };
        if !self.slots.contains_key(&record.key) {
            self.slots.insert(record.key.clone(), held_slots(state, &record.key));
        }
        self.slots[&record.key].contains(&instance.slot)
    }
}
