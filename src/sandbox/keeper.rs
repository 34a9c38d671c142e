//! Keeps a sandbox's objects in a file: reads it at the start, writes it anew (to a second file, then renamed) a moment after
//! changes, and once more at the end. Owns that file; knows nothing of what is in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Sandbox;
use super::snapshot::{SNAPSHOT_VERSION, Snapshot};

/// Changes that follow within this time are written together.
const COALESCE: Duration = Duration::from_millis(200);

/// Why a sandbox's file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The file system refused.
    #[error("the sandbox's objects in {path} could not be {action}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not a snapshot.
    #[error("{path} does not hold a sandbox's objects (delete it to start with an empty sandbox)")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a later version of this program.
    #[error("{path} was written by a newer version of branchline (layout {found}); use that version, or delete the file")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
}

/// The snapshot in a file; `None` when there is no file yet.
pub fn load_snapshot(path: &Path) -> Result<Option<Snapshot>, KeepError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(path, "read", source)),
    };
    let snapshot: Snapshot = serde_json::from_slice(&bytes).map_err(|source| KeepError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    if snapshot.version > SNAPSHOT_VERSION {
        return Err(KeepError::Newer {
            path: path.to_owned(),
            found: snapshot.version,
        });
    }
    Ok(Some(snapshot))
}

/// Writes the snapshot beside the file and renames it, so that a crash leaves the old or the new content.
pub fn save_snapshot(path: &Path, snapshot: &Snapshot) -> Result<(), KeepError> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(io::BufWriter::new(file.as_file_mut()), snapshot)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| failed(path, "written", source))
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> KeepError {
    KeepError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}

/// Writes the file after changes until cancelled, and a last time then. A write that fails is logged and tried again with the next
/// change; the last one is returned.
pub async fn keep(sandbox: Sandbox, path: PathBuf, cancel: CancellationToken) -> Result<(), KeepError> {
    let mut revisions = sandbox.revisions();
    loop {
        let changed = tokio::select! {
            () = cancel.cancelled() => false,
            changed = revisions.changed() => changed.is_ok(),
        };
        if !changed {
            return save(&sandbox, &path).await;
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(COALESCE) => {}
        }
        revisions.mark_unchanged();
        if let Err(error) = save(&sandbox, &path).await {
            tracing::error!(error = &error as &dyn std::error::Error, "sandbox objects not kept");
        }
    }
}

async fn save(sandbox: &Sandbox, path: &Path) -> Result<(), KeepError> {
    let (snapshot, target) = (sandbox.export(), path.to_owned());
    let written = tokio::task::spawn_blocking(move || save_snapshot(&target, &snapshot)).await;
    written.unwrap_or_else(|error| Err(failed(path, "written", io::Error::other(error))))
}
