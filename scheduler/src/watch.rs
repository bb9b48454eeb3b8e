//! Ways to wait for the published state: until an index is applied, and until something that one cares about changed. Knows the
//! state and nothing of the log or of who proposes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{Stream, stream};
use supercloud_proto::{
    id::{InstanceId, LogIndex},
    name::WorkloadKey,
};
use tokio::sync::watch;

use crate::state::{Instance, State, Workload};

/// Why a wait ended without its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The index was not applied here in time.
    #[error("index {index} was not applied within {} ms", .within.as_millis())]
    TimedOut {
        /// The index.
        index: LogIndex,
        /// The time.
        within: Duration,
    },
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// The first published state that has applied `index`.
///
/// # Errors
/// When that takes longer than `within`, or the node stops.
pub async fn applied(
    states: &watch::Receiver<State>,
    index: LogIndex,
    within: Duration,
) -> Result<State, WaitError> {
    let mut states = states.clone();
    let reached = states.wait_for(|state| state.applied() >= index);
    match tokio::time::timeout(within, reached).await {
        Ok(Ok(state)) => Ok(state.clone()),
        Ok(Err(_)) => Err(WaitError::Stopped),
        Err(_) => Err(WaitError::TimedOut { index, within }),
    }
}

/// The present state, and then each published one in which the workload or one of its instances is another than before. States that
/// come faster than they are taken are passed over; the last one never is. Ends with the node.
pub fn workload_changes(
    states: watch::Receiver<State>,
    key: WorkloadKey,
) -> impl Stream<Item = State> + Send + 'static {
    stream::unfold((states, None), move |(mut states, mut seen)| {
        let key = key.clone();
        async move {
            loop {
                let state = states.borrow_and_update().clone();
                let now = WorkloadView::of(&state, &key);
                if seen.as_ref().is_none_or(|seen: &WorkloadView| !seen.same(&now)) {
                    seen = Some(now);
                    return Some((state, (states, seen)));
                }
                states.changed().await.ok()?;
            }
        }
    })
}

/// What is compared: records are replaced and never changed in place, so pointers tell.
struct WorkloadView {
    workload: Option<Arc<Workload>>,
    instances: BTreeMap<InstanceId, Arc<Instance>>,
}

impl WorkloadView {
    fn of(state: &State, key: &WorkloadKey) -> Self {
        Self {
            workload: state.workload(key).cloned(),
            instances: state.instances_of(key).map(|instance| (instance.id, instance.clone())).collect(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        let workload = match (&self.workload, &other.workload) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        };
        workload
            && self.instances.len() == other.instances.len()
            && self
                .instances
                .iter()
                .zip(&other.instances)
                .all(|((one, a), (two, b))| one == two && Arc::ptr_eq(a, b))
    }
}
