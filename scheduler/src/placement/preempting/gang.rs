//! Room for all of a gang, or for none of it: the choice. The rule is `state::preempt::gang`.
//!
//! One after the other is given the host on which it costs the least that one more of the gang finds room there beside those that were given theirs before, hosts with room as
//! they are before all others, and of these the first, so that few hosts are kept. Then whoever is not needed for its host after all is left out. So nobody makes way who could stay
//! with those hosts; with others fewer might: which hosts a gang takes together is not searched for. One that could have room for all is given it, but where whom the first ones
//! displace is missing to its borough's guarantee for those that come after. The cost is that of the choice for a single instance.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet},
    iter,
    sync::Arc,
};

use supercloud_proto::{amount::Amounts, id::InstanceId, spec::WorkloadSpec};

use super::{
    Cost, Looked, MORE, Preempting, Sought, as_if_answering, at_least,
    own::{self, charged},
    spares::Spares,
};
use crate::{
    placement::{
        fair::Boroughs,
        ledger::{Ledger, Slot},
    },
    state::{
        HostUse, Instance, Preemption, RevisionRecord,
        fits::{Candidate, Request},
        gang::Together,
        preempt::{
            are_spare,
            gang::{MOST_VICTIMS_FOR_GANG, are_too_many, with_all, with_most},
            has_claim_for, may_make_way,
        },
    },
};

/// What becomes of a gang of which some fit nowhere.
pub(in crate::placement) enum RoomForAll {
    /// Others are making way for it already.
    Awaited,
    /// What is stopping already leaves room for all, which is kept for them in this pass.
    Coming,
    /// There may be room where it is kept for others in this pass.
    Taken,
    /// These make way, for each of the gang with its host.
    Made(Vec<Preemption>),
    /// For so many there is no room, whoever makes way.
    Short(usize),
    /// There is none now; whether there is goes by what else makes way.
    Unsure,
}

/// What goes to one host.
#[derive(Default)]
struct Share {
    members: Vec<InstanceId>,
    victims: Vec<InstanceId>,
}

/// The search, as far as it has come.
struct Parts<'s> {
    ledger: &'s Ledger,
    record: &'s RevisionRecord,
    /// All of the gang, in order.
    ids: &'s [InstanceId],
    has_claim: bool,
    /// What boroughs have without those that make way.
    boroughs: Boroughs,
    /// How many more of a workload may be missing then.
    spares: Spares,
    promised: &'s HashSet<Slot>,
    has_passed_over: bool,
    /// Whether somebody makes way whose borough has a guarantee.
    takes_of_guaranteed: bool,
    shares: BTreeMap<Slot, Share>,
    /// Slots that the borough would begin to keep to itself.
    claimed: BTreeSet<Slot>,
}

impl Preempting {
    /// Makes room for all of a gang, or says why there is none, and keeps it in the ledger.
    pub(in crate::placement) fn make_room_for_all(
        &mut self,
        ledger: &mut Ledger,
        boroughs: &mut Boroughs,
        record: &RevisionRecord,
        ids: &[InstanceId],
    ) -> RoomForAll {
        let shares = match self.shares(ledger, boroughs, record, ids) {
            Ok(shares) => shares,
            Err(room) => return room,
        };
        let request = Request::new(&record.key, &record.spec);
        let gone: Vec<Arc<Instance>> = {
            let ids = shares.values().flat_map(|share| share.victims.iter().copied());
            ledger.state().instances_by(ids).cloned().collect()
        };
        if gone.is_empty() {
            for (slot, share) in &shares {
                self.promised.insert(*slot);
                share.members.iter().for_each(|id| ledger.keep(*slot, record.spec.priority, *id, &[]));
            }
            return RoomForAll::Coming;
        }
        let together = Together::of(ledger.state(), ids.iter().copied());
        let rank = self.send_away(ledger, boroughs, &request, together, &gone);
        let mut made = Vec::new();
        for (slot, Share { members, mut victims }) in shares {
            let host = Some(ledger.candidate(slot).host.id);
            for id in members {
                let victims = std::mem::take(&mut victims);
                ledger.keep(slot, rank, id, &victims);
                let before = ledger.state().instance(id).and_then(|instance| instance.awaited_host());
                self.leave(ledger, slot, before);
                made.push(Preemption { instance: id, before, host, victims });
            }
        }
        RoomForAll::Made(made)
    }

    /// What goes to which host.
    fn shares(
        &self,
        ledger: &Ledger,
        boroughs: &Boroughs,
        record: &RevisionRecord,
        ids: &[InstanceId],
    ) -> Result<BTreeMap<Slot, Share>, RoomForAll> {
        let request = Request::new(&record.key, &record.spec);
        let has_claim = has_claim_for(&request, ids.len(), boroughs);
        let mut parts = Parts {
            ledger,
            record,
            ids,
            has_claim,
            boroughs: boroughs.clone(),
            spares: self.spares.clone(),
            promised: &self.promised,
            has_passed_over: false,
            takes_of_guaranteed: false,
            shares: BTreeMap::new(),
            claimed: BTreeSet::new(),
        };
        let missing = parts.give_all();
        parts.leave_out_needless();
        let gone: usize = parts.shares.values().map(|share| share.victims.len()).sum();
        match missing {
            0 if gone <= MOST_VICTIMS_FOR_GANG => Ok(parts.shares),
            0 => Err(RoomForAll::Short(1)),
            _ if parts.has_passed_over => Err(RoomForAll::Taken),
            _ if parts.takes_of_guaranteed => Err(parts.with_each_gone(boroughs)),
            missing => Err(RoomForAll::Short(missing)),
        }
    }
}

/// Whether no choice of hosts, and of what is given on them, has room for more of a gang than another one: each host takes so many, whoever goes elsewhere. Hosts that a borough keeps to
/// itself are so many in all, and where one with volumes fits is no other's home. Where several parts of devices are asked for at once, one choice can leave more than
/// another; whole ones, and single parts, are as good as any other.
pub(in crate::placement) fn is_host_by_host(spec: &WorkloadSpec) -> bool {
    let mut devices = spec.resources.devices.iter();
    let is_any_as_good = devices.all(|asked| asked.count == 1 || asked.is_whole());
    is_any_as_good && !spec.place.private && !spec.has_volumes()
}

impl Parts<'_> {
    /// Why there is no room for all, where whom the first ones displaced may be missing to the guarantees of their boroughs for the others: for more than find room with all gone who
    /// may go by themselves there is none.
    fn with_each_gone(&self, boroughs: &Boroughs) -> RoomForAll {
        let Self { ledger, record, ids, has_claim, .. } = *self;
        let request = Request::new(&record.key, &record.spec);
        let may_go = |victim: &Instance| {
            may_make_way(victim, &request, has_claim) && are_spare(iter::once(victim), &request, boroughs)
        };
        let is_gone = |id: InstanceId| {
            ledger.is_doomed(id) || ledger.state().instance(id).is_some_and(|victim| may_go(victim))
        };
        let sought = self.sought(&request);
        let mut rest = instances(ledger, ids);
        for slot in ledger.slots().filter(|slot| sought.suits(*slot)) {
            let candidate = ledger.candidate_for(slot, &request);
            if at_least(&candidate, &request, has_claim, true).is_some() {
                let most = if record.spec.place.distinct_hosts { 1 } else { rest.len() };
                let asks = |id: InstanceId| ids.binary_search(&id).is_ok();
                let (there, _) = with_most(&candidate, &rest[..most], asks, is_gone);
                rest.truncate(rest.len() - there);
            }
            if rest.is_empty() {
                return RoomForAll::Unsure;
            }
        }
        RoomForAll::Short(rest.len())
    }

    /// Gives one after the other a host. Says how many find none.
    fn give_all(&mut self) -> usize {
        let mut hosts = None;
        for (given, id) in self.ids.iter().enumerate() {
            let is_given = match self.ledger.home(self.record, *id) {
                Some(home) => self.give_home(*id, home),
                None => {
                    let hosts = hosts.get_or_insert_with(|| self.hosts());
                    self.give(*id, hosts)
                }
            };
            if !is_given {
                return self.ids.len() - given;
            }
        }
        0
    }

    /// The hosts on which there may be room for one more, with what that costs at least.
    fn hosts(&mut self) -> BinaryHeap<Reverse<Looked>> {
        let request = Request::new(&self.record.key, &self.record.spec);
        let sought = self.sought(&request);
        let mut hosts = sought.hosts(Cost::default(), true);
        let is_promised = |host: &Looked| self.promised.contains(&host.slot);
        self.has_passed_over |= !self.promised.is_empty()
            && hosts.iter().any(|Reverse(host)| is_promised(host) && sought.suits(host.slot));
        hosts.retain(|Reverse(host)| !is_promised(host));
        hosts
    }

    /// Gives one the host on which that costs the least.
    fn give(&mut self, id: InstanceId, hosts: &mut BinaryHeap<Reverse<Looked>>) -> bool {
        let is_alone = self.record.spec.place.distinct_hosts || self.record.spec.has_volumes();
        while let Some(best) = self.cheapest(id, hosts) {
            let slot = best.slot;
            if self.take(id, best) {
                if !is_alone {
                    hosts.push(Reverse(Looked { cost: Cost::default(), slot, victims: Vec::new() }));
                }
                return true;
            }
        }
        false
    }

    fn give_home(&mut self, id: InstanceId, home: Slot) -> bool {
        if self.promised.contains(&home) {
            self.has_passed_over = true;
            return false;
        }
        let looked = self.look(id, home).filter(|_| self.ledger.is_taken(home));
        looked.is_some_and(|looked| self.take(id, looked))
    }

    /// The host with the cheapest choice for one more. Where there is no room for this one, there is none for the next either.
    fn cheapest(&mut self, id: InstanceId, hosts: &mut BinaryHeap<Reverse<Looked>>) -> Option<Looked> {
        let mut found: BinaryHeap<Reverse<Looked>> = BinaryHeap::new();
        let mut more = 0;
        while let Some(Reverse(next)) = hosts.pop() {
            let is_enough = |Reverse(best): &Reverse<Looked>| *best < next || more == MORE;
            if found.peek().is_some_and(is_enough) {
                hosts.push(Reverse(next));
                break;
            }
            more += usize::from(!found.is_empty());
            found.extend(self.look(id, next.slot).map(Reverse));
        }
        let Reverse(best) = found.pop()?;
        // What others cost now, they cost at least.
        hosts
            .extend(found.into_iter().map(|Reverse(other)| Reverse(Looked { victims: Vec::new(), ..other })));
        Some(best)
    }

    /// The cheapest choice for one more on a host.
    fn look(&mut self, id: InstanceId, slot: Slot) -> Option<Looked> {
        let mut spares = std::mem::take(&mut self.spares);
        let looked = self.look_with(id, slot, &mut spares);
        self.spares = spares;
        looked
    }

    fn look_with(&self, id: InstanceId, slot: Slot, spares: &mut Spares) -> Option<Looked> {
        let request = Request { instance: Some(id), ..Request::new(&self.record.key, &self.record.spec) };
        let candidate = self.ledger.candidate_beside(slot, &request, &self.claimed);
        if !candidate.suits(&request) {
            return None;
        }
        let later = self.later(&candidate, self.shares.get(&slot))?;
        self.sought(&request).look_at(slot, candidate, later, spares)
    }

    /// Lets one have a host with those gone whom that takes. Says whether there is room for all then that are to go there: what one is given of cores and devices goes by
    /// who is gone.
    fn take(&mut self, id: InstanceId, looked: Looked) -> bool {
        let Looked { slot, victims, .. } = looked;
        let request = Request { instance: Some(id), ..Request::new(&self.record.key, &self.record.spec) };
        let before = self.shares.remove(&slot).unwrap_or_default();
        let mut share = Share { members: before.members.clone(), victims: before.victims.clone() };
        share.members.push(id);
        share.victims.extend(&victims);
        let is_too_much = are_too_many(share.victims.len(), share.members.len());
        if is_too_much
            || self
                .later(&self.ledger.candidate_beside(slot, &request, &self.claimed), Some(&share))
                .is_none()
        {
            if !before.members.is_empty() {
                self.shares.insert(slot, before);
            }
            return false;
        }
        for victim in self.ledger.state().instances_by(victims.iter().copied()) {
            let borough = &victim.workload().borough;
            self.takes_of_guaranteed |=
                self.boroughs.known(borough).is_some_and(|number| self.boroughs.is_guaranteed(number));
            self.boroughs.make_way(borough, victim.spec().priority, charged(victim));
            self.spares.count_gone(victim.workload());
        }
        if self.record.spec.place.private && self.ledger.would_claim(slot, &self.record.key.borough) {
            self.claimed.insert(slot);
        }
        self.shares.insert(slot, share);
        true
    }

    /// Leaves out those that are not needed, since others that went later leave enough: of these first who holds its room most firmly.
    fn leave_out_needless(&mut self) {
        let request = Request::new(&self.record.key, &self.record.spec);
        let mut shares = std::mem::take(&mut self.shares);
        for (slot, share) in &mut shares {
            let candidate = self.ledger.candidate_beside(*slot, &request, &self.claimed);
            let mut victims: Vec<_> =
                self.ledger.state().instances_by(share.victims.iter().copied()).collect();
            victims.sort_unstable_by_key(|victim| Reverse(own::order(victim)));
            share.victims = victims.into_iter().map(|victim| victim.id).collect();
            while self.leaves_out(&candidate, share) {}
        }
        self.shares = shares;
    }

    /// Leaves out whoever need not go, one after the other. Says whether that is anybody: with fewer gone another one may be needless that was not.
    fn leaves_out(&self, candidate: &Candidate<'_>, share: &mut Share) -> bool {
        let before = share.victims.len();
        let mut place = 0;
        while place < share.victims.len() {
            let victim = share.victims.remove(place);
            if self.later(candidate, Some(share)).is_none() {
                share.victims.insert(place, victim);
                place += 1;
            }
        }
        share.victims.len() < before
    }

    /// What will be given away of a host with its share of the gang there; `None`: there is no room for that.
    fn later(&self, candidate: &Candidate<'_>, share: Option<&Share>) -> Option<HostUse> {
        let nobody = Share::default();
        let share = share.unwrap_or(&nobody);
        let members = instances(self.ledger, &share.members);
        let is_doomed = |id: InstanceId| self.ledger.is_doomed(id) || share.victims.contains(&id);
        with_all(candidate, &members, |id| self.ids.binary_search(&id).is_ok(), is_doomed)
    }

    fn sought<'q>(&'q self, request: &'q Request<'q>) -> Sought<'q> {
        let Self { ledger, boroughs, record, has_claim, .. } = self;
        let (overdraft, own) = (Amounts::default(), Vec::new());
        Sought { ledger, boroughs, record, request, has_claim: *has_claim, overdraft, own }
    }
}

/// Whether what is to be gone from the hosts on which room is kept for all of a gang, once it is, leaves room for all.
pub(in crate::placement) fn is_worth_waiting_for_all(
    ledger: &Ledger,
    record: &RevisionRecord,
    ids: &[InstanceId],
) -> bool {
    let request = Request::new(&record.key, &record.spec);
    let mut kept: BTreeMap<Slot, Vec<InstanceId>> = BTreeMap::new();
    for id in ids {
        let Some(slot) = ledger.kept_for(*id) else { return false };
        kept.entry(slot).or_default().push(*id);
    }
    kept.iter().all(|(slot, members)| {
        let candidate = ledger.candidate_for(*slot, &request);
        let host = as_if_answering(candidate.host);
        let candidate = Candidate { host: &host, ..candidate };
        let asks = |id: InstanceId| ids.binary_search(&id).is_ok();
        let members = instances(ledger, members);
        ledger.is_taken(*slot) && with_all(&candidate, &members, asks, |id| ledger.is_doomed(id)).is_some()
    })
}

fn instances<'l>(ledger: &'l Ledger, ids: &[InstanceId]) -> Vec<&'l Instance> {
    ids.iter().filter_map(|id| ledger.state().instance(*id)).map(AsRef::as_ref).collect()
}
