//! The log and the snapshots, as raft wants to read them. Knows the store's trait and raft's; no files, no network.
//!
//! Recent entries are kept decoded: the leader reads each entry once a follower and once to apply it, right after it
//! was written. Entries on their way to the disk are always among them, because the store cannot give them yet.

use std::cell::Cell;
use std::collections::VecDeque;

use ::raft::eraftpb::{Entry, Snapshot, SnapshotMetadata};
use ::raft::{GetEntriesContext, RaftState, StorageError};
use prost11::Message as _;

use super::limits::ENTRY_CACHE_BYTES;
use super::log_store::{HardState, LogStore, LogWrite, Position, StoreError, Ticket};
use super::membership::Membership;

/// See the head of the module.
pub(super) struct Storage<L> {
    store: L,
    /// Term, vote and commit as raft last told; the commit may be ahead of what is synced.
    hard_state: HardState,
    snapshot: Position,
    membership: Membership,
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    /// Writes that are not known to be on disk: their tickets, and the first entry of each that has entries.
    under_way: VecDeque<(Ticket, Option<u64>)>,
    last_ticket: Ticket,
    /// Raft asked for a snapshot that we do not have.
    wanted: Cell<bool>,
}

impl<L: LogStore> Storage<L> {
    /// `snapshot` and `membership` are those the state was restored from.
    pub(super) fn new(store: L, snapshot: Position, membership: Membership) -> Self {
        let mut hard_state = store.hard_state();
        // The commit index is not synced on its own. The snapshot proves how far it was.
        hard_state.commit = hard_state.commit.max(snapshot.index);
        Self {
            store,
            hard_state,
            snapshot,
            membership,
            recent: VecDeque::new(),
            recent_bytes: 0,
            under_way: VecDeque::new(),
            last_ticket: 0,
            wanted: Cell::new(false),
        }
    }

    pub(super) fn store(&self) -> &L {
        &self.store
    }

    pub(super) fn snapshot_position(&self) -> Position {
        self.snapshot
    }

    /// Whether raft wanted a newer snapshot since the last time this was asked.
    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    /// First index of the entries that need no disk; past all of them when there are none. A leader has some: its term began with one.
    pub(super) fn first_recent(&self) -> u64 {
        self.recent.front().map_or(u64::MAX, |entry| entry.index)
    }

    /// Takes note of a new commit index; it reaches the disk with the next write.
    pub(super) fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = self.hard_state.commit.max(commit);
    }

    /// A newer snapshot is in its place.
    pub(super) fn set_snapshot(&mut self, position: Position, membership: Membership) {
        self.snapshot = position;
        self.membership = membership;
    }

    /// Hands over what a Ready holds; the ticket tells when it is on disk. Nothing is written when there is nothing.
    pub(super) fn append(
        &mut self,
        entries: Vec<Entry>,
        hard_state: Option<&::raft::eraftpb::HardState>,
        sync: bool,
    ) -> Option<Ticket> {
        if let Some(new) = hard_state {
            self.hard_state = HardState { term: new.term, vote: new.vote, commit: new.commit };
        }
        if entries.is_empty() && !sync {
            return None;
        }
        let encoded = entries.iter().map(|entry| (entry.index, entry.encode_to_vec())).collect();
        let write = LogWrite { entries: encoded, hard_state: Some(self.hard_state), ..LogWrite::default() };
        let ticket = self.submit(write);
        self.remember(entries);
        Some(ticket)
    }

    /// Everything up to a ticket is on disk.
    pub(super) fn written(&mut self, ticket: Ticket) {
        while self.under_way.front().is_some_and(|(under_way, _)| *under_way <= ticket) {
            self.under_way.pop_front();
        }
        self.evict();
    }

    fn submit(&mut self, write: LogWrite) -> Ticket {
        self.last_ticket += 1;
        self.under_way.push_back((self.last_ticket, write.entries.first().map(|(index, _)| *index)));
        self.store.submit(write, self.last_ticket);
        self.last_ticket
    }

    /// Makes sure that the disk knows everything up to `index` to be committed. Always writes: what was handed over before
    /// may still be on its way.
    pub(super) fn sync_commit(&mut self, index: u64) -> Result<(), StoreError> {
        self.set_commit(index);
        self.store.write(LogWrite { hard_state: Some(self.hard_state), ..LogWrite::default() }, true)
    }

    /// Notes how far the state has come, before anybody is answered; but no further than what no write under way replaces,
    /// because a crash in the middle of them may leave a shorter log for a moment.
    pub(super) fn witness(&mut self, applied: u64) -> Result<(), StoreError> {
        self.store.witness(applied.min(self.unwritten().saturating_sub(1)))
    }

    /// Says on disk that a snapshot is about to take the log's place.
    pub(super) fn begin_install(&mut self, index: u64) -> Result<(), StoreError> {
        self.store.write(LogWrite { installing: Some(index), ..LogWrite::default() }, true)
    }

    /// The snapshot at `position` has taken the log's place.
    pub(super) fn end_install(
        &mut self,
        position: Position,
        hard_state: Option<&::raft::eraftpb::HardState>,
        membership: Membership,
    ) -> Result<(), StoreError> {
        if let Some(new) = hard_state {
            self.hard_state = HardState { term: new.term, vote: new.vote, commit: new.commit };
        }
        self.set_commit(position.index);
        self.recent.clear();
        self.recent_bytes = 0;
        self.store.write(replaced_by(position, self.hard_state), true)?;
        self.set_snapshot(position, membership);
        Ok(())
    }

    /// Forgets entries up to `index`, which a snapshot covers.
    pub(super) fn compact(&mut self, index: u64) -> Result<(), StoreError> {
        if index <= self.store.base().index {
            return Ok(());
        }
        let term = self.read_term(index)?;
        let base = Some(Position { index, term });
        self.submit(LogWrite { base, hard_state: Some(self.hard_state), ..LogWrite::default() });
        Ok(())
    }

    fn remember(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        while self.recent.back().is_some_and(|entry| entry.index >= first) {
            self.recent_bytes -= self.recent.pop_back().map_or(0, |entry| size(&entry));
        }
        if self.recent.back().is_some_and(|entry| entry.index + 1 != first) {
            self.recent.clear();
            self.recent_bytes = 0;
        }
        self.recent_bytes += entries.iter().map(size).sum::<usize>();
        self.recent.extend(entries);
        self.evict();
    }

    /// First index of all entries that are on their way to the disk.
    fn unwritten(&self) -> u64 {
        self.under_way.iter().filter_map(|(_, first)| *first).min().unwrap_or(u64::MAX)
    }

    /// Forgets the oldest of the recent entries while they are too many, but none that is not on disk.
    fn evict(&mut self) {
        let unwritten = self.unwritten();
        let may_go = |entry: &Entry| entry.index < unwritten;
        while self.recent_bytes > ENTRY_CACHE_BYTES
            && self.recent.len() > 1
            && self.recent.front().is_some_and(may_go)
        {
            self.recent_bytes -= self.recent.pop_front().map_or(0, |entry| size(&entry));
        }
    }

    /// Entries `low..high`, at least one, then as many as `max_bytes` holds. Those older than the recent ones come from the disk.
    fn read(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StoreError> {
        let first = self.first_recent();
        let mut found: Vec<Entry> = Vec::new();
        let from = low.max(first.min(high));
        if low < from {
            let written = self.store.read(low, from, max_bytes)?;
            found = written.iter().map(|bytes| self.decode(low, bytes)).collect::<Result<_, _>>()?;
            if (found.len() as u64) < from - low {
                return Ok(found);
            }
        }
        if from == high {
            return Ok(found);
        }
        let mut bytes = found.iter().map(size).sum::<usize>() as u64;
        for entry in self.recent.range((from - first) as usize..(high - first) as usize) {
            bytes += size(entry) as u64;
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn decode(&self, near: u64, bytes: &[u8]) -> Result<Entry, StoreError> {
        Entry::decode(bytes).map_err(|error| StoreError::Damaged {
            directory: String::new(),
            place: None,
            found: format!("entry at or after index {near}: {error}"),
        })
    }

    fn read_term(&self, index: u64) -> Result<u64, StoreError> {
        let base = self.store.base();
        if index == base.index {
            return Ok(base.term);
        }
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        let found = self.read(index, index + 1, 0)?;
        Ok(found.first().map_or(0, |entry| entry.term))
    }
}

/// The write that puts a snapshot in the place of the whole log.
pub(super) fn replaced_by(position: Position, hard_state: HardState) -> LogWrite {
    LogWrite {
        base: Some(position),
        reset: true,
        hard_state: Some(hard_state),
        installing: Some(0),
        ..LogWrite::default()
    }
}

fn size(entry: &Entry) -> usize {
    // What the fields beside the bytes take, roughly.
    const REST: usize = 24;
    entry.data.len() + entry.context.len() + REST
}

fn other(error: StoreError) -> ::raft::Error {
    ::raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl<L: LogStore> ::raft::Storage for Storage<L> {
    fn initial_state(&self) -> ::raft::Result<RaftState> {
        let hard_state = ::raft::eraftpb::HardState {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            commit: self.hard_state.commit,
        };
        Ok(RaftState::new(hard_state, self.membership.conf().clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> ::raft::Result<Vec<Entry>> {
        if low <= self.store.base().index {
            return Err(::raft::Error::Store(StorageError::Compacted));
        }
        if high > self.store.last_index() + 1 {
            return Err(::raft::Error::Store(StorageError::Unavailable));
        }
        self.read(low, high, max_size.into().unwrap_or(u64::MAX)).map_err(other)
    }

    fn term(&self, index: u64) -> ::raft::Result<u64> {
        if index < self.store.base().index {
            return Err(::raft::Error::Store(StorageError::Compacted));
        }
        if index > self.store.last_index() {
            return Err(::raft::Error::Store(StorageError::Unavailable));
        }
        self.read_term(index).map_err(other)
    }

    fn first_index(&self) -> ::raft::Result<u64> {
        Ok(self.store.base().index + 1)
    }

    fn last_index(&self) -> ::raft::Result<u64> {
        Ok(self.store.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> ::raft::Result<Snapshot> {
        // A node takes only a snapshot in whose membership it finds itself; a learner is younger than most snapshots.
        let usable = self.snapshot.index >= request_index.max(1) && self.membership.contains(to);
        if !usable {
            self.wanted.set(true);
            return Err(::raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let metadata = SnapshotMetadata {
            conf_state: Some(self.membership.conf().clone()),
            index: self.snapshot.index,
            term: self.snapshot.term,
        };
        Ok(Snapshot { data: Vec::new(), metadata: Some(metadata) })
    }
}
