//! Real Kubernetes API servers: kube-apiserver over etcd, and kube-controller-manager for the tests that need it.
//!
//! One etcd serves the whole test process, each API server under a prefix of its own. An API server takes 2.5 s to start and 250 MB, so tests
//! that do not mind neighbours use `ApiServer::shared` with namespaces of their own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::https::{Body, Client, Response};
use super::pki::{Authority, Identity, key_pair};
use super::process::{Output, Process, command, run};
use super::tools::tool;
use super::{free_port, holds, scratch, wait_until};

/// The token of `token-user`, who has no rights until a test binds some.
pub(crate) const TOKEN: &str = "a-static-token";

/// The token of `powerless-user`, who has no rights in any test.
pub(crate) const POWERLESS: &str = "a-token-for-nothing";

/// The token of the user `agent`, who may do everything.
const AGENT_TOKEN: &str = "the-agents-token";

/// Who asked what of an API server, from its audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditEvent {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` …
    pub(crate) verb: String,
    /// The user that was authenticated.
    pub(crate) user: String,
    /// The user that was impersonated, if any.
    pub(crate) impersonated: Option<String>,
    /// Path and query.
    pub(crate) uri: String,
    /// HTTP status of the answer.
    pub(crate) code: i64,
}

impl AuditEvent {
    /// Whether it asked for a change.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// One Kubernetes API server. Killed when dropped.
#[derive(Debug)]
pub(crate) struct ApiServer {
    name: String,
    port: u16,
    authority: Authority,
    admin: Identity,
    /// Before the directory, so that its log is still there when it is dropped.
    process: Mutex<Option<Process>>,
    directory: TempDir,
}

impl ApiServer {
    /// Starts a new, empty cluster and waits until it is ready.
    pub(crate) fn start(name: &str) -> Self {
        let directory = scratch(name);
        let authority = Authority::new("cluster-ca");
        let server = ApiServer {
            name: name.to_owned(),
            port: free_port(),
            admin: authority.client("test-admin", "system:masters"),
            process: Mutex::new(None),
            authority,
            directory,
        };
        server.write_files();
        server.start_again();
        server
    }

    /// An API server that all tests of the process share, each with namespaces and names of its own. Nobody stops it.
    pub(crate) fn shared() -> &'static ApiServer {
        static SHARED: OnceLock<ApiServer> = OnceLock::new();
        SHARED.get_or_init(|| ApiServer::start("shared"))
    }

    /// Kills it; its data stay.
    pub(crate) fn stop(&self) {
        *self.process() = None;
    }

    /// Starts it on the same port with the same data, and waits until it is ready.
    pub(crate) fn start_again(&self) {
        let process = Process::start(
            &format!("API server {}", self.name),
            self.command(),
            &self.path("apiserver.log"),
        )
        .quietly();
        *self.process() = Some(process);
        wait_until(&format!("API server {} is ready", self.name), || self.ready());
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The CA that signed its server certificate and that it trusts for client certificates.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A kubeconfig file of a user who may do everything.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// A kubeconfig file of the user `agent`, who may do everything, and whom the audit log tells from the test's own admin.
    pub(crate) fn kubeconfig_for_agent(&self) -> PathBuf {
        self.kubeconfig_for_token("agent.kubeconfig", AGENT_TOKEN)
    }

    /// Writes a kubeconfig file for a bearer token.
    pub(crate) fn kubeconfig_for_token(&self, file: &str, token: &str) -> PathBuf {
        self.write_kubeconfig(file, &json!({ "token": token }))
    }

    /// A client of a user who may do everything.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.port, &self.authority.certificate(), Some(&self.admin))
    }

    /// The object at this path, `None` if there is none.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let response = self
            .client()
            .get(path)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        match response.status {
            200 => Some(response.json()),
            404 => None,
            status => panic!("{}: GET {path}: {status} {}", self.name, response.body),
        }
    }

    /// Sends an object or a patch.
    pub(crate) fn send(&self, method: &str, path: &str, content_type: &str, content: &Value) -> Response {
        let content = content.to_string();
        let body = Body {
            content_type,
            content: &content,
        };
        self.client()
            .request(method, path, body)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Runs kubectl as the user who may do everything.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        kubectl(&self.kubeconfig(), arguments)
    }

    /// The UID of its `kube-system` namespace: what Branchline calls the cluster's id.
    pub(crate) fn cluster_id(&self) -> String {
        let namespace = self
            .get("/api/v1/namespaces/kube-system")
            .expect("a ready API server has kube-system");
        namespace["metadata"]["uid"]
            .as_str()
            .expect("a namespace has a UID")
            .to_owned()
    }

    /// Every request so far that was answered, or whose answer began, except those of the test's own admin and of the API server itself.
    pub(crate) fn audit(&self) -> Vec<AuditEvent> {
        let log = fs::read_to_string(self.path("audit.log")).unwrap_or_default();
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        let events = complete
            .lines()
            .map(|line| serde_json::from_str(line).expect("the audit log is JSON lines"));
        events.map(|event: Value| audit_event(&event)).collect()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Its process, unless it is stopped.
    pub(crate) fn process(&self) -> MutexGuard<'_, Option<Process>> {
        // A test that failed while it held the lock left a whole value behind.
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn ready(&self) -> Result<(), String> {
        if let Some(process) = self.process().as_mut() {
            let ended = process.exit_status();
            assert!(ended.is_none(), "API server {} ended: {}", self.name, process.log());
        }
        let client = self.client();
        let ready = client.get("/readyz")?;
        holds(ready.status == 200, format!("/readyz answers {}", ready.body))?;
        // Made a moment after the API server calls itself ready.
        let namespace = client.get("/api/v1/namespaces/kube-system")?;
        holds(namespace.status == 200, "there is no namespace kube-system yet")
    }

    fn write_files(&self) {
        let server = self.authority.server();
        let kubelet = self.authority.client("kubelet-client", "system:masters");
        let (accounts_public, accounts_private) = key_pair();
        for (file, content) in [
            ("ca.crt", &self.authority.certificate()),
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("kubelet.crt", &kubelet.certificate),
            ("kubelet.key", &kubelet.key),
            ("accounts.pub", &accounts_public),
            ("accounts.key", &accounts_private),
            (
                "tokens.csv",
                &format!("{TOKEN},token-user,1\n{AGENT_TOKEN},agent,2,system:masters\n{POWERLESS},powerless-user,3\n"),
            ),
            ("audit.yaml", &AUDIT_POLICY.to_owned()),
        ] {
            fs::write(self.path(file), content).expect("a file in the scratch directory can be written");
        }
        let user = json!({
            "client-certificate-data": BASE64_STANDARD.encode(&self.admin.certificate),
            "client-key-data": BASE64_STANDARD.encode(&self.admin.key),
        });
        self.write_kubeconfig("admin.kubeconfig", &user);
    }

    fn write_kubeconfig(&self, file: &str, user: &Value) -> PathBuf {
        let cluster = json!({
            "server": format!("https://127.0.0.1:{}", self.port),
            "certificate-authority-data": BASE64_STANDARD.encode(self.authority.certificate()),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": self.name, "cluster": cluster }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{ "name": self.name, "context": { "cluster": self.name, "user": "user" } }],
            "current-context": self.name,
        });
        let path = self.path(file);
        fs::write(&path, config.to_string()).expect("a file in the scratch directory can be written");
        path
    }

    fn command(&self) -> Command {
        static PREFIX: AtomicUsize = AtomicUsize::new(0);
        let etcd = Etcd::shared();
        // The prefix outlives a restart, so it is kept beside the data.
        let prefix_file = self.path("etcd-prefix");
        let prefix = fs::read_to_string(&prefix_file).unwrap_or_else(|_| {
            let prefix = format!("/{}-{}", self.name, PREFIX.fetch_add(1, Ordering::Relaxed));
            fs::write(&prefix_file, &prefix).expect("a file in the scratch directory can be written");
            prefix
        });
        let mut command = command(&tool("kube-apiserver"), self.directory.path());
        let file = |name: &str| self.path(name).display().to_string();
        command.args([
            format!("--etcd-servers=http://127.0.0.1:{}", etcd.port),
            format!("--etcd-prefix={prefix}"),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            format!("--kubelet-client-certificate={}", file("kubelet.crt")),
            format!("--kubelet-client-key={}", file("kubelet.key")),
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
        ]);
        command.args(FLAGS);
        command
    }
}

/// The flags that are the same for every API server.
const FLAGS: [&str; 10] = [
    "--bind-address=127.0.0.1",
    "--advertise-address=127.0.0.1",
    "--endpoint-reconciler-type=none",
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-cluster-ip-range=10.96.0.0/16",
    "--authorization-mode=RBAC",
    "--allow-privileged=true",
    "--anonymous-auth=true",
    "--kubelet-preferred-address-types=InternalIP",
    "--shutdown-delay-duration=0s",
];

/// Everything but what the API server does for itself and what the tests do as its admin.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver, test-admin]
  userGroups: []
- level: Metadata
";

fn audit_event(event: &Value) -> AuditEvent {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    AuditEvent {
        verb: text(&event["verb"]),
        user: text(&event["user"]["username"]),
        impersonated: event["impersonatedUser"]["username"].as_str().map(str::to_owned),
        uri: text(&event["requestURI"]),
        code: event["responseStatus"]["code"].as_i64().unwrap_or_default(),
    }
}

/// Runs kubectl with this kubeconfig, and with a home of its own for its caches.
pub(crate) fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Output {
    let home = kubeconfig.parent().expect("a kubeconfig file is in a directory");
    run(command(&tool("kubectl"), home)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments))
}

/// The one etcd of the test process.
#[derive(Debug)]
struct Etcd {
    port: u16,
    _process: Mutex<Process>,
    _directory: TempDir,
}

impl Etcd {
    fn shared() -> &'static Etcd {
        static SHARED: OnceLock<Etcd> = OnceLock::new();
        SHARED.get_or_init(Etcd::start)
    }

    fn start() -> Self {
        let directory = scratch("etcd");
        let (port, peer) = (free_port(), free_port());
        let mut command = command(&tool("etcd"), directory.path());
        command.args([
            "--unsafe-no-fsync",
            "--log-level=warn",
            &format!("--data-dir={}", directory.path().join("data").display()),
            &format!("--listen-client-urls=http://127.0.0.1:{port}"),
            &format!("--advertise-client-urls=http://127.0.0.1:{port}"),
            &format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        ]);
        let mut process = Process::start("etcd", command, &directory.path().join("etcd.log"));
        wait_until("etcd listens", || {
            let ended = process.exit_status();
            assert!(ended.is_none(), "etcd ended: {}", process.log());
            TcpStream::connect(("127.0.0.1", port))
                .map(|_| ())
                .map_err(|error| error.to_string())
        });
        Etcd {
            port,
            _process: Mutex::new(process),
            _directory: directory,
        }
    }
}

/// The controllers of one cluster: ServiceAccounts, garbage collection, Deployments to Pods, deletion of namespaces. Killed when dropped.
#[derive(Debug)]
pub(crate) struct ControllerManager {
    _process: Process,
}

impl ControllerManager {
    /// Starts it for this API server. It does not wait: the test waits for what it needs.
    pub(crate) fn start(server: &ApiServer) -> Self {
        let mut command = command(&tool("kube-controller-manager"), server.directory.path());
        command.args([
            format!("--kubeconfig={}", server.kubeconfig().display()),
            format!("--root-ca-file={}", server.path("ca.crt").display()),
            format!("--service-account-private-key-file={}", server.path("accounts.key").display()),
        ]);
        command.args([
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials=true",
            // With the default rates a ServiceAccount takes 5 s.
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
        ]);
        ControllerManager {
            _process: Process::start("kube-controller-manager", command, &server.path("controllers.log")).quietly(),
        }
    }
}
