//! An estate for tests: a state that is changed by entries only, with short ways to say the usual ones.

use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    host::{DriverInfo, HostState, Inventory, PortRange},
    id::UnixMillis,
    instance::{InstanceReport, InstanceState},
    name::{BoroughName, HostName, PortName, SiteName, TaskName, WorkloadKey, WorkloadName},
    spec::{
        Class, Container, Driver, DriverKind, Mount, Place, Port, Protocol, Resources, Restart, Task, Update,
        Vm, WorkloadKind, WorkloadSpec,
    },
};

use crate::{
    placement::pass::{self, Limits, Plan, pass},
    state::{
        BoroughChange, Command, Done, Entry, HostVerdict, Instance, Outcome, SiteChange, State, level::KNOWN,
    },
};

/// Far more passes than small estates need, one placement at a time.
const MOST_PASSES: usize = 300;

/// A state and a clock.
#[derive(Default)]
pub(super) struct Estate {
    pub(super) state: State,
    pub(super) now: UnixMillis,
    sequence: u64,
}

impl Estate {
    /// Applies a command at the next index.
    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        let entry = Entry { time: self.now, by: "test".to_owned(), request_id: String::new(), command };
        self.state.apply(self.state.applied() + 1, &entry).outcome
    }

    /// Raises the feature level to the highest, as a leader does: from then on what is more urgent displaces others.
    pub(super) fn raise_level(&mut self) {
        self.must(Command::RaiseLevel { level: KNOWN });
    }

    fn must(&mut self, command: Command) -> Done {
        self.apply(command).result.unwrap_or_else(|rejection| panic!("rejected: {rejection}"))
    }

    pub(super) fn host(&mut self, name: &str, inventory: Inventory) {
        let name = HostName::new(name).unwrap();
        let incarnation = name.to_string();
        self.must(Command::RegisterHost { name, inventory: Box::new(inventory), incarnation });
    }

    pub(super) fn judge(&mut self, name: &str, state: HostState, reason: &str) {
        let host = self.state.host_named(name).unwrap().id;
        self.must(Command::JudgeHosts(vec![HostVerdict { host, state, reason: reason.to_owned() }]));
    }

    pub(super) fn schedulable(&mut self, name: &str, schedulable: bool) {
        self.must(Command::SetSchedulable { name: HostName::new(name).unwrap(), schedulable });
    }

    /// Applies a workload, and creates its borough where that is new.
    pub(super) fn workload(&mut self, spec: &WorkloadSpec) {
        self.borough(&spec.borough);
        self.must(Command::ApplyWorkload { spec: Box::new(spec.clone()), expect_revision: None });
    }

    pub(super) fn borough(&mut self, name: &BoroughName) {
        if !self.state.boroughs().contains_key(name) {
            self.must(Command::CreateBorough { name: name.clone(), title: name.to_string() });
        }
    }

    /// Changes a borough, and creates it where it is new.
    pub(super) fn allow(&mut self, name: &BoroughName, change: &BoroughChange) {
        self.borough(name);
        self.must(Command::SetBorough { name: name.clone(), change: change.clone() });
    }

    /// Changes the policy of a site.
    pub(super) fn site(&mut self, name: &SiteName, change: SiteChange) {
        self.must(Command::SetSite { name: name.clone(), change });
    }

    pub(super) fn scale(&mut self, key: &WorkloadKey, count: u32) {
        self.must(Command::ScaleWorkload { key: key.clone(), count });
    }

    /// Lets all of a workload that is of an older revision stop, as a rollout does with as many as may be missing.
    pub(super) fn replace(&mut self, key: &WorkloadKey) {
        let instances = self.state.instances_of(key).map(|instance| instance.id).collect();
        self.must(Command::Replace { instances, reason: "rollout".to_owned() });
    }

    /// Stops a workload, to be forgotten.
    pub(super) fn purge(&mut self, key: &WorkloadKey) {
        self.must(Command::StopWorkload { key: key.clone(), purge: true });
    }

    /// Removes a lost host.
    pub(super) fn remove(&mut self, name: &str) {
        self.must(Command::RemoveHost { name: HostName::new(name).unwrap() });
    }

    /// Forgets the volumes of a workload on a host.
    pub(super) fn forget(&mut self, key: &WorkloadKey, host: &str) -> Outcome {
        self.apply(Command::ForgetVolumes { key: key.clone(), host: HostName::new(host).unwrap() })
    }

    /// The wanted or else the latest instance of a slot.
    pub(super) fn instance(&self, key: &WorkloadKey, slot: u32) -> Instance {
        let of_slot = |i: &&std::sync::Arc<Instance>| i.slot == slot;
        let latest = self.state.instances_of(key).filter(of_slot).max_by_key(|i| i.id);
        Instance::clone(latest.unwrap_or_else(|| panic!("{key} has no slot {slot}")))
    }

    /// Lets the host of an instance report about it.
    pub(super) fn report(&mut self, instance: &Instance, state: InstanceState, reason: &str) {
        self.sequence += 1;
        let report = InstanceReport {
            instance: instance.id,
            sequence: self.sequence,
            order_index: instance.order_index,
            state,
            reason: reason.to_owned(),
            tasks: Vec::new(),
            time: self.now,
            unordered: false,
        };
        self.must(Command::Report { host: instance.host().unwrap(), reports: vec![report] });
    }

    /// Runs a pass and applies what it proposes; every placement must be accepted.
    pub(super) fn pass(&mut self, placements: usize) -> Plan {
        let plan = pass(&self.state, self.now, Limits { placements });
        let done = self.must(Command::Place(plan.placements.clone()));
        assert_eq!(done, Done::Instances(plan.placements.len() as u32), "apply refused: {plan:?}");
        if !plan.preemptions.is_empty() {
            let done = self.must(Command::Preempt(plan.preemptions.clone()));
            assert_eq!(done, Done::Instances(plan.preemptions.len() as u32), "apply refused: {plan:?}");
        }
        plan
    }

    /// Runs passes until one has nothing more to do, which is soon.
    pub(super) fn passes(&mut self, placements: usize) {
        for _ in 0..MOST_PASSES {
            if !self.pass(placements).more {
                return;
            }
        }
        panic!("passes do not end");
    }

    /// Runs a full pass.
    pub(super) fn full_pass(&mut self) -> Plan {
        self.pass(pass::MAX_PLACEMENTS)
    }
}

/// A host of 4 cores, 8 GiB and 100 GiB with both drivers, nothing reserved.
pub(super) fn inventory() -> Inventory {
    let driver = DriverInfo { version: "1".to_owned(), healthy: true, ..DriverInfo::default() };
    Inventory {
        site: SiteName::new("hounslow").unwrap(),
        rack: None,
        address: "192.0.2.1".to_owned(),
        capacity: Amounts { cpu: MilliCpu(4000), memory: Bytes(8 << 30), disk: Bytes(100 << 30) },
        reserved: Amounts::default(),
        network: Mbits(0),
        network_reserved: Mbits(0),
        arch: "amd64".to_owned(),
        kernel: "6.1".to_owned(),
        os: "debian-12".to_owned(),
        labels: Default::default(),
        ports: PortRange { first: 20_000, last: 20_099 },
        drivers: [(DriverKind::Docker, driver.clone()), (DriverKind::Libvirt, driver)].into(),
        agent_version: "0".to_owned(),
        boot_id: "0".to_owned(),
        devices: Default::default(),
        taints: Default::default(),
        nodes: Vec::new(),
    }
}

/// A container service of one instance that asks for nothing.
pub(super) fn spec(key: &str) -> WorkloadSpec {
    let (borough, workload) = key.split_once('/').unwrap();
    WorkloadSpec {
        workload: WorkloadName::new(workload).unwrap(),
        borough: BoroughName::new(borough).unwrap(),
        kind: WorkloadKind::Service,
        count: 1,
        priority: 50,
        tasks: vec![Task {
            name: TaskName::new("main").unwrap(),
            driver: Driver::Container(Container { image: "hello:1".to_owned(), ..Container::default() }),
        }],
        resources: Resources::default(),
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

/// A volume in a container.
pub(super) fn mount() -> Mount {
    Mount { volume: "data".parse().unwrap(), path: "/data".to_owned(), read_only: false }
}

/// Gives the container of a spec a port, on whichever of its host is free.
pub(super) fn publish(spec: &mut WorkloadSpec) {
    if let Driver::Container(container) = &mut spec.tasks[0].driver {
        let name = PortName::new("http").unwrap();
        container.ports.push(Port { name, port: 80, host: None, protocol: Protocol::Tcp });
    }
}

/// Makes a VM of a spec.
pub(super) fn vm(spec: &mut WorkloadSpec) {
    spec.tasks[0].driver = Driver::Vm(Vm::default());
}
