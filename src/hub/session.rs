//! One agent's control stream: welcomes it, offers what it lacks, serves what it wants, keeps what it reports, has its labels kept, renews its
//! certificate.
//!
//! ```text
//! Hello ─► Welcome ─► (desired ≠ held or applied) Offer ⇄ Want/Content ─► Report ─► wait for the next revision
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::acceptor::Session;
use super::ca::CertificateAuthority;
use super::ca::CertificateRequest;
use super::delivery;
use super::live_facts::LiveFacts;
use super::metrics::Metrics;
use super::node_labels::LabelReports;
use super::registry::{KeptStatus, Registry};
use super::revision::Revision;
use super::writer::Wake;
use crate::core::access::KeyDigest;
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::selector::Labels;
use crate::core::state::ClusterState;
use crate::git::{Repo, RepoError};
use crate::tunnel::control::{ControlError, ControlReceiver, ControlSender};
use crate::wire;
use crate::wire::content::{ContentError, ContentObject, pack, split_too_large};
use crate::wire::control::{Offer, ToAgent, ToHub};

/// How long what a tree reaches is kept after the last `Want`. Worked out again if there is another.
const REACHABLE_KEPT: Duration = Duration::from_secs(60);
/// Answers that an agent may wait for at once; a correct one waits for one or two.
const ASKS: usize = 16;
/// Sessions that read the repository at the same time. When a thousand agents come back each would otherwise have a thread of its own, with
/// memory that the allocator keeps for it.
pub const READERS: usize = 4;
/// How long an agent may take to take the last message.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// What every session works with.
#[derive(Debug)]
pub struct SessionContext {
    /// Who is there and what was reported.
    pub registry: Arc<Registry>,
    /// What agents are asked.
    pub facts: Arc<LiveFacts>,
    /// Accepted states.
    pub revisions: watch::Receiver<Arc<Revision>>,
    /// To the writer.
    pub wakes: mpsc::Sender<Wake>,
    /// Where the state branch's objects are.
    pub repo: Repo,
    /// Signs renewed certificates.
    pub authority: Arc<CertificateAuthority>,
    /// Life of an agent's certificate.
    pub certificate_lifetime: Duration,
    /// Seconds between heartbeats.
    pub heartbeat_seconds: u32,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Turns to read the repository, of [`READERS`].
    pub readers: Semaphore,
    /// The hub is going away.
    pub stop: CancellationToken,
}

impl SessionContext {
    /// Reads the repository on a thread that may block, when it is this session's turn.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RepoError> + Send + 'static,
    ) -> Result<T, SessionError> {
        // Nobody closes the semaphore; without a turn the work is done all the same.
        let _turn = self.readers.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => Ok(result?),
            // The runtime is going down, and the session with it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the state repository cannot be read")]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("the agent asks for more than {ASKS} things without taking the answers")]
    TooManyAsks,
}

/// Serves one agent until its tunnel ends. Receiving never waits for sending, so that two sides with full queues still take what the other says.
///
/// Not an `async fn`: the future would keep room for the whole session, as it came, for as long as the tunnel stands.
pub fn run(context: Arc<SessionContext>, number: u64, session: Box<Session>) -> impl Future<Output = ()> + Send + 'static {
    let Session {
        cluster,
        key,
        address,
        protocol,
        hello,
        sender,
        mut receiver,
        handle,
    } = *session;
    info!(cluster = %cluster, address = %address, held = ?hello.held, applied = ?hello.applied, "agent connected");
    warn_of_newer_epoch(&context, &cluster, hello.epoch);
    let (asked, mut asks) = mpsc::channel(ASKS);
    context
        .registry
        .update(&cluster, number, |live| live.asked = Some(Asked(asked.clone())));
    // What is asked of everybody at the moment was said before this one could hear it.
    if let Some(question) = context.facts.question(&cluster) {
        Asked(asked.clone()).room(question);
    }
    let mut outgoing = Outgoing {
        context: Arc::clone(&context),
        cluster: cluster.clone(),
        key,
        protocol,
        held: hello.held,
        applied: hello.applied,
        sender,
        offered: None,
        offered_state: None,
        allowed: None,
        forget_at: tokio::time::Instant::now(),
    };
    let stop = context.stop.clone();
    let mut incoming = Incoming {
        context,
        number,
        cluster,
        asked,
        labels: LabelReports::default(),
    };
    incoming.take_labels(hello.labels);
    async move {
        let ended = tokio::select! {
            ended = incoming.serve(&mut receiver) => ended,
            ended = outgoing.serve(&mut asks) => ended,
            () = handle.closed().cancelled_owned() => Ok(()),
            // An agent that takes nothing must not hold up the end.
            () = grace(&stop) => Ok(()),
        };
        handle.close().await;
        incoming.end(&ended);
    }
}

async fn grace(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(DRAIN_GRACE).await;
}

/// An agent refuses deliveries that are older than what it took, so a hub with a lower epoch would offer in vain.
fn warn_of_newer_epoch(context: &SessionContext, cluster: &ClusterId, taken: u64) {
    let epoch = context.revisions.borrow().epoch;
    if epoch > 0 && taken > epoch {
        warn!(cluster = %cluster, taken, epoch, "the agent took deliveries of a hub with a higher epoch and refuses this one's; restart this hub to take over");
    }
}

/// What an agent asks for and is answered in order, and what it is asked itself.
#[derive(Debug)]
enum Ask {
    Content(ObjectId, Vec<ObjectId>),
    Certificate(String),
    Room(wire::control::Ask),
}

/// The way to a session for questions to its agent. Not a subscription of each session: that would cost every idle tunnel memory.
#[derive(Debug, Clone)]
pub struct Asked(mpsc::Sender<Box<Ask>>);

impl Asked {
    /// Has the agent asked how much room there is. One that takes nothing is asked again with the next round.
    pub(super) fn room(&self, question: wire::control::Ask) {
        let _ = self.0.try_send(Box::new(Ask::Room(question)));
    }
}

/// Takes what the agent says. Never waits.
struct Incoming {
    context: Arc<SessionContext>,
    number: u64,
    cluster: ClusterId,
    /// Boxed, because a channel keeps room for 32 of them from its start.
    asked: mpsc::Sender<Box<Ask>>,
    labels: LabelReports,
}

impl Incoming {
    fn end(&self, ended: &Result<(), SessionError>) {
        let cluster = &self.cluster;
        if let Err(error) = ended {
            warn!(cluster = %cluster, error = %error, cause = ?std::error::Error::source(error), "the session with the agent ended");
        }
        self.context.registry.update(cluster, self.number, |live| {
            live.lost = Some(Timestamp::now());
            live.asked = None;
        });
        info!(cluster = %cluster, "agent disconnected");
    }

    async fn serve(&mut self, receiver: &mut ControlReceiver<ToHub>) -> Result<(), SessionError> {
        while let Some(received) = receiver.receive().await? {
            self.take(received.message)?;
        }
        Ok(())
    }

    fn take(&mut self, message: ToHub) -> Result<(), SessionError> {
        let now = Timestamp::now();
        let registry = &self.context.registry;
        match message {
            ToHub::Heartbeat { status, labels } => {
                registry.update(&self.cluster, self.number, |live| {
                    live.heard = now;
                    live.status = KeptStatus::of(*status);
                });
                self.take_labels(labels);
            }
            ToHub::Report(report) => {
                debug!(cluster = %self.cluster, tree = %report.tree, held = report.held, applied = report.applied, "report");
                if report.applied {
                    self.context.metrics.applied.inc();
                }
                registry.report(&self.cluster, self.number, report, now);
            }
            ToHub::Room { round, feeds } => self.context.facts.hear(&self.cluster, round, &feeds),
            ToHub::Want { tree, ids } => self.ask(Ask::Content(tree, ids))?,
            ToHub::Renew { csr } => self.ask(Ask::Certificate(csr))?,
            // An agent introduces itself once; what a newer agent says besides is not for this version.
            ToHub::Hello(_) | ToHub::Ignored => {}
        }
        Ok(())
    }

    /// An agent that reports no labels, because it cannot see its nodes or is of an older version, leaves those that stand.
    fn take_labels(&mut self, reported: Option<Labels>) {
        let Some(reported) = reported else { return };
        let state = Arc::clone(&self.context.revisions.borrow().state);
        if let Some(known) = state.registrations.clusters.get(&self.cluster) {
            let wakes = &self.context.wakes;
            self.labels
                .hear(&self.cluster, &known.labels, reported, wakes, Instant::now());
        }
    }

    fn ask(&self, ask: Ask) -> Result<(), SessionError> {
        self.asked.try_send(Box::new(ask)).map_err(|_| SessionError::TooManyAsks)
    }
}

/// Says everything that the hub has to say, one message after the other. What it does rarely is boxed: its future stands for as long as the
/// tunnel, and would have room for all of it.
struct Outgoing {
    context: Arc<SessionContext>,
    cluster: ClusterId,
    key: KeyDigest,
    protocol: u32,
    /// The tree that the agent had when it came.
    held: Option<ObjectId>,
    /// The tree that it had applied then.
    applied: Option<ObjectId>,
    sender: ControlSender<ToAgent>,
    /// The tree that was offered last, or that the agent had applied when it came.
    offered: Option<ObjectId>,
    /// The same as a value, where this process has it: what comes next is told from it.
    offered_state: Option<Arc<ClusterState>>,
    /// What the offered tree reaches, worked out at the first `Want`.
    allowed: Option<(ObjectId, Arc<HashSet<ObjectId>>)>,
    /// When it is let go of, because the agent seems to have everything.
    forget_at: tokio::time::Instant,
}

impl Outgoing {
    async fn serve(&mut self, asks: &mut mpsc::Receiver<Box<Ask>>) -> Result<(), SessionError> {
        let mut revisions = self.context.revisions.clone();
        let welcome = ToAgent::Welcome {
            protocol: self.protocol,
            heartbeat_seconds: self.context.heartbeat_seconds,
            epoch: revisions.borrow_and_update().epoch,
        };
        self.sender.send(&welcome, b"").await?;
        Box::pin(self.offer_if_needed()).await?;
        let stop = self.context.stop.clone();
        loop {
            let forget_at = self.forget_at;
            tokio::select! {
                ask = asks.recv() => match ask.map(|ask| *ask) {
                    Some(Ask::Content(tree, ids)) => Box::pin(self.send_wanted(tree, ids)).await?,
                    Some(Ask::Certificate(csr)) => Box::pin(self.renew(&csr)).await?,
                    Some(Ask::Room(question)) => self.sender.send(&ToAgent::Ask(question), b"").await?,
                    None => return Ok(()),
                },
                changed = revisions.changed() => match changed {
                    Ok(()) => {
                        revisions.borrow_and_update();
                        Box::pin(self.offer_if_needed()).await?;
                    }
                    Err(_) => return Ok(()),
                },
                () = async { Box::pin(tokio::time::sleep_until(forget_at)).await }, if self.allowed.is_some() => self.allowed = None,
                () = stop.cancelled() => return Ok(self.sender.send(&ToAgent::Drain {}, b"").await?),
            }
        }
    }

    /// Offers the desired tree unless it was offered already, or the agent has applied it.
    async fn offer_if_needed(&mut self) -> Result<(), SessionError> {
        let revision = self.context.revisions.borrow().clone();
        // Before its first commit a hub knows nothing that could be desired.
        let known = revision.commit.is_some() && revision.trees.contains_key(&self.cluster);
        let tree = revision.tree(&self.cluster);
        let last = self.offered;
        if !known || last == Some(tree) {
            return Ok(());
        }
        let base = last.or(self.held);
        let state = revision.cluster_state(&self.cluster, tree);
        let before = std::mem::replace(&mut self.offered_state, state.clone());
        self.allowed = None;
        if last.is_none() && self.applied == Some(tree) {
            self.offered = Some(tree);
            return Ok(());
        }
        // What no message can carry must not end the tunnel each time that it is offered: the agent hears that it is missing when it asks.
        let (objects, _) = split_too_large(self.additions(base, before, tree, state).await?);
        let batch = pack(objects)?.into_iter().next().unwrap_or_default();
        let offer = Offer {
            epoch: revision.epoch,
            generation: revision.offered,
            tree,
            base,
            objects: batch.objects,
        };
        debug!(cluster = %self.cluster, tree = %tree, generation = offer.generation, objects = offer.objects.len(), "offer");
        self.context.metrics.offers.inc();
        self.context.metrics.objects_sent.inc_by(offer.objects.len() as u64);
        self.offered = Some(tree);
        self.sender.send(&ToAgent::Offer(offer), &batch.attachment).await?;
        Ok(())
    }

    /// What the agent lacks: told from memory where both ends are there, else from the repository.
    async fn additions(
        &self,
        base: Option<ObjectId>,
        before: Option<Arc<ClusterState>>,
        tree: ObjectId,
        now: Option<Arc<ClusterState>>,
    ) -> Result<Vec<ContentObject>, SessionError> {
        if tree == ObjectId::EMPTY_TREE {
            return Ok(Vec::new());
        }
        let starts = base.unwrap_or(ObjectId::EMPTY_TREE) == before.as_ref().map_or(ObjectId::EMPTY_TREE, |before| before.id());
        let found = now
            .filter(|_| starts)
            .and_then(|now| delivery::additions(before.as_deref(), &now));
        if let Some(found) = found {
            return Ok(found);
        }
        let repo = self.context.repo.clone();
        self.context.read(move || delivery::difference(&repo, base, tree)).await
    }

    async fn send_wanted(&mut self, tree: ObjectId, ids: Vec<ObjectId>) -> Result<(), SessionError> {
        let Some(offered) = self.offered.filter(|offered| *offered == tree) else {
            // It belongs to an offer that a newer one has replaced.
            let answer = ToAgent::Content {
                objects: Vec::new(),
                missing: ids,
            };
            return Ok(self.sender.send(&answer, b"").await?);
        };
        let allowed = self.reachable(offered).await?;
        let repo = self.context.repo.clone();
        let (found, mut missing) = self.context.read(move || delivery::wanted(&repo, &allowed, &ids)).await?;
        let (found, too_large) = split_too_large(found);
        if let Some(id) = too_large.first() {
            warn!(cluster = %self.cluster, %id, "the offered tree has an object that is too large for any message; `git cat-file` shows it");
        }
        missing.extend(too_large);
        self.context.metrics.objects_sent.inc_by(found.len() as u64);
        let mut missing = Some(missing);
        let mut batches = pack(found)?;
        if batches.is_empty() {
            batches.push(crate::wire::content::Batch::default());
        }
        for batch in batches {
            let answer = ToAgent::Content {
                objects: batch.objects,
                missing: missing.take().unwrap_or_default(),
            };
            self.sender.send(&answer, &batch.attachment).await?;
        }
        Ok(())
    }

    async fn reachable(&mut self, tree: ObjectId) -> Result<Arc<HashSet<ObjectId>>, SessionError> {
        self.forget_at = tokio::time::Instant::now() + REACHABLE_KEPT;
        if let Some((known, allowed)) = &self.allowed
            && *known == tree
        {
            return Ok(Arc::clone(allowed));
        }
        let repo = self.context.repo.clone();
        let allowed = Arc::new(self.context.read(move || delivery::reachable(&repo, tree)).await?);
        self.allowed = Some((tree, Arc::clone(&allowed)));
        Ok(allowed)
    }

    /// A new certificate for the key that is registered; the cluster comes from the verified certificate of this tunnel alone.
    async fn renew(&mut self, csr: &str) -> Result<(), SessionError> {
        let refused = |code: &str, message: String| ToAgent::Refused {
            code: code.to_owned(),
            message,
            hint: "the agent keeps its certificate until it ends".to_owned(),
        };
        let answer = match CertificateRequest::parse(csr) {
            Err(error) => refused("Invalid", format!("the certificate signing request cannot be used: {error}")),
            Ok(request) if request.key_digest() != &self.key => {
                refused("Forbidden", "the request is for another key than the tunnel's".to_owned())
            }
            Ok(request) => {
                let lifetime = self.context.certificate_lifetime;
                match self
                    .context
                    .authority
                    .issue_agent(&self.cluster, &request, SystemTime::now(), lifetime)
                {
                    Ok(certificate) => {
                        info!(cluster = %self.cluster, "renewed the agent's certificate");
                        ToAgent::Certificate { pem: certificate.pem }
                    }
                    Err(error) => refused("Internal", error.to_string()),
                }
            }
        };
        Ok(self.sender.send(&answer, b"").await?)
    }
}
