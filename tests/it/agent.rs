//! The agent against a real API server and a hub of the test: registration, delivery, restart, faults, proxied requests, renewal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use branchline::agent::{self, AgentConfig, AgentError, CredentialsPlace, Trust};
use branchline::cluster::Access;
use branchline::core::access::attributes::ClusterNames;
use branchline::core::access::{ADMINS, KeyDigest, Refusal};
use branchline::core::ids::{ClusterId, ObjectId, ObjectKind};
use branchline::core::selector::Labels;
use branchline::core::status::{ObjectOutcome, Phase};
use branchline::core::tree::write_git_tree;
use branchline::hub::acceptor::{Acceptor, Session, Sessions};
use branchline::hub::answer::refused;
use branchline::hub::auth::{Authentication, Authenticator};
use branchline::hub::ca::{CertificateAuthority, CertificateRequest};
use branchline::hub::gate::Gate;
use branchline::hub::listener::{Application, Peer, PortSettings, serve};
use branchline::hub::proxy::{Lookup, Proxy, Tunnels};
use branchline::hub::socket_path::{self, SocketPath};
use branchline::hub::tls;
use branchline::tunnel::TunnelSettings;
use branchline::tunnel::backoff::Backoff;
use branchline::tunnel::dial::{HubAddress, connect};
use branchline::tunnel::http::{Body, full};
use branchline::wire::content::{ContentObject, pack};
use branchline::wire::control::{Offer, Report, ToAgent, ToHub};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::apiserver::{ApiServer, AuditEvent};
use crate::support::node::add_node;
use crate::support::scratch;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "abcdef.0123456789abcdef";

/// What the hub of a test answers and keeps.
struct Desk {
    authority: CertificateAuthority,
    /// The next answers to registrations: `None` approves.
    verdicts: Mutex<Vec<Option<(u16, Value)>>>,
    lifetime: Mutex<Duration>,
    /// Tokens of the registrations that came; empty for those without one.
    asked: Mutex<Vec<String>>,
    keys: Mutex<HashMap<ClusterId, KeyDigest>>,
    tunnels: Mutex<HashMap<ClusterId, branchline::tunnel::TunnelHandle>>,
    sessions: mpsc::UnboundedSender<Session>,
}

impl Sessions for Desk {
    fn admit(&self, cluster: &ClusterId, key: &KeyDigest) -> Result<(), Refusal> {
        match self.keys.lock().unwrap().get(cluster) == Some(key) {
            true => Ok(()),
            false => Err(Refusal::forbidden("not registered")),
        }
    }

    fn joined(&self, session: Session) {
        let mut tunnels = self.tunnels.lock().unwrap();
        tunnels.insert(session.cluster.clone(), session.handle.clone());
        let _ = self.sessions.send(session);
    }
}

impl Tunnels for Desk {
    fn names(&self, _: &str) -> Option<ClusterNames> {
        None
    }

    fn find(&self, cluster: &str) -> Lookup {
        let id: ClusterId = cluster.parse().unwrap();
        match self.tunnels.lock().unwrap().get(&id).cloned() {
            Some(tunnel) => Lookup::Online { id, tunnel },
            None => Lookup::Unknown { near: Vec::new() },
        }
    }
}

impl Desk {
    fn register(&self, token: Option<String>, request: &Value) -> (u16, Value) {
        self.asked.lock().unwrap().push(token.unwrap_or_default());
        let verdict = self.verdicts.lock().unwrap().pop().flatten();
        if let Some(verdict) = verdict {
            return verdict;
        }
        let cluster: ClusterId = serde_json::from_value(request["spec"]["clusterId"].clone()).unwrap();
        let csr = request["metadata"]["annotations"]["branchline.io/certificate-signing-request"]
            .as_str()
            .unwrap();
        let csr = CertificateRequest::parse(csr).unwrap();
        let lifetime = *self.lifetime.lock().unwrap();
        let issued = self
            .authority
            .issue_agent(&cluster, &csr, SystemTime::now(), lifetime)
            .unwrap();
        self.keys.lock().unwrap().insert(cluster, issued.key);
        let name = request["spec"]["clusterName"].as_str().unwrap();
        let status = json!({"result": "Approved", "dedicatedNamespace": format!("clusternet-{name}"), "managedClusterName": name,
            "certificate": BASE64_STANDARD.encode(issued.pem), "caCertificate": BASE64_STANDARD.encode(self.authority.certificate_pem())});
        (201, json!({"status": status}))
    }
}

struct Routes {
    desk: Arc<Desk>,
    acceptor: Acceptor<Desk>,
    proxy: Proxy<Desk>,
}

impl Application for Routes {
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        match socket_path::parse(request.method(), request.uri(), request.version()) {
            Some(Ok(SocketPath::Tunnel { cluster })) => self.acceptor.answer(&peer, &cluster, request),
            Some(Ok(SocketPath::Proxied(asked))) => self.proxy.answer(&peer, &asked, request).await,
            Some(Err(refusal)) => refused(&refusal),
            None => {
                let token = request
                    .headers()
                    .get("authorization")
                    .map(|value| value.to_str().unwrap().to_owned());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (code, answer) = self.desk.register(token, &serde_json::from_slice(&body).unwrap());
                let mut response = Response::new(full(answer.to_string()));
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                response
            }
        }
    }
}

/// A hub whose sessions the test drives by hand.
struct Hub {
    desk: Arc<Desk>,
    address: HubAddress,
    sessions: mpsc::UnboundedReceiver<Session>,
    _stop: tokio_util::sync::DropGuard,
}

impl Hub {
    async fn start() -> Hub {
        branchline::cluster::install_tls_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path(), SystemTime::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authenticator = Authenticator::new(&authority).unwrap();
        let identity = tls::ServerIdentity::issue(&authority, tls::server_names(address, &[]), SystemTime::now()).unwrap();
        let config = tls::server_config(identity, authenticator.verifier()).unwrap();
        let (sender, sessions) = mpsc::unbounded_channel();
        let desk = Arc::new(Desk {
            authority,
            verdicts: Mutex::default(),
            lifetime: Mutex::new(Duration::from_secs(3600)),
            asked: Mutex::default(),
            keys: Mutex::default(),
            tunnels: Mutex::default(),
            sessions: sender,
        });
        let stop = CancellationToken::new();
        // Without RBAC objects: only administrators are let in.
        let gate = Gate::new(tokio::sync::watch::channel(Arc::default()).1, Authentication::default());
        let routes = Arc::new(Routes {
            desk: Arc::clone(&desk),
            acceptor: Acceptor::new(Arc::clone(&desk), TunnelSettings::hub(), stop.clone()),
            proxy: Proxy::new(Arc::clone(&desk), Arc::new(gate)),
        });
        let port = PortSettings::default();
        tokio::spawn(serve(listener, config, authenticator, routes, port, stop.clone()));
        Hub {
            desk,
            address: HubAddress::parse(&format!("https://localhost:{}", address.port())).unwrap(),
            sessions,
            _stop: stop.drop_guard(),
        }
    }

    fn config(&self, server: &ApiServer, credentials: Option<PathBuf>) -> AgentConfig {
        let path = server.kubeconfig_for_agent();
        self.config_of(Access::Kubeconfig { path, context: None }, credentials)
    }

    fn config_of(&self, access: Access, credentials: Option<PathBuf>) -> AgentConfig {
        AgentConfig {
            hub: self.address.clone(),
            trust: Trust::Hash(self.desk.authority.hash().as_str().parse().unwrap()),
            token: Some(TOKEN.to_owned()),
            name: "edge-1".to_owned(),
            namespace: String::new(),
            cluster_type: "EdgeCluster".to_owned(),
            labels: BTreeMap::new(),
            access,
            reachable: branchline::core::reach::Reachable::default(),
            credentials: credentials.map_or(CredentialsPlace::Secret, CredentialsPlace::File),
            backoff: Backoff {
                first: Duration::from_millis(50),
                steady: 0,
                longest: Duration::from_millis(500),
            },
            pending_interval: Duration::from_millis(100),
            survey_interval: Duration::from_millis(500),
            tunnel: TunnelSettings::agent(),
            impersonation: Arc::default(),
        }
    }

    /// The next session, welcomed.
    async fn session(&mut self) -> Session {
        let mut session = within(self.sessions.recv()).await.unwrap();
        let welcome = ToAgent::Welcome {
            protocol: branchline::wire::version::NEWEST,
            heartbeat_seconds: 1,
            epoch: 1,
        };
        session.sender.send(&welcome, b"").await.unwrap();
        session
    }

    /// A user's request through the tunnel: status and body.
    async fn get(&self, cluster: &str, user: &str, path: &str) -> (u16, String) {
        let response = within(self.connection(user).await.send_request(proxied(cluster, path)))
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// A connection of a user in the admins' group.
    async fn connection(&self, user: &str) -> SendRequest<Empty<bytes::Bytes>> {
        let lifetime = Duration::from_secs(60);
        let issued = self
            .desk
            .authority
            .issue_user(user, ADMINS, SystemTime::now(), lifetime)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.desk.authority.certificate().clone()).unwrap();
        let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes())
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let stream = connect(&self.address, Arc::new(tls)).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// An agent in this process.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

fn launch(config: AgentConfig) -> Running {
    let stop = CancellationToken::new();
    let task = tokio::spawn(agent::run(config, stop.clone()));
    Running { stop, task }
}

impl Running {
    async fn end(self) -> Result<(), AgentError> {
        self.stop.cancel();
        within(self.task).await.unwrap()
    }
}

/// A cluster's tree with one Description per (name, objects).
#[derive(Default)]
struct Tree {
    root: Option<ObjectId>,
    objects: Vec<ContentObject>,
}

impl Tree {
    fn of(subs: &[(&str, &[(&str, &str)])]) -> Tree {
        let mut tree = Tree::default();
        let subs: Vec<(&str, ObjectId)> = subs.iter().map(|(name, files)| (*name, tree.sub(files))).collect();
        let root = write_git_tree(subs.iter().map(|(name, id)| (*name, true, *id)));
        tree.root = Some(tree.put(ObjectKind::Tree, root));
        tree
    }

    fn sub(&mut self, files: &[(&str, &str)]) -> ObjectId {
        let files: Vec<(&str, ObjectId)> = files
            .iter()
            .map(|(name, text)| (*name, self.put(ObjectKind::Blob, text.as_bytes().to_vec())))
            .collect();
        let description = self.put(ObjectKind::Blob, b"deployer: Generic\nfeeds: []\n".to_vec());
        let manifests = write_git_tree(files.iter().map(|(name, id)| (*name, false, *id)));
        let manifests = self.put(ObjectKind::Tree, manifests);
        let entries = [("description.yaml", false, description), ("manifests", true, manifests)];
        self.put(ObjectKind::Tree, write_git_tree(entries))
    }

    fn put(&mut self, kind: ObjectKind, content: Vec<u8>) -> ObjectId {
        let id = ObjectId::hash(kind, &content);
        let content = content.into();
        self.objects.push(ContentObject { id, kind, content });
        id
    }

    fn root(&self) -> ObjectId {
        self.root.unwrap()
    }

    fn ids(&self) -> BTreeSet<ObjectId> {
        self.objects.iter().map(|object| object.id).collect()
    }

    fn object(&self, id: ObjectId) -> ContentObject {
        self.objects.iter().find(|object| object.id == id).unwrap().clone()
    }
}

/// Offers a tree with nothing but its root, and serves what is wanted, until it is reported on.
async fn deliver(session: &mut Session, generation: u64, tree: &Tree) -> Report {
    offer(session, generation, tree).await;
    answer_until(session, tree, |report| {
        report.generation == generation && report.tree == tree.root()
    })
    .await
}

async fn offer(session: &mut Session, generation: u64, tree: &Tree) {
    let root = tree.objects.iter().filter(|object| object.id == tree.root()).cloned();
    let batch = pack(root).unwrap().remove(0);
    let offer = ToAgent::Offer(Offer {
        epoch: 1,
        generation,
        tree: tree.root(),
        base: None,
        objects: batch.objects,
    });
    session.sender.send(&offer, &batch.attachment).await.unwrap();
}

async fn answer_until(session: &mut Session, tree: &Tree, done: impl Fn(&Report) -> bool) -> Report {
    loop {
        match next(session).await {
            ToHub::Want { ids, .. } => send_wanted(session, tree, &ids).await,
            ToHub::Report(report) if done(&report) => return report,
            _ => {}
        }
    }
}

async fn send_wanted(session: &mut Session, tree: &Tree, ids: &[ObjectId]) {
    let (known, missing): (Vec<ObjectId>, Vec<ObjectId>) = ids.iter().partition(|id| tree.ids().contains(id));
    let wanted = tree
        .ids()
        .intersection(&known.into_iter().collect())
        .map(|id| tree.object(*id))
        .collect::<Vec<_>>();
    let mut missing = Some(missing);
    for batch in pack(wanted).unwrap() {
        let (objects, missing) = (batch.objects, missing.take().unwrap_or_default());
        session
            .sender
            .send(&ToAgent::Content { objects, missing }, &batch.attachment)
            .await
            .unwrap();
    }
}

async fn next(session: &mut Session) -> ToHub {
    within(session.receiver.receive()).await.unwrap().unwrap().message
}

fn config_map(name: &str, content: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: default\ndata:\n  content: \"{content}\"\n")
}

fn at(name: &str) -> String {
    format!("/api/v1/namespaces/default/configmaps/{name}")
}

fn writes(server: &ApiServer) -> usize {
    let of_agent = |event: &AuditEvent| event.user == "agent" && event.is_write();
    server.audit().iter().filter(|event| of_agent(event)).count()
}

#[tokio::test]
async fn registered_delivered_restarted_and_in_sync() {
    let server = ApiServer::start("agent-life");
    let mut hub = Hub::start().await;
    let pending = json!({"status": {"errorMessage": "run branchline approve edge-1"}});
    // While it waits for a person, something between it and the hub answers in the hub's place; the last one in is the first one out.
    let elsewhere = json!("404 page not found");
    *hub.desk.verdicts.lock().unwrap() = vec![Some((404, elsewhere)), Some((201, pending))];
    let agent = launch(hub.config(&server, None));
    let mut session = hub.session().await;
    let hello = session.hello.clone();
    assert_eq!(
        (hello.applied, hello.cluster_id.as_str()),
        (None, server.cluster_id().as_str())
    );
    assert!(
        hello.status.readyz && hello.status.k8s_version.starts_with("v1."),
        "{:?}",
        hello.status
    );
    assert_eq!(*hub.desk.asked.lock().unwrap(), vec![format!("Bearer {TOKEN}"); 3]);

    let (a, b) = (config_map("a", "1"), config_map("b", "1"));
    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: default}\nspec: {ports: [{port: 99999}]}\n";
    let first = Tree::of(&[("s.web", &[("a.yaml", &a), ("b.yaml", &b)]), ("s.bad", &[("bad.yaml", bad)])]);
    let report = deliver(&mut session, 1, &first).await;
    assert!(report.held && !report.applied);
    let phases: BTreeMap<_, _> = report.descriptions.iter().map(|d| (d.name.as_str(), d.phase)).collect();
    assert_eq!(phases, BTreeMap::from([("s.bad", Phase::Failure), ("s.web", Phase::Success)]));

    let a2 = config_map("a", "2");
    let second = Tree::of(&[("s.web", &[("a.yaml", &a2)])]);
    let report = deliver(&mut session, 2, &second).await;
    assert!(report.applied, "{report:?}");
    let web = report.descriptions.iter().find(|d| d.name == "s.web").unwrap();
    let outcomes: Vec<_> = web.objects.iter().map(|o| (o.name.as_str(), o.outcome)).collect();
    assert_eq!(outcomes, [("b", ObjectOutcome::Pruned), ("a", ObjectOutcome::Applied)]);
    assert_eq!(server.get(&at("a")).unwrap()["data"]["content"], "2");
    assert!(server.get(&at("b")).is_none());

    offer(&mut session, 1, &first).await;
    agent.end().await.unwrap();
    assert_eq!(
        server.get(&at("a")).unwrap()["data"]["content"],
        "2",
        "an older offer is refused"
    );

    let before = writes(&server);
    let again = launch(hub.config(&server, None));
    let mut session = hub.session().await;
    assert_eq!((session.hello.applied, session.hello.generation), (Some(second.root()), 2));
    let report = answer_until(&mut session, &second, |_| true).await;
    assert!(report.applied && report.tree == second.root());
    assert_eq!(
        report.descriptions.len(),
        1,
        "the first report of a tunnel has every Description"
    );
    again.end().await.unwrap();
    assert_eq!(writes(&server), before, "a restart in sync writes nothing");
    assert_eq!(hub.desk.asked.lock().unwrap().len(), 3, "and registers nothing");
}

#[tokio::test]
async fn an_api_server_that_is_down_keeps_the_tunnel_and_says_so() {
    let server = ApiServer::start("agent-down");
    let mut hub = Hub::start().await;
    let directory = scratch("agent-down-credentials");
    let file = directory.path().join("credentials.json");
    let agent = launch(hub.config(&server, Some(file.clone())));
    let mut session = hub.session().await;
    let tree = Tree::of(&[("s.web", &[("a.yaml", &config_map("down", "1"))])]);
    let report = deliver(&mut session, 1, &tree).await;
    assert!(report.applied, "{report:?}");
    server.stop();
    let said = loop {
        if let ToHub::Heartbeat { status, .. } = next(&mut session).await
            && !status.message.is_empty()
        {
            break status;
        }
    };
    assert!(!said.readyz && said.message.contains("does not answer"), "{said:?}");
    let (code, message) = hub.get(session.cluster.as_str(), "alice", "/api").await;
    assert!(code == 502 && message.contains("does not answer"), "{code} {message}");
    let tree = Tree::of(&[("s.web", &[("a.yaml", &config_map("down", "2"))])]);
    offer(&mut session, 2, &tree).await;
    // The same agent started anew finds its identity in the file and the hub again, though its cluster is down.
    agent.end().await.unwrap();
    let mut config = hub.config(&server, Some(file));
    config.token = None;
    let agent = launch(config);
    let mut session = hub.session().await;
    assert!(session.hello.status.message.contains("does not answer"));
    offer(&mut session, 2, &tree).await;
    server.start_again();
    let report = answer_until(&mut session, &tree, |report| report.applied && report.generation == 2).await;
    assert_eq!(report.tree, tree.root());
    assert_eq!(server.get(&at("down")).unwrap()["data"]["content"], "2");
    agent.end().await.unwrap();
}

/// The labels of the next heartbeat.
async fn next_labels(session: &mut Session) -> Option<Labels> {
    loop {
        if let ToHub::Heartbeat { labels, .. } = next(session).await {
            return labels;
        }
    }
}

/// What the agent reports next that is not what it said before.
async fn labels_other_than(session: &mut Session, before: &Labels) -> Labels {
    loop {
        if let Some(labels) = next_labels(session).await.filter(|labels| labels != before) {
            return labels;
        }
    }
}

#[tokio::test]
async fn what_the_nodes_carry_is_reported_while_it_changes() {
    let server = ApiServer::start("agent-nodes");
    let labels = |gpu: &str| {
        let pairs = [("node.clusternet.io/gpu", gpu), ("node.clusternet.io/site", "roof")];
        Labels::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
    };
    add_node(
        &server,
        "worker",
        &json!({"node.clusternet.io/gpu": "yes", "node.clusternet.io/site": "cellar", "rack": "7"}),
    );
    let mut hub = Hub::start().await;
    let mut config = hub.config(&server, None);
    config.labels = [("node.clusternet.io/site", "roof"), ("region", "eu")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let agent = launch(config);
    let mut session = hub.session().await;
    let hello = session.hello.labels.clone().unwrap();
    assert_eq!(hello, labels("yes"), "the agent's own label wins; others stay with the node");

    server
        .kubectl(&["label", "node", "worker", "--overwrite", "node.clusternet.io/gpu=no"])
        .ok();
    assert_eq!(labels_other_than(&mut session, &hello).await, labels("no"));
    // No node at all says nothing about nodes; one without the label does. Three heartbeats hold more than one look at the nodes.
    server.kubectl(&["delete", "node", "worker"]).ok();
    for _ in 0..3 {
        assert_eq!(next_labels(&mut session).await, Some(labels("no")));
    }
    add_node(&server, "bare", &json!({}));
    let without = labels_other_than(&mut session, &labels("no")).await;
    assert_eq!(without.keys().collect::<Vec<_>>(), ["node.clusternet.io/site"]);
    agent.end().await.unwrap();
}

#[tokio::test]
async fn proxied_requests_go_in_the_users_name_and_certificates_are_renewed() {
    let server = ApiServer::start("agent-proxy");
    let mut hub = Hub::start().await;
    *hub.desk.lifetime.lock().unwrap() = Duration::from_secs(6);
    let directory = scratch("agent-proxy-credentials");
    let file = directory.path().join("credentials.json");
    let agent = launch(hub.config(&server, Some(file.clone())));
    let mut session = hub.session().await;
    let (code, body) = hub
        .get(session.cluster.as_str(), "alice", "/api/v1/namespaces/default/configmaps")
        .await;
    assert!(code == 403 && body.contains("\\\"alice\\\""), "{code} {body}");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "admins"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": ADMINS}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(server.send("POST", path, "application/json", &binding).status, 201);
    let allowed = async {
        while hub
            .get(session.cluster.as_str(), "alice", "/api/v1/namespaces/default/configmaps")
            .await
            .0
            != 200
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(allowed).await;

    let csr = loop {
        if let ToHub::Renew { csr } = next(&mut session).await {
            break CertificateRequest::parse(&csr).unwrap();
        }
    };
    assert_eq!(csr.key_digest(), &session.key);
    let lifetime = Duration::from_secs(3600);
    let issued = hub
        .desk
        .authority
        .issue_agent(&session.cluster, &csr, SystemTime::now(), lifetime)
        .unwrap();
    session
        .sender
        .send(&ToAgent::Certificate { pem: issued.pem.clone() }, b"")
        .await
        .unwrap();
    let kept = async {
        while !std::fs::read_to_string(&file)
            .unwrap()
            .contains(&issued.pem.replace('\n', "\\n"))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(kept).await;
    session.sender.send(&ToAgent::Drain {}, b"").await.unwrap();
    let session = hub.session().await;
    assert_eq!(
        hub.desk.asked.lock().unwrap().len(),
        1,
        "the renewed certificate needs no registration"
    );
    drop(session);
    agent.end().await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_by_its_key_and_refusals_are_clear() {
    let server = ApiServer::start("agent-expired");
    let mut hub = Hub::start().await;
    let directory = scratch("agent-expired-credentials");
    let file = directory.path().join("credentials.json");
    *hub.desk.lifetime.lock().unwrap() = Duration::from_secs(2);
    let agent = launch(hub.config(&server, Some(file.clone())));
    hub.session().await;
    agent.end().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    *hub.desk.lifetime.lock().unwrap() = Duration::from_secs(3600);
    let forbidden = json!({"kind": "Status", "message": "not now"});
    // With its key and with its token: neither ends an agent that was registered once.
    *hub.desk.verdicts.lock().unwrap() = vec![Some((403, forbidden)); 2];
    let agent = launch(hub.config(&server, Some(file)));
    hub.session().await;
    assert_eq!(hub.desk.asked.lock().unwrap().len(), 4);
    assert_eq!(hub.desk.asked.lock().unwrap().last().unwrap(), "", "no token, only the key");
    agent.end().await.unwrap();

    let fresh = |name: &str| Some(directory.path().join(name));
    let message = json!({"kind": "Status", "message": "the token has expired; make a new one"});
    hub.desk.verdicts.lock().unwrap().push(Some((401, message)));
    let error = within(launch(hub.config(&server, fresh("wrong-token"))).task)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("the token has expired"), "{error}");

    let mut wrong = hub.config(&server, fresh("wrong-hash"));
    wrong.trust = Trust::Hash(agent::CaHash([7; 32]));
    let error = within(launch(wrong).task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("none of them has the hash sha256:0707"), "{error}");

    let mut no_token = hub.config(&server, fresh("no-token"));
    no_token.token = None;
    let error = within(launch(no_token).task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("branchline token create"), "{error}");
}

#[tokio::test]
async fn a_newer_offer_ends_the_run_before_it_and_both_converge() {
    let server = ApiServer::start("agent-superseded");
    let mut hub = Hub::start().await;
    let agent = launch(hub.config(&server, None));
    let mut session = hub.session().await;
    let files: Vec<(String, String)> = (0..400)
        .map(|n| (format!("c{n:03}"), config_map(&format!("c{n:03}"), "1")))
        .collect();
    let borrowed: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let large = Tree::of(&[("s.large", &borrowed)]);
    offer(&mut session, 1, &large).await;
    let started = async {
        answer_wants(&mut session, &large).await;
        while server.get(&at("c000")).is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(started).await;
    let small = Tree::of(&[("s.small", &[("z.yaml", &config_map("z", "1"))])]);
    let report = deliver(&mut session, 2, &small).await;
    assert!(report.applied, "{report:?}");
    let maps = server
        .get("/api/v1/namespaces/default/configmaps?labelSelector=branchline.io/managed=true")
        .unwrap();
    let names: Vec<&str> = maps["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["z"], "nothing of the interrupted run is left");
    let created: BTreeSet<String> = server
        .audit()
        .into_iter()
        .filter(|event| event.verb == "patch" && event.uri.contains("/namespaces/default/configmaps/c"))
        .map(|event| event.uri)
        .collect();
    assert!(
        !created.is_empty() && created.len() < files.len(),
        "{} were created",
        created.len()
    );
    agent.end().await.unwrap();
}

/// Serves one round of wants after another until everything of the tree was sent.
async fn answer_wants(session: &mut Session, tree: &Tree) {
    let mut sent = 1;
    while sent < tree.ids().len() {
        let ToHub::Want { ids, .. } = next(session).await else {
            continue;
        };
        sent += ids.len();
        send_wanted(session, tree, &ids).await;
    }
}

#[tokio::test]
async fn watches_and_upgrades_pass_through_the_agent() {
    let (api, events) = crate::support::port::api_server().await;
    let mut hub = Hub::start().await;
    let directory = scratch("agent-streams");
    let cluster = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";
    let kubeconfig = directory.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{api}")}}], "users": [{"name": "u", "user": {"token": "agents-own"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let kept = json!({"clusterId": cluster, "key": rcgen::KeyPair::generate().unwrap().serialize_pem()});
    let file = directory.path().join("credentials.json");
    write_private(&file, &kept.to_string());
    let agent = launch(hub.config_of(
        Access::Kubeconfig {
            path: kubeconfig,
            context: None,
        },
        Some(file),
    ));
    let session = hub.session().await;

    let (code, seen) = hub.get(cluster, "alice", "/api/v1/pods?limit=5").await;
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let header = |name: &str| {
        seen["headers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|h| h[0] == name)
            .map(|h| h[1].as_str().unwrap().to_owned())
    };
    assert_eq!((code, seen["query"].as_str()), (200, Some("limit=5")));
    assert_eq!(header("impersonate-user").as_deref(), Some("alice"));
    assert_eq!(header("impersonate-group").as_deref(), Some(ADMINS));
    assert_eq!(
        header("authorization").as_deref(),
        Some("Bearer agents-own"),
        "the agent's own credentials, never the caller's"
    );

    let mut connection = hub.connection("alice").await;
    let mut watch = within(connection.send_request(proxied(cluster, "/watch?watch=true")))
        .await
        .unwrap()
        .into_body();
    for event in ["{\"type\":\"ADDED\"}\n", "{\"type\":\"MODIFIED\"}\n"] {
        events.send(event).unwrap();
        let frame = within(watch.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event, "events come one by one");
    }
    let mut connection = hub.connection("alice").await;
    let mut exec = proxied(cluster, "/exec");
    exec.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    exec.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
    let response = within(connection.send_request(exec)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"raw bytes").await.unwrap();
    let mut echoed = [0; 9];
    within(stream.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"raw bytes");
    drop(session);
    agent.end().await.unwrap();
}

fn proxied(cluster: &str, path: &str) -> Request<Empty<bytes::Bytes>> {
    let path = format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{cluster}/proxy/direct{path}");
    Request::get(path).header("host", "hub").body(Empty::new()).unwrap()
}

fn write_private(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
