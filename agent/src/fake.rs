//! A driver without a runtime: it keeps objects in memory, records what it was told, and can be made silent or stubborn. For tests and for
//! trying thousands of agents on one machine; never part of a real agent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures::{StreamExt, stream, stream::BoxStream};
use supercloud_proto::{
    host::DriverInfo,
    id::{InstanceId, Millis},
    name::TaskName,
    spec::DriverKind,
    v1,
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tonic::async_trait;

use crate::driver::{Driver, DriverError, ExecIo, Hint, LogOptions, Phase, Pin, Seen, TaskRun};

/// Calls that are remembered.
const KEPT_CALLS: usize = 4096;
/// Hints that may wait; a reader that lags is told to look at everything. Few, since their room is taken for each of thousands of agents.
const HINTS: usize = 16;

#[derive(Debug, Default)]
struct World {
    objects: BTreeMap<(InstanceId, TaskName), Seen>,
    calls: Vec<String>,
    silent: bool,
    /// How often somebody asked for all objects.
    listings: usize,
    refuse: Option<String>,
    hold_preparations: bool,
}

/// The fake.
#[derive(Debug)]
pub struct FakeDriver {
    kind: DriverKind,
    world: Mutex<World>,
    hints: broadcast::Sender<Hint>,
    released: tokio::sync::Notify,
    listener: Option<Listener>,
}

/// Told of each preparation, which is the first that a driver hears of an instance, with the moment at which it was asked for.
pub type Listener = mpsc::UnboundedSender<(InstanceId, SystemTime)>;

impl FakeDriver {
    /// An empty one that answers.
    pub fn new(kind: DriverKind) -> Self {
        Self {
            kind,
            world: Mutex::default(),
            hints: broadcast::channel(HINTS).0,
            released: tokio::sync::Notify::new(),
            listener: None,
        }
    }

    /// The same, that tells when it is asked for something.
    pub fn heard_by(kind: DriverKind, listener: Listener) -> Self {
        Self { listener: Some(listener), ..Self::new(kind) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something may have changed.
    pub fn hint(&self) {
        // Nobody may be listening yet.
        let _ = self.hints.send(Hint::Anything);
    }

    /// What it was told to do since the last time: "prepare i-1-0/main", "start …", "stop …", "remove …".
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.world().calls)
    }

    /// All objects.
    pub fn objects(&self) -> Vec<Seen> {
        self.world().objects.values().cloned().collect()
    }

    /// How often it was asked for all objects.
    pub fn listings(&self) -> usize {
        self.world().listings
    }

    /// Puts an object there, as if it had been there before the agent.
    pub fn put(&self, seen: Seen) {
        self.world().objects.insert((seen.mark.instance, seen.mark.task.clone()), seen);
        self.hint();
    }

    /// Lets all tasks of the instance end.
    pub fn end(&self, instance: InstanceId, exit_code: Option<i32>, reason: &str) {
        for seen in self.world().objects.values_mut().filter(|seen| seen.mark.instance == instance) {
            seen.phase = Phase::Ended { exit_code, at: None, reason: reason.to_owned() };
        }
        self.hint();
    }

    /// Answers nothing any more, or again.
    pub fn set_silent(&self, silent: bool) {
        self.world().silent = silent;
        self.hint();
    }

    /// Refuses every start with these words, or no more.
    pub fn set_refusal(&self, reason: Option<&str>) {
        self.world().refuse = reason.map(ToOwned::to_owned);
    }

    /// Lets preparations wait, or go on.
    pub fn hold_preparations(&self, hold: bool) {
        self.world().hold_preparations = hold;
        self.released.notify_waiters();
    }

    fn told(
        &self,
        what: &str,
        instance: InstanceId,
        task: &TaskName,
    ) -> Result<MutexGuard<'_, World>, DriverError> {
        let mut world = self.world();
        if world.silent {
            return Err(self.silence());
        }
        if world.calls.len() < KEPT_CALLS {
            world.calls.push(format!("{what} {instance}/{task}"));
        }
        Ok(world)
    }

    fn silence(&self) -> DriverError {
        DriverError::Silent { runtime: self.kind.as_str(), reason: "made silent".to_owned() }
    }
}

#[async_trait]
impl Driver for FakeDriver {
    fn kind(&self) -> DriverKind {
        self.kind
    }

    async fn probe(&self) -> DriverInfo {
        let silent = self.world().silent;
        DriverInfo {
            version: if silent { String::new() } else { "fake".to_owned() },
            healthy: !silent,
            reason: if silent { "made silent".to_owned() } else { String::new() },
            acceleration: if self.kind == DriverKind::Libvirt { "tcg".to_owned() } else { String::new() },
        }
    }

    async fn list(&self) -> Result<Vec<Seen>, DriverError> {
        let mut world = self.world();
        world.listings += 1;
        if world.silent { Err(self.silence()) } else { Ok(world.objects.values().cloned().collect()) }
    }

    async fn prepare(&self, run: &TaskRun) -> Result<(), DriverError> {
        drop(self.told("prepare", run.mark.instance, &run.mark.task)?);
        if let Some(listener) = &self.listener {
            // Whoever listened may be gone.
            let _ = listener.send((run.mark.instance, SystemTime::now()));
        }
        loop {
            let released = self.released.notified();
            if !self.world().hold_preparations {
                return Ok(());
            }
            released.await;
        }
    }

    async fn start(&self, run: &TaskRun) -> Result<Seen, DriverError> {
        let mut world = self.told("start", run.mark.instance, &run.mark.task)?;
        if let Some(reason) = &world.refuse {
            return Err(DriverError::Refused(reason.clone()));
        }
        let key = (run.mark.instance, run.mark.task.clone());
        let made = Seen {
            mark: run.mark.clone(),
            runtime_id: format!("fake-{}-{}", key.0, key.1),
            phase: Phase::Created,
            cpus: None,
        };
        let seen = world.objects.entry(key).or_insert(made);
        seen.phase = Phase::Running { since: None };
        seen.cpus = run.pin.as_ref().map(|pin| pin.cpus.clone());
        let seen = seen.clone();
        drop(world);
        self.hint();
        Ok(seen)
    }

    async fn stop(&self, seen: &Seen, _grace: Millis) -> Result<(), DriverError> {
        let mut world = self.told("stop", seen.mark.instance, &seen.mark.task)?;
        let key = (seen.mark.instance, seen.mark.task.clone());
        let object = world.objects.get_mut(&key).ok_or(DriverError::Missing)?;
        if matches!(object.phase, Phase::Running { .. }) {
            object.phase =
                Phase::Ended { exit_code: Some(143), at: None, reason: "killed by signal 15".to_owned() };
        }
        drop(world);
        self.hint();
        Ok(())
    }

    async fn pin(&self, seen: &Seen, pin: &Pin) -> Result<(), DriverError> {
        let mut world = self.told("pin", seen.mark.instance, &seen.mark.task)?;
        let key = (seen.mark.instance, seen.mark.task.clone());
        let object = world.objects.get_mut(&key).ok_or(DriverError::Missing)?;
        object.cpus = Some(pin.cpus.clone());
        drop(world);
        self.hint();
        Ok(())
    }

    async fn remove(&self, seen: &Seen) -> Result<(), DriverError> {
        let mut world = self.told("remove", seen.mark.instance, &seen.mark.task)?;
        world.objects.remove(&(seen.mark.instance, seen.mark.task.clone()));
        drop(world);
        self.hint();
        Ok(())
    }

    async fn logs(
        &self,
        seen: &Seen,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<v1::LogsResponse, DriverError>>, DriverError> {
        let line = format!("output of {}/{}\n", seen.mark.instance, seen.mark.task);
        let first = stream::iter([Ok(v1::LogsResponse { data: line.into_bytes(), stderr: false })]);
        Ok(if options.follow { first.chain(stream::pending()).boxed() } else { first.boxed() })
    }

    /// Echoes what it is given and ends with the number of bytes.
    async fn exec(&self, _seen: &Seen, _start: v1::ExecStart) -> Result<ExecIo, DriverError> {
        use v1::{exec_request::Message as In, exec_response::Message as Out};
        let (input, mut received) = mpsc::channel(16);
        let (output, sent) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut count = 0;
            while let Some(message) = received.recv().await {
                match message {
                    In::Stdin(bytes) => {
                        count += i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                        if output.send(Ok(Out::Stdout(bytes))).await.is_err() {
                            return;
                        }
                    }
                    In::StdinEnd(_) => break,
                    In::Start(_) | In::Resize(_) => {}
                }
            }
            // The reader may have gone.
            let _ = output.send(Ok(Out::ExitCode(count))).await;
        });
        Ok(ExecIo { input, output: ReceiverStream::new(sent).boxed() })
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        let hints = BroadcastStream::new(self.hints.subscribe());
        hints.map(|hint| hint.unwrap_or(Hint::Anything)).boxed()
    }
}
