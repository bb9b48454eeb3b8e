//! What is to be said of instances, and what of it the scheduler has not confirmed. Coalesced: of one instance only the latest. Pure; the
//! loop keeps unconfirmed reports in the ledger and sends them.

use std::collections::BTreeMap;

use supercloud_proto::{
    id::{InstanceId, UnixMillis},
    instance::{InstanceReport, InstanceState},
};

use crate::{ledger::Batch, reconcile::Status};

/// Reports of one message: some KiB. A connection keeps the room of its largest message, and a scheduler has ten thousand of them.
pub const REPORTS_A_MESSAGE: usize = 32;

/// The reports of this host.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// What was said last.
    said: BTreeMap<InstanceId, Status>,
    /// What is not confirmed.
    unconfirmed: BTreeMap<InstanceId, InstanceReport>,
    sequence: u64,
}

impl Book {
    /// From a ledger's contents. Sequences go on from the larger of the last one and the time in microseconds.
    pub fn new(unconfirmed: BTreeMap<InstanceId, InstanceReport>, sequence: u64, now: UnixMillis) -> Self {
        Self { said: BTreeMap::new(), unconfirmed, sequence: sequence.max(now.saturating_mul(1000)) }
    }

    /// Everything is said anew with the next update: a new session's node may know nothing of what was said before, or have given the
    /// host up meanwhile.
    pub fn restate(&mut self) {
        for status in self.said.values_mut() {
            // No order has this index, so that the next status differs. What is gone for good is still noticed.
            status.order_index = u64::MAX;
        }
    }

    /// Takes in what is to be said; only what changed becomes a report. `complete`: all drivers answered, so that what was found without
    /// an order, and is not among `states` any more, is gone.
    pub fn update(
        &mut self,
        states: BTreeMap<InstanceId, Status>,
        complete: bool,
        now: UnixMillis,
        batch: &mut Batch,
    ) {
        let gone: Vec<_> = self
            .said
            .iter()
            .filter(|(id, said)| complete && said.unordered && !states.contains_key(id))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let status = Status {
                order_index: 0,
                state: InstanceState::Stopped,
                reason: "it is there no more".to_owned(),
                tasks: Vec::new(),
                unordered: true,
            };
            self.say(id, &status, now, batch);
            self.said.remove(&id);
        }
        for (id, status) in states {
            if self.said.get(&id) != Some(&status) {
                self.say(id, &status, now, batch);
                self.said.insert(id, status);
            }
        }
    }

    fn say(&mut self, instance: InstanceId, status: &Status, now: UnixMillis, batch: &mut Batch) {
        self.sequence += 1;
        let report = InstanceReport {
            instance,
            sequence: self.sequence,
            order_index: status.order_index,
            state: status.state,
            reason: status.reason.clone(),
            tasks: status.tasks.clone(),
            time: now,
            unordered: status.unordered,
        };
        batch.report(&report);
        self.unconfirmed.insert(instance, report);
    }

    /// The scheduler has taken in everything up to `sequence`. Returns the reports that are confirmed by it.
    pub fn confirm(&mut self, sequence: u64, batch: &mut Batch) -> Vec<InstanceReport> {
        let confirmed: Vec<_> =
            self.unconfirmed.values().filter(|report| report.sequence <= sequence).cloned().collect();
        for report in &confirmed {
            self.unconfirmed.remove(&report.instance);
            batch.drop_report(report.instance);
        }
        confirmed
    }

    /// An instance is out of the orders: what was said of it does not matter any more.
    pub fn forget(&mut self, instance: InstanceId) {
        self.said.remove(&instance);
    }

    /// Unconfirmed reports after `sequence`, oldest first, in messages of at most [`REPORTS_A_MESSAGE`].
    pub fn after(&self, sequence: u64) -> Vec<Vec<InstanceReport>> {
        let mut reports: Vec<_> =
            self.unconfirmed.values().filter(|report| report.sequence > sequence).cloned().collect();
        reports.sort_by_key(|report| report.sequence);
        reports.chunks(REPORTS_A_MESSAGE).map(<[_]>::to_vec).collect()
    }

    /// The last sequence given.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether everything is confirmed.
    pub fn is_confirmed(&self) -> bool {
        self.unconfirmed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::world::instance;

    fn status(state: InstanceState, unordered: bool) -> Status {
        Status { order_index: 3, state, reason: String::new(), tasks: Vec::new(), unordered }
    }

    fn update(book: &mut Book, states: &[(u64, InstanceState, bool)]) {
        let states =
            states.iter().map(|(id, state, unordered)| (instance(*id), status(*state, *unordered))).collect();
        book.update(states, true, 5, &mut Batch::default());
    }

    fn sent(book: &Book, after: u64) -> Vec<(u64, InstanceState)> {
        book.after(after).concat().iter().map(|report| (report.instance.index, report.state)).collect()
    }

    #[test]
    fn only_changes_are_said_and_only_the_latest_is_kept() {
        use InstanceState::{Running, Starting};
        let mut book = Book::new(BTreeMap::new(), 100, 0);
        update(&mut book, &[(1, Starting, false), (2, Running, false)]);
        update(&mut book, &[(1, Starting, false), (2, Running, false)]);
        assert_eq!(sent(&book, 0), [(1, Starting), (2, Running)]);
        update(&mut book, &[(1, Running, false), (2, Running, false)]);
        assert_eq!(sent(&book, 0), [(2, Running), (1, Running)]);
        assert_eq!(sent(&book, 102), [(1, Running)]);
        assert_eq!(book.confirm(102, &mut Batch::default()).len(), 1);
        assert_eq!(sent(&book, 0), [(1, Running)]);
        assert!(!book.is_confirmed());
        book.confirm(103, &mut Batch::default());
        assert!(book.is_confirmed());
    }

    #[test]
    fn everything_is_said_anew_when_asked() {
        let mut book = Book::new(BTreeMap::new(), 100, 0);
        update(&mut book, &[(1, InstanceState::Running, false)]);
        book.confirm(101, &mut Batch::default());
        book.restate();
        update(&mut book, &[(1, InstanceState::Running, false)]);
        assert_eq!(sent(&book, 101), [(1, InstanceState::Running)]);
    }

    #[test]
    fn what_was_found_without_an_order_is_called_gone_once() {
        let mut book = Book::new(BTreeMap::new(), 0, 1);
        update(&mut book, &[(1, InstanceState::Running, true)]);
        update(&mut book, &[]);
        assert_eq!(sent(&book, 0), [(1, InstanceState::Stopped)]);
        let sequence = book.sequence();
        update(&mut book, &[]);
        assert_eq!(book.sequence(), sequence);
    }
}
