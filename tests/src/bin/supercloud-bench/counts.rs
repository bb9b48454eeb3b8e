//! How many instructions a decision takes: the series of the bench `decisions` on small estates, counted by callgrind. Unlike times, counts are the same
//! on a busy machine, so that a regression shows: `counts.txt` has what is expected, and what differs by more than a twentieth fails.
//!
//! The bench runs itself under callgrind (`supercloud-bench counted`). Counted is what happens within [`counted_pass`], from [`counting_begins`], which the
//! series call once they are warm, to [`counting_ends`], at which callgrind writes down what it has. Callgrind is driven from here and not by a
//! crate: those there are (iai-callgrind, gungraun) need a runner of the very same version installed beside, and start an estate anew for each case.
//!
//! Counts belong to a compiler: after another one, or a change that is meant, `scripts/bench counts --renew` writes the file anew.

use std::{fs, hint::black_box, path::Path, process::Command};

use supercloud_scheduler::{
    placement::{Engine, Limits, Plan},
    state::State,
};
use supercloud_tests::{Outcome, programs, wrong};

use crate::{
    Options,
    decisions::{Crowd, Estate, Placed},
    records::NOW,
    report::Report,
};

/// What is expected: names of cases and instructions a decision.
const EXPECTED: &str = "tests/src/bin/supercloud-bench/counts.txt";
/// The word that starts this program as what is counted.
pub(crate) const COUNTED: &str = "counted";
/// Hosts: with fewer, workloads of the series would be of less than a thousand.
const HOSTS: u32 = 10_000;
/// Instances that would fill one: few, since under callgrind all takes some fifty times as long.
const FULL: u64 = 14;
/// Hosts of the estate with GPUs.
const GPU_HOSTS: u32 = 300;
/// A count may differ by this part of what is expected: hash maps with a new key each time make them differ by less than a hundredth.
const TOLERANCE: u64 = 20;

/// A series, and what its count is called.
type Case = (&'static str, fn(&Estate) -> Outcome<Placed>);

const CASES: [Case; 12] = [
    ("w1000", |estate| estate.crowds(Crowd::Plain)),
    ("w1", |estate| estate.singles(1_000)),
    ("spread", |estate| estate.crowds(Crowd::Spread)),
    ("labels", |estate| estate.crowds(Crowd::Labels)),
    ("apart", |estate| estate.crowds(Crowd::Apart)),
    ("boroughs", |estate| estate.crowds(Crowd::InTurn)),
    ("prefer", |estate| estate.crowds(Crowd::Wishing)),
    ("apart_from", |estate| estate.crowds(Crowd::ApartFrom)),
    ("churn", |estate| Ok(estate.churn(20)?.placed)),
    ("failing", |estate| Ok(estate.failing(1, 20)?.placed)),
    ("preempting", |estate| Ok(estate.preempting(20)?.placed)),
    ("fruitless", |estate| Ok(estate.fruitless(20)?.placed)),
];
/// Those of an estate with GPUs.
const GPU_CASES: [Case; 1] = [("devices", |estate| Ok(estate.one_by_one(100)?.placed))];

/// One pass: what is counted.
#[inline(never)]
pub(crate) fn counted_pass(engine: &mut Engine, state: &State) -> Plan {
    engine.pass(state, NOW, Limits::default())
}

/// What was counted so far is forgotten.
#[inline(never)]
pub(crate) fn counting_begins() {
    black_box("begins");
}

/// What was counted is a case's.
#[inline(never)]
fn counting_ends(case: &str, placed: Placed) {
    println!("{case} {}", placed.count);
}

/// Goes through all cases, and says how many decisions each made: what callgrind looks at.
pub(crate) fn counted() -> Outcome {
    series(&Estate::new(HOSTS, FULL)?, &CASES)?;
    series(&Estate::with_gpus(GPU_HOSTS)?, &GPU_CASES)
}

fn series(estate: &Estate, cases: &[Case]) -> Outcome {
    for (name, case) in cases {
        counting_ends(name, case(estate)?);
    }
    Ok(())
}

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let found = count()?;
    for Count { case, instructions } in &found {
        report.note(format!("counts_{case}"), *instructions as f64);
    }
    let file = programs::repository().join(EXPECTED);
    if options.renew {
        return Ok(fs::write(file, written(&found))?);
    }
    let expected = read(&fs::read_to_string(&file)?)?;
    let differences = differences(&expected, &found);
    if differences.is_empty() {
        return Ok(());
    }
    wrong(format!(
        "{}; if that is meant, scripts/bench counts --renew writes {EXPECTED}",
        differences.join(", ")
    ))
}

/// Instructions of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Count {
    case: String,
    instructions: u64,
}

fn count() -> Outcome<Vec<Count>> {
    let folder = tempfile::tempdir()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_pass*", "--zero-before=*counting_begins*"])
        .arg("--dump-before=*counting_ends*")
        .arg(format!("--callgrind-out-file={}", folder.path().join("part").display()))
        .arg(std::env::current_exe()?)
        .arg(COUNTED)
        .output()
        .map_err(|error| format!("valgrind, which scripts/setup installs, does not start: {error}"))?;
    if !output.status.success() {
        return wrong(format!("under callgrind: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let said = read(std::str::from_utf8(&output.stdout)?)?;
    let counts = (1..).zip(said).map(|(number, Count { case, instructions: decisions })| {
        let all = summary(&folder.path().join(format!("part.{number}")))?;
        Ok(Count { case, instructions: all / decisions.max(1) })
    });
    counts.collect()
}

/// Instructions in all, as callgrind wrote them down.
fn summary(part: &Path) -> Outcome<u64> {
    let text = fs::read_to_string(part)?;
    let totals = text.lines().find_map(|line| line.strip_prefix("summary:"));
    Ok(totals.ok_or_else(|| format!("no summary in {}", part.display()))?.trim().parse()?)
}

/// Lines of a name and a number; those that begin with `#` are for people.
fn read(text: &str) -> Outcome<Vec<Count>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let count = |line: &str| {
        let (case, number) = line.split_once(' ').ok_or_else(|| format!("no case and number: {line:?}"))?;
        Ok(Count { case: case.to_owned(), instructions: number.trim().parse()? })
    };
    lines.map(count).collect()
}

fn written(counts: &[Count]) -> String {
    let mut text = "# Instructions a decision, as scripts/bench counts --renew found them.\n".to_owned();
    counts.iter().for_each(|Count { case, instructions }| text += &format!("{case} {instructions}\n"));
    text
}

/// What is not as it should be, in words.
fn differences(expected: &[Count], found: &[Count]) -> Vec<String> {
    let names: std::collections::BTreeSet<&str> =
        expected.iter().chain(found).map(|count| count.case.as_str()).collect();
    let of = |counts: &[Count], name: &str| {
        counts.iter().find(|count| count.case == name).map(|count| count.instructions)
    };
    let told = |name: &str| match (of(expected, name), of(found, name)) {
        (Some(expected), Some(found)) if expected.abs_diff(found) * TOLERANCE <= expected => None,
        (Some(expected), Some(found)) => Some(format!("{name}: expected {expected}, found {found}")),
        (expected, _) => {
            Some(format!("{name}: {}", if expected.is_some() { "not counted" } else { "not expected" }))
        }
    };
    names.into_iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_more_than_a_twentieth_is_told() -> Outcome {
        let expected = read("# for people\nw1 1000\nw1000 2000\nspread 10\n")?;
        assert_eq!(read(&written(&expected))?, expected);
        assert_eq!(differences(&expected, &read("w1 1050\nw1000 1900\nspread 10\n")?), Vec::<String>::new());
        let found = read("w1 1051\nw1000 1899\nchurn 1\n")?;
        let told = differences(&expected, &found).join(", ");
        assert_eq!(
            told,
            "churn: not expected, spread: not counted, w1: expected 1000, found 1051, w1000: expected 2000, found 1899"
        );
        assert!(read("w1").is_err() && read("w1 x").is_err());
        Ok(())
    }

    #[test]
    fn every_case_is_expected() -> Outcome {
        let expected = read(&fs::read_to_string(programs::repository().join(EXPECTED))?)?;
        let cases: Vec<&str> = CASES.iter().chain(&GPU_CASES).map(|(name, _)| *name).collect();
        assert!(expected.iter().map(|count| count.case.as_str()).eq(cases));
        Ok(())
    }
}
