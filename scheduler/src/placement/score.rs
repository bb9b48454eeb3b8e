//! How good a fitting host is, as the sum of the rules in [`RULES`]; higher is better, ties break by the host's id. It never decides whether
//! a host fits.
//!
//! To add a rule: a function, its line in the list, a case. A rule looks at one host as it would be with the instance on it; its parts must be
//! comparable, so every rule is in parts of a million.
//!
//! Decision: *best fit by the dominant leftover*. A host is the better the smaller the larger of its two leftovers, of processor and of
//! memory, is as a share of what it has. Filling hosts up keeps others empty for what is large; looking at the larger leftover keeps the two
//! in step, where a sum would let one run out while the other lies idle. Disk does not count: it is seldom what runs out, and a host that is
//! full of data is not thereby well used.

use supercloud_proto::amount::Amounts;

use crate::state::fits::{Candidate, Request};

/// The whole of an amount. Parts of a million: ten thousandths of a core still count on a host with thousands of cores.
pub const WHOLE: u64 = 1_000_000;

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, part of the API.
    pub name: &'static str,
    /// What it gives a host that fits.
    pub score: fn(&Candidate<'_>, &Request<'_>) -> i64,
}

/// The rules.
pub const RULES: [Rule; 1] = [Rule { name: "best-fit", score: best_fit }];

/// The score of a host that fits.
pub fn score(candidate: &Candidate<'_>, request: &Request<'_>) -> i64 {
    RULES.iter().map(|rule| (rule.score)(candidate, request)).fold(0, i64::saturating_add)
}

/// 0 for a host that stays empty, [`WHOLE`] for one that is full to the brim.
fn best_fit(candidate: &Candidate<'_>, request: &Request<'_>) -> i64 {
    let whole = candidate.allocatable;
    let left = candidate.free().saturating_sub(request.demand);
    i64::try_from(WHOLE - dominant_share(left, whole)).unwrap_or(0)
}

/// The larger of two shares, of processor and of memory.
fn dominant_share(part: Amounts, whole: Amounts) -> u64 {
    share(part.cpu.0, whole.cpu.0).max(share(part.memory.0, whole.memory.0))
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
