//! What the authority signs, and what it does not let a request talk it into.

use std::collections::BTreeSet;

use supercloud_proto::pki::credentials::{Credentials, CredentialsError};
use supercloud_proto::pki::request;
use x509_parser::extensions::GeneralName;

use super::*;

fn cluster(text: &str) -> ClusterName {
    text.parse().unwrap()
}

fn agent() -> Identity {
    Identity::Agent { host: "host-1".parse().unwrap() }
}

fn scheduler() -> Identity {
    Identity::Scheduler { node: 1 }
}

fn ca() -> Ca {
    Ca::create(&cluster("london"), SystemTime::now()).unwrap()
}

fn signed(ca: &Ca, identity: &Identity) -> Vec<u8> {
    let request = request::generate().unwrap();
    let pem = ca.sign(&request.csr_pem, &identity.clone().into(), SystemTime::now()).unwrap();
    der(&pem)
}

fn der(certificate_pem: &str) -> Vec<u8> {
    rustls::pki_types::CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap().to_vec()
}

/// Client, server, and the number of alternative names.
fn usage(der: &[u8]) -> (bool, bool, usize) {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert!(!certificate.is_ca());
    (usage.client_auth, usage.server_auth, names.value.general_names.len())
}

#[test]
fn everyone_is_a_client_and_only_a_scheduler_a_server() {
    let ca = ca();
    assert_eq!(usage(&signed(&ca, &agent())), (true, false, 1));
    assert_eq!(usage(&signed(&ca, &Identity::Operator { name: "anna".parse().unwrap() })), (true, false, 1));
    assert_eq!(usage(&signed(&ca, &scheduler())), (true, true, 5));
}

#[test]
fn a_request_gets_what_was_granted_whatever_it_asks_for() {
    let ca = ca();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut greedy = leaf(&scheduler(), &cluster("london")).unwrap();
    greedy.subject_alt_names.push(SanType::URI("supercloud://london/operator/root".try_into().unwrap()));
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages.push(KeyUsagePurpose::KeyCertSign);
    // A request cannot carry an authority key identifier.
    greedy.use_authority_key_identifier_extension = false;
    let csr = greedy.serialize_request(&key).unwrap().pem().unwrap();
    let got = der(&ca.sign(&csr, &agent().into(), SystemTime::now()).unwrap());
    assert_eq!(usage(&got), (true, false, 1));
    assert_eq!(Identity::from_certificate(&got, &cluster("london")), Ok(agent()));
    let (_, certificate) = X509Certificate::from_der(&got).unwrap();
    let name = certificate.subject().iter_common_name().next().unwrap().as_str().unwrap();
    assert_eq!(name, "host-1");
    assert!(!certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(matches!(names.as_slice(), [GeneralName::URI("supercloud://london/agent/host-1")]));
}

#[test]
fn refuses_a_request_whose_sender_has_not_its_key_or_that_is_none() {
    let ca = ca();
    let sign = |csr: &str| ca.sign(csr, &agent().into(), SystemTime::now()).unwrap_err();
    let mine = request::generate().unwrap().csr_pem;
    let mut bytes = x509_parser::pem::parse_x509_pem(mine.as_bytes()).unwrap().1.contents;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = mine_with(&bytes);
    assert!(matches!(sign(&forged), SignError::Request(rcgen::Error::InvalidCertificationRequestSignature)));
    assert!(matches!(sign("nothing"), SignError::Request(_)));
    let long = "x".repeat(MAX_REQUEST_BYTES + 1);
    assert!(matches!(sign(&long), SignError::TooLarge { .. }));
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
    assert!(matches!(sign(&csr), SignError::KeyKind));
}

/// A request in PEM form around these bytes, by way of a certificate's PEM: only the words around them differ.
fn mine_with(der: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for chunk in der.chunks(48) {
        writeln!(text, "{}", base64_of(chunk)).unwrap();
    }
    text + "-----END CERTIFICATE REQUEST-----\n"
}

fn base64_of(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .map(|three| {
            let n = (0..3).fold(0_u32, |n, i| n << 8 | u32::from(*three.get(i).unwrap_or(&0)));
            (0..4)
                .map(|i| {
                    if i <= three.len() {
                        char::from(ALPHABET[(n >> (18 - 6 * i) & 63) as usize])
                    } else {
                        '='
                    }
                })
                .collect::<String>()
        })
        .collect()
}

#[test]
fn no_certificate_outlives_the_authority_and_serials_differ() {
    let ca = ca();
    let csr = request::generate().unwrap().csr_pem;
    let late = ca.expires_at() - Duration::from_secs(60);
    let got = der(&ca.sign(&csr, &agent().into(), late).unwrap());
    let (_, certificate) = X509Certificate::from_der(&got).unwrap();
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap();
    assert_eq!(SystemTime::UNIX_EPOCH + Duration::from_secs(end), ca.expires_at());
    let after = ca.sign(&csr, &agent().into(), ca.expires_at());
    assert!(matches!(after, Err(SignError::CaExpired)));
    let serials: BTreeSet<Vec<u8>> = (0..20)
        .map(|_| X509Certificate::from_der(&signed(&ca, &agent())).unwrap().1.raw_serial().to_vec())
        .collect();
    assert_eq!(serials.len(), 20);
    assert!(serials.iter().all(|s| s.len() <= 20 && s[0] < 0x80), "positive, within 20 octets");
}

#[test]
fn the_authority_survives_its_file_and_signs_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let made = ca();
    made.save(&path).unwrap();
    let loaded = Ca::load(&path).unwrap();
    assert_eq!(loaded.certificate(), made.certificate());
    let request = request::generate().unwrap();
    let pem = loaded.sign(&request.csr_pem, &agent().into(), SystemTime::now()).unwrap();
    Credentials::new(made.certificate().clone(), &pem, &request.key_pem).unwrap();
    std::fs::write(&path, made.certificate().pem()).unwrap();
    assert!(matches!(Ca::load(&path), Err(LoadError::Content { source: CaPemError::Key, .. })));
    let key = super::Ca::create(&cluster("london"), SystemTime::now()).unwrap().issuer.key().serialize_pem();
    let mixed = Ca::from_pem(&format!("{}{key}", made.certificate().pem()));
    assert!(matches!(mixed, Err(CaPemError::KeyMismatch)));
}

#[test]
fn credentials_are_checked_against_each_other() {
    let (ours, theirs) = (ca(), ca());
    let request = request::generate().unwrap();
    let pem = ours.sign(&request.csr_pem, &agent().into(), SystemTime::now()).unwrap();
    let new = |ca: &Ca, key: &str| {
        Credentials::new(ca.certificate().clone(), &pem, key).map(|c| c.identity().clone())
    };
    assert_eq!(new(&ours, &request.key_pem), Ok(agent()));
    assert_eq!(new(&theirs, &request.key_pem), Err(CredentialsError::NotSignedByCa));
    let other_key = request::generate().unwrap().key_pem;
    assert_eq!(new(&ours, &other_key), Err(CredentialsError::KeyMismatch));
    assert_eq!(new(&ours, ""), Err(CredentialsError::KeyCount { found: 0 }));
    let paris = Ca::create(&cluster("paris"), SystemTime::now()).unwrap();
    assert!(matches!(new(&paris, &request.key_pem), Err(CredentialsError::Identity(_))));
}

#[test]
fn credentials_survive_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.pem");
    let ca = ca();
    let request = request::generate().unwrap();
    let now = SystemTime::now();
    let pem = ca.sign(&request.csr_pem, &agent().into(), now).unwrap();
    let made = Credentials::new(ca.certificate().clone(), &pem, &request.key_pem).unwrap();
    made.save(&path).unwrap();
    let loaded = Credentials::load(&path).unwrap();
    assert_eq!((loaded.identity(), loaded.ca()), (&agent(), ca.certificate()));
    assert_eq!(loaded.to_pem(), made.to_pem());
    let left = loaded.expires_at().duration_since(now).unwrap();
    assert!(left <= LEAF_VALIDITY && left > LEAF_VALIDITY - Duration::from_secs(2), "{left:?}");
    assert!(loaded.api_server_tls().is_err(), "an agent cannot serve");
}

#[test]
fn further_names_are_for_schedulers_and_are_names() {
    let ca = ca();
    let csr = request::generate().unwrap().csr_pem;
    let sign = |identity: Identity, names: &[&str]| {
        let server_names = names.iter().map(ToString::to_string).collect();
        ca.sign(&csr, &Grant { server_names, ..Grant::from(identity) }, SystemTime::now())
    };
    let got = sign(scheduler(), &["node-1.example.org", "10.0.0.1", "fd00::1"]).unwrap();
    assert_eq!(usage(&der(&got)), (true, true, 8));
    let refused = |result| matches!(result, Err(SignError::ServerNames { .. }));
    assert!(refused(sign(agent(), &["node-1"])));
    assert!(refused(sign(scheduler(), &["supercloud://london/operator/root"])));
    assert!(refused(sign(scheduler(), &["a b"])));
    assert!(refused(sign(scheduler(), &["a"; MAX_SERVER_NAMES + 1])));
}
