//! What an operator wrote for this agent: a file, the environment and flags over it, checked as a whole, with all problems at once. It
//! touches nothing but the file: whether servers answer and runtimes are there shows later.
//!
//! The shape is that of `agent.toml` in the guide. A value from the environment (`SUPERCLOUD_AGENT_…`) or a flag replaces the file's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    cores::{CPU_LIST_EXPECTED, parse_cpu_list},
    host::PortRange,
    name::{HostName, RackName, SiteName, is_label},
    pki::{address::ServerAddress, client::MAX_SERVERS},
    problem::{Problem, Problems, quoted},
    taint::check_taints,
};

use crate::{devices::Devices, docker::Pool, libvirt::Acceleration};

mod devices;
mod table;
#[cfg(test)]
mod tests;

use table::Table;

/// Where the file is, unless said otherwise.
pub const DEFAULT_FILE: &str = "/etc/supercloud/agent.toml";
/// Where the agent keeps its data, unless said otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/supercloud/agent";
/// Host ports that the scheduler may give away, unless said otherwise. Below the ports that the kernel gives to outgoing connections.
const DEFAULT_PORTS: PortRange = PortRange { first: 20_000, last: 20_999 };
/// Site and address in development mode, where nothing is said.
const DEV_SITE: &str = "dev";
const DEV_ADDRESS: &str = "127.0.0.1";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the host; `None`: as the certificate says.
    pub name: Option<HostName>,
    /// Scheduler nodes.
    pub servers: Vec<String>,
    /// Where ledger, credentials and VM disks are.
    pub data_dir: PathBuf,
    /// Site.
    pub site: SiteName,
    /// Rack.
    pub rack: Option<RackName>,
    /// Address of published ports; `None`: the one that leads to the scheduler.
    pub address: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: BTreeMap<String, String>,
    /// The part of the machine that is offered.
    pub offer: Offer,
    /// What is kept back.
    pub reserved: Option<Amounts>,
    /// Network bandwidth that is kept back.
    pub network_reserved: Mbits,
    /// Ports that may be given away.
    pub ports: PortRange,
    /// Devices.
    pub devices: Devices,
    /// Processors that nobody gets for himself.
    pub shared_cpus: Vec<u16>,
    /// Docker.
    pub docker: Docker,
    /// libvirt.
    pub libvirt: Libvirt,
    /// Logs.
    pub log: Log,
    /// Without TLS, on this machine only.
    pub dev: bool,
}

/// The part of the machine that is offered; what is left out is offered whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// Processor time.
    pub cpu: Option<MilliCpu>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// Disk.
    pub disk: Option<Bytes>,
    /// Network bandwidth; left out: what the link is found to have.
    pub network: Option<Mbits>,
}

/// Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Whether it is used; `None`: if its socket is there when the agent starts.
    pub enabled: Option<bool>,
    /// Its socket.
    pub socket: PathBuf,
    /// Addresses of the boroughs' networks.
    pub networks: Pool,
    /// Whether a rule of the agent's own keeps them apart.
    pub firewall: bool,
}

/// libvirt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libvirt {
    /// Whether it is used; `None`: if its socket is there when the agent starts.
    pub enabled: Option<bool>,
    /// Where it answers.
    pub uri: String,
    /// Whether guests use KVM.
    pub acceleration: Acceleration,
    /// Folders below which images and kernels must be.
    pub image_dirs: Vec<PathBuf>,
    /// Network that guests are on.
    pub network: Option<String>,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// JSON, one object a line; else text.
    pub json: bool,
    /// What is logged, as `tracing` filters say it: `info`, `supercloud_agent=debug`.
    pub level: String,
}

/// What flags and the environment say; it goes over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Overrides {
    /// Name of this host
    #[arg(long, env = "SUPERCLOUD_AGENT_NAME")]
    pub name: Option<String>,
    /// Scheduler node as HOST:PORT; may be given several times
    #[arg(
        long = "server",
        env = "SUPERCLOUD_AGENT_SERVERS",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    pub servers: Vec<String>,
    /// Folder for ledger, credentials and VM disks
    #[arg(long, env = "SUPERCLOUD_AGENT_DATA_DIR")]
    pub data_dir: Option<String>,
    /// Site that this host stands in
    #[arg(long, env = "SUPERCLOUD_AGENT_SITE")]
    pub site: Option<String>,
    /// Rack that this host stands in
    #[arg(long, env = "SUPERCLOUD_AGENT_RACK")]
    pub rack: Option<String>,
    /// Address at which published ports are reached
    #[arg(long, env = "SUPERCLOUD_AGENT_ADDRESS")]
    pub address: Option<String>,
    /// Host ports that the scheduler may give away, as FIRST-LAST
    #[arg(long, env = "SUPERCLOUD_AGENT_PORTS")]
    pub ports: Option<String>,
    /// text or json
    #[arg(long, env = "SUPERCLOUD_AGENT_LOG_FORMAT")]
    pub log_format: Option<String>,
    /// What is logged: error, warn, info, debug, or a filter of tracing
    #[arg(long, env = "SUPERCLOUD_AGENT_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// Without TLS and certificates, on this machine only
    #[arg(long)]
    pub dev: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path}: {source}")]
    NoToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// It says what cannot be.
    #[error("the configuration cannot be used:\n{0}")]
    Problems(Problems),
}

impl Config {
    /// Reads the file, if it is there or was named, puts flags and environment over it, and checks the whole.
    pub fn load(file: Option<&Path>, over: &Overrides) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        };
        let table = text
            .parse()
            .map_err(|source| ConfigError::NoToml { path: path.to_owned(), source: Box::new(source) })?;
        Self::check(table, over).map_err(ConfigError::Problems)
    }

    /// Checks a file's contents with what goes over them.
    pub fn check(file: toml::Table, over: &Overrides) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut root = Table::new("", file);
        let config = read(&mut root, over, &mut problems);
        root.finish(&mut problems);
        problems.sort_by(|a, b| a.path.cmp(&b.path));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems(problems)),
        }
    }
}

/// Reads everything, noting problems; `None` when something that is needed is missing.
fn read(root: &mut Table, over: &Overrides, problems: &mut Vec<Problem>) -> Option<Config> {
    let text = |root: &mut Table, key: &str, over: &Option<String>, problems: &mut Vec<Problem>| {
        let written = root.text(key, problems);
        over.clone().or(written)
    };
    let name = text(root, "name", &over.name, problems);
    let name = parsed("name", name, problems);
    let servers = servers(root, over, problems);
    let data_dir =
        text(root, "data_dir", &over.data_dir, problems).unwrap_or_else(|| DEFAULT_DATA_DIR.to_owned());
    let site = text(root, "site", &over.site, problems).or_else(|| over.dev.then(|| DEV_SITE.to_owned()));
    if site.is_none() {
        problems.push(Problem::new("site", "the name of the site this host stands in", "nothing"));
    }
    let site: Option<SiteName> = parsed("site", site, problems);
    let rack = text(root, "rack", &over.rack, problems);
    let rack = parsed("rack", rack, problems);
    let address =
        text(root, "address", &over.address, problems).or_else(|| over.dev.then(|| DEV_ADDRESS.to_owned()));
    let ports = text(root, "ports", &over.ports, problems);
    let ports = port_range(ports.as_deref(), problems);
    let labels = labels(root, problems);
    let taints = taints(root, problems);
    let (offer, reserved, network_reserved) = amounts(root, problems);
    let devices = devices::read(root, problems);
    let shared_cpus = shared_cpus(root, problems);
    let docker = docker(root, problems);
    let libvirt = libvirt(root, problems);
    let log = log(root, over, problems);
    Some(Config {
        name,
        servers,
        data_dir: absolute("data_dir", data_dir, problems),
        site: site?,
        rack,
        address,
        labels,
        taints,
        offer,
        reserved,
        network_reserved,
        ports,
        devices,
        shared_cpus,
        docker,
        libvirt,
        log,
        dev: over.dev,
    })
}

/// A text as a value of its own kind; what is wrong is noted.
fn parsed<T>(path: &str, text: Option<String>, problems: &mut Vec<Problem>) -> Option<T>
where
    T: std::str::FromStr,
    T::Err: Into<Problems>,
{
    match text?.parse::<T>() {
        Ok(value) => Some(value),
        Err(error) => {
            problems.extend(error.into().within(path).0);
            None
        }
    }
}

fn servers(root: &mut Table, over: &Overrides, problems: &mut Vec<Problem>) -> Vec<String> {
    let written = root.texts("servers", problems).unwrap_or_default();
    let servers = if over.servers.is_empty() { written } else { over.servers.clone() };
    if servers.is_empty() || servers.len() > MAX_SERVERS {
        let expected = format!("1 to {MAX_SERVERS} scheduler nodes as \"host:port\"");
        problems.push(Problem::new("servers", expected, servers.len().to_string()));
    }
    for (i, server) in servers.iter().enumerate() {
        match server.parse::<ServerAddress>() {
            Err(_) => {
                let path = format!("servers[{i}]");
                problems.push(Problem::new(path, "a scheduler node as \"host:port\"", format!("{server:?}")));
            }
            Ok(address) if over.dev && !address.is_loopback() => {
                let expected = "an address of this machine, since --dev goes without TLS";
                problems.push(Problem::new(format!("servers[{i}]"), expected, format!("{server:?}")));
            }
            Ok(_) => {}
        }
    }
    servers
}

fn port_range(text: Option<&str>, problems: &mut Vec<Problem>) -> PortRange {
    let Some(text) = text else { return DEFAULT_PORTS };
    let parse = || {
        let (first, last) = text.split_once('-')?;
        let range = PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
        (range.first >= 1 && range.first <= range.last).then_some(range)
    };
    parse().unwrap_or_else(|| {
        problems.push(Problem::new("ports", "a range of ports as \"20000-20999\"", format!("{text:?}")));
        DEFAULT_PORTS
    })
}

fn shared_cpus(root: &mut Table, problems: &mut Vec<Problem>) -> Vec<u16> {
    let Some(text) = root.text("shared_cpus", problems) else { return Vec::new() };
    parse_cpu_list(&text).unwrap_or_else(|| {
        problems.push(Problem::new("shared_cpus", CPU_LIST_EXPECTED, quoted(&text)));
        Vec::new()
    })
}

fn labels(table: &mut Table, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let path = table.at("labels");
    let Some(table) = table.table("labels", problems) else { return BTreeMap::new() };
    let mut labels = BTreeMap::new();
    for (key, value) in table.into_texts(problems) {
        if is_label(&key) {
            labels.insert(key, value);
        } else {
            let expected = "a label's name of a-z, 0-9 and \"-\"";
            problems.push(Problem::new(&path, expected, format!("{key:?}")));
        }
    }
    labels
}

fn taints(root: &mut Table, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let Some(table) = root.table("taints", problems) else { return BTreeMap::new() };
    let taints: BTreeMap<String, String> = table.into_texts(problems).into_iter().collect();
    problems.extend(check_taints(&taints).into_iter().map(|problem| problem.within("taints")));
    taints
}

fn amounts(root: &mut Table, problems: &mut Vec<Problem>) -> (Offer, Option<Amounts>, Mbits) {
    let mut read = |section: &str| {
        let mut table = root.table(section, problems)?;
        let mut amount = |key: &str| table.text(key, problems);
        let (cpu, memory, disk, network) =
            (amount("cpu"), amount("memory"), amount("disk"), amount("network"));
        let path = |key: &str| format!("{section}.{key}");
        let offer = Offer {
            cpu: parsed(&path("cpu"), cpu, problems),
            memory: parsed(&path("memory"), memory, problems),
            disk: parsed(&path("disk"), disk, problems),
            network: parsed(&path("network"), network, problems),
        };
        table.finish(problems);
        Some(offer)
    };
    let offer = read("offer").unwrap_or_default();
    let reserved = read("reserved");
    let network_reserved = reserved.and_then(|reserved| reserved.network).unwrap_or_default();
    let reserved = reserved.map(|reserved| Amounts {
        cpu: reserved.cpu.unwrap_or_default(),
        memory: reserved.memory.unwrap_or_default(),
        disk: reserved.disk.unwrap_or_default(),
    });
    (offer, reserved, network_reserved)
}

fn docker(root: &mut Table, problems: &mut Vec<Problem>) -> Docker {
    let mut docker = Docker {
        enabled: None,
        socket: "/var/run/docker.sock".into(),
        networks: Pool::default(),
        firewall: true,
    };
    if let Some(mut table) = root.table("docker", problems) {
        docker.enabled = table.flag("enabled", problems);
        docker.firewall = table.flag("firewall", problems).unwrap_or(true);
        if let Some(socket) = table.text("socket", problems) {
            docker.socket = absolute("docker.socket", socket, problems);
        }
        if let Some(text) = table.text("networks", problems) {
            match text.parse() {
                Ok(pool) => docker.networks = pool,
                Err(expected) => {
                    problems.push(Problem::new("docker.networks", expected.to_string(), format!("{text:?}")))
                }
            }
        }
        table.finish(problems);
    }
    docker
}

fn libvirt(root: &mut Table, problems: &mut Vec<Problem>) -> Libvirt {
    let mut libvirt = Libvirt {
        enabled: None,
        uri: "qemu:///system".to_owned(),
        acceleration: Acceleration::Auto,
        image_dirs: vec!["/var/lib/supercloud/images".into()],
        network: None,
    };
    let Some(mut table) = root.table("libvirt", problems) else { return libvirt };
    libvirt.enabled = table.flag("enabled", problems);
    libvirt.uri = table.text("uri", problems).unwrap_or(libvirt.uri);
    libvirt.network = table.text("network", problems);
    let acceleration = table.text("acceleration", problems);
    match acceleration.as_deref() {
        None | Some("auto") => {}
        Some("kvm") => libvirt.acceleration = Acceleration::Kvm,
        Some("tcg") => libvirt.acceleration = Acceleration::Tcg,
        Some(other) => {
            let expected = "\"auto\", \"kvm\" or \"tcg\"";
            problems.push(Problem::new("libvirt.acceleration", expected, format!("{other:?}")));
        }
    }
    if let Some(dirs) = table.texts("image_dirs", problems) {
        let dir = |(i, dir)| absolute(&format!("libvirt.image_dirs[{i}]"), dir, problems);
        libvirt.image_dirs = dirs.into_iter().enumerate().map(dir).collect();
    }
    table.finish(problems);
    libvirt
}

fn log(root: &mut Table, over: &Overrides, problems: &mut Vec<Problem>) -> Log {
    let (mut format, mut level) = (None, None);
    if let Some(mut table) = root.table("log", problems) {
        format = table.text("format", problems);
        level = table.text("level", problems);
        table.finish(problems);
    }
    let format = over.log_format.clone().or(format).unwrap_or_else(|| "text".to_owned());
    let level = over.log_level.clone().or(level).unwrap_or_else(|| "info".to_owned());
    if format != "text" && format != "json" {
        problems.push(Problem::new("log.format", "\"text\" or \"json\"", format!("{format:?}")));
    }
    if level.parse::<tracing_subscriber::filter::EnvFilter>().is_err() {
        let expected = "a level as \"info\" or a filter as \"supercloud_agent=debug\"";
        problems.push(Problem::new("log.level", expected, format!("{level:?}")));
    }
    Log { json: format == "json", level }
}

fn absolute(path: &str, text: String, problems: &mut Vec<Problem>) -> PathBuf {
    let found = PathBuf::from(&text);
    if !found.is_absolute() {
        problems.push(Problem::new(path, "an absolute path", format!("{text:?}")));
    }
    found
}
