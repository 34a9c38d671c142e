//! The hub's certificate authority: its key on disk, and the certificates that it issues. Never decides who gets one.
//!
//! The key is all that counts: a lost `ca.crt` is made again from it, with the same name and hash, and every certificate that was
//! issued stays valid.

mod files;
mod issue;
mod request;
mod subject;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

use crate::core::access::KeyDigest;

pub use issue::{AgentCertificate, ServerCertificate, UserCertificate};
pub use request::{CertificateRequest, InvalidRequest};

/// How long agents' and users' certificates live unless told otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Certificates are valid from a little earlier, because clocks differ.
const BACK_DATING: Duration = Duration::from_secs(5 * 60);

/// The hub's certificate authority.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    hash: KeyDigest,
}

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file system refused.
    #[error(
        "cannot {action} {path}; the hub keeps its certificate authority there, so give it the right to (or name another --ca-dir)"
    )]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The key is not one.
    #[error(
        "{path} is not a private key in PEM; restore it from a backup, or move {directory} away to begin with a new authority (every agent must then register again)"
    )]
    Key {
        /// The key file.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// There is a certificate but no key to it.
    #[error(
        "{certificate} is there, but its key {key} is not; restore the key from a backup, or move the certificate away to begin with a new authority (every agent must then register again)"
    )]
    KeyMissing {
        /// The certificate file.
        certificate: PathBuf,
        /// The missing key file.
        key: PathBuf,
    },
    /// The certificate is not one, is over, or belongs to another key.
    #[error("{path} {problem}; remove it, and the hub makes it again from its key")]
    Certificate {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Signing failed.
    #[error("a certificate cannot be made")]
    Signing(#[from] rcgen::Error),
}

impl CertificateAuthority {
    /// The authority's certificate, PEM: what clients must trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What agents pin: the digest of the authority's public key.
    pub fn hash(&self) -> &KeyDigest {
        &self.hash
    }

    fn new(key: KeyPair, certificate_pem: String, certificate: CertificateDer<'static>) -> Result<Self, rcgen::Error> {
        let hash = KeyDigest::of_public_key(&key.subject_public_key_info());
        Ok(CertificateAuthority {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
            certificate_pem,
            hash,
        })
    }
}

impl std::fmt::Debug for CertificateAuthority {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// From when to when a certificate that is made now is valid.
fn validity(now: SystemTime, lifetime: Duration) -> (SystemTime, SystemTime) {
    (now - BACK_DATING, now + lifetime)
}

#[cfg(test)]
mod tests;
