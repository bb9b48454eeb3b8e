//! From a saved state to the first node of a new history of its cluster: what an operator does when the cluster itself cannot be brought back.
//! It starts nothing, and knows no network.
//!
//! ```text
//!   the file, read through and checked · the directory, empty · keys · the log in restoring/ · renamed · node.json, which makes it a node's
//! ```
//! A crash at any step leaves a directory that belongs to nobody, and the next try clears it away.
//!
//! Decisions
//! * **The same cluster, another history.** The cluster's id stays: agents know what is theirs by it, and adopt what runs. But a node that is left
//!   of the old cluster must not mix with the new one. So the log gets a name of its own, made by chance (`home::Record::history`), under which
//!   no message of another history is taken; numbers of nodes go on in another thousand, so that an old node's certificate is that of a
//!   removed node here, and the node is told so.
//! * **Orders never go back.** Agents obey no order older than one they accepted, and between the saving and the loss they accepted some. The log
//!   goes on [`INDEX_LEAP`] entries behind the saved state, which the old one cannot have reached, and every order is decided anew there
//!   (`State::refounded`). What was ordered after the saving is forgotten: instances that came later are left alone where they run, and
//!   reported as unrecognised; those that were stopped later begin again.
//! * **Tokens are forgotten**: one that was used up after the saving would be good a second time.
//! * **The authority is not in the file** (`supercloud_proto::saved`). With its own file the certificates of hosts and people go on being good; where that
//!   is lost too, a new one is made, and everybody joins anew.
//! * **One node.** The others join it as new ones do, and nobody can found a second cluster from the same list by mistake.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::SystemTime,
};

use supercloud_proto::{
    name::{ClusterName, PersonName},
    pki::{Identity, credentials::CredentialsError},
    saved::{self, SavedError, SavedReader, Summary},
};

use crate::{
    ca::{Ca, CreateError, LoadError},
    commands::{self, Addresses, CommandError},
    core::log_cluster,
    home::{self, Home, HomeError, Origin, Record},
    raft::{self, Member, MemberKind, NodeId, log_store::Position},
    state::{State, codec},
};

/// By how much the log's indexes leap. An old cluster that went on after the saving, writing 100,000 entries a second without a pause, would need
/// four months to get there; and there is room for eight million restores.
pub const INDEX_LEAP: u64 = 1 << 40;
/// Numbers of nodes in the new history begin behind a multiple of this.
const NODES_A_HISTORY: u64 = 1_000;
/// And at least so many behind those that the file knows of: the old cluster may have given out more since.
const NODE_LEAP: u64 = 500;

/// Whose certificates the restored cluster believes.
#[derive(Debug, Clone, Copy)]
pub enum Authority<'a> {
    /// Those of the old cluster's authority, from its file `ca.pem`.
    Kept(&'a Path),
    /// Nobody's yet: a new authority of this name.
    New(&'a ClusterName),
    /// There are none: development.
    Development,
}

/// What to restore, and where.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The saved state.
    pub from: &'a Path,
    /// The directory of the node, empty.
    pub data_dir: &'a Path,
    /// How the node is reached.
    pub addresses: Addresses,
    /// Whose certificates are good.
    pub authority: Authority<'a>,
    /// An operator to make credentials for, and the file for them.
    pub operator: Option<(&'a PersonName, &'a Path)>,
}

/// What was made.
#[derive(Debug)]
pub struct Restored {
    /// What was in the file.
    pub summary: Summary,
    /// Number of the node.
    pub node: u64,
    /// Log index at which the new history begins.
    pub index: u64,
    /// The operator's credentials, where they were asked for.
    pub operator: Option<PathBuf>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is not one, or not whole.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SavedError,
    },
    /// The file is whole, and what is in it cannot be used.
    #[error("{path}: {problem}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The authority's file cannot be used.
    #[error(transparent)]
    Authority(#[from] LoadError),
    /// No authority could be made.
    #[error(transparent)]
    NewAuthority(#[from] CreateError),
    /// No certificate could be made.
    #[error(transparent)]
    Certificate(#[from] CommandError),
    /// The operator's credentials could not be written.
    #[error(transparent)]
    Credentials(#[from] supercloud_proto::pki::secret_file::SecretFileError),
    /// What was made does not belong together.
    #[error(transparent)]
    Mismatch(#[from] CredentialsError),
    /// The log could not be laid down.
    #[error(transparent)]
    Log(#[from] raft::OpenError),
    /// The machine has no randomness to give.
    #[error("the system gave no random bytes: {0}")]
    Randomness(#[from] getrandom::Error),
}

/// Makes the directory of the first node of a cluster that goes on from a saved state.
///
/// # Errors
/// See [`RestoreError`]; nothing is left that would stand in the way of another try.
pub fn restore(wish: Wish<'_>) -> Result<Restored, RestoreError> {
    let Wish { from, data_dir, addresses, authority, operator } = wish;
    let (summary, state) = read(from)?;
    let home = Home::open(data_dir)?;
    home.must_be_empty()?;
    let authority = match authority {
        Authority::Kept(path) => Some(Ca::load(path)?),
        Authority::New(name) => Some(Ca::create(name, SystemTime::now())?),
        Authority::Development => None,
    };
    let node = first_number(summary.head.next_node_id);
    let (index, level) = (summary.head.index + INDEX_LEAP, state.level());
    let Addresses { api, peer, server_names } = addresses;
    let record = Record::new(summary.head.cluster_id.clone(), node, api, peer, Origin::Restored)
        .in_history(home::new_history()?);
    lay_log(&home, &record, Position { index, term: summary.head.term + 1 }, state)?;
    let mut made = None;
    if let Some(ca) = authority {
        let identity = Identity::Scheduler { node };
        home.save_keys(&ca, &commands::holder(&ca, identity, server_names)?)?;
        if let Some((name, path)) = operator {
            commands::holder(&ca, Identity::Operator { name: name.clone() }, Vec::new())?.save(path)?;
            made = Some(path.to_owned());
        }
    }
    home.take_restored_log()?;
    home.restored(record)?;
    home.note_level(level)?;
    Ok(Restored { summary, node, index, operator: made })
}

/// The first number of the new history: 1001 after a cluster with a few nodes, 2001 after that one.
fn first_number(next: u64) -> u64 {
    (next + NODE_LEAP).next_multiple_of(NODES_A_HISTORY) + 1
}

/// Reads the file twice: through, before anything of it is believed, and then for the state.
fn read(path: &Path) -> Result<(Summary, State), RestoreError> {
    let file = |source| RestoreError::File { path: path.to_owned(), source };
    let wrong = |problem| RestoreError::State { path: path.to_owned(), problem };
    let open = || File::open(path).map(BufReader::new).map_err(|error| file(error.into()));
    let summary = saved::inspect(open()?).map_err(file)?;
    let mut reader = SavedReader::open(open()?).map_err(file)?;
    let state = State::read(&mut reader).map_err(|error| match error {
        codec::RestoreError::Read { source, .. } => file(source.into()),
        error => wrong(error.to_string()),
    })?;
    let (cluster, index) = (&summary.head.cluster_id, summary.head.index);
    if state.cluster_id() != Some(cluster.as_str()) || state.applied() != index {
        return Err(wrong(format!("the state is not that of cluster {cluster} at log index {index}")));
    }
    Ok((summary, state))
}

fn lay_log(home: &Home, record: &Record, at: Position, state: State) -> Result<(), RestoreError> {
    let me = Member {
        id: NodeId(record.node),
        peer_address: record.peer_address.clone(),
        api_address: record.api_address.clone(),
        kind: MemberKind::Voter,
    };
    let history = record.history.as_deref().unwrap_or_default();
    let settings = raft::Settings {
        cluster: log_cluster(&record.cluster, history),
        id: me.id,
        directory: home.restoring().join("raft"),
        peer_address: me.peer_address.clone(),
        snapshots: raft::SnapshotPolicy::default(),
        tick: raft::limits::TICK,
    };
    let state = state.refounded(at.index);
    Ok(raft::refound(&settings, &me, at, |out: &mut dyn io::Write| state.write(out))?)
}

#[cfg(test)]
mod tests;
