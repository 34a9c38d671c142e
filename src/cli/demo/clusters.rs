//! The demo's clusters: a sandbox on a loopback port and an agent for each, with what both keep.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;
use uuid::Uuid;

use super::{CliError, write};
use crate::agent::{self, AgentConfig, CredentialsPlace, Trust};
use crate::cluster::{Access, SURVEY_INTERVAL};
use crate::core::object::Object;
use crate::core::reach::Reachable;
use crate::hub::Hub;
use crate::sandbox::{Sandbox, SandboxOptions, keep, load_snapshot};
use crate::tunnel::TunnelSettings;
use crate::tunnel::backoff::Backoff;
use crate::tunnel::dial::HubAddress;

/// A cluster of the demo.
pub(super) struct Member {
    /// Its name.
    pub(super) name: String,
    /// Its cluster id.
    pub(super) id: Uuid,
}

fn credentials(home: &Path) -> PathBuf {
    home.join("credentials")
}

/// Whether the cluster registered in an earlier run.
pub(super) fn has_credentials(home: &Path) -> bool {
    credentials(home).exists()
}

/// Starts a sandbox and its agent; both end with `stop`.
pub(super) async fn start(
    name: &str,
    home: &Path,
    hub: &Hub,
    token: Option<String>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Member, CliError> {
    let failed = || CliError::failed(format!("the sandbox {name} cannot be started"), "check the demo's folder");
    std::fs::create_dir_all(home).map_err(|error| failed().because(error))?;
    let id = cluster_id(home)?;
    let objects = home.join("objects.json");
    let snapshot = load_snapshot(&objects).map_err(|error| failed().because(error))?;
    let sandbox = Sandbox::new(SandboxOptions {
        kube_system_uid: id,
        snapshot,
    });
    place_node(&sandbox, name);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(|error| failed().because(error))?;
    let address = listener.local_addr().map_err(|error| failed().because(error))?;
    let kubeconfig = home.join("kubeconfig");
    write(
        &kubeconfig,
        crate::core::yaml::emit(&sandbox_kubeconfig(&format!("http://{address}"))).as_bytes(),
    )?;
    let config = agent_config(name, kubeconfig, home, hub, token)?;
    // The agent ends first, so that its last writes are kept.
    let (serving, agent_ended) = (CancellationToken::new(), CancellationToken::new());
    let (server, ends) = (sandbox.clone(), serving.clone());
    tasks.spawn(async move {
        if let Err(error) = server.serve(listener, ends).await {
            error!(error = %error, "the sandbox's port failed");
        }
    });
    let ended = agent_ended.clone();
    tasks.spawn(async move {
        ended.cancelled().await;
        serving.cancel();
    });
    let (keeper_ends, name_of) = (agent_ended.clone(), name.to_owned());
    tasks.spawn(async move {
        if let Err(error) = keep(sandbox, objects, keeper_ends).await {
            error!(cluster = name_of, error = %error, "the sandbox's objects cannot be kept");
        }
    });
    let (agent_stop, name_of) = (stop.clone(), name.to_owned());
    tasks.spawn(async move {
        if let Err(error) = agent::run(config, agent_stop.clone()).await {
            eprintln!("error: the agent of {name_of} ended: {error}");
            agent_stop.cancelled().await;
        }
        agent_ended.cancel();
    });
    Ok(Member {
        name: name.to_owned(),
        id,
    })
}

/// The cluster's identity, made once.
fn cluster_id(home: &Path) -> Result<Uuid, CliError> {
    let path = home.join("uid");
    if let Some(id) = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(id);
    }
    let id = Uuid::new_v4();
    write(&path, id.to_string().as_bytes())?;
    Ok(id)
}

/// A node as a kubelet would report it, so that the cluster has a capacity to show.
fn place_node(sandbox: &Sandbox, cluster: &str) {
    let capacity = json!({"cpu": "4", "memory": "16Gi", "pods": "110"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("{cluster}-node")},
        "status": {
            "capacity": capacity, "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "SandboxNode", "message": "a node on paper"}],
            "nodeInfo": {"kubeletVersion": "v1.35.0+branchline-sandbox"},
        },
    });
    if let Ok(node) = Object::from_value(node) {
        sandbox.place(node);
    }
}

fn sandbox_kubeconfig(server: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": server}}],
        "users": [{"name": "agent", "user": {}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "agent"}}],
    })
}

fn agent_config(name: &str, kubeconfig: PathBuf, home: &Path, hub: &Hub, token: Option<String>) -> Result<AgentConfig, CliError> {
    let failed = || CliError::failed(format!("the agent of {name} cannot be started"), "");
    let hash = hub
        .ca_hash
        .parse()
        .map_err(|error: agent::InvalidCaHash| failed().because(error))?;
    Ok(AgentConfig {
        hub: HubAddress::parse(&hub.urls[0]).map_err(|error| failed().because(error))?,
        trust: Trust::Hash(hash),
        token,
        name: name.to_owned(),
        namespace: String::new(),
        cluster_type: "EdgeCluster".to_owned(),
        labels: std::collections::BTreeMap::new(),
        access: Access::Kubeconfig {
            path: kubeconfig,
            context: None,
        },
        reachable: Reachable::default(),
        credentials: CredentialsPlace::File(credentials(home)),
        backoff: Backoff::default(),
        pending_interval: Duration::from_secs(1),
        survey_interval: SURVEY_INTERVAL,
        tunnel: TunnelSettings::agent(),
        impersonation: std::sync::Arc::default(),
    })
}
