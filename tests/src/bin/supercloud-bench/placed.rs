//! Placements, replicated on three nodes on this machine and on disk: from hand-in to placed.
//!
//! Two shapes. *Workloads of 1*: handed in by clients in a closed loop; an instance counts as placed when a watch of events tells it, and
//! the time is counted from the acknowledgement of the hand-in. *Workloads of 1,000*: the shape of Nomad's C2M, 2,000 of them on 6,100
//! hosts, from the first hand-in until a linearizable read finds all of them placed.
//!
//! The hosts are sessions like those of agents; they are sent all orders, and take them off the wire without looking at them. What that costs
//! the scheduler is part of the figure. They beat seldom: what heartbeats cost is another bench's question.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use supercloud_proto::{
    pki::Credentials,
    v1::{WatchEventsRequest, event_service_client::EventServiceClient},
};
use supercloud_tests::{Outcome, Shape, World, wrong};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Options,
    enrol::enrol,
    estate::{BOROUGH, Operator, container, handed_in, runtime},
    hosts::{Fleet, Manner, Offer},
    report::Report,
    sample::{Sample, millis},
    usage,
};

/// Hosts.
const HOSTS: usize = 6_100;
/// Workloads of many.
const WORKLOADS: usize = 2_000;
/// Instances of each.
const COUNT: u32 = 1_000;
/// Workloads of one.
const SINGLES: usize = 5_000;
/// Clients that hand these in.
const CLIENTS: usize = 100;
/// The same at a size that only shows that the bench works.
const QUICK: (usize, usize, u32, usize) = (200, 50, 1_000, 1_000);
/// Thousandths of a core that an instance needs: with [`OFFER`] a host holds 640, so that half of the estate is used.
const CPU_MILLIS: u32 = 100;
/// What each host has.
const OFFER: Offer = Offer { cpu_millis: 64_000, memory_gib: 512 };
/// Arguments of the nodes, and the hosts' own pace.
const SETTINGS: [&str; 6] = ["--heartbeat-every", "20s", "--lease", "120s", "--log-level", "warn"];
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Hand-ins of large workloads at a time.
const HAND_INS: usize = 16;
/// What is not placed by then does not count.
const PATIENCE: Duration = Duration::from_secs(75);
/// Longest wait until the hosts are ready.
const READY: Duration = Duration::from_secs(180);

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let (hosts, workloads, count, singles) =
        if options.quick { QUICK } else { (HOSTS, WORKLOADS, COUNT, SINGLES) };
    World::with_settings(Shape { nodes: 3, hosts: 0 }, &SETTINGS, |world| {
        let leader = world.cluster.leader()?;
        let servers = world.cluster.servers();
        let credentials = Credentials::load(&world.cluster.credentials)?;
        let pids = world.cluster.pids();
        runtime()?.block_on(async {
            let operator = Operator::at(&servers[leader], &credentials).await?;
            eprintln!("  {hosts} hosts join");
            let each = enrol(&servers, &credentials, hosts).await?;
            let fleet = Fleet::start(&servers, each, Manner::Heedless, OFFER, HEARTBEAT).await;
            operator.until_ready(hosts, READY).await?;
            report.note("placed_hosts", hosts as f64);
            singly(&operator, singles, report).await?;
            report.probe()?;
            by_thousands(&operator, workloads, count, report).await?;
            report.note("placed_rss_mib", usage::most_rss_mib(&pids)?.round());
            report.note("placed_sessions_ended", fleet.ended() as f64);
            Ok(())
        })
    })
}

/// When each workload's hand-in was acknowledged.
type HandedIn = Arc<Mutex<HashMap<String, Instant>>>;

async fn singly(operator: &Operator, singles: usize, report: &mut Report) -> Outcome {
    let begun = Instant::now();
    let watching = Watching::begin(operator, singles).await?;
    let handed: HandedIn = Arc::default();
    hand_in_singles(operator, singles, &handed).await?;
    let took_hand_in = begun.elapsed();
    let placed = watching.end(PATIENCE).await?;
    let handed = handed.lock().await;
    let last = placed.values().max().copied().unwrap_or(begun);
    let mut waits = Sample::default();
    for (workload, seen) in &placed {
        if let Some(acknowledged) = handed.get(workload) {
            waits.add(seen.saturating_duration_since(*acknowledged));
        }
    }
    let rate = placed.len() as f64 / last.duration_since(begun).as_secs_f64().max(f64::MIN_POSITIVE);
    report.note("placed_w1", rate.round());
    report.note("placed_w1_p50_ms", millis(waits.percentile(50)));
    report.note("placed_w1_p99_ms", millis(waits.percentile(99)));
    report.note("placed_w1_hand_in_rate", (singles as f64 / took_hand_in.as_secs_f64()).round());
    report.note("placed_w1_missing", (singles - placed.len()) as f64);
    Ok(())
}

async fn hand_in_singles(operator: &Operator, singles: usize, handed: &HandedIn) -> Outcome {
    let spec = container("single", 1, CPU_MILLIS)?;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (mut workloads, spec, handed) = (operator.workloads(), spec.clone(), handed.clone());
        clients.spawn(async move {
            for number in (client..singles).step_by(CLIENTS) {
                let mut spec = spec.clone();
                spec.workload = single_name(number);
                let name = spec.workload.clone();
                workloads.apply(handed_in(spec, name.clone())).await?;
                handed.lock().await.insert(name, Instant::now());
            }
            Ok::<(), tonic::Status>(())
        });
    }
    for done in clients.join_all().await {
        done?;
    }
    Ok(())
}

fn single_name(number: usize) -> String {
    format!("single-{number:05}")
}

/// A watch of all placements of single workloads.
struct Watching {
    task: tokio::task::JoinHandle<Outcome<HashMap<String, Instant>>>,
    seen: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Watching {
    /// Begins now, and ends by itself when so many were seen.
    async fn begin(operator: &Operator, wanted: usize) -> Outcome<Self> {
        let mut events = EventServiceClient::new(operator.channel.clone());
        let watch = WatchEventsRequest { borough: BOROUGH.to_owned(), ..WatchEventsRequest::default() };
        let mut told = events.watch(watch).await?.into_inner();
        let seen: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let found = seen.clone();
        let task = tokio::spawn(async move {
            while let Some(batch) = told.message().await? {
                let now = Instant::now();
                let mut found = found.lock().await;
                for event in batch.events {
                    if event.kind == "instance-placed" && event.workload.starts_with("single-") {
                        found.entry(event.workload).or_insert(now);
                    }
                }
                if found.len() >= wanted {
                    return Ok(found.clone());
                }
            }
            wrong("the watch of events has ended")
        });
        Ok(Self { task, seen })
    }

    /// What was seen, at the latest after so long.
    async fn end(self, within: Duration) -> Outcome<HashMap<String, Instant>> {
        match timeout(within, self.task).await {
            Ok(ended) => ended?,
            Err(_) => Ok(self.seen.lock().await.clone()),
        }
    }
}

async fn by_thousands(operator: &Operator, workloads: usize, count: u32, report: &mut Report) -> Outcome {
    let before = operator.sums().await?.instances;
    let wanted = workloads * count as usize;
    let begun = Instant::now();
    let handing_in = tokio::spawn(hand_in_thousands(operator.clone(), workloads, count));
    let sums = operator.until(PATIENCE, |sums| sums.instances >= before + wanted).await?;
    let took = begun.elapsed();
    handing_in.abort();
    let placed = sums.instances.saturating_sub(before);
    report.note("placed_w1000", (placed as f64 / took.as_secs_f64()).round());
    report.note("placed_w1000_instances", placed as f64);
    report.note("placed_w1000_missing", wanted.saturating_sub(placed) as f64);
    Ok(())
}

async fn hand_in_thousands(operator: Operator, workloads: usize, count: u32) -> Outcome {
    let turns = Arc::new(Semaphore::new(HAND_INS));
    let spec = container("many", count, CPU_MILLIS)?;
    let mut hand_ins = JoinSet::new();
    for number in 0..workloads {
        let turn = turns.clone().acquire_owned().await?;
        let mut spec = spec.clone();
        spec.workload = format!("many-{number:05}");
        let mut client = operator.workloads();
        hand_ins.spawn(async move {
            let name = spec.workload.clone();
            // A node that has too much under way says so, and nothing was done.
            while let Err(status) = client.apply(handed_in(spec.clone(), name.clone())).await {
                eprintln!("  a hand-in is tried again: {status}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            drop(turn);
        });
    }
    hand_ins.join_all().await;
    Ok(())
}
