//! The source and state repositories: where they are, how they are followed. Fetches and watches; parses nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::writer::Wake;
use crate::core::ids::ObjectId;
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
    /// Commits that the remote lacked when it was opened.
    pub unpushed: usize,
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
    /// Somebody else wrote to a remote ref.
    #[error("{reference} of {url} is at {found}, and this hub has not put it there")]
    Foreign {
        /// The remote.
        url: String,
        /// The ref there.
        reference: String,
        /// What it points to.
        found: String,
    },
    /// The remote state branch and the one here have both gone on from where they were the same.
    #[error(
        "foreign commit: {reference} of {url} is at {found}, which this hub did not write, and {unpushed} commits here are not in it. Stop the \
         other writer, then restart this hub with an empty data directory to go on from what is there"
    )]
    Parted {
        /// The remote.
        url: String,
        /// The ref there.
        reference: String,
        /// What it points to.
        found: ObjectId,
        /// Commits of this hub that are not there.
        unpushed: usize,
    },
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

    /// Fetches if the remote ref moved; says whether it did. A ref that is gone leaves what is here.
    pub fn fetch(&self, repo: &Repo) -> Result<bool, SourceError> {
        let there = self.git.remote_ref(&address(&self.url), &self.reference)?;
        if there.is_none() || there == repo.resolve(&self.tracking)? {
            return Ok(false);
        }
        self.git.fetch(&address(&self.url), &self.reference, &self.tracking)?;
        Ok(true)
    }

    /// What the remote was last seen to have.
    pub fn seen(&self, repo: &Repo) -> Result<Option<ObjectId>, RepoError> {
        repo.resolve(&self.tracking)
    }

    /// Pushes a local ref with a lease on what the remote was last seen to have.
    pub fn push(&self, repo: &Repo, local: &str) -> Result<(), SourceError> {
        let (seen, head) = (self.seen(repo)?, repo.resolve(local)?);
        if let Err(error) = self.git.push(&address(&self.url), local, &self.reference, seen) {
            self.judge_failure(error, seen, head)?;
        }
        if let Some(head) = head {
            repo.move_ref(&self.tracking, seen, head)?;
        }
        Ok(())
    }

    /// A push that failed. What the remote has now, not what git printed, tells a lost line from a lost race and from a lost answer.
    fn judge_failure(&self, error: GitError, seen: Option<ObjectId>, head: Option<ObjectId>) -> Result<(), SourceError> {
        match self.git.remote_ref(&address(&self.url), &self.reference) {
            Ok(there) if there == head => Ok(()),
            Ok(there) if there != seen => Err(SourceError::Foreign {
                url: address(&self.url),
                reference: self.reference.clone(),
                found: there.map_or_else(|| "nothing".to_owned(), |id| id.to_string()),
            }),
            Ok(_) | Err(_) => Err(error.into()),
        }
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
                None => Git::new(repo.path())?
                    .remote_default_branch(text)?
                    .unwrap_or_else(|| "main".to_owned()),
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
    let remote = url.map(|url| Remote::new(&url, &repo, &reference, &tracking)).transpose()?;
    let mut state = StateRepository {
        repo,
        reference,
        remote,
        unpushed: 0,
    };
    state.unpushed = meet_remote_state(&state)?;
    Ok(state)
}

/// Brings the state branch here and the remote one together, and says how many commits the remote lacks. A new copy begins where the remote
/// is: recovery is a clone. A copy that is behind follows, one that is ahead pushes; two histories that have parted are for a person.
fn meet_remote_state(state: &StateRepository) -> Result<usize, SourceError> {
    let Some(remote) = &state.remote else { return Ok(0) };
    let here = state.repo.resolve(&state.reference)?;
    match (remote.fetch(&state.repo), here) {
        (Ok(_), _) => {}
        // Whoever knows nothing and asks nobody would begin a second history.
        (Err(error), None) => return Err(error),
        (Err(error), Some(_)) => {
            warn!(error = %error, "the state branch cannot be fetched now; the one in the data directory counts")
        }
    }
    let (Some(here), Some(there)) = (here, remote.seen(&state.repo)?) else {
        return begin_state(state, remote, here);
    };
    match state.repo.ahead_behind(here, there)? {
        (unpushed, 0) => Ok(unpushed),
        (0, _) => {
            state.repo.move_ref(&state.reference, Some(here), there)?;
            Ok(0)
        }
        (unpushed, _) => Err(SourceError::Parted {
            url: address(&remote.url),
            reference: remote.reference.clone(),
            found: there,
            unpushed,
        }),
    }
}

/// One of the two has no state branch yet, or neither.
fn begin_state(state: &StateRepository, remote: &Remote, here: Option<ObjectId>) -> Result<usize, SourceError> {
    match (here, remote.seen(&state.repo)?) {
        (None, Some(there)) => {
            state.repo.move_ref(&state.reference, None, there)?;
            Ok(0)
        }
        (Some(here), None) => Ok(state.repo.log(here, usize::MAX)?.len()),
        (None, None) | (Some(_), Some(_)) => Ok(0),
    }
}

/// Watches a local repository's refs and asks for a run when one moves. Only a hint: events can be lost, so the ref is polled too.
pub fn watch_refs(repo: &Repo, wakes: mpsc::Sender<Wake>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let relevant = event
            .as_ref()
            .is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| is_ref(path)));
        if relevant || event.is_err() {
            // A full queue already holds a wake-up that will see this change.
            let _ = wakes.try_send(Wake::Source("watch"));
        }
    })?;
    let refs: PathBuf = repo.path().join("refs").join("heads");
    watcher.watch(&refs, RecursiveMode::Recursive)?;
    watcher.watch(repo.path(), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn is_ref(path: &Path) -> bool {
    let lock = path.extension().is_some_and(|extension| extension == "lock");
    let own = path.components().any(|part| part.as_os_str() == "branchline");
    let packed = path.file_name().is_some_and(|name| name == "packed-refs");
    !lock && !own && (packed || path.components().any(|part| part.as_os_str() == "heads"))
}

/// Polls until the token ends: asks the remote, fetches when it moved, and wakes the writer.
pub async fn poll(source: Source, every: Duration, wakes: mpsc::Sender<Wake>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let wake = match fetch(source.clone()).await {
            Ok(()) => Wake::Source("poll"),
            Err(error) => Wake::Problem(format!("the source cannot be fetched: {error}")),
        };
        if wakes.send(wake).await.is_err() {
            return;
        }
    }
}

async fn fetch(source: Source) -> Result<(), SourceError> {
    let Some(remote) = source.remote.clone() else { return Ok(()) };
    let fetched = tokio::task::spawn_blocking(move || remote.fetch(&source.repo)).await;
    match fetched {
        Ok(Ok(moved)) => {
            debug!(moved, "asked the remote");
            Ok(())
        }
        Ok(Err(error)) => {
            warn!(error = %error, "the source cannot be fetched; the last good state stays");
            Err(error)
        }
        // The runtime is going down.
        Err(_) => Ok(()),
    }
}
