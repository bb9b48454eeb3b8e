//! What more urgent work of a borough may displace for its quota's sake: its own, wherever it is.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use supercloud_proto::{amount::Amounts, id::InstanceId, name::BoroughName};

use super::{Cost, is_company, spares::Spares};
use crate::{
    placement::ledger::Ledger,
    state::{
        Instance,
        fits::Request,
        host_use::{Hold, hold},
        preempt::{MOST_VICTIMS, may_yield},
    },
};

/// Whatever of a borough's work stands on hosts and is to stay: those first that hold their room the least firmly, of these the youngest. Looked up once a pass.
#[derive(Default)]
pub(super) struct Own {
    of: HashMap<BoroughName, Vec<Arc<Instance>>>,
}

impl Own {
    /// Those that may make way for a request of their borough.
    pub(super) fn below<'o>(&'o mut self, ledger: &Ledger, request: &Request<'_>) -> Vec<&'o Arc<Instance>> {
        let borough = &request.key.borough;
        if !self.of.contains_key(borough) {
            self.of.insert(borough.clone(), staying(ledger, borough));
        }
        let may = |victim: &&Arc<Instance>| {
            let is_company = || is_company(ledger, victim, request.spec.priority);
            may_yield(victim, request) && !ledger.is_doomed(victim.id) && !is_company()
        };
        self.of[borough].iter().filter(may).collect()
    }
}

fn staying(ledger: &Ledger, borough: &BoroughName) -> Vec<Arc<Instance>> {
    let instances = ledger.state().instances_of_borough(borough);
    let mut staying: Vec<_> =
        instances.filter(|one| one.placed.is_some() && one.is_to_stay()).cloned().collect();
    staying.sort_unstable_by_key(order);
    staying
}

/// Who makes way first.
pub(super) fn order(victim: &Arc<Instance>) -> (Hold, Reverse<InstanceId>) {
    (hold(victim.spec()), Reverse(victim.id))
}

/// What it costs at least that so much of these goes, which stand in their order; `None`: they are not enough.
pub(super) fn at_least(own: &[&Arc<Instance>], overdraft: Amounts) -> Option<Cost> {
    let mut sum = Amounts::default();
    let last = own.iter().find(|victim| {
        sum = sum.saturating_add(charged(victim));
        overdraft.within(sum)
    })?;
    Some(Cost::at_least(Some(hold(last.spec()))))
}

/// Of those that hold their room equally firmly only as many as ever make way for one: those first whose workloads may miss one, and of these those with the most of what is needed.
pub(super) fn shortlist<'o>(
    ledger: &Ledger,
    own: Vec<&'o Arc<Instance>>,
    overdraft: Amounts,
    spares: &mut Spares,
) -> Vec<&'o Arc<Instance>> {
    if own.len() <= MOST_VICTIMS {
        return own;
    }
    let mut merit = |victim: &&Arc<Instance>| {
        let number = spares.number(ledger, victim.workload());
        let may_miss = spares.left(number) > 0;
        (!may_miss, Reverse(parts(charged(victim), overdraft)), Reverse(victim.id))
    };
    let mut best = Vec::new();
    for alike in own.chunk_by(|one, other| hold(one.spec()) == hold(other.spec())) {
        let mut alike = alike.to_vec();
        alike.sort_by_cached_key(&mut merit);
        alike.truncate(MOST_VICTIMS);
        alike.sort_unstable_by_key(|victim| order(victim));
        best.append(&mut alike);
    }
    best
}

/// What an instance is charged.
pub(super) fn charged(victim: &Instance) -> Amounts {
    victim.takes().map_or_else(Amounts::default, |placed| placed.taken)
}

/// How much of what is missing somebody has, in millionths of each amount.
pub(super) fn parts(has: Amounts, missing: Amounts) -> u128 {
    part(has.cpu.0, missing.cpu.0) + part(has.memory.0, missing.memory.0) + part(has.disk.0, missing.disk.0)
}

/// The same of one amount.
pub(super) fn part(has: u64, missing: u64) -> u128 {
    u128::from(has.min(missing)) * 1_000_000 / u128::from(missing.max(1))
}
