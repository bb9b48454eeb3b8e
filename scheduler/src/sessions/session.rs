//! One agent's session, from its hello to its end: a loop over what the agent says, what changed for it, and what became of what was proposed for
//! it. Knows no other session.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use supercloud_proto::{
    host::{Inventory, drivers_from_wire},
    id::{HostId, LogIndex},
    instance::InstanceReport,
    v1::{self, agent_message::Message as Up, scheduler_message::Message as Down},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Status, Streaming};

use super::{
    Sessions,
    hello::{self, Admitted, Refusal},
    outbox::{Outbox, SendError},
    reporting::Reporting,
};
use crate::{
    api::caller::Caller,
    core::{Core, ProposeError},
    heartbeats::Beat,
    state::{Command, HostReports, Outcome, Rejection, level},
};

/// Time in which an agent says hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Time without a word after which a session ends: six heartbeats. HTTP/2's own probes notice a dead machine sooner; this is for an agent
/// that hangs.
const SILENCE: Duration = Duration::from_secs(30);
/// Reports that wait for the one command under way; more means that an agent repeats itself without end.
const MAX_WAITING_REPORTS: usize = 20_000;
/// Most reports of one command: some hundred KiB, far below the log's largest entry.
const MAX_REPORTS: usize = 500;
/// First wait before a proposal is tried again; doubles up to `LAST_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest such wait.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("refused: {}", .0.reason)]
    Refused(Refusal),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the agent has ended the session")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(Status),
    #[error("nothing was heard of the agent for {} s", SILENCE.as_secs())]
    Silent,
    #[error("a newer session of the same agent took its place")]
    Replaced,
    #[error("this node is shutting down")]
    ShuttingDown,
    #[error("the host was removed")]
    Removed,
}

/// Opens a session: what the agent receives.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` when there are too many.
pub(crate) fn serve(
    sessions: &Sessions,
    caller: Caller,
    incoming: Streaming<v1::AgentMessage>,
) -> Result<mpsc::Receiver<Result<v1::SchedulerMessage, Status>>, Status> {
    let permit = sessions.shared.places.clone().try_acquire_owned();
    let permit = permit.map_err(|_| crate::api::refusals::too_many("agents", super::MAX_SESSIONS))?;
    let (queue, outgoing) = mpsc::channel(super::outbox::DEPTH);
    let sessions = sessions.clone();
    tokio::spawn(async move {
        let _held = permit;
        let outbox = Outbox::new(queue);
        let Err(end) = converse(&sessions, &caller, incoming, &outbox).await;
        if let End::Refused(Refusal { reason, permanent }) = &end {
            let refused = v1::Refused { reason: reason.clone(), permanent: *permanent };
            // Whoever is refused may be gone already.
            let _ = outbox.send(Down::Refused(refused)).await;
        }
        tracing::info!(by = caller.by(), %end, "a session of an agent ended");
    });
    Ok(outgoing)
}

async fn converse(
    sessions: &Sessions,
    caller: &Caller,
    mut incoming: Streaming<v1::AgentMessage>,
    outbox: &Outbox,
) -> Result<std::convert::Infallible, End> {
    let first = timeout(HELLO_DEADLINE, incoming.message()).await.map_err(|_| End::Silent)?;
    let first = first.map_err(End::Broken)?.ok_or(End::Closed)?;
    let Some(Up::Hello(hello)) = first.message else {
        return Err(End::Refused(Refusal::permanent("the first message must be a hello")));
    };
    let greeted = hello::greet(hello, caller, sessions.core().cluster()).map_err(End::Refused)?;
    let (by, incarnation) = (format!("agent:{}", greeted.host), greeted.incarnation.clone());
    let admitted = hello::admit(sessions, greeted, &by).await.map_err(End::Refused)?;
    let Admitted { place, host, state, withheld } = admitted;
    outbox.send(Down::Welcome(hello::welcome(sessions.core(), host))).await?;
    let sent = state.applied();
    outbox.send_orders(state.orders_of(host, 0), sent, true).await?;
    drop(state);
    tracing::info!(%by, %host, "an agent has a session");
    let core = sessions.core().clone();
    let reporting = sessions.shared.reporting.clone();
    let work = Work { withheld, ..Work::default() };
    let session = Session { core, reporting, outbox, by, incarnation, host, sent, work };
    session.run(place, incoming, sessions.shared.ending.clone()).await
}

/// What is under way for a session.
#[derive(Default)]
struct Work {
    reports: VecDeque<InstanceReport>,
    /// The command with reports that is under way, and their highest sequence.
    reporting: Option<(u64, BoxFuture<'static, Result<Outcome, ProposeError>>)>,
    /// The heartbeat that the leader has not answered yet.
    heartbeat: Option<BoxFuture<'static, Option<u64>>>,
    /// The latest one that came meanwhile; those in between need no answer.
    next_heartbeat: Option<Beat>,
    registering: Option<BoxFuture<'static, Result<Outcome, ProposeError>>>,
    /// What the host is, where that is more than older members know.
    withheld: Option<Inventory>,
}

struct Session<'o> {
    core: Core,
    reporting: Reporting,
    outbox: &'o Outbox,
    by: String,
    incarnation: String,
    host: HostId,
    /// Orders up to this index were sent.
    sent: LogIndex,
    work: Work,
}

impl Session<'_> {
    async fn run(
        mut self,
        mut place: super::Place,
        mut incoming: Streaming<v1::AgentMessage>,
        mut ending: tokio::sync::watch::Receiver<bool>,
    ) -> Result<std::convert::Infallible, End> {
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = incoming.message() => {
                    let message = message.map_err(End::Broken)?.ok_or(End::Closed)?;
                    heard = Instant::now();
                    place.heard();
                    self.take(message)?;
                }
                () = place.wake.notified() => self.send_changed().await?,
                Some(open) = place.asked.recv() => self.outbox.send(Down::OpenStream(open)).await?,
                (sequence, outcome) = reported(&mut self.work.reporting) => self.reported(sequence, outcome).await?,
                answered = done(&mut self.work.heartbeat) => self.heartbeat_answered(answered).await?,
                outcome = done(&mut self.work.registering) => self.registered(outcome),
                // The sender is dropped when a newer session takes the place.
                _ = place.end.changed() => return Err(End::Replaced),
                () = super::ended(&mut ending) => return Err(End::ShuttingDown),
                () = sleep_until(heard + SILENCE) => return Err(End::Silent),
            }
        }
    }

    fn take(&mut self, message: v1::AgentMessage) -> Result<(), End> {
        match message.message {
            Some(Up::Heartbeat(heartbeat)) => self.take_heartbeat(heartbeat),
            Some(Up::Reports(reports)) => return self.take_reports(reports),
            Some(Up::Inventory(inventory)) => self.take_inventory(inventory),
            Some(Up::Hello(_)) => return Err(End::Refused(Refusal::permanent("a second hello"))),
            // A newer agent's word; this version has nothing to do for it.
            None => tracing::debug!(by = self.by, "an unknown message of an agent is passed over"),
        }
        Ok(())
    }

    fn take_heartbeat(&mut self, heartbeat: v1::Heartbeat) {
        let sequence = heartbeat.sequence;
        let drivers = match drivers_from_wire(heartbeat.drivers) {
            Ok(drivers) => drivers,
            Err(problems) => {
                tracing::warn!(by = self.by, %problems, "a heartbeat's drivers are not understood");
                return;
            }
        };
        let beat = Beat { host: self.host, sequence, drivers };
        if self.work.heartbeat.is_some() {
            // Dropping the one under way for it would starve both where answers take longer than the next heartbeat.
            self.work.next_heartbeat = Some(beat);
        } else {
            self.pass_on(beat);
        }
    }

    fn pass_on(&mut self, beat: Beat) {
        let heartbeats = self.core.heartbeats().clone();
        self.work.heartbeat = Some(Box::pin(async move {
            let sequence = beat.sequence;
            // What is not answered the agent notices by itself, and the next one is soon to come.
            heartbeats.beat(beat).await.ok().map(|()| sequence)
        }));
    }

    async fn heartbeat_answered(&mut self, answered: Option<u64>) -> Result<(), End> {
        self.work.heartbeat = None;
        if let Some(next) = self.work.next_heartbeat.take() {
            self.pass_on(next);
        }
        let Some(sequence) = answered else { return Ok(()) };
        // The answer renews the lease: an order to stop that this node knows of goes before it.
        self.send_changed().await?;
        Ok(self.outbox.send(Down::HeartbeatAck(v1::HeartbeatAck { sequence })).await?)
    }

    fn take_reports(&mut self, reports: v1::Reports) -> Result<(), End> {
        for report in reports.reports {
            let (instance, sequence) = (report.instance.clone(), report.sequence);
            match InstanceReport::try_from(report) {
                Ok(report) => self.work.reports.push_back(report),
                // It will not be understood the next time either. The next report acknowledges it.
                Err(problems) => {
                    tracing::warn!(by = self.by, instance, sequence, %problems, "a report is not understood");
                }
            }
        }
        if self.work.reports.len() > MAX_WAITING_REPORTS {
            return Err(End::Refused(Refusal::passing("too many reports at once")));
        }
        self.send_reports();
        Ok(())
    }

    /// Hands in the reports that wait, unless some are under way.
    fn send_reports(&mut self) {
        if self.work.reporting.is_some() || self.work.reports.is_empty() {
            return;
        }
        let some = self.work.reports.len().min(MAX_REPORTS);
        let reports: Vec<InstanceReport> = self.work.reports.drain(..some).collect();
        if self.work.reports.is_empty() {
            // Most sessions are quiet most of the time, and there are ten thousand of them.
            self.work.reports = VecDeque::new();
        }
        let sequence = reports.iter().map(|report| report.sequence).max().unwrap_or(0);
        let (reporting, by) = (self.reporting.clone(), Arc::<str>::from(self.by.as_str()));
        let reports = HostReports { host: self.host, reports };
        let hand_in = move || {
            let (reporting, by, reports) = (reporting.clone(), by.clone(), reports.clone());
            async move { reporting.hand_in(by, reports).await }
        };
        self.work.reporting = Some((sequence, Box::pin(insist(self.by.clone(), hand_in))));
    }

    async fn reported(&mut self, sequence: u64, outcome: Result<Outcome, ProposeError>) -> Result<(), End> {
        self.work.reporting = None;
        match outcome.map(|outcome| outcome.result) {
            Ok(Ok(_)) => {}
            Ok(Err(Rejection::NotFound(_))) => return Err(End::Removed),
            Ok(Err(rejection)) => tracing::error!(by = self.by, %rejection, "reports were refused for good"),
            Err(ProposeError::Stopped) => return Err(End::ShuttingDown),
            Err(error) => tracing::error!(by = self.by, %error, "reports cannot be taken in"),
        }
        self.outbox.send(Down::ReportsAck(v1::ReportsAck { sequence })).await?;
        self.send_reports();
        Ok(())
    }

    fn take_inventory(&mut self, inventory: v1::Inventory) {
        match Inventory::try_from(inventory) {
            Ok(inventory) => self.register(inventory),
            Err(problems) => tracing::warn!(by = self.by, %problems, "an inventory is not understood"),
        }
    }

    /// Registers the host as this, where it is not registered so.
    fn register(&mut self, inventory: Inventory) {
        let state = self.core.view();
        let (known, withheld) = hello::as_known(state.level(), inventory);
        let inventory = Box::new(known);
        self.work.withheld = withheld;
        let Some(host) = state.host(self.host) else { return };
        if *host.inventory == *inventory && self.work.registering.is_none() {
            return;
        }
        let (name, incarnation) = (host.name.clone(), self.incarnation.clone());
        let command = Command::RegisterHost { name, inventory, incarnation };
        // One that is under way is older and of no interest any more; should it be applied, then before this one.
        let (core, by) = (self.core.clone(), self.by.clone());
        let propose = move || {
            let (core, by, command) = (core.clone(), by.clone(), command.clone());
            async move { core.propose(&by, "", command).await }
        };
        self.work.registering = Some(Box::pin(insist(self.by.clone(), propose)));
    }

    fn registered(&mut self, outcome: Result<Outcome, ProposeError>) {
        self.work.registering = None;
        match outcome.map(|outcome| outcome.result) {
            Ok(Ok(_)) => {}
            Ok(Err(rejection)) => tracing::error!(by = self.by, %rejection, "an inventory was refused"),
            Err(error) => tracing::error!(by = self.by, %error, "an inventory cannot be taken in"),
        }
    }

    /// Sends the orders that are newer than those that were sent.
    async fn send_changed(&mut self) -> Result<(), End> {
        let state = self.core.view();
        let may_be_known = |inventory: &mut Inventory| level::of_inventory(inventory) <= state.level();
        if let Some(inventory) = self.work.withheld.take_if(|inventory| may_be_known(inventory)) {
            self.register(inventory);
        }
        let orders = state.unsent_orders(self.host, self.sent).ok_or(End::Removed)?;
        if !orders.is_empty() {
            let index = state.applied();
            self.outbox.send_orders(orders.into_iter(), index, false).await?;
            self.sent = index;
        }
        Ok(())
    }
}

/// Waits for what is under way; for ever when nothing is.
async fn done<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

async fn reported<T>(work: &mut Option<(u64, BoxFuture<'static, T>)>) -> (u64, T) {
    match work {
        Some((sequence, work)) => (*sequence, work.await),
        None => pending().await,
    }
}

/// Proposes what changes nothing when it is applied twice, until it is taken or cannot be.
async fn insist<F: Future<Output = Result<Outcome, ProposeError>> + Send>(
    by: String,
    propose: impl Fn() -> F + Send,
) -> Result<Outcome, ProposeError> {
    let mut wait = FIRST_WAIT;
    loop {
        match propose().await {
            Err(
                error @ (ProposeError::TooLarge { .. } | ProposeError::Unreadable(_) | ProposeError::Stopped),
            ) => return Err(error),
            Err(error) => tracing::debug!(by, %error, "a proposal of a session is tried again"),
            outcome => return outcome,
        }
        sleep(wait).await;
        wait = (wait * 2).min(LAST_WAIT);
    }
}
