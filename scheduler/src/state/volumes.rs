//! Where the volumes of workloads live. Pure; what comes of it for placement is said in `fits::volumes`.
//!
//! A volume is a directory on a host, which the agent makes where a workload's instance first mounts it and leaves there. So a slot of a workload that
//! mounts any has a *home*: the host on which its last instance was placed. The next one of the slot goes there and nowhere else.
//!
//! Decisions. *A home is a slot's, and not the workload's*: a slot that was scaled away left its data behind, and another one must not come up with it
//! while its own are waiting for it elsewhere; scaled up again it finds them. *A home is kept until somebody gives it up*: the workload is forgotten, its
//! host is removed, or whoever may forgets its volumes there. That they are not used is no reason: they are kept for when they are. *When the level is
//! raised, each slot is at home where it was placed last*; two slots may share a home from then, if they shared the host, and share its volumes on as they
//! did. After that no slot comes to live where another one does.

use std::{collections::BTreeSet, sync::Arc};

use imbl::ordmap::DiffItem;
use supercloud_proto::{
    host::HostState,
    id::{HostId, InstanceId, UnixMillis},
    name::WorkloadKey,
};

use super::{
    State,
    level::FIFTH,
    model::{Host, Instance},
};

/// Where the volumes of a slot live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The slot.
    pub slot: u32,
    /// The host.
    pub host: HostId,
    /// Since when.
    pub since: UnixMillis,
}

/// The homes of a workload's slots, by slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Homes {
    by_slot: Vec<Home>,
    /// The host of each of them, in order.
    hosts: Vec<HostId>,
}

impl Homes {
    /// The home of a slot.
    #[must_use]
    pub fn of(&self, slot: u32) -> Option<&Home> {
        self.place(slot).ok().map(|place| &self.by_slot[place])
    }

    /// Whether some slot is at home on a host.
    #[must_use]
    pub fn are_on(&self, host: HostId) -> bool {
        self.hosts.binary_search(&host).is_ok()
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Home> {
        self.by_slot.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// Makes a host the home of a slot. Where it is that, it stays so since when it was.
    pub(super) fn put(&mut self, home: Home) {
        match self.place(home.slot) {
            Ok(place) if self.by_slot[place].host == home.host => return,
            Ok(place) => {
                let before = std::mem::replace(&mut self.by_slot[place], home);
                if let Ok(place) = self.hosts.binary_search(&before.host) {
                    self.hosts.remove(place);
                }
            }
            Err(place) => self.by_slot.insert(place, home),
        }
        let place = self.hosts.partition_point(|host| *host < home.host);
        self.hosts.insert(place, home.host);
    }

    /// Makes a host nobody's home.
    pub(super) fn leave(&mut self, host: HostId) {
        self.by_slot.retain(|home| home.host != host);
        self.hosts.retain(|other| *other != host);
    }

    fn place(&self, slot: u32) -> Result<usize, usize> {
        self.by_slot.binary_search_by_key(&slot, |home| home.slot)
    }

    /// Whether some slot is not at home any more where it was.
    fn lack_any_of(&self, before: &Self) -> bool {
        before.by_slot.iter().any(|home| self.of(home.slot).is_none_or(|now| now.host != home.host))
    }
}

impl State {
    /// Where volumes live, by workload; nowhere below level 5.
    #[must_use]
    pub fn homes(&self) -> &imbl::OrdMap<WorkloadKey, Arc<Homes>> {
        &self.homes
    }

    /// Where the volumes of a workload live.
    #[must_use]
    pub fn homes_of(&self, key: &WorkloadKey) -> Option<&Homes> {
        self.homes.get(key).map(AsRef::as_ref)
    }

    /// The host to which an instance goes and to no other, since the volumes that it mounts live there.
    #[must_use]
    pub fn home_of(&self, id: InstanceId) -> Option<HostId> {
        let instance = self.instance(id).filter(|instance| instance.spec().has_volumes())?;
        self.homes_of(instance.workload())?.of(instance.slot).map(|home| home.host)
    }

    /// Whether volumes keep instances where they live: every member knows it.
    #[must_use]
    pub fn has_homes(&self) -> bool {
        self.level() >= FIFTH
    }

    /// Workloads of which some slot had a home in another state and has not any more, or has another one.
    pub(crate) fn moved_out_since(&self, before: &Self) -> BTreeSet<WorkloadKey> {
        let moved = |difference: DiffItem<'_, '_, WorkloadKey, Arc<Homes>>| match difference {
            DiffItem::Add(..) => None,
            DiffItem::Remove(key, _) => Some(key.clone()),
            DiffItem::Update { old: (key, old), new: (_, new) } => new.lack_any_of(old).then(|| key.clone()),
        };
        before.homes.diff(&self.homes).filter_map(moved).collect()
    }

    /// Who uses the volumes of a workload on a host: what is there and not over. What was lost with its host runs no more, as far as anybody can tell.
    pub fn users_of_volumes<'s>(
        &'s self,
        key: &'s WorkloadKey,
        host: &'s Host,
    ) -> impl Iterator<Item = &'s Arc<Instance>> {
        let uses = move |instance: &&Arc<Instance>| {
            instance.workload() == key && instance.takes().is_some() && instance.spec().has_volumes()
        };
        let is_lost = host.state == HostState::Lost;
        self.instances_on(host.id).filter(uses).filter(move |_| !is_lost)
    }
}
