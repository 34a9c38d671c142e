//! The agent's key and certificate, and where they are kept: a Secret in its own cluster, or a file that only its owner can read.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::CredentialsPlace;
use crate::cluster::{ApiError, Cluster, SYSTEM_NAMESPACE};
use crate::core::ids::ClusterId;

const SECRET: &str = "branchline-agent";
const KEY: &str = "credentials.json";

/// What the agent has to keep between two starts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The cluster that they are for.
    pub cluster_id: ClusterId,
    /// Private key, PEM. Made by the agent, never sent anywhere.
    pub key: String,
    /// The hub's CA, PEM; empty before the first contact.
    #[serde(default)]
    pub ca: String,
    /// Client certificate, PEM; empty until the registration is approved.
    #[serde(default)]
    pub certificate: String,
    /// The dedicated namespace on the hub.
    #[serde(default)]
    pub namespace: String,
    /// The ManagedCluster's name.
    #[serde(default)]
    pub name: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("cluster_id", &self.cluster_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why credentials could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file.
    #[error("credentials file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the private key.
    #[error("credentials file {0} can be read by others; make it private with `chmod 600 {0}`")]
    Open(PathBuf),
    /// The Secret.
    #[error("Secret {SYSTEM_NAMESPACE}/{SECRET}: {}", .0.explain())]
    Secret(#[from] ApiError),
    /// What is kept there is something else.
    #[error("{place} holds no agent credentials: {message}; remove it to register anew")]
    Broken {
        /// Where.
        place: String,
        /// Why.
        message: String,
    },
}

/// Reads and writes credentials at one place.
#[derive(Clone, Debug)]
pub struct CredentialsStore {
    place: CredentialsPlace,
    cluster: Cluster,
}

impl CredentialsStore {
    /// The store of this cluster's agent.
    pub fn new(place: CredentialsPlace, cluster: Cluster) -> Self {
        CredentialsStore { place, cluster }
    }

    /// Where they are, for people.
    pub fn describe(&self) -> String {
        match &self.place {
            CredentialsPlace::Secret => format!("Secret {SYSTEM_NAMESPACE}/{SECRET}"),
            CredentialsPlace::File(path) => path.display().to_string(),
        }
    }

    /// What is kept, or nothing.
    pub async fn load(&self) -> Result<Option<Credentials>, CredentialsError> {
        let text = match &self.place {
            CredentialsPlace::File(path) => read_private(path)?,
            CredentialsPlace::Secret => self.read_secret().await?,
        };
        let Some(text) = text else {
            return Ok(None);
        };
        let credentials = serde_json::from_slice(&text).map_err(|error| self.broken(&error))?;
        Ok(Some(credentials))
    }

    /// Keeps them.
    pub async fn save(&self, credentials: &Credentials) -> Result<(), CredentialsError> {
        let text = serde_json::to_vec(credentials).map_err(|error| self.broken(&error))?;
        match &self.place {
            CredentialsPlace::File(path) => write_private(path, &text).map_err(|source| file_error(path, source)),
            CredentialsPlace::Secret => self.write_secret(&text).await,
        }
    }

    async fn read_secret(&self) -> Result<Option<Vec<u8>>, CredentialsError> {
        let secret: Value = match self.cluster.get(&secret_path()).await {
            Ok(secret) => secret,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(encoded) = secret["data"][KEY].as_str() else {
            return Ok(None);
        };
        STANDARD.decode(encoded).map(Some).map_err(|error| self.broken(&error))
    }

    async fn write_secret(&self, text: &[u8]) -> Result<(), CredentialsError> {
        let body = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {KEY: STANDARD.encode(text)},
            "metadata": {"name": SECRET, "namespace": SYSTEM_NAMESPACE}});
        match self.cluster.apply_at(&secret_path(), &body).await {
            Err(error) if error.is_not_found() => {
                self.cluster.ensure_system_namespace().await?;
                Ok(self.cluster.apply_at(&secret_path(), &body).await?)
            }
            answer => Ok(answer?),
        }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> CredentialsError {
        CredentialsError::Broken {
            place: self.describe(),
            message: error.to_string(),
        }
    }
}

fn secret_path() -> String {
    format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets/{SECRET}")
}

fn read_private(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(path, error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(CredentialsError::Open(path.to_owned()));
    }
    std::fs::read(path).map(Some).map_err(|error| file_error(path, error))
}

/// Written beside and moved into place, so that a kill leaves the old or the new one, and never readable by others.
fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn file_error(path: &Path, source: std::io::Error) -> CredentialsError {
    CredentialsError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_of_credentials_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/credentials");
        assert_eq!(read_private(&path).unwrap(), None);
        for content in [b"one".as_slice(), b"two"] {
            write_private(&path, content).unwrap();
            assert_eq!(read_private(&path).unwrap().unwrap(), content);
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_private(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
