//! How well requests are packed, on the lists of `openb` (see `lists`), beside other policies: processor and memory by compaction, GPUs as the paper of
//! FGD measures. Ours is the engine that the leader runs, on a state of real commands.

use supercloud_scheduler::state::{Command, State};
use supercloud_tests::Outcome;

use crate::{Options, records::apply, report::Report};

mod compaction;
pub(crate) mod gpus;
pub(crate) mod lists;
mod rivals;

/// Seeds, as in the measurements of FGD (USENIX ATC 2023).
const SEEDS: std::ops::RangeInclusive<u64> = 42..=51;

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    if !lists::are_there(options) {
        eprintln!("packing is left out: it needs {}, or --hosts FILE and --requests FILE", lists::TRACES);
        return Ok(());
    }
    compaction::run(options, report)?;
    gpus::run(options, report)
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
