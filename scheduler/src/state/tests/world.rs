//! A small world for tests: specs and hosts in a line each, and a state that is changed only through entries.

use std::collections::BTreeMap;

use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    cores::{Cores, Cpu, Numa, NumaNode},
    host::{DriverInfo, Inventory, PortRange},
    id::{HostId, InstanceId, UnixMillis},
    instance::{Desired, InstanceReport, InstanceState, TaskStatus},
    name::WorkloadKey,
    spec::{
        Class, Container, Driver, DriverKind, Mount, Place, Port, Protocol, Resources, Restart, Task, Update,
        WorkloadKind, WorkloadSpec,
    },
};

use crate::state::{
    Command, Done, Entry, Host, Instance, Outcome, Placement, Rejection, State,
    apply::Applied,
    fits::{Candidate, Request, choose_ports},
    gang,
    model::Event,
};

/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// A state, its clock and what happened so far.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The state.
    pub state: State,
    /// The clock that stamps entries; tests move it.
    pub now: UnixMillis,
    /// Everything that happened.
    pub events: Vec<Event>,
    /// Sequence of the last report.
    pub sequence: u64,
}

/// A container service of half a core and 1 GiB in borough `camden`.
pub fn service(name: &str, count: u32) -> WorkloadSpec {
    WorkloadSpec {
        workload: name.parse().unwrap(),
        borough: "camden".parse().unwrap(),
        kind: WorkloadKind::Service,
        count,
        priority: 50,
        tasks: vec![Task {
            name: "main".parse().unwrap(),
            driver: Driver::Container(Container { image: "hello:1".to_owned(), ..Container::default() }),
        }],
        resources: Resources {
            cpu: MilliCpu(500),
            memory: Bytes(GIB),
            disk: Bytes(0),
            pids: None,
            devices: Vec::new(),
            network: Mbits(0),
            dedicated: false,
            numa: Numa::Any,
        },
        place: Place::default(),
        health: None,
        restart: Restart::default(),
        update: Update::default(),
        stop_grace: 10_000,
        exclusive: None,
        schedule: None,
        class: Class::default(),
    }
}

/// The same with a volume.
pub fn mounting(name: &str, count: u32) -> WorkloadSpec {
    let mut spec = service(name, count);
    if let Driver::Container(container) = &mut spec.tasks[0].driver {
        let volume = "data".parse().unwrap();
        container.mounts = vec![Mount { volume, path: "/data".to_owned(), read_only: false }];
    }
    spec
}

/// The same with one published port.
pub fn web(name: &str, count: u32, host_port: Option<u16>) -> WorkloadSpec {
    let mut spec = service(name, count);
    if let Driver::Container(container) = &mut spec.tasks[0].driver {
        container.ports = vec![Port {
            name: "http".parse().unwrap(),
            port: 8080,
            host: host_port,
            protocol: Protocol::Tcp,
        }];
    }
    spec
}

/// A host of 4 cores and 16 GiB with both drivers and ports 20000 to 20009.
pub fn inventory(site: &str) -> Inventory {
    let driver = DriverInfo { version: "1".to_owned(), healthy: true, ..DriverInfo::default() };
    Inventory {
        site: site.parse().unwrap(),
        rack: None,
        address: "192.0.2.1".to_owned(),
        capacity: Amounts { cpu: MilliCpu(4000), memory: Bytes(16 * GIB), disk: Bytes(100 * GIB) },
        network: Mbits(0),
        network_reserved: Mbits(0),
        reserved: Amounts::default(),
        arch: "amd64".to_owned(),
        kernel: "6.1".to_owned(),
        os: "debian-12".to_owned(),
        labels: BTreeMap::new(),
        ports: PortRange { first: 20_000, last: 20_009 },
        drivers: BTreeMap::from([(DriverKind::Docker, driver.clone()), (DriverKind::Libvirt, driver)]),
        agent_version: "0".to_owned(),
        boot_id: "boot".to_owned(),
        devices: BTreeMap::new(),
        taints: BTreeMap::new(),
        nodes: vec![NumaNode {
            number: 0,
            memory: Bytes(16 * GIB),
            cpus: (0..4).map(|number| Cpu { core: number & !1, number, kept: number < 2 }).collect(),
        }],
    }
}

impl World {
    /// A world with borough `camden` and these hosts, each in a site of its own.
    pub fn with_hosts(names: &[&str]) -> Self {
        let mut world = Self { now: 1_000_000, ..Self::default() };
        world.must(Command::CreateBorough { name: "camden".parse().unwrap(), title: "Camden".to_owned() });
        for name in names {
            world.register(name);
        }
        world
    }

    /// Applies a command as the next entry.
    pub fn apply(&mut self, command: Command) -> Applied {
        self.entry("", command)
    }

    /// Applies a command with a request id.
    pub fn entry(&mut self, request_id: &str, command: Command) -> Applied {
        let entry =
            Entry { time: self.now, by: "test".to_owned(), request_id: request_id.to_owned(), command };
        let decoded = Entry::decode(&entry.encode()).unwrap();
        assert_eq!(decoded, entry, "an entry survives the log");
        let applied = self.state.apply(self.state.applied() + 1, &entry);
        assert_eq!(Outcome::decode(&applied.outcome.encode()).unwrap(), applied.outcome);
        self.events.extend(applied.events.iter().cloned());
        applied
    }

    /// Applies a command that must take effect.
    pub fn must(&mut self, command: Command) -> Done {
        self.apply(command).outcome.result.unwrap()
    }

    /// Applies a command that must be refused.
    pub fn refused(&mut self, command: Command) -> Rejection {
        self.apply(command).outcome.result.unwrap_err()
    }

    /// Registers a host, or registers it again.
    pub fn register(&mut self, name: &str) -> HostId {
        let command = Command::RegisterHost {
            name: name.parse().unwrap(),
            inventory: Box::new(inventory(&format!("site-{name}"))),
            incarnation: format!("inc-{name}"),
        };
        match self.must(command) {
            Done::Registered(id) => id,
            done => panic!("not registered: {done:?}"),
        }
    }

    /// Applies a spec.
    pub fn apply_spec(&mut self, spec: &WorkloadSpec) -> Done {
        self.must(Command::ApplyWorkload { spec: Box::new(spec.clone()), expect_revision: None })
    }

    /// Places every pending instance on the first of these hosts that takes it; says how many held.
    pub fn place_all(&mut self, hosts: &[HostId]) -> u32 {
        let waiting: Vec<InstanceId> = self.state.pending().map(|instance| instance.id).collect();
        waiting.iter().filter(|id| hosts.iter().any(|host| self.place(**id, *host))).count() as u32
    }

    /// Places one instance; says whether that held.
    pub fn place(&mut self, instance: InstanceId, host: HostId) -> bool {
        let Some(record) = self.state.instance(instance).cloned() else { return false };
        let Some(at) = self.state.host(host).cloned() else { return false };
        let ports = choose_ports(&at, self.state.used(host), record.spec(), instance);
        let Some(ports) = ports else { return false };
        let cores = self.cores(&record, &at);
        self.must(Command::Place(vec![Placement { instance, host, ports, devices: Vec::new(), cores }]))
            == Done::Instances(1)
    }

    /// Cores for an instance on a host, where it has some of its own.
    fn cores(&self, instance: &Instance, host: &Host) -> Option<Box<Cores>> {
        Candidate::new(&self.state, host).choose_cores(&Request::of(instance)).map(Box::new)
    }

    /// Places all that are given hosts only together with an instance, on host after host, from one on; says whether that held.
    pub fn place_with_all(&mut self, instance: InstanceId, from: usize) -> bool {
        let Some(record) = self.state.instance(instance).cloned() else { return false };
        let hosts: Vec<Host> = self.state.hosts().values().map(|host| Host::clone(host)).collect();
        if hosts.is_empty() {
            return false;
        }
        let together = gang::waiting_with(&self.state, &record, self.now);
        let on = |(place, id): (usize, InstanceId)| {
            let host = &hosts[(from % hosts.len() + place) % hosts.len()];
            let ports = choose_ports(host, self.state.used(host.id), record.spec(), id)?;
            let cores = self.cores(&record, host);
            Some(Placement { instance: id, host: host.id, ports, devices: Vec::new(), cores })
        };
        let count = together.len() as u32;
        let placements: Option<Vec<Placement>> = together.into_iter().enumerate().map(on).collect();
        let before = self.state.pending_count() as u32;
        let Some(placements) = placements else { return false };
        let held = self.must(Command::Place(placements)) == Done::Instances(count);
        assert_eq!(self.state.pending_count() as u32, if held { before - count } else { before });
        held
    }

    /// The agent of an instance's host reports a state.
    pub fn report(&mut self, instance: InstanceId, state: InstanceState) {
        let host = self.state.instance(instance).and_then(|record| record.host()).unwrap_or(HostId(1));
        self.report_from(host, instance, state, 0);
    }

    /// The agent of a host reports a state and a number of restarts.
    pub fn report_from(&mut self, host: HostId, instance: InstanceId, state: InstanceState, restarts: u32) {
        self.sequence += 1;
        let report = InstanceReport {
            instance,
            sequence: self.sequence,
            order_index: 0,
            state,
            reason: "as seen".to_owned(),
            tasks: vec![TaskStatus {
                name: "main".parse().unwrap(),
                state,
                runtime_id: "c0ffee".to_owned(),
                started: Some(self.now),
                finished: None,
                exit_code: None,
                restarts,
                reason: "exit code 1".to_owned(),
            }],
            time: self.now,
            unordered: false,
        };
        self.apply(Command::Report { host, reports: vec![report] });
    }

    /// Instances of a workload of `camden`, as `slot:state:desired`, by id.
    pub fn shape(&self, workload: &str) -> Vec<String> {
        let word = |desired| if desired == Desired::Run { "run" } else { "stop" };
        self.state
            .instances_of(&key(workload))
            .map(|i| format!("{}:{}:{}", i.slot, i.state.as_str(), word(i.desired)))
            .collect()
    }

    /// Ids of a workload's instances that are wanted, by slot.
    pub fn live(&self, workload: &str) -> Vec<InstanceId> {
        let mut live: Vec<_> = self
            .state
            .instances_of(&key(workload))
            .filter(|i| i.desired == Desired::Run)
            .map(|i| (i.slot, i.id))
            .collect();
        live.sort_unstable();
        live.into_iter().map(|(_, id)| id).collect()
    }
}

/// A workload of `camden`.
pub fn key(workload: &str) -> WorkloadKey {
    WorkloadKey { borough: "camden".parse().unwrap(), workload: workload.parse().unwrap() }
}
