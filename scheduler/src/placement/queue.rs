//! What waits for a host, kept from pass to pass. Instances of a revision stand in one line, and lines are served in the state's order, most urgent
//! and then oldest first.
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
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use slab::Slab;
use supercloud_proto::{
    id::{InstanceId, Revision, UnixMillis},
    name::WorkloadKey,
};

use super::{
    ledger::{CaughtUp, Ledger, Slot},
    shapes::Needs,
};
use crate::state::{
    Instance, RevisionRecord, State, Waiting,
    fits::{Candidate, Request},
};

/// A place in the order: most urgent first, then oldest.
type Place = (Reverse<u32>, InstanceId);
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
    /// Open lines up to here have been entered.
    entered: Option<Place>,
    /// The next of each line that was entered and has not come to its end.
    next: BinaryHeap<Reverse<(Place, Line)>>,
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
    pub(super) fn new(state: &State) -> Self {
        let mut queue = Self::default();
        queue.catch_up(state, &state.pending_since(&State::default()));
        queue
    }

    /// Takes in what began to wait and what no longer does.
    pub(super) fn catch_up(&mut self, state: &State, waiting: &Waiting) {
        for (first, last, ()) in runs(waiting.ended.iter().map(|id| (*id, ()))) {
            self.remove(first, last);
        }
        let began = waiting.began.iter().filter_map(|id| state.instance(*id));
        let (now, later): (Vec<_>, Vec<_>) = began.partition(|instance| instance.not_before() == 0);
        for instance in later {
            self.later.insert((instance.not_before(), instance.id));
            self.times.insert(instance.id, instance.not_before());
        }
        self.add(now.into_iter());
    }

    /// Puts those in line whose time has come.
    pub(super) fn ripen(&mut self, state: &State, now: UnixMillis) {
        while let Some((_, id)) = self.later.first().filter(|(at, _)| *at <= now).copied() {
            self.later.pop_first();
            self.times.remove(&id);
            self.add(state.instance(id).into_iter());
        }
    }

    /// The time at which the next one's time comes.
    pub(super) fn next_wake(&self) -> Option<UnixMillis> {
        self.later.first().map(|(at, _)| *at)
    }

    fn add<'a>(&mut self, instances: impl Iterator<Item = &'a Arc<Instance>>) {
        let records = instances.map(|instance| (instance.id, ByPlace(&instance.record)));
        for (first, last, record) in runs(records) {
            let line = self.line(record.0);
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
    fn line(&mut self, record: &Arc<RevisionRecord>) -> Line {
        let lines = &mut self.lines;
        *self.numbers.entry(Arc::as_ptr(record).addr()).or_insert_with(|| {
            lines.insert(Waiters { record: record.clone(), runs: BTreeMap::new(), place: None })
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
    pub(super) fn next(&self, progress: &mut Progress) -> Option<(Line, InstanceId)> {
        loop {
            let after = progress.entered.map_or(Unbounded, Excluded);
            let unentered = self.open.range((after, Unbounded)).next();
            let is_before =
                |place: &Place| progress.next.peek().is_none_or(|Reverse((earliest, _))| place < earliest);
            if let Some((place, line)) = unentered.filter(|(place, _)| is_before(place)) {
                progress.entered = Some(*place);
                let first = self.lines[*line].first();
                progress.next.extend(first.map(|first| Reverse((first, *line))));
                continue;
            }
            let Reverse((place, line)) = progress.next.pop()?;
            if self.lines[line].place.is_some() {
                let after = self.lines[line].after(place.1);
                progress.next.extend(after.map(|next| Reverse((next, line))));
                return Some((line, place.1));
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

    /// All that is stuck, in the order in which it would be served.
    pub(super) fn unplaced(&self) -> Vec<Unplaced> {
        let lines = self.stuck.values().flatten().map(|line| &self.lines[*line]);
        let mut found: Vec<_> = lines.filter_map(|waiters| Some((waiters.first()?, waiters))).collect();
        found.sort_unstable_by_key(|(place, _)| *place);
        found.into_iter().map(|((_, first), waiters)| waiters.unplaced(first)).collect()
    }
}

impl Waiters {
    fn place_of(&self, id: InstanceId) -> Place {
        (Reverse(self.record.spec.priority), id)
    }

    fn first(&self) -> Option<Place> {
        self.runs.keys().next().map(|id| self.place_of(*id))
    }

    fn after(&self, id: InstanceId) -> Option<Place> {
        let (_, last) = self.runs.range(..=id).next_back()?;
        if id < *last {
            return id.after().map(|id| self.place_of(id));
        }
        self.runs.range((Excluded(id), Unbounded)).next().map(|(id, _)| self.place_of(*id))
    }

    fn reopen(&mut self, line: Line, open: &mut BTreeMap<Place, Line>) {
        self.place = self.first();
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
