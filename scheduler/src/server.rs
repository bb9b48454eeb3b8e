//! A node as a whole: its directory, its ports, and the order in which they open and close. Knows every part and decides nothing for them.
//!
//! ```text
//!   bind both ports -> who am I (directory; in development: found or join) -> log, state, loops -> serve -> readiness
//!   not serving -> leadership handed over -> streams ended, calls drained (with a deadline) -> log closed
//! ```

mod gathering;
mod http;
mod limits;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{Stream, StreamExt as _};
use supercloud_proto::{
    pki::{Credentials, Servers, Trust},
    v1,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::transport::{ServerTlsConfig, server::TcpIncoming};
use tonic_health::server::HealthReporter;

use gathering::Gathering;

use crate::{
    admission::Admission,
    api::{Api, caller::Recognition, gate::Gate},
    commands,
    config::Config,
    core::{Core, Settings, StartError as CoreError},
    home::{self, Home, HomeError, Origin, Record},
    peers::PeerTrust,
    raft::{NodeId, Role},
    sessions::{Sessions, relay::Relays},
    space,
    state::level::{FIRST, Level},
};

/// How often a node tries whether it can serve. A real read: a node that looks well and answers nothing is not ready.
const READINESS_PERIOD: Duration = Duration::from_secs(1);
/// How long calls and streams may take to end when the node does.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long handing over the leadership may take then: an election, where the other node is well.
const HAND_OVER_DEADLINE: Duration = Duration::from_millis(1500);
/// How long the log may take to close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(15);
/// How long joining a cluster in development is tried: its first node may be starting too.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
/// Wait in between.
const JOIN_AGAIN: Duration = Duration::from_millis(300);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A port cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The log does not start.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The node has lost or damaged what it had.
    #[error("{source}. {advice}")]
    Lost {
        /// What is wrong.
        source: CoreError,
        /// What to do.
        advice: String,
    },
    /// TLS cannot be set up from the node's credentials.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tonic::transport::Error),
    /// The credentials are not a scheduler's.
    #[error(transparent)]
    NotAScheduler(#[from] supercloud_proto::pki::credentials::NotAScheduler),
    /// Reflection cannot be set up; a fault of ours.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The cluster to join refused.
    #[error("joining the cluster at {at}: {problem}")]
    Join {
        /// The node that was asked.
        at: String,
        /// What came of it.
        problem: String,
    },
    /// The machine has no randomness to give.
    #[error("the system gave no random bytes: {0}")]
    Randomness(#[from] getrandom::Error),
}

/// A port that is served.
type Server = JoinHandle<Result<(), tonic::transport::Error>>;

/// A node that runs.
pub struct Node {
    core: Core,
    api_address: SocketAddr,
    ending: watch::Sender<bool>,
    health: HealthReporter,
    readiness: JoinHandle<()>,
    levels: JoinHandle<()>,
    api: Server,
    peers: Server,
    http: Option<(SocketAddr, JoinHandle<()>)>,
    _home: Arc<Home>,
}

/// Who the node is and what it holds.
struct Person {
    record: Record,
    trust: PeerTrust,
    admission: Admission,
    recognition: Recognition,
    tls: Option<(ServerTlsConfig, ServerTlsConfig)>,
    /// When its certificate expires.
    expires: Option<SystemTime>,
}

/// Starts a node. It serves when this returns; whether it is ready is told by the health service.
///
/// # Errors
/// See [`StartError`].
pub async fn start(config: &Config) -> Result<Node, StartError> {
    let home = Home::open(&config.data_dir)?.knowing(config.knows);
    space::make_room(home.directory());
    let (api_port, api_address) = listen(config.api_listen).await?;
    let (peer_port, peer_address) = listen(config.peer_listen).await?;
    let http_port = match config.http_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let person = if config.dev {
        development(&home, config, api_address, peer_address).await?
    } else {
        certified(&home)?
    };
    let log_start = home.start(&person.record)?;
    let record = person.record;
    let mut settings = Settings::new(
        record.cluster.clone(),
        NodeId(record.node),
        home.directory().to_owned(),
        record.peer_address.clone(),
    );
    settings.history = record.history.clone().unwrap_or_default();
    settings.timing = config.timing;
    settings.knows = config.knows;
    tracing::info!(
        cluster = record.cluster,
        node = record.node,
        api = %api_address,
        peers = %peer_address,
        dev = config.dev,
        "a scheduler node starts"
    );
    let core = Core::start(settings, log_start, person.trust).await;
    let core = core.map_err(|source| with_advice(source, record.node, config))?;
    home.note_started(record)?;
    let (ending, ended) = watch::channel(false);
    let sessions = Sessions::start(core.clone(), ended.clone());
    let admission = Arc::new(person.admission);
    let api = Api::new(core.clone(), sessions.clone(), admission, ended.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (api_tls, peer_tls) = person.tls.unzip();
    let api_routes = limits::api_services(&api)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let http = http_port.map(|(port, address)| {
        let onlooker = http::Onlooker {
            core: core.clone(),
            sessions: sessions.clone(),
            expires: person.expires,
            ending: ended.clone(),
        };
        tracing::info!(%address, "health and metrics by HTTP");
        (address, tokio::spawn(http::serve(port, onlooker)))
    });
    let peer_routes = tonic::service::Routes::new(core.peer_service(Arc::new(Relays(sessions))));
    let api_server = with_tls(limits::API.server(), api_tls)?;
    let peer_server = with_tls(limits::PEERS.server(), peer_tls)?;
    let gate = Gate::new(api_routes.prepare(), person.recognition.clone());
    let api_server = api_server.serve_with_incoming_shutdown(gate, incoming(api_port), until(ended));
    let gate = Gate::new(peer_routes.prepare(), person.recognition);
    let peer_server = peer_server.serve_with_incoming(gate, incoming(peer_port));
    let (api, peers) = (tokio::spawn(api_server), tokio::spawn(peer_server));
    let readiness = tokio::spawn(tell_readiness(core.clone(), health.clone()));
    let home = Arc::new(home);
    let levels = tokio::spawn(note_levels(core.clone(), home.clone()));
    Ok(Node { core, api_address, ending, health, readiness, levels, api, peers, http, _home: home })
}

/// Says what to do where the node's data is lost.
fn with_advice(source: CoreError, node: u64, config: &Config) -> StartError {
    if !source.is_loss() {
        return source.into();
    }
    let advice = commands::rebuild_advice(node, &config.data_dir, config.dev);
    StartError::Lost { source, advice }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| StartError::Listen { address, source })
}

fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Gathering>> {
    let accepted =
        TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(limits::TCP_KEEPALIVE));
    accepted.map(|stream| stream.map(Gathering::new))
}

fn with_tls(
    server: tonic::transport::Server,
    tls: Option<ServerTlsConfig>,
) -> Result<tonic::transport::Server, tonic::transport::Error> {
    match tls {
        Some(tls) => server.tls_config(tls),
        None => Ok(server),
    }
}

async fn until(mut ended: watch::Receiver<bool>) {
    // An error means that whoever would say so is gone.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// A node with certificates; `init` or `join` has made its directory.
fn certified(home: &Home) -> Result<Person, StartError> {
    let record = home.known_record()?;
    let (ca, credentials) = home.keys(&record)?;
    warn_of_expiry(&credentials);
    Ok(Person {
        record,
        expires: Some(credentials.expires_at()),
        recognition: Recognition::certificates(credentials.cluster().clone()),
        tls: Some((credentials.api_server_tls()?, credentials.peer_server_tls()?)),
        trust: PeerTrust::Mutual(Box::new(credentials.clone())),
        admission: Admission::new(ca, credentials),
    })
}

fn warn_of_expiry(credentials: &Credentials) {
    const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    let left = credentials.expires_at().duration_since(SystemTime::now()).unwrap_or_default();
    if left < SOON {
        let days = left.as_secs() / (24 * 60 * 60);
        tracing::warn!(days, "this node's certificate expires soon, or has expired");
    }
}

/// A node without certificates, on this machine alone. A blank directory founds a cluster, or joins one.
async fn development(
    home: &Home,
    config: &Config,
    api: SocketAddr,
    peer: SocketAddr,
) -> Result<Person, StartError> {
    home.must_have_no_keys()?;
    tracing::warn!(
        "--dev: NO CERTIFICATES. Whoever reaches this machine's loopback addresses may do everything."
    );
    let record = match (home.record()?, &config.join) {
        (Some(record), _) => record,
        (None, None) => {
            Record::new(home::new_cluster_id()?, 1, api.to_string(), peer.to_string(), Origin::Founded)
        }
        (None, Some(at)) => join_development(at, api, peer, config.knows).await?,
    };
    home.save(&record)?;
    Ok(Person {
        record,
        recognition: Recognition::Dev,
        tls: None,
        expires: None,
        trust: PeerTrust::Plain,
        admission: Admission::development(),
    })
}

async fn join_development(
    at: &str,
    api: SocketAddr,
    peer: SocketAddr,
    level: Level,
) -> Result<Record, StartError> {
    let problem = |problem: String| StartError::Join { at: at.to_owned(), problem };
    let request = v1::JoinRequest {
        api_address: api.to_string(),
        peer_address: peer.to_string(),
        level,
        ..Default::default()
    };
    let servers = Servers::new(&[at.to_owned()], Trust::Plain).map_err(|error| problem(error.to_string()))?;
    let attempt = || async {
        let connection =
            servers.connect().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let mut client = v1::scheduler_service_client::SchedulerServiceClient::new(connection.channel);
        client.join(request.clone()).await.map(tonic::Response::into_inner)
    };
    let joined = timeout(JOIN_DEADLINE, async {
        loop {
            match attempt().await {
                Err(status) if status.code() == tonic::Code::Unavailable => sleep(JOIN_AGAIN).await,
                answer => return answer,
            }
        }
    });
    let joined = joined.await.map_err(|_| problem("nobody answered in time".to_owned()))?;
    let joined = joined.map_err(|status| problem(status.message().to_owned()))?;
    let (api, peer) = (api.to_string(), peer.to_string());
    let record = Record::new(joined.cluster_id, joined.node_id, api, peer, Origin::Joined);
    Ok(record.in_history(joined.history))
}

/// Notes in the directory what level the cluster has reached.
async fn note_levels(core: Core, home: Arc<Home>) {
    let mut states = core.changes();
    let mut noted = FIRST;
    loop {
        let Ok(level) = states.wait_for(|state| state.level() > noted).await.map(|state| state.level())
        else {
            return;
        };
        let (home, note) = (home.clone(), move |home: &Home| home.note_level(level));
        match tokio::task::spawn_blocking(move || note(&home)).await {
            Ok(Ok(())) => {
                tracing::info!(level, "the directory takes a version that knows this level from now on")
            }
            Ok(Err(error)) => {
                tracing::error!(level, %error, "the cluster's feature level could not be noted")
            }
            Err(_) => return,
        }
        noted = level;
    }
}

/// Tells by the health service whether this node can serve.
async fn tell_readiness(core: Core, health: HealthReporter) {
    let mut was = None;
    loop {
        let ready = core.read().await.is_ok();
        if was != Some(ready) {
            let status = if ready {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            tracing::info!(ready, "readiness changed");
            health.set_service_status("", status).await;
            was = Some(ready);
        }
        sleep(READINESS_PERIOD).await;
    }
}

impl Node {
    /// Where it serves its API; the real port where port 0 was asked for.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Where it answers who looks on; the real port where port 0 was asked for.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(address, _)| *address)
    }

    /// The handle on log and state.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Ready when a server has ended by itself, which it should not, or when the state was found to be wrong.
    pub async fn failed(&mut self) -> String {
        let (port, ended) = tokio::select! {
            why = self.core.deviation() => return format!("this node's state is wrong: {why}"),
            ended = &mut self.api => ("API", ended),
            ended = &mut self.peers => ("peers'", ended),
        };
        match ended {
            Ok(Ok(())) => format!("the server of the {port} port has ended"),
            Ok(Err(error)) => format!("the server of the {port} port has failed: {error}"),
            Err(error) => format!("the server of the {port} port has failed: {error}"),
        }
    }

    /// Ends the node in order: nobody new, leadership to another node, streams and calls ended, log closed.
    pub async fn shutdown(mut self) {
        self.readiness.abort();
        self.levels.abort();
        self.health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        hand_over(&self.core).await;
        // Nobody may be left to hear it.
        let _ = self.ending.send(true);
        if !self.api.is_finished() && timeout(DRAIN_DEADLINE, &mut self.api).await.is_err() {
            tracing::warn!("calls did not end in time and are cut off");
            self.api.abort();
        }
        // The others' streams end when they do, not before; they find another leader, or know one already.
        self.peers.abort();
        if let Some((_, http)) = self.http.take() {
            http.abort();
            // Until the port is closed; an error says that it was aborted.
            let _ = http.await;
        }
        if timeout(CLOSE_DEADLINE, self.core.shutdown()).await.is_err() {
            tracing::error!("the log did not close in time");
        }
        tracing::info!("the scheduler node has ended");
    }
}

/// Hands the leadership to the voter that has most of the log.
async fn hand_over(core: &Core) {
    let status = core.status();
    if status.role != Role::Leader {
        return;
    }
    let Some(next) = status.successor() else { return };
    match timeout(HAND_OVER_DEADLINE, core.transfer_leadership(next)).await {
        Ok(Ok(())) => tracing::info!(%next, "the leadership is handed over"),
        Ok(Err(error)) => tracing::warn!(%next, %error, "the leadership could not be handed over"),
        Err(_) => tracing::warn!(%next, "the leadership was not taken in time"),
    }
}
