//! What the hub is told about a cluster: version, health, nodes, networks. Reads only, and as little as possible.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::Cluster;
use super::error::ApiError;
use crate::core::api::cluster::{ClusterStatus, NodeStatistics};
use crate::core::node_labels::NodeLabelCount;
use crate::core::quantity::Quantity;
use crate::core::selector::Labels;

/// Nodes and networks change rarely, and listing the nodes of a large cluster is the one costly request: at most this often, unless an agent is
/// told otherwise.
pub const SURVEY_INTERVAL: Duration = Duration::from_secs(60);
/// A survey may take this part of the time at most; a cluster where it is slow is asked less often.
const SURVEY_SHARE: u32 = 50;
const NODES_A_PAGE: usize = 100;
/// The resources that are summed up: Clusternet's, and what else the hub's estimate of room needs.
const RESOURCES: [&str; 5] = ["cpu", "memory", "nvidia.com/gpu", "pods", "ephemeral-storage"];

/// Collects the status of one cluster and remembers what it need not ask again.
pub struct StatusCollector {
    cluster: Cluster,
    heartbeat: Duration,
    survey_interval: Duration,
    survey: Survey,
    next_survey: Option<Instant>,
    last: ClusterStatus,
}

/// The part that is asked rarely.
#[derive(Clone, Default)]
struct Survey {
    nodes: NodeStatistics,
    allocatable: BTreeMap<String, Quantity>,
    capacity: BTreeMap<String, Quantity>,
    /// What enough nodes carry below `node.clusternet.io/`; `None` until there was a node that counts.
    labels: Option<Labels>,
    cluster_cidr: String,
    service_cidr: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    git_version: String,
    platform: String,
}

#[derive(Deserialize)]
struct NodeList {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<Node>,
}

/// What a list says about the rest of it.
#[derive(Deserialize, Default)]
pub(super) struct ListMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    metadata: NodeMetadata,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
struct NodeMetadata {
    #[serde(default)]
    labels: Labels,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    allocatable: BTreeMap<String, String>,
    capacity: BTreeMap<String, String>,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl StatusCollector {
    /// A collector that has seen nothing yet.
    pub fn new(cluster: Cluster, heartbeat: Duration, survey_interval: Duration) -> Self {
        StatusCollector {
            cluster,
            heartbeat,
            survey_interval,
            survey: Survey::default(),
            next_survey: None,
            last: ClusterStatus::default(),
        }
    }

    /// Changes the heartbeat period that the status announces.
    pub fn set_period(&mut self, heartbeat: Duration) {
        self.heartbeat = heartbeat;
    }

    /// The labels below `node.clusternet.io/` that enough nodes carried when they were last listed; without nodes those of the time before.
    pub fn node_labels(&self) -> Option<&Labels> {
        self.survey.labels.as_ref()
    }

    /// Asks the API server. One that does not answer is a status too: unhealthy, and why.
    pub async fn collect(&mut self) -> ClusterStatus {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut status = ClusterStatus {
            last_observed_time: Some(now.clone()),
            agent_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            apiserver_url: self.cluster.server().to_owned(),
            use_socket: true,
            heartbeat_frequency_seconds: i64::try_from(self.heartbeat.as_secs()).ok(),
            ..self.last.clone()
        };
        self.ask_health(&mut status).await;
        if status.message.is_empty() {
            self.survey_if_due(&mut status).await;
        }
        status.conditions = vec![self.ready_condition(&status, &now)];
        self.last = status.clone();
        status
    }

    async fn ask_health(&self, status: &mut ClusterStatus) {
        let cluster = &self.cluster;
        let (version, healthz, livez, readyz) = futures::join!(
            cluster.get::<Version>("/version"),
            cluster.is_ok("/healthz"),
            cluster.is_ok("/livez"),
            cluster.is_ok("/readyz"),
        );
        (status.healthz, status.livez, status.readyz) = (healthz, livez, readyz);
        status.message = String::new();
        match version {
            Ok(version) => {
                status.k8s_version = version.git_version;
                status.platform = version.platform;
            }
            Err(error) => status.message = format!("{}; check the API server and the agent's way to it", error.explain()),
        }
    }

    /// Best effort: what cannot be read keeps its last value.
    async fn survey_if_due(&mut self, status: &mut ClusterStatus) {
        let started = Instant::now();
        if self.next_survey.is_none_or(|next| next <= started) {
            match self.cluster.survey_nodes(&mut self.survey).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "nodes cannot be listed; their capacity and labels are not reported"),
            }
            self.cluster.survey_networks(&mut self.survey).await;
            self.next_survey = Some(started + self.survey_interval.max(started.elapsed() * SURVEY_SHARE));
        }
        status.node_statistics = self.survey.nodes.clone();
        status.allocatable = spell(&self.survey.allocatable);
        status.capacity = spell(&self.survey.capacity);
        status.cluster_cidr = self.survey.cluster_cidr.clone();
        status.service_cidr = self.survey.service_cidr.clone();
    }

    /// Clusternet's rule: ready is (livez and readyz) or healthz. The transition time moves only when the answer changes.
    fn ready_condition(&self, status: &ClusterStatus, now: &str) -> Value {
        let ready = (status.livez && status.readyz) || status.healthz;
        let word = if ready { "True" } else { "False" };
        let before = self
            .last
            .conditions
            .first()
            .filter(|c| c.get("status").and_then(Value::as_str) == Some(word));
        let since = before
            .and_then(|c| c.get("lastTransitionTime"))
            .and_then(Value::as_str)
            .unwrap_or(now);
        let (reason, message) = match ready {
            true => ("ManagedClusterReady", "managed cluster is ready."),
            false if status.message.is_empty() => ("ManagedClusterNotReady", "the API server says that it is not ready"),
            false => ("ManagedClusterNotReady", status.message.as_str()),
        };
        json!({"type": "Ready", "status": word, "reason": reason, "message": message, "lastTransitionTime": since})
    }
}

/// The rest of a list as a query says it; empty at its end.
pub(super) fn next_page(metadata: &ListMetadata) -> String {
    percent_encoding::utf8_percent_encode(&metadata.next, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn spell(sums: &BTreeMap<String, Quantity>) -> BTreeMap<String, String> {
    let named = sums.iter().filter(|(_, sum)| !sum.is_zero());
    named.map(|(name, sum)| (name.clone(), sum.to_string())).collect()
}

impl Survey {
    fn count(&mut self, node: &Node) {
        let ready = node.status.conditions.iter().find(|c| c.kind == "Ready");
        let nodes = &mut self.nodes;
        let counter = match ready.map(|c| c.status.as_str()) {
            Some("True") => &mut nodes.ready_nodes,
            Some("False") => &mut nodes.not_ready_nodes,
            Some(_) => &mut nodes.unknown_nodes,
            None => &mut nodes.lost_nodes,
        };
        *counter += 1;
        add_up(&mut self.allocatable, &node.status.allocatable);
        add_up(&mut self.capacity, &node.status.capacity);
    }
}

fn add_up(sums: &mut BTreeMap<String, Quantity>, of_node: &BTreeMap<String, String>) {
    for name in RESOURCES {
        if let Some(quantity) = of_node.get(name).and_then(|text| Quantity::parse(text)) {
            let sum = sums.entry(name.to_owned()).or_default();
            *sum = *sum + quantity;
        }
    }
}

impl Cluster {
    async fn is_ok(&self, path: &str) -> bool {
        self.get_text(path).await.is_ok_and(|text| text.trim() == "ok")
    }

    /// Page by page, each forgotten once it is counted.
    async fn survey_nodes(&self, survey: &mut Survey) -> Result<(), ApiError> {
        let mut fresh = Survey {
            cluster_cidr: std::mem::take(&mut survey.cluster_cidr),
            service_cidr: std::mem::take(&mut survey.service_cidr),
            ..Survey::default()
        };
        let mut labels = NodeLabelCount::default();
        let mut next = String::new();
        loop {
            let path = format!("/api/v1/nodes?limit={NODES_A_PAGE}&continue={next}");
            let page: NodeList = self.get(&path).await?;
            for node in &page.items {
                fresh.count(node);
                labels.add(&node.metadata.labels);
            }
            next = next_page(&page.metadata);
            if next.is_empty() {
                fresh.labels = labels.winners().or_else(|| survey.labels.take());
                *survey = fresh;
                return Ok(());
            }
        }
    }

    /// The networks as the control plane's own pods state them; newer servers have the Service network as an object.
    async fn survey_networks(&self, survey: &mut Survey) {
        if survey.service_cidr.is_empty() {
            let object = self.get::<Value>("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await;
            survey.service_cidr = object.ok().as_ref().and_then(join_cidrs).unwrap_or_default();
        }
        if survey.cluster_cidr.is_empty() || survey.service_cidr.is_empty() {
            let path = "/api/v1/namespaces/kube-system/pods?limit=20&labelSelector=component%20in%20(kube-apiserver,kube-controller-manager)";
            let pods = self.get::<Value>(path).await.unwrap_or_default();
            fill_from(&mut survey.cluster_cidr, &pods, "--cluster-cidr=", "CLUSTER_CIDR");
            fill_from(&mut survey.service_cidr, &pods, "--service-cluster-ip-range=", "SERVICE_CIDR");
        }
    }
}

fn join_cidrs(object: &Value) -> Option<String> {
    let all: Vec<&str> = object
        .pointer("/spec/cidrs")?
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    Some(all.join(","))
}

fn fill_from(cidr: &mut String, pods: &Value, flag: &str, variable: &str) {
    if cidr.is_empty() {
        let found = flag_in(pods, flag).or_else(|| std::env::var(variable).ok());
        *cidr = found.unwrap_or_default();
    }
}

/// The value of a flag in the commands or arguments of any container.
fn flag_in(pods: &Value, flag: &str) -> Option<String> {
    let pods = pods.get("items")?.as_array()?.iter();
    let containers = pods.filter_map(|pod| pod.pointer("/spec/containers")?.as_array()).flatten();
    let words = containers.flat_map(|c| ["command", "args"].into_iter().filter_map(|part| c.get(part)?.as_array()));
    let mut flags = words.flatten().filter_map(Value::as_str);
    flags.find_map(|word| word.strip_prefix(flag)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn nodes_are_counted_and_summed() {
        let node = |ready: &str, cpu: &str| {
            serde_json::from_value(json!({"status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let mut survey = Survey::default();
        survey.count(&node("True", "1500m"));
        survey.count(&node("Unknown", "500m"));
        assert_eq!((survey.nodes.ready_nodes, survey.nodes.unknown_nodes), (1, 1));
        let sums = spell(&survey.allocatable);
        let of = |name: &str| sums[name].as_str();
        assert_eq!((of("cpu"), of("memory"), of("pods"), sums.len()), ("2", "2Gi", "220", 3));
    }

    #[test]
    fn networks_are_found_in_the_control_planes_flags() {
        let pods = json!({"items": [{"spec": {"containers": [{"command": ["kube-controller-manager", "--cluster-cidr=10.1.0.0/16"]}]}}]});
        assert_eq!(flag_in(&pods, "--cluster-cidr="), Some("10.1.0.0/16".to_owned()));
        assert_eq!(
            join_cidrs(&json!({"spec": {"cidrs": ["10.96.0.0/16", "fd00::/108"]}})).unwrap(),
            "10.96.0.0/16,fd00::/108"
        );
    }
}
