//! Starts a hub from its configuration and stops it again: the one place that knows all its parts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::acceptor::{Acceptor, Session};
use super::api::HubApi;
use super::auth::{Authentication, Authenticator, KeyKeeper, Oidc, OidcConfig, OidcError, TokenFile, TokenFileError};
use super::ca::{CaError, CertificateAuthority};
use super::data::{DataDirectory, DataError};
use super::editing::Editor;
use super::endpoints::Endpoints;
use super::gate::Gate;
use super::listener::{self, PortSettings};
use super::live_facts::LiveFacts;
use super::metrics::Metrics;
use super::projection::Projection;
use super::proxy::Proxy;
use super::registry::Registry;
use super::revision::Revision;
use super::router::Router;
use super::session::{self, READERS, SessionContext};
use super::source::{self, SourceError};
use super::tls::{self, ServerIdentity, TlsError};
use super::user_access::UserAccess;
use super::writer::{StartError, Wake, Writer, WriterSettings};
use crate::core::diagnostic::Diagnostic;
use crate::core::registration::Approval;
use crate::core::render::RenderSettings;
use crate::core::yaml::Limits;
use crate::git::{Git, RepositoryUrl};
use crate::kubeapi::{Front, Store};
use crate::tunnel::TunnelSettings;

/// Everything that a hub needs to know.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// What people push to.
    pub source: RepositoryUrl,
    /// Its branch; `None` means its default branch.
    pub branch: Option<String>,
    /// Directory in it that is read.
    pub path: String,
    /// The data directory.
    pub data: PathBuf,
    /// Where the authority's files are.
    pub ca_dir: PathBuf,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Addresses under which agents and people reach this hub, `https://host:port`.
    pub advertise: Vec<String>,
    /// Name of the state branch.
    pub state_branch: String,
    /// Where the state branch is; `None` means the source repository.
    pub state_repo: Option<RepositoryUrl>,
    /// How often the source is polled.
    pub poll: Duration,
    /// Whether unknown clusters with a token join at once.
    pub approval: Approval,
    /// What people allow in rendering.
    pub render: RenderSettings,
    /// Levels of directories above those of the state branch that are keyed by cluster; as the branch has it where nothing is said.
    pub cluster_fan_out: Option<u8>,
    /// Life of an agent's certificate.
    pub certificate_lifetime: Duration,
    /// How long a cluster may be not ready before nothing new goes there.
    pub unready_grace: Duration,
    /// By what users prove who they are, besides client certificates.
    pub credentials: UserCredentials,
}

/// By what users prove who they are, besides client certificates of the hub's authority.
#[derive(Debug, Clone, Default)]
pub struct UserCredentials {
    /// File of static tokens' digests.
    pub token_file: Option<PathBuf>,
    /// An issuer of ID tokens.
    pub oidc: Option<OidcConfig>,
    /// Whether a request is let in as `system:anonymous` that carries a cluster's own credential and none of the hub's.
    pub anonymous_cluster_credentials: bool,
}

impl UserCredentials {
    fn authentication(&self) -> Result<(Authentication, Option<KeyKeeper>), HubError> {
        let (oidc, keeper) = self.oidc.clone().map(Oidc::new).transpose()?.unzip();
        let authentication = Authentication {
            tokens: self.token_file.clone().map(TokenFile::open).transpose()?,
            oidc,
            anonymous_cluster_credentials: self.anonymous_cluster_credentials,
            ..Authentication::default()
        };
        Ok((authentication, keeper))
    }
}

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The authority cannot be loaded or made.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The repositories cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The state branch cannot be read.
    #[error(transparent)]
    Start(#[from] StartError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of static tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The issuer of ID tokens cannot be used.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("the writer's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

/// A hub that runs.
#[derive(Debug)]
pub struct Hub {
    /// Where it listens.
    pub address: SocketAddr,
    /// How agents and people reach it, best first.
    pub urls: Vec<String>,
    /// `sha256:` hash of its authority's key.
    pub ca_hash: String,
    /// The administrator's kubeconfig.
    pub admin_kubeconfig: PathBuf,
    /// Accepted states.
    pub revisions: watch::Receiver<Arc<Revision>>,
    tasks: TaskTracker,
    writer: std::thread::JoinHandle<()>,
    _data: Arc<DataDirectory>,
}

/// Agents that came back together wait here for their session.
const JOIN_QUEUE: usize = 16_384;
/// Changes of live facts that wait for the projection.
const CHANGE_QUEUE: usize = 4_096;
/// Wakes that wait for the writer; registrations are among them.
const WAKE_QUEUE: usize = 4_096;
/// Changes that the hub's API keeps for watches.
const WATCH_HISTORY: usize = 4_096;
const HEARTBEAT_SECONDS: u32 = 30;

impl Hub {
    /// Starts it; it runs until `stop`.
    pub async fn start(config: HubConfig, stop: CancellationToken) -> Result<Hub, HubError> {
        let data = Arc::new(DataDirectory::open(&config.data)?);
        let authority = Arc::new(CertificateAuthority::load_or_create(&config.ca_dir, SystemTime::now())?);
        let listen = |source| HubError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let urls = urls(address, &config.advertise);
        let admin_kubeconfig = data.write_admin_kubeconfig(&urls[0], &authority, SystemTime::now())?;
        let (source, state) = open_repositories(&config).await?;
        let settings = WriterSettings {
            path: config.path.clone(),
            approval: config.approval,
            render: config.render,
            fan_out: config.cluster_fan_out,
            limits: Limits::default(),
            access: data.access_file(),
        };
        let (wakes, wake_queue) = mpsc::channel(WAKE_QUEUE);
        let epoch_of = Arc::clone(&data);
        let own = state.reference.clone();
        let (writer, revisions) = Writer::start(source.clone(), state.clone(), settings, wakes.downgrade(), |on_branch| {
            // A directory that cannot be written failed the start above, when the administrator's kubeconfig was written.
            epoch_of.epoch(on_branch, SystemTime::now()).unwrap_or(on_branch + 1)
        })?;
        info!(epoch = writer.epoch(), address = %address, ca = %authority.hash(), "the hub starts");
        let parts = Parts {
            config,
            authority,
            revisions: revisions.clone(),
            wakes: wakes.clone(),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        };
        let facts = parts.serve(listener, address, &state)?;
        let writer = writer.with_live_facts(facts);
        parts
            .tasks
            .spawn(source::follow(source, own, parts.config.poll, wakes, stop.clone()));
        parts.tasks.spawn(report_diagnostics(revisions.clone(), stop));
        parts.tasks.close();
        let writer = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || writer.run(wake_queue, Timestamp::now));
        let writer = writer.map_err(HubError::Thread)?;
        let ca_hash = parts.authority.hash().to_string();
        Ok(Hub {
            address,
            urls,
            ca_hash,
            admin_kubeconfig,
            revisions,
            tasks: parts.tasks,
            writer,
            _data: data,
        })
    }

    /// Waits until everything has ended after the stop.
    pub async fn finished(self) {
        self.tasks.wait().await;
        // The last sender of wakes is gone by now, so the writer ends after the run that is under way.
        let ended = tokio::task::spawn_blocking(move || self.writer.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            error!("the writer's thread did not end in order");
        }
    }
}

async fn open_repositories(config: &HubConfig) -> Result<(source::Source, source::StateRepository), HubError> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<_, SourceError> {
        let source = source::open_source(&config.source, config.branch.as_deref(), &config.data)?;
        let state = source::open_state(&source, config.state_repo.as_ref(), &config.state_branch, &config.data)?;
        if let Some(remote) = &source.remote
            && let Err(error) = remote.follow(&source.repo)
        {
            warn!(error = %error, "the source cannot be fetched now; the last fetched state counts");
        }
        Ok((source, state))
    });
    match opened.await {
        Ok(opened) => Ok(opened?),
        Err(_) => std::future::pending().await,
    }
}

/// What is advertised, else what is listened on.
fn urls(address: SocketAddr, advertised: &[String]) -> Vec<String> {
    if !advertised.is_empty() {
        return advertised.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    }
    let host = if address.ip().is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        address.ip().to_string()
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    vec![format!("https://{host}:{}", address.port())]
}

/// The host of an `https://host:port` URL.
fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.host()?.trim_matches(['[', ']']).to_owned())
}

struct Parts {
    config: HubConfig,
    authority: Arc<CertificateAuthority>,
    revisions: watch::Receiver<Arc<Revision>>,
    wakes: mpsc::Sender<Wake>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Parts {
    fn serve(
        &self,
        listener: TcpListener,
        address: SocketAddr,
        state: &source::StateRepository,
    ) -> Result<Arc<LiveFacts>, HubError> {
        let (joined, sessions) = mpsc::channel(JOIN_QUEUE);
        let (changed, changes) = mpsc::channel(CHANGE_QUEUE);
        let metrics = Arc::new(Metrics::default());
        let registry = Arc::new(Registry::new(self.revisions.clone(), joined, changed));
        self.tasks.spawn(Arc::clone(&registry).enforce(self.stop.clone()));
        let origin = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
        let store = Arc::new(Store::new(origin, WATCH_HISTORY));
        let facts = self.live_facts(&registry);
        let projection = Projection::new(
            Arc::clone(&store),
            Arc::clone(&registry),
            Arc::clone(&facts),
            Arc::clone(&metrics),
        );
        let projection = projection.reading(state.repo.clone());
        self.tasks
            .spawn(projection.run(self.revisions.clone(), changes, read_log(state), self.stop.clone()));
        self.tasks.spawn(self.sessions(
            sessions,
            Arc::clone(&registry),
            Arc::clone(&facts),
            Arc::clone(&metrics),
            state.repo.clone(),
        ));
        let (authentication, keeper) = self.config.credentials.authentication()?;
        if let Some(keeper) = keeper {
            self.tasks.spawn(keeper.keep(self.stop.clone()));
        }
        let gate = Arc::new(Gate::new(self.revisions.clone(), authentication));
        self.tasks.spawn(Arc::clone(&gate).enforce(self.stop.clone()));
        self.tasks.spawn(Arc::clone(&gate).ask_again(self.stop.clone()));
        let router = self.router(gate, registry, store, metrics);
        self.listen(listener, address, router)?;
        Ok(facts)
    }

    fn live_facts(&self, registry: &Arc<Registry>) -> Arc<LiveFacts> {
        let revision = self.revisions.borrow().clone();
        let facts = LiveFacts::new(Arc::clone(registry), self.config.unready_grace, &revision, Timestamp::now());
        let facts = Arc::new(facts);
        self.tasks
            .spawn(Arc::clone(&facts).watch(self.revisions.clone(), self.wakes.clone(), self.stop.clone()));
        facts
    }

    fn sessions(
        &self,
        mut queue: mpsc::Receiver<(u64, Box<Session>)>,
        registry: Arc<Registry>,
        facts: Arc<LiveFacts>,
        metrics: Arc<Metrics>,
        repo: crate::git::Repo,
    ) -> impl Future<Output = ()> + use<> {
        let context = Arc::new(SessionContext {
            registry,
            facts,
            revisions: self.revisions.clone(),
            wakes: self.wakes.clone(),
            repo,
            authority: Arc::clone(&self.authority),
            certificate_lifetime: self.config.certificate_lifetime,
            heartbeat_seconds: HEARTBEAT_SECONDS,
            metrics,
            readers: Semaphore::new(READERS),
            stop: self.stop.clone(),
        });
        async move {
            let running = TaskTracker::new();
            loop {
                let next = tokio::select! {
                    next = queue.recv() => next,
                    () = context.stop.cancelled() => None,
                };
                let Some((number, session)) = next else { break };
                running.spawn(session::run(Arc::clone(&context), number, session));
            }
            running.close();
            running.wait().await;
        }
    }

    fn router(&self, gate: Arc<Gate>, registry: Arc<Registry>, store: Arc<Store>, metrics: Arc<Metrics>) -> Router {
        let endpoints = Endpoints {
            revisions: self.revisions.clone(),
            registry: Arc::clone(&registry),
            editor: Editor::new(self.wakes.clone()),
            authority: Arc::clone(&self.authority),
            certificate_lifetime: self.config.certificate_lifetime,
        };
        let user_access = UserAccess::new(self.revisions.clone(), Arc::clone(&self.authority));
        let api = Arc::new(HubApi::new(
            store,
            self.revisions.clone(),
            self.config.source.to_string(),
            Editor::new(self.wakes.clone()),
        ));
        Router {
            acceptor: Acceptor::new(Arc::clone(&registry), TunnelSettings::hub(), self.stop.clone()),
            proxy: Proxy::new(registry, Arc::clone(&gate)),
            gate,
            endpoints,
            user_access,
            front: Front::new(api, self.stop.clone()),
            metrics,
        }
    }

    fn listen(&self, listener: TcpListener, address: SocketAddr, router: Router) -> Result<(), HubError> {
        let advertised: Vec<String> = self.config.advertise.iter().filter_map(|url| host_of(url)).collect();
        let names = tls::server_names(address, &advertised);
        let identity = ServerIdentity::issue(&self.authority, names, SystemTime::now())?;
        let authenticator = Authenticator::new(&self.authority)?;
        let tls = tls::server_config(Arc::clone(&identity), authenticator.verifier())?;
        let port = listener::serve(
            listener,
            tls,
            authenticator,
            Arc::new(router),
            PortSettings::default(),
            self.stop.clone(),
        );
        self.tasks.spawn(port);
        self.tasks
            .spawn(renew(identity, Arc::clone(&self.authority), self.stop.clone()));
        Ok(())
    }
}

/// Reads when what is on the state branch came there, on a thread of its own: a long history takes its time, and nothing waits for it.
fn read_log(state: &source::StateRepository) -> oneshot::Receiver<String> {
    let (sender, receiver) = oneshot::channel();
    let (path, reference) = (state.repo.path().to_owned(), state.reference.clone());
    let read = move || {
        let paths = ["subscriptions", ":(glob)clusters/**/description.yaml"];
        match Git::new(&path).and_then(|git| git.additions(&reference, &paths)) {
            // A projection that is gone needs no log.
            Ok(log) => drop(sender.send(log)),
            Err(error) => debug!(error = %error, "the log of the state branch cannot be read; ages count from this start"),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("log".to_owned()).spawn(read) {
        warn!(error = %error, "the log of the state branch is not read; ages count from this start");
    }
    receiver
}

/// Renews the port's certificate while the hub runs.
async fn renew(identity: Arc<ServerIdentity>, authority: Arc<CertificateAuthority>, stop: CancellationToken) {
    const AT_LEAST: Duration = Duration::from_secs(60);
    const AT_MOST: Duration = Duration::from_secs(24 * 3600);
    loop {
        let wait = match identity.renew_if_due(&authority, SystemTime::now()) {
            Ok(wait) => wait.clamp(AT_LEAST, AT_MOST),
            Err(error) => {
                error!(error = %error, "the port's certificate cannot be renewed; it is tried again");
                AT_LEAST
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Logs what is new among diagnostics and problems, once each.
async fn report_diagnostics(mut revisions: watch::Receiver<Arc<Revision>>, stop: CancellationToken) {
    let mut known: BTreeSet<Diagnostic> = BTreeSet::new();
    let mut problems: BTreeSet<String> = BTreeSet::new();
    loop {
        let revision = revisions.borrow_and_update().clone();
        for diagnostic in revision.diagnostics.iter().filter(|found| !known.contains(*found)) {
            if diagnostic.is_error() {
                error!(code = %diagnostic.code, "{diagnostic}");
            } else {
                warn!(code = %diagnostic.code, "{diagnostic}");
            }
        }
        for problem in revision.problems.iter().filter(|problem| !problems.contains(*problem)) {
            error!("{problem}");
        }
        known = revision.diagnostics.iter().cloned().collect();
        problems = revision.problems.iter().cloned().collect();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = revisions.changed() => if changed.is_err() { return },
        }
    }
}
