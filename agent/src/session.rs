//! The agent's way to the scheduler: dials one of several nodes, keeps one session open, and carries messages between it and the loop. It
//! decides nothing about instances and holds nothing that outlives it.
//!
//! Decisions:
//! - *Spread*: the nodes are tried in an order of this agent's own, and waits between attempts are random, the first one too, so that ten thousand
//!   agents do not come back in the same second to the same node. How wide the first one is spread the node tells: it knows how many there are.
//! - *A node that answers no heartbeat is left*, even if its connection lives: it may be cut off from the leader while others are not.
//! - *A permanent refusal is tried again, slowly*: an operator may have mended it.

use std::{sync::Arc, time::Duration};

use rand::seq::SliceRandom;
use supercloud_proto::{
    host::Inventory,
    id::Millis,
    name::HostName,
    pki::{Credentials, Servers, Trust, client::MAX_SERVERS},
    v1::{self, agent_service_client::AgentServiceClient},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use crate::{clock::Clock, executor::Drivers, inventory::Meter, observed::View, run::FromSession};

mod attach;
mod backoff;
#[cfg(test)]
mod fleet;
pub mod heartbeats;
mod stream;
#[cfg(test)]
mod tests;

use backoff::Backoff;

/// The protocol that this agent speaks.
pub const PROTOCOL: u32 = 1;
/// Largest message from a node: a part of a full set of orders.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Messages that may wait for the node. More means that it takes nothing any more.
pub const UP_QUEUE: usize = 64;
/// Messages that may wait for the loop.
pub const LOOP_QUEUE: usize = 64;
/// How long a node may take to open a session, and then to send its welcome.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// A session that lasted this long was a good one.
const STABLE: Duration = Duration::from_secs(30);
/// A permanent refusal is tried again after this long, or up to half as long again.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// How the scheduler is reached.
#[derive(Debug)]
pub enum Access {
    /// Without TLS, on this machine only (`--dev`).
    Plain,
    /// With this agent's certificate.
    Mutual(Box<Credentials>),
}

/// What a session is made of.
pub struct Setup {
    /// This host.
    pub host: HostName,
    /// The cluster; empty in development mode.
    pub cluster: String,
    /// The ledger's random id.
    pub incarnation: String,
    /// Addresses from the configuration.
    pub servers: Vec<String>,
    /// How they are reached.
    pub access: Access,
    /// What the host is.
    pub inventory: watch::Receiver<Inventory>,
    /// What is used of it.
    pub meter: Meter,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The drivers, for logs and execs.
    pub drivers: Arc<Drivers>,
    /// What is there, for logs and execs.
    pub view: watch::Receiver<Arc<View>>,
    /// To the loop.
    pub to_loop: mpsc::Sender<FromSession>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Unreachable(supercloud_proto::pki::client::NoServer),
    #[error("the addresses of the scheduler are of no use: {0}")]
    Servers(#[from] supercloud_proto::pki::client::ServersError),
    #[error("the node ended the session: {reason}")]
    Refused { reason: String, permanent: bool },
    #[error("the session broke: {0}")]
    Broken(#[from] tonic::Status),
    #[error("the node closed the session")]
    Closed,
    #[error("the node did not welcome this agent within {} s", OPEN_DEADLINE.as_secs())]
    NoWelcome,
    #[error("the node is of cluster {found}, this agent of {expected}")]
    OtherCluster { expected: String, found: String },
    #[error("no heartbeat was answered for {0} ms")]
    Unheard(Millis),
    #[error("the node takes nothing any more")]
    Stuck,
    #[error("the agent ends")]
    Ending,
}

/// Keeps a session open until `end` turns true.
pub async fn run(setup: Setup, mut end: watch::Receiver<bool>) {
    let mut session = Session { known: setup.servers.clone(), setup, stood: None };
    let mut backoff = Backoff::default();
    let mut servers = None;
    while !*end.borrow() {
        let begun = Instant::now();
        let ended = tokio::select! {
            ended = session.once(&mut servers) => ended,
            _ = end.changed() => Ended::Ending,
        };
        if session.setup.to_loop.send(FromSession::Closed).await.is_err() {
            return;
        }
        if begun.elapsed() >= STABLE {
            backoff.reset();
        }
        let wait = match &ended {
            Ended::Ending => return,
            Ended::Refused { permanent: true, .. } | Ended::OtherCluster { .. } => {
                error!(alarm = true, "{ended}; trying again slowly");
                REFUSED_WAIT.mul_f64(1.0 + rand::random::<f64>() / 2.0)
            }
            Ended::Unreachable(nobody) if nobody.is_distrust() => {
                error!(alarm = true, "{ended}; look at the credentials");
                backoff.next()
            }
            _ => {
                warn!("{ended}");
                match session.stood {
                    Some(spread) => backoff.after_loss(spread),
                    None => backoff.next(),
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // It ends when the value is true, which the loop's head looks at.
            _ = end.changed() => {}
        }
    }
}

struct Session {
    setup: Setup,
    /// Addresses: those configured, then those that nodes have told.
    known: Vec<String>,
    /// Whether the last attempt made a session that stood, and the spread that its node told.
    stood: Option<Duration>,
}

impl Session {
    /// The nodes, in an order of chance.
    fn servers(&self) -> Result<Servers, Ended> {
        let mut addresses = self.known.clone();
        addresses.truncate(MAX_SERVERS);
        addresses.shuffle(&mut rand::rng());
        let trust = match &self.setup.access {
            Access::Plain => Trust::Plain,
            Access::Mutual(credentials) => Trust::Mutual(credentials),
        };
        match Servers::new(&addresses, trust) {
            Ok(servers) => Ok(servers),
            // A node told an address that is of no use here: back to what an operator wrote.
            Err(error) if self.known != self.setup.servers => {
                warn!(%error, "addresses told by the scheduler are passed over");
                Ok(Servers::new(&self.setup.servers, trust)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One session, from dialling to its end.
    async fn once(&mut self, servers: &mut Option<Servers>) -> Ended {
        match self.try_once(servers).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_once(&mut self, servers: &mut Option<Servers>) -> Result<std::convert::Infallible, Ended> {
        self.stood = None;
        let made = match servers.take() {
            Some(servers) => servers,
            None => self.servers()?,
        };
        let nodes = servers.insert(made);
        let connection = nodes.connect().await.map_err(Ended::Unreachable)?;
        debug!(node = %connection.address, "connected");
        let client = AgentServiceClient::new(connection.channel).max_decoding_message_size(MAX_MESSAGE);
        let mut opened = match self.open(client).await {
            Ok(opened) => opened,
            Err(ended) => {
                nodes.avoid(&connection.address);
                return Err(ended);
            }
        };
        info!(node = %connection.address, host_id = opened.welcome.host_id, "session stands");
        self.stood = Some(Duration::from_millis(opened.welcome.reconnect_spread_ms));
        if self.learn(&opened.welcome.servers) {
            *servers = None;
        }
        let ended = opened.serve(&mut self.setup).await;
        if let (Some(nodes), Ended::Unheard(_) | Ended::Stuck | Ended::Refused { .. }) = (servers, &ended) {
            nodes.avoid(&connection.address);
        }
        Err(ended)
    }

    /// Remembers addresses that a node told. Returns whether there are new ones.
    fn learn(&mut self, told: &[String]) -> bool {
        let new: Vec<_> = told.iter().filter(|address| !self.known.contains(address)).cloned().collect();
        let room = MAX_SERVERS.saturating_sub(self.known.len());
        let before = self.known.len();
        self.known.extend(new.into_iter().take(room));
        self.known.len() > before
    }

    async fn open(&mut self, mut client: AgentServiceClient<Channel>) -> Result<stream::Opened, Ended> {
        let (up, queue) = mpsc::channel(UP_QUEUE);
        let hello = v1::Hello {
            host: self.setup.host.to_string(),
            cluster_id: self.setup.cluster.clone(),
            inventory: Some(self.setup.inventory.borrow_and_update().clone().into()),
            protocol: PROTOCOL,
            incarnation: self.setup.incarnation.clone(),
        };
        let hello = v1::AgentMessage { message: Some(v1::agent_message::Message::Hello(hello)) };
        up.try_send(hello).map_err(|_| Ended::Stuck)?;
        let welcome = async {
            let requests = tokio_stream::wrappers::ReceiverStream::new(queue);
            let mut down = client.session(requests).await?.into_inner();
            match down.message().await?.and_then(|message| message.message) {
                Some(v1::scheduler_message::Message::Welcome(welcome)) => Ok((welcome, down)),
                Some(v1::scheduler_message::Message::Refused(refused)) => {
                    Err(Ended::Refused { reason: refused.reason, permanent: refused.permanent })
                }
                Some(_) => Err(Ended::NoWelcome),
                None => Err(Ended::Closed),
            }
        };
        let (welcome, down) =
            tokio::time::timeout(OPEN_DEADLINE, welcome).await.map_err(|_| Ended::NoWelcome)??;
        let expected = &self.setup.cluster;
        if !expected.is_empty() && *expected != welcome.cluster_id {
            return Err(Ended::OtherCluster { expected: expected.clone(), found: welcome.cluster_id });
        }
        let message = FromSession::Opened { lease: welcome.lease_ms, up: up.clone() };
        self.setup.to_loop.send(message).await.map_err(|_| Ended::Ending)?;
        Ok(stream::Opened { welcome, up, down, client })
    }
}
