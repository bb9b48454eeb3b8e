//! What the agent knows, and what it decides between two waits: what is wanted, what is seen, the histories, the reports, the lease. It knows
//! no task, no runtime, no disk and no clock: time comes with each call, and what is to be written down and done goes back to the loop
//! (`run`), which writes first and then acts. A simulation runs the very same.
//!
//! Decisions:
//! - *Silent before the first full set.* Until the scheduler has sent all orders once since the agent started, nothing is reported, and
//!   for a short while nothing is begun that never ran here: what the ledger holds may be old. What ran is kept running.
//! - *Everything is said anew in each session*, since its node may have given the host up meanwhile.
//! - *The lease is renewed only by a heartbeat that was answered in a session whose orders are complete*: a renewed lease with old
//!   orders could start what now runs elsewhere.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use supercloud_proto::{
    id::{InstanceId, Millis},
    instance::{Desired, InstanceState},
    order::Order,
    spec::DriverKind,
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::{
    desired::{OrderSet, Orders},
    driver::{DriverError, Owner, Seen, TaskRun},
    executor::{Event, StartError},
    ledger::{Batch, Contents, LeaseRecord},
    observed::{Observed, View},
    reconcile::{Action, Doing, Histories, Input, Lease, Now, Plan, Status, reconcile},
    reports::Book,
};

mod link;

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

/// This moment, by the clocks that are told and by the one that waits are counted with.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For what is told, and for leases.
    pub now: Now,
    /// For waits.
    pub at: Instant,
}

/// A listing that came back.
#[derive(Debug)]
pub struct Listed {
    /// Whose.
    pub kind: DriverKind,
    /// Its number.
    pub number: u64,
    /// What it shows.
    pub result: Result<Vec<Seen>, DriverError>,
}

/// What is to be done now, in this order: written down, begun, broken off.
#[derive(Debug, Default)]
pub struct Decision {
    /// To write down first.
    pub batch: Batch,
    /// To begin.
    pub actions: Vec<Action>,
    /// To break off.
    pub cancels: Vec<InstanceId>,
}

/// After an action: what must be seen first, and until when it is not to be tried again.
#[derive(Debug)]
struct Settling {
    listings: BTreeMap<DriverKind, u64>,
    not_before: Option<Instant>,
}

/// See the head of the module.
#[derive(Debug)]
pub struct Keeper {
    owner: Owner,
    boot_id: String,
    kinds: Vec<DriverKind>,
    cpus: Vec<u16>,
    orders: Orders,
    histories: Histories,
    observed: Observed,
    in_flight: BTreeMap<InstanceId, Doing>,
    settling: BTreeMap<InstanceId, Settling>,
    /// Until when those are left where they are that could not be moved to their processors. Everything else about them goes on.
    unmoved: BTreeMap<InstanceId, Instant>,
    book: Book,
    link: Option<Link>,
    lease: Lease,
    lease_length: Millis,
    /// Boot time at which this agent started.
    started: Millis,
    /// A full set of orders has come since this agent started.
    synced: bool,
    wake: Option<Instant>,
    /// A driver fell silent or answers again, or may have: its state is to be probed.
    doubts: bool,
}

impl Keeper {
    /// From a ledger's contents, on a host with these drivers, in this boot.
    #[must_use]
    pub fn new(
        owner: Owner,
        boot_id: String,
        kinds: Vec<DriverKind>,
        contents: Contents,
        moment: Moment,
    ) -> Self {
        let Moment { now, at } = moment;
        let known = contents.lease.filter(|lease| lease.boot_id == boot_id);
        let lease_length = known.as_ref().map_or(ASSUMED_LEASE, |lease| lease.length);
        let lease = match known {
            Some(lease) => Lease { until: lease.until, confirmed: true },
            None => Lease { until: now.boot.saturating_add(ASSUMED_LEASE), confirmed: false },
        };
        info!(
            orders = contents.orders.len(),
            unconfirmed_reports = contents.reports.len(),
            synced_at = contents.synced,
            "ledger read"
        );
        Self {
            observed: Observed::new(kinds.iter().copied(), now.boot, at),
            owner,
            boot_id,
            kinds,
            cpus: Vec::new(),
            orders: Orders::new(contents.orders, contents.fences, contents.synced),
            histories: contents.histories,
            in_flight: BTreeMap::new(),
            settling: BTreeMap::new(),
            unmoved: BTreeMap::new(),
            book: Book::new(contents.reports, contents.sequence, now.unix),
            link: None,
            lease,
            lease_length,
            started: now.boot,
            synced: false,
            wake: None,
            doubts: false,
        }
    }

    /// The same on a host with these processors, which come ascending.
    #[must_use]
    pub fn with_cpus(self, cpus: Vec<u16>) -> Self {
        Self { cpus, ..self }
    }

    /// Drops histories whose order is gone: the agent ended between the two. Once, at the start.
    pub fn prune(&mut self) -> Batch {
        let mut batch = Batch::default();
        let orphans: Vec<_> =
            self.histories.keys().filter(|id| !self.orders.all().contains_key(id)).copied().collect();
        for id in orphans {
            self.drop_histories(id, &mut batch);
        }
        batch
    }

    fn drop_histories(&mut self, instance: InstanceId, batch: &mut Batch) {
        for task in self.histories.remove(&instance).unwrap_or_default().into_keys() {
            batch.drop_history(instance, &task);
        }
    }

    /// Drivers that are to be listed now, each with the number of the listing.
    pub fn begin_listings(&mut self, at: Instant) -> Vec<(DriverKind, u64)> {
        self.observed.begin_due(at)
    }

    /// Something may have changed at a driver.
    pub fn hint(&mut self, kind: DriverKind, at: Instant) {
        self.observed.hint(kind, at);
    }

    /// A listing came back.
    pub fn on_listing(&mut self, listed: Listed, moment: Moment) {
        let was_complete = self.observed.is_complete();
        if let Err(error) = &listed.result {
            debug!(driver = listed.kind.as_str(), %error, "listing failed");
        }
        let Moment { now, at } = moment;
        let fell_silent = self.observed.ended(listed.kind, listed.number, listed.result, now.boot, at);
        if fell_silent {
            warn!(
                driver = listed.kind.as_str(),
                "the driver does not answer; nothing is concluded from that"
            );
        }
        self.doubts |= fell_silent || was_complete != self.observed.is_complete();
    }

    /// Whether the drivers' state is to be probed; asked once.
    pub fn take_doubts(&mut self) -> bool {
        std::mem::take(&mut self.doubts)
    }

    /// What is there, by instance.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.observed.view()
    }

    /// Decides. After it everything in the decision counts as under way.
    pub fn decide(&mut self, moment: Moment) -> Decision {
        let Moment { now, at } = moment;
        self.release_settled(at);
        let mut plan = reconcile(&Input {
            owner: &self.owner,
            orders: self.orders.all(),
            sights: self.observed.sights(),
            histories: &self.histories,
            in_flight: &self.in_flight,
            lease: self.lease,
            cpus: &self.cpus,
            may_begin: self.may_begin(now.boot),
            now,
        });
        self.unmoved.retain(|_, until| *until > at);
        plan.actions.retain(|action| {
            action.doing() != Doing::Pinning || !self.unmoved.contains_key(&action.instance())
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
        for action in &plan.actions {
            info!(instance = %action.instance(), doing = ?action.doing(), "acting");
            self.in_flight.insert(action.instance(), action.doing());
        }
        self.wake = plan.wake_in.map(|wait| at + Duration::from_millis(wait));
        Decision { batch, actions: plan.actions, cancels: plan.cancels }
    }

    /// Sends what is to be reported. After what was decided is written down.
    pub fn report(&mut self, at: Instant) {
        if let Some(link) = &mut self.link {
            link.report(&self.book, at);
        }
    }

    fn may_begin(&self, boot: Millis) -> bool {
        self.synced || boot >= self.started.saturating_add(BEGIN_PATIENCE)
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

    fn release_settled(&mut self, at: Instant) {
        let (observed, in_flight) = (&self.observed, &mut self.in_flight);
        self.settling.retain(|id, settling| {
            let waits = settling.not_before.is_some_and(|not_before| not_before > at)
                || !observed.have_ended(&settling.listings);
            if !waits {
                in_flight.remove(id);
            }
            waits
        });
    }

    /// The instance's action is over; nothing is decided about it before it has been looked at again.
    fn settle(&mut self, instance: InstanceId, not_before: Option<Instant>, at: Instant) {
        self.in_flight.insert(instance, Doing::Settling);
        let mut listings = self.observed.next_numbers();
        if let Some(order) = self.orders.all().get(&instance).filter(|order| !order.tasks.is_empty()) {
            // A VM does not wait for a Docker that hangs.
            listings.retain(|kind, _| order.tasks.iter().any(|task| task.driver.kind() == *kind));
        }
        self.settling.insert(instance, Settling { listings, not_before });
        for kind in &self.kinds {
            self.observed.look_now(*kind, at);
        }
    }

    /// Something became of an action. Gives what is to be written down.
    pub fn on_event(&mut self, event: Event, moment: Moment) -> Batch {
        match event {
            Event::Prepared { instance } => {
                self.in_flight.insert(instance, Doing::Starting);
                Batch::default()
            }
            Event::Started { run, counted, result } => self.on_started(&run, counted, result, moment),
            Event::Cleared { instance, result } => {
                let mut retry = result.err().map(|error| {
                    warn!(%instance, %error, "could not be stopped, removed or moved to its processors; will be tried again");
                    moment.at + RETRY_AFTER
                });
                if self.in_flight.get(&instance) == Some(&Doing::Pinning) {
                    self.unmoved.extend(retry.take().map(|until| (instance, until)));
                }
                self.settle(instance, retry, moment.at);
                Batch::default()
            }
        }
    }

    fn on_started(
        &mut self,
        run: &TaskRun,
        counted: bool,
        result: Result<Seen, StartError>,
        moment: Moment,
    ) -> Batch {
        let (instance, task) = (run.mark.instance, &run.mark.task);
        let Moment { now, at } = moment;
        let mut history =
            self.histories.get(&instance).and_then(|tasks| tasks.get(task)).cloned().unwrap_or_default();
        match result {
            Ok(seen) => {
                info!(%instance, %task, runtime_id = seen.runtime_id, "started");
                history.started(now.unix, counted);
                let kind = run.order.tasks.get(run.task).map(|task| task.driver.kind());
                if kind.is_some_and(|kind| self.observed.put(kind, seen)) {
                    self.in_flight.remove(&instance);
                } else {
                    self.settle(instance, None, at);
                }
            }
            Err(StartError::Cancelled) => {
                info!(%instance, %task, "broken off while it was made ready");
                self.settle(instance, None, at);
                return Batch::default();
            }
            Err(StartError::Driver(DriverError::Refused(reason))) => {
                warn!(%instance, %task, reason, "refused");
                history.refused(now.unix, counted, &reason);
                self.settle(instance, None, at);
            }
            Err(StartError::Driver(error @ (DriverError::Silent { .. } | DriverError::Missing))) => {
                warn!(%instance, %task, %error, "not known to have started; looking again");
                self.doubts = true;
                self.settle(instance, Some(at + RETRY_AFTER), at);
                return Batch::default();
            }
        }
        let mut batch = Batch::default();
        if self.orders.all().contains_key(&instance) {
            batch.history(instance, task, &history);
            self.histories.entry(instance).or_default().insert(task.clone(), history);
        }
        batch
    }

    /// The session says something. Gives what is to be written down before anything is done about it.
    pub fn on_session(&mut self, message: FromSession) -> Batch {
        match message {
            FromSession::Opened { lease, up } => {
                self.lease_length = lease;
                self.orders.session_ended();
                self.link = Some(Link::new(up));
                Batch::default()
            }
            FromSession::Orders(set) => self.on_orders(set),
            FromSession::Heard { sent } => {
                let mut batch = Batch::default();
                if self.link.as_mut().is_some_and(|link| link.heard(sent)) {
                    self.renew_lease(sent, &mut batch);
                }
                batch
            }
            FromSession::Confirmed { sequence } => self.on_confirmed(sequence),
            FromSession::Closed => {
                self.orders.session_ended();
                self.link = None;
                Batch::default()
            }
        }
    }

    fn on_orders(&mut self, set: OrderSet) -> Batch {
        let mut batch = Batch::default();
        let had_exclusive = self.orders.has_exclusive();
        let taken = self.orders.take(set, &mut batch);
        for (id, index, fence) in taken.refused {
            warn!(instance = %id, index, fence, "an order is older than what is known; refused");
        }
        for id in taken.dropped {
            info!(instance = %id, "the scheduler does not know it any more; left alone");
            self.drop_histories(id, &mut batch);
        }
        if self.orders.has_exclusive() && !had_exclusive && self.lease.confirmed {
            batch.lease(&self.lease_record());
        }
        if taken.synced {
            info!(orders = self.orders.all().len(), "all orders are in");
            self.synced = true;
            self.book.restate();
            if let Some(sent) = self.link.as_mut().and_then(Link::synced) {
                self.renew_lease(sent, &mut batch);
            }
        }
        batch
    }

    fn renew_lease(&mut self, sent: Millis, batch: &mut Batch) {
        self.lease = self.lease.renewed(sent, self.lease_length);
        if self.orders.has_exclusive() {
            batch.lease(&self.lease_record());
        }
    }

    fn lease_record(&self) -> LeaseRecord {
        LeaseRecord { boot_id: self.boot_id.clone(), until: self.lease.until, length: self.lease_length }
    }

    /// What is stopped, and known to be by the scheduler, is forgotten.
    fn on_confirmed(&mut self, sequence: u64) -> Batch {
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
        batch
    }

    /// When to look again if nothing else happens.
    #[must_use]
    pub fn next_wake(&self, moment: Moment) -> Instant {
        let Moment { now, at } = moment;
        let mut wake = at + LONGEST_SLEEP;
        let mut by = |when: Option<Instant>| wake = when.map_or(wake, |when| wake.min(when));
        by(self.observed.next_due());
        by(self.wake);
        by(self.settling.values().filter_map(|settling| settling.not_before).min());
        by(self.unmoved.values().min().copied());
        by(self.link.as_ref().and_then(|link| link.next_report(&self.book, at)));
        by(self.orders.has_exclusive().then(|| at + LEASE_LOOK));
        if !self.synced {
            let left = self.started.saturating_add(BEGIN_PATIENCE).saturating_sub(now.boot);
            by((left > 0).then(|| at + Duration::from_millis(left)));
        }
        wake
    }
}
