//! Heartbeats of one session: which are under way, when an answered one was sent, and when a node has left too many unanswered. Pure.

use std::{collections::BTreeMap, time::Duration};

use supercloud_proto::id::Millis;
use tokio::time::Instant;

/// Bounds of the time between heartbeats, whatever a node says: often enough for any lease, and never a flood.
const BOUNDS: (Millis, Millis) = (100, 60_000);
/// Heartbeats without an answer before the node is left, and the least time for it: an election must not look like a deaf node.
const UNANSWERED: u64 = 4;
const UNANSWERED_AT_LEAST: Millis = 15_000;
/// It is left while this part of the lease still lasts, whatever else: a node that is cut off must not cost the exclusive instances that
/// another node would keep alive.
const LEASE_PART: u64 = 2;
/// Heartbeats whose time of sending is remembered.
const REMEMBERED: usize = 64;

/// See the head of the module.
#[derive(Debug)]
pub struct Heartbeats {
    every: Millis,
    lease: Millis,
    sequence: u64,
    /// Boot time of sending, by sequence.
    sent: BTreeMap<u64, Millis>,
    answered: Instant,
}

impl Heartbeats {
    /// For a session that stands since `now`, as its node's welcome asks for.
    #[must_use]
    pub fn new(every: Millis, lease: Millis, now: Instant) -> Self {
        let every = every.clamp(BOUNDS.0, BOUNDS.1);
        Self { every, lease, sequence: 0, sent: BTreeMap::new(), answered: now }
    }

    /// Time between two of them.
    #[must_use]
    pub fn every(&self) -> Duration {
        Duration::from_millis(self.every)
    }

    /// How long none was answered, once that is too long.
    #[must_use]
    pub fn deafness(&self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.answered);
        (silence >= Duration::from_millis(self.patience())).then_some(silence)
    }

    fn patience(&self) -> Millis {
        let patience = (self.every * UNANSWERED).max(UNANSWERED_AT_LEAST);
        patience.min(self.lease / LEASE_PART).max(self.every * 2)
    }

    /// The sequence of one that is sent at this boot time.
    pub fn begin(&mut self, boot: Millis) -> u64 {
        self.sequence += 1;
        self.sent.insert(self.sequence, boot);
        if self.sent.len() > REMEMBERED {
            self.sent.pop_first();
        }
        self.sequence
    }

    /// When the answered heartbeat was sent; `None`: it was answered before, or never sent.
    pub fn answer(&mut self, sequence: u64, now: Instant) -> Option<Millis> {
        let sent = self.sent.remove(&sequence)?;
        self.sent = self.sent.split_off(&sequence);
        self.answered = now;
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deaf_node_is_left_while_the_lease_still_lasts() {
        let patience = |every, lease| Heartbeats::new(every, lease, Instant::now()).patience();
        assert_eq!(patience(2_000, 15_000), 7_500);
        assert_eq!(patience(2_000, 120_000), 15_000, "an election is no deafness");
        assert_eq!(patience(10_000, 600_000), 40_000);
        assert_eq!(patience(2_000, 1_000), 4_000, "an answer has time to come");
    }
}
