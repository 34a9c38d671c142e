//! Certificate signing requests, taken as what they are to us: a public key, and the proof that the sender has the private one.
//! Everything else that a request asks for (names, extensions, validity) is ignored.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::core::access::KeyDigest;

/// The longest request that is looked at; one with an RSA key of 4096 bits has about 1,700 bytes.
const MAX_PEM: usize = 16 << 10;

/// A request whose signature holds.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    pub(super) public_key: SubjectPublicKeyInfo,
    key_digest: KeyDigest,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate signing request {0}")]
pub struct InvalidRequest(&'static str);

impl CertificateRequest {
    /// Reads a request in PEM and checks that its sender has the private key.
    pub fn parse(pem: &str) -> Result<Self, InvalidRequest> {
        if pem.len() > MAX_PEM {
            return Err(InvalidRequest("is too long"));
        }
        let block = Pem::iter_from_buffer(pem.as_bytes()).next();
        let block = block.and_then(Result::ok).ok_or(InvalidRequest("is not PEM"))?;
        if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
            return Err(InvalidRequest("has another PEM label than CERTIFICATE REQUEST"));
        }
        let (_, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|_| InvalidRequest("is not in PKCS #10 format"))?;
        let verified = request.verify_signature();
        verified.map_err(|_| InvalidRequest("is not signed by its own key: it was damaged or forged"))?;
        let raw = request.certification_request_info.subject_pki.raw;
        let unsupported =
            |_| InvalidRequest("has a kind of key that is not supported: use ECDSA with P-256 or P-384, or Ed25519");
        Ok(CertificateRequest {
            public_key: SubjectPublicKeyInfo::from_der(raw).map_err(unsupported)?,
            key_digest: KeyDigest::of_public_key(raw),
        })
    }

    /// The digest of the key in the request.
    pub fn key_digest(&self) -> &KeyDigest {
        &self.key_digest
    }
}
