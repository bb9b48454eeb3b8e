//! A standing session: heartbeats out, orders and answers in, attach streams opened when the node asks for them.

use std::{collections::BTreeMap, time::Duration};

use supercloud_proto::{
    host::Inventory,
    id::Millis,
    v1::{
        self, agent_message::Message as Up, agent_service_client::AgentServiceClient,
        scheduler_message::Message as Down,
    },
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tonic::{Streaming, transport::Channel};
use tracing::{debug, warn};

use super::{Ended, Setup, attach};
use crate::run::FromSession;

/// Bounds of the time between heartbeats, whatever a node says: often enough for any lease, and never a flood.
const HEARTBEAT_BOUNDS: (Millis, Millis) = (100, 60_000);
/// Heartbeats without an answer before the node is left, and the least time for it: an election must not look like a deaf node.
const UNANSWERED: u64 = 4;
const UNANSWERED_AT_LEAST: Millis = 15_000;
/// It is left while this part of the lease still lasts, whatever else: a node that is cut off must not cost the exclusive instances that
/// another node would keep alive.
const LEASE_PART: u64 = 2;
/// Heartbeats whose time of sending is remembered.
const REMEMBERED: usize = 64;
/// Attach streams at a time.
pub(super) const MAX_ATTACHED: usize = 64;
/// Attach streams that are only opened to be told that there are too many.
const MAX_REFUSING: usize = 64;

/// A session that stands.
pub(super) struct Opened {
    pub(super) welcome: v1::Welcome,
    pub(super) up: mpsc::Sender<v1::AgentMessage>,
    pub(super) down: Streaming<v1::SchedulerMessage>,
    pub(super) client: AgentServiceClient<Channel>,
}

/// Heartbeats under way.
struct Heartbeats {
    every: Millis,
    lease: Millis,
    sequence: u64,
    /// Boot time of sending, by sequence.
    sent: BTreeMap<u64, Millis>,
    answered: Instant,
}

impl Heartbeats {
    fn patience(&self) -> Millis {
        let patience = (self.every * UNANSWERED).max(UNANSWERED_AT_LEAST);
        patience.min(self.lease / LEASE_PART).max(self.every * 2)
    }

    fn begin(&mut self, boot: Millis) -> u64 {
        self.sequence += 1;
        self.sent.insert(self.sequence, boot);
        if self.sent.len() > REMEMBERED {
            self.sent.pop_first();
        }
        self.sequence
    }

    /// When the answered heartbeat was sent; `None`: it was answered before, or never sent.
    fn answer(&mut self, sequence: u64) -> Option<Millis> {
        let sent = self.sent.remove(&sequence)?;
        self.sent = self.sent.split_off(&sequence);
        self.answered = Instant::now();
        Some(sent)
    }
}

impl Opened {
    /// Serves until the session ends. Attach streams end with it.
    pub(super) async fn serve(&mut self, setup: &mut Setup) -> Ended {
        let mut attached = JoinSet::new();
        match self.serve_with(setup, &mut attached).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn serve_with(
        &mut self,
        setup: &mut Setup,
        attached: &mut JoinSet<()>,
    ) -> Result<std::convert::Infallible, Ended> {
        let (least, most) = HEARTBEAT_BOUNDS;
        let every = self.welcome.heartbeat_every_ms.clamp(least, most);
        let mut heartbeats = Heartbeats {
            every,
            lease: self.welcome.lease_ms,
            sequence: 0,
            sent: BTreeMap::new(),
            answered: Instant::now(),
        };
        let mut ticks = tokio::time::interval(Duration::from_millis(every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.down.message() => {
                    let message = message?.ok_or(Ended::Closed)?;
                    self.take(message, setup, &mut heartbeats, attached).await?;
                }
                _ = ticks.tick() => self.beat(setup, &mut heartbeats)?,
                changed = setup.inventory.changed() => {
                    changed.map_err(|_| Ended::Ending)?;
                    let inventory = setup.inventory.borrow_and_update().clone();
                    self.send(Up::Inventory(inventory.into()))?;
                }
                Some(_) = attached.join_next() => {}
            }
        }
    }

    fn send(&self, message: Up) -> Result<(), Ended> {
        self.up.try_send(v1::AgentMessage { message: Some(message) }).map_err(|_| Ended::Stuck)
    }

    fn beat(&self, setup: &mut Setup, heartbeats: &mut Heartbeats) -> Result<(), Ended> {
        let silence = heartbeats.answered.elapsed();
        if silence >= Duration::from_millis(heartbeats.patience()) {
            return Err(Ended::Unheard(u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)));
        }
        let sequence = heartbeats.begin(setup.clock.now().boot);
        let drivers = v1::Inventory::from(Inventory::clone(&setup.inventory.borrow())).drivers;
        let used = Some(setup.meter.used().into());
        self.send(Up::Heartbeat(v1::Heartbeat { sequence, drivers, used }))
    }

    async fn take(
        &mut self,
        message: v1::SchedulerMessage,
        setup: &Setup,
        heartbeats: &mut Heartbeats,
        attached: &mut JoinSet<()>,
    ) -> Result<(), Ended> {
        let to_loop = match message.message {
            Some(Down::Orders(orders)) => FromSession::Orders(orders.into()),
            Some(Down::HeartbeatAck(ack)) => match heartbeats.answer(ack.sequence) {
                Some(sent) => FromSession::Heard { sent },
                None => return Ok(()),
            },
            Some(Down::ReportsAck(ack)) => FromSession::Confirmed { sequence: ack.sequence },
            Some(Down::OpenStream(open)) => {
                self.attach(open, setup, attached);
                return Ok(());
            }
            Some(Down::Refused(refused)) => {
                return Err(Ended::Refused { reason: refused.reason, permanent: refused.permanent });
            }
            Some(Down::Welcome(_)) => {
                warn!("a second welcome was passed over");
                return Ok(());
            }
            None => {
                debug!("a message of a newer scheduler was passed over");
                return Ok(());
            }
        };
        setup.to_loop.send(to_loop).await.map_err(|_| Ended::Ending)
    }

    fn attach(&self, open: v1::OpenStream, setup: &Setup, attached: &mut JoinSet<()>) {
        while attached.try_join_next().is_some() {}
        if attached.len() >= MAX_ATTACHED + MAX_REFUSING {
            warn!(stream = open.stream_id, "far too many attach streams; not even answered");
            return;
        }
        let has_room = attached.len() < MAX_ATTACHED;
        let drivers = std::sync::Arc::clone(&setup.drivers);
        let view = std::sync::Arc::clone(&setup.view.borrow());
        attached.spawn(attach::serve(self.client.clone(), open, drivers, view, has_room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deaf_node_is_left_while_the_lease_still_lasts() {
        let patience = |every, lease| {
            let heartbeats =
                Heartbeats { every, lease, sequence: 0, sent: BTreeMap::new(), answered: Instant::now() };
            heartbeats.patience()
        };
        assert_eq!(patience(2_000, 15_000), 7_500);
        assert_eq!(patience(2_000, 120_000), 15_000, "an election is no deafness");
        assert_eq!(patience(10_000, 600_000), 40_000);
        assert_eq!(patience(2_000, 1_000), 4_000, "an answer has time to come");
    }
}
