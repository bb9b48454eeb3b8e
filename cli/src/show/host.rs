//! Hosts.

use serde_json::{Value, json};
use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits},
    cores::cpu_list,
    device::Share,
    host::HostState,
    taint::taint_text,
    v1,
};

use super::{dash, instance, object};
use crate::{
    output::{Headings, Shown, facts, table},
    time::moment,
};

/// Headings of the list of hosts.
pub const HEADINGS: Headings = Headings {
    usual: &["host", "site", "state", "instances", "cpu", "memory", "disk"],
    wide: &["network", "rack", "address", "arch", "docker", "libvirt", "kernel", "agent", "reason"],
};

/// Amounts that may not be told: nothing then.
pub fn amounts(amounts: Option<v1::HostAmounts>) -> Amounts {
    amounts.map(Amounts::from).unwrap_or_default()
}

/// Amounts for programs.
pub fn amounts_value(amounts: Amounts) -> Value {
    json!({"cpu": amounts.cpu.to_string(), "memory": amounts.memory.exact(), "disk": amounts.disk.exact()})
}

/// The same of a host or a site, with the network bandwidth.
pub fn host_amounts_value(told: Amounts, network: Mbits) -> Value {
    let mut value = amounts_value(told);
    value["network"] = network.to_string().into();
    value
}

/// Network bandwidth beside amounts that may not be told: none then.
pub fn network(told: Option<v1::HostAmounts>) -> Mbits {
    Mbits(told.unwrap_or_default().network_mbits)
}

/// Network bandwidth that may be given away.
fn allocatable_network(inventory: &v1::Inventory) -> Mbits {
    network(inventory.capacity).saturating_sub(network(inventory.reserved))
}

/// What may be given away.
fn allocatable(inventory: &v1::Inventory) -> Amounts {
    amounts(inventory.capacity).saturating_sub(amounts(inventory.reserved))
}

/// The verdict and whether it takes work, in one word.
fn word(host: &v1::Host) -> String {
    let state = HostState::try_from(host.state)
        .map_or_else(|_| format!("state {}", host.state), |state| state.as_str().to_owned());
    if host.schedulable { state } else { format!("{state},closed") }
}

fn driver(inventory: &v1::Inventory, name: &str) -> String {
    let found = inventory.drivers.iter().find(|driver| driver.name == name);
    found.map_or_else(
        || "-".to_owned(),
        |driver| match (driver.healthy, driver.acceleration.as_str()) {
            (false, _) => "silent".to_owned(),
            (true, "") => driver.version.clone(),
            (true, acceleration) => format!("{} ({acceleration})", driver.version),
        },
    )
}

/// One host.
pub fn shown(host: &v1::Host) -> Shown {
    let inventory = host.inventory.clone().unwrap_or_default();
    let (used, all) = (amounts(host.used), allocatable(&inventory));
    Shown {
        name: host.name.clone(),
        value: value(host, &inventory),
        row: vec![
            host.name.clone(),
            inventory.site.clone(),
            word(host),
            host.instances.to_string(),
            format!("{}/{}", used.cpu, all.cpu),
            format!("{}/{}", used.memory, all.memory),
            format!("{}/{}", used.disk, all.disk),
            network_use(host, &inventory, "/").unwrap_or_else(|| "-".to_owned()),
            dash(&inventory.rack),
            inventory.address.clone(),
            inventory.arch.clone(),
            driver(&inventory, "docker"),
            driver(&inventory, "libvirt"),
            inventory.kernel.clone(),
            inventory.agent_version.clone(),
            host.state_reason.clone(),
        ],
    }
}

fn value(host: &v1::Host, inventory: &v1::Inventory) -> Value {
    let drivers = inventory.drivers.iter().map(|driver| {
        object([
            ("name", json!(driver.name)),
            ("version", json!(driver.version)),
            ("healthy", json!(driver.healthy)),
            ("reason", json!(driver.reason)),
            ("acceleration", json!(driver.acceleration)),
        ])
    });
    object([
        ("name", json!(host.name)),
        ("id", json!(host.id)),
        ("state", json!(HostState::try_from(host.state).map_or("unknown", HostState::as_str))),
        ("reason", json!(host.state_reason)),
        ("schedulable", json!(host.schedulable)),
        ("site", json!(inventory.site)),
        ("rack", json!(inventory.rack)),
        ("address", json!(inventory.address)),
        ("capacity", host_amounts_value(amounts(inventory.capacity), network(inventory.capacity))),
        ("allocatable", host_amounts_value(allocatable(inventory), allocatable_network(inventory))),
        ("used", host_amounts_value(amounts(host.used), network(host.used))),
        ("instances", json!(host.instances)),
        ("arch", json!(inventory.arch)),
        ("kernel", json!(inventory.kernel)),
        ("os", json!(inventory.os)),
        ("labels", json!(inventory.labels)),
        ("taints", json!(inventory.taints)),
        ("ports", json!(format!("{}-{}", inventory.port_first, inventory.port_last))),
        ("drivers", Value::Array(drivers.collect())),
        ("devices", Value::Array(inventory.devices.iter().map(|of| device(host, of)).collect())),
        ("nodes", Value::Array(inventory.nodes.iter().map(node).collect())),
        ("own_cpus", json!(list(&host.own_cpus))),
        ("agent", json!(inventory.agent_version)),
        ("registered", json!(moment(host.registered_ms))),
        ("state_since", json!(moment(host.state_since_ms))),
    ])
}

/// A NUMA node: its cores by their processors, and those of them that nobody gets for himself.
fn node(node: &v1::NumaNode) -> Value {
    let cores = |is_of: fn(&v1::Core) -> bool| -> Vec<String> {
        node.cores.iter().filter(|core| is_of(core)).map(|core| list(&core.cpus)).collect()
    };
    object([
        ("node", json!(node.number)),
        ("memory", json!(Bytes(node.memory_bytes).exact())),
        ("cores", json!(cores(|_| true))),
        ("shared", json!(cores(|core| core.kept))),
    ])
}

/// Processors in the kernel's words.
fn list(cpus: &[u32]) -> String {
    let mut cpus: Vec<u16> = cpus.iter().filter_map(|cpu| u16::try_from(*cpu).ok()).collect();
    cpus.sort_unstable();
    cpu_list(cpus.into_iter())
}

/// The cores of a host in words; nothing where it does not tell them.
fn cores(host: &v1::Host, inventory: &v1::Inventory) -> String {
    let all = inventory.nodes.iter().flat_map(|node| &node.cores);
    let (count, shared) = (all.clone().count(), all.filter(|core| core.kept).count());
    let nodes = match inventory.nodes.len() {
        0 => return String::new(),
        1 => "one NUMA node".to_owned(),
        nodes => format!("{nodes} NUMA nodes"),
    };
    let own = match host.own_cpus.as_slice() {
        [] => String::new(),
        own => format!(", processors {} given to instances alone", list(own)),
    };
    format!("{count} in {nodes}, {shared} of them always shared{own}")
}

fn device(host: &v1::Host, device: &v1::Device) -> Value {
    object([
        ("name", json!(device.name)),
        ("kind", json!(device.kind)),
        ("model", json!(device.model)),
        ("labels", json!(device.labels)),
        ("shared", json!(device.shared)),
        ("fault", json!(device.fault)),
        ("pci", json!(device.pci_address)),
        ("given", json!(given(host, device).to_string())),
    ])
}

/// How much of a device is given away.
fn given(host: &v1::Host, device: &v1::Device) -> Share {
    let known = host.device_use.iter().find(|used| used.name == device.name);
    known.map_or(Share::NONE, |used| Share(used.given_millis))
}

/// Headings of a host's devices.
const DEVICES: Headings =
    Headings { usual: &["device", "kind", "model", "given", "labels", "fault"], wide: &["shared"] };

fn device_row(host: &v1::Host, of: &v1::Device) -> Shown {
    let labels: Vec<String> = of.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Shown {
        name: of.name.clone(),
        value: device(host, of),
        row: vec![
            of.name.clone(),
            dash(&of.kind),
            dash(&of.model),
            given(host, of).to_string(),
            dash(&labels.join(",")),
            dash(&of.fault),
            if of.shared { "yes" } else { "no" }.to_owned(),
        ],
    }
}

/// What is given away of a host's network bandwidth; nothing where it has none.
fn network_use(host: &v1::Host, inventory: &v1::Inventory, of: &str) -> Option<String> {
    let (used, all) = (network(host.used), allocatable_network(inventory));
    (used.0 > 0 || all.0 > 0).then(|| format!("{used}{of}{all}"))
}

/// One host in lines, with its instances as a table.
pub fn text(host: &v1::Host, instances: &[v1::Instance], wide: bool) -> String {
    let inventory = host.inventory.clone().unwrap_or_default();
    let (used, all) = (amounts(host.used), allocatable(&inventory));
    let labels: Vec<String> = inventory.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let taints: Vec<String> = inventory.taints.iter().map(|(name, value)| taint_text(name, value)).collect();
    let facts = facts(&[
        ("host", host.name.clone()),
        ("state", format!("{} since {}", word(host), moment(host.state_since_ms))),
        ("reason", host.state_reason.clone()),
        ("site", inventory.site.clone()),
        ("rack", inventory.rack.clone()),
        ("address", inventory.address.clone()),
        ("cpu", format!("{} of {} given away", used.cpu, all.cpu)),
        ("memory", format!("{} of {} given away", used.memory, all.memory)),
        ("disk", format!("{} of {} given away", used.disk, all.disk)),
        (
            "network",
            network_use(host, &inventory, " of ").map_or(String::new(), |used| format!("{used} given away")),
        ),
        ("cores", cores(host, &inventory)),
        ("machine", format!("{}, {}, kernel {}", inventory.arch, inventory.os, inventory.kernel)),
        ("docker", driver(&inventory, "docker")),
        ("libvirt", driver(&inventory, "libvirt")),
        ("labels", labels.join(", ")),
        ("taints", taints.join(", ")),
        ("ports", format!("{}-{}", inventory.port_first, inventory.port_last)),
        ("registered", moment(host.registered_ms)),
    ]);
    let mut text = facts;
    let gone = host.device_use.iter().filter(|used| !inventory.devices.iter().any(|of| of.name == used.name));
    let gone = gone.map(|used| v1::Device {
        name: used.name.clone(),
        fault: "no longer in the agent's file".to_owned(),
        ..v1::Device::default()
    });
    let all: Vec<v1::Device> = inventory.devices.iter().cloned().chain(gone).collect();
    let devices: Vec<Shown> = all.iter().map(|of| device_row(host, of)).collect();
    let instances: Vec<Shown> = instances.iter().map(instance::shown).collect();
    for (headings, rows) in [(&DEVICES, devices), (&instance::HEADINGS, instances)] {
        if !rows.is_empty() {
            text += &format!("\n{}\n", table(headings, &rows, wide));
        }
    }
    text
}
