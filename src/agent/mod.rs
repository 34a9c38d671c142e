//! The agent: registers with the hub, keeps the tunnel up, applies what is offered, reports, answers proxied requests.
//! Decides nothing about what should be in the cluster: plans come from [`crate::core::apply`].
//!
//! ```text
//! run ─► identity (key, registration, certificate)
//!     ├─ deliver: one task, owns the inventory            ┐
//!     ├─ observe: one task, keeps the status up to date    ├ outlive every tunnel
//!     └─ dial loop ─► session: hello, control, proxied streams ┘
//! ```

mod appraise;
mod config;
mod credentials;
mod deliver;
mod execute;
mod identity;
mod impersonate;
mod observe;
mod pin;
mod proxy;
mod register;
mod session;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use config::{AgentConfig, CaHash, CredentialsPlace, InvalidCaHash, Trust};
pub use credentials::{Credentials, CredentialsError, CredentialsStore};
pub use execute::{Run, execute};
pub use pin::{TlsError, WrongCa};
pub use register::RegisterError;

use crate::cluster::{AccessError, ApiError, Cluster, StatusCollector};
use crate::core::ids::ClusterId;
use crate::core::text::with_causes;
use crate::tunnel::backoff::Backoff;
use crate::tunnel::dial::{self, DialError};
use deliver::{Deliverer, Delivery, Standing};
use identity::Certificate;
use observe::Observation;
use proxy::Upstreams;
use session::{SessionEnd, SessionParts, SessionResult};

/// Messages from the hub that wait while something is saved; more of them make the hub wait.
const DELIVERIES: usize = 16;
/// How often the status is collected until the hub says something else.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
/// How long the first hello waits for inventory and status: both are there at once unless the API server is down.
const HELLO_PATIENCE: Duration = Duration::from_secs(3);
/// How long the tasks may take to end after a stop.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why an agent gave up. Everything that may pass is tried again instead.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The way to the API server is not known.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The cluster's identity cannot be read.
    #[error("the cluster's id, the UID of its namespace kube-system, cannot be read: {}", .0.explain())]
    Identity(#[source] ApiError),
    /// Key and certificate cannot be read or kept.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The hub does not take this cluster.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another hub answers, or the hash is wrong.
    #[error(transparent)]
    WrongCa(WrongCa),
    /// The kept credentials are for another cluster.
    #[error("{place} is for cluster {kept}, this is cluster {found}; remove it, or name the right cluster")]
    OtherCluster {
        /// Where they are.
        place: String,
        /// Whose they are.
        kept: ClusterId,
        /// Which cluster this is.
        found: ClusterId,
    },
    /// First contact needs a token.
    #[error(
        "{place} holds no certificate and no token was given; get one with `branchline token create --print-join` and pass it with --token"
    )]
    NoToken {
        /// Where the certificate was looked for.
        place: String,
    },
    /// Nothing says which hub is the right one.
    #[error("nothing says how to know the hub: no CA was pinned before, and none was stated")]
    NoTrust,
    /// An approval without a certificate that can be read.
    #[error("the hub approved the registration but sent no certificate that can be read; are hub and agent of the same version?")]
    NoCertificate,
}

/// Runs until `stop` is cancelled, which is a good end, or until nothing but a person can help.
pub async fn run(config: AgentConfig, stop: CancellationToken) -> Result<(), AgentError> {
    let cluster = Cluster::connect(&config.access).await?;
    tracing::info!(server = cluster.server(), hub = config.hub.authority(), "agent starts");
    let background = Background::start(&config, &cluster, &stop);
    let result = keep_connected(&config, &cluster, &background.ends, &stop).await;
    background.end().await;
    result
}

/// The tasks that outlive tunnels.
struct Background {
    tasks: JoinSet<()>,
    ends: Ends,
    stop: CancellationToken,
}

/// What the dial loop holds of them.
struct Ends {
    deliveries: mpsc::Sender<Delivery>,
    standing: watch::Receiver<Option<Standing>>,
    observations: watch::Receiver<Option<Observation>>,
    period: watch::Sender<Duration>,
}

impl Background {
    fn start(config: &AgentConfig, cluster: &Cluster, stop: &CancellationToken) -> Self {
        let stop = stop.child_token();
        let mut tasks = JoinSet::new();
        let look_now = Arc::new(Notify::new());
        let (deliverer, standing) = Deliverer::new(cluster.clone(), Arc::clone(&look_now));
        let (deliveries, received) = mpsc::channel(DELIVERIES);
        tasks.spawn(deliverer.run(received, stop.clone()));
        let (publish, observations) = watch::channel(None);
        let (period, heartbeat) = watch::channel(DEFAULT_HEARTBEAT);
        let collector = StatusCollector::new(cluster.clone(), DEFAULT_HEARTBEAT, config.survey_interval);
        tasks.spawn(observe::observe(
            collector,
            config.labels.clone(),
            publish,
            heartbeat,
            look_now,
            stop.clone(),
        ));
        let ends = Ends {
            deliveries,
            standing,
            observations,
            period,
        };
        Background { tasks, ends, stop }
    }

    /// A run that is under way ends between two requests and saves what it did.
    async fn end(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            tracing::warn!("the API server takes too long; what is under way stays noted as pending");
        }
    }
}

async fn keep_connected(
    config: &AgentConfig,
    cluster: &Cluster,
    ends: &Ends,
    stop: &CancellationToken,
) -> Result<(), AgentError> {
    let store = CredentialsStore::new(config.credentials.clone(), cluster.clone());
    let Some(mut credentials) = identity::load(config, cluster, &store, stop).await? else {
        return Ok(());
    };
    let upstreams = Upstreams::prepare(cluster, config).await?;
    let mut attempt = 0;
    while !stop.is_cancelled() {
        let attempted = match identity::ensure(config, &mut credentials, &store, stop).await? {
            Certificate::Held => connect_once(config, &upstreams, cluster, &mut credentials, &store, ends, stop).await?,
            Certificate::NotNow => Attempt::NoCertificate,
            Certificate::Stopped => return Ok(()),
        };
        let welcomed = match attempted {
            Attempt::Session(result) => {
                say_why(&result.end);
                result.welcomed
            }
            Attempt::NotTaken(error) => {
                let error = with_causes(&error);
                tracing::warn!(%error, "the hub does not take the certificate; asking for a new one");
                identity::renew(config, &mut credentials, &store, stop).await;
                false
            }
            Attempt::NoTunnel(error) => {
                let error = with_causes(&error);
                tracing::warn!(%error, "no tunnel to the hub; trying again");
                false
            }
            Attempt::NoCertificate => false,
        };
        attempt = if welcomed { 0 } else { attempt + 1 };
        if !pause(config.backoff, attempt, stop).await {
            return Ok(());
        }
    }
    Ok(())
}

/// What came of one attempt to have a tunnel.
enum Attempt {
    Session(SessionResult),
    /// The hub wants another certificate: by its clock ours has expired, or it does not know us any more.
    NotTaken(DialError),
    NoTunnel(DialError),
    /// Ours has expired, and the hub gave no other.
    NoCertificate,
}

async fn connect_once(
    config: &AgentConfig,
    upstreams: &Upstreams,
    cluster: &Cluster,
    credentials: &mut Credentials,
    store: &CredentialsStore,
    ends: &Ends,
    stop: &CancellationToken,
) -> Result<Attempt, AgentError> {
    let tls = pin::trusting(&credentials.ca, Some((&credentials.certificate, &credentials.key)))?;
    let dialled = dial::dial(&config.hub, &credentials.cluster_id, tls, &config.tunnel);
    let tunnel = tokio::select! {
        () = stop.cancelled() => return Ok(Attempt::Session(SessionResult { welcomed: false, end: SessionEnd::Stopped })),
        dialled = dialled => match dialled {
            Ok(tunnel) => tunnel,
            Err(error) if wants_another(&error) => return Ok(Attempt::NotTaken(error)),
            Err(error) => return Ok(Attempt::NoTunnel(error)),
        },
    };
    let standing = known(ends.standing.clone()).await;
    known(ends.observations.clone()).await;
    let parts = SessionParts {
        cluster,
        upstreams,
        credentials,
        store,
        deliveries: &ends.deliveries,
        standing,
        observations: ends.observations.clone(),
        period: &ends.period,
        stop,
    };
    Ok(Attempt::Session(session::run(tunnel, parts).await))
}

/// The value once there is one, within reason.
async fn known<T: Clone>(mut value: watch::Receiver<Option<T>>) -> Option<T> {
    let there = tokio::time::timeout(HELLO_PATIENCE, value.wait_for(Option::is_some)).await;
    there.ok()?.ok()?.clone()
}

fn wants_another(error: &DialError) -> bool {
    let source = match error {
        DialError::Tls { source, .. } => source,
        DialError::Refused { status, .. } => return *status == http::StatusCode::UNAUTHORIZED,
        _ => return false,
    };
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired))
    )
}

fn say_why(end: &SessionEnd) {
    match end {
        SessionEnd::Stopped => tracing::info!("tunnel closed"),
        SessionEnd::Drained => tracing::info!("the hub goes away; reconnecting"),
        SessionEnd::Refused(why) => tracing::error!(%why, "the hub refuses this agent; trying again"),
        SessionEnd::Broken(error) => {
            let error = with_causes(error);
            tracing::warn!(%error, "tunnel lost; reconnecting");
        }
    }
}

/// Full jitter. `false`: stopped.
async fn pause(backoff: Backoff, attempt: u32, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(backoff.delay(attempt, rand::random())) => true,
    }
}

/// A moment that may never come.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
