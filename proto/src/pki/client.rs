//! The way to a scheduler: several addresses, any of which will do, tried in turn.
//!
//! # Decision: in turn, not balanced
//! A balanced channel spreads calls over all nodes and hands some of them to a dead one until it notices. Here one connection is used
//! while it works, and the next node is tried when it does not: a dead process refuses at once, a dead machine costs
//! [`CONNECT_DEADLINE`], so that of three nodes the last one is reached within 1.4 s. The node that answered last is tried first.
//! When none has answered in that time, those that were merely slow get one more round with [`PATIENT_DEADLINE`]: a busy machine must
//! not look like a dead cluster.
//!
//! This module opens connections. When to open a new one, and which calls may be repeated, is for the caller to know.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::SERVER_NAME;
use super::address::{AddressError, Scheme, ServerAddress};
use super::ca_certificate::CaCertificate;
use super::credentials::Credentials;
use super::verify::{SchedulerVerifier, UnusableCa};

/// How long one node may take to accept a connection, TLS included, in the first round. Two dead machines must cost less than 2 s.
pub const CONNECT_DEADLINE: Duration = Duration::from_millis(700);
/// The same in the second round, for nodes that did not answer in the first.
pub const PATIENT_DEADLINE: Duration = Duration::from_secs(4);
/// How often an open connection is probed, and how long the answer may take: a dead peer is noticed in 8 s even if nothing is sent.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What may be under way unread on one stream: logs and console flow freely over 50 ms of round trip at 160 Mbit/s.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for a whole connection, so that one slow stream leaves room for the others.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Most addresses a client may be given: a cluster has seven nodes at the very most, and a round must end.
pub const MAX_SERVERS: usize = 16;

/// How the scheduler is to be recognised, and what is shown to it.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// No TLS (`--dev`): loopback addresses only.
    Plain,
    /// TLS with a known authority and no certificate of one's own: for joining.
    Joining(&'a CaCertificate),
    /// Mutual TLS.
    Mutual(&'a Credentials),
}

/// Why no client can be made from these addresses.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// There is no address, or there are too many.
    #[error("expected 1 to {MAX_SERVERS} scheduler addresses, found {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// One is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Without TLS only this machine is spoken to.
    #[error("{address}: expected a loopback address, since there are no credentials and so no TLS")]
    NotLoopback {
        /// The address.
        address: ServerAddress,
    },
    /// The scheme says the opposite of the credentials.
    #[error("{address}: expected {expected}://, since {reason}")]
    Scheme {
        /// The address.
        address: ServerAddress,
        /// The scheme to write.
        expected: &'static str,
        /// Why that one.
        reason: &'static str,
    },
    /// The authority is of no use.
    #[error(transparent)]
    Ca(#[from] UnusableCa),
    /// TLS could not be set up from these credentials.
    #[error("TLS could not be set up")]
    Tls(#[source] tonic::transport::Error),
}

/// No node could be reached.
#[derive(Debug, thiserror::Error)]
#[error("no scheduler could be reached: {}", list(.attempts))]
pub struct NoServer {
    /// The last attempt on each node.
    pub attempts: Vec<Attempt>,
}

impl NoServer {
    /// Whether some node answered but was not believed: then the credentials are to be looked at, not the network.
    #[must_use]
    pub fn is_distrust(&self) -> bool {
        let distrusted = |a: &Attempt| matches!(a.problem, AttemptProblem::Untrusted(_));
        self.attempts.iter().any(distrusted)
    }
}

/// What became of the attempt on one node.
#[derive(Debug)]
pub struct Attempt {
    /// The node's address.
    pub address: ServerAddress,
    /// What went wrong.
    pub problem: AttemptProblem,
}

/// Why one node could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum AttemptProblem {
    /// It did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It answered, but is not a scheduler of our cluster, or TLS failed otherwise.
    #[error("not to be trusted: {0}")]
    Untrusted(rustls::Error),
    /// The connection was refused or broken.
    #[error("{}", innermost(.0))]
    Failed(#[source] tonic::transport::Error),
}

/// An open connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The node it goes to.
    pub address: ServerAddress,
    /// For the generated clients.
    pub channel: Channel,
}

/// The scheduler nodes a client may talk to. Cheap to share behind an [`Arc`].
#[derive(Debug)]
pub struct Servers {
    nodes: Vec<(ServerAddress, Endpoint)>,
    /// The node to try first: the one that answered last.
    first: AtomicUsize,
}

impl Servers {
    /// Takes the addresses, in the order in which they are to be tried, and checks them all.
    pub fn new(addresses: &[String], trust: Trust<'_>) -> Result<Self, ServersError> {
        if addresses.is_empty() || addresses.len() > MAX_SERVERS {
            let found = addresses.len();
            return Err(ServersError::Count { found });
        }
        let nodes = addresses
            .iter()
            .map(|text| {
                let address: ServerAddress = text.parse()?;
                let endpoint = endpoint(&address, trust)?;
                Ok((address, endpoint))
            })
            .collect::<Result<_, ServersError>>()?;
        let first = AtomicUsize::new(0);
        Ok(Self { nodes, first })
    }

    /// The addresses, in the order given.
    pub fn addresses(&self) -> impl Iterator<Item = &ServerAddress> {
        self.nodes.iter().map(|(address, _)| address)
    }

    /// Opens a connection to the first node that answers, beginning with the one that answered last.
    pub async fn connect(&self) -> Result<Connection, NoServer> {
        let first = self.first.load(Ordering::Relaxed);
        let mut attempts: Vec<(usize, AttemptProblem)> = Vec::new();
        for step in 0..self.nodes.len() {
            let index = (first + step) % self.nodes.len();
            match self.attempt(index, CONNECT_DEADLINE).await {
                Ok(connection) => return Ok(connection),
                Err(problem) => attempts.push((index, problem)),
            }
        }
        for (index, problem) in &mut attempts {
            if matches!(problem, AttemptProblem::TimedOut(_)) {
                match self.attempt(*index, PATIENT_DEADLINE).await {
                    Ok(connection) => return Ok(connection),
                    Err(again) => *problem = again,
                }
            }
        }
        Err(self.nobody(attempts))
    }

    /// Says that a node answered the connection but not the call (its process hangs, it is cut off from the others): the next
    /// [`Servers::connect`] begins with the node after it.
    pub fn avoid(&self, address: &ServerAddress) {
        if let Some(index) = self.addresses().position(|known| known == address) {
            let next = (index + 1) % self.nodes.len();
            // Only if it is still first: another task may have found a better one meanwhile.
            let _ = self.first.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    async fn attempt(&self, index: usize, deadline: Duration) -> Result<Connection, AttemptProblem> {
        let (address, endpoint) = &self.nodes[index];
        let connected = tokio::time::timeout(deadline, endpoint.connect())
            .await
            .map_err(|_| AttemptProblem::TimedOut(deadline))?;
        let channel = connected.map_err(|error| match rustls_error(&error) {
            Some(cause) => AttemptProblem::Untrusted(cause),
            None => AttemptProblem::Failed(error),
        })?;
        self.first.store(index, Ordering::Relaxed);
        Ok(Connection { address: address.clone(), channel })
    }

    fn nobody(&self, attempts: Vec<(usize, AttemptProblem)>) -> NoServer {
        let attempts = attempts
            .into_iter()
            .map(|(index, problem)| Attempt { address: self.nodes[index].0.clone(), problem })
            .collect();
        NoServer { attempts }
    }
}

fn endpoint(address: &ServerAddress, trust: Trust<'_>) -> Result<Endpoint, ServersError> {
    let (ca, identity) = match trust {
        Trust::Plain => return plain_endpoint(address),
        Trust::Joining(ca) => (ca, None),
        Trust::Mutual(credentials) => (credentials.ca(), Some(credentials.tls_identity())),
    };
    if address.scheme() == Some(Scheme::Http) {
        return Err(wrong_scheme(address, "https", "nothing but --dev goes without TLS"));
    }
    let mut tls = ClientTlsConfig::new().domain_name(SERVER_NAME);
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let verifier = Arc::new(SchedulerVerifier::new(ca)?);
    tuned(address, "https")?.tls_config_with_verifier(tls, verifier).map_err(ServersError::Tls)
}

fn plain_endpoint(address: &ServerAddress) -> Result<Endpoint, ServersError> {
    if address.scheme() == Some(Scheme::Https) {
        return Err(wrong_scheme(address, "http", "there are no credentials to speak TLS with"));
    }
    if !address.is_loopback() {
        let address = address.clone();
        return Err(ServersError::NotLoopback { address });
    }
    tuned(address, "http")
}

fn tuned(address: &ServerAddress, scheme: &str) -> Result<Endpoint, ServersError> {
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|_| AddressError { found: address.to_string() })?;
    Ok(endpoint
        // Holds for the connections that a channel opens again by itself; ours have a deadline around the whole.
        .connect_timeout(PATIENT_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

fn wrong_scheme(address: &ServerAddress, expected: &'static str, reason: &'static str) -> ServersError {
    ServersError::Scheme { address: address.clone(), expected, reason }
}

/// The TLS error within an error, if that is what it comes from. An `io::Error` hides what it carries from `source`, hence the look inside.
pub(super) fn rustls_error(error: &(dyn StdError + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        let carried = current
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref())
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(found) = carried.or_else(|| current.downcast_ref()) {
            return Some(found.clone());
        }
        next = current.source();
    }
    None
}

/// The last error of a chain: tonic's own words are "transport error".
fn innermost(error: &tonic::transport::Error) -> String {
    let mut current: &dyn StdError = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

fn list(attempts: &[Attempt]) -> String {
    let each: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    each.join("; ")
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.problem)
    }
}
