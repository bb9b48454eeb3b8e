//! What the clients of a run want to have run.

use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    name::{BoroughName, WorkloadName},
    spec::{Container, Driver, Place, Resources, Restart, Task, Update, WorkloadKind, WorkloadSpec},
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

/// The borough of all workloads.
pub(super) fn borough() -> BoroughName {
    name("camden")
}

/// A service of one container.
pub(super) fn service(workload: &str, count: u32, memory: u64, exclusive: bool) -> WorkloadSpec {
    WorkloadSpec {
        workload: name::<WorkloadName>(workload),
        borough: borough(),
        kind: WorkloadKind::Service,
        count,
        priority: 50,
        tasks: vec![Task {
            name: name("main"),
            driver: Driver::Container(Container { image: "hello:1".to_owned(), ..Container::default() }),
        }],
        resources: Resources { cpu: MilliCpu(500), memory: Bytes(memory * GIB), disk: Bytes(0), pids: None },
        place: Place::default(),
        health: None,
        restart: Restart::default(),
        update: Update::default(),
        stop_grace: 2_000,
        exclusive: Some(exclusive),
        schedule: None,
    }
}
