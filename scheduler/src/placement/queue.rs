//! What waits for a host, kept from pass to pass. Instances of a revision stand in one line. The most urgent are served first, among them boroughs in
//! turn (see `fair`), and of a borough the oldest.
//!
//! A line whose turn found no host is *stuck*: nobody looks at it, however long it is, until something was given back on a host that it
//! would fit then. Lines that need the same are stuck together, so that this is asked once for all of them. A line that its borough's quota does
//! not let in is *kept*, beside those of its borough that are charged as much: nobody looks at it until that borough's account has more room. So a pass
//! costs what may have changed, and not what waits. A gang is one line, served as a whole; when somebody joins or leaves it, it is looked at anew.
//!
//! What was made by one entry has ids that follow each other. So instances are kept as *runs*, from a first to a last one: a workload of a
//! thousand costs what one of one does.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    hash::Hash,
    iter::successors,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use slab::Slab;
use supercloud_proto::{
    amount::Amounts,
    id::{InstanceId, Revision, UnixMillis},
    name::{WorkloadKey, WorkloadName},
};

use super::{
    by_number::ByNumber,
    fair::{Boroughs, Number, Shift, Turns},
    ledger::{CaughtUp, Ledger, Slot},
    preempting::{has_room_emptied, may_have_room},
    shapes::Needs,
};
use crate::state::{
    Instance, RevisionRecord, State, Waiting,
    demand::demand,
    fits::{Candidate, Known, Request},
    preempt::has_claim,
};

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
    /// By where a revision's record stands in memory, and by whether others make way: a line holds on to the record, so that no other one can come to
    /// stand there.
    numbers: HashMap<(usize, bool), Line>,
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
    /// Lines that are kept by their borough's quota, by the borough and what each of them would be charged.
    kept: HashMap<Number, HashMap<Amounts, BTreeSet<Line>>>,
}

/// Instances of one revision.
struct Waiters {
    record: Arc<RevisionRecord>,
    /// Others make way for them: they are looked at in every pass.
    are_awaited: bool,
    borough: Number,
    /// Whether something was guaranteed to the borough when they became stuck.
    is_guaranteed: bool,
    /// What each of them takes.
    demand: Amounts,
    /// What it would have been charged that its borough's quota did not let it in; see `kept`.
    kept_by: Amounts,
    /// For how many of a gang there was no host at least, as far as something was given back since.
    missing: u64,
    /// The first of each run, with the last one.
    runs: BTreeMap<InstanceId, InstanceId>,
    /// Where the line stands among the open ones: where the first of it does. `None`: it is stuck or kept.
    place: Option<Place>,
}

/// What keeps a line from all hosts: what it needs, and where it says whom its instances must not meet, whose they are.
#[derive(PartialEq, Eq, Hash)]
struct StuckBy {
    needs: Needs,
    /// What is less urgent may make way.
    priority: u32,
    /// The borough, where something is guaranteed to it: what is beyond the guarantees of others may make way then.
    guaranteed: Option<Number>,
    /// Nobody makes way for gangs.
    is_gang: bool,
    apart: Option<(WorkloadKey, bool, Vec<WorkloadName>)>,
}

impl StuckBy {
    fn of(waiters: &Waiters) -> Self {
        let Waiters { record, borough, is_guaranteed, .. } = waiters;
        let (key, place) = (&record.key, &record.spec.place);
        let is_apart = place.distinct_hosts || !place.apart.is_empty();
        let needs = Needs::of(&Request::new(key, &record.spec));
        let priority = record.spec.priority;
        Self {
            needs,
            priority,
            guaranteed: is_guaranteed.then_some(*borough),
            is_gang: place.all_or_none,
            apart: is_apart.then(|| (key.clone(), place.distinct_hosts, place.apart.clone())),
        }
    }
}

/// How far one pass has come.
#[derive(Default)]
pub(super) struct Progress {
    /// The priority that is served; `None`: none was yet.
    level: Option<Reverse<u32>>,
    /// The boroughs that wait with this priority.
    turns: Turns,
    served: ByNumber<Number, Served>,
}

/// How far one borough has come with one priority.
#[derive(Default)]
struct Served {
    /// Open lines up to here have been entered.
    entered: Option<InstanceId>,
    /// The first open line after that, where that was looked up since a line was opened: only such as were entered are stuck.
    unentered: Option<Option<(InstanceId, Line)>>,
    /// The next of each line that was entered and has not come to its end.
    next: BinaryHeap<Reverse<(InstanceId, Line)>>,
    /// The last that was looked at. Who was opened meanwhile may stand in line twice.
    last: Option<InstanceId>,
}

/// Instances of one revision that get no host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Workload.
    pub workload: WorkloadKey,
    /// Revision.
    pub revision: Revision,
    /// How many.
    pub instances: u32,
    /// The first of them.
    pub first: InstanceId,
    /// Why.
    pub why: Why,
}

/// Why something gets no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It fits none.
    Hosts,
    /// The quota of its borough does not let it in.
    Quota,
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
        self.passed = false;
        self.left.clear();
        self.waiting.clear();
        let began = state.instances_by(waiting.began.iter().copied());
        let (now, later): (Vec<_>, Vec<_>) = began.partition(|instance| instance.not_before() == 0);
        for instance in later {
            self.later.insert((instance.not_before(), instance.id));
            self.times.insert(instance.id, instance.not_before());
        }
        self.add(now.into_iter(), boroughs);
    }

    /// Puts those in line whose time has come.
    pub(super) fn ripen(&mut self, state: &State, now: UnixMillis, boroughs: &mut Boroughs) {
        while let Some((_, id)) = self.later.first().filter(|(at, _)| *at <= now).copied() {
            self.later.pop_first();
            self.times.remove(&id);
            self.add(state.instance(id).into_iter(), boroughs);
        }
    }

    /// The time at which the next one's time comes.
    pub(super) fn next_wake(&self) -> Option<UnixMillis> {
        self.later.first().map(|(at, _)| *at)
    }

    fn add<'a>(&mut self, instances: impl Iterator<Item = &'a Arc<Instance>>, boroughs: &mut Boroughs) {
        let records = instances
            .map(|instance| (instance.id, (ByPlace(&instance.record), instance.awaited_host().is_some())));
        for (first, last, (record, are_awaited)) in runs(records) {
            let line = self.line(record.0, are_awaited, boroughs);
            self.runs.insert(first, (last, line));
            self.open_gang(line);
            let waiters = &mut self.lines[line];
            let is_new = waiters.runs.is_empty();
            waiters.runs.insert(first, last);
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
    fn line(&mut self, record: &Arc<RevisionRecord>, are_awaited: bool, boroughs: &mut Boroughs) -> Line {
        let Self { lines, awaiting, .. } = self;
        let new_line = || {
            let line = lines.insert(Waiters {
                record: record.clone(),
                are_awaited,
                borough: boroughs.number(&record.key.borough),
                is_guaranteed: false,
                demand: demand(&record.spec),
                kept_by: Amounts::default(),
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
        *self.numbers.entry((Arc::as_ptr(record).addr(), are_awaited)).or_insert_with(new_line)
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
            self.numbers.remove(&(Arc::as_ptr(&waiters.record).addr(), waiters.are_awaited));
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
        let waiters = &mut self.lines[line];
        let is_closed = waiters.place.is_none() && !waiters.runs.is_empty();
        if waiters.is_gang() && is_closed {
            if take_out_of_kept(&mut self.kept, waiters, line) {
                waiters.reopen(line, &mut self.open);
            } else {
                self.unstick(line);
            }
        }
    }

    /// Opens the lines that are stuck and for which there may be room now: on hosts where something was given back, or as others may make way that could
    /// not before.
    pub(super) fn wake(&mut self, ledger: &Ledger, caught_up: &CaughtUp, boroughs: &Boroughs, shift: &Shift) {
        let Self { lines, open, stuck, .. } = self;
        stuck.retain(|by, stuck| {
            if by.is_gang {
                wake_gangs(ledger, caught_up, stuck, lines, open);
                return !stuck.is_empty();
            }
            stuck.retain(|line| {
                let may_claim = shift.claimants.contains(&lines[*line].borough);
                if may_claim {
                    lines[*line].reopen(*line, open);
                }
                !may_claim
            });
            let example = stuck.first().map(|line| &*lines[*line].record);
            let is_stuck = !shift.more_is_spare
                && example.is_some_and(|record| !may_fit(ledger, record, caught_up, boroughs));
            if !is_stuck {
                for line in stuck.iter() {
                    lines[*line].reopen(*line, open);
                }
            }
            is_stuck
        });
    }

    /// Opens the lines that were kept by a quota and are no longer, of the boroughs whose quotas may have more room.
    pub(super) fn admit(&mut self, boroughs: &Boroughs, roomier: &[Number]) {
        let Self { lines, open, kept, .. } = self;
        for borough in roomier {
            let Some(kept) = kept.get_mut(borough) else { continue };
            kept.retain(|demand, kept| {
                let is_kept = !boroughs.admits(*borough, *demand);
                if !is_kept {
                    kept.iter().for_each(|line| lines[*line].reopen(*line, open));
                }
                is_kept
            });
        }
    }

    /// Opens a line, if it is stuck.
    fn unstick(&mut self, line: Line) -> bool {
        let waiters = &mut self.lines[line];
        let is_stuck = waiters.place.is_none() && take_out(&mut self.stuck, &StuckBy::of(waiters), line);
        if is_stuck {
            waiters.reopen(line, &mut self.open);
        }
        is_stuck
    }

    /// Says that one of a line was given room. Those who await its workload may fit there: what comes after it in the order is looked at in
    /// this pass, the rest in the next.
    pub(super) fn note_given(&mut self, progress: &mut Progress, line: Line, id: InstanceId) {
        if self.awaiting.is_empty() {
            return;
        }
        let Waiters { record, borough, .. } = &self.lines[line];
        let (given, borough) = (self.lines[line].place_of(id), *borough);
        for other in self.awaiting.get(&record.key).cloned().into_iter().flatten() {
            let was_stuck = self.unstick(other);
            let waiters = &self.lines[other];
            self.passed |= waiters.first().is_some_and(|first| waiters.place_of(first) < given);
            if was_stuck && waiters.place_of(id).0 == given.0 {
                let served = progress.served.entry(borough).or_default();
                served.next.extend(waiters.after(id).map(|next| Reverse((next, other))));
                served.unentered = None;
            }
        }
    }

    /// Whether somebody may fit where room was given in this pass, whose turn had been before.
    pub(super) fn has_passed(&self) -> bool {
        self.passed
    }

    /// The next one in order.
    pub(super) fn next(&self, progress: &mut Progress, boroughs: &Boroughs) -> Option<(Line, InstanceId)> {
        loop {
            let whose = progress.turns.whose(boroughs).zip(progress.level);
            let Some((borough, level)) = whose else {
                self.begin_level(progress, boroughs)?;
                continue;
            };
            let next = self.next_of((level, borough), progress.served.entry(borough).or_default());
            if next.is_some() {
                return next;
            }
            progress.turns.end();
        }
    }

    /// Goes on with the next lower priority with which anybody waits.
    fn begin_level(&self, progress: &mut Progress, boroughs: &Boroughs) -> Option<()> {
        let after = progress.level.map_or(Unbounded, |level| Excluded(((level, Number::MAX), LAST)));
        let ((level, mut borough), _) = *self.open.range((after, Unbounded)).next()?.0;
        *progress = Progress { level: Some(level), ..Progress::default() };
        loop {
            progress.turns.join(boroughs, borough);
            let after = Excluded(((level, borough), LAST));
            match self.open.range((after, Unbounded)).next() {
                Some((((priority, next), _), _)) if *priority == level => borough = *next,
                _ => return Some(()),
            }
        }
    }

    /// The next one of a borough.
    fn next_of(&self, rank: Rank, served: &mut Served) -> Option<(Line, InstanceId)> {
        loop {
            let unentered = *served.unentered.get_or_insert_with(|| {
                let after =
                    served.entered.map_or(Included((rank, FIRST)), |entered| Excluded((rank, entered)));
                let line = self.open.range((after, Included((rank, LAST)))).next();
                line.map(|((_, id), line)| (*id, *line))
            });
            let is_before = |id: &InstanceId| served.next.peek().is_none_or(|Reverse((first, _))| id < first);
            if let Some((id, line)) = unentered.filter(|(id, _)| is_before(id)) {
                (served.entered, served.unentered) = (Some(id), None);
                let first = self.lines[line].first();
                served.next.extend(first.map(|first| Reverse((first, line))));
                continue;
            }
            let Reverse((id, line)) = served.next.pop()?;
            if self.left.contains(&line) {
                continue;
            }
            if self.lines[line].place.is_some() && served.last.is_none_or(|last| last < id) {
                served.last = Some(id);
                let after = self.lines[line].after(id);
                served.next.extend(after.map(|next| Reverse((next, line))));
                return Some((line, id));
            }
        }
    }

    /// The revision whose instances stand in a line.
    pub(super) fn record(&self, line: Line) -> &Arc<RevisionRecord> {
        &self.lines[line].record
    }

    /// Says that nothing in the line fits anywhere, this one and those after it.
    pub(super) fn stick(&mut self, line: Line, from: InstanceId, boroughs: &Boroughs) -> Unplaced {
        self.close(line);
        let waiters = &mut self.lines[line];
        waiters.is_guaranteed = boroughs.is_guaranteed(waiters.borough);
        self.stuck.entry(StuckBy::of(waiters)).or_default().insert(line);
        waiters.unplaced(from, Why::Hosts)
    }

    /// Says that so many of the gang in the line found no hosts. Where what one is given can leave fewer hosts to the others than another choice would,
    /// it is looked at again in the next pass: it may fit then without anything given back.
    pub(super) fn stick_gang(&mut self, line: Line, missing: usize) -> Option<Unplaced> {
        let waiters = &self.lines[line];
        if waiters.record.spec.place.private || !waiters.record.spec.resources.devices.is_empty() {
            return waiters.first().map(|first| self.leave(line, first));
        }
        self.close(line);
        let waiters = &mut self.lines[line];
        waiters.missing = missing as u64;
        self.stuck.entry(StuckBy::of(waiters)).or_default().insert(line);
        Some(waiters.unplaced(waiters.first()?, Why::Hosts))
    }

    /// Says that the borough's quota lets nothing of the line in, this one and those after it.
    pub(super) fn keep(&mut self, line: Line, from: InstanceId) -> Unplaced {
        self.close(line);
        let waiters = &mut self.lines[line];
        waiters.kept_by = waiters.charge();
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

    /// Says that nothing in the line has a host yet, this one and those after it, and that it is looked at again in the next pass.
    pub(super) fn leave(&mut self, line: Line, from: InstanceId) -> Unplaced {
        self.left.insert(line);
        self.waiting.insert(line);
        self.lines[line].unplaced(from, Why::Hosts)
    }

    /// Says that the line is not looked at again in this pass.
    pub(super) fn pass_over(&mut self, line: Line) {
        self.left.insert(line);
    }

    /// All that stand in a line, in their order.
    pub(super) fn members(&self, line: Line) -> Vec<InstanceId> {
        let runs = self.lines[line].runs.iter();
        runs.flat_map(|(first, last)| successors(Some(*first), |id| id.after().filter(|id| id <= last)))
            .collect()
    }

    /// Whether others make way for the instances in a line.
    pub(super) fn are_awaited(&self, line: Line) -> bool {
        self.lines[line].are_awaited
    }

    /// The borough whose instances stand in a line, and what it would be charged for the next one, or for all of a gang.
    pub(super) fn charge(&self, line: Line) -> (Number, Amounts) {
        let waiters = &self.lines[line];
        (waiters.borough, waiters.charge())
    }

    /// All that is stuck, kept or left, most urgent and then oldest first. Why is as of now: a quota may keep what once only found no host.
    pub(super) fn unplaced(&self, boroughs: &Boroughs) -> Vec<Unplaced> {
        let kept = self.kept.values().flat_map(HashMap::values);
        let lines =
            self.stuck.values().chain(kept).chain([&self.waiting]).flatten().map(|line| &self.lines[*line]);
        let mut found: Vec<_> = lines.filter_map(|waiters| Some((waiters.first()?, waiters))).collect();
        found.sort_unstable_by_key(|(first, waiters)| (Reverse(waiters.record.spec.priority), *first));
        let why = |of: &Waiters| match boroughs.admits(of.borough, of.charge()) {
            true => Why::Hosts,
            false => Why::Quota,
        };
        found.into_iter().map(|(first, waiters)| waiters.unplaced(first, why(waiters))).collect()
    }
}

impl Waiters {
    fn is_gang(&self) -> bool {
        self.record.spec.place.all_or_none
    }

    /// What the borough is charged at once.
    fn charge(&self) -> Amounts {
        if !self.is_gang() {
            return self.demand;
        }
        let length = |(first, last): (&InstanceId, &InstanceId)| u64::from(last.ordinal - first.ordinal) + 1;
        self.demand.times(self.runs.iter().map(length).sum())
    }

    fn place_of(&self, id: InstanceId) -> Place {
        ((Reverse(self.record.spec.priority), self.borough), id)
    }

    fn first(&self) -> Option<InstanceId> {
        self.runs.keys().next().copied()
    }

    fn after(&self, id: InstanceId) -> Option<InstanceId> {
        let (_, last) = self.runs.range(..=id).next_back()?;
        if id < *last {
            return id.after();
        }
        self.runs.range((Excluded(id), Unbounded)).next().map(|(id, _)| *id)
    }

    fn reopen(&mut self, line: Line, open: &mut BTreeMap<Place, Line>) {
        self.place = self.first().map(|first| self.place_of(first));
        open.extend(self.place.map(|place| (place, line)));
    }

    /// Those from one on.
    fn unplaced(&self, from: InstanceId, why: Why) -> Unplaced {
        let length = |(first, last): (&InstanceId, &InstanceId)| {
            (last.ordinal + 1).saturating_sub(first.ordinal.max(if first.index == from.index {
                from.ordinal
            } else {
                0
            }))
        };
        let all = self.runs.iter().filter(|(_, last)| **last >= from);
        Unplaced {
            workload: self.record.key.clone(),
            revision: self.record.revision,
            instances: all.map(length).sum(),
            first: from,
            why,
        }
    }
}

/// Takes a line out of those that a quota keeps. Says whether it was there.
fn take_out_of_kept(
    kept: &mut HashMap<Number, HashMap<Amounts, BTreeSet<Line>>>,
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

/// The workloads that the instances of a revision must be together with.
fn awaited(record: &RevisionRecord) -> impl Iterator<Item = WorkloadKey> {
    record.spec.place.together.iter().map(|workload| record.key.beside(workload))
}

/// Opens those gangs, all stuck by the same, for which there may be hosts now for all.
fn wake_gangs(
    ledger: &Ledger,
    caught_up: &CaughtUp,
    stuck: &mut BTreeSet<Line>,
    lines: &mut Slab<Waiters>,
    open: &mut BTreeMap<Place, Line>,
) {
    let Some(example) = stuck.first().map(|line| lines[*line].record.clone()) else { return };
    let room = match caught_up {
        CaughtUp::Improved(slots) => {
            let most = slots.iter().map(|slot| most_that_fit(ledger, &example, *slot));
            most.fold(0, u64::saturating_add)
        }
        CaughtUp::Anew => u64::MAX,
    };
    stuck.retain(|line| {
        let waiters = &mut lines[*line];
        waiters.missing = waiters.missing.saturating_sub(room);
        let is_stuck = waiters.missing > 0;
        if !is_stuck {
            waiters.reopen(*line, open);
        }
        is_stuck
    });
}

/// Not fewer than as many instances of a revision as fit a host.
fn most_that_fit(ledger: &Ledger, record: &RevisionRecord, slot: Slot) -> u64 {
    let request = Request::new(&record.key, &record.spec);
    let candidate = Candidate { known: known_to_all(record), ..ledger.candidate(slot) };
    if !ledger.is_taken(slot) || candidate.fits(&request).is_err() {
        return 0;
    }
    let (free, needed) = (candidate.free(), candidate.takes(&request));
    let by_amounts =
        [(free.cpu.0, needed.cpu.0), (free.memory.0, needed.memory.0), (free.disk.0, needed.disk.0)];
    let most = by_amounts.into_iter().filter_map(|(free, needed)| free.checked_div(needed)).min();
    if record.spec.place.distinct_hosts { 1 } else { most.unwrap_or(u64::MAX) }
}

/// What is taken for known of a host for all that are stuck by the same as a revision.
fn known_to_all(record: &RevisionRecord) -> Known {
    let place = &record.spec.place;
    let is_no_matter = (!place.distinct_hosts && place.apart.is_empty()).then_some(false);
    let (reserved, anothers) = (Some(false), Some(false));
    Known { sibling: is_no_matter, unwanted: is_no_matter, reserved, anothers, may_keep: None }
}

/// Whether an instance of this revision, or of one that is stuck by the same, fits where something was given back, or would with others making way. That others
/// must be apart from it counts only where it says so of them too, and that room is kept there, or the host to another borough, not at all: so this holds for all that are stuck with it.
fn may_fit(ledger: &Ledger, record: &RevisionRecord, caught_up: &CaughtUp, boroughs: &Boroughs) -> bool {
    let CaughtUp::Improved(slots) = caught_up else { return true };
    let request = Request::new(&record.key, &record.spec);
    let has_claim = has_claim(&request, boroughs);
    let fits = |candidate: Candidate<'_>| {
        let Known { may_keep, .. } = candidate.known;
        let candidate = Candidate { known: Known { may_keep, ..known_to_all(record) }, ..candidate };
        let fits = candidate.has_room(&request) && candidate.fits(&request).is_ok();
        fits || may_have_room(&candidate, &request, has_claim)
            && has_room_emptied(&candidate, &request, has_claim)
    };
    slots.iter().any(|slot: &Slot| ledger.is_taken(*slot) && fits(ledger.candidate_for(*slot, &request)))
}
