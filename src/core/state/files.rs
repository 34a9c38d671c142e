//! The files of the state branch: values to YAML bytes and back. Holds no source commit, file name, line, time or counter, so an unrelated
//! commit changes no byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{ClusterRecord, FeedState, ProvenanceState, SubscriptionState};
use crate::core::api::subscription::Feed;
use crate::core::api::{APPS_VERSION, CLUSTERS_VERSION};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::render::{AppliedOverride, MANIFESTS, RELEASES};
use crate::core::schedule::{Bindings, Cluster, Divided, Exclusion, Reason};
use crate::core::taint::Taint;
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

pub(super) fn layout(fan_out: u8) -> Arc<[u8]> {
    emit(&json!({"version": LAYOUT_VERSION, "clusterFanOut": fan_out}))
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
    /// The Helm release, `<targetNamespace>/<releaseName>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) installs: Option<String>,
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
            installs: state.installs.clone(),
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
            installs: self.installs.clone(),
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
        kind: match file.kind.as_str() {
            "Localization" => "Localization",
            "Subscription" => "Subscription",
            _ => "Globalization",
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
    let bindings = &state.bindings;
    let mut status = json!({"desiredReleases": bindings.clusters.len()});
    let mut shards = Vec::new();
    if bindings.clusters.len() > BINDINGS_PER_FILE {
        shards = shard_bindings(bindings);
        status["bindingShards"] = json!(shards.len());
    } else {
        let lists = binding_status(bindings);
        status
            .as_object_mut()
            .into_iter()
            .for_each(|status| status.extend(lists.clone()));
    }
    if state.inventory {
        status["feedInventory"] = json!(true);
    }
    if !state.excluded.is_empty() {
        status["notChosen"] = json!(not_chosen(&state.excluded));
    }
    let file = json!({
        "apiVersion": APPS_VERSION, "kind": "Subscription",
        "metadata": {"namespace": namespace, "name": name}, "status": status,
    });
    (emit(&file), shards)
}

/// `bindingClusters` in Clusternet's order, that of the whole text, and the lists of numbers in the same order.
pub fn binding_status(bindings: &Bindings) -> Map<String, Value> {
    binding_lists(bindings, sorted_bindings(bindings))
}

type Binding<'b> = (String, &'b Arc<str>);

fn sorted_bindings(bindings: &Bindings) -> Vec<Binding<'_>> {
    let binding = |(namespace, name)| (format!("{namespace}/{name}"), namespace);
    let mut sorted: Vec<Binding<'_>> = bindings.clusters.iter().map(binding).collect();
    sorted.sort_unstable();
    sorted
}

fn binding_lists(bindings: &Bindings, of: Vec<Binding<'_>>) -> Map<String, Value> {
    let numbers = |divided: &Divided| -> Value {
        let list = |numbers: &BTreeMap<Arc<str>, i64>| {
            let number = |(_, namespace): &Binding<'_>| numbers.get(*namespace).copied().unwrap_or(0);
            json!(of.iter().filter(|_| !numbers.is_empty()).map(number).collect::<Vec<i64>>())
        };
        let lists = divided.iter().map(|(feed, numbers)| (feed.to_string(), list(numbers)));
        Value::Object(lists.collect())
    };
    let mut lists = Map::new();
    for (field, divided) in [("replicas", &bindings.replicas), ("capacity", &bindings.capacity)] {
        if !divided.is_empty() {
            lists.insert(field.to_owned(), numbers(divided));
        }
    }
    let names: Vec<String> = of.into_iter().map(|(binding, _)| binding).collect();
    lists.insert("bindingClusters".to_owned(), json!(names));
    lists
}

/// A binding's shard depends on its own name alone, so that one cluster more or less touches one shard.
fn shard_bindings(bindings: &Bindings) -> Shards {
    let mut shards: BTreeMap<String, Vec<Binding<'_>>> = BTreeMap::new();
    for binding in sorted_bindings(bindings) {
        let digest = ObjectId::hash(ObjectKind::Blob, binding.0.as_bytes()).to_string();
        shards.entry(digest[..2].to_owned()).or_default().push(binding);
    }
    let file = |(shard, of)| (format!("{shard}.yaml"), emit(&Value::Object(binding_lists(bindings, of))));
    shards.into_iter().map(file).collect()
}

fn not_chosen(excluded: &[Exclusion]) -> Vec<Value> {
    let entry = |exclusion: &Exclusion| json!({"reason": exclusion.reason.as_str(), "clusters": exclusion.count, "names": exclusion.names});
    excluded.iter().map(entry).collect()
}

pub(super) fn read_subscription(file: &Value) -> SubscriptionState {
    let mut state = SubscriptionState::default();
    add_bindings(&mut state, file.get("status"));
    state.inventory = file.pointer("/status/feedInventory") == Some(&Value::Bool(true));
    for entry in file
        .pointer("/status/notChosen")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let Some(reason) = entry["reason"].as_str().and_then(Reason::of) else {
            continue;
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

/// Adds what a status or a shard lists.
pub(super) fn add_bindings(state: &mut SubscriptionState, lists: Option<&Value>) {
    let texts = lists.and_then(|lists| lists.get("bindingClusters")).and_then(Value::as_array);
    let pair = |binding: &Value| {
        let (namespace, name) = binding.as_str()?.split_once('/')?;
        Some((Arc::<str>::from(namespace), Arc::<str>::from(name)))
    };
    let pairs: Vec<(Arc<str>, Arc<str>)> = texts.into_iter().flatten().filter_map(pair).collect();
    let bindings = Arc::make_mut(&mut state.bindings);
    add_numbers(&mut bindings.replicas, lists.and_then(|lists| lists.get("replicas")), &pairs);
    add_numbers(&mut bindings.capacity, lists.and_then(|lists| lists.get("capacity")), &pairs);
    bindings.clusters.extend(pairs);
}

fn add_numbers(divided: &mut Divided, lists: Option<&Value>, bindings: &[(Arc<str>, Arc<str>)]) {
    for (feed, numbers) in lists.and_then(Value::as_object).into_iter().flatten() {
        let numbers = numbers.as_array().into_iter().flatten().filter_map(Value::as_i64);
        let by_cluster = bindings.iter().map(|(namespace, _)| namespace.clone()).zip(numbers);
        divided.entry(feed.as_str().into()).or_default().extend(by_cluster);
    }
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
    if !cluster.taints.is_empty() {
        spec["taints"] = json!(cluster.taints.iter().map(Taint::spec).collect::<Vec<_>>());
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
    let taints = file.pointer("/spec/taints").and_then(Value::as_array).into_iter().flatten();
    let taints = taints.filter_map(|taint| Taint::parse(&serde_json::from_value(taint.clone()).ok()?).ok());
    Some(ClusterRecord {
        cluster: cluster.with_taints(taints.collect()).into(),
        cluster_type: text("/spec/clusterType").unwrap_or_default().to_owned(),
    })
}
