//! The next step of a rollout: which instances of older revisions are replaced now. Pure; time is a parameter.
//!
//! The rule: of the instances that are wanted, no more than `update.max_unavailable` are ever missing for the rollout's sake. Replacing one
//! that is missing anyway costs nothing, so those go first and all at once: whatever fails, restarts, is not running yet, or has
//! completed. So a rollout never waits for what cannot come back, and a new revision that does not start stops the rollout after
//! `max_unavailable` of them.
//!
//! A gang (`place.all_or_none`) is replaced in one step: its parts need each other, and a new one may need room that the old ones hold.
//!
//! One that is `unknown` (its runtime does not answer) may well serve. It counts as missing, and it is replaced under the budget of what
//! is otherwise missing: one hung host does not block a rollout, and a hang of all hosts does not let it run through.

use std::collections::BTreeSet;

use supercloud_proto::{
    id::{InstanceId, LogIndex, UnixMillis},
    instance::{Desired, InstanceState},
    name::WorkloadKey,
    spec::WorkloadKind,
};

use crate::state::{Command, Instance, State, Workload};

/// Most instances replaced in one step: they stand in one entry.
pub const MAX_STEP: usize = 1_000;

/// The rollouts that a leader keeps an eye on: workloads that changed, until all their instances are of the present revision.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    watched: BTreeSet<WorkloadKey>,
    looked: LogIndex,
}

impl Watch {
    /// Looks at a newer state: the steps to be proposed now, each with its workload.
    pub fn look(&mut self, state: &State, now: UnixMillis) -> Vec<(WorkloadKey, Command)> {
        let looked = self.looked;
        let changed = state.workloads().values().filter(|workload| workload.changed_index > looked);
        self.watched.extend(changed.map(|workload| workload.key.clone()));
        self.looked = state.applied();
        self.watched.retain(|key| is_under_way(state, key));
        let steps = next(state, &self.watched, now).into_iter();
        steps.filter_map(|(key, instances)| Some((key.clone(), replace(state, &key, instances)?))).collect()
    }

    /// Whether no rollout is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.watched.is_empty()
    }
}

fn replace(state: &State, key: &WorkloadKey, instances: Vec<InstanceId>) -> Option<Command> {
    let revision = state.workload(key)?.current().revision;
    tracing::info!(workload = %key, revision, instances = instances.len(), "a step of a rollout");
    Some(Command::Replace { instances, reason: format!("rollout of revision {revision}") })
}

/// The next step for each of these workloads that has one.
pub fn next<'a>(
    state: &State,
    workloads: impl IntoIterator<Item = &'a WorkloadKey>,
    now: UnixMillis,
) -> Vec<(WorkloadKey, Vec<InstanceId>)> {
    let steps = workloads.into_iter().map(|key| (key.clone(), step(state, key, now)));
    steps.filter(|(_, instances)| !instances.is_empty()).collect()
}

/// Whether instances of an older revision are still wanted to run.
#[must_use]
pub fn is_under_way(state: &State, key: &WorkloadKey) -> bool {
    let Some(workload) = state.workload(key) else { return false };
    let current = workload.current().revision;
    state.instances_of(key).any(|instance| instance.desired == Desired::Run && instance.revision() != current)
}

/// What an old instance costs when it is replaced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// It is missing anyway.
    Free,
    /// It counts as missing, but may serve.
    MayServe,
    /// It serves.
    Serves,
}

fn step(state: &State, key: &WorkloadKey, now: UnixMillis) -> Vec<InstanceId> {
    let Some(workload) = state.workload(key) else { return Vec::new() };
    let wanted = workload.wanted() as usize;
    if wanted == 0 {
        return Vec::new();
    }
    let current = workload.current().revision;
    let live: Vec<&Instance> = state
        .instances_of(key)
        .map(AsRef::as_ref)
        .filter(|instance| instance.desired == Desired::Run)
        .collect();
    let mut old: Vec<(Cost, &Instance)> = live
        .iter()
        .filter(|instance| instance.revision() != current)
        .map(|instance| (cost(instance), *instance))
        .collect();
    if old.is_empty() {
        return Vec::new();
    }
    old.sort_by_key(|(cost, instance)| (*cost, instance.revision(), instance.slot));
    if workload.current().spec.place.all_or_none {
        return old.into_iter().take(MAX_STEP).map(|(_, instance)| instance.id).collect();
    }
    let available = live.iter().filter(|instance| is_available(workload, instance, now)).count();
    let may_serve = old.iter().filter(|(cost, _)| *cost == Cost::MayServe).count();
    let allowed = workload.current().spec.update.max_unavailable.max(1) as usize;
    let missing = wanted.saturating_sub(available);
    let mut budget_unknown = allowed.saturating_sub(missing.saturating_sub(may_serve));
    let mut budget = allowed.saturating_sub(missing);
    let take = |(cost, _): &(Cost, &Instance)| {
        let left = match cost {
            Cost::Free => return true,
            Cost::MayServe => &mut budget_unknown,
            Cost::Serves => &mut budget,
        };
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    };
    old.into_iter().filter(take).take(MAX_STEP).map(|(_, instance)| instance.id).collect()
}

fn cost(old: &Instance) -> Cost {
    match old.state {
        InstanceState::Running => Cost::Serves,
        InstanceState::Unknown => Cost::MayServe,
        _ => Cost::Free,
    }
}

/// Whether an instance does what it is there for. One of the present revision must have done so for a while, where the spec asks for it.
fn is_available(workload: &Workload, instance: &Instance, now: UnixMillis) -> bool {
    let current = workload.current();
    let is_new = instance.revision() == current.revision;
    match instance.state {
        InstanceState::Running => {
            !is_new || now.saturating_sub(instance.changed) >= current.spec.update.healthy_for
        }
        InstanceState::Completed => is_new && current.spec.kind == WorkloadKind::Batch,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
