//! The cheapest choice of those who make way with a host given: on it, and elsewhere of its own borough where the quota asks for it.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use supercloud_proto::{amount::Amounts, name::WorkloadKey};

use super::{
    Cost, Harm, note_spare,
    own::{charged, part, parts},
};
use crate::{
    placement::{fair::Boroughs, ledger::Ledger},
    state::{
        HostUse, Instance,
        fits::{Candidate, Request},
        host_use::hold,
        model::cpus_needed,
        preempt::{MOST_VICTIMS, are_spare, may_yield, will_fit, yielded},
    },
};

/// Of so many all choices are tried.
pub(super) const FEW: usize = 10;
/// Of so many all pairs are tried.
const MANY: usize = 200;

/// A host on which room is sought.
pub(super) struct OneHost<'h> {
    pub(super) candidate: Candidate<'h>,
    pub(super) request: &'h Request<'h>,
    /// What will be given away of it, with nobody else gone.
    pub(super) later: HostUse,
    pub(super) ledger: &'h Ledger,
    /// How many more instances of workloads may be missing, of those that were asked about.
    pub(super) spare: &'h mut HashMap<WorkloadKey, u32>,
    pub(super) boroughs: &'h Boroughs,
    /// Those who are in every choice.
    pub(super) must: Vec<&'h Arc<Instance>>,
    /// What has to go of its borough's work for the quota's sake, there or elsewhere.
    pub(super) overdraft: Amounts,
}

impl OneHost<'_> {
    /// A choice with those who are in every one.
    pub(super) fn all<'c>(&'c self, chosen: &'c [&Arc<Instance>]) -> impl Iterator<Item = &'c Arc<Instance>> {
        self.must.iter().chain(chosen).map(|victim| &**victim)
    }

    /// The cheapest choice among those who may go: among all up to those that hold their room no more firmly than it takes for there to be enough.
    pub(super) fn cheapest<'v>(&mut self, pool: &[&'v Arc<Instance>]) -> Option<Vec<&'v Arc<Instance>>> {
        if !self.is_enough(pool) {
            return None;
        }
        let hold_of = |place: usize| pool.get(place).map(|victim| hold(victim.spec()));
        // With somebody who must go, what holds its room no more firmly costs no more.
        let highest = self.must.iter().map(|victim| hold(victim.spec())).max();
        let no_higher = pool.partition_point(|victim| Some(hold(victim.spec())) <= highest);
        let first = if self.must.is_empty() { 1 } else { no_higher };
        let ends = (first..=pool.len()).filter(|end| *end == no_higher || hold_of(*end) != hold_of(end - 1));
        for end in ends {
            if !self.is_enough(&pool[..end]) {
                continue;
            }
            // Of most that are there it does not matter.
            let Self { ledger, spare, must, .. } = self;
            must.iter().chain(&pool[..end]).for_each(|victim| note_spare(ledger, victim, spare));
            if let Some(choice) = self.cheapest_among(&pool[..end]) {
                return Some(choice);
            }
        }
        None
    }

    fn cheapest_among<'v>(&self, pool: &[&'v Arc<Instance>]) -> Option<Vec<&'v Arc<Instance>>> {
        let none = (!self.must.is_empty()).then(Vec::new);
        let one = self.cheapest_of(none.into_iter().chain(pool.iter().map(|victim| vec![*victim])));
        let harm = one.as_ref().map(|one| self.cost(one).harm);
        if harm == Some(Harm::default()) {
            return one;
        }
        // More than one cost less only where each of them does.
        let is_less = |victim: &&&Arc<Instance>| harm.is_none_or(|harm| self.cost(&[victim]).harm < harm);
        let less: Vec<_> = pool.iter().copied().filter(|victim| is_less(&victim)).collect();
        if less.len() <= FEW {
            let several = (1_u32..1 << less.len()).filter(|choice| choice.count_ones() > 1);
            let choices = several.map(|choice| {
                let is_in = |(place, _): &(usize, &&'v Arc<Instance>)| choice >> place & 1 == 1;
                less.iter().enumerate().filter(is_in).map(|(_, victim)| *victim).collect()
            });
            return self.cheapest_of(one.into_iter().chain(choices));
        }
        let pairs = less[..less.len().min(MANY)].iter().enumerate();
        let pairs = pairs.flat_map(|(place, one)| less[..place].iter().map(|other| vec![*other, *one]));
        self.cheapest_of(one.into_iter().chain(pairs).chain([self.as_many_as_needed(&less)]))
    }

    fn cheapest_of<'v>(
        &self,
        choices: impl Iterator<Item = Vec<&'v Arc<Instance>>>,
    ) -> Option<Vec<&'v Arc<Instance>>> {
        let mut best: Option<(Cost, Vec<_>)> = None;
        for choice in choices {
            let cost = self.cost(&choice);
            let is_cheaper = best.as_ref().is_none_or(|(least, _)| cost < *least)
                && self.must.len() + choice.len() <= MOST_VICTIMS;
            if is_cheaper && self.is_enough(&choice) && self.are_spare(&choice) {
                best = Some((cost, choice));
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// Those with the most of what is needed on the host first, and within what workloads may miss before others, until there is room; then likewise those with
    /// the most of what is needed of the quota; without those that are not needed then.
    fn as_many_as_needed<'v>(&self, pool: &[&'v Arc<Instance>]) -> Vec<&'v Arc<Instance>> {
        let missing = self.candidate.takes_at_least(self.request).saturating_sub(self.free());
        let there = Candidate { used: &self.later, ..self.candidate };
        let missing_network = self.request.spec.resources.network.saturating_sub(there.free_network());
        // Whoever has cores helps those who need some, though enough may be free on the whole and too few of one node.
        let missing_cores = cpus_needed(self.request.spec);
        let of_host = |victim: &&Arc<Instance>| {
            let network = part(victim.spec().resources.network.0, missing_network.0);
            let cores = part(victim.cores().map_or(0, |cores| cores.cpus.len() as u64), missing_cores);
            parts(self.later.taken_by(victim), missing) + network + cores
        };
        let of_quota = |victim: &&Arc<Instance>| parts(charged(victim), self.overdraft);
        let mut chosen = Vec::new();
        let on_host = pool.iter().copied().filter(|victim| self.is_there(victim)).collect();
        self.add_until(&mut chosen, on_host, of_host, |chosen| self.has_room(chosen));
        if !self.is_borne(&chosen) {
            let is_left = |victim: &&Arc<Instance>| {
                may_yield(victim, self.request) && !chosen.iter().any(|other| other.id == victim.id)
            };
            let left = pool.iter().copied().filter(is_left).collect();
            self.add_until(&mut chosen, left, of_quota, |chosen| self.is_borne(chosen));
        }
        while let Some(fewer) = self.one_fewer(&chosen) {
            chosen = fewer;
        }
        chosen
    }

    /// A choice without the last one that is not needed. With fewer gone another one may be needless that was not: cores come from other nodes then.
    fn one_fewer<'v>(&self, chosen: &[&'v Arc<Instance>]) -> Option<Vec<&'v Arc<Instance>>> {
        let without = |place: usize| {
            let mut fewer = chosen.to_vec();
            fewer.remove(place);
            fewer
        };
        (0..chosen.len()).rev().map(without).find(|fewer| self.is_enough(fewer))
    }

    /// Adds to a choice those that help most, until it is enough.
    fn add_until<'v>(
        &self,
        chosen: &mut Vec<&'v Arc<Instance>>,
        mut left: Vec<&'v Arc<Instance>>,
        help: impl Fn(&&Arc<Instance>) -> u128,
        is_enough: impl Fn(&[&Arc<Instance>]) -> bool,
    ) {
        left.sort_by_key(|victim| Reverse(help(victim)));
        while !is_enough(chosen) && !left.is_empty() && self.must.len() + chosen.len() < MOST_VICTIMS {
            let with =
                |victim: &&'v Arc<Instance>| -> Vec<_> { chosen.iter().copied().chain([*victim]).collect() };
            left.retain(|victim| self.are_spare(&with(victim)));
            let harm = self.cost(chosen).harm;
            let within = left.iter().position(|victim| self.cost(&with(victim)).harm == harm);
            if !left.is_empty() {
                let next = left.remove(within.unwrap_or(0));
                chosen.push(next);
            }
        }
    }

    /// Whether their boroughs keep what they are guaranteed without these.
    fn are_spare(&self, chosen: &[&Arc<Instance>]) -> bool {
        are_spare(self.all(chosen).map(|victim| &**victim), self.request, self.boroughs)
    }

    fn free(&self) -> Amounts {
        self.candidate.allocatable.saturating_sub(self.later.taken)
    }

    fn is_there(&self, victim: &Instance) -> bool {
        victim.host() == Some(self.candidate.host.id)
    }

    /// Whether there is room once these are gone, and the quota bears it.
    fn is_enough(&self, chosen: &[&Arc<Instance>]) -> bool {
        self.is_borne(chosen) && self.has_room(chosen)
    }

    /// Whether the borough's quota bears it once these are gone.
    fn is_borne(&self, chosen: &[&Arc<Instance>]) -> bool {
        self.overdraft == Amounts::default()
            || self.overdraft.within(yielded(self.all(chosen).map(|victim| &**victim), self.request))
    }

    /// Whether there is room on the host once these are gone.
    fn has_room(&self, chosen: &[&Arc<Instance>]) -> bool {
        let there = || self.all(chosen).filter(|victim| self.is_there(victim));
        let left =
            there().map(|victim| self.later.taken_by(victim)).fold(self.later.taken, Amounts::saturating_sub);
        let needed = self.candidate.takes_at_least(self.request);
        if !needed.within(self.candidate.allocatable.saturating_sub(left)) {
            return false;
        }
        let mut later = self.later.clone();
        there().for_each(|victim| later.take_out(victim));
        will_fit(&self.candidate, self.request, &later)
    }

    pub(super) fn cost(&self, chosen: &[&Arc<Instance>]) -> Cost {
        let mut of_workload: Vec<(&WorkloadKey, u32)> = Vec::new();
        for victim in self.all(chosen) {
            match of_workload.iter_mut().find(|(key, _)| *key == victim.workload()) {
                Some((_, count)) => *count += 1,
                None => of_workload.push((victim.workload(), 1)),
            }
        }
        let spare = |key: &WorkloadKey| self.spare.get(key).copied().unwrap_or(0);
        let has_homes = self.candidate.state.has_homes();
        let mounting = self.all(chosen).filter(|victim| has_homes && victim.spec().has_volumes());
        Cost {
            highest: self.all(chosen).map(|victim| hold(victim.spec())).max(),
            harm: Harm {
                homes: mounting.count() as u32,
                beyond: of_workload.iter().map(|(key, count)| count.saturating_sub(spare(key))).sum(),
            },
            count: self.all(chosen).count() as u32,
            sum: self.all(chosen).map(|victim| u64::from(victim.spec().priority)).sum(),
        }
    }
}
