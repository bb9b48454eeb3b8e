//! Why an instance is where it is, or why it is nowhere, as data and in one sentence. It asks the same rule and the same scores as the pass and
//! decides nothing itself; the API's messages are made of it elsewhere.
//!
//! Decisions. *A host counts for the first filter that refuses it*, so that the counts of the filters and of the fitting hosts add up to all
//! hosts. *An instance that is placed is explained as of now*: its host is scored without it, beside all others as they stand now, which need
//! not be how they stood when it was placed. *Reasons are grouped by what they have in common*: ten thousand full hosts are one reason with
//! the most that any of them has free, not ten thousand reasons. *One ledger serves all questions and all trials* of an [`Explainer`], and goes from one to the next by what
//! differs: to make one looks at every record, and takes longer than most answers.

use std::{cmp::Reverse, sync::Arc};

use supercloud_proto::{
    id::{HostId, InstanceId, LogIndex, UnixMillis},
    name::HostName,
    spec::{SpreadOver, WorkloadSpec},
};

use super::{
    ledger::{Ledger, Slot},
    outlook::Asked,
    score::{RULES, score},
    spread::{self, Siblings},
};
use crate::state::{
    Excess, Instance, RevisionRecord, State,
    fits::{Candidate, FILTERS, Misfit, Request},
    gang::{Together, waiting_with},
};
pub use changes::{MAX_TRIALS, Suggestion};
pub use gang::Gang;
use tally::{Nearest, Tally};

mod changes;
mod gang;
mod summary;
mod tally;

/// Most reasons told of one filter, the most frequent ones.
pub const MAX_REASONS: usize = 5;
/// Most hosts told with their scores, the best ones.
pub const MAX_SCORES: usize = 5;
/// Most hosts told with all that is missing there, the nearest ones.
pub const MAX_NEAREST: usize = 3;

/// Why an instance is where it is, or is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The instance; `None` for a spec that is not applied.
    pub instance: Option<InstanceId>,
    /// The host it is on, or would go to; `None`: none fits.
    pub host: Option<HostName>,
    /// Hosts looked at.
    pub hosts: u32,
    /// Hosts that pass every filter.
    pub fitting: u32,
    /// What each filter ruled out, in their order; those that ruled out none are there too.
    pub filters: Vec<FilterResult>,
    /// The hosts that came closest, where none fits, the nearest first, at most [`MAX_NEAREST`].
    pub nearest: Vec<NearMiss>,
    /// Its host and the best others with their scores, its host first.
    pub scores: Vec<HostScore>,
    /// The amounts of its borough's quota that it would exceed; none where it is placed.
    pub quota: Vec<Excess>,
    /// The whole in one sentence.
    pub summary: String,
    /// What would make it fit, where that was looked for ([`Explainer::changes`]).
    pub changes: Vec<Suggestion>,
    /// How many wait and come before it, since they are more urgent, or older than it, as urgent and of its borough: what there is room for is theirs first. 0 where it is placed.
    pub ahead: u32,
    /// Where its volumes live: it goes there and nowhere else.
    pub home: Option<HomeTold>,
    /// The gang of which it waits; where not all of it would find hosts, all else that is told is of the first one that finds none.
    pub gang: Option<Gang>,
}

/// The host on which the volumes of an instance live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeTold {
    /// Its name.
    pub host: HostName,
    /// Since when they live there.
    pub since: UnixMillis,
    /// What keeps the instance from it, in words; nothing: it fits there, or is there.
    pub because: Vec<String>,
}

/// What one filter ruled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterResult {
    /// Name of the filter.
    pub filter: &'static str,
    /// Hosts that passed all filters before and not this one.
    pub hosts: u32,
    /// Its reasons, most frequent first, at most [`MAX_REASONS`].
    pub reasons: Vec<FilterReason>,
    /// How many more it gave.
    pub others: u32,
}

/// One reason of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterReason {
    /// In words.
    pub reason: String,
    /// Hosts it was given for; a host may have several reasons.
    pub hosts: u32,
}

/// A host that came close to fitting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Its name.
    pub host: HostName,
    /// All that is missing there, over all filters.
    pub shortfalls: Vec<Shortfall>,
}

/// One thing that is missing on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// `cpu` (thousandths of a core), `memory` or `disk` (bytes), `network` (megabits a second), `port`, `core` (logical processors), `device`, or the name of a filter.
    pub what: &'static str,
    /// Needed; 0 where it is no amount.
    pub needed: u64,
    /// Free there; 0 where it is no amount.
    pub free: u64,
    /// In words.
    pub reason: String,
}

/// A host that would do, or on which the instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostScore {
    /// Its name.
    pub host: HostName,
    /// Sum of the parts.
    pub score: i64,
    /// What each rule gives it.
    pub parts: Vec<ScorePart>,
    /// How many other instances of the workload are near, for each thing it is spread over. The fewer the better, or the fewer of its share, before all
    /// scores.
    pub near: Vec<Near>,
}

/// Other instances of the workload that are near a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// In the same what.
    pub over: SpreadOver,
    /// How many.
    pub instances: u32,
    /// The share that is to be there, 0 where only others are named; `None`: there are no shares.
    pub share: Option<u32>,
}

/// One part of a score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScorePart {
    /// Name of the rule.
    pub rule: &'static str,
    /// What it adds.
    pub score: i64,
}

/// Who explains what a state holds, at a time. It knows all hosts, which takes the most time on a large estate: for several questions make one.
pub struct Explainer {
    state: State,
    now: UnixMillis,
    ledger: Ledger,
}

impl std::fmt::Debug for Explainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // All that it knows would be pages, and is in the state.
        f.debug_struct("Explainer").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Explainer {
    /// Of this state.
    #[must_use]
    pub fn of(state: &State, now: UnixMillis) -> Self {
        Self { state: state.clone(), now, ledger: Ledger::new(state) }
    }

    /// Why this instance is where it is, or nowhere.
    pub fn instance(&mut self, instance: &Instance) -> Explanation {
        self.forget_answers();
        let Self { state, now, ledger } = self;
        ledger.take_back(instance);
        ledger.learn(&instance.spec().place.spread);
        let mut siblings = Siblings::of(ledger, instance.workload(), Some(instance.id));
        let is_of_gang = instance.is_pending() && instance.spec().place.all_or_none;
        let gang_of = is_of_gang.then(|| waiting_with(state, instance, *now));
        let gang = gang_of.as_ref().map(|ids| Gang::give(ledger, &mut siblings, &instance.record, ids));
        let together = gang_of
            .as_ref()
            .map_or_else(|| Together::alone(instance), |ids| Together::of(state, ids.iter().copied()));
        let first = gang_of.zip(gang).and_then(|(ids, gang)| gang.first_without(state, &ids));
        let request = Request::of(first.map_or(instance, AsRef::as_ref));
        let mut survey = Survey::of(ledger, request, siblings, instance.host());
        survey.gang = gang;
        survey.excesses =
            if instance.is_pending() { state.excesses_with(instance, together) } else { Vec::new() };
        Explanation {
            instance: Some(instance.id),
            summary: summary::of_instance(&survey, instance, *now),
            ..survey.told()
        }
    }

    /// What would give this instance a host, after at most so many trials (see `changes`).
    pub fn changes(&mut self, instance: &Instance, trials: usize) -> Vec<Suggestion> {
        self.forget_answers();
        let Self { state, now, ledger } = self;
        changes::seek(ledger, state, instance, *now, trials, |_, idea| idea.told)
    }

    /// The same with the estate as it would be, and the spec where it is that which would change.
    #[cfg(test)]
    pub(super) fn outcomes(&mut self, instance: &Instance) -> Vec<changes::Outcome> {
        self.forget_answers();
        let Self { state, now, ledger } = self;
        changes::seek(ledger, state, instance, *now, usize::MAX, |sought, idea| sought.outcome(idea))
    }

    /// Where an instance of this spec would go, or why it would go nowhere; or one of this spec that waits.
    pub(super) fn spec(&mut self, spec: &WorkloadSpec, waiting: Option<InstanceId>) -> Explanation {
        self.forget_answers();
        let Self { state, ledger, .. } = self;
        ledger.learn(&spec.place.spread);
        let key = spec.key();
        let mut siblings = Siblings::of(ledger, &key, None);
        let gang = spec.place.all_or_none.then(|| {
            let (record, ids) = gang_to_come(state, spec);
            Gang::give(ledger, &mut siblings, &record, &ids)
        });
        let request = Request { instance: waiting, ..Request::new(&key, spec) };
        let mut survey = Survey::of(ledger, request, siblings, None);
        let together = gang.map_or(1, |gang| gang.waiting);
        let needed = survey.request.demand.times(together.into());
        survey.excesses = state.excesses(&key.borough, spec.priority, needed);
        survey.gang = gang;
        Explanation { summary: summary::of_spec(&survey, &key), ..survey.told() }
    }

    /// Takes back what was given and tried for the answers before.
    fn forget_answers(&mut self) {
        self.ledger.try_on(&self.state);
    }
}

/// The revision with this spec, and those that would wait of it: as many as it counts but for those that are there with nothing but another count.
fn gang_to_come(state: &State, spec: &WorkloadSpec) -> (Arc<RevisionRecord>, Vec<InstanceId>) {
    let counted = |other: &Instance| WorkloadSpec { count: spec.count, ..other.spec().clone() };
    let stays =
        |other: &&Arc<Instance>| other.is_to_stay() && other.placed.is_some() && counted(other) == *spec;
    let there = state.instances_of(&spec.key()).filter(stays).count() as u32;
    let to_come = spec.count.saturating_sub(there).max(1);
    let record = RevisionRecord {
        key: spec.key(),
        revision: 0,
        spec: Arc::new(spec.clone()),
        applied: 0,
        applied_by: String::new(),
    };
    let ids = (0..to_come).map(|ordinal| InstanceId { index: LogIndex::MAX, ordinal });
    (Arc::new(record), ids.collect())
}

/// How a host stands among those that fit, the best first: what is near, and then the score.
type Standing = (Vec<u32>, Reverse<i64>);

/// What a look at all hosts found.
struct Survey<'l> {
    ledger: &'l Ledger,
    request: Request<'l>,
    /// What it asks for of devices.
    asked: Vec<Asked>,
    siblings: Siblings,
    /// The slot the instance is in.
    home: Option<Slot>,
    /// The slot of the host on which its volumes live, with what speaks against that.
    bound: Option<(Slot, Vec<Misfit>)>,
    /// Fitting hosts, best first.
    fitting: Vec<(Standing, Slot)>,
    tally: Tally,
    nearest: Nearest,
    /// What its borough's quota has against it.
    excesses: Vec<Excess>,
    /// The gang of which it is one.
    gang: Option<Gang>,
}

impl<'l> Survey<'l> {
    fn of(ledger: &'l Ledger, request: Request<'l>, siblings: Siblings, home: Option<HostId>) -> Self {
        let home = home.and_then(|host| ledger.slot(host));
        let (fitting, tally, nearest) = (Vec::new(), Tally::default(), Nearest::default());
        let mut siblings = siblings;
        siblings.watch(ledger, &request.spec.place.spread);
        let excesses = Vec::new();
        let gang = None;
        let bound = request.instance.and_then(|id| ledger.state().home_of(id));
        let bound = bound.and_then(|host| ledger.slot(host)).map(|slot| (slot, Vec::new()));
        let asked = ledger.outlook().asked(&request.spec.resources.devices);
        let mut survey =
            Self { ledger, request, asked, siblings, home, bound, fitting, tally, nearest, excesses, gang };
        for slot in ledger.hosts() {
            let mut candidate = ledger.candidate_for(slot, &request);
            // Of a gang some may be there of which the state does not know.
            candidate.known.sibling = Some(survey.siblings.on(slot) > 0);
            let misfits: Vec<Misfit> = candidate.misfits(&request).collect();
            match misfits.first() {
                None => survey.fitting.push((survey.standing(slot), slot)),
                Some(first) => {
                    survey.tally.count(first);
                    survey.offer(slot, misfits);
                }
            }
        }
        survey.fitting.sort_unstable();
        survey
    }

    /// Takes down what speaks against a host. What must go home comes closest there, however far that is.
    fn offer(&mut self, slot: Slot, misfits: Vec<Misfit>) {
        match &mut self.bound {
            Some((bound, _)) if *bound != slot => return,
            Some((_, because)) => because.clone_from(&misfits),
            None => {}
        }
        self.nearest.offer(slot, misfits);
    }

    /// How many wait and come before it.
    fn ahead(&self) -> u32 {
        let Request { instance, key, spec, .. } = self.request;
        let is_before = |other: &&Arc<Instance>| {
            let is_older = instance.is_none_or(|id| other.id < id);
            let is_beside = other.spec().priority == spec.priority && other.workload().borough == key.borough;
            let goes_with_it = other.workload() == key && (instance.is_none() || spec.place.all_or_none);
            other.spec().priority > spec.priority || is_beside && is_older && !goes_with_it
        };
        if self.home.is_some() { 0 } else { self.ledger.state().pending().filter(is_before).count() as u32 }
    }

    fn told_home(&self) -> Option<HomeTold> {
        let ((slot, misfits), id) = (self.bound.as_ref()?, self.request.instance?);
        let state = self.ledger.state();
        let homes = state.homes_of(self.request.key)?;
        let since = homes.of(state.instance(id)?.slot)?.since;
        let because = misfits.iter().map(ToString::to_string).collect();
        Some(HomeTold { host: self.name(*slot).clone(), since, because })
    }

    fn standing(&self, slot: Slot) -> Standing {
        let near = self.siblings.near(self.ledger, &self.request.spec.place.spread, slot);
        (
            near.into_iter().map(spread::Near::crowd).collect(),
            Reverse(score(&self.candidate(slot), &self.request, self.ledger.prospect(slot, &self.asked))),
        )
    }

    fn candidate(&self, slot: Slot) -> Candidate<'_> {
        self.ledger.candidate(slot)
    }

    fn name(&self, slot: Slot) -> &HostName {
        &self.candidate(slot).host.name
    }

    /// The slot it is in, or would go to.
    fn chosen(&self) -> Option<Slot> {
        self.home.or_else(|| self.fitting.first().map(|(_, slot)| *slot))
    }

    /// The best fitting slots but the chosen one.
    fn others(&self) -> impl Iterator<Item = Slot> {
        let chosen = self.chosen();
        self.fitting.iter().map(|(_, slot)| *slot).filter(move |slot| Some(*slot) != chosen)
    }

    fn score(&self, slot: Slot) -> HostScore {
        let candidate = self.candidate(slot);
        let (state, outlook) = (self.ledger.state(), self.ledger.outlook());
        let prospect = self.ledger.prospect(slot, &self.asked);
        let part = |rule: &super::score::Rule| (rule.score)(&candidate, &self.request, prospect);
        let rules = RULES.iter().filter(|rule| (rule.applies)(state, &self.request, outlook));
        let parts = rules.map(|rule| ScorePart { rule: rule.name, score: part(rule) }).collect();
        let score = score(&candidate, &self.request, prospect);
        let spread = &self.request.spec.place.spread;
        let near = spread.iter().zip(self.siblings.near(self.ledger, spread, slot));
        let near = near.map(|(spread, near)| Near {
            over: spread.over.clone(),
            instances: near.instances,
            share: near.share(),
        });
        let near = near.collect();
        HostScore { host: candidate.host.name.clone(), score, parts, near }
    }

    fn miss(&self, slot: Slot, misfits: &[Misfit]) -> NearMiss {
        NearMiss { host: self.name(slot).clone(), shortfalls: tally::shortfalls(misfits) }
    }

    /// All but the sentence.
    fn told(&self) -> Explanation {
        let scored = self.chosen().into_iter().chain(self.others()).take(MAX_SCORES);
        let nearest = self.nearest.all().filter(|_| self.chosen().is_none());
        Explanation {
            instance: None,
            host: self.chosen().map(|slot| self.name(slot).clone()),
            hosts: self.ledger.hosts().count() as u32,
            fitting: self.fitting.len() as u32,
            filters: FILTERS.iter().map(|filter| self.tally.told(filter.name)).collect(),
            nearest: nearest.map(|(slot, misfits)| self.miss(slot, misfits)).collect(),
            scores: scored.map(|slot| self.score(slot)).collect(),
            quota: self.excesses.clone(),
            summary: String::new(),
            changes: Vec::new(),
            ahead: self.ahead(),
            home: self.told_home(),
            gang: self.gang,
        }
    }
}
