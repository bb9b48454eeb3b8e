//! The agent's loop: one task that owns what is wanted, what is seen, the histories, the reports and the ledger. It reads the clock,
//! asks `reconcile` what to do, writes that down, and has it done. It is woken by hints, listings, results, the session and timers; at
//! rest it does nothing.
//!
//! Decisions:
//! - *Written down, then done*: an order is in the ledger before it is acted on, a history before its action begins.
//! - *Silent before the first full set.* Until the scheduler has sent all orders once since the agent started, nothing is reported, and
//!   for a short while nothing is begun that never ran here: what the ledger holds may be old. What ran is kept running.
//! - *Everything is said anew in each session*, since its node may have given the host up meanwhile.
//! - *The lease is renewed only by a heartbeat that was answered in a session whose orders are complete*: a renewed lease with old
//!   orders could start what now runs elsewhere.

use std::{collections::BTreeMap, future::Future, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use supercloud_proto::{
    id::{InstanceId, Millis},
    instance::{Desired, InstanceState},
    order::Order,
    spec::DriverKind,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::{debug, error, info, warn};

use crate::{
    clock::Clock,
    desired::{OrderSet, Orders},
    driver::{DriverError, Owner, Seen},
    executor::{Drivers, Event, Executor, StartError},
    ledger::{Batch, LeaseRecord, Ledger, Opened, WriteError},
    observed::{Observed, View},
    reconcile::{Action, Doing, Histories, Input, Lease, Plan, Status, reconcile},
    reports::Book,
};

mod link;
#[cfg(test)]
mod tests;

pub use link::{FromSession, Link};

/// A lease's length until a scheduler has told it, in milliseconds. An agent that lost its ledger does not know how much of its lease is left; no
/// more than the scheduler's usual margin, then.
pub const ASSUMED_LEASE: Millis = 10_000;
/// How long an agent that just started waits for the scheduler before it begins what never ran here, in milliseconds.
pub const BEGIN_PATIENCE: Millis = 15_000;
/// An action that came to nothing is tried again after this long.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
/// While exclusive instances are wanted the loop looks at the lease this often: a timer stands still while the machine sleeps.
pub const LEASE_LOOK: Duration = Duration::from_secs(1);
/// Longest sleep of the loop.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Hints that may wait; more mean the same.
const HINTS: usize = 64;

/// What the loop is made of.
pub struct Setup {
    /// Whose agent it is.
    pub owner: Owner,
    /// The drivers of this host.
    pub drivers: Arc<Drivers>,
    /// The ledger.
    pub opened: Opened,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// This boot.
    pub boot_id: String,
    /// Told when a driver falls silent or answers again, so that its state is probed at once.
    pub probe: Arc<Notify>,
    /// From the session.
    pub session: mpsc::Receiver<FromSession>,
    /// Where what is seen is shown to others.
    pub view: watch::Sender<Arc<View>>,
}

/// After an action: what must be seen first, and until when it is not to be tried again.
struct Settling {
    listings: BTreeMap<DriverKind, u64>,
    not_before: Option<Instant>,
}

/// The loop's state.
struct Agent {
    owner: Owner,
    drivers: Arc<Drivers>,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    boot_id: String,
    probe: Arc<Notify>,
    view: watch::Sender<Arc<View>>,
    executor: Executor,
    listed: mpsc::Sender<Listed>,
    orders: Orders,
    histories: Histories,
    observed: Observed,
    in_flight: BTreeMap<InstanceId, Doing>,
    settling: BTreeMap<InstanceId, Settling>,
    book: Book,
    link: Option<Link>,
    lease: Lease,
    lease_length: Millis,
    /// Boot time at which this agent started.
    started: Millis,
    /// A full set of orders has come since this agent started.
    synced: bool,
    wake: Option<Instant>,
}

/// A listing that came back.
struct Listed {
    kind: DriverKind,
    number: u64,
    result: Result<Vec<Seen>, DriverError>,
}

/// Runs until `end` is ready, or the ledger fails. Workloads run on either way.
pub async fn run(setup: Setup, end: impl Future<Output = ()>) -> Result<(), WriteError> {
    let (hint_sender, mut hints) = mpsc::channel(HINTS);
    let (listed, mut listings) = mpsc::channel(setup.drivers.len().max(1));
    let watchers: Vec<_> =
        setup.drivers.iter().map(|(kind, driver)| (*kind, driver.hints(), hint_sender.clone())).collect();
    let (mut agent, mut events, mut session) = Agent::new(setup, listed);
    let mut tasks = tokio::task::JoinSet::new();
    for (kind, mut stream, sender) in watchers {
        tasks.spawn(async move {
            while let Some(hint) = stream.next().await {
                debug!(driver = kind.as_str(), ?hint, "hint");
                // A full queue means that the loop will look anyway.
                if matches!(sender.try_send(kind), Err(mpsc::error::TrySendError::Closed(_))) {
                    return;
                }
            }
        });
    }
    agent.prune().await?;
    let mut end = pin!(end);
    loop {
        agent.begin_listings();
        agent.decide().await?;
        let wake = agent.next_wake();
        tokio::select! {
            () = &mut end => break,
            Some(kind) = hints.recv() => agent.observed.hint(kind, Instant::now()),
            Some(listed) = listings.recv() => agent.on_listing(listed),
            Some(event) = events.recv() => agent.on_event(event).await?,
            Some(message) = session.recv() => agent.on_session(message).await?,
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    info!("ending; what runs goes on running");
    let ledger = agent.ledger;
    if tokio::task::spawn_blocking(move || ledger.close()).await.is_err() {
        error!("the ledger did not close cleanly");
    }
    Ok(())
}

impl Agent {
    fn new(
        setup: Setup,
        listed: mpsc::Sender<Listed>,
    ) -> (Self, mpsc::Receiver<Event>, mpsc::Receiver<FromSession>) {
        let now = setup.clock.now();
        let contents = setup.opened.contents;
        for alarm in &setup.opened.alarms {
            error!(alarm = true, "{alarm}");
        }
        let known = contents.lease.filter(|lease| lease.boot_id == setup.boot_id);
        let lease_length = known.as_ref().map_or(ASSUMED_LEASE, |lease| lease.length);
        let lease = match known {
            Some(lease) => Lease { until: lease.until, confirmed: true },
            None => Lease { until: now.boot.saturating_add(ASSUMED_LEASE), confirmed: false },
        };
        let (executor, events) = Executor::new(Arc::clone(&setup.drivers));
        info!(
            orders = contents.orders.len(),
            unconfirmed_reports = contents.reports.len(),
            synced_at = contents.synced,
            "ledger read"
        );
        let agent = Self {
            observed: Observed::new(setup.drivers.keys().copied(), now.boot, Instant::now()),
            owner: setup.owner,
            drivers: setup.drivers,
            ledger: setup.opened.ledger,
            clock: setup.clock,
            boot_id: setup.boot_id,
            probe: setup.probe,
            view: setup.view,
            executor,
            listed,
            orders: Orders::new(contents.orders, contents.fences),
            histories: contents.histories,
            in_flight: BTreeMap::new(),
            settling: BTreeMap::new(),
            book: Book::new(contents.reports, contents.sequence, now.unix),
            link: None,
            lease,
            lease_length,
            started: now.boot,
            synced: false,
            wake: None,
        };
        (agent, events, setup.session)
    }

    /// Drops histories whose order is gone: the agent ended between the two.
    async fn prune(&mut self) -> Result<(), WriteError> {
        let mut batch = Batch::default();
        let orphans: Vec<_> =
            self.histories.keys().filter(|id| !self.orders.all().contains_key(id)).copied().collect();
        for id in orphans {
            self.drop_histories(id, &mut batch);
        }
        self.ledger.write(batch).await
    }

    fn drop_histories(&mut self, instance: InstanceId, batch: &mut Batch) {
        for task in self.histories.remove(&instance).unwrap_or_default().into_keys() {
            batch.drop_history(instance, &task);
        }
    }

    fn begin_listings(&mut self) {
        for (kind, number) in self.observed.begin_due(Instant::now()) {
            let Some(driver) = self.drivers.get(&kind).map(Arc::clone) else { continue };
            let listed = self.listed.clone();
            tokio::spawn(async move {
                let result = tokio::spawn(async move { driver.list().await }).await;
                let broke = |_| {
                    let reason = "its driver broke down".to_owned();
                    Err(DriverError::Silent { runtime: kind.as_str(), reason })
                };
                // The loop is gone when the agent ends.
                let _ = listed.send(Listed { kind, number, result: result.unwrap_or_else(broke) }).await;
            });
        }
    }

    fn on_listing(&mut self, listed: Listed) {
        let was_complete = self.observed.is_complete();
        if let Err(error) = &listed.result {
            debug!(driver = listed.kind.as_str(), %error, "listing failed");
        }
        let now = self.clock.now();
        let fell_silent =
            self.observed.ended(listed.kind, listed.number, listed.result, now.boot, Instant::now());
        if fell_silent {
            warn!(
                driver = listed.kind.as_str(),
                "the driver does not answer; nothing is concluded from that"
            );
        }
        if fell_silent || was_complete != self.observed.is_complete() {
            self.probe.notify_one();
        }
        self.show();
    }

    fn show(&self) {
        let view = self.observed.view();
        self.view.send_if_modified(|shown| {
            let changed = **shown != *view;
            *shown = view;
            changed
        });
    }

    /// Decides, writes down, begins, reports.
    async fn decide(&mut self) -> Result<(), WriteError> {
        self.release_settled();
        let now = self.clock.now();
        let mut plan = reconcile(&Input {
            owner: &self.owner,
            orders: self.orders.all(),
            sights: self.observed.sights(),
            histories: &self.histories,
            in_flight: &self.in_flight,
            lease: self.lease,
            may_begin: self.may_begin(now.boot),
            now,
        });
        let mut batch = Batch::default();
        for (id, task, history) in plan.histories.drain(..) {
            batch.history(id, &task, &history);
            self.histories.entry(id).or_default().insert(task, history);
        }
        if self.synced {
            self.add_strange(&mut plan);
            let states = std::mem::take(&mut plan.states);
            self.book.update(states, self.observed.is_complete(), now.unix, &mut batch);
        }
        self.ledger.write(batch).await?;
        for action in plan.actions {
            self.begin(action);
        }
        for id in plan.cancels {
            self.executor.cancel(id);
        }
        if let Some(link) = &mut self.link {
            link.report(&self.book, Instant::now());
        }
        self.wake = plan.wake_in.map(|wait| Instant::now() + Duration::from_millis(wait));
        Ok(())
    }

    fn may_begin(&self, boot: Millis) -> bool {
        self.synced || boot >= self.started.saturating_add(BEGIN_PATIENCE)
    }

    fn begin(&mut self, action: Action) {
        info!(instance = %action.instance(), doing = ?action.doing(), "acting");
        self.in_flight.insert(action.instance(), action.doing());
        self.executor.begin(action);
    }

    /// An order that cannot be understood is answered, not passed over.
    fn add_strange(&self, plan: &mut Plan) {
        for (id, (index, problems)) in self.orders.strange() {
            if !self.orders.all().contains_key(id) {
                plan.states.entry(*id).or_insert_with(|| Status {
                    order_index: *index,
                    state: InstanceState::Failed,
                    reason: crate::reconcile::history::shortened(&format!(
                        "this host's agent does not understand the order: {problems}"
                    )),
                    tasks: Vec::new(),
                    unordered: false,
                });
            }
        }
    }

    fn release_settled(&mut self) {
        let now = Instant::now();
        let (observed, in_flight) = (&self.observed, &mut self.in_flight);
        self.settling.retain(|id, settling| {
            let waits =
                settling.not_before.is_some_and(|at| at > now) || !observed.have_ended(&settling.listings);
            if !waits {
                in_flight.remove(id);
            }
            waits
        });
    }

    /// The instance's action is over; nothing is decided about it before it has been looked at again.
    fn settle(&mut self, instance: InstanceId, not_before: Option<Instant>) {
        let now = Instant::now();
        self.in_flight.insert(instance, Doing::Settling);
        let mut listings = self.observed.next_numbers();
        if let Some(order) = self.orders.all().get(&instance).filter(|order| !order.tasks.is_empty()) {
            // A VM does not wait for a Docker that hangs.
            listings.retain(|kind, _| order.tasks.iter().any(|task| task.driver.kind() == *kind));
        }
        self.settling.insert(instance, Settling { listings, not_before });
        for kind in self.drivers.keys() {
            self.observed.look_now(*kind, now);
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), WriteError> {
        match event {
            Event::Prepared { instance } => {
                self.in_flight.insert(instance, Doing::Starting);
                Ok(())
            }
            Event::Started { run, counted, result } => self.on_started(&run, counted, result).await,
            Event::Cleared { instance, result } => {
                let retry = result.err().map(|error| {
                    warn!(%instance, %error, "could not be stopped or removed; will be tried again");
                    Instant::now() + RETRY_AFTER
                });
                self.settle(instance, retry);
                Ok(())
            }
        }
    }

    async fn on_started(
        &mut self,
        run: &crate::driver::TaskRun,
        counted: bool,
        result: Result<Seen, StartError>,
    ) -> Result<(), WriteError> {
        let (instance, task) = (run.mark.instance, &run.mark.task);
        let now = self.clock.now();
        let mut history =
            self.histories.get(&instance).and_then(|tasks| tasks.get(task)).cloned().unwrap_or_default();
        match result {
            Ok(seen) => {
                info!(%instance, %task, runtime_id = seen.runtime_id, "started");
                history.started(now.unix, counted);
                let kind = run.order.tasks.get(run.task).map(|task| task.driver.kind());
                if kind.is_some_and(|kind| self.observed.put(kind, seen)) {
                    self.in_flight.remove(&instance);
                    self.show();
                } else {
                    self.settle(instance, None);
                }
            }
            Err(StartError::Cancelled) => {
                info!(%instance, %task, "broken off while it was made ready");
                self.settle(instance, None);
                return Ok(());
            }
            Err(StartError::Driver(DriverError::Refused(reason))) => {
                warn!(%instance, %task, reason, "refused");
                history.refused(now.unix, counted, &reason);
                self.settle(instance, None);
            }
            Err(StartError::Driver(error @ (DriverError::Silent { .. } | DriverError::Missing))) => {
                warn!(%instance, %task, %error, "not known to have started; looking again");
                self.probe.notify_one();
                self.settle(instance, Some(Instant::now() + RETRY_AFTER));
                return Ok(());
            }
        }
        if !self.orders.all().contains_key(&instance) {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.history(instance, task, &history);
        self.histories.entry(instance).or_default().insert(task.clone(), history);
        self.ledger.write(batch).await
    }

    async fn on_session(&mut self, message: FromSession) -> Result<(), WriteError> {
        match message {
            FromSession::Opened { lease, up } => {
                self.lease_length = lease;
                self.orders.session_ended();
                self.link = Some(Link::new(up));
                Ok(())
            }
            FromSession::Orders(set) => self.on_orders(set).await,
            FromSession::Heard { sent } => {
                let renewed = self.link.as_mut().is_some_and(|link| link.heard(sent));
                if renewed { self.renew_lease(sent).await } else { Ok(()) }
            }
            FromSession::Confirmed { sequence } => self.on_confirmed(sequence).await,
            FromSession::Closed => {
                self.orders.session_ended();
                self.link = None;
                Ok(())
            }
        }
    }

    async fn on_orders(&mut self, set: OrderSet) -> Result<(), WriteError> {
        let mut batch = Batch::default();
        let had_exclusive = self.orders.has_exclusive();
        let taken = self.orders.take(set, &mut batch);
        for (id, index, fence) in taken.refused {
            warn!(instance = %id, index, fence, "an order is older than one that was accepted before; refused");
        }
        for id in taken.dropped {
            info!(instance = %id, "the scheduler does not know it any more; left alone");
            self.drop_histories(id, &mut batch);
        }
        if self.orders.has_exclusive() && !had_exclusive && self.lease.confirmed {
            batch.lease(&self.lease_record());
        }
        self.ledger.write(batch).await?;
        if taken.synced {
            info!(orders = self.orders.all().len(), "all orders are in");
            self.synced = true;
            self.book.restate();
            if let Some(sent) = self.link.as_mut().and_then(Link::synced) {
                self.renew_lease(sent).await?;
            }
        }
        Ok(())
    }

    async fn renew_lease(&mut self, sent: Millis) -> Result<(), WriteError> {
        self.lease = self.lease.renewed(sent, self.lease_length);
        let mut batch = Batch::default();
        if self.orders.has_exclusive() {
            batch.lease(&self.lease_record());
        }
        self.ledger.write(batch).await
    }

    fn lease_record(&self) -> LeaseRecord {
        LeaseRecord { boot_id: self.boot_id.clone(), until: self.lease.until, length: self.lease_length }
    }

    /// What is stopped, and known to be by the scheduler, is forgotten.
    async fn on_confirmed(&mut self, sequence: u64) -> Result<(), WriteError> {
        let mut batch = Batch::default();
        for report in self.book.confirm(sequence, &mut batch) {
            let id = report.instance;
            let is_stopped =
                |order: &Order| order.desired == Desired::Stop && report.order_index >= order.index;
            if report.state == InstanceState::Stopped
                && !report.unordered
                && self.orders.all().get(&id).is_some_and(|order| is_stopped(order))
            {
                self.orders.forget(id, &mut batch);
                self.drop_histories(id, &mut batch);
                self.book.forget(id);
            }
        }
        self.ledger.write(batch).await
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + LONGEST_SLEEP;
        let mut by = |at: Option<Instant>| wake = at.map_or(wake, |at| wake.min(at));
        by(self.observed.next_due());
        by(self.wake);
        by(self.settling.values().filter_map(|settling| settling.not_before).min());
        by(self.link.as_ref().and_then(|link| link.next_report(&self.book)));
        by(self.orders.has_exclusive().then(|| now + LEASE_LOOK));
        if !self.synced {
            let boot = self.clock.now().boot;
            let left = self.started.saturating_add(BEGIN_PATIENCE).saturating_sub(boot);
            by((left > 0).then(|| now + Duration::from_millis(left)));
        }
        wake
    }
}
