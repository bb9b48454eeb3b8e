//! Spreading and keeping apart: where a workload's instances already are, counted by site, by rack and by host. The fewer in a host's site, the
//! better; among equals the fewer in its rack, and then on the host itself, as far as the spec asks for each. Only where these are equal do
//! scores count.
//!
//! Counted is what is to stay (`Instance::is_to_stay`): an instance on its way out has a successor, and it is the successor that is
//! spread. Spreading never keeps an instance from a host: where the emptiest rack has no room, the next one is taken.

use std::collections::{BTreeMap, HashSet};

use supercloud_proto::{
    host::Inventory,
    id::InstanceId,
    name::{BoroughName, RackName, SiteName, WorkloadKey},
    spec::{Place, SpreadOver},
};

use super::{
    by_number::ByNumber,
    ledger::{Ledger, Slot},
};

/// Number of a site, or of a rack of one. [`NOWHERE`] is none, and nobody is ever counted there.
type Domain = u32;
const NOWHERE: Domain = 0;

/// The site and the rack that a host is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Whereabouts {
    site: Domain,
    rack: Domain,
}

impl Whereabouts {
    /// The same as far as it is spread over; nowhere otherwise.
    pub(super) fn as_far_as(self, over: &[SpreadOver]) -> Self {
        let part = |kind, domain| if over.contains(&kind) { domain } else { NOWHERE };
        Self { site: part(SpreadOver::Site, self.site), rack: part(SpreadOver::Rack, self.rack) }
    }

    /// One number for the whole: racks are of one site, and have numbers that no site has.
    pub(super) fn number(self) -> usize {
        self.site.max(self.rack) as usize
    }

    pub(super) fn only_site(self) -> Self {
        Self { rack: NOWHERE, ..self }
    }

    pub(super) fn only_rack(self) -> Self {
        Self { site: NOWHERE, ..self }
    }
}

/// The numbers of sites and racks. Hosts without a rack are together in one of their site's that has no name.
#[derive(Debug, Default)]
pub(super) struct Domains {
    numbers: BTreeMap<(SiteName, Option<Option<RackName>>), Domain>,
}

impl Domains {
    pub(super) fn of(&mut self, inventory: &Inventory) -> Whereabouts {
        let mut number = |rack| {
            let next = NOWHERE + 1 + self.numbers.len() as Domain;
            *self.numbers.entry((inventory.site.clone(), rack)).or_insert(next)
        };
        Whereabouts { site: number(None), rack: number(Some(inventory.rack.clone())) }
    }
}

/// Where a workload's instances are.
#[derive(Debug, Default, Clone)]
pub(super) struct Siblings {
    on: ByNumber<Slot, u32>,
    in_domain: Vec<u32>,
}

impl Siblings {
    /// Of a workload, but for one of them.
    pub(super) fn of(ledger: &Ledger, key: &WorkloadKey, except: Option<InstanceId>) -> Self {
        let mut siblings = Self::default();
        let others = ledger.state().instances_of(key).filter(|instance| Some(instance.id) != except);
        for instance in others.filter(|instance| instance.is_to_stay()) {
            if let Some(slot) = instance.host().and_then(|host| ledger.slot(host)) {
                siblings.add(ledger, slot);
            }
        }
        siblings
    }

    pub(super) fn add(&mut self, ledger: &Ledger, slot: Slot) {
        *self.on.entry(slot).or_default() += 1;
        let Whereabouts { site, rack } = ledger.whereabouts(slot);
        for domain in [site as usize, rack as usize] {
            if domain >= self.in_domain.len() {
                self.in_domain.resize(domain + 1, 0);
            }
            self.in_domain[domain] += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.on.is_empty()
    }

    /// How many are in a slot.
    pub(super) fn on(&self, slot: Slot) -> u32 {
        // Asked for every host that is looked at, and mostly there is nobody to look for.
        if self.on.is_empty() { 0 } else { self.on.get(&slot).copied().unwrap_or(0) }
    }

    fn within(&self, domain: Domain) -> u32 {
        self.in_domain.get(domain as usize).copied().unwrap_or(0)
    }

    /// How crowded a place is, comparable: the site counts in the upper half.
    pub(super) fn crowd(&self, place: Whereabouts) -> u64 {
        u64::from(self.within(place.site)) << u32::BITS | u64::from(self.within(place.rack))
    }

    /// How many are in the same site, rack and host as a slot: whatever is spread over, the widest first.
    pub(super) fn near(&self, ledger: &Ledger, over: &[SpreadOver], slot: Slot) -> Vec<u32> {
        let Whereabouts { site, rack } = ledger.whereabouts(slot);
        let count = |over: &SpreadOver| match over {
            SpreadOver::Site => self.within(site),
            SpreadOver::Rack => self.within(rack),
            SpreadOver::Host => self.on(slot),
        };
        over.iter().map(count).collect()
    }
}

/// What a host means to a workload that has instances there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Apart {
    /// No more and no less than another.
    Indifferent,
    /// It comes after all that have fewer.
    Even,
    /// It is out.
    Never,
}

impl Apart {
    pub(super) fn asked_by(place: &Place) -> Self {
        if place.distinct_hosts {
            Self::Never
        } else if place.spread.contains(&SpreadOver::Host) {
            Self::Even
        } else {
            Self::Indifferent
        }
    }
}

/// How a workload looks at hosts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'s> {
    pub(super) siblings: &'s Siblings,
    pub(super) apart: Apart,
    /// Where somebody is whom it must be apart from.
    pub(super) unwanted: &'s HashSet<Slot>,
    /// Where room is kept, with the highest priority for which.
    pub(super) kept: &'s BTreeMap<Slot, u32>,
    pub(super) priority: u32,
    /// Where a borough keeps the host to itself, with which.
    pub(super) private: &'s BTreeMap<Slot, BoroughName>,
    pub(super) borough: &'s BoroughName,
}

/// How much a workload minds a host: the less, the better, before all scores. [`OUT`]: it must not go there.
pub(super) type Burden = u32;
/// Worth nothing at any burden.
pub(super) const OUT: Burden = Burden::MAX;

impl Look<'_> {
    /// How much it minds the instances in a slot.
    pub(super) fn burden(&self, slot: Slot) -> Burden {
        if !self.unwanted.is_empty() && self.unwanted.contains(&slot) {
            return OUT;
        }
        if !self.kept.is_empty() && self.kept.get(&slot).is_some_and(|kept| *kept >= self.priority) {
            return OUT;
        }
        if !self.private.is_empty() && self.private.get(&slot).is_some_and(|of| of != self.borough) {
            return OUT;
        }
        match self.apart {
            Apart::Indifferent => 0,
            Apart::Even => self.siblings.on(slot),
            Apart::Never if self.siblings.on(slot) > 0 => OUT,
            Apart::Never => 0,
        }
    }
}
