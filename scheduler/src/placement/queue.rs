//! What waits for a host, kept from pass to pass. Instances of a revision stand in one line. The most urgent are served first, among them boroughs in
//! turn (see `fair`), and of a borough the oldest.
//!
//! A line whose turn found no host is *stuck*: nobody looks at it, however long it is, until something was given back on a host that it
//! would fit then. Lines that need the same are stuck together, so that this is asked once for all of them. So a pass costs what may have
//! changed, and not what waits.
//!
//! What was made by one entry has ids that follow each other. So instances are kept as *runs*, from a first to a last one: a workload of a
//! thousand costs what one of one does.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use slab::Slab;
use supercloud_proto::{
    id::{InstanceId, Revision, UnixMillis},
    name::WorkloadKey,
};

use super::{
    by_number::ByNumber,
    fair::{Boroughs, Number, Turns},
    ledger::{CaughtUp, Ledger, Slot},
    shapes::Needs,
};
use crate::state::{
    Instance, RevisionRecord, State, Waiting,
    fits::{Candidate, Request},
};

/// Before and behind all ids.
const FIRST: InstanceId = InstanceId { index: 0, ordinal: 0 };
const LAST: InstanceId = InstanceId { index: u64::MAX, ordinal: u32::MAX };

/// Of one borough and one priority: these are served oldest first.
type Rank = (Reverse<u32>, Number);
/// A place in the order of a rank.
type Place = (Rank, InstanceId);
/// A line's place in the slab.
type Line = usize;

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    lines: Slab<Waiters>,
    /// By where a revision's record stands in memory: a line holds on to it, so that no other one can come to stand there.
    numbers: HashMap<usize, Line>,
    /// The first of each run, with the last one and the line.
    runs: BTreeMap<InstanceId, (InstanceId, Line)>,
    /// What must not be placed yet.
    later: BTreeSet<(UnixMillis, InstanceId)>,
    times: BTreeMap<InstanceId, UnixMillis>,
    /// Lines to be served, by their places.
    open: BTreeMap<Place, Line>,
    /// Lines that are stuck, by what they need.
    stuck: HashMap<StuckBy, BTreeSet<Line>>,
}

/// Instances of one revision.
struct Waiters {
    record: Arc<RevisionRecord>,
    borough: Number,
    /// The first of each run, with the last one.
    runs: BTreeMap<InstanceId, InstanceId>,
    /// Where the line stands among the open ones: no later than the first of it. `None`: it is stuck.
    place: Option<Place>,
}

/// What keeps a line from all hosts: what it needs, and where its instances must not meet, whose they are.
type StuckBy = (Needs, Option<WorkloadKey>);

fn stuck_by(record: &RevisionRecord) -> StuckBy {
    let needs = Needs::of(&Request::new(&record.key, &record.spec));
    (needs, record.spec.place.distinct_hosts.then(|| record.key.clone()))
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
    /// The first open line after that, where that was looked up: no line is opened in a pass, and only such as were entered are stuck.
    unentered: Option<Option<(InstanceId, Line)>>,
    /// The next of each line that was entered and has not come to its end.
    next: BinaryHeap<Reverse<(InstanceId, Line)>>,
}

/// Instances of one revision that found no host.
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
        let records = instances.map(|instance| (instance.id, ByPlace(&instance.record)));
        for (first, last, record) in runs(records) {
            let line = self.line(record.0, boroughs);
            self.runs.insert(first, (last, line));
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
    fn line(&mut self, record: &Arc<RevisionRecord>, boroughs: &mut Boroughs) -> Line {
        let lines = &mut self.lines;
        *self.numbers.entry(Arc::as_ptr(record).addr()).or_insert_with(|| {
            let borough = boroughs.number(&record.key.borough);
            lines.insert(Waiters { record: record.clone(), borough, runs: BTreeMap::new(), place: None })
        })
    }

    /// Takes out all from one to another; what is between them and not here is not missed.
    fn remove(&mut self, first: InstanceId, last: InstanceId) {
        while let Some((at, id)) = self.times.range(first..=last).next().map(|(id, at)| (*at, *id)) {
            self.times.remove(&id);
            self.later.remove(&(at, id));
        }
        while let Some((begin, (end, line))) = self.overlapping(first, last) {
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
            }
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
        let Waiters { record, place, .. } = self.lines.remove(line);
        self.numbers.remove(&Arc::as_ptr(&record).addr());
        match place {
            Some(place) => drop(self.open.remove(&place)),
            None => {
                let by = stuck_by(&record);
                let Some(lines) = self.stuck.get_mut(&by) else { return };
                lines.remove(&line);
                if lines.is_empty() {
                    self.stuck.remove(&by);
                }
            }
        }
    }

    /// Opens the lines that are stuck and for which there may be room now.
    pub(super) fn wake(&mut self, ledger: &Ledger, caught_up: &CaughtUp) {
        let Self { lines, open, stuck, .. } = self;
        stuck.retain(|_, stuck| {
            let example = stuck.first().map(|line| &*lines[*line].record);
            let is_stuck = example.is_some_and(|record| !may_fit(ledger, record, caught_up));
            if !is_stuck {
                for line in stuck.iter() {
                    lines[*line].reopen(*line, open);
                }
            }
            is_stuck
        });
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
            if self.lines[line].place.is_some() {
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
    pub(super) fn stick(&mut self, line: Line, from: InstanceId) -> Unplaced {
        let waiters = &mut self.lines[line];
        if let Some(place) = waiters.place.take() {
            self.open.remove(&place);
        }
        self.stuck.entry(stuck_by(&waiters.record)).or_default().insert(line);
        waiters.unplaced(from)
    }

    /// The borough whose instances stand in a line.
    pub(super) fn borough(&self, line: Line) -> Number {
        self.lines[line].borough
    }

    /// All that is stuck, most urgent and then oldest first.
    pub(super) fn unplaced(&self) -> Vec<Unplaced> {
        let lines = self.stuck.values().flatten().map(|line| &self.lines[*line]);
        let mut found: Vec<_> = lines.filter_map(|waiters| Some((waiters.first()?, waiters))).collect();
        found.sort_unstable_by_key(|(first, waiters)| (Reverse(waiters.record.spec.priority), *first));
        found.into_iter().map(|(first, waiters)| waiters.unplaced(first)).collect()
    }
}

impl Waiters {
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
    fn unplaced(&self, from: InstanceId) -> Unplaced {
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
        }
    }
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

/// Whether an instance of this revision fits where something was given back.
fn may_fit(ledger: &Ledger, record: &RevisionRecord, caught_up: &CaughtUp) -> bool {
    let CaughtUp::Improved(slots) = caught_up else { return true };
    let request = Request::new(&record.key, &record.spec);
    let fits = |candidate: Candidate<'_>| candidate.has_room(&request) && candidate.fits(&request).is_ok();
    slots.iter().any(|slot: &Slot| ledger.is_taken(*slot) && fits(ledger.candidate(*slot)))
}
