//! The cheapest choice of those who make way with a host given: on it, and elsewhere of its own borough where the quota asks for it.

use std::{cmp::Reverse, sync::Arc};

use supercloud_proto::{amount::Amounts, id::InstanceId};

use super::{
    Cost, Harm,
    own::{charged, part, parts},
    spares::Spares,
};
use crate::{
    placement::{fair::Boroughs, ledger::Ledger},
    state::{
        HostUse, Instance,
        fits::{Candidate, Request},
        host_use::{Hold, hold},
        model::cpus_needed,
        preempt::{MOST_VICTIMS, are_spare, may_yield, will_fit, yielded},
    },
};

/// Of so many all choices are tried.
pub(super) const FEW: usize = 10;
/// Of so many all pairs are tried.
const MANY: usize = 200;

/// Somebody who may make way, with what is known of him: of some hundreds there are thousands of pairs.
struct Member<'v> {
    victim: &'v Arc<Instance>,
    hold: Hold,
    /// Whether he mounts volumes, so that no other host would do.
    has_home: bool,
    /// The number of his workload, and how many more of it may be missing; what he leaves on the host. See [`OneHost::learn`].
    workload: usize,
    spare: u32,
    leaves: Amounts,
}

/// Those who may make way, in their order.
fn members<'v>(victims: Vec<&'v Arc<Instance>>) -> Vec<Member<'v>> {
    let member = |victim: &'v Arc<Instance>| {
        let (hold, has_home) = (hold(victim.spec()), victim.spec().has_volumes());
        Member { victim, hold, has_home, workload: 0, spare: 0, leaves: Amounts::default() }
    };
    victims.into_iter().map(member).collect()
}

/// A host on which room is sought.
pub(super) struct OneHost<'h> {
    candidate: Candidate<'h>,
    request: &'h Request<'h>,
    /// What will be given away of it, with nobody else gone.
    later: HostUse,
    /// How much more has to be free of it, beside what those leave who are in every choice.
    missing: Amounts,
    boroughs: &'h Boroughs,
    /// Those who are in every choice.
    must: Vec<Member<'h>>,
    /// What has to go of its borough's work for the quota's sake, there or elsewhere.
    overdraft: Amounts,
}

/// What is free of a host of which so much will be given away.
fn free(candidate: &Candidate<'_>, later: &HostUse) -> Amounts {
    candidate.allocatable.saturating_sub(later.taken)
}

/// Some of those who may go.
type Choice<'c, 'v> = [&'c Member<'v>];

/// The cheapest of the choices that were looked at.
type Best<'c, 'v> = Option<(Cost, Vec<&'c Member<'v>>)>;

impl<'h> OneHost<'h> {
    /// A host as it is looked at, of which so much will be given away, with those who are in every choice, and what has to go for the quota's sake.
    pub(super) fn new(
        candidate: Candidate<'h>,
        request: &'h Request<'h>,
        later: HostUse,
        boroughs: &'h Boroughs,
        must: Vec<&'h Arc<Instance>>,
        overdraft: Amounts,
    ) -> Self {
        let missing = candidate.takes_at_least(request).saturating_sub(free(&candidate, &later));
        Self { candidate, request, later, missing, boroughs, must: members(must), overdraft }
    }

    /// The cheapest choice among those who may go, with what it costs: among all up to those that hold their room no more firmly than it takes for there to be enough.
    pub(super) fn cheapest(
        mut self,
        pool: Vec<&Arc<Instance>>,
        ledger: &Ledger,
        spares: &mut Spares,
    ) -> Option<(Cost, Vec<InstanceId>)> {
        let mut pool = members(pool);
        if !self.is_enough(&pool.iter().collect::<Vec<_>>()) {
            return None;
        }
        // With somebody who must go, what holds its room no more firmly costs no more.
        let highest = self.must.iter().map(|member| member.hold).max();
        let no_higher = pool.partition_point(|member| Some(member.hold) <= highest);
        let first = if self.must.is_empty() { 1 } else { no_higher };
        let hold_of = |place: usize| pool.get(place).map(|member| member.hold);
        let is_end = |end: &usize| *end == no_higher || hold_of(*end) != hold_of(end - 1);
        let ends: Vec<usize> = (first..=pool.len()).filter(is_end).collect();
        self.learn_must(ledger, spares);
        let (mut learnt, mut was_enough) = (0, false);
        for end in ends {
            if !self.is_enough(&pool[..end].iter().collect::<Vec<_>>()) {
                continue;
            }
            // Of most that are there it does not matter.
            pool[learnt..end].iter_mut().for_each(|member| self.learn(member, ledger, spares));
            learnt = end;
            if let Some((cost, choice)) = self.cheapest_among(&pool[..end], was_enough) {
                return Some((cost, self.all(&choice).map(|member| member.victim.id).collect()));
            }
            was_enough = true;
        }
        None
    }

    /// Looks up what decides on what it costs that somebody goes, and what that leaves.
    fn learn(&self, member: &mut Member<'_>, ledger: &Ledger, spares: &mut Spares) {
        member.workload = spares.number(ledger, member.victim.workload());
        member.spare = spares.left(member.workload);
        if self.is_there(member) {
            member.leaves = self.later.taken_by(member.victim);
        }
    }

    /// The same of those who must go. What they leave is missing no more.
    fn learn_must(&mut self, ledger: &Ledger, spares: &mut Spares) {
        let mut must = std::mem::take(&mut self.must);
        must.iter_mut().for_each(|member| self.learn(member, ledger, spares));
        let leave = must.iter().fold(Amounts::default(), |sum, member| sum.saturating_add(member.leaves));
        self.missing = self.missing.saturating_sub(leave);
        self.must = must;
    }

    /// The cheapest choice among these. Whether those of them who hold their room less firmly were enough already, and nothing came of it, is given.
    fn cheapest_among<'c, 'v>(&self, pool: &'c [Member<'v>], was_enough: bool) -> Best<'c, 'v> {
        let mut best = None;
        if !self.must.is_empty() {
            self.consider(&mut best, &[]);
        }
        pool.iter().for_each(|member| self.consider(&mut best, &[member]));
        let harm = best.as_ref().map(|(cost, _)| cost.harm);
        if harm == Some(Harm::default()) {
            return best;
        }
        // More than one cost less only where each of them does.
        let is_less = |member: &&Member<'v>| harm.is_none_or(|harm| self.cost(&[member]).harm < harm);
        let less: Vec<_> = pool.iter().filter(is_less).collect();
        if less.len() <= FEW {
            for choice in (1_u32..1 << less.len()).filter(|choice| choice.count_ones() > 1) {
                let is_in = |(place, _): &(usize, &&Member<'v>)| choice >> place & 1 == 1;
                let choice: Vec<_> =
                    less.iter().enumerate().filter(is_in).map(|(_, member)| *member).collect();
                self.consider(&mut best, &choice);
            }
            return best;
        }
        let least = self.least_of_two(&less);
        for (place, one) in less[..less.len().min(MANY)].iter().enumerate() {
            for other in &less[..place] {
                self.consider(&mut best, &[*other, *one]);
                if !was_enough && best.as_ref().is_some_and(|(cost, _)| *cost <= least) {
                    return best;
                }
            }
        }
        self.consider(&mut best, &self.as_many_as_needed(&less));
        best
    }

    /// What two of these cost at least, of whom one is of those that hold their room the most firmly: without those there is not enough.
    fn least_of_two(&self, members: &Choice<'_, '_>) -> Cost {
        let (must, last) = (self.cost(&[]), members.last().map(|last| last.hold));
        let least = members.iter().map(|member| member.hold.1).min().unwrap_or_default();
        // With somebody who must go, neither may be of those.
        let other = last.filter(|_| self.must.is_empty()).map_or(least, |(_, priority)| priority);
        let sum = must.sum + u64::from(least) + u64::from(other);
        let mut harms: Vec<Harm> = members.iter().map(|member| self.harm(member)).collect();
        harms.sort_unstable();
        let harm = harms.iter().take(2).fold(must.harm, |sum, harm| Harm {
            homes: sum.homes + harm.homes,
            beyond: sum.beyond + harm.beyond,
        });
        Cost { highest: must.highest.max(last), harm, count: must.count + 2, sum }
    }

    /// Takes a choice for the cheapest if it is.
    fn consider<'c, 'v>(&self, best: &mut Best<'c, 'v>, choice: &Choice<'c, 'v>) {
        if !self.may_be_enough(choice) {
            return;
        }
        let cost = self.cost(choice);
        let is_cheaper = best.as_ref().is_none_or(|(least, _)| cost < *least)
            && self.must.len() + choice.len() <= MOST_VICTIMS;
        if is_cheaper && self.is_enough(choice) && self.are_spare(choice) {
            *best = Some((cost, choice.to_vec()));
        }
    }

    /// Those with the most of what is needed on the host first, and within what workloads may miss before others, until there is room; then likewise those with
    /// the most of what is needed of the quota; without those that are not needed then.
    fn as_many_as_needed<'c, 'v>(&self, pool: &Choice<'c, 'v>) -> Vec<&'c Member<'v>> {
        let missing =
            self.candidate.takes_at_least(self.request).saturating_sub(free(&self.candidate, &self.later));
        let there = Candidate { used: &self.later, ..self.candidate };
        let missing_network = self.request.spec.resources.network.saturating_sub(there.free_network());
        // Whoever has cores helps those who need some, though enough may be free on the whole and too few of one node.
        let missing_cores = cpus_needed(self.request.spec);
        let of_host = |member: &&Member<'v>| {
            let victim = member.victim;
            let network = part(victim.spec().resources.network.0, missing_network.0);
            let cores = part(victim.cores().map_or(0, |cores| cores.cpus.len() as u64), missing_cores);
            parts(self.later.taken_by(victim), missing) + network + cores
        };
        let of_quota = |member: &&Member<'v>| parts(charged(member.victim), self.overdraft);
        let mut chosen = Vec::new();
        let on_host = pool.iter().copied().filter(|member| self.is_there(member)).collect();
        self.add_until(&mut chosen, on_host, of_host, |chosen| self.has_room(chosen));
        if !self.is_borne(&chosen) {
            let is_left = |member: &&Member<'v>| {
                let is_chosen = || chosen.iter().any(|other: &&Member<'v>| std::ptr::eq(*other, *member));
                may_yield(member.victim, self.request) && !is_chosen()
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
    fn one_fewer<'c, 'v>(&self, chosen: &Choice<'c, 'v>) -> Option<Vec<&'c Member<'v>>> {
        let without = |place: usize| {
            let mut fewer = chosen.to_vec();
            fewer.remove(place);
            fewer
        };
        (0..chosen.len()).rev().map(without).find(|fewer| self.is_enough(fewer))
    }

    /// Adds to a choice those that help most, until it is enough.
    fn add_until<'c, 'v>(
        &self,
        chosen: &mut Vec<&'c Member<'v>>,
        mut left: Vec<&'c Member<'v>>,
        help: impl Fn(&&Member<'v>) -> u128,
        is_enough: impl Fn(&Choice<'c, 'v>) -> bool,
    ) {
        left.sort_by_key(|member| Reverse(help(member)));
        while !is_enough(chosen) && !left.is_empty() && self.must.len() + chosen.len() < MOST_VICTIMS {
            let with =
                |member: &&'c Member<'v>| -> Vec<_> { chosen.iter().copied().chain([*member]).collect() };
            left.retain(|member| self.are_spare(&with(member)));
            let harm = self.cost(chosen).harm;
            let within = left.iter().position(|member| self.cost(&with(member)).harm == harm);
            if !left.is_empty() {
                let next = left.remove(within.unwrap_or(0));
                chosen.push(next);
            }
        }
    }

    /// Whether their boroughs keep what they are guaranteed without these.
    fn are_spare(&self, chosen: &Choice<'_, '_>) -> bool {
        are_spare(self.all(chosen).map(|member| &**member.victim), self.request, self.boroughs)
    }

    fn is_there(&self, member: &Member<'_>) -> bool {
        member.victim.host() == Some(self.candidate.host.id)
    }

    /// Whether there is room once these are gone, and the quota bears it.
    fn is_enough(&self, chosen: &Choice<'_, '_>) -> bool {
        self.is_borne(chosen) && self.has_room(chosen)
    }

    /// Whether the borough's quota bears it once these are gone.
    fn is_borne(&self, chosen: &Choice<'_, '_>) -> bool {
        self.overdraft == Amounts::default()
            || self.overdraft.within(yielded(self.all(chosen).map(|member| &**member.victim), self.request))
    }

    /// Whether these leave as much as is missing on the host. Of thousands of pairs few are worth a closer look.
    #[inline]
    fn may_be_enough(&self, chosen: &Choice<'_, '_>) -> bool {
        let leaves = chosen.iter().fold(Amounts::default(), |sum, member| sum.saturating_add(member.leaves));
        self.missing.within(leaves)
    }

    /// Whether there is room on the host once these are gone.
    fn has_room(&self, chosen: &Choice<'_, '_>) -> bool {
        let there = || self.all(chosen).filter(|member| self.is_there(member)).map(|member| member.victim);
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

    /// A choice with those who are in every one.
    fn all<'c, 'v>(&'c self, chosen: &'c Choice<'c, 'v>) -> impl Iterator<Item = &'c Member<'c>> + Clone
    where
        'v: 'c,
    {
        self.must.iter().chain(chosen.iter().copied())
    }

    /// What it does that somebody goes, with nobody else of his workload.
    fn harm(&self, member: &Member<'_>) -> Harm {
        let has_home = member.has_home && self.candidate.state.has_homes();
        Harm { homes: has_home.into(), beyond: u32::from(member.spare == 0) }
    }

    fn cost(&self, chosen: &Choice<'_, '_>) -> Cost {
        let mut cost = Cost::default();
        let mut add = |member: &Member<'_>, before: usize| {
            cost.highest = cost.highest.max(Some(member.hold));
            cost.harm.homes += self.harm(member).homes;
            cost.harm.beyond += u32::from(before as u32 >= member.spare);
            cost.count += 1;
            cost.sum += u64::from(member.hold.1);
        };
        for (place, member) in self.must.iter().enumerate() {
            add(member, self.must[..place].iter().filter(|other| other.is_of_workload_of(member)).count());
        }
        for (place, member) in chosen.iter().enumerate() {
            let before = chosen[..place].iter().copied().chain(&self.must);
            add(member, before.filter(|other| other.is_of_workload_of(member)).count());
        }
        cost
    }
}

impl Member<'_> {
    #[inline]
    fn is_of_workload_of(&self, other: &Self) -> bool {
        self.workload == other.workload
    }
}
