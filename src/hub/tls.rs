//! TLS of the hub's port: its own certificate, renewed while it runs, and client certificates taken as they come. Whether a client
//! certificate is any good is judged behind the handshake, in [`super::auth`], so that a refusal can say why.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use super::ca::CertificateAuthority;
use crate::core::access::renewal_time;

/// How ALPN calls HTTP/2 (RFC 9113 §3.1).
pub(super) const HTTP2: &[u8] = b"h2";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The hub's certificate cannot be made, mostly because a name in `--advertise` is none.
    #[error("a server certificate for {} cannot be made; check --listen and --advertise", .names.join(", "))]
    Certificate {
        /// The names that it should have had.
        names: Vec<String>,
        /// What is wrong.
        #[source]
        source: rcgen::Error,
    },
    /// The TLS library does not take the certificates.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
    /// The authority's certificate cannot verify clients.
    #[error("the certificate authority cannot verify client certificates")]
    Verifier(#[from] VerifierBuilderError),
}

/// The provider of cryptography; the only one in this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The names in the hub's certificate: what it listens on, what it is advertised as, and this machine.
pub fn server_names(listen: SocketAddr, advertised_hosts: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    names.extend(advertised_hosts.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// The hub's own certificate, which every handshake uses in its newest form.
#[derive(Debug)]
pub struct ServerIdentity {
    names: Vec<String>,
    current: ArcSwap<CurrentCertificate>,
}

#[derive(Debug)]
struct CurrentCertificate {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl ServerIdentity {
    /// Issues the first certificate.
    pub fn issue(authority: &CertificateAuthority, names: Vec<String>, now: SystemTime) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(certify(authority, &names, now)?);
        Ok(Arc::new(ServerIdentity { names, current }))
    }

    /// Issues the next certificate if it is time, and says how long to wait before asking again.
    pub fn renew_if_due(&self, authority: &CertificateAuthority, now: SystemTime) -> Result<Duration, TlsError> {
        if now >= self.current.load().renew_at {
            self.current.store(Arc::new(certify(authority, &self.names, now)?));
        }
        let renew_at = self.current.load().renew_at;
        Ok(renew_at.duration_since(now).unwrap_or(Duration::ZERO))
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

fn certify(authority: &CertificateAuthority, names: &[String], now: SystemTime) -> Result<CurrentCertificate, TlsError> {
    let issued = authority.issue_server(names, now).map_err(|source| TlsError::Certificate {
        names: names.to_vec(),
        source,
    })?;
    // With the authority behind it, so that a client that pins the authority by hash sees it in the handshake.
    let chain = vec![issued.certificate, authority.certificate().clone()];
    Ok(CurrentCertificate {
        key: Arc::new(CertifiedKey::from_der(chain, issued.key, &provider())?),
        renew_at: renewal_time(issued.not_before, issued.not_after),
    })
}

/// What verifies client certificates against the authority.
pub fn client_verifier(authority: &CertificateAuthority) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(builder.allow_unauthenticated().build()?)
}

/// The configuration of the hub's port: HTTP/2 and HTTP/1.1, client certificates optional and not judged here.
pub fn server_config(
    identity: Arc<ServerIdentity>,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(JudgedLater(verifier)))
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Lets every client certificate through the handshake. That the client has its private key is still proven there.
#[derive(Debug)]
struct JudgedLater(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for JudgedLater {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_certificate_names_what_the_hub_listens_on_and_is_called() {
        let names = server_names("10.0.0.7:6443".parse().unwrap(), &["hub.example.com".to_owned()]);
        assert_eq!(names, ["10.0.0.7", "127.0.0.1", "::1", "hub.example.com", "localhost"]);
        assert!(!server_names("0.0.0.0:6443".parse().unwrap(), &[]).contains(&"0.0.0.0".to_owned()));
    }

    #[test]
    fn the_certificate_is_renewed_in_time_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = CertificateAuthority::load_or_create(directory.path(), now).unwrap();
        let identity = ServerIdentity::issue(&authority, server_names("[::]:1".parse().unwrap(), &[]), now).unwrap();
        let first = Arc::clone(&identity.current.load().key);
        let wait = identity.renew_if_due(&authority, now).unwrap();
        assert!(wait > Duration::from_secs(59 * 24 * 3600));
        assert!(Arc::ptr_eq(&first, &identity.current.load().key));
        identity.renew_if_due(&authority, now + wait).unwrap();
        assert!(!Arc::ptr_eq(&first, &identity.current.load().key));
    }

    #[test]
    fn a_name_that_is_none_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = CertificateAuthority::load_or_create(directory.path(), now).unwrap();
        let error = ServerIdentity::issue(&authority, vec!["hüb".to_owned()], now).unwrap_err();
        assert!(error.to_string().contains("hüb"), "{error}");
    }
}
