//! The loop of rollouts: looks at workloads that changed, keeps an eye on those that still run older revisions, and proposes the next steps
//! that `rollout` decides.

use std::{collections::BTreeSet, time::Duration};

use supercloud_proto::{
    id::{InstanceId, LogIndex},
    name::WorkloadKey,
};

use super::rollout;
use crate::{
    clock::unix_now,
    core::Core,
    state::{Command, State},
};

/// Wait between two looks: many changes share one.
const PAUSE: Duration = Duration::from_millis(50);
/// While a rollout waits for time to pass (`healthy_for`), it is looked at this often without any change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(core: Core) {
    let mut states = core.changes();
    let mut watched = BTreeSet::new();
    let mut looked = 0;
    loop {
        let state = states.borrow_and_update().clone();
        watched.extend(changed_since(&state, looked));
        looked = state.applied();
        watched.retain(|key| rollout::is_under_way(&state, key));
        for (key, instances) in rollout::next(&state, &watched, unix_now()) {
            replace(&core, &state, &key, instances).await;
        }
        tokio::time::sleep(PAUSE).await;
        let changed = tokio::time::timeout(LOOK_AGAIN, wait(&mut states, &state, watched.is_empty())).await;
        if matches!(changed, Ok(false)) {
            return;
        }
    }
}

/// Waits for a change; with nothing to watch, for one of the workloads. `false` when the node has stopped.
async fn wait(states: &mut tokio::sync::watch::Receiver<State>, seen: &State, idle: bool) -> bool {
    loop {
        if states.changed().await.is_err() {
            return false;
        }
        if !idle || !states.borrow_and_update().workloads().ptr_eq(seen.workloads()) {
            return true;
        }
    }
}

/// Workloads that were changed after an index; all of them after 0.
fn changed_since(state: &State, index: LogIndex) -> impl Iterator<Item = WorkloadKey> {
    state
        .workloads()
        .values()
        .filter(move |workload| workload.changed_index > index)
        .map(|workload| workload.key.clone())
}

async fn replace(core: &Core, state: &State, key: &WorkloadKey, instances: Vec<InstanceId>) {
    let Some(revision) = state.workload(key).map(|workload| workload.current().revision) else { return };
    tracing::info!(workload = %key, revision, instances = instances.len(), "a step of a rollout");
    let reason = format!("rollout of revision {revision}");
    if let Err(error) = core.propose_here(Command::Replace { instances, reason }).await {
        tracing::warn!(workload = %key, %error, "a step of a rollout is not in the log");
    }
}
