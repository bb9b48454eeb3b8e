//! The scheduling pass: instances that wait are given hosts, on a snapshot, many at a time. It changes nothing and tells nobody; `State::apply`
//! checks each placement again by the same rule, and what it refuses is still pending.
//!
//! Instances are taken in the state's order, most urgent and then oldest first, and each gets the best host that is left. What one takes, the
//! next one misses. What hosts have (`ledger`) and in which order they are good for which shape of instance (`shapes`) is kept by an [`Engine`] from
//! pass to pass and repaired by what changed, so that a pass costs what it decides and not what the estate holds. What an engine knows from before
//! never changes what it decides: [`pass`], which begins with a new one, decides the same; a test compares.
//!
//! Deliberately absent: preemption, spreading, moving what already runs.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_proto::{
    id::{InstanceId, Revision, UnixMillis},
    name::WorkloadKey,
};

use super::{ledger::Ledger, shapes::Shapes};
use crate::state::{Instance, Placement, State, fits::held_slots};

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
    Engine::new(state).pass(state, now, limits)
}

/// What is kept from pass to pass. Costs for each host what is given away of it, and see `shapes`.
pub struct Engine {
    ledger: Ledger,
    shapes: Shapes,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // All that it knows would be pages; what it decides does not depend on it.
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Knows the hosts of this state.
    #[must_use]
    pub fn new(state: &State) -> Self {
        Self { ledger: Ledger::new(state), shapes: Shapes::default() }
    }

    /// A pass on this state, which need not be newer than that of the pass before.
    pub fn pass(&mut self, state: &State, now: UnixMillis, limits: Limits) -> Plan {
        if !self.ledger.catch_up(state) {
            self.shapes = Shapes::default();
        }
        let plan = self.decide(state, now, limits);
        self.ledger.rest();
        self.shapes.rest();
        plan
    }

    fn decide(&mut self, state: &State, now: UnixMillis, limits: Limits) -> Plan {
        let mut plan = Plan::default();
        let mut unplaced = UnplacedByShape::default();
        let mut held = Held::default();
        for instance in state.pending() {
            if instance.not_before() > now {
                plan.next_wake =
                    Some(plan.next_wake.map_or(instance.not_before(), |at| at.min(instance.not_before())));
                continue;
            }
            if held.holds(state, instance) {
                // The report that it is gone is a change of the state, and brings another pass.
                continue;
            }
            if plan.placements.len() >= limits.placements.min(MAX_PLACEMENTS) {
                plan.more = true;
                break;
            }
            // What a pass gives is not given back in it: what found no host does not find one later.
            if !unplaced.has(instance)
                && let Some(placement) = self.shapes.place(&mut self.ledger, instance)
            {
                plan.placements.push(placement);
            } else {
                unplaced.count(instance);
            }
        }
        plan.unplaced = unplaced.list;
        plan
    }
}

/// What found no host, in the order in which it was first met.
#[derive(Default)]
struct UnplacedByShape<'a> {
    places: BTreeMap<(&'a WorkloadKey, Revision), usize>,
    list: Vec<Unplaced>,
}

impl<'a> UnplacedByShape<'a> {
    fn has(&self, instance: &Instance) -> bool {
        // Mostly there is nothing to look for, and looking compares names.
        !self.list.is_empty() && self.places.contains_key(&(instance.workload(), instance.revision()))
    }

    fn count(&mut self, instance: &'a Instance) {
        let list = &mut self.list;
        let at = *self.places.entry((instance.workload(), instance.revision())).or_insert_with(|| {
            list.push(Unplaced {
                workload: instance.workload().clone(),
                revision: instance.revision(),
                instances: 0,
                first: instance.id,
            });
            list.len() - 1
        });
        self.list[at].instances += 1;
    }
}

/// Slots of exclusive workloads whose instances may still run, and so must not be placed a second time.
#[derive(Default)]
struct Held<'a> {
    slots: BTreeMap<&'a WorkloadKey, BTreeSet<u32>>,
}

impl<'a> Held<'a> {
    fn holds(&mut self, state: &State, instance: &'a Instance) -> bool {
        if !instance.spec().is_exclusive() {
            return false;
        }
        let key = instance.workload();
        let slots = self.slots.entry(key).or_insert_with(|| held_slots(state, key));
        slots.contains(&instance.slot)
    }
}
