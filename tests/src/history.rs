//! What clients asked of registers and what they were told, with the times of both.
//!
//! A register is a workload: its value is a number in its spec, its version the workload's revision, which every write raises by one.
//! This module knows no network: it is what `load` records and `linearizable` judges.

use std::{collections::BTreeMap, time::Duration};

use crate::{Outcome, hold};

/// A value; every write of a history has its own.
pub type Value = u64;
/// A register's version: how many writes it has taken.
pub type Revision = u64;
/// Where in the log a write took effect.
pub type Index = u64;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The register's content, linearizable.
    Read,
    /// A new value.
    Write(Value),
    /// A new value, if this is the version.
    WriteIf(Revision, Value),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The content, and where in the log it was written.
    Content(Content, Index),
    /// The write took effect there.
    Written(Index),
    /// The version was another one; nothing was written.
    OtherVersion,
    /// Nothing was done, surely.
    Failed,
    /// It may have been done, or be done yet, or never.
    Unknown,
}

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content {
    /// Writes so far.
    pub revision: Revision,
    /// What the last one wrote.
    pub value: Value,
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Who called.
    pub client: usize,
    /// Which register.
    pub register: usize,
    /// What was asked.
    pub ask: Ask,
    /// When, since the history began.
    pub asked: Duration,
    /// What came of it.
    pub answer: Answer,
    /// When that was known.
    pub answered: Duration,
}

impl Operation {
    /// The value that it writes.
    pub fn writes(&self) -> Option<Value> {
        match self.ask {
            Ask::Read => None,
            Ask::Write(value) | Ask::WriteIf(_, value) => Some(value),
        }
    }

    /// Where in the log its write took effect.
    pub fn written_at(&self) -> Option<Index> {
        match self.answer {
            Answer::Written(index) => Some(index),
            _ => None,
        }
    }
}

/// All calls of some clients on some registers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In no order.
    pub operations: Vec<Operation>,
    /// What each register held at the beginning, written by nobody in this history.
    pub begin: Vec<Content>,
}

/// How many calls came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub written: usize,
    /// Reads that were answered.
    pub read: usize,
    /// Conditional writes that were refused.
    pub refused: usize,
    /// Calls of which nothing was done.
    pub failed: usize,
    /// Writes whose fate is not known. They are neither good nor bad.
    pub unknown: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { written, read, refused, failed, unknown } = self;
        write!(
            f,
            "{written} written, {read} read, {refused} refused for the version, {failed} failed, {unknown} unknown"
        )
    }
}

impl History {
    /// How many calls came to what.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &self.operations {
            match operation.answer {
                Answer::Content(..) => tally.read += 1,
                Answer::Written(_) => tally.written += 1,
                Answer::OtherVersion => tally.refused += 1,
                Answer::Failed => tally.failed += 1,
                Answer::Unknown => tally.unknown += 1,
            }
        }
        tally
    }

    /// The calls on one register.
    pub fn of(&self, register: usize) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(move |operation| operation.register == register)
    }

    /// Holds that each write has one place in the log whoever tells of it, that no two share one, and that versions grow with it.
    pub fn must_have_one_order(&self) -> Outcome {
        let mut places: BTreeMap<Value, Index> = BTreeMap::new();
        let mut values: BTreeMap<Index, Value> = BTreeMap::new();
        let mut versions: BTreeMap<(usize, Revision), Index> = BTreeMap::new();
        for operation in &self.operations {
            let (value, index) = match (operation.answer, operation.writes()) {
                (Answer::Written(index), Some(value)) => (value, index),
                (Answer::Content(content, index), _) => {
                    let place = *versions.entry((operation.register, content.revision)).or_insert(index);
                    hold(place == index, || format!("one version at {place} and at {index}: {operation:?}"))?;
                    (content.value, index)
                }
                _ => continue,
            };
            let place = *places.entry(value).or_insert(index);
            hold(place == index, || format!("value {value} at {place} and at {index}: {operation:?}"))?;
            let other = *values.entry(index).or_insert(value);
            hold(other == value, || format!("values {value} and {other} at {index}: {operation:?}"))?;
        }
        for pair in versions.iter().zip(versions.iter().skip(1)) {
            let ((earlier, before), (later, after)) = pair;
            hold(earlier.0 != later.0 || before < after, || {
                format!("version {} at {before}, but {} at {after}", earlier.1, later.1)
            })?;
        }
        Ok(())
    }

    /// Holds that a register's last content and its kept versions (oldest first, ending with that content) have every acknowledged
    /// write in them. What each version held is kept for some versions only; the others are counted.
    pub fn must_be_kept(&self, register: usize, last: Content, kept: &[Value]) -> Outcome {
        let begin = self.begin[register];
        let mut written: Vec<(Index, Value)> =
            self.of(register).filter_map(|one| Some((one.written_at()?, one.writes()?))).collect();
        written.sort_unstable();
        let unknown: Vec<Value> = self
            .of(register)
            .filter(|one| one.answer == Answer::Unknown)
            .filter_map(Operation::writes)
            .collect();
        let taken = last.revision - begin.revision;
        let (least, most) = (written.len() as u64, (written.len() + unknown.len()) as u64);
        hold((least..=most).contains(&taken), || {
            format!("register {register} took {taken} writes; {least} were acknowledged, {most} sent")
        })?;
        hold(kept.last() == Some(&last.value), || format!("kept are {kept:?}, but the last is {last:?}"))?;
        let acknowledged: Vec<Value> = written.iter().map(|(_, value)| *value).collect();
        let told: Vec<Value> = kept.iter().copied().filter(|value| acknowledged.contains(value)).collect();
        hold(acknowledged.ends_with(&told), || {
            format!("register {register} keeps {told:?} of the acknowledged {acknowledged:?}")
        })?;
        let strange = kept.iter().find(|value| {
            !acknowledged.contains(value) && !unknown.contains(value) && **value != begin.value
        });
        hold(strange.is_none(), || {
            format!("register {register} keeps {strange:?}, which was refused or never sent")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Content = Content { revision: 1, value: 0 };

    fn operation(ask: Ask, answer: Answer) -> Operation {
        let (asked, answered) = (Duration::from_secs(1), Duration::from_secs(2));
        Operation { client: 0, register: 0, ask, asked, answer, answered }
    }

    fn written(value: Value, index: Index) -> Operation {
        operation(Ask::Write(value), Answer::Written(index))
    }

    fn read(revision: Revision, value: Value, index: Index) -> Operation {
        operation(Ask::Read, Answer::Content(Content { revision, value }, index))
    }

    fn history(operations: Vec<Operation>) -> History {
        History { operations, begin: vec![BEGIN] }
    }

    #[test]
    fn a_write_has_one_place_in_one_order() {
        for (good, operations) in [
            (true, vec![written(7, 10), read(2, 7, 10), read(2, 7, 10), read(1, 0, 3)]),
            // Done twice, at two places.
            (false, vec![written(7, 10), read(2, 7, 12)]),
            (false, vec![written(7, 10), written(8, 10)]),
            (false, vec![read(2, 7, 10), read(3, 8, 9)]),
            (false, vec![read(2, 7, 10), read(2, 8, 11)]),
        ] {
            let judged = history(operations).must_have_one_order();
            assert_eq!(judged.is_ok(), good, "{judged:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_is_kept() {
        let unknown = operation(Ask::Write(9), Answer::Unknown);
        let failed = operation(Ask::Write(5), Answer::Failed);
        let all = history(vec![written(8, 12), written(7, 10), unknown, failed]);
        for (good, revision, kept) in [
            (true, 3, vec![0, 7, 8]),
            (true, 4, vec![7, 9, 8]),
            (true, 4, vec![8, 9]),
            // One is lost, one was never acknowledged, one is there too often, one was refused, two changed places.
            (false, 2, vec![0, 7]),
            (false, 3, vec![0, 9, 7]),
            (false, 5, vec![7, 8, 7, 8]),
            (false, 4, vec![7, 5, 8]),
            (false, 3, vec![8, 7]),
        ] {
            let last = Content { revision, value: kept[kept.len() - 1] };
            let judged = all.must_be_kept(0, last, &kept);
            assert_eq!(judged.is_ok(), good, "{kept:?}: {judged:?}");
        }
    }
}
