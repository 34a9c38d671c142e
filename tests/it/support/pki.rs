//! Certificates that the tests make for themselves.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) certificate: String,
    /// The private key, PKCS#8.
    pub(crate) key: String,
}

/// A certificate authority.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, known to nobody.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key can be made");
        Authority {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a CA certificate can be made"),
        }
    }

    /// The CA certificate, PEM.
    pub(crate) fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for loopback.
    pub(crate) fn server(&self) -> Identity {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("loopback names are valid");
        self.issue(params, distinguished("server", None), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate: user in CN, group in O. (`rcgen` writes one O at most.)
    pub(crate) fn client(&self, user: &str, group: &str) -> Identity {
        let params = CertificateParams::default();
        self.issue(params, distinguished(user, Some(group)), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, mut params: CertificateParams, name: DistinguishedName, usage: ExtendedKeyUsagePurpose) -> Identity {
        params.distinguished_name = name;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A key pair that signs something else than certificates: public key and private key, PEM.
pub(crate) fn key_pair() -> (String, String) {
    let key = KeyPair::generate().expect("a key can be made");
    (key.public_key_pem(), key.serialize_pem())
}

fn distinguished(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}
