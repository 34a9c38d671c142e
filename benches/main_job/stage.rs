//! Hub and agents as processes of the release binary, and what the sections ask them. Measures nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::bare::{Event, Server};
use crate::support::apiserver::ApiServer;
use crate::support::process::{Process, branchline, run};
use crate::support::{free_port, holds, scratch, wait_until};

/// The API path of the hub's clusters.
pub(crate) const CLUSTERS: &str = "/apis/clusters.clusternet.io/v1beta1/managedclusters";

/// A hub on one source repository.
pub(crate) struct Hub {
    // Goes first: its log is in the directory.
    process: Option<Process>,
    directory: TempDir,
    source: PathBuf,
    port: u16,
}

impl Hub {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(source: &Path) -> Hub {
        let mut hub = Hub {
            directory: scratch("hub"),
            source: source.to_owned(),
            port: free_port(),
            process: None,
        };
        hub.launch();
        let client = crate::support::https::Client::new(hub.port, &hub.ca(), None);
        wait_until("the hub is ready", || {
            let answer = client.get("/readyz")?;
            holds(answer.status == 200, answer.body)
        });
        hub
    }

    /// Starts the process and does not wait.
    pub(crate) fn launch(&mut self) {
        let (source, listen) = (self.source.display().to_string(), format!("127.0.0.1:{}", self.port));
        let command = self.command(&["hub", "--source", &source, "--listen", &listen]);
        self.process = Some(Process::start("hub", command, &self.directory.path().join("hub.log")));
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().expect("the hub runs").id()
    }

    /// The certificate of its authority.
    pub(crate) fn ca(&self) -> String {
        let path = self.directory.path().join("data/ca/ca.crt");
        wait_until("the hub has made its CA", || {
            std::fs::read_to_string(&path).map_err(|error| error.to_string())
        })
    }

    /// Port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A client with the administrator's certificate.
    pub(crate) fn server(&self) -> Server {
        Server::of_kubeconfig(&self.directory.path().join("data/admin.kubeconfig"))
    }

    /// A new bootstrap token and the authority's hash.
    pub(crate) fn join(&self) -> (String, String) {
        let line = run(&mut self.command(&["token", "create", "--print-join"])).ok();
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |option: &str| {
            let place = words.iter().position(|word| *word == option).unwrap();
            words[place + 1].to_owned()
        };
        (after("--token"), after("--ca-hash"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = traced(branchline(self.directory.path()));
        command.args(arguments).args(["--data", "data"]);
        command
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        keep_log("hub", self.process.as_ref());
    }
}

/// An agent for one child.
pub(crate) struct Agent {
    // Goes first: its log is in the directory.
    process: Option<Process>,
    directory: TempDir,
    name: String,
    arguments: Vec<String>,
}

impl Agent {
    /// Prepares it; nothing runs yet.
    pub(crate) fn new(name: &str, hub: &Hub, child: &ApiServer) -> Agent {
        let (token, hash) = hub.join();
        let url = format!("https://127.0.0.1:{}", hub.port());
        let kubeconfig = child.kubeconfig_for_agent().display().to_string();
        let arguments = ["agent", "--hub", &url, "--token", &token, "--ca-hash", &hash, "--name", name];
        let arguments = arguments.into_iter().chain(["--kubeconfig", &kubeconfig]);
        Agent {
            directory: scratch(name),
            name: name.to_owned(),
            arguments: arguments.map(str::to_owned).collect(),
            process: None,
        }
    }

    /// Adds an argument to its command line.
    #[must_use]
    pub(crate) fn with(mut self, argument: &str) -> Agent {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the process and does not wait.
    pub(crate) fn launch(&mut self) {
        let mut command = traced(branchline(self.directory.path()));
        command.args(&self.arguments);
        let log = self.directory.path().join("agent.log");
        self.process = Some(Process::start(&self.name, command, &log));
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().expect("the agent runs").id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        keep_log(&self.name, self.process.as_ref());
    }
}

/// Whether an event says this about a cluster's readiness.
pub(crate) fn says_ready(event: &Event, cluster: &str, ready: bool) -> bool {
    event.object.metadata.name == cluster && is_ready(&event.object.status) == ready
}

/// Whether a ManagedCluster's status says that it is ready.
pub(crate) fn is_ready(status: &serde_json::Value) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Resident memory of a process in KiB, once it no longer changes.
pub(crate) fn settled_kib(id: u32) -> f64 {
    let mut last = memory_kib(id, "VmRSS:");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let now = memory_kib(id, "VmRSS:");
        if (now - last).abs() < 64.0 {
            return now;
        }
        last = now;
    }
}

/// What of it is no file: what another process of the same binary would cost besides.
pub(crate) fn own_kib(id: u32) -> f64 {
    memory_kib(id, "RssAnon:")
}

fn memory_kib(id: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn traced(mut command: Command) -> Command {
    if let Some(filter) = std::env::var_os("RUST_LOG") {
        command.env("RUST_LOG", filter);
    }
    command
}

fn keep_log(name: &str, process: Option<&Process>) {
    if let (Some(process), true) = (process, std::env::var_os("RUST_LOG").is_some()) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("main_job-{name}.log"));
        std::fs::write(path, process.log()).unwrap();
    }
}
