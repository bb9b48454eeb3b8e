//! `supercloud-bench [NAME …] [--json FILE] [--rounds N] [--quick] [--renew] [--hosts FILE --requests FILE]`: measures the real programs on this machine, and says what it measured.
//!
//! To add a bench: a module with `pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome`, a line in [`BENCHES`], and its keys in
//! the table of budgets. A bench that compares does so in one run and in turn, so that a busy neighbour meets both sides.

mod agent;
mod agents;
mod api;
mod baseline;
mod counts;
mod decisions;
mod enrol;
mod estate;
mod etcd;
mod failover;
mod hosts;
mod load;
mod packing;
mod placed;
mod records;
mod report;
mod restart;
mod run;
mod sample;
mod state;
mod usage;
mod wants;
mod writes;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use supercloud_tests::{Outcome, wrong};

use report::Report;

/// The scheduler's, so that what is measured of it in this process is what its own would show.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Bench = fn(&Options, &mut Report) -> Outcome;

/// All benches, in the order in which they run.
const BENCHES: [(&str, Bench); 11] = [
    ("etcd", writes::run),
    ("placed", placed::run),
    ("agents", agents::run),
    ("restart", restart::run),
    ("failover", failover::run),
    ("agent", agent::run),
    ("run", run::run),
    ("state", state::run),
    ("decisions", decisions::run),
    ("counts", counts::run),
    ("packing", packing::run),
];
/// Names of several benches, and which they are.
const GROUPS: [(&str, &[&str]); 2] = [
    ("core", &["etcd", "placed", "agents", "restart", "failover"]),
    ("placement", &["decisions", "counts", "packing"]),
];
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
    /// Small sizes, which show that the benches work and nothing else.
    quick: bool,
    /// What is counted is what shall be expected.
    renew: bool,
    /// Hosts to pack onto, other than those of the traces.
    hosts: Option<PathBuf>,
    /// What to pack, likewise.
    requests: Option<PathBuf>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            names: Vec::new(),
            json: None,
            rounds: ROUNDS,
            quick: false,
            renew: false,
            hosts: None,
            requests: None,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => options.json = Some(words.next().ok_or("--json needs a file")?.into()),
                "--rounds" => options.rounds = words.next().ok_or("--rounds needs a number")?.parse()?,
                "--quick" => options.quick = true,
                "--renew" => options.renew = true,
                "--hosts" => options.hosts = Some(words.next().ok_or("--hosts needs a file")?.into()),
                "--requests" => {
                    options.requests = Some(words.next().ok_or("--requests needs a file")?.into())
                }
                name if BENCHES.iter().any(|(known, _)| *known == name) => options.names.push(word),
                name if let Some((_, group)) = GROUPS.iter().find(|(known, _)| *known == name) => {
                    options.names.extend(group.iter().copied().map(str::to_owned));
                }
                _ => {
                    let groups = GROUPS.iter().map(|(name, _)| *name);
                    let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).chain(groups).collect();
                    return wrong(format!("{word:?} is no bench; there are: {}", known.join(" ")));
                }
            }
        }
        for (flag, other, alone) in [
            ("--hosts", "--requests", options.hosts.is_some() && options.requests.is_none()),
            ("--requests", "--hosts", options.requests.is_some() && options.hosts.is_none()),
        ] {
            if alone {
                return wrong(format!("{flag}: expected {other} FILE beside it, found it alone"));
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
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = if words == [counts::COUNTED] { counts::counted() } else { measure(words) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: Vec<String>) -> Outcome {
    let options = Options::read(words.into_iter())?;
    let mut report = Report::begin()?;
    let mut failed = Vec::new();
    for (name, bench) in BENCHES.into_iter().filter(|(name, _)| options.wants(name)) {
        let begun = Instant::now();
        eprintln!("bench {name}");
        // One that fails leaves no figures, and the others theirs.
        if let Err(error) = bench(&options, &mut report) {
            eprintln!("bench {name}: {error}");
            failed.push(name);
        }
        eprintln!("bench {name} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    report.finish(options.json.as_deref())?;
    if failed.is_empty() { Ok(()) } else { wrong(format!("failed: {}", failed.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Outcome<Options> {
        Options::read(words.iter().copied().map(str::to_owned))
    }

    #[test]
    fn a_group_is_its_benches_and_nothing_is_everything() -> Outcome {
        let core = read(&["core", "--quick", "--json", "x"])?;
        assert!(core.wants("etcd") && core.wants("failover") && !core.wants("run") && core.quick);
        assert!(read(&[])?.wants("run") && read(&["run"])?.wants("run") && !read(&["run"])?.wants("etcd"));
        for bad in [&["cores"][..], &["--json"], &["--rounds", "1"], &["--rounds", "x"]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        for (alone, other) in [("--hosts", "--requests"), ("--requests", "--hosts")] {
            let error = read(&[alone, "x"]).err().ok_or("one list was enough")?.to_string();
            assert!(error.starts_with(alone) && error.contains(other), "{error}");
        }
        assert!(read(&["--hosts", "x", "--requests", "y"])?.hosts.is_some());
        for (_, group) in GROUPS {
            assert!(group.iter().all(|name| BENCHES.iter().any(|(known, _)| known == name)));
        }
        Ok(())
    }
}
