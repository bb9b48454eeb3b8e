//! The log for a simulation: the same node, inbox and handle as in production, but no thread and no clock. Whoever runs
//! it says when a tick has come, when a write has reached the disk, and when a turn is taken.
//!
//! Only with the feature `simulation`. It decides nothing: what `driver` does with a thread, a simulation does by hand.

use std::sync::Arc;

use tokio::sync::watch;

use super::files::Files;
use super::handle::Log;
use super::inbox::Inbox;
use super::limits::{MAX_ELECTION_TICKS, MIN_ELECTION_TICKS};
use super::log_store::{LogStore, StoreError, Ticket};
use super::node::{Control, Node, Parts, SnapshotJob};
use super::open::{OpenError, Settings, Start, first, take_up};
use super::snapshot_dir::SnapshotDir;
use super::{Fatal, Machine, NodeId, Reports, Status, Transport};

/// One life of a node's process.
pub struct Process<M: Machine, L: LogStore> {
    node: Node<M, L>,
    inbox: Arc<Inbox<M::Outcome>>,
    log: Log<M::Outcome>,
    status: watch::Sender<Status>,
    _running: watch::Sender<bool>,
}

/// A snapshot that is to be written beside the turns.
pub struct SnapshotWork<M: Machine>(Box<SnapshotJob<M>>);

/// A snapshot that was written, or could not be.
pub struct SnapshotWritten(Control);

impl<M: Machine> SnapshotWork<M> {
    /// Writes it.
    #[must_use]
    pub fn run(self) -> SnapshotWritten {
        SnapshotWritten(Control::SnapshotTaken(self.0.run().map(Box::new)))
    }
}

impl<M: Machine, L: LogStore> Process<M, L> {
    /// Opens what is on the simulated disk. Whose disk it is, whoever simulates must know.
    ///
    /// # Errors
    /// When the node must not start on it.
    pub fn open(
        settings: &Settings,
        start: &Start,
        mut store: L,
        files: Arc<dyn Files>,
        mut machine: M,
        life: u64,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: settings.directory.display().to_string(), source };
        let snapshots = SnapshotDir::open(files, settings.directory.join("snapshots"), &settings.cluster);
        let snapshots = snapshots.map_err(io)?;
        let snapshot = if let Start::Again = start {
            take_up(settings, &mut store, &snapshots, &mut machine)?
        } else {
            let (first, snapshot) = first(settings, start, &snapshots, &machine)?;
            store.write(first, true)?;
            snapshot
        };
        let node = Node::new(Parts {
            id: settings.id.0,
            cluster: settings.cluster.clone(),
            address: settings.peer_address.clone(),
            store,
            machine,
            snapshots: snapshots.clone(),
            snapshot,
            policy: settings.snapshots,
            life,
        })?;
        let inbox = Arc::new(Inbox::new());
        let (status, watched) = watch::channel(node.status());
        let (running, stopped) = watch::channel(false);
        let log = Log::new(settings.cluster.clone(), inbox.clone(), watched, stopped, snapshots);
        Ok(Self { node, inbox, log, status, _running: running })
    }

    /// The handle that everything above the log holds. Its futures are ready after a turn, or later.
    pub fn log(&self) -> &Log<M::Outcome> {
        &self.log
    }

    /// Where the simulated network tells what became of what was sent.
    #[must_use]
    pub fn reports(&self) -> Reports {
        Reports::new(self.inbox.clone())
    }

    /// One turn with all that has come in. Returns whether there is more to do at once, and a snapshot to be written.
    ///
    /// # Errors
    /// When the process must end.
    pub fn turn(
        &mut self,
        tick: bool,
        network: &mut dyn Transport,
    ) -> Result<(bool, Option<SnapshotWork<M>>), Fatal> {
        let mut inputs = self.inbox.take(false);
        inputs.tick = tick;
        let more = self.node.turn(inputs, network)?;
        let work = self.node.take_job().map(SnapshotWork);
        self.status.send_replace(self.node.status());
        Ok((more, work))
    }

    /// Submitted writes up to a ticket are on disk, or one failed. Seen at the next turn.
    pub fn written(&self, outcome: Result<Ticket, StoreError>) {
        self.inbox.control(Control::Written(outcome));
    }

    /// A snapshot was written. Seen at the next turn.
    pub fn snapshot_written(&self, written: SnapshotWritten) {
        self.inbox.control(written.0);
    }

    /// After how many ticks without a leader this node stands for election: `chance` chooses. Raft would roll dice of
    /// its own, which nobody could roll again.
    pub fn stand_after(&mut self, chance: u64) {
        let span = (MAX_ELECTION_TICKS - MIN_ELECTION_TICKS) as u64;
        self.node.stand_after(MIN_ELECTION_TICKS + (chance % span) as usize);
    }
}

/// A snapshot on its way, for a network that carries its content by itself.
impl<O: Send + 'static> Log<O> {
    /// A file into which an incoming snapshot is to be written.
    #[must_use]
    pub fn snapshot_path(&self) -> std::path::PathBuf {
        self.incoming_snapshot()
    }

    /// Takes a snapshot in that was written there and synced.
    ///
    /// # Errors
    /// When it is not whole, or not for this node.
    pub fn take_snapshot(
        &self,
        from: NodeId,
        message: &[u8],
        file: &std::path::Path,
    ) -> Result<(), super::StepError> {
        self.step_snapshot(from, message, file)
    }
}

/// Term of an entry as a [`LogStore`] is handed it; `None` when it is none.
#[must_use]
pub fn term_of(entry: &[u8]) -> Option<u64> {
    <::raft::eraftpb::Entry as prost11::Message>::decode(entry).ok().map(|entry| entry.term)
}

/// What an entry says, without where it stands.
#[must_use]
pub fn content_of(entry: &[u8]) -> Option<Vec<u8>> {
    <::raft::eraftpb::Entry as prost11::Message>::decode(entry).ok().map(|entry| entry.data)
}
