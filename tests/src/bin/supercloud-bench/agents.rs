//! Ten thousand agents on three nodes: what they cost the scheduler at rest, and how soon an order reaches its agent.
//!
//! The agents are real ones (session, loop, reconcile, each with a certificate and a connection of its own) in this process, over a driver that
//! keeps its containers in memory and a ledger that keeps nothing. An order counts as received when the driver is asked for its instance, which
//! is a little later than the session has it; it counts as decided at the time stamped on the log entry that placed the instance.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use supercloud_agent::{
    agent::run_without_disk,
    driver::{Driver, Owner},
    executor::Drivers,
    fake::{FakeDriver, Listener},
    inventory::HostSettings,
};
use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    host::PortRange,
    id::InstanceId,
    name::{HostName, SiteName},
    pki::Credentials,
    spec::DriverKind,
    v1::{Event, WatchEventsRequest, WatchEventsResponse, event_service_client::EventServiceClient},
};
use supercloud_tests::{Outcome, Shape, World, hold};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tonic::Streaming;

use crate::{
    Options,
    enrol::{enrol, host_name},
    estate::{BOROUGH, Operator, container, runtime},
    report::Report,
    sample::{Sample, millis},
    usage,
};

/// Agents.
const AGENTS: usize = 10_000;
/// Agents at a size that only shows that the bench works.
const QUICK: usize = 200;
/// Arguments of the nodes.
const SETTINGS: [&str; 4] = ["--heartbeat-every", "5s", "--log-level", "warn"];
/// Time between two agents that start. Their handshakes are not what is measured, and must leave the nodes time for their elections.
const START_EVERY: Duration = Duration::from_millis(5);
/// Memory that is left alone, in MiB: where it would be touched, fewer agents start, and that is told.
const SPARE_MIB: f64 = 2_048.0;
/// Agents between two looks at the memory.
const MEMORY_LOOK: usize = 250;
/// Longest wait until all are ready.
const READY: Duration = Duration::from_secs(120);
/// Time after which the last of the starts has died away.
const SETTLE: Duration = Duration::from_secs(10);
/// Time over which processor time is counted.
const REST: Duration = Duration::from_secs(60);
const QUICK_REST: Duration = Duration::from_secs(15);
/// Of so many agents one gets an order, once singly and once in a burst; a thousand of ten thousand.
const ORDERED: usize = 10;
/// Time between two single orders.
const ORDER_EVERY: Duration = Duration::from_millis(10);
/// An instance needs more than half of a host: no two share one, and orders are spread.
const CPU_MILLIS: u32 = 1_500;
/// What a host offers.
const OFFERED_CPU: MilliCpu = MilliCpu(2_000);
/// Longest wait for the last order.
const ORDERS: Duration = Duration::from_secs(20);
/// Files that are open beside the connections of agents.
const OTHER_FILES: u64 = 500;

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let (wanted, rest) = if options.quick { (QUICK, QUICK_REST) } else { (AGENTS, REST) };
    allow_files(wanted as u64 + OTHER_FILES)?;
    World::with_settings(Shape { nodes: 3, hosts: 0 }, &SETTINGS, |world| {
        let leader = world.cluster.leader()?;
        let pids = world.cluster.pids();
        let place = Place {
            cluster: world.cluster.id.clone(),
            servers: world.cluster.servers(),
            credentials: Credentials::load(&world.cluster.credentials)?,
            folder: world.folder().to_owned(),
        };
        runtime()?.block_on(async {
            let operator = Operator::at(&place.servers[leader], &place.credentials).await?;
            let (listener, mut heard) = mpsc::unbounded_channel();
            eprintln!("  {wanted} agents join");
            let agents = Agents::start(&place, wanted, &listener).await?;
            let ready = operator.until_ready(agents.count, READY).await?;
            report.note("agents", ready as f64);
            at_rest(&pids, rest, report).await?;
            report.probe()?;
            let orders = (ready / ORDERED).max(1);
            let mut placements = watch_placements(&operator).await?;
            let paced = pace(&operator, orders);
            let singly = reached(&mut placements, &mut heard, orders, paced).await?;
            note_orders("order", &singly, report);
            let burst = apply(&operator, "burst", u32::try_from(orders)?);
            let at_once = reached(&mut placements, &mut heard, orders, burst).await?;
            note_orders("order_burst", &at_once, report);
            agents.end().await;
            Ok(())
        })
    })
}

/// Makes sure that this process and those it starts may hold enough connections.
fn allow_files(needed: u64) -> Outcome {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    hold(most >= needed, || format!("{needed} files must be open at a time, the system allows {most}"))?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, now.max(needed).min(most), most)?)
}

/// Where the agents are.
struct Place {
    cluster: String,
    servers: Vec<String>,
    credentials: Credentials,
    folder: PathBuf,
}

/// Agents that run.
struct Agents {
    count: usize,
    tasks: JoinSet<()>,
    end: watch::Sender<bool>,
}

impl Agents {
    async fn start(place: &Place, wanted: usize, listener: &Listener) -> Outcome<Self> {
        let each = enrol(&place.servers, &place.credentials, wanted).await?;
        let (end, ended) = watch::channel(false);
        let mut agents = Self { count: 0, tasks: JoinSet::new(), end };
        let mut ticks = interval(START_EVERY);
        for (number, credentials) in each.into_iter().enumerate() {
            if number % MEMORY_LOOK == 0 && usage::available_mib()? < SPARE_MIB {
                eprintln!("  no more than {number} agents fit into this machine's memory");
                break;
            }
            ticks.tick().await;
            agents.spawn(place, number, credentials, listener.clone(), ended.clone())?;
        }
        Ok(agents)
    }

    fn spawn(
        &mut self,
        place: &Place,
        number: usize,
        credentials: Credentials,
        listener: Listener,
        mut ended: watch::Receiver<bool>,
    ) -> Outcome {
        let name = host_name(number);
        let owner = Owner { cluster: place.cluster.clone(), host: HostName::new(&name)? };
        let driver: Arc<dyn Driver> = Arc::new(FakeDriver::heard_by(DriverKind::Docker, listener));
        let drivers: Arc<Drivers> = Arc::new(BTreeMap::from([(DriverKind::Docker, driver)]));
        let (settings, servers) = (settings(number, &place.folder)?, place.servers.clone());
        self.count += 1;
        self.tasks.spawn(async move {
            let end = async {
                // An error means that nobody is left to say so.
                let _ = ended.wait_for(|ended| *ended).await;
            };
            if let Err(error) =
                run_without_disk(settings, servers, owner, Box::new(credentials), drivers, end).await
            {
                eprintln!("  the agent of {name} ended: {error}");
            }
        });
        Ok(())
    }

    async fn end(mut self) {
        // Every agent may have ended by itself.
        let _ = self.end.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

fn settings(number: usize, folder: &Path) -> Outcome<HostSettings> {
    Ok(HostSettings {
        site: SiteName::new(["hounslow", "slough", "park-royal"][number % 3])?,
        rack: None,
        address: "127.0.0.1".to_owned(),
        labels: BTreeMap::new(),
        taints: BTreeMap::new(),
        offer_cpu: Some(OFFERED_CPU),
        offer_memory: Some(Bytes(1 << 30)),
        offer_disk: Some(Bytes(1 << 30)),
        offer_network: None,
        network_reserved: Default::default(),
        reserved: Some(Amounts::default()),
        ports: PortRange { first: 20_000, last: 20_999 },
        data_dir: folder.to_owned(),
        devices: Default::default(),
        shared_cpus: Vec::new(),
    })
}

/// Counts the processor time of the nodes while nothing happens but heartbeats.
async fn at_rest(pids: &[u32], time: Duration, report: &mut Report) -> Outcome {
    sleep(SETTLE).await;
    let own = std::process::id();
    let (before, own_before, begun) = (usage::cpu_of_all(pids)?, usage::cpu(own)?, Instant::now());
    sleep(time).await;
    let (after, own_after, took) = (usage::cpu_of_all(pids)?, usage::cpu(own)?, begun.elapsed());
    let cores = |before: Duration, after: Duration| (after - before).as_secs_f64() / took.as_secs_f64();
    report.note("agents_10k_cores", cores(before, after));
    report.note("agents_own_cores", cores(own_before, own_after));
    report.note("agents_scheduler_rss_mib", usage::most_rss_mib(pids)?.round());
    Ok(())
}

type Heard = mpsc::UnboundedReceiver<(InstanceId, SystemTime)>;

async fn watch_placements(operator: &Operator) -> Outcome<Streaming<WatchEventsResponse>> {
    let watch = WatchEventsRequest { borough: BOROUGH.to_owned(), ..WatchEventsRequest::default() };
    Ok(EventServiceClient::new(operator.channel.clone()).watch(watch).await?.into_inner())
}

async fn apply(operator: &Operator, name: &str, count: u32) -> Outcome {
    let spec = container(name, count, CPU_MILLIS)?;
    operator.apply(spec).await
}

/// Hands in workloads of one, one every moment.
async fn pace(operator: &Operator, count: usize) -> Outcome {
    let mut ticks = interval(ORDER_EVERY);
    for number in 0..count {
        ticks.tick().await;
        apply(operator, &format!("single-{number:05}"), 1).await?;
    }
    Ok(())
}

/// Times from decided to received of so many instances that `hand_in` brings, or of those that came in time.
async fn reached(
    placements: &mut Streaming<WatchEventsResponse>,
    heard: &mut Heard,
    wanted: usize,
    hand_in: impl Future<Output = Outcome>,
) -> Outcome<Orders> {
    let (mut decided, mut received) = (HashMap::new(), HashMap::new());
    let mut handed_in = std::pin::pin!(hand_in);
    let mut is_handed_in = false;
    let gathered = timeout(ORDERS, async {
        while !is_handed_in || decided.len() < wanted || received.len() < wanted {
            tokio::select! {
                done = &mut handed_in, if !is_handed_in => { done?; is_handed_in = true; }
                Some((instance, at)) = heard.recv() => { received.insert(instance, at); }
                batch = placements.message() => {
                    let events = batch?.map(|batch| batch.events).unwrap_or_default();
                    for event in events.iter().filter(|event| event.kind == "instance-placed") {
                        decided.extend(instances(event)?.into_iter().map(|instance| (instance, event.time_ms)));
                    }
                }
            }
        }
        Outcome::Ok(())
    });
    if let Ok(result) = gathered.await {
        result?;
    }
    Ok(orders(&decided, &received, wanted))
}

/// The instances that an event tells of: one, or runs of those that were placed at one log index.
fn instances(event: &Event) -> Outcome<Vec<InstanceId>> {
    let mut found = Vec::new();
    if !event.instance.is_empty() {
        found.push(event.instance.parse()?);
    }
    for run in &event.runs {
        let first: InstanceId = run.first.parse()?;
        found.extend((0..run.count).map(|after| InstanceId { ordinal: first.ordinal + after, ..first }));
    }
    Ok(found)
}

/// What became of orders.
struct Orders {
    times: Sample,
    missing: usize,
}

fn orders(
    decided: &HashMap<InstanceId, u64>,
    received: &HashMap<InstanceId, SystemTime>,
    wanted: usize,
) -> Orders {
    let mut times = Sample::default();
    for (instance, at) in received {
        if let Some(time) = decided.get(instance) {
            let decided = UNIX_EPOCH + Duration::from_millis(*time);
            times.add(at.duration_since(decided).unwrap_or_default());
        }
    }
    Orders { missing: wanted.saturating_sub(times.len()), times }
}

fn note_orders(name: &str, orders: &Orders, report: &mut Report) {
    report.note(format!("{name}_p50_ms"), millis(orders.times.percentile(50)));
    report.note(format!("{name}_p99_ms"), millis(orders.times.percentile(99)));
    report.note(format!("{name}_missing"), orders.missing as f64);
}

#[cfg(test)]
mod tests {
    use supercloud_proto::v1::EventRun;

    use super::*;

    fn id(ordinal: u32) -> InstanceId {
        InstanceId { index: 10, ordinal }
    }

    #[test]
    fn an_order_counts_from_its_decision_to_its_receipt() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(millis);
        let decided = HashMap::from([(id(0), 1_000), (id(1), 2_000), (id(2), 3_000)]);
        let received = HashMap::from([(id(0), at(1_004)), (id(1), at(1_999))]);
        let found = orders(&decided, &received, 3);
        assert_eq!((found.times.len(), found.missing), (2, 1));
        assert_eq!(found.times.percentile(99), Duration::from_millis(4));
        assert_eq!(found.times.percentile(1), Duration::ZERO);
    }

    #[test]
    fn an_event_tells_of_one_or_of_many() -> Outcome {
        let one = Event { instance: id(3).to_string(), ..Event::default() };
        assert_eq!(instances(&one)?, [id(3)]);
        let run = |first, count| EventRun { first: id(first).to_string(), count, host: "h1".to_owned() };
        let many = Event { runs: vec![run(0, 2), run(5, 1)], ..Event::default() };
        assert_eq!(instances(&many)?, [id(0), id(1), id(5)]);
        Ok(())
    }
}
