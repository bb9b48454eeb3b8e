//! What a node needs to let others in: the authority, its own credentials to speak to other nodes, and a bound on who knocks. In development
//! there is neither authority nor credential. Knows no state and no token's grant but what it signs.

use std::{sync::Arc, time::SystemTime};

use supercloud_proto::{
    name::PersonName,
    pki::{Credentials, Identity, Servers, Token, Trust},
    v1::{JoinRequest, scheduler_service_client::SchedulerServiceClient},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, transport::Channel};

use crate::{
    api::refusals,
    ca::{Ca, Grant as Signed, LEAF_VALIDITY},
    raft::NodeId,
    state::Grant,
};

/// Joins under way on a node. The call is open to everybody who reaches the port.
const MAX_JOINS: usize = 8;

/// See the head of the module.
pub struct Admission {
    keys: Option<Keys>,
    places: Arc<Semaphore>,
}

/// What a node of a cluster with certificates holds.
struct Keys {
    ca: Ca,
    credentials: Credentials,
}

impl Admission {
    /// Of a node of a cluster with certificates.
    #[must_use]
    pub fn new(ca: Ca, credentials: Credentials) -> Self {
        Self { keys: Some(Keys { ca, credentials }), places: Arc::new(Semaphore::new(MAX_JOINS)) }
    }

    /// Of a node in development.
    #[must_use]
    pub fn development() -> Self {
        Self { keys: None, places: Arc::new(Semaphore::new(MAX_JOINS)) }
    }

    /// Whether there are no certificates.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.keys.is_none()
    }

    /// The right to have a join looked at.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`.
    pub fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.places.clone().try_acquire_owned().map_err(|_| refusals::too_many("joins", MAX_JOINS))
    }

    fn keys(&self) -> Result<&Keys, Status> {
        let missing =
            "this node runs in development: there are no certificates, and no tokens to get one with";
        self.keys.as_ref().ok_or_else(|| Status::failed_precondition(missing))
    }

    /// A new token of this cluster.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` in development.
    pub fn token(&self) -> Result<Token, Status> {
        let token = Token::generate(self.keys()?.ca.certificate());
        token.map_err(|error| Status::internal(format!("the system gave no random bytes: {error}")))
    }

    /// The authority's certificate (PEM); empty in development.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.keys.as_ref().map(|keys| keys.ca.certificate().pem()).unwrap_or_default()
    }

    /// The authority with its key (PEM), for a scheduler that joins; empty in development.
    #[must_use]
    pub fn authority_pem(&self) -> String {
        self.keys.as_ref().map(|keys| keys.ca.to_pem()).unwrap_or_default()
    }

    /// Signs what was granted over the key of a join's request; `node` is the number of a scheduler.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a request that is none, `INTERNAL` where the authority fails.
    pub fn sign(&self, grant: &Grant, node: Option<NodeId>, request: &JoinRequest) -> Result<String, Status> {
        let person = |name: &String| {
            name.parse::<PersonName>().map_err(|error| Status::internal(format!("a token's grant: {error}")))
        };
        let identity = match grant {
            Grant::Scheduler => Identity::Scheduler { node: node.map_or(0, |node| node.0) },
            Grant::Agent(host) => Identity::Agent { host: host.clone() },
            Grant::Operator(name) => Identity::Operator { name: person(name)? },
            Grant::Borough(borough, name) => {
                Identity::Borough { borough: borough.clone(), name: person(name)? }
            }
        };
        let signed = Signed { identity, server_names: request.server_names.clone(), validity: LEAF_VALIDITY };
        let pem = self.keys()?.ca.sign(&request.csr_pem, &signed, SystemTime::now());
        pem.map_err(|error| refusals::sign(&error))
    }

    /// A client of another node's API.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it is not reached.
    pub async fn node(&self, api_address: &str) -> Result<SchedulerServiceClient<Channel>, Status> {
        let trust = self.keys.as_ref().map_or(Trust::Plain, |keys| Trust::Mutual(&keys.credentials));
        let unreachable = |error: &dyn std::fmt::Display| {
            Status::unavailable(format!("the leader at {api_address} is not reached: {error}"))
        };
        let servers = Servers::new(&[api_address.to_owned()], trust).map_err(|error| unreachable(&error))?;
        let connection = servers.connect().await.map_err(|error| unreachable(&error))?;
        Ok(SchedulerServiceClient::new(connection.channel))
    }
}
