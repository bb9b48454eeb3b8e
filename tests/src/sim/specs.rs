//! What the clients of a run want to have run, and what its hosts offer.

use std::collections::BTreeMap;

use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    host::{DriverInfo, Inventory, PortRange},
    name::{BoroughName, WorkloadKey, WorkloadName},
    spec::{
        Class, Container, Driver, DriverKind, Place, Resources, Restart, Task, Update, WorkloadKind,
        WorkloadSpec,
    },
};

/// One gibibyte.
const GIB: u64 = 1 << 30;

/// A name from a literal of this simulation.
pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    #[expect(
        clippy::expect_used,
        reason = "the simulation makes its names itself, in small letters and digits"
    )]
    text.parse().expect("a good name")
}

/// The boroughs of all workloads.
pub(super) fn boroughs() -> [BoroughName; 2] {
    [name("camden"), name("hackney")]
}

/// What a service is like.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) count: u32,
    /// In gibibytes.
    pub(super) memory: u64,
    pub(super) exclusive: bool,
    pub(super) priority: u32,
    /// Whether all of it is given hosts at once or none.
    pub(super) gang: bool,
    /// Megabits a second.
    pub(super) network: u64,
    pub(super) apart: Option<WorkloadName>,
}

impl Wish {
    /// One that every feature level knows.
    pub(super) fn plain(count: u32, memory: u64, exclusive: bool) -> Self {
        Self { count, memory, exclusive, priority: 50, gang: false, network: 0, apart: None }
    }
}

/// A service of one container.
pub(super) fn service(key: &WorkloadKey, wish: Wish) -> WorkloadSpec {
    WorkloadSpec {
        workload: key.workload.clone(),
        borough: key.borough.clone(),
        kind: WorkloadKind::Service,
        count: wish.count,
        priority: wish.priority,
        tasks: vec![Task {
            name: name("main"),
            driver: Driver::Container(Container { image: "hello:1".to_owned(), ..Container::default() }),
        }],
        resources: Resources {
            cpu: MilliCpu(500),
            memory: Bytes(wish.memory * GIB),
            disk: Bytes(0),
            pids: None,
            devices: Vec::new(),
            network: Mbits(wish.network),
        },
        place: Place { apart: wish.apart.into_iter().collect(), all_or_none: wish.gang, ..Place::default() },
        health: None,
        restart: Restart::default(),
        update: Update::default(),
        stop_grace: 2_000,
        exclusive: Some(wish.exclusive),
        schedule: None,
        class: Class::default(),
    }
}

/// What a host offers: four cores, 12 GiB and a gigabit a second.
pub(super) fn inventory(site: &str, boot: &str, healthy: bool) -> Inventory {
    let driver = DriverInfo { version: "1".to_owned(), healthy, ..DriverInfo::default() };
    Inventory {
        site: name(site),
        rack: None,
        address: "192.0.2.1".to_owned(),
        capacity: Amounts { cpu: MilliCpu(4000), memory: Bytes(12 * GIB), disk: Bytes(100 * GIB) },
        reserved: Amounts::default(),
        network: Mbits(1_000),
        network_reserved: Default::default(),
        arch: "amd64".to_owned(),
        kernel: "6.1".to_owned(),
        os: "debian-12".to_owned(),
        labels: BTreeMap::new(),
        ports: PortRange { first: 20_000, last: 20_009 },
        drivers: BTreeMap::from([(DriverKind::Docker, driver)]),
        agent_version: "0".to_owned(),
        boot_id: boot.to_owned(),
        devices: Default::default(),
        taints: Default::default(),
    }
}
