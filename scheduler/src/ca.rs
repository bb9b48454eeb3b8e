//! The cluster's certificate authority: who holds its key decides who is who. Only scheduler nodes hold it.
//!
//! It takes nothing from a signing request but the public key, after checking that the sender has the private one. Name, usage and
//! alternative names come from the identity that the caller was granted (by a token, or by the certificate being renewed), so whatever
//! else a request asks for is without effect. The module knows nothing of tokens, of state, or of who may be granted what.
//!
//! # Decisions
//! - **One level.** The authority signs leaves directly (path length 0). An intermediate would let the root be kept offline, and a
//!   cluster that cannot admit a host without somebody fetching a key from a safe would soon keep it online anyway.
//! - **One file** holds certificate and key, mode 0600, replaced by one rename: the two cannot fall apart in a crash.
//! - **The clock is a parameter**; randomness (keys, serial numbers) is not, since nothing here is replayed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use supercloud_proto::name::ClusterName;
use supercloud_proto::pki::ca_certificate::{CaCertificate, CaCertificateError};
use supercloud_proto::pki::secret_file::{self, SecretFileError};
use supercloud_proto::pki::{Identity, SERVER_NAME};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long an authority lasts. Replacing it means re-issuing every certificate, so it outlives the machines it admits; ten years is
/// about the time in which P-256 is expected to stand.
pub const CA_VALIDITY: Duration = Duration::from_secs(3653 * 24 * 60 * 60);
/// How long a certificate lasts, unless the caller grants less. There are no revocation lists, so this bounds what a stolen key that
/// nobody missed is worth; shorter would need renewal to work on hosts that are switched off for months.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How far a certificate's beginning lies before the signing: a newcomer's clock that lags by less still accepts it at once.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// Largest request that is looked at. Ours have about 500 bytes, and joining is open to callers without a certificate.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// Serial numbers are this long: 128 random bits never meet, and are within the 20 octets of RFC 5280.
const SERIAL_BYTES: usize = 16;

/// Most further names a scheduler's certificate may carry.
pub const MAX_SERVER_NAMES: usize = 16;

/// What a caller was found to have a right to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who the holder is.
    pub identity: Identity,
    /// Host names and IP addresses beside [`SERVER_NAME`], for the clients of others, that know no fixed name. Schedulers only.
    pub server_names: Vec<String>,
    /// How long it lasts; [`LEAF_VALIDITY`] where there is no reason for less.
    pub validity: Duration,
}

impl From<Identity> for Grant {
    fn from(identity: Identity) -> Self {
        Self { identity, server_names: Vec::new(), validity: LEAF_VALIDITY }
    }
}

/// The authority, key included. It prints without the key.
pub struct Ca {
    certificate: CaCertificate,
    issuer: Issuer<'static, KeyPair>,
    expires_at: SystemTime,
}

/// No authority could be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The machine has no randomness to give.
    #[error("the system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
    /// Key or certificate could not be made.
    #[error("the authority could not be made")]
    Make(#[from] rcgen::Error),
    /// What was made is not what we read; a fault of ours.
    #[error("the authority that was made cannot be read")]
    Read(#[from] CaPemError),
}

/// Why a text is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaPemError {
    /// The certificate is not that of a cluster's authority.
    #[error(transparent)]
    Certificate(#[from] CaCertificateError),
    /// There is no single usable key.
    #[error("expected one PEM block PRIVATE KEY (PKCS#8, ECDSA P-256)")]
    Key,
    /// The key is another one's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

/// Why the authority could not be loaded.
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
        source: CaPemError,
    },
}

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is too large to be one of ours.
    #[error("expected a signing request of at most {MAX_REQUEST_BYTES} bytes, found {found}")]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// It is no request, or its sender does not have the private key.
    #[error("expected a PEM block CERTIFICATE REQUEST, signed with its own key: {0}")]
    Request(#[source] rcgen::Error),
    /// The key is of another kind.
    #[error("expected an ECDSA P-256 key in the signing request")]
    KeyKind,
    /// The further names are not acceptable.
    #[error(
        "expected at most {MAX_SERVER_NAMES} host names or IP addresses, and those for a scheduler only; found {found}"
    )]
    ServerNames {
        /// The offending name, or how many there are.
        found: String,
    },
    /// The authority itself has come to its end.
    #[error("the cluster's certificate authority has expired; no certificate can be signed any more")]
    CaExpired,
    /// The machine has no randomness to give.
    #[error("the system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
    /// The signature could not be made.
    #[error("the certificate could not be signed")]
    Sign(#[source] rcgen::Error),
}

impl Ca {
    /// Makes the authority of a new cluster.
    pub fn create(cluster: &ClusterName, now: SystemTime) -> Result<Self, CreateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + CA_VALIDITY).into();
        params.serial_number = Some(random_serial()?);
        params.distinguished_name = subject("Supercloud CA", cluster);
        params.subject_alt_names = vec![SanType::URI(CaCertificate::uri(cluster).try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self::from_pem(&format!("{}{}", certificate.pem(), key.serialize_pem()))?)
    }

    /// Reads the text of an authority's file.
    pub fn from_pem(text: &str) -> Result<Self, CaPemError> {
        let certificate = CaCertificate::from_pem(text)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| CaPemError::Key)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| CaPemError::Key)?;
        let unreadable = |_| CaPemError::Certificate(CaCertificateError::NotAnAuthority);
        let (_, parsed) = X509Certificate::from_der(certificate.der())
            .map_err(|_| CaPemError::Certificate(CaCertificateError::NotAnAuthority))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaPemError::KeyMismatch);
        }
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(certificate.der(), key).map_err(unreadable)?,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            certificate,
        })
    }

    /// The text of the authority's file. It holds the key: it may go to another scheduler node over mutual TLS, and nowhere else.
    #[must_use]
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.certificate.pem(), self.issuer.key().serialize_pem())
    }

    /// Loads the authority from its file, which nobody but its owner may read.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::from_pem(&secret_file::read(path)?)
            .map_err(|source| LoadError::Content { path: path.to_owned(), source })
    }

    /// Writes the authority's file in one step, mode 0600, synced.
    pub fn save(&self, path: &Path) -> Result<(), SecretFileError> {
        secret_file::write(path, &self.to_pem())
    }

    /// The certificate, which everybody may have.
    #[must_use]
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// When the authority ends.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Signs a certificate for what was granted over the public key of the request, and gives it as PEM. It ends with the authority, if
    /// that is sooner than the grant's validity.
    pub fn sign(&self, csr_pem: &str, grant: &Grant, now: SystemTime) -> Result<String, SignError> {
        if csr_pem.len() > MAX_REQUEST_BYTES {
            return Err(SignError::TooLarge { found: csr_pem.len() });
        }
        // Parsing checks the signature, and so that the sender has the key.
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(SignError::Request)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(SignError::KeyKind);
        }
        if self.expires_at <= now {
            return Err(SignError::CaExpired);
        }
        let mut params = leaf(&grant.identity, self.certificate.cluster()).map_err(SignError::Sign)?;
        params.subject_alt_names.extend(further_names(grant)?);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = self.expires_at.min(now + grant.validity).into();
        params.serial_number = Some(random_serial()?);
        let signed = params.signed_by(&request.public_key, &self.issuer).map_err(SignError::Sign)?;
        Ok(signed.pem())
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("cluster", self.certificate.cluster())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// All that an identity puts into a certificate: everyone may be a client, and only a scheduler a server.
fn leaf(identity: &Identity, cluster: &ClusterName) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&identity.name(), cluster);
    params.distinguished_name.push(DnType::OrganizationalUnitName, identity.role());
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(identity.uri(cluster).try_into()?)];
    if matches!(identity, Identity::Scheduler { .. }) {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(SanType::DnsName(SERVER_NAME.try_into()?));
        // For tools of others (grpcurl, a browser) on the node itself.
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into()?));
        for loopback in [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()] {
            params.subject_alt_names.push(SanType::IpAddress(loopback));
        }
    }
    Ok(params)
}

fn further_names(grant: &Grant) -> Result<Vec<SanType>, SignError> {
    let names = &grant.server_names;
    let is_scheduler = matches!(grant.identity, Identity::Scheduler { .. });
    if names.len() > MAX_SERVER_NAMES || (!is_scheduler && !names.is_empty()) {
        return Err(SignError::ServerNames { found: format!("{} for {}", names.len(), grant.identity) });
    }
    let further = |name: &String| {
        let bad = || SignError::ServerNames { found: format!("{name:?}") };
        match ServerName::try_from(name.as_str()).map_err(|_| bad())? {
            ServerName::IpAddress(ip) => Ok(SanType::IpAddress(ip.into())),
            ServerName::DnsName(dns) => Ok(SanType::DnsName(dns.as_ref().try_into().map_err(|_| bad())?)),
            _ => Err(bad()),
        }
    };
    names.iter().map(further).collect()
}

fn subject(common_name: &str, cluster: &ClusterName) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationName, cluster.as_str());
    name
}

fn random_serial() -> Result<SerialNumber, getrandom::Error> {
    let mut bytes = [0; SERIAL_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests;
