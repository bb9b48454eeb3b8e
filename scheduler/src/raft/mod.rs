//! The log: commands go in on any thread, come out of it in one order on every node, and drive a machine.
//!
//! This module knows nothing of the scheduler's state: it is generic over a [`Machine`]. Nobody outside names a type of
//! `raft`, `raft_engine` or `prost11`.
//!
//! ```text
//!   Log (handle, any task) ──> Inbox (bounded) ──> Node::turn (one at a time) ──> Machine::apply
//!                                   ^                 │        │
//!   peers' streams (service) ───────┤                 │        └──> snapshots (files, a thread for each)
//!                                   ├── written ── LogStore (raft-engine, one thread)
//!                                   Transport <───────┘
//! ```
//!
//! Files, from the ground: `limits`, `meter` · `members`, `log_store`, `files`, `identity`, `witness` · `membership`, `record`,
//! `engine_scan`, `engine_writer`, `engine_store`, `snapshot_file`, `snapshot_dir`, `partial`, `storage` · `reads`, `proposals`, `changes` · `node` (the Ready protocol; no thread,
//! no clock: time comes as ticks, disk and network stand behind traits, so that a simulation runs the same loop) ·
//! `inbox`, `driver`, `handle` · `transport`, `grpc`, `service`.
//!
//! Decisions
//! * **Whoever brings something takes the turn** (`driver`); what is long is left to a thread of the log's own. Another thread
//!   has the disk: what raft has ready is handed over and not waited for, so that several appends are under way, what has
//!   gathered meanwhile shares one sync, and what is committed is applied beside it. Proposals are taken at once while the
//!   disk is free and few wait for answers; else they wait a moment for company.
//! * **The state is in memory.** A start restores the newest whole snapshot and applies the log after it again, so
//!   state, applied index and membership come from one place and cannot part.
//! * **A failed write or sync ends the process** ([`Fatal`]); after it nobody knows what the disk holds.
//! * **Nothing is forwarded here.** A proposal on a follower is answered with the leader's address.
//! * **Learners** join any time (at most [`limits::MAX_LEARNERS`]): they count in no majority and so cannot hurt. The
//!   leader promotes each by itself once it has caught up; raft lets one change of the membership through at a time.
//! * **A leader is not removed**, it is told to hand over first: a removed leader would go on leading.
//!
//! Absent on purpose: joint consensus is applied when it comes, but never proposed; changing the address of a member
//! (remove it, let it join under a new id); leases for reads (clocks are not trusted).

mod changes;
mod driver;
mod engine_scan;
mod engine_store;
mod engine_writer;
pub mod files;
mod grpc;
mod handle;
pub mod identity;
mod inbox;
pub mod limits;
pub mod log_store;
mod members;
mod membership;
mod meter;
mod node;
mod open;
mod partial;
mod proposals;
mod reads;
mod record;
mod service;
#[cfg(feature = "simulation")]
pub mod simulated;
mod slog_drain;
mod snapshot_dir;
mod snapshot_file;
mod storage;
mod transport;
mod wire;
mod witness;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::time::Duration;

pub use changes::ChangeError;
pub use driver::start;

pub use grpc::{Connect, ConnectError, GrpcTransport};
pub use handle::{Log, StepError};
pub use identity::IdentityError;
pub use inbox::Reports;
pub use limits::SnapshotPolicy;
pub use members::{Member, MemberKind, Members, NodeId};
pub use meter::{Meter, Queued};
pub use node::{Fatal, Role, Space, Status};
pub use open::{OpenError, Settings, Start, refound};
pub use reads::ReadError;

pub use service::{install_snapshot, snapshot_offset, step_stream};
pub use snapshot_file::SnapshotError;
pub use transport::{PeerAddress, SnapshotToSend, Transport};

/// What the log drives. Pure: no clock, no IO, no randomness.
pub trait Machine: Send + 'static {
    /// What an entry answers to whoever proposed it.
    type Outcome: Send + 'static;
    /// A consistent copy of the state, made in O(1), for a snapshot.
    type Copy: Send + 'static;

    /// Applies one committed entry. Every node calls it with the same entries in the same order.
    fn apply(&mut self, index: u64, entry: &[u8]) -> Self::Outcome;

    /// Whether applying an entry may take much longer than its size says. A hint: only who takes the turn hangs on it.
    fn is_long(&self, entry: &[u8]) -> bool;

    /// Ends a batch: everything up to `applied_index` is in the state, readers may see it. Called for batches without
    /// an entry of ours too, and before the proposers are answered.
    fn applied_batch(&mut self, applied_index: u64, members: &Members);

    /// A copy that later calls of `apply` do not touch.
    fn copy(&self) -> Self::Copy;

    /// Writes a copy. Runs on another thread.
    ///
    /// # Errors
    /// Only those of `out`; they end the process.
    fn write_snapshot(copy: Self::Copy, out: &mut dyn Write) -> std::io::Result<()>;

    /// Replaces the whole state by a snapshot taken at `index`.
    ///
    /// # Errors
    /// When the snapshot is not one that this version reads. The state is then not used any more.
    fn restore(&mut self, index: u64, input: &mut dyn Read) -> Result<(), RestoreError>;
}

/// Why a snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A later version of the program wrote it.
    #[error("the state in it has format {found}, this version of the program knows formats up to {known}")]
    NewerFormat {
        /// Its format.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
    /// It says something that no state can be.
    #[error("the state in it is not valid: {0}")]
    Invalid(String),
}

/// An entry that is on disk on a majority and applied here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<O> {
    /// Its index.
    pub index: u64,
    /// What the machine answered.
    pub outcome: O,
}

/// What became of a proposal that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead. Nothing was done; ask the leader.
    #[error("this node does not lead{}", leader.as_ref().map(|leader| format!(", node {} does", leader.id)).unwrap_or_default())]
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<Member>,
    },
    /// Leadership was lost on the way. The entry may still be applied, or may not.
    #[error("leadership was lost before the outcome was known")]
    OutcomeUnknown,
    /// Too much is under way. Nothing was done.
    #[error("too many proposals are under way")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The disks of so many nodes are nearly full that it could not be kept. Nothing was done.
    #[error("there is too little space on the disks of nodes {nodes:?}")]
    NoSpace {
        /// Whose.
        nodes: Vec<NodeId>,
    },
    /// The entry is too large. Nothing was done.
    #[error("the entry has {found} bytes, the limit is {limit}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// Its size in bytes.
        found: usize,
    },
    /// An empty entry cannot be told from raft's own. Nothing was done.
    #[error("the entry is empty")]
    Empty,
    /// The node has stopped. What was under way may still be applied by the others.
    #[error("the node has stopped")]
    Stopped,
}
