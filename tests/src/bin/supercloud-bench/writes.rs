//! Durable writes beside a three-member etcd: the same clients in a closed loop, in turn, in one run.
//!
//! A write of ours is an `Apply` of the public API that gives one of a thousand workloads (of count 0, so that nothing is scheduled) a new
//! revision of about 300 bytes; it is authenticated, validated, written on a majority, applied, and told to the archive. A write of theirs
//! puts a value of 300 bytes under one of a thousand keys. Both clusters are three processes on this machine with their data on the same disk
//! and TLS with certificates on all connections; the client speaks to the leader of either, and once more to a follower.
//!
//! Rounds begin with ours and with theirs by turns, so that what a busy neighbour or a warm cache gives is given to both.

use std::{collections::BTreeMap, path::Path, time::Duration};

use supercloud_proto::{
    pki::Credentials,
    v1::{self, task_spec::Driver, workload_service_client::WorkloadServiceClient},
};
use supercloud_tests::{Outcome, Shape, World, hold, ports::Ports};
use tonic::{Status, transport::Channel};

use crate::{
    Options,
    estate::{container, handed_in, open, runtime},
    etcd::{Etcd, KEYS, Put},
    load::{Load, Writer, closed_loop, connections, number},
    report::Report,
    sample::millis,
    usage,
};

/// Clients at a time, with how long they write in each round: the median of one client needs few writes, a rate of a thousand clients some
/// thousand.
const LOADS: [(usize, Duration); 4] = [
    (1, Duration::from_millis(1_000)),
    (10, Duration::from_millis(1_000)),
    (100, Duration::from_millis(1_500)),
    (1_000, Duration::from_millis(2_000)),
];
/// Of these, what is measured through a follower too.
const FOLLOWED: [usize; 2] = [1, 100];
/// One part of so many of a load's time warms both sides up before the first round.
const WARM_UP: u32 = 2;

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    World::with(Shape { nodes: 3, hosts: 0 }, |world| {
        let mut ports = Ports::take()?;
        let etcd = Etcd::start(world.folder(), &mut ports)?;
        let leader = world.cluster.leader()?;
        let servers = world.cluster.servers();
        let follower = &servers[(leader + 1) % servers.len()];
        let credentials = world.cluster.credentials.clone();
        runtime()?.block_on(async {
            let ours = Ours::connect(&servers[leader], follower, &credentials).await?;
            let theirs = Theirs::connect(&etcd).await?;
            let pids = [world.cluster.pids(), etcd.pids()];
            create_workloads(&ours.leader).await?;
            let mut loads = Loads::default();
            for (clients, time) in LOADS {
                closed_loop(&ours.leader, clients, time / WARM_UP).await;
                closed_loop(&theirs.leader, clients, time / WARM_UP).await;
            }
            for round in 1..=options.rounds {
                loads.round(round, &ours, &theirs, &pids).await?;
                report.probe()?;
            }
            loads.note(report)
        })
    })
}

/// Our side: open connections to the leader and to a follower.
struct Ours {
    leader: Vec<Apply>,
    follower: Vec<Apply>,
}

/// Their side.
struct Theirs {
    leader: Vec<Put>,
    follower: Vec<Put>,
}

fn most_connections() -> usize {
    LOADS.iter().map(|(clients, _)| connections(*clients)).max().unwrap_or(1)
}

impl Ours {
    async fn connect(leader: &str, follower: &str, credentials: &Path) -> Outcome<Self> {
        let credentials = Credentials::load(credentials)?;
        let spec = container("bench", 0, 100)?;
        let (mut at_leader, mut at_follower) = (Vec::new(), Vec::new());
        for _ in 0..most_connections() {
            at_leader.push(Apply::new(open(leader, &credentials).await?, &spec));
            at_follower.push(Apply::new(open(follower, &credentials).await?, &spec));
        }
        Ok(Self { leader: at_leader, follower: at_follower })
    }
}

impl Theirs {
    async fn connect(etcd: &Etcd) -> Outcome<Self> {
        let (leader, version) = etcd.leader().await?;
        eprintln!("  beside etcd {version}; three members each, TLS with certificates for clients and peers");
        let count = most_connections();
        Ok(Self {
            leader: etcd.writers(count, leader, false).await?,
            follower: etcd.writers(count, leader, true).await?,
        })
    }
}

/// A client of ours that applies.
#[derive(Clone)]
pub(crate) struct Apply {
    workloads: WorkloadServiceClient<Channel>,
    spec: v1::WorkloadSpec,
}

impl Apply {
    /// One over an open connection, of variations of a spec.
    pub(crate) fn new(channel: Channel, spec: &v1::WorkloadSpec) -> Self {
        Self { workloads: WorkloadServiceClient::new(channel), spec: spec.clone() }
    }

    /// The write of a number, as it is handed in. Retries repeat it.
    pub(crate) fn request(&self, number: u64) -> v1::ApplyWorkloadRequest {
        let mut spec = self.spec.clone();
        spec.workload = format!("bench-{:04}", number % KEYS);
        for task in &mut spec.tasks {
            if let Some(Driver::Container(container)) = &mut task.driver {
                container.env.insert("NUMBER".to_owned(), format!("{number:016x}"));
            }
        }
        handed_in(spec, format!("bench-{number:x}"))
    }
}

impl Writer for Apply {
    async fn write(&mut self, number: u64) -> Result<(), Status> {
        self.workloads.apply(self.request(number)).await.map(|_| ())
    }
}

/// Every workload is there before anything is measured, as every key is after the first thousand puts.
async fn create_workloads(writers: &[Apply]) -> Outcome {
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..writers.len() {
        let mut writer = writers[client].clone();
        let share = KEYS / writers.len() as u64 + 1;
        tasks.spawn(async move {
            for _ in 0..share {
                writer.write(number()).await?;
            }
            Ok::<(), Status>(())
        });
    }
    for done in tasks.join_all().await {
        done?;
    }
    Ok(())
}

/// What one side came to.
#[derive(Default)]
struct Side {
    load: Load,
    /// Processor time of its three processes.
    cpu: Duration,
}

/// What was measured, by clients: ours, theirs.
#[derive(Default)]
struct Loads {
    leader: BTreeMap<usize, [Side; 2]>,
    follower: BTreeMap<usize, [Side; 2]>,
}

/// Processes of either side.
type Pids = [Vec<u32>; 2];

impl Loads {
    async fn round(&mut self, round: usize, ours: &Ours, theirs: &Theirs, pids: &Pids) -> Outcome {
        let ours_first = round % 2 == 1;
        let mut told = Vec::new();
        for (clients, time) in LOADS {
            let turns = Turns { clients, time, ours_first, pids };
            let sides = self.leader.entry(clients).or_default();
            let rates = turns.take(sides, &ours.leader, &theirs.leader).await?;
            told.push(format!("{clients}: {:.0} and {:.0}", rates[0], rates[1]));
            if FOLLOWED.contains(&clients) {
                let sides = self.follower.entry(clients).or_default();
                turns.take(sides, &ours.follower, &theirs.follower).await?;
            }
        }
        eprintln!("  round {round}, writes a second by clients, ours and theirs: {}", told.join(", "));
        Ok(())
    }

    fn note(&self, report: &mut Report) -> Outcome {
        for (through, loads) in [("", &self.leader), ("_through_follower", &self.follower)] {
            for (clients, sides) in loads {
                let suffix = format!("{clients}{through}");
                for (name, side) in ["write", "etcd"].into_iter().zip(sides) {
                    side.note(name, &suffix, report)?;
                }
                let [ours, theirs] = sides.each_ref().map(|side| &side.load);
                report.note(format!("write_rate_vs_etcd_{suffix}"), ours.rate() / theirs.rate());
                if *clients == 1 {
                    let [ours, theirs] = [ours, theirs].map(|load| millis(load.latencies.percentile(50)));
                    report.note(format!("write_latency_vs_etcd{through}"), ours / theirs);
                }
            }
        }
        Ok(())
    }
}

impl Side {
    fn note(&self, name: &str, suffix: &str, report: &mut Report) -> Outcome {
        let Load { latencies, failed, .. } = &self.load;
        let writes = latencies.len();
        hold(writes > 0, || format!("{name}: no write was acknowledged ({suffix})"))?;
        let key = |what: &str| format!("{name}_{what}_{suffix}");
        report.note(key("p50_ms"), millis(latencies.percentile(50)));
        report.note(key("p99_ms"), millis(latencies.percentile(99)));
        report.note(key("rate"), self.load.rate().round());
        report.note(key("cpu_us"), (self.cpu.as_secs_f64() * 1e6 / writes as f64).round());
        report.note(key("failed"), *failed as f64);
        Ok(())
    }
}

/// One load, made on both sides one after the other.
struct Turns<'a> {
    clients: usize,
    time: Duration,
    ours_first: bool,
    pids: &'a Pids,
}

impl Turns<'_> {
    /// Adds what either side comes to, and gives their rates.
    async fn take(&self, [ours, theirs]: &mut [Side; 2], our: &[Apply], their: &[Put]) -> Outcome<[f64; 2]> {
        let [our_pids, their_pids] = self.pids;
        Ok(if self.ours_first {
            let first = self.turn(ours, our, our_pids).await?;
            [first, self.turn(theirs, their, their_pids).await?]
        } else {
            let first = self.turn(theirs, their, their_pids).await?;
            [self.turn(ours, our, our_pids).await?, first]
        })
    }

    async fn turn<W: Writer>(&self, side: &mut Side, writers: &[W], pids: &[u32]) -> Outcome<f64> {
        let before = usage::cpu_of_all(pids)?;
        let load = closed_loop(writers, self.clients, self.time).await;
        side.cpu += usage::cpu_of_all(pids)?.saturating_sub(before);
        let rate = load.rate();
        side.load.add(load);
        Ok(rate)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::etcd::VALUE_BYTES;

    #[tokio::test]
    async fn each_write_changes_its_workload() -> Outcome {
        let spec = container("bench", 0, 100)?;
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let apply = Apply::new(channel, &spec);
        let (first, again) = (apply.request(7), apply.request(7 + KEYS));
        let named =
            |request: &v1::ApplyWorkloadRequest| request.spec.as_ref().map(|spec| spec.workload.clone());
        assert_eq!((named(&first).as_deref(), named(&first)), (Some("bench-0007"), named(&again)));
        assert!(first.spec != again.spec && first.request_id != again.request_id);
        let bytes = first.encoded_len();
        assert!(bytes.abs_diff(VALUE_BYTES) < 30, "{bytes} bytes beside values of {VALUE_BYTES}");
        Ok(())
    }
}
