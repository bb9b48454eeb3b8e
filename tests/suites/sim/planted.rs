//! Faults that are planted in the product: the checks catch each within a bounded number of seeds, and the seed that shows it holds without.

use supercloud_tests::{
    Outcome,
    sim::{self, Planted},
    wrong,
};

/// The first seed; others than those of the long run.
const FIRST: u64 = 1_000_000;

/// Finds the fault of this name within so many seeds, by a check whose words begin so.
fn caught(name: &str, within: u64, words: &[&str]) -> Outcome {
    let Some((_, planted)) = Planted::ALL.iter().find(|(known, _)| *known == name) else {
        return wrong(format!("{name} is no planted fault"));
    };
    for seed in FIRST..FIRST + within {
        let Err(violation) = sim::run_planted(seed, false, Some(*planted)) else { continue };
        let by = violation.to_string();
        if !words.iter().any(|words| by.starts_with(words)) {
            // Caught by what followed from it; its own check is to show, too.
            continue;
        }
        return match sim::run(seed, false) {
            Ok(_) => Ok(()),
            Err(other) => wrong(format!("seed {seed} without {name}: {other}")),
        };
    }
    wrong(format!("{name} is not caught by {within} seeds from {FIRST} on"))
}

#[test]
fn acknowledging_before_the_sync_is_caught() -> Outcome {
    caught("acknowledge-before-sync", 20, &["I1"])
}

#[test]
fn a_read_context_that_is_used_again_is_caught() -> Outcome {
    caught("reuse-read-context", 300, &["I2"])
}

#[test]
fn an_applied_index_apart_from_the_state_is_caught() -> Outcome {
    caught("applied-apart-from-state", 50, &["node"])
}

#[test]
fn a_learner_that_counts_in_the_quorum_is_caught() -> Outcome {
    caught("count-learner", 200, &["I1", "node"])
}

#[test]
fn giving_hosts_up_without_the_brake_is_caught() -> Outcome {
    caught("evict-without-brake", 300, &["the brake"])
}

#[test]
fn taking_orders_of_any_age_is_caught() -> Outcome {
    caught("old-orders", 300, &["I3", "I4", "does not converge"])
}
