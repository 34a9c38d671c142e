//! State, snapshot and live facts of one thing → the object that the hub's API shows. Values in, values out.

use serde_json::{Value, json};

use super::super::readiness::Readiness;
use super::super::registry::Live;
use super::super::revision::Revision;
use crate::core::api::{APPS_VERSION, CLUSTERS_VERSION};
use crate::core::ids::ObjectId;
use crate::core::index::Reading;
use crate::core::pipeline::Pending;
use crate::core::schedule::Cluster;
use crate::core::state::registrations::{Decision, Registration};
use crate::core::state::{ClusterRecord, DescriptionState, binding_status, managed_cluster_object, subscription_of};
use crate::core::status::{DescriptionReport, Phase};
use crate::core::taint::Taint;

fn condition(kind: &str, status: &str, reason: &str, message: String) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// A ManagedCluster with its live facts, `taint` among them.
pub(super) fn managed_cluster(
    revision: &Revision,
    record: &ClusterRecord,
    live: Option<&Live>,
    ready: &Readiness,
    taint: Option<&Taint>,
) -> Value {
    let mut object = managed_cluster_object(record);
    let desired = record
        .cluster
        .id
        .as_ref()
        .map_or(ObjectId::EMPTY_TREE, |id| revision.tree(id));
    let mut status = live.map_or_else(
        || json!({}),
        |live| serde_json::to_value(live.status.read()).unwrap_or_default(),
    );
    let ready = condition("Ready", ready.status, ready.reason, ready.message.clone());
    status["conditions"] = json!([ready, synced(live, desired)]);
    if let Some(taint) = taint {
        let mut taints = record.cluster.taints.clone();
        taints.push(taint.clone());
        object["spec"]["taints"] = taints.iter().map(|taint| json!(taint.spec())).collect();
    }
    if let Some(id) = &record.cluster.id {
        object["metadata"]["uid"] = json!(id);
    }
    object["status"] = status;
    object
}

fn synced(live: Option<&Live>, desired: ObjectId) -> Value {
    let Some(live) = live else {
        return condition("Synced", "Unknown", "Offline", format!("desired {desired}"));
    };
    let failing: Vec<&str> = live
        .descriptions
        .values()
        .filter(|report| report.phase == Phase::Failure)
        .map(|report| report.name.as_str())
        .collect();
    if live.applied == Some(desired) {
        condition("Synced", "True", "Applied", format!("applied {desired}"))
    } else if !failing.is_empty() {
        let shown = failing.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        condition(
            "Synced",
            "False",
            "Failed",
            format!("{} Descriptions fail: {shown}", failing.len()),
        )
    } else if live.is_connected() {
        condition("Synced", "False", "Applying", format!("desired {desired}"))
    } else {
        condition(
            "Synced",
            "False",
            "Offline",
            format!("desired {desired}; it is delivered when the agent is back"),
        )
    }
}

/// What is known of a Description besides its content.
pub(super) enum Reported<'a> {
    /// The agent has reported this about the content that is desired.
    Now(&'a DescriptionReport),
    /// What it reported last is about an older content.
    Before,
    /// It has reported nothing.
    Never,
}

impl Reported<'_> {
    /// Whether the desired content is applied and well.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Reported::Now(report) if report.phase == Phase::Success)
    }

    fn status(&self, live: Option<&Live>) -> Value {
        let waits = match (self, live.is_some_and(Live::is_connected)) {
            (Reported::Now(report), _) => {
                return json!({
                    "phase": report.phase, "reason": report.reason,
                    "manifestStatuses": report.objects.iter().map(|object| json!({
                        "apiVersion": object.api_version, "kind": object.kind, "namespace": object.namespace, "name": object.name,
                        "observedStatus": {"outcome": object.outcome, "message": object.message},
                    })).collect::<Vec<_>>(),
                });
            }
            (_, false) => "it is delivered when the agent is back",
            (Reported::Before, true) => "a newer content is being delivered",
            (Reported::Never, true) => "the agent has not reported it yet",
        };
        json!({"phase": "Pending", "reason": waits})
    }
}

/// A Description with what its agent says of it.
pub(super) fn description(
    revision: &Revision,
    cluster: &Cluster,
    directory: &str,
    state: &DescriptionState,
    reported: &Reported<'_>,
    live: Option<&Live>,
) -> Value {
    let feeds: Vec<Value> = state
        .feeds
        .iter()
        .map(|state| serde_json::to_value(&state.feed).unwrap_or_default())
        .collect();
    let (namespace, name) = subscription_of(directory).unwrap_or_default();
    let mut labels = json!({"apps.clusternet.io/subs.namespace": namespace, "apps.clusternet.io/config.kind": "Subscription"});
    if name.len() <= 63 {
        labels["apps.clusternet.io/subs.name"] = json!(name);
    }
    if let Some(id) = &cluster.id {
        labels["clusters.clusternet.io/cluster-id"] = json!(id);
    }
    let mut status = reported.status(live);
    let waiting = revision.waiting(&cluster.namespace, &format!("{namespace}/{name}"));
    if let Some(condition) = pending(waiting.iter()) {
        status["conditions"] = json!([condition]);
    }
    json!({
        "apiVersion": APPS_VERSION, "kind": "Description",
        "metadata": {"namespace": cluster.namespace, "name": directory, "labels": labels},
        "spec": {"deployer": state.deployer(), "feeds": feeds}, "status": status,
    })
}

/// How many changes that wait are named.
const NAMED: usize = 3;

/// That ApplyLater changes wait, and since when; nothing where none does.
fn pending<'p>(waiting: impl Iterator<Item = &'p Pending> + Clone) -> Option<Value> {
    let count = waiting.clone().count();
    let named: Vec<String> = waiting.take(NAMED).map(ToString::to_string).collect();
    let more = match count.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("the next change brings {}{more}", named.join("; "));
    (count > 0).then(|| condition("Pending", "True", "ApplyLater", message))
}

/// A Subscription as it stands in git, with where it is bound, in how many clusters it is applied, and what is wrong with it.
pub(super) fn subscription(revision: &Revision, key: &(String, String), done: usize, errors: &[String]) -> Value {
    let reading = revision.snapshot.subscriptions.get(key);
    let mut object = match reading.and_then(Reading::valid) {
        Some(subscription) => subscription.definition.object.as_value().clone(),
        None => json!({"apiVersion": APPS_VERSION, "kind": "Subscription", "metadata": {"name": key.1}}),
    };
    object["metadata"]["namespace"] = json!(key.0);
    let state = revision.state.subscriptions.get(key);
    let mut status = state.map(|state| binding_status(&state.bindings)).unwrap_or_default();
    let desired = state.map_or(0, |state| state.bindings.clusters.len());
    let valid = match errors.first() {
        None => condition("Valid", "True", "Rendered", "carried out as it stands in git".to_owned()),
        Some(first) => condition("Valid", "False", "Held", first.clone()),
    };
    status.remove("capacity");
    status.entry("bindingClusters").or_insert_with(|| json!([]));
    status.insert("desiredReleases".to_owned(), json!(desired));
    status.insert("completedReleases".to_owned(), json!(done));
    let name = format!("{}/{}", key.0, key.1);
    let waiting = revision.pending.iter().filter(|change| change.subscription == name);
    let conditions: Vec<Value> = [valid].into_iter().chain(pending(waiting)).collect();
    status.insert("conditions".to_owned(), json!(conditions));
    object["status"] = Value::Object(status);
    object
}

/// A registration, without its secrets: there are none.
pub(super) fn registration_request(registration: &Registration) -> Value {
    let result = match registration.decision {
        Decision::Approved => json!("Approved"),
        Decision::Denied => json!("Denied"),
        Decision::Pending => Value::Null,
    };
    let waiting = registration
        .pending_key_digest
        .as_ref()
        .map(|key| format!("a new key {key} waits for branchline approve --replace-key"));
    json!({
        "apiVersion": CLUSTERS_VERSION, "kind": "ClusterRegistrationRequest",
        "metadata": {"name": format!("clusternet-{}", registration.cluster_id)},
        "spec": {
            "clusterId": registration.cluster_id, "clusterName": registration.cluster_name, "clusterType": registration.cluster_type,
            "clusterNamespace": registration.dedicated_namespace, "clusterLabels": registration.labels, "syncMode": "Pull",
        },
        "status": {
            "result": result, "dedicatedNamespace": registration.dedicated_namespace,
            "managedClusterName": registration.cluster_name, "errorMessage": waiting.unwrap_or_default(),
        },
    })
}
