//! Placements, replicated on three nodes on this machine and on disk: from hand-in to placed.
//!
//! Two shapes. *Workloads of 1*: handed in at a slow pace, then at the pace of the budget, and then by clients in a closed loop as fast as they can; an
//! instance counts as placed when a watch of events tells it, and the time is counted from the acknowledgement of the hand-in. The rate is that
//! of the closed loop, the time that of the budget's pace: where more is handed in than can be placed, a time is the length of a queue. *Workloads of 1,000*: the shape of Nomad's C2M, 2,000 of them on 6,100
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
    v1::{WatchEventsRequest, WorkloadSpec, event_service_client::EventServiceClient},
};
use supercloud_tests::{Outcome, Shape, World, wrong};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    Options,
    enrol::enrol,
    estate::{BOROUGH, Operator, container, runtime},
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
/// Clients that hand these in, as fast as they can.
const CLIENTS: usize = 100;
/// A pace: so many workloads of one, so many of them at each tick.
struct Pace {
    name: &'static str,
    workloads: usize,
    at_once: usize,
    tick: Duration,
}

/// What a placement takes where nothing queues up: 100 a second.
const SLOW: Pace = Pace { name: "paced", workloads: 500, at_once: 1, tick: Duration::from_millis(10) };
/// 5,000 a second.
const BUDGET: Pace = Pace { name: "steady", workloads: 15_000, at_once: 10, tick: Duration::from_millis(2) };
/// The same at a size that only shows that the bench works.
const QUICK: (usize, usize, u32, usize) = (200, 50, 1_000, 1_000);
/// Thousandths of a core that an instance needs: with [`OFFER`] a host holds 640, so that half of the estate is used.
const CPU_MILLIS: u32 = 100;
/// What each host has.
const OFFER: Offer = Offer { cpu_millis: 64_000, memory_gib: 512 };
/// Arguments of the nodes, and the hosts' own pace.
const SETTINGS: [&str; 6] = ["--heartbeat-every", "10s", "--lease", "120s", "--log-level", "warn"];
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Hand-ins of large workloads at a time.
const HAND_INS: usize = 16;
/// What is not placed by then does not count.
const PATIENCE: Duration = Duration::from_secs(75);
/// Longest wait until the hosts are ready.
const READY: Duration = Duration::from_secs(120);

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
            let ready = operator.until_ready(hosts, READY).await?;
            report.note("placed_hosts", ready as f64);
            at_a_pace(&operator, &SLOW, report).await?;
            if !options.quick {
                at_a_pace(&operator, &BUDGET, report).await?;
            }
            singly(&operator, singles, report).await?;
            report.probe()?;
            by_thousands(&operator, workloads, count, report).await?;
            report.note("placed_rss_mib", usage::most_rss_mib(&pids)?.round());
            report.note("placed_sessions_ended", fleet.ended() as f64);
            Ok(())
        })
    })
}

async fn at_a_pace(operator: &Operator, pace: &Pace, report: &mut Report) -> Outcome {
    let Pace { name, workloads, at_once, tick } = *pace;
    let watching = Watching::begin(operator, name, workloads).await?;
    let (spec, mut hand_ins, mut ticks) = (container(name, 1, CPU_MILLIS)?, JoinSet::new(), interval(tick));
    let begun = Instant::now();
    for number in 0..workloads {
        if number % at_once == 0 {
            ticks.tick().await;
        }
        let (operator, spec) = (operator.clone(), spec.clone());
        hand_ins.spawn(async move { hand_in(&operator, &spec, format!("{name}-{number:05}")).await });
    }
    let mut handed = Moments::new();
    while let Some(acknowledged) = hand_ins.join_next().await {
        handed.extend([acknowledged??]);
    }
    let took = begun.elapsed();
    let placed = watching.end(PATIENCE).await?;
    let waits = waits(&handed, &placed);
    let key = |what: &str| format!("placed_w1_{name}_{what}");
    report.note(key("p50_ms"), millis(waits.percentile(50)));
    report.note(key("p99_ms"), millis(waits.percentile(99)));
    report.note(key("rate"), (handed.len() as f64 / took.as_secs_f64()).round());
    report.note(key("missing"), (workloads - placed.len()) as f64);
    if name == BUDGET.name {
        report.note("placed_w1_p99_ms", millis(waits.percentile(99)));
    }
    Ok(())
}

async fn singly(operator: &Operator, singles: usize, report: &mut Report) -> Outcome {
    let watching = Watching::begin(operator, "single", singles).await?;
    let begun = Instant::now();
    let handed = hand_in_singles(operator, singles).await?;
    let took_hand_in = begun.elapsed();
    let placed = watching.end(PATIENCE).await?;
    let last = placed.values().max().copied().unwrap_or(begun);
    let waits = waits(&handed, &placed);
    let rate = placed.len() as f64 / last.duration_since(begun).as_secs_f64().max(f64::MIN_POSITIVE);
    report.note("placed_w1", rate.round());
    report.note("placed_w1_loop_p50_ms", millis(waits.percentile(50)));
    report.note("placed_w1_loop_p99_ms", millis(waits.percentile(99)));
    report.note("placed_w1_hand_in_rate", (singles as f64 / took_hand_in.as_secs_f64()).round());
    report.note("placed_w1_missing", (singles - placed.len()) as f64);
    Ok(())
}

/// Moments by workload.
type Moments = HashMap<String, Instant>;

/// From acknowledged to placed, for each workload that was placed.
fn waits(handed: &Moments, placed: &Moments) -> Sample {
    let mut waits = Sample::default();
    for (workload, seen) in placed {
        if let Some(acknowledged) = handed.get(workload) {
            waits.add(seen.saturating_duration_since(*acknowledged));
        }
    }
    waits
}

async fn hand_in(operator: &Operator, spec: &WorkloadSpec, name: String) -> Outcome<(String, Instant)> {
    let spec = WorkloadSpec { workload: name.clone(), ..spec.clone() };
    operator.apply(spec).await?;
    Ok((name, Instant::now()))
}

/// Hands in workloads of one; gives when each was acknowledged.
async fn hand_in_singles(operator: &Operator, singles: usize) -> Outcome<Moments> {
    let spec = container("single", 1, CPU_MILLIS)?;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (operator, spec) = (operator.clone(), spec.clone());
        clients.spawn(async move {
            let mut own = Moments::new();
            for number in (client..singles).step_by(CLIENTS) {
                own.extend([hand_in(&operator, &spec, format!("single-{number:05}")).await?]);
            }
            Outcome::Ok(own)
        });
    }
    let mut all = Moments::new();
    for own in clients.join_all().await {
        all.extend(own?);
    }
    Ok(all)
}

/// A watch of the placements of workloads whose names begin alike: `NAME-`.
struct Watching {
    task: tokio::task::JoinHandle<Outcome<Moments>>,
    seen: Arc<Mutex<Moments>>,
}

impl Watching {
    /// Begins now, and ends by itself when so many were seen.
    async fn begin(operator: &Operator, name: &str, wanted: usize) -> Outcome<Self> {
        let mut events = EventServiceClient::new(operator.channel.clone());
        let watch = WatchEventsRequest { borough: BOROUGH.to_owned(), ..WatchEventsRequest::default() };
        let mut told = events.watch(watch).await?.into_inner();
        let seen: Arc<Mutex<Moments>> = Arc::default();
        let (found, prefix) = (seen.clone(), format!("{name}-"));
        let task = tokio::spawn(async move {
            while let Some(batch) = told.message().await? {
                let now = Instant::now();
                let mut found = found.lock().await;
                for event in batch.events {
                    if event.kind == "instance-placed" && event.workload.starts_with(&prefix) {
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
    async fn end(self, within: Duration) -> Outcome<Moments> {
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
        let operator = operator.clone();
        hand_ins.spawn(async move {
            if let Err(error) = operator.apply(spec).await {
                eprintln!("  {error}");
            }
            drop(turn);
        });
    }
    hand_ins.join_all().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_from_the_acknowledgement_to_the_placement() {
        let (now, later) = (Instant::now(), Duration::from_millis(7));
        let moments = |names: &[(&str, Instant)]| -> Moments {
            names.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect()
        };
        let handed = moments(&[("a", now), ("b", now + later), ("c", now)]);
        let waits = waits(&handed, &moments(&[("a", now + later), ("b", now), ("d", now)]));
        assert_eq!(waits.len(), 2, "what was not handed in here does not count");
        assert_eq!((waits.percentile(100), waits.percentile(1)), (later, Duration::ZERO));
    }
}
