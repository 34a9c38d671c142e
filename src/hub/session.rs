//! One agent's control stream: welcomes it, offers what it lacks, serves what it wants, keeps what it reports, renews its certificate.
//!
//! ```text
//! Hello ─► Welcome ─► (desired ≠ held or applied) Offer ⇄ Want/Content ─► Report ─► wait for the next revision
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::acceptor::Session;
use super::ca::CertificateAuthority;
use super::ca::CertificateRequest;
use super::delivery;
use super::metrics::Metrics;
use super::registry::Registry;
use super::revision::Revision;
use crate::core::ids::ObjectId;
use crate::git::{Repo, RepoError};
use crate::tunnel::control::ControlError;
use crate::wire::content::{ContentError, pack};
use crate::wire::control::{Offer, Report, ToAgent, ToHub};

/// What every session works with.
#[derive(Debug)]
pub struct SessionContext {
    /// Live facts.
    pub registry: Arc<Registry>,
    /// Accepted states.
    pub revisions: watch::Receiver<Arc<Revision>>,
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
    /// The hub is going away.
    pub stop: CancellationToken,
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
}

/// Serves one agent until its tunnel ends.
pub async fn run(context: Arc<SessionContext>, number: u64, session: Session) {
    let cluster = session.cluster.clone();
    let closed = session.handle.closed();
    let handle = session.handle.clone();
    info!(cluster = %cluster, address = %session.address, held = ?session.hello.held, applied = ?session.hello.applied, "agent connected");
    let mut agent = Agent {
        context: Arc::clone(&context),
        number,
        session,
        offered: None,
        allowed: None,
    };
    let ended = tokio::select! {
        ended = agent.serve() => ended,
        () = closed.cancelled() => Ok(()),
    };
    if let Err(error) = &ended {
        warn!(cluster = %cluster, error = %error, cause = ?std::error::Error::source(error), "the session with the agent ended");
    }
    handle.close().await;
    context
        .registry
        .update(&cluster, number, |live| live.lost = Some(Timestamp::now()));
    info!(cluster = %cluster, "agent disconnected");
}

struct Agent {
    context: Arc<SessionContext>,
    number: u64,
    session: Session,
    /// Epoch, generation and tree of the last offer.
    offered: Option<(u64, u64, ObjectId)>,
    /// What the offered tree reaches, worked out at the first `Want`.
    allowed: Option<(ObjectId, Arc<HashSet<ObjectId>>)>,
}

impl Agent {
    async fn serve(&mut self) -> Result<(), SessionError> {
        let mut revisions = self.context.revisions.clone();
        let welcome = ToAgent::Welcome {
            protocol: self.session.protocol,
            heartbeat_seconds: self.context.heartbeat_seconds,
            epoch: revisions.borrow_and_update().epoch,
        };
        self.session.sender.send(&welcome, b"").await?;
        self.offer_if_needed().await?;
        let stop = self.context.stop.clone();
        loop {
            tokio::select! {
                received = self.session.receiver.receive() => match received? {
                    Some(received) => self.answer(received.message).await?,
                    None => return Ok(()),
                },
                changed = revisions.changed() => match changed {
                    Ok(()) => {
                        revisions.borrow_and_update();
                        self.offer_if_needed().await?;
                    }
                    Err(_) => return Ok(()),
                },
                () = stop.cancelled() => {
                    self.session.sender.send(&ToAgent::Drain {}, b"").await?;
                    return Ok(());
                }
            }
        }
    }

    /// Offers the desired tree unless it was offered already, or the agent has applied it.
    async fn offer_if_needed(&mut self) -> Result<(), SessionError> {
        let revision = self.context.revisions.borrow().clone();
        // Before its first commit a hub knows nothing that could be desired.
        let known = revision.commit.is_some() && revision.trees.contains_key(&self.session.cluster);
        let tree = revision.tree(&self.session.cluster);
        let last = self.offered.map(|(_, _, tree)| tree);
        if !known || last == Some(tree) {
            return Ok(());
        }
        if last.is_none() && self.session.hello.applied == Some(tree) {
            self.offered = Some((revision.epoch, revision.generation, tree));
            return Ok(());
        }
        let base = last.or(self.session.hello.held);
        let repo = self.context.repo.clone();
        let objects = blocking(move || delivery::difference(&repo, base, tree)).await?;
        let batch = pack(objects)?.into_iter().next().unwrap_or_default();
        let offer = Offer {
            epoch: revision.epoch,
            generation: revision.generation,
            tree,
            base,
            objects: batch.objects,
        };
        debug!(cluster = %self.session.cluster, tree = %tree, generation = offer.generation, objects = offer.objects.len(), "offer");
        self.context.metrics.offers.inc();
        self.context.metrics.objects_sent.inc_by(offer.objects.len() as u64);
        self.offered = Some((revision.epoch, revision.generation, tree));
        self.session.sender.send(&ToAgent::Offer(offer), &batch.attachment).await?;
        Ok(())
    }

    async fn answer(&mut self, message: ToHub) -> Result<(), SessionError> {
        let cluster = self.session.cluster.clone();
        let now = Timestamp::now();
        match message {
            ToHub::Heartbeat { status } => self.context.registry.update(&cluster, self.number, |live| {
                live.heard = now;
                live.status = *status;
            }),
            ToHub::Want { tree, ids } => self.send_wanted(tree, ids).await?,
            ToHub::Report(report) => self.keep(report, now),
            ToHub::Renew { csr } => self.renew(&csr).await?,
            // An agent introduces itself once; what a newer agent says besides is not for this version.
            ToHub::Hello(_) | ToHub::Ignored => {}
        }
        Ok(())
    }

    async fn send_wanted(&mut self, tree: ObjectId, ids: Vec<ObjectId>) -> Result<(), SessionError> {
        let Some((_, _, offered)) = self.offered.filter(|(_, _, offered)| *offered == tree) else {
            // It belongs to an offer that a newer one has replaced.
            let answer = ToAgent::Content {
                objects: Vec::new(),
                missing: ids,
            };
            return Ok(self.session.sender.send(&answer, b"").await?);
        };
        let allowed = self.reachable(offered).await?;
        let repo = self.context.repo.clone();
        let (found, missing) = blocking(move || delivery::wanted(&repo, &allowed, &ids)).await?;
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
            self.session.sender.send(&answer, &batch.attachment).await?;
        }
        Ok(())
    }

    async fn reachable(&mut self, tree: ObjectId) -> Result<Arc<HashSet<ObjectId>>, SessionError> {
        if let Some((known, allowed)) = &self.allowed
            && *known == tree
        {
            return Ok(Arc::clone(allowed));
        }
        let repo = self.context.repo.clone();
        let allowed = Arc::new(blocking(move || delivery::reachable(&repo, tree)).await?);
        self.allowed = Some((tree, Arc::clone(&allowed)));
        Ok(allowed)
    }

    fn keep(&mut self, report: Report, now: Timestamp) {
        let cluster = self.session.cluster.clone();
        let current = self.offered.is_none_or(|(_, _, tree)| report.tree == tree);
        debug!(cluster = %cluster, tree = %report.tree, held = report.held, applied = report.applied, current, "report");
        if report.applied {
            self.context.metrics.applied.inc();
        }
        self.context.registry.update(&cluster, self.number, |live| {
            live.heard = now;
            live.held = report.held.then_some(report.tree).or(live.held);
            live.applied = report.applied.then_some(report.tree).or(live.applied);
            for description in report.descriptions {
                live.descriptions.insert(description.name.clone(), Arc::new(description));
            }
        });
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
            Ok(request) if request.key_digest() != &self.session.key => {
                refused("Forbidden", "the request is for another key than the tunnel's".to_owned())
            }
            Ok(request) => {
                let lifetime = self.context.certificate_lifetime;
                match self
                    .context
                    .authority
                    .issue_agent(&self.session.cluster, &request, SystemTime::now(), lifetime)
                {
                    Ok(certificate) => {
                        info!(cluster = %self.session.cluster, "renewed the agent's certificate");
                        ToAgent::Certificate { pem: certificate.pem }
                    }
                    Err(error) => refused("Internal", error.to_string()),
                }
            }
        };
        Ok(self.session.sender.send(&answer, b"").await?)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, RepoError> + Send + 'static) -> Result<T, SessionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        // The runtime is going down, and the session with it.
        Err(_) => std::future::pending().await,
    }
}
