//! Waits between attempts: random from nothing to a bound that doubles (full jitter), so that many agents do not come back together. After a session that
//! stood the first wait is spread over what its node told: all agents of a node that dies lose it in the same moment.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// Longest spread that a node is believed: a third of the usual lease, so that no exclusive instance is stopped for the sake of manners.
const WIDEST: Duration = Duration::from_secs(5);

/// The waits.
#[derive(Debug)]
pub(super) struct Backoff {
    bound: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { bound: SHORTEST }
    }
}

impl Backoff {
    /// The next wait, after an attempt that came to nothing.
    pub(super) fn next(&mut self) -> Duration {
        self.after_loss(Duration::ZERO)
    }

    /// The next wait, after the loss of a session whose node told this spread.
    pub(super) fn after_loss(&mut self, spread: Duration) -> Duration {
        let wait = self.bound.max(spread.min(WIDEST)).mul_f64(rand::random());
        self.bound = (self.bound * 2).min(LONGEST);
        wait
    }

    /// Begins with the shortest again.
    pub(super) fn reset(&mut self) {
        self.bound = SHORTEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of many waits: close to their bound.
    fn longest(wait: impl Fn() -> Duration) -> Duration {
        (0..200).map(|_| wait()).max().unwrap_or_default()
    }

    fn after(attempts: usize, last: impl Fn(&mut Backoff) -> Duration) -> Duration {
        longest(|| {
            let mut backoff = Backoff::default();
            for _ in 0..attempts {
                backoff.next();
            }
            last(&mut backoff)
        })
    }

    #[test]
    fn waits_are_random_up_to_a_bound_that_grows_and_begins_anew() {
        let within = |found: Duration, bound: Duration| found <= bound && found >= bound.mul_f64(0.7);
        for (attempts, bound) in [(0, SHORTEST), (1, SHORTEST * 2), (3, SHORTEST * 8), (12, LONGEST)] {
            let found = after(attempts, Backoff::next);
            assert!(within(found, bound), "{attempts}: {found:?} of {bound:?}");
        }
        let anew = after(12, |backoff| {
            backoff.reset();
            backoff.next()
        });
        assert!(within(anew, SHORTEST), "{anew:?}");
    }

    #[test]
    fn a_loss_is_spread_as_the_node_told_within_reason() {
        let spread = |millis| after(0, move |backoff| backoff.after_loss(Duration::from_millis(millis)));
        let (none, some, far) = (spread(0), spread(2_000), spread(3_600_000));
        assert!(none <= SHORTEST, "{none:?}");
        assert!(some > SHORTEST && some <= Duration::from_secs(2), "{some:?}");
        assert!(far > Duration::from_secs(2) && far <= WIDEST, "{far:?}");
    }
}
