//! Rules for workloads: created, changed, scaled, stopped, forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::{Vector, vector};
use supercloud_proto::{
    id::{InstanceId, Revision},
    instance::Desired,
    name::WorkloadKey,
    problem::Problem,
    spec::WorkloadSpec,
};

use super::Step;
use crate::state::{
    command::{Change, Done, Rejection},
    model::{Borough, EventKind, RevisionRecord, Subject, Workload},
};

/// Revisions kept of a workload beside those that instances still run.
const KEPT_REVISIONS: usize = 10;

impl Step<'_> {
    pub(super) fn apply_workload(
        &mut self,
        spec: &WorkloadSpec,
        expect: Option<Revision>,
    ) -> Result<Done, Rejection> {
        let borough = self.state.boroughs.get(&spec.borough);
        let borough = borough.ok_or_else(|| Rejection::NotFound(format!("borough {}", spec.borough)))?;
        check_allowed(borough, spec)?;
        let key = spec.key();
        let known = self.state.workloads.get(&key).cloned();
        let revision = known.as_ref().map_or(0, |workload| workload.current().revision);
        if expect.is_some_and(|expected| expected != revision) {
            let expected = expect.unwrap_or_default();
            return Err(Rejection::Precondition(format!(
                "{key} is at revision {revision}, not at {expected}"
            )));
        }
        let change = match known {
            None => self.new_workload(&key, spec),
            Some(workload) => self.change_workload(Workload::clone(&workload), spec),
        };
        self.converge(&key);
        Ok(Done::Applied(change))
    }

    fn new_workload(&mut self, key: &WorkloadKey, spec: &WorkloadSpec) -> Change {
        let workload = Workload {
            key: key.clone(),
            revisions: vector![self.revision(1, spec)],
            stopped: false,
            purging: false,
            created: self.time,
            changed: self.time,
            changed_index: self.index,
        };
        self.state.workloads.insert(key.clone(), Arc::new(workload));
        self.workload_event(
            EventKind::WorkloadApplied,
            key,
            format!("created with {} instances", spec.count),
        );
        Change::Created
    }

    fn change_workload(&mut self, mut workload: Workload, spec: &WorkloadSpec) -> Change {
        let key = workload.key.clone();
        let current = workload.current().clone();
        let revived = workload.stopped;
        let (change, message) = match differs(&current.spec, spec) {
            Difference::None if !revived => return Change::Unchanged,
            Difference::None => (Change::Updated, format!("runs again at revision {}", current.revision)),
            Difference::Count => {
                set_count(&mut workload, spec.count);
                let change = if revived { Change::Updated } else { Change::Scaled };
                (change, format!("scaled from {} to {}", current.spec.count, spec.count))
            }
            Difference::More => {
                let next = self.revision(current.revision + 1, spec);
                workload.revisions.push_back(next);
                (Change::Updated, format!("revision {} applied", current.revision + 1))
            }
        };
        workload.stopped = false;
        workload.purging = false;
        self.prune(&mut workload);
        self.put_workload(workload);
        self.workload_event(EventKind::WorkloadApplied, &key, message);
        self.renew_pending(&key);
        change
    }

    fn revision(&self, revision: Revision, spec: &WorkloadSpec) -> Arc<RevisionRecord> {
        Arc::new(RevisionRecord {
            key: spec.key(),
            revision,
            spec: Arc::new(spec.clone()),
            applied: self.time,
            applied_by: self.by.to_owned(),
        })
    }

    pub(super) fn scale_workload(&mut self, key: &WorkloadKey, count: u32) -> Result<Done, Rejection> {
        let mut workload = Workload::clone(self.known_workload(key)?);
        if workload.stopped {
            return Err(Rejection::Precondition(format!("{key} is stopped; apply it to let it run again")));
        }
        let spec = &workload.current().spec;
        let before = spec.count;
        if spec.place.all_or_none && count > spec.most_instances() {
            let problem = Problem::new("count", spec.count_expected(), count.to_string());
            return Err(Rejection::Invalid(vec![problem]));
        }
        if before != count {
            set_count(&mut workload, count);
            self.put_workload(workload);
            self.workload_event(EventKind::WorkloadScaled, key, format!("scaled from {before} to {count}"));
            self.converge(key);
        }
        Ok(Done::Scaled { before })
    }

    pub(super) fn stop_workload(&mut self, key: &WorkloadKey, purge: bool) -> Result<Done, Rejection> {
        let mut workload = Workload::clone(self.known_workload(key)?);
        let news = !workload.stopped || (purge && !workload.purging);
        workload.stopped = true;
        workload.purging |= purge;
        if news {
            self.put_workload(workload);
            let message = if purge { "stopped, to be forgotten" } else { "stopped" };
            self.workload_event(EventKind::WorkloadStopped, key, message);
        }
        let running: Vec<InstanceId> =
            self.state.instances_of(key).filter(|i| i.desired == Desired::Run).map(|i| i.id).collect();
        for id in &running {
            self.stop_instance(*id, "workload stopped");
        }
        self.forget_if_purged(key);
        Ok(Done::Instances(running.len() as u32))
    }

    fn known_workload(&self, key: &WorkloadKey) -> Result<&Arc<Workload>, Rejection> {
        self.state.workloads.get(key).ok_or_else(|| Rejection::NotFound(format!("workload {key}")))
    }

    fn put_workload(&mut self, mut workload: Workload) {
        workload.changed = self.time;
        workload.changed_index = self.index;
        self.state.workloads.insert(workload.key.clone(), Arc::new(workload));
    }

    fn workload_event(&mut self, kind: EventKind, key: &WorkloadKey, message: impl Into<String>) {
        let subject =
            Subject { borough: Some(key.borough.clone()), workload: Some(key.clone()), ..Subject::default() };
        self.event(kind, subject, message);
    }

    /// Makes the instances of a workload as many as are wanted, one a slot. Surplus ones stop, missing ones are created pending.
    pub(super) fn converge(&mut self, key: &WorkloadKey) {
        let Some(workload) = self.state.workloads.get(key).cloned() else { return };
        let wanted = workload.wanted();
        let live: BTreeMap<u32, InstanceId> = self
            .state
            .instances_of(key)
            .filter(|instance| instance.desired == Desired::Run)
            .map(|instance| (instance.slot, instance.id))
            .collect();
        for id in live.range(wanted..).map(|(_, id)| *id) {
            self.stop_instance(id, "scaled down");
        }
        self.create_instances(&workload, (0..wanted).filter(|slot| !live.contains_key(slot)));
    }

    /// Pending instances of an older revision run nowhere: they are replaced at once, outside any rollout.
    fn renew_pending(&mut self, key: &WorkloadKey) {
        let Some(workload) = self.state.workloads.get(key).cloned() else { return };
        let current = workload.current().revision;
        let outdated: Vec<InstanceId> = self
            .state
            .instances_of(key)
            .filter(|instance| instance.is_pending() && instance.revision() != current)
            .map(|instance| instance.id)
            .collect();
        for id in outdated {
            self.stop_instance(id, "superseded before it was placed");
        }
    }

    /// Forgets old revisions that no instance runs.
    fn prune(&self, workload: &mut Workload) {
        let used: BTreeSet<Revision> = self.state.instances_of(&workload.key).map(|i| i.revision()).collect();
        let surplus = workload.revisions.len().saturating_sub(KEPT_REVISIONS);
        let keep = |(place, record): &(usize, &Arc<RevisionRecord>)| {
            *place >= surplus || used.contains(&record.revision)
        };
        workload.revisions = workload
            .revisions
            .iter()
            .enumerate()
            .filter(keep)
            .map(|(_, record)| record.clone())
            .collect::<Vector<_>>();
    }

    /// Forgets a workload that is to be purged, once its last instance is gone.
    pub(super) fn forget_if_purged(&mut self, key: &WorkloadKey) {
        let purging = self.state.workloads.get(key).is_some_and(|workload| workload.purging);
        if purging && self.state.instances_of(key).next().is_none() {
            self.state.workloads.remove(key);
            self.state.homes.remove(key);
            self.workload_event(EventKind::WorkloadPurged, key, "forgotten");
        }
    }
}

/// Whether operators let the workloads of a borough have the priority of a spec, and be private if it is. Only what is applied is asked.
fn check_allowed(borough: &Borough, spec: &WorkloadSpec) -> Result<(), Rejection> {
    let (name, most) = (&borough.name, borough.allowance.max_priority);
    let mut problems = Vec::new();
    if spec.priority > most {
        let expected = format!("at most {most}, which is what operators let {name} have");
        problems.push(Problem::new("priority", expected, spec.priority.to_string()));
    }
    if spec.place.private && borough.allowance.private_hosts == 0 {
        let expected = format!("false, since operators let {name} keep no host to itself");
        problems.push(Problem::new("place.private", expected, "true"));
    }
    if problems.is_empty() { Ok(()) } else { Err(Rejection::Invalid(problems)) }
}

/// How a spec differs from the present one.
enum Difference {
    None,
    Count,
    More,
}

fn differs(present: &WorkloadSpec, new: &WorkloadSpec) -> Difference {
    if present == new {
        Difference::None
    } else if *present == (WorkloadSpec { count: present.count, ..new.clone() }) {
        Difference::Count
    } else {
        Difference::More
    }
}

/// Sets the count of the present revision, which follows every scale.
fn set_count(workload: &mut Workload, count: u32) {
    let mut record = RevisionRecord::clone(workload.current());
    Arc::make_mut(&mut record.spec).count = count;
    workload.revisions.pop_back();
    workload.revisions.push_back(Arc::new(record));
}
