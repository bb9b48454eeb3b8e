//! What follows from the records: who is where, what is given away, what waits. Kept up by [`Derived::add`], [`Derived::moved`] and
//! [`Derived::remove`], called wherever a record enters, changes in or leaves the state, and by nobody else; a test rebuilds it from scratch and
//! compares.
//!
//! Decision: *what a host has is one piece of memory*. A host bears some hundreds of instances; as trees of their own those took several times
//! the memory, and a copy for every published version cost more than copying the whole list.

use std::{cmp::Reverse, sync::Arc};

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use supercloud_proto::{
    amount::Amounts,
    id::{HostId, InstanceId},
    instance::InstanceState,
    name::{BoroughName, HostName, WorkloadKey},
    spec::Protocol,
};

use super::{
    demand::{DemandCounts, DeviceDemand, device_demands},
    model::{DevicesUse, Host, Instance, Placed},
    sorted::Sorted,
};

/// What is given away of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostUse {
    /// Sum of what its instances take.
    pub taken: Amounts,
    /// Host ports given away.
    pub ports: Sorted<(Protocol, u16)>,
    /// Devices given away.
    pub devices: DevicesUse,
    /// All instances on it, with those that are over but not cleared away.
    pub instances: Sorted<InstanceId>,
    /// How many of them are in nobody's way any more: with this, whatever decides whether another instance may come here is seen in what
    /// is given away of the host.
    pub leaving: u32,
}

impl HostUse {
    /// Gives an instance room, ports and devices.
    fn give(&mut self, instance: &Instance, placed: &Placed) {
        self.taken += placed.taken;
        taken_ports(instance, placed).for_each(|port| self.ports.insert(port));
        instance.devices().for_each(|(device, of)| self.devices.give(device, of.share));
    }

    /// Takes back what an instance was given.
    pub fn take_back(&mut self, instance: &Instance, placed: &Placed) {
        self.taken = self.taken.saturating_sub(placed.taken);
        taken_ports(instance, placed).for_each(|port| self.ports.remove(&port));
        instance.devices().for_each(|(device, of)| self.devices.take_back(device, of.share));
    }
}

/// How an instance stood before it changed; by default it was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    pending: bool,
    placed: bool,
    takes: bool,
    /// It counts for its borough: what was lost with its host runs no more, and its successor counts.
    is_charged: bool,
    leaving: bool,
}

impl Standing {
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            pending: instance.is_pending(),
            placed: instance.placed.is_some(),
            takes: instance.takes().is_some(),
            is_charged: instance.takes().is_some() && instance.state != InstanceState::Lost,
            leaving: instance.placed.is_some() && !instance.is_to_stay(),
        }
    }
}

/// Indexes over the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Derived {
    host_names: OrdMap<HostName, HostId>,
    uses: OrdMap<HostId, Arc<HostUse>>,
    of_workload: OrdMap<WorkloadKey, OrdSet<InstanceId>>,
    pending: OrdSet<(Reverse<u32>, InstanceId)>,
    /// What the instances of each borough take of their hosts.
    taken: OrdMap<BoroughName, Amounts>,
    /// How many instances ask for devices so.
    device_demands: OrdMap<DeviceDemand, DemandCounts>,
    unused: Arc<HostUse>,
}

impl Derived {
    /// Takes in an instance.
    pub(super) fn add(&mut self, instance: &Instance) {
        match self.of_workload.get_mut(instance.workload()) {
            Some(ids) => drop(ids.insert(instance.id)),
            None => drop(self.of_workload.insert(instance.workload().clone(), OrdSet::unit(instance.id))),
        }
        self.moved(Standing::default(), instance);
    }

    /// Takes into account how an instance changed. Its workload never does, and once placed it stays where it is until it is gone.
    pub(super) fn moved(&mut self, before: Standing, instance: &Instance) {
        let now = Standing::of(instance);
        self.count_demands(before, now, instance);
        if before.pending != now.pending {
            let place = (Reverse(instance.spec().priority), instance.id);
            if now.pending {
                self.pending.insert(place)
            } else {
                self.pending.remove(&place)
            };
        }
        let Some(placed) = &instance.placed else { return };
        if (Standing { pending: now.pending, ..before }) == now {
            return;
        }
        let used = Arc::make_mut(self.uses.entry(placed.host).or_default());
        if !before.placed {
            used.instances.insert(instance.id);
        }
        match (before.takes, now.takes) {
            (false, true) => used.give(instance, placed),
            (true, false) => used.take_back(instance, placed),
            _ => {}
        }
        used.leaving = used.leaving + u32::from(now.leaving) - u32::from(before.leaving);
        match (before.is_charged, now.is_charged) {
            (false, true) => self.charge(instance, placed),
            (true, false) => self.give_back(instance, placed),
            _ => {}
        }
    }

    /// Takes out an instance as it last was.
    pub(super) fn remove(&mut self, instance: &Instance) {
        let standing = Standing::of(instance);
        self.count_demands(standing, Standing::default(), instance);
        if let Some(ids) = self.of_workload.get_mut(instance.workload()) {
            ids.remove(&instance.id);
            if ids.is_empty() {
                self.of_workload.remove(instance.workload());
            }
        }
        if instance.is_pending() {
            self.pending.remove(&(Reverse(instance.spec().priority), instance.id));
        }
        let Some(placed) = &instance.placed else { return };
        let Some(used) = self.uses.get_mut(&placed.host) else { return };
        let used = Arc::make_mut(used);
        used.instances.remove(&instance.id);
        used.leaving -= u32::from(standing.leaving);
        if instance.takes().is_some() {
            used.take_back(instance, placed);
        }
        if used.instances.is_empty() {
            self.uses.remove(&placed.host);
        }
        if standing.is_charged {
            self.give_back(instance, placed);
        }
    }

    fn charge(&mut self, instance: &Instance, placed: &Placed) {
        let taken = self.taken.entry(instance.workload().borough.clone()).or_default();
        *taken = taken.saturating_add(placed.taken);
    }

    /// Takes back what an instance took of its borough's account.
    fn give_back(&mut self, instance: &Instance, placed: &Placed) {
        let borough = &instance.workload().borough;
        let Some(taken) = self.taken.get_mut(borough) else { return };
        *taken = taken.saturating_sub(placed.taken);
        if *taken == Amounts::default() {
            self.taken.remove(borough);
        }
    }

    fn count_demands(&mut self, before: Standing, now: Standing, instance: &Instance) {
        let is_same = (before.takes, before.pending) == (now.takes, now.pending);
        if is_same || instance.spec().resources.devices.is_empty() {
            return;
        }
        for demand in device_demands(instance.spec()) {
            let mut counts = self.device_demands.get(&demand).copied().unwrap_or_default();
            counts.placed = counts.placed + u64::from(now.takes) - u64::from(before.takes);
            counts.waiting = counts.waiting + u64::from(now.pending) - u64::from(before.pending);
            if counts == DemandCounts::default() {
                self.device_demands.remove(&demand);
            } else {
                self.device_demands.insert(demand, counts);
            }
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

    pub(super) fn count_of(&self, key: &WorkloadKey) -> usize {
        self.of_workload.get(key).map_or(0, OrdSet::len)
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

    pub(super) fn used_shared(&self, host: HostId) -> Arc<HostUse> {
        self.uses.get(&host).unwrap_or(&self.unused).clone()
    }

    pub(super) fn uses_changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = HostId> {
        before.uses.diff(&self.uses).map(key_of)
    }

    /// What began to wait since, and what no longer does.
    pub(super) fn pending_since(&self, before: &Self) -> Waiting {
        let mut waiting = Waiting::default();
        for difference in before.pending.diff(&self.pending) {
            match difference {
                imbl::ordset::DiffItem::Add((_, id)) => waiting.began.push(*id),
                imbl::ordset::DiffItem::Remove((_, id)) => waiting.ended.push(*id),
            }
        }
        waiting
    }

    pub(super) fn taken(&self, borough: &BoroughName) -> Amounts {
        self.taken.get(borough).copied().unwrap_or_default()
    }

    pub(super) fn device_demands(&self) -> &OrdMap<DeviceDemand, DemandCounts> {
        &self.device_demands
    }

    pub(super) fn only_compared(&self) -> Self {
        Self {
            uses: self.uses.clone(),
            pending: self.pending.clone(),
            device_demands: self.device_demands.clone(),
            ..Self::default()
        }
    }
}

/// How what waits for a host differs from before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Waits now and did not.
    pub began: Vec<InstanceId>,
    /// Waits no longer.
    pub ended: Vec<InstanceId>,
}

/// What a difference of two maps is about.
pub(super) fn key_of<K: Copy, V>(difference: DiffItem<'_, '_, K, V>) -> K {
    match difference {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => *key,
        DiffItem::Update { new: (key, _), .. } => *key,
    }
}

/// The host ports that an instance holds.
fn taken_ports(instance: &Instance, placed: &Placed) -> impl Iterator<Item = (Protocol, u16)> {
    instance.spec().ports().zip(placed.ports.iter()).map(|((_, port), host_port)| (port.protocol, *host_port))
}
