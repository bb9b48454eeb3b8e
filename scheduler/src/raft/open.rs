//! From a directory to a node: founds one, lets one join, or takes one up again. Knows files and their order.
//!
//! ```text
//!   identity.json          whose directory; written last, so that it never stands beside half a log
//!   log/                   raft-engine
//!   snapshots/             snapshot-<index>-<term>, the last two
//! ```
//! Decisions. A founded cluster begins with a snapshot at index 1, not with an empty log: a node that joins later
//! starts without a membership and must learn it, and only a snapshot brings one. A cluster that is restored begins
//! alike (`refound`), with the saved state and at an index that its older life never reached.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::engine_store::EngineStore;
use super::files::Disk;
use super::identity::{self, FORMAT, Identity, IdentityError};
use super::limits::{MAX_VOTERS, SnapshotPolicy};
use super::log_store::{HardState, LogStore, LogWrite, OnWritten, Place, Position, StoreError};
use super::members::{Member, NodeId};
use super::membership::Membership;
use super::meter::Meter;
use super::node::{Fatal, Node, Parts};
use super::snapshot_dir::SnapshotDir;
use super::snapshot_file::{SnapshotError, SnapshotMeta};
use super::storage::replaced_by;
use super::{Machine, RestoreError};

/// Bytes of the log that are read at once when it is read through.
const READ_BYTES: u64 = 4 << 20;
/// Index and term of the snapshot that a cluster begins with.
const FOUNDING: Position = Position { index: 1, term: 1 };

/// What a node must be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's id.
    pub cluster: String,
    /// This node's number.
    pub id: NodeId,
    /// Its data. Belongs to it alone.
    pub directory: PathBuf,
    /// Where the other nodes reach it, `host:port`.
    pub peer_address: String,
    /// When snapshots are taken.
    pub snapshots: SnapshotPolicy,
    /// How long a tick lasts; [`super::limits::TICK`] but for tests.
    pub tick: std::time::Duration,
}

/// How a node comes to be there.
#[derive(Clone, Debug)]
pub enum Start {
    /// A new cluster of these voters, this node among them. Every one of them is started with the same list, and with
    /// a machine in the same state.
    Found {
        /// All first members.
        members: Vec<Member>,
    },
    /// A new node in a cluster that runs; its number was given out by [`super::Log::add_learner`].
    Join,
    /// A node that has data.
    Again,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not this node's, or not whole.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No snapshot can be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The snapshot's content cannot be used.
    #[error("snapshot {path}: {source}")]
    Restore {
        /// The file.
        path: String,
        /// Why.
        source: RestoreError,
    },
    /// The directory cannot be made or read.
    #[error("cannot use {path}: {source}")]
    Io {
        /// What.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is a log, and the snapshot that it continues is missing.
    #[error("the log in {path} goes on from index {base}, and there is no usable snapshot that reaches it")]
    NoSnapshot {
        /// The directory.
        path: String,
        /// Where the log begins.
        base: u64,
    },
    /// The log ends before what this node had applied.
    #[error(
        "the log in {path} ends at index {last}{}, but this node's state had reached index {known}: it has lost what it acknowledged",
        cut(.place)
    )]
    LogShorter {
        /// The directory.
        path: String,
        /// Where it is damaged, as far as that is known.
        place: Option<Place>,
        /// Last entry of the log.
        last: u64,
        /// Index that the node had reached.
        known: u64,
    },
    /// The log knows an older term than this node had seen.
    #[error(
        "the log in {path} is of term {term}{}, but this node had seen term {known}: it has lost what it voted",
        cut(.place)
    )]
    VoteLost {
        /// The directory.
        path: String,
        /// Where it is damaged, as far as that is known.
        place: Option<Place>,
        /// Term in the log.
        term: u64,
        /// Term that the node had seen.
        known: u64,
    },
    /// The founding members make no cluster.
    #[error("a cluster is founded by 1 to {MAX_VOTERS} members, node {id} among them")]
    Founders {
        /// This node.
        id: NodeId,
    },
    /// Raft does not take up what is on disk.
    #[error(transparent)]
    Node(#[from] Fatal),
}

fn cut(place: &Option<Place>) -> String {
    place.as_ref().map(|place| format!(" (cut off at damage in {place})")).unwrap_or_default()
}

impl OpenError {
    /// Whether the node has lost what it had, so that only the other nodes can give it back.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Identity(error) => error.is_loss(),
            Self::Store(error) => matches!(error, StoreError::Damaged { .. } | StoreError::Missing { .. }),
            Self::Snapshot(error) => matches!(error, SnapshotError::Damaged { .. }),
            Self::Restore { source, .. } => matches!(source, RestoreError::Invalid(_)),
            Self::NoSnapshot { .. } | Self::LogShorter { .. } | Self::VoteLost { .. } => true,
            Self::Io { .. } | Self::Founders { .. } | Self::Node(_) => false,
        }
    }
}

/// Lays down the log of the first node of a cluster that goes on from a saved state: `member` alone, a snapshot that `state`
/// writes, and nothing behind it. Starts nothing; the node is started with [`Start::Again`].
///
/// # Errors
/// When the directory is in use already, or the disk refuses.
pub fn refound(
    settings: &Settings,
    member: &Member,
    at: Position,
    state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: settings.directory.display().to_string(), source };
    fs::create_dir_all(&settings.directory).map_err(io)?;
    let members = vec![member.clone()];
    let membership = Membership::founded_by(&members);
    check_marker(settings, &Start::Found { members })?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io(io::Error::other(error)))?;
    // Nothing is submitted, so there is nothing to be told.
    let mut store = EngineStore::open(&settings.directory.join("log"), Box::new(|_| {}))?;
    let snapshots =
        SnapshotDir::open(Arc::new(Disk), settings.directory.join("snapshots"), &settings.cluster);
    let meta = SnapshotMeta { position: at, membership, ..blank(settings) };
    let (first, _) = founded(&snapshots.map_err(io)?, meta, state).map_err(io)?;
    mark(settings, &mut store, first, random)
}

/// Opens the directory and sets up the node. `random` makes the directory's incarnation and the life of the process;
/// `written` is told what became of the writes that the node submits.
pub(super) fn open<M: Machine>(
    settings: &Settings,
    start: &Start,
    mut machine: M,
    random: [u8; 16],
    written: OnWritten,
) -> Result<(Node<M, EngineStore>, SnapshotDir, Meter), OpenError> {
    let directory = &settings.directory;
    let io = |source| OpenError::Io { path: directory.display().to_string(), source };
    fs::create_dir_all(directory).map_err(io)?;
    let marker = check_marker(settings, start)?;
    let mut store = EngineStore::open(&directory.join("log"), written)?;
    let snapshots = SnapshotDir::open(Arc::new(Disk), directory.join("snapshots"), &settings.cluster);
    let snapshots = snapshots.map_err(io)?;
    let snapshot = match marker {
        Some(marker) => {
            check_log(settings, &marker, &store)?;
            take_up(settings, &mut store, &snapshots, &mut machine)?
        }
        None => begin(settings, start, &mut store, &snapshots, &machine, random)?,
    };
    let meter = store.meter().clone();
    let life = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at: usize| random[at]));
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
    Ok((node, snapshots, meter))
}

fn check_marker(settings: &Settings, start: &Start) -> Result<Option<Identity>, OpenError> {
    let directory = settings.directory.display().to_string();
    let node = settings.id.0;
    let Some(found) = identity::read(&settings.directory)? else {
        if settings.directory.join("log").exists() {
            return Err(IdentityError::NoMarker { directory }.into());
        }
        if matches!(start, Start::Again) {
            return Err(IdentityError::Blank { directory, node }.into());
        }
        return Ok(None);
    };
    if (found.node, &found.cluster) != (node, &settings.cluster) {
        let (found_node, found_cluster) = (found.node, found.cluster);
        let cluster = settings.cluster.clone();
        return Err(IdentityError::Foreign { directory, node, cluster, found_node, found_cluster }.into());
    }
    if !matches!(start, Start::Again) {
        return Err(IdentityError::InUse { directory, node }.into());
    }
    Ok(Some(found))
}

fn check_log(settings: &Settings, marker: &Identity, store: &EngineStore) -> Result<(), OpenError> {
    let found = match store.owner() {
        Some(owner) if owner == marker.to_bytes() => return Ok(()),
        Some(_) => "of another incarnation",
        None => "blank",
    };
    let directory = settings.directory.display().to_string();
    Err(IdentityError::LogLost { directory, node: marker.node, found, place: cut(&store.cut_at()) }.into())
}

/// Founds or joins: snapshot, log, marker, in this order.
fn begin<M: Machine>(
    settings: &Settings,
    start: &Start,
    store: &mut EngineStore,
    snapshots: &SnapshotDir,
    machine: &M,
    random: [u8; 16],
) -> Result<SnapshotMeta, OpenError> {
    let (first, meta) = first(settings, start, snapshots, machine)?;
    mark(settings, store, first, random)?;
    Ok(meta)
}

/// Begins a log, and then says whose directory it is.
fn mark(
    settings: &Settings,
    store: &mut EngineStore,
    mut first: LogWrite,
    random: [u8; 16],
) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: settings.directory.display().to_string(), source };
    let identity = Identity {
        format: FORMAT,
        cluster: settings.cluster.clone(),
        node: settings.id.0,
        incarnation: random.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    first.owner = Some(identity.to_bytes());
    store.write(first, true)?;
    identity::sync_directory(&settings.directory.join("log")).map_err(io)?;
    Ok(identity::write(&settings.directory, &identity)?)
}

/// What a new log begins with, and the snapshot before it, which is written here.
pub(super) fn first<M: Machine>(
    settings: &Settings,
    start: &Start,
    snapshots: &SnapshotDir,
    machine: &M,
) -> Result<(LogWrite, SnapshotMeta), OpenError> {
    let io = |source| OpenError::Io { path: settings.directory.display().to_string(), source };
    let Start::Found { members } = start else { return Ok((LogWrite::default(), blank(settings))) };
    let with_us = members.iter().any(|member| member.id == settings.id);
    if !with_us || members.len() > MAX_VOTERS {
        return Err(OpenError::Founders { id: settings.id });
    }
    let membership = Membership::founded_by(members);
    let meta = SnapshotMeta { position: FOUNDING, membership, ..blank(settings) };
    let copy = machine.copy();
    founded(snapshots, meta, |out| M::write_snapshot(copy, out)).map_err(io)
}

/// A snapshot that is written here, and a log that goes on from it.
fn founded(
    snapshots: &SnapshotDir,
    meta: SnapshotMeta,
    state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(LogWrite, SnapshotMeta)> {
    let meta = snapshots.create(meta, state)?;
    let Position { index, term } = meta.position;
    let hard_state = Some(HardState { term, vote: 0, commit: index });
    Ok((LogWrite { base: Some(meta.position), hard_state, ..LogWrite::default() }, meta))
}

fn blank(settings: &Settings) -> SnapshotMeta {
    SnapshotMeta {
        cluster: settings.cluster.clone(),
        position: Position::default(),
        membership: Membership::default(),
        bytes: 0,
    }
}

/// Restores the newest snapshot that is whole and that the log continues.
pub(super) fn take_up<M: Machine, L: LogStore>(
    settings: &Settings,
    store: &mut L,
    snapshots: &SnapshotDir,
    machine: &mut M,
) -> Result<SnapshotMeta, OpenError> {
    let path = settings.directory.display().to_string();
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut damage = None;
    for position in snapshots.positions().map_err(io)? {
        // A newer base than the snapshot: what lies between is gone.
        if position.index < store.base().index {
            break;
        }
        let verified = match snapshots.verify(position) {
            Ok(verified) => verified,
            Err(error @ SnapshotError::Damaged { .. }) => {
                tracing::error!(%error, "snapshot set aside, the older one is tried");
                snapshots.set_aside(position).map_err(io)?;
                damage = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        finish_install(&path, store, position)?;
        read_through(store, position.index + 1)?;
        let restored = machine.restore(position.index, &mut verified.payload().map_err(io)?);
        let path = || snapshots.file(position).display().to_string();
        restored.map_err(|source| OpenError::Restore { path: path(), source })?;
        return Ok(verified.meta);
    }
    match damage {
        Some(error) => Err(error.into()),
        // A node that joined and has not had its first snapshot yet.
        None if store.base().index == 0 && store.last_index() == 0 => {
            finish_install(&path, store, Position::default())?;
            Ok(blank(settings))
        }
        None => Err(OpenError::NoSnapshot { path, base: store.base().index }),
    }
}

/// Reads what will be applied, so that damage is found before anything is served, and not in the middle of it.
fn read_through<L: LogStore>(store: &L, from: u64) -> Result<(), StoreError> {
    let (mut next, end) = (from.max(store.base().index + 1), store.last_index() + 1);
    while next < end {
        next += store.read(next, end, READ_BYTES)?.len() as u64;
    }
    Ok(())
}

/// A crash may have come between the snapshot's name and the log's reset. Otherwise the log reaches the snapshot.
///
/// An intent whose snapshot never got its name is withdrawn: a snapshot of our own may get the same index later, and
/// must not be taken for it.
fn finish_install(path: &str, store: &mut impl LogStore, position: Position) -> Result<(), OpenError> {
    if store.installing() == position.index && store.base() != position {
        let mut hard_state = store.hard_state();
        if position.term > hard_state.term {
            hard_state = HardState { term: position.term, vote: 0, ..hard_state };
        }
        hard_state.commit = hard_state.commit.max(position.index);
        store.write(replaced_by(position, hard_state), true)?;
    } else if store.installing() != 0 {
        store.write(LogWrite { installing: Some(0), ..LogWrite::default() }, true)?;
    }
    check_length(path, store, position)
}

/// Whatever testifies that the log had come further is believed.
fn check_length(path: &str, store: &impl LogStore, snapshot: Position) -> Result<(), OpenError> {
    let (hard_state, witnessed) = (store.hard_state(), store.witnessed());
    let path = path.to_owned();
    let last = store.last_index();
    let known = snapshot.index.max(hard_state.commit).max(witnessed.index);
    if last < known {
        return Err(OpenError::LogShorter { path, place: store.cut_at(), last, known });
    }
    let known = snapshot.term.max(witnessed.term);
    if hard_state.term < known {
        return Err(OpenError::VoteLost { path, place: store.cut_at(), term: hard_state.term, known });
    }
    Ok(())
}
