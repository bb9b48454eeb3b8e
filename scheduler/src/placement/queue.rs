//! What waits for a host, kept from pass to pass. Instances of a revision stand in one line, but those whose volumes live somewhere, each in its own. The most urgent are served first, among them boroughs in
//! turn (see `fair`), and of a borough the oldest.
//!
//! A line whose turn found no host is *stuck*: nobody looks at it, however long it is, until something was given back on a host that it
//! would fit then. Lines that need the same are stuck together, so that this is asked once for all of them. A line that its borough's quota does
//! not let in is *kept*, beside those of its borough that are charged as much: nobody looks at it until that borough's account has more room, or enough that is less
//! urgent to make way for it. Where others make way, lines that are stuck or kept and may gain by it are opened in the same pass, as far as their turn is to come. So a pass
//! costs what may have changed, and not what waits. A gang is one line, served as a whole; when somebody joins or leaves it, it is looked at anew.
//!
//! What was made by one entry has ids that follow each other. So instances are kept as *runs*, from a first to a last one: a workload of a
//! thousand costs what one of one does.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    iter::successors,
    sync::Arc,
};

use slab::Slab;
use supercloud_proto::{
    amount::Amounts,
    id::{InstanceId, Revision, UnixMillis},
    name::WorkloadKey,
};

use super::{
    fair::{Boroughs, Number},
    preempting::is_host_by_host,
};
use crate::state::{Instance, RevisionRecord, State, Waiting, demand::demand};
pub(super) use order::Progress;
use waiters::{KeptBy, StuckBy, Waiters};
pub use waiters::{Unplaced, Why};

mod order;
mod waiters;
mod waking;

/// Before and behind all ids.
const FIRST: InstanceId = InstanceId { index: 0, ordinal: 0 };
const LAST: InstanceId = InstanceId { index: u64::MAX, ordinal: u32::MAX };

/// Of one borough and one priority: these are served oldest first.
type Rank = (Reverse<u32>, Number);
/// A place in the order of a rank.
type Place = (Rank, InstanceId);
/// A line's place in the slab.
pub(super) type Line = usize;

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    lines: Slab<Waiters>,
    /// By where a revision's record stands in memory, by whether others make way, and by the slot of what mounts volumes: a line holds on to the record, so
    /// that no other one can come to stand there.
    numbers: HashMap<(usize, bool, Option<u32>), Line>,
    /// Lines of gangs. A scale gives a revision another record, and those that it adds another one than those that wait with them.
    gangs: HashMap<(WorkloadKey, Revision), Line>,
    /// The first of each run, with the last one and the line.
    runs: BTreeMap<InstanceId, (InstanceId, Line)>,
    /// What must not be placed yet.
    later: BTreeSet<(UnixMillis, InstanceId)>,
    times: BTreeMap<InstanceId, UnixMillis>,
    /// Lines to be served, by their places.
    open: BTreeMap<Place, Line>,
    /// Lines that are stuck, by what they need.
    stuck: HashMap<StuckBy, BTreeSet<Line>>,
    /// Open lines of which some have no host yet and are looked at again in the next pass.
    waiting: BTreeSet<Line>,
    /// Those of them that are not looked at again in this pass.
    left: BTreeSet<Line>,
    /// Lines that must be together with a workload, by that workload: where it is given room, they may fit.
    awaiting: HashMap<WorkloadKey, BTreeSet<Line>>,
    /// A workload was given room in this pass after the turn of somebody who awaits it.
    passed: bool,
    /// A gang found no hosts for all of it in this pass, and might with other choices: what is given after it may bring these.
    is_gang_left: bool,
    /// Lines that are kept by their borough's quota, by the borough and what each of them would be charged.
    kept: HashMap<Number, HashMap<KeptBy, BTreeSet<Line>>>,
}

impl Queue {
    /// All that waits in a state.
    pub(super) fn new(state: &State, boroughs: &mut Boroughs) -> Self {
        let mut queue = Self::default();
        queue.catch_up(state, &state.pending_since(&State::default()), boroughs);
        queue
    }

    /// Takes in what began to wait and what no longer does.
    pub(super) fn catch_up(&mut self, state: &State, waiting: &Waiting, boroughs: &mut Boroughs) {
        for (first, last, ()) in runs(waiting.ended.iter().map(|id| (*id, ()))) {
            self.remove(first, last);
        }
        if !self.awaiting.is_empty() {
            let placed = waiting.ended.iter().filter_map(|id| state.instance(*id));
            let arrived: BTreeSet<&WorkloadKey> = placed.map(|instance| instance.workload()).collect();
            let awaiting = arrived.into_iter().flat_map(|key| self.awaiting.get(key).into_iter().flatten());
            for line in awaiting.copied().collect::<Vec<_>>() {
                self.unstick(line);
            }
        }
        (self.passed, self.is_gang_left) = (false, false);
        self.left.clear();
        self.waiting.clear();
        let began = state.instances_by(waiting.began.iter().copied());
        let (now, later): (Vec<_>, Vec<_>) = began.partition(|instance| instance.not_before() == 0);
        for instance in later {
            self.later.insert((instance.not_before(), instance.id));
            self.times.insert(instance.id, instance.not_before());
        }
        self.add(state, now.into_iter(), boroughs);
    }

    /// Puts those in line whose time has come.
    pub(super) fn ripen(&mut self, state: &State, now: UnixMillis, boroughs: &mut Boroughs) {
        while let Some((_, id)) = self.later.first().filter(|(at, _)| *at <= now).copied() {
            self.later.pop_first();
            self.times.remove(&id);
            self.add(state, state.instance(id).into_iter(), boroughs);
        }
    }

    /// The time at which the next one's time comes.
    pub(super) fn next_wake(&self) -> Option<UnixMillis> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Puts those in line with the others of their revision whose volumes live nowhere any more.
    pub(super) fn move_out(&mut self, state: &State, moved: &BTreeSet<WorkloadKey>, boroughs: &mut Boroughs) {
        if moved.is_empty() {
            return;
        }
        let has_moved = |waiters: &Waiters| waiters.slot.is_some() && moved.contains(&waiters.record.key);
        let lines = self.lines.iter().filter(|(_, waiters)| has_moved(waiters));
        // Of a slot only one waits.
        let alone: Vec<InstanceId> = lines.filter_map(|(_, waiters)| waiters.first()).collect();
        for id in alone {
            self.remove(id, id);
            self.add(state, state.instance(id).into_iter(), boroughs);
        }
    }

    fn add<'a>(
        &mut self,
        state: &State,
        instances: impl Iterator<Item = &'a Arc<Instance>>,
        boroughs: &mut Boroughs,
    ) {
        let records = instances.map(|instance| {
            let slot = own_slot(state, instance);
            let beside = (ByPlace(&instance.record), instance.awaited_host().is_some(), slot);
            (instance.id, beside)
        });
        for (first, last, (record, are_awaited, slot)) in runs(records) {
            let line = self.line(record.0, are_awaited, slot, boroughs);
            self.runs.insert(first, (last, line));
            self.open_gang(line);
            let waiters = &mut self.lines[line];
            let is_new = waiters.runs.is_empty();
            waiters.runs.insert(first, last);
            if are_awaited && waiters.is_gang() {
                waiters.awaited.extend(each(first, last));
            }
            let place = waiters.place_of(first);
            if is_new || waiters.place.is_some_and(|old| place < old) {
                if let Some(old) = waiters.place {
                    self.open.remove(&old);
                }
                self.open.insert(place, line);
                waiters.place = Some(place);
            }
        }
    }

    /// The line of a revision, made where it is not there.
    fn line(
        &mut self,
        record: &Arc<RevisionRecord>,
        are_awaited: bool,
        slot: Option<u32>,
        boroughs: &mut Boroughs,
    ) -> Line {
        let Self { lines, awaiting, .. } = self;
        let new_line = || {
            let line = lines.insert(Waiters {
                record: record.clone(),
                are_awaited,
                awaited: BTreeSet::new(),
                slot,
                borough: boroughs.number(&record.key.borough),
                is_guaranteed: false,
                demand: demand(&record.spec),
                is_over: false,
                kept_by: KeptBy::default(),
                missing: 0,
                runs: BTreeMap::new(),
                place: None,
            });
            for key in awaited(record) {
                awaiting.entry(key).or_default().insert(line);
            }
            line
        };
        if record.spec.place.all_or_none {
            return *self.gangs.entry((record.key.clone(), record.revision)).or_insert_with(new_line);
        }
        *self.numbers.entry((Arc::as_ptr(record).addr(), are_awaited, slot)).or_insert_with(new_line)
    }

    /// Takes out all from one to another; what is between them and not here is not missed.
    fn remove(&mut self, first: InstanceId, last: InstanceId) {
        while let Some((at, id)) = self.times.range(first..=last).next().map(|(id, at)| (*at, *id)) {
            self.times.remove(&id);
            self.later.remove(&(at, id));
        }
        while let Some((begin, (end, line))) = self.overlapping(first, last) {
            self.open_gang(line);
            self.runs.remove(&begin);
            self.lines[line].runs.remove(&begin);
            self.lines[line].awaited.retain(|id| !(first..=last).contains(id));
            if let Some(before) = first.before().filter(|before| begin <= *before) {
                self.put_run(begin, before, line);
            }
            if let Some(after) = last.after().filter(|after| *after <= end) {
                self.put_run(after, end, line);
            }
            if self.lines[line].runs.is_empty() {
                self.drop_line(line);
            } else {
                self.keep_place(line);
            }
        }
    }

    /// Puts an open line where its first instance now stands: who has gone may come to stand in another line.
    fn keep_place(&mut self, line: Line) {
        let waiters = &mut self.lines[line];
        if let Some(old) = waiters.place {
            self.open.remove(&old);
            waiters.reopen(line, &mut self.open);
        }
    }

    fn put_run(&mut self, first: InstanceId, last: InstanceId, line: Line) {
        self.runs.insert(first, (last, line));
        self.lines[line].runs.insert(first, last);
    }

    /// A run that has something between these two.
    fn overlapping(&self, first: InstanceId, last: InstanceId) -> Option<(InstanceId, (InstanceId, Line))> {
        let (begin, (end, line)) = self.runs.range(..=last).next_back()?;
        (*end >= first).then_some((*begin, (*end, *line)))
    }

    fn drop_line(&mut self, line: Line) {
        let waiters = self.lines.remove(line);
        if waiters.is_gang() {
            self.gangs.remove(&(waiters.record.key.clone(), waiters.record.revision));
        } else {
            let record = Arc::as_ptr(&waiters.record).addr();
            self.numbers.remove(&(record, waiters.are_awaited, waiters.slot));
        }
        for key in awaited(&waiters.record) {
            take_out(&mut self.awaiting, &key, line);
        }
        if let Some(place) = waiters.place {
            self.open.remove(&place);
            return;
        }
        if !take_out_of_kept(&mut self.kept, &waiters, line) {
            take_out(&mut self.stuck, &StuckBy::of(&waiters), line);
        }
    }

    /// Opens a gang that is stuck or kept, before it becomes another one.
    fn open_gang(&mut self, line: Line) {
        let waiters = &self.lines[line];
        if waiters.is_gang() && !waiters.runs.is_empty() {
            self.open(line);
        }
    }

    /// Whether somebody may fit where room was given in this pass, whose turn had been before.
    pub(super) fn has_passed(&self) -> bool {
        self.passed
    }

    /// The revision whose instances stand in a line.
    pub(super) fn record(&self, line: Line) -> &Arc<RevisionRecord> {
        &self.lines[line].record
    }

    /// Says that nothing in the line fits anywhere, this one and those after it, or that its quota keeps it and nobody of its borough can make way.
    pub(super) fn stick(&mut self, line: Line, from: InstanceId, boroughs: &Boroughs) -> Unplaced {
        let waiters = &mut self.lines[line];
        waiters.is_guaranteed = boroughs.is_guaranteed(waiters.borough);
        let why = waiters.why(boroughs);
        waiters.is_over = why == Why::Quota;
        Unplaced { why, ..self.put_stuck(line, from) }
    }

    /// Says that so many of the gang in the line found no hosts. Where what one is given can leave fewer hosts to the others than another choice would,
    /// it is looked at again in the next pass: it may fit then without anything given back.
    pub(super) fn stick_gang(&mut self, line: Line, missing: usize, boroughs: &Boroughs) -> Option<Unplaced> {
        let waiters = &self.lines[line];
        if !is_host_by_host(&waiters.record.spec) {
            self.is_gang_left = true;
            return waiters.first().map(|first| self.leave(line, first, boroughs));
        }
        let first = waiters.first()?;
        let waiters = &mut self.lines[line];
        waiters.missing = missing as u64;
        waiters.is_guaranteed = boroughs.is_guaranteed(waiters.borough);
        Some(self.put_stuck(line, first))
    }

    fn put_stuck(&mut self, line: Line, from: InstanceId) -> Unplaced {
        self.close(line);
        let waiters = &self.lines[line];
        self.stuck.entry(StuckBy::of(waiters)).or_default().insert(line);
        waiters.unplaced(from, Why::Hosts)
    }

    /// Says that the borough's quota lets nothing of the line in, this one and those after it.
    pub(super) fn keep(&mut self, line: Line, from: InstanceId) -> Unplaced {
        self.close(line);
        let waiters = &mut self.lines[line];
        waiters.kept_by = waiters.keep();
        let kept = self.kept.entry(waiters.borough).or_default();
        kept.entry(waiters.kept_by).or_default().insert(line);
        waiters.unplaced(from, Why::Quota)
    }

    fn close(&mut self, line: Line) {
        if let Some(place) = self.lines[line].place.take() {
            self.open.remove(&place);
        }
    }

    /// Says that this one of a line has no host yet, and is looked at again in the next pass.
    pub(super) fn wait(&mut self, line: Line, id: InstanceId) -> Unplaced {
        self.waiting.insert(line);
        Unplaced { instances: 1, ..self.lines[line].unplaced(id, Why::Hosts) }
    }

    /// Says why nothing in the line has a host yet, this one and those after it, and that it is looked at again in the next pass.
    pub(super) fn leave(&mut self, line: Line, from: InstanceId, boroughs: &Boroughs) -> Unplaced {
        self.left.insert(line);
        self.waiting.insert(line);
        let waiters = &self.lines[line];
        waiters.unplaced(from, waiters.why(boroughs))
    }

    /// Says that the line is not looked at again in this pass.
    pub(super) fn pass_over(&mut self, line: Line) {
        self.left.insert(line);
    }

    /// All that stand in a line, in their order.
    pub(super) fn members(&self, line: Line) -> Vec<InstanceId> {
        self.lines[line].runs.iter().flat_map(|(first, last)| each(*first, *last)).collect()
    }

    /// Those of a gang for which others make way.
    pub(super) fn awaited(&self, line: Line) -> &BTreeSet<InstanceId> {
        &self.lines[line].awaited
    }

    /// Whether others make way for the instances in a line.
    pub(super) fn are_awaited(&self, line: Line) -> bool {
        self.lines[line].are_all_awaited()
    }

    /// The borough whose instances stand in a line, and what it would be charged for the next one, or for all of a gang.
    pub(super) fn charge(&self, line: Line) -> (Number, Amounts) {
        let waiters = &self.lines[line];
        (waiters.borough, waiters.charge())
    }

    /// What the next one of a line takes, or all of a gang, whether they are charged already or not.
    pub(super) fn demand(&self, line: Line) -> Amounts {
        self.lines[line].demand_of_all()
    }

    /// All that is stuck, kept or left, most urgent and then oldest first. Why is as of now: a quota may keep what once only found no host.
    pub(super) fn unplaced(&self, boroughs: &Boroughs) -> Vec<Unplaced> {
        let kept = self.kept.values().flat_map(HashMap::values);
        let lines =
            self.stuck.values().chain(kept).chain([&self.waiting]).flatten().map(|line| &self.lines[*line]);
        let mut found: Vec<_> = lines.filter_map(|waiters| Some((waiters.first()?, waiters))).collect();
        found.sort_unstable_by_key(|(first, waiters)| (Reverse(waiters.record.spec.priority), *first));
        found.into_iter().map(|(first, waiters)| waiters.unplaced(first, waiters.why(boroughs))).collect()
    }
}

/// Takes a line out of those that a quota keeps. Says whether it was there.
fn take_out_of_kept(
    kept: &mut HashMap<Number, HashMap<KeptBy, BTreeSet<Line>>>,
    waiters: &Waiters,
    line: Line,
) -> bool {
    kept.get_mut(&waiters.borough).is_some_and(|kept| take_out(kept, &waiters.kept_by, line))
}

/// Takes a line out of those under a key. Says whether it was there.
fn take_out<K: Eq + Hash>(lines: &mut HashMap<K, BTreeSet<Line>>, key: &K, line: Line) -> bool {
    let Some(under) = lines.get_mut(key) else { return false };
    let was_there = under.remove(&line);
    if under.is_empty() {
        lines.remove(key);
    }
    was_there
}

/// A record, the same where it stands at the same place in memory.
#[derive(Clone, Copy)]
struct ByPlace<'a>(&'a Arc<RevisionRecord>);

impl PartialEq for ByPlace<'_> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.0, other.0)
    }
}

/// Ids that follow each other, with the same beside them, as runs: the first and the last of each.
fn runs<T: PartialEq>(
    ids: impl Iterator<Item = (InstanceId, T)>,
) -> impl Iterator<Item = (InstanceId, InstanceId, T)> {
    let mut ids = ids.peekable();
    std::iter::from_fn(move || {
        let (first, beside) = ids.next()?;
        let mut last = first;
        while let Some((next, _)) = ids.next_if(|(id, with)| Some(*id) == last.after() && *with == beside) {
            last = next;
        }
        Some((first, last, beside))
    })
}

/// The slot of an instance whose volumes live somewhere, and that is not placed only with others: where it may go is its own.
#[inline]
fn own_slot(state: &State, instance: &Instance) -> Option<u32> {
    let spec = instance.spec();
    let has_home = spec.has_volumes() && !spec.place.all_or_none && state.home_of(instance.id).is_some();
    has_home.then_some(instance.slot)
}

/// All from one to another.
fn each(first: InstanceId, last: InstanceId) -> impl Iterator<Item = InstanceId> {
    successors(Some(first), move |id| id.after().filter(|id| *id <= last))
}

/// The workloads that the instances of a revision must be together with.
fn awaited(record: &RevisionRecord) -> impl Iterator<Item = WorkloadKey> {
    record.spec.place.together.iter().map(|workload| record.key.beside(workload))
}
