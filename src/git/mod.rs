//! Git: reading commits from the object database, writing the state branch, and the `git` program for everything that touches a network.
//! Decides nothing about content; never checks anything out.

mod log;
mod program;
mod read;
mod url;
mod write;

use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use crate::core::ids::ObjectId;

pub use log::Log;
pub use program::{Git, GitError};
pub use read::Contents;
pub use url::{InvalidUrl, RepositoryUrl};
pub use write::{Commit, CommitInfo, WriteError};

/// Whether git takes this as a branch's name.
pub fn is_branch_name(name: &str) -> bool {
    git2::Reference::is_valid_name(&format!("refs/heads/{name}"))
}

/// A repository on this machine. `Repository` handles are opened per operation, because a long-lived one keeps deleted packs open
/// (rust-lang/git2-rs#904).
#[derive(Debug, Clone)]
pub struct Repo {
    path: PathBuf,
}

/// Why a repository could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// There is no repository, or it cannot be opened.
    #[error("cannot open the git repository {path}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// The branch is not there.
    #[error("{path} has no branch {branch:?}; its branches: {branches}")]
    NoBranch {
        /// The repository.
        path: PathBuf,
        /// The branch that was asked for.
        branch: String,
        /// What there is.
        branches: String,
    },
    /// A branch elsewhere is not there.
    #[error("{url} has no branch {branch:?}; its branches: {branches}")]
    NoRemoteBranch {
        /// The address.
        url: String,
        /// The branch that was asked for.
        branch: String,
        /// What there is.
        branches: String,
    },
    /// The configured path is not in the commit.
    #[error("commit {commit} has no directory {path:?}")]
    NoPath {
        /// The commit.
        commit: ObjectId,
        /// The configured path.
        path: String,
    },
    /// Something else.
    #[error("cannot {doing}")]
    Git {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: git2::Error,
    },
}

impl RepoError {
    fn git(doing: impl Into<String>) -> impl FnOnce(git2::Error) -> RepoError {
        let doing = doing.into();
        move |source| RepoError::Git { doing, source }
    }
}

impl Repo {
    /// Opens a bare repository or the one of a work tree; looks into no parent directory.
    pub fn open(path: &Path) -> Result<Self, RepoError> {
        let repository = Repository::open(path).map_err(|source| RepoError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Repo {
            path: repository.path().to_owned(),
        })
    }

    /// Makes an empty bare repository unless there is one.
    pub fn init_bare(path: &Path) -> Result<Self, RepoError> {
        let open = |source| RepoError::Open {
            path: path.to_owned(),
            source,
        };
        let repository = match Repository::open_bare(path) {
            Ok(repository) => repository,
            Err(_) => Repository::init_bare(path).map_err(open)?,
        };
        Ok(Repo {
            path: repository.path().to_owned(),
        })
    }

    /// The git directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn handle(&self) -> Result<Repository, RepoError> {
        Repository::open(&self.path).map_err(|source| RepoError::Open {
            path: self.path.clone(),
            source,
        })
    }

    /// The commit that a full ref name points to; `None` where there is no such ref.
    pub fn resolve(&self, reference: &str) -> Result<Option<ObjectId>, RepoError> {
        let repository = self.handle()?;
        match repository.refname_to_id(reference) {
            Ok(id) => Ok(Some(object_id(id))),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(RepoError::git(format!("read {reference}"))(error)),
        }
    }

    /// The commit that a revision names, as `git rev-parse` reads it.
    pub fn rev_parse(&self, revision: &str) -> Result<ObjectId, RepoError> {
        let doing = || format!("find revision {revision:?} in {}", self.path.display());
        let repository = self.handle()?;
        let object = repository.revparse_single(revision).map_err(RepoError::git(doing()))?;
        let commit = object.peel_to_commit().map_err(RepoError::git(doing()))?;
        Ok(object_id(commit.id()))
    }

    /// The branch that `HEAD` names, also where it has no commit yet.
    pub fn default_branch(&self) -> Result<String, RepoError> {
        let repository = self.handle()?;
        let head = repository.find_reference("HEAD").map_err(RepoError::git("read HEAD"))?;
        let target = head
            .symbolic_target()
            .map_err(RepoError::git("read HEAD"))?
            .unwrap_or("refs/heads/main");
        Ok(target.strip_prefix("refs/heads/").unwrap_or(target).to_owned())
    }

    /// Makes `HEAD` name a branch.
    pub fn set_default_branch(&self, branch: &str) -> Result<(), RepoError> {
        let repository = self.handle()?;
        repository
            .set_head(&format!("refs/heads/{branch}"))
            .map_err(RepoError::git("set HEAD"))
    }

    /// The names of refs below a prefix such as `refs/heads/`, without it.
    pub fn names_below(&self, prefix: &str) -> Result<Vec<String>, RepoError> {
        let repository = self.handle()?;
        let references = repository
            .references_glob(&format!("{prefix}*"))
            .map_err(RepoError::git("list branches"))?;
        let name = |reference: git2::Reference<'_>| Some(reference.name().ok()?.strip_prefix(prefix)?.to_owned());
        Ok(references.flatten().filter_map(name).collect())
    }
}

fn object_id(id: Oid) -> ObjectId {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(id.as_bytes());
    ObjectId::from_bytes(bytes)
}

fn oid(id: ObjectId) -> Oid {
    // Twenty bytes always make an Oid.
    Oid::from_bytes(id.as_bytes()).unwrap_or(Oid::ZERO_SHA1)
}

#[cfg(test)]
mod tests;
