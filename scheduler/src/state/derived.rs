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
};

use super::{
    by_kind::ByKind,
    by_priority::ByPriority,
    demand::{DemandCounts, DeviceDemand, demand, device_demands},
    host_use::{HostUse, add_or_take},
    model::{Awaited, Host, Instance},
    site::SitePolicy,
};

/// What the instances of a borough take of their hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoroughUse {
    /// All of it, with the room that is made for those that wait.
    pub taken: Amounts,
    /// The parts of devices that are asked for by those who take it.
    pub devices: ByKind,
    /// What of it those take that are told to stop and not gone.
    pub going: Amounts,
    /// What of it is the room that is made for those that wait.
    pub awaited: ByPriority,
    /// What of it those take that are to stay on their hosts: of that more urgent work of the borough may displace the rest.
    pub to_stay: ByPriority,
    /// How many are lost with their hosts: they count for nothing, and may be there when the hosts are back.
    pub lost: u32,
}

impl BoroughUse {
    /// Whether nothing was counted since the one was copied from the other.
    fn is_untouched(&self, other: &Self) -> bool {
        (self.taken, self.going, self.lost) == (other.taken, other.going, other.lost)
            && self.awaited.is_untouched(&other.awaited)
            && self.to_stay.is_untouched(&other.to_stay)
            && self.devices == other.devices
    }

    /// What is not told to stop.
    #[must_use]
    pub fn staying(&self) -> Amounts {
        self.taken.saturating_sub(self.going)
    }

    /// What is on hosts.
    #[must_use]
    pub fn on_hosts(&self) -> Amounts {
        self.taken.saturating_sub(self.awaited.all())
    }

    /// Whether nothing has to be kept of it.
    fn is_empty(&self) -> bool {
        self.lost == 0
            && self.to_stay.is_empty()
            && self.awaited.is_empty()
            && self.devices.is_empty()
            && [self.taken, self.going] == [Amounts::default(); 2]
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
    /// The host that it keeps to its borough, from when room is made for it on; what is lost with its host keeps none.
    keeps: Option<HostId>,
}

impl Standing {
    pub(super) fn of(instance: &Instance) -> Self {
        let there = || instance.takes().filter(|_| instance.state != InstanceState::Lost);
        let is_private = instance.spec().place.private;
        Self {
            keeps: is_private.then(|| instance.awaited_host().or_else(|| Some(there()?.host))).flatten(),
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
    /// Hosts that boroughs keep to themselves, with how many instances keep each.
    private: OrdMap<BoroughName, OrdMap<HostId, u32>>,
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
        self.keep(before, now, instance);
        let Some(placed) = &instance.placed else { return };
        if (Standing { pending: now.pending, awaited: now.awaited, keeps: now.keeps, ..before }) == now {
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
        let taken = used.taken_as(instance, placed);
        used.count_going(before.is_going, now.is_going, instance, taken);
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
        self.keep(standing, Standing::default(), instance);
        let Some(placed) = &instance.placed else { return };
        let Some(used) = self.uses.get_mut(&placed.host) else { return };
        let used = Arc::make_mut(used);
        used.take_out(instance);
        used.leaving -= u32::from(standing.leaving);
        let taken = used.taken_as(instance, placed);
        used.count_going(standing.is_going, false, instance, taken);
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
        let of = |of: Standing| (of.is_charged, of.is_going, of.takes, of.awaited.is_some());
        if of(before) == of(now) {
            return;
        }
        let amounts = instance.placed.as_ref().map_or_else(|| demand(instance.spec()), |placed| placed.taken);
        let used = self.boroughs.entry(instance.workload().borough.clone()).or_default();
        let going = |of: Standing| of.is_charged && of.is_going;
        let stays = |of: Standing| of.is_charged && of.takes && !of.is_going;
        add_or_take(&mut used.taken, before.is_charged, now.is_charged, amounts);
        let requests = &instance.spec().resources.devices;
        match (before.is_charged, now.is_charged) {
            (false, true) => used.devices.add_asked(requests, 1),
            (true, false) => used.devices.take_asked(requests),
            _ => {}
        }
        add_or_take(&mut used.going, going(before), going(now), amounts);
        let lost = |of: Standing| u32::from(of.takes && !of.is_charged);
        used.lost = used.lost + lost(now) - lost(before);
        let priority = instance.spec().priority;
        let count = |of: &mut ByPriority, before: bool, now: bool| match (before, now) {
            (false, true) => of.add(priority, amounts),
            (true, false) => of.take(priority, amounts),
            _ => {}
        };
        count(&mut used.awaited, before.awaited.is_some(), now.awaited.is_some());
        count(&mut used.to_stay, stays(before), stays(now));
        if used.is_empty() {
            self.boroughs.remove(&instance.workload().borough);
        }
    }

    /// Counts the hosts that a borough keeps to itself.
    fn keep(&mut self, before: Standing, now: Standing, instance: &Instance) {
        if before.keeps == now.keeps {
            return;
        }
        let borough = &instance.workload().borough;
        let hosts = self.private.entry(borough.clone()).or_default();
        if let Some(host) = now.keeps {
            *hosts.entry(host).or_default() += 1;
        }
        if let Some(host) = before.keeps
            && let Some(count) = hosts.get_mut(&host)
        {
            *count -= 1;
            if *count == 0 {
                hosts.remove(&host);
            }
        }
        if hosts.is_empty() {
            self.private.remove(borough);
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

    /// Takes out a host on which there is nothing any more.
    pub(super) fn remove_host(&mut self, host: &Host) {
        self.host_names.remove(&host.name);
        self.uses.remove(&host.id);
    }

    /// Counts anew, by another policy of its site, what is given away of a host on which these are.
    pub(super) fn set_policy(&mut self, host: HostId, policy: SitePolicy, instances: &[Arc<Instance>]) {
        let used = Arc::make_mut(self.uses.entry(host).or_default());
        used.count_anew(policy, instances);
        if used.is_empty() {
            self.uses.remove(&host);
        }
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
        let more = self.pending.len().saturating_sub(before.pending.len());
        let mut waiting = Waiting { began: Vec::with_capacity(more), ended: Vec::new() };
        for difference in before.pending.diff(&self.pending) {
            match difference {
                imbl::ordset::DiffItem::Add((_, id, _)) => waiting.began.push(*id),
                imbl::ordset::DiffItem::Remove((_, id, _)) => waiting.ended.push(*id),
            }
        }
        waiting
    }

    /// Boroughs of which anything was counted since, or that keep other hosts to themselves. That sums are the same does not say that nothing was counted.
    pub(super) fn boroughs_changed_since<'a>(&'a self, before: &'a Self) -> Vec<&'a BoroughName> {
        let mut changed: Vec<&BoroughName> = before.private.diff(&self.private).map(name_of).collect();
        if before.boroughs.ptr_eq(&self.boroughs) {
            return changed;
        }
        if before.boroughs.keys().eq(self.boroughs.keys()) {
            let both = self.boroughs.iter().zip(before.boroughs.values());
            changed.extend(
                both.filter(|((_, now), before)| !now.is_untouched(before)).map(|((name, _), _)| name),
            );
        } else {
            changed.extend(before.boroughs.keys().chain(self.boroughs.keys()));
        }
        changed
    }

    pub(super) fn use_of(&self, borough: &BoroughName) -> BoroughUse {
        self.boroughs.get(borough).cloned().unwrap_or_default()
    }

    pub(super) fn minding(&self, key: &WorkloadKey) -> impl Iterator<Item = &InstanceId> {
        self.minded.get(key).into_iter().flatten()
    }

    pub(super) fn keeps(&self, borough: &BoroughName, host: HostId) -> bool {
        self.private.get(borough).is_some_and(|hosts| hosts.contains_key(&host))
    }

    pub(super) fn kept_hosts(&self, borough: &BoroughName) -> usize {
        self.private.get(borough).map_or(0, OrdMap::len)
    }

    /// Hosts that some borough began to keep to itself, or no longer does.
    pub(super) fn kept_since(&self, before: &Self) -> Vec<HostId> {
        let mut hosts = Vec::new();
        for difference in before.private.diff(&self.private) {
            match difference {
                DiffItem::Add(_, of) | DiffItem::Remove(_, of) => hosts.extend(of.keys()),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    hosts.extend(old.keys().filter(|host| !new.contains_key(*host)));
                    hosts.extend(new.keys().filter(|host| !old.contains_key(*host)));
                }
            }
        }
        hosts
    }

    pub(super) fn device_demands(&self) -> &OrdMap<DeviceDemand, DemandCounts> {
        &self.device_demands
    }

    pub(super) fn only_compared(&self) -> Self {
        Self {
            uses: self.uses.clone(),
            pending: self.pending.clone(),
            device_demands: self.device_demands.clone(),
            private: self.private.clone(),
            boroughs: self.boroughs.clone(),
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
    *name_of(difference)
}

/// The same of keys that are not copied.
pub(super) fn name_of<'a, K, V>(difference: DiffItem<'a, 'a, K, V>) -> &'a K {
    match difference {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    }
}
