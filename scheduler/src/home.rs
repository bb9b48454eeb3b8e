//! A node's directory: who it is, its credentials, and how its log is to be started. Knows files, no network.
//!
//! ```text
//!   lock           held while a process uses the directory
//!   node.json      cluster, number, addresses; how the log starts
//!   node.pem       the node's credentials (absent in development)
//!   ca.pem         the cluster's authority with its key (absent in development)
//!   raft/          the log and its snapshots
//!   restoring/     a restore that has not ended
//!   archive/       events and finished instances
//! ```
//!
//! Decision: `node.json` says whether the log has ever been started. A node whose `raft/` is blank afterwards has lost what it acknowledged and
//! must not come back under its number; the log refuses it then. Its `format` is the feature level of the cluster as this node last saw it, so that
//! a version that knows less is refused before it touches anything.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use supercloud_proto::{
    id::UnixMillis,
    pki::{Credentials, Identity, credentials, secret_file::SecretFileError},
};

use crate::{
    ca::{self, Ca},
    raft::{self, Member, MemberKind, NodeId, Start, identity::sync_directory},
    state::level::{FIRST, KNOWN, Level},
};

/// Folder of a restore that has not ended.
const RESTORING: &str = "restoring";
/// Beginning of the names of folders with what a node was before it was rebuilt.
const ASIDE: &str = "set-aside-";

/// What stands in `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Feature level of the cluster; what it takes to use the directory.
    format: Level,
    /// Id of the cluster: 32 hex digits.
    pub cluster: String,
    /// Number of the node.
    pub node: u64,
    /// Which history of the cluster its log belongs to; `None`: the first. A restore begins a new one, and nodes of different histories do not
    /// talk to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// Where clients and agents reach it, `host:port`.
    pub api_address: String,
    /// Where the other nodes reach it, `host:port`.
    pub peer_address: String,
    /// How its log comes to be there.
    pub origin: Origin,
    /// Whether the log has been started once.
    pub started: bool,
    /// CRC-32 of the record as it is without this; absent where the first level's versions still read it, which know no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<u32>,
}

/// The field that every version writes alike.
#[derive(Deserialize)]
struct Format {
    format: Level,
}

/// How a node's log comes to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It founded the cluster, alone.
    Founded,
    /// It joined.
    Joined,
    /// It was made of a saved state, alone.
    Restored,
}

/// A node's directory, held by this process.
#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
    /// Feature level that this version knows.
    knows: Level,
    _lock: Flock<File>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process uses it.
    #[error("{directory} is in use by another process")]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// It belongs to a node already.
    #[error("{directory} belongs to node {node} of cluster {cluster} already; take an empty directory")]
    Taken {
        /// The directory.
        directory: PathBuf,
        /// Its node.
        node: u64,
        /// Its cluster.
        cluster: String,
    },
    /// It holds something.
    #[error("{directory} is not empty: it holds {found}; take an empty directory")]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// What is there.
        found: PathBuf,
    },
    /// It belongs to no node.
    #[error(
        "{directory} belongs to no node: run `supercloud-scheduler init` for a new cluster, or `join` for a node of one; \
         or `run --dev` to try things out on this machine alone"
    )]
    Blank {
        /// The directory.
        directory: PathBuf,
    },
    /// It has credentials, and the node is to run without.
    #[error(
        "{directory} has credentials: it belongs to a cluster with certificates and does not run with --dev"
    )]
    NotDevelopment {
        /// The directory.
        directory: PathBuf,
    },
    /// The credentials are another node's.
    #[error("{directory}: the credentials are those of {found}, expected scheduler/{node}")]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// The node.
        node: u64,
        /// Whose they are.
        found: Identity,
    },
    /// A version that knows more has used it.
    #[error(
        "{path} has format {found}, this version of the program knows formats up to {known}: the cluster was upgraded. Install a later version"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: Level,
        /// The latest that is known.
        known: Level,
    },
    /// The record cannot be understood.
    #[error("{path}: {problem}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The credentials cannot be loaded.
    #[error("{0}; a node without credentials runs with --dev only")]
    Credentials(#[from] credentials::LoadError),
    /// The authority cannot be loaded.
    #[error(transparent)]
    Authority(#[from] ca::LoadError),
    /// A file with a key cannot be written.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The log's marker cannot be read.
    #[error(transparent)]
    Marker(#[from] raft::IdentityError),
    /// The system refused a step.
    #[error("cannot use {path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Record {
    /// The same node in another history of the cluster; empty: the first.
    #[must_use]
    pub fn in_history(self, history: String) -> Self {
        Self { history: Some(history).filter(|history| !history.is_empty()), ..self }
    }

    /// Of a node whose log was never started.
    #[must_use]
    pub fn new(
        cluster: String,
        node: u64,
        api_address: String,
        peer_address: String,
        origin: Origin,
    ) -> Self {
        Self {
            format: FIRST,
            cluster,
            node,
            history: None,
            api_address,
            peer_address,
            origin,
            started: false,
            checksum: None,
        }
    }

    /// The checksum that belongs to it.
    fn sum(&self) -> Option<u32> {
        let bare = serde_json::to_vec(&Self { checksum: None, ..self.clone() });
        (self.format > FIRST).then(|| bare.map(|bytes| crc32fast::hash(&bytes)).unwrap_or_default())
    }
}

impl Home {
    /// Makes the directory where it is missing, and takes hold of it.
    ///
    /// # Errors
    /// When another process has it.
    pub fn open(directory: &Path) -> Result<Self, HomeError> {
        let io = |source| HomeError::Io { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| HomeError::InUse { directory: directory.to_owned() })?;
        Ok(Self { directory: directory.to_owned(), knows: KNOWN, _lock: lock })
    }

    /// The same, as a version sees it that knows this level.
    #[must_use]
    pub fn knowing(self, knows: Level) -> Self {
        Self { knows, ..self }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whose directory it is; `None`: nobody's.
    ///
    /// # Errors
    /// When the record is there and cannot be understood.
    pub fn record(&self) -> Result<Option<Record>, HomeError> {
        let path = self.path("node.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HomeError::Io { path, source }),
        };
        let problem =
            |error: serde_json::Error| HomeError::Record { path: path.clone(), problem: error.to_string() };
        // Before the rest, which a later version may write otherwise.
        let Format { format: found } = serde_json::from_slice(&bytes).map_err(problem)?;
        if found > self.knows {
            return Err(HomeError::Newer { path, found, known: self.knows });
        }
        let record: Record = serde_json::from_slice(&bytes).map_err(problem)?;
        if record.checksum != record.sum() {
            let problem = "it is damaged: its content does not match its checksum".to_owned();
            return Err(HomeError::Record { path, problem });
        }
        Ok(Some(record))
    }

    /// The record of a directory that belongs to a node.
    ///
    /// # Errors
    /// [`HomeError::Blank`] when it does not.
    pub fn known_record(&self) -> Result<Record, HomeError> {
        self.record()?.ok_or_else(|| HomeError::Blank { directory: self.directory.clone() })
    }

    /// Refuses a directory that belongs to a node.
    ///
    /// # Errors
    /// [`HomeError::Taken`].
    pub fn must_be_free(&self) -> Result<(), HomeError> {
        match self.record()? {
            None => Ok(()),
            Some(Record { node, cluster, .. }) => {
                Err(HomeError::Taken { directory: self.directory.clone(), node, cluster })
            }
        }
    }

    /// Refuses a directory that belongs to a node or holds anything else, and clears away what a restore that was interrupted left.
    ///
    /// # Errors
    /// [`HomeError::Taken`], [`HomeError::NotEmpty`], or when the disk refuses.
    pub fn must_be_empty(&self) -> Result<(), HomeError> {
        self.must_be_free()?;
        let io = |source| HomeError::Io { path: self.directory.clone(), source };
        let interrupted = self.restoring().exists();
        for entry in fs::read_dir(&self.directory).map_err(io)? {
            let path = entry.map_err(io)?.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some("lock") => {}
                Some(RESTORING) => {}
                Some("raft") if interrupted => fs::remove_dir_all(&path).map_err(io)?,
                Some("ca.pem" | "node.pem") if interrupted => fs::remove_file(&path).map_err(io)?,
                _ => return Err(HomeError::NotEmpty { directory: self.directory.clone(), found: path }),
            }
        }
        if interrupted { fs::remove_dir_all(self.restoring()).map_err(io) } else { Ok(()) }
    }

    /// Where a restore prepares the log.
    #[must_use]
    pub fn restoring(&self) -> PathBuf {
        self.path(RESTORING)
    }

    /// Puts a log that was prepared in [`Home::restoring`] into its place. The empty folder stays until [`Home::restored`]: while it is there and
    /// no record is, the restore was interrupted.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take_restored_log(&self) -> Result<(), HomeError> {
        let steps = || -> std::io::Result<()> {
            fs::rename(self.restoring().join("raft"), self.path("raft"))?;
            sync_directory(&self.directory)
        };
        steps().map_err(|source| HomeError::Io { path: self.path("raft"), source })
    }

    /// Ends a restore: with its record the directory is a node's.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn restored(&self, record: Record) -> Result<(), HomeError> {
        self.note_started(record)?;
        let path = self.restoring();
        fs::remove_dir(&path).map_err(|source| HomeError::Io { path, source })
    }

    /// Writes the record: beside, synced, renamed, the directory synced.
    ///
    /// # Errors
    /// When a step fails.
    pub fn save(&self, record: &Record) -> Result<(), HomeError> {
        let path = self.path("node.json");
        let beside = self.path("node.json.new");
        let steps = || -> std::io::Result<()> {
            let mut file = File::create(&beside)?;
            let sealed = Record { checksum: record.sum(), ..record.clone() };
            file.write_all(&serde_json::to_vec_pretty(&sealed)?)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            sync_directory(&self.directory)
        };
        steps().map_err(|source| HomeError::Io { path: path.clone(), source })
    }

    /// Writes authority and credentials.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_keys(&self, ca: &Ca, credentials: &Credentials) -> Result<(), HomeError> {
        ca.save(&self.path("ca.pem"))?;
        Ok(credentials.save(&self.path("node.pem"))?)
    }

    /// Authority and credentials of the node of this record.
    ///
    /// # Errors
    /// When they are missing, damaged, readable for others, or another node's.
    pub fn keys(&self, record: &Record) -> Result<(Ca, Credentials), HomeError> {
        let credentials = Credentials::load(&self.path("node.pem"))?;
        let ca = Ca::load(&self.path("ca.pem"))?;
        if *credentials.identity() != (Identity::Scheduler { node: record.node }) {
            let (directory, node) = (self.directory.clone(), record.node);
            return Err(HomeError::Foreign { directory, node, found: credentials.identity().clone() });
        }
        Ok((ca, credentials))
    }

    /// Refuses to run without certificates in a directory that has them.
    ///
    /// # Errors
    /// [`HomeError::NotDevelopment`].
    pub fn must_have_no_keys(&self) -> Result<(), HomeError> {
        if self.path("node.pem").exists() {
            return Err(HomeError::NotDevelopment { directory: self.directory.clone() });
        }
        Ok(())
    }

    /// How the log is to be started.
    ///
    /// # Errors
    /// When the log's marker cannot be read.
    pub fn start(&self, record: &Record) -> Result<Start, HomeError> {
        if record.started || raft::identity::read(&self.path("raft"))?.is_some() {
            return Ok(Start::Again);
        }
        let me = || Member {
            id: NodeId(record.node),
            peer_address: record.peer_address.clone(),
            api_address: record.api_address.clone(),
            kind: MemberKind::Voter,
        };
        Ok(match record.origin {
            Origin::Founded => Start::Found { members: vec![me()] },
            Origin::Joined => Start::Join,
            // Its log was laid down before the record.
            Origin::Restored => Start::Again,
        })
    }

    /// Notes that the log has been started: from now on it must be there.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn note_started(&self, record: Record) -> Result<(), HomeError> {
        if record.started { Ok(()) } else { self.save(&Record { started: true, ..record }) }
    }

    /// Puts everything in the directory into a folder within it, so that the directory is nobody's again. Gives the folder.
    ///
    /// # Errors
    /// When a name cannot be changed; called again it goes on.
    pub fn set_aside(&self, now: UnixMillis) -> Result<PathBuf, HomeError> {
        let folder = self.path(&format!("{ASIDE}{now}"));
        let steps = || -> std::io::Result<()> {
            DirBuilder::new().mode(0o700).create(&folder)?;
            // The record goes last: until then the directory is the node's.
            let mut names: Vec<_> = fs::read_dir(&self.directory)?
                .map(|entry| entry.map(|e| e.file_name()))
                .collect::<Result<_, _>>()?;
            names.retain(|name| name != "lock" && !name.to_string_lossy().starts_with(ASIDE));
            names.sort_by_key(|name| name == "node.json");
            for name in names {
                fs::rename(self.directory.join(&name), folder.join(&name))?;
            }
            sync_directory(&folder)?;
            sync_directory(&self.directory)
        };
        steps().map_err(|source| HomeError::Io { path: folder.clone(), source })?;
        Ok(folder)
    }

    /// Notes the cluster's feature level: versions that know less are refused from now on.
    ///
    /// # Errors
    /// When the record cannot be read or written.
    pub fn note_level(&self, level: Level) -> Result<(), HomeError> {
        let record = self.known_record()?;
        if record.format >= level { Ok(()) } else { self.save(&Record { format: level, ..record }) }
    }
}

/// A new cluster's id: 32 random hex digits.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_cluster_id() -> Result<String, getrandom::Error> {
    random_hex::<16>()
}

/// A name for a new history of a cluster: 8 random hex digits, so that two restores from one file are told apart.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_history() -> Result<String, getrandom::Error> {
    random_hex::<4>()
}

fn random_hex<const BYTES: usize>() -> Result<String, getrandom::Error> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new("c".to_owned(), 1, "a:1".to_owned(), "p:1".to_owned(), Origin::Founded)
    }

    #[test]
    fn a_log_that_was_started_once_is_never_founded_again() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        assert!(matches!(home.known_record(), Err(HomeError::Blank { .. })));
        home.save(&record()).unwrap();
        let found = home.known_record().unwrap();
        assert_eq!(found, record());
        assert!(matches!(home.start(&found).unwrap(), Start::Found { .. }));
        home.note_started(found).unwrap();
        assert!(matches!(home.start(&home.known_record().unwrap()).unwrap(), Start::Again));
        assert!(matches!(home.must_be_free(), Err(HomeError::Taken { node: 1, .. })));
    }

    #[test]
    fn a_version_that_knows_less_is_refused_once_the_cluster_was_upgraded() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap().knowing(FIRST);
        home.save(&record()).unwrap();
        assert_eq!(home.known_record().unwrap(), record());
        home.knowing(KNOWN).note_level(KNOWN).unwrap();
        let error = Home::open(directory.path()).unwrap().knowing(FIRST).known_record().unwrap_err();
        assert!(matches!(error, HomeError::Newer { found: KNOWN, known: FIRST, .. }), "{error}");
        let format = format!("node.json has format {KNOWN}, ");
        assert!(error.to_string().contains(&format), "{error}");
        let home = Home::open(directory.path()).unwrap();
        assert!(home.known_record().is_ok());
        // From this level on it carries a checksum.
        let path = directory.path().join("node.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("p:1", "p:2")).unwrap();
        let error = home.known_record().unwrap_err();
        assert!(error.to_string().contains("node.json: it is damaged"), "{error}");
    }

    #[test]
    fn one_process_holds_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let held = Home::open(directory.path()).unwrap();
        assert!(matches!(Home::open(directory.path()), Err(HomeError::InUse { .. })));
        drop(held);
        assert!(Home::open(directory.path()).is_ok());
    }

    #[test]
    fn a_node_without_credentials_does_not_run_as_one_with() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let error = home.keys(&record()).unwrap_err();
        assert!(matches!(error, HomeError::Credentials(_)) && error.to_string().contains("--dev"), "{error}");
        fs::write(directory.path().join("node.pem"), "x").unwrap();
        assert!(matches!(home.must_have_no_keys(), Err(HomeError::NotDevelopment { .. })));
    }
}
