//! Whether there is one order of all calls on a register that explains every answer and keeps to real time.
//!
//! The search of Wing and Gong ("Testing and checking concurrent objects", 1993) with Lowe's memory of what was tried ("Testing for
//! linearizability", 2017), as Porcupine does it: calls and answers stand in a list by time; a call before the first answer may come next; if
//! it cannot, or leads nowhere, the last choice is taken back; a set of chosen calls is never tried twice with the same content.
//!
//! Decisions
//! * **A call whose fate is unknown is not in the list**: it may come at any later place, or nowhere, and is tried where the others lead no
//!   further. It is counted and told ([`History::tally`]), since a history of unknowns proves nothing.
//! * **Registers are judged one by one**: a set of registers is linearizable if each is (Herlihy and Wing, 1990).
//! * **Versions prune the search.** A read tells which write made which version, and versions only grow. A choice that contradicts an answer
//!   further on is not made; without that, each call of an unknown fate would double the work.
//! * **The search is bounded.** [`Verdict::Undecided`] is not a pass.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    history::{Answer, Ask, Content, History, Operation, Revision, Value},
    wrong,
};

/// Time for one register. What these histories need is milliseconds.
pub const WITHIN: Duration = Duration::from_secs(20);
/// Steps between two looks at the clock.
const STEPS: usize = 1 << 12;
/// Calls shown around the one that cannot be explained.
const SHOWN: usize = 12;

/// What is found about one register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none; with what stands in its way.
    Violated(String),
    /// The time was not enough.
    Undecided,
}

/// Holds that every register of a history is linearizable.
pub fn must_be(history: &History) -> Outcome {
    for (register, begin) in history.begin.iter().enumerate() {
        match check(*begin, history.of(register), WITHIN) {
            Verdict::Linearizable => {}
            Verdict::Violated(why) => {
                return wrong(format!("register {register} is not linearizable: {why}"));
            }
            Verdict::Undecided => {
                return wrong(format!("register {register}: not decided within {} s", WITHIN.as_secs()));
            }
        }
    }
    Ok(())
}

/// Judges one register that held `begin` before all calls.
pub fn check<'a>(
    begin: Content,
    operations: impl Iterator<Item = &'a Operation>,
    within: Duration,
) -> Verdict {
    let mut operations: Vec<Operation> =
        operations.copied().filter(|operation| operation.tells_something()).collect();
    operations.sort_by_key(|operation| operation.asked);
    Search::new(begin, operations).run(Instant::now() + within)
}

impl Operation {
    /// A call that did nothing, or whose answer was never seen and that changed nothing, explains itself.
    fn tells_something(&self) -> bool {
        match self.answer {
            Answer::Failed => false,
            Answer::Unknown => self.writes().is_some(),
            Answer::Content(..) | Answer::Written(_) | Answer::OtherVersion => true,
        }
    }
}

/// What a register holds after a call, if the call can have come at this moment and got its answer.
fn step(before: Content, operation: &Operation) -> Option<Content> {
    let after = |value| Content { revision: before.revision + 1, value };
    match (operation.ask, operation.answer) {
        (Ask::Read, Answer::Content(seen, _)) => (seen == before).then_some(before),
        (Ask::Write(value), Answer::Written(_) | Answer::Unknown) => Some(after(value)),
        (Ask::WriteIf(version, value), Answer::Written(_) | Answer::Unknown) => {
            (version == before.revision).then(|| after(value))
        }
        (Ask::WriteIf(version, _), Answer::OtherVersion) => (version != before.revision).then_some(before),
        _ => None,
    }
}

/// The version that a call must find, if its answer says so.
fn demand(operation: &Operation) -> Option<Revision> {
    match (operation.ask, operation.answer) {
        (Ask::Read, Answer::Content(seen, _)) => Some(seen.revision),
        (Ask::WriteIf(version, _), Answer::Written(_)) => Some(version),
        _ => None,
    }
}

/// What reads tell about which write made which version.
#[derive(Default)]
struct Told {
    values: HashMap<Revision, Value>,
    versions: HashMap<Value, Revision>,
}

impl Told {
    fn by(operations: &[Operation]) -> Self {
        let mut told = Self::default();
        for operation in operations {
            if let Answer::Content(Content { revision, value }, _) = operation.answer {
                told.values.insert(revision, value);
                told.versions.insert(value, revision);
            }
        }
        told
    }

    fn allows(&self, content: Content) -> bool {
        let value = self.values.get(&content.revision);
        let version = self.versions.get(&content.value);
        value.is_none_or(|value| *value == content.value)
            && version.is_none_or(|version| *version == content.revision)
    }
}

/// A moment in the list: a call, or the answer to one.
#[derive(Debug, Clone, Copy)]
struct Moment {
    operation: usize,
    is_answer: bool,
    before: usize,
    after: usize,
}

/// Where the list begins; its moment stands for none.
const HEAD: usize = 0;

/// What may come next.
#[derive(Debug, Clone, Copy)]
enum Candidate {
    /// What stands at this place of the list.
    InList(usize),
    /// The so-manieth operation of an unknown fate.
    Unknown(usize),
}

/// Where the search goes.
enum Step {
    /// To this candidate.
    Next(Candidate),
    /// Nowhere: everything was tried.
    Stuck,
}

/// A set of operations: a bit for each, without the words at its beginning that are full (so many) and those at its end that are empty.
type Set = (usize, Vec<u64>);

struct Search {
    /// By the time of the call, so that what was chosen is a prefix but for a few, and a [`Set`] is small.
    operations: Vec<Operation>,
    /// A doubly linked list, in order of time. What was chosen is unlinked and remembers its place.
    moments: Vec<Moment>,
    /// Places of each operation's call and answer; `None` where its fate is unknown.
    places: Vec<Option<(usize, usize)>>,
    /// The operations of an unknown fate.
    unknown: Vec<usize>,
    content: Content,
    chosen: Vec<u64>,
    path: Vec<(usize, Content)>,
    tried: HashSet<(Set, Content)>,
    told: Told,
    /// Versions that calls which were not chosen yet must find, and how many each.
    demands: BTreeMap<Revision, usize>,
    /// The longest explanation so far: how long, what it led to, and whose answer it could not reach.
    farthest: (usize, Content, usize),
}

impl Search {
    fn new(begin: Content, operations: Vec<Operation>) -> Self {
        let (mut order, mut unknown) = (Vec::new(), Vec::new());
        for (number, operation) in operations.iter().enumerate() {
            if operation.answer == Answer::Unknown {
                unknown.push(number);
            } else {
                order.push((operation.asked, false, number));
                order.push((operation.answered, true, number));
            }
        }
        // At one and the same time calls come before answers: they may have overlapped.
        order.sort_unstable();
        let mut places = vec![None; operations.len()];
        let mut moments = vec![Moment { operation: 0, is_answer: false, before: HEAD, after: 1 }];
        for (_, is_answer, operation) in order {
            let place = moments.len();
            moments.push(Moment { operation, is_answer, before: place - 1, after: place + 1 });
            let (call, answer) = places[operation].get_or_insert((place, place));
            *(if is_answer { answer } else { call }) = place;
        }
        let mut demands = BTreeMap::new();
        for version in operations.iter().filter_map(demand) {
            *demands.entry(version).or_default() += 1;
        }
        Self {
            told: Told::by(&operations),
            demands,
            chosen: vec![0; operations.len().div_ceil(64)],
            operations,
            moments,
            places,
            unknown,
            content: begin,
            path: Vec::new(),
            tried: HashSet::new(),
            farthest: (0, begin, 0),
        }
    }

    fn run(mut self, deadline: Instant) -> Verdict {
        let mut at = Candidate::InList(self.moments[HEAD].after);
        for number in 1_usize.. {
            if number.is_multiple_of(STEPS) && Instant::now() >= deadline {
                return Verdict::Undecided;
            }
            // At the end of the list every answer is explained; calls that are left are those of an unknown fate.
            let Some(next) = self.advance(at) else { break };
            match next {
                Step::Next(candidate) => at = candidate,
                Step::Stuck => return Verdict::Violated(self.explain()),
            }
        }
        Verdict::Linearizable
    }

    /// Tries one candidate, and says which is the next; `None` when all is explained.
    fn advance(&mut self, at: Candidate) -> Option<Step> {
        let operation = match at {
            Candidate::InList(place) => {
                let moment = *self.moments.get(place)?;
                if moment.is_answer {
                    return Some(Step::Next(Candidate::Unknown(0)));
                }
                moment.operation
            }
            Candidate::Unknown(number) => {
                let blocking = self.first_answer();
                let until = self.operations[blocking].answered;
                match self.unknown.get(number).copied() {
                    Some(operation) if self.operations[operation].asked <= until => operation,
                    _ => {
                        self.note(blocking);
                        return Some(self.take_back());
                    }
                }
            }
        };
        let next = if !self.is_chosen(operation) && self.choose(operation) {
            Candidate::InList(self.moments[HEAD].after)
        } else {
            self.after(at)
        };
        Some(Step::Next(next))
    }

    fn after(&self, candidate: Candidate) -> Candidate {
        match candidate {
            Candidate::InList(place) => Candidate::InList(self.moments[place].after),
            Candidate::Unknown(number) => Candidate::Unknown(number + 1),
        }
    }

    /// The operation whose answer comes first in the list.
    fn first_answer(&self) -> usize {
        let mut moment = self.moments[self.moments[HEAD].after];
        while !moment.is_answer {
            moment = self.moments[moment.after];
        }
        moment.operation
    }

    fn is_chosen(&self, operation: usize) -> bool {
        self.chosen[operation / 64] >> (operation % 64) & 1 == 1
    }

    /// Lets a call come next, if it can and this was not tried before.
    fn choose(&mut self, operation: usize) -> bool {
        let Some(after) = step(self.content, &self.operations[operation]) else { return false };
        self.mark(operation, true);
        if !self.leaves_a_way(after) || !self.tried.insert((self.chosen_set(), after)) {
            self.mark(operation, false);
            return false;
        }
        self.path.push((operation, self.content));
        self.content = after;
        if let Some((call, answer)) = self.places[operation] {
            self.unlink(call);
            self.unlink(answer);
        }
        true
    }

    /// Whether what the calls that are left were told can still come true.
    fn leaves_a_way(&self, content: Content) -> bool {
        let least = self.demands.first_key_value().map(|(version, _)| *version);
        self.told.allows(content) && least.is_none_or(|least| content.revision <= least)
    }

    fn mark(&mut self, operation: usize, chosen: bool) {
        self.chosen[operation / 64] ^= 1 << (operation % 64);
        let Some(version) = demand(&self.operations[operation]) else { return };
        let count = self.demands.entry(version).or_default();
        if chosen {
            *count -= 1
        } else {
            *count += 1
        }
        if *count == 0 {
            self.demands.remove(&version);
        }
    }

    fn chosen_set(&self) -> Set {
        let full = self.chosen.iter().take_while(|word| **word == u64::MAX).count();
        let end = self.chosen.iter().rposition(|word| *word != 0).map_or(full, |last| last + 1);
        (full, self.chosen[full..end.max(full)].to_vec())
    }

    /// Takes the last choice back, and goes on after it.
    fn take_back(&mut self) -> Step {
        let Some((operation, before)) = self.path.pop() else { return Step::Stuck };
        self.content = before;
        self.mark(operation, false);
        let taken_back = match self.places[operation] {
            Some((call, answer)) => {
                self.link(answer);
                self.link(call);
                Candidate::InList(call)
            }
            None => Candidate::Unknown(self.unknown.partition_point(|other| *other < operation)),
        };
        Step::Next(self.after(taken_back))
    }

    fn unlink(&mut self, place: usize) {
        let Moment { before, after, .. } = self.moments[place];
        self.moments[before].after = after;
        if let Some(next) = self.moments.get_mut(after) {
            next.before = before;
        }
    }

    fn link(&mut self, place: usize) {
        let Moment { before, after, .. } = self.moments[place];
        self.moments[before].after = place;
        if let Some(next) = self.moments.get_mut(after) {
            next.before = place;
        }
    }

    /// Notes how far the search came before an answer that it could not explain.
    fn note(&mut self, unexplained: usize) {
        if self.path.len() >= self.farthest.0 {
            self.farthest = (self.path.len(), self.content, unexplained);
        }
    }

    fn explain(&self) -> String {
        let (length, content, unexplained) = self.farthest;
        let culprit = &self.operations[unexplained];
        let mut near: Vec<&Operation> =
            self.operations.iter().filter(|other| other.answered + WINDOW >= culprit.asked).collect();
        near.sort_by_key(|operation| operation.asked);
        let first = near.iter().position(|other| *other == culprit).unwrap_or(0).saturating_sub(SHOWN / 2);
        let shown = near.iter().skip(first).take(SHOWN).map(|operation| format!("\n  {}", Shown(operation)));
        format!(
            "{length} of {} calls can be explained up to {content:?}, but then not\n  {}\namong\
             {}",
            self.operations.len(),
            Shown(culprit),
            shown.collect::<String>()
        )
    }
}

/// How long before a call others still are of interest.
const WINDOW: Duration = Duration::from_millis(500);

/// A call in one line.
struct Shown<'a>(&'a Operation);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Operation { client, ask, asked, answer, answered, .. } = self.0;
        write!(
            f,
            "{:.6} s to {:.6} s: client {client}: {ask:?}: {answer:?}",
            asked.as_secs_f64(),
            answered.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Revision, Value};

    const BEGIN: Content = Content { revision: 1, value: 0 };

    /// A call from `asked` to `answered`, in milliseconds.
    fn call(asked: u64, answered: u64, ask: Ask, answer: Answer) -> Operation {
        let (asked, answered) = (Duration::from_millis(asked), Duration::from_millis(answered));
        Operation { client: 0, register: 0, ask, asked, answer, answered }
    }

    fn write(asked: u64, answered: u64, value: Value) -> Operation {
        call(asked, answered, Ask::Write(value), Answer::Written(0))
    }

    fn lost(asked: u64, value: Value) -> Operation {
        call(asked, asked + 1, Ask::Write(value), Answer::Unknown)
    }

    fn read(asked: u64, answered: u64, revision: Revision, value: Value) -> Operation {
        call(asked, answered, Ask::Read, Answer::Content(Content { revision, value }, 0))
    }

    fn judge(operations: &[Operation]) -> Verdict {
        check(BEGIN, operations.iter(), WITHIN)
    }

    fn good(what: &str, operations: &[Operation]) {
        assert_eq!(judge(operations), Verdict::Linearizable, "{what}");
    }

    fn bad(what: &str, operations: &[Operation]) {
        assert!(matches!(judge(operations), Verdict::Violated(_)), "{what}");
    }

    #[test]
    fn what_one_order_explains_is_good() {
        good("nothing", &[]);
        good("one after the other", &[read(0, 1, 1, 0), write(2, 3, 7), read(4, 5, 2, 7)]);
        good("a read beside a write sees the old", &[write(0, 9, 7), read(1, 2, 1, 0), read(3, 4, 2, 7)]);
        good("two writes in either order", &[write(0, 9, 7), write(0, 9, 8), read(10, 11, 3, 7)]);
        good("at one and the same time", &[write(0, 5, 7), read(5, 6, 1, 0)]);
    }

    #[test]
    fn what_no_order_explains_is_bad() {
        bad("a stale read", &[write(0, 1, 7), read(2, 3, 1, 0)]);
        bad("a read that goes back", &[write(0, 9, 7), read(1, 2, 2, 7), read(3, 4, 1, 0)]);
        bad("a lost write", &[write(0, 1, 7), write(2, 3, 8), read(4, 5, 2, 8)]);
        bad("a write done twice", &[write(0, 1, 7), write(2, 3, 8), read(4, 5, 4, 7)]);
        bad("a value that nobody wrote", &[write(0, 1, 7), read(2, 3, 2, 5)]);
        bad("a value before its write", &[read(0, 1, 2, 7), write(2, 3, 7)]);
        bad("a value of a write that failed", &[call(0, 1, Ask::Write(7), Answer::Failed), read(2, 3, 2, 7)]);
    }

    #[test]
    fn an_unknown_write_comes_late_or_never_but_does_not_go_again() {
        good("never", &[lost(0, 7), read(5, 6, 1, 0)]);
        good("late", &[lost(0, 7), read(5, 6, 1, 0), read(7, 8, 2, 7)]);
        good("after a write that came after it", &[lost(0, 7), write(5, 6, 8), read(7, 8, 3, 7)]);
        bad("before it was sent", &[read(0, 1, 2, 7), lost(5, 7)]);
        bad("seen, and gone again", &[lost(0, 7), read(5, 6, 2, 7), read(7, 8, 1, 0)]);
        bad("done twice", &[lost(0, 7), read(2, 3, 2, 7), write(4, 5, 8), read(6, 7, 4, 7)]);
        good("a read without an answer says nothing", &[call(0, 1, Ask::Read, Answer::Unknown)]);
    }

    #[test]
    fn a_condition_is_judged_with_the_write() {
        let when =
            |asked, version, value, answer| call(asked, asked + 1, Ask::WriteIf(version, value), answer);
        good("met", &[when(0, 1, 7, Answer::Written(0)), read(2, 3, 2, 7)]);
        bad("not met, and written", &[when(0, 2, 7, Answer::Written(0))]);
        good("not met", &[when(0, 2, 7, Answer::OtherVersion), read(2, 3, 1, 0)]);
        bad("met, and refused", &[when(0, 1, 7, Answer::OtherVersion)]);
        bad(
            "two under one condition",
            &[when(0, 1, 7, Answer::Written(0)), when(0, 1, 8, Answer::Written(0))],
        );
        good("unknown, and met later", &[when(0, 2, 7, Answer::Unknown), write(2, 3, 8), read(4, 5, 3, 7)]);
    }

    #[test]
    fn a_violation_is_shown_and_a_search_without_time_is_no_pass() {
        let stale = [write(0, 1, 7), read(2, 3, 1, 0)];
        let Verdict::Violated(why) = judge(&stale) else { panic!("not seen") };
        assert!(why.contains("of 2 calls") && why.contains("0.002000 s to 0.003000 s"), "{why}");
        // Sixteen writes at once, and a read of one more that comes after: too much for no time at all.
        let mut many: Vec<Operation> = (1..=16).map(|value| write(0, 9, value)).collect();
        many.push(read(10, 11, 18, 99));
        assert_eq!(check(BEGIN, many.iter(), Duration::ZERO), Verdict::Undecided);
    }

    #[test]
    fn a_long_history_with_many_clients_is_judged_quickly() {
        let mut operations = Vec::new();
        for round in 0..2_000_u64 {
            let (begin, end) = (round * 10, round * 10 + 9);
            let first = round * 3 + 1;
            operations.extend((0..3).map(|one| write(begin, end, first + one)));
            operations.push(read(end, end + 1, 1 + (round + 1) * 3, first + 1));
            if round % 50 == 0 {
                operations.push(lost(begin, 1_000_000 + round));
            }
        }
        good("6,000 writes", &operations);
    }
}
