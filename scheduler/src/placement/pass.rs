//! The scheduling pass: instances that wait are given hosts, on a snapshot, many at a time. It changes nothing and tells nobody; `State::apply`
//! checks each placement again by the same rule, those of a gang as a whole, and what it refuses is still pending.
//!
//! The most urgent instances are taken first, among them boroughs in turn (`fair`) and of each borough the oldest, and each gets the best host that is
//! left, as far as its borough's quota goes (`state::quota`). What one takes, the next one misses. What waits (`queue`), what hosts have (`ledger`) and in which order they are good for which shape of instance (`shapes`) is
//! kept by an [`Engine`] from pass to pass and repaired by what changed, so that a pass costs what it decides: neither what the estate holds nor
//! what waits in vain. What an engine knows from before never changes what it decides: [`pass`], which begins with a new one, decides
//! the same; a test compares.
//!
//! A gang gets hosts for all of it or for none (`state::gang`): it is given them one after the other, and what was given is taken back where one finds none. Then others may make
//! way for all of it.
//!
//! What fits nowhere may displace what is less urgent (`preempting`), and what its borough's quota keeps what is less urgent of its borough; it is placed once that is
//! gone. What only waits for what is stopping anyway is promised what it needs of its quota for the pass, so that nothing less urgent is given that.
//!
//! Deliberately absent: moving what already runs.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use supercloud_proto::{
    amount::Amounts,
    id::{HostId, InstanceId, UnixMillis},
    name::WorkloadKey,
};

pub use super::queue::{Unplaced, Why};
use super::{
    fair::{Boroughs, Number},
    ledger::{CaughtUp, Ledger, Slot},
    preempting::{Preempting, Room, RoomForAll, Seeker, is_worth_waiting, is_worth_waiting_for_all},
    queue::{Line, Progress, Queue},
    shapes::Shapes,
};
use crate::state::{
    Placement, Preemption, RevisionRecord, State,
    demand::demand,
    fits::{Request, held_slots},
    level::{FIFTH, FOURTH, SIXTH},
    preempt::{MANY_FAILURES, has_claim, has_claim_for, overdraft},
};

/// Most placements of one pass: so many fit into one log entry of about half a MiB, and apply is done with them in some tens of milliseconds.
pub const MAX_PLACEMENTS: usize = 10_000;
/// Most cases of one pass in which others make way: each is looked for on many hosts.
pub const MAX_PREEMPTIONS: usize = 1_000;

/// How much one pass may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most placements, at most [`MAX_PLACEMENTS`]; the last gang may go beyond.
    pub placements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { placements: MAX_PLACEMENTS }
    }
}

/// What a pass proposes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order in which they were decided; to be applied in this order.
    pub placements: Vec<Placement>,
    /// Where among the placements those of each gang are: they hold only together.
    pub gangs: Vec<Range<usize>>,
    /// What makes way for instances that found no host, in the order in which it was decided; to be applied in this order, after the placements.
    pub preemptions: Vec<Preemption>,
    /// Where among these those of each gang are: they hold only together.
    pub displacing_gangs: Vec<Range<usize>>,
    /// What was looked at and is kept by its borough's quota or found no host, by revision, most urgent first. What is known from before to get none is
    /// not looked at.
    pub unplaced: Vec<Unplaced>,
    /// The earliest time at which an instance may be placed that has to wait for its time.
    pub next_wake: Option<UnixMillis>,
    /// The limit was reached, and what is not mentioned here was not looked at; or what is proposed may let others in: run another pass once this plan is applied.
    pub more: bool,
}

/// Gives hosts to the instances that wait and whose time has come.
pub fn pass(state: &State, now: UnixMillis, limits: Limits) -> Plan {
    Engine::new(state).pass(state, now, limits)
}

/// What is kept from pass to pass. Costs for each host what is given away of it, for each instance that waits its id, and see `shapes`.
pub struct Engine {
    ledger: Ledger,
    boroughs: Boroughs,
    queue: Queue,
    shapes: Shapes,
    preempting: Preempting,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // All that it knows would be pages; what it decides does not depend on it.
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Knows the hosts of this state and what waits in it.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut boroughs = Boroughs::default();
        let queue = Queue::new(state, &mut boroughs);
        let (ledger, shapes, preempting) = (Ledger::new(state), Shapes::default(), Preempting::default());
        Self { ledger, boroughs, queue, shapes, preempting }
    }

    /// A pass on this state, which is of the same cluster as that of the pass before and mostly newer, at a time that is not earlier.
    pub fn pass(&mut self, state: &State, now: UnixMillis, limits: Limits) -> Plan {
        self.catch_up(state, now);
        let plan = self.decide(now, limits);
        self.ledger.claimed().for_each(|(borough, hosts)| self.boroughs.keep_hosts(borough, hosts));
        self.ledger.rest();
        self.shapes.rest();
        self.preempting.rest();
        plan
    }

    /// All that is known to get no host, most urgent first.
    #[must_use]
    pub fn unplaced(&self) -> Vec<Unplaced> {
        self.queue.unplaced(&self.boroughs)
    }

    fn catch_up(&mut self, state: &State, now: UnixMillis) {
        // What fits nowhere may displace others once every member knows that. By another policy of a site its hosts bear more or less, and are as good as
        // they were not; that is seldom.
        let known = self.ledger.state();
        let is_of_sites = !state.sites().ptr_eq(known.sites()) && state.sites() != known.sites();
        if state.applied() < known.applied() || state.level() != known.level() || is_of_sites {
            *self = Self::new(state);
        }
        let waiting = state.pending_since(self.ledger.state());
        let moved_out = state.moved_out_since(self.ledger.state());
        self.boroughs.touch(state.boroughs_changed_since(self.ledger.state()));
        self.queue.catch_up(state, &waiting, &mut self.boroughs);
        self.queue.move_out(state, &moved_out, &mut self.boroughs);
        self.queue.ripen(state, now, &mut self.boroughs);
        let caught_up = self.ledger.catch_up(state);
        if caught_up == CaughtUp::Anew || self.ledger.is_renumbered() {
            self.shapes = Shapes::default();
        }
        if caught_up == CaughtUp::Anew {
            self.preempting.begin_anew();
        }
        let mut shift = self.boroughs.catch_up(state, self.ledger.whole(), self.ledger.largest());
        let unkept = self.ledger.take_unkept();
        shift.own.extend(unkept.iter().filter_map(|borough| self.boroughs.known(borough)));
        self.queue.wake(&self.ledger, &caught_up, &self.boroughs, &shift, &moved_out);
        self.queue.admit(&self.boroughs, &shift.roomier);
    }

    fn decide(&mut self, now: UnixMillis, limits: Limits) -> Plan {
        debug_assert!(self.queue.next_wake().is_none_or(|at| at > now), "its time had come");
        let mut plan = Plan { next_wake: self.queue.next_wake(), ..Plan::default() };
        let (mut progress, mut held) = (Progress::default(), Held::default());
        // Lines for which others were found that make way in this pass.
        let mut making = BTreeSet::new();
        while let Some((line, id)) = self.queue.next(&mut progress, &self.boroughs) {
            let record = self.queue.record(line).clone();
            let is_gang = record.spec.place.all_or_none;
            if is_gang && self.is_held_up(line, &mut held) {
                self.queue.pass_over(line);
                continue;
            }
            if !is_gang && held.holds(self.ledger.state(), &record, id) {
                // The report that it is gone is a change of the state, and brings another pass.
                continue;
            }
            let is_full = plan.placements.len() >= limits.placements.min(MAX_PLACEMENTS);
            let (borough, demand) = self.queue.charge(line);
            let is_charged = self.queue.are_awaited(line);
            let is_let_in = self.is_let_in((line, id), borough, is_charged);
            // Placements come into the state before what makes way, which has to be right then.
            let may_belie = !is_charged && self.boroughs.may_belie_claims(borough, demand);
            if is_full || plan.preemptions.len() >= MAX_PREEMPTIONS {
                plan.more = true;
                break;
            }
            // What a pass gives is not given back in it: what its quota keeps, or what found no host, fares no better later. What is awaited is charged already.
            let kept = is_charged.then(|| self.ledger.kept_for(id)).flatten();
            let is_over = !is_let_in && !is_charged;
            // Nobody makes way for a gang for the quota's sake; what others were to make way for is given up.
            let has_begun = is_gang && !self.queue.awaited(line).is_empty();
            if is_over && has_begun {
                self.settle_gang(RoomForAll::Unsure, line, &mut progress, &mut plan);
                continue;
            }
            if is_over && (is_gang || !self.would_yield(line, (borough, demand))) {
                plan.unplaced.push(self.queue.keep(line, id));
                continue;
            }
            if is_gang
                && (self.gang_must_stay(line) || may_belie && is_let_in && self.gang_would_go(line, &record))
            {
                plan.more = true;
                break;
            }
            if is_gang {
                self.serve_gang(line, is_let_in, &mut progress, &mut plan);
                continue;
            }
            if is_let_in
                && (self.must_stay((&record, id), kept) || may_belie && self.would_go((&record, id), kept))
            {
                plan.more = true;
                break;
            }
            if is_let_in && let Some(placement) = self.shapes.place(&mut self.ledger, &record, id, kept) {
                if is_charged {
                    self.boroughs.settle(borough, record.spec.priority, demand);
                } else {
                    self.boroughs.give(borough, demand);
                    self.boroughs.give_devices(borough, &record.spec.resources.devices, 1);
                }
                let host = placement.host;
                plan.placements.push(placement);
                self.queue.note_given(&mut progress, line, id);
                if is_charged {
                    self.let_others_have(&mut progress, (line, id), &[(id, host)]);
                    // What is kept for it is kept against others to the end of the pass.
                    plan.more = true;
                }
                continue;
            }
            let room = match (has_given_up(&plan), is_charged) {
                (true, true) => Room::Awaited,
                (true, false) => Room::Leaving,
                (false, _) => self.make_room((line, id), kept, is_let_in),
            };
            let is_made = matches!(room, Room::Made(_));
            self.settle(room, (line, id), &mut plan, &mut making);
            if is_made {
                let made = &plan.preemptions[plan.preemptions.len() - 1..];
                self.queue.note_made(&mut progress, &self.ledger, &self.boroughs, (line, id), made);
            }
        }
        plan.more |= self.queue.has_passed() || !plan.preemptions.is_empty();
        plan
    }

    /// Whether somebody of a gang must wait for who holds its slot.
    fn is_held_up(&self, line: Line, held: &mut Held) -> bool {
        let (state, record) = (self.ledger.state(), self.queue.record(line));
        record.spec.is_exclusive() && self.queue.members(line).iter().any(|id| held.holds(state, record, *id))
    }

    /// Gives all of a gang hosts, or none of them; where some find none, others may make way for all.
    fn serve_gang(&mut self, line: Line, is_let_in: bool, progress: &mut Progress, plan: &mut Plan) {
        let (record, members) = (self.queue.record(line).clone(), self.queue.members(line));
        let found = is_let_in.then(|| self.shapes.place_all(&mut self.ledger, &record, &members));
        let missing = match found {
            Some(Ok(placements)) => {
                self.count_gang_given(line, &record);
                let given: Vec<_> = placements.iter().map(|given| (given.instance, given.host)).collect();
                let begin = plan.placements.len();
                plan.placements.extend(placements);
                plan.gangs.push(begin..plan.placements.len());
                members.iter().for_each(|id| self.queue.note_given(progress, line, *id));
                self.queue.pass_over(line);
                plan.more |= !self.queue.awaited(line).is_empty();
                self.let_others_have(progress, (line, members[0]), &given);
                return;
            }
            Some(Err(fitting)) => members.len() - fitting,
            None => members.len(),
        };
        // Who takes the place of one that makes way is of the gang, too, and others make way for all of it or for nobody.
        let must_wait = has_given_up(plan) || self.loses_somebody(&record);
        let room = match (must_wait, self.queue.awaited(line).is_empty()) {
            (true, false) => RoomForAll::Awaited,
            (true, true) => RoomForAll::Unsure,
            (false, _) => {
                match self.make_room_for_gang(line, &record, &members, is_let_in) {
                    // What is awaited there and less urgent takes room from who displaces others, and not from who is placed.
                    Some(RoomForAll::Short(others)) => RoomForAll::Short(others.min(missing)),
                    room => room.unwrap_or(RoomForAll::Short(missing)),
                }
            }
        };
        self.settle_gang(room, line, progress, plan);
    }

    /// Whether an instance would go elsewhere than where room is kept for it, and whom others displace there in this pass, they do beside that: then it goes in the next, and what comes
    /// after it, too, so that nothing less urgent takes that.
    fn must_stay(&mut self, (record, id): (&Arc<RevisionRecord>, InstanceId), kept: Option<Slot>) -> bool {
        let Some(slot) = kept.filter(|slot| self.ledger.loses_somebody(*slot)) else { return false };
        let taken = self.shapes.would_take(&mut self.ledger, record, id, kept);
        taken.is_some_and(|other| other != slot)
    }

    /// Whether a pass would give an instance a host now.
    fn would_go(&mut self, (record, id): (&Arc<RevisionRecord>, InstanceId), kept: Option<Slot>) -> bool {
        self.shapes.would_take(&mut self.ledger, record, id, kept).is_some()
    }

    /// The same for all of a gang.
    fn gang_would_go(&mut self, line: Line, record: &Arc<RevisionRecord>) -> bool {
        self.shapes.would_take_all(&mut self.ledger, record, &self.queue.members(line))
    }

    /// Whether a gang must stay, which may go elsewhere than where room is kept for some of it.
    fn gang_must_stay(&self, line: Line) -> bool {
        let kept = self.queue.awaited(line).iter().filter_map(|id| self.ledger.kept_for(*id));
        kept.into_iter().any(|slot| self.ledger.loses_somebody(slot))
    }

    /// Whether somebody of a workload is to make way, as was decided in this pass.
    fn loses_somebody(&self, record: &RevisionRecord) -> bool {
        self.ledger.state().instances_of(&record.key).any(|one| self.ledger.is_doomed(one.id))
    }

    /// Lets others have the room that is kept for those of a line that were given some elsewhere.
    fn let_others_have(
        &mut self,
        progress: &mut Progress,
        turn: (Line, InstanceId),
        given: &[(InstanceId, HostId)],
    ) {
        let left = given.iter().filter_map(|(id, host)| self.ledger.keep_no_more(*id, *host));
        let left: BTreeSet<HostId> = left.collect();
        if !left.is_empty() {
            // Nobody there is their company any more.
            let losers = BTreeSet::from([self.queue.charge(turn.0).0]);
            self.queue.note_room(progress, &self.ledger, &self.boroughs, turn, &left, &losers);
        }
    }

    /// Counts what a gang is given, of which some may be charged already.
    fn count_gang_given(&mut self, line: Line, record: &RevisionRecord) {
        let (borough, uncharged) = self.queue.charge(line);
        self.boroughs.give(borough, uncharged);
        let (count, awaited) = (self.queue.members(line).len(), self.queue.awaited(line).len());
        self.boroughs.give_devices(borough, &record.spec.resources.devices, count - awaited);
        let each = demand(&record.spec);
        self.boroughs.settle(borough, record.spec.priority, each.times(awaited as u64));
    }

    /// Lets others make way for all of a gang; nothing where nobody may.
    fn make_room_for_gang(
        &mut self,
        line: Line,
        record: &RevisionRecord,
        members: &[InstanceId],
        is_let_in: bool,
    ) -> Option<RoomForAll> {
        let Self { ledger, boroughs, preempting, queue, .. } = self;
        let request = Request::new(&record.key, &record.spec);
        let is_borne = || overdraft(&request, true, ledger.state().level(), &*boroughs) == Amounts::default();
        if queue.are_awaited(line) && is_borne() && is_worth_waiting_for_all(ledger, record, members) {
            return Some(RoomForAll::Awaited);
        }
        if !is_let_in {
            return Some(RoomForAll::Unsure);
        }
        let has_claim = has_claim_for(&request, members.len(), boroughs);
        let somebody_goes = has_claim || !boroughs.nobody_goes(record.spec.priority);
        let may_displace =
            |id: &InstanceId| ledger.state().instance(*id).is_some_and(|one| one.failures() < MANY_FAILURES);
        let is_displacing =
            ledger.state().level() >= SIXTH && somebody_goes && members.iter().all(may_displace);
        is_displacing.then(|| preempting.make_room_for_all(ledger, boroughs, record, members))
    }

    /// Takes down what becomes of a gang of which some fit nowhere.
    fn settle_gang(&mut self, room: RoomForAll, line: Line, progress: &mut Progress, plan: &mut Plan) {
        let Some(first) = self.queue.members(line).first().copied() else { return };
        let awaited = self.queue.awaited(line);
        match room {
            RoomForAll::Awaited => self.queue.pass_over(line),
            RoomForAll::Made(made) => {
                let (borough, uncharged) = self.queue.charge(line);
                let spec = &self.queue.record(line).spec;
                self.boroughs.charge(borough, spec.priority, uncharged);
                self.boroughs.give_devices(borough, &spec.resources.devices, made.len() - awaited.len());
                self.queue.pass_over(line);
                self.queue.note_made(progress, &self.ledger, &self.boroughs, (line, first), &made);
                let begin = plan.preemptions.len();
                plan.preemptions.extend(made);
                plan.displacing_gangs.push(begin..plan.preemptions.len());
            }
            // What was to make way for them is no help any more, or not for those who joined them.
            _ if !awaited.is_empty() => {
                let ended = awaited.iter().filter_map(|id| {
                    let before = self.ledger.state().instance(*id)?.awaited_host();
                    Some(Preemption { instance: *id, before, host: None, victims: Vec::new() })
                });
                plan.preemptions.extend(ended);
                plan.unplaced.push(self.queue.leave(line, first, &self.boroughs));
            }
            RoomForAll::Coming => {
                let (borough, demand) = self.queue.charge(line);
                self.boroughs.promise(borough, self.queue.record(line).spec.priority, demand);
                plan.unplaced.push(self.queue.leave(line, first, &self.boroughs));
            }
            RoomForAll::Taken | RoomForAll::Unsure => {
                plan.unplaced.push(self.queue.leave(line, first, &self.boroughs));
            }
            // What was placed in this pass makes way for nobody in it, and may for these in the next.
            RoomForAll::Short(_) if !plan.placements.is_empty() && self.gang_has_claim(line) => {
                plan.unplaced.push(self.queue.leave(line, first, &self.boroughs));
                plan.more = true;
            }
            RoomForAll::Short(missing) => {
                plan.unplaced.extend(self.queue.stick_gang(line, missing, &self.boroughs));
            }
        }
    }

    /// Whether others make way for a gang whatever their priority, since it is guaranteed to its borough.
    fn gang_has_claim(&self, line: Line) -> bool {
        let (record, count) = (self.queue.record(line), self.queue.members(line).len());
        let request = Request::new(&record.key, &record.spec);
        self.ledger.state().level() >= SIXTH && has_claim_for(&request, count, &self.boroughs)
    }

    /// Takes down what becomes of an instance that fits nowhere, and what with that of its line.
    fn settle(
        &mut self,
        room: Room,
        (line, id): (Line, InstanceId),
        plan: &mut Plan,
        making: &mut BTreeSet<Line>,
    ) {
        let is_charged = self.queue.are_awaited(line);
        match room {
            Room::Awaited => {}
            Room::Made(preemption) => {
                making.insert(line);
                if !is_charged {
                    let (borough, demand) = self.queue.charge(line);
                    let spec = &self.queue.record(line).spec;
                    self.boroughs.charge(borough, spec.priority, demand);
                    self.boroughs.give_devices(borough, &spec.resources.devices, 1);
                }
                plan.preemptions.push(preemption);
            }
            // What was to make way for it is no help any more. It stays in the accounts to the end of the pass: what is placed after it in the pass comes into the state before its
            // wait ends, and would be refused if it went by that.
            Room::Coming | Room::Leaving | Room::Taken | Room::Nowhere if is_charged => {
                let before = self.ledger.state().instance(id).and_then(|instance| instance.awaited_host());
                let (host, victims) = (None, Vec::new());
                plan.preemptions.push(Preemption { instance: id, before, host, victims });
            }
            // It, or one of its line, is looked at again in the next pass.
            Room::Coming => {
                making.insert(line);
                plan.unplaced.push(self.queue.wait(line, id));
            }
            Room::Leaving | Room::Taken => plan.unplaced.push(self.queue.leave(line, id, &self.boroughs)),
            Room::Nowhere if making.contains(&line) => {
                plan.unplaced.push(self.queue.leave(line, id, &self.boroughs));
            }
            // What was placed in this pass makes way for nobody in it, and may for this one in the next.
            Room::Nowhere if !plan.placements.is_empty() && self.has_claim(line) => {
                plan.unplaced.push(self.queue.leave(line, id, &self.boroughs));
                plan.more = true;
            }
            Room::Nowhere => plan.unplaced.push(self.queue.stick(line, id, &self.boroughs)),
        }
    }

    /// Whether others make way for an instance of a line whatever their priority, since it is guaranteed to its borough.
    fn has_claim(&self, line: Line) -> bool {
        let record = self.queue.record(line);
        let request = Request::new(&record.key, &record.spec);
        self.ledger.state().level() >= FOURTH && has_claim(&request, &self.boroughs)
    }

    /// Whether its borough's quota bears the next one of a line on a host. What room was made for is charged, and waits until what it displaced has left the quota.
    fn is_let_in(&self, (line, id): (Line, InstanceId), borough: Number, is_charged: bool) -> bool {
        let priority = self.queue.record(line).spec.priority;
        if is_charged {
            let demand = self.queue.demand(line);
            let awaited = self.ledger.state().instance(id).and_then(|instance| instance.awaited());
            let rank = awaited.map_or(priority, |awaited| awaited.rank);
            self.ledger.state().level() < FIFTH || self.boroughs.bears(borough, priority, rank, demand)
        } else {
            self.boroughs.admits(borough, priority, self.queue.charge(line).1)
        }
    }

    /// Whether less urgent work of its borough may make way for one of a line, for the quota's sake.
    fn would_yield(&self, line: Line, (borough, demand): (Number, Amounts)) -> bool {
        self.boroughs.would_yield(borough, self.queue.record(line).spec.priority, demand)
    }

    /// Lets others make way for an instance that fits nowhere, or is not let in by its borough's quota.
    fn make_room(&mut self, (line, id): (Line, InstanceId), kept: Option<Slot>, is_let_in: bool) -> Room {
        let level = self.ledger.state().level();
        if level < FOURTH {
            return Room::Nowhere;
        }
        let record = self.queue.record(line).clone();
        let request = Request { instance: Some(id), ..Request::new(&record.key, &record.spec) };
        let is_awaited = self.queue.are_awaited(line);
        let overdraft = overdraft(&request, is_awaited, level, &self.boroughs);
        let is_borne = overdraft == Amounts::default();
        let ((borough, demand), priority) = (self.queue.charge(line), record.spec.priority);
        // What leaves is for whoever comes first: nobody makes way who would not once he is served.
        if !is_borne && self.boroughs.has_promised_above(borough, priority) {
            return Room::Taken;
        }
        let waits_for_quota = is_borne && !is_let_in && !is_awaited;
        if waits_for_quota && self.boroughs.has_promised_all(borough, priority) {
            return Room::Leaving;
        }
        if kept.is_some_and(|slot| is_borne && is_worth_waiting(&self.ledger, slot, &request)) {
            return Room::Awaited;
        }
        // The quota alone may keep it from a host.
        let open = if is_let_in && is_borne {
            None
        } else {
            self.shapes.would_take(&mut self.ledger, &record, id, kept)
        };
        let room = if open.is_some() && waits_for_quota {
            Room::Leaving
        } else if open.is_some() && is_borne {
            // Whoever is charged stays so until what was displaced for it has left the quota, wherever it goes then.
            Room::Awaited
        } else {
            let seeker = Seeker { record: &record, id, overdraft, open };
            self.preempting.make_room(&mut self.ledger, &mut self.boroughs, &seeker)
        };
        // Who is charged is counted as such to the end of the pass.
        if !is_awaited && matches!(room, Room::Leaving | Room::Coming) {
            self.boroughs.promise(borough, priority, demand);
        }
        room
    }
}

/// Whether room is given up by a plan that was kept. It counts as kept until the plan is applied: whoever comes after it would have others make way who need not.
fn has_given_up(plan: &Plan) -> bool {
    plan.preemptions.last().is_some_and(|made| made.host.is_none())
}

/// Slots of exclusive workloads whose instances may still run, and so must not be placed a second time.
#[derive(Default)]
struct Held {
    slots: HashMap<WorkloadKey, BTreeSet<u32>>,
}

impl Held {
    fn holds(&mut self, state: &State, record: &Arc<RevisionRecord>, id: InstanceId) -> bool {
        if !record.spec.is_exclusive() {
            return false;
        }
        let Some(instance) = state.instance(id) else { return false };
        if !self.slots.contains_key(&record.key) {
            self.slots.insert(record.key.clone(), held_slots(state, &record.key));
        }
        self.slots[&record.key].contains(&instance.slot)
    }
}
