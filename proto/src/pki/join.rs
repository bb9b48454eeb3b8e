//! The first step of a newcomer: to get the authority's certificate from a scheduler, and to know that it is the right one.
//!
//! # Decision: two connections
//! The first does a whole TLS handshake in which the server must show an authority with the token's fingerprint, a certificate signed by
//! it, and the key to that certificate. Nothing is sent over it. The second ([`super::Trust::Joining`]) trusts that authority in the
//! usual way, and only it carries the token. So the code that pins is small, and all calls go one way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::SERVER_NAME;
use super::address::{AddressError, ServerAddress};
use super::ca_certificate::{CaCertificate, CaCertificateError, Fingerprint};
use super::client::rustls_error;
use super::token::Token;
use super::verify::{PinnedVerifier, provider};

/// How long the whole exchange may take. It is made once in the life of a host, so patience is cheap.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Why the authority's certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchCaError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody answers there. Another address may do.
    #[error("{address}: cannot be reached")]
    Unreachable {
        /// The address.
        address: ServerAddress,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever answers does not answer in time.
    #[error("{address}: no TLS handshake within {} s", DEADLINE.as_secs())]
    TimedOut {
        /// The address.
        address: ServerAddress,
    },
    /// Whoever answers has another authority: the token is for another cluster, or somebody sits in between. Nothing was sent to them.
    #[error(
        "{address}: is not of the cluster that the token is for (expected an authority with fingerprint {expected})"
    )]
    OtherCluster {
        /// The address.
        address: ServerAddress,
        /// The fingerprint in the token.
        expected: Fingerprint,
    },
    /// The authority is right, but the server's own certificate is not: expired, or not a scheduler's.
    #[error("{address}: the scheduler's certificate is not acceptable: {problem}")]
    BadCertificate {
        /// The address.
        address: ServerAddress,
        /// What is wrong with it.
        problem: CertificateError,
    },
    /// What answers there speaks no TLS, or broke off.
    #[error("{address}: the TLS handshake failed")]
    Handshake {
        /// The address.
        address: ServerAddress,
        /// How.
        source: io::Error,
    },
    /// The TLS configuration itself was refused; a fault of ours.
    #[error("TLS could not be set up")]
    Setup(#[from] rustls::Error),
    /// The fixed server name is no name; a fault of ours.
    #[error("TLS could not be set up")]
    Name(#[from] InvalidDnsNameError),
    /// The pinned certificate is not a cluster authority's.
    #[error(transparent)]
    Ca(#[from] CaCertificateError),
}

/// A TLS configuration that believes only schedulers whose chain shows an authority with this fingerprint.
pub fn pinned_config(fingerprint: Fingerprint) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier::new(fingerprint)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Fetches the authority's certificate from a scheduler at `address`, which must be of the cluster that the token is for.
pub async fn fetch_ca(address: &str, token: &Token) -> Result<CaCertificate, FetchCaError> {
    let address: ServerAddress = address.parse()?;
    match tokio::time::timeout(DEADLINE, handshake(&address, token.fingerprint())).await {
        Ok(result) => result,
        Err(_) => Err(FetchCaError::TimedOut { address }),
    }
}

async fn handshake(address: &ServerAddress, expected: Fingerprint) -> Result<CaCertificate, FetchCaError> {
    let connector = TlsConnector::from(Arc::new(pinned_config(expected)?));
    let name = ServerName::try_from(SERVER_NAME)?;
    let tcp = TcpStream::connect(address.to_string())
        .await
        .map_err(|source| FetchCaError::Unreachable { address: address.clone(), source })?;
    let stream = connector.connect(name, tcp).await.map_err(|source| refusal(address, expected, source))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let pinned = PinnedVerifier::new(expected);
    match pinned.pinned_in(chain) {
        Some(der) => Ok(CaCertificate::from_der(der)?),
        // The verifier has seen it in this very chain, so this is unreachable, and cheaper to answer than to argue.
        None => Err(other_cluster(address, expected)),
    }
}

fn refusal(address: &ServerAddress, expected: Fingerprint, source: io::Error) -> FetchCaError {
    let address = address.clone();
    match rustls_error(&source) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            other_cluster(&address, expected)
        }
        Some(rustls::Error::InvalidCertificate(problem)) => FetchCaError::BadCertificate { address, problem },
        _ => FetchCaError::Handshake { address, source },
    }
}

fn other_cluster(address: &ServerAddress, expected: Fingerprint) -> FetchCaError {
    let address = address.clone();
    FetchCaError::OtherCluster { address, expected }
}
