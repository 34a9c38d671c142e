//! A fleet of two clusters with nodes, reached through the hub by real clients: two versions of kubectl, each by websocket and by SPDY.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::fleet::Fleet;
use super::node::Node;
use super::process::{Output, Process, command, run};
use super::scratch;
use super::tools::tool;

/// Two clusters, `a` and `b`, each with a node, in which the hub's administrators may do everything.
pub(crate) struct Reach {
    /// Hub, agents and API servers.
    pub(crate) fleet: Fleet,
    /// The nodes, `node-a` and `node-b`.
    pub(crate) nodes: Vec<Node>,
}

impl Reach {
    /// Starts both.
    pub(crate) fn start() -> Self {
        Reach::over(Fleet::start(&["a", "b"]), &["a", "b"])
    }

    /// Adds a node to each cluster of a fleet and lets the administrators in.
    pub(crate) fn over(fleet: Fleet, names: &[&str]) -> Self {
        fleet.let_admins_in();
        let nodes = fleet.servers.iter().zip(names);
        let nodes = nodes
            .map(|(server, name)| Node::start(server, &format!("node-{name}")))
            .collect();
        Reach { fleet, nodes }
    }

    /// One that tests share that break nothing; each uses names of its own.
    pub(crate) fn shared() -> &'static Reach {
        static SHARED: OnceLock<Reach> = OnceLock::new();
        SHARED.get_or_init(Reach::start)
    }

    /// Runs a pod of one container with these fields.
    pub(crate) fn run_pod(&self, cluster: usize, name: &str, container: &Value) {
        self.nodes[cluster].run(&self.fleet.servers[cluster], name, container);
    }

    /// Runs a pod that does nothing but wait for commands.
    pub(crate) fn run_idle_pod(&self, cluster: usize, name: &str) {
        self.run_pod(cluster, name, &json!({ "command": ["sleep", "100000"] }));
    }

    /// The clients that people have: the current kubectl talks to cluster a, the older one to cluster b.
    pub(crate) fn clients(&self) -> Vec<Kubectl> {
        let mut clients = Vec::new();
        for (cluster, program) in ["kubectl", "kubectl-older"].into_iter().enumerate() {
            for protocol in [Protocol::WebSocket, Protocol::Spdy] {
                clients.push(self.client(cluster, program, protocol));
            }
        }
        clients
    }

    /// Both versions by both protocols for one cluster.
    pub(crate) fn clients_of(&self, cluster: usize) -> Vec<Kubectl> {
        let programs = ["kubectl", "kubectl-older"].into_iter();
        let each = programs.flat_map(|program| [Protocol::WebSocket, Protocol::Spdy].map(|protocol| (program, protocol)));
        each.map(|(program, protocol)| self.client(cluster, program, protocol))
            .collect()
    }

    /// The current kubectl for this cluster.
    pub(crate) fn kubectl(&self, cluster: usize) -> Kubectl {
        self.client(cluster, "kubectl", Protocol::WebSocket)
    }

    fn client(&self, cluster: usize, program: &'static str, protocol: Protocol) -> Kubectl {
        let home = scratch("kubectl");
        let kubeconfig = self.fleet.hub.kubeconfig(
            &home.path().file_name().unwrap_or_default().to_string_lossy(),
            &self.fleet.socket(cluster),
        );
        Kubectl {
            name: format!("{program}-{protocol:?}").to_lowercase(),
            cluster,
            program: tool(program),
            protocol,
            kubeconfig,
            home,
        }
    }

    /// The client-go program with this task (tests/tools/programs/client), for a cluster.
    pub(crate) fn go_client(&self, cluster: usize, arguments: &[&str]) -> Command {
        let kubeconfig = self
            .fleet
            .hub
            .kubeconfig(&format!("go-{cluster}"), &self.fleet.socket(cluster));
        let home = kubeconfig.parent().expect("a file is in a directory").to_owned();
        let mut command = command(&tool("client"), &home);
        command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
        command
    }
}

/// How a kubectl takes connections over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    WebSocket,
    Spdy,
}

/// One kubectl with a kubeconfig for one cluster, through the hub.
#[derive(Debug)]
pub(crate) struct Kubectl {
    /// Says which in failures, and is part of the names of what it makes: lower case, no odd characters.
    pub(crate) name: String,
    /// The cluster that it talks to.
    pub(crate) cluster: usize,
    program: PathBuf,
    /// How it takes connections over.
    pub(crate) protocol: Protocol,
    kubeconfig: PathBuf,
    home: TempDir,
}

impl Kubectl {
    /// A directory of its own, which is also where it runs.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Its command line with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.program, self.home.path());
        let websockets = (self.protocol == Protocol::WebSocket).to_string();
        command
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &websockets)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &websockets)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments);
        command
    }

    /// Runs it to its end without input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments))
    }

    /// Runs it to its end; a thread feeds its standard input and closes it.
    pub(crate) fn run_with(&self, input: Vec<u8>, arguments: &[&str]) -> std::process::Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl can be started");
        let mut stdin = child.stdin.take().expect("it is piped");
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("its output can be read");
        // A program that ends before it has read all is the caller's business.
        let _ = feeder.join().expect("writing does not panic");
        output
    }

    /// Starts it and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        let log = tempfile::NamedTempFile::new_in(self.home.path()).expect("a file in the scratch directory can be made");
        let (_, log) = log.keep().expect("a file in the scratch directory can be kept");
        Process::start(&self.name, self.command(arguments), &log)
    }
}
