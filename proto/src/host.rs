//! Hosts: what a machine with an agent is, and the verdict about it. Conversions to and from the API's messages stand in `wire`
//! at the end of this module's folder.

use std::collections::BTreeMap;

use crate::{
    amount::{Amounts, Bytes, Mbits},
    cores::NumaNode,
    device::Device,
    name::{DeviceName, RackName, SiteName},
    spec::DriverKind,
};

mod wire;

pub use self::wire::{drivers_from_wire, drivers_to_wire};

/// What an agent found and was told of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Site it stands in.
    pub site: SiteName,
    /// Rack it stands in.
    pub rack: Option<RackName>,
    /// Address at which published ports are reached.
    pub address: String,
    /// What it has, or the part that was offered.
    pub capacity: Amounts,
    /// Kept back for the system.
    pub reserved: Amounts,
    /// Network bandwidth that it has, or that was offered; 0: not known, and none to give away.
    pub network: Mbits,
    /// What of that is kept back.
    pub network_reserved: Mbits,
    /// Architecture in Debian's words.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub os: String,
    /// Set by the operator.
    pub labels: BTreeMap<String, String>,
    /// Host ports that may be given away, both ends included.
    pub ports: PortRange,
    /// Drivers found.
    pub drivers: BTreeMap<DriverKind, DriverInfo>,
    /// Version of the agent.
    pub agent_version: String,
    /// Changes with each boot.
    pub boot_id: String,
    /// Devices.
    pub devices: BTreeMap<DeviceName, Device>,
    /// Workloads that do not tolerate one of these do not come here. A value may be empty.
    pub taints: BTreeMap<String, String>,
    /// Processors and memory by NUMA node, by number; empty where they are not told.
    pub nodes: Vec<NumaNode>,
}

impl Inventory {
    /// What may be given away.
    pub fn allocatable(&self) -> Amounts {
        self.capacity.saturating_sub(self.reserved)
    }

    /// Network bandwidth that may be given away.
    pub fn allocatable_network(&self) -> Mbits {
        self.network.saturating_sub(self.network_reserved)
    }

    /// What of a node's memory may be given away to what must have all of its memory there: what is kept back is kept of all nodes alike.
    pub fn allocatable_memory_of(&self, node: &NumaNode) -> Bytes {
        let kept = self.reserved.memory.0.div_ceil(self.nodes.len().max(1) as u64);
        Bytes(node.memory.0.saturating_sub(kept))
    }
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

/// One driver of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriverInfo {
    /// Version of the runtime; empty while it does not answer.
    pub version: String,
    /// Whether it answers.
    pub healthy: bool,
    /// Why not.
    pub reason: String,
    /// `kvm` or `tcg`, as probed; empty for containers.
    pub acceleration: String,
}

/// Verdict about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostState {
    /// It answers and its runtimes do.
    Ready,
    /// It answers, a runtime does not: no new work.
    Degraded,
    /// It missed heartbeats: no new work.
    Suspect,
    /// Silent for longer than a lease: its instances are replaced.
    Lost,
}

impl HostState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
        }
    }
}
