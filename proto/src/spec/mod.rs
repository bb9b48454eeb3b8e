//! What a borough hands in, as types. `parse` makes them from YAML or JSON and `value` turns them back, `check` says
//! what a spec may not be, `wire` converts them to and from the API's messages. The types know none of these.

use std::{collections::BTreeMap, fmt};

use crate::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    condition::Condition,
    cores::Numa,
    device::DeviceRequest,
    id::Millis,
    name::{BoroughName, PortName, SiteName, TaskName, VolumeName, WorkloadKey, WorkloadName},
    taint::Toleration,
};

mod check;
mod diff;
mod duration;
mod parse;
mod schema;
mod shape;
mod value;
mod wire;

pub use self::{
    diff::{FieldDiff, diff},
    duration::{duration_text, parse_duration},
    parse::{MAX_DOCUMENTS, MAX_INPUT, parse},
    schema::schema,
};

/// Most instances of one workload.
pub const MAX_COUNT: u32 = 100_000;
/// Most instances of a gang, and most devices of all of them together: they are placed by one entry of the log.
pub const MAX_GANG: u32 = 1_000;
/// See [`MAX_GANG`].
pub const MAX_GANG_DEVICES: u32 = 8_000;
/// Most cores of their own that all instances of a gang have together: likewise.
pub const MAX_GANG_CORES: u32 = 100_000;
/// Most tasks of one workload.
pub const MAX_TASKS: usize = 16;
/// Highest priority.
pub const MAX_PRIORITY: u32 = 100;
/// Priority where none is given.
pub const DEFAULT_PRIORITY: u32 = 50;
/// Most things to spread over, beside hosts.
pub const MAX_SPREAD: usize = 3;
/// Largest share of a value that is spread over.
pub const MAX_SHARE: u32 = 100;
/// Processes and threads a container may have where nothing is given.
pub const DEFAULT_PIDS: u32 = 4096;
/// Time between the request to stop and the kill where none is given.
pub const DEFAULT_STOP_GRACE: Millis = 10_000;

/// Time between health checks where none is given.
pub const DEFAULT_HEALTH_EVERY: Millis = 10_000;
/// Time a health check may take where none is given.
pub const DEFAULT_HEALTH_TIMEOUT: Millis = 2_000;
/// Failed health checks in a row that count where no number is given.
pub const DEFAULT_UNHEALTHY_AFTER: u32 = 3;

/// The description of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSpec {
    /// Name within the borough.
    pub workload: WorkloadName,
    /// Owner.
    pub borough: BoroughName,
    /// How its instances live.
    pub kind: WorkloadKind,
    /// Instances wanted, up to [`MAX_COUNT`].
    pub count: u32,
    /// 0 to [`MAX_PRIORITY`].
    pub priority: u32,
    /// Containers or the VM of one instance; at least one.
    pub tasks: Vec<Task>,
    /// What one instance needs.
    pub resources: Resources,
    /// Where it may and should run.
    pub place: Place,
    /// How health is checked.
    pub health: Option<Health>,
    /// What happens when a task ends by itself.
    pub restart: Restart,
    /// How a new revision replaces the one before.
    pub update: Update,
    /// Time between the request to stop and the kill.
    pub stop_grace: Millis,
    /// Whether an instance must never run twice; `None`: as [`WorkloadSpec::is_exclusive`] decides.
    pub exclusive: Option<bool>,
    /// For cron: when to run.
    pub schedule: Option<String>,
    /// How firmly it holds the processor time that it asks for.
    pub class: Class,
}

impl WorkloadSpec {
    /// The class by which its processor time counts on a host: what has cores of its own takes them whole, whatever its class.
    pub fn counting_class(&self) -> Class {
        if self.resources.dedicated { Class::Guaranteed } else { self.class }
    }

    /// Borough and workload.
    pub fn key(&self) -> WorkloadKey {
        WorkloadKey { borough: self.borough.clone(), workload: self.workload.clone() }
    }

    /// Whether a task of it is a VM.
    pub fn is_vm(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.driver, Driver::Vm(_)))
    }

    /// The same, whose requests for devices say whether they are for a VM.
    #[must_use]
    pub fn with_devices_told(mut self) -> Self {
        let is_vm = self.is_vm();
        self.resources.devices.iter_mut().for_each(|request| request.to_vm = is_vm);
        self
    }

    /// Most instances that it may have.
    pub fn most_instances(&self) -> u32 {
        if !self.place.all_or_none {
            return MAX_COUNT;
        }
        let each = self.resources.devices.iter().fold(0, |sum: u32, of| sum.saturating_add(of.count));
        MAX_GANG.min(MAX_GANG_DEVICES / each.max(1)).min(self.most_by_cores())
    }

    /// Most instances of a gang of which each has so many cores of its own.
    fn most_by_cores(&self) -> u32 {
        let each = if self.resources.dedicated { self.resources.cpu.0.div_ceil(1_000) } else { 0 };
        u64::from(MAX_GANG_CORES).checked_div(each).map_or(MAX_GANG, |most| most.min(MAX_GANG.into()) as u32)
    }

    /// What its count may be, in words.
    pub fn count_expected(&self) -> String {
        let most = self.most_instances();
        match (self.place.all_or_none, most) {
            (false, _) => format!("0 to {most}"),
            (true, MAX_GANG) => format!("0 to {most}, since place.all_or_none is set"),
            (true, most) if most == self.most_by_cores() => format!(
                "0 to {most}, {MAX_GANG_CORES} cores of their own in all, since place.all_or_none is set"
            ),
            (true, _) => {
                format!("0 to {most}, {MAX_GANG_DEVICES} devices in all, since place.all_or_none is set")
            }
        }
    }

    /// Whether an instance must never run twice at a time. Where the spec is silent: a VM with disks of its own must not.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive.unwrap_or_else(|| {
            self.tasks.iter().any(|task| matches!(&task.driver, Driver::Vm(vm) if !vm.disks.is_empty()))
        })
    }

    /// Whether any of its containers mounts a volume.
    #[inline]
    pub fn has_volumes(&self) -> bool {
        self.tasks
            .iter()
            .any(|task| matches!(&task.driver, Driver::Container(container) if !container.mounts.is_empty()))
    }

    /// All ports, in the order of tasks and, within one, of names.
    pub fn ports(&self) -> impl Iterator<Item = (&TaskName, &Port)> {
        self.tasks.iter().flat_map(|task| {
            let ports: &[Port] = match &task.driver {
                Driver::Container(container) => &container.ports,
                Driver::Vm(_) => &[],
            };
            ports.iter().map(|port| (&task.name, port))
        })
    }
}

/// How the instances of a workload live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// Until stopped.
    Service,
    /// Until exit code 0.
    Batch,
    /// One on every fitting host.
    Daemon,
    /// A batch by a schedule.
    Cron,
}

/// How firmly a workload holds the processor time that it asks for, where a site gives away more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// It takes all of it, everywhere.
    Guaranteed,
    /// It takes what its site's policy says.
    #[default]
    Standard,
    /// Likewise, and of what may make way it is the first.
    Spare,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Guaranteed, Self::Standard, Self::Spare];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Standard => "standard",
            Self::Spare => "spare",
        }
    }
}

/// One container or VM of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Unique within the workload.
    pub name: TaskName,
    /// What runs it.
    pub driver: Driver,
}

/// What runs a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// Docker.
    Container(Container),
    /// libvirt.
    Vm(Vm),
}

impl WorkloadKind {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch => "batch",
            Self::Daemon => "daemon",
            Self::Cron => "cron",
        }
    }
}

impl Protocol {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl ImageFormat {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl Driver {
    /// Which driver a host needs for it.
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Container(_) => DriverKind::Docker,
            Self::Vm(_) => DriverKind::Libvirt,
        }
    }
}

/// The drivers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriverKind {
    /// Containers by Docker.
    Docker,
    /// VMs by libvirt.
    Libvirt,
}

impl DriverKind {
    /// Every driver.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Libvirt];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Libvirt => "libvirt",
        }
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// Image reference.
    pub image: String,
    /// Replaces entry point and arguments; empty: as the image says.
    pub command: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Published ports, by name.
    pub ports: Vec<Port>,
    /// Mounted volumes.
    pub mounts: Vec<Mount>,
    /// User to run as; `None`: as the image says.
    pub user: Option<String>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: PortName,
    /// Inside the container.
    pub port: u16,
    /// On the host; `None`: the scheduler chooses.
    pub host: Option<u16>,
    /// Transport.
    pub protocol: Protocol,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A named volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Volume.
    pub volume: VolumeName,
    /// Absolute path inside.
    pub path: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vm {
    /// Disk it boots from.
    pub image: Option<VmImage>,
    /// Kernel it boots.
    pub boot: Option<VmBoot>,
    /// First-boot settings.
    pub cloud_init: Option<CloudInit>,
    /// Further disks.
    pub disks: Vec<VmDisk>,
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmImage {
    /// Where it is.
    pub source: ImageSource,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: Option<String>,
    /// Coding; never guessed.
    pub format: ImageFormat,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// Absolute path on the host.
    Path(String),
    /// https address.
    Url(String),
}

/// Coding of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageFormat {
    /// QEMU copy-on-write.
    #[default]
    Qcow2,
    /// Plain blocks.
    Raw,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmBoot {
    /// Absolute path on the host.
    pub kernel: String,
    /// Absolute path on the host.
    pub initrd: Option<String>,
    /// Command line.
    pub cmdline: String,
}

/// First-boot settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudInit {
    /// user-data.
    pub user_data: String,
    /// meta-data; `None`: instance id and host name.
    pub meta_data: Option<String>,
    /// network-config.
    pub network_config: Option<String>,
}

/// An empty disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmDisk {
    /// Name within the VM.
    pub name: VolumeName,
    /// Size.
    pub size: Bytes,
}

/// What one instance needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Processor time.
    pub cpu: MilliCpu,
    /// Memory; of a VM what its guest sees.
    pub memory: Bytes,
    /// Disk space.
    pub disk: Bytes,
    /// Most processes; `None`: [`DEFAULT_PIDS`].
    pub pids: Option<u32>,
    /// Devices, each kind once.
    pub devices: Vec<DeviceRequest>,
    /// Network bandwidth.
    pub network: Mbits,
    /// Whether it has whole physical cores of its own.
    pub dedicated: bool,
    /// Where these are, and its memory.
    pub numa: Numa,
}

impl Resources {
    /// The amounts as asked for, without what a driver adds.
    pub fn amounts(&self) -> Amounts {
        Amounts { cpu: self.cpu, memory: self.memory, disk: self.disk }
    }

    /// The devices asked for one by one: each request as often as it counts.
    pub fn each_device(&self) -> impl Iterator<Item = &DeviceRequest> {
        self.devices.iter().flat_map(|request| std::iter::repeat_n(request, request.count as usize))
    }
}

/// Where instances may and should run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Only these; empty: any.
    pub sites: Vec<SiteName>,
    /// All must hold.
    pub require: Vec<Condition>,
    /// Wishes.
    pub prefer: Vec<Prefer>,
    /// What to spread over, from the widest to the narrowest.
    pub spread: Vec<Spread>,
    /// No two on one host.
    pub distinct_hosts: bool,
    /// Taints of hosts that it puts up with.
    pub tolerate: Vec<Toleration>,
    /// Workloads of the borough that must not share a host with this one, whichever of them comes first.
    pub apart: Vec<WorkloadName>,
    /// Workloads of the borough of each of which an instance must be on the host when one of this comes there.
    pub together: Vec<WorkloadName>,
    /// A *gang*: those of its instances that wait at the same time are given hosts all at once or not at all.
    pub all_or_none: bool,
    /// Whether no instance of another borough may be on the same host, whichever of them comes first.
    pub private: bool,
}

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefer {
    /// Which hosts.
    pub when: Condition,
    /// -100 to 100.
    pub weight: i32,
}

/// One thing to spread over, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spread {
    /// What.
    pub over: SpreadOver,
    /// What values of it are to have, in proportion to each other, 1 to [`MAX_SHARE`]; those that are not named come after all that are. Empty: all the
    /// same.
    pub shares: BTreeMap<String, u32>,
}

impl From<SpreadOver> for Spread {
    fn from(over: SpreadOver) -> Self {
        Self { over, shares: BTreeMap::new() }
    }
}

impl Spread {
    /// Whether it is over sites, racks or hosts and all alike, as it always could be.
    pub fn is_plain(&self) -> bool {
        self.shares.is_empty() && !matches!(self.over, SpreadOver::Label(_))
    }
}

/// How many instances are near a host of one thing that is spread over, and the share that is to be there (0: only others have shares), in words.
pub fn near_text(instances: u32, over: &dyn fmt::Display, share: Option<u32>) -> String {
    match share {
        None => format!("{instances} in its {over}"),
        Some(0) => format!("{instances} in its {over} (no share)"),
        Some(share) => format!("{instances} in its {over} (share {share})"),
    }
}

/// What to spread over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpreadOver {
    /// Sites.
    Site,
    /// Racks.
    Rack,
    /// Hosts.
    Host,
    /// Hosts by the value of a label; those without it are together.
    Label(String),
}

impl SpreadOver {
    /// Everything that instances can be spread over but labels, from the widest to the narrowest.
    pub const ALL: [Self; 3] = [Self::Site, Self::Rack, Self::Host];
}

impl fmt::Display for SpreadOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.write_str("site"),
            Self::Rack => f.write_str("rack"),
            Self::Host => f.write_str("host"),
            Self::Label(name) => write!(f, "label.{name}"),
        }
    }
}

/// How health is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub check: HealthCheck,
    /// Time between checks.
    pub every: Millis,
    /// Time one may take.
    pub timeout: Millis,
    /// Failures in a row that count.
    pub unhealthy_after: u32,
}

/// One health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheck {
    /// GET that answers 200 to 399.
    Http {
        /// Port.
        port: PortName,
        /// Path and query.
        path: String,
    },
    /// A connection that opens.
    Tcp {
        /// Port.
        port: PortName,
    },
}

/// What happens on the host when a task ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// Restarts allowed within the window.
    pub attempts: u32,
    /// The window.
    pub within: Millis,
    /// First wait; doubles.
    pub delay: Millis,
    /// Longest wait.
    pub max_delay: Millis,
}

impl Default for Restart {
    /// Three within ten minutes, after 1 s, 2 s and 4 s: enough for a hiccup, soon over for what will never work here.
    fn default() -> Self {
        Self { attempts: 3, within: 600_000, delay: 1_000, max_delay: 60_000 }
    }
}

/// How a new revision replaces the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// Instances that may be missing, at least 1.
    pub max_unavailable: u32,
    /// Instances to try first.
    pub canary: u32,
    /// Time an instance must be well.
    pub healthy_for: Millis,
    /// Time a rollout may take; 0: no limit.
    pub deadline: Millis,
    /// Whether a failed rollout goes back.
    pub auto_revert: bool,
}

impl Default for Update {
    /// One at a time, with no further conditions.
    fn default() -> Self {
        Self { max_unavailable: 1, canary: 0, healthy_for: 0, deadline: 0, auto_revert: false }
    }
}
