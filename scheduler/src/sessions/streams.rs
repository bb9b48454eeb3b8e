//! Streams that agents were asked to open and have not opened yet, and what both ends hold of one that is open.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::stream::BoxStream;
use supercloud_proto::{name::HostName, v1};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Streams that a node waits for at a time; each waits for seconds at most.
const MAX_WAITING: usize = 1_024;
/// Random bytes in a stream's id: who does not know it cannot take the stream of another.
const ID_BYTES: usize = 16;

/// An open stream. Dropping it ends it at the agent.
pub(crate) struct Attached {
    /// From the agent.
    pub(crate) up: BoxStream<'static, Result<v1::AttachUp, Status>>,
    /// To the agent.
    pub(crate) down: mpsc::Sender<v1::AttachDown>,
}

/// See the head of the module.
#[derive(Clone, Default)]
pub(super) struct Streams {
    waiting: Arc<Mutex<BTreeMap<String, Waiting>>>,
}

struct Waiting {
    host: HostName,
    give: oneshot::Sender<Attached>,
}

/// A stream that is waited for. It is no longer, once this is dropped.
pub(super) struct Expected {
    streams: Streams,
    /// Its id.
    pub(super) id: String,
    /// Where it arrives.
    pub(super) attached: oneshot::Receiver<Attached>,
}

/// Why no stream is waited for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExpectError {
    /// Too many are.
    #[error("{MAX_WAITING} streams are waited for already")]
    TooMany,
    /// The machine has no randomness to give.
    #[error("the system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
}

impl Streams {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a stream of this host's agent.
    pub(super) fn expect(&self, host: &HostName) -> Result<Expected, ExpectError> {
        let mut random = [0; ID_BYTES];
        getrandom::fill(&mut random)?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (give, attached) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            return Err(ExpectError::TooMany);
        }
        waiting.insert(id.clone(), Waiting { host: host.clone(), give });
        Ok(Expected { streams: self.clone(), id, attached })
    }

    /// Hands an open stream to whoever waits for it, if `speaks_for` its host. Gives it back otherwise.
    pub(super) fn attach(
        &self,
        id: &str,
        speaks_for: impl Fn(&HostName) -> bool,
        stream: Attached,
    ) -> Result<(), Attached> {
        let mut waiting = self.waiting();
        if !waiting.get(id).is_some_and(|waiting| speaks_for(&waiting.host)) {
            return Err(stream);
        }
        match waiting.remove(id) {
            Some(waiting) => waiting.give.send(stream),
            None => Err(stream),
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.streams.waiting().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    fn stream() -> Attached {
        Attached { up: futures::stream::empty().boxed(), down: mpsc::channel(1).0 }
    }

    #[test]
    fn a_stream_goes_to_who_waits_and_only_from_its_host() {
        let streams = Streams::default();
        let host: HostName = "h1".parse().unwrap();
        let mut expected = streams.expect(&host).unwrap();
        let other: HostName = "h2".parse().unwrap();
        assert!(streams.attach(&expected.id, |host| *host == other, stream()).is_err());
        assert!(streams.attach("guess", |_| true, stream()).is_err());
        assert!(streams.attach(&expected.id, |named| *named == host, stream()).is_ok());
        assert!(expected.attached.try_recv().is_ok());
        assert!(streams.attach(&expected.id, |_| true, stream()).is_err(), "once");
        drop(streams.expect(&host).unwrap());
        assert!(streams.waiting().is_empty(), "who gave up waits no more");
    }
}
