//! State and live facts of one cluster → the objects that the hub's API shows of it. Values in, values out.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::readiness::Readiness;
use super::super::registry::{Live, seconds};
use super::super::revision::Revision;
use crate::core::api::CLUSTERS_VERSION;
use crate::core::ids::ObjectId;
use crate::core::state::registrations::{Decision, Registration};
use crate::core::state::{ClusterRecord, managed_cluster_object};
use crate::core::status::Phase;
use crate::core::taint::Taint;
use crate::core::text::counted;

/// Most names in one message.
const MOST_NAMES: usize = 3;

/// A condition before anybody knows since when it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// For example `Synced`.
    pub(super) kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    /// A word for it.
    pub(super) reason: &'static str,
    /// A sentence for it.
    pub(super) message: String,
}

impl Condition {
    pub(super) fn new(kind: &'static str, status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Condition {
            kind,
            status,
            reason,
            message: message.into(),
        }
    }

    /// As `metav1.Condition`, with since when it holds where that is known.
    pub(super) fn to_json(&self, since: Option<Timestamp>) -> Value {
        let mut condition = json!({"type": self.kind, "status": self.status, "reason": self.reason, "message": self.message});
        if let Some(since) = since {
            condition["lastTransitionTime"] = json!(seconds(since));
        }
        condition
    }
}

/// Since when conditions hold, as far as this hub has seen it.
#[derive(Debug, Default)]
pub(super) struct Transitions(Vec<(&'static str, &'static str, Timestamp)>);

impl Transitions {
    /// The condition as an object; a status that is another than before holds from now on.
    pub(super) fn note(&mut self, condition: &Condition, now: Timestamp) -> Value {
        let Some(known) = self.0.iter_mut().find(|(kind, ..)| *kind == condition.kind) else {
            self.0.push((condition.kind, condition.status, now));
            return condition.to_json(Some(now));
        };
        if known.1 != condition.status {
            *known = (condition.kind, condition.status, now);
        }
        condition.to_json(Some(known.2))
    }
}

/// What is known of a cluster besides its durable facts.
pub(super) struct ClusterFacts<'a> {
    pub(super) live: Option<&'a Live>,
    pub(super) taint: Option<&'a Taint>,
    /// Conditions, as objects.
    pub(super) conditions: Vec<Value>,
    /// How many Descriptions are desired, and how many of them are applied and well.
    pub(super) descriptions: (usize, usize),
}

/// A ManagedCluster with its live facts.
pub(super) fn managed_cluster(revision: &Revision, record: &ClusterRecord, facts: ClusterFacts<'_>) -> Value {
    let mut object = managed_cluster_object(record);
    let mut status = facts.live.map_or_else(
        || json!({}),
        |live| serde_json::to_value(live.status.read()).unwrap_or_default(),
    );
    status["conditions"] = Value::Array(facts.conditions);
    let (desired, applied) = facts.descriptions;
    status["descriptions"] = json!({"desired": desired, "applied": applied});
    let stated = |taint: &&Taint| {
        let mut taints = record.cluster.taints.iter();
        taints.any(|own| (&own.key, own.effect) == (&taint.key, taint.effect))
    };
    if let Some(taint) = facts.taint.filter(|taint| !stated(taint)) {
        let mut taints = record.cluster.taints.clone();
        taints.push(taint.clone());
        object["spec"]["taints"] = taints.iter().map(|taint| json!(taint.spec())).collect();
    }
    if let Some(id) = &record.cluster.id {
        object["metadata"]["uid"] = json!(id);
        let known = revision.state.registrations.clusters.get(id);
        add_creation(&mut object, known.and_then(|known| known.registered.as_deref()));
    }
    let definition = revision.snapshot.clusters.get(&*record.cluster.name);
    if let Some(definition) = definition.and_then(|reading| reading.valid()) {
        let place = &definition.definition;
        object["metadata"]["annotations"] = json!({super::SOURCE_ANNOTATION: format!("{}:{}", place.file, place.line)});
    }
    object["status"] = status;
    object
}

/// Adds when an object came to be, where that is known.
pub(super) fn add_creation(object: &mut Value, created: Option<&str>) {
    if let Some(created) = created {
        object["metadata"]["creationTimestamp"] = json!(created);
    }
}

/// Whether a cluster can be worked with.
pub(super) fn ready_condition(ready: &Readiness) -> Condition {
    Condition::new("Ready", ready.status, ready.reason, ready.message.clone())
}

/// Whether a cluster has what it should have: of so many Descriptions, so many are applied and well.
pub(super) fn synced_condition(live: Option<&Live>, desired: ObjectId, (all, done): (usize, usize)) -> Condition {
    let condition = |status, reason, message: String| Condition::new("Synced", status, reason, message);
    let Some(live) = live else {
        let desired = counted(all, "Description");
        let message = format!("desired: {desired}; what of that is applied is told when the agent connects");
        return condition("Unknown", "Offline", message);
    };
    if live.applied == Some(desired) {
        let message = match all {
            0 => format!("there is nothing to apply, tree {desired}"),
            1 => format!("1 Description is applied, tree {desired}"),
            _ => format!("all {all} Descriptions are applied, tree {desired}"),
        };
        return condition("True", "Applied", message);
    }
    let failing: Vec<_> = live
        .descriptions
        .values()
        .filter(|report| report.phase == Phase::Failure)
        .collect();
    if let Some(first) = failing.first() {
        let names: Vec<&str> = failing.iter().take(MOST_NAMES).map(|report| &*report.name).collect();
        let (count, names) = (failing.len(), names.join(", "));
        return condition("False", "Failed", format!("{count} of {all} fail: {names}: {}", first.reason));
    }
    if live.is_connected() {
        return condition(
            "False",
            "Applying",
            format!("applied: {done} of {}", counted(all, "Description")),
        );
    }
    let message = format!(
        "applied: {done} of {}; the rest, tree {desired}, is delivered when the agent is back",
        counted(all, "Description")
    );
    condition("False", "Offline", message)
}

/// Whether one agent at a time speaks for the cluster.
pub(super) fn single_agent_condition(live: &Live) -> Option<Condition> {
    let message = live.rivalry()?;
    Some(Condition::new("SingleAgent", "False", "AgentsFight", message))
}

/// A registration, without its secrets: there are none.
pub(super) fn registration_request(registration: &Registration) -> Value {
    let result = match registration.decision {
        Decision::Approved => json!("Approved"),
        Decision::Denied => json!("Denied"),
        Decision::Pending => Value::Null,
    };
    let mut status = json!({
        "result": result, "dedicatedNamespace": registration.dedicated_namespace, "managedClusterName": registration.cluster_name,
        "errorMessage": waits_for(registration), "keyDigest": registration.key_digest,
    });
    if let Some(key) = &registration.pending_key_digest {
        status["pendingKeyDigest"] = json!(key);
    }
    let mut object = json!({
        "apiVersion": CLUSTERS_VERSION, "kind": "ClusterRegistrationRequest",
        "metadata": {
            "name": format!("clusternet-{}", registration.cluster_id),
            "labels": {
                "clusters.clusternet.io/cluster-id": registration.cluster_id, "clusters.clusternet.io/cluster-name": registration.cluster_name,
            },
        },
        "spec": {
            "clusterId": registration.cluster_id, "clusterName": registration.cluster_name, "clusterType": registration.cluster_type,
            "clusterNamespace": registration.dedicated_namespace, "clusterLabels": registration.labels, "syncMode": "Pull",
        },
        "status": status,
    });
    add_creation(&mut object, registration.registered.as_deref());
    object
}

/// What a person has to decide, and how; empty where there is nothing.
fn waits_for(registration: &Registration) -> String {
    let name = &registration.cluster_name;
    match (registration.decision, &registration.pending_key_digest) {
        (Decision::Pending, _) => format!("waits for `branchline approve {name}` or `branchline deny {name}`"),
        (Decision::Denied, _) => format!("denied; `branchline approve {name}` lets it in after all"),
        (Decision::Approved, Some(key)) => {
            format!("the new key {key} waits for `branchline approve --replace-key {name}` or `branchline deny {name}`")
        }
        (Decision::Approved, None) => String::new(),
    }
}

/// A namespace; the dedicated one of a cluster carries the cluster's labels.
pub(super) fn namespace(name: &str, cluster: Option<&Registration>) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}, "status": {"phase": "Active"},
    });
    if let Some(cluster) = cluster {
        object["metadata"]["labels"]["clusters.clusternet.io/cluster-id"] = json!(cluster.cluster_id);
        object["metadata"]["labels"]["clusters.clusternet.io/cluster-name"] = json!(cluster.cluster_name);
        add_creation(&mut object, cluster.registered.as_deref());
    }
    object
}
