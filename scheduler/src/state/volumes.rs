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
pub struct Homes(Vec<Home>);

impl Homes {
    /// The home of a slot.
    #[must_use]
    pub fn of(&self, slot: u32) -> Option<&Home> {
        self.place(slot).ok().map(|place| &self.0[place])
    }

    /// Whether some slot is at home on a host.
    #[must_use]
    pub fn are_on(&self, host: HostId) -> bool {
        self.0.iter().any(|home| home.host == host)
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Home> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes a host the home of a slot. Where it is that, it stays so since when it was.
    pub(super) fn put(&mut self, home: Home) {
        match self.place(home.slot) {
            Ok(place) if self.0[place].host == home.host => {}
            Ok(place) => self.0[place] = home,
            Err(place) => self.0.insert(place, home),
        }
    }

    /// Makes a host nobody's home.
    pub(super) fn leave(&mut self, host: HostId) {
        self.0.retain(|home| home.host != host);
    }

    fn place(&self, slot: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&slot, |home| home.slot)
    }

    /// Whether some slot is not at home any more where it was.
    fn lack_any_of(&self, before: &Self) -> bool {
        before.0.iter().any(|home| self.of(home.slot).is_none_or(|now| now.host != home.host))
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
