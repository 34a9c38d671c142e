//! The source's log: what it said at each commit, newest first, along first parents. Commits that changed nothing below the configured path are
//! passed over.

use git2::{Oid, Repository};

use super::read::tree_at;
use super::{Contents, Repo, RepoError, object_id, oid};
use crate::core::ids::ObjectId;
use crate::core::index::{self, ParseCache};
use crate::core::pipeline::Past;
use crate::core::yaml::Limits;

/// Commits that are looked at; behind so many without a change below the configured path the log ends.
const MOST_COMMITS: usize = 10_000;

impl Repo {
    /// What the source said at a commit and before it. Reads a commit when it is asked for; `parses` holds files that are parsed already.
    pub fn log(&self, head: ObjectId, path: &str, limits: Limits, parses: ParseCache) -> Result<Log, RepoError> {
        Ok(Log {
            repo: self.clone(),
            repository: self.handle()?,
            contents: self.contents()?,
            path: path.to_owned(),
            limits,
            parses,
            next: Some(head),
            is_whole: false,
            left: MOST_COMMITS,
        })
    }
}

/// See [`Repo::log`].
pub struct Log {
    repo: Repo,
    repository: Repository,
    contents: Contents,
    path: String,
    limits: Limits,
    parses: ParseCache,
    next: Option<ObjectId>,
    /// Whether nothing is before what was read last.
    is_whole: bool,
    left: usize,
}

impl Iterator for Log {
    type Item = Result<Past, RepoError>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.next.take().filter(|_| self.left > 0)?;
        Some(self.read(head))
    }
}

impl Log {
    fn read(&mut self, head: ObjectId) -> Result<Past, RepoError> {
        let tree = tree_at(&self.repository, head, &self.path)?;
        let commit = self.first_with(tree, head)?;
        let files = self.repo.files(commit, &self.path)?;
        self.parses.fill(&files, &self.limits, |id| self.contents.blob(id))?;
        let (snapshot, _) = index::build(&files, &self.parses, &self.limits);
        self.parses.retain(&files);
        Ok(Past {
            commit,
            time: self.commit(commit)?.time().seconds(),
            is_first: self.is_whole,
            snapshot,
        })
    }

    /// The oldest commit of the row that has this tree below the path; the one before it is next.
    fn first_with(&mut self, tree: Oid, head: ObjectId) -> Result<ObjectId, RepoError> {
        let mut commit = head;
        while self.left > 0 {
            self.left -= 1;
            let Ok(parent) = self.commit(commit)?.parent_id(0).map(object_id) else {
                self.is_whole = true;
                return Ok(commit);
            };
            if self.commit(parent).is_err() {
                // A shallow clone ends here, its log does not.
                return Ok(commit);
            }
            match tree_at(&self.repository, parent, &self.path) {
                Ok(before) if before == tree => commit = parent,
                Ok(_) => {
                    self.next = Some(parent);
                    return Ok(commit);
                }
                // Without the configured path there was no source yet.
                Err(RepoError::NoPath { .. }) => {
                    self.is_whole = true;
                    return Ok(commit);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(commit)
    }

    fn commit(&self, commit: ObjectId) -> Result<git2::Commit<'_>, RepoError> {
        self.repository
            .find_commit(oid(commit))
            .map_err(RepoError::git(format!("read commit {commit}")))
    }
}
