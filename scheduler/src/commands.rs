//! What `init` and `join` do: they make a node's directory, and start nothing.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use supercloud_proto::{
    name::{ClusterName, PersonName},
    pki::{
        Credentials, Identity, Servers, Token, Trust,
        address::ServerAddress,
        join::{FetchCaError, fetch_ca},
        request::{self, KeyAndRequest},
    },
    problem::{Faults, Problem, Problems, quoted},
    v1,
};

use crate::{
    ca::{Ca, Grant, LEAF_VALIDITY},
    clock,
    home::{self, Home, HomeError, Origin, Record},
    state::level,
};

/// Name of a cluster for which none is chosen.
pub const DEFAULT_CLUSTER: &str = "supercloud";
/// Number of the node that founds a cluster.
const FIRST_NODE: u64 = 1;

/// Where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// By clients and agents, `host:port`.
    pub api: String,
    /// By the other nodes, `host:port`.
    pub peer: String,
    /// Further names and IP addresses for its certificate.
    pub server_names: Vec<String>,
}

/// Why a directory was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Something that was given is wrong.
    #[error(transparent)]
    Input(#[from] Problems),
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The authority could not be made.
    #[error(transparent)]
    Authority(#[from] crate::ca::CreateError),
    /// A certificate could not be signed.
    #[error(transparent)]
    Sign(#[from] crate::ca::SignError),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] request::RequestError),
    /// What was made or received does not belong together.
    #[error(transparent)]
    Credentials(#[from] supercloud_proto::pki::credentials::CredentialsError),
    /// A file with a key could not be written.
    #[error(transparent)]
    Secret(#[from] supercloud_proto::pki::secret_file::SecretFileError),
    /// The machine has no randomness to give.
    #[error("the system gave no random bytes: {0}")]
    Randomness(#[from] getrandom::Error),
    /// The cluster's authority could not be had.
    #[error(transparent)]
    FetchCa(#[from] FetchCaError),
    /// The server could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The cluster refused.
    #[error("the cluster refused: {0}")]
    Refused(String),
    /// The cluster's answer lacks something.
    #[error("the cluster's answer: {0}")]
    Answer(String),
}

/// What `init` has made.
#[derive(Debug)]
pub struct Founded {
    /// Id of the new cluster.
    pub cluster: String,
    /// The first operator's credentials, where they were asked for.
    pub operator: Option<PathBuf>,
}

impl Addresses {
    /// Checks the addresses.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn check(api: &str, peer: &str, server_names: Vec<String>) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        for (path, text) in [("api_address", api), ("peer_address", peer)] {
            let whole = text.parse::<ServerAddress>().is_ok_and(|address| address.to_string() == text);
            if !whole || text.starts_with("0.0.0.0:") || text.starts_with("[::]:") {
                faults.push(Problem::new(path, "host:port at which others reach this node", quoted(text)));
            }
        }
        if api == peer {
            faults.push(Problem::new("peer_address", "another address than the API's", quoted(peer)));
        }
        let mut names = server_names;
        for text in [api, peer] {
            if let Some((host, _)) = text.rsplit_once(':') {
                names.push(host.trim_start_matches('[').trim_end_matches(']').to_owned());
            }
        }
        // Every scheduler's certificate has these by itself.
        names.retain(|name| !["localhost", "127.0.0.1", "::1"].contains(&name.as_str()));
        names.sort();
        names.dedup();
        faults.finish(Some(Self { api: api.to_owned(), peer: peer.to_owned(), server_names: names }))
    }
}

pub(crate) fn holder(
    ca: &Ca,
    identity: Identity,
    server_names: Vec<String>,
) -> Result<Credentials, CommandError> {
    let KeyAndRequest { key_pem, csr_pem } = request::generate()?;
    let grant = Grant { identity, server_names, validity: LEAF_VALIDITY };
    let certificate = ca.sign(&csr_pem, &grant, SystemTime::now())?;
    Ok(Credentials::new(ca.certificate().clone(), &certificate, &key_pem)?)
}

/// Makes a new cluster's authority and its first node's directory; and an operator's credentials, where one is named.
///
/// # Errors
/// See [`CommandError`]; nothing is left that would stand in the way of another try.
pub fn init(
    data_dir: &Path,
    name: &ClusterName,
    addresses: Addresses,
    operator: Option<(&PersonName, &Path)>,
) -> Result<Founded, CommandError> {
    let home = Home::open(data_dir)?;
    home.must_be_free()?;
    let ca = Ca::create(name, SystemTime::now())?;
    let Addresses { api, peer, server_names } = addresses;
    let node = holder(&ca, Identity::Scheduler { node: FIRST_NODE }, server_names)?;
    home.save_keys(&ca, &node)?;
    let operator = match operator {
        None => None,
        Some((name, path)) => {
            holder(&ca, Identity::Operator { name: name.clone() }, Vec::new())?.save(path)?;
            Some(path.to_owned())
        }
    };
    let cluster = home::new_cluster_id()?;
    // Last: the record is what makes the directory a node's.
    home.save(&Record::new(cluster.clone(), FIRST_NODE, api, peer, Origin::Founded))?;
    Ok(Founded { cluster, operator })
}

/// Trades a token for a node's certificate and number, and makes its directory. Gives the number.
///
/// # Errors
/// See [`CommandError`]. A token that was refused is told from a server that was not reached.
pub async fn join(
    data_dir: &Path,
    token: &Token,
    server: &str,
    addresses: Addresses,
) -> Result<u64, CommandError> {
    let home = Home::open(data_dir)?;
    home.must_be_free()?;
    let joined = ask_to_join(token, server, addresses).await?;
    joined.settle(&home)
}

/// What a cluster gave to a node that joins.
struct Joined {
    authority: Ca,
    node: Credentials,
    record: Record,
}

impl Joined {
    /// Makes a free directory the node's; its number.
    fn settle(self, home: &Home) -> Result<u64, CommandError> {
        home.save_keys(&self.authority, &self.node)?;
        let number = self.record.node;
        // Last: the record is what makes the directory a node's.
        home.save(&self.record)?;
        Ok(number)
    }
}

async fn ask_to_join(token: &Token, server: &str, addresses: Addresses) -> Result<Joined, CommandError> {
    let ca = fetch_ca(server, token).await?;
    let KeyAndRequest { key_pem, csr_pem } = request::generate()?;
    let unreachable = |error: &dyn std::fmt::Display| CommandError::Unreachable(error.to_string());
    let servers =
        Servers::new(&[server.to_owned()], Trust::Joining(&ca)).map_err(|error| unreachable(&error))?;
    let connection = servers.connect().await.map_err(|error| unreachable(&error))?;
    let mut client = v1::scheduler_service_client::SchedulerServiceClient::new(connection.channel);
    let Addresses { api, peer, server_names } = addresses;
    let request = v1::JoinRequest {
        token: token.reveal(),
        csr_pem,
        peer_address: peer.clone(),
        api_address: api.clone(),
        server_names,
        level: level::KNOWN,
    };
    let joined = client.join(request).await.map_err(|status| match status.code() {
        tonic::Code::Unavailable => CommandError::Unreachable(status.message().to_owned()),
        _ => CommandError::Refused(status.message().to_owned()),
    })?;
    let joined = joined.into_inner();
    if joined.node_id == 0 {
        return Err(CommandError::Refused("the token is not that of a scheduler node".to_owned()));
    }
    let authority =
        Ca::from_pem(&joined.ca_key_pem).map_err(|error| CommandError::Answer(error.to_string()))?;
    let node = Credentials::new(ca, &joined.certificate_pem, &key_pem)?;
    let record = Record::new(joined.cluster_id, joined.node_id, api, peer, Origin::Joined);
    let record = record.in_history(joined.history);
    Ok(Joined { authority, node, record })
}

/// A node that was built anew.
#[derive(Debug)]
pub struct Rebuilt {
    /// Its new number.
    pub node: u64,
    /// Its old one, which was removed from the cluster before.
    pub was: u64,
    /// Where what it was is now.
    pub aside: PathBuf,
}

/// Builds a node that has lost or damaged its data from the other nodes, at its old addresses: sets aside what it has, once the cluster has given it a
/// new number. It must have been removed from the cluster under its old one.
///
/// # Errors
/// See [`CommandError`]; what it has stays where it is then, or is found in the folder.
pub async fn rebuild(
    data_dir: &Path,
    token: &Token,
    server: &str,
    server_names: Vec<String>,
) -> Result<Rebuilt, CommandError> {
    let home = Home::open(data_dir)?;
    let record = home.known_record()?;
    let addresses = Addresses::check(&record.api_address, &record.peer_address, server_names)?;
    let joined = ask_to_join(token, server, addresses).await?;
    let aside = home.set_aside(clock::unix_now())?;
    Ok(Rebuilt { node: joined.settle(&home)?, was: record.node, aside })
}

/// What an operator does with a node that has lost its data, in words.
#[must_use]
pub fn rebuild_advice(node: u64, data_dir: &Path, dev: bool) -> String {
    if dev {
        return format!(
            "Rebuild it from the other nodes: `supercloud scheduler remove {node}`, empty {}, and start it with --join",
            data_dir.display()
        );
    }
    format!(
        "Rebuild it from the other nodes: `supercloud scheduler remove {node}` and `supercloud token create scheduler`, then here \
         `supercloud-scheduler rebuild --data-dir {} --server HOST:PORT --token TOKEN`. The only node of a cluster is restored from a saved state",
        data_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_makes_a_directory_once() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("n1");
        let out = directory.path().join("anna.pem");
        let name: ClusterName = "london".parse().unwrap();
        let addresses = Addresses::check("10.0.0.1:7400", "node-1:7401", Vec::new()).unwrap();
        assert_eq!(addresses.server_names, ["10.0.0.1", "node-1"]);
        let anna: PersonName = "anna".parse().unwrap();
        let founded = init(&data, &name, addresses.clone(), Some((&anna, &out))).unwrap();
        assert_eq!(founded.cluster.len(), 32);
        let operator = Credentials::load(&out).unwrap();
        assert_eq!(*operator.identity(), Identity::Operator { name: anna });
        let home = Home::open(&data).unwrap();
        let record = home.known_record().unwrap();
        assert!(home.keys(&record).is_ok());
        drop(home);
        let again = init(&data, &name, addresses, None).unwrap_err();
        assert!(matches!(again, CommandError::Home(HomeError::Taken { .. })), "{again}");
    }

    #[test]
    fn addresses_are_checked_together() {
        let problems = Addresses::check("0.0.0.0:7400", "node-1", Vec::new()).unwrap_err();
        assert_eq!(problems.0.len(), 2, "{problems}");
        assert!(Addresses::check("a:1", "a:1", Vec::new()).is_err());
    }
}
