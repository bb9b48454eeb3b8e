//! Many agents' sessions, the real ones, over several nodes played here: one node dies, and only its agents come back, spread.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream::BoxStream};
use supercloud_proto::{
    amount::{Amounts, MilliCpu},
    host::{Inventory, PortRange},
    name::{HostName, SiteName},
    v1::{
        self,
        agent_service_server::{AgentService, AgentServiceServer},
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Access, Setup, run};
use crate::{
    executor::Drivers,
    inventory::Meter,
    observed::View,
    rig::{HandClock, PATIENCE},
};

const NODES: usize = 3;
const AGENTS: usize = 60;
/// What the nodes tell.
const SPREAD: Duration = Duration::from_secs(1);

type Down = mpsc::Sender<Result<v1::SchedulerMessage, Status>>;

/// A session that was opened.
#[derive(Debug, Clone)]
struct Opened {
    host: String,
    node: usize,
    at: Instant,
}

/// What all nodes have seen, in order.
type Seen = Arc<Mutex<Vec<Opened>>>;

/// A node that welcomes everybody and then says nothing.
#[derive(Clone)]
struct Node {
    number: usize,
    seen: Seen,
    open: Arc<Mutex<Vec<Down>>>,
}

#[tonic::async_trait]
impl AgentService for Node {
    type SessionStream = BoxStream<'static, Result<v1::SchedulerMessage, Status>>;
    type AttachStream = BoxStream<'static, Result<v1::AttachDown, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut up = request.into_inner();
        let Some(v1::AgentMessage { message: Some(v1::agent_message::Message::Hello(hello)) }) =
            up.message().await?
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (down, queue) = mpsc::channel(4);
        let welcome = v1::Welcome {
            heartbeat_every_ms: 60_000,
            lease_ms: 600_000,
            reconnect_spread_ms: SPREAD.as_millis() as u64,
            ..v1::Welcome::default()
        };
        let welcome =
            v1::SchedulerMessage { message: Some(v1::scheduler_message::Message::Welcome(welcome)) };
        down.try_send(Ok(welcome)).map_err(|_| Status::internal("full at once"))?;
        self.open.lock().unwrap().push(down);
        // What the agent says is read and not answered.
        tokio::spawn(async move { while let Ok(Some(_)) = up.message().await {} });
        self.seen.lock().unwrap().push(Opened { host: hello.host, node: self.number, at: Instant::now() });
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }

    async fn attach(
        &self,
        _: Request<Streaming<v1::AttachUp>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }
}

/// A node that serves.
struct Serving {
    node: Node,
    server: JoinHandle<()>,
}

impl Serving {
    /// It takes nobody any more, and all its sessions end in the same moment.
    async fn die(self) {
        self.server.abort();
        // Until its port is closed; an error says that it was aborted.
        let _ = self.server.await;
        self.node.open.lock().unwrap().clear();
    }
}

async fn serve(number: usize, seen: &Seen) -> (String, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let node = Node { number, seen: seen.clone(), open: Arc::default() };
    let service = AgentServiceServer::new(node.clone());
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(async move { serving.await.unwrap() });
    (address, Serving { node, server })
}

fn inventory() -> Inventory {
    Inventory {
        site: SiteName::new("slough").unwrap(),
        rack: None,
        address: "127.0.0.1".to_owned(),
        capacity: Amounts::default(),
        reserved: Amounts::default(),
        network: Default::default(),
        network_reserved: Default::default(),
        arch: "amd64".to_owned(),
        kernel: "6.1".to_owned(),
        os: "debian-12".to_owned(),
        labels: BTreeMap::new(),
        ports: PortRange { first: 20_000, last: 20_999 },
        drivers: BTreeMap::new(),
        agent_version: "0".to_owned(),
        boot_id: "boot".to_owned(),
        devices: Default::default(),
        taints: Default::default(),
        nodes: Vec::new(),
    }
}

fn setup(number: usize, servers: Vec<String>) -> Setup {
    let (to_loop, mut from_session) = mpsc::channel(super::LOOP_QUEUE);
    tokio::spawn(async move { while from_session.recv().await.is_some() {} });
    // Their other ends are gone, which a session notices only when it waits for a change; so they are kept.
    let (inventory, of_host) = watch::channel(inventory());
    let (view, seen) = watch::channel(Arc::new(View::default()));
    tokio::spawn(async move {
        let _kept = (inventory, view);
        std::future::pending::<()>().await;
    });
    Setup {
        host: HostName::new(format!("h{number}")).unwrap(),
        cluster: String::new(),
        incarnation: format!("agent-{number}"),
        servers,
        access: Access::Plain,
        inventory: of_host,
        meter: Meter::new("/".into(), MilliCpu(1000)),
        clock: Arc::new(HandClock::default()),
        drivers: Arc::new(Drivers::new()),
        view: seen,
        to_loop,
    }
}

async fn sessions(seen: &Seen, count: usize) -> Vec<Opened> {
    let all = tokio::time::timeout(PATIENCE, async {
        loop {
            let all = seen.lock().unwrap().clone();
            if all.len() >= count {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    all.await.unwrap_or_else(|_| panic!("{count} sessions in time, not {}", seen.lock().unwrap().len()))
}

#[tokio::test]
async fn the_death_of_a_node_reconnects_only_its_agents_and_spread() {
    let seen = Seen::default();
    let (mut addresses, mut nodes) = (Vec::new(), Vec::new());
    for number in 0..NODES {
        let (address, node) = serve(number, &seen).await;
        addresses.push(address);
        nodes.push(node);
    }
    let (_end, ends) = watch::channel(false);
    let mut fleet = JoinSet::new();
    for number in 0..AGENTS {
        fleet.spawn(run(setup(number, addresses.clone()), ends.clone()));
    }
    let first = sessions(&seen, AGENTS).await;
    let dies = 1;
    let mut lost: Vec<String> =
        first.iter().filter(|one| one.node == dies).map(|one| one.host.clone()).collect();
    assert!(lost.len() > AGENTS / NODES / 3, "the nodes are chosen by chance: {}", lost.len());

    let died = Instant::now();
    nodes.remove(dies).die().await;
    let all = sessions(&seen, AGENTS + lost.len()).await;
    let again = &all[AGENTS..];
    let mut back: Vec<String> = again.iter().map(|one| one.host.clone()).collect();
    back.sort_unstable();
    lost.sort_unstable();
    assert_eq!(back, lost, "its agents and no others");
    let to: BTreeMap<usize, usize> = again.iter().fold(BTreeMap::new(), |mut to, one| {
        *to.entry(one.node).or_default() += 1;
        to
    });
    assert!(to.len() == NODES - 1 && !to.contains_key(&dies), "{to:?}");
    // A handful comes at once by chance, but not all; and none is kept waiting for longer than it was told.
    let after: Vec<Duration> = again.iter().map(|one| one.at - died).collect();
    let soon = after.iter().filter(|after| **after < SPREAD / 4).count();
    assert!(soon <= lost.len() * 2 / 3, "{soon} of {} came in the first quarter: {after:?}", lost.len());
    assert!(after.iter().max() < Some(&(SPREAD * 5)), "{after:?}");
    fleet.shutdown().await;
}
