//! The authority's two files: made on the first start, read again on every other. Nothing else in the directory is touched.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CaError, CertificateAuthority};

/// Long enough that nobody has to replace it, short enough that no date arithmetic overflows.
const CA_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
const CA_NAME: &str = "Branchline hub CA";
const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.crt";

impl CertificateAuthority {
    /// Loads the authority from `directory`, or makes it there on the first start.
    pub fn load_or_create(directory: &Path, now: SystemTime) -> Result<Self, CaError> {
        let files = Files::below(directory);
        let key = match read(&files.key)? {
            Some(pem) => parse_key(&files, &pem)?,
            None if files.certificate.exists() => return Err(files.key_missing()),
            None => files.create_key()?,
        };
        let pem = match read(&files.certificate)? {
            Some(pem) => pem,
            None => files.create_certificate(&key, now)?,
        };
        let certificate = check_certificate(&files.certificate, &pem, &key, now)?;
        Ok(CertificateAuthority::new(key, pem, certificate)?)
    }
}

struct Files {
    directory: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
}

impl Files {
    fn below(directory: &Path) -> Self {
        Files {
            directory: directory.to_owned(),
            key: directory.join(KEY_FILE),
            certificate: directory.join(CERTIFICATE_FILE),
        }
    }

    fn create_key(&self) -> Result<KeyPair, CaError> {
        fs::create_dir_all(&self.directory).map_err(failed("create", &self.directory))?;
        let key = KeyPair::generate()?;
        write(&self.key, &key.serialize_pem(), 0o600)?;
        Ok(key)
    }

    fn create_certificate(&self, key: &KeyPair, now: SystemTime) -> Result<String, CaError> {
        let (not_before, not_after) = super::validity(now, CA_LIFETIME);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, CA_NAME);
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let pem = params.self_signed(key)?.pem();
        write(&self.certificate, &pem, 0o644)?;
        Ok(pem)
    }

    fn key_missing(&self) -> CaError {
        CaError::KeyMissing {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

fn parse_key(files: &Files, pem: &str) -> Result<KeyPair, CaError> {
    KeyPair::from_pem(pem).map_err(|source| CaError::Key {
        path: files.key.clone(),
        directory: files.directory.clone(),
        source,
    })
}

fn check_certificate(path: &Path, pem: &str, key: &KeyPair, now: SystemTime) -> Result<CertificateDer<'static>, CaError> {
    let wrong = |problem| CaError::Certificate {
        path: path.to_owned(),
        problem,
    };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong("is not a certificate in PEM"))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| wrong("is not an X.509 certificate"))?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(wrong("belongs to another key than the ca.key beside it"));
    }
    if SystemTime::from(parsed.validity().not_after.to_datetime()) < now {
        return Err(wrong("has expired"));
    }
    drop(parsed);
    Ok(der)
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Written beside and renamed, so that a crash leaves the whole file or none.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = path.parent().unwrap_or(Path::new("."));
    let store = || -> io::Result<()> {
        let permissions = fs::Permissions::from_mode(mode);
        let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        fs::File::open(directory)?.sync_all()
    };
    store().map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::File { action, path, source }
}
