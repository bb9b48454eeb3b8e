//! What the log holds and the machine has not seen: whether catching up with it is a matter of a short turn.

use ::raft::eraftpb::{Entry, EntryType};

use super::super::limits::LONG_TURN_BYTES;
use super::Machine;

/// See the head of the module.
pub(super) struct Backlog {
    /// Up to here the log must be applied before a turn may be taken in passing: what was found at the start, changes of the
    /// membership, which wait for the disk, and what the machine takes long for.
    settled_at: u64,
    /// Bytes of what came since, at least.
    bytes: u64,
}

impl Backlog {
    /// `last`: end of the log that was found at the start.
    pub(super) fn new(last: u64) -> Self {
        Self { settled_at: last, bytes: 0 }
    }

    pub(super) fn is_short(&self, applied: u64) -> bool {
        applied >= self.settled_at && self.bytes <= LONG_TURN_BYTES as u64
    }

    pub(super) fn appended(&mut self, entries: &[Entry], machine: &impl Machine) {
        self.bytes += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        let long = entries.iter().filter(|entry| match entry.get_entry_type() {
            EntryType::EntryNormal => !entry.data.is_empty() && machine.is_long(&entry.data),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => true,
        });
        self.settled_at = long.map(|entry| entry.index).fold(self.settled_at, u64::max);
    }

    /// `last`: nothing is left. What was replaced before it was applied is forgotten then.
    pub(super) fn applied(&mut self, bytes: u64, last: bool) {
        self.bytes = if last { 0 } else { self.bytes.saturating_sub(bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::harness::Journal;
    use super::*;

    fn entry(index: u64, data: &[u8]) -> Entry {
        Entry { index, data: data.to_vec(), ..Entry::default() }
    }

    #[test]
    fn what_was_found_at_the_start_comes_first() {
        let backlog = Backlog::new(7);
        assert!(!backlog.is_short(6));
        assert!(backlog.is_short(7));
    }

    #[test]
    fn a_change_of_the_membership_is_long_until_it_is_applied() {
        let mut backlog = Backlog::new(0);
        let mut change = entry(3, b"");
        change.set_entry_type(EntryType::EntryConfChangeV2);
        backlog.appended(&[entry(2, b"a"), change, entry(4, b"b")], &Journal::default());
        assert!(!backlog.is_short(2));
        assert!(backlog.is_short(3));
    }

    #[test]
    fn what_the_machine_takes_long_for_is_long_whatever_its_size() {
        let mut backlog = Backlog::new(0);
        backlog.appended(&[entry(1, b"short"), entry(2, Journal::LONG), entry(3, b"")], &Journal::default());
        assert!(!backlog.is_short(1));
        assert!(backlog.is_short(2));
    }

    #[test]
    fn many_bytes_are_long_until_they_are_applied_or_replaced() {
        let mut backlog = Backlog::new(0);
        let (half, journal) = (vec![0; LONG_TURN_BYTES / 2], Journal::default());
        backlog.appended(&[entry(1, &half), entry(2, &half), entry(3, b"more")], &journal);
        assert!(!backlog.is_short(0));
        backlog.applied(half.len() as u64, false);
        assert!(backlog.is_short(1));
        backlog.appended(&[entry(2, &half), entry(3, &half)], &journal);
        assert!(!backlog.is_short(1), "both count until it is known what was replaced");
        backlog.applied(0, true);
        assert!(backlog.is_short(3));
    }
}
