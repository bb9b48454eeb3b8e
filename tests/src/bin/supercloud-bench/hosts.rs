//! Hosts without agents: each has the session that an agent would have, with a certificate and a connection of its own, and does the least that
//! keeps a host ready. For benches of what the scheduler does with many hosts; where the agents themselves matter, `agents` runs real ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::bytes::Buf as _;
use supercloud_agent::reports::REPORTS_A_MESSAGE;
use supercloud_proto::{
    pki::Credentials,
    v1::{
        self, agent_message::Message as Up, agent_service_client::AgentServiceClient,
        scheduler_message::Message as Down,
    },
};
use supercloud_tests::{Outcome, wrong};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::{enrol::host_name, estate::open};

/// Time between two hosts that connect: a handshake takes both sides about half of it, with two cores.
const CONNECT_EVERY: Duration = Duration::from_millis(3);
/// Wait before a host whose session ended comes back.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Messages that may wait for a node.
const UP_QUEUE: usize = 8;
/// Hosts of one rack.
const HOSTS_A_RACK: usize = 40;

/// What the hosts do with orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// They take them off the wire and do not even decode them: what is measured is the scheduler.
    Heedless,
    /// They report at once that what is ordered runs.
    Prompt,
}

/// What every host offers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// Thousandths of a core.
    pub(crate) cpu_millis: u64,
    /// Memory in GiB.
    pub(crate) memory_gib: u64,
}

/// What all hosts of a fleet know.
#[derive(Clone)]
struct Plan {
    manner: Manner,
    offer: Offer,
    heartbeat_every: Duration,
    ended: Arc<AtomicUsize>,
}

/// Hosts with sessions, which end with this.
pub(crate) struct Fleet {
    _hosts: JoinSet<()>,
    ended: Arc<AtomicUsize>,
}

impl Fleet {
    /// Connects the hosts to the nodes in turn, a little one after the other. They are ready some time after this returns.
    pub(crate) async fn start(
        nodes: &[String],
        credentials: Vec<Credentials>,
        manner: Manner,
        offer: Offer,
        heartbeat_every: Duration,
    ) -> Self {
        let plan = Plan { manner, offer, heartbeat_every, ended: Arc::default() };
        let mut hosts = JoinSet::new();
        for (number, credentials) in credentials.into_iter().enumerate() {
            let host = Host { number, node: nodes[number % nodes.len()].clone(), credentials };
            hosts.spawn(host.live(plan.clone()));
            tokio::time::sleep(CONNECT_EVERY).await;
        }
        Self { _hosts: hosts, ended: plan.ended }
    }

    /// Sessions that ended so far although nobody asked them to.
    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

struct Host {
    number: usize,
    node: String,
    credentials: Credentials,
}

impl Host {
    async fn live(self, plan: Plan) {
        loop {
            let Err(error) = self.session(&plan).await;
            if plan.ended.fetch_add(1, Ordering::Relaxed) == 0 {
                eprintln!("  a host's session ended: {error}");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn session(&self, plan: &Plan) -> Outcome<std::convert::Infallible> {
        let channel = open(&self.node, &self.credentials).await?;
        let (up, queue) = mpsc::channel(UP_QUEUE);
        up.send(message(Up::Hello(self.hello(plan.offer)))).await?;
        let beats = async {
            // The first one somewhere within the time, so that the hosts do not beat as one.
            let share = self.number as f64 * 0.618_034;
            tokio::time::sleep(plan.heartbeat_every.mul_f64(share.fract())).await;
            let mut ticks = tokio::time::interval(plan.heartbeat_every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for sequence in 1.. {
                ticks.tick().await;
                let heartbeat = v1::Heartbeat { sequence, drivers: drivers(), used: None };
                up.send(message(Up::Heartbeat(heartbeat))).await?;
            }
            wrong("no number is left")
        };
        let down = async {
            match plan.manner {
                Manner::Heedless => heedless(channel, ReceiverStream::new(queue)).await,
                Manner::Prompt => prompt(channel, ReceiverStream::new(queue), &up).await,
            }
        };
        tokio::select! { ended = beats => ended, ended = down => ended }
    }

    fn hello(&self, offer: Offer) -> v1::Hello {
        v1::Hello {
            host: host_name(self.number),
            cluster_id: String::new(),
            inventory: Some(inventory(self.number, offer)),
            protocol: 1,
            incarnation: format!("bench-{}", self.number),
        }
    }
}

/// What an agent would have found on a host.
fn inventory(number: usize, offer: Offer) -> v1::Inventory {
    let capacity = v1::HostAmounts {
        cpu_millis: offer.cpu_millis,
        memory_bytes: offer.memory_gib << 30,
        disk_bytes: 1 << 40,
        network_mbits: 0,
    };
    v1::Inventory {
        site: "slough".to_owned(),
        rack: format!("r{}", number / HOSTS_A_RACK),
        address: "127.0.0.1".to_owned(),
        capacity: Some(capacity),
        reserved: Some(v1::HostAmounts::default()),
        arch: "amd64".to_owned(),
        kernel: "6.1.0".to_owned(),
        os: "Debian GNU/Linux 12".to_owned(),
        port_first: 20_000,
        port_last: 29_999,
        drivers: drivers(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: "3c6a9be8-6a0a-4a54-8f49-5d7ed0a3a0f1".to_owned(),
        ..v1::Inventory::default()
    }
}

fn message(message: Up) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(message) }
}

fn drivers() -> Vec<v1::DriverInfo> {
    vec![v1::DriverInfo {
        name: "docker".to_owned(),
        version: "24.0".to_owned(),
        healthy: true,
        ..v1::DriverInfo::default()
    }]
}

/// Takes messages off the wire until the session ends.
async fn heedless(
    channel: Channel,
    up: ReceiverStream<v1::AgentMessage>,
) -> Outcome<std::convert::Infallible> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static("/supercloud.v1.AgentService/Session");
    let mut down = client.streaming(Request::new(up), path, Unread).await?.into_inner();
    while down.message().await?.is_some() {}
    wrong("the node closed the session")
}

/// Reports everything that is ordered as done.
async fn prompt(
    channel: Channel,
    queue: ReceiverStream<v1::AgentMessage>,
    up: &mpsc::Sender<v1::AgentMessage>,
) -> Outcome<std::convert::Infallible> {
    let mut client = AgentServiceClient::new(channel).max_decoding_message_size(8 << 20);
    let mut down = client.session(queue).await?.into_inner();
    while let Some(said) = down.message().await? {
        let Some(Down::Orders(orders)) = said.message else { continue };
        let reports: Vec<v1::InstanceReport> = orders.orders.iter().map(report).collect();
        for some in reports.chunks(REPORTS_A_MESSAGE) {
            up.send(message(Up::Reports(v1::Reports { reports: some.to_vec() }))).await?;
        }
    }
    wrong("the node closed the session")
}

/// Sequences of reports: they grow over all hosts, and so on each.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);

/// What an agent would report of an instance when its container runs.
fn report(order: &v1::Order) -> v1::InstanceReport {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let state = match order.desired() {
        v1::InstanceDesired::Run => v1::InstanceState::Running,
        _ => v1::InstanceState::Stopped,
    };
    let task = |task: &v1::TaskSpec| v1::TaskStatus {
        name: task.name.clone(),
        state: state.into(),
        // As long as Docker's ids, and another one for each.
        runtime_id: format!("{sequence:064x}"),
        started_ms: now,
        ..v1::TaskStatus::default()
    };
    let tasks =
        if state == v1::InstanceState::Running { order.tasks.iter().map(task).collect() } else { Vec::new() };
    v1::InstanceReport {
        instance: order.instance.clone(),
        sequence,
        order_index: order.index,
        state: state.into(),
        tasks,
        time_ms: now,
        ..v1::InstanceReport::default()
    }
}

/// Messages of the agent's session whose answers are taken and not looked at.
struct Unread;

impl Codec for Unread {
    type Encode = v1::AgentMessage;
    type Decode = usize;
    type Encoder = <tonic_prost::ProstCodec<v1::AgentMessage, v1::SchedulerMessage> as Codec>::Encoder;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstCodec::<v1::AgentMessage, v1::SchedulerMessage>::default().encoder()
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Unread {
    type Item = usize;
    type Error = Status;

    /// The number of its bytes.
    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let bytes = message.remaining();
        message.advance(bytes);
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{host::Inventory, instance::InstanceReport};

    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let order = v1::Order {
            instance: "i-1f-0".to_owned(),
            index: 31,
            desired: v1::InstanceDesired::Run.into(),
            tasks: vec![v1::TaskSpec { name: "main".to_owned(), driver: None }],
            ..v1::Order::default()
        };
        let (first, second) = (report(&order), report(&order));
        assert!(second.sequence > first.sequence);
        assert!(InstanceReport::try_from(first).is_ok());
        let stop = v1::Order { desired: v1::InstanceDesired::Stop.into(), ..order };
        assert!(InstanceReport::try_from(report(&stop)).is_ok());
    }

    #[test]
    fn a_host_offers_what_it_was_told_to() {
        let offer = Offer { cpu_millis: 64_000, memory_gib: 256 };
        let understood = Inventory::try_from(inventory(81, offer)).expect("an inventory");
        assert_eq!((understood.capacity.cpu.0, understood.capacity.memory.0), (64_000, 256 << 30));
        assert_eq!(understood.rack.map(String::from).as_deref(), Some("r2"));
    }
}
