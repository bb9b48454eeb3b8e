//! Who makes a call, and what of the estate is theirs to see. The borough comes from the certificate, never from the request alone.

use supercloud_proto::{
    name::{BoroughName, ClusterName, HostName},
    pki::{Identity, identity},
};
use tonic::{
    Request, Status,
    codegen::http,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

/// How callers are recognised on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognition {
    /// Development: there are no certificates, and only this machine reaches the node.
    Dev,
    /// By certificates of this cluster.
    Certificates(ClusterName),
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
    /// Who sent a request, by the certificate that TLS has verified.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when the certificate names nobody of this cluster.
    pub fn caller(&self, extensions: &http::Extensions) -> Result<Caller, Status> {
        let Self::Certificates(cluster) = self else { return Ok(Caller::Dev) };
        let chain = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        match chain.and_then(|chain| identity::of_chain(&chain, cluster)) {
            None => Ok(Caller::Nobody),
            Some(Ok(identity)) => Ok(Caller::Known(identity)),
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
