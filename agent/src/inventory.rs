//! What this host is: processors, memory, disk, system, drivers. Measured anew every minute and when a driver changes its mind. It
//! decides nothing; what an operator wrote (the offer, labels, the site) goes over what was found.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::{statvfs::statvfs, utsname::uname};
use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    cores::NumaNode,
    host::{DriverInfo, Inventory, PortRange},
    name::{RackName, SiteName},
    spec::DriverKind,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    devices::{self, Devices},
    executor::Drivers,
};

mod link;
mod meter;
mod topology;

pub use meter::Meter;

/// Everything is looked at anew this often.
const EVERY: Duration = Duration::from_secs(60);
/// And at most this often, however often a driver changes its mind.
const AT_MOST: Duration = Duration::from_secs(2);
/// A probe may take this long before the driver counts as silent. The drivers have deadlines of their own; this one is behind them.
const PROBE_DEADLINE: Duration = Duration::from_secs(60);
/// Kept back for the system where nothing is said: what Debian with a runtime and this agent needs at rest.
const RESERVED: Amounts = Amounts { cpu: MilliCpu(200), memory: Bytes(512 << 20), disk: Bytes(2 << 30) };

/// What an operator wrote about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Site.
    pub site: SiteName,
    /// Rack.
    pub rack: Option<RackName>,
    /// Address of published ports.
    pub address: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: BTreeMap<String, String>,
    /// Offered processor time; `None`: all.
    pub offer_cpu: Option<MilliCpu>,
    /// Offered memory; `None`: all.
    pub offer_memory: Option<Bytes>,
    /// Offered disk; `None`: all of the file system of the data directory.
    pub offer_disk: Option<Bytes>,
    /// Offered network bandwidth; `None`: that of the link.
    pub offer_network: Option<Mbits>,
    /// Kept back; `None`: nothing of an offer, and of a whole machine what a system needs.
    pub reserved: Option<Amounts>,
    /// Network bandwidth that is kept back.
    pub network_reserved: Mbits,
    /// Ports that may be given away.
    pub ports: PortRange,
    /// Whose file system counts as the disk.
    pub data_dir: PathBuf,
    /// Devices.
    pub devices: Devices,
    /// Processors that nobody gets for himself.
    pub shared_cpus: Vec<u16>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// All of it.
    pub capacity: Amounts,
    /// Network bandwidth of the link on which it is reached; 0: not known.
    pub network: Mbits,
    /// Debian's word.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the system.
    pub os: String,
    /// This boot.
    pub boot_id: String,
    /// Its processors by NUMA node.
    pub nodes: Vec<NumaNode>,
}

/// Why the machine cannot be measured.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct MeasureError {
    /// What was looked at.
    pub what: String,
    /// What went wrong.
    pub reason: String,
}

impl Machine {
    /// Looks at the machine, which is reached at this address.
    pub fn measure(data_dir: &Path, address: &str) -> Result<Self, MeasureError> {
        let fail = |what: &str, reason: &dyn std::fmt::Display| MeasureError {
            what: what.to_owned(),
            reason: reason.to_string(),
        };
        let cpus = std::thread::available_parallelism().map_err(|error| fail("processors", &error))?;
        let disk = statvfs(data_dir).map_err(|error| fail(&data_dir.display().to_string(), &error))?;
        let system = uname().map_err(|error| fail("uname", &error))?;
        let memory = meter::memory().ok_or_else(|| fail("/proc/meminfo", &"no MemTotal in it"))?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| fail("/proc/sys/kernel/random/boot_id", &error))?;
        Ok(Self {
            capacity: Amounts {
                cpu: MilliCpu(u64::try_from(cpus.get()).unwrap_or(u64::MAX).saturating_mul(1000)),
                memory: memory.total,
                disk: Bytes(disk.blocks().saturating_mul(disk.fragment_size())),
            },
            network: link::speed(address),
            arch: debian_arch(&system.machine().to_string_lossy()),
            kernel: system.release().to_string_lossy().into_owned(),
            os: os_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            boot_id: boot_id.trim().to_owned(),
            nodes: topology::nodes(memory.total),
        })
    }

    /// Its processors, ascending.
    pub fn cpus(&self) -> Vec<u16> {
        let mut cpus: Vec<u16> =
            self.nodes.iter().flat_map(|node| &node.cpus).map(|cpu| cpu.number).collect();
        cpus.sort_unstable();
        cpus
    }
}

/// The kernel's word for an architecture as Debian says it; others stay as they are.
fn debian_arch(machine: &str) -> String {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "armhf",
        "i686" => "i386",
        "ppc64le" => "ppc64el",
        other => other,
    }
    .to_owned()
}

fn os_name(os_release: &str) -> String {
    let field = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    field("PRETTY_NAME").or_else(|| field("NAME")).unwrap_or_else(|| "unknown".to_owned())
}

/// The inventory from what was written, what was found and what the drivers say.
pub fn inventory(
    settings: &HostSettings,
    machine: &Machine,
    drivers: BTreeMap<DriverKind, DriverInfo>,
) -> Inventory {
    let found = machine.capacity;
    let is_part =
        settings.offer_cpu.is_some() || settings.offer_memory.is_some() || settings.offer_disk.is_some();
    let default = if is_part { Amounts::default() } else { RESERVED };
    let reserved = settings.reserved.unwrap_or(default);
    let mut nodes = machine.nodes.clone();
    topology::keep(&mut nodes, &settings.shared_cpus, reserved.cpu.0.div_ceil(1_000));
    Inventory {
        site: settings.site.clone(),
        rack: settings.rack.clone(),
        address: settings.address.clone(),
        capacity: Amounts {
            cpu: settings.offer_cpu.unwrap_or(found.cpu).min(found.cpu),
            memory: settings.offer_memory.unwrap_or(found.memory).min(found.memory),
            disk: settings.offer_disk.unwrap_or(found.disk).min(found.disk),
        },
        reserved,
        // What is offered is not held against what was found: many links, as those of virtual machines, do not say how fast they are.
        network: settings.offer_network.unwrap_or(machine.network),
        network_reserved: settings.network_reserved,
        arch: machine.arch.clone(),
        kernel: machine.kernel.clone(),
        os: machine.os.clone(),
        labels: settings.labels.clone(),
        ports: settings.ports,
        drivers,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: machine.boot_id.clone(),
        devices: devices::found(&settings.devices),
        taints: settings.taints.clone(),
        nodes,
    }
}

/// Asks all drivers, side by side, how they are.
pub async fn probe(drivers: &Drivers) -> BTreeMap<DriverKind, DriverInfo> {
    let probes = drivers.iter().map(|(kind, driver)| {
        let (kind, driver) = (*kind, Arc::clone(driver));
        async move {
            let probe = tokio::time::timeout(PROBE_DEADLINE, driver.probe());
            let late = |_| DriverInfo { reason: "no answer to a probe".to_owned(), ..DriverInfo::default() };
            (kind, probe.await.unwrap_or_else(late))
        }
    });
    futures::future::join_all(probes).await.into_iter().collect()
}

/// Keeps the inventory true for ever: every minute, and soon after `asked`.
pub async fn keep(
    settings: HostSettings,
    drivers: Arc<Drivers>,
    asked: Arc<Notify>,
    shown: watch::Sender<Inventory>,
) {
    loop {
        let next = Instant::now() + EVERY;
        tokio::time::sleep(AT_MOST).await;
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = asked.notified() => {}
            () = shown.closed() => return,
        }
        let drivers = probe(&drivers).await;
        match Machine::measure(&settings.data_dir, &settings.address) {
            Ok(machine) => {
                let mut found = inventory(&settings, &machine, drivers);
                // A link that is down tells no speed, and it is up again by the time that anybody can be told.
                if found.network == Mbits::default() {
                    found.network = shown.borrow().network;
                }
                show(&shown, found);
            }
            Err(error) => warn!(%error, "the machine could not be measured; what was found before stands"),
        }
    }
}

fn show(shown: &watch::Sender<Inventory>, found: Inventory) {
    shown.send_if_modified(|before| {
        let changed = *before != found;
        if changed {
            for (kind, info) in &found.drivers {
                let healthy = info.healthy;
                info!(
                    driver = kind.as_str(),
                    healthy,
                    version = info.version,
                    reason = info.reason,
                    "driver"
                );
            }
            for (name, device) in found.devices.iter().filter(|(_, device)| !device.is_well()) {
                warn!(device = %name, reason = device.fault, "a device cannot be used");
            }
            *before = found;
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDriver;

    fn settings() -> HostSettings {
        HostSettings {
            site: SiteName::new("slough").expect("a name"),
            rack: None,
            address: "10.0.0.1".to_owned(),
            labels: BTreeMap::new(),
            taints: BTreeMap::new(),
            offer_cpu: None,
            offer_memory: None,
            offer_disk: None,
            offer_network: None,
            reserved: None,
            network_reserved: Mbits(0),
            ports: PortRange { first: 20_000, last: 20_999 },
            data_dir: std::env::temp_dir(),
            devices: Devices::new(),
            shared_cpus: Vec::new(),
        }
    }

    #[test]
    fn this_machine_is_measured() {
        let machine = Machine::measure(&std::env::temp_dir(), "127.0.0.1").expect("measures");
        assert!(machine.capacity.cpu.0 >= 1000 && machine.capacity.cpu.0.is_multiple_of(1000));
        assert!(machine.capacity.memory.0 > 64 << 20);
        assert!(machine.capacity.disk.0 > 0);
        assert_eq!(machine.boot_id.len(), 36);
        assert!(!machine.kernel.is_empty() && !machine.os.is_empty());
    }

    #[test]
    fn words_are_those_of_debian() {
        assert_eq!(debian_arch("x86_64"), "amd64");
        assert_eq!(debian_arch("riscv64"), "riscv64");
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_name(""), "unknown");
    }

    #[test]
    fn an_offer_is_never_more_than_there_is_and_keeps_nothing_back() {
        let machine = Machine::measure(&std::env::temp_dir(), "127.0.0.1").expect("measures");
        let whole = inventory(&settings(), &machine, BTreeMap::new());
        assert_eq!((whole.capacity, whole.reserved), (machine.capacity, RESERVED));
        let offered = HostSettings {
            offer_cpu: Some(MilliCpu(500)),
            offer_memory: Some(Bytes(u64::MAX)),
            offer_network: Some(Mbits(400)),
            ..settings()
        };
        let part = inventory(&offered, &machine, BTreeMap::new());
        assert_eq!(part.capacity.cpu, MilliCpu(500));
        assert_eq!(part.capacity.memory, machine.capacity.memory);
        assert_eq!(part.reserved, Amounts::default());
        assert_eq!((whole.network, part.network), (machine.network, Mbits(400)));
    }

    #[tokio::test]
    async fn a_silent_driver_is_told_as_such() {
        let fake = Arc::new(FakeDriver::new(DriverKind::Docker));
        let drivers: Drivers = BTreeMap::from([(DriverKind::Docker, fake.clone() as Arc<_>)]);
        assert!(probe(&drivers).await[&DriverKind::Docker].healthy);
        fake.set_silent(true);
        assert!(!probe(&drivers).await[&DriverKind::Docker].healthy);
    }
}
