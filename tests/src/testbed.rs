//! A cluster that can be hurt: each node in a network namespace of its own, if asked for behind a proxy or on a small disk of its own.
//! It has no hosts. It takes down whatever it put up, and when the test fails it prints the last of every log first.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use supercloud_proto::v1::{ListWorkloadsRequest, Workload, workload_service_client::WorkloadServiceClient};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    Outcome, Wrong,
    disk::Disk,
    hold, leftovers,
    load::{Load, Size},
    netns::Network,
    proxy::{Conditions, Proxy},
    registers::BOROUGH,
    scheduler::{Cluster, Place},
    wait,
    ways::Ways,
    world::print_logs,
    wrong,
};

/// Ports of each node, the same in every namespace.
const API: u16 = 7400;
const PEERS: u16 = 7401;
/// Where its proxy listens for the other nodes.
const PROXY: u16 = 7501;
/// Within which a cluster that can serve does: elections, connections that are made anew, and a machine with two cores.
pub const SERVES_WITHIN: Duration = Duration::from_secs(15);
/// Within which all nodes follow one leader and have caught up, after everything works again.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(30);
/// Within which a leader is stable, whatever the shape of the network, as long as one node hears a majority.
pub const STABLE_WITHIN: Duration = Duration::from_secs(10);
/// For how long it is looked at: several elections.
const STABLE_FOR: Duration = Duration::from_secs(2);
/// For how long nothing is written where nothing can be: several elections.
const SILENT_FOR: Duration = Duration::from_secs(2);
/// Writes that show that a cluster serves: several a client, so that none of them hangs.
const SERVED: usize = 40;
/// Workloads on a page; a test has fewer.
const PAGE: u32 = 1_000;

/// What a testbed is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Nodes, up to seven.
    pub nodes: usize,
    /// Whether what nodes say to each other goes through proxies.
    pub proxies: bool,
    /// Size in MiB of a disk for each node; `None`: all are on this machine's.
    pub disks: Option<u64>,
}

/// The cluster with all that hurts it.
#[derive(Debug)]
pub struct Testbed {
    // In the order of taking down: what runs on the disks and in the network goes first.
    /// The nodes and their operator.
    pub cluster: Cluster,
    /// A proxy before each node's peer port, if asked for.
    pub proxies: Vec<Proxy>,
    /// A disk for each node, if asked for.
    pub disks: Vec<Disk>,
    /// What carries what they say.
    pub network: Network,
    ways: Ways,
    runtime: Runtime,
    folder: TempDir,
    passed: bool,
}

impl Testbed {
    /// Makes a testbed, lets the test act in it, and takes it down.
    pub fn with<R>(setting: Setting, test: impl FnOnce(&mut Self) -> Outcome<R>) -> Outcome<R> {
        let mut bed = Self::make(setting)?;
        let given = test(&mut bed)?;
        bed.passed = true;
        Ok(given)
    }

    fn make(setting: Setting) -> Outcome<Self> {
        let folder = leftovers::folder()?;
        let path = folder.path().to_owned();
        let network = Network::make(&path, setting.nodes)?;
        let (mut proxies, mut disks, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for node in 0..setting.nodes {
            let mut data = path.join(format!("scheduler-{}", node + 1));
            if let Some(mebibytes) = setting.disks {
                let disk = Disk::make(&path, &format!("disk-{}", node + 1), mebibytes)?;
                data = disk.path.join("data");
                disks.push(disk);
            }
            let place = place(&network, node, setting, data);
            if setting.proxies {
                let namespace = network.namespace(node).path();
                let (listen, target) = (place.peer.parse()?, place.peer_listen.parse()?);
                proxies.push(Proxy::start(Some(&namespace), listen, target, node as u64)?);
            }
            places.push(place);
        }
        let cluster = Cluster::at(&path, places).inspect_err(|_| print_logs(&path))?;
        cluster.cli.ok(&["borough", "create", BOROUGH])?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let ways = runtime.block_on(Ways::open(&cluster.servers(), &cluster.credentials))?;
        Ok(Self { cluster, proxies, disks, network, ways, runtime, folder, passed: false })
    }

    /// Starts clients on all nodes, on registers under a name that was not used before.
    pub fn load(&self, name: &str, size: Size) -> Outcome<Load> {
        Load::start(name, &self.cluster.servers(), &self.cluster.credentials, size)
    }

    /// Waits until clients are served: each of them, since they go on to another node where one does not answer.
    pub fn await_served(&self, load: &Load) -> Outcome<Duration> {
        load.await_more(SERVED, SERVES_WITHIN)
    }

    /// Waits until writes end, as they must where no majority can keep them; nothing is written for several elections.
    pub fn await_silence(&self, load: &Load) -> Outcome {
        wait::until("writes have ended", SERVES_WITHIN, || {
            let written = load.written();
            wait::throughout("nothing is written", SILENT_FOR, || {
                hold(load.written() == written, || format!("{written} writes became {}", load.written()))
            })
        })
    }

    /// All places.
    pub fn all(&self) -> Vec<usize> {
        (0..self.cluster.nodes.len()).collect()
    }

    /// All places but these.
    pub fn others(&self, but: &[usize]) -> Vec<usize> {
        self.all().into_iter().filter(|place| !but.contains(place)).collect()
    }

    /// The place of the leader, once all these nodes agree on it.
    pub fn leader_among(&self, places: &[usize], within: Duration) -> Outcome<usize> {
        wait::until(&format!("nodes {places:?} agree on a leader"), within, || {
            self.runtime.block_on(self.ways.leader(places))
        })
    }

    /// The place of the leader, once all nodes agree on it.
    pub fn leader(&self) -> Outcome<usize> {
        self.leader_among(&self.all(), wait::SOON)
    }

    /// The highest term that any node knows, and the place of who leads in it.
    fn term(&self) -> Outcome<(u64, usize)> {
        let seen = self.runtime.block_on(self.ways.seen_by_all(&self.all()))?;
        let latest = seen.iter().max_by_key(|seen| (seen.term, seen.leader));
        let latest = latest.ok_or_else(|| Wrong("no node was asked".to_owned()))?;
        hold(latest.leader != 0, || format!("nobody leads in term {}", latest.term))?;
        Ok((latest.term, self.ways.place_of(latest.leader, latest)?))
    }

    /// Waits until one node leads and goes on leading, since no node stands against it, whatever it hears; the place of that leader.
    pub fn await_stable_leader(&self) -> Outcome<usize> {
        wait::until("a leader is stable", STABLE_WITHIN, || {
            let first = self.term()?;
            wait::throughout("one leader in one term", STABLE_FOR, || {
                let now = self.term()?;
                hold(now == first, || format!("(term, place of the leader) were {first:?}, are {now:?}"))
            })?;
            Ok(first.1)
        })
    }

    /// From now on every proxy behaves like this.
    pub fn weather(&self, conditions: Conditions) {
        for proxy in &self.proxies {
            proxy.set(conditions);
        }
    }

    /// Waits until all nodes follow one leader and hold the same at the same log index. Nothing may be written meanwhile.
    pub fn await_agreement(&mut self) -> Outcome {
        wait::until("all nodes hold the same", WHOLE_WITHIN, || {
            for node in &mut self.cluster.nodes {
                node.process()?.must_run()?;
            }
            self.runtime.block_on(async {
                self.ways.leader(&self.all()).await?;
                let first = self.held_by(0).await?;
                for place in 1..self.ways.count() {
                    let other = self.held_by(place).await?;
                    hold(other.0 == first.0, || format!("node {place} is at {}, 0 at {}", other.0, first.0))?;
                    hold(other.1 == first.1, || format!("at {} node {place} differs from 0", first.0))?;
                }
                Ok(())
            })
        })
    }

    /// What one node holds by itself, and at which log index.
    async fn held_by(&self, place: usize) -> Outcome<(u64, Vec<Workload>)> {
        let request =
            ListWorkloadsRequest { page_size: PAGE, stale: true, ..ListWorkloadsRequest::default() };
        let mut client = WorkloadServiceClient::new(self.ways.to(place));
        match tokio::time::timeout(wait::SOON, client.list(request)).await {
            Ok(answer) => {
                Ok(answer.map(|answer| answer.into_inner()).map(|list| (list.index, list.workloads))?)
            }
            Err(_) => wrong(format!("node {place} does not list what it holds")),
        }
    }
}

fn place(network: &Network, node: usize, setting: Setting, data: PathBuf) -> Place {
    let namespace = network.namespace(node).clone();
    let at = |port| SocketAddr::from((namespace.address, port)).to_string();
    Place {
        api: at(API),
        peer: at(if setting.proxies { PROXY } else { PEERS }),
        peer_listen: at(PEERS),
        data,
        namespace: Some(namespace),
        settings: Vec::new(),
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        for disk in &self.disks {
            // A process that waits for a frozen disk cannot end. One that is not frozen says so.
            let _ = disk.thaw();
        }
        if !self.passed {
            print_logs(self.folder.path());
        }
    }
}
