//! Preemption, the choice: of all hosts the one on which the least has to make way for an instance that finds no room, and what that is. The rule is
//! `state::preempt`.
//!
//! The *cost* of a choice is, before anything else, whether anything has to make way that is not spare; then the highest priority among that, or else among
//! all; then how many mount volumes, since these can come back to no other host; then how many instances do so beyond what their workloads may miss at a time (`update.max_unavailable`); then how many do at all; then the sum of
//! their priorities. On each host the cheapest choice is found by trying all, where not more than [`FEW`] come into question; among more, one, two, or as many
//! as it takes, largest first, and then without those that are not needed after all. Those who keep an instance from the host whatever room there is (one of two
//! boroughs is to be alone there) are in every choice. So never more make way than are needed. (Compare the order of kube-scheduler's preemption, and Borg, EuroSys
//! 2015, which also takes the lowest priority first.)
//!
//! Boroughs do not lose what they are guaranteed, and take that back from whoever has more than that (see the rule): of these, too, what is spare first, whatever
//! its priority, and then the lowest priority.
//!
//! Where what is stopping already leaves room, on whatever host, nobody makes way.
//!
//! Hosts stand in a heap by what their choice costs at least, which is seen from what of them is held how firmly. They are looked at closely in that order
//! until none can be cheaper, or [`MORE`] were since the first choice was found: in a large estate where every workload misses what it may, each host would have to be.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use supercloud_proto::{
    amount::Amounts,
    host::HostState,
    id::{HostId, InstanceId},
    name::WorkloadKey,
};

use super::{
    fair::Boroughs,
    ledger::{Ledger, Slot},
};
use crate::state::{
    HostUse, Instance, Preemption, RevisionRecord, State,
    derived::{Hold, hold},
    fits::{Candidate, Request},
    model::cpus_needed,
    preempt::{
        MANY_FAILURES, MOST_VICTIMS, are_spare, expected, has_claim, is_in_the_way, may_make_way, rank,
        will_fit,
    },
};

/// Of so many all choices are tried.
const FEW: usize = 10;
/// So many more hosts are looked at closely once there is a choice.
const MORE: usize = 16;
/// Of so many all pairs are tried.
const MANY: usize = 200;

/// What a choice costs; see the head of the module. Least where nobody has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Cost {
    highest: Option<Hold>,
    harm: Harm,
    count: u32,
    sum: u64,
}

/// What those who go lose beyond their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Harm {
    /// How many can come back to no other host, since their volumes live there.
    homes: u32,
    /// How many go beyond what their workloads may miss at a time.
    beyond: u32,
}

/// What becomes of an instance that fits nowhere.
pub(super) enum Room {
    /// Others are making way for it already.
    Awaited,
    /// What is stopping already leaves room, which is kept for it in this pass.
    Coming,
    /// There may be room where it is kept for others in this pass.
    Taken,
    /// These make way.
    Made(Preemption),
    /// Nobody can.
    Nowhere,
}

/// A host with what making room there costs, or costs at least, and the choice, where it was looked at.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Looked {
    cost: Cost,
    slot: Slot,
    victims: Vec<InstanceId>,
}

/// The search for room, and what is known from before in the pass.
#[derive(Default)]
pub(super) struct Preempting {
    /// How many more instances of a workload may be missing.
    spare: HashMap<WorkloadKey, u32>,
    /// Slots in which somebody whose turn was before waits for what is stopping there: it is nobody else's in this pass.
    promised: HashSet<Slot>,
}

impl Preempting {
    /// Forgets what holds only for the pass that ends.
    pub(super) fn rest(&mut self) {
        *self = Self::default();
    }

    /// Makes room for an instance of a revision that fits nowhere, and keeps it in the ledger.
    pub(super) fn make_room(
        &mut self,
        ledger: &mut Ledger,
        boroughs: &mut Boroughs,
        record: &RevisionRecord,
        id: InstanceId,
    ) -> Room {
        let request = Request { instance: Some(id), ..Request::new(&record.key, &record.spec) };
        let Some(instance) = ledger.state().instance(id).filter(|one| one.failures() < MANY_FAILURES) else {
            return Room::Nowhere;
        };
        let before = instance.awaited_host();
        let has_claim = has_claim(&request, boroughs);
        let sought = Sought { ledger, boroughs, record, request: &request, has_claim };
        let mut hosts = sought.hosts();
        let all = hosts.len();
        hosts.retain(|Reverse(host)| !self.promised.contains(&host.slot));
        let has_passed_over = hosts.len() < all;
        let Some(Looked { slot, victims, .. }) = sought.cheapest(hosts, &mut self.spare) else {
            return if has_passed_over { Room::Taken } else { Room::Nowhere };
        };
        if victims.is_empty() {
            self.promised.insert(slot);
            ledger.keep(slot, record.spec.priority, id, &[]);
            return Room::Coming;
        }
        let stopped = || victims.iter().filter_map(|id| ledger.state().instance(*id));
        let rank = rank(&request, stopped().map(AsRef::as_ref));
        for victim in stopped() {
            let taken = victim.takes().map_or(Amounts::default(), |placed| placed.taken);
            boroughs.make_way(&victim.workload().borough, taken);
            if let Some(spare) = self.spare.get_mut(victim.workload()) {
                *spare = spare.saturating_sub(1);
            }
        }
        if rank > record.spec.priority {
            boroughs.claim(&record.key.borough);
        }
        ledger.keep(slot, rank, id, &victims);
        let host = Some(ledger.candidate(slot).host.id);
        Room::Made(Preemption { instance: id, before, host, victims })
    }
}

/// Whether what is to be gone from the host on which room is kept for an instance, once it is, leaves room for it.
pub(super) fn is_worth_waiting(ledger: &Ledger, slot: Slot, request: &Request<'_>) -> bool {
    let candidate = ledger.candidate_for(slot, request);
    let later = expected(&candidate, request, |id| ledger.is_doomed(id));
    // A host that is silent for a moment is waited for: else every blip would displace others elsewhere.
    let mut host = candidate.host.clone();
    if host.state == HostState::Suspect {
        host.state = HostState::Ready;
    }
    ledger.is_taken(slot) && will_fit(&Candidate { host: &host, ..candidate }, request, &later)
}

/// Whether a request would fit a host with all gone that is stopping or may make way for it, as far as amounts say.
pub(super) fn may_have_room(candidate: &Candidate<'_>, request: &Request<'_>, has_claim: bool) -> bool {
    at_least(candidate, request, has_claim).is_some()
}

/// Whether a request would fit a host with all gone that may make way for it.
pub(super) fn has_room_emptied(candidate: &Candidate<'_>, request: &Request<'_>, has_claim: bool) -> bool {
    let mut later = expected(candidate, request, |_| false);
    for instance in victims(candidate, request, has_claim, &later) {
        later.take_out(instance);
    }
    will_fit(candidate, request, &later)
}

/// What it costs at least to make room on a host, as far as amounts say; `None`: there is no room even so. What is less urgent may come there without changing
/// whether there is.
fn at_least(candidate: &Candidate<'_>, request: &Request<'_>, has_claim: bool) -> Option<Cost> {
    let used = candidate.used;
    if request.spec.resources.network > candidate.host.inventory.allocatable_network() {
        return None;
    }
    let is_coming = used.leaving > 0 || !used.awaited.is_empty();
    let mut free = candidate.free().saturating_add(used.going);
    let needed = candidate.takes_at_least(request);
    if is_coming && needed.within(free) {
        return Some(Cost::default());
    }
    let may_go = |(_, priority): Hold| has_claim || priority < request.spec.priority;
    let looked_at = used.by_hold().iter().take_while(|(hold, _)| !hold.0 || may_go(*hold));
    let (highest, _) = looked_at.filter(|(hold, _)| may_go(*hold)).find(|(_, amounts)| {
        free = free.saturating_add(*amounts);
        needed.within(free)
    })?;
    // Whoever holds its room most firmly among those that go is one of them.
    let of_one = Cost { highest: Some(*highest), harm: Harm::default(), count: 1, sum: highest.1.into() };
    Some(if is_coming { Cost::default() } else { of_one })
}

/// For what room is sought, and where.
struct Sought<'s> {
    ledger: &'s Ledger,
    boroughs: &'s Boroughs,
    record: &'s RevisionRecord,
    request: &'s Request<'s>,
    has_claim: bool,
}

impl Sought<'_> {
    /// The hosts on which there may be room to be made, with what that costs at least.
    fn hosts(&self) -> BinaryHeap<Reverse<Looked>> {
        let least = |slot: Slot| {
            let candidate = self.ledger.candidate_for(slot, self.request);
            if !candidate.may_be_home(self.request) {
                return None;
            }
            let cost = at_least(&candidate, self.request, self.has_claim)?;
            let may_be = self.ledger.is_taken(slot) && candidate.suits(self.request);
            let cost = cost.max(self.of_strangers(&candidate).filter(|_| may_be)?);
            Some(Reverse(Looked { cost, slot, victims: Vec::new() }))
        };
        let home = self.request.instance.and_then(|id| self.ledger.home(self.record, id));
        home.map_or(self.ledger.slots(), |home| home..home + 1).filter_map(least).collect()
    }

    /// What it costs at least that nobody of other boroughs is on a host, where that has to be so; `None`: it cannot.
    fn of_strangers(&self, candidate: &Candidate<'_>) -> Option<Cost> {
        let mut cost = Cost::default();
        if !self.request.spec.place.private {
            return Some(cost);
        }
        let there = candidate.state.instances_by(candidate.used.instances.iter().copied());
        let strangers = there.filter(|other| is_in_the_way(other, self.request) && !other.state.is_over());
        for stranger in strangers.filter(|other| other.is_to_stay() && !self.ledger.is_doomed(other.id)) {
            if !may_make_way(stranger, self.request, self.has_claim) {
                return None;
            }
            let hold = hold(stranger.spec());
            cost.highest = cost.highest.max(Some(hold));
            cost.count += 1;
            cost.sum += u64::from(hold.1);
        }
        Some(cost)
    }

    /// The host with the cheapest choice.
    fn cheapest(
        &self,
        mut hosts: BinaryHeap<Reverse<Looked>>,
        spare: &mut HashMap<WorkloadKey, u32>,
    ) -> Option<Looked> {
        let mut best: Option<Looked> = None;
        let mut more = 0;
        while let Some(Reverse(next)) = hosts.pop() {
            if best.as_ref().is_some_and(|best| *best < next || more == MORE) {
                break;
            }
            more += usize::from(best.is_some());
            if let Some(looked) = self.look(next.slot, spare)
                && best.as_ref().is_none_or(|best| looked < *best)
            {
                best = Some(looked);
            }
        }
        best
    }

    /// The cheapest choice on a host.
    fn look(&self, slot: Slot, spare: &mut HashMap<WorkloadKey, u32>) -> Option<Looked> {
        let Self { ledger, boroughs, request, has_claim, .. } = *self;
        let candidate = ledger.candidate_for(slot, request);
        let later = expected(&candidate, request, |id| ledger.is_doomed(id));
        if will_fit(&candidate, request, &later) {
            return Some(Looked { cost: Cost::default(), slot, victims: Vec::new() });
        }
        let mut pool = victims(&candidate, request, has_claim, &later);
        pool.retain(|victim| are_spare([&***victim].into_iter(), request, boroughs));
        for victim in &pool {
            let key = victim.workload();
            if !spare.contains_key(key) {
                spare.insert(key.clone(), may_miss(ledger, key));
            }
        }
        let (must, pool): (Vec<_>, Vec<_>) =
            pool.into_iter().partition(|victim| is_in_the_way(victim, request));
        let host = OneHost { candidate, request, later, spare, boroughs, must };
        let choice = host.cheapest(&pool)?;
        let victims = host.all(&choice).map(|victim| victim.id).collect();
        Some(Looked { cost: host.cost(&choice), slot, victims })
    }
}

/// Who may make way on a host, those first that hold their room the least firmly, of these the youngest.
fn victims<'c>(
    candidate: &Candidate<'c>,
    request: &Request<'_>,
    has_claim: bool,
    later: &HostUse,
) -> Vec<&'c Arc<Instance>> {
    let state: &'c State = candidate.state;
    let there = later.instances.iter().filter_map(|id| state.instance(*id));
    let on: HostId = candidate.host.id;
    let may =
        |instance: &&Arc<Instance>| instance.host() == Some(on) && may_make_way(instance, request, has_claim);
    let mut victims: Vec<_> = there.filter(may).collect();
    victims.sort_unstable_by_key(|victim| (hold(victim.spec()), Reverse(victim.id)));
    victims
}

/// How many more instances of a workload may be missing: as many as in a rollout.
fn may_miss(ledger: &Ledger, key: &WorkloadKey) -> u32 {
    let Some(workload) = ledger.state().workload(key) else { return u32::MAX };
    let is_there = |instance: &&Arc<Instance>| {
        instance.placed.is_some() && instance.is_to_stay() && !ledger.is_doomed(instance.id)
    };
    let there = ledger.state().instances_of(key).filter(is_there).count() as u32;
    let missing = workload.wanted().saturating_sub(there);
    workload.current().spec.update.max_unavailable.saturating_sub(missing)
}

/// A host on which room is sought.
struct OneHost<'h> {
    candidate: Candidate<'h>,
    request: &'h Request<'h>,
    later: HostUse,
    spare: &'h HashMap<WorkloadKey, u32>,
    boroughs: &'h Boroughs,
    /// Those who are in every choice.
    must: Vec<&'h Arc<Instance>>,
}

impl OneHost<'_> {
    /// A choice with those who are in every one.
    fn all<'c>(&'c self, chosen: &'c [&Arc<Instance>]) -> impl Iterator<Item = &'c Arc<Instance>> {
        self.must.iter().chain(chosen).map(|victim| &**victim)
    }

    /// The cheapest choice among those who may go: among all up to those that hold their room no more firmly than it takes for there to be enough.
    fn cheapest<'v>(&self, pool: &[&'v Arc<Instance>]) -> Option<Vec<&'v Arc<Instance>>> {
        if !self.is_enough(pool) {
            return None;
        }
        let hold_of = |place: usize| pool.get(place).map(|victim| hold(victim.spec()));
        // With somebody who must go, what holds its room no more firmly costs no more.
        let highest = self.must.iter().map(|victim| hold(victim.spec())).max();
        let no_higher = pool.partition_point(|victim| Some(hold(victim.spec())) <= highest);
        let first = if self.must.is_empty() { 1 } else { no_higher };
        let ends = (first..=pool.len()).filter(|end| *end == no_higher || hold_of(*end) != hold_of(end - 1));
        ends.filter(|end| self.is_enough(&pool[..*end])).find_map(|end| self.cheapest_among(&pool[..end]))
    }

    fn cheapest_among<'v>(&self, pool: &[&'v Arc<Instance>]) -> Option<Vec<&'v Arc<Instance>>> {
        if pool.len() <= FEW {
            let choices = (u32::from(self.must.is_empty())..1 << pool.len()).map(|choice| {
                let is_in = |(place, _): &(usize, &&'v Arc<Instance>)| choice >> place & 1 == 1;
                pool.iter().enumerate().filter(is_in).map(|(_, victim)| *victim).collect()
            });
            return self.cheapest_of(choices);
        }
        let none = (!self.must.is_empty()).then(Vec::new);
        let one = self.cheapest_of(none.into_iter().chain(pool.iter().map(|victim| vec![*victim])));
        let harm = one.as_ref().map(|one| self.cost(one).harm);
        if harm == Some(Harm::default()) {
            return one;
        }
        // More than one cost less only where each of them does.
        let is_less = |victim: &&&Arc<Instance>| harm.is_none_or(|harm| self.cost(&[victim]).harm < harm);
        let less: Vec<_> = pool.iter().copied().filter(|victim| is_less(&victim)).collect();
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

    /// Those with the most of what is needed first, and within what workloads may miss before others, until there is room; without those that are not needed then.
    fn as_many_as_needed<'v>(&self, pool: &[&'v Arc<Instance>]) -> Vec<&'v Arc<Instance>> {
        let missing = self.candidate.takes_at_least(self.request).saturating_sub(self.free());
        let there = Candidate { used: &self.later, ..self.candidate };
        let missing_network = self.request.spec.resources.network.saturating_sub(there.free_network());
        // Whoever has cores helps those who need some, though enough may be free on the whole and too few of one node.
        let missing_cores = cpus_needed(self.request.spec);
        let part =
            |has: u64, missing: u64| u128::from(has.min(missing)) * 1_000_000 / u128::from(missing.max(1));
        let help = |victim: &&Arc<Instance>| {
            let taken = self.later.taken_by(victim);
            part(taken.cpu.0, missing.cpu.0)
                + part(taken.memory.0, missing.memory.0)
                + part(taken.disk.0, missing.disk.0)
                + part(victim.spec().resources.network.0, missing_network.0)
                + part(victim.cores().map_or(0, |cores| cores.cpus.len() as u64), missing_cores)
        };
        let mut left = pool.to_vec();
        left.sort_by_key(|victim| Reverse(help(victim)));
        let mut chosen: Vec<&Arc<Instance>> = Vec::new();
        while !self.is_enough(&chosen) && !left.is_empty() && self.must.len() + chosen.len() < MOST_VICTIMS {
            let with =
                |victim: &&'v Arc<Instance>| -> Vec<_> { chosen.iter().copied().chain([*victim]).collect() };
            left.retain(|victim| self.are_spare(&with(victim)));
            let harm = self.cost(&chosen).harm;
            let within = left.iter().position(|victim| self.cost(&with(victim)).harm == harm);
            if !left.is_empty() {
                let next = left.remove(within.unwrap_or(0));
                chosen.push(next);
            }
        }
        for place in (0..chosen.len()).rev() {
            let mut fewer = chosen.clone();
            fewer.remove(place);
            if self.is_enough(&fewer) {
                chosen = fewer;
            }
        }
        chosen
    }

    /// Whether their boroughs keep what they are guaranteed without these.
    fn are_spare(&self, chosen: &[&Arc<Instance>]) -> bool {
        are_spare(self.all(chosen).map(|victim| &**victim), self.request, self.boroughs)
    }

    fn free(&self) -> Amounts {
        self.candidate.allocatable.saturating_sub(self.later.taken)
    }

    /// Whether there is room once these are gone.
    fn is_enough(&self, chosen: &[&Arc<Instance>]) -> bool {
        let taken = self.all(chosen).map(|victim| self.later.taken_by(victim));
        let left = taken.fold(self.later.taken, Amounts::saturating_sub);
        if !self
            .candidate
            .takes_at_least(self.request)
            .within(self.candidate.allocatable.saturating_sub(left))
        {
            return false;
        }
        let mut later = self.later.clone();
        self.all(chosen).for_each(|victim| later.take_out(victim));
        will_fit(&self.candidate, self.request, &later)
    }

    fn cost(&self, chosen: &[&Arc<Instance>]) -> Cost {
        let mut of_workload: Vec<(&WorkloadKey, u32)> = Vec::new();
        for victim in self.all(chosen) {
            match of_workload.iter_mut().find(|(key, _)| *key == victim.workload()) {
                Some((_, count)) => *count += 1,
                None => of_workload.push((victim.workload(), 1)),
            }
        }
        let spare = |key: &WorkloadKey| self.spare.get(key).copied().unwrap_or(0);
        let has_homes = self.candidate.state.has_homes();
        Cost {
            highest: self.all(chosen).map(|victim| hold(victim.spec())).max(),
            harm: Harm {
                homes: self.all(chosen).filter(|victim| has_homes && victim.spec().has_volumes()).count()
                    as u32,
                beyond: of_workload.iter().map(|(key, count)| count.saturating_sub(spare(key))).sum(),
            },
            count: self.all(chosen).count() as u32,
            sum: self.all(chosen).map(|victim| u64::from(victim.spec().priority)).sum(),
        }
    }
}
