//! How long the suite goes on: short by default, as in CI; `scripts/faults` asks for more.

use std::time::Duration;

use supercloud_tests::{Outcome, Wrong};

/// Leaders to kill.
pub(crate) const KILLS: (&str, usize) = ("SUPERCLOUD_FAULTS_KILLS", 10);
/// Storms to go through.
pub(crate) const STORMS: (&str, usize) = ("SUPERCLOUD_FAULTS_STORMS", 1);
/// What the first storm is drawn from; 0: from the clock.
pub(crate) const SEED: (&str, usize) = ("SUPERCLOUD_FAULTS_SEED", 0);
/// Longest time in seconds for which a leader is stopped, of those in [`STOPS`].
const LONGEST_STOP: (&str, usize) = ("SUPERCLOUD_FAULTS_LONGEST_STOP", 5);
/// How long leaders are stopped: less than an election, many of them, and longer than keep-alives and deadlines of calls.
const STOPS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// A number from the environment, or its default.
pub(crate) fn number((name, default): (&str, usize)) -> Outcome<usize> {
    match std::env::var(name) {
        Ok(text) => {
            text.parse().map_err(|_| Wrong(format!("{name}: expected a number, found {text:?}")).into())
        }
        Err(_) => Ok(default),
    }
}

/// How long leaders are stopped in this run.
pub(crate) fn stops() -> Outcome<Vec<Duration>> {
    let longest = Duration::from_secs(number(LONGEST_STOP)? as u64);
    Ok(STOPS.into_iter().filter(|stop| *stop <= longest).collect())
}
