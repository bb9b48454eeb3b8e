//! Nodes in this process over real sockets, callers with and without certificates, and an agent made of the test's own words.

#![allow(dead_code, reason = "each suite uses its part")]

use std::{
    error::Error,
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use supercloud_proto::{
    pki::{Credentials, Servers, Trust, join::fetch_ca, request},
    v1::{
        self, agent_message::Message as Up, agent_service_client::AgentServiceClient,
        scheduler_message::Message as Down, scheduler_service_client::SchedulerServiceClient,
    },
};
use supercloud_scheduler::{
    commands::{self, Addresses},
    config::{Config, Texts},
    server::{self, Node},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Longest wait for anything; generous, since two busy cores are shared by many tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Outcome<Option<T>>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Outcome<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(format!("{what}: not within {DEADLINE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two addresses that were free a moment ago.
pub(crate) async fn free_addresses() -> Outcome<(String, String)> {
    let (one, two) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    Ok((one.local_addr()?.to_string(), two.local_addr()?.to_string()))
}

fn config(settings: &[(&'static str, &str)]) -> Outcome<Config> {
    let mut texts = Texts::default();
    for (key, value) in settings {
        texts.set(key, *value, "test");
    }
    Ok(Config::check(&texts)?)
}

/// Settings of a node without certificates that founds a cluster.
pub(crate) fn dev_config(directory: &Path) -> Outcome<Config> {
    config(&[
        ("dev", "true"),
        ("data_dir", &directory.display().to_string()),
        ("api_listen", "127.0.0.1:0"),
        ("peer_listen", "127.0.0.1:0"),
        ("http_listen", "127.0.0.1:0"),
    ])
}

/// A node without certificates, and a channel to it.
pub(crate) async fn dev_node(directory: &Path) -> Outcome<(Node, Channel)> {
    let node = server::start(&dev_config(directory)?).await?;
    ready(&node).await?;
    let channel = connect(&node, Trust::Plain).await?;
    Ok((node, channel))
}

/// A further node without certificates, of the cluster of the node at `api`; one that was there before where the directory is not blank.
pub(crate) async fn dev_join(directory: &Path, api: &str) -> Outcome<Node> {
    let directory = directory.display().to_string();
    let config = config(&[
        ("dev", "true"),
        ("join", api),
        ("data_dir", &directory),
        ("api_listen", "127.0.0.1:0"),
        ("peer_listen", "127.0.0.1:0"),
        ("http_listen", "127.0.0.1:0"),
    ])?;
    Ok(server::start(&config).await?)
}

/// How many nodes vote, as this one knows it.
pub(crate) fn voters(node: &Node) -> usize {
    node.core().status().members.voters().count()
}

/// Three nodes that vote, of which the first leads, and a channel to each.
pub(crate) async fn three(directory: &Path) -> Outcome<(Vec<Node>, Vec<SchedulerServiceClient<Channel>>)> {
    let (first, channel) = dev_node(&directory.join("n1")).await?;
    let mut clients = vec![SchedulerServiceClient::new(channel)];
    let at = first.api_address().to_string();
    let mut nodes = vec![first];
    for name in ["n2", "n3"] {
        let node = dev_join(&directory.join(name), &at).await?;
        clients.push(SchedulerServiceClient::new(connect(&node, Trust::Plain).await?));
        nodes.push(node);
        let all = &nodes;
        until("all vote", || async { Ok(all.iter().all(|node| voters(node) == all.len()).then_some(())) })
            .await?;
    }
    until("the first leads", || {
        let mut client = clients[0].clone();
        async move {
            let led =
                client.list(v1::ListNodesRequest {}).await.map_or(0, |listed| listed.into_inner().leader);
            if led != 1 {
                let back = v1::TransferLeadershipRequest { request_id: String::new(), node_id: 1 };
                // Refused while nobody leads.
                let _ = client.transfer_leadership(back).await;
            }
            Ok((led == 1).then_some(()))
        }
    })
    .await?;
    Ok((nodes, clients))
}

/// Founds a cluster with certificates in `directory`; its first node, and an operator.
pub(crate) async fn tls_node(directory: &Path) -> Outcome<(Node, Credentials)> {
    let (api, peer) = free_addresses().await?;
    let (data, out) = (directory.join("n1"), directory.join("anna.pem"));
    let addresses = Addresses::check(&api, &peer, Vec::new())?;
    commands::init(&data, &"london".parse()?, addresses, Some((&"anna".parse()?, &out)))?;
    let node = run(&data, &api, &peer).await?;
    ready(&node).await?;
    Ok((node, Credentials::load(&out)?))
}

/// Runs a node whose directory is made.
pub(crate) async fn run(data: &Path, api: &str, peer: &str) -> Outcome<Node> {
    let data = data.display().to_string();
    Ok(server::start(&config(&[
        ("data_dir", &data),
        ("api_listen", api),
        ("peer_listen", peer),
        ("http_listen", "127.0.0.1:0"),
    ])?)
    .await?)
}

/// Waits until the cluster is founded and the node answers reads.
pub(crate) async fn ready(node: &Node) -> Outcome {
    until("the node serves", || async {
        Ok(node.core().read().await.ok().filter(|state| state.cluster_id().is_some()).map(drop))
    })
    .await
}

pub(crate) async fn connect(node: &Node, trust: Trust<'_>) -> Outcome<Channel> {
    Ok(Servers::new(&[node.api_address().to_string()], trust)?.connect().await?.channel)
}

/// Makes a token as an operator.
pub(crate) async fn token(
    operator: Channel,
    role: v1::TokenRole,
    name: &str,
    borough: &str,
) -> Outcome<String> {
    let request = v1::CreateTokenRequest {
        role: role.into(),
        name: name.to_owned(),
        borough: borough.to_owned(),
        ..Default::default()
    };
    Ok(SchedulerServiceClient::new(operator).create_token(request).await?.into_inner().token)
}

/// Trades a token for credentials.
pub(crate) async fn join(node: &Node, token: &str) -> Outcome<Credentials> {
    let address = node.api_address().to_string();
    let ca = fetch_ca(&address, &token.parse()?).await?;
    let made = request::generate()?;
    let request = v1::JoinRequest { token: token.to_owned(), csr_pem: made.csr_pem, ..Default::default() };
    let channel = connect(node, Trust::Joining(&ca)).await?;
    let joined = SchedulerServiceClient::new(channel).join(request).await?.into_inner();
    Ok(Credentials::new(ca, &joined.certificate_pem, &made.key_pem)?)
}

/// A small service.
pub(crate) fn spec(borough: &str, workload: &str, count: u32) -> v1::WorkloadSpec {
    let container = v1::ContainerSpec { image: "supercloud/hello:1".to_owned(), ..Default::default() };
    let task =
        v1::TaskSpec { name: "main".to_owned(), driver: Some(v1::task_spec::Driver::Container(container)) };
    v1::WorkloadSpec {
        workload: workload.to_owned(),
        borough: borough.to_owned(),
        kind: v1::WorkloadKind::Service.into(),
        count,
        priority: 50,
        tasks: vec![task],
        resources: Some(v1::Resources { cpu_millis: 100, memory_bytes: 32 << 20, ..Default::default() }),
        ..Default::default()
    }
}

/// An agent: what it says is the test's, what it hears is checked there.
pub(crate) struct Agent {
    pub(crate) client: AgentServiceClient<Channel>,
    pub(crate) say: mpsc::Sender<v1::AgentMessage>,
    pub(crate) hear: Streaming<v1::SchedulerMessage>,
}

pub(crate) fn hello(host: &str, incarnation: &str) -> v1::Hello {
    let amounts =
        v1::HostAmounts { cpu_millis: 4_000, memory_bytes: 4 << 30, disk_bytes: 40 << 30, network_mbits: 0 };
    let driver = v1::DriverInfo { name: "docker".to_owned(), healthy: true, ..Default::default() };
    let inventory = v1::Inventory {
        site: "hounslow".to_owned(),
        address: "127.0.0.1".to_owned(),
        capacity: Some(amounts),
        reserved: Some(v1::HostAmounts::default()),
        arch: "amd64".to_owned(),
        port_first: 20_000,
        port_last: 20_999,
        drivers: vec![driver],
        ..Default::default()
    };
    v1::Hello {
        host: host.to_owned(),
        cluster_id: String::new(),
        inventory: Some(inventory),
        protocol: 1,
        incarnation: incarnation.to_owned(),
    }
}

impl Agent {
    /// Opens a session and says hello.
    pub(crate) async fn open(channel: Channel, hello: v1::Hello) -> Outcome<Self> {
        let (say, said) = mpsc::channel(16);
        let mut client = AgentServiceClient::new(channel);
        say.send(v1::AgentMessage { message: Some(Up::Hello(hello)) }).await?;
        let hear = client.session(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { client, say, hear })
    }

    pub(crate) async fn say(&self, message: Up) -> Outcome {
        Ok(self.say.send(v1::AgentMessage { message: Some(message) }).await?)
    }

    /// The next message; an error at the end of the session.
    pub(crate) async fn next(&mut self) -> Outcome<Down> {
        let message = tokio::time::timeout(DEADLINE, self.hear.message()).await??;
        Ok(message.and_then(|message| message.message).ok_or("the session has ended")?)
    }

    /// The welcome, and the whole first set of orders.
    pub(crate) async fn welcomed(&mut self) -> Outcome<(v1::Welcome, Vec<v1::Order>)> {
        let Down::Welcome(welcome) = self.next().await? else { return Err("expected a welcome".into()) };
        let mut orders = Vec::new();
        loop {
            let Down::Orders(part) = self.next().await? else { return Err("expected orders".into()) };
            assert!(part.full, "the first orders are the full set");
            orders.extend(part.orders);
            if !part.more {
                return Ok((welcome, orders));
            }
        }
    }

    /// The next orders that changed; other messages are passed over.
    pub(crate) async fn orders(&mut self) -> Outcome<Vec<v1::Order>> {
        loop {
            if let Down::Orders(part) = self.next().await? {
                return Ok(part.orders);
            }
        }
    }

    /// Reports that an instance is in a state, and waits until that is acknowledged.
    pub(crate) async fn report(
        &mut self,
        order: &v1::Order,
        state: v1::InstanceState,
        sequence: u64,
    ) -> Outcome {
        let report = v1::InstanceReport {
            instance: order.instance.clone(),
            sequence,
            order_index: order.index,
            state: state.into(),
            time_ms: 1,
            ..Default::default()
        };
        self.say(Up::Reports(v1::Reports { reports: vec![report] })).await?;
        loop {
            if let Down::ReportsAck(ack) = self.next().await? {
                assert_eq!(ack.sequence, sequence);
                return Ok(());
            }
        }
    }

    /// Answers the next request for logs with these bytes.
    pub(crate) async fn answer_logs(&mut self, data: &[u8]) -> Outcome<v1::LogsRequest> {
        let asked = loop {
            if let Down::OpenStream(open) = self.next().await? {
                break open;
            }
        };
        let Some(v1::open_stream::Purpose::Logs(request)) = asked.purpose else {
            return Err("expected a request for logs".into());
        };
        use v1::attach_up::Message;
        let piece = v1::LogsResponse { data: data.to_vec(), stderr: false };
        let up = |message| v1::AttachUp { message: Some(message) };
        let messages = [up(Message::StreamId(asked.stream_id)), up(Message::Logs(piece))];
        let mut down = self.client.attach(tokio_stream::iter(messages)).await?.into_inner();
        // The other end closes it once it has all.
        while let Ok(Some(_)) = down.message().await {}
        Ok(request)
    }
}
