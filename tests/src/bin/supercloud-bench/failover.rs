//! The leader is killed, again and again, under load: how long until a client that spoke to it has a write acknowledged.
//!
//! The client does what any careful one does: when its connection breaks it goes on with the next node, and repeats the write under its request
//! id. Counted is from the moment at which the process is gone to the acknowledgement of an attempt that began after it. The node is
//! started again, and the next leader is killed only when it has caught up.

use std::time::{Duration, Instant};

use supercloud_proto::{
    pki::{Credentials, Servers, Trust},
    v1::{self, workload_service_client::WorkloadServiceClient},
};
use supercloud_tests::{Outcome, Shape, World, wrong};
use tokio::{
    runtime::Runtime,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use crate::{
    Options,
    estate::{Operator, container, runtime},
    load::number,
    report::Report,
    sample::{Sample, millis},
    writes::Apply,
};

/// How often the leader is killed.
const KILLS: usize = 40;
const QUICK_KILLS: usize = 5;
/// Clients that write all the time, beside the one that is looked at.
const CLIENTS: usize = 8;
/// Time in which load runs before the next kill.
const LOAD: Duration = Duration::from_millis(300);
/// Longest time for one attempt at a write.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Wait before another attempt.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest time until a write is acknowledged again, and until a node has caught up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Arguments of the nodes.
const SETTINGS: [&str; 2] = ["--log-level", "warn"];

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let kills = if options.quick { QUICK_KILLS } else { KILLS };
    World::with_settings(Shape { nodes: 3, hosts: 0 }, &SETTINGS, |world| {
        let credentials = Credentials::load(&world.cluster.credentials)?;
        let runtime = runtime()?;
        let (end, ended) = watch::channel(false);
        let mut load = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = Careful::new(&world.cluster.servers(), &credentials)?;
            load.spawn_on(client.write_until(ended.clone()), runtime.handle());
        }
        let mut times = Sample::default();
        for kill in 1..=kills {
            let time = one_kill(world, &runtime, &credentials)?;
            eprintln!("  kill {kill}: {:.0} ms", millis(time));
            times.add(time);
        }
        // The clients may have ended already, which their outcomes tell.
        let _ = end.send(true);
        let written: usize = runtime.block_on(load.join_all()).into_iter().sum::<Outcome<usize>>()?;
        report.note("failover_kills", times.len() as f64);
        report.note("failover_p50_ms", millis(times.percentile(50)));
        report.note("failover_p99_ms", millis(times.percentile(99)));
        report.note("failover_max_ms", millis(times.percentile(100)));
        report.note("failover_writes", written as f64);
        report.probe()
    })
}

fn one_kill(world: &mut World, runtime: &Runtime, credentials: &Credentials) -> Outcome<Duration> {
    let leader = world.cluster.leader()?;
    let mut servers = world.cluster.servers();
    // The client's first choice is the node that is going to die.
    servers.rotate_left(leader);
    let mut client = Careful::new(&servers, credentials)?;
    runtime.block_on(async {
        let begun = Instant::now();
        while begun.elapsed() < LOAD {
            client.write().await?;
        }
        Outcome::Ok(())
    })?;
    world.cluster.nodes[leader].kill()?;
    let killed = Instant::now();
    runtime.block_on(client.write())?;
    let time = killed.elapsed();
    let node = &mut world.cluster.nodes[leader];
    node.start()?;
    runtime.block_on(caught_up(&node.place.api, credentials))?;
    Ok(time)
}

/// Waits until a node serves a linearizable read, for which it must have all that was acknowledged.
async fn caught_up(node: &str, credentials: &Credentials) -> Outcome {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(operator) = Operator::at(node, credentials).await
            && operator.sums().await.is_ok()
        {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    wrong(format!("{node} has not caught up within {} s", PATIENCE.as_secs()))
}

/// A client that goes on with another node where one does not answer, and repeats what it does not know the outcome of.
struct Careful {
    servers: Servers,
    spec: v1::WorkloadSpec,
    open: Option<Channel>,
}

impl Careful {
    fn new(servers: &[String], credentials: &Credentials) -> Outcome<Self> {
        let servers = Servers::new(servers, Trust::Mutual(credentials))?;
        Ok(Self { servers, spec: container("bench", 0, 100)?, open: None })
    }

    /// Makes a write until it is acknowledged.
    async fn write(&mut self) -> Outcome {
        let (number, begun) = (number(), Instant::now());
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            match self.attempt(number).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
            self.open = None;
            sleep(PAUSE).await;
        }
        wrong(format!("a write was not acknowledged within {} s: {last}", PATIENCE.as_secs()))
    }

    async fn attempt(&mut self, number: u64) -> Outcome {
        let channel = match &self.open {
            Some(channel) => channel.clone(),
            None => self.open.insert(self.servers.connect().await?.channel).clone(),
        };
        let request = Apply::new(channel.clone(), &self.spec).request(number);
        timeout(ATTEMPT, WorkloadServiceClient::new(channel).apply(request)).await??;
        Ok(())
    }

    /// Writes until the end; gives how many writes were acknowledged.
    async fn write_until(mut self, ended: watch::Receiver<bool>) -> Outcome<usize> {
        let mut written = 0;
        while !*ended.borrow() {
            self.write().await?;
            written += 1;
        }
        Ok(written)
    }
}
