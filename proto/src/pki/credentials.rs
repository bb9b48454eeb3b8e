//! What a part of the cluster, or a caller, holds to prove who it is: a key, its certificate, and the authority that signed it.
//!
//! On disk it is one PEM file of mode 0600, in this order; text between the blocks is for people and is ignored:
//!
//! ```text
//! CERTIFICATE        the holder's
//! CERTIFICATE        the authority's
//! PRIVATE KEY        the holder's, PKCS#8
//! ```
//!
//! The parts are checked against each other when they are put together, so that a mix-up is found at start and named, and does not
//! appear later as a failing handshake. That a certificate has expired is not an error here: the holder must be able to start, say so,
//! and show it as a metric.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::SERVER_NAME;
use super::ca_certificate::{CaCertificate, CaCertificateError, certificate_pem};
use super::identity::{Identity, IdentityError};
use super::secret_file::{self, SecretFileError};
use crate::name::ClusterName;

/// How long a TLS handshake may take on the server's side: a client that connects and says nothing must not hold a socket for long.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Key, certificate and authority, known to belong together.
#[derive(Clone)]
pub struct Credentials {
    ca: CaCertificate,
    certificate: CertificateDer<'static>,
    key_pem: String,
    identity: Identity,
    expires_at: SystemTime,
}

/// Why parts do not make up a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A PEM block is damaged.
    #[error("a PEM block is damaged: {0}")]
    Pem(String),
    /// There have to be two certificates.
    #[error("expected two PEM blocks CERTIFICATE (the holder's, then the authority's), found {found}")]
    CertificateCount {
        /// How many there are.
        found: usize,
    },
    /// There has to be one key.
    #[error("expected one PEM block PRIVATE KEY (PKCS#8), found {found}")]
    KeyCount {
        /// How many there are.
        found: usize,
    },
    /// The key is of a kind that is not used here.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// The second certificate is not that of an authority.
    #[error(transparent)]
    Ca(#[from] CaCertificateError),
    /// The holder's certificate names nobody of that cluster.
    #[error("the holder's certificate: {0}")]
    Identity(#[from] IdentityError),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate was signed by somebody else.
    #[error("the certificate was not signed by the authority beside it")]
    NotSignedByCa,
}

/// Why a credential could not be loaded from a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read, or must not be.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file was read, and what it says is wrong.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CredentialsError,
    },
}

/// Only a scheduler may serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the credentials of a scheduler to serve with, found those of {found}")]
pub struct NotAScheduler {
    /// Whose they are.
    pub found: Identity,
}

impl Credentials {
    /// Puts together what a newcomer has after joining: the authority, the signed certificate (PEM) and its own key (PEM).
    pub fn new(ca: CaCertificate, certificate_pem: &str, key_pem: &str) -> Result<Self, CredentialsError> {
        Self::from_pem(&format!("{certificate_pem}\n{}\n{key_pem}", ca.pem()))
    }

    /// Reads the text of a credentials file.
    pub fn from_pem(text: &str) -> Result<Self, CredentialsError> {
        let certificates = blocks::<CertificateDer<'static>>(text)?;
        let [certificate, ca] = certificates.as_slice() else {
            let found = certificates.len();
            return Err(CredentialsError::CertificateCount { found });
        };
        let keys = blocks::<PrivatePkcs8KeyDer<'static>>(text)?;
        let [key] = keys.as_slice() else {
            return Err(CredentialsError::KeyCount { found: keys.len() });
        };
        let key = KeyPair::try_from(key).map_err(|e| CredentialsError::Key(e.to_string()))?;
        let ca = CaCertificate::from_der(ca)?;
        Ok(Self {
            identity: Identity::from_certificate(certificate, ca.cluster())?,
            expires_at: check_pair(certificate, &ca, &key)?,
            certificate: certificate.clone(),
            key_pem: key.serialize_pem(),
            ca,
        })
    }

    /// The text of a credentials file. It holds the key.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let (identity, cluster) = (&self.identity, self.cluster());
        format!(
            "Supercloud credentials of {identity} in cluster {cluster}. Whoever has this file is {identity}.\n{}{}{}",
            certificate_pem(&self.certificate),
            self.ca.pem(),
            self.key_pem
        )
    }

    /// Loads a credentials file, which nobody but its owner may read.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::from_pem(&secret_file::read(path)?)
            .map_err(|source| LoadError::Content { path: path.to_owned(), source })
    }

    /// Writes the credentials file in one step, mode 0600, synced.
    pub fn save(&self, path: &Path) -> Result<(), SecretFileError> {
        secret_file::write(path, &self.to_pem())
    }

    /// Who the holder is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster they belong to.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        self.ca.cluster()
    }

    /// The authority.
    #[must_use]
    pub fn ca(&self) -> &CaCertificate {
        &self.ca
    }

    /// When the holder's certificate ends (shown as a metric; a credential is renewed well before).
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Certificate and key for tonic. The authority goes along in the chain, since a newcomer checks it by its fingerprint.
    #[must_use]
    pub fn tls_identity(&self) -> tonic::transport::Identity {
        let chain = format!("{}{}", certificate_pem(&self.certificate), self.ca.pem());
        tonic::transport::Identity::from_pem(chain, &self.key_pem)
    }

    /// TLS for a client that checks chain and name only. [`super::Servers`] checks the scheduler's role as well: prefer it.
    #[must_use]
    pub fn client_tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .domain_name(SERVER_NAME)
            .ca_certificate(Certificate::from_pem(self.ca.pem()))
            .identity(self.tls_identity())
    }

    /// TLS for the API: a client may come without a certificate, because joining is a call on the same port. Whoever shows one must
    /// show a valid one. Each call decides who may make it.
    pub fn api_server_tls(&self) -> Result<ServerTlsConfig, NotAScheduler> {
        Ok(self.peer_server_tls()?.client_auth_optional(true))
    }

    /// TLS for the port of the peers: nobody enters without a certificate. That it is a scheduler's is for the service to check.
    pub fn peer_server_tls(&self) -> Result<ServerTlsConfig, NotAScheduler> {
        if !matches!(self.identity, Identity::Scheduler { .. }) {
            let found = self.identity.clone();
            return Err(NotAScheduler { found });
        }
        Ok(ServerTlsConfig::new()
            .identity(self.tls_identity())
            .client_ca_root(Certificate::from_pem(self.ca.pem()))
            .timeout(HANDSHAKE_DEADLINE))
    }
}

/// Without the key.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("cluster", self.cluster())
            .field("identity", &self.identity)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

fn blocks<T: rustls::pki_types::pem::PemObject>(text: &str) -> Result<Vec<T>, CredentialsError> {
    T::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| CredentialsError::Pem(e.to_string()))
}

/// Checks that key, certificate and authority belong together, and says when the certificate ends.
fn check_pair(certificate: &[u8], ca: &CaCertificate, key: &KeyPair) -> Result<SystemTime, CredentialsError> {
    let parse = |der| match X509Certificate::from_der(der) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(IdentityError::NotACertificate),
    };
    let leaf = parse(certificate)?;
    if leaf.public_key().raw != key.subject_public_key_info() {
        return Err(CredentialsError::KeyMismatch);
    }
    let signer = parse(ca.der())?;
    if leaf.verify_signature(Some(signer.public_key())).is_err() {
        return Err(CredentialsError::NotSignedByCa);
    }
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
