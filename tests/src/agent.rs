//! Agents on this machine: each offers a part of it as a host of its own, in a site of its own, with ports of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Outcome, Wrong,
    cli::text,
    ports::Ports,
    process::{Answer, Process, complete, write},
    programs,
    scheduler::Cluster,
    wait, wrong,
};

/// Longest time that `join` may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time until a host is ready: its agent looks at Docker and at libvirt first.
const READY: Duration = Duration::from_secs(60);
/// Ports of a host.
const PORTS: u16 = 30;
/// Where published ports are reached.
pub const ADDRESS: &str = "127.0.0.1";
/// What each host offers: room for a VM of half a core and for some containers, and half a machine of two cores.
const OFFER: &str = "cpu = \"1\"\nmemory = \"1GiB\"\ndisk = \"4GiB\"";
/// Sites of the first hosts.
const SITES: [&str; 3] = ["hounslow", "slough", "park-royal"];

/// One agent, running or not.
#[derive(Debug)]
pub struct Agent {
    /// Name of its host.
    pub name: String,
    /// Site of its host.
    pub site: String,
    /// Its data: credentials, ledger, disks.
    pub data: PathBuf,
    /// Its process, while there is one.
    pub process: Option<Process>,
    config: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Joins the cluster as host `h<number>`, starts, and waits until the host is ready.
    pub fn start(folder: &Path, number: usize, ports: &mut Ports, cluster: &Cluster) -> Outcome<Self> {
        let name = format!("h{number}");
        let site = SITES.get(number - 1).ok_or_else(|| Wrong(format!("no site for {name}")))?;
        let mut agent = Self {
            data: folder.join(&name),
            site: (*site).to_owned(),
            process: None,
            config: folder.join(format!("{name}.toml")),
            log: folder.join(format!("{name}.log")),
            name,
        };
        agent.configure(cluster, ports.several(PORTS)?)?;
        let token = cluster.token(&["agent", &agent.name])?;
        agent.join(&token, &cluster.servers())?.with_code(0)?;
        agent.run()?;
        agent.await_ready(cluster)?;
        Ok(agent)
    }

    fn configure(&self, cluster: &Cluster, (first, last): (u16, u16)) -> Outcome {
        let Self { name, site, data, .. } = self;
        let (servers, images) = (cluster.servers(), programs::images());
        write(
            &self.config,
            &format!(
                "name = {name:?}\nsite = {site:?}\nservers = {servers:?}\ndata_dir = {data:?}\naddress = {ADDRESS:?}\n\
                 ports = \"{first}-{last}\"\n[offer]\n{OFFER}\n[libvirt]\nacceleration = \"tcg\"\nimage_dirs = [{images:?}]\n\
                 [labels]\ntier = \"test\"\n[log]\nlevel = \"info,supercloud_agent=debug\"\n"
            ),
        )
    }

    /// Trades a token for credentials.
    pub fn join(&self, token: &str, servers: &[String]) -> Outcome<Answer> {
        join(&self.data, token, servers)
    }

    /// Adds text at the end of its file; it holds from the next start.
    pub fn add_settings(&self, text: &str) -> Outcome {
        let before = fs::read_to_string(&self.config)?;
        write(&self.config, &format!("{before}{text}"))
    }

    /// Puts something else in the place of a text of its file; it holds from the next start.
    pub fn replace_settings(&self, from: &str, to: &str) -> Outcome {
        let before = fs::read_to_string(&self.config)?;
        write(&self.config, &before.replace(from, to))
    }

    /// Starts its process.
    pub fn run(&mut self) -> Outcome {
        let mut command = program()?;
        command.args(["run", "--config", &self.config.to_string_lossy()]);
        self.process = Some(Process::start(&self.name, &mut command, &self.log)?);
        Ok(())
    }

    /// Waits until the scheduler calls the host ready.
    pub fn await_ready(&mut self, cluster: &Cluster) -> Outcome {
        let name = self.name.clone();
        wait::until(&format!("host {name} is ready"), READY, || {
            self.process()?.must_run()?;
            self.state(cluster).and_then(|state| if state == "ready" { Ok(()) } else { wrong(state) })
        })
    }

    /// What the scheduler calls the host.
    pub fn state(&self, cluster: &Cluster) -> Outcome<String> {
        let shown = cluster.cli.json(&["host", "show", &self.name])?;
        let state = text(&shown, "state");
        if state.is_empty() { wrong(format!("no state: {shown}")) } else { Ok(state.to_owned()) }
    }

    /// Its process; an error when there is none.
    pub fn process(&mut self) -> Outcome<&mut Process> {
        let name = &self.name;
        self.process.as_mut().ok_or_else(|| Wrong(format!("the agent of {name} does not run")).into())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Outcome {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// The files of its ledger, largest first.
    pub fn ledger_files(&self) -> Outcome<Vec<PathBuf>> {
        let mut files = Vec::new();
        files_below(&self.ledger(), &mut files)?;
        files.sort_by_key(|(size, path)| (std::cmp::Reverse(*size), path.clone()));
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }

    /// The folder of its ledger.
    pub fn ledger(&self) -> PathBuf {
        self.data.join("ledger")
    }

    /// The last of its log.
    pub fn tail(&self) -> String {
        format!("--- agent of {}\n{}", self.name, crate::process::tail(&self.log))
    }
}

/// The agent's program, without anything of the tester's environment.
pub fn program() -> Outcome<Command> {
    let mut command = Command::new(programs::find(programs::AGENT)?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SUPERCLOUD_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Trades a token for credentials in a folder.
pub fn join(data: &Path, token: &str, servers: &[String]) -> Outcome<Answer> {
    let mut command = program()?;
    command.args(["join", "--token", token, "--data-dir", &data.to_string_lossy()]);
    for server in servers {
        command.args(["--server", server]);
    }
    complete(&mut command, b"", PATIENCE)
}

fn files_below(folder: &Path, files: &mut Vec<(u64, PathBuf)>) -> Outcome {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files_below(&entry.path(), files)?;
        } else {
            files.push((entry.metadata()?.len(), entry.path()));
        }
    }
    Ok(())
}
