//! Preemption, the choice: of all hosts the one on which the least has to make way for an instance that finds no room, and what that is. The rule is
//! `state::preempt`.
//!
//! The *cost* of a choice is, before anything else, whether anything has to make way that is not spare; then the highest priority among that, or else among
//! all; then how many mount volumes, since these can come back to no other host; then how many instances do so beyond what their workloads may miss at a time
//! (`update.max_unavailable`); then how many do at all; then the sum of their priorities. On each host the cheapest choice is found by trying all, where not more than [`choice::FEW`] come into question; among more, one, two, or as many
//! as it takes, largest first, and then without those that are not needed after all. Those who keep an instance from the host whatever room there is (one of two
//! boroughs is to be alone there) are in every choice. So never more make way than are needed. (Compare the order of kube-scheduler's preemption, and Borg, EuroSys
//! 2015, which also takes the lowest priority first.)
//!
//! Boroughs do not lose what they are guaranteed, and take that back from whoever has more than that (see the rule): of these, too, what is spare first, whatever
//! its priority, and then the lowest priority.
//!
//! What its borough's quota keeps takes from its own borough's less urgent work ([`own`]), wherever that is, and on its host from whoever may go for its room. Where a host has room as
//! it is, the cheapest choice for the quota is the cheapest of all, since no choice goes without that; it goes to a host that one of these leaves, if there is room then. Else both are
//! looked for together, host by host. Among at most [`choice::FEW`] who come into question the choice is the cheapest; among more nobody is in it who could stay.
//!
//! Where what is stopping already leaves room, on whatever host, nobody makes way. Nor does whoever is the company of something more urgent that waits for room on the host.
//!
//! Hosts stand in the order of what their choice costs at least, which is seen from what of them is held how firmly; for whoever asks for amounts alone the order is kept ([`bounds`]).
//! They are looked at closely in that order until none can be cheaper, or [`MORE`] were since the first choice was found: in a large estate where every workload misses what it may, each
//! host would have to be.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashSet},
    sync::Arc,
};

use supercloud_proto::{
    amount::Amounts,
    host::HostState,
    id::{HostId, InstanceId},
};

use super::{
    fair::Boroughs,
    ledger::{Ledger, Slot},
};
use crate::state::{
    Host, HostUse, Instance, Preemption, RevisionRecord, State,
    fits::{Candidate, Request},
    gang::Together,
    host_use::{Held, Hold, hold},
    preempt::{
        MANY_FAILURES, are_spare, expected, has_claim, is_in_the_way, is_taken_back, may_make_way, needs,
        rank, will_fit, yielded,
    },
};

use bounds::Bounds;
use choice::OneHost;
pub(super) use gang::{RoomForAll, is_host_by_host, is_worth_waiting_for_all};
use own::{Own, charged};
use spares::Spares;

mod bounds;
mod choice;
mod gang;
mod own;
mod spares;

/// So many more hosts are looked at closely once there is a choice.
const MORE: usize = 16;

/// What a choice costs; see the head of the module. Least where nobody has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Cost {
    highest: Option<Hold>,
    harm: Harm,
    count: u32,
    sum: u64,
}

impl Cost {
    /// What it costs at least where the first of those who go holds its room so; nothing where nobody has to.
    fn at_least(highest: Option<Hold>) -> Self {
        let (count, sum) = highest.map_or((0, 0), |(_, priority)| (1, priority.into()));
        Self { highest, harm: Harm::default(), count, sum }
    }
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
    /// What is stopping already leaves enough of its borough's quota, which it is kept from.
    Leaving,
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
    spares: Spares,
    /// Slots in which somebody whose turn was before waits for what is stopping there, or did: it is nobody else's in this pass.
    promised: HashSet<Slot>,
    own: Own,
    /// Of the passes before, too.
    bounds: Bounds,
}

/// For whom room is made.
pub(super) struct Seeker<'r> {
    pub(super) record: &'r RevisionRecord,
    pub(super) id: InstanceId,
    /// What has to go of its borough's work for the quota's sake.
    pub(super) overdraft: Amounts,
    /// The best host with room for it as it is, which only the quota keeps it from.
    pub(super) open: Option<Slot>,
}

impl Preempting {
    /// Forgets what holds only for the pass that ends.
    pub(super) fn rest(&mut self) {
        let bounds = std::mem::take(&mut self.bounds);
        *self = Self { bounds, ..Self::default() };
    }

    /// Forgets what it knows of hosts, which stand in other slots from now on.
    pub(super) fn begin_anew(&mut self) {
        self.bounds = Bounds::default();
    }

    /// Makes room for an instance that fits nowhere, or is beyond its borough's quota, and keeps it in the ledger.
    pub(super) fn make_room(
        &mut self,
        ledger: &mut Ledger,
        boroughs: &mut Boroughs,
        seeker: &Seeker<'_>,
    ) -> Room {
        let Seeker { record, id, .. } = *seeker;
        let request = Request { instance: Some(id), ..Request::new(&record.key, &record.spec) };
        let Some(instance) = ledger.state().instance(id).filter(|one| one.failures() < MANY_FAILURES) else {
            return Room::Nowhere;
        };
        let before = instance.awaited_host();
        let (slot, victims) = match self.search(ledger, boroughs, &request, seeker) {
            Ok(Looked { slot, victims, .. }) => (slot, victims),
            Err(room) => return room,
        };
        if victims.is_empty() {
            self.promised.insert(slot);
            ledger.keep(slot, record.spec.priority, id, &[]);
            return Room::Coming;
        }
        let stopped: Vec<Arc<Instance>> =
            ledger.state().instances_by(victims.iter().copied()).cloned().collect();
        let rank = self.send_away(ledger, boroughs, &request, Together::alone(instance), &stopped);
        ledger.keep(slot, rank, id, &victims);
        self.leave(ledger, slot, before);
        let host = Some(ledger.candidate(slot).host.id);
        Room::Made(Preemption { instance: id, before, host, victims })
    }

    /// Notes that one for whom room was kept before has others make way elsewhere. What is placed in this pass comes into the state before that, and who displaces others after it: so
    /// its room stays kept there against the one, and is not counted on for the other.
    fn leave(&mut self, ledger: &Ledger, slot: Slot, before: Option<HostId>) {
        let before = before.and_then(|before| ledger.slot(before));
        self.promised.extend(before.filter(|before| *before != slot));
    }

    /// Counts that these make way. Gives the rank with which those wait for whom they do.
    fn send_away(
        &mut self,
        ledger: &Ledger,
        boroughs: &mut Boroughs,
        request: &Request<'_>,
        together: Together,
        gone: &[Arc<Instance>],
    ) -> u32 {
        let victims = || gone.iter().map(AsRef::as_ref);
        let rank = rank(request, together, victims(), boroughs, ledger.state().level());
        gone.iter().for_each(|victim| self.count_gone(boroughs, victim));
        if is_taken_back(request, victims()) {
            boroughs.claim(&request.key.borough);
        }
        rank
    }

    /// Counts that somebody makes way.
    fn count_gone(&mut self, boroughs: &mut Boroughs, victim: &Instance) {
        boroughs.make_way(&victim.workload().borough, victim.spec().priority, charged(victim));
        self.spares.count_gone(victim.workload());
    }

    /// The host with the cheapest choice, or why there is none.
    fn search(
        &mut self,
        ledger: &Ledger,
        boroughs: &Boroughs,
        request: &Request<'_>,
        seeker: &Seeker<'_>,
    ) -> Result<Looked, Room> {
        let Self { spares, promised, own, bounds } = self;
        let has_claim = has_claim(request, boroughs);
        let overdraft = seeker.overdraft;
        if !has_claim && boroughs.nobody_goes(request.spec.priority) {
            return Err(Room::Nowhere);
        }
        let own = if overdraft == Amounts::default() { Vec::new() } else { own.below(ledger, request) };
        let least = own::at_least(&own, overdraft).unwrap_or_default();
        if overdraft != Amounts::default() && least == Cost::default() {
            return Err(Room::Nowhere);
        }
        let own = own::shortlist(ledger, own, overdraft, spares);
        let record = seeker.record;
        let sought = Sought { ledger, boroughs, record, request, has_claim, overdraft, own };
        if let Some(open) = seeker.open.filter(|open| sought.will_take(*open)) {
            return sought.look(open, spares).map(|looked| sought.nearer(looked)).ok_or(Room::Nowhere);
        }
        let is_promised = |slot: Slot| promised.contains(&slot);
        if sought.is_of_amounts() {
            let order = bounds.order(ledger, request, has_claim);
            let may_have_room = |slot: &Slot| order.may_have_room(*slot) && sought.suits(*slot);
            let room = if promised.iter().any(may_have_room) { Room::Taken } else { Room::Nowhere };
            return sought.cheapest(order.filter(|(_, slot)| !is_promised(*slot)), spares).ok_or(room);
        }
        let mut hosts = sought.hosts(least, overdraft != Amounts::default());
        let has_passed_over = !promised.is_empty()
            && hosts.iter().any(|Reverse(host)| is_promised(host.slot) && sought.suits(host.slot));
        hosts.retain(|Reverse(host)| !is_promised(host.slot));
        let room = if has_passed_over { Room::Taken } else { Room::Nowhere };
        let next = || hosts.pop().map(|Reverse(host)| (host.cost, host.slot));
        sought.cheapest(std::iter::from_fn(next), spares).ok_or(room)
    }
}

/// Whether what is to be gone from the host on which room is kept for an instance, once it is, leaves room for it.
pub(super) fn is_worth_waiting(ledger: &Ledger, slot: Slot, request: &Request<'_>) -> bool {
    let candidate = ledger.candidate_for(slot, request);
    let later = expected(&candidate, request, |id| ledger.is_doomed(id));
    let host = as_if_answering(candidate.host);
    ledger.is_taken(slot) && will_fit(&Candidate { host: &host, ..candidate }, request, &later)
}

/// A host as it is while it answers. One that is silent for a moment is waited for: else every blip would displace others elsewhere.
fn as_if_answering(host: &Host) -> Host {
    let mut host = host.clone();
    if host.state == HostState::Suspect {
        host.state = HostState::Ready;
    }
    host
}

/// Whether a request would fit a host with all gone that is stopping or may make way for it, as far as amounts say.
pub(super) fn may_have_room(candidate: &Candidate<'_>, request: &Request<'_>, has_claim: bool) -> bool {
    at_least(candidate, request, has_claim, false).is_some()
}

/// What is free of a host with all gone that is stopping or may make way for a request.
pub(super) fn room_emptied(candidate: &Candidate<'_>, request: &Request<'_>, has_claim: bool) -> Amounts {
    let free = candidate.free().saturating_add(candidate.used.going);
    let going = candidate.used.by_hold().iter().filter(|held| may_go(held.hold, request, has_claim));
    going.fold(free, |free, held| free.saturating_add(held.amounts))
}

/// Whether those may make way for a request that hold their room so firmly.
fn may_go((_, priority): Hold, request: &Request<'_>, has_claim: bool) -> bool {
    has_claim || priority < request.spec.priority
}

/// Whether a request would fit a host with all gone that may make way for it.
pub(super) fn has_room_emptied(
    candidate: &Candidate<'_>,
    request: &Request<'_>,
    has_claim: bool,
    is_doomed: impl Fn(InstanceId) -> bool,
) -> bool {
    let mut later = expected(candidate, request, is_doomed);
    for instance in victims(candidate, request, has_claim, &later) {
        later.take_out(instance);
    }
    will_fit(candidate, request, &later)
}

/// What it costs at least to make room on a host, as far as amounts say; `None`: there is no room even so. What is less urgent may come there without changing
/// whether there is. Whoever is beyond a quota, and one of a gang, may have room there as it is.
fn at_least(
    candidate: &Candidate<'_>,
    request: &Request<'_>,
    has_claim: bool,
    may_have_room: bool,
) -> Option<Cost> {
    let used = candidate.used;
    let is_coming = used.leaving > 0 || !used.awaited.is_empty();
    let mut free = candidate.free().saturating_add(used.going);
    let mut network = candidate.free_network();
    network += used.going_network;
    let (needed, needed_network) = (candidate.takes_at_least(request), request.spec.resources.network);
    if (is_coming || may_have_room) && needed.within(free) && needed_network <= network {
        return Some(Cost::default());
    }
    let may_go = |held: &&Held| may_go(held.hold, request, has_claim);
    let looked_at = used.by_hold().iter().take_while(|held| !held.hold.0 || may_go(held));
    let Held { hold: highest, .. } = looked_at.filter(may_go).find(|held| {
        free = free.saturating_add(held.amounts);
        network += held.network;
        needed.within(free) && needed_network <= network
    })?;
    // Whoever holds its room most firmly among those that go is one of them.
    Some(Cost::at_least((!is_coming).then_some(*highest)))
}

/// For what room is sought, and where.
struct Sought<'s> {
    ledger: &'s Ledger,
    boroughs: &'s Boroughs,
    record: &'s RevisionRecord,
    request: &'s Request<'s>,
    has_claim: bool,
    /// What has to go of its borough's work for the quota's sake.
    overdraft: Amounts,
    /// Who may, wherever they are, in their order.
    own: Vec<&'s Arc<Instance>>,
}

impl Sought<'_> {
    /// The hosts on which there may be room to be made, with what that costs at least, wherever that is; and those that may have room as they are.
    fn hosts(&self, least: Cost, may_have_room: bool) -> BinaryHeap<Reverse<Looked>> {
        let least = |slot: Slot| {
            let candidate = self.ledger.candidate_for(slot, self.request);
            if !candidate.may_be_home(self.request) {
                return None;
            }
            let cost = at_least(&candidate, self.request, self.has_claim, may_have_room)?.max(least);
            let cost = cost.max(self.of_strangers(&candidate)?);
            Some(Reverse(Looked { cost, slot, victims: Vec::new() }))
        };
        let home = self.request.instance.and_then(|id| self.ledger.home(self.record, id));
        home.map_or(self.ledger.slots(), |home| home..home + 1).filter_map(least).collect()
    }

    /// Whether nothing speaks against a host that only its record could change.
    fn suits(&self, slot: Slot) -> bool {
        self.ledger.is_taken(slot) && self.ledger.candidate(slot).suits(self.request)
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

    /// Whether only amounts decide on what it costs at least on a host.
    fn is_of_amounts(&self) -> bool {
        let spec = self.request.spec;
        self.overdraft == Amounts::default() && !spec.place.private && !spec.has_volumes()
    }

    /// The host with the cheapest choice, of hosts in the order of what it costs at least.
    fn cheapest(&self, hosts: impl Iterator<Item = (Cost, Slot)>, spares: &mut Spares) -> Option<Looked> {
        let mut best: Option<Looked> = None;
        let mut more = 0;
        for (least, slot) in hosts {
            if best.as_ref().is_some_and(|best| (best.cost, best.slot) < (least, slot) || more == MORE) {
                break;
            }
            // Of many only few are ever asked.
            if !self.suits(slot) {
                continue;
            }
            more += usize::from(best.is_some());
            if let Some(looked) = self.look(slot, spares)
                && best.as_ref().is_none_or(|best| looked < *best)
            {
                best = Some(looked);
            }
        }
        best
    }

    /// Whether a host will have room with nobody gone who is to stay.
    fn will_take(&self, slot: Slot) -> bool {
        let candidate = self.ledger.candidate_for(slot, self.request);
        let later = expected(&candidate, self.request, |id| self.ledger.is_doomed(id));
        will_fit(&candidate, self.request, &later)
    }

    /// The cheapest choice with a host given.
    fn look(&self, slot: Slot, spares: &mut Spares) -> Option<Looked> {
        let candidate = self.ledger.candidate_for(slot, self.request);
        let later = expected(&candidate, self.request, |id| self.ledger.is_doomed(id));
        self.look_at(slot, candidate, later, spares)
    }

    /// The same with the host as it is looked at, and what will be given away of it with nobody else gone.
    fn look_at(
        &self,
        slot: Slot,
        candidate: Candidate<'_>,
        later: HostUse,
        spares: &mut Spares,
    ) -> Option<Looked> {
        let Self { ledger, boroughs, request, has_claim, overdraft, .. } = *self;
        if overdraft == Amounts::default() && will_fit(&candidate, request, &later) {
            return Some(Looked { cost: Cost::default(), slot, victims: Vec::new() });
        }
        let mut pool = victims(&candidate, request, has_claim, &later);
        pool.retain(|victim| {
            are_spare([&***victim].into_iter(), request, boroughs)
                && !is_company(ledger, victim, request.spec.priority)
        });
        let on = Some(candidate.host.id);
        let elsewhere = self.own.iter().copied().filter(|victim| victim.host() != on);
        if overdraft != Amounts::default() {
            pool.extend(elsewhere);
            pool.sort_unstable_by_key(|victim| own::order(victim));
        }
        let (must, pool): (Vec<_>, Vec<_>) =
            pool.into_iter().partition(|victim| is_in_the_way(victim, request));
        let host = OneHost::new(candidate, request, later, boroughs, must, overdraft);
        let (cost, victims) = host.cheapest(pool, ledger, spares)?;
        Some(Looked { cost, slot, victims })
    }

    /// The same choice, on a host that some of it leave, where one of these has room then: what else is free stays free for others.
    fn nearer(&self, looked: Looked) -> Looked {
        let Self { ledger, request, .. } = *self;
        let victims = || looked.victims.iter().filter_map(|id| ledger.state().instance(*id));
        let is_needed = |left: &Arc<Instance>| {
            let others = victims().filter(|victim| victim.id != left.id).map(|victim| &**victim);
            !self.overdraft.within(yielded(others, request))
        };
        if !victims().all(is_needed) {
            return looked;
        }
        let slots: BTreeSet<Slot> = victims().filter_map(|victim| ledger.slot(victim.host()?)).collect();
        let has_room = |slot: &Slot| {
            let candidate = ledger.candidate_for(*slot, request);
            let goes = |id: InstanceId| ledger.is_doomed(id) || looked.victims.contains(&id);
            ledger.is_taken(*slot) && will_fit(&candidate, request, &expected(&candidate, request, goes))
        };
        let slot = slots.into_iter().find(has_room).unwrap_or(looked.slot);
        Looked { slot, ..looked }
    }
}

/// Whether somebody is on a host with what more urgent work, for which room is kept there, must be together. Without that it would wait in vain, and displace
/// others again once its company is back: so for ever, if these are whom that had to go for.
fn is_company(ledger: &Ledger, victim: &Instance, priority: u32) -> bool {
    let Some(slot) = victim.host().and_then(|host| ledger.slot(host)) else { return false };
    let needs_him =
        |id: InstanceId| ledger.state().instance(id).is_some_and(|one| needs(&Request::of(one), victim));
    ledger.awaited_in(slot).any(|(rank, id)| *rank > priority && needs_him(*id))
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
    victims.sort_unstable_by_key(|victim| own::order(victim));
    victims
}
