//! The files of the state branch: values to YAML bytes and back. Holds no source commit, file name, line, time or counter, so an unrelated
//! commit changes no byte.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ClusterRecord, FeedState, ProvenanceState, SubscriptionState};
use crate::core::api::subscription::Feed;
use crate::core::api::{APPS_VERSION, CLUSTERS_VERSION};
use crate::core::ids::ObjectId;
use crate::core::render::{AppliedOverride, MANIFESTS, RELEASES};
use crate::core::schedule::{Cluster, Exclusion, Reason};
use crate::core::yaml;

/// Names the format.
pub const LAYOUT_FILE: &str = "layout.yaml";
/// The format version that this build reads and writes.
pub const LAYOUT_VERSION: u64 = 1;

/// Above this many bindings the list moves to shards.
pub(super) const BINDINGS_PER_FILE: usize = 1_000;

const README: &str = "# State branch of Branchline

The hub writes this branch: for every cluster the final objects, one commit for each accepted change.
Never edit it. The hub stops when somebody else commits here.

- `clusters/<dedicated-namespace>/`: what the cluster's agent applies; a plain rendered-manifests tree
- `managedclusters/`: identity and labels of every cluster
- `subscriptions/`: where each Subscription is bound, and why not elsewhere
- `provenance/`: which override set which fields
- `registrations/`: registrations and token digests
";

pub(super) fn readme() -> Arc<[u8]> {
    README.as_bytes().into()
}

pub(super) fn layout() -> Arc<[u8]> {
    emit(&json!({"version": LAYOUT_VERSION, "clusterFanOut": 0}))
}

fn emit(value: &Value) -> Arc<[u8]> {
    yaml::emit(value).into_bytes().into()
}

/// Any serialisable file as YAML.
pub(super) fn emit_typed<T: Serialize>(value: &T) -> Arc<[u8]> {
    // The types are plain structs of strings, lists and maps, which always have a JSON form.
    emit(&serde_json::to_value(value).unwrap_or_default())
}

#[derive(Serialize, Deserialize)]
pub(super) struct DescriptionFile {
    pub(super) deployer: String,
    pub(super) digest: ObjectId,
    #[serde(default)]
    pub(super) feeds: Vec<FeedFile>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct FeedFile {
    #[serde(flatten)]
    pub(super) feed: Feed,
    pub(super) digest: ObjectId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bundle: Option<String>,
    /// File below `manifests/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<String>,
    /// File below `releases/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) release: Option<String>,
}

impl FeedFile {
    fn of(state: &FeedState) -> Self {
        let below = |directory| state.path.strip_prefix(directory)?.strip_prefix('/').map(str::to_owned);
        FeedFile {
            feed: state.feed.clone(),
            digest: state.digest,
            bundle: state.bundle.clone(),
            manifest: below(MANIFESTS),
            release: below(RELEASES),
        }
    }

    /// The feed's state; nothing where it names no file.
    pub(super) fn read(&self) -> Option<FeedState> {
        let manifest = self.manifest.as_ref().map(|name| format!("{MANIFESTS}/{name}"));
        let release = self.release.as_ref().map(|name| format!("{RELEASES}/{name}"));
        Some(FeedState {
            feed: self.feed.clone(),
            digest: self.digest,
            path: manifest.or(release)?,
            bundle: self.bundle.clone(),
        })
    }
}

/// A Description with a release is for Clusternet's deployer Helm.
pub(super) fn deployer(feeds: &[FeedState]) -> &'static str {
    let is_release = |state: &FeedState| state.path.starts_with(RELEASES);
    if feeds.iter().any(is_release) { "Helm" } else { "Generic" }
}

pub(super) fn description_file(digest: ObjectId, feeds: &[FeedState]) -> Arc<[u8]> {
    emit_typed(&DescriptionFile {
        deployer: deployer(feeds).to_owned(),
        digest,
        feeds: feeds.iter().map(FeedFile::of).collect(),
    })
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProvenanceFile {
    pub(super) feeds: Vec<ProvenanceFeed>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProvenanceFeed {
    #[serde(flatten)]
    pub(super) feed: Feed,
    pub(super) overrides: Vec<ProvenanceOverride>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProvenanceOverride {
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) entries: Vec<ProvenanceEntry>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProvenanceEntry {
    pub(super) index: usize,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) fields: Vec<String>,
}

pub(super) fn provenance_file(state: &ProvenanceState) -> Arc<[u8]> {
    let feeds = state.feeds.iter().map(|(feed, applied)| ProvenanceFeed {
        feed: feed.clone(),
        overrides: applied.iter().map(provenance_override).collect(),
    });
    emit_typed(&ProvenanceFile { feeds: feeds.collect() })
}

fn provenance_override(applied: &AppliedOverride) -> ProvenanceOverride {
    let entries = applied.entries.iter().map(|(index, name, fields)| ProvenanceEntry {
        index: *index,
        name: name.clone(),
        fields: fields.clone(),
    });
    ProvenanceOverride {
        kind: applied.kind.to_owned(),
        namespace: applied.namespace.clone(),
        name: applied.name.clone(),
        entries: entries.collect(),
    }
}

pub(super) fn read_provenance(file: ProvenanceFile) -> ProvenanceState {
    let applied = |file: ProvenanceOverride| AppliedOverride {
        kind: if file.kind == "Localization" {
            "Localization"
        } else {
            "Globalization"
        },
        namespace: file.namespace,
        name: file.name,
        entries: file
            .entries
            .into_iter()
            .map(|entry| (entry.index, entry.name, entry.fields))
            .collect(),
    };
    let feeds = file
        .feeds
        .into_iter()
        .map(|feed| (feed.feed, feed.overrides.into_iter().map(applied).collect()));
    ProvenanceState { feeds: feeds.collect() }
}

/// Shards of a long list by file name.
pub(super) type Shards = Vec<(String, Arc<[u8]>)>;

/// A Subscription's file and, for many bindings, its shards by name.
pub(super) fn subscription_files(namespace: &str, name: &str, state: &SubscriptionState) -> (Arc<[u8]>, Shards) {
    let bindings: Vec<String> = state
        .bindings
        .iter()
        .map(|(namespace, name)| format!("{namespace}/{name}"))
        .collect();
    let mut status = json!({"desiredReleases": bindings.len(), "notChosen": not_chosen(&state.excluded)});
    let mut shards = Vec::new();
    if bindings.len() > BINDINGS_PER_FILE {
        shards = shard_bindings(&bindings);
        status["bindingShards"] = json!(shards.len());
    } else {
        status["bindingClusters"] = json!(bindings);
    }
    if state.excluded.is_empty() {
        status
            .as_object_mut()
            .into_iter()
            .for_each(|map| drop(map.remove("notChosen")));
    }
    let file = json!({
        "apiVersion": APPS_VERSION, "kind": "Subscription",
        "metadata": {"namespace": namespace, "name": name}, "status": status,
    });
    (emit(&file), shards)
}

/// A binding's shard depends on its own name alone, so that one cluster more or less touches one shard.
fn shard_bindings(bindings: &[String]) -> Shards {
    let mut shards: std::collections::BTreeMap<String, Vec<&str>> = std::collections::BTreeMap::new();
    for binding in bindings {
        let digest = ObjectId::hash(crate::core::ids::ObjectKind::Blob, binding.as_bytes()).to_string();
        shards.entry(digest[..2].to_owned()).or_default().push(binding);
    }
    shards
        .into_iter()
        .map(|(shard, list)| (format!("{shard}.yaml"), emit(&json!({"bindingClusters": list}))))
        .collect()
}

fn not_chosen(excluded: &[Exclusion]) -> Vec<Value> {
    let entry = |exclusion: &Exclusion| json!({"reason": exclusion.reason.as_str(), "clusters": exclusion.count, "names": exclusion.names});
    excluded.iter().map(entry).collect()
}

pub(super) fn read_subscription(file: &Value) -> SubscriptionState {
    let mut state = SubscriptionState::default();
    add_bindings(&mut state, file.pointer("/status/bindingClusters"));
    for entry in file
        .pointer("/status/notChosen")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let reason = match entry["reason"].as_str() {
            Some("SubscriptionHeld") => Reason::SubscriptionHeld,
            _ => Reason::LabelsDoNotMatch,
        };
        let count = entry["clusters"]
            .as_u64()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or_default();
        let names = entry["names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        state.excluded.push(Exclusion { reason, count, names });
    }
    state
}

pub(super) fn add_bindings(state: &mut SubscriptionState, list: Option<&Value>) {
    let bindings = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let pairs = bindings.filter_map(|binding| binding.split_once('/'));
    state
        .bindings
        .extend(pairs.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
}

/// A cluster's durable facts as a ManagedCluster object without status.
pub fn managed_cluster_object(record: &ClusterRecord) -> Value {
    let cluster = &record.cluster;
    let mut spec = json!({"syncMode": "Pull"});
    if let Some(id) = &cluster.id {
        spec["clusterId"] = json!(id);
    }
    if !record.cluster_type.is_empty() {
        spec["clusterType"] = json!(record.cluster_type);
    }
    json!({
        "apiVersion": CLUSTERS_VERSION, "kind": "ManagedCluster",
        "metadata": {"namespace": cluster.namespace, "name": cluster.name, "labels": cluster.labels}, "spec": spec,
    })
}

pub(super) fn managed_cluster_file(record: &ClusterRecord) -> Arc<[u8]> {
    emit(&managed_cluster_object(record))
}

pub(super) fn read_managed_cluster(file: &Value) -> Option<ClusterRecord> {
    let text = |pointer: &str| file.pointer(pointer).and_then(Value::as_str);
    let id = text("/spec/clusterId").and_then(|id| id.parse().ok());
    let labels = file
        .pointer("/metadata/labels")
        .and_then(|labels| serde_json::from_value(labels.clone()).ok())
        .unwrap_or_default();
    let cluster = Cluster::new(text("/metadata/name")?, Some(text("/metadata/namespace")?), id, labels);
    Some(ClusterRecord {
        cluster,
        cluster_type: text("/spec/clusterType").unwrap_or_default().to_owned(),
    })
}
