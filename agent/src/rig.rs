//! For tests: a real agent (loop, ledger, session over a real socket) between a scheduler node that the test plays by hand, a fake
//! driver, and a clock that the test moves.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    host::PortRange,
    instance::InstanceReport,
    name::{HostName, SiteName},
    order::Order,
    spec::DriverKind,
    v1::{
        self,
        agent_message::Message as Up,
        agent_service_server::{AgentService, AgentServiceServer},
        scheduler_message::Message as Down,
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    agent::{AgentError, run_over},
    clock::Clock,
    driver::{Mark, Owner, Phase, Seen},
    executor::Drivers,
    fake::FakeDriver,
    inventory::HostSettings,
    reconcile::Now,
};

/// Nothing in these tests may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Length of the lease that the node tells, in milliseconds.
pub(crate) const LEASE: u64 = 30_000;

/// A clock that is moved by hand.
#[derive(Debug, Default)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Now {
        let boot = self.0.load(Ordering::SeqCst);
        Now { unix: 1_700_000_000_000 + boot, boot }
    }
}

/// The node's end of a session.
pub(crate) struct NodeSession {
    pub(crate) hello: v1::Hello,
    up: Streaming<v1::AgentMessage>,
    down: mpsc::Sender<Result<v1::SchedulerMessage, Status>>,
    /// Whether heartbeats are answered.
    pub(crate) answers: bool,
    /// The last heartbeat.
    pub(crate) heartbeat: Option<v1::Heartbeat>,
    /// Heartbeats so far.
    pub(crate) heartbeats: usize,
}

impl NodeSession {
    pub(crate) async fn send(&self, message: Down) {
        let sent = self.down.send(Ok(v1::SchedulerMessage { message: Some(message) })).await;
        sent.expect("the session stands");
    }

    pub(crate) async fn orders(&self, orders: &[Order], index: u64, full: bool, more: bool) {
        let orders = orders.iter().map(Into::into).collect();
        self.send(Down::Orders(v1::Orders { orders, index, full, more })).await;
    }

    pub(crate) async fn acknowledge(&self, sequence: u64) {
        self.send(Down::ReportsAck(v1::ReportsAck { sequence })).await;
    }

    /// The next reports; heartbeats on the way are answered or not.
    pub(crate) async fn reports(&mut self) -> Vec<InstanceReport> {
        timeout(PATIENCE, async {
            loop {
                if let Some(reports) = self.next().await {
                    return reports;
                }
            }
        })
        .await
        .expect("reports in time")
    }

    /// The next message: reports, or `None` for another.
    pub(crate) async fn next(&mut self) -> Option<Vec<InstanceReport>> {
        let message = timeout(PATIENCE, self.up.message()).await.expect("a message in time");
        match message.expect("no error").expect("the session stands").message.expect("a message") {
            Up::Reports(reports) => {
                let convert = |report| InstanceReport::try_from(report).expect("a good report");
                Some(reports.reports.into_iter().map(convert).collect())
            }
            Up::Heartbeat(heartbeat) => {
                self.heartbeats += 1;
                if self.answers {
                    self.send(Down::HeartbeatAck(v1::HeartbeatAck { sequence: heartbeat.sequence })).await;
                }
                self.heartbeat = Some(heartbeat);
                None
            }
            Up::Inventory(_) => None,
            Up::Hello(_) => panic!("a second hello"),
        }
    }

    /// Reads reports until one is as asked for; acknowledges everything on the way when `ack`.
    pub(crate) async fn until(
        &mut self,
        ack: bool,
        wanted: impl Fn(&InstanceReport) -> bool,
    ) -> InstanceReport {
        let mut passed = Vec::new();
        let search = async {
            loop {
                for report in self.reports().await {
                    if ack {
                        self.acknowledge(report.sequence).await;
                    }
                    if wanted(&report) {
                        return report;
                    }
                    passed.push(report);
                }
            }
        };
        let found = timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("not reported; but: {passed:#?}"))
    }

    /// Serves heartbeats until `done`.
    pub(crate) async fn serve_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let served = timeout(PATIENCE, async {
            while !done(self) {
                self.next().await;
            }
        });
        served.await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }
}

/// The node's end of an attach stream.
pub(crate) struct NodeAttach {
    pub(crate) up: Streaming<v1::AttachUp>,
    pub(crate) down: mpsc::Sender<Result<v1::AttachDown, Status>>,
}

struct Service {
    sessions: mpsc::Sender<NodeSession>,
    attaches: mpsc::Sender<NodeAttach>,
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = BoxStream<'static, Result<v1::SchedulerMessage, Status>>;
    type AttachStream = BoxStream<'static, Result<v1::AttachDown, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut up = request.into_inner();
        let (down, queue) = mpsc::channel(64);
        let Some(v1::AgentMessage { message: Some(Up::Hello(hello)) }) = up.message().await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let session = NodeSession { hello, up, down, answers: true, heartbeat: None, heartbeats: 0 };
        self.sessions.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachUp>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (down, queue) = mpsc::channel(64);
        let attach = NodeAttach { up: request.into_inner(), down };
        self.attaches.send(attach).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }
}

/// An agent that runs.
struct Running {
    task: JoinHandle<Result<(), AgentError>>,
    end: oneshot::Sender<()>,
}

/// Everything.
pub(crate) struct Rig {
    pub(crate) docker: Arc<FakeDriver>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) attaches: mpsc::Receiver<NodeAttach>,
    dir: tempfile::TempDir,
    address: SocketAddr,
    sessions: mpsc::Receiver<NodeSession>,
    server: JoinHandle<()>,
    running: Option<Running>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.abort();
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

impl Rig {
    /// A node that listens, and no agent yet.
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let (sessions_sender, sessions) = mpsc::channel(8);
        let (attaches_sender, attaches) = mpsc::channel(8);
        let service = Service { sessions: sessions_sender, attaches: attaches_sender };
        let server = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(AgentServiceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await;
            served.expect("serves");
        });
        Self {
            docker: Arc::new(FakeDriver::new(DriverKind::Docker)),
            clock: Arc::new(HandClock(AtomicU64::new(1_000_000))),
            attaches,
            dir: tempfile::tempdir().expect("a directory"),
            address,
            sessions,
            server,
            running: None,
        }
    }

    /// A node that listens, and an agent that runs.
    pub(crate) async fn started() -> Self {
        let mut rig = Self::new().await;
        rig.start();
        rig
    }

    pub(crate) fn owner() -> Owner {
        Owner { cluster: "c".repeat(32), host: HostName::new("h1").expect("a name") }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self) {
        let settings = HostSettings {
            site: SiteName::new("slough").expect("a name"),
            rack: None,
            address: "127.0.0.1".to_owned(),
            labels: BTreeMap::new(),
            taints: BTreeMap::new(),
            offer_cpu: Some(MilliCpu(1000)),
            offer_memory: Some(Bytes(1 << 30)),
            offer_disk: None,
            offer_network: None,
            network_reserved: Default::default(),
            reserved: Some(Amounts::default()),
            ports: PortRange { first: 20_000, last: 20_999 },
            data_dir: self.dir.path().to_owned(),
            devices: Default::default(),
            shared_cpus: Vec::new(),
        };
        let drivers: Arc<Drivers> =
            Arc::new(BTreeMap::from([(DriverKind::Docker, Arc::clone(&self.docker) as Arc<_>)]));
        let (end, ended) = oneshot::channel();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let servers = vec![self.address.to_string()];
        let until = async {
            // A dropped sender ends it too.
            let _ = ended.await;
        };
        let task = tokio::spawn(run_over(settings, servers, Self::owner(), drivers, clock, until));
        self.running = Some(Running { task, end });
    }

    /// Ends the agent as SIGTERM does.
    pub(crate) async fn end(&mut self) {
        let running = self.running.take().expect("runs");
        running.end.send(()).expect("runs");
        let ended = timeout(PATIENCE, running.task).await.expect("ends in time");
        ended.expect("no panic").expect("ends well");
    }

    /// Ends the agent as a crash does, as far as that is possible within one process.
    pub(crate) async fn crash(&mut self) {
        let running = self.running.take().expect("runs");
        running.task.abort();
        assert!(running.task.await.is_err(), "it was broken off");
    }

    /// The next session, with no welcome said.
    pub(crate) async fn session(&mut self) -> NodeSession {
        timeout(PATIENCE, self.sessions.recv()).await.expect("a session in time").expect("serves")
    }

    /// The next session, welcomed.
    pub(crate) async fn welcomed(&mut self) -> NodeSession {
        let session = self.session().await;
        let welcome = v1::Welcome {
            host_id: 1,
            cluster_id: "c".repeat(32),
            heartbeat_every_ms: 100,
            lease_ms: LEASE,
            servers: Vec::new(),
            reconnect_spread_ms: 0,
        };
        session.send(Down::Welcome(welcome)).await;
        session
    }

    /// The next session, welcomed and with all orders sent.
    pub(crate) async fn synced(&mut self, orders: &[Order]) -> NodeSession {
        let session = self.welcomed().await;
        let index = orders.iter().map(|order| order.index).max().unwrap_or(1);
        session.orders(orders, index, true, false).await;
        session
    }

    /// An object of this agent as if it had been there before.
    pub(crate) fn put(&self, order: &Order, phase: Phase) {
        let mark = Mark {
            owner: Self::owner(),
            instance: order.instance,
            workload: order.workload.clone(),
            revision: order.revision,
            task: order.tasks[0].name.clone(),
            order_index: order.index,
        };
        let runtime_id = format!("fake-{}-{}", order.instance, order.tasks[0].name);
        self.docker.put(Seen { mark, runtime_id, phase, cpus: None });
    }
}

/// Polls until a fact holds.
pub(crate) async fn wait_for(what: &str, mut fact: impl FnMut() -> bool) {
    let polled = timeout(PATIENCE, async {
        while !fact() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    polled.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
