//! A hub and its agents as processes, each agent with a real API server, by the command-line contract of DESIGN §11.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::apiserver::{ApiServer, AuditEvent};
use super::https::Client;
use super::pki::Identity;
use super::process::{Output, Process, branchline, run};
use super::repository::GitRepo;
use super::{free_port, holds, scratch, wait_until};

/// The branch that the hub writes.
pub(crate) const STATE: &str = "refs/heads/branchline/state";

/// A hub process. It can be killed and started again on the same data.
#[derive(Debug)]
pub(crate) struct Hub {
    name: String,
    source: String,
    programs: Option<PathBuf>,
    port: u16,
    advertised: u16,
    extra: Vec<String>,
    /// Before the directory, so that its log is still there when it is dropped.
    process: Option<Process>,
    directory: TempDir,
}

/// What a new agent needs to know of its hub.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// The hub's URL.
    pub(crate) hub: String,
    /// Bootstrap token.
    pub(crate) token: String,
    /// `sha256:…` of the hub's CA.
    pub(crate) ca_hash: String,
}

impl Hub {
    /// Starts a hub on the repository's branch `main` and waits until it is ready.
    pub(crate) fn start(repo: &GitRepo) -> Self {
        let mut hub = Hub::prepare("hub", repo);
        hub.start_again();
        hub
    }

    /// A hub that is not started yet.
    pub(crate) fn prepare(name: &str, repo: &GitRepo) -> Self {
        let port = free_port();
        Hub {
            name: name.to_owned(),
            source: repo.bare().display().to_string(),
            programs: None,
            directory: scratch(name),
            port,
            advertised: port,
            extra: Vec::new(),
            process: None,
        }
    }

    /// Reads the source from this address instead of the repository's path.
    #[must_use]
    pub(crate) fn reading(mut self, source: &str) -> Self {
        source.clone_into(&mut self.source);
        self
    }

    /// Looks for programs in this folder before it looks elsewhere.
    #[must_use]
    pub(crate) fn with_programs(mut self, folder: &Path) -> Self {
        self.programs = Some(folder.to_owned());
        self
    }

    /// Adds an argument to its command line.
    #[must_use]
    pub(crate) fn with(mut self, argument: &str) -> Self {
        self.extra.push(argument.to_owned());
        self
    }

    /// Tells agents to come to this port instead of its own.
    #[must_use]
    pub(crate) fn advertising(mut self, port: u16) -> Self {
        self.advertised = port;
        self
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where its CA is.
    pub(crate) fn ca_directory(&self) -> PathBuf {
        self.directory.path().join("ca")
    }

    /// Starts it without waiting for anything.
    pub(crate) fn launch(&mut self) {
        let mut command = branchline(self.directory.path());
        command
            .arg("hub")
            .arg("--source")
            .arg(&self.source)
            .args(["--branch", "main"]);
        command
            .arg("--data")
            .arg(self.data())
            .arg("--ca-dir")
            .arg(self.ca_directory());
        command.arg(format!("--listen=127.0.0.1:{}", self.port));
        command.arg(format!("--advertise=https://127.0.0.1:{}", self.advertised));
        command.args(&self.extra);
        if let Some(folder) = &self.programs {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(folder.clone()).chain(std::env::split_paths(&path));
            command.env(
                "PATH",
                std::env::join_paths(folders).expect("folders of a PATH can be joined"),
            );
        }
        self.process = Some(Process::start(&self.name, command, &self.directory.path().join("log")));
    }

    /// Starts it on the same data and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        self.wait_endpoint("/readyz");
    }

    /// Waits until `/livez` answers 200: it serves, though it may have no source to follow.
    #[track_caller]
    pub(crate) fn wait_alive(&mut self) {
        self.wait_endpoint("/livez");
    }

    #[track_caller]
    fn wait_endpoint(&mut self, endpoint: &str) {
        let what = format!("{} answers {endpoint} with 200", self.name);
        wait_until(&what, || {
            let process = self.process.as_mut().expect("the hub was started");
            let ended = process.exit_status();
            assert!(ended.is_none(), "the hub ended: {}", process.log());
            holds(self.admin().is_file(), "there is no admin.kubeconfig")?;
            let answer = self.client().get(endpoint)?;
            holds(answer.status == 200, format!("{} {}", answer.status, answer.body))
        });
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process().kill();
    }

    /// The running process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the hub was started")
    }

    /// All that it has logged since it was first started.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The kubeconfig that it writes for its administrator.
    pub(crate) fn admin(&self) -> PathBuf {
        self.data().join("admin.kubeconfig")
    }

    /// Its administrator's kubeconfig with this path behind the server's address, for clients that know no such option. Each name is a file.
    pub(crate) fn kubeconfig(&self, name: &str, path: &str) -> PathBuf {
        let text = fs::read_to_string(self.admin()).expect("the hub has written its kubeconfig");
        let mut config: Value = serde_saphyr::from_str(&text).expect("a kubeconfig is YAML");
        config["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{}{path}", self.port).into();
        let file = self.directory.path().join(format!("{name}.kubeconfig"));
        fs::write(&file, config.to_string()).expect("a file in the scratch directory can be written");
        file
    }

    /// Its CA certificate, PEM.
    pub(crate) fn ca(&self) -> String {
        read_kubeconfig(&self.admin()).0
    }

    /// A client of its administrator.
    pub(crate) fn client(&self) -> Client {
        let (ca, identity) = read_kubeconfig(&self.admin());
        Client::new(self.port, &ca, Some(&identity))
    }

    /// The object at this path of its API, `None` if there is none.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let response = self
            .client()
            .get(path)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        match response.status {
            200 => Some(response.json()),
            404 => None,
            status => panic!("GET {path}: {status} {}", response.body),
        }
    }

    /// Runs a command that acts through its API.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        run(branchline(self.directory.path())
            .args(arguments)
            .arg("--kubeconfig")
            .arg(self.admin()))
    }

    /// A new bootstrap token.
    #[track_caller]
    pub(crate) fn join(&self, arguments: &[&str]) -> Join {
        let line = self.command(&[&["token", "create", "--print-join"], arguments].concat()).ok();
        let after = |flag: &str| {
            let mut words = line
                .split_whitespace()
                .flat_map(|word| word.split('='))
                .skip_while(|word| *word != flag);
            words.nth(1).unwrap_or_else(|| panic!("no {flag} in {line:?}")).to_owned()
        };
        Join {
            hub: after("--hub"),
            token: after("--token"),
            ca_hash: after("--ca-hash"),
        }
    }

    /// The ManagedCluster of this name, once the cluster has joined.
    pub(crate) fn managed_cluster(&self, name: &str) -> Option<Value> {
        self.get(&format!(
            "/apis/clusters.clusternet.io/v1beta1/namespaces/clusternet-{name}/managedclusters/{name}"
        ))
    }

    /// Waits until this cluster's condition `Ready` has this status.
    #[track_caller]
    pub(crate) fn wait_cluster(&self, name: &str, ready: &str) {
        wait_until(&format!("cluster {name} has Ready={ready}"), || {
            let cluster = self.managed_cluster(name).ok_or("it has not joined")?;
            let status = condition(&cluster, "Ready");
            holds(status == ready, format!("{cluster:#}"))
        });
    }
}

/// The status of a condition, empty if it is not there.
fn condition(object: &Value, name: &str) -> String {
    let conditions = object["status"]["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == name);
    found
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// CA and client identity of a kubeconfig file with embedded data.
fn read_kubeconfig(path: &Path) -> (String, Identity) {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let config: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let decode = |value: &Value| {
        let bytes = BASE64_STANDARD
            .decode(value.as_str().expect("data is embedded"))
            .expect("data is base64");
        String::from_utf8(bytes).expect("data is PEM")
    };
    let user = &config["users"][0]["user"];
    let identity = Identity {
        certificate: decode(&user["client-certificate-data"]),
        key: decode(&user["client-key-data"]),
    };
    (
        decode(&config["clusters"][0]["cluster"]["certificate-authority-data"]),
        identity,
    )
}

/// An agent process for one API server. It can be killed and started again with the same command line.
#[derive(Debug)]
pub(crate) struct Agent {
    name: String,
    arguments: Vec<String>,
    /// Before the directory, so that its log is still there when it is dropped.
    process: Option<Process>,
    directory: TempDir,
}

impl Agent {
    /// An agent that is not started yet.
    pub(crate) fn prepare(name: &str, join: &Join, server: &ApiServer) -> Self {
        let arguments = [
            "agent",
            &format!("--hub={}", join.hub),
            &format!("--token={}", join.token),
            &format!("--ca-hash={}", join.ca_hash),
            &format!("--name={name}"),
            &format!("--labels=name={name}"),
            &format!("--kubeconfig={}", server.kubeconfig_for_agent().display()),
        ];
        Agent {
            name: name.to_owned(),
            directory: scratch(name),
            arguments: arguments.map(str::to_owned).into(),
            process: None,
        }
    }

    /// Reaches its cluster by this kubeconfig instead.
    #[must_use]
    pub(crate) fn with_kubeconfig(mut self, kubeconfig: &Path) -> Self {
        self.arguments.retain(|argument| !argument.starts_with("--kubeconfig"));
        self.arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
        self
    }

    /// Adds an argument to its command line.
    #[must_use]
    pub(crate) fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it; it does not wait for anything.
    pub(crate) fn launch(&mut self) {
        let mut command = branchline(self.directory.path());
        command.args(&self.arguments);
        self.process = Some(Process::start(
            &format!("agent {}", self.name),
            command,
            &self.directory.path().join("log"),
        ));
    }

    /// The running process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent was started")
    }

    /// All that it has logged since it was first started.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process().kill();
    }
}

/// A source repository, a hub and agents `a`, `b`, …, each with its API server.
pub(crate) struct Fleet {
    /// What people push to.
    pub(crate) repo: GitRepo,
    /// The hub.
    pub(crate) hub: Hub,
    /// Agents in the order of their names.
    pub(crate) agents: Vec<Agent>,
    /// The agents' API servers, in the same order.
    pub(crate) servers: Vec<ApiServer>,
}

impl Fleet {
    /// As many clusters as names, all joined and ready. The repository has one commit with a README alone.
    #[track_caller]
    pub(crate) fn start(names: &[&str]) -> Self {
        let repo = GitRepo::with(&[("README.md", "A fleet.\n")]);
        let hub = Hub::prepare("hub", &repo);
        Fleet::of(repo, hub, names)
    }

    /// The same, with a hub that was prepared otherwise, and is started unless it runs.
    #[track_caller]
    pub(crate) fn of(repo: GitRepo, mut hub: Hub, names: &[&str]) -> Self {
        let servers: Vec<ApiServer> = std::thread::scope(|scope| {
            let starting: Vec<_> = names.iter().map(|name| scope.spawn(|| ApiServer::start(name))).collect();
            if hub.process.is_none() {
                hub.start_again();
            }
            starting
                .into_iter()
                .map(|server| server.join().expect("the API server starts"))
                .collect()
        });
        let join = hub.join(&[]);
        let mut agents: Vec<Agent> = names
            .iter()
            .zip(&servers)
            .map(|(name, server)| Agent::prepare(name, &join, server))
            .collect();
        agents.iter_mut().for_each(Agent::launch);
        names.iter().for_each(|name| hub.wait_cluster(name, "True"));
        Fleet {
            repo,
            hub,
            agents,
            servers,
        }
    }

    /// Waits until ConfigMap `shop/<name>` of this cluster greets so; `None` means that there is no such ConfigMap.
    #[track_caller]
    pub(crate) fn wait_greeting(&self, cluster: usize, name: &str, greeting: Option<&str>) {
        let what = format!(
            "ConfigMap shop/{name} of cluster {} says {greeting:?}",
            self.agents[cluster].name
        );
        wait_until(&what, || {
            let found = self.greeting(cluster, name);
            holds(found.as_deref() == greeting, format!("it says {found:?}"))
        });
    }

    /// What ConfigMap `shop/<name>` of this cluster says, `None` if there is none.
    #[track_caller]
    pub(crate) fn greeting(&self, cluster: usize, name: &str) -> Option<String> {
        let object = self.servers[cluster].get(&format!("/api/v1/namespaces/shop/configmaps/{name}"))?;
        Some(object["data"]["greeting"].as_str().unwrap_or_default().to_owned())
    }

    /// The names of the ConfigMaps in namespace `shop` of this cluster.
    pub(crate) fn config_maps(&self, cluster: usize) -> Vec<String> {
        let list = self.servers[cluster]
            .get("/api/v1/namespaces/shop/configmaps")
            .unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let names = items.iter().filter_map(|item| item["metadata"]["name"].as_str());
        names.filter(|name| *name != "kube-root-ca.crt").map(str::to_owned).collect()
    }

    /// Waits until every cluster is Ready.
    #[track_caller]
    pub(crate) fn wait_all_ready(&self) {
        for agent in &self.agents {
            self.hub.wait_cluster(&agent.name, "True");
        }
    }

    /// Every request for a change that this cluster's API server has seen from others than the test.
    pub(crate) fn writes(&self, cluster: usize) -> Vec<AuditEvent> {
        self.servers[cluster]
            .audit()
            .into_iter()
            .filter(AuditEvent::is_write)
            .collect()
    }

    /// Gives the hub's administrators all rights in every cluster, by each cluster's own RBAC, and waits until that counts.
    #[track_caller]
    pub(crate) fn let_admins_in(&self) {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "branchline-admins" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "branchline:admins" }],
        });
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        for server in &self.servers {
            assert_eq!(server.send("POST", path, "application/json", &binding).status, 201);
        }
        for cluster in 0..self.servers.len() {
            wait_until("the administrators may do everything", || {
                let answer = self.hub.client().get(&format!("{}/api/v1/secrets", self.socket(cluster)))?;
                holds(answer.status == 200, answer.body)
            });
        }
    }

    /// Waits until a cluster answers through the hub.
    #[track_caller]
    pub(crate) fn wait_reachable(&self, cluster: usize) {
        wait_until("the cluster answers through the hub", || {
            let answer = self.hub.client().get(&format!("{}/version", self.socket(cluster)))?;
            holds(answer.status == 200, answer.body)
        });
    }

    /// The path of a cluster's own API on the hub.
    pub(crate) fn socket(&self, cluster: usize) -> String {
        let id = self.servers[cluster].cluster_id();
        format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{id}/proxy/direct")
    }

    /// The commit of the state branch.
    pub(crate) fn state(&self) -> Option<String> {
        self.repo.reference(STATE)
    }
}
