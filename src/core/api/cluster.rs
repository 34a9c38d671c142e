//! ManagedCluster and ClusterRegistrationRequest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::ids::ClusterId;
use crate::core::text::{bounded, cut};

/// `ManagedCluster.spec`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedClusterSpec {
    /// UID of the cluster's `kube-system` namespace.
    pub cluster_id: ClusterId,
    /// `EdgeCluster` or `StandardCluster`; free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_type: String,
    /// `Push`, `Pull` or `Dual`; Branchline's agents always pull.
    #[serde(default = "pull")]
    pub sync_mode: String,
    /// Taints as in core/v1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

fn pull() -> String {
    "Pull".to_owned()
}

/// A taint of a cluster, shaped as a node's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Taint key.
    pub key: String,
    /// Taint value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// When it was set, RFC 3339; kept as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

/// `ManagedCluster.status`: what the agent reports in its hello and heartbeats. Live facts: never on the state branch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// When the agent looked, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_observed_time: Option<String>,
    /// Kubernetes version, `v1.35.4`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub k8s_version: String,
    /// Branchline version of the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_version: String,
    /// `linux/amd64`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// The address by which the agent reaches its API server.
    #[serde(rename = "apiserverURL", skip_serializing_if = "String::is_empty")]
    pub apiserver_url: String,
    /// `/healthz` answered ok.
    pub healthz: bool,
    /// `/livez` answered ok.
    pub livez: bool,
    /// `/readyz` answered ok.
    pub readyz: bool,
    /// Whether proxied requests go through the tunnel; always true here.
    pub use_socket: bool,
    /// Sum of the nodes' allocatable quantities.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub allocatable: BTreeMap<String, String>,
    /// Sum of the nodes' capacities.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, String>,
    /// Pod network.
    #[serde(rename = "clusterCIDR", skip_serializing_if = "String::is_empty")]
    pub cluster_cidr: String,
    /// Service network.
    #[serde(rename = "serviceCIDR", skip_serializing_if = "String::is_empty")]
    pub service_cidr: String,
    /// Nodes by readiness.
    pub node_statistics: NodeStatistics,
    /// Conditions, metav1.Condition; `Ready` among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Value>,
    /// Seconds between heartbeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_frequency_seconds: Option<i64>,
    /// Why the API server could not be asked, if so; ours.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Most resources of a kind that are kept of a status.
const MAX_RESOURCES: usize = 64;
/// Longest word in a status.
const MAX_WORD_BYTES: usize = 253;

impl ClusterStatus {
    /// What a hub keeps of a status, whatever its agent sent: within the limits, and safe to show. Conditions are the hub's to state.
    #[must_use]
    pub fn within_limits(mut self) -> Self {
        let words = [
            &mut self.k8s_version,
            &mut self.agent_version,
            &mut self.platform,
            &mut self.apiserver_url,
            &mut self.cluster_cidr,
            &mut self.service_cidr,
        ];
        for word in words.into_iter().chain(&mut self.last_observed_time) {
            *word = cut(word, MAX_WORD_BYTES);
        }
        let quantities = |of: BTreeMap<String, String>| {
            let kept = of.into_iter().take(MAX_RESOURCES);
            kept.map(|(name, quantity)| (cut(&name, MAX_WORD_BYTES), cut(&quantity, MAX_WORD_BYTES)))
                .collect()
        };
        ClusterStatus {
            allocatable: quantities(self.allocatable),
            capacity: quantities(self.capacity),
            conditions: Vec::new(),
            message: bounded(&self.message),
            ..self
        }
    }
}

/// Nodes by readiness.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatistics {
    /// Ready condition True.
    #[serde(skip_serializing_if = "is_zero")]
    pub ready_nodes: i32,
    /// Ready condition False.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_ready_nodes: i32,
    /// Ready condition Unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown_nodes: i32,
    /// No Ready condition at all.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost_nodes: i32,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// `ClusterRegistrationRequest.spec`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationSpec {
    /// UID of the cluster's `kube-system` namespace.
    pub cluster_id: ClusterId,
    /// `EdgeCluster` or `StandardCluster`; free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_type: String,
    /// The name that the cluster asks for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The dedicated namespace that the cluster asks for; empty means `clusternet-<name>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_namespace: String,
    /// Labels that the cluster asks for; they count at approval.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cluster_labels: BTreeMap<String, String>,
    /// `Push`, `Pull` or `Dual`.
    #[serde(default = "pull")]
    pub sync_mode: String,
}

/// `ClusterRegistrationRequest.status`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistrationStatus {
    /// The cluster's namespace on the hub.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dedicated_namespace: String,
    /// PEM of the hub's CA, base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_certificate: String,
    /// PEM of the issued client certificate, base64; ours.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// `Approved` or `Denied`; absent while a person has to decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it was denied or is pending, and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_message: String,
    /// The ManagedCluster's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub managed_cluster_name: String,
}

/// Annotation on a registration request that carries the certificate signing request, PEM.
pub const CSR_ANNOTATION: &str = "branchline.io/certificate-signing-request";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_status_is_cut() {
        let many = (0..10_000).map(|n| (format!("resource-{n}"), "\u{1b}[1m".repeat(1000)));
        let status = ClusterStatus {
            k8s_version: "v".repeat(1 << 20),
            capacity: many.clone().collect(),
            allocatable: many.collect(),
            conditions: vec![Value::Null; 100_000],
            message: "line\n".repeat(1 << 10),
            ..ClusterStatus::default()
        };
        let kept = serde_json::to_string(&status.within_limits()).unwrap_or_default();
        assert!(
            kept.len() < 64 << 10 && !kept.contains("\\u001b") && !kept.contains("\\n"),
            "{}",
            kept.len()
        );
    }
}
