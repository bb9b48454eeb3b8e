//! Spreading: where a workload's instances already are, counted by site, by rack and by host. The fewer in a host's site, the better; among equals the
//! fewer in its rack, and then on the host itself, as far as the spec asks for each. Only where these are equal do scores count.
//!
//! Counted is what is to run and may (`fits::is_in_the_way`): an instance on its way out has a successor, and it is the successor that is
//! spread. Spreading never keeps an instance from a host: where the emptiest rack has no room, the next one is taken.

use std::collections::BTreeMap;

use supercloud_proto::{
    id::InstanceId,
    name::{RackName, SiteName, WorkloadKey},
    spec::SpreadOver,
};

use super::ledger::{Ledger, Slot};
use crate::state::{Host, fits::is_in_the_way};

/// A site, or a rack of one. Hosts without a rack are together in one that has no name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Domain {
    Site(SiteName),
    Rack(SiteName, Option<RackName>),
}

impl Domain {
    /// What of this kind the host is in. A host is no domain: it is looked at by itself.
    pub(super) fn of(host: &Host, over: SpreadOver) -> Option<Self> {
        let (site, rack) = (&host.inventory.site, &host.inventory.rack);
        match over {
            SpreadOver::Site => Some(Self::Site(site.clone())),
            SpreadOver::Rack => Some(Self::Rack(site.clone(), rack.clone())),
            SpreadOver::Host => None,
        }
    }
}

/// Numbers of the domains that a host is in, the most important first: at most two.
pub(super) type Domains = Vec<usize>;

/// Where a workload's instances are.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    /// One for each instance.
    slots: Vec<Slot>,
    on: BTreeMap<Slot, u32>,
}

impl Siblings {
    /// Of a workload, but for one of them.
    pub(super) fn of(ledger: &Ledger, key: &WorkloadKey, except: Option<InstanceId>) -> Self {
        let mut siblings = Self::default();
        let others = ledger.state().instances_of(key).filter(|instance| Some(instance.id) != except);
        for instance in others.filter(|instance| is_in_the_way(instance, key)) {
            if let Some(slot) = instance.host().and_then(|host| ledger.slot(host)) {
                siblings.add(slot);
            }
        }
        siblings
    }

    pub(super) fn add(&mut self, slot: Slot) {
        self.slots.push(slot);
        *self.on.entry(slot).or_default() += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many are in a slot.
    pub(super) fn on(&self, slot: Slot) -> u32 {
        self.on.get(&slot).copied().unwrap_or(0)
    }

    /// How many are in the same site, rack and host as a slot: whatever is spread over, the most important first.
    pub(super) fn near(&self, ledger: &Ledger, over: &[SpreadOver], slot: Slot) -> Vec<u32> {
        let host = ledger.candidate(slot).host;
        let count = |over: &SpreadOver| match Domain::of(host, *over) {
            None => self.on(slot),
            own => {
                let same = |other: &&Slot| Domain::of(ledger.candidate(**other).host, *over) == own;
                self.slots.iter().filter(same).count() as u32
            }
        };
        over.iter().map(count).collect()
    }
}

/// How many of a workload's instances are in each domain.
#[derive(Debug, Default)]
pub(super) struct Counts {
    of_domain: Vec<u32>,
    /// Siblings that are counted.
    seen: usize,
}

impl Counts {
    /// Counts those that came since.
    pub(super) fn take_in<'d>(&mut self, siblings: &Siblings, domains: impl Fn(Slot) -> &'d Domains) {
        for domain in siblings.slots[self.seen..].iter().flat_map(|slot| domains(*slot)) {
            if *domain >= self.of_domain.len() {
                self.of_domain.resize(domain + 1, 0);
            }
            self.of_domain[*domain] += 1;
        }
        self.seen = siblings.slots.len();
    }

    /// How crowded these domains are, comparable: the more important one counts in the upper half.
    pub(super) fn of(&self, domains: &Domains) -> u64 {
        let count = |domain: &usize| self.of_domain.get(*domain).copied().unwrap_or(0);
        domains.iter().fold(0, |crowd, domain| crowd << u32::BITS | u64::from(count(domain)))
    }
}
