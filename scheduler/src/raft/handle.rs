//! What everybody else holds of the log: a handle that hides every queue. Cheap to clone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::changes::Change;
use super::driver::Turns;
use super::inbox::Inbox;
use super::limits::{MAX_ENTRY_BYTES, SPACE_STEP_BYTES};
use super::members::NodeId;
use super::meter::{Meter, Queued};
use super::node::{Control, Space, Status};
use super::partial::Kept;
use super::proposals::Proposal;
use super::snapshot_dir::SnapshotDir;
use super::snapshot_file::SnapshotError;
use super::wire::{self, Incoming, WireError};
use super::{ChangeError, Committed, ProposeError, ReadError};

/// Why a peer's message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It is too large.
    #[error("the message has {found} bytes, the limit is {limit}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// Its size in bytes.
        found: usize,
    },
    /// It is not a message of this protocol.
    #[error("the message cannot be decoded")]
    Malformed,
    /// It is meant for another cluster.
    #[error("the message is of cluster {found}")]
    OtherCluster {
        /// Its cluster.
        found: String,
    },
    /// It names another sender than the caller.
    #[error("the message is of node {found}, the caller is node {caller}")]
    OtherSender {
        /// Who sent it.
        caller: NodeId,
        /// Whom it names.
        found: NodeId,
    },
    /// Its sender was removed from the cluster and should know.
    #[error("node {id} was removed from the cluster")]
    SenderRemoved {
        /// The sender.
        id: NodeId,
    },
    /// The snapshot that came with it is not whole.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl From<WireError> for StepError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLarge(found) => {
                Self::TooLarge { limit: super::limits::MAX_PEER_MESSAGE_BYTES, found }
            }
            WireError::Malformed => Self::Malformed,
            WireError::OtherCluster(found) => Self::OtherCluster { found },
        }
    }
}

/// A handle on the log. `O` is what the machine answers.
pub struct Log<O> {
    cluster: Arc<str>,
    inbox: Arc<Inbox<O>>,
    /// `None` where somebody takes the turns by hand.
    turns: Option<Arc<dyn Turns>>,
    status: watch::Receiver<Status>,
    stopped: watch::Receiver<bool>,
    snapshots: SnapshotDir,
    /// Snapshots come in one at a time.
    receiving: Arc<Semaphore>,
    /// What came in of the last one, where its transfer broke.
    kept: Kept,
    meter: Meter,
    space: Arc<Mutex<Space>>,
}

impl<O> Clone for Log<O> {
    fn clone(&self) -> Self {
        Self {
            cluster: self.cluster.clone(),
            inbox: self.inbox.clone(),
            turns: self.turns.clone(),
            status: self.status.clone(),
            stopped: self.stopped.clone(),
            snapshots: self.snapshots.clone(),
            receiving: self.receiving.clone(),
            kept: self.kept.clone(),
            meter: self.meter.clone(),
            space: self.space.clone(),
        }
    }
}

impl<O: Send + 'static> Log<O> {
    pub(super) fn new(
        cluster: String,
        inbox: Arc<Inbox<O>>,
        status: watch::Receiver<Status>,
        stopped: watch::Receiver<bool>,
        snapshots: SnapshotDir,
    ) -> Self {
        let receiving = Arc::new(Semaphore::new(1));
        Self {
            cluster: Arc::from(cluster),
            inbox,
            turns: None,
            status,
            stopped,
            snapshots,
            receiving,
            kept: Kept::default(),
            meter: Meter::default(),
            space: Arc::default(),
        }
    }

    /// The same, with the measures of the threads behind it.
    pub(super) fn measured_by(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// The same, with who takes the turns.
    pub(super) fn driven_by(self, turns: Arc<dyn Turns>) -> Self {
        Self { turns: Some(turns), ..self }
    }

    /// Sees to it that a turn is taken after something was put into the inbox.
    fn take_turn(&self) {
        if let Some(turns) = &self.turns {
            turns.take();
        }
    }

    /// The same, after the tasks that are ready have had theirs: many of them may be about to bring something too, for the same turn.
    async fn take_turn_together(&self) {
        if self.turns.is_some() {
            tokio::task::yield_now().await;
            self.take_turn();
        }
    }

    /// What the log measures of itself.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What waits for a turn now.
    #[must_use]
    pub fn queued(&self) -> Queued {
        self.inbox.queued()
    }

    /// Proposes an entry, and waits until it is on disk on a majority and applied here.
    ///
    /// # Errors
    /// See [`ProposeError`]; after `OutcomeUnknown` and `Stopped` it may have been applied all the same.
    pub async fn propose(&self, entry: Vec<u8>) -> Result<Committed<O>, ProposeError> {
        if entry.is_empty() {
            return Err(ProposeError::Empty);
        }
        if entry.len() > MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge { limit: MAX_ENTRY_BYTES, found: entry.len() });
        }
        let (reply, answer) = oneshot::channel();
        self.inbox.propose(Proposal { entry, reply });
        self.take_turn_together().await;
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// An index that covers every write acknowledged before this call, and that is applied here when this returns.
    /// Works on every member that reaches the leader.
    ///
    /// # Errors
    /// When no leader confirmed it within three seconds, when too many reads wait, or when the node has stopped.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.control(Control::Read(reply));
        self.take_turn_together().await;
        answer.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// What this node knows of itself and the others, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Takes a message from the peer `from`. May drop it when too many wait; raft repeats it.
    ///
    /// # Errors
    /// When it is not a message for this node's cluster, or its sender is no member any more.
    pub fn step(&self, from: NodeId, message: &[u8]) -> Result<(), StepError> {
        self.step_all(from, [message])
    }

    /// Takes messages that came together, in their order: see [`Log::step`].
    ///
    /// # Errors
    /// Those of the first that is refused; the ones before it are taken.
    pub(super) fn step_all<'m>(
        &self,
        from: NodeId,
        messages: impl IntoIterator<Item = &'m [u8]>,
    ) -> Result<(), StepError> {
        let step = |message| self.decode(from, message).map(|incoming| self.inbox.message(incoming));
        let taken = messages.into_iter().try_for_each(step);
        self.take_turn();
        taken
    }

    /// Adds a node that is about to start with [`super::Start::Join`], and returns its number. It becomes a voter by
    /// itself once it has caught up.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can do it.
    pub async fn add_learner(
        &self,
        peer_address: String,
        api_address: String,
    ) -> Result<NodeId, ChangeError> {
        self.change(|reply| Control::Change(Change::AddLearner { peer_address, api_address }, reply)).await
    }

    /// Makes a learner a voter. The leader does so by itself; this is for an operator who does not want to wait.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can do it.
    pub async fn promote(&self, id: NodeId) -> Result<(), ChangeError> {
        self.change(|reply| Control::Change(Change::Promote(id), reply)).await.map(drop)
    }

    /// Removes a member for good; its number is never used again.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can do it, and not to itself.
    pub async fn remove(&self, id: NodeId) -> Result<(), ChangeError> {
        self.change(|reply| Control::Change(Change::Remove(id), reply)).await.map(drop)
    }

    /// Hands the leadership over, and waits until it has been taken. Proposals are refused as overload meanwhile.
    ///
    /// # Errors
    /// See [`ChangeError`]; only the leader can do it.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), ChangeError> {
        self.change(|reply| Control::Transfer(to, reply)).await.map(drop)
    }

    /// Says what is known of the disk that holds the log.
    pub fn tell_space(&self, space: Space) {
        let known = std::mem::replace(&mut *self.space.lock().unwrap_or_else(PoisonError::into_inner), space);
        if known.short != space.short || known.free.abs_diff(space.free) >= SPACE_STEP_BYTES {
            self.inbox.control(Control::Space(space));
            self.take_turn();
        }
    }

    /// What is known of the disk that holds the log.
    #[must_use]
    pub fn space(&self) -> Space {
        *self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the node and waits until its thread has ended and the directory is free.
    pub async fn shutdown(self) {
        self.inbox.stop();
        let mut stopped = self.stopped.clone();
        // An error means that the thread is gone, which is what we wait for.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    async fn change(
        &self,
        control: impl FnOnce(super::changes::ChangeReply) -> Control,
    ) -> Result<NodeId, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.control(control(reply));
        self.take_turn();
        answer.await.unwrap_or(Err(ChangeError::Stopped))
    }

    fn decode(&self, from: NodeId, message: &[u8]) -> Result<Incoming, StepError> {
        let incoming = wire::decode(&self.cluster, message)?;
        let id = NodeId(incoming.message.from);
        if id != from {
            return Err(StepError::OtherSender { caller: from, found: id });
        }
        if self.status.borrow().members.was_removed(id) {
            return Err(StepError::SenderRemoved { id });
        }
        Ok(incoming)
    }

    /// The right to take in a snapshot, unless one is coming in already.
    pub(super) fn receive_snapshot(&self) -> Option<OwnedSemaphorePermit> {
        self.receiving.clone().try_acquire_owned().ok()
    }

    /// What came in of a snapshot whose transfer broke.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// A file into which a snapshot from a peer may be written.
    pub(super) fn incoming_snapshot(&self) -> PathBuf {
        self.snapshots.incoming()
    }

    /// Takes a snapshot that was written to a file from `incoming_snapshot` and synced. Reads all of it: not for a
    /// task that must not block.
    pub(super) fn step_snapshot(&self, from: NodeId, message: &[u8], file: &Path) -> Result<(), StepError> {
        let received = self.snapshots.received(file)?;
        let incoming = self.decode(from, message)?;
        self.inbox.control(Control::SnapshotReceived(Box::new(incoming), received));
        self.take_turn();
        Ok(())
    }
}
