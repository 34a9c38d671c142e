//! What a run came to, made a commit on the state branch: written, logged, and never over somebody else's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::{Cause, Phases, Writer};
use crate::core::ids::ObjectId;
use crate::core::pipeline::Outcome;
use crate::core::state::{CommitMessage, NewObject};
use crate::core::text::{counted, with_causes};
use crate::git::{Commit, Git, WriteError};

impl Writer {
    /// Joins packs on a thread of their own, one such at a time.
    pub(super) fn keep_packs_few(&self) {
        let repo = self.state_repository.repo.clone();
        if !repo.needs_repack() || self.repacking.swap(true, Ordering::AcqRel) {
            return;
        }
        let repacking = Arc::clone(&self.repacking);
        let repack = move || {
            match Git::new(repo.path()).and_then(|git| git.repack()) {
                Ok(()) => info!(repository = %repo.path().display(), "packs joined"),
                Err(error) => {
                    warn!(error = %with_causes(&error), "the state repository's packs cannot be joined; reading gets slower")
                }
            }
            repacking.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("repack".to_owned()).spawn(repack).is_err() {
            self.repacking.store(false, Ordering::Release);
        }
    }

    pub(super) fn write(
        &mut self,
        outcome: &Outcome,
        cause: &Cause,
        phases: &Phases,
        now: &impl Fn() -> jiff::Timestamp,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let tree = self.trees.build(&outcome.state);
        if self.head_tree == Some(tree.root) {
            return Ok(());
        }
        let repo = &self.state_repository.repo;
        let objects = match tree.anew {
            true => repo.missing(tree.objects).map_err(|error| with_causes(&error))?,
            false => tree.objects,
        };
        let message = CommitMessage {
            subject: subject(outcome),
            source: self.source_commit,
            epoch: self.epoch,
            generation: self.generation + 1,
            trigger: cause.trigger.to_owned(),
            impersonated_by: cause.author.as_ref().and_then(|actor| actor.sender.clone()),
        };
        let text = message.to_string();
        let commit = Commit {
            reference: &self.state_repository.reference,
            parent: self.head,
            tree: tree.root,
            message: &text,
            author: cause.author.as_ref().map(|actor| actor.user.as_str()),
            time: now().as_second(),
        };
        match repo.commit(&objects, &commit) {
            Ok(id) => {
                (self.head, self.head_tree) = (Some(id), Some(tree.root));
                self.generation += 1;
                log_commit(id, &message, &objects, phases, begun.elapsed());
                Ok(())
            }
            Err(WriteError::Moved { .. }) => {
                self.check_foreign();
                Err(self
                    .problems
                    .foreign
                    .clone()
                    .unwrap_or_else(|| "the state branch was moved by somebody else".to_owned()))
            }
            Err(error) => {
                if repo.remove_stale_lock(commit.reference) {
                    warn!(reference = commit.reference, "removed the lock that a killed process left");
                }
                Err(with_causes(&error))
            }
        }
    }

    /// Somebody else's commit on the state branch stops the writing: two writers would undo each other's work.
    pub(super) fn check_foreign(&mut self) {
        let repository = &self.state_repository;
        let Ok(found) = repository.repo.resolve(&repository.reference) else {
            return;
        };
        if self.problems.foreign.is_some() || found == self.head {
            return;
        }
        let what = match found.map(|id| (id, repository.repo.commit_info(id))) {
            Some((id, Ok(info))) => format!(
                "{id} by {} ({})",
                info.author,
                info.message.lines().next().unwrap_or_default()
            ),
            Some((id, Err(_))) => id.to_string(),
            None => "nothing: the ref is gone".to_owned(),
        };
        let mine = self.head.map_or("nothing".to_owned(), |id| id.to_string());
        let problem = format!(
            "foreign commit on {}: found {what}, this hub wrote {mine} last; another hub or a person writes here. Stop the other writer, then \
             restart this hub to take over, or first put the branch back with: git update-ref {} {mine}",
            repository.reference, repository.reference
        );
        self.stop(problem);
    }

    /// Writes nothing any more; reads and tunnels go on.
    pub(super) fn stop(&mut self, problem: String) {
        error!(problem = %problem, "the hub has stopped writing");
        self.problems.foreign = Some(problem);
    }
}

fn subject(outcome: &Outcome) -> String {
    let state = &outcome.state;
    let bindings = state.subscriptions.values().map(|state| state.bindings.clusters.len());
    let descriptions: usize = bindings.sum();
    format!(
        "{}, {}, {}",
        counted(state.managed_clusters.len(), "cluster"),
        counted(state.subscriptions.len(), "Subscription"),
        counted(descriptions, "Description")
    )
}

fn log_commit(id: ObjectId, message: &CommitMessage, written: &[NewObject], phases: &Phases, write: Duration) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    info!(
        commit = %id,
        source = message.source.map(|id| id.to_string()),
        epoch = message.epoch,
        generation = message.generation,
        trigger = %message.trigger,
        objects = written.len(),
        bytes = written.iter().map(|object| object.bytes.len()).sum::<usize>(),
        read_ms = ms(phases.read),
        index_ms = ms(phases.index),
        compute_ms = ms(phases.compute),
        write_ms = ms(write),
        "committed"
    );
}
