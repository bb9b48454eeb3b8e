//! Hashes of this node's state at the indexes that the leader marked: taken on a thread of its own, the last few kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use supercloud_proto::id::LogIndex;
use tokio::sync::watch;

use super::Hash;
use crate::state::State;

/// Hashes that are kept: those of the last minutes, for whoever is a little behind.
const KEPT: usize = 8;

/// See the head of the module. Cheap to clone.
#[derive(Clone)]
pub struct Hashes {
    kept: Arc<Mutex<Kept>>,
    newest: watch::Sender<Option<(LogIndex, Hash)>>,
}

#[derive(Default)]
struct Kept {
    hashes: VecDeque<(LogIndex, Hash)>,
    running: bool,
    took: Duration,
    #[cfg(test)]
    spoiled: bool,
}

impl Hashes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { kept: Arc::default(), newest: watch::channel(None).0 }
    }

    /// Hashes a copy of the state, on another thread. A mark that comes while the last one is still worked on is passed over.
    pub(crate) fn take(&self, state: State) {
        if std::mem::replace(&mut self.lock().running, true) {
            tracing::warn!(
                index = state.applied(),
                "the state is still being hashed; a comparison is passed over"
            );
            return;
        }
        let hashes = self.clone();
        let spawned = thread::Builder::new().name("state-hash".to_owned()).spawn(move || hashes.hash(state));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to hash the state");
            self.lock().running = false;
        }
    }

    fn hash(&self, state: State) {
        let began = Instant::now();
        let (index, hash) = (state.applied(), state.hash());
        drop(state);
        let mut kept = self.lock();
        #[cfg(test)]
        let hash = if kept.spoiled { [0; 32] } else { hash };
        kept.took = began.elapsed();
        kept.running = false;
        kept.hashes.push_back((index, hash));
        if kept.hashes.len() > KEPT {
            kept.hashes.pop_front();
        }
        drop(kept);
        self.newest.send_replace(Some((index, hash)));
    }

    /// The kept ones, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<(LogIndex, Hash)> {
        self.lock().hashes.iter().copied().collect()
    }

    /// The newest one, now and from now on.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<Option<(LogIndex, Hash)>> {
        self.newest.subscribe()
    }

    /// How long the last one took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.lock().took
    }

    /// From now on the hashes are those of another state.
    #[cfg(test)]
    pub(crate) fn spoil(&self) {
        self.lock().spoiled = true;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What is kept is whole between two statements.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Hashes {
    fn default() -> Self {
        Self::new()
    }
}
