//! This node's copy of the state, driven by the log: entries in, outcomes out, a new state published once a batch, what happened
//! handed to the archive. Knows no network, no leader and no clock.
//!
//! Decisions. *An entry that cannot be decoded ends the process*: a node that guessed or skipped would differ from the others for ever.
//! Whoever proposes makes sure beforehand that an entry can be read. *The archive is told, never asked*: handing over costs a
//! bounded queue; what does not fit is a gap that the archive heals by itself. *A snapshot waits for the archive* for a moment, on its own
//! thread: once the log before it is forgotten, events that were not archived could only come from another node.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    archive::{Batch, Durable, Feed, event_message},
    compare::Hashes,
    raft::{Machine, Members, RestoreError},
    state::{Command, Entry, Outcome, State, codec, level},
};

/// How long a snapshot waits for the archive to have on disk what the snapshot makes the log forget. It runs on its own thread.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const ARCHIVE_POLL: Duration = Duration::from_millis(20);

/// See the head of the module.
pub struct Replica {
    state: State,
    published: watch::Sender<State>,
    archive: Feed,
    batch: Batch,
    hashes: Hashes,
    /// The state one batch ago.
    #[cfg(feature = "planted")]
    before: State,
}

impl Replica {
    /// An empty state, and where its versions are published.
    #[must_use]
    pub fn new(archive: Feed) -> (Self, watch::Receiver<State>) {
        let (published, states) = watch::channel(State::default());
        let replica = Self {
            state: State::default(),
            published,
            archive,
            batch: Batch::default(),
            hashes: Hashes::new(),
            #[cfg(feature = "planted")]
            before: State::default(),
        };
        (replica, states)
    }

    /// Hashes of the state at the indexes that were marked.
    #[must_use]
    pub fn hashes(&self) -> Hashes {
        self.hashes.clone()
    }
}

/// A consistent copy for a snapshot.
pub struct ReplicaCopy {
    state: State,
    archived: Durable,
}

impl Machine for Replica {
    type Outcome = Outcome;
    type Copy = ReplicaCopy;

    fn apply(&mut self, index: u64, entry: &[u8]) -> Outcome {
        let entry = match Entry::decode(entry) {
            Ok(entry) => entry,
            Err(error) => unreadable(index, &error),
        };
        let applied = self.state.apply(index, &entry);
        if matches!(entry.command, Command::CompareStates) {
            self.hashes.take(self.state.clone());
        }
        self.batch.events.extend(applied.events.iter().map(event_message));
        let finished = applied.finished.iter().map(|instance| (index, self.state.instance_message(instance)));
        self.batch.finished.extend(finished);
        applied.outcome
    }

    fn is_long(&self, entry: &[u8]) -> bool {
        codec::is_long(&self.state, entry)
    }

    fn applied_batch(&mut self, applied_index: u64, _members: &Members) {
        if self.state.applied() < applied_index {
            self.state.skip(applied_index);
        }
        #[cfg(feature = "planted")]
        self.before.clone_from(&self.published.borrow());
        self.published.send_replace(self.state.clone());
        let next = Batch { after: applied_index, ..Batch::default() };
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch.index = applied_index;
        if batch.index > batch.after {
            self.archive.push(batch);
        }
    }

    fn copy(&self) -> ReplicaCopy {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Fault::AppliedApartFromState) {
            return ReplicaCopy { state: self.before.clone(), archived: self.archive.durable() };
        }
        ReplicaCopy { state: self.state.clone(), archived: self.archive.durable() }
    }

    fn write_snapshot(copy: ReplicaCopy, out: &mut dyn Write) -> std::io::Result<()> {
        let index = copy.state.applied();
        let deadline = Instant::now() + ARCHIVE_PATIENCE;
        while !copy.archived.reaches(index) {
            if Instant::now() >= deadline {
                tracing::warn!(index, "the archive lags behind; a snapshot is taken without it");
                break;
            }
            std::thread::sleep(ARCHIVE_POLL);
        }
        copy.state.write(out)
    }

    fn restore(&mut self, index: u64, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut state = State::read(input).map_err(restore_error)?;
        if state.applied() > index {
            let text = format!("a state of index {} in a snapshot of index {index}", state.applied());
            return Err(RestoreError::Invalid(text));
        }
        // The last entries before a snapshot may be raft's own, which the state has not seen.
        state.skip(index);
        self.state = state;
        self.batch = Batch { after: index, ..Batch::default() };
        // Whatever the archive lacks up to here never passed through this node.
        self.archive.push(Batch { after: index, index, ..Batch::default() });
        Ok(())
    }
}

fn unreadable(index: u64, error: &codec::DecodeError) -> ! {
    tracing::error!(index, %error, "an entry of the log cannot be read; this node stops rather than guess");
    #[expect(
        clippy::panic,
        reason = "the log's thread turns it into the end of the process, which is what must happen"
    )]
    {
        panic!("entry {index} of the log cannot be read ({error}); this node stops rather than guess")
    }
}

fn restore_error(error: codec::RestoreError) -> RestoreError {
    match error {
        codec::RestoreError::Read { source, .. } => RestoreError::Io(source),
        codec::RestoreError::Level { found } => RestoreError::NewerFormat { found, known: level::KNOWN },
        other => RestoreError::Invalid(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
