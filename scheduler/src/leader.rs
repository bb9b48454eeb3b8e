//! What runs only while this node leads: the scheduling pass, rollouts, and the judging of hosts. The loops read the published state and
//! propose commands; they keep nothing that would be missed by the next leader.
//!
//! A loop is ended in the middle when leadership is lost. That is harmless: what a deposed leader still proposes is refused by the log, and
//! what got through is checked again when it is applied.
//!
//! From the ground: `judge` (pure), `rollout` (pure) · `liveness`, `marking`, `raising`, `rolling`, `yielding`, `passing` (loops).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use supercloud_proto::id::LogIndex;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    clock::boot_now,
    core::Core,
    heartbeats::{Beat, BeatError},
    raft::{Log, Role, Status},
    state::{Command, Outcome},
};

pub mod judge;
mod liveness;
mod marking;
pub mod passing;
mod raising;
mod rolling;
pub mod rollout;
mod yielding;

pub use judge::{Timing, judge};

use judge::Table;

/// Wait before the cluster's id is proposed again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The leader's memory of heartbeats, and the question whether this node leads. Cheap to clone; there on every node.
#[derive(Clone)]
pub struct Lead {
    log: Log<Outcome>,
    table: Arc<Mutex<Table>>,
}

/// That heartbeats were taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The term in which this node led after they came.
    pub(crate) term: u64,
    /// A log index that holds every decision made before that; applied here.
    pub(crate) index: LogIndex,
}

impl Lead {
    pub(crate) fn new(log: Log<Outcome>) -> Self {
        Self { log, table: Arc::default() }
    }

    /// Takes in heartbeats, and gives the term in which this node led after they came: a majority has confirmed it since.
    ///
    /// # Errors
    /// [`BeatError::NoLeader`] when this node does not lead, or could not have it confirmed; [`BeatError::Unanswered`] when one of the hosts is
    /// being given up at this moment.
    pub(crate) async fn take_in(&self, beats: &[Beat]) -> Result<Taken, BeatError> {
        let came = boot_now();
        let term = self.leading().ok_or(BeatError::NoLeader)?;
        let index = self.log.read_index().await.map_err(|_| BeatError::NoLeader)?;
        // The confirmation may have come from a later leader; then this node has learned of the later term before it.
        if self.leading() != Some(term) {
            return Err(BeatError::NoLeader);
        }
        self.table().take_in(term, beats, came)?;
        Ok(Taken { term, index })
    }

    fn leading(&self) -> Option<u64> {
        let status = self.log.status();
        let status = status.borrow();
        leading(&status)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A table is whole between two statements.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The term in which this node leads.
fn leading(status: &Status) -> Option<u64> {
    (status.role == Role::Leader).then_some(status.term)
}

/// Wait before the leader's loops begin anew after one of them broke: long enough not to fill the log.
const AFTER_A_BREAK: Duration = Duration::from_secs(2);

/// Runs the loops whenever this node leads, until the node stops.
pub(crate) async fn run(core: Core) {
    let mut nodes = core.nodes();
    loop {
        let Ok(term) = nodes.wait_for(|status| leading(status).is_some()).await.map(|status| status.term)
        else {
            return;
        };
        tracing::info!(term, node = %core.node(), "this node leads");
        let mut loops = JoinSet::new();
        loops.spawn(found(core.clone()));
        loops.spawn(passing::run(core.clone()));
        loops.spawn(marking::run(core.clone()));
        loops.spawn(raising::run(core.clone()));
        loops.spawn(rolling::run(core.clone()));
        loops.spawn(yielding::run(core.clone()));
        loops.spawn(liveness::run(core.clone(), term));
        let goes_on = tokio::select! {
            goes_on = until_over(&mut nodes, term) => goes_on,
            () = until_broken(&mut loops) => true,
        };
        // Dropping the loops ends them too, when this very task is ended.
        loops.shutdown().await;
        tracing::info!(term, node = %core.node(), "this node leads no more");
        if !goes_on {
            return;
        }
    }
}

/// Waits until one of the loops has panicked, and a little longer: the others end with it and all begin anew, since a leader that judges
/// and does not place is worse than one that stumbles. What broke it may be gone by then, or is told again and again.
async fn until_broken(loops: &mut JoinSet<()>) {
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a loop of the leader broke; all begin anew");
            return tokio::time::sleep(AFTER_A_BREAK).await;
        }
    }
    std::future::pending().await
}

/// Waits for the end of a leadership; `false` when the node has stopped.
async fn until_over(nodes: &mut watch::Receiver<Status>, term: u64) -> bool {
    nodes.wait_for(|status| leading(status) != Some(term)).await.is_ok()
}

/// The first leader of a new cluster gives the state its id.
async fn found(core: Core) {
    loop {
        // Confirmed, so that a cluster that has its id is never given it again.
        if let Ok(state) = core.read().await {
            if state.cluster_id().is_some() {
                return;
            }
            let command = Command::Initialise { cluster_id: core.cluster().to_owned() };
            match core.propose_here(command).await {
                Ok(_) => tracing::info!(cluster = core.cluster(), "a new cluster is founded"),
                Err(error) => tracing::warn!(%error, "the cluster's id could not be proposed"),
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
