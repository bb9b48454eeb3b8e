//! Chosen ports as apply judges them: what a pass of ours never proposes, but a pass on an older state, or another version, may.

use supercloud_proto::{
    name::PortName,
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
