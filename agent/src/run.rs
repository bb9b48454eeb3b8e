//! The agent's loop: one task that reads the clock, waits for hints, listings, results, the session and timers, and hands each to the
//! `keeper`, which decides. What it decides is written into the ledger first, and then done. At rest the loop does nothing.
//!
//! Decisions:
//! - *Written down, then done*: an order is in the ledger before it is acted on, a history before its action begins.
//! - *One loop, one owner*: whatever the agent knows changes here and nowhere else, one thing after the other.

use std::{future::Future, pin::pin, sync::Arc};

use futures::StreamExt;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::{debug, error, info};

use crate::{
    clock::Clock,
    driver::{DriverError, Owner},
    executor::{Drivers, Event, Executor},
    keeper::{Decision, Keeper, Listed, Moment},
    ledger::{Ledger, Opened, WriteError},
    observed::View,
};

#[cfg(test)]
mod tests;

pub use crate::keeper::FromSession;

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
    /// The processors of this host, ascending.
    pub cpus: Vec<u16>,
    /// Told when a driver falls silent or answers again, so that its state is probed at once.
    pub probe: Arc<Notify>,
    /// From the session.
    pub session: mpsc::Receiver<FromSession>,
    /// Where what is seen is shown to others.
    pub view: watch::Sender<Arc<View>>,
}

/// What the keeper's word is done with.
struct Agent {
    keeper: Keeper,
    drivers: Arc<Drivers>,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    probe: Arc<Notify>,
    view: watch::Sender<Arc<View>>,
    executor: Executor,
    listed: mpsc::Sender<Listed>,
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
    let orphans = agent.keeper.prune();
    agent.ledger.write(orphans).await?;
    let mut end = pin!(end);
    loop {
        agent.begin_listings();
        agent.decide().await?;
        let wake = agent.keeper.next_wake(agent.moment());
        tokio::select! {
            () = &mut end => break,
            Some(kind) = hints.recv() => agent.keeper.hint(kind, Instant::now()),
            Some(listed) = listings.recv() => agent.on_listing(listed),
            Some(event) = events.recv() => agent.on_event(event).await?,
            Some(message) = session.recv() => {
                let batch = agent.keeper.on_session(message);
                agent.ledger.write(batch).await?;
            }
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
        for alarm in &setup.opened.alarms {
            error!(alarm = true, "{alarm}");
        }
        let moment = Moment { now: setup.clock.now(), at: Instant::now() };
        let kinds = setup.drivers.keys().copied().collect();
        let (executor, events) = Executor::new(Arc::clone(&setup.drivers));
        let agent = Self {
            keeper: Keeper::new(setup.owner, setup.boot_id, kinds, setup.opened.contents, moment)
                .with_cpus(setup.cpus),
            drivers: setup.drivers,
            ledger: setup.opened.ledger,
            clock: setup.clock,
            probe: setup.probe,
            view: setup.view,
            executor,
            listed,
        };
        (agent, events, setup.session)
    }

    fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), at: Instant::now() }
    }

    fn begin_listings(&mut self) {
        for (kind, number) in self.keeper.begin_listings(Instant::now()) {
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
        self.keeper.on_listing(listed, self.moment());
        self.tell();
    }

    async fn on_event(&mut self, event: Event) -> Result<(), WriteError> {
        let batch = self.keeper.on_event(event, self.moment());
        self.tell();
        self.ledger.write(batch).await
    }

    /// Shows what is there, and has the drivers probed where there is doubt.
    fn tell(&mut self) {
        let view = self.keeper.view();
        self.view.send_if_modified(|shown| {
            let changed = **shown != *view;
            *shown = view;
            changed
        });
        if self.keeper.take_doubts() {
            self.probe.notify_one();
        }
    }

    /// Has the keeper decide, writes down, begins, reports.
    async fn decide(&mut self) -> Result<(), WriteError> {
        let Decision { batch, actions, cancels } = self.keeper.decide(self.moment());
        self.ledger.write(batch).await?;
        for action in actions {
            self.executor.begin(action);
        }
        for id in cancels {
            self.executor.cancel(id);
        }
        self.keeper.report(Instant::now());
        Ok(())
    }
}
