//! Chosen ports, cores and devices as apply judges them: what a pass of ours never proposes, but a pass on an older state, or another version, may.

use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    cores::{Cores, Cpu, Numa, NumaNode},
    device::{Device, DeviceRequest, Share},
    name::{DeviceName, PortName},
    spec::{Driver, Port, Protocol, WorkloadSpec},
};

use super::estate::{Estate, inventory, spec};
use crate::state::fits::{Reason, Request, fits};

/// A fixed and a dynamic port.
fn wanted(key: &str) -> WorkloadSpec {
    let mut wanted = spec(key);
    let port = |name: &str, host| Port {
        name: PortName::new(name).unwrap(),
        port: 80,
        host,
        protocol: Protocol::Tcp,
    };
    if let Driver::Container(container) = &mut wanted.tasks[0].driver {
        container.ports = vec![port("fixed", Some(443)), port("free", None)];
    }
    wanted
}

#[test]
fn chosen_ports_are_those_asked_for_free_and_the_hosts_to_give() {
    let mut estate = Estate::default();
    estate.host("h1", inventory());
    let spec = wanted("camden/web");
    let key = spec.key();
    let reasons = |estate: &Estate, ports: &[u16]| {
        let host = estate.state.host_named("h1").unwrap();
        let request = Request { ports: Some(ports), ..Request::new(&key, &spec) };
        fits(&estate.state, host, &request).map_or_else(|misfit| misfit.reasons, |()| Vec::new())
    };
    use Reason::{PortOutside, PortTaken, PortsUnasked};
    let tcp = Protocol::Tcp;
    for (ports, expected) in [
        (vec![443, 20_000], vec![]),
        (vec![443, 20_099], vec![]),
        (vec![443, 20_100], vec![PortOutside(tcp, 20_100)]),
        (vec![443, 443], vec![PortOutside(tcp, 443), PortTaken(tcp, 443)]),
        (vec![20_001, 20_002], vec![PortsUnasked]),
        (vec![443], vec![PortsUnasked]),
        (vec![443, 20_000, 20_001], vec![PortsUnasked]),
        (vec![], vec![PortsUnasked]),
    ] {
        assert_eq!(reasons(&estate, &ports), expected, "{ports:?}");
    }
    estate.workload(&wanted("hackney/web"));
    let given = estate.full_pass().placements.remove(0).ports;
    assert_eq!(reasons(&estate, &given), [PortTaken(tcp, 443), PortTaken(tcp, given[1])]);
}

/// Two nodes of two cores, with two processors to a core; the first core is kept.
fn nodes() -> Vec<NumaNode> {
    let cpu = |number: u16| Cpu { core: number / 2 * 2, number, kept: number < 2 };
    let node = |node: u16| NumaNode {
        number: node,
        memory: Bytes(1 << 30),
        cpus: (node * 4..node * 4 + 4).map(cpu).collect(),
    };
    (0..2).map(node).collect()
}

#[test]
fn chosen_cores_are_whole_and_free_and_no_more_than_are_asked_for() {
    use Reason::{CoreTaken, CoresUnasked, LittleMemoryOfNode};
    let mut estate = Estate::default();
    let mut found = inventory();
    (found.nodes, found.capacity.cpu) = (nodes(), MilliCpu(8_000));
    estate.host("h1", found);
    let asking = |numa| {
        let mut spec = spec("camden/own");
        spec.resources.cpu = MilliCpu(1_000);
        (spec.resources.dedicated, spec.resources.numa) = (true, numa);
        spec
    };
    let reasons = |estate: &Estate, spec: &WorkloadSpec, chosen: Option<(&[u16], Option<u16>)>| {
        let host = estate.state.host_named("h1").unwrap();
        let cores = chosen.map(|(cpus, node)| Cores { cpus: cpus.into(), node });
        let key = spec.key();
        let request = Request { cores: Some(cores.as_ref()), ..Request::new(&key, spec) };
        fits(&estate.state, host, &request).map_or_else(|misfit| misfit.reasons, |()| Vec::new())
    };
    let any = asking(Numa::Any);
    for (chosen, expected) in [
        (Some((&[2, 3][..], None)), vec![]),
        (Some((&[6, 7][..], None)), vec![]),
        // None; a part of a core, more than it takes, parts of two, one that is kept, one that is not there, and one of a node that was not asked for.
        (None, vec![CoresUnasked]),
        (Some((&[2][..], None)), vec![CoresUnasked]),
        (Some((&[2, 3, 4, 5][..], None)), vec![CoresUnasked]),
        (Some((&[3, 4][..], None)), vec![CoresUnasked]),
        (Some((&[0, 1][..], None)), vec![CoresUnasked]),
        (Some((&[8, 9][..], None)), vec![CoresUnasked]),
        (Some((&[2, 3][..], Some(0))), vec![CoresUnasked]),
    ] {
        assert_eq!(reasons(&estate, &any, chosen), expected, "{chosen:?}");
    }
    let one = asking(Numa::One);
    for (chosen, expected) in [
        (Some((&[2, 3][..], Some(0))), vec![]),
        (Some((&[2, 3][..], Some(1))), vec![CoresUnasked]),
        (Some((&[2, 3][..], None)), vec![CoresUnasked]),
    ] {
        assert_eq!(reasons(&estate, &one, chosen), expected, "{chosen:?}");
    }
    assert_eq!(reasons(&estate, &spec("camden/plain"), Some((&[2, 3], None))), [CoresUnasked]);
    let mut held = asking(Numa::One);
    held.workload = "held".parse().unwrap();
    held.resources.memory = Bytes(800 << 20);
    estate.workload(&held);
    let given = estate.full_pass().placements.remove(0).cores.unwrap();
    assert_eq!((&*given.cpus, given.node), (&[2, 3][..], Some(0)));
    assert_eq!(reasons(&estate, &any, Some((&[2, 3], None))), [CoreTaken(2)]);
    let mut large = asking(Numa::One);
    large.resources.memory = Bytes(1_020 << 20);
    let (needed, free) = (Bytes(1_028 << 20), Bytes(1 << 30));
    assert_eq!(reasons(&estate, &large, Some((&[4, 5], Some(1)))), [LittleMemoryOfNode { needed, free }]);
}

#[test]
fn chosen_devices_are_each_what_is_asked_for_and_free() {
    use Reason::{DeviceTaken, DevicesUnasked};
    let mut estate = Estate::default();
    let mut found = inventory();
    let device = |kind: &str, shared, fault: &str| Device {
        kind: kind.parse().unwrap(),
        model: "T4".to_owned(),
        labels: Default::default(),
        shared,
        fault: fault.to_owned(),
        pci: None,
    };
    found.devices = [
        ("gpu0", device("gpu", true, "")),
        ("gpu1", device("gpu", true, "")),
        ("gpu2", device("gpu", false, "unplugged")),
        ("nic0", device("nic", false, "")),
    ]
    .map(|(name, device)| (name.parse().unwrap(), device))
    .into();
    estate.host("h1", found);
    let asking = |count, share| {
        let mut spec = spec("camden/train");
        spec.resources.devices = vec![DeviceRequest {
            kind: "gpu".parse().unwrap(),
            count,
            share: Share(share),
            models: Vec::new(),
            require: Vec::new(),
            to_vm: false,
        }];
        spec
    };
    let reasons = |estate: &Estate, spec: &WorkloadSpec, chosen: &[&str]| {
        let host = estate.state.host_named("h1").unwrap();
        let chosen: Vec<DeviceName> = chosen.iter().map(|name| name.parse().unwrap()).collect();
        let key = spec.key();
        let request = Request { devices: Some(&chosen), ..Request::new(&key, spec) };
        fits(&estate.state, host, &request).map_or_else(|misfit| misfit.reasons, |()| Vec::new())
    };
    let two = asking(2, 1_000);
    assert_eq!(reasons(&estate, &two, &["gpu1", "gpu0"]), []);
    // Too few, too many, one twice, one that is faulty, one of another kind, and one that is not there.
    for chosen in [
        &["gpu0"][..],
        &["gpu0", "gpu1", "nic0"],
        &["gpu0", "gpu0"],
        &["gpu0", "gpu2"],
        &["gpu0", "nic0"],
        &["gpu0", "gpu9"],
    ] {
        assert_eq!(reasons(&estate, &two, chosen), [DevicesUnasked], "{chosen:?}");
    }
    assert_eq!(reasons(&estate, &spec("camden/plain"), &["gpu0"]), [DevicesUnasked]);
    let mut held = asking(1, 600);
    held.workload = "held".parse().unwrap();
    estate.workload(&held);
    let given = estate.full_pass().placements.remove(0).devices.remove(0);
    assert_eq!(reasons(&estate, &asking(1, 400), &[given.as_str()]), []);
    assert_eq!(reasons(&estate, &asking(1, 401), &[given.as_str()]), [DeviceTaken(given.clone())]);
    assert_eq!(reasons(&estate, &two, &["gpu0", "gpu1"]), [DeviceTaken(given)]);
}
