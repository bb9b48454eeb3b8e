//! How a client checks the server it dials: chain and name as always, and that the certificate is a scheduler's of the right cluster.
//!
//! Two verifiers: [`SchedulerVerifier`] for who knows the authority, [`PinnedVerifier`] for a newcomer, who knows its fingerprint only.
//! Both leave cryptography to rustls and webpki; nothing here accepts what those refuse.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::ca_certificate::{CaCertificate, Fingerprint};
use super::identity::Identity;
use crate::name::ClusterName;

/// The authority's certificate cannot anchor a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authority's certificate cannot be used to check others: {0}")]
pub struct UnusableCa(String);

/// Accepts the schedulers of one cluster.
#[derive(Debug)]
pub struct SchedulerVerifier {
    cluster: ClusterName,
    chain: Arc<WebPkiServerVerifier>,
}

impl SchedulerVerifier {
    /// A verifier that trusts this authority and no other.
    pub fn new(ca: &CaCertificate) -> Result<Self, UnusableCa> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).map_err(|e| UnusableCa(e.to_string()))?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| UnusableCa(e.to_string()))?;
        Ok(Self { cluster: ca.cluster().clone(), chain })
    }
}

impl ServerCertVerifier for SchedulerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        match Identity::from_certificate(end_entity, &self.cluster) {
            Ok(Identity::Scheduler { .. }) => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Accepts the schedulers of the cluster whose authority has a given fingerprint. The server must show that authority in its chain.
#[derive(Debug)]
pub struct PinnedVerifier {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    /// A verifier for the authority with this fingerprint.
    #[must_use]
    pub fn new(fingerprint: Fingerprint) -> Self {
        let provider = provider();
        Self { fingerprint, provider }
    }

    /// The certificate of a chain that has the fingerprint.
    #[must_use]
    pub fn pinned_in<'c>(&self, chain: &'c [CertificateDer<'c>]) -> Option<&'c CertificateDer<'c>> {
        chain.iter().find(|der| Fingerprint::of(der) == self.fingerprint)
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = self.pinned_in(intermediates).ok_or(CertificateError::UnknownIssuer)?;
        let ca = CaCertificate::from_der(pinned).map_err(|_| CertificateError::BadEncoding)?;
        let verifier = SchedulerVerifier::new(&ca).map_err(|_| CertificateError::BadEncoding)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The cryptography we use, named each time: a process-wide default could be set by any library.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
