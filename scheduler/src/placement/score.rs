//! How good a fitting host is, as the sum of the rules in [`RULES`]; higher is better, ties break by the host's id. It never decides whether
//! a host fits.
//!
//! Before all of them comes where the workload's other instances are, as far as it is spread (`spread`): only hosts that are equal in that are told apart by scores.
//!
//! To add a rule: a function, its line in the list, a case. A rule looks at one host as it would be with the instance on it; its parts must be
//! comparable, so every rule is in parts of a million.
//!
//! Decision: *best fit by the dominant leftover*. A host is the better the smaller the larger of its two leftovers, of processor and of
//! memory, is as a share of what it has. Filling hosts up keeps others empty for what is large; looking at the larger leftover keeps the two
//! in step, where a sum would let one run out while the other lies idle. Disk does not count: it is seldom what runs out, and a host that is
//! full of data is not thereby well used.
//!
//! A site's policy may turn this round for its hosts, which are then *spread* over: a host is the better the larger the smaller of its two leftovers is. So the
//! host is taken on which neither is scarce, and one whose memory is used up is not taken for empty since its processors are idle.
//!
//! *Wishes add up with the fit*: a weight of 100 is worth as much as the difference between an empty host and a full one, so a small wish does not
//! open an empty host, and a large one does. *A site's cost is a wish against it* that everybody has: each of its up to 1,000 units counts a tenth of a point
//! of weight, so a site of cost 1,000 stays empty while any other has room, and one of cost 100 is opened when that lets a host elsewhere
//! stay a tenth emptier.

use supercloud_proto::amount::Amounts;

use super::outlook::{Outlook, PARTS, Prospect};
use crate::state::{
    Packing, SitePolicy, State,
    fits::{Candidate, Request},
};

/// The whole of an amount. Parts of a million: ten thousandths of a core still count on a host with thousands of cores.
pub(super) const WHOLE: u64 = 1_000_000;

/// What a whole device is worth: ten times the difference between an empty host and a full one.
const DEVICE: i64 = 10 * WHOLE as i64;

/// What a point of a wish's weight is worth.
const POINT: i64 = WHOLE as i64 / 100;

/// What a unit of a site's cost is worth: a tenth of a point.
const UNIT: i64 = POINT / 10;

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// Its name, part of the API.
    pub(super) name: &'static str,
    /// What it gives a host that fits.
    pub(super) score: fn(&Candidate<'_>, &Request<'_>, Prospect<'_>) -> i64,
    /// Whether the spec or the estate has anything to do with it; where not, it gives nothing and is not told.
    pub(super) applies: fn(&State, &Request<'_>, &Outlook) -> bool,
}

/// The rules.
pub(super) const RULES: [Rule; 5] = [
    Rule { name: "best-fit", score: best_fit, applies: |_, _, _| true },
    Rule { name: "emptiest", score: emptiest, applies: |state, _, _| some_site(state, spreads) },
    Rule { name: "devices", score: devices, applies: |_, _, outlook| !outlook.is_empty() },
    Rule { name: "prefer", score: prefer, applies: |_, request, _| !request.spec.place.prefer.is_empty() },
    Rule {
        name: "site-cost",
        score: site_cost,
        applies: |state, _, _| some_site(state, |site| site.cost > 0),
    },
];

/// The score of a host that fits.
pub(super) fn score(candidate: &Candidate<'_>, request: &Request<'_>, prospect: Prospect<'_>) -> i64 {
    RULES.iter().map(|rule| (rule.score)(candidate, request, prospect)).fold(0, i64::saturating_add)
}

/// The same for what wishes nothing, where so much of the mix is lost with it: the sum of the rules that go by the amounts and by the site's policy, and what the
/// loss counts.
#[inline]
pub(super) fn score_by_amounts(policy: &SitePolicy, whole: [u64; 2], left: Amounts, loss: i64) -> i64 {
    let left = left_shares(whole, left);
    fullness(policy, left) + emptiness(policy, left) - dearness(policy) - harm(loss)
}

/// Where hosts are packed: 0 for one that stays empty, [`WHOLE`] for one that is full to the brim.
fn best_fit(candidate: &Candidate<'_>, request: &Request<'_>, _: Prospect<'_>) -> i64 {
    fullness(&candidate.used.policy, left_of(candidate, request))
}

#[inline]
fn fullness(policy: &SitePolicy, [cpu, memory]: [u64; 2]) -> i64 {
    if spreads(policy) { 0 } else { i64::try_from(WHOLE - cpu.max(memory)).unwrap_or(0) }
}

/// Where hosts are spread over: [`WHOLE`] for one that stays empty, 0 for one whose processors or memory are used up.
fn emptiest(candidate: &Candidate<'_>, request: &Request<'_>, _: Prospect<'_>) -> i64 {
    let policy = &candidate.used.policy;
    if spreads(policy) { emptiness(policy, left_of(candidate, request)) } else { 0 }
}

#[inline]
fn emptiness(policy: &SitePolicy, [cpu, memory]: [u64; 2]) -> i64 {
    if spreads(policy) { i64::try_from(cpu.min(memory)).unwrap_or(0) } else { 0 }
}

/// Whether the hosts of a site are spread over.
fn spreads(site: &SitePolicy) -> bool {
    site.packing == Packing::Spread
}

/// Whether something holds of the policy of some site of the estate.
fn some_site(state: &State, holds: impl Fn(&SitePolicy) -> bool) -> bool {
    state.sites().values().any(holds)
}

/// What of the host's devices typical requests could no longer be given, as a loss: a whole device is [`DEVICE`].
fn devices(candidate: &Candidate<'_>, request: &Request<'_>, prospect: Prospect<'_>) -> i64 {
    prospect.loss(candidate, request).map_or(0, |loss| -harm(loss))
}

#[inline]
fn harm(loss: i64) -> i64 {
    loss * (DEVICE / (1_000 * PARTS))
}

/// The weights of the wishes that the host grants, a hundredth of [`WHOLE`] each point: one of weight 100 outweighs any fit.
fn prefer(candidate: &Candidate<'_>, request: &Request<'_>, _: Prospect<'_>) -> i64 {
    let wishes = request.spec.place.prefer.iter();
    let granted = wishes.filter(|wish| wish.when.holds(candidate.attribute(&wish.when.attribute)));
    granted.map(|wish| i64::from(wish.weight) * POINT).sum()
}

/// What the site costs, as a loss: [`UNIT`] for each unit of its cost.
fn site_cost(candidate: &Candidate<'_>, _: &Request<'_>, _: Prospect<'_>) -> i64 {
    -dearness(&candidate.used.policy)
}

#[inline]
fn dearness(policy: &SitePolicy) -> i64 {
    i64::from(policy.cost) * UNIT
}

/// What is left of processor and of memory with the instance there, as shares of what the host has.
#[inline]
fn left_of(candidate: &Candidate<'_>, request: &Request<'_>) -> [u64; 2] {
    let whole: Amounts = candidate.allocatable;
    left_shares([whole.cpu.0, whole.memory.0], candidate.free().saturating_sub(candidate.takes(request)))
}

/// The same of a host with so much in all.
#[inline]
fn left_shares([cpu, memory]: [u64; 2], left: Amounts) -> [u64; 2] {
    [share(left.cpu.0, cpu), share(left.memory.0, memory)]
}

/// `part` of `whole` in parts of a million, rounded down; of nothing, none.
fn share(part: u64, whole: u64) -> u64 {
    let exact = match part.checked_mul(WHOLE) {
        // Up to 16 TiB the product fits, and a division of half the width costs a fraction: this is done for every host that is looked at.
        Some(product) => product.checked_div(whole).unwrap_or(0),
        None => {
            let product = u128::from(part) * u128::from(WHOLE);
            u64::try_from(product.checked_div(u128::from(whole)).unwrap_or(0)).unwrap_or(WHOLE)
        }
    };
    exact.min(WHOLE)
}
