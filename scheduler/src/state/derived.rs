//! What follows from the records: who is where, what is given away, what waits. Kept up by [`Derived::add`], [`Derived::moved`] and
//! [`Derived::remove`], called wherever a record enters, changes in or leaves the state, and by nobody else; a test rebuilds it from scratch and
//! compares.
//!
//! Decision: *what a host has is one piece of memory*. A host bears some hundreds of instances; as trees of their own those took several times
//! the memory, and a copy for every published version cost more than copying the whole list.

use std::{cmp::Reverse, sync::Arc};

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use supercloud_proto::{
    amount::{Amounts, Mbits},
    id::{HostId, InstanceId},
    instance::InstanceState,
    name::{BoroughName, HostName, WorkloadKey},
    spec::{Protocol, WorkloadSpec},
};

use super::{
    demand::{DemandCounts, DeviceDemand, demand, device_demands},
    model::{Awaited, DevicesUse, Host, Instance, Placed},
    sorted::Sorted,
};

/// What is given away of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostUse {
    /// Sum of what its instances take.
    pub taken: Amounts,
    /// Network bandwidth given away.
    pub network: Mbits,
    /// Host ports given away.
    pub ports: Sorted<(Protocol, u16)>,
    /// Devices given away.
    pub devices: DevicesUse,
    /// All instances on it, with those that are over but not cleared away.
    pub instances: Sorted<InstanceId>,
    /// How many of them are in nobody's way any more: with this, whatever decides whether another instance may come here is seen in what
    /// is given away of the host.
    pub leaving: u32,
    /// What those of them still take that are told to stop and not gone.
    pub going: Amounts,
    /// How many of the others say which workloads they must not share a host with: where there are none, nobody has to be asked.
    pub minding: u32,
    /// What instances of each priority take, from the lowest on.
    by_priority: Vec<(u32, Amounts)>,
    /// What waits for others to make way here, with its rank: room is kept for it against all that have no higher priority.
    pub awaited: Sorted<(u32, InstanceId)>,
}

impl HostUse {
    /// Gives an instance room, ports and devices.
    fn give(&mut self, instance: &Instance, placed: &Placed) {
        self.add(instance.spec().priority, placed.taken);
        self.network += instance.spec().resources.network;
        taken_ports(instance, placed).for_each(|port| self.ports.insert(port));
        instance.devices().for_each(|(device, of)| self.devices.give(device, of.share));
    }

    /// Takes in an instance of a spec that takes so much and gets these ports. Devices are given by themselves.
    pub fn take_in(&mut self, id: InstanceId, spec: &WorkloadSpec, demand: Amounts, ports: &[u16]) {
        self.add(spec.priority, demand);
        self.network += spec.resources.network;
        self.instances.insert(id);
        self.minding += u32::from(!spec.place.apart.is_empty());
        for ((_, port), number) in spec.ports().zip(ports) {
            self.ports.insert((port.protocol, *number));
        }
    }

    /// Takes out an instance with all that it has there.
    pub fn take_out(&mut self, instance: &Instance) {
        if let Some(placed) = instance.takes() {
            self.take_back(instance, placed);
        }
        self.minding -= u32::from(instance.minds_neighbours());
        self.instances.remove(&instance.id);
    }

    /// Counts what something of a priority takes.
    fn add(&mut self, priority: u32, amounts: Amounts) {
        self.taken += amounts;
        match self.by_priority.binary_search_by_key(&priority, |(of, _)| *of) {
            Ok(place) => self.by_priority[place].1 += amounts,
            Err(place) => self.by_priority.insert(place, (priority, amounts)),
        }
    }

    fn subtract(&mut self, priority: u32, amounts: Amounts) {
        self.taken = self.taken.saturating_sub(amounts);
        let Ok(place) = self.by_priority.binary_search_by_key(&priority, |(of, _)| *of) else { return };
        let left = self.by_priority[place].1.saturating_sub(amounts);
        self.by_priority[place].1 = left;
        if left == Amounts::default() {
            self.by_priority.remove(place);
        }
    }

    /// What instances of each priority take, from the lowest on.
    pub fn by_priority(&self) -> &[(u32, Amounts)] {
        &self.by_priority
    }

    /// Whether nothing has to be kept of it.
    fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.awaited.is_empty()
    }

    /// Takes back what an instance was given.
    pub fn take_back(&mut self, instance: &Instance, placed: &Placed) {
        self.subtract(instance.spec().priority, placed.taken);
        self.network = self.network.saturating_sub(instance.spec().resources.network);
        taken_ports(instance, placed).for_each(|port| self.ports.remove(&port));
        instance.devices().for_each(|(device, of)| self.devices.take_back(device, of.share));
    }
}

/// What the instances of a borough take of their hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BoroughUse {
    /// All of it, with the room that is made for those that wait.
    pub taken: Amounts,
    /// What of it those take that are told to stop and not gone.
    pub going: Amounts,
}

impl BoroughUse {
    /// What is not told to stop.
    #[must_use]
    pub fn staying(self) -> Amounts {
        self.taken.saturating_sub(self.going)
    }
}

/// How an instance stood before it changed; by default it was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    pending: bool,
    placed: bool,
    takes: bool,
    /// It counts for its borough, from when room is made for it on; what was lost with its host runs no more, and its successor counts.
    is_charged: bool,
    leaving: bool,
    /// It is leaving and still takes what it was given.
    is_going: bool,
    /// It is to stay, and says with which workloads it must not share its host.
    minds: bool,
    awaited: Option<Awaited>,
}

impl Standing {
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            pending: instance.is_pending(),
            placed: instance.placed.is_some(),
            takes: instance.takes().is_some(),
            is_charged: instance.awaited_host().is_some()
                || instance.takes().is_some() && instance.state != InstanceState::Lost,
            leaving: instance.placed.is_some() && !instance.is_to_stay(),
            is_going: instance.takes().is_some() && !instance.is_to_stay(),
            minds: instance.minds_neighbours(),
            awaited: instance.awaited(),
        }
    }
}

/// Indexes over the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Derived {
    host_names: OrdMap<HostName, HostId>,
    uses: OrdMap<HostId, Arc<HostUse>>,
    of_workload: OrdMap<WorkloadKey, OrdSet<InstanceId>>,
    /// With whether others make way for it.
    pending: OrdSet<(Reverse<u32>, InstanceId, bool)>,
    /// What the instances of each borough take of their hosts.
    boroughs: OrdMap<BoroughName, BoroughUse>,
    /// How many instances ask for devices so.
    device_demands: OrdMap<DeviceDemand, DemandCounts>,
    /// Instances that stay on their hosts and must not share them with a workload, by that workload.
    minded: OrdMap<WorkloadKey, OrdSet<InstanceId>>,
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
        self.wait(before, now, instance);
        self.charge(before, now, instance);
        let Some(placed) = &instance.placed else { return };
        if (Standing { pending: now.pending, awaited: now.awaited, ..before }) == now {
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
        used.minding = used.minding + u32::from(now.minds) - u32::from(before.minds);
        add_or_take(&mut used.going, before.is_going, now.is_going, placed.taken);
        self.mind(before, now, instance);
    }

    /// Takes out an instance as it last was.
    pub(super) fn remove(&mut self, instance: &Instance) {
        let standing = Standing::of(instance);
        self.count_demands(standing, Standing::default(), instance);
        self.mind(standing, Standing::default(), instance);
        if let Some(ids) = self.of_workload.get_mut(instance.workload()) {
            ids.remove(&instance.id);
            if ids.is_empty() {
                self.of_workload.remove(instance.workload());
            }
        }
        self.wait(standing, Standing::default(), instance);
        self.charge(standing, Standing::default(), instance);
        let Some(placed) = &instance.placed else { return };
        let Some(used) = self.uses.get_mut(&placed.host) else { return };
        let used = Arc::make_mut(used);
        used.take_out(instance);
        used.leaving -= u32::from(standing.leaving);
        add_or_take(&mut used.going, standing.is_going, false, placed.taken);
        if used.is_empty() {
            self.uses.remove(&placed.host);
        }
    }

    fn wait(&mut self, before: Standing, now: Standing, instance: &Instance) {
        let priority = instance.spec().priority;
        let place =
            |of: Standing| of.pending.then_some((Reverse(priority), instance.id, of.awaited.is_some()));
        if place(before) != place(now) {
            place(before).map(|place| self.pending.remove(&place));
            self.pending.extend(place(now));
        }
        if before.awaited == now.awaited {
            return;
        }
        if let Some(Awaited { host, rank }) = before.awaited
            && let Some(used) = self.uses.get_mut(&host)
        {
            let used = Arc::make_mut(used);
            used.awaited.remove(&(rank, instance.id));
            if used.is_empty() {
                self.uses.remove(&host);
            }
        }
        if let Some(Awaited { host, rank }) = now.awaited {
            Arc::make_mut(self.uses.entry(host).or_default()).awaited.insert((rank, instance.id));
        }
    }

    /// Charges a borough what has changed of what an instance takes.
    fn charge(&mut self, before: Standing, now: Standing, instance: &Instance) {
        if (before.is_charged, before.is_going) == (now.is_charged, now.is_going) {
            return;
        }
        let amounts = instance.placed.as_ref().map_or_else(|| demand(instance.spec()), |placed| placed.taken);
        let used = self.boroughs.entry(instance.workload().borough.clone()).or_default();
        let going = |of: Standing| of.is_charged && of.is_going;
        add_or_take(&mut used.taken, before.is_charged, now.is_charged, amounts);
        add_or_take(&mut used.going, going(before), going(now), amounts);
        if *used == BoroughUse::default() {
            self.boroughs.remove(&instance.workload().borough);
        }
    }

    fn mind(&mut self, before: Standing, now: Standing, instance: &Instance) {
        if before.minds == now.minds {
            return;
        }
        for workload in &instance.spec().place.apart {
            let key = instance.workload().beside(workload);
            if now.minds {
                self.minded.entry(key).or_default().insert(instance.id);
                continue;
            }
            let Some(ids) = self.minded.get_mut(&key) else { continue };
            ids.remove(&instance.id);
            if ids.is_empty() {
                self.minded.remove(&key);
            }
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
        self.pending.iter().map(|(_, id, _)| *id)
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
                imbl::ordset::DiffItem::Add((_, id, _)) => waiting.began.push(*id),
                imbl::ordset::DiffItem::Remove((_, id, _)) => waiting.ended.push(*id),
            }
        }
        waiting
    }

    pub(super) fn use_of(&self, borough: &BoroughName) -> BoroughUse {
        self.boroughs.get(borough).copied().unwrap_or_default()
    }

    pub(super) fn minding(&self, key: &WorkloadKey) -> impl Iterator<Item = &InstanceId> {
        self.minded.get(key).into_iter().flatten()
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

/// Adds what something has begun to take, or takes out what it takes no longer.
fn add_or_take(sum: &mut Amounts, before: bool, now: bool, amounts: Amounts) {
    match (before, now) {
        (false, true) => *sum = sum.saturating_add(amounts),
        (true, false) => *sum = sum.saturating_sub(amounts),
        _ => {}
    }
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
