//! Orders: what the scheduler tells an agent about one instance, stamped with the log index that decided it. Conversions stand in
//! `wire`.

use crate::{
    cores::Cores,
    device::GivenDevice,
    id::{InstanceId, LogIndex, Millis, Revision},
    instance::{Desired, PortBinding},
    name::WorkloadKey,
    spec::{Class, Resources, Restart, Task, WorkloadKind},
};

mod wire;

/// What is wanted of one instance on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub instance: InstanceId,
    /// Decided at; an agent refuses one older than what it holds.
    pub index: LogIndex,
    /// Whose.
    pub workload: WorkloadKey,
    /// Revision.
    pub revision: Revision,
    /// Which copy.
    pub slot: u32,
    /// Run, or stop and leave nothing behind.
    pub desired: Desired,
    /// Why.
    pub reason: String,
    /// A batch is not started anew when it ended with exit code 0.
    pub kind: WorkloadKind,
    /// What to run.
    pub tasks: Vec<Task>,
    /// Limits.
    pub resources: Resources,
    /// Chosen by the scheduler.
    pub ports: Vec<PortBinding>,
    /// When a task ends by itself.
    pub restart: Restart,
    /// Time between the request to stop and the kill.
    pub stop_grace: Millis,
    /// Whether it runs under the lease.
    pub exclusive: bool,
    /// Chosen by the scheduler, in the order of the spec's requests.
    pub devices: Vec<GivenDevice>,
    /// How firmly it holds the processor time that it asks for.
    pub class: Class,
    /// Chosen by the scheduler, where it has some of its own.
    pub cores: Option<Cores>,
}
