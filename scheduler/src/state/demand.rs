//! What an instance asks for: what its spec does, and what running it costs on top. What of it an instance takes of its host, the policy of the host's site
//! says (`site`).

use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    device::DeviceRequest,
    spec::{Class, Driver, WorkloadSpec},
};

/// Memory that QEMU takes for itself beside its guest, whatever the guest's size: its code, device models and firmware.
const VM_MEMORY: u64 = 96 << 20;
/// Memory for each virtual processor: its thread's stack and state.
const VM_MEMORY_PER_CPU: u64 = 8 << 20;
/// One byte of page tables and dirty bitmaps for so many bytes of guest memory.
const VM_MEMORY_PER_GUEST: u64 = 512;
/// Memory for a container's shim and its share of the daemon.
const CONTAINER_MEMORY: u64 = 8 << 20;

/// What one instance of this spec asks for.
pub fn demand(spec: &WorkloadSpec) -> Amounts {
    let asked = spec.resources.amounts();
    let overhead: u64 =
        spec.tasks.iter().map(|task| overhead(&task.driver, asked)).fold(0, u64::saturating_add);
    asked.saturating_add(Amounts { memory: Bytes(overhead), ..Amounts::default() })
}

/// What an instance asks for of one kind of device, with what else it takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceDemand {
    /// Processor time.
    pub cpu: MilliCpu,
    /// Memory, with what running it costs.
    pub memory: Bytes,
    /// The devices.
    pub request: DeviceRequest,
    /// By which a host's site says what of the processor time it takes.
    pub class: Class,
}

/// How many instances ask for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DemandCounts {
    /// Those that have it.
    pub placed: u64,
    /// Those that wait for it.
    pub waiting: u64,
}

/// What instances of a spec ask for of devices.
pub fn device_demands(spec: &WorkloadSpec) -> impl Iterator<Item = DeviceDemand> {
    let Amounts { cpu, memory, .. } = demand(spec);
    let of = move |request: &DeviceRequest| DeviceDemand {
        cpu,
        memory,
        request: request.clone(),
        class: spec.counting_class(),
    };
    spec.resources.devices.iter().map(of)
}

fn overhead(driver: &Driver, asked: Amounts) -> u64 {
    match driver {
        Driver::Container(_) => CONTAINER_MEMORY,
        Driver::Vm(_) => {
            let cpus = asked.cpu.0.div_ceil(1000);
            VM_MEMORY
                .saturating_add(VM_MEMORY_PER_CPU.saturating_mul(cpus))
                .saturating_add(asked.memory.0 / VM_MEMORY_PER_GUEST)
        }
    }
}
