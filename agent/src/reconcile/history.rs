//! What happened to one task on this host: enough to count an end once, to wait before the next start, and to give up in time. Pure;
//! the ledger keeps it.

use supercloud_proto::{
    id::{Millis, UnixMillis},
    spec::{Restart, WorkloadKind},
};

use crate::driver::{Phase, SHUT_DOWN};

/// Restarts that are remembered, so that a history stays small. A policy that allows more within its window is never used up.
pub const KEPT_RESTARTS: usize = 256;
/// Longest reason that is kept, in bytes: enough for a sentence, and reports stay small.
pub const MAX_REASON: usize = 512;

/// How the present run stands, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Run {
    /// It never ran.
    #[default]
    Never,
    /// It was started or seen running; its end was not seen.
    Open,
    /// Its end was seen and counted.
    Ended,
}

/// How a task came to its final end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A batch that did its work.
    Completed,
    /// Its restarts are used up.
    GivenUp,
}

/// The last end of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// When this agent learned of it.
    pub seen_at: UnixMillis,
    /// When it was, where the runtime tells.
    pub at: Option<UnixMillis>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Why, in words.
    pub reason: String,
}

/// What happened to one task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskHistory {
    /// The present run.
    pub run: Run,
    /// Start of the present run.
    pub started: Option<UnixMillis>,
    /// Restarts ever.
    pub restarts: u32,
    /// When the last of them were, oldest first.
    pub restarted_at: Vec<UnixMillis>,
    /// The last end.
    pub last_end: Option<End>,
    /// The agent itself stopped it because the lease ran out: its end counts for nothing.
    pub stopped_by_lease: bool,
    /// Final; set once.
    pub outcome: Option<Outcome>,
}

/// What is next for a task that does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start it after this long.
    Restart {
        /// From now.
        wait: Millis,
    },
    /// Nothing, for ever.
    Over(Outcome),
}

impl TaskHistory {
    /// Takes in what an answering driver shows: an end is noted when it is seen first.
    pub fn observe(&mut self, phase: Option<&Phase>, now: UnixMillis) {
        match phase {
            Some(Phase::Created) => {}
            Some(Phase::Running { since }) => {
                if self.run != Run::Open {
                    self.started = Some(now);
                }
                self.started = since.or(self.started);
                self.run = Run::Open;
            }
            Some(Phase::Ended { exit_code, at, reason }) => {
                if self.run != Run::Ended {
                    self.note_end(now, *at, *exit_code, reason);
                }
            }
            None => {
                if self.run == Run::Open {
                    self.note_end(now, None, None, "gone: it was removed behind the agent's back");
                }
            }
        }
    }

    /// A start came about.
    pub fn started(&mut self, now: UnixMillis, counted: bool) {
        self.run = Run::Open;
        self.started = Some(now);
        self.stopped_by_lease = false;
        self.count(now, counted);
    }

    /// The runtime refused to start it: that is an end too.
    pub fn refused(&mut self, now: UnixMillis, counted: bool, reason: &str) {
        self.stopped_by_lease = false;
        self.count(now, counted);
        self.note_end(now, None, None, reason);
    }

    /// What is next, now that it does not run; only after an end was noted.
    pub fn next(&self, kind: WorkloadKind, policy: &Restart, now: UnixMillis) -> Next {
        if let Some(outcome) = self.outcome {
            return Next::Over(outcome);
        }
        if self.stopped_by_lease {
            return Next::Restart { wait: 0 };
        }
        let Some(end) = &self.last_end else { return Next::Restart { wait: 0 } };
        let is_batch = matches!(kind, WorkloadKind::Batch | WorkloadKind::Cron);
        if is_batch && (end.exit_code == Some(0) || end.reason == SHUT_DOWN) {
            return Next::Over(Outcome::Completed);
        }
        let recent = self.restarts_within(policy.within, now);
        if recent >= policy.attempts {
            return Next::Over(Outcome::GivenUp);
        }
        // A clock that went back must not make the wait longer than the policy says.
        let waited = now.checked_sub(end.seen_at).unwrap_or(Millis::MAX);
        Next::Restart { wait: delay(policy, recent).saturating_sub(waited) }
    }

    /// Restarts within the window that ends now.
    pub fn restarts_within(&self, within: Millis, now: UnixMillis) -> u32 {
        let from = now.saturating_sub(within);
        self.restarted_at.iter().filter(|at| **at > from).count() as u32
    }

    /// Why it last ended; empty: it never did.
    pub fn last_reason(&self) -> &str {
        self.last_end.as_ref().map_or("", |end| &end.reason)
    }

    fn note_end(&mut self, now: UnixMillis, at: Option<UnixMillis>, exit_code: Option<i32>, reason: &str) {
        self.run = Run::Ended;
        self.last_end = Some(End { seen_at: now, at, exit_code, reason: shortened(reason) });
    }

    fn count(&mut self, now: UnixMillis, counted: bool) {
        if counted {
            self.restarts = self.restarts.saturating_add(1);
            if self.restarted_at.len() >= KEPT_RESTARTS {
                self.restarted_at.remove(0);
            }
            self.restarted_at.push(now);
        }
    }
}

/// The wait before the next restart: doubles with each within the window.
fn delay(policy: &Restart, recent: u32) -> Millis {
    let factor = 1u64.checked_shl(recent).unwrap_or(u64::MAX);
    policy.delay.saturating_mul(factor).min(policy.max_delay.max(policy.delay))
}

/// At most [`MAX_REASON`] bytes of a reason, cut between characters.
pub fn shortened(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
