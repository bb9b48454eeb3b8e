//! The loop of rollouts: looks at each new state, and proposes the steps that `rollout` decides.

use std::time::Duration;

use super::rollout::Watch;
use crate::{clock::unix_now, core::Core, state::State};

/// Wait between two looks: many changes share one.
const PAUSE: Duration = Duration::from_millis(50);
/// While a rollout waits for time to pass (`healthy_for`), it is looked at this often without any change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(core: Core) {
    let mut states = core.changes();
    let mut rollouts = Watch::default();
    loop {
        let state = states.borrow_and_update().clone();
        for (workload, step) in rollouts.look(&state, unix_now()) {
            if let Err(error) = core.propose_here(step).await {
                tracing::warn!(%workload, %error, "a step of a rollout is not in the log");
            }
        }
        tokio::time::sleep(PAUSE).await;
        let changed = tokio::time::timeout(LOOK_AGAIN, wait(&mut states, &state, rollouts.is_idle())).await;
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
