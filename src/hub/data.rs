//! The hub's data directory: its lock, its epoch, the administrator's kubeconfig. Everything in it can be lost: the repository and the
//! authority's key give the same hub.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ca::CertificateAuthority;
use crate::core::access::{ADMINS, renewal_time};
use crate::core::index::{Access, kept_text, read_kept};
use crate::core::yaml;

/// Life of the administrator's certificate; a start past two thirds of it writes a new one.
const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A lock is tried this often before another hub is said to hold it.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
const ADMIN_NAME: &str = "branchline:admin";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another hub runs on it.
    #[error("another hub is running with the data directory {path}; stop it, or use another --data")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The administrator's certificate cannot be made.
    #[error("the administrator's certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
}

/// An open data directory.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Held until the process ends.
    _lock: File,
}

/// What is remembered from start to start.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Remembered {
    epoch: u64,
    /// Server, authority and end of the certificate in the administrator's kubeconfig.
    admin_server: String,
    admin_authority: String,
    admin_not_before: u64,
    admin_not_after: u64,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::File { doing, path, source }
}

impl DataDirectory {
    /// Opens it, made if need be, for this process alone.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        fs::create_dir_all(path).map_err(failed("create", path))?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(failed("open", &file))?;
        // A process that is just ending, or a program that is just being started, may hold the lock for a moment longer.
        for _ in 0..LOCK_TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    let path = path.to_owned();
                    return Ok(DataDirectory { path, _lock: lock });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(failed("lock", &file)(error)),
            }
        }
        Err(DataError::Locked { path: path.to_owned() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The epoch for this start: above every one before, remembered or on the branch, because the branch may have been put back meanwhile and
    /// agents refuse a pair (epoch, generation) that they know. Seconds since 1970 keep it growing where directory and commits were lost.
    pub fn epoch(&self, on_branch: u64, now: SystemTime) -> Result<u64, DataError> {
        let mut remembered = self.remembered();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        remembered.epoch = seconds.max(on_branch + 1).max(remembered.epoch + 1);
        self.remember(&remembered)?;
        Ok(remembered.epoch)
    }

    /// Writes the administrator's kubeconfig unless the one that is there still serves.
    pub fn write_admin_kubeconfig(
        &self,
        server: &str,
        authority: &CertificateAuthority,
        now: SystemTime,
    ) -> Result<PathBuf, DataError> {
        let path = self.path.join("admin.kubeconfig");
        let mut remembered = self.remembered();
        let ends = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let fresh = now < renewal_time(ends(remembered.admin_not_before), ends(remembered.admin_not_after));
        let same = remembered.admin_server == server && remembered.admin_authority == authority.hash().as_str();
        if path.exists() && same && fresh {
            return Ok(path);
        }
        let issued = authority.issue_user(ADMIN_NAME, ADMINS, now, ADMIN_LIFETIME)?;
        let kubeconfig = kubeconfig(server, authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem);
        write_private(&path, kubeconfig.as_bytes())?;
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        remembered.admin_server = server.to_owned();
        remembered.admin_authority = authority.hash().to_string();
        remembered.admin_not_before = seconds(now);
        remembered.admin_not_after = seconds(issued.not_after);
        self.remember(&remembered)?;
        Ok(path)
    }

    /// Where roles and bindings are kept.
    pub fn access_file(&self) -> AccessFile {
        AccessFile(self.path.join("access.json"))
    }

    /// What cannot be read is as good as lost, which is allowed here.
    fn remembered(&self) -> Remembered {
        let text = fs::read_to_string(self.path.join("hub.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn remember(&self, remembered: &Remembered) -> Result<(), DataError> {
        let path = self.path.join("hub.json");
        write_private(&path, json!(remembered).to_string().as_bytes())
    }
}

/// The roles and bindings that counted last, for a start while a file below `hub/` does not parse. Lost, such a start grants nobody but
/// administrators anything until the file is repaired.
#[derive(Debug, Clone)]
pub struct AccessFile(PathBuf);

impl AccessFile {
    /// What was kept; nothing where it is lost.
    pub fn load(&self) -> Access {
        read_kept(&fs::read_to_string(&self.0).unwrap_or_default())
    }

    /// Keeps what counts now.
    pub fn store(&self, access: &Access) -> Result<(), DataError> {
        write_private(&self.0, kept_text(access).as_bytes())
    }
}

/// Writes a file of mode 0600 so that readers see the old or the new content, never a part.
fn write_private(path: &Path, content: &[u8]) -> Result<(), DataError> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("write", &beside))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("write", path))
}

fn kubeconfig(server: &str, authority: &str, certificate: &str, key: &str) -> String {
    let user = json!({"client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(key)});
    let cluster = json!({"server": server, "certificate-authority-data": STANDARD.encode(authority)});
    yaml::emit(&json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "hub",
        "clusters": [{"name": "hub", "cluster": cluster}],
        "users": [{"name": "branchline-admin", "user": user}],
        "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "branchline-admin"}}],
    }))
}
