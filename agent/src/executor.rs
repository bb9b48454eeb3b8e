//! Runs the actions of a plan on the drivers: one at a time for an instance (the plan sees to that), a few at a time in all. It makes no
//! choices: what came of an action goes back to the loop as an event. Deadlines are the drivers'.
//!
//! Decisions:
//! - *A stop waits for nobody.* It is mostly waiting itself, for minutes if its grace is long, and one whose lease has run out must be over
//!   before another host begins. So stops are bounded by the instances there are, and by nothing else.
//! - *A start can be broken off until the driver begins it*, also while it waits for its turn.
//! - *Each borough has preparations of its own*: one whose registry answers by the hour holds up nobody else's start.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use supercloud_proto::{
    id::{InstanceId, Millis},
    name::BoroughName,
    spec::DriverKind,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    driver::{Driver, DriverError, Pin, Seen, TaskRun},
    reconcile::{Action, Object},
};

/// Starts and removals at a time: Docker's rate of starts is at its best with four in parallel.
pub const ACTS: usize = 4;
/// Preparations of one borough at a time.
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
    /// A stop, a removal, or a change of processors is over.
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
    /// It was broken off before the driver began it, as asked.
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
    /// Of boroughs that prepare something now.
    preparations: BTreeMap<BoroughName, Arc<Semaphore>>,
    events: mpsc::Sender<Event>,
    /// To break off a preparation or a move. An entry outlives its action until the next one of the instance.
    cancels: BTreeMap<InstanceId, oneshot::Sender<()>>,
}

impl Executor {
    /// An executor, and where its events come out.
    pub fn new(drivers: Arc<Drivers>) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let executor = Self {
            drivers,
            acts: Arc::new(Semaphore::new(ACTS)),
            preparations: BTreeMap::new(),
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
            preparations: self.preparations_for(&action),
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

    /// The turns of the borough whose action it is. Those of a borough that prepares nothing are dropped.
    fn preparations_for(&mut self, action: &Action) -> Arc<Semaphore> {
        self.preparations.retain(|_, turns| Arc::strong_count(turns) > 1);
        let fresh = || Arc::new(Semaphore::new(PREPARATIONS));
        match action {
            Action::Start { run, .. } => {
                let borough = run.mark.workload.borough.clone();
                Arc::clone(self.preparations.entry(borough).or_insert_with(fresh))
            }
            // They prepare nothing.
            Action::Stop { .. } | Action::Pin { .. } | Action::Remove { .. } => fresh(),
        }
    }

    /// Breaks off the instance's start, unless the driver has begun it, or its move to other processors.
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
        Action::Stop { instance, .. } | Action::Pin { instance, .. } | Action::Remove { instance, .. } => {
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
                let stops = objects.iter().map(|object| self.stop(object, grace));
                Event::Cleared { instance, result: join_all(stops).await.into_iter().collect() }
            }
            Action::Pin { instance, objects, pin } => {
                let moved = async {
                    let _permit = self.acts.acquire().await;
                    join_all(objects.iter().map(|object| self.pin(object, &pin))).await.into_iter().collect()
                };
                let result = tokio::select! {
                    biased;
                    // It is looked at again, and stopped.
                    Ok(()) = cancelled => Ok(()),
                    result = moved => result,
                };
                Event::Cleared { instance, result }
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
        let made_ready = async {
            let turn = self.preparations.acquire().await;
            driver.prepare(run).await?;
            drop(turn);
            Ok::<_, DriverError>(self.acts.acquire().await)
        };
        let _permit = tokio::select! {
            biased;
            // A sender that was dropped means that nobody can break it off any more, not that somebody did.
            Ok(()) = cancelled => return Err(StartError::Cancelled),
            permit = made_ready => permit?,
        };
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

    async fn pin(&self, object: &Object, pin: &Pin) -> Result<(), DriverError> {
        match self.driver(Some(object.kind))?.pin(&object.seen, pin).await {
            // What is not there runs nowhere.
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use futures::stream::BoxStream;
    use supercloud_proto::{host::DriverInfo, v1};
    use tokio::sync::watch;
    use tonic::async_trait;

    use super::*;
    use crate::{
        driver::{ExecIo, Hint, LogOptions, Mark, Owner, Phase},
        reconcile::world::{instance, service},
    };

    /// A test that waits longer than this has failed.
    const DEADLINE: Duration = Duration::from_secs(10);

    /// A driver that counts who has come to each call, and lets through only when told.
    struct Gate {
        came: watch::Sender<Vec<String>>,
        open: watch::Sender<BTreeSet<&'static str>>,
    }

    impl Gate {
        fn new() -> Arc<Self> {
            Arc::new(Self { came: watch::Sender::default(), open: watch::Sender::default() })
        }

        async fn pass(&self, call: &'static str, mark: &Mark) {
            self.came.send_modify(|came| came.push(format!("{call} {}", mark.instance)));
            let mut open = self.open.subscribe();
            open.wait_for(|open| open.contains(call)).await.expect("the gate lives");
        }

        async fn until_came(&self, what: &[&str]) {
            let mut came = self.came.subscribe();
            let all = came.wait_for(|came| what.iter().all(|what| came.iter().any(|c| c == what)));
            tokio::time::timeout(DEADLINE, all).await.expect("in time").expect("the gate lives");
        }
    }

    #[async_trait]
    impl Driver for Gate {
        fn kind(&self) -> DriverKind {
            DriverKind::Docker
        }

        async fn probe(&self) -> DriverInfo {
            DriverInfo::default()
        }

        async fn list(&self) -> Result<Vec<Seen>, DriverError> {
            Ok(Vec::new())
        }

        async fn prepare(&self, run: &TaskRun) -> Result<(), DriverError> {
            self.pass("prepare", &run.mark).await;
            Ok(())
        }

        async fn start(&self, run: &TaskRun) -> Result<Seen, DriverError> {
            self.pass("start", &run.mark).await;
            Ok(seen(run.mark.clone()))
        }

        async fn stop(&self, seen: &Seen, _grace: Millis) -> Result<(), DriverError> {
            self.pass("stop", &seen.mark).await;
            Ok(())
        }

        async fn pin(&self, seen: &Seen, _pin: &Pin) -> Result<(), DriverError> {
            self.pass("pin", &seen.mark).await;
            Ok(())
        }

        async fn remove(&self, seen: &Seen) -> Result<(), DriverError> {
            self.pass("remove", &seen.mark).await;
            Ok(())
        }

        async fn logs(
            &self,
            _seen: &Seen,
            _options: LogOptions,
        ) -> Result<BoxStream<'static, Result<v1::LogsResponse, DriverError>>, DriverError> {
            Err(DriverError::Missing)
        }

        async fn exec(&self, _seen: &Seen, _start: v1::ExecStart) -> Result<ExecIo, DriverError> {
            Err(DriverError::Missing)
        }

        fn hints(&self) -> BoxStream<'static, Hint> {
            Box::pin(futures::stream::pending())
        }
    }

    fn seen(mark: Mark) -> Seen {
        Seen { mark, runtime_id: "x".to_owned(), phase: Phase::Running { since: None }, cpus: None }
    }

    fn mark(number: u64, borough: &str) -> Mark {
        let order = service(number);
        let mut workload = order.workload.clone();
        workload.borough = borough.parse().expect("a name");
        let task = order.tasks[0].name.clone();
        let instance = instance(number);
        let owner = Owner { cluster: "c".to_owned(), host: "h".parse().expect("a name") };
        Mark { owner, instance, workload, revision: 1, task, order_index: order.index }
    }

    fn start(number: u64, borough: &str) -> Action {
        let run =
            TaskRun { mark: mark(number, borough), order: Arc::new(service(number)), task: 0, pin: None };
        Action::Start { run, counted: false }
    }

    fn stop(number: u64) -> Action {
        let object = Object { kind: DriverKind::Docker, seen: seen(mark(number, "camden")) };
        Action::Stop { instance: instance(number), objects: vec![object], grace: 1 }
    }

    fn executor(gate: &Arc<Gate>) -> (Executor, mpsc::Receiver<Event>) {
        let driver: Arc<dyn Driver> = Arc::clone(gate) as _;
        Executor::new(Arc::new(BTreeMap::from([(DriverKind::Docker, driver)])))
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_other_action() {
        let gate = Gate::new();
        gate.open.send_modify(|open| _ = open.insert("prepare"));
        let (mut executor, _events) = executor(&gate);
        (1..=ACTS as u64).for_each(|number| executor.begin(start(number, "camden")));
        gate.until_came(&["start i-1-0", "start i-2-0", "start i-3-0", "start i-4-0"]).await;
        (11..=20).for_each(|number| executor.begin(stop(number)));
        gate.until_came(&["stop i-b-0", "stop i-14-0"]).await;
    }

    #[tokio::test]
    async fn a_start_that_waits_for_its_turn_can_be_broken_off() {
        let gate = Gate::new();
        gate.open.send_modify(|open| _ = open.insert("prepare"));
        let (mut executor, mut events) = executor(&gate);
        (1..=ACTS as u64).for_each(|number| executor.begin(start(number, "camden")));
        gate.until_came(&["start i-1-0", "start i-2-0", "start i-3-0", "start i-4-0"]).await;
        executor.begin(start(9, "hackney"));
        gate.until_came(&["prepare i-9-0"]).await;
        executor.cancel(instance(9));
        let broken_off = async {
            loop {
                match events.recv().await.expect("the executor lives") {
                    Event::Started { run, result: Err(StartError::Cancelled), .. } => {
                        return run.mark.instance;
                    }
                    Event::Prepared { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        let broken_off = tokio::time::timeout(DEADLINE, broken_off).await.expect("in time");
        assert_eq!(broken_off, instance(9));
    }

    #[tokio::test]
    async fn one_boroughs_slow_downloads_hold_up_no_other() {
        let gate = Gate::new();
        let (mut executor, _events) = executor(&gate);
        (1..=2 * PREPARATIONS as u64).for_each(|number| executor.begin(start(number, "camden")));
        gate.until_came(&["prepare i-1-0"]).await;
        executor.begin(start(99, "hackney"));
        gate.until_came(&["prepare i-63-0"]).await;
        let camdens = gate.came.borrow().len() - 1;
        assert!(camdens <= PREPARATIONS, "{camdens} at a time");
    }
}
