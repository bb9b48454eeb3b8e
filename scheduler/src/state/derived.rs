//! What follows from the records: who is where, what is given away, what waits. Kept up by [`Derived::add`] and [`Derived::remove`], called
//! wherever a record enters or leaves the state, and by nobody else; a test rebuilds it from scratch and compares.

use std::{cmp::Reverse, sync::Arc};

use imbl::{OrdMap, OrdSet};
use supercloud_proto::{
    amount::Amounts,
    id::{HostId, InstanceId},
    name::{HostName, WorkloadKey},
    spec::Protocol,
};

use super::model::{Host, Instance};

/// What is given away of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostUse {
    /// Sum of what its instances take.
    pub taken: Amounts,
    /// Host ports given away.
    pub ports: OrdMap<(Protocol, u16), InstanceId>,
    /// All instances on it, with those that are over but not cleared away.
    pub instances: OrdSet<InstanceId>,
}

/// Indexes over the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Derived {
    host_names: OrdMap<HostName, HostId>,
    uses: OrdMap<HostId, Arc<HostUse>>,
    of_workload: OrdMap<WorkloadKey, OrdSet<InstanceId>>,
    pending: OrdSet<(Reverse<u32>, InstanceId)>,
    unused: Arc<HostUse>,
}

impl Derived {
    /// Takes in an instance as it now is.
    pub(super) fn add(&mut self, instance: &Instance) {
        self.of_workload.entry(instance.workload.clone()).or_default().insert(instance.id);
        if instance.is_pending() {
            self.pending.insert((Reverse(instance.spec.priority), instance.id));
        }
        if let Some(placed) = &instance.placed {
            let used = Arc::make_mut(self.uses.entry(placed.host).or_default());
            used.instances.insert(instance.id);
            if instance.takes().is_some() {
                used.taken += placed.taken;
                for port in taken_ports(instance) {
                    used.ports.insert(port, instance.id);
                }
            }
        }
    }

    /// Takes out an instance as it was when it was added.
    pub(super) fn remove(&mut self, instance: &Instance) {
        if let Some(ids) = self.of_workload.get_mut(&instance.workload) {
            ids.remove(&instance.id);
            if ids.is_empty() {
                self.of_workload.remove(&instance.workload);
            }
        }
        self.pending.remove(&(Reverse(instance.spec.priority), instance.id));
        let Some(placed) = &instance.placed else { return };
        let Some(used) = self.uses.get_mut(&placed.host) else { return };
        let used = Arc::make_mut(used);
        used.instances.remove(&instance.id);
        if instance.takes().is_some() {
            used.taken = used.taken.saturating_sub(placed.taken);
            for port in taken_ports(instance) {
                used.ports.remove(&port);
            }
        }
        if used.instances.is_empty() {
            self.uses.remove(&placed.host);
        }
    }

    /// Takes in a host.
    pub(super) fn add_host(&mut self, host: &Host) {
        self.host_names.insert(host.name.clone(), host.id);
    }

    /// Takes out a host.
    pub(super) fn remove_host(&mut self, host: &Host) {
        self.host_names.remove(&host.name);
    }

    pub(super) fn of_workload(&self, key: &WorkloadKey) -> impl Iterator<Item = &InstanceId> + use<'_> {
        self.of_workload.get(key).into_iter().flatten()
    }

    pub(super) fn on_host(&self, host: HostId) -> impl Iterator<Item = &InstanceId> {
        self.uses.get(&host).into_iter().flat_map(|used| &used.instances)
    }

    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = InstanceId> {
        self.pending.iter().map(|(_, id)| *id)
    }

    pub(super) fn host_named(&self, name: &str) -> Option<HostId> {
        self.host_names.get(name).copied()
    }

    pub(super) fn used(&self, host: HostId) -> &HostUse {
        self.uses.get(&host).unwrap_or(&self.unused)
    }
}

/// The host ports that an instance holds.
fn taken_ports(instance: &Instance) -> Vec<(Protocol, u16)> {
    let chosen = instance.placed.iter().flat_map(|placed| &placed.ports);
    instance.spec.ports().zip(chosen).map(|((_, port), host_port)| (port.protocol, *host_port)).collect()
}
