//! How well requests are packed, on the lists of `openb` (see `lists`), beside other policies: processor and memory by compaction, GPUs as the paper of
//! FGD measures. Ours is the engine that the leader runs, on a state of real commands.

use supercloud_scheduler::state::{Command, State};
use supercloud_tests::{Outcome, wrong};

use crate::{Options, records::apply, report::Report};

mod compaction;
pub(crate) mod gpus;
pub(crate) mod lists;
mod rivals;

/// Seeds, as in the measurements of FGD (USENIX ATC 2023).
const SEEDS: std::ops::RangeInclusive<u64> = 42..=51;

/// The bench. Of its two parts one that fails leaves the other its figures.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let source = match lists::Source::find(options) {
        Ok(source) => source,
        Err(none) => {
            report.leave_out("packing", none.to_string());
            return Ok(());
        }
    };
    let parts = [compaction::run(options, &source, report), gpus::run(options, &source, report)];
    let failed: Vec<String> =
        parts.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    if failed.is_empty() { Ok(()) } else { wrong(failed.join("; ")) }
}

fn seeds(options: &Options) -> Vec<u64> {
    if options.quick { SEEDS.take(1).collect() } else { SEEDS.collect() }
}

/// An estate with one borough.
fn begin() -> Outcome<State> {
    let mut state = State::default();
    apply(&mut state, Command::CreateBorough { name: "camden".parse()?, title: "Camden".to_owned() })?;
    Ok(state)
}
