//! Who a certificate says its holder is. Knows the form inside the certificate, not what the holder may do.
//!
//! The identity is the one URI among the certificate's subject alternative names:
//!
//! ```text
//! supercloud://<cluster>/scheduler/<node>            a scheduler node
//! supercloud://<cluster>/agent/<host>                the agent of a host
//! supercloud://<cluster>/operator/<name>             someone who runs the estate
//! supercloud://<cluster>/borough/<borough>/<name>    someone, or something, that acts for a borough
//! ```
//!
//! Every part is a DNS label, and the number of a node is in decimal digits, so nothing is ever escaped and there is one spelling for each identity. The common name repeats the last
//! part for people who look at a certificate; no code reads it. Exactly one URI must be present: two would be a matter of opinion.
//!
//! To add a role: a variant, `role`, `parts`, `from_uri`, and decide in the scheduler what it may do.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::name::{BoroughName, ClusterName, HostName, InvalidName, PersonName};

/// The scheme of the URI.
pub const SCHEME: &str = "supercloud";

/// Who someone is, within one cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A scheduler node.
    Scheduler {
        /// The node's number.
        node: u64,
    },
    /// The agent of a host.
    Agent {
        /// The host's name.
        host: HostName,
    },
    /// Someone who runs the estate.
    Operator {
        /// Their name.
        name: PersonName,
    },
    /// Someone, or something, that acts for a borough.
    Borough {
        /// The borough; it comes from here and never from a request alone.
        borough: BoroughName,
        /// Their name within the borough.
        name: PersonName,
    },
}

/// Why a certificate, or a URI, names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are no certificate.
    #[error("not an X.509 certificate")]
    NotACertificate,
    /// There has to be one URI, and there is none or more than one.
    #[error("expected exactly one URI among the certificate's alternative names, found {found}")]
    UriCount {
        /// How many there are.
        found: usize,
    },
    /// The URI is not of our form.
    #[error("expected {SCHEME}://<cluster>/<role>/<name>, found {found:?}")]
    Form {
        /// The URI.
        found: String,
    },
    /// The certificate is of another cluster.
    #[error("expected an identity of cluster {expected}, found one of {found}")]
    Cluster {
        /// The cluster asked about.
        expected: ClusterName,
        /// The cluster in the certificate.
        found: ClusterName,
    },
    /// The role is unknown here, perhaps newer than this program.
    #[error("expected the role scheduler, agent, operator or borough, found {found:?}")]
    Role {
        /// The role.
        found: String,
    },
    /// A part of the URI is no name.
    #[error("a name in the URI is not usable: {0}")]
    Name(#[from] InvalidName),
}

impl Identity {
    /// The word for the role, as it stands in the URI.
    #[must_use]
    pub fn role(&self) -> &'static str {
        match self {
            Self::Scheduler { .. } => "scheduler",
            Self::Agent { .. } => "agent",
            Self::Operator { .. } => "operator",
            Self::Borough { .. } => "borough",
        }
    }

    /// The last part of the identity: node, host or name. It is what the common name shows.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Scheduler { node } => node.to_string(),
            Self::Agent { host } => host.to_string(),
            Self::Operator { name } | Self::Borough { name, .. } => name.to_string(),
        }
    }

    /// The URI for a certificate of `cluster`.
    #[must_use]
    pub fn uri(&self, cluster: &ClusterName) -> String {
        format!("{SCHEME}://{cluster}/{self}")
    }

    /// Reads a URI, and checks that it is of `cluster`.
    pub fn from_uri(uri: &str, cluster: &ClusterName) -> Result<Self, IdentityError> {
        let (found, identity) = Self::split_uri(uri)?;
        same_cluster(cluster, found)?;
        Ok(identity)
    }

    /// Reads the identity out of a certificate in DER form, and checks that it is of `cluster`. The caller has verified the chain.
    pub fn from_certificate(der: &[u8], cluster: &ClusterName) -> Result<Self, IdentityError> {
        Self::from_uri(&only_uri(der)?, cluster)
    }

    /// Reads cluster and identity out of a certificate whose cluster is not known beforehand.
    pub fn with_cluster(der: &[u8]) -> Result<(ClusterName, Self), IdentityError> {
        Self::split_uri(&only_uri(der)?)
    }

    fn split_uri(uri: &str) -> Result<(ClusterName, Self), IdentityError> {
        let form = || IdentityError::Form { found: uri.to_owned() };
        let rest = uri.strip_prefix(SCHEME).and_then(|r| r.strip_prefix("://")).ok_or_else(form)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let identity = match parts.as_slice() {
            [_, "scheduler", node] => Self::Scheduler { node: number(node).ok_or_else(form)? },
            [_, "agent", host] => Self::Agent { host: host.parse()? },
            [_, "operator", name] => Self::Operator { name: name.parse()? },
            [_, "borough", borough, name] => Self::Borough { borough: borough.parse()?, name: name.parse()? },
            [_, "scheduler" | "agent" | "operator" | "borough", ..] => return Err(form()),
            [_, role, _, ..] => {
                return Err(IdentityError::Role { found: (*role).to_owned() });
            }
            _ => return Err(form()),
        };
        Ok((parts[0].parse()?, identity))
    }
}

/// As in the URI: `agent/host-1`, `borough/camden/anna`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Borough { borough, name } => write!(f, "borough/{borough}/{name}"),
            other => write!(f, "{}/{}", other.role(), other.name()),
        }
    }
}

/// Who sent a request, by the certificate that TLS has verified. `None` when the connection is without TLS (`--dev`) or the client showed
/// no certificate (somebody who wants to join).
pub fn of_request<T>(
    request: &tonic::Request<T>,
    cluster: &ClusterName,
) -> Option<Result<Identity, IdentityError>> {
    let certificates = request.peer_certs()?;
    of_chain(&certificates, cluster)
}

/// Who a verified chain belongs to: its first certificate. `None` when it is empty.
#[must_use]
pub fn of_chain(
    chain: &[CertificateDer<'_>],
    cluster: &ClusterName,
) -> Option<Result<Identity, IdentityError>> {
    chain.first().map(|leaf| Identity::from_certificate(leaf, cluster))
}

/// A node's number, in its one spelling.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|node: &u64| node.to_string() == text)
}

fn same_cluster(expected: &ClusterName, found: ClusterName) -> Result<(), IdentityError> {
    if *expected == found {
        Ok(())
    } else {
        let expected = expected.clone();
        Err(IdentityError::Cluster { expected, found })
    }
}

/// The one URI among a certificate's alternative names.
pub(super) fn only_uri(der: &[u8]) -> Result<String, IdentityError> {
    let certificate = match X509Certificate::from_der(der) {
        Ok(([], certificate)) => certificate,
        _ => return Err(IdentityError::NotACertificate),
    };
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::NotACertificate)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok((*uri).to_owned()),
        other => Err(IdentityError::UriCount { found: other.len() }),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn everyone() -> Vec<Identity> {
        vec![
            Identity::Scheduler { node: 1 },
            Identity::Agent { host: "host-1".parse().unwrap() },
            Identity::Operator { name: "anna".parse().unwrap() },
            Identity::Borough { borough: "camden".parse().unwrap(), name: "ci".parse().unwrap() },
        ]
    }

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn every_identity_survives_uri_and_certificate() {
        let cluster = ClusterName::new("london").unwrap();
        for identity in everyone() {
            let uri = identity.uri(&cluster);
            assert_eq!(Identity::from_uri(&uri, &cluster), Ok(identity.clone()));
            let der = certificate(&[&uri]);
            assert_eq!(Identity::from_certificate(&der, &cluster), Ok(identity.clone()));
            assert_eq!(Identity::with_cluster(&der), Ok((cluster.clone(), identity)));
        }
    }

    #[test]
    fn refuses_what_is_not_of_the_form() {
        let cluster = ClusterName::new("london").unwrap();
        let read = |uri: &str| Identity::from_uri(uri, &cluster).unwrap_err();
        let forms = [
            "",
            "https://london/agent/a",
            "supercloud:london/agent/a",
            "supercloud://london",
            "supercloud://london/agent",
            "supercloud://london/agent/a/b",
            "supercloud://london/borough/camden",
            "supercloud://london/operator/a/",
            "SUPERCLOUD://london/agent/a",
            "supercloud://london/scheduler/01",
            "supercloud://london/scheduler/a",
        ];
        for uri in forms {
            assert!(matches!(read(uri), IdentityError::Form { .. }), "{uri}: {}", read(uri));
        }
        let role = read("supercloud://london/root/a");
        assert!(matches!(role, IdentityError::Role { found } if found == "root"));
        let cluster = read("supercloud://paris/operator/a");
        assert!(matches!(cluster, IdentityError::Cluster { found, .. } if found.as_str() == "paris"));
        for uri in
            ["supercloud://london/agent/a%2fb", "supercloud:///agent/a", "supercloud://london/operator/A"]
        {
            assert!(matches!(read(uri), IdentityError::Name(_)), "{uri}: {}", read(uri));
        }
    }

    #[test]
    fn a_certificate_names_exactly_one() {
        let cluster = ClusterName::new("london").unwrap();
        let count = |uris: &[&str]| Identity::from_certificate(&certificate(uris), &cluster).unwrap_err();
        assert_eq!(count(&[]), IdentityError::UriCount { found: 0 });
        let two = ["supercloud://london/agent/a", "supercloud://london/operator/a"];
        assert_eq!(count(&two), IdentityError::UriCount { found: 2 });
        let garbage = Identity::from_certificate(b"garbage", &cluster);
        assert_eq!(garbage, Err(IdentityError::NotACertificate));
    }
}
