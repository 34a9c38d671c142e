//! Making certificates: what stands in those of servers, agents and users. Takes names as they are given.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SerialNumber};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::request::CertificateRequest;
use super::subject::{SubjectError, with_subject};
use super::{CertificateAuthority, validity};
use crate::core::access::{AGENTS, CLUSTER_PREFIX, KeyDigest, User};
use crate::core::ids::ClusterId;

/// Servers' certificates are made anew by the process that uses them, so they need not live long.
const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// RFC 5280 allows 20 bytes; 16 random ones never meet.
const SERIAL_BYTES: usize = 16;

/// A certificate for a cluster's agent.
#[derive(Clone, Debug)]
pub struct AgentCertificate {
    /// PEM.
    pub pem: String,
    /// The key that it is for.
    pub key: KeyDigest,
    /// Its end.
    pub not_after: SystemTime,
}

/// A certificate for a user, with its private key.
#[derive(Clone)]
pub struct UserCertificate {
    /// PEM.
    pub certificate_pem: String,
    /// PEM, PKCS #8.
    pub key_pem: String,
    /// Its end.
    pub not_after: SystemTime,
}

/// A certificate for the hub's own port, with its private key.
pub struct ServerCertificate {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// DER.
    pub key: PrivateKeyDer<'static>,
    /// Its beginning.
    pub not_before: SystemTime,
    /// Its end.
    pub not_after: SystemTime,
}

impl CertificateAuthority {
    /// A client certificate for a cluster's agent. Of the request only the public key counts.
    pub fn issue_agent(
        &self,
        cluster: &ClusterId,
        request: &CertificateRequest,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<AgentCertificate, rcgen::Error> {
        let name = format!("{CLUSTER_PREFIX}{cluster}");
        let params = client(&name, AGENTS, now, lifetime);
        Ok(AgentCertificate {
            pem: params.signed_by(&request.public_key, &self.issuer)?.pem(),
            key: request.key_digest().clone(),
            not_after: now + lifetime,
        })
    }

    /// A client certificate for a user in one group, and a new key for it.
    pub fn issue_user(
        &self,
        name: &str,
        group: &str,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<UserCertificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = client(name, group, now, lifetime);
        Ok(UserCertificate {
            certificate_pem: params.signed_by(&key, &self.issuer)?.pem(),
            key_pem: key.serialize_pem(),
            not_after: now + lifetime,
        })
    }

    /// A client certificate for a user in these groups. Of the request only the public key counts.
    pub fn issue_user_request(
        &self,
        user: &User,
        request: &CertificateRequest,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, SubjectError> {
        let params = client(&user.name, "", now, lifetime);
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        with_subject(certificate.der(), &user.name, &user.groups, self.issuer.key())
    }

    /// A server certificate for these DNS names and addresses, and a new key for it.
    pub fn issue_server(&self, names: &[String], now: SystemTime) -> Result<ServerCertificate, rcgen::Error> {
        let (not_before, not_after) = validity(now, SERVER_LIFETIME);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        describe(&mut params, "branchline-hub", not_before, not_after);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(ServerCertificate {
            certificate: certificate.into(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            not_before,
            not_after,
        })
    }
}

fn client(name: &str, group: &str, now: SystemTime, lifetime: Duration) -> CertificateParams {
    let (not_before, not_after) = validity(now, lifetime);
    let mut params = CertificateParams::default();
    describe(&mut params, name, not_before, not_after);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn describe(params: &mut CertificateParams, name: &str, not_before: SystemTime, not_after: SystemTime) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
}

/// Positive, as RFC 5280 wants it.
fn serial() -> [u8; SERIAL_BYTES] {
    let mut bytes: [u8; SERIAL_BYTES] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes
}
