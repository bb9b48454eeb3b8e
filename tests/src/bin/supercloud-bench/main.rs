//! `supercloud-bench [NAME …] [--json FILE] [--rounds N]`: measures the real programs on this machine, and says what it measured.
//!
//! To add a bench: a module with `pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome`, a line in [`BENCHES`], and its keys in
//! the table of budgets. A bench that compares does so in one run and in turn, so that a busy neighbour meets both sides.

mod api;
mod baseline;
mod report;
mod run;
mod state;

use std::{path::PathBuf, process::ExitCode};

use supercloud_tests::{Outcome, wrong};

use report::Report;

type Bench = fn(&Options, &mut Report) -> Outcome;

/// All benches, in the order in which they run.
const BENCHES: [(&str, Bench); 2] = [("run", run::run), ("state", state::run)];
/// Rounds of a comparison where none are asked for. Odd, so that the median is a measurement.
const ROUNDS: usize = 9;
/// Fewer say nothing.
const LEAST_ROUNDS: usize = 3;

/// What the command line asks for.
struct Options {
    /// Names of benches; empty: all.
    names: Vec<String>,
    /// Where the JSON object goes.
    json: Option<PathBuf>,
    /// Rounds of a comparison.
    rounds: usize,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self { names: Vec::new(), json: None, rounds: ROUNDS };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => options.json = Some(words.next().ok_or("--json needs a file")?.into()),
                "--rounds" => options.rounds = words.next().ok_or("--rounds needs a number")?.parse()?,
                name if BENCHES.iter().any(|(known, _)| *known == name) => options.names.push(word),
                _ => {
                    let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
                    return wrong(format!("{word:?} is no bench; there are: {}", known.join(" ")));
                }
            }
        }
        if options.rounds < LEAST_ROUNDS {
            return wrong(format!("--rounds: at least {LEAST_ROUNDS}"));
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome {
    let options = Options::read(std::env::args().skip(1))?;
    let mut report = Report::begin()?;
    for (name, bench) in BENCHES {
        if options.wants(name) {
            eprintln!("bench {name}");
            bench(&options, &mut report)?;
        }
    }
    report.finish(options.json.as_deref())
}
