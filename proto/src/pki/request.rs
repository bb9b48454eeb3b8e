//! A fresh key, and the request to have it signed. The key never leaves the machine it is made on: only the request travels.
//!
//! The authority takes nothing but the public key from the request, so the request says nothing else: who the holder is to be stands in
//! the token, and the newcomer learns it from the certificate it gets.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

/// A key and the request for a certificate over it, both PEM. The key is secret, so this prints without it.
pub struct KeyAndRequest {
    /// The private key (PKCS#8). It stays here.
    pub key_pem: String,
    /// The request (PKCS#10). It is sent to a scheduler.
    pub csr_pem: String,
}

impl std::fmt::Debug for KeyAndRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyAndRequest").finish_non_exhaustive()
    }
}

/// No key could be made: the machine's source of randomness failed.
#[derive(Debug, thiserror::Error)]
#[error("a key could not be made")]
pub struct RequestError(#[from] rcgen::Error);

/// Makes an ECDSA P-256 key and the request for it. P-256, because every TLS library in any language knows it.
pub fn generate() -> Result<KeyAndRequest, RequestError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok(KeyAndRequest { key_pem: key.serialize_pem(), csr_pem: request.pem()? })
}
