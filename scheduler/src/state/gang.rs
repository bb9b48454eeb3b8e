//! Gangs: workloads of which those instances that wait at the same time are given hosts all at once or not at all (`place.all_or_none`). The pass proposes
//! all of them side by side, and apply takes them only so: no gang ever stands half on hosts because the rest found none.
//!
//! Decisions. *A gang is what waits of one revision of a workload and whose time has come*: a successor that waits after failures holds nobody up, and goes
//! with those that wait when its time comes. Those that a scale adds belong to it, too. *What has a host is no part of it any more*: an instance that fails or
//! makes way is replaced as any other is. *Others make way for all of it or for none* (`preempt::gang`). *A rollout replaces all of it in one step* (`leader::rollout`), so that it never runs in two halves.

use std::sync::Arc;

use supercloud_proto::id::{InstanceId, UnixMillis};

use super::{
    State,
    fits::must_wait_for,
    model::{Instance, RevisionRecord},
};

/// How many wait for hosts together, and for how many of them room is made. What is of no gang waits by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// All of them.
    pub all: usize,
    /// Those for which others make way.
    pub awaited: usize,
}

impl Together {
    /// Of these.
    pub fn of(state: &State, instances: impl IntoIterator<Item = InstanceId>) -> Self {
        let mut together = Self { all: 0, awaited: 0 };
        for id in instances {
            together.all += 1;
            together.awaited += usize::from(state.instance(id).is_some_and(|one| one.awaited().is_some()));
        }
        together
    }

    /// Of one that is of no gang.
    pub fn alone(instance: &Instance) -> Self {
        Self { all: 1, awaited: usize::from(instance.awaited().is_some()) }
    }
}

/// The instances of a revision that wait for hosts and whose time has come, in the order of their ids.
pub fn waiting<'s>(
    state: &'s State,
    record: &RevisionRecord,
    now: UnixMillis,
) -> impl Iterator<Item = &'s Arc<Instance>> {
    let revision = record.revision;
    let waits = move |instance: &&Arc<Instance>| {
        instance.is_pending() && instance.revision() == revision && instance.not_before() <= now
    };
    state.instances_of(&record.key).filter(waits)
}

/// All that are given hosts only together with an instance that waits, with itself: only itself, if it is of no gang, or its time has not come.
pub fn waiting_with(state: &State, instance: &Instance, now: UnixMillis) -> Vec<InstanceId> {
    if instance.spec().place.all_or_none && instance.not_before() <= now {
        waiting(state, &instance.record, now).map(|one| one.id).collect()
    } else {
        vec![instance.id]
    }
}

/// Who must be gone before an instance may have a host, or one of those that are given hosts only together with it; and who of these waits for that.
pub fn held_up_by(state: &State, instance: &Instance, now: UnixMillis) -> Option<(InstanceId, InstanceId)> {
    if !instance.spec().is_exclusive() {
        return None;
    }
    let mut together = waiting_with(state, instance, now).into_iter().filter_map(|id| state.instance(id));
    together.find_map(|one| Some((one.id, must_wait_for(state, one)?.id)))
}

/// How many of these, from the first, are of the gang that the first is of; none, if it is of none.
pub(super) fn at_front(state: &State, instances: impl IntoIterator<Item = InstanceId>) -> usize {
    let mut records =
        instances.into_iter().map_while(|id| state.instance(id)).map(|instance| &instance.record);
    let Some(gang) = records.next().filter(|record| record.spec.place.all_or_none) else { return 0 };
    let is_of_gang = |other: &&Arc<RevisionRecord>| other.key == gang.key && other.revision == gang.revision;
    1 + records.take_while(is_of_gang).count()
}

/// Whether these, of one gang, are all that wait of it, each once.
pub(super) fn is_whole(
    state: &State,
    instances: impl IntoIterator<Item = InstanceId>,
    now: UnixMillis,
) -> bool {
    let mut given: Vec<InstanceId> = instances.into_iter().collect();
    given.sort_unstable();
    let Some(first) = given.first().and_then(|first| state.instance(*first)) else { return false };
    let record = first.record.clone();
    given.into_iter().eq(waiting(state, &record, now).map(|instance| instance.id))
}
