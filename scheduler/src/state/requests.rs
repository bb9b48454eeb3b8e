//! Remembered requests: a changing call that is sent again with its request id is answered, not repeated.

use std::sync::Arc;

use imbl::OrdMap;
use supercloud_proto::id::LogIndex;

use super::command::Outcome;

/// Requests that are remembered; the oldest is forgotten first. At a hundred changes a second this is over ten minutes, far beyond
/// any client's retries, at about 10 MiB.
pub const MAX_REMEMBERED: usize = 65_536;

/// One remembered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Log index at which it was applied.
    pub index: LogIndex,
    /// CRC-32 of its command.
    pub fingerprint: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// The requests, by caller and id, and by age. At most one request is applied at an index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requests {
    by_key: OrdMap<Arc<str>, Arc<Remembered>>,
    by_age: OrdMap<LogIndex, Arc<str>>,
}

impl Requests {
    /// The key of a caller's request id.
    pub fn key(by: &str, request_id: &str) -> String {
        format!("{by}/{request_id}")
    }

    /// What became of a request, if it is remembered.
    pub fn get(&self, key: &str) -> Option<&Arc<Remembered>> {
        self.by_key.get(key)
    }

    /// Remembers a request, and forgets the oldest where there are too many.
    pub fn insert(&mut self, key: &str, remembered: Remembered) {
        let key: Arc<str> = key.into();
        self.by_age.insert(remembered.index, key.clone());
        self.by_key.insert(key, Arc::new(remembered));
        while self.by_age.len() > MAX_REMEMBERED {
            let Some((oldest, key)) = self.by_age.get_min().cloned() else { return };
            self.by_age.remove(&oldest);
            self.by_key.remove(&key);
        }
    }

    /// All, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Remembered>)> {
        self.by_key.iter()
    }
}
