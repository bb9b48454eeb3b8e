//! Whose turn it is: the most urgent first, among these boroughs in turn, and of a borough the oldest; and how far a pass has come with them.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    ops::Bound::{Excluded, Included, Unbounded},
};

use supercloud_proto::id::{HostId, InstanceId};

use super::{FIRST, LAST, Line, Queue, Rank, waiters::Waiters};
use crate::{
    placement::{
        by_number::ByNumber,
        fair::{Boroughs, Number, Turns},
        ledger::{Ledger, Slot},
    },
    state::Preemption,
};

/// How far one pass has come.
#[derive(Default)]
pub(in crate::placement) struct Progress {
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

impl Queue {
    /// The next one in order.
    pub(in crate::placement) fn next(
        &self,
        progress: &mut Progress,
        boroughs: &Boroughs,
    ) -> Option<(Line, InstanceId)> {
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

    /// Says that these make way for one of a line, or all of a gang. What comes after it in the order may gain by that, and is looked at in this pass; the rest in the next, when the
    /// state tells of it.
    pub(in crate::placement) fn note_made(
        &mut self,
        progress: &mut Progress,
        ledger: &Ledger,
        boroughs: &Boroughs,
        (line, id): (Line, InstanceId),
        made: &[Preemption],
    ) {
        let victims = || ledger.state().instances_by(Preemption::victims_of(made));
        let kept = made.iter().filter_map(|preemption| preemption.host);
        let hosts = victims().filter_map(|victim| victim.host()).chain(kept).collect();
        let losers = victims().filter_map(|victim| boroughs.known(&victim.workload().borough));
        // Where room was kept for it before, with another rank or on another host, nobody is its company any more.
        let has_moved = made.iter().any(|made| made.before.is_some());
        let losers = losers.chain(has_moved.then(|| self.lines[line].borough)).collect();
        self.note_room(progress, ledger, boroughs, (line, id), &hosts, &losers);
    }

    /// Says that there may be room on these hosts that was not, and that these boroughs have less that is to stay, since one of a line had its turn. What comes after it may gain
    /// by that, as above.
    pub(in crate::placement) fn note_room(
        &mut self,
        progress: &mut Progress,
        ledger: &Ledger,
        boroughs: &Boroughs,
        (line, id): (Line, InstanceId),
        hosts: &BTreeSet<HostId>,
        losers: &BTreeSet<Number>,
    ) {
        let slots: Vec<Slot> = hosts.iter().filter_map(|host| ledger.slot(*host)).collect();
        let turn = (self.lines[line].borough, id);
        for other in self.gain(ledger, boroughs, &slots, losers) {
            let Some(after) = self.is_to_come(progress, boroughs, turn, other) else { continue };
            self.open(other);
            let Waiters { borough, record, .. } = &self.lines[other];
            if Some(Reverse(record.spec.priority)) == progress.level {
                if *borough != turn.0 {
                    progress.turns.join_once(boroughs, *borough);
                }
                let served = progress.served.entry(*borough).or_default();
                served.next.extend(after.map(|after| Reverse((after, other))));
                served.unentered = None;
            }
        }
    }

    /// Whether the turn of some in a line is to come in this pass, and of those whose borough had its turn already the first; whose turn it is, and how far it has
    /// come, is given.
    fn is_to_come(
        &self,
        progress: &Progress,
        boroughs: &Boroughs,
        (turn, id): (Number, InstanceId),
        line: Line,
    ) -> Option<Option<InstanceId>> {
        let waiters = &self.lines[line];
        let (priority, level) = (Reverse(waiters.record.spec.priority), progress.level?);
        let last = progress.served.get(&waiters.borough).and_then(|served| served.last);
        match () {
            () if priority > level => Some(None),
            () if priority < level => None,
            () if waiters.borough == turn => waiters.after(id).map(Some),
            () if !progress.turns.comes_later(boroughs, waiters.borough) => None,
            () => last.map_or(Some(None), |last| waiters.after(last).map(Some)),
        }
    }

    /// Says that one of a line was given room. Those who await its workload may fit there: what comes after it in the order is looked at in
    /// this pass, the rest in the next.
    pub(in crate::placement) fn note_given(&mut self, progress: &mut Progress, line: Line, id: InstanceId) {
        self.passed |= self.is_gang_left;
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
}
