//! The remote state branch: one push at a time on a thread of its own, so that a remote that hangs holds up neither commits nor reads.
//!
//! ```text
//! commit ─► (nothing under way) push ─► Pushed(ok) ─► deliver it; push again if there are newer commits
//!                                 └───► Pushed(error) ─► tried again with the next poll; a lease that does not hold stops the writer
//! ```

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::super::source::{Remote, SourceError, StateRepository};
use super::{Wake, Writer};
use crate::core::ids::ObjectId;
use crate::core::state::State;
use crate::core::text::with_causes;
use crate::git::{Repo, RepoError};

/// How a push ended.
pub type Pushed = Result<ObjectId, SourceError>;

/// A commit of the state branch with what it says.
pub(super) struct Written {
    pub(super) commit: ObjectId,
    pub(super) generation: u64,
    pub(super) state: Arc<State>,
}

/// What the remote is known to have.
pub(super) struct Pushing {
    remote: Remote,
    wakes: mpsc::WeakSender<Wake>,
    /// What is being pushed: it is delivered when the remote has it, whatever was written meanwhile.
    under_way: Option<Written>,
    pushed: Option<ObjectId>,
    /// How many commits the remote lacks, and since when (RFC 3339).
    lacking: Option<(u64, String)>,
}

impl Pushing {
    /// Reads what the remote was last seen to have; commits that an earlier process did not push are pushed by this one.
    pub(super) fn new(
        state: &StateRepository,
        head: Option<ObjectId>,
        wakes: mpsc::WeakSender<Wake>,
    ) -> Result<Option<Self>, RepoError> {
        let Some(remote) = state.remote.clone() else {
            return Ok(None);
        };
        let mut pushing = Pushing {
            pushed: remote.seen(&state.repo)?,
            remote,
            wakes,
            under_way: None,
            lacking: None,
        };
        pushing.count(&state.repo, head)?;
        Ok(Some(pushing))
    }

    fn count(&mut self, repo: &Repo, head: Option<ObjectId>) -> Result<(), RepoError> {
        self.lacking = match head {
            Some(head) if self.pushed != Some(head) => {
                let (count, oldest) = repo.ahead(head, self.pushed)?;
                let since = oldest.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
                Some((count, since.map(|time| time.to_string()).unwrap_or_default()))
            }
            _ => None,
        };
        Ok(())
    }

    fn begin(&mut self, repo: &Repo, written: Written) -> std::io::Result<()> {
        let (remote, repo, wakes) = (self.remote.clone(), repo.clone(), self.wakes.clone());
        let head = written.commit;
        let push = move || {
            let pushed = remote.push(&repo, head).map(|()| head);
            // Without a queue the writer has ended, and the next start looks at the remote.
            if let Some(wakes) = wakes.upgrade() {
                let _ = wakes.blocking_send(Wake::Pushed(pushed));
            }
        };
        std::thread::Builder::new().name("push".to_owned()).spawn(push)?;
        self.under_way = Some(written);
        Ok(())
    }
}

impl Writer {
    /// How many commits the remote lacks, and since when.
    pub(super) fn lacking(&self) -> Option<(u64, String)> {
        self.pushing.as_ref().and_then(|pushing| pushing.lacking.clone())
    }

    /// Whether the remote, if there is one, has everything up to `head`.
    pub(super) fn is_pushed(&self, head: Option<ObjectId>) -> bool {
        self.pushing.as_ref().is_none_or(|pushing| pushing.pushed == head)
    }

    /// Counts what the remote lacks, and pushes unless a push is under way.
    pub(super) fn push(&mut self) {
        let written = self.written();
        let (Some(pushing), Some(written)) = (&mut self.pushing, written) else {
            return;
        };
        let head = written.commit;
        let repo = &self.state_repository.repo;
        if let Err(error) = pushing.count(repo, Some(head)) {
            warn!(error = %with_causes(&error), "the commits that the remote lacks cannot be counted");
        }
        if pushing.under_way.is_some() || pushing.pushed == Some(head) || self.problems.foreign.is_some() {
            return;
        }
        if let Err(error) = pushing.begin(repo, written) {
            self.problems.pushing = Some(format!("the state branch cannot be pushed: {error}"));
        }
    }

    /// A push has ended; whether it succeeded.
    pub(super) fn note_pushed(&mut self, pushed: Pushed) -> bool {
        let Some(pushing) = &mut self.pushing else { return false };
        let written = pushing.under_way.take();
        match pushed {
            Ok(id) => {
                info!(commit = %id, remote = %pushing.remote.url, "pushed");
                pushing.pushed = Some(id);
                self.problems.pushing = None;
                if let Some(written) = written {
                    self.deliver(written);
                }
                true
            }
            Err(error @ SourceError::Foreign { .. }) => {
                self.stop(with_causes(&error));
                false
            }
            Err(error) => {
                let problem = format!(
                    "the state branch cannot be pushed to {}; it is tried again: {}",
                    pushing.remote.url,
                    with_causes(&error)
                );
                self.problems.pushing = Some(problem);
                false
            }
        }
    }
}
