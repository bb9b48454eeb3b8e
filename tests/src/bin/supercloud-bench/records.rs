//! Hosts, workloads and reports in the state's own words, as large as real ones are.

use std::collections::BTreeMap;

use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    host::{DriverInfo, Inventory, PortRange},
    id::InstanceId,
    instance::{InstanceReport, InstanceState, TaskStatus},
    spec::{
        Class, Container, Driver, DriverKind, Place, Port, Protocol, Resources, Restart, Task, Update,
        WorkloadKind, WorkloadSpec,
    },
};
use supercloud_scheduler::state::{Command, Entry, State};
use supercloud_tests::Outcome;

/// When all of it is said to have happened.
pub(crate) const NOW: u64 = 1_764_000_000_000;

/// Placements of one entry, as the leader cuts them.
pub(crate) const PLACEMENTS_OF_AN_ENTRY: usize = 5_000;

/// Applies a command as the next entry; an error when it is refused.
pub(crate) fn apply(state: &mut State, command: Command) -> Outcome {
    let entry = Entry { time: NOW, by: "bench".to_owned(), request_id: String::new(), command };
    let applied = state.apply(state.applied() + 1, &entry);
    applied.outcome.result.map(drop).map_err(|rejection| format!("refused: {rejection}").into())
}

/// Registers a host under its number.
pub(crate) fn register(state: &mut State, number: u32, inventory: Inventory) -> Outcome {
    let name = format!("host-{number:06}").parse()?;
    let incarnation = format!("installation-{number:06}");
    apply(state, Command::RegisterHost { name, inventory: Box::new(inventory), incarnation })
}

/// A host of 64 cores and 256 GiB in one of two sites, 40 to a rack.
pub(crate) fn inventory(number: u32) -> Outcome<Inventory> {
    let driver = DriverInfo { version: "28.3.3".to_owned(), healthy: true, ..DriverInfo::default() };
    Ok(Inventory {
        site: ["hounslow", "slough"][number as usize % 2].parse()?,
        rack: Some(format!("rack-{:03}", number / 40).parse()?),
        address: format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
        capacity: Amounts { cpu: MilliCpu(64_000), memory: Bytes(256 << 30), disk: Bytes(2 << 40) },
        reserved: Amounts::default(),
        network: Default::default(),
        network_reserved: Default::default(),
        arch: "amd64".to_owned(),
        kernel: "6.18.0".to_owned(),
        os: "debian-12".to_owned(),
        labels: BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]),
        ports: PortRange { first: 20_000, last: 32_000 },
        drivers: BTreeMap::from([(DriverKind::Docker, driver.clone()), (DriverKind::Libvirt, driver)]),
        agent_version: "0.1.0".to_owned(),
        boot_id: format!("7d1e1a52-6f3c-4d57-8e0b-0000000{number:05}"),
        devices: Default::default(),
        taints: Default::default(),
        nodes: Vec::new(),
    })
}

/// A small web server; a hundred and some of these fill a host.
pub(crate) fn spec(number: u32, count: u32) -> Outcome<WorkloadSpec> {
    let container = Container {
        image: "registry.example/planning:4.2".to_owned(),
        command: vec!["/bin/serve".to_owned(), "--listen".to_owned(), "8080".to_owned()],
        ports: vec![Port { name: "http".parse()?, port: 8080, host: None, protocol: Protocol::Tcp }],
        ..Container::default()
    };
    Ok(WorkloadSpec {
        workload: format!("workload-{number:04}").parse()?,
        borough: "camden".parse()?,
        kind: WorkloadKind::Service,
        count,
        priority: 50,
        tasks: vec![Task { name: "main".parse()?, driver: Driver::Container(container) }],
        resources: Resources {
            cpu: MilliCpu(500),
            memory: Bytes(1 << 30),
            disk: Bytes(1 << 30),
            pids: None,
            devices: Vec::new(),
            network: Default::default(),
            dedicated: false,
            numa: Default::default(),
        },
        place: Place::default(),
        health: None,
        restart: Restart::default(),
        update: Update::default(),
        stop_grace: 10_000,
        exclusive: None,
        schedule: None,
        class: Class::default(),
    })
}

/// A report as an agent with Docker sends it.
pub(crate) fn report_of(
    instance: InstanceId,
    sequence: u64,
    state: InstanceState,
) -> Outcome<InstanceReport> {
    let made = state == InstanceState::Running;
    let task = TaskStatus {
        name: "main".parse()?,
        state,
        runtime_id: if made { container_id(instance) } else { String::new() },
        started: made.then_some(NOW),
        finished: None,
        exit_code: None,
        restarts: 0,
        reason: String::new(),
    };
    Ok(InstanceReport {
        instance,
        sequence,
        order_index: instance.index,
        state,
        reason: String::new(),
        tasks: vec![task],
        time: NOW,
        unordered: false,
    })
}

/// 64 hex digits, another for each.
fn container_id(instance: InstanceId) -> String {
    let seed = (instance.index << 32 | u64::from(instance.ordinal)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..4).map(|turn| format!("{:016x}", seed.rotate_left(turn * 13))).collect()
}
