//! What an apply would do, and what would follow from it: the specs are applied to a copy of the state by the real `State::apply`, a real pass
//! places what then waits, and the difference is read off. The state itself is not touched; a copy of it costs nothing.
//!
//! Decisions. *A rollout is one step here*: all instances of an older revision count as replaced at once, and what the plan stops counts as
//! gone before anything is placed. A rollout really goes in waves, each of which frees the room of its own before the next; at its end the same
//! instances are gone and the same ones wanted, so this tells what will be stopped and whether all will find room, but two hosts may come to
//! be swapped. *What is displaced counts as gone at once*, too. *What others wait for is placed too*, in its order, since it would be; it is not reported. *An instance that waits for its time*
//! (after failures) is neither placed nor unplaced, but counted as waiting.

use std::{collections::BTreeSet, sync::Arc};

use supercloud_proto::{
    amount::Amounts,
    id::{InstanceId, Revision, UnixMillis},
    instance::Desired,
    name::{BoroughName, HostName, WorkloadKey},
    spec::{FieldDiff, WorkloadSpec, diff},
};

use super::{
    explain::{self, Explainer, Explanation},
    trial::Trial,
};
use crate::state::{Change, Command, Done, Instance, Quota, Rejection, State, gang};

/// Most trials of changes for all workloads of a plan that find no host.
const MAX_TRIALS: usize = 200;
/// For so many of these changes are sought, the first ones: each is looked at beside all hosts.
const MAX_HELPED: usize = 20;

/// What an apply of some specs would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyPlan {
    /// One for each spec, in order.
    pub workloads: Vec<WorkloadPlan>,
    /// One for each borough among the specs, by name.
    pub boroughs: Vec<BoroughPlan>,
}

/// What of its quota a borough would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoroughPlan {
    /// The borough.
    pub borough: BoroughName,
    /// Its quota.
    pub quota: Quota,
    /// What is charged now.
    pub before: Amounts,
    /// What would be charged then.
    pub after: Amounts,
}

/// What an apply of one spec would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPlan {
    /// The workload.
    pub workload: WorkloadKey,
    /// What would change.
    pub change: Change,
    /// Revision it would have.
    pub revision: Revision,
    /// The present spec; `None`: it is new.
    pub before: Option<Arc<WorkloadSpec>>,
    /// The spec it would have.
    pub after: Arc<WorkloadSpec>,
    /// Field by field, how they differ; empty for a new workload, of which all would be new.
    pub diffs: Vec<FieldDiff>,
    /// Instances that would be placed, by slot; those that wait already are among them.
    pub placements: Vec<PlannedPlacement>,
    /// Instances on a host that would be stopped.
    pub stops: Vec<PlannedStop>,
    /// Instances that would be displaced for it, of whatever borough.
    pub displaces: Vec<PlannedStop>,
    /// Instances that wait for their time, or for the end of what they must not run beside.
    pub waiting: u32,
    /// Instances that would find no host, or be kept by their borough's quota.
    pub unplaced: u32,
    /// Why not.
    pub unplaced_because: Option<Explanation>,
}

/// Where an instance would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPlacement {
    /// Slot of the workload.
    pub slot: u32,
    /// Host.
    pub host: HostName,
}

/// An instance that would be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStop {
    /// The instance.
    pub instance: InstanceId,
    /// Whose it is.
    pub workload: WorkloadKey,
    /// Where it is; `None`: its host is removed.
    pub host: Option<HostName>,
}

impl PlannedStop {
    fn of(state: &State, instance: &Instance) -> Self {
        let host = instance.host().and_then(|host| state.host_name(host)).cloned();
        Self { instance: instance.id, workload: instance.workload().clone(), host }
    }
}

/// A spec that would be refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{workload}: {rejection}")]
pub struct Refused {
    /// Its place among the specs, from 0.
    pub spec: usize,
    /// The workload.
    pub workload: WorkloadKey,
    /// Why.
    pub rejection: Rejection,
}

/// What an apply of these specs, one after the other, would do; or all that would be refused.
///
/// It takes as long as placing all that waits: on a large estate keep it off the threads that answer others.
pub fn plan(state: &State, specs: &[WorkloadSpec], now: UnixMillis) -> Result<ApplyPlan, Vec<Refused>> {
    let mut trial = Trial::of(state, now);
    let changes = trial.apply_all(specs)?;
    for spec in specs {
        trial.replace_outdated(&spec.key());
    }
    let stops: Vec<Vec<Arc<Instance>>> =
        specs.iter().map(|spec| stopped(state, &trial.state, &spec.key())).collect();
    trial.let_go(stops.iter().flatten());
    let displaced = trial.place_all();
    let told = specs.iter().zip(changes).zip(stops);
    let mut workloads: Vec<WorkloadPlan> =
        told.filter_map(|((spec, change), stops)| trial.tell(state, spec, change, &stops)).collect();
    // What was placed only in the trial is not displaced.
    for (instance, victim) in displaced.into_iter().filter(|(_, victim)| state.instance(victim.id).is_some())
    {
        let of = trial.state.instance(instance).map(|instance| instance.workload());
        if let Some(plan) = workloads.iter_mut().find(|plan| Some(&plan.workload) == of) {
            plan.displaces.push(PlannedStop::of(state, &victim));
        }
    }
    if workloads.iter().any(|plan| plan.unplaced > 0) {
        trial.explain(&mut workloads);
    }
    let names: BTreeSet<&BoroughName> = specs.iter().map(|spec| &spec.borough).collect();
    let borough = |name: &BoroughName| BoroughPlan {
        borough: name.clone(),
        quota: state.allowance_of(name).quota,
        before: state.taken_by(name),
        after: trial.state.taken_by(name),
    };
    Ok(ApplyPlan { workloads, boroughs: names.into_iter().map(borough).collect() })
}

/// The instances on a host that run in one state and not in the other.
fn stopped(before: &State, after: &State, key: &WorkloadKey) -> Vec<Arc<Instance>> {
    let runs = |instance: &Instance| instance.desired == Desired::Run && instance.placed.is_some();
    let goes = |instance: &Instance| after.instance(instance.id).is_none_or(|later| !runs(later));
    before.instances_of(key).filter(|instance| runs(instance) && goes(instance)).cloned().collect()
}

impl Trial {
    fn apply_all(&mut self, specs: &[WorkloadSpec]) -> Result<Vec<Change>, Vec<Refused>> {
        let (mut changes, mut refused) = (Vec::new(), Vec::new());
        for (place, spec) in specs.iter().enumerate() {
            match self.apply(Command::ApplyWorkload { spec: Box::new(spec.clone()), expect_revision: None }) {
                Ok(Done::Applied(change)) => changes.push(change),
                // Applying a workload is answered with a change; any other answer would mean that nothing changed.
                Ok(_) => changes.push(Change::Unchanged),
                Err(rejection) => refused.push(Refused { spec: place, workload: spec.key(), rejection }),
            }
        }
        if refused.is_empty() { Ok(changes) } else { Err(refused) }
    }

    /// Replaces all running instances of older revisions.
    fn replace_outdated(&mut self, key: &WorkloadKey) {
        let Some(current) = self.state.workload(key).map(|workload| workload.current().revision) else {
            return;
        };
        let outdated = |instance: &&Arc<Instance>| {
            instance.desired == Desired::Run && instance.placed.is_some() && instance.revision() != current
        };
        let instances: Vec<InstanceId> =
            self.state.instances_of(key).filter(outdated).map(|instance| instance.id).collect();
        if !instances.is_empty() {
            // Replacing passes over what it does not apply to, and rejects nothing.
            let _done = self.apply(Command::Replace { instances, reason: "rollout".to_owned() });
        }
    }

    /// Says why instances find no host, and what would help.
    fn explain(&self, workloads: &mut [WorkloadPlan]) {
        let mut explainer = Explainer::of(&self.state, self.now);
        for plan in workloads.iter_mut().filter(|plan| plan.unplaced > 0) {
            plan.unplaced_because = Some(self.because(&mut explainer, &plan.after));
        }
        self.suggest(&mut explainer, workloads);
    }

    /// Looks for what would make the first instance of each workload fit that finds no host, of not too many. They share the trials evenly.
    fn suggest(&self, explainer: &mut Explainer, workloads: &mut [WorkloadPlan]) {
        let helped = workloads.iter().filter(|plan| plan.unplaced > 0).take(MAX_HELPED).count();
        let trials = (MAX_TRIALS / helped.max(1)).min(explain::MAX_TRIALS);
        for plan in workloads.iter_mut().filter(|plan| plan.unplaced > 0).take(MAX_HELPED) {
            let because = plan.unplaced_because.as_mut();
            if let Some((because, first)) = because.zip(self.first_unplaced(&plan.workload)) {
                because.changes = explainer.changes(first, trials);
            }
        }
    }

    /// Why instances of a spec find no host. Where volumes keep each of them at a host of its own, the first one is told of.
    fn because(&self, explainer: &mut Explainer, spec: &WorkloadSpec) -> Explanation {
        let bound = spec.has_volumes().then(|| self.first_unplaced(&spec.key())).flatten();
        explainer.spec(spec, bound.map(|instance| instance.id))
    }

    fn first_unplaced(&self, key: &WorkloadKey) -> Option<&Arc<Instance>> {
        self.state.instances_of(key).find(|one| one.is_pending() && !self.waits(one))
    }

    /// Whether what is pending waits for its time, or for the end of another that it must not run beside.
    fn waits(&self, instance: &Instance) -> bool {
        instance.not_before() > self.now || gang::held_up_by(&self.state, instance, self.now).is_some()
    }

    /// What has become of one workload. A spec that comes twice is told twice, as it stands in the end.
    fn tell(
        &self,
        before: &State,
        spec: &WorkloadSpec,
        change: Change,
        stops: &[Arc<Instance>],
    ) -> Option<WorkloadPlan> {
        let workload = spec.key();
        let current = self.state.workload(&workload)?.current();
        let known = before.workload(&workload).map(|known| known.current().spec.clone());
        let new =
            |instance: &&Arc<Instance>| before.instance(instance.id).is_none_or(|was| was.placed.is_none());
        let mut placements: Vec<PlannedPlacement> = self
            .state
            .instances_of(&workload)
            .filter(new)
            .filter_map(|instance| {
                let host = self.state.host_name(instance.host()?)?.clone();
                Some(PlannedPlacement { slot: instance.slot, host })
            })
            .collect();
        placements.sort_unstable_by_key(|placement| placement.slot);
        let pending = || self.state.instances_of(&workload).filter(|instance| instance.is_pending());
        let waiting = pending().filter(|instance| self.waits(instance)).count() as u32;
        let unplaced = pending().count() as u32 - waiting;
        Some(WorkloadPlan {
            change,
            revision: current.revision,
            diffs: known.as_ref().map_or_else(Vec::new, |known| diff(known, &current.spec)),
            before: known,
            after: current.spec.clone(),
            placements,
            stops: stops.iter().map(|instance| PlannedStop::of(before, instance)).collect(),
            displaces: Vec::new(),
            waiting,
            unplaced,
            unplaced_because: None,
            workload,
        })
    }
}
