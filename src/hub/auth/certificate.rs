//! From the certificate of a connection to an identity. Verifies and reads; what the identity may do is in [`crate::core::access`].

use std::sync::Arc;
use std::time::SystemTime;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::core::access::{Anonymity, Identity, KeyDigest, Subject, identify};
use crate::hub::ca::CertificateAuthority;
use crate::hub::tls::{TlsError, client_verifier};

/// What a connection proved. It is asked anew for each request, because a connection may outlive its certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    identity: Identity,
    not_after: Option<SystemTime>,
}

impl Credential {
    fn nobody(why: Anonymity) -> Self {
        Credential {
            identity: Identity::Anonymous(why),
            not_after: None,
        }
    }

    /// Until when it counts, if there is an end.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// Who the peer is now.
    pub fn at(&self, now: SystemTime) -> Identity {
        match self.not_after {
            Some(end) if end < now => Identity::Anonymous(Anonymity::Expired),
            _ => self.identity.clone(),
        }
    }
}

/// Tells who a peer is by the hub's authority.
#[derive(Clone, Debug)]
pub struct Authenticator {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authenticator {
    /// Trusts this authority and no other.
    pub fn new(authority: &CertificateAuthority) -> Result<Self, TlsError> {
        Ok(Authenticator {
            verifier: client_verifier(authority)?,
        })
    }

    /// What verifies certificates, for the handshake.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// Who presented these certificates (its own first). That it has the private key was proven in the handshake.
    pub fn identify(&self, presented: Option<&[CertificateDer<'_>]>, now: SystemTime) -> Credential {
        let Some((own, intermediates)) = presented.and_then(<[_]>::split_first) else {
            return Credential::nobody(Anonymity::NoCertificate);
        };
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let verified = self
            .verifier
            .verify_client_cert(own, intermediates, UnixTime::since_unix_epoch(since_epoch));
        match verified {
            Ok(_) => read(own),
            Err(error) => Credential::nobody(problem(&error)),
        }
    }
}

fn read(certificate: &CertificateDer<'_>) -> Credential {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Credential {
            identity: identify(
                subject(certificate.subject()),
                KeyDigest::of_public_key(certificate.public_key().raw),
            ),
            not_after: Some(certificate.validity().not_after.to_datetime().into()),
        },
        Err(_) => Credential::nobody(Anonymity::NotUnderstood("it is not X.509".to_owned())),
    }
}

fn subject(name: &X509Name<'_>) -> Subject {
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    Subject {
        common_name: name.iter_common_name().find_map(text).unwrap_or_default(),
        organizations: name.iter_organization().filter_map(text).collect(),
    }
}

fn problem(error: &rustls::Error) -> Anonymity {
    let rustls::Error::InvalidCertificate(error) = error else {
        return Anonymity::NotUnderstood(error.to_string());
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Anonymity::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Anonymity::NotYetValid,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Anonymity::OtherAuthority,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Anonymity::OtherPurpose,
        other => Anonymity::NotUnderstood(other.to_string()),
    }
}
