//! TLS towards the hub: its CA pinned by certificate or by the hash of its public key, the cluster's own certificate shown when there is one.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::CaHash;

/// A CA, a certificate or a key that TLS cannot use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text holds no certificate.
    #[error("{what} is not a PEM certificate: {message}")]
    Pem {
        /// Which one.
        what: &'static str,
        /// Why.
        message: String,
    },
    /// rustls does not take it.
    #[error("{what} cannot be used: {source}")]
    Unusable {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: Error,
    },
}

/// What a hub showed instead of the pinned CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the hub shows {} certificates, none of them has the hash {expected}: it is another hub, or the hash is wrong; \
     compare with `branchline token create --print-join`", .shown
)]
pub struct WrongCa {
    expected: String,
    shown: usize,
}

/// A TLS client that trusts one CA and nothing else, and shows the identity (certificates and key, PEM) if there is one.
pub(super) fn trusting(ca: &str, identity: Option<(&str, &str)>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots(&certificates("the hub's CA", ca)?)?;
    let builder = builder()?.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let what = "the agent's key";
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| broken(what, &e))?;
            let chain = certificates("the agent's certificate", chain)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Unusable { what, source })?
        }
    };
    Ok(Arc::new(config))
}

/// A TLS client that trusts whichever CA has this hash, and the place where that CA is found after the first handshake.
pub(super) fn pinning(hash: CaHash) -> Result<(Arc<ClientConfig>, Arc<PinnedCa>), TlsError> {
    let pinned = Arc::new(PinnedCa {
        hash,
        found: OnceLock::new(),
        wrong: OnceLock::new(),
        provider: provider(),
    });
    let verifier: Arc<dyn ServerCertVerifier> = pinned.clone();
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok((Arc::new(config), pinned))
}

/// The hash of a certificate's public key.
pub(super) fn hash_of(certificate: &[u8]) -> Option<CaHash> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(CaHash(Sha256::digest(parsed.public_key().raw).into()))
}

/// The first certificate of a PEM text, DER.
pub(super) fn first_certificate(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable {
            what: "the TLS provider",
            source,
        })
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err(broken(what, &"it holds none")),
        Ok(all) => Ok(all),
        Err(error) => Err(broken(what, &error)),
    }
}

fn broken(what: &'static str, message: &dyn std::fmt::Display) -> TlsError {
    let message = message.to_string();
    TlsError::Pem { what, message }
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|source| TlsError::Unusable {
            what: "the hub's CA",
            source,
        })?;
    }
    Ok(roots)
}

/// Accepts a chain if it contains a certificate with the pinned hash and is valid, names included, with that one as its only root.
#[derive(Debug)]
pub(super) struct PinnedCa {
    hash: CaHash,
    found: OnceLock<CertificateDer<'static>>,
    wrong: OnceLock<WrongCa>,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    /// The CA, PEM, once a handshake has succeeded.
    pub(super) fn found(&self) -> Option<String> {
        self.found.get().map(|der| pem("CERTIFICATE", der))
    }

    /// What was shown instead, if a handshake failed for that reason.
    pub(super) fn wrong(&self) -> Option<WrongCa> {
        self.wrong.get().cloned()
    }

    fn refuse(&self, shown: usize) -> Error {
        let expected = self.hash.to_string();
        let wrong = self.wrong.get_or_init(|| WrongCa { expected, shown });
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong.clone()))))
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut chain = std::iter::once(end_entity).chain(intermediates);
        let root = chain.find(|certificate| hash_of(certificate) == Some(self.hash));
        let root = root.ok_or_else(|| self.refuse(1 + intermediates.len()))?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        // A second handshake finds the same certificate or one with the same key.
        let _ = self.found.set(root);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// DER as PEM.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn verify(pinned: &PinnedCa, chain: &[CertificateDer<'static>], name: &'static str) -> Result<ServerCertVerified, Error> {
        let name = ServerName::try_from(name).unwrap();
        pinned.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())
    }

    #[test]
    fn the_pinned_ca_is_the_only_root() {
        let (ours, theirs) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["hub.example.org".to_owned()]).unwrap();
        let leaf = server.signed_by(&key, &ours).unwrap().der().clone();
        let pinned = |ca: &CertifiedIssuer<'static, KeyPair>| pinning(hash_of(ca.der()).unwrap()).unwrap().1;

        let right = pinned(&ours);
        assert!(verify(&right, &[leaf.clone(), ours.der().clone()], "hub.example.org").is_ok());
        let found = right.found().unwrap();
        assert_eq!(first_certificate(&found).unwrap(), ours.der().clone());
        assert!(trusting(&found, None).is_ok());

        assert!(verify(&pinned(&ours), &[leaf.clone(), ours.der().clone()], "other.example.org").is_err());
        let unseen = pinned(&ours);
        assert!(verify(&unseen, std::slice::from_ref(&leaf), "hub.example.org").is_err());
        assert!(unseen.wrong().unwrap().to_string().contains("shows 1 certificates"));
        // The right CA beside a chain that it did not sign proves nothing.
        let other = pinned(&theirs);
        assert!(verify(&other, &[leaf, ours.der().clone(), theirs.der().clone()], "hub.example.org").is_err());
        assert_eq!(other.found(), None);
    }
}
