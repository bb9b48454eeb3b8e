//! Spreading and keeping apart: where a workload's instances already are, counted by site, by rack, by the values of labels and by host. The fewer
//! where a host is, the better, first by what the spec names first, and among equals by what it names next. Only where these are equal do scores count.
//!
//! Decisions. *Counts are of the whole workload*: how many have the same value of a label anywhere, not only in the site that was chosen before. *Shares
//! are kept by Sainte-Laguë's method*: next is whose share s and count c have the least (2c + 1) / s, so that at any count each has its share as nearly as
//! whole instances can (with 70 and 30, ten instances are 7 and 3, and a single one goes to 70). *What is not named in shares comes after all that
//! is*, and there the fewest first.
//!
//! Counted is what is to stay (`Instance::is_to_stay`): an instance on its way out has a successor, and it is the successor that is
//! spread. Spreading never keeps an instance from a host: where the emptiest rack has no room, the next one is taken.

use std::collections::{BTreeMap, HashSet};

use supercloud_proto::{
    host::Inventory,
    id::InstanceId,
    name::{BoroughName, RackName, SiteName, WorkloadKey},
    spec::{MAX_SHARE, MAX_SPREAD, Place, Spread, SpreadOver},
};

use super::{
    by_number::ByNumber,
    ledger::{Ledger, Slot},
};

/// Number of a site, of a rack of one, or of a label's value. [`NOWHERE`] is none, and nobody is ever counted there.
pub(super) type Domain = u32;
const NOWHERE: Domain = 0;

/// The site and the rack that a host is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Whereabouts {
    site: Domain,
    rack: Domain,
}

/// The share that a domain is to have: [`ALIKE`], 1 to [`MAX_SHARE`], or [`UNNAMED`].
pub(super) type Share = u8;
/// No shares are given.
const ALIKE: Share = 0;
/// Others have shares.
const UNNAMED: Share = Share::MAX;
const _: () = assert!(MAX_SHARE < UNNAMED as u32);

/// Fractions with shares below the line differ by at least one in so many, if they do: rounded down to so many parts of a whole, they still do.
const FINE: u64 = MAX_SHARE as u64 * MAX_SHARE as u64;
/// As crowded as what is named in shares never is.
const UNNAMED_CROWD: u32 = 1 << 31;

/// How crowded a domain is, comparable with others of its kind: the less, the better.
fn crowd(count: u32, share: Share) -> u32 {
    match share {
        ALIKE => count,
        UNNAMED => UNNAMED_CROWD | count,
        share => {
            let fraction = (2 * u64::from(count) + 1) * FINE / u64::from(share);
            fraction.min(u64::from(UNNAMED_CROWD - 1)) as u32
        }
    }
}

/// What a group of hosts has in common for whoever is spread: where they are, as far as it is spread over that, and the shares that are to be there. The
/// narrowest stands last, and what there is none of first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Neighbourhood {
    domains: [Domain; MAX_SPREAD],
    shares: [Share; MAX_SPREAD],
}

/// Place of the narrowest.
const NARROWEST: usize = MAX_SPREAD - 1;

impl Neighbourhood {
    /// Of a slot's host. None of what it is spread over are hosts.
    pub(super) fn of(ledger: &Ledger, slot: Slot, spread: &[Spread]) -> Self {
        let mut at = Self::default();
        let wider = MAX_SPREAD.saturating_sub(spread.len());
        let whereabouts = ledger.whereabouts(slot);
        for (place, spread) in (wider..MAX_SPREAD).zip(spread) {
            (at.domains[place], at.shares[place]) = match &spread.over {
                SpreadOver::Site if spread.shares.is_empty() => (whereabouts.site, ALIKE),
                SpreadOver::Rack if spread.shares.is_empty() => (whereabouts.rack, ALIKE),
                _ => ledger.domain(slot, spread),
            };
        }
        at
    }

    /// Number of the narrowest thing that it is in: mostly that is in no other group.
    pub(super) fn narrowest(&self) -> Domain {
        self.domains[NARROWEST]
    }

    /// The same without the narrowest.
    pub(super) fn wider(mut self) -> Self {
        (self.domains[NARROWEST], self.shares[NARROWEST]) = (NOWHERE, ALIKE);
        self
    }
}

/// The numbers of sites, racks and values of labels. Hosts without a rack are together in one of their site's that has no name.
#[derive(Debug, Default)]
pub(super) struct Domains {
    /// Numbers given.
    count: Domain,
    places: BTreeMap<(SiteName, Option<Option<RackName>>), Domain>,
    /// Labels that somebody is spread over.
    labels: BTreeMap<String, Labelled>,
}

/// The hosts by the value of a label.
#[derive(Debug)]
struct Labelled {
    values: BTreeMap<String, Domain>,
    /// Slots whose hosts have it.
    with: ByNumber<Slot, Domain>,
    /// All others.
    without: Domain,
}

/// Most labels that are kept count of: each takes about 16 bytes for every host that has it.
const MAX_LABELS: usize = 1_024;
/// Values of a label that are always put up with.
const MIN_VALUES: usize = 64;

fn next(count: &mut Domain) -> Domain {
    *count += 1;
    NOWHERE + *count
}

impl Domains {
    pub(super) fn of(&mut self, inventory: &Inventory) -> Whereabouts {
        let Self { count, places, .. } = self;
        let mut number = |rack| *places.entry((inventory.site.clone(), rack)).or_insert_with(|| next(count));
        Whereabouts { site: number(None), rack: number(Some(inventory.rack.clone())) }
    }

    /// Whether hosts are told apart by a label.
    pub(super) fn knows(&self, label: &str) -> bool {
        self.labels.contains_key(label)
    }

    /// Tells hosts apart by one more label from now on.
    pub(super) fn learn<'i>(&mut self, label: &str, hosts: impl Iterator<Item = (Slot, &'i Inventory)>) {
        let without = next(&mut self.count);
        let mut labelled = Labelled { values: BTreeMap::new(), with: ByNumber::default(), without };
        hosts.for_each(|(slot, inventory)| labelled.note(label, slot, inventory, &mut self.count));
        self.labels.insert(label.to_owned(), labelled);
    }

    /// Takes in the labels of a slot's host.
    pub(super) fn note(&mut self, slot: Slot, inventory: &Inventory) {
        for (label, labelled) in &mut self.labels {
            labelled.note(label, slot, inventory, &mut self.count);
        }
    }

    fn of_label(&self, label: &str, slot: Slot) -> Domain {
        let of = |labelled: &Labelled| labelled.with.get(&slot).copied().unwrap_or(labelled.without);
        self.labels.get(label).map_or(NOWHERE, of)
    }

    /// Whether more is kept than so many hosts could have.
    pub(super) fn is_overgrown(&self, hosts: usize) -> bool {
        let most = MIN_VALUES + 2 * hosts;
        self.labels.len() > MAX_LABELS || self.labels.values().any(|labelled| labelled.values.len() > most)
    }

    /// Where a slot's host is of what somebody is spread over, and which share is to be there.
    pub(super) fn find(
        &self,
        slot: Slot,
        inventory: &Inventory,
        place: Whereabouts,
        spread: &Spread,
    ) -> (Domain, Share) {
        let domain = match &spread.over {
            SpreadOver::Site => place.site,
            SpreadOver::Rack => place.rack,
            SpreadOver::Label(label) => self.of_label(label, slot),
            SpreadOver::Host => NOWHERE,
        };
        (domain, share(inventory, spread))
    }
}

/// The share of what a host has in common with others.
fn share(inventory: &Inventory, spread: &Spread) -> Share {
    if spread.shares.is_empty() {
        return ALIKE;
    }
    let value = match &spread.over {
        SpreadOver::Site => Some(inventory.site.as_str()),
        SpreadOver::Rack => inventory.rack.as_ref().map(RackName::as_str),
        SpreadOver::Label(label) => inventory.labels.get(label).map(String::as_str),
        SpreadOver::Host => None,
    };
    let named = value.and_then(|value| spread.shares.get(value));
    named.map_or(UNNAMED, |share| (*share).clamp(1, MAX_SHARE) as Share)
}

impl Labelled {
    fn note(&mut self, label: &str, slot: Slot, inventory: &Inventory, count: &mut Domain) {
        match inventory.labels.get(label) {
            None => drop(self.with.remove(&slot)),
            Some(value) => {
                let domain = match self.values.get(value) {
                    Some(domain) => *domain,
                    None => *self.values.entry(value.clone()).or_insert_with(|| next(count)),
                };
                self.with.insert(slot, domain);
            }
        }
    }
}

/// Where a workload's instances are.
#[derive(Debug, Default, Clone)]
pub(super) struct Siblings {
    on: ByNumber<Slot, u32>,
    /// Of those in which there are any: a label may have as many values as there are hosts.
    in_domain: ByNumber<Domain, u32>,
    /// Labels by whose values they are counted.
    labels: Vec<String>,
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
        let Self { in_domain, labels, .. } = self;
        count_in(in_domain, site, 1);
        count_in(in_domain, rack, 1);
        labels.iter().for_each(|label| count_in(in_domain, ledger.domains().of_label(label, slot), 1));
    }

    /// Counts them by the labels, too, that are spread over.
    pub(super) fn watch(&mut self, ledger: &Ledger, spread: &[Spread]) {
        for label in labels(spread) {
            if !self.labels.contains(label) {
                let Self { on, in_domain, .. } = self;
                let domain = |slot| ledger.domains().of_label(label, slot);
                on.iter().for_each(|(slot, count)| count_in(in_domain, domain(*slot), *count));
                self.labels.push(label.clone());
            }
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
        // Most is spread over fewer things than it could be.
        if domain == NOWHERE { 0 } else { self.in_domain.get(&domain).copied().unwrap_or(0) }
    }

    fn crowd(&self, at: &Neighbourhood, place: usize) -> u32 {
        crowd(self.within(at.domains[place]), at.shares[place])
    }

    /// How crowded it is around a neighbourhood, without the narrowest: comparable, with the widest in the upper half.
    pub(super) fn crowd_around(&self, at: &Neighbourhood) -> u64 {
        const { assert!(NARROWEST == 2, "two of them fit into the number") };
        u64::from(self.crowd(at, 0)) << u32::BITS | u64::from(self.crowd(at, 1))
    }

    /// How crowded the narrowest of a neighbourhood is.
    pub(super) fn crowd_within(&self, at: &Neighbourhood) -> u32 {
        self.crowd(at, NARROWEST)
    }

    /// What is near a slot of each thing that is spread over.
    pub(super) fn near(&self, ledger: &Ledger, spread: &[Spread], slot: Slot) -> Vec<Near> {
        let near = |spread: &Spread| {
            let (domain, share) = ledger.domain(slot, spread);
            let instances = if spread.over == SpreadOver::Host { self.on(slot) } else { self.within(domain) };
            Near { instances, share }
        };
        spread.iter().map(near).collect()
    }
}

fn count_in(in_domain: &mut ByNumber<Domain, u32>, domain: Domain, more: u32) {
    *in_domain.entry(domain).or_default() += more;
}

/// The labels that are spread over.
pub(super) fn labels(spread: &[Spread]) -> impl Iterator<Item = &String> {
    spread.iter().filter_map(|spread| match &spread.over {
        SpreadOver::Label(label) => Some(label),
        SpreadOver::Site | SpreadOver::Rack | SpreadOver::Host => None,
    })
}

/// Other instances of a workload where a host is, of one thing that it is spread over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Near {
    pub(super) instances: u32,
    share: Share,
}

impl Near {
    /// How crowded it is, comparable with other hosts.
    pub(super) fn crowd(self) -> u32 {
        crowd(self.instances, self.share)
    }

    /// The share that is to be there, 0 where only others are named; `None`: there are no shares.
    pub(super) fn share(self) -> Option<u32> {
        match self.share {
            ALIKE => None,
            UNNAMED => Some(0),
            share => Some(share.into()),
        }
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
        } else if place.spread.iter().any(|spread| spread.over == SpreadOver::Host) {
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
