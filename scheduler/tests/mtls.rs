//! The whole of mTLS over real sockets: a tonic server with the cluster's credentials, and everybody who may and may not reach it.
//!
//! The server serves the standard health service, and notes who called by the client's certificate.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use supercloud_proto::name::ClusterName;
use supercloud_proto::pki::join::{FetchCaError, fetch_ca};
use supercloud_proto::pki::{Credentials, Identity, SERVER_NAME, Servers, Token, Trust, identity, request};
use supercloud_scheduler::ca::{Ca, Grant};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server, ServerTlsConfig};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
/// Who called: nobody, or somebody, or a certificate that names nobody of the cluster.
type Caller = Option<Result<Identity, identity::IdentityError>>;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[expect(clippy::unwrap_used, reason = "a constant that is a name")]
fn london() -> ClusterName {
    ClusterName::new("london").unwrap()
}

fn scheduler() -> Identity {
    Identity::Scheduler { node: 1 }
}

#[expect(clippy::unwrap_used, reason = "a constant that is a name")]
fn agent() -> Identity {
    Identity::Agent { host: "host-1".parse().unwrap() }
}

fn credentials(ca: &Ca, identity: Identity, now: SystemTime) -> Outcome<Credentials> {
    let request = request::generate()?;
    let certificate = ca.sign(&request.csr_pem, &Grant::from(identity), now)?;
    Ok(Credentials::new(ca.certificate().clone(), &certificate, &request.key_pem)?)
}

/// What the authority never signs: a server certificate with the schedulers' name that belongs to somebody else.
fn dressed_up_as_scheduler(ca: &Ca, identity: &Identity) -> Outcome<Credentials> {
    let both = ca.to_pem();
    let ca_key = PrivatePkcs8KeyDer::from_pem_slice(both.as_bytes())?;
    let issuer = Issuer::from_ca_cert_der(ca.certificate().der(), KeyPair::try_from(&ca_key)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    params.subject_alt_names.push(SanType::URI(identity.uri(&london()).try_into()?));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Credentials::new(ca.certificate().clone(), &certificate, &key.serialize_pem())?)
}

/// A server on a port of its own, ended with the test.
struct Running {
    address: String,
    callers: mpsc::UnboundedReceiver<Caller>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(tls: Option<ServerTlsConfig>) -> Outcome<Running> {
    let (note, callers) = mpsc::unbounded_channel();
    let watch = move |request: Request<()>| -> Result<Request<()>, Status> {
        let caller = identity::of_request(&request, &london());
        note.send(caller).map_err(|_| Status::aborted("the test has ended"))?;
        Ok(request)
    };
    let (_, health) = tonic_health::server::health_reporter();
    let service = tonic::service::interceptor::InterceptedService::new(health, watch);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls)?;
    }
    let task = tokio::spawn(server.add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    Ok(Running { address, callers, task })
}

async fn call(channel: Channel) -> Result<(), Status> {
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(|_| ())
}

async fn connect(address: &str, trust: Trust<'_>) -> Outcome<Channel> {
    Ok(Servers::new(&[address.to_owned()], trust)?.connect().await?.channel)
}

/// Connects and calls. A server's refusal of a client certificate arrives, under TLS 1.3, with the first answer only.
async fn try_call(address: &str, trust: Trust<'_>) -> Outcome {
    Ok(call(connect(address, trust).await?).await?)
}

#[tokio::test]
async fn a_caller_is_known_by_the_certificate_and_a_newcomer_as_nobody() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now)?;
    let mut server = serve(Some(credentials(&ca, scheduler(), now)?.api_server_tls()?)).await?;
    let mine = credentials(&ca, agent(), now)?;
    try_call(&server.address, Trust::Mutual(&mine)).await?;
    assert_eq!(server.callers.recv().await, Some(Some(Ok(agent()))));
    try_call(&server.address, Trust::Joining(ca.certificate())).await?;
    assert_eq!(server.callers.recv().await, Some(None));
    // tonic's own configuration, for callers that build channels by themselves.
    let endpoint = Channel::from_shared(format!("https://{}", server.address))?;
    call(endpoint.tls_config(mine.client_tls())?.connect().await?).await?;
    assert_eq!(server.callers.recv().await, Some(Some(Ok(agent()))));
    Ok(())
}

#[tokio::test]
async fn the_peers_port_takes_nobody_without_a_certificate() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now)?;
    let mine = credentials(&ca, scheduler(), now)?;
    let mut server = serve(Some(mine.peer_server_tls()?)).await?;
    try_call(&server.address, Trust::Mutual(&mine)).await?;
    assert_eq!(server.callers.recv().await, Some(Some(Ok(scheduler()))));
    assert!(try_call(&server.address, Trust::Joining(ca.certificate())).await.is_err());
    assert!(server.callers.try_recv().is_err(), "the refused call reached the service");
    Ok(())
}

#[tokio::test]
async fn a_foreign_or_expired_certificate_reaches_no_service() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now - 3 * YEAR)?;
    let mut server = serve(Some(credentials(&ca, scheduler(), now)?.api_server_tls()?)).await?;
    let expired = credentials(&ca, agent(), now - 2 * YEAR)?;
    assert!(try_call(&server.address, Trust::Mutual(&expired)).await.is_err());
    // Of an authority of the same name, so that only the signature tells; it shows our scheduler its own certificate.
    let foreign = credentials(&Ca::create(&london(), now)?, agent(), now)?;
    let tls =
        foreign.client_tls().ca_certificate(tonic::transport::Certificate::from_pem(ca.certificate().pem()));
    let endpoint = Channel::from_shared(format!("https://{}", server.address))?.tls_config(tls)?;
    let reached = match endpoint.connect().await {
        Ok(channel) => call(channel).await.is_ok(),
        Err(_) => false,
    };
    assert!(!reached);
    assert!(server.callers.try_recv().is_err(), "a refused call reached the service");
    // The same way round, with the right certificate, is open.
    try_call(&server.address, Trust::Mutual(&credentials(&ca, agent(), now)?)).await
}

#[tokio::test]
async fn a_client_believes_only_schedulers_of_its_cluster() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now - 3 * YEAR)?;
    let mine = credentials(&ca, agent(), now)?;
    let impostor = credentials(&ca, Identity::Agent { host: "host-2".parse()? }, now)?;
    let stranger = credentials(&Ca::create(&london(), now)?, scheduler(), now)?;
    let expired = credentials(&ca, scheduler(), now - 2 * YEAR)?;
    let dressed_up = dressed_up_as_scheduler(&ca, &agent())?;
    for (who, theirs) in [
        ("an agent", impostor),
        ("an agent with a server's names", dressed_up),
        ("a stranger", stranger),
        ("an expired one", expired),
    ] {
        let tls = ServerTlsConfig::new().identity(theirs.tls_identity());
        let mut server = serve(Some(tls)).await?;
        let servers = Servers::new(std::slice::from_ref(&server.address), Trust::Mutual(&mine))?;
        let refused = servers.connect().await.err().ok_or(format!("{who} was believed"))?;
        assert!(refused.is_distrust(), "{who}: {refused}");
        assert!(server.callers.try_recv().is_err());
    }
    Ok(())
}

#[tokio::test]
async fn the_servers_name_is_checked() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now)?;
    let server = serve(Some(credentials(&ca, scheduler(), now)?.api_server_tls()?)).await?;
    let tls = |name: &str| credentials(&ca, agent(), now).map(|c| c.client_tls().domain_name(name));
    let endpoint = || Channel::from_shared(format!("https://{}", server.address));
    assert!(endpoint()?.tls_config(tls("elsewhere.example.org")?)?.connect().await.is_err());
    for name in [SERVER_NAME, "localhost", "127.0.0.1"] {
        call(endpoint()?.tls_config(tls(name)?)?.connect().await?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_newcomer_joins_with_a_token() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now)?;
    let mut server = serve(Some(credentials(&ca, scheduler(), now)?.api_server_tls()?)).await?;
    let token: Token = Token::generate(ca.certificate())?.reveal().parse()?;
    let fetched = fetch_ca(&server.address, &token).await?;
    assert_eq!(&fetched, ca.certificate());
    let request = request::generate()?;
    let certificate = ca.sign(&request.csr_pem, &agent().into(), now)?;
    let mine = Credentials::new(fetched, &certificate, &request.key_pem)?;
    try_call(&server.address, Trust::Mutual(&mine)).await?;
    assert_eq!(server.callers.recv().await, Some(Some(Ok(agent()))));
    Ok(())
}

#[tokio::test]
async fn somebody_in_between_is_found_out_before_anything_is_sent() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now)?;
    let token = Token::generate(ca.certificate())?;
    // With an authority of the same name.
    let other = Ca::create(&london(), now)?;
    let theirs = credentials(&other, scheduler(), now)?;
    let mut server = serve(Some(theirs.api_server_tls()?)).await?;
    let refused = fetch_ca(&server.address, &token).await;
    assert!(matches!(refused, Err(FetchCaError::OtherCluster { .. })), "{refused:?}");
    assert!(server.callers.try_recv().is_err());
    // With our authority shown (it is no secret) beside a certificate that it did not sign.
    let chain = theirs.to_pem();
    let leaf = CertificateDer::pem_slice_iter(chain.as_bytes()).next().ok_or("no certificate")??;
    let key = PrivateKeyDer::from_pem_slice(chain.as_bytes())?;
    let shown = serve_chain(vec![leaf, ca.certificate().der().clone()], key).await?;
    let refused = fetch_ca(&shown.to_string(), &token).await;
    assert!(refused.is_err(), "an authority that signed nothing was believed");
    // With an agent's certificate, truly signed.
    let impostor = credentials(&ca, agent(), now)?;
    let server = serve(Some(ServerTlsConfig::new().identity(impostor.tls_identity()))).await?;
    let refused = fetch_ca(&server.address, &token).await;
    assert!(matches!(refused, Err(FetchCaError::BadCertificate { .. })), "{refused:?}");
    Ok(())
}

/// A TLS server that shows any chain, and takes one connection.
async fn serve_chain(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Outcome<SocketAddr> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let signing = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, signing));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut tls = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
        tls.read_u8().await
    });
    Ok(address)
}

#[tokio::test]
async fn a_dead_node_and_a_hanging_one_cost_less_than_two_seconds() -> Outcome {
    let now = SystemTime::now();
    let ca = Ca::create(&london(), now)?;
    let mut server = serve(Some(credentials(&ca, scheduler(), now)?.api_server_tls()?)).await?;
    // Bound and gone: refuses. Bound and never accepted: the kernel connects, and nobody answers.
    let dead = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
    let hanging = TcpListener::bind("127.0.0.1:0").await?;
    let addresses = [dead, hanging.local_addr()?.to_string(), server.address.clone()];
    let mine = credentials(&ca, agent(), now)?;
    let servers = Servers::new(&addresses, Trust::Mutual(&mine))?;
    let begun = Instant::now();
    let connection = servers.connect().await?;
    call(connection.channel).await?;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(connection.address.to_string(), server.address);
    assert_eq!(server.callers.recv().await, Some(Some(Ok(agent()))));
    // The one that answered is tried first from now on.
    let again = Instant::now();
    servers.connect().await?;
    assert!(again.elapsed() < Duration::from_millis(700), "{:?}", again.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_node_to_avoid_is_tried_last_and_dead_ones_are_all_named() -> Outcome {
    let (one, two) = (serve(None).await?, serve(None).await?);
    let addresses = [one.address.clone(), two.address.clone()];
    let servers = Servers::new(&addresses, Trust::Plain)?;
    let first = servers.connect().await?;
    assert_eq!(first.address.to_string(), one.address);
    call(first.channel).await?;
    servers.avoid(&first.address);
    assert_eq!(servers.connect().await?.address.to_string(), two.address);
    drop((one, two));
    let mut nobody = servers.connect().await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while nobody.is_ok() && Instant::now() < deadline {
        // Aborted tasks close their sockets when the runtime gets to them.
        tokio::task::yield_now().await;
        nobody = servers.connect().await;
    }
    let nobody = nobody.err().ok_or("a closed port answered")?;
    assert!(!nobody.is_distrust());
    assert!(addresses.iter().all(|address| nobody.to_string().contains(address)), "{nobody}");
    Ok(())
}

#[test]
fn without_credentials_only_this_machine_is_spoken_to() {
    let refused = |address: &str, trust: Trust<'_>| Servers::new(&[address.to_owned()], trust).is_err();
    assert!(refused("10.0.0.1:7400", Trust::Plain));
    assert!(refused("scheduler.example.org", Trust::Plain));
    assert!(refused("https://127.0.0.1:7400", Trust::Plain));
    assert!(!refused("127.0.0.1:7400", Trust::Plain) && !refused("http://[::1]:7400", Trust::Plain));
    let ca = Ca::create(&london(), SystemTime::now()).unwrap();
    assert!(refused("http://10.0.0.1:7400", Trust::Joining(ca.certificate())));
    assert!(!refused("10.0.0.1:7400", Trust::Joining(ca.certificate())));
    assert!(Servers::new(&[], Trust::Plain).is_err());
}
