//! A cluster of one or three scheduler nodes with mTLS, made as an operator makes one: `init`, tokens, `join`, `run`.

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
    ports::Ports,
    process::{Process, complete},
    programs, wait, wrong,
};

/// Longest time that `init` and `join` may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who makes a cluster in the tests.
pub const OPERATOR: &str = "tester";

/// One node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Its address for clients and agents.
    pub api: String,
    /// Its address for the other nodes.
    pub peer: String,
    /// Its data.
    pub data: PathBuf,
    /// Its process, while there is one.
    pub process: Option<Process>,
    name: String,
    log: PathBuf,
}

impl Node {
    fn new(folder: &Path, number: usize, ports: &mut Ports) -> Outcome<Self> {
        let name = format!("scheduler-{number}");
        Ok(Self {
            api: format!("127.0.0.1:{}", ports.one()?),
            peer: format!("127.0.0.1:{}", ports.one()?),
            data: folder.join(&name),
            process: None,
            log: folder.join(format!("{name}.log")),
            name,
        })
    }

    /// The arguments of `init` and `join` that say where it is and how others reach it.
    fn place(&self) -> Vec<String> {
        let data = self.data.to_string_lossy().into_owned();
        let words = ["--data-dir", &data, "--api-address", &self.api, "--peer-address", &self.peer];
        words.map(str::to_owned).to_vec()
    }

    fn prepare(&self, verb: &str, more: &[&str]) -> Outcome {
        let mut command = program()?;
        complete(command.arg(verb).args(self.place()).args(more), b"", PATIENCE)?.with_code(0)?;
        Ok(())
    }

    /// Starts its process.
    pub fn start(&mut self) -> Outcome {
        let mut command = program()?;
        command.arg("run").arg("--data-dir").arg(&self.data);
        command.args(["--api-listen", &self.api, "--peer-listen", &self.peer, "--http-listen", "off"]);
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
    let mut command = Command::new(programs::find(programs::SCHEDULER)?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SUPERCLOUD_") {
            command.env_remove(name);
        }
    }
    Ok(command)
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
    /// Makes a cluster of `size` nodes, and waits until all of them vote.
    pub fn start(folder: &Path, size: usize, ports: &mut Ports) -> Outcome<Self> {
        let credentials = folder.join("operator.pem");
        let home = folder.join("home");
        fs::create_dir_all(&home)?;
        let mut first = Node::new(folder, 1, ports)?;
        first.prepare(
            "init",
            &["--operator", OPERATOR, "--credentials-out", &credentials.to_string_lossy()],
        )?;
        first.start()?;
        let cli = Cli::new(vec![first.api.clone()], &credentials, &home)?;
        let mut cluster = Self { nodes: vec![first], cli, credentials, id: String::new() };
        cluster.id = wait::until("the first node answers", wait::SOON, || {
            cluster.nodes[0].process()?.must_run()?;
            Ok(text(&cluster.cli.json(&["scheduler", "list"])?, "cluster_id").to_owned())
        })?;
        for number in 2..=size {
            cluster.join(folder, number, ports)?;
        }
        cluster.await_voters(size)?;
        Ok(cluster)
    }

    fn join(&mut self, folder: &Path, number: usize, ports: &mut Ports) -> Outcome {
        let mut node = Node::new(folder, number, ports)?;
        let token = self.token(&["scheduler"])?;
        node.prepare("join", &["--token", &token, "--server", &self.nodes[0].api])?;
        node.start()?;
        self.cli.servers.push(node.api.clone());
        self.nodes.push(node);
        // One at a time: the next one may join when this one votes.
        self.await_voters(number)
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
        let seen = self.cli.speaking_to(std::slice::from_ref(&node.api)).json(&["scheduler", "list"])?;
        let leader = number(&seen, "leader");
        let nodes = seen.get("nodes").ok_or_else(|| Wrong(format!("no nodes: {seen}")))?;
        let leader = items(nodes)?.iter().find(|node| number(node, "id") == leader);
        let address = leader.map(|node| text(node, "api_address")).unwrap_or_default();
        let place = self.nodes.iter().position(|node| node.api == address && node.process.is_some());
        place.ok_or_else(|| Wrong(format!("none that runs leads: {seen}")).into())
    }

    /// The addresses of all nodes.
    pub fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.api.clone()).collect()
    }
}
