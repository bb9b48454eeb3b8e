//! A cluster of scheduler nodes with mTLS, made as an operator makes one: `init`, tokens, `join`, `run`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Outcome, Wrong,
    cli::{Cli, items, number, text},
    netns::Namespace,
    ports::Ports,
    process::{Process, complete},
    programs, wait, wrong,
};

/// Longest time that `init` and `join` may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who makes a cluster in the tests.
pub const OPERATOR: &str = "tester";

/// Where a node is to be.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its address for clients and agents, where it also listens.
    pub api: String,
    /// Its address for the other nodes.
    pub peer: String,
    /// Where it listens for them: the same, unless something stands before it.
    pub peer_listen: String,
    /// Its data.
    pub data: PathBuf,
    /// Its network; `None`: this machine's.
    pub namespace: Option<Namespace>,
    /// Further arguments of `run`, for what is needed otherwise than usual.
    pub settings: Vec<String>,
}

impl Place {
    /// On this machine's loopback.
    pub fn loopback(folder: &Path, number: usize, ports: &mut Ports) -> Outcome<Self> {
        let (api, peer) = (ports.one()?, format!("127.0.0.1:{}", ports.one()?));
        Ok(Self {
            api: format!("127.0.0.1:{api}"),
            peer_listen: peer.clone(),
            peer,
            data: folder.join(format!("scheduler-{number}")),
            namespace: None,
            settings: Vec::new(),
        })
    }

    /// The arguments of `init` and `join` that say where it is and how others reach it.
    fn words(&self) -> Vec<String> {
        let data = self.data.to_string_lossy().into_owned();
        let words = ["--data-dir", &data, "--api-address", &self.api, "--peer-address", &self.peer];
        words.map(str::to_owned).to_vec()
    }

    /// The scheduler's program, in the network of this place.
    fn program(&self) -> Outcome<Command> {
        match &self.namespace {
            None => program(),
            Some(namespace) => Ok(clean(namespace.command(programs::find(programs::SCHEDULER)?))),
        }
    }
}

/// One node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub place: Place,
    /// Its process, while there is one.
    pub process: Option<Process>,
    name: String,
    log: PathBuf,
}

impl Node {
    fn new(folder: &Path, number: usize, place: Place) -> Self {
        let name = format!("scheduler-{number}");
        Self { place, process: None, log: folder.join(format!("{name}.log")), name }
    }

    /// Makes its directory: `init`, `join` or `restore`.
    pub fn prepare(&self, verb: &str, more: &[&str]) -> Outcome {
        let mut command = program()?;
        complete(command.arg(verb).args(self.place.words()).args(more), b"", PATIENCE)?.with_code(0)?;
        Ok(())
    }

    /// Starts its process.
    pub fn start(&mut self) -> Outcome {
        let mut command = self.place.program()?;
        command.arg("run").arg("--data-dir").arg(&self.place.data);
        command.args(["--api-listen", &self.place.api, "--peer-listen", &self.place.peer_listen]);
        command.args(["--http-listen", "off"]).args(&self.place.settings);
        self.process = Some(Process::start(&self.name, &mut command, &self.log)?);
        Ok(())
    }

    /// Its process; an error when there is none.
    pub fn process(&mut self) -> Outcome<&mut Process> {
        let name = &self.name;
        self.process.as_mut().ok_or_else(|| Wrong(format!("{name} does not run")).into())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Outcome {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// The last of its log.
    pub fn tail(&self) -> String {
        format!("--- {}\n{}", self.name, crate::process::tail(&self.log))
    }
}

/// The scheduler's program, without anything of the tester's environment.
pub fn program() -> Outcome<Command> {
    Ok(clean(Command::new(programs::find(programs::SCHEDULER)?)))
}

/// A command without anything of the tester's environment.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SUPERCLOUD_") {
            command.env_remove(name);
        }
    }
    command
}

/// The nodes, and an operator who speaks to all of them.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; their place here has nothing to do with their numbers.
    pub nodes: Vec<Node>,
    /// The operator's command.
    pub cli: Cli,
    /// The operator's credentials.
    pub credentials: PathBuf,
    /// Id of the cluster.
    pub id: String,
}

impl Cluster {
    /// Makes a cluster of `size` nodes on loopback, and waits until all of them vote.
    pub fn start(folder: &Path, size: usize, ports: &mut Ports) -> Outcome<Self> {
        Self::start_with(folder, size, ports, &[])
    }

    /// The same, with further arguments of `supercloud-scheduler run`.
    pub fn start_with(folder: &Path, size: usize, ports: &mut Ports, settings: &[&str]) -> Outcome<Self> {
        let settings: Vec<String> = settings.iter().copied().map(str::to_owned).collect();
        let place = |number| {
            let place = Place::loopback(folder, number, ports)?;
            Ok(Place { settings: settings.clone(), ..place })
        };
        Self::at(folder, (1..=size).map(place).collect::<Outcome<Vec<_>>>()?)
    }

    /// Makes a cluster with a node at each place, and waits until all of them vote.
    pub fn at(folder: &Path, places: Vec<Place>) -> Outcome<Self> {
        let credentials = folder.join("operator.pem");
        let home = folder.join("home");
        fs::create_dir_all(&home)?;
        let size = places.len();
        let mut nodes = places.into_iter().zip(1..).map(|(place, number)| Node::new(folder, number, place));
        let mut first = nodes.next().ok_or_else(|| Wrong("a cluster has a node".to_owned()))?;
        first.prepare(
            "init",
            &["--operator", OPERATOR, "--credentials-out", &credentials.to_string_lossy()],
        )?;
        first.start()?;
        let cli = Cli::new(vec![first.place.api.clone()], &credentials, &home)?;
        let mut cluster = Self { nodes: vec![first], cli, credentials, id: String::new() };
        cluster.id = wait::until("the first node answers", wait::SOON, || {
            cluster.nodes[0].process()?.must_run()?;
            Ok(text(&cluster.cli.json(&["scheduler", "list"])?, "cluster_id").to_owned())
        })?;
        for node in nodes {
            cluster.join(node)?;
        }
        cluster.await_voters(size)?;
        Ok(cluster)
    }

    fn join(&mut self, mut node: Node) -> Outcome {
        let token = self.token(&["scheduler"])?;
        node.prepare("join", &["--token", &token, "--server", &self.nodes[0].place.api])?;
        node.start()?;
        self.cli.servers.push(node.place.api.clone());
        self.nodes.push(node);
        // One at a time: the next one may join when this one votes.
        self.await_voters(self.nodes.len())
    }

    fn await_voters(&mut self, count: usize) -> Outcome {
        wait::until(&format!("{count} nodes vote and one of them leads"), wait::SOON, || {
            for node in &mut self.nodes {
                node.process()?.must_run()?;
            }
            let seen = self.cli.json(&["scheduler", "list"])?;
            let nodes = seen.get("nodes").ok_or_else(|| Wrong(format!("no nodes: {seen}")))?;
            let voters =
                items(nodes)?.iter().filter(|node| node.get("voter") == Some(&Value::Bool(true))).count();
            if voters == count && number(&seen, "leader") != 0 { Ok(()) } else { wrong(seen.to_string()) }
        })
    }

    /// Makes a join token: `scheduler`, `agent NAME`, `operator NAME`.
    pub fn token(&self, what: &[&str]) -> Outcome<String> {
        let made = self.cli.ok(&[&["token", "create"], what].concat())?;
        let token = made.split_whitespace().find(|word| word.starts_with("sct1-"));
        token.map(str::to_owned).ok_or_else(|| Wrong(format!("no token in {made:?}")).into())
    }

    /// The place of the node that leads, once those that run agree on it.
    pub fn leader(&self) -> Outcome<usize> {
        wait::until("the nodes agree on a leader", wait::SOON, || {
            let mut seen: Option<usize> = None;
            for node in self.nodes.iter().filter(|node| node.process.is_some()) {
                let found = self.leader_as_seen_by(node)?;
                if seen.is_some_and(|seen| seen != found) {
                    return wrong(format!("node {found} as well as {seen:?}"));
                }
                seen = Some(found);
            }
            seen.ok_or_else(|| Wrong("no node runs".to_owned()).into())
        })
    }

    fn leader_as_seen_by(&self, node: &Node) -> Outcome<usize> {
        let seen =
            self.cli.speaking_to(std::slice::from_ref(&node.place.api)).json(&["scheduler", "list"])?;
        let leader = number(&seen, "leader");
        let nodes = seen.get("nodes").ok_or_else(|| Wrong(format!("no nodes: {seen}")))?;
        let leader = items(nodes)?.iter().find(|node| number(node, "id") == leader);
        let address = leader.map(|node| text(node, "api_address")).unwrap_or_default();
        let place = self.nodes.iter().position(|node| node.place.api == address && node.process.is_some());
        place.ok_or_else(|| Wrong(format!("none that runs leads: {seen}")).into())
    }

    /// Numbers of the processes of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.as_ref()).map(Process::pid).collect()
    }

    /// The addresses of all nodes.
    pub fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.api.clone()).collect()
    }
}
