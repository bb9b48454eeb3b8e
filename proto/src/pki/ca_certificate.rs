//! The certificate of a cluster's authority, without its key: what everybody holds to tell friend from stranger.
//!
//! It names its cluster by the URI `supercloud://<cluster>/ca`, so that whoever trusts it also knows which cluster it speaks for.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::identity::{self, IdentityError, SCHEME};
use crate::name::ClusterName;

/// Characters on a line of PEM, by RFC 7468.
const PEM_LINE: usize = 64;

/// SHA-256 of a certificate in DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

/// In hexadecimal, as other tools show it.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The certificate of a cluster's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    cluster: ClusterName,
}

/// Why a certificate is not that of a cluster's authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaCertificateError {
    /// There is not exactly one certificate in the text.
    #[error("expected one PEM block CERTIFICATE, found {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// The certificate may not sign others.
    #[error("the certificate is not that of an authority (no CA constraint)")]
    NotAnAuthority,
    /// It does not say which cluster it is for.
    #[error("the certificate of the authority names no cluster: {0}")]
    Identity(#[from] IdentityError),
}

impl CaCertificate {
    /// The URI that a cluster's authority carries.
    #[must_use]
    pub fn uri(cluster: &ClusterName) -> String {
        format!("{SCHEME}://{cluster}/ca")
    }

    /// Reads the certificate from DER.
    pub fn from_der(der: &[u8]) -> Result<Self, CaCertificateError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::NotACertificate)?;
        if !certificate.is_ca() {
            return Err(CaCertificateError::NotAnAuthority);
        }
        let uri = identity::only_uri(der)?;
        let cluster = uri
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_prefix("://"))
            .and_then(|rest| rest.strip_suffix("/ca"))
            .ok_or_else(|| IdentityError::Form { found: uri.clone() })?;
        Ok(Self {
            der: CertificateDer::from(der.to_vec()),
            cluster: cluster.parse().map_err(IdentityError::Name)?,
        })
    }

    /// Reads the certificate from a PEM text that holds it and no other.
    pub fn from_pem(text: &str) -> Result<Self, CaCertificateError> {
        let found: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok).collect();
        match found.as_slice() {
            [der] => Self::from_der(der),
            other => Err(CaCertificateError::Count { found: other.len() }),
        }
    }

    /// The certificate as a PEM text.
    #[must_use]
    pub fn pem(&self) -> String {
        certificate_pem(&self.der)
    }

    /// The certificate in DER form.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The cluster it speaks for.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// What a join token carries of it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }
}

/// A certificate as a PEM block.
pub(super) fn certificate_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};

    use super::*;

    fn certificate(uri: &str, is_ca: bool) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn an_authority_survives_pem_and_names_its_cluster() {
        let made = certificate("supercloud://london/ca", true);
        let read = CaCertificate::from_pem(&made.pem()).unwrap();
        assert_eq!(read.cluster().as_str(), "london");
        assert_eq!(read.der(), made.der());
        assert_eq!(CaCertificate::from_pem(&read.pem()), Ok(read));
    }

    #[test]
    fn a_leaf_or_a_stranger_is_no_authority() {
        let leaf = certificate("supercloud://london/ca", false);
        assert_eq!(CaCertificate::from_der(leaf.der()), Err(CaCertificateError::NotAnAuthority));
        let stranger = certificate("https://example.org/ca", true);
        let refused = CaCertificate::from_der(stranger.der());
        assert!(matches!(refused, Err(CaCertificateError::Identity(IdentityError::Form { .. }))));
        assert_eq!(CaCertificate::from_pem("nothing"), Err(CaCertificateError::Count { found: 0 }));
    }
}
