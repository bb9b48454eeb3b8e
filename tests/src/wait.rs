//! Polling for a fact with a deadline: the only way in which a test waits.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Outcome, Wrong};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Longest wait for what should come within a second or two, on a machine with busy neighbours.
pub const SOON: Duration = Duration::from_secs(20);
/// Longest wait for what takes several such steps: a guest that boots, a rollout.
pub const LATER: Duration = Duration::from_secs(60);

/// Looks until the look succeeds. An error of the look means "not yet", and the last one is told when the time is over.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(not_yet) if begun.elapsed() >= within => {
                let message = format!("not within {} s: {what}; last seen: {not_yet}", within.as_secs_f32());
                return Err(Wrong(message).into());
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Holds that a fact stays true for a while, for what must *not* happen.
pub fn throughout(what: &str, time: Duration, mut look: impl FnMut() -> Outcome) -> Outcome {
    let begun = Instant::now();
    while begun.elapsed() < time {
        look().map_err(|error| {
            Wrong(format!("did not stay so: {what}; after {} ms: {error}", begun.elapsed().as_millis()))
        })?;
        thread::sleep(POLL);
    }
    Ok(())
}

/// Does something and says how long it took.
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = act();
    (result, begun.elapsed())
}
