//! The hub's port in this process with a registry of the test, agents that dial it, and an API server of a few paths behind them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use branchline::core::access::attributes::ClusterNames;
use branchline::core::access::rbac::{AccessKey, AccessObjects, Binding, Policy, PolicyRule, Role, Subject};
use branchline::core::access::{ADMINS, KeyDigest, Refusal};
use branchline::core::ids::ClusterId;
use branchline::hub::acceptor::{Acceptor, Session, Sessions};
use branchline::hub::answer::refused;
use branchline::hub::auth::{Authentication, Authenticator};
use branchline::hub::ca::{CertificateAuthority, CertificateRequest, DEFAULT_LIFETIME};
use branchline::hub::gate::Gate;
use branchline::hub::listener::{Application, Peer, PortSettings, serve};
use branchline::hub::proxy::{Lookup, Proxy, Tunnels};
use branchline::hub::revision::Revision;
use branchline::hub::socket_path::{self, SocketPath};
use branchline::hub::tls;
use branchline::tunnel::dial::{DialError, HubAddress, connect, dial};
use branchline::tunnel::http::{Body, full};
use branchline::tunnel::{Tunnel, TunnelHandle, TunnelSettings, TunnelStream, control, http as streams};
use branchline::wire::control::{Hello, ToAgent, ToHub};
use branchline::wire::header::StreamHeader;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) const CLUSTER: &str = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";
pub(crate) const OTHER: &str = "11111111-7a77-4a9e-8b7c-6e1b7b6f1a2b";
pub(crate) const OFFLINE: &str = "22222222-7a77-4a9e-8b7c-6e1b7b6f1a2b";
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Body0 = Full<Bytes>;

pub(crate) struct Hub {
    pub(crate) authority: CertificateAuthority,
    pub(crate) address: SocketAddr,
    registry: Arc<Registry>,
    revisions: watch::Sender<Arc<Revision>>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

#[derive(Debug)]
struct Stopped(SystemTime);

impl rustls::time_provider::TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap(),
        ))
    }
}

/// The registry of the test: keys that are registered, sessions that came.
#[derive(Default)]
pub(crate) struct Registry {
    keys: Mutex<HashMap<ClusterId, KeyDigest>>,
    tunnels: Mutex<HashMap<ClusterId, TunnelHandle>>,
    joined: watch::Sender<usize>,
    sessions: Mutex<Vec<Session>>,
}

impl Sessions for Registry {
    fn admit(&self, cluster: &ClusterId, key: &KeyDigest) -> Result<(), Refusal> {
        match self.keys.lock().unwrap().get(cluster) {
            Some(registered) if registered == key => Ok(()),
            _ => Err(Refusal::forbidden(
                "this key is not registered; branchline approve --replace-key",
            )),
        }
    }

    fn joined(&self, session: Session) {
        let mut tunnels = self.tunnels.lock().unwrap();
        tunnels.insert(session.cluster.clone(), session.handle.clone());
        self.sessions.lock().unwrap().push(session);
        self.joined.send_modify(|count| *count += 1);
    }
}

impl Tunnels for Registry {
    fn names(&self, word: &str) -> Option<ClusterNames> {
        (word == "edge-1").then(|| ClusterNames::unknown(word))
    }

    fn find(&self, cluster: &str) -> Lookup {
        let online = |id: ClusterId| {
            let tunnel = self.tunnels.lock().unwrap().get(&id).cloned()?;
            Some(Lookup::Online { id, tunnel })
        };
        match cluster {
            OFFLINE => Lookup::Offline {
                name: "edge-2".to_owned(),
                since: "since noon".to_owned(),
            },
            id => id.parse().ok().and_then(online).unwrap_or(Lookup::Unknown {
                near: vec!["edge-1".to_owned()],
            }),
        }
    }
}

pub(crate) struct Routes {
    acceptor: Acceptor<Registry>,
    proxy: Proxy<Registry>,
}

impl Application for Routes {
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        match socket_path::parse(request.method(), request.uri(), request.version()) {
            Some(Ok(SocketPath::Tunnel { cluster })) => self.acceptor.answer(&peer, &cluster, request),
            Some(Ok(SocketPath::Proxied(asked))) => self.proxy.answer(&peer, &asked, request).await,
            Some(Err(refusal)) => refused(&refusal),
            None => Response::new(full("ok")),
        }
    }
}

impl Hub {
    pub(crate) async fn start() -> Hub {
        Hub::with(TunnelSettings::hub()).await
    }

    pub(crate) async fn with(settings: TunnelSettings) -> Hub {
        let port = PortSettings {
            drain: Duration::from_millis(300),
            ..PortSettings::default()
        };
        Hub::with_port(settings, port).await
    }

    pub(crate) async fn with_port(settings: TunnelSettings, port: PortSettings) -> Hub {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path(), SystemTime::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authenticator = Authenticator::new(&authority).unwrap();
        let identity = tls::ServerIdentity::issue(&authority, tls::server_names(address, &[]), SystemTime::now()).unwrap();
        let config = tls::server_config(identity, authenticator.verifier()).unwrap();
        let registry = Arc::new(Registry::default());
        let stop = CancellationToken::new();
        // Without RBAC objects: only administrators are let in.
        let (publish, revisions) = watch::channel(Arc::default());
        let gate = Arc::new(Gate::new(revisions, Authentication::default()));
        tokio::spawn(Arc::clone(&gate).enforce(stop.clone()));
        let routes = Arc::new(Routes {
            acceptor: Acceptor::new(Arc::clone(&registry), settings, stop.clone()),
            proxy: Proxy::new(Arc::clone(&registry), gate),
        });
        let served = tokio::spawn(serve(listener, config, authenticator, routes, port, stop.clone()));
        Hub {
            authority,
            address,
            registry,
            revisions: publish,
            stop,
            served,
            _directory: directory,
        }
    }

    /// From now on these users, and nobody else besides administrators, may do everything.
    pub(crate) fn let_in(&self, users: &[&str]) {
        let key = |kind: &str| AccessKey {
            kind: kind.to_owned(),
            namespace: String::new(),
            name: "everything".to_owned(),
        };
        let all = || vec!["*".to_owned()];
        let role = Role {
            rules: vec![PolicyRule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                resource_names: Vec::new(),
                non_resource_urls: all(),
            }],
            ..Role::default()
        };
        let binding = Binding {
            subjects: users.iter().map(|user| Subject::User((*user).to_owned())).collect(),
            role: key("ClusterRole"),
        };
        let objects = AccessObjects {
            roles: [(key("ClusterRole"), Arc::new(role))].into(),
            bindings: [(key("ClusterRoleBinding"), Arc::new(binding))].into(),
        };
        let revision = Revision {
            policy: Arc::new(Policy::new(&objects)),
            ..Revision::default()
        };
        self.revisions.send_replace(Arc::new(revision));
    }

    pub(crate) fn hub_address(&self) -> HubAddress {
        HubAddress::parse(&format!("https://localhost:{}", self.address.port())).unwrap()
    }

    pub(crate) fn client(&self, certificate: Option<(String, String)>) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }

    pub(crate) fn user(&self, name: &str, group: &str) -> Arc<rustls::ClientConfig> {
        let issued = self
            .authority
            .issue_user(name, group, SystemTime::now(), DEFAULT_LIFETIME)
            .unwrap();
        self.client(Some((issued.certificate_pem, issued.key_pem)))
    }

    /// The credential of a cluster's agent; its key is registered unless it is a stranger's.
    pub(crate) fn agent(&self, cluster: &str, registered: bool) -> Arc<rustls::ClientConfig> {
        let id: ClusterId = cluster.parse().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap();
        let request = CertificateRequest::parse(&csr).unwrap();
        if registered {
            self.registry
                .keys
                .lock()
                .unwrap()
                .insert(id.clone(), request.key_digest().clone());
        }
        let issued = self
            .authority
            .issue_agent(&id, &request, SystemTime::now(), DEFAULT_LIFETIME)
            .unwrap();
        self.client(Some((issued.pem, key.serialize_pem())))
    }

    pub(crate) async fn http(&self, config: Arc<rustls::ClientConfig>) -> SendRequest<Body0> {
        let stream = connect(&self.hub_address(), config).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    pub(crate) async fn http2(&self, config: Arc<rustls::ClientConfig>) -> hyper::client::conn::http2::SendRequest<Body0> {
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = connect(&self.hub_address(), Arc::new(config)).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A client without a certificate whose clock says `now`.
    pub(crate) fn client_at(&self, now: SystemTime) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_details(tls::provider(), Arc::new(Stopped(now)))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    pub(crate) async fn get(&self, config: Arc<rustls::ClientConfig>, path: &str) -> Response<Incoming> {
        self.http(config).await.send_request(request(path)).await.unwrap()
    }

    pub(crate) async fn admin_get(&self, path: &str) -> Response<Incoming> {
        self.get(self.user("alice", ADMINS), &direct(CLUSTER, path)).await
    }

    pub(crate) async fn dial(&self, cluster: &str, credential: Arc<rustls::ClientConfig>) -> Result<Tunnel, DialError> {
        let cluster = cluster.parse().unwrap();
        dial(&self.hub_address(), &cluster, credential, &TunnelSettings::agent()).await
    }

    /// An agent that serves proxied requests from `api`.
    pub(crate) async fn join(&self, cluster: &str, api: SocketAddr) -> Agent {
        let mut joined = self.registry.joined.subscribe();
        let before = *joined.borrow_and_update();
        let tunnel = self.dial(cluster, self.agent(cluster, true)).await.unwrap();
        let agent = introduce(tunnel, cluster, api).await;
        joined.wait_for(|count| *count > before).await.unwrap();
        agent
    }
}

pub(crate) struct Agent {
    _sender: control::ControlSender<ToHub>,
    pub(crate) receiver: control::ControlReceiver<ToAgent>,
    pub(crate) handle: TunnelHandle,
}

pub(crate) async fn introduce(tunnel: Tunnel, cluster: &str, api: SocketAddr) -> Agent {
    let Tunnel { handle, mut incoming } = tunnel;
    let mut stream = handle.open().unwrap();
    control::write_header(&mut stream, &StreamHeader::Control { version: 1 })
        .await
        .unwrap();
    let (mut sender, receiver) = control::split(stream);
    let hello: Hello = serde_json::from_value(
        json!({"protocol": branchline::wire::version::NEWEST, "agentVersion": "test", "clusterId": cluster}),
    )
    .unwrap();
    sender.send(&ToHub::Hello(Box::new(hello)), b"").await.unwrap();
    tokio::spawn(async move {
        while let Some(stream) = incoming.recv().await {
            tokio::spawn(serve_proxied(stream, api));
        }
    });
    Agent {
        _sender: sender,
        receiver,
        handle,
    }
}

/// What an agent does with a proxied stream, in short.
pub(crate) async fn serve_proxied(mut stream: TunnelStream, api: SocketAddr) {
    let StreamHeader::Proxy(header) = control::read_header(&mut stream).await.unwrap() else {
        panic!("not a proxied stream");
    };
    let answer = async |mut request: Request<Body>| {
        request.headers_mut().insert("impersonate-user", header.user.parse().unwrap());
        if let Some(token) = header.credential.as_ref().and_then(|credential| credential.token.as_ref()) {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
        }
        for group in &header.groups {
            request.headers_mut().append("impersonate-group", group.parse().unwrap());
        }
        let socket = TokioIo::new(TcpStream::connect(api).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap().map(streams::stream)
    };
    let _ = streams::serve(stream, header.body, answer).await;
}

/// An API server of a few paths, each for one property of the way to it.
pub(crate) async fn api_server() -> (SocketAddr, mpsc::UnboundedSender<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (events, receiver) = mpsc::unbounded_channel::<&'static str>();
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let receiver = Arc::clone(&receiver);
            let service = hyper::service::service_fn(move |request| respond(request, Arc::clone(&receiver)));
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(socket), service).with_upgrades());
        }
    });
    (address, events)
}

/// Namespace and name of the ServiceAccount that the API server knows.
pub(crate) const ROBOT: &str = "a:robot";

/// A token that says to be a ServiceAccount's.
pub(crate) fn account_token(account: &str) -> String {
    let claims = json!({"sub": format!("system:serviceaccount:{account}")}).to_string();
    format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

pub(crate) type Events = Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<&'static str>>>;

pub(crate) async fn respond(mut request: Request<Incoming>, events: Events) -> Result<Response<Body>, hyper::Error> {
    match request.uri().path() {
        "/watch" => {
            let chunks = futures::stream::unfold(events, |events| async move {
                let next = events.lock().await.recv().await?;
                Some((
                    Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(next.as_bytes()))),
                    events,
                ))
            });
            Ok(Response::new(StreamBody::new(chunks).boxed_unsync()).map(streams::stream))
        }
        "/exec" => {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
            let response = Response::builder()
                .status(101)
                .header("connection", "Upgrade")
                .header("upgrade", "SPDY/3.1");
            Ok(response.body(full("")).unwrap())
        }
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
            let good = format!("Bearer {}", account_token(ROBOT));
            let is_good = request.headers().get("authorization").is_some_and(|sent| *sent == *good);
            let status = json!({"status": {"userInfo": {"username": format!("system:serviceaccount:{ROBOT}")}}});
            let response = Response::builder().status(if is_good { 201 } else { 401 });
            Ok(response.body(full(status.to_string())).unwrap())
        }
        "/forbidden" => Ok(Response::builder().status(403).body(full("no")).unwrap()),
        "/hang" => std::future::pending().await,
        "/upload" => {
            let mut length = 0u64;
            while let Some(frame) = request.body_mut().frame().await {
                length += frame?.data_ref().map_or(0, |data| data.len() as u64);
            }
            Ok(Response::new(full(length.to_string())))
        }
        path => {
            let headers: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            Ok(Response::new(full(
                json!({"path": path, "query": request.uri().query(), "headers": headers}).to_string(),
            )))
        }
    }
}

pub(crate) fn direct(cluster: &str, path: &str) -> String {
    format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{cluster}/proxy/direct{path}")
}

pub(crate) fn request(path: &str) -> Request<Body0> {
    Request::get(path).header("host", "hub").body(Full::default()).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) async fn status(response: Response<Incoming>) -> (u16, String) {
    let code = response.status().as_u16();
    let status: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(
        (status["kind"].as_str(), status["code"].as_u64()),
        (Some("Status"), Some(u64::from(code)))
    );
    (code, status["message"].as_str().unwrap().to_owned())
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

impl Hub {
    /// An agent's credential of another hub, with this hub's CA trusted.
    pub(crate) fn client_of(&self, other: &Hub, cluster: &str) -> Arc<rustls::ClientConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap();
        let request = CertificateRequest::parse(&csr).unwrap();
        let issued = other
            .authority
            .issue_agent(&cluster.parse().unwrap(), &request, SystemTime::now(), DEFAULT_LIFETIME)
            .unwrap();
        self.client(Some((issued.pem, key.serialize_pem())))
    }
}
