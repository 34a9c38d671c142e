//! The single writer: source commit and edits in, state branch commit and [`Revision`] out. One thread owns everything that it needs.
//!
//! ```text
//! wake (watch, poll, edit) ─► read head ─► index what changed ─► pure core ─► write objects ─► compare-and-swap ─► publish ─► push
//! ```
//! At most one run is in progress and one is requested: wakes that wait are taken together.

mod committing;
mod problems;
mod pushing;
mod rights;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use imbl::OrdMap;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use self::problems::Problems;
pub use self::pushing::Pushed;
use self::pushing::{Pushing, Written};
use self::rights::Rights;
use super::data::AccessFile;
use super::live_facts::LiveFacts;
use super::revision::{Revision, follow_trees};
use super::source::{Source, StateRepository};
use crate::core::access::{Actor, Refusal};
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::index::{self, ParseCache, Snapshot};
use crate::core::pipeline::{self, FleetFollower, FleetResult, Inputs, Memory, Outcome};
use crate::core::registration::{self, Approval, Edit, Edited};
use crate::core::render::RenderSettings;
use crate::core::state::registrations::Registrations;
use crate::core::state::{self, CommitMessage, State, TreeBuilder};
use crate::core::text::with_causes;
use crate::core::yaml::Limits;
use crate::git::RepoError;

/// Why a run is asked for.
#[derive(Debug)]
pub enum Wake {
    /// The source may have moved; the word says who noticed.
    Source(&'static str),
    /// The source was polled; the error is what keeps it from being fetched.
    Polled(Result<(), String>),
    /// A push of the state branch has ended.
    Pushed(Pushed),
    /// Live facts changed that some placement depends on.
    Live,
    /// A change of durable facts; answered after its commit.
    Edit(Edit, Reply),
    /// The same, asked for by a user, who is the author of its commit.
    EditBy(Actor, Edit, Reply),
}

/// Where an edit's answer goes.
pub type Reply = oneshot::Sender<Result<Edited, Refusal>>;

/// How the writer works.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// Directory of the source that is read.
    pub path: String,
    /// Whether unknown clusters with a token join at once.
    pub approval: Approval,
    /// What people allow in rendering.
    pub render: RenderSettings,
    /// Levels of directories above those that are keyed by cluster; as the branch has it where nothing is said.
    pub fan_out: Option<u8>,
    /// Limits of source files.
    pub limits: Limits,
    /// Where the roles and bindings that counted last are kept.
    pub access: AccessFile,
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
    /// The head's root tree.
    head_tree: Option<ObjectId>,
    state: Arc<State>,
    /// The commit that agents are offered, with its generation and each cluster's tree: behind the head while that must be pushed first.
    delivered: Option<ObjectId>,
    delivery: (u64, OrdMap<ClusterId, ObjectId>),
    /// The state that `delivery` follows from.
    delivered_state: Arc<State>,
    source_commit: Option<ObjectId>,
    snapshot: Arc<Snapshot>,
    findings: Vec<Diagnostic>,
    rights: Rights,
    parses: ParseCache,
    fleets: FleetFollower,
    memory: Memory,
    trees: TreeBuilder,
    problems: Problems,
    pushing: Option<Pushing>,
    repacking: Arc<AtomicBool>,
    indexed: bool,
    live: Option<Arc<LiveFacts>>,
    revisions: watch::Sender<Arc<Revision>>,
}

/// What a run came to, with what it started from.
struct Computed {
    outcome: Outcome,
    fleet: FleetResult,
    previous: Arc<State>,
    fan_out: u8,
}

/// Why a commit is made.
struct Cause {
    trigger: &'static str,
    /// The user who asked for it.
    author: Option<Actor>,
}

/// Wakes that are taken together.
struct Batch {
    cause: Cause,
    edits: Vec<(Edit, Reply)>,
    /// Whether what was not pushed is tried again.
    push: bool,
    /// Whether live facts changed.
    live: bool,
}

impl Batch {
    fn new(trigger: &'static str) -> Self {
        Batch {
            cause: Cause { trigger, author: None },
            edits: Vec::new(),
            push: trigger == "start",
            live: false,
        }
    }

    /// Whether another wake belongs into the same commit: what users ask for is a commit of theirs alone.
    fn takes(&self, wake: &Wake) -> bool {
        match wake {
            Wake::EditBy(actor, ..) => self.cause.author.as_ref() == Some(actor),
            _ => self.cause.author.is_none(),
        }
    }
}

/// How long each phase took, for the log line of a commit.
#[derive(Debug, Default)]
struct Phases {
    read: Duration,
    index: Duration,
    compute: Duration,
}

impl Writer {
    /// Reads the state branch. `epoch` decides this hub's epoch from the highest one on the branch; pushes that have ended come back by `wakes`.
    pub fn start(
        source: Source,
        state_repository: StateRepository,
        settings: WriterSettings,
        wakes: mpsc::WeakSender<Wake>,
        epoch: impl FnOnce(u64) -> u64,
    ) -> Result<(Self, watch::Receiver<Arc<Revision>>), StartError> {
        let head = state_repository.repo.resolve(&state_repository.reference)?;
        let (state, message, head_tree) = match head {
            None => (State::default(), None, None),
            Some(head) => {
                let (state, message, tree) = read_head(&state_repository, head)?;
                (state, Some(message), Some(tree))
            }
        };
        let last_epoch = message.as_ref().map_or(0, |message| message.epoch);
        let (revisions, receiver) = watch::channel(Arc::default());
        let mut writer = Writer {
            epoch: epoch(last_epoch),
            generation: message.as_ref().map_or(0, |message| message.generation),
            head,
            head_tree,
            pushing: Pushing::new(&state_repository, head, wakes)?,
            state: Arc::new(state),
            delivered: None,
            delivery: (0, OrdMap::new()),
            delivered_state: Arc::default(),
            source_commit: None,
            snapshot: Arc::new(Snapshot {
                incomplete: true,
                ..Snapshot::default()
            }),
            findings: Vec::new(),
            rights: Rights::load(settings.access.clone()),
            parses: ParseCache::default(),
            fleets: FleetFollower::default(),
            memory: Memory::default(),
            trees: TreeBuilder::default(),
            problems: Problems::default(),
            repacking: Arc::default(),
            indexed: false,
            live: None,
            source,
            state_repository,
            settings,
            revisions,
        };
        writer.publish_state();
        Ok((writer, receiver))
    }

    /// What is on the branch counts from the first moment: an agent that comes back before the first run is known, and is offered what was
    /// accepted last.
    fn publish_state(&mut self) {
        if self.is_pushed(self.head) {
            self.deliver_head();
        }
        self.revisions.send_replace(Arc::new(Revision {
            commit: self.head,
            epoch: self.epoch,
            generation: self.generation,
            state: Arc::clone(&self.state),
            offered: self.delivery.0,
            trees: self.delivery.1.clone(),
            unpushed: self.lacking(),
            policy: self.rights.policy(),
            ..Revision::default()
        }));
    }

    /// Places by live facts as well.
    #[must_use]
    pub fn with_live_facts(mut self, live: Arc<LiveFacts>) -> Self {
        self.live = Some(live);
        self
    }

    /// This hub's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Runs until all senders of wakes are gone. Blocks: give it a thread.
    pub fn run(mut self, mut wakes: mpsc::Receiver<Wake>, now: impl Fn() -> jiff::Timestamp) {
        self.guarded(Batch::new("start"), &now);
        let mut next = None;
        while let Some(first) = next.take().or_else(|| wakes.blocking_recv()) {
            let mut batch = Batch::new("source");
            self.note(first, &mut batch);
            while let Ok(more) = wakes.try_recv() {
                if !batch.takes(&more) {
                    next = Some(more);
                    break;
                }
                self.note(more, &mut batch);
            }
            self.guarded(batch, &now);
        }
    }

    /// Takes one wake into the batch that the next run carries out.
    fn note(&mut self, wake: Wake, batch: &mut Batch) {
        match wake {
            Wake::Source(by) => {
                batch.cause.trigger = by;
                batch.push = true;
            }
            Wake::Polled(fetched) => {
                batch.cause.trigger = "poll";
                batch.push = true;
                self.problems.fetching = fetched.err();
            }
            Wake::Live => {
                batch.live = true;
                if batch.edits.is_empty() {
                    batch.cause.trigger = "live";
                }
            }
            Wake::Pushed(pushed) => batch.push |= self.note_pushed(pushed),
            Wake::Edit(edit, reply) => {
                batch.cause.trigger = edit.trigger();
                batch.edits.push((edit, reply));
            }
            Wake::EditBy(actor, edit, reply) => {
                batch.cause.author = Some(actor);
                batch.cause.trigger = edit.trigger();
                batch.edits.push((edit, reply));
            }
        }
    }

    /// One run. Whatever breaks in it breaks this run alone: the last good state stays and the next wake tries again.
    fn guarded(&mut self, batch: Batch, now: &impl Fn() -> jiff::Timestamp) {
        let run = AssertUnwindSafe(|| self.run_once(batch, now));
        if catch_unwind(run).is_err() {
            // What the run had half done is made again; state and head are only ever replaced by what was written.
            self.parses = ParseCache::default();
            self.forget();
            self.source_commit = None;
            let problem = "an internal error in Branchline broke the last run off; the last good state stays. The log says where: please report it";
            self.problems.reading = Some(problem.to_owned());
            self.publish(None);
        }
    }

    fn run_once(&mut self, batch: Batch, now: &impl Fn() -> jiff::Timestamp) {
        let mut phases = Phases::default();
        // What a user asks for is carried out over the source as it was read last: what was pushed meanwhile is not that user's commit.
        let by_user = batch.cause.author.is_some() && self.indexed;
        let followed = if by_user { Ok(false) } else { self.follow_source(&mut phases) };
        let moved = match followed {
            Ok(false) if by_user => false,
            Ok(moved) => {
                self.problems.reading = None;
                moved
            }
            Err(error) => {
                self.problems.reading = Some(format!("{}; the last good state stays", with_causes(&error)));
                false
            }
        };
        self.check_foreign();
        let mut registrations = self.state.registrations.clone();
        registration::approve_stated(&mut registrations, &self.snapshot.clusters);
        let edited = !batch.edits.is_empty();
        let answers = self.edit(batch.edits, &mut registrations);
        let mut computed = None;
        let accepted = if moved || batch.live || !self.indexed || registrations != self.state.registrations {
            self.indexed = true;
            let found = computed.insert(self.compute(registrations, &mut phases));
            self.accept(&found.outcome, &batch.cause, edited, &phases, now)
        } else {
            self.finish_quiet_run(batch.push);
            Ok(())
        };
        let is_accepted = accepted.is_ok();
        for (answer, reply) in answers {
            let answer = match &accepted {
                Ok(()) => answer,
                Err(problem) => answer.and(Err(unavailable(problem))),
            };
            // Whoever asked may have gone away.
            let _ = reply.send(answer);
        }
        if let Some(computed) = computed.filter(|_| is_accepted) {
            waiting::date(self, computed);
        }
    }

    fn edit(&self, edits: Vec<(Edit, Reply)>, registrations: &mut Registrations) -> Vec<(Result<Edited, Refusal>, Reply)> {
        let answer = |edit: Edit| match &self.problems.foreign {
            Some(problem) => Err(unavailable(problem)),
            None => registration::apply(registrations, &edit, &self.snapshot.clusters, self.settings.approval),
        };
        let (edits, replies): (Vec<Edit>, Vec<Reply>) = edits.into_iter().unzip();
        edits.into_iter().map(answer).zip(replies).collect()
    }

    /// Nothing moved: what is left is to say what is wrong, and to push and deliver what waited.
    fn finish_quiet_run(&mut self, push: bool) {
        if push {
            self.push();
        }
        if self.delivered != self.head && self.is_pushed(self.head) {
            self.deliver_head();
        }
        self.publish(None);
    }

    /// Reads the source's head; indexes it if it moved. Absence never deletes: without a head the last snapshot stays.
    fn follow_source(&mut self, phases: &mut Phases) -> Result<bool, RepoError> {
        let begun = Instant::now();
        let Some(head) = self.source.repo.resolve(&self.source.reference)? else {
            return Err(self.source.missing()?);
        };
        if self.source_commit == Some(head) {
            return Ok(false);
        }
        let contents = self.source.repo.contents()?;
        let files = contents.files(head, &self.settings.path)?;
        phases.read = begun.elapsed();
        let begun = Instant::now();
        let limits = self.settings.limits;
        self.parses.fill(&files, &limits, |id| contents.blob(id))?;
        let (snapshot, mut findings) = index::build(&files, &self.parses, &limits);
        findings.extend(self.rights.follow(&snapshot.access));
        self.parses.retain(&files);
        phases.index = begun.elapsed();
        self.snapshot = Arc::new(snapshot);
        self.findings = findings;
        self.source_commit = Some(head);
        Ok(true)
    }

    fn compute(&mut self, registrations: Registrations, phases: &mut Phases) -> Computed {
        let begun = Instant::now();
        let mut fleet = self.fleets.follow(&registrations, &self.snapshot, &self.state);
        self.add_live_facts(&mut fleet, &registrations);
        let (previous, fan_out) = (Arc::clone(&self.state), self.settings.fan_out.unwrap_or(self.state.fan_out));
        let inputs = Inputs {
            snapshot: &self.snapshot,
            fleet: &fleet,
            previous: &previous,
            settings: self.settings.render,
            fan_out,
        };
        let mut outcome = pipeline::run(&inputs, &mut self.memory);
        waiting::carry_over(&mut outcome.pending, &self.revisions.borrow().pending);
        outcome.state.registrations = registrations;
        outcome.diagnostics.extend(self.findings.iter().cloned());
        outcome.diagnostics.sort();
        phases.compute = begun.elapsed();
        Computed {
            outcome,
            fleet,
            previous,
            fan_out,
        }
    }

    /// The one place where live facts enter a run. Asks agents, for a moment, when replicas wait for room.
    fn add_live_facts(&self, fleet: &mut FleetResult, registrations: &Registrations) {
        let Some(live) = &self.live else { return };
        fleet.fleet.live = live.standings(registrations);
        let questions = pipeline::questions(&Inputs {
            snapshot: &self.snapshot,
            fleet,
            previous: &self.state,
            settings: self.settings.render,
            fan_out: self.state.fan_out,
        });
        live.ask(&questions, &mut fleet.fleet);
    }

    /// Writes and publishes an outcome. A state that changes no byte is no commit.
    fn accept(
        &mut self,
        outcome: &Outcome,
        cause: &Cause,
        edited: bool,
        phases: &Phases,
        now: &impl Fn() -> jiff::Timestamp,
    ) -> Result<(), String> {
        if let Some(problem) = self.problems.foreign.clone() {
            self.publish(Some(outcome));
            return Err(problem);
        }
        // Delivery may go ahead of the push only when the tree follows from the pushed parent and this source commit alone.
        let settled = outcome.pending.is_empty() && !outcome.diagnostics.iter().any(Diagnostic::is_error);
        let sticky = outcome.placed.iter().any(|placed| placed.placement.sticky);
        let follows = settled && !sticky && !edited && self.is_pushed(self.head);
        match self.write(outcome, cause, phases, now) {
            Ok(()) => {
                self.problems.writing = None;
                self.state = Arc::new(outcome.state.clone());
                if follows || self.is_pushed(self.head) {
                    self.deliver_head();
                }
                self.push();
                self.publish(Some(outcome));
                self.keep_packs_few();
                Ok(())
            }
            Err(problem) => {
                error!(problem = %problem, "the state branch was not written");
                if self.problems.foreign.is_none() {
                    self.problems.writing = Some(format!("the state branch cannot be written; it is tried again: {problem}"));
                }
                // The next wake tries again, as if the source had just moved.
                self.source_commit = None;
                self.forget();
                self.publish(None);
                Err(problem)
            }
        }
    }

    /// What was worked out and not written is worked out again: what a run remembers is what stands on the branch.
    fn forget(&mut self) {
        self.fleets = FleetFollower::default();
        self.memory = Memory::default();
        self.trees = TreeBuilder::default();
    }

    /// What was written last.
    fn written(&self) -> Option<Written> {
        self.head.map(|commit| Written {
            commit,
            generation: self.generation,
            state: Arc::clone(&self.state),
        })
    }

    /// What agents are offered becomes what was written last.
    fn deliver_head(&mut self) {
        if let Some(written) = self.written() {
            self.deliver(written);
        }
    }

    /// What agents are offered becomes this, unless they were offered something newer.
    fn deliver(&mut self, written: Written) {
        if written.generation < self.delivery.0 {
            return;
        }
        self.delivered = Some(written.commit);
        follow_trees(&mut self.delivery.1, &self.delivered_state, &written.state);
        self.delivery.0 = written.generation;
        self.delivered_state = written.state;
    }

    fn publish(&self, outcome: Option<&Outcome>) {
        let before = self.revisions.borrow().clone();
        let mut revision = Revision {
            problems: Arc::new(self.problems.list()),
            stopped: self.problems.stopped(),
            unpushed: self.lacking(),
            offered: self.delivery.0,
            trees: self.delivery.1.clone(),
            policy: self.rights.policy(),
            ..(*before).clone()
        };
        if let Some(outcome) = outcome {
            revision.diagnostics = Arc::new(outcome.diagnostics.clone());
            revision.pending = Arc::new(outcome.pending.clone());
            revision.snapshot = self.snapshot.clone();
            revision.source = self.source_commit;
            revision.epoch = self.epoch;
            if self.problems.foreign.is_none() {
                revision.commit = self.head;
                revision.generation = self.generation;
                revision.state = Arc::clone(&self.state);
            }
        } else if revision.says_the_same(&before) {
            // Nobody is woken for nothing: every session and the projection look at each revision.
            return;
        }
        self.revisions.send_replace(Arc::new(revision));
    }
}

fn unavailable(problem: &str) -> Refusal {
    Refusal::new(503, "ServiceUnavailable", problem)
}

fn read_head(repository: &StateRepository, head: ObjectId) -> Result<(State, CommitMessage, ObjectId), StartError> {
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
    Ok((state, message, info.tree))
}
