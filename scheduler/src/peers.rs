//! The way to the other nodes of the cluster: who they are on the network, connections kept open, and the same for the log's own
//! transport. Knows credentials and addresses; no command and no state.
//!
//! A connection to a peer is believed when its certificate is a scheduler's of our cluster; which of the schedulers it is, the receiver of
//! a message checks by the sender's certificate.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use supercloud_proto::{
    name::ClusterName,
    pki::{Credentials, Servers, Trust},
    v1::peer_service_client::PeerServiceClient,
};
use tonic::transport::Channel;

use crate::raft::{Connect, Member, NodeId};

/// Longest wait for a connection to a peer.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// How nodes of one cluster know each other.
#[derive(Debug, Clone)]
pub enum PeerTrust {
    /// Not at all (`--dev`): loopback addresses, no TLS.
    Plain,
    /// By certificates of the cluster's authority.
    Mutual(Box<Credentials>),
}

impl PeerTrust {
    /// The cluster whose certificates are believed; `None` without TLS.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::Plain => None,
            Self::Mutual(credentials) => Some(credentials.cluster()),
        }
    }

    fn borrowed(&self) -> Trust<'_> {
        match self {
            Self::Plain => Trust::Plain,
            Self::Mutual(credentials) => Trust::Mutual(credentials),
        }
    }
}

/// Why a peer is not reached. Nothing was sent to it.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// There is no such member.
    #[error("node {0} is not a member of the cluster")]
    NotMember(NodeId),
    /// Its address cannot be used.
    #[error("the address of a peer cannot be used: {0}")]
    Address(#[from] supercloud_proto::pki::client::ServersError),
    /// It does not answer, or is not to be trusted.
    #[error(transparent)]
    Unreachable(#[from] supercloud_proto::pki::client::NoServer),
    /// It does not answer in time.
    #[error("no connection to {address} within {} ms", CONNECT_DEADLINE.as_millis())]
    TimedOut {
        /// Its address.
        address: String,
    },
}

/// Connections to the other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    trust: PeerTrust,
    channels: Mutex<BTreeMap<NodeId, (String, Channel)>>,
}

impl Peers {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(trust: PeerTrust) -> Self {
        Self { inner: Arc::new(Inner { trust, channels: Mutex::default() }) }
    }

    /// How the nodes know each other.
    #[must_use]
    pub fn trust(&self) -> &PeerTrust {
        &self.inner.trust
    }

    /// A client of a member, over a connection that is kept and that opens itself again when it broke.
    ///
    /// # Errors
    /// When there is no connection yet and none could be made.
    pub async fn client(&self, member: &Member) -> Result<PeerServiceClient<Channel>, PeerError> {
        let known = self.channels().get(&member.id).filter(|known| known.0 == member.peer_address).cloned();
        let channel = match known {
            Some((_, channel)) => channel,
            None => {
                let channel = self.connect(&member.peer_address).await?;
                self.channels().insert(member.id, (member.peer_address.clone(), channel.clone()));
                channel
            }
        };
        Ok(PeerServiceClient::new(channel))
    }

    /// Drops the kept connection to a node, which hangs or is gone.
    pub fn forget(&self, id: NodeId) {
        self.channels().remove(&id);
    }

    /// For the log's transport, which keeps connections of its own: what it sends must not wait behind anything else.
    #[must_use]
    pub fn log_connect(&self) -> Connect {
        let peers = self.clone();
        Arc::new(move |peer| {
            let peers = peers.clone();
            Box::pin(async move { Ok(peers.connect(&peer.address).await?) })
        })
    }

    async fn connect(&self, address: &str) -> Result<Channel, PeerError> {
        let servers = Servers::new(&[address.to_owned()], self.inner.trust.borrowed())?;
        match tokio::time::timeout(CONNECT_DEADLINE, servers.connect()).await {
            Ok(connection) => Ok(connection?.channel),
            Err(_) => Err(PeerError::TimedOut { address: address.to_owned() }),
        }
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, (String, Channel)>> {
        self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
