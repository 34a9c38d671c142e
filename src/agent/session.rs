//! One tunnel's life, from the agent's side: hello, control messages, heartbeats, certificate renewal, proxied streams.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::appraise::appraise;
use super::credentials::{Credentials, CredentialsStore};
use super::deliver::{Delivery, Standing};
use super::identity::renewal_due;
use super::observe::Observation;
use super::proxy::{Upstreams, serve_stream};
use super::register::signing_request;
use super::until;
use crate::cluster::Cluster;
use crate::core::api::cluster::ClusterStatus;
use crate::core::apply::Target;
use crate::tunnel::control::{self, ControlError, ControlReceiver, ControlSender};
use crate::tunnel::{OpenError, Tunnel, TunnelStream};
use crate::wire::codec::Received;
use crate::wire::content::{self, ContentError};
use crate::wire::control::{Ask, Hello, ToAgent, ToHub};
use crate::wire::header::StreamHeader;
use crate::wire::version;

/// Messages that wait for the tunnel; whoever has more waits as well.
const OUTBOX: usize = 32;
/// Questions about room that wait; a hub repeats one that was not answered.
const ASKS: usize = 2;
/// A hub that welcomes nobody within this time is not well.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);
/// Before a renewal that got no answer is asked for again.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// What a session works with.
pub(super) struct SessionParts<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) upstreams: &'a Upstreams,
    /// Replaced in place when the hub sends a new certificate, which the next tunnel uses.
    pub(super) credentials: &'a mut Credentials,
    pub(super) store: &'a CredentialsStore,
    pub(super) deliveries: &'a mpsc::Sender<Delivery>,
    pub(super) standing: Option<Standing>,
    pub(super) observations: watch::Receiver<Option<Observation>>,
    pub(super) period: &'a watch::Sender<Duration>,
    pub(super) stop: &'a CancellationToken,
}

/// Why a session ended.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// The agent was told to stop.
    Stopped,
    /// The hub goes away in order.
    Drained,
    /// The hub refuses this agent.
    Refused(String),
    /// The tunnel broke, or the hub spoke nonsense.
    Broken(SessionError),
}

/// What broke a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("the control stream cannot be opened: {0}")]
    Open(#[from] OpenError),
    #[error("control stream: {0}")]
    Control(#[from] ControlError),
    #[error("the hub sent damaged content: {0}")]
    Content(#[from] ContentError),
    #[error("the tunnel is gone")]
    Gone,
    #[error("the hub did not answer the hello within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
}

/// Whether a session got as far as being welcomed, which resets the pauses between attempts.
pub(super) struct SessionResult {
    pub(super) welcomed: bool,
    pub(super) end: SessionEnd,
}

/// Runs one session on a fresh tunnel and closes it.
pub(super) async fn run(tunnel: Tunnel, parts: SessionParts<'_>) -> SessionResult {
    let handle = tunnel.handle.clone();
    let mut session = Session {
        parts,
        welcomed: false,
        heartbeat: Instant::now(),
        well: None,
        renew_at: None,
        asks: None,
        tasks: JoinSet::new(),
    };
    let end = session.live(tunnel).await.unwrap_or_else(SessionEnd::Broken);
    // Says goodbye where there is still somebody to hear it.
    handle.close().await;
    SessionResult {
        welcomed: session.welcomed,
        end,
    }
}

struct Session<'a> {
    parts: SessionParts<'a>,
    welcomed: bool,
    /// When the last heartbeat was sent.
    heartbeat: Instant,
    /// What the last heartbeat said about the cluster's health.
    well: Option<(bool, String)>,
    /// When the certificate has to be renewed.
    renew_at: Option<Instant>,
    /// To the task that answers how many more replicas fit, once the hub has asked.
    asks: Option<mpsc::Sender<Ask>>,
    tasks: JoinSet<()>,
}

impl Session<'_> {
    async fn live(&mut self, tunnel: Tunnel) -> Result<SessionEnd, SessionError> {
        let mut stream = tunnel.handle.open()?;
        control::write_header(
            &mut stream,
            &StreamHeader::Control {
                version: version::NEWEST,
            },
        )
        .await?;
        let (sender, mut receiver): (ControlSender<ToHub>, ControlReceiver<ToAgent>) = control::split(stream);
        let (outbox, letters) = mpsc::channel(OUTBOX);
        self.tasks.spawn(post(sender, letters));
        self.tasks.spawn(accept(tunnel.incoming, self.parts.upstreams.clone()));
        self.renew_at = renewal_due(&self.parts.credentials.certificate);
        let hello = self.hello();
        outbox.send(hello).await.map_err(|_| SessionError::Gone)?;
        let began = Instant::now();
        let closed = tunnel.handle.closed();
        loop {
            let unwelcome = (!self.welcomed).then_some(began + WELCOME_TIMEOUT);
            tokio::select! {
                () = self.parts.stop.cancelled() => return Ok(SessionEnd::Stopped),
                () = closed.cancelled() => return Err(SessionError::Gone),
                () = until(unwelcome) => return Err(SessionError::NoWelcome),
                received = receiver.receive() => {
                    let received = received?.ok_or(SessionError::Gone)?;
                    if let Some(end) = self.hear(received, &outbox).await? {
                        return Ok(end);
                    }
                }
                changed = self.parts.observations.changed() => {
                    if changed.is_ok() {
                        self.beat(&outbox).await?;
                    }
                }
                () = until(self.renew_at) => self.renew(&outbox).await?,
            }
        }
    }

    fn hello(&mut self) -> ToHub {
        let standing = self.parts.standing.unwrap_or_default();
        let Observation { status, labels } = self.parts.observations.borrow_and_update().clone().unwrap_or_default();
        self.well = Some(health(&status));
        ToHub::Hello(Box::new(Hello {
            protocol: version::NEWEST,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: self.parts.credentials.cluster_id.clone(),
            held: standing.held,
            applied: standing.applied,
            epoch: standing.epoch,
            generation: standing.generation,
            status,
            labels,
        }))
    }

    async fn hear(
        &mut self,
        received: Received<ToAgent>,
        outbox: &mpsc::Sender<ToHub>,
    ) -> Result<Option<SessionEnd>, SessionError> {
        match received.message {
            ToAgent::Welcome { heartbeat_seconds, .. } => {
                self.welcomed = true;
                let period = Duration::from_secs(u64::from(heartbeat_seconds.max(1)));
                self.parts
                    .period
                    .send_if_modified(|known| std::mem::replace(known, period) != period);
                tracing::info!(heartbeat_seconds, "connected to the hub");
                self.deliver(Delivery::Connected(outbox.clone())).await?;
            }
            ToAgent::Offer(offer) => {
                let objects = content::unpack(&offer.objects, &received.attachment)?;
                let target = Target {
                    epoch: offer.epoch,
                    generation: offer.generation,
                    tree: offer.tree,
                };
                self.deliver(Delivery::Offer(target, objects)).await?;
            }
            ToAgent::Content { objects, missing } => {
                let objects = content::unpack(&objects, &received.attachment)?;
                self.deliver(Delivery::Content(objects, missing)).await?;
            }
            ToAgent::Ask(ask) => self.appraise(ask, outbox),
            ToAgent::Certificate { pem } => self.take_certificate(pem),
            ToAgent::Refused { code, message, hint } => {
                tracing::error!(code, message, hint, "the hub refused");
                return Ok((!self.welcomed).then(|| SessionEnd::Refused(format!("{message}; {hint}"))));
            }
            ToAgent::Drain {} => return Ok(Some(SessionEnd::Drained)),
            ToAgent::Ignored => {}
        }
        Ok(None)
    }

    /// Never waits: an API server that is slow must not hold up the tunnel.
    fn appraise(&mut self, ask: Ask, outbox: &mpsc::Sender<ToHub>) {
        let asks = match &self.asks {
            Some(asks) => asks,
            None => {
                let (asks, questions) = mpsc::channel(ASKS);
                self.tasks
                    .spawn(appraise(self.parts.cluster.clone(), questions, outbox.clone()));
                self.asks.insert(asks)
            }
        };
        if asks.try_send(ask).is_err() {
            tracing::debug!("the hub asks faster than the cluster can be looked at");
        }
    }

    /// The tunnel that stands goes on with the certificate it was opened with.
    fn take_certificate(&mut self, pem: String) {
        self.parts.credentials.certificate = pem;
        self.renew_at = renewal_due(&self.parts.credentials.certificate);
        let (store, credentials) = (self.parts.store.clone(), self.parts.credentials.clone());
        self.tasks.spawn(async move {
            match store.save(&credentials).await {
                Ok(()) => tracing::info!(place = store.describe(), "certificate renewed"),
                Err(error) => {
                    tracing::error!(%error, "the renewed certificate cannot be kept; it is renewed again after a restart")
                }
            }
        });
    }

    async fn deliver(&self, delivery: Delivery) -> Result<(), SessionError> {
        self.parts.deliveries.send(delivery).await.map_err(|_| SessionError::Gone)
    }

    /// A heartbeat when it is time, and at once when the cluster's health has changed.
    async fn beat(&mut self, outbox: &mpsc::Sender<ToHub>) -> Result<(), SessionError> {
        let Some(Observation { status, labels }) = self.parts.observations.borrow_and_update().clone() else {
            return Ok(());
        };
        let health = health(&status);
        // The collector's period is the heartbeat's; a little less, so that two clocks do not make it every second one.
        let due = self.heartbeat.elapsed() + Duration::from_secs(1) >= *self.parts.period.borrow();
        if due || self.well.as_ref() != Some(&health) {
            self.well = Some(health);
            self.heartbeat = Instant::now();
            let status = Box::new(status);
            outbox
                .send(ToHub::Heartbeat { status, labels })
                .await
                .map_err(|_| SessionError::Gone)?;
        }
        Ok(())
    }

    async fn renew(&mut self, outbox: &mpsc::Sender<ToHub>) -> Result<(), SessionError> {
        self.renew_at = Some(Instant::now() + RENEW_AGAIN);
        match signing_request(&self.parts.credentials.key, &self.parts.credentials.cluster_id) {
            Ok(csr) => outbox.send(ToHub::Renew { csr }).await.map_err(|_| SessionError::Gone),
            Err(error) => {
                tracing::error!(%error, "the agent's key cannot sign a request for a new certificate");
                Ok(())
            }
        }
    }
}

fn health(status: &ClusterStatus) -> (bool, String) {
    (status.readyz, status.message.clone())
}

/// Serves what the hub opens, each stream in a task that ends with the tunnel.
async fn accept(mut incoming: mpsc::Receiver<TunnelStream>, upstreams: Upstreams) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.recv() => match stream {
                Some(stream) => drop(streams.spawn(serve_stream(stream, upstreams.clone()))),
                None => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Writes letters in order; a message is never cut, because this task is never cancelled inside one while the tunnel lives.
async fn post(mut sender: ControlSender<ToHub>, mut letters: mpsc::Receiver<ToHub>) {
    while let Some(letter) = letters.recv().await {
        if let Err(error) = sender.send(&letter, &[]).await {
            return tracing::debug!(%error, "control stream");
        }
    }
}
