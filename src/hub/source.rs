//! The source and state repositories: where they are, how they are followed. Fetches and watches; parses nothing.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::writer::Wake;
use crate::core::ids::ObjectId;
use crate::core::text::with_causes;
use crate::git::{Git, GitError, Repo, RepoError, RepositoryUrl, WriteError};

/// Where commits of the source come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The repository that is read: people's own, or the hub's bare copy of a remote one.
    pub repo: Repo,
    /// The ref that holds the source branch in `repo`.
    pub reference: String,
    /// The branch's name, for messages.
    pub branch: String,
    /// The remote that is fetched from, if it is one.
    pub remote: Option<Remote>,
}

/// Where the state branch is written.
#[derive(Debug, Clone)]
pub struct StateRepository {
    /// The repository that is written.
    pub repo: Repo,
    /// The state branch's ref in `repo`.
    pub reference: String,
    /// The remote that is pushed to, if any.
    pub remote: Option<Remote>,
}

/// A repository elsewhere.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Its address.
    pub url: RepositoryUrl,
    git: Git,
    /// The ref there.
    reference: String,
    /// The ref here that keeps what the remote was last seen to have.
    tracking: String,
}

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The git program failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The local repository cannot be read.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The local copy cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// People push to the branch that only the hub may write.
    #[error(
        "the source branch and the state branch are both {branch}; the hub writes the state branch alone: name another with --state-branch"
    )]
    SameBranch {
        /// The branch.
        branch: String,
    },
    /// Somebody else pushed to the state branch.
    #[error(
        "foreign commit on branch {branch} of {url}: found {found}, this hub has {mine}, which does not follow from it. Stop the other \
         writer, then restart this hub with an empty data directory to go on from what is there, or put the branch back with: git push --force \
         {url} {mine}:refs/heads/{branch}"
    )]
    Foreign {
        /// The address.
        url: String,
        /// The state branch.
        branch: String,
        /// What is there.
        found: String,
        /// What this hub wrote.
        mine: ObjectId,
    },
}

impl Source {
    /// That the branch is not there, with what there is.
    pub fn missing(&self) -> Result<RepoError, RepoError> {
        let branch = self.branch.clone();
        Ok(match &self.remote {
            Some(remote) => RepoError::NoRemoteBranch {
                url: remote.url.to_string(),
                branch,
                branches: "not known: nothing was fetched yet".to_owned(),
            },
            None => RepoError::NoBranch {
                path: self.repo.path().to_owned(),
                branch,
                branches: branch_list(&self.repo.names_below("refs/heads/")?),
            },
        })
    }
}

fn address(url: &RepositoryUrl) -> String {
    match url {
        RepositoryUrl::Local(path) => path.display().to_string(),
        RepositoryUrl::Remote(url) => url.clone(),
    }
}

impl Remote {
    fn new(url: &RepositoryUrl, repo: &Repo, reference: &str, tracking: &str) -> Result<Self, SourceError> {
        let git = Git::new(repo.path())?;
        Ok(Remote {
            url: url.clone(),
            git,
            reference: reference.to_owned(),
            tracking: tracking.to_owned(),
        })
    }

    /// Fetches if the remote ref moved; says whether the remote has it. A ref that is gone leaves what is here.
    fn fetch(&self, repo: &Repo) -> Result<bool, SourceError> {
        let there = self.git.remote_ref(&address(&self.url), &self.reference)?;
        if there.is_some() && there != repo.resolve(&self.tracking)? {
            self.git.fetch(&address(&self.url), &self.reference, &self.tracking)?;
        }
        Ok(there.is_some())
    }

    /// Fetches the source branch if it moved; that it is not there is an error.
    pub fn follow(&self, repo: &Repo) -> Result<(), SourceError> {
        if self.fetch(repo)? {
            return Ok(());
        }
        let names = self.git.remote_branches(&address(&self.url))?;
        Err(RepoError::NoRemoteBranch {
            url: self.url.to_string(),
            branch: self.branch().to_owned(),
            branches: branch_list(&names),
        }
        .into())
    }

    fn branch(&self) -> &str {
        self.reference.strip_prefix("refs/heads/").unwrap_or(&self.reference)
    }

    /// What the remote was last seen to have.
    pub fn seen(&self, repo: &Repo) -> Result<Option<ObjectId>, RepoError> {
        repo.resolve(&self.tracking)
    }

    /// Pushes a commit with a lease on what the remote was last seen to have.
    pub fn push(&self, repo: &Repo, commit: ObjectId) -> Result<(), SourceError> {
        let Err(error) = self.push_over(repo, commit, self.seen(repo)?) else {
            return Ok(());
        };
        // What the remote has now, not what git printed, tells a lost line from a lost race and from a lost answer.
        let before = self.seen(repo)?;
        let Ok(known) = self.fetch(repo) else { return Err(error) };
        let there = if known { self.seen(repo)? } else { None };
        match there {
            there if there == before => Err(error),
            Some(there) if repo.leads_to(there, commit)? => self.push_over(repo, commit, Some(there)),
            there => Err(SourceError::Foreign {
                url: self.url.to_string(),
                branch: self.branch().to_owned(),
                found: there.map_or("nothing".to_owned(), |id| id.to_string()),
                mine: commit,
            }),
        }
    }

    fn push_over(&self, repo: &Repo, commit: ObjectId, seen: Option<ObjectId>) -> Result<(), SourceError> {
        if seen != Some(commit) {
            self.git.push(&address(&self.url), commit, &self.reference, seen)?;
            repo.move_ref(&self.tracking, seen, commit)?;
        }
        Ok(())
    }
}

/// Branches for a message, without the hub's own.
fn branch_list(names: &[String]) -> String {
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("branchline/"))
        .take(20)
        .collect();
    if names.is_empty() {
        "none; push a first commit".to_owned()
    } else {
        names.join(", ")
    }
}

/// Opens the source. A local one is read in place; of a remote one a bare copy is kept in the data directory.
pub fn open_source(url: &RepositoryUrl, branch: Option<&str>, data: &Path) -> Result<Source, SourceError> {
    match url {
        RepositoryUrl::Local(path) => {
            let repo = Repo::open(path)?;
            let branch = branch.map_or_else(|| repo.default_branch(), |branch| Ok(branch.to_owned()))?;
            Ok(Source {
                repo,
                reference: format!("refs/heads/{branch}"),
                branch,
                remote: None,
            })
        }
        RepositoryUrl::Remote(text) => {
            let repo = Repo::init_bare(&data.join("repository.git"))?;
            let branch = match branch {
                Some(branch) => branch.to_owned(),
                None => default_branch(&repo, text)?,
            };
            let tracking = format!("refs/remotes/source/{branch}");
            let remote = Remote::new(url, &repo, &format!("refs/heads/{branch}"), &tracking)?;
            Ok(Source {
                repo,
                reference: tracking,
                branch,
                remote: Some(remote),
            })
        }
    }
}

/// The remote's default branch; while the remote does not answer, the one that was followed before.
fn default_branch(repo: &Repo, url: &str) -> Result<String, SourceError> {
    let known = repo.names_below("refs/remotes/source/")?;
    match Git::new(repo.path())?.remote_default_branch(url) {
        Ok(branch) => Ok(branch.unwrap_or_else(|| "main".to_owned())),
        Err(error) => match &known[..] {
            [only] => {
                warn!(error = %error, branch = %only, "the source does not answer; the branch that was followed before counts");
                Ok(only.clone())
            }
            _ => Err(error.into()),
        },
    }
}

/// Opens the state repository: the source's own unless another is named.
pub fn open_state(
    source: &Source,
    url: Option<&RepositoryUrl>,
    branch: &str,
    data: &Path,
) -> Result<StateRepository, SourceError> {
    let reference = format!("refs/heads/{branch}");
    let tracking = format!("refs/remotes/state/{branch}");
    let (repo, url) = match url {
        None => (source.repo.clone(), source.remote.as_ref().map(|remote| remote.url.clone())),
        Some(RepositoryUrl::Local(path)) => (Repo::open(path)?, None),
        Some(url) => (Repo::init_bare(&data.join("state.git"))?, Some(url.clone())),
    };
    // Only now it is known which branch is the source's default one.
    let is_same_repository = match (&url, &source.remote) {
        (Some(url), Some(remote)) => *url == remote.url,
        (None, None) => repo.path() == source.repo.path(),
        _ => false,
    };
    if is_same_repository && source.branch == branch {
        let branch = branch.to_owned();
        return Err(SourceError::SameBranch { branch });
    }
    let remote = url.map(|url| Remote::new(&url, &repo, &reference, &tracking)).transpose()?;
    let state = StateRepository { repo, reference, remote };
    adopt_remote_state(&state)?;
    Ok(state)
}

/// A new copy begins where the remote state branch is, because recovery is a clone, and one that fell behind another hub goes on from there.
/// While the remote does not answer, what is here counts, if there is anything.
fn adopt_remote_state(state: &StateRepository) -> Result<(), SourceError> {
    let Some(remote) = &state.remote else { return Ok(()) };
    let here = state.repo.resolve(&state.reference)?;
    if let Err(error) = remote.fetch(&state.repo) {
        if here.is_none() {
            return Err(error);
        }
        warn!(error = %error, "the remote state branch cannot be fetched now; the local one counts");
    }
    let Some(seen) = remote.seen(&state.repo)? else {
        return Ok(());
    };
    match here {
        Some(here) if state.repo.leads_to(seen, here)? => Ok(()),
        Some(here) if !state.repo.leads_to(here, seen)? => Err(SourceError::Foreign {
            url: remote.url.to_string(),
            branch: remote.branch().to_owned(),
            found: seen.to_string(),
            mine: here,
        }),
        here => Ok(state.repo.move_ref(&state.reference, here, seen)?),
    }
}

/// Inode and birth: a number may be used again.
type Directory = (u64, Option<std::time::SystemTime>);

/// Watches a local repository's refs and asks for a run when one moves. Only a hint: events can be lost, so the ref is polled too. A
/// repository that was replaced by another one is watched anew.
struct RefWatch {
    directory: PathBuf,
    /// The state branch's ref, whose events are the hub's own.
    own: PathBuf,
    wakes: mpsc::Sender<Wake>,
    watcher: Option<(Directory, notify::RecommendedWatcher)>,
}

impl RefWatch {
    fn new(source: &Source, own: &str, wakes: mpsc::Sender<Wake>) -> Self {
        let mut watch = RefWatch {
            directory: source.repo.path().to_owned(),
            own: own.into(),
            wakes,
            watcher: None,
        };
        watch.renew();
        watch
    }

    /// Makes the watcher again if there is none, or if the directory is another one than before.
    fn renew(&mut self) {
        let found = std::fs::metadata(self.directory.join("refs/heads"));
        let directory = found.map(|found| (found.ino(), found.created().ok()));
        match (directory, &self.watcher) {
            (Ok(directory), Some((watched, _))) if directory == *watched => {}
            (Ok(directory), _) => {
                self.watcher = match self.watch() {
                    Ok(watcher) => Some((directory, watcher)),
                    Err(error) => {
                        debug!(error = %error, "changes of the repository are not watched; it is polled");
                        None
                    }
                }
            }
            // It may come back as the same directory.
            (Err(_), _) => {}
        }
    }

    fn watch(&self) -> notify::Result<notify::RecommendedWatcher> {
        let (wakes, directory, own) = (self.wakes.clone(), self.directory.clone(), self.own.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = |path: &PathBuf| is_source_ref(path.strip_prefix(&directory).unwrap_or(path), &own);
            let relevant = event
                .as_ref()
                .is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(concerns));
            if relevant || event.is_err() {
                // A full queue already holds a wake-up that will see this change.
                let _ = wakes.try_send(Wake::Source("watch"));
            }
        })?;
        watcher.watch(&self.directory.join("refs/heads"), RecursiveMode::Recursive)?;
        watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Whether a path below the git directory may be a ref that the hub reads and does not write.
fn is_source_ref(path: &Path, own: &Path) -> bool {
    let lock = path.extension().is_some_and(|extension| extension == "lock");
    let ours = path.starts_with(own) || own.starts_with(path);
    !lock && !ours && (path == Path::new("packed-refs") || path.starts_with("refs/heads"))
}

/// Follows the source until the token ends: watches a local repository, asks a remote, fetches when it moved, and wakes the writer.
pub async fn follow(source: Source, own: String, every: Duration, wakes: mpsc::Sender<Wake>, stop: CancellationToken) {
    let mut watch = source.remote.is_none().then(|| RefWatch::new(&source, &own, wakes.clone()));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Some(watch) = &mut watch {
            watch.renew();
        }
        let fetched = tokio::select! {
            () = stop.cancelled() => return,
            fetched = fetch(source.clone()) => fetched,
        };
        let fetched = fetched.map_err(|error| format!("the source cannot be fetched: {}", with_causes(&error)));
        if wakes.send(Wake::Polled(fetched)).await.is_err() {
            return;
        }
    }
}

async fn fetch(source: Source) -> Result<(), SourceError> {
    let Some(remote) = source.remote.clone() else { return Ok(()) };
    // A thread and no blocking task: a runtime waits for those at its end, and a remote may hang for minutes.
    let (reply, fetched) = oneshot::channel();
    let fetch = move || {
        // Whoever waits is gone at the end of the process.
        let _ = reply.send(remote.follow(&source.repo));
    };
    std::thread::Builder::new()
        .name("fetch".to_owned())
        .spawn(fetch)
        .map_err(GitError::Spawn)?;
    fetched.await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_does_not_wake_itself_and_is_not_deaf() {
        let is = |path: &str| is_source_ref(Path::new(path), Path::new("refs/heads/branchline/state"));
        assert!(is("refs/heads/main") && is("refs/heads/team/branchline/main") && is("packed-refs"));
        assert!(!is("refs/heads/branchline/state") && !is("refs/heads/branchline/state.lock") && !is("refs/heads/branchline"));
        assert!(!is("refs/heads/main.lock") && !is("HEAD.lock") && !is("objects"));
    }
}
