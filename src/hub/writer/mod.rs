//! The single writer: source commit and edits in, state branch commit and [`Revision`] out. One thread owns everything that it needs.
//!
//! ```text
//! wake (watch, poll, edit) ─► read head ─► index what changed ─► pure core ─► write objects ─► compare-and-swap ─► publish ─► push
//! ```
//! At most one run is in progress and one is requested: wakes that wait are taken together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::revision::{Revision, trees};
use super::source::{Source, SourceError, StateRepository};
use crate::core::access::Refusal;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectId;
use crate::core::index::{self, ParseCache, Snapshot};
use crate::core::pipeline::{self, Inputs, Outcome};
use crate::core::registration::{self, Approval, Edit, Edited};
use crate::core::render::{RenderCache, RenderSettings};
use crate::core::state::{self, CommitMessage, State};
use crate::core::yaml::Limits;
use crate::git::{Commit, RepoError, WriteError};

/// Why a run is asked for.
#[derive(Debug)]
pub enum Wake {
    /// The source may have moved; the word says who noticed.
    Source(&'static str),
    /// The source cannot be followed.
    Problem(String),
    /// A change of durable facts; answered after its commit.
    Edit(Edit, oneshot::Sender<Result<Edited, Refusal>>),
}

/// How the writer works.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// Directory of the source that is read.
    pub path: String,
    /// Whether unknown clusters with a token join at once.
    pub approval: Approval,
    /// What people allow in rendering.
    pub render: RenderSettings,
    /// Limits of source files.
    pub limits: Limits,
}

/// Why the writer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The repository cannot be read.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The state branch cannot be read.
    #[error("the state branch cannot be read")]
    State(#[from] state::ReadError),
    /// The last commit is not a hub's.
    #[error("{0}")]
    Foreign(String),
}

/// The writer's thread.
pub struct Writer {
    source: Source,
    state_repository: StateRepository,
    settings: WriterSettings,
    epoch: u64,
    generation: u64,
    head: Option<ObjectId>,
    state: State,
    source_commit: Option<ObjectId>,
    snapshot: Arc<Snapshot>,
    findings: Vec<Diagnostic>,
    parses: ParseCache,
    renders: RenderCache,
    /// Set once somebody else wrote to the state branch: nothing is written any more.
    stopped: Option<String>,
    /// What is wrong with following the source.
    source_problem: Option<String>,
    unpushed: Option<(u64, String)>,
    indexed: bool,
    revisions: watch::Sender<Arc<Revision>>,
}

/// How long each phase took, for the log line of a commit.
#[derive(Debug, Default)]
struct Phases {
    read: Duration,
    index: Duration,
    compute: Duration,
}

impl Writer {
    /// Reads the state branch. `epoch` decides this hub's epoch from the highest one on the branch and whether the branch's last commit is
    /// the one that this data directory wrote last.
    pub fn start(
        source: Source,
        state_repository: StateRepository,
        settings: WriterSettings,
        epoch: impl FnOnce(u64, Option<ObjectId>) -> u64,
    ) -> Result<(Self, watch::Receiver<Arc<Revision>>), StartError> {
        let head = state_repository.repo.resolve(&state_repository.reference)?;
        let (state, message) = match head {
            None => (State::default(), None),
            Some(head) => read_head(&state_repository, head)?,
        };
        let last_epoch = message.as_ref().map_or(0, |message| message.epoch);
        let (revisions, receiver) = watch::channel(Arc::default());
        let writer = Writer {
            epoch: epoch(last_epoch, head),
            generation: message.as_ref().map_or(0, |message| message.generation),
            head,
            state,
            source_commit: None,
            snapshot: Arc::new(Snapshot {
                incomplete: true,
                ..Snapshot::default()
            }),
            findings: Vec::new(),
            parses: ParseCache::default(),
            renders: RenderCache::default(),
            stopped: None,
            source_problem: None,
            unpushed: None,
            indexed: false,
            source,
            state_repository,
            settings,
            revisions,
        };
        Ok((writer, receiver))
    }

    /// This hub's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Runs until all senders of wakes are gone. Blocks: give it a thread.
    pub fn run(mut self, mut wakes: mpsc::Receiver<Wake>, now: impl Fn() -> jiff::Timestamp) {
        if self.state_repository.unpushed > 0 {
            self.unpushed = Some((self.state_repository.unpushed as u64, now().to_string()));
        }
        self.run_once("start", Vec::new(), &now);
        while let Some(first) = wakes.blocking_recv() {
            let mut batch = vec![first];
            while let Ok(more) = wakes.try_recv() {
                batch.push(more);
            }
            let mut edits = Vec::new();
            let mut trigger = "source";
            for wake in batch {
                match wake {
                    Wake::Source(by) => {
                        trigger = by;
                        self.source_problem = None;
                    }
                    Wake::Problem(problem) => self.source_problem = Some(problem),
                    Wake::Edit(edit, reply) => edits.push((edit, reply)),
                }
            }
            if !edits.is_empty() {
                trigger = "registration";
            }
            self.run_once(trigger, edits, &now);
        }
    }

    fn run_once(
        &mut self,
        trigger: &str,
        edits: Vec<(Edit, oneshot::Sender<Result<Edited, Refusal>>)>,
        now: &impl Fn() -> jiff::Timestamp,
    ) {
        let mut phases = Phases::default();
        let moved = match self.follow_source(&mut phases) {
            Ok(moved) => moved,
            Err(error) => {
                self.source_problem = Some(error.to_string());
                warn!(error = %error, "the source cannot be read; the last good state stays");
                false
            }
        };
        self.check_foreign();
        if !moved && edits.is_empty() && self.indexed {
            return self.finish_quiet_run(now);
        }
        self.indexed = true;
        let mut registrations = self.state.registrations.clone();
        let answers: Vec<_> = edits
            .into_iter()
            .map(|(edit, reply)| {
                let answer = match &self.stopped {
                    Some(problem) => Err(Refusal::new(503, "ServiceUnavailable", problem.clone())),
                    None => registration::apply(&mut registrations, &edit, &self.snapshot.clusters, self.settings.approval),
                };
                (answer, reply)
            })
            .collect();
        let outcome = self.compute(registrations, &mut phases);
        let accepted = self.accept(outcome, trigger, &phases, now);
        for (answer, reply) in answers {
            let answer = match &accepted {
                Ok(()) => answer,
                Err(problem) => Err(Refusal::new(503, "ServiceUnavailable", problem.clone())),
            };
            // Whoever asked may have gone away.
            let _ = reply.send(answer);
        }
    }

    /// Nothing moved: what is left is to say what is wrong, and to push again what could not be pushed.
    fn finish_quiet_run(&mut self, now: &impl Fn() -> jiff::Timestamp) {
        if self.unpushed.is_some() {
            self.push(now);
        }
        self.publish(None);
    }

    /// Reads the source's head; indexes it if it moved. Absence never deletes: without a head the last snapshot stays.
    fn follow_source(&mut self, phases: &mut Phases) -> Result<bool, RepoError> {
        let begun = Instant::now();
        let Some(head) = self.source.repo.resolve(&self.source.reference)? else {
            let branches = self.source.repo.branch_names()?;
            let branches = branches
                .iter()
                .filter(|name| !name.starts_with("branchline/"))
                .cloned()
                .collect::<Vec<_>>();
            let problem = RepoError::NoBranch {
                path: self.source.repo.path().to_owned(),
                branch: self.source.branch.clone(),
                branches: if branches.is_empty() {
                    "none; push a first commit".to_owned()
                } else {
                    branches.join(", ")
                },
            };
            return Err(problem);
        };
        if self.source_commit == Some(head) {
            return Ok(false);
        }
        let files = self.source.repo.files(head, &self.settings.path)?;
        let contents = self.source.repo.contents()?;
        phases.read = begun.elapsed();
        let begun = Instant::now();
        let limits = self.settings.limits;
        for (id, format) in self.parses.missing(&files, &limits) {
            let bytes = contents.blob(id)?;
            self.parses.insert(id, format, &bytes, &limits);
        }
        let (snapshot, findings) = index::build(&files, &self.parses, &limits);
        self.parses.retain(&files);
        phases.index = begun.elapsed();
        self.snapshot = Arc::new(snapshot);
        self.findings = findings;
        self.source_commit = Some(head);
        self.source_problem = None;
        Ok(true)
    }

    fn compute(&mut self, registrations: state::registrations::Registrations, phases: &mut Phases) -> Outcome {
        let begun = Instant::now();
        let records = registration::approved(&registrations);
        let fleet = pipeline::derive_fleet(records, &self.snapshot, &self.state);
        let inputs = Inputs {
            snapshot: &self.snapshot,
            fleet: &fleet,
            previous: &self.state,
            settings: self.settings.render,
        };
        let mut outcome = pipeline::run(&inputs, &mut self.renders);
        outcome.state.registrations = registrations;
        outcome.diagnostics.extend(self.findings.iter().cloned());
        outcome.diagnostics.sort();
        phases.compute = begun.elapsed();
        outcome
    }

    /// Writes and publishes an outcome. A state that changes no byte is no commit.
    fn accept(
        &mut self,
        outcome: Outcome,
        trigger: &str,
        phases: &Phases,
        now: &impl Fn() -> jiff::Timestamp,
    ) -> Result<(), String> {
        if let Some(problem) = self.stopped.clone() {
            self.publish(Some(&outcome));
            return Err(problem);
        }
        let settled =
            outcome.pending.is_empty() && !outcome.diagnostics.iter().any(Diagnostic::is_error) && trigger != "registration";
        let before = self.unpushed.is_none();
        match self.write(&outcome, trigger, phases, now) {
            Ok(committed) => {
                self.state = outcome.state.clone();
                if committed && self.state_repository.remote.is_some() {
                    self.note_unpushed(now);
                }
                // Delivery may go ahead of the push only when the tree follows from the pushed parent and this source commit alone.
                if settled && before {
                    self.publish(Some(&outcome));
                    self.push(now);
                    self.publish(Some(&outcome));
                } else {
                    self.push(now);
                    self.publish(Some(&outcome));
                }
                Ok(())
            }
            Err(problem) => {
                error!(problem = %problem, "the state branch was not written");
                // The next wake tries again, as if the source had just moved.
                self.source_commit = None;
                self.publish(None);
                Err(problem)
            }
        }
    }

    fn write(
        &mut self,
        outcome: &Outcome,
        trigger: &str,
        phases: &Phases,
        now: &impl Fn() -> jiff::Timestamp,
    ) -> Result<bool, String> {
        let begun = Instant::now();
        let tree = state::build(&outcome.state);
        let repo = &self.state_repository.repo;
        let current = match self.head {
            Some(head) => Some(repo.commit_info(head).map_err(|error| chain(&error))?.tree),
            None => None,
        };
        if current == Some(tree.root) {
            return Ok(false);
        }
        let (objects, bytes) = repo.write_objects(&tree.objects).map_err(|error| chain(&error))?;
        let message = CommitMessage {
            subject: subject(outcome),
            source: self.source_commit,
            epoch: self.epoch,
            generation: self.generation + 1,
            trigger: trigger.to_owned(),
        };
        let text = message.to_string();
        let commit = Commit {
            reference: &self.state_repository.reference,
            parent: self.head,
            tree: tree.root,
            message: &text,
            time: now().as_second(),
        };
        match repo.commit(&commit) {
            Ok(id) => {
                self.head = Some(id);
                self.generation += 1;
                log_commit(id, &message, (objects, bytes), phases, begun.elapsed());
                Ok(true)
            }
            Err(WriteError::Moved { .. }) => {
                self.check_foreign();
                Err(self
                    .stopped
                    .clone()
                    .unwrap_or_else(|| "the state branch was moved by somebody else".to_owned()))
            }
            Err(error) => Err(chain(&error)),
        }
    }

    /// Somebody else's commit on the state branch stops the writing: two writers would undo each other's work.
    fn check_foreign(&mut self) {
        let repository = &self.state_repository;
        let Ok(found) = repository.repo.resolve(&repository.reference) else {
            return;
        };
        if self.stopped.is_some() || found == self.head {
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
        error!(problem = %problem, "the hub has stopped writing");
        self.stopped = Some(problem);
    }

    fn note_unpushed(&mut self, now: &impl Fn() -> jiff::Timestamp) {
        let (count, since) = self.unpushed.take().unwrap_or_else(|| (0, now().to_string()));
        self.unpushed = Some((count + 1, since));
    }

    /// Pushes the state branch; what cannot be pushed is tried again at the next poll.
    fn push(&mut self, now: &impl Fn() -> jiff::Timestamp) {
        let (Some(remote), Some(_)) = (&self.state_repository.remote, &self.unpushed) else {
            return;
        };
        match remote.push(&self.state_repository.repo, &self.state_repository.reference) {
            Ok(()) => self.unpushed = None,
            Err(error) => {
                warn!(remote = %remote.url, error = %error, at = %now(), "the state branch cannot be pushed; it is tried again");
                self.stop_if_foreign(&error);
            }
        }
    }

    /// A lease that does not hold means that somebody else pushed.
    fn stop_if_foreign(&mut self, error: &SourceError) {
        if matches!(error, SourceError::Foreign { .. }) && self.stopped.is_none() {
            let problem = format!(
                "foreign commit on the remote state branch: {error}; another hub or a person writes there. Stop the other writer, then restart \
                 this hub with an empty data directory to go on from what is there"
            );
            error!(problem = %problem, "the hub has stopped writing");
            self.stopped = Some(problem);
        }
    }

    fn publish(&self, outcome: Option<&Outcome>) {
        let before = self.revisions.borrow().clone();
        let problems = self.stopped.iter().chain(&self.source_problem).cloned().collect();
        let mut revision = Revision {
            problems: Arc::new(problems),
            unpushed: self.unpushed.clone(),
            ..(*before).clone()
        };
        if let Some(outcome) = outcome {
            revision.diagnostics = Arc::new(outcome.diagnostics.clone());
            revision.pending = Arc::new(outcome.pending.clone());
            revision.snapshot = self.snapshot.clone();
            revision.source = self.source_commit;
            revision.epoch = self.epoch;
            if self.stopped.is_none() {
                revision.commit = self.head;
                revision.generation = self.generation;
                revision.state = Arc::new(outcome.state.clone());
                revision.trees = Arc::new(trees(&outcome.state));
            }
        }
        self.revisions.send_replace(Arc::new(revision));
    }
}

fn read_head(repository: &StateRepository, head: ObjectId) -> Result<(State, Option<CommitMessage>), StartError> {
    let info = repository.repo.commit_info(head)?;
    let Some(message) = CommitMessage::parse(&info.message) else {
        let parent = info.parents.first().map_or("none".to_owned(), ToString::to_string);
        return Err(StartError::Foreign(format!(
            "foreign commit on {}: {head} by {} ({}) was not made by a hub; put the branch back with: git update-ref {} {parent}",
            repository.reference,
            info.author,
            info.message.lines().next().unwrap_or_default(),
            repository.reference
        )));
    };
    let files = repository.repo.file_ids(head)?;
    let contents = repository.repo.contents()?;
    let state = state::read(&files, &mut |id| Ok(contents.blob(id)?))?;
    Ok((state, Some(message)))
}

fn subject(outcome: &Outcome) -> String {
    let state = &outcome.state;
    let descriptions: usize = state.clusters.values().map(std::collections::BTreeMap::len).sum();
    format!(
        "{} clusters, {} Subscriptions, {descriptions} Descriptions",
        state.managed_clusters.len(),
        state.subscriptions.len()
    )
}

fn log_commit(id: ObjectId, message: &CommitMessage, written: (usize, usize), phases: &Phases, write: Duration) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    info!(
        commit = %id,
        source = message.source.map(|id| id.to_string()),
        epoch = message.epoch,
        generation = message.generation,
        trigger = %message.trigger,
        objects = written.0,
        bytes = written.1,
        read_ms = ms(phases.read),
        index_ms = ms(phases.index),
        compute_ms = ms(phases.compute),
        write_ms = ms(write),
        "committed"
    );
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
