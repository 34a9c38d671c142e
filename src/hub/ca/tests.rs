//! The authority on disk and its certificates as a verifier sees them.

#![expect(clippy::unwrap_used, reason = "tests")]
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::CertificateParams;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::core::access::{ADMINS, Anonymity, Identity};
use crate::core::ids::ClusterId;
use crate::hub::auth::Authenticator;

const CLUSTER: &str = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn authority() -> (tempfile::TempDir, CertificateAuthority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::load_or_create(directory.path(), now()).unwrap();
    (directory, authority)
}

fn request(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn identity_of(authority: &CertificateAuthority, pem: &str, at: SystemTime) -> Identity {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    Authenticator::new(authority)
        .unwrap()
        .identify(Some(&[certificate]), at)
        .at(at)
}

#[test]
fn the_authority_is_made_once_and_kept() {
    let (directory, first) = authority();
    let mode = fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = CertificateAuthority::load_or_create(directory.path(), now()).unwrap();
    assert_eq!(first.hash(), second.hash());
    assert_eq!(first.certificate_pem(), second.certificate_pem());
}

#[test]
fn the_key_alone_gives_the_same_authority() {
    let (directory, first) = authority();
    let issued = first.issue_user("alice", ADMINS, now(), DEFAULT_LIFETIME).unwrap();
    fs::remove_file(directory.path().join("ca.crt")).unwrap();
    let recovered = CertificateAuthority::load_or_create(directory.path(), now() + DAY).unwrap();
    assert_eq!(first.hash(), recovered.hash());
    let who = identity_of(&recovered, &issued.certificate_pem, now() + DAY);
    assert!(matches!(who, Identity::User(user) if user.name == "alice"));
}

#[test]
fn broken_files_are_errors_that_name_them() {
    let (directory, _authority) = authority();
    let load = || {
        CertificateAuthority::load_or_create(directory.path(), now())
            .unwrap_err()
            .to_string()
    };
    let (key, certificate) = (directory.path().join("ca.key"), directory.path().join("ca.crt"));
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(load().contains("ca.key is not"), "{}", load());
    fs::write(&key, "not a key").unwrap();
    assert!(load().contains("ca.key is not a private key"), "{}", load());
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(load().contains("another key"), "{}", load());
    fs::write(&key, kept).unwrap();
    fs::write(&certificate, "not a certificate").unwrap();
    assert!(load().contains("ca.crt is not a certificate"), "{}", load());
}

#[test]
fn an_expired_authority_is_an_error() {
    let (directory, _authority) = authority();
    let error = CertificateAuthority::load_or_create(directory.path(), now() + 30 * 365 * DAY).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[test]
fn an_agent_gets_its_name_from_the_hub_and_only_its_key_from_the_request() {
    let (_directory, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::default();
    wishes.distinguished_name.push(rcgen::DnType::CommonName, "branchline:admin");
    wishes.distinguished_name.push(rcgen::DnType::OrganizationName, ADMINS);
    let pem = wishes.serialize_request(&key).unwrap().pem().unwrap();
    let request = CertificateRequest::parse(&pem).unwrap();
    let cluster: ClusterId = CLUSTER.parse().unwrap();
    let issued = authority.issue_agent(&cluster, &request, now(), DEFAULT_LIFETIME).unwrap();
    assert_eq!(issued.key, KeyDigest::of_public_key(&key.subject_public_key_info()));
    let who = identity_of(&authority, &issued.pem, now());
    assert_eq!(
        who,
        Identity::Agent {
            cluster,
            key: issued.key
        }
    );
}

#[test]
fn certificates_count_in_their_time_and_from_their_authority() {
    let (_directory, authority) = authority();
    let (_elsewhere, foreign) = self::authority();
    let issued = authority.issue_user("alice", ADMINS, now(), DEFAULT_LIFETIME).unwrap();
    let pem = &issued.certificate_pem;
    assert!(matches!(
        identity_of(&authority, pem, now() - Duration::from_secs(240)),
        Identity::User(_)
    ));
    assert_eq!(
        identity_of(&authority, pem, now() - DAY),
        Identity::Anonymous(Anonymity::NotYetValid)
    );
    assert_eq!(
        identity_of(&authority, pem, now() + 91 * DAY),
        Identity::Anonymous(Anonymity::Expired)
    );
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let credential = Authenticator::new(&authority).unwrap().identify(Some(&[certificate]), now());
    let later = credential.at(now() + 91 * DAY);
    assert_eq!(
        later,
        Identity::Anonymous(Anonymity::Expired),
        "on a connection that stayed open"
    );
    assert_eq!(
        identity_of(&foreign, pem, now()),
        Identity::Anonymous(Anonymity::OtherAuthority)
    );
    let server = authority.issue_server(&["localhost".to_owned()], now()).unwrap();
    let misused = Authenticator::new(&authority)
        .unwrap()
        .identify(Some(&[server.certificate]), now())
        .at(now());
    assert_eq!(misused, Identity::Anonymous(Anonymity::OtherPurpose));
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let key = KeyPair::generate().unwrap();
    let good = request(&key);
    assert!(CertificateRequest::parse(&good).is_ok());
    assert!(CertificateRequest::parse("").is_err());
    assert!(
        CertificateRequest::parse(&key.serialize_pem()).is_err(),
        "a private key is no request"
    );
    let der = x509_parser::pem::Pem::iter_from_buffer(good.as_bytes())
        .next()
        .unwrap()
        .unwrap()
        .contents;
    let digest = CertificateRequest::parse(&good).unwrap().key_digest().clone();
    for at in 0..der.len() {
        let mut bytes = der.clone();
        bytes[at] ^= 1;
        // Two bytes of padding do not count; whatever is accepted is for the key that signed it.
        if let Ok(request) = CertificateRequest::parse(&armoured(&bytes)) {
            assert_eq!(request.key_digest(), &digest, "byte {at}");
        }
    }
}

fn armoured(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}
