//! What an all-seeing observer knows of a run, and the checks after every step: what was applied where, who led when, what was acknowledged
//! and what lies on which disk. It shares no code with what it judges.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use supercloud_scheduler::raft::{Members, NodeId, simulated::content_of};

use super::disk::{Content, Disk};

/// What must hold and does not, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Where the last two memberships are enough: one change at a time is under way.
const MEMBERSHIPS: usize = 2;

#[derive(Debug, Default)]
struct Inner {
    violation: Option<Violation>,
    /// What was applied at each index, on whichever node first.
    applied: BTreeMap<u64, u64>,
    /// Hash of the state at each index, from whichever node first.
    states: BTreeMap<u64, [u8; 32]>,
    leaders: BTreeMap<u64, NodeId>,
    /// By index and term: what the entry says, and the term of the one before it.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    disks: BTreeMap<NodeId, Disk>,
    /// Voters since an index; the latest last.
    voters: Vec<(u64, BTreeSet<NodeId>)>,
    acknowledged: u64,
    read: u64,
    /// The highest index of a state that was looked at.
    looked: u64,
}

/// The observer. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Ghost(Arc<Mutex<Inner>>);

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Inner {
    fn accuse(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation(what()));
        }
    }

    /// Whether a majority of the voters has the entry where no power cut takes it away.
    fn is_durable(&self, index: u64, data: &[u8]) -> bool {
        let has = |id: &&NodeId| {
            let on = |log: &Content| {
                log.base.index >= index
                    || log.entry(index).is_some_and(|entry| content_of(entry).as_deref() == Some(data))
            };
            self.disks.get(id).is_some_and(|disk| disk.durable(on))
        };
        let majority = |voters: &BTreeSet<NodeId>| voters.iter().filter(has).count() > voters.len() / 2;
        self.voters.iter().rev().take(MEMBERSHIPS).any(|(_, voters)| majority(voters))
    }
}

impl Ghost {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first thing that did not hold.
    pub(super) fn verdict(&self) -> Result<(), Violation> {
        self.inner().violation.clone().map_or(Ok(()), Err)
    }

    pub(super) fn accuse(&self, what: impl FnOnce() -> String) {
        self.inner().accuse(what);
    }

    pub(super) fn knows_disk(&self, id: NodeId, disk: &Disk) {
        self.inner().disks.insert(id, disk.clone());
    }

    /// A node applied an entry. The first time, a majority must have it on disk; and what was applied once at an index is applied there by
    /// everybody (so no acknowledged write is lost: I1).
    pub(super) fn applied(&self, node: NodeId, index: u64, data: &[u8]) {
        let mut inner = self.inner();
        let hash = hash_of(data);
        match inner.applied.get(&index) {
            Some(known) if *known == hash => {}
            Some(_) => inner.accuse(|| format!("I1: node {node} applied another entry at index {index}")),
            None => {
                if !inner.is_durable(index, data) {
                    inner.accuse(|| {
                        format!("I1: node {node} applied index {index}, which is not on a majority's disks")
                    });
                }
                inner.applied.insert(index, hash);
            }
        }
    }

    /// A node's state at an index: the same on every node.
    pub(super) fn state(&self, node: NodeId, index: u64, hash: [u8; 32]) {
        let mut inner = self.inner();
        let known = *inner.states.entry(index).or_insert(hash);
        if known != hash {
            inner.accuse(|| format!("node {node} has another state at index {index}"));
        }
    }

    /// Whether no node's state had this index before.
    pub(super) fn is_first(&self, index: u64) -> bool {
        let mut inner = self.inner();
        let first = index > inner.looked;
        inner.looked = inner.looked.max(index);
        first
    }

    pub(super) fn membership(&self, index: u64, members: &Members) {
        let mut inner = self.inner();
        let voters: BTreeSet<NodeId> = members.voters().map(|member| member.id).collect();
        let newer = inner.voters.last().is_none_or(|(known, before)| index > *known && *before != voters);
        if newer && !voters.is_empty() {
            inner.voters.push((index, voters));
        }
    }

    /// The latest voters.
    pub(super) fn voters(&self) -> BTreeSet<NodeId> {
        self.inner().voters.last().map(|(_, voters)| voters.clone()).unwrap_or_default()
    }

    /// A node leads: nobody else ever did in that term.
    pub(super) fn leads(&self, node: NodeId, term: u64) {
        let mut inner = self.inner();
        let first = *inner.leaders.entry(term).or_insert(node);
        if first != node {
            inner.accuse(|| format!("nodes {first} and {node} lead in term {term}"));
        }
    }

    /// How many terms had a leader.
    pub(super) fn terms(&self) -> usize {
        self.inner().leaders.len()
    }

    /// A node's log from an index on: entries of one index and term are the same everywhere, and so is what goes before them.
    pub(super) fn log(&self, node: NodeId, log: &Content, from: u64) {
        let mut inner = self.inner();
        for index in from.max(log.base.index + 1)..=log.last_index() {
            let (Some(term), Some(entry)) = (log.term(index), log.entry(index)) else { continue };
            let mine = (hash_of(entry), log.term(index - 1));
            let known = *inner.entries.entry((index, term)).or_insert(mine);
            if known != mine {
                inner.accuse(|| {
                    format!("log matching: node {node} has another log up to {index} of term {term}")
                });
            }
        }
    }

    /// Somebody was told that a write was done.
    pub(super) fn acknowledged(&self, index: u64) {
        let mut inner = self.inner();
        inner.acknowledged = inner.acknowledged.max(index);
        if !inner.applied.contains_key(&index) {
            inner.accuse(|| format!("I1: index {index} was acknowledged and nobody has applied it"));
        }
    }

    /// The highest index that was acknowledged or read so far: a linearizable read from now on shows at least this.
    pub(super) fn seen(&self) -> u64 {
        let inner = self.inner();
        inner.acknowledged.max(inner.read)
    }

    /// A linearizable read that was begun when `before` had been seen showed the state of `index`.
    pub(super) fn read(&self, node: NodeId, before: u64, index: u64) {
        let mut inner = self.inner();
        inner.read = inner.read.max(index);
        if index < before {
            inner.accuse(|| {
                format!("I2: a read on node {node} shows index {index}, and {before} had been seen before it began")
            });
        }
    }
}
