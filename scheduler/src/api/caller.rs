//! Who makes a call, and what of the estate is theirs to see. The borough comes from the certificate, never from the request alone.
//!
//! A certificate is read once and then known by its bytes: reading one costs as much as a small call. TLS has verified it when the
//! connection was made; what is remembered is only whom it names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use supercloud_proto::{
    name::{BoroughName, ClusterName, HostName},
    pki::{Identity, identity},
};
use tonic::{
    Request, Status,
    codegen::http,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

/// Certificates that are known; when there are more, all are read anew. Each takes about a KiB.
const MAX_KNOWN: usize = 4_096;

/// How callers are recognised on this node. Cheap to clone; clones know the same certificates.
#[derive(Debug, Clone)]
pub enum Recognition {
    /// Development: there are no certificates, and only this machine reaches the node.
    Dev,
    /// By certificates of this cluster.
    Certificates {
        /// The cluster.
        cluster: ClusterName,
        /// Whom certificates name that were read before, by their bytes.
        known: Arc<Mutex<HashMap<Vec<u8>, Identity>>>,
    },
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody on this machine, in development.
    Dev,
    /// Somebody without a certificate.
    Nobody,
    /// Somebody with a certificate of the cluster.
    Known(Identity),
}

impl Recognition {
    /// By certificates of this cluster.
    #[must_use]
    pub fn certificates(cluster: ClusterName) -> Self {
        Self::Certificates { cluster, known: Arc::default() }
    }

    /// Who sent a request, by the certificate that TLS has verified.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when the certificate names nobody of this cluster.
    pub fn caller(&self, extensions: &http::Extensions) -> Result<Caller, Status> {
        let Self::Certificates { cluster, known } = self else { return Ok(Caller::Dev) };
        let chain = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        let Some(chain) = chain.filter(|chain| !chain.is_empty()) else { return Ok(Caller::Nobody) };
        // The map is whole between two statements.
        let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = known().get(chain[0].as_ref()) {
            return Ok(Caller::Known(identity.clone()));
        }
        match identity::of_chain(&chain, cluster) {
            None => Ok(Caller::Nobody),
            Some(Ok(identity)) => {
                let mut known = known();
                if known.len() >= MAX_KNOWN {
                    known.clear();
                }
                known.insert(chain[0].to_vec(), identity.clone());
                Ok(Caller::Known(identity))
            }
            Some(Err(error)) => Err(Status::unauthenticated(format!("the client certificate: {error}"))),
        }
    }
}

impl Caller {
    /// The caller that the gate has put into a request.
    ///
    /// # Errors
    /// `INTERNAL` when the request came past the gate.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| Status::internal("the call did not come through the gate"))
    }

    /// How it stands in events and in the log: `operator:alice`, `borough:camden/bob`, `agent:h1`, `dev`.
    #[must_use]
    pub fn by(&self) -> String {
        match self {
            Self::Dev => "dev".to_owned(),
            Self::Nobody => "nobody".to_owned(),
            Self::Known(Identity::Borough { borough, name }) => format!("borough:{borough}/{name}"),
            Self::Known(identity) => format!("{}:{}", identity.role(), identity.name()),
        }
    }

    /// The one borough that the caller is confined to; `None`: to none.
    #[must_use]
    pub fn confined_to(&self) -> Option<&BoroughName> {
        match self {
            Self::Known(Identity::Borough { borough, .. }) => Some(borough),
            _ => None,
        }
    }

    /// Whether what belongs to this borough is theirs to see.
    #[must_use]
    pub fn sees(&self, borough: &BoroughName) -> bool {
        self.confined_to().is_none_or(|own| own == borough)
    }

    /// Refuses what is another borough's, in the words for what does not exist, so that nobody learns what there is.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn must_see(&self, borough: &BoroughName, what: impl Into<String>) -> Result<(), Status> {
        if self.sees(borough) { Ok(()) } else { Err(super::refusals::not_found(what)) }
    }

    /// Whether the caller may speak for this host: its agent, or anybody in development.
    #[must_use]
    pub fn speaks_for(&self, host: &HostName) -> bool {
        match self {
            Self::Dev => true,
            Self::Known(Identity::Agent { host: own }) => own == host,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(identity: Identity) -> Caller {
        Caller::Known(identity)
    }

    #[test]
    fn callers_have_a_text_and_a_borough() {
        let camden: BoroughName = "camden".parse().unwrap();
        let bob = known(Identity::Borough { borough: camden.clone(), name: "bob".parse().unwrap() });
        let alice = known(Identity::Operator { name: "alice".parse().unwrap() });
        let agent = known(Identity::Agent { host: "h1".parse().unwrap() });
        let texts = [&bob, &alice, &agent, &Caller::Dev].map(Caller::by);
        assert_eq!(texts, ["borough:camden/bob", "operator:alice", "agent:h1", "dev"]);
        let barnet = "barnet".parse().unwrap();
        assert!(bob.sees(&camden) && !bob.sees(&barnet));
        assert!(alice.sees(&camden) && Caller::Dev.sees(&barnet));
        let refused = bob.must_see(&barnet, "borough barnet").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::NotFound);
        assert!(agent.speaks_for(&"h1".parse().unwrap()) && !agent.speaks_for(&"h2".parse().unwrap()));
        assert!(!alice.speaks_for(&"h1".parse().unwrap()));
    }
}
