//! A standing session: heartbeats out, orders and answers in, attach streams opened when the node asks for them.

use supercloud_proto::{
    host::Inventory,
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

use super::{Ended, Setup, attach, heartbeats::Heartbeats};
use crate::run::FromSession;

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
        let v1::Welcome { heartbeat_every_ms: every, lease_ms: lease, .. } = self.welcome;
        let mut heartbeats = Heartbeats::new(every, lease, Instant::now());
        let mut ticks = tokio::time::interval(heartbeats.every());
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
        if let Some(silence) = heartbeats.deafness(Instant::now()) {
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
            Some(Down::HeartbeatAck(ack)) => match heartbeats.answer(ack.sequence, Instant::now()) {
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
