//! Conversions between these types and the API's messages.

use std::collections::BTreeMap;

use super::{DriverInfo, HostState, Inventory, PortRange};
use crate::{
    amount::{Mbits, host_amounts},
    cores::{nodes_from_wire, nodes_to_wire},
    device::{devices_from_wire, devices_to_wire},
    problem::{Faults, Problem, Problems, quoted},
    spec::DriverKind,
    taint::check_taints,
    v1,
    wire::{port, wire_enum},
};

wire_enum!(HostState, "a host's state", { Ready, Degraded, Suspect, Lost });

impl From<Inventory> for v1::Inventory {
    fn from(inventory: Inventory) -> Self {
        Self {
            site: inventory.site.into(),
            rack: inventory.rack.map(Into::into).unwrap_or_default(),
            address: inventory.address,
            capacity: Some(host_amounts(inventory.capacity, inventory.network)),
            reserved: Some(host_amounts(inventory.reserved, inventory.network_reserved)),
            arch: inventory.arch,
            kernel: inventory.kernel,
            os: inventory.os,
            labels: inventory.labels,
            port_first: inventory.ports.first.into(),
            port_last: inventory.ports.last.into(),
            drivers: drivers_to_wire(&inventory.drivers),
            agent_version: inventory.agent_version,
            boot_id: inventory.boot_id,
            devices: devices_to_wire(&inventory.devices),
            taints: inventory.taints,
            nodes: nodes_to_wire(&inventory.nodes),
        }
    }
}

impl From<&Inventory> for v1::Inventory {
    fn from(inventory: &Inventory) -> Self {
        inventory.clone().into()
    }
}

impl TryFrom<v1::Inventory> for Inventory {
    type Error = Problems;

    fn try_from(message: v1::Inventory) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let site = faults.take("site", message.site.parse());
        let rack = faults.optional("rack", Some(message.rack).filter(|rack| !rack.is_empty()));
        let [network, network_reserved] = [message.capacity, message.reserved]
            .map(|amounts| Mbits(amounts.unwrap_or_default().network_mbits));
        let capacity = faults.required("capacity", message.capacity);
        let ports = port_range(&mut faults, message.port_first, message.port_last);
        let drivers = faults.take("drivers", drivers_from_wire(message.drivers));
        let devices = faults.take("devices", devices_from_wire(message.devices));
        let nodes = faults.take("nodes", nodes_from_wire(message.nodes));
        let wrong = check_taints(&message.taints).into_iter().map(|problem| problem.within("taints"));
        wrong.for_each(|problem| faults.push(problem));
        let whole = || {
            Some(Self {
                site: site?,
                rack: rack?,
                address: message.address,
                capacity: capacity?,
                reserved: message.reserved.unwrap_or_default().into(),
                network,
                network_reserved,
                arch: message.arch,
                kernel: message.kernel,
                os: message.os,
                labels: message.labels,
                ports: ports?,
                drivers: drivers?,
                agent_version: message.agent_version,
                boot_id: message.boot_id,
                devices: devices?,
                taints: message.taints,
                nodes: nodes?,
            })
        };
        let whole = whole();
        faults.finish(whole)
    }
}

fn port_range(faults: &mut Faults, first: u32, last: u32) -> Option<PortRange> {
    let range = PortRange {
        first: faults.take("port_first", port(first))?,
        last: faults.take("port_last", port(last))?,
    };
    if range.first == 0 || range.first > range.last {
        let found = format!("{first} to {last}");
        faults.push(Problem::new("port_first", "a range of ports from 1, first before last", found));
        return None;
    }
    Some(range)
}

/// The drivers of a host as the API lists them, in the order of their kinds.
pub fn drivers_to_wire(drivers: &BTreeMap<DriverKind, DriverInfo>) -> Vec<v1::DriverInfo> {
    let driver = |(kind, info): (&DriverKind, &DriverInfo)| v1::DriverInfo {
        name: kind.as_str().to_owned(),
        version: info.version.clone(),
        healthy: info.healthy,
        reason: info.reason.clone(),
        acceleration: info.acceleration.clone(),
    };
    drivers.iter().map(driver).collect()
}

/// The drivers of a host by kind. Refuses a driver that is not known and one that is listed twice.
pub fn drivers_from_wire(
    messages: Vec<v1::DriverInfo>,
) -> Result<BTreeMap<DriverKind, DriverInfo>, Problems> {
    let mut faults = Faults::default();
    let mut drivers = BTreeMap::new();
    for (i, message) in messages.into_iter().enumerate() {
        let v1::DriverInfo { name, version, healthy, reason, acceleration } = message;
        let path = format!("[{i}].name");
        let info = DriverInfo { version, healthy, reason, acceleration };
        match DriverKind::ALL.into_iter().find(|kind| kind.as_str() == name) {
            None => faults.push(Problem::new(path, "docker or libvirt", quoted(&name))),
            Some(kind) if drivers.contains_key(&kind) => {
                faults.push(Problem::new(path, "each driver once", format!("{} again", quoted(&name))));
            }
            Some(kind) => _ = drivers.insert(kind, info),
        }
    }
    faults.finish(Some(drivers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    proptest! {
        #[test]
        fn an_inventory_survives_the_wire(inventory in samples::inventory()) {
            prop_assert_eq!(Inventory::try_from(v1::Inventory::from(&inventory)), Ok(inventory));
        }
    }

    #[test]
    fn every_problem_is_named() {
        let driver = |name: &str| v1::DriverInfo { name: name.to_owned(), ..Default::default() };
        let message = v1::Inventory {
            site: "Slough".to_owned(),
            port_first: 9,
            port_last: 70_000,
            drivers: vec![driver("docker"), driver("podman"), driver("docker")],
            taints: [("gpu".to_owned(), "a b".to_owned()), ("T".to_owned(), String::new())].into(),
            ..Default::default()
        };
        let problems = Inventory::try_from(message).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["site", "capacity", "port_last", "drivers[1].name", "drivers[2].name", "taints", "taints.gpu"]
        );
    }

    #[test]
    fn unknown_states_are_refused() {
        assert_eq!(HostState::try_from(4), Ok(HostState::Lost));
        for bad in [-1, 0, 5] {
            assert!(HostState::try_from(bad).is_err(), "{bad}");
        }
    }
}
