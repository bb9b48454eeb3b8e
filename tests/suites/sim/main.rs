//! The simulation, seed after seed. A seed that fails is named with the command that runs it again.

mod planted;

use std::sync::atomic::{AtomicU64, Ordering};

use supercloud_tests::{Outcome, sim, wrong};

/// The first seed; a number, so that everybody runs the same ones. `scripts/sim` runs others.
const FIRST: u64 = 1;
/// So many.
const SEEDS: u64 = 1_000;

#[test]
fn a_thousand_seeds_hold_what_must_hold() -> Outcome {
    let next = AtomicU64::new(FIRST);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut faults = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= FIRST + SEEDS {
                    return faults;
                }
                if let Err(violation) = sim::run(seed, false) {
                    faults.push(format!(
                        "seed {seed}: {violation}\n  replay: scripts/sim --seed {seed} --trace"
                    ));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|_| vec!["a run panicked".to_owned()]))
            .collect()
    });
    if faults.is_empty() { Ok(()) } else { wrong(faults.join("\n")) }
}

#[test]
fn a_seed_runs_the_same_way_each_time() -> Outcome {
    for seed in [2, 3, 5, 8] {
        let (one, two) = (sim::run(seed, false)?, sim::run(seed, false)?);
        if one != two {
            return wrong(format!("seed {seed}: first {one:?}, then {two:?}"));
        }
    }
    Ok(())
}
