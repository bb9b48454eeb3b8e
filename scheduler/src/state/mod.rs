//! The replicated state: what every node of the cluster agrees on. Pure: it knows no IO, no clock, no randomness and no log.
//!
//! Kept in persistent maps, so that a consistent copy costs O(1) and no reader, pass or snapshot ever stops [`State::apply`]. There is one
//! way to change it: [`State::apply`] with an [`Entry`]. What can be derived from the records is kept in [`derived`] and nowhere else.
//!
//! Decisions. *Pending instances are records*: a workload's missing instances are created by apply itself, with ids from the log index, so
//! that the log carries a count and not a million lines, and everybody sees what waits. *Orders never go back*: an instance that was
//! told to stop is never told to run again; a successor takes its slot. So a late report or order can never revive anything.

use std::sync::Arc;

use imbl::OrdMap;
use supercloud_proto::{
    amount::Amounts,
    id::{HostId, InstanceId, LogIndex},
    name::{BoroughName, HostName, SiteName, WorkloadKey},
};

pub mod apply;
pub mod by_kind;
pub mod by_priority;
pub mod codec;
pub mod command;
pub mod demand;
pub mod derived;
pub mod fits;
pub mod gang;
pub mod host_use;
pub mod level;
pub mod model;
pub mod orders;
pub mod preempt;
pub mod quota;
mod refound;
pub mod requests;
pub mod site;
pub mod sorted;
#[cfg(test)]
pub mod tests;
pub mod volumes;

pub use command::{
    Change, Command, Done, Entry, HostReports, HostVerdict, Outcome, Placement, Preemption, Rejection,
};
pub use demand::{DemandCounts, DeviceDemand};
pub use derived::{BoroughUse, Derived, Waiting};
pub use host_use::HostUse;
pub use model::{
    Background, Borough, Event, EventKind, Grant, Host, Instance, Placed, Ports, RevisionRecord, Run,
    Subject, TaskSeen, Token, Workload,
};
pub use quota::{Allowance, BoroughChange, Excess, Quota};
pub use site::{Packing, SiteChange, SitePolicy};
pub use volumes::{Home, Homes};

use gang::Together;
use level::Level;
use requests::Requests;

/// The whole state at one log index. Cloning it is cheap and gives a consistent copy.
#[derive(Debug, Clone, Default)]
pub struct State {
    cluster_id: Option<Arc<str>>,
    /// 0 before it was raised once: see [`State::level`].
    level: Level,
    applied: LogIndex,
    next_host: u32,
    boroughs: OrdMap<BoroughName, Arc<Borough>>,
    /// Of those sites whose policy is not the usual one.
    sites: OrdMap<SiteName, SitePolicy>,
    workloads: OrdMap<WorkloadKey, Arc<Workload>>,
    instances: OrdMap<InstanceId, Arc<Instance>>,
    /// Where the volumes live of those workloads that have or had any.
    homes: OrdMap<WorkloadKey, Arc<Homes>>,
    hosts: OrdMap<HostId, Arc<Host>>,
    /// Log index of the last change of each host's orders. Apart from the hosts' records, which seldom change: this does with every placement.
    orders: OrdMap<HostId, LogIndex>,
    tokens: OrdMap<String, Arc<Token>>,
    requests: Requests,
    derived: Derived,
}

impl State {
    /// Id of the cluster; `None` before its first entry.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// What every member of the cluster knows: nothing that needs a higher level is proposed.
    pub fn level(&self) -> Level {
        self.level.max(level::FIRST)
    }

    /// Index of the last entry that was applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// All boroughs, by name.
    pub fn boroughs(&self) -> &OrdMap<BoroughName, Arc<Borough>> {
        &self.boroughs
    }

    /// The policies of those sites that have another one than the usual, by name.
    pub fn sites(&self) -> &OrdMap<SiteName, SitePolicy> {
        &self.sites
    }

    /// The policy of a site.
    pub fn policy_of(&self, site: &SiteName) -> SitePolicy {
        self.sites.get(site).copied().unwrap_or_default()
    }

    /// Counts what is given away of a host by the policy of its site, where that is another one than it was counted by.
    fn follow_policy(&mut self, host: HostId) {
        let Some(site) = self.hosts.get(&host).map(|host| &host.inventory.site) else { return };
        let policy = self.policy_of(site);
        if self.used(host).policy != policy {
            let instances: Vec<Arc<Instance>> = self.instances_on(host).cloned().collect();
            self.derived.set_policy(host, policy, &instances);
        }
    }

    /// All workloads, by borough and name.
    pub fn workloads(&self) -> &OrdMap<WorkloadKey, Arc<Workload>> {
        &self.workloads
    }

    /// One workload.
    pub fn workload(&self, key: &WorkloadKey) -> Option<&Arc<Workload>> {
        self.workloads.get(key)
    }

    /// All instances, by id, which is by age.
    pub fn instances(&self) -> &OrdMap<InstanceId, Arc<Instance>> {
        &self.instances
    }

    /// One instance.
    pub fn instance(&self, id: InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(&id)
    }

    /// The instances of a workload, by id.
    pub fn instances_of<'a>(
        &'a self,
        key: &WorkloadKey,
    ) -> impl Iterator<Item = &'a Arc<Instance>> + use<'a> {
        self.instances_by(self.derived.of_workload(key).copied())
    }

    /// The instances of a borough, workload by workload.
    pub fn instances_of_borough<'a>(
        &'a self,
        borough: &'a BoroughName,
    ) -> impl Iterator<Item = &'a Arc<Instance>> + use<'a> {
        let of_borough = self.workloads.keys().filter(move |key| key.borough == *borough);
        of_borough.flat_map(|key| self.instances_of(key))
    }

    /// Those of these instances that there are, in the same order. Where ids follow each other, as those of a workload do, one costs a step and not a
    /// search.
    pub fn instances_by<'a, I: Iterator<Item = InstanceId>>(
        &'a self,
        ids: I,
    ) -> impl Iterator<Item = &'a Arc<Instance>> + use<'a, I> {
        let (mut expected, mut ahead) = (None, None);
        ids.filter_map(move |id| {
            let follows = expected == Some(id);
            expected = id.after();
            if !follows {
                ahead = None;
                return self.instances.get(&id);
            }
            let found = ahead.get_or_insert_with(|| self.instances.range(id..)).next();
            let found = found.filter(|(found, _)| **found == id).map(|(_, instance)| instance);
            if found.is_none() {
                expected = None;
            }
            found
        })
    }

    /// How many instances a workload has, with those that are over but not cleared away; costs nothing.
    pub fn count_of(&self, key: &WorkloadKey) -> usize {
        self.derived.count_of(key)
    }

    /// The instances on a host, by id, with those that are over but not cleared away.
    pub fn instances_on(&self, host: HostId) -> impl Iterator<Item = &Arc<Instance>> {
        self.derived.on_host(host).filter_map(|id| self.instances.get(id))
    }

    /// Instances that wait for a host: most urgent first, then oldest first.
    pub fn pending(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.derived.pending().filter_map(|id| self.instances.get(&id))
    }

    /// How many they are; costs nothing.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.derived.pending_count()
    }

    /// All hosts, by number.
    pub fn hosts(&self) -> &OrdMap<HostId, Arc<Host>> {
        &self.hosts
    }

    /// One host.
    pub fn host(&self, id: HostId) -> Option<&Arc<Host>> {
        self.hosts.get(&id)
    }

    /// One host by its name.
    pub fn host_named(&self, name: &str) -> Option<&Arc<Host>> {
        self.derived.host_named(name).and_then(|id| self.hosts.get(&id))
    }

    /// Name of a host; empty when it is not known.
    pub fn host_name(&self, id: HostId) -> Option<&HostName> {
        self.hosts.get(&id).map(|host| &host.name)
    }

    /// For every host the log index of the last change of its orders: sessions send what is newer than what they sent.
    pub fn orders_indexes(&self) -> &OrdMap<HostId, LogIndex> {
        &self.orders
    }

    /// What is given away of a host, and to whom.
    pub fn used(&self, host: HostId) -> &HostUse {
        self.derived.used(host)
    }

    /// The same, to hold on to.
    pub fn used_shared(&self, host: HostId) -> Arc<HostUse> {
        self.derived.used_shared(host)
    }

    /// Hosts whose record, or what is given away of them, is not what it was in another state, gone ones too; one may come twice. Takes time
    /// by what the two do not share, which for two versions of one state is what changed.
    pub fn hosts_changed_since(&self, before: &Self) -> Vec<HostId> {
        let mut changed: Vec<HostId> = before.hosts.diff(&self.hosts).map(derived::key_of).collect();
        changed.extend(self.derived.uses_changed_since(&before.derived));
        changed
    }

    /// Boroughs that may have, or have, something else than in another state; one may come several times. Takes time like [`State::hosts_changed_since`].
    pub fn boroughs_changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a BoroughName> {
        let records = before.boroughs.diff(&self.boroughs).map(derived::name_of);
        records.chain(self.derived.boroughs_changed_since(&before.derived))
    }

    /// Hosts that some borough keeps to itself and did not in another state, or did; takes time like [`State::hosts_changed_since`].
    pub fn kept_since(&self, before: &Self) -> Vec<HostId> {
        self.derived.kept_since(&before.derived)
    }

    /// How what waits for a host differs from another state; takes time like [`State::hosts_changed_since`].
    pub fn pending_since(&self, before: &Self) -> Waiting {
        self.derived.pending_since(&before.derived)
    }

    /// What the placed instances of a borough take of their hosts: what counts against its quota. What was lost with its host does not count.
    pub fn taken_by(&self, borough: &BoroughName) -> Amounts {
        self.use_of(borough).taken
    }

    /// The same, with what of it is told to stop.
    pub fn use_of(&self, borough: &BoroughName) -> BoroughUse {
        self.derived.use_of(borough)
    }

    /// What a borough may have; a borough that is not known, everything.
    pub fn allowance_of(&self, borough: &BoroughName) -> Allowance {
        self.boroughs.get(borough).map_or_else(Allowance::default, |known| known.allowance)
    }

    /// The amounts of its quota that a borough would exceed with something more of a priority; none: its quota lets that in.
    pub fn excesses(&self, borough: &BoroughName, priority: u32, needed: Amounts) -> Vec<Excess> {
        let quota = self.allowance_of(borough).quota;
        if quota == Quota::default() {
            return Vec::new();
        }
        quota.excesses(self.taken_before(borough, priority), needed).collect()
    }

    /// What counts against a borough's quota for something of a priority: not the room that is made for what is less urgent and waits, once every member knows that.
    pub fn taken_before(&self, borough: &BoroughName, priority: u32) -> Amounts {
        let used = self.use_of(borough);
        used.taken.saturating_sub(preempt::put_off(&used.awaited, priority, self.level()))
    }

    /// The same for an instance that waits, with so many that are given hosts only together, itself among them. What room is made for is charged already: it
    /// waits until there is enough of the quota beside what is on hosts, and what is more urgent and waits likewise.
    pub fn excesses_with(&self, instance: &Instance, together: Together) -> Vec<Excess> {
        let (borough, each) = (&instance.workload().borough, demand::demand(instance.spec()));
        let uncharged = together.all - together.awaited;
        if uncharged > 0 {
            return self.excesses(borough, instance.spec().priority, each.times(uncharged as u64));
        }
        let needed = each.times(together.all as u64);
        let quota = self.allowance_of(borough).quota;
        if self.level() < level::FIFTH || quota == Quota::default() {
            return Vec::new();
        }
        let used = self.use_of(borough);
        let first = used.awaited.above(instance.spec().priority);
        quota.excesses(used.on_hosts().saturating_add(first), needed).collect()
    }

    /// Whether a borough keeps a host to itself: private instances of it are there, or have room made for them. What was lost with its host does not count.
    pub fn keeps(&self, borough: &BoroughName, host: HostId) -> bool {
        self.derived.keeps(borough, host)
    }

    /// How many hosts a borough keeps to itself.
    pub fn kept_hosts(&self, borough: &BoroughName) -> u32 {
        self.derived.kept_hosts(borough) as u32
    }

    /// Instances that stay on their hosts and must not share them with this workload.
    pub fn minding(&self, key: &WorkloadKey) -> impl Iterator<Item = &Arc<Instance>> {
        self.derived.minding(key).filter_map(|id| self.instances.get(id))
    }

    /// What instances ask for of devices, and how many ask for the same.
    pub fn device_demands(&self) -> &OrdMap<DeviceDemand, DemandCounts> {
        self.derived.device_demands()
    }

    /// Only what [`State::hosts_changed_since`], [`State::pending_since`] and [`State::moved_out_since`] compare, and the sites: for whoever compares a later state with it and should not
    /// hold on to the rest.
    pub fn only_compared(&self) -> Self {
        Self {
            applied: self.applied,
            level: self.level,
            sites: self.sites.clone(),
            homes: self.homes.clone(),
            hosts: self.hosts.clone(),
            boroughs: self.boroughs.clone(),
            derived: self.derived.only_compared(),
            ..Self::default()
        }
    }

    /// One join token.
    pub fn token(&self, id: &str) -> Option<&Arc<Token>> {
        self.tokens.get(id)
    }
}
