//! Whose directory this is. Knows files, not raft.
//!
//! A node that lost its disk forgot its votes and what it acknowledged; under its old id it could help to elect a
//! leader that lacks acknowledged writes. So a directory carries a marker with the cluster, the node and a random
//! incarnation, and the same words are inside the log. Only where both agree, the node starts. The marker is written
//! last, so that it never stands beside a log that was not finished.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of everything below the directory. A directory of a later one is refused.
pub const FORMAT: u32 = 1;
const MARKER: &str = "identity.json";

/// Whose directory, and which life of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `FORMAT` of the program that made the directory.
    pub format: u32,
    /// The cluster's id.
    pub cluster: String,
    /// The node's id.
    pub node: u64,
    /// Random, new with each directory.
    pub incarnation: String,
}

/// What is wrong with a directory. Each names what an operator can do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another node's, or another cluster's.
    #[error(
        "{directory} belongs to node {found_node} of cluster {found_cluster}, not to node {node} of cluster {cluster}"
    )]
    Foreign {
        /// The directory.
        directory: String,
        /// The node that wants it.
        node: u64,
        /// Its cluster.
        cluster: String,
        /// The node in the marker.
        found_node: u64,
        /// The cluster in the marker.
        found_cluster: String,
    },
    /// Made by a later version of this program.
    #[error("{directory} has format {found}, this version of the program knows formats up to {known}")]
    NewerFormat {
        /// The directory.
        directory: String,
        /// Its format.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
    /// There is a marker, and the log is blank or of another life.
    #[error(
        "{directory} carries the marker of node {node}, but its log is {found}{place}: the node has \
         lost what it acknowledged"
    )]
    LogLost {
        /// The directory.
        directory: String,
        /// The node.
        node: u64,
        /// "blank" or "of another incarnation".
        found: &'static str,
        /// Where the log is damaged, in words; empty where nobody knows.
        place: String,
    },
    /// There is a log, and no marker.
    #[error(
        "{directory} holds a log without a marker: its making was interrupted, or the marker was deleted. If the \
         node never served, empty the directory; otherwise remove the node and let it join under a new id"
    )]
    NoMarker {
        /// The directory.
        directory: String,
    },
    /// The directory is blank, and the node did not come to bootstrap or to join.
    #[error("{directory} is blank: node {node} has no data to start from")]
    Blank {
        /// The directory.
        directory: String,
        /// The node.
        node: u64,
    },
    /// The directory is already in use, and the node came to bootstrap or to join.
    #[error("{directory} already holds the data of node {node}")]
    InUse {
        /// The directory.
        directory: String,
        /// The node in the marker.
        node: u64,
    },
    /// The marker cannot be read or written.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl IdentityError {
    /// Whether the node has lost what it had.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::LogLost { .. } | Self::NoMarker { .. } | Self::Blank { .. })
    }
}

impl Identity {
    /// The bytes that stand in the log.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{} {} {} {}", self.format, self.cluster, self.node, self.incarnation).into_bytes()
    }
}

/// Reads the marker of `directory`, if it has one.
///
/// # Errors
/// When it is there and cannot be understood.
pub fn read(directory: &Path) -> Result<Option<Identity>, IdentityError> {
    let path = directory.join(MARKER);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(&path, source)),
    };
    let identity: Identity = serde_json::from_slice(&bytes).map_err(|error| io(&path, error.into()))?;
    if identity.format > FORMAT {
        let directory = directory.display().to_string();
        return Err(IdentityError::NewerFormat { directory, found: identity.format, known: FORMAT });
    }
    Ok(Some(identity))
}

/// Writes the marker: beside, synced, renamed, the directory synced.
///
/// # Errors
/// When one of these steps fails.
pub fn write(directory: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let path = directory.join(MARKER);
    let beside = directory.join("identity.tmp");
    let steps = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(identity)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        sync_directory(directory)
    };
    steps().map_err(|source| io(&path, source))
}

/// Makes names in `directory` survive a power cut.
///
/// # Errors
/// When the sync fails.
pub fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn io(path: &Path, source: std::io::Error) -> IdentityError {
    let path: PathBuf = path.to_path_buf();
    IdentityError::Io { path: path.display().to_string(), source }
}
