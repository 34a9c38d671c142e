//! Subscription and the feeds it names.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::ids::{ObjectKey, group_of};

/// A reference to an object in the source repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Feed {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Namespace; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl Feed {
    /// The identity that the feed refers to.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            group: group_of(&self.api_version).to_owned(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone().filter(|namespace| !namespace.is_empty()),
            name: self.name.clone(),
        }
    }
}

impl Feed {
    /// The key of `status.replicas`: `<apiVersion>/<kind>[/<namespace>]/<name>`.
    pub fn status_key(&self) -> String {
        let namespace = self.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.map(|namespace| format!("/{namespace}")).unwrap_or_default();
        format!("{}/{}{namespace}/{}", self.api_version, self.kind, self.name)
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

/// A Kubernetes label selector.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// All of these labels have exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// All of these requirements hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LabelRequirement {
    /// Label key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Which clusters, and with what share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscriber {
    /// Selector over ManagedCluster labels; an empty one selects all.
    pub cluster_affinity: LabelSelector,
    /// Share in Static dividing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// How many clusters of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_group_strategy: Option<SubGroupStrategy>,
}

/// How many clusters of a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubGroupStrategy {
    /// The number; Clusternet takes exactly as many.
    pub min_clusters: i32,
}

/// A toleration as in core/v1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Taint key; empty with `Exists` means every key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// `Exists` or `Equal`, which is the default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operator: String,
    /// Taint value for `Equal`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Effect; empty means all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effect: String,
    /// How long a `NoExecute` taint is tolerated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How replicas are divided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DividingScheduling {
    /// `Static` (the default) or `Dynamic`.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub dividing_type: String,
    /// For `Dynamic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic_dividing: Option<DynamicDividing>,
}

/// How replicas follow the clusters' room.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DynamicDividing {
    /// `Spread` (the default) or `Binpack`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub strategy: String,
    /// How evenly replicas are spread over domains of clusters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Clusters that are filled first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferred_clusters: Vec<PreferredSchedulingTerm>,
    /// Fewest clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_clusters: Option<i32>,
    /// Most clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_clusters: Option<i32>,
}

/// As in core/v1, over clusters instead of nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpreadConstraint {
    /// Largest allowed difference between two domains.
    pub max_skew: i32,
    /// Label of ManagedClusters whose values are the domains.
    pub topology_key: String,
    /// `DoNotSchedule` or `ScheduleAnyway`.
    pub when_unsatisfiable: String,
    /// The pods that count: a feed whose pod template it does not match is not constrained; absent means all feeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// With fewer domains than this the emptiest counts as empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_domains: Option<i32>,
    /// Of nodes; means nothing for clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity_policy: Option<String>,
    /// Of nodes; means nothing for clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_taints_policy: Option<String>,
    /// Of pods; means nothing for clusters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_label_keys: Vec<String>,
}

/// As in core/v1, over clusters instead of nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PreferredSchedulingTerm {
    /// 1 to 100.
    pub weight: i32,
    /// Which clusters.
    pub preference: ClusterSelectorTerm,
}

/// A node selector term, over clusters: all requirements hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSelectorTerm {
    /// Over labels; `Gt` and `Lt` besides the operators of label selectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
    /// Over `metadata.name` and `metadata.namespace`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_fields: Vec<LabelRequirement>,
}

/// `Subscription.spec`, every field of Clusternet's schema.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionSpec {
    /// Scheduler profile; `default` is the only one here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Whether subscribers are groups with their own minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling_by_sub_group: Option<bool>,
    /// `Replication` or `Dividing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling_strategy: Option<String>,
    /// How replicas are divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dividing_scheduling: Option<DividingScheduling>,
    /// Order among Subscriptions in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// `PreemptLowerPriority` or `PreemptNever`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_policy: Option<String>,
    /// Which clusters.
    pub subscribers: Vec<Subscriber>,
    /// Taints of clusters that do not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_tolerations: Vec<Toleration>,
    /// Which objects.
    pub feeds: Vec<Feed>,
}

/// `FeedInventory.spec`: what people say about feeds whose kind is not known by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FeedInventorySpec {
    /// Feeds of the Subscription with the same namespace and name.
    pub feeds: Vec<FeedOrder>,
}

/// A feed's replicas and what one of them needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedOrder {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Kind of the object.
    pub kind: String,
    /// Namespace; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// How many replicas are divided; absent means as many as stand at `replicaJsonPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// What one replica needs.
    #[serde(default)]
    pub replica_requirements: ReplicaRequirements,
    /// JSON pointer of the replica count.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub replica_json_path: String,
}

/// What one replica needs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaRequirements {
    /// Labels of nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that do not matter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Affinity to nodes; that to pods is a matter of the cluster's own scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<serde_json::Value>,
    /// Requests and limits.
    pub resources: ResourceRequirements,
}

/// Requests and limits as in core/v1.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRequirements {
    /// Requests by resource; a quantity may be written as a number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, serde_json::Value>,
    /// Limits by resource; a request that is not stated is its limit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, serde_json::Value>,
    /// Claims of dynamic resources; a matter of the cluster's own scheduler.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<serde_json::Value>,
}
