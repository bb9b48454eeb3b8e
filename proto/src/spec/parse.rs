//! Specs from YAML or JSON, as people write them: all problems of all documents at once, each with its path.
//!
//! A text becomes a tree of plain values, and the tree is walked by hand. Deriving would be shorter, but it stops at the first
//! mistake and does not know the names it did not find. Where a part cannot be read, the walk goes on with a stand-in, and
//! what `check` says of a stand-in is left out.

use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, options::NonFiniteFloatPolicy};

use self::node::{Node, Notes};
use super::WorkloadSpec;
use crate::problem::{Problem, Problems};

mod document;
mod driver;
pub(super) mod node;
mod suggest;

/// Longest text that is read, in bytes: some thousand workloads, and what a caller can make a program hold.
pub const MAX_INPUT: usize = 1 << 20;
/// Most documents in one text: more belong into several files.
pub const MAX_DOCUMENTS: usize = 1_000;
/// Deepest nesting; a spec needs seven levels.
const MAX_DEPTH: usize = 32;
/// Most bytes under anchors. Together with [`MAX_REPLAYED`] it bounds what aliases can blow a text up to: 64 MiB.
const MAX_ANCHORED: usize = 32 << 10;
/// Most parts that aliases may stand for, all together.
const MAX_REPLAYED: usize = 2_000;

/// The specs of a text with one or several YAML documents (JSON is YAML), or everything that is wrong with them. What comes back
/// has been checked.
pub fn parse(text: &str) -> Result<Vec<WorkloadSpec>, Problems> {
    let values = values(text)?;
    let several = values.len() > 1;
    let mut problems = Vec::new();
    let mut specs: Vec<(usize, WorkloadSpec)> = Vec::new();
    for (number, value) in (1..).zip(&values) {
        let mut found = Vec::new();
        match document(value) {
            Ok(spec) => match specs.iter().find(|(_, other)| other.key() == spec.key()) {
                Some((first, _)) => {
                    let twice = format!("{}, which document {first} describes", spec.key());
                    found.push(Problem::new("workload", "each workload once", twice));
                }
                None => specs.push((number, spec)),
            },
            Err(wrong) => found = wrong,
        }
        problems.extend(found.into_iter().map(|problem| in_document(problem, several.then_some(number))));
    }
    if problems.is_empty() {
        Ok(specs.into_iter().map(|(_, spec)| spec).collect())
    } else {
        Err(Problems(problems))
    }
}

/// Puts the number of the document before the path, where there are several.
fn in_document(mut problem: Problem, number: Option<usize>) -> Problem {
    match number {
        Some(number) if problem.path.is_empty() => problem.path = format!("document {number}"),
        Some(number) => problem.path = format!("document {number}: {}", problem.path),
        None => {}
    }
    problem
}

fn document(value: &Value) -> Result<WorkloadSpec, Vec<Problem>> {
    let notes = Notes::default();
    let read = document::read(&Node::root(value, &notes));
    let more = read.as_ref().map(|(spec, style)| spec.check_as(*style)).unwrap_or_default();
    let problems = notes.with(more);
    match read {
        Some((spec, _)) if problems.is_empty() => Ok(spec),
        _ => Err(problems),
    }
}

/// The documents of a text as plain values.
fn values(text: &str) -> Result<Vec<Value>, Problems> {
    if text.len() > MAX_INPUT {
        let expected = format!("at most {MAX_INPUT} bytes");
        return Err(Problem::new("", expected, format!("{} bytes", text.len())).into());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_depth: MAX_DEPTH,
            max_recorded_anchor_bytes: MAX_ANCHORED,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        duplicate_keys: DuplicateKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        // "no" and "on" are words, "007" and "1_000" are texts: only what YAML 1.2 calls so is a truth value or a number.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let values: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| syntax(&error))?;
    if values.is_empty() {
        return Err(Problem::new("", "a workload", "an empty text").into());
    }
    Ok(values)
}

/// What is wrong with a text that is no YAML at all, at its line and column.
fn syntax(error: &serde_saphyr::Error) -> Problems {
    let place = error.location().map(|at| format!("line {}, column {}", at.line(), at.column()));
    let place = place.unwrap_or_default();
    let said = error.without_snippet().to_string();
    let said = said.strip_suffix(&format!(" at {place}")).unwrap_or(&said);
    Problem::new(place, "YAML or JSON", said).into()
}

/// For tests: what was read, whether or not a check would let it pass.
#[cfg(test)]
pub(super) fn read_unchecked(value: &Value) -> Result<WorkloadSpec, Vec<Problem>> {
    let notes = Notes::default();
    let read = document::read(&Node::root(value, &notes));
    let problems = notes.with(Vec::new());
    read.map(|(spec, _)| spec).filter(|_| problems.is_empty()).ok_or(problems)
}

#[cfg(test)]
mod tests;
