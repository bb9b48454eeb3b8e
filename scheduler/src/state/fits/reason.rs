//! Why a host is refused, as data and in words. Explanations group reasons by what they have in common over many hosts; that is why a reason keeps
//! its amounts and names apart instead of being text.

use std::{cmp::Ordering, fmt};

use supercloud_proto::{
    amount::{Bytes, Mbits, MilliCpu},
    condition::Condition,
    device::DeviceRequest,
    host::HostState,
    id::InstanceId,
    name::{DeviceName, HostName, SiteName, WorkloadKey},
    spec::{DriverKind, Protocol},
};

/// One filter's "no".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Name of the filter.
    pub filter: &'static str,
    /// Its reasons; never empty.
    pub reasons: Vec<Reason>,
}

/// An amount that a host may have too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Amount {
    /// Thousandths of a core.
    Cpu,
    /// Bytes.
    Memory,
    /// Bytes.
    Disk,
    /// Megabits a second.
    Network,
}

/// One reason against a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The verdict about it.
    HostState {
        /// The verdict.
        state: HostState,
        /// Why it is that.
        because: String,
    },
    /// An operator closed it.
    Closed,
    /// It has no such driver.
    NoDriver(DriverKind),
    /// The driver does not answer.
    DriverSilent {
        /// Which.
        driver: DriverKind,
        /// Why.
        because: String,
    },
    /// It stands elsewhere.
    Site {
        /// Where it may stand.
        wanted: Vec<SiteName>,
        /// Where it stands; `None`: in several places, for many hosts.
        found: Option<SiteName>,
    },
    /// It has this taint, which is not tolerated.
    Tainted(String),
    /// A condition does not hold.
    Condition {
        /// Which.
        condition: Condition,
        /// What the attribute is there.
        found: Found,
    },
    /// The volumes of its slot live on another host, this one.
    VolumesElsewhere(HostName),
    /// Volumes of other slots of the workload live there.
    HomeOfOthers(WorkloadKey),
    /// Another instance of the workload uses its volumes there.
    VolumesInUse(InstanceId),
    /// Room there is kept for others that are as urgent.
    Reserved,
    /// Too little of an amount is free.
    Short {
        /// Of what.
        what: Amount,
        /// What it takes there, with its overhead.
        needed: u64,
        /// What was asked for.
        asked: u64,
        /// What is free.
        free: u64,
    },
    /// It has no device that is asked for.
    NoDevice(DeviceRequest),
    /// It has such devices, and gives them away whole or not at all.
    DeviceWhole(DeviceRequest),
    /// It has such devices, and no VM can get them: they have no PCI address.
    DeviceUnaddressed(DeviceRequest),
    /// It has fewer such devices than are asked for, whatever is free of them.
    DevicesThere {
        /// What is asked for.
        request: DeviceRequest,
        /// How many it has.
        there: u32,
    },
    /// It has such devices, and they cannot be used.
    DeviceFaulty {
        /// What is asked for.
        request: DeviceRequest,
        /// Why the first of them cannot be used.
        because: String,
    },
    /// Too few of the devices asked for are free.
    FewDevices {
        /// What is asked for.
        request: DeviceRequest,
        /// How many are free.
        free: u64,
    },
    /// Of this device less is free than is asked for.
    DeviceTaken(DeviceName),
    /// The chosen devices are not those that the spec asks for.
    DevicesUnasked,
    /// It does not tell its cores, so that nothing can have some of them for itself.
    CoresUntold,
    /// Too few processors of whole cores are free.
    FewCores {
        /// Processors needed.
        needed: u64,
        /// Processors of free cores.
        free: u64,
    },
    /// No NUMA node has enough of them.
    FewCoresOfNode {
        /// Processors needed.
        needed: u64,
        /// The most that are free on one node.
        free: u64,
    },
    /// No NUMA node with enough of them has the memory.
    LittleMemoryOfNode {
        /// Memory needed, with its overhead.
        needed: Bytes,
        /// The most that is free on one node.
        free: Bytes,
    },
    /// This processor has an owner.
    CoreTaken(u16),
    /// The chosen cores are not those that the spec asks for.
    CoresUnasked,
    /// Too few dynamic ports are free.
    FewPorts {
        /// Of which protocol.
        protocol: Protocol,
        /// Ports needed.
        needed: u64,
        /// Ports free in the host's range.
        free: u64,
    },
    /// This port has an owner.
    PortTaken(Protocol, u16),
    /// This port is not the host's to give.
    PortOutside(Protocol, u16),
    /// The chosen ports are not those that the spec asks for.
    PortsUnasked,
    /// The workload has an instance there.
    NotDistinct(WorkloadKey),
    /// Another borough keeps it to itself.
    Private,
    /// Other boroughs have instances there.
    Strangers,
    /// The borough keeps so many hosts to itself, and this would be one more than it may.
    FewPrivate {
        /// Hosts that it keeps to itself.
        kept: u32,
        /// Most that it may keep.
        most: u32,
    },
    /// This workload has an instance there, and must be apart from the one asked for.
    NotApart(WorkloadKey),
    /// This workload has no instance there, and the one asked for must be together with it.
    NotTogether(WorkloadKey),
}

/// What an attribute is on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// This.
    Value(String),
    /// Not set.
    Nothing,
    /// This and that, for many hosts.
    Various,
}

impl Reason {
    /// What there is too little of, and how much of it is needed and free; zeros where it is no amount.
    pub fn amounts(&self) -> Option<(&'static str, u64, u64)> {
        match self {
            Self::Short { what, needed, free, .. } => Some((what.as_str(), *needed, *free)),
            Self::FewPorts { needed, free, .. } => Some(("port", *needed, *free)),
            Self::FewDevices { request, free } => Some(("device", request.count.into(), *free)),
            Self::DeviceTaken(_) => Some(("device", 0, 0)),
            Self::FewCores { needed, free } | Self::FewCoresOfNode { needed, free } => {
                Some(("core", *needed, *free))
            }
            Self::LittleMemoryOfNode { needed, free } => Some(("memory", needed.0, free.0)),
            Self::CoreTaken(_) => Some(("core", 0, 0)),
            Self::PortTaken(..) | Self::PortOutside(..) => Some(("port", 0, 0)),
            _ => None,
        }
    }
}

impl Reason {
    /// What the reason has in common over many hosts: the same without what is one host's own.
    pub fn common(&self) -> Self {
        let mut common = self.clone();
        match &mut common {
            Self::HostState { because, .. }
            | Self::DriverSilent { because, .. }
            | Self::DeviceFaulty { because, .. } => because.clear(),
            Self::Site { found, .. } => *found = None,
            Self::Condition { found, .. } => *found = Found::Various,
            Self::Short { free, .. }
            | Self::FewPorts { free, .. }
            | Self::FewDevices { free, .. }
            | Self::FewCores { free, .. }
            | Self::FewCoresOfNode { free, .. } => *free = 0,
            Self::LittleMemoryOfNode { free, .. } => *free = Bytes(0),
            Self::DevicesThere { there, .. } => *there = 0,
            Self::Closed
            | Self::Reserved
            | Self::VolumesElsewhere(_)
            | Self::HomeOfOthers(_)
            | Self::VolumesInUse(_)
            | Self::NoDriver(_)
            | Self::Tainted(_)
            | Self::NoDevice(_)
            | Self::DeviceWhole(_)
            | Self::DeviceUnaddressed(_)
            | Self::DeviceTaken(_)
            | Self::DevicesUnasked
            | Self::CoresUntold
            | Self::CoreTaken(_)
            | Self::CoresUnasked
            | Self::PortTaken(..)
            | Self::PortOutside(..)
            | Self::PortsUnasked
            | Self::Private
            | Self::Strangers
            | Self::FewPrivate { .. }
            | Self::NotDistinct(_)
            | Self::NotApart(_)
            | Self::NotTogether(_) => {}
        }
        common
    }

    /// A common reason in words, for hosts of which none has more than this free.
    pub fn with_at_most(&self, free: u64) -> String {
        match self {
            Self::Short { what, needed, asked, .. } => {
                let (need, free) = (what.need(*needed, *asked), what.text(free));
                format!("{}: needs {need}, at most {free} free", what.as_str())
            }
            Self::FewPorts { protocol, needed, .. } => {
                format!("ports: needs {needed} {}, at most {free} free", protocol_word(*protocol))
            }
            Self::DevicesThere { request, .. } => format!("devices: needs {request}, has fewer"),
            Self::FewDevices { request, .. } => format!("devices: needs {request}, at most {free} free"),
            Self::FewCores { needed, .. } => format!("cores: needs {needed} of its own, at most {free} free"),
            Self::FewCoresOfNode { needed, .. } => {
                format!("numa: needs {needed} of one node's cores, at most {free} free")
            }
            Self::LittleMemoryOfNode { needed, .. } => {
                format!("numa: needs {} memory of one node, at most {} free", needed.exact(), Bytes(free))
            }
            other => other.to_string(),
        }
    }
}

impl Amount {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Network => "network",
        }
    }

    /// So much of it as text that loses nothing.
    pub fn exact(self, amount: u64) -> String {
        match self {
            Self::Cpu => MilliCpu(amount).to_string(),
            Self::Memory | Self::Disk => Bytes(amount).exact(),
            Self::Network => Mbits(amount).to_string(),
        }
    }

    /// So much of it as short text, rounded down.
    fn text(self, amount: u64) -> String {
        match self {
            Self::Cpu => MilliCpu(amount).to_string(),
            Self::Memory | Self::Disk => Bytes(amount).to_string(),
            Self::Network => Mbits(amount).to_string(),
        }
    }

    /// What is needed, as the spec has it, with what running it adds, or with what it counts as where the site gives away more than there is.
    fn need(self, needed: u64, asked: u64) -> String {
        let text = self.exact(asked);
        match needed.cmp(&asked) {
            Ordering::Equal => text,
            // Running it costs no processor time; what is more are whole cores of its own.
            Ordering::Greater if self == Self::Cpu => {
                format!("{text} ({} in whole cores)", self.exact(needed))
            }
            Ordering::Greater => format!("{text} + {} overhead", self.exact(needed - asked)),
            Ordering::Less => format!("{text} (which counts as {})", self.exact(needed)),
        }
    }
}

/// `tcp` or `udp`.
fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        f.write_str(&reasons.join("; "))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostState { state, because } => {
                write_because(f, format_args!("is {}", state.as_str()), because)
            }
            Self::Closed => f.write_str("is closed to new work"),
            Self::NoDriver(driver) => write!(f, "has no {}", driver.as_str()),
            Self::DriverSilent { driver, because } => {
                write_because(f, format_args!("{} does not answer", driver.as_str()), because)
            }
            Self::Site { wanted, found } => {
                let wanted: Vec<&str> = wanted.iter().map(SiteName::as_str).collect();
                write!(f, "needs site {}", wanted.join(" or "))?;
                found.as_ref().map_or(Ok(()), |found| write!(f, ", is in {found}"))
            }
            Self::VolumesElsewhere(home) => write!(f, "is not {home}, where its volumes live"),
            Self::HomeOfOthers(key) => write!(f, "has volumes of another instance of {key}"),
            Self::VolumesInUse(by) => write!(f, "has its volumes in use by {by}"),
            Self::Reserved => f.write_str("keeps room for work that others make way for"),
            Self::Tainted(taint) => write!(f, "is kept for what tolerates {taint}"),
            Self::Condition { condition, found } => match found {
                Found::Value(value) => write!(f, "needs {condition}, is {value}"),
                Found::Nothing => write!(f, "needs {condition}, is not set"),
                Found::Various => write!(f, "needs {condition}"),
            },
            Self::Short { what, needed, asked, free } => {
                let (need, free) = (what.need(*needed, *asked), what.text(*free));
                write!(f, "{}: needs {need}, {free} free", what.as_str())
            }
            Self::FewPorts { protocol, needed, free } => {
                write!(f, "ports: needs {needed} {}, {free} free", protocol_word(*protocol))
            }
            Self::NoDevice(request) => write!(f, "devices: needs {request}, has none"),
            Self::DeviceWhole(request) => {
                write!(f, "devices: needs {request}, gives them away only whole")
            }
            Self::DeviceUnaddressed(request) => {
                write!(f, "devices: needs {request}, has none with a PCI address")
            }
            Self::DevicesThere { request, there } => write!(f, "devices: needs {request}, has {there}"),
            Self::DeviceFaulty { request, because } => {
                write_because(f, format_args!("devices: needs {request}, which cannot be used"), because)
            }
            Self::FewDevices { request, free } => write!(f, "devices: needs {request}, {free} free"),
            Self::DeviceTaken(name) => write!(f, "device {name} has not enough free"),
            Self::DevicesUnasked => f.write_str("the chosen devices are not those of the spec"),
            Self::CoresUntold => f.write_str("cores: does not tell its cores"),
            Self::FewCores { needed, free } => write!(f, "cores: needs {needed} of its own, {free} free"),
            Self::FewCoresOfNode { needed, free } => {
                write!(f, "numa: needs {needed} of one node's cores, {free} free")
            }
            Self::LittleMemoryOfNode { needed, free } => {
                write!(f, "numa: needs {} memory of one node, {free} free", needed.exact())
            }
            Self::CoreTaken(cpu) => write!(f, "processor {cpu} is taken"),
            Self::CoresUnasked => f.write_str("the chosen cores are not those of the spec"),
            Self::PortTaken(protocol, port) => {
                write!(f, "port {port}/{} is taken", protocol_word(*protocol))
            }
            Self::PortOutside(protocol, port) => {
                write!(f, "port {port}/{} is outside the host's range", protocol_word(*protocol))
            }
            Self::PortsUnasked => f.write_str("the chosen ports are not those of the spec"),
            Self::Private => f.write_str("is kept by another borough to itself"),
            Self::Strangers => f.write_str("has instances of other boroughs"),
            Self::FewPrivate { kept, most } => {
                write!(f, "is none of the hosts that its borough keeps to itself, {kept} of {most}")
            }
            Self::NotDistinct(key) => write!(f, "has an instance of {key}"),
            Self::NotApart(key) => write!(f, "has an instance of {key}, which is to be apart"),
            Self::NotTogether(key) => write!(f, "has no instance of {key}, which is to be there"),
        }
    }
}

fn write_because(f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>, because: &str) -> fmt::Result {
    if because.is_empty() { f.write_fmt(what) } else { write!(f, "{what}: {because}") }
}
