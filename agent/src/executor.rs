//! Runs the actions of a plan on the drivers: one at a time for an instance (the plan sees to that), a few at a time in all. It makes no
//! choices: what came of an action goes back to the loop as an event. Deadlines are the drivers'.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use supercloud_proto::{
    id::{InstanceId, Millis},
    spec::DriverKind,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    driver::{Driver, DriverError, Seen, TaskRun},
    reconcile::{Action, Object},
};

/// Actions at a time: Docker's rate of starts is at its best with four in parallel.
pub const ACTS: usize = 4;
/// Preparations at a time. Apart from the others, so that slow downloads hold up no stop.
pub const PREPARATIONS: usize = 4;
/// Events that may wait for the loop.
pub const EVENTS: usize = 256;

/// The drivers of this host.
pub type Drivers = BTreeMap<DriverKind, Arc<dyn Driver>>;

/// What became of an action.
#[derive(Debug)]
pub enum Event {
    /// A task is ready and is now being started.
    Prepared {
        /// Whose.
        instance: InstanceId,
    },
    /// A start is over.
    Started {
        /// What was to be started.
        run: Box<TaskRun>,
        /// Whether it counts as a restart.
        counted: bool,
        /// What came of it.
        result: Result<Seen, StartError>,
    },
    /// A stop or a removal is over.
    Cleared {
        /// Whose.
        instance: InstanceId,
        /// What came of it: the first error.
        result: Result<(), DriverError>,
    },
}

/// Why a start did not come about.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was broken off while it was being made ready, as asked.
    #[error("broken off")]
    Cancelled,
    /// The driver says.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Runs actions.
pub struct Executor {
    drivers: Arc<Drivers>,
    acts: Arc<Semaphore>,
    preparations: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
    /// To break off a preparation. An entry outlives its action until the next one of the instance.
    cancels: BTreeMap<InstanceId, oneshot::Sender<()>>,
}

impl Executor {
    /// An executor, and where its events come out.
    pub fn new(drivers: Arc<Drivers>) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let executor = Self {
            drivers,
            acts: Arc::new(Semaphore::new(ACTS)),
            preparations: Arc::new(Semaphore::new(PREPARATIONS)),
            events,
            cancels: BTreeMap::new(),
        };
        (executor, receiver)
    }

    /// Begins an action. Its event comes when it is over.
    pub fn begin(&mut self, action: Action) {
        let (cancel, cancelled) = oneshot::channel();
        self.cancels.retain(|_, cancel| !cancel.is_closed());
        self.cancels.insert(action.instance(), cancel);
        let work = Work {
            drivers: Arc::clone(&self.drivers),
            acts: Arc::clone(&self.acts),
            preparations: Arc::clone(&self.preparations),
            events: self.events.clone(),
        };
        let events = self.events.clone();
        tokio::spawn(async move {
            let lost = lost_event(&action);
            // A driver that panics must not leave its instance under way for ever.
            let event = tokio::spawn(work.run(action, cancelled)).await.unwrap_or(lost);
            // The loop is gone when the agent ends; there is nobody to tell.
            let _ = events.send(event).await;
        });
    }

    /// Breaks off the instance's preparation, if it is still one.
    pub fn cancel(&mut self, instance: InstanceId) {
        if let Some(cancel) = self.cancels.remove(&instance) {
            // It was over already.
            let _ = cancel.send(());
        }
    }
}

/// What is told of an action whose task broke down.
fn lost_event(action: &Action) -> Event {
    let error = || DriverError::Silent { runtime: "agent", reason: "the driver broke down".to_owned() };
    match action {
        Action::Start { run, counted } => {
            Event::Started { run: Box::new(run.clone()), counted: *counted, result: Err(error().into()) }
        }
        Action::Stop { instance, .. } | Action::Remove { instance, .. } => {
            Event::Cleared { instance: *instance, result: Err(error()) }
        }
    }
}

/// What one action needs.
struct Work {
    drivers: Arc<Drivers>,
    acts: Arc<Semaphore>,
    preparations: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
}

impl Work {
    async fn run(self, action: Action, cancelled: oneshot::Receiver<()>) -> Event {
        match action {
            Action::Start { run, counted } => {
                let result = self.start(&run, cancelled).await;
                Event::Started { run: Box::new(run), counted, result }
            }
            Action::Stop { instance, objects, grace } => {
                let _permit = self.acts.acquire().await;
                let stops = objects.iter().map(|object| self.stop(object, grace));
                Event::Cleared { instance, result: join_all(stops).await.into_iter().collect() }
            }
            Action::Remove { instance, objects } => {
                let _permit = self.acts.acquire().await;
                let removals = objects.iter().map(|object| self.remove(object));
                Event::Cleared { instance, result: join_all(removals).await.into_iter().collect() }
            }
        }
    }

    async fn start(&self, run: &TaskRun, cancelled: oneshot::Receiver<()>) -> Result<Seen, StartError> {
        let kind = run.order.tasks.get(run.task).map(|task| task.driver.kind());
        let driver = self.driver(kind)?;
        let prepare = async {
            let _permit = self.preparations.acquire().await;
            driver.prepare(run).await
        };
        tokio::select! {
            // A sender that was dropped means that nobody can break it off any more, not that somebody did.
            Ok(()) = cancelled => return Err(StartError::Cancelled),
            prepared = prepare => prepared?,
        }
        let _permit = self.acts.acquire().await;
        // The loop is gone when the agent ends; the start is finished all the same.
        let _ = self.events.send(Event::Prepared { instance: run.mark.instance }).await;
        Ok(driver.start(run).await?)
    }

    async fn stop(&self, object: &Object, grace: Millis) -> Result<(), DriverError> {
        match self.driver(Some(object.kind))?.stop(&object.seen, grace).await {
            // Not there is stopped too.
            Err(DriverError::Missing) => Ok(()),
            other => other,
        }
    }

    async fn remove(&self, object: &Object) -> Result<(), DriverError> {
        self.driver(Some(object.kind))?.remove(&object.seen).await
    }

    fn driver(&self, kind: Option<DriverKind>) -> Result<&Arc<dyn Driver>, DriverError> {
        let missing = || DriverError::Refused("this host has no driver for it".to_owned());
        kind.and_then(|kind| self.drivers.get(&kind)).ok_or_else(missing)
    }
}
