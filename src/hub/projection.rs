//! State, snapshot and live facts → the objects that the hub's API shows. A view: nothing is decided here, and nothing is kept elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::registry::{Live, Registry, seconds};
use super::revision::Revision;
use crate::core::api::{APPS_GROUP, APPS_VERSION, CLUSTERS_GROUP, CLUSTERS_VERSION};
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::index::Reading;
use crate::core::object::Object;
use crate::core::schedule::Cluster;
use crate::core::state::registrations::{Decision, Registration};
use crate::core::state::{ClusterRecord, DescriptionState, managed_cluster_object, subscription_of};
use crate::core::status::Phase;
use crate::kubeapi::{ResourceId, Store};

/// A cluster that was not heard of for this long is not ready; three heartbeats.
const SILENCE: i64 = 90;
/// How often readiness is looked at without any news.
const TICK: Duration = Duration::from_secs(10);

/// Keeps the store equal to what is known.
pub struct Projection {
    store: Arc<Store>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    /// Names that were shown, by resource: what is no longer there is removed.
    shown: BTreeMap<&'static str, Vec<(Option<String>, String)>>,
}

fn resource(group: &str, plural: &str) -> ResourceId {
    ResourceId {
        group: group.into(),
        plural: plural.into(),
    }
}

impl Projection {
    /// A projection into an empty store.
    pub fn new(store: Arc<Store>, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        Projection {
            store,
            registry,
            metrics,
            shown: BTreeMap::new(),
        }
    }

    /// Follows revisions and live facts until the token ends.
    pub async fn run(
        mut self,
        mut revisions: watch::Receiver<Arc<Revision>>,
        mut changed: mpsc::Receiver<ClusterId>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let revision = revisions.borrow().clone();
            tokio::select! {
                () = stop.cancelled() => return,
                moved = revisions.changed() => match moved {
                    Ok(()) => {
                        let revision = revisions.borrow_and_update().clone();
                        self.show_all(&revision);
                    }
                    Err(_) => return,
                },
                cluster = changed.recv() => {
                    let mut clusters: Vec<ClusterId> = cluster.into_iter().collect();
                    while let Ok(more) = changed.try_recv() {
                        clusters.push(more);
                    }
                    clusters.sort();
                    clusters.dedup();
                    self.show_clusters(&revision, &clusters);
                }
                _ = ticks.tick() => self.show_all(&revision),
            }
        }
    }

    fn show_all(&mut self, revision: &Revision) {
        let now = Timestamp::now();
        let mut shown: BTreeMap<&'static str, Vec<(Option<String>, String)>> = BTreeMap::new();
        for record in revision.state.managed_clusters.values() {
            self.show_cluster(revision, record, now, &mut shown);
        }
        for key in revision.state.subscriptions.keys() {
            self.put(
                APPS_GROUP,
                "subscriptions",
                subscription(revision, &self.registry, key),
                &mut shown,
            );
        }
        for applied in revision.snapshot.overrides.values().filter_map(Reading::valid) {
            let plural = if applied.namespace.is_empty() {
                "globalizations"
            } else {
                "localizations"
            };
            self.put(APPS_GROUP, plural, applied.definition.object.as_value().clone(), &mut shown);
        }
        for registration in revision.state.registrations.clusters.values() {
            self.put(
                CLUSTERS_GROUP,
                "clusterregistrationrequests",
                registration_request(registration),
                &mut shown,
            );
        }
        self.remove_stale(shown);
        self.count(revision);
    }

    fn show_clusters(&mut self, revision: &Revision, clusters: &[ClusterId]) {
        let now = Timestamp::now();
        let mut subscriptions: Vec<(String, String)> = Vec::new();
        let concerned = |record: &&ClusterRecord| record.cluster.id.as_ref().is_some_and(|id| clusters.contains(id));
        for record in revision.state.managed_clusters.values().filter(concerned) {
            self.show_cluster(revision, record, now, &mut BTreeMap::new());
            let directories = revision
                .state
                .clusters
                .get(&record.cluster.namespace)
                .into_iter()
                .flat_map(BTreeMap::keys);
            subscriptions.extend(
                directories
                    .filter_map(|name| subscription_of(name))
                    .map(|(ns, name)| (ns.to_owned(), name.to_owned())),
            );
        }
        subscriptions.sort();
        subscriptions.dedup();
        for key in subscriptions {
            self.put(
                APPS_GROUP,
                "subscriptions",
                subscription(revision, &self.registry, &key),
                &mut BTreeMap::new(),
            );
        }
        self.count(revision);
    }

    fn show_cluster(
        &self,
        revision: &Revision,
        record: &ClusterRecord,
        now: Timestamp,
        shown: &mut BTreeMap<&'static str, Vec<(Option<String>, String)>>,
    ) {
        let live = record.cluster.id.as_ref().and_then(|id| self.registry.get(id));
        self.put(
            CLUSTERS_GROUP,
            "managedclusters",
            managed_cluster(revision, record, live.as_deref(), now),
            shown,
        );
        for (directory, state) in revision.state.clusters.get(&record.cluster.namespace).into_iter().flatten() {
            self.put(
                APPS_GROUP,
                "descriptions",
                description(&record.cluster, directory, state, live.as_deref()),
                shown,
            );
        }
    }

    fn put(
        &self,
        group: &str,
        plural: &'static str,
        value: Value,
        shown: &mut BTreeMap<&'static str, Vec<(Option<String>, String)>>,
    ) {
        // Everything shown has a kind and a name; what had not could not be read in the first place.
        if let Ok(object) = Object::from_value(value) {
            shown
                .entry(plural)
                .or_default()
                .push((object.namespace().map(str::to_owned), object.name().to_owned()));
            self.store.upsert(&resource(group, plural), object);
        }
    }

    fn remove_stale(&mut self, mut shown: BTreeMap<&'static str, Vec<(Option<String>, String)>>) {
        shown.values_mut().for_each(|names| names.sort());
        for (plural, names) in &self.shown {
            let now = shown.get(plural);
            for name in names
                .iter()
                .filter(|name| now.is_none_or(|now| now.binary_search(name).is_err()))
            {
                let group = if plural.starts_with("managed") || plural.starts_with("clusterreg") {
                    CLUSTERS_GROUP
                } else {
                    APPS_GROUP
                };
                self.store.remove(&resource(group, plural), name.0.as_deref(), &name.1);
            }
        }
        self.shown = shown;
    }

    fn count(&self, revision: &Revision) {
        let as_gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let applied = |id: &ClusterId| self.registry.get(id).and_then(|live| live.applied) == Some(revision.tree(id));
        self.metrics.tunnels.set(as_gauge(self.registry.connected()));
        self.metrics.clusters.set(as_gauge(revision.state.managed_clusters.len()));
        self.metrics
            .in_sync
            .set(as_gauge(revision.trees.keys().filter(|id| applied(id)).count()));
        self.metrics
            .errors
            .set(as_gauge(revision.diagnostics.iter().filter(|found| found.is_error()).count()));
        self.metrics
            .generation
            .set(i64::try_from(revision.generation).unwrap_or(i64::MAX));
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: String) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

fn managed_cluster(revision: &Revision, record: &ClusterRecord, live: Option<&Live>, now: Timestamp) -> Value {
    let mut object = managed_cluster_object(record);
    let desired = record
        .cluster
        .id
        .as_ref()
        .map_or(ObjectId::EMPTY_TREE, |id| revision.tree(id));
    let mut status = live.map_or_else(|| json!({}), |live| serde_json::to_value(&live.status).unwrap_or_default());
    status["conditions"] = json!([ready(live, now), synced(live, desired)]);
    if let Some(id) = &record.cluster.id {
        object["metadata"]["uid"] = json!(id);
    }
    object["status"] = status;
    object
}

fn ready(live: Option<&Live>, now: Timestamp) -> Value {
    let Some(live) = live else {
        return condition(
            "Ready",
            "Unknown",
            "NeverConnected",
            "the agent has not connected since this hub started".to_owned(),
        );
    };
    if let Some(lost) = live.lost {
        return condition(
            "Ready",
            "Unknown",
            "TunnelClosed",
            format!("the agent's tunnel ended at {}", seconds(lost)),
        );
    }
    if now.as_second() - live.heard.as_second() > SILENCE {
        return condition(
            "Ready",
            "Unknown",
            "ClusterStatusUnknown",
            format!("nothing was heard since {}", seconds(live.heard)),
        );
    }
    let status = &live.status;
    if (status.livez && status.readyz) || status.healthz {
        condition(
            "Ready",
            "True",
            "ManagedClusterReady",
            "the agent's API server is ready".to_owned(),
        )
    } else {
        let why = if status.message.is_empty() {
            "the API server does not answer its health checks"
        } else {
            &status.message
        };
        condition("Ready", "False", "ManagedClusterNotReady", why.to_owned())
    }
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

fn description(cluster: &Cluster, directory: &str, state: &DescriptionState, live: Option<&Live>) -> Value {
    let report = live.and_then(|live| live.descriptions.get(directory));
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
    let status = match report {
        Some(report) => json!({
            "phase": report.phase, "reason": report.reason,
            "manifestStatuses": report.objects.iter().map(|object| json!({
                "apiVersion": object.api_version, "kind": object.kind, "namespace": object.namespace, "name": object.name,
                "observedStatus": {"outcome": object.outcome, "message": object.message},
            })).collect::<Vec<_>>(),
        }),
        None => json!({"phase": "Pending", "reason": "the agent has not reported it yet"}),
    };
    json!({
        "apiVersion": APPS_VERSION, "kind": "Description",
        "metadata": {"namespace": cluster.namespace, "name": directory, "labels": labels},
        "spec": {"deployer": "Generic", "feeds": feeds}, "status": status,
    })
}

fn subscription(revision: &Revision, registry: &Registry, key: &(String, String)) -> Value {
    let state = revision.state.subscriptions.get(key).cloned().unwrap_or_default();
    let reading = revision.snapshot.subscriptions.get(key);
    let mut object = match reading.and_then(Reading::valid) {
        Some(subscription) => subscription.definition.object.as_value().clone(),
        None => json!({"apiVersion": APPS_VERSION, "kind": "Subscription", "metadata": {"name": key.1}}),
    };
    object["metadata"]["namespace"] = json!(key.0);
    let directory = format!("{}.{}", key.0, key.1);
    let done = |namespace: &&String| {
        let record = revision.state.managed_clusters.get(*namespace);
        let live = record.and_then(|record| registry.get(record.cluster.id.as_ref()?));
        live.and_then(|live| live.descriptions.get(&directory).map(|report| report.phase == Phase::Success))
            .unwrap_or_default()
    };
    let bindings: Vec<String> = state
        .bindings
        .iter()
        .map(|(namespace, name)| format!("{namespace}/{name}"))
        .collect();
    let mine = |found: &&Diagnostic| {
        found.is_error()
            && found
                .object
                .ends_with(&format!("Subscription.{APPS_GROUP} {}/{}", key.0, key.1))
    };
    let errors: Vec<String> = revision
        .diagnostics
        .iter()
        .filter(mine)
        .map(ToString::to_string)
        .take(10)
        .collect();
    let valid = match errors.first() {
        None => condition("Valid", "True", "Rendered", "carried out as it stands in git".to_owned()),
        Some(first) => condition("Valid", "False", "Held", first.clone()),
    };
    object["status"] = json!({
        "bindingClusters": bindings,
        "desiredReleases": state.bindings.len(),
        "completedReleases": state.bindings.keys().filter(done).count(),
        "conditions": [valid],
    });
    object
}

fn registration_request(registration: &Registration) -> Value {
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
