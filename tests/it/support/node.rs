//! Nodes without containers: what an API server dials for exec, attach, port-forward and logs. [`Node`] runs a local process for each
//! container; the echo pod is not even that: its upgraded connections echo every byte.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::apiserver::ApiServer;
use super::process::{Process, command};
use super::tools::tool;
use super::{holds, scratch, wait_until};

/// Adds a node that has these labels and runs nothing.
pub(crate) fn add_node(server: &ApiServer, name: &str, labels: &Value) {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
    let answer = server.send("POST", "/api/v1/nodes", "application/json", &node);
    assert_eq!(answer.status, 201, "{}", answer.body);
}

/// A node program beside an API server (tests/tools/programs/node). Its pods' processes end with it.
#[derive(Debug)]
pub(crate) struct Node {
    /// Before the directory, so that its log is still there when it is dropped.
    _process: Process,
    name: String,
    directory: TempDir,
}

impl Node {
    /// Starts a node of this name and waits until it takes pods of namespace `default`.
    pub(crate) fn start(server: &ApiServer, name: &str) -> Self {
        let directory = scratch(name);
        let mut command = command(&tool("node"), directory.path());
        command.args(["--name", name, "--dir"]).arg(directory.path().join("pods"));
        command.arg("--kubeconfig").arg(server.kubeconfig());
        let mut process = Process::start(&format!("node {name}"), command, &directory.path().join("log"));
        process.wait_log("serves on");
        add_service_account(server);
        Node {
            _process: process,
            name: name.to_owned(),
            directory,
        }
    }

    /// Runs a pod in namespace `default` with these fields besides its container's name, and waits until it runs.
    pub(crate) fn run(&self, server: &ApiServer, name: &str, container: &Value) {
        let mut fields = json!({ "name": "main", "image": "none" });
        for (field, value) in container.as_object().into_iter().flatten() {
            fields[field] = value.clone();
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "nodeName": self.name, "terminationGracePeriodSeconds": 0, "containers": [fields] },
        });
        let answer = server.send("POST", "/api/v1/namespaces/default/pods", "application/json", &pod);
        assert_eq!(answer.status, 201, "{}", answer.body);
        wait_until(&format!("pod {name} runs"), || {
            let pod = server
                .get(&format!("/api/v1/namespaces/default/pods/{name}"))
                .unwrap_or_default();
            holds(pod["status"]["phase"] == "Running", pod.to_string())
        });
    }

    /// The directory in which a pod's process runs.
    pub(crate) fn directory_of(&self, pod: &str) -> PathBuf {
        self.directory.path().join("pods/default").join(pod).join("main")
    }
}

/// Pods are refused in a namespace without its default account, which only the controller manager makes.
fn add_service_account(server: &ApiServer) {
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let answer = server.send("POST", path, "application/json", &account);
    assert!([201, 409].contains(&answer.status), "{}", answer.body);
}

/// Adds a node and a pod `default/echo` that runs on it to this cluster. The node answers as long as the test process lives.
pub(crate) fn add_echo_pod(server: &ApiServer) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port can be bound");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let tls = tls(server);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let tls = tls.clone();
            // A connection that breaks is the business of the one who asked.
            std::thread::spawn(move || serve(socket, tls).ok());
        }
    });
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "echo" },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        },
    });
    add_service_account(server);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "echo" },
        "spec": { "nodeName": "echo", "containers": [{ "name": "echo", "image": "none" }] },
    });
    for (path, object) in [("/api/v1/nodes", node), ("/api/v1/namespaces/default/pods", pod)] {
        let answer = server.send("POST", path, "application/json", &object);
        assert_eq!(answer.status, 201, "{path}: {}", answer.body);
    }
}

/// What a server shows whose certificate this cluster's CA has signed for 127.0.0.1.
pub(crate) fn tls(server: &ApiServer) -> Arc<ServerConfig> {
    let identity = server.authority().server();
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("the key is PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("the certificate is PEM"), key)
        .expect("key and certificate fit");
    Arc::new(config)
}

fn serve(socket: TcpStream, tls: Arc<ServerConfig>) -> std::io::Result<()> {
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    let head = read_head(&mut stream)?;
    if head.to_ascii_lowercase().contains("upgrade: spdy") {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")?;
        return echo(&mut stream);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nfirst line\n")?;
    stream.flush()?;
    if head.contains("follow=true") {
        // The answer does not end; the follower goes away.
        read_head(&mut stream)?;
    }
    stream.conn.send_close_notify();
    stream.flush()
}

fn echo(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// Reads up to the empty line that ends an HTTP head.
pub(crate) fn read_head(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
