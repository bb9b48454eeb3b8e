//! Gangs: when they are looked at again.

use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    host::{Inventory, PortRange},
    name::PortName,
    spec::{Driver, Port, Protocol, WorkloadSpec},
};

use super::estate::{Estate, inventory, spec};
use crate::state::BoroughChange;

fn of_size(cores: u64, gib: u64) -> Inventory {
    let mut found = inventory();
    (found.capacity.cpu, found.capacity.memory) = (MilliCpu(cores * 1_000), Bytes(gib << 30));
    found
}

fn asking(key: &str, count: u32, cpu: u64) -> WorkloadSpec {
    let mut wanted = spec(key);
    (wanted.count, wanted.resources.cpu, wanted.resources.memory) = (count, MilliCpu(cpu), Bytes(64 << 20));
    wanted
}

#[test]
fn a_gang_that_what_is_given_after_it_helps_is_looked_at_again() {
    let mut estate = Estate::default();
    estate.raise_level();
    // The fullest hosts come first: with the last one, of three ports, three hosts would do, and without it they do not.
    for (name, cores, gib, ports) in [("h0", 1, 1, 1), ("h1", 1, 1, 1), ("h2", 1, 2, 2), ("h3", 2, 3, 3)] {
        let ports = PortRange { first: 20_000, last: 20_000 + ports - 1 };
        estate.host(name, Inventory { ports, ..of_size(cores, gib) });
    }
    let change = BoroughChange { private_hosts: Some(3), ..BoroughChange::default() };
    estate.allow(&"camden".parse().unwrap(), &change);
    let mut gang = WorkloadSpec { priority: 80, ..asking("camden/gang", 5, 100) };
    (gang.place.all_or_none, gang.place.private) = (true, true);
    if let Driver::Container(container) = &mut gang.tasks[0].driver {
        let name = PortName::new("http").unwrap();
        container.ports = vec![Port { name, port: 80, host: None, protocol: Protocol::Tcp }];
    }
    estate.workload(&gang);
    estate.workload(&asking("brent/one", 1, 100));
    let plan = estate.pass(1);
    assert_eq!((plan.placements.len(), plan.more), (1, true), "another one has taken a host from its choice");
    estate.passes(1);
    assert_eq!(estate.state.pending_count(), 0, "three hosts have ports for all of it");
}
