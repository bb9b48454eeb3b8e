//! Preemption, the rule: which instances may make way for which, and when that is right. The pass finds the cheapest by it (`placement::preempting`), and
//! apply checks each case again before it lets anything stop.
//!
//! Who waits is *awaited* on the host from then on: nothing that is not more urgent is placed there until it is, so that the room it is made
//! does not go to others piece by piece. It may still be placed elsewhere, if there is room earlier.
//!
//! Decisions. *No workload displaces its own*: its older revisions are for the rollout. *What has a strictly lower priority makes way*, and beside it, whatever its priority, *what other boroughs have beyond their guarantees, for one that
//! would be within its own*: what is guaranteed is lent while it is not used. *Nothing is taken of another borough's guarantee*, for either. So nobody makes
//! way for whom he displaced, and there are no cycles: whoever took back what he is guaranteed has no more than that. *Room that is made of a borough's own and will be within its guarantee is
//! kept against everybody*, however urgent, from the sixth level on: nobody of another borough could take it of who was there, or could of who will be; and if one took it
//! meanwhile, whoever was there would take it back, and so for ever. *Who makes way is
//! told to stop as by a rollout*, with the grace of its spec, and its successor waits for a host at once. *What is stopping already counts as gone*
//! when it is asked how much more has to go: where that is enough, nobody else makes way. For gangs see [`gang`].
//!
//! *What its borough's quota keeps displaces work of its own borough*, wherever that is, if it has a strictly lower priority ([`may_yield`]); never that of others for the
//! quota's sake. It is decided with its host: with all that make way there is room on the host and in the quota, and with any of them left there is none on the one or in the
//! other. So whoever is of another borough is needed for the host. What is awaited is charged from then on, and nobody else of the borough who is not more urgent is let in by what
//! leaves; it is given its host once its borough's quota bears it beside what is on hosts ([`State::excesses_with`]). Pairs of whom one makes way for the other are those there
//! were before: so there are no cycles either.
//!
//! *What merely waits makes way before what runs* ([`put_off`]): room that is made for less urgent work of the borough does not count at its quota, neither when it is asked what has to go nor
//! when something is let in. Who is put off like this stays charged and is not let in before what is more urgent, by the rule above; so hosts never have more of the borough than its quota.
//! Its wait goes on while the quota bears it once all is gone that is stopping; where it does not, it displaces what is less urgent still, and where there is not enough of that, the pass ends its
//! wait, and the room on its host is anybody's. What stopped for it meanwhile is gone: it made room for whoever came before it.
//!
//! *What is stopping anyway at a quota is for the most urgent one that waits for it*, if that has a host to go to; less urgent work of the borough is not let in meanwhile (`placement::fair`). That is
//! the pass's to keep to: apply does not know who waits for what.

use std::{collections::BTreeSet, sync::Arc};

use supercloud_proto::{
    amount::Amounts,
    id::InstanceId,
    instance::{Desired, InstanceState},
    name::BoroughName,
    spec::MAX_PRIORITY,
};

use super::{
    State,
    by_priority::ByPriority,
    command::Preemption,
    fits::{Candidate, Known, Request, choose_ports},
    gang::Together,
    host_use::HostUse,
    level::{FIFTH, Level, SIXTH},
    model::{Host, Instance},
};

pub mod gang;

/// What boroughs have of what they are guaranteed: in the state, or in a pass that has given and taken more.
pub trait Guarantees {
    /// How much of a borough's work may make way for others.
    fn surplus(&self, borough: &BoroughName) -> Amounts;
    /// The same with so much of it gone and so much more there.
    fn surplus_with(&self, borough: &BoroughName, gone: Amounts, coming: Amounts) -> Amounts;
    /// Whether a borough may take back what it is guaranteed for something more.
    fn claims(&self, borough: &BoroughName, needed: Amounts) -> bool;
    /// What of a borough's work has to go for its quota to bear something more of a priority beside the rest.
    fn overdraft(&self, borough: &BoroughName, priority: u32, needed: Amounts) -> Amounts;
}

impl Guarantees for State {
    fn surplus(&self, borough: &BoroughName) -> Amounts {
        self.allowance_of(borough).surplus(self.use_of(borough).staying())
    }

    fn surplus_with(&self, borough: &BoroughName, gone: Amounts, coming: Amounts) -> Amounts {
        let staying = self.use_of(borough).staying().saturating_sub(gone).saturating_add(coming);
        self.allowance_of(borough).surplus(staying)
    }

    fn claims(&self, borough: &BoroughName, needed: Amounts) -> bool {
        self.allowance_of(borough).claims(self.use_of(borough).staying(), needed)
    }

    fn overdraft(&self, borough: &BoroughName, priority: u32, needed: Amounts) -> Amounts {
        let used = self.use_of(borough);
        let staying = used.staying().saturating_sub(put_off(&used.awaited, priority, self.level()));
        self.allowance_of(borough).quota.overdraft(staying, needed)
    }
}

/// What of the room that is made for those of a borough that wait does not count at its quota for something of a priority: that for what is less urgent, once
/// every member knows it.
pub fn put_off(awaited: &ByPriority, priority: u32, level: Level) -> Amounts {
    if level < SIXTH { Amounts::default() } else { awaited.below(priority) }
}

/// What of its borough's work has to make way for a request, for the quota to bear it: nothing before every member knows that, when it waits instead. Who is awaited is
/// charged already.
pub fn overdraft(
    request: &Request<'_>,
    is_awaited: bool,
    level: Level,
    guarantees: &impl Guarantees,
) -> Amounts {
    if level < FIFTH {
        return Amounts::default();
    }
    let needed = if is_awaited { Amounts::default() } else { request.demand };
    guarantees.overdraft(&request.key.borough, request.spec.priority, needed)
}

/// Whether a request may take back what is guaranteed to its borough. Devices, network bandwidth, cores of one's own and whole hosts are guaranteed to
/// nobody.
pub fn has_claim(request: &Request<'_>, guarantees: &impl Guarantees) -> bool {
    has_claim_for(request, 1, guarantees)
}

/// The same for so many that ask alike.
pub fn has_claim_for(request: &Request<'_>, count: usize, guarantees: &impl Guarantees) -> bool {
    let resources = &request.spec.resources;
    resources.devices.is_empty()
        && resources.network.0 == 0
        && !resources.dedicated
        && !request.spec.place.private
        && guarantees.claims(&request.key.borough, request.demand.times(count as u64))
}

/// Most that make way for one: apply looks at each of them closely.
pub const MOST_VICTIMS: usize = 32;
/// Failures in a row after which an instance displaces nobody: what it displaced would come back while it waits, and be displaced again and again.
pub const MANY_FAILURES: u32 = 2;

/// Rank of what takes back what it is guaranteed: above all priorities.
const CLAIM: u32 = MAX_PRIORITY + 1;

/// Whether some of these make way though they are as urgent, since their room is guaranteed to the borough of a request.
pub fn is_taken_back<'v>(request: &Request<'_>, mut victims: impl Iterator<Item = &'v Instance>) -> bool {
    victims.any(|victim| victim.spec().priority >= request.spec.priority)
}

/// The rank with which so many that ask alike, some of which others make way for already, wait for these to make way.
pub fn rank<'v>(
    request: &Request<'_>,
    together: Together,
    victims: impl Iterator<Item = &'v Instance> + Clone,
    guarantees: &impl Guarantees,
    level: Level,
) -> u32 {
    let borough = &request.key.borough;
    let own = victims.clone().filter(|victim| victim.workload().borough == *borough);
    let gone = own
        .filter_map(Instance::takes)
        .fold(Amounts::default(), |all, placed| all.saturating_add(placed.taken));
    let inherits = || {
        let coming = request.demand.times((together.all - together.awaited) as u64);
        let surplus = guarantees.surplus_with(borough, gone, coming);
        level >= SIXTH
            && gone != Amounts::default()
            && !request.demand.times(together.all as u64).within(surplus)
    };
    if is_taken_back(request, victims) || inherits() { CLAIM } else { request.spec.priority }
}

/// Whether these may make way together: no borough but that of the request loses more than it has beyond its guarantee.
pub fn are_spare<'v>(
    victims: impl Iterator<Item = &'v Instance>,
    request: &Request<'_>,
    guarantees: &impl Guarantees,
) -> bool {
    let mut lost: Vec<(&BoroughName, Amounts)> = Vec::new();
    for victim in victims.filter(|victim| victim.workload().borough != request.key.borough) {
        let borough = &victim.workload().borough;
        let taken = victim.takes().map_or(Amounts::default(), |placed| placed.taken);
        match lost.iter_mut().find(|(of, _)| *of == borough) {
            Some((_, amounts)) => *amounts = amounts.saturating_add(taken),
            None => lost.push((borough, taken)),
        }
    }
    lost.into_iter().all(|(borough, amounts)| amounts.within(guarantees.surplus(borough)))
}

/// Whether an instance may make way for a request, which has a claim or not; what its borough is guaranteed is not looked at.
pub fn may_make_way(instance: &Instance, request: &Request<'_>, has_claim: bool) -> bool {
    let is_other = instance.workload().borough != request.key.borough;
    instance.placed.is_some()
        && instance.is_to_stay()
        && instance.workload() != request.key
        && (instance.spec().priority < request.spec.priority || has_claim && is_other)
        && !needs(request, instance)
}

/// Whether a request must be together with instances of somebody's workload.
pub fn needs(request: &Request<'_>, company: &Instance) -> bool {
    let key = company.workload();
    key.borough == request.key.borough && request.spec.place.together.contains(&key.workload)
}

/// Whether an instance may make way for a request of its own borough, wherever it is, for the quota's sake.
pub fn may_yield(instance: &Instance, request: &Request<'_>) -> bool {
    instance.workload().borough == request.key.borough
        && instance.state != InstanceState::Lost
        && may_make_way(instance, request, false)
}

/// What these leave of the quota of a request's borough.
pub fn yielded<'v>(victims: impl Iterator<Item = &'v Instance>, request: &Request<'_>) -> Amounts {
    let own = victims.filter(|victim| may_yield(victim, request));
    own.filter_map(Instance::takes).fold(Amounts::default(), |all, placed| all.saturating_add(placed.taken))
}

/// Whether an instance keeps a request from its host whatever room there is: they are of two boroughs, and one of them is private.
pub fn is_in_the_way(instance: &Instance, request: &Request<'_>) -> bool {
    (request.spec.place.private || instance.spec().place.private)
        && instance.workload().borough != request.key.borough
}

/// What will be given away of a host once all is gone that is stopping, or is to stop as `doomed`, and all is there that is awaited, but for whoever asks.
pub fn expected(
    candidate: &Candidate<'_>,
    request: &Request<'_>,
    is_doomed: impl Fn(InstanceId) -> bool,
) -> HostUse {
    expected_but(candidate, |id| Some(id) == request.instance, is_doomed)
}

/// The same but for those who ask.
fn expected_but(
    candidate: &Candidate<'_>,
    asks: impl Fn(InstanceId) -> bool,
    is_doomed: impl Fn(InstanceId) -> bool,
) -> HostUse {
    let Candidate { state, used, .. } = *candidate;
    let mut later = used.clone();
    for instance in used.instances.iter().filter_map(|id| state.instance(*id)) {
        if instance.desired == Desired::Stop || is_doomed(instance.id) {
            later.take_out(instance);
        }
    }
    let is_to_come = |id: InstanceId| !asks(id) && !used.instances.contains(&id);
    for (_, id) in used.awaited.iter().filter(|(_, id)| is_to_come(*id)) {
        if let Some(awaited) = state.instance(*id) {
            arrive(candidate, &mut later, awaited);
        }
    }
    later
}

/// Gives an instance that is awaited what it asks for, as far as it is there.
fn arrive(candidate: &Candidate<'_>, used: &mut HostUse, awaited: &Instance) {
    let request = Request::of(awaited);
    let ports = choose_ports(candidate.host, used, request.spec, awaited.id).unwrap_or_default();
    used.take_in(awaited.id, request.spec, request.demand, &ports);
    for asked in &request.spec.resources.devices {
        let there = Candidate { used: &*used, ..*candidate };
        let names: Vec<_> =
            there.devices_for(asked).take(asked.count as usize).map(|choice| choice.name.clone()).collect();
        names.iter().for_each(|name| used.devices.give(name, asked.share));
    }
    let there = Candidate { used: &*used, ..*candidate };
    if let Some(cores) = there.choose_cores(&request) {
        used.give_cores(request.spec, request.demand, &cores);
    }
}

/// Whether a request fits a host of which so much will be given away, and on which nothing is kept from it.
pub fn will_fit(candidate: &Candidate<'_>, request: &Request<'_>, later: &HostUse) -> bool {
    let Known { anothers, may_keep, .. } = candidate.known;
    let known = Known { reserved: Some(false), anothers, may_keep, ..Known::default() };
    Candidate { used: later, known, ..*candidate }.fits(request).is_ok()
}

/// Whether it is right that these make way: each may, with all of them gone there is room on the host and in the quota, and with any of them left there is not.
pub(super) fn is_right(state: &State, host: &Host, preemption: &Preemption) -> bool {
    let Some(instance) = state.instance(preemption.instance) else { return false };
    let (candidate, request) = (Candidate::new(state, host), Request::of(instance));
    if instance.failures() >= MANY_FAILURES
        || instance.spec().place.all_or_none
        || instance.awaited_host() != preemption.before
        || preemption.victims.len() > MOST_VICTIMS
    {
        return false;
    }
    let victims: BTreeSet<InstanceId> = preemption.victims.iter().copied().collect();
    let known: Vec<&Arc<Instance>> = victims.iter().filter_map(|id| state.instance(*id)).collect();
    let has_claim = has_claim(&request, state);
    let may = |victim: &&Arc<Instance>| {
        let is_there = victim.host() == Some(host.id);
        is_there && may_make_way(victim, &request, has_claim) || may_yield(victim, &request)
    };
    let are_spare = || are_spare(known.iter().map(|victim| victim.as_ref()), &request, state);
    if known.len() != preemption.victims.len() || !known.iter().all(may) || !are_spare() {
        return false;
    }
    let overdraft = overdraft(&request, instance.awaited().is_some(), state.level(), state);
    let is_enough_without = |left: Option<InstanceId>| {
        let goes = |id: InstanceId| Some(id) != left && victims.contains(&id);
        let gone = known.iter().map(|victim| &***victim).filter(|victim| goes(victim.id));
        overdraft.within(yielded(gone, &request))
            && will_fit(&candidate, &request, &expected(&candidate, &request, goes))
    };
    !known.is_empty()
        && is_enough_without(None)
        && known.iter().all(|victim| !is_enough_without(Some(victim.id)))
}
