//! Puts an agent together: ledger, drivers, inventory, session and loop, and ends them in order. The one place that knows all of them.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use supercloud_proto::{
    id::UnixMillis,
    name::HostName,
    pki::{Credentials, Identity},
    spec::DriverKind,
};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{error, info, warn};

use crate::{
    belonging::{self, UnknownCluster},
    clock::{Clock, SystemClock},
    config::{Config, Docker},
    docker::{DockerDriver, DockerSettings},
    driver::{Driver, Owner},
    executor::Drivers,
    inventory::{self, HostSettings, Machine, MeasureError, Meter},
    ledger::{Ledger, OpenError, Opened, WriteError},
    libvirt::{LibvirtDriver, LibvirtSettings},
    observed::View,
    run::{self, FromSession},
    session::{self, Access},
};

/// The credentials' file in the data directory.
pub const CREDENTIALS: &str = "credentials.pem";
/// The ledger's folder in the data directory.
pub const LEDGER: &str = "ledger";
/// Sockets at which libvirt's daemons are known to listen.
const LIBVIRT_SOCKETS: [&str; 2] = ["/var/run/libvirt/libvirt-sock", "/var/run/libvirt/virtqemud-sock"];
/// Others may pass the data directory (QEMU's user must reach its disks below it), but not list it.
const DATA_DIR_MODE: u32 = 0o711;

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data directory is of no use.
    #[error("{path}: {source}")]
    DataDir {
        /// The directory, or what in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no certificate to show.
    #[error(
        "{reason}\nthis host has not joined yet? run: supercloud-agent join --token TOKEN --server HOST:PORT"
    )]
    Credentials {
        /// What is wrong with it.
        reason: String,
    },
    /// It has a certificate and does not know of which cluster.
    #[error(transparent)]
    Cluster(#[from] UnknownCluster),
    /// The certificate is not this host's.
    #[error("the certificate is for {found}, and this host is {expected}")]
    WrongIdentity {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Nobody said what this host is called.
    #[error("name: expected the name of this host as a DNS label; the machine's own name {found:?} is none")]
    NoName {
        /// The machine's name.
        found: String,
    },
    /// The machine cannot be measured.
    #[error(transparent)]
    Machine(#[from] MeasureError),
    /// There is no ledger.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// The ledger failed while the agent ran.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Who this agent is, and how it speaks to the scheduler.
struct Standing {
    owner: Owner,
    /// As told to the scheduler; empty in development mode.
    cluster: String,
    access: Access,
}

/// Runs the agent of a configuration until `end` is ready.
pub async fn run(config: Config, end: impl Future<Output = ()>) -> Result<(), AgentError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| AgentError::DataDir { path, source }
    };
    fs::create_dir_all(&config.data_dir).map_err(failed(&config.data_dir))?;
    fs::set_permissions(&config.data_dir, fs::Permissions::from_mode(DATA_DIR_MODE))
        .map_err(failed(&config.data_dir))?;
    let standing = if config.dev { dev_standing(&config)? } else { standing(&config)? };
    let drivers = Arc::new(drivers(&config, &standing.owner));
    let settings = host_settings(&config);
    let clock = Arc::new(SystemClock);
    let opened = open_ledger(&settings.data_dir, clock.now().unix).await?;
    run_with(settings, config.servers, standing, opened, drivers, clock, end).await
}

fn standing(config: &Config) -> Result<Standing, AgentError> {
    let path = config.data_dir.join(CREDENTIALS);
    let credentials =
        Credentials::load(&path).map_err(|error| AgentError::Credentials { reason: error.to_string() })?;
    let host = match credentials.identity() {
        Identity::Agent { host } => host.clone(),
        other => {
            let expected =
                config.name.as_ref().map_or_else(|| "an agent".to_owned(), |name| format!("agent/{name}"));
            return Err(AgentError::WrongIdentity { found: other.to_string(), expected });
        }
    };
    if let Some(name) = config.name.as_ref().filter(|name| **name != host) {
        let (found, expected) = (credentials.identity().to_string(), format!("agent/{name}"));
        return Err(AgentError::WrongIdentity { found, expected });
    }
    let cluster = belonging::read(&config.data_dir)?;
    let owner = Owner { cluster: cluster.clone(), host };
    Ok(Standing { owner, cluster, access: Access::Mutual(Box::new(credentials)) })
}

fn dev_standing(config: &Config) -> Result<Standing, AgentError> {
    warn!("development mode: without TLS and certificates, on this machine only");
    let host = match &config.name {
        Some(name) => name.clone(),
        None => machine_name()?,
    };
    // Nobody tells one: a random one of this agent's own, kept for as long as its data.
    let cluster = match belonging::read(&config.data_dir) {
        Ok(cluster) => cluster,
        Err(_) => {
            let cluster = format!("{:032x}", rand::random::<u128>());
            belonging::write(&config.data_dir, &cluster)?;
            cluster
        }
    };
    Ok(Standing { owner: Owner { cluster, host }, cluster: String::new(), access: Access::Plain })
}

/// The machine's own name, without its domain.
fn machine_name() -> Result<HostName, AgentError> {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().to_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    HostName::new(first).map_err(|_| AgentError::NoName { found: name.clone() })
}

/// Where published ports listen. A host that is reached on its loopback alone publishes nothing beyond it; any other publishes on every address,
/// since the one it is reached at may be a name, or that of a router before it.
fn published_on(address: Option<&str>) -> IpAddr {
    let own = address.and_then(|address| address.parse().ok()).filter(IpAddr::is_loopback);
    own.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The drivers that are asked for, or whose runtime is there.
fn drivers(config: &Config, owner: &Owner) -> Drivers {
    let mut drivers = Drivers::new();
    if config.docker.enabled.unwrap_or_else(|| config.docker.socket.exists()) {
        let bind = published_on(config.address.as_deref());
        let Docker { networks, firewall, .. } = config.docker;
        let settings = DockerSettings { bind, networks, firewall, devices: config.devices.clone() };
        let driver = DockerDriver::connect(&config.docker.socket, owner.clone(), settings);
        drivers.insert(DriverKind::Docker, Arc::new(driver) as Arc<dyn Driver>);
    }
    let is_there = || LIBVIRT_SOCKETS.iter().any(|socket| Path::new(socket).exists());
    if config.libvirt.enabled.unwrap_or_else(is_there) {
        let settings = LibvirtSettings {
            uri: config.libvirt.uri.clone(),
            acceleration: config.libvirt.acceleration,
            data_dir: config.data_dir.clone(),
            image_dirs: config.libvirt.image_dirs.clone(),
            network: config.libvirt.network.clone(),
            devices: config.devices.clone(),
        };
        drivers.insert(DriverKind::Libvirt, Arc::new(LibvirtDriver::start(settings, owner.clone())));
    }
    if drivers.is_empty() {
        warn!("neither Docker nor libvirt is here: this host can run nothing");
    }
    drivers
}

fn host_settings(config: &Config) -> HostSettings {
    let address = config.address.clone().unwrap_or_else(|| own_address(&config.servers));
    info!(address, "published ports are reached at this address");
    HostSettings {
        site: config.site.clone(),
        rack: config.rack.clone(),
        address,
        labels: config.labels.clone(),
        taints: config.taints.clone(),
        offer_cpu: config.offer.cpu,
        offer_memory: config.offer.memory,
        offer_disk: config.offer.disk,
        offer_network: config.offer.network,
        reserved: config.reserved,
        network_reserved: config.network_reserved,
        ports: config.ports,
        data_dir: config.data_dir.clone(),
        devices: config.devices.clone(),
        shared_cpus: config.shared_cpus.clone(),
    }
}

/// The address from which the first scheduler node that has a route is reached. Sends nothing.
fn own_address(servers: &[String]) -> String {
    let towards = |server: &String| {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(server).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    servers.iter().find_map(towards).unwrap_or_else(|| {
        warn!("no address leads to the scheduler; set `address`, or published ports are told as 127.0.0.1");
        "127.0.0.1".to_owned()
    })
}

/// Runs an agent over given drivers without TLS, for many agents on one machine. `Err`: see [`AgentError`].
#[cfg(any(test, feature = "fake"))]
pub async fn run_over(
    settings: HostSettings,
    servers: Vec<String>,
    owner: Owner,
    drivers: Arc<Drivers>,
    clock: Arc<dyn Clock>,
    end: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let standing = Standing { owner, cluster: String::new(), access: Access::Plain };
    let opened = open_ledger(&settings.data_dir, clock.now().unix).await?;
    run_with(settings, servers, standing, opened, drivers, clock, end).await
}

/// Runs an agent over given drivers with a certificate and without a disk, for thousands of agents in one process: its ledger keeps nothing,
/// and ends with it. `Err`: see [`AgentError`].
#[cfg(any(test, feature = "fake"))]
pub async fn run_without_disk(
    settings: HostSettings,
    servers: Vec<String>,
    owner: Owner,
    credentials: Box<Credentials>,
    drivers: Arc<Drivers>,
    end: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let standing = Standing { cluster: owner.cluster.clone(), owner, access: Access::Mutual(credentials) };
    let opened = Ledger::forgetful(SystemClock.now().unix);
    run_with(settings, servers, standing, opened, drivers, Arc::new(SystemClock), end).await
}

async fn open_ledger(data_dir: &Path, now: UnixMillis) -> Result<Opened, OpenError> {
    let path = data_dir.join(LEDGER);
    let opening = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || Ledger::open(&path, now)).await
    };
    opening.map_err(|error| OpenError::Impossible { path, reason: error.to_string() })?
}

async fn run_with(
    settings: HostSettings,
    servers: Vec<String>,
    standing: Standing,
    opened: Opened,
    drivers: Arc<Drivers>,
    clock: Arc<dyn Clock>,
    end: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let machine = Machine::measure(&settings.data_dir, &settings.address)?;
    let infos = inventory::probe(&drivers).await;
    let found = inventory::inventory(&settings, &machine, infos);
    info!(host = %standing.owner.host, site = %found.site, cpu = %found.capacity.cpu, memory = %found.capacity.memory,
        disk = %found.capacity.disk, drivers = found.drivers.len(), "this host");
    let (inventory_sender, inventory) = watch::channel(found);
    let (view_sender, view) = watch::channel(Arc::new(View::new()));
    let (to_loop, from_session) = mpsc::channel::<FromSession>(session::LOOP_QUEUE);
    let (end_session, session_end) = watch::channel(false);
    let probe = Arc::new(Notify::new());

    let session = tokio::spawn(session::run(
        session::Setup {
            host: standing.owner.host.clone(),
            cluster: standing.cluster,
            incarnation: opened.contents.incarnation.clone(),
            servers,
            access: standing.access,
            inventory,
            meter: Meter::new(settings.data_dir.clone(), machine.capacity.cpu),
            clock: Arc::clone(&clock),
            drivers: Arc::clone(&drivers),
            view,
            to_loop,
        },
        session_end,
    ));
    let keeper =
        tokio::spawn(inventory::keep(settings, Arc::clone(&drivers), Arc::clone(&probe), inventory_sender));
    let setup = run::Setup {
        owner: standing.owner,
        drivers,
        opened,
        clock,
        cpus: machine.cpus(),
        boot_id: machine.boot_id,
        probe,
        session: from_session,
        view: view_sender,
    };
    let result = run::run(setup, end).await;
    // The session may be gone already.
    let _ = end_session.send(true);
    if session.await.is_err() {
        error!("the session broke down");
    }
    keeper.abort();
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_reached_on_its_loopback_publishes_nothing_beyond_it() {
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert_eq!(published_on(Some("127.0.0.1")), IpAddr::V4(Ipv4Addr::LOCALHOST));
        for address in [None, Some("192.0.2.7"), Some("h1.example")] {
            assert_eq!(published_on(address), everywhere, "{address:?}");
        }
    }
}
