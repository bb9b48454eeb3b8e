//! The API: calls in, answers out. The only place beside `state::codec` with generated types. Each service stands in a file of its own and is
//! a thin shell: it checks the input, proposes a command or reads a state, and shows what came of it. It decides nothing.
//!
//! ```text
//!   Gate (caller, table) -> service -> input checks -> Core::propose | Core::read -> message
//! ```
//! `access`, `caller`, `gate` say who may; `input`, `refusals` are what all services share; `show` makes messages of what placement says.

pub mod access;
mod agents;
mod boroughs;
pub mod caller;
pub mod ending;
mod events;
pub mod gate;
mod health;
mod hosts;
mod input;
mod instances;
mod joining;
mod nodes;
pub mod refusals;
mod saving;
mod show;
mod volumes;
mod workloads;

use std::{future::Future, sync::Arc, time::Duration};

use supercloud_proto::id::LogIndex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Status, metadata::MetadataValue};

use crate::{
    admission::Admission,
    core::Core,
    sessions::Sessions,
    state::{Command, Done, State},
    watch as states,
};
use caller::Caller;

/// Header of the answer to a stale read: how long ago the node heard the leader, in milliseconds.
const STALE_MS: &str = "supercloud-stale-ms";
/// Its value where the node has heard no leader since it started.
const NEVER_HEARD: &str = "never";
/// How long an answer waits until this node has applied what the cluster has accepted. A node that lags by more has trouble of its own.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Plans and explanations under way on a node: each takes a core for as long as a pass does.
const MAX_HEAVY: usize = 2;
/// Watches on a node. Each costs a wake-up for each change of the state.
const MAX_WATCHES: usize = 4_096;

/// All services of the API port.
#[derive(Clone)]
pub struct Api {
    core: Core,
    sessions: Sessions,
    admission: Arc<Admission>,
    ending: watch::Receiver<bool>,
    heavy: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    saves: Arc<Semaphore>,
}

/// A change that took effect.
struct Changed {
    /// Where.
    index: LogIndex,
    /// What it did.
    done: Done,
    /// A state that has it.
    state: State,
}

impl Api {
    /// The services over this node. They end their streams when `ending` turns true.
    #[must_use]
    pub fn new(
        core: Core,
        sessions: Sessions,
        admission: Arc<Admission>,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (heavy, watches, saves) = (places(MAX_HEAVY), places(MAX_WATCHES), places(saving::MAX_SAVES));
        Self { core, sessions, admission, ending, heavy, watches, saves }
    }

    /// A state to answer from: this node's own copy, or one that has every acknowledged write.
    async fn state(&self, stale: bool) -> Result<State, Status> {
        if stale {
            return Ok(self.core.view());
        }
        self.core.read().await.map_err(|error| refusals::read(&error))
    }

    /// An answer to a read. To a stale one with its age: see [`STALE_MS`].
    fn answer<T>(&self, stale: bool, message: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(message);
        if stale {
            let age =
                self.core.view_age().map_or(MetadataValue::from_static(NEVER_HEARD), MetadataValue::from);
            response.metadata_mut().insert(STALE_MS, age);
        }
        response
    }

    /// Proposes a command for a caller, and waits until this node shows it.
    async fn change(&self, by: &str, request_id: &str, command: Command) -> Result<Changed, Status> {
        let outcome =
            self.core.propose(by, request_id, command).await.map_err(|error| refusals::propose(&error))?;
        let done = outcome.result.map_err(refusals::rejection)?;
        let state = states::applied(&self.core.changes(), outcome.index, CATCH_UP)
            .await
            .map_err(|error| refusals::not_seen(&error))?;
        Ok(Changed { index: outcome.index, done, state })
    }

    /// Runs what takes a core for long away from the threads that answer others, few at a time.
    async fn heavy<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let permit = self.heavy.clone().acquire_owned().await.map_err(|_| refusals::shutting_down())?;
        let work = move || {
            let _held = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
    }

    /// The right to hold a watch open.
    fn watch_permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.watches.clone().try_acquire_owned().map_err(|_| refusals::too_many("watches", MAX_WATCHES))
    }

    /// Ready when this node is to end.
    fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ending = self.ending.clone();
        async move {
            // An error means that whoever would say so is gone.
            let _ = ending.wait_for(|ending| *ending).await;
        }
    }
}

/// The caller and the message of a request.
fn open<T>(request: tonic::Request<T>) -> Result<(Caller, T), Status> {
    let caller = Caller::of(&request)?;
    Ok((caller, request.into_inner()))
}
