//! The state branch as a value: what the hub decided, cluster by cluster. [`files`] maps it to YAML, [`tree`] to git objects,
//! [`read`] back again. Touches no repository.

mod births;
mod files;
mod message;
mod objects;
mod read;
pub mod registrations;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::core::api::subscription::Feed;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::render::AppliedOverride;
use crate::core::schedule::{Bindings, Cluster, Exclusion};
use registrations::Registrations;

pub use births::first_commits;
pub use files::{LAYOUT_FILE, LAYOUT_VERSION, binding_status, managed_cluster_object};
pub use message::CommitMessage;
pub use objects::{NewObject, additions};
pub use read::{Load, MAX_FAN_OUT, ReadError, read};
pub use tree::{StateTree, TreeBuilder, build, paths};

/// A file's content by id; the bytes are there only if this process made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The blob's id.
    pub id: ObjectId,
    /// The content, if it was made by this process.
    pub bytes: Option<Arc<[u8]>>,
}

impl Leaf {
    /// A leaf with its content.
    pub fn new(bytes: Arc<[u8]>) -> Self {
        Leaf {
            id: ObjectId::hash(ObjectKind::Blob, &bytes),
            bytes: Some(bytes),
        }
    }

    /// A leaf whose content is in the repository already.
    pub fn known(id: ObjectId) -> Self {
        Leaf { id, bytes: None }
    }
}

/// One feed of a Description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedState {
    /// The feed.
    pub feed: Feed,
    /// Digest of what decided its bytes, ApplyLater overrides apart.
    pub digest: ObjectId,
    /// Its file below the Description's directory, in `manifests/` or `releases/`.
    pub path: String,
    /// The Bundle that it comes from, `<namespace>/<name>`.
    pub bundle: Option<String>,
    /// The Helm release that a chart installs, `<targetNamespace>/<releaseName>`.
    pub installs: Option<String>,
}

/// What one cluster gets from one Subscription.
#[derive(Debug, Clone)]
pub struct DescriptionState {
    /// One digest over feeds, placement and ApplyNow overrides: while it is unchanged, the bytes stay.
    pub digest: ObjectId,
    /// Feeds in order.
    pub feeds: Vec<FeedState>,
    /// Manifests and releases by path below the Description's directory.
    pub files: BTreeMap<String, Leaf>,
    /// `description.yaml`.
    pub file: Leaf,
    /// The directory's tree and those of `manifests/` and `releases/` below it.
    pub trees: Vec<NewObject>,
    /// The directory's tree id.
    pub id: ObjectId,
}

impl DescriptionState {
    /// Which of Clusternet's deployers it is for: Helm as soon as one of its feeds is a chart.
    pub fn deployer(&self) -> &'static str {
        files::deployer(&self.feeds)
    }
}

impl PartialEq for DescriptionState {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// Which overrides applied to which feed of one Description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProvenanceState {
    /// Feeds that some override applied to.
    pub feeds: Vec<(Feed, Vec<AppliedOverride>)>,
}

impl ProvenanceState {
    /// The overrides that applied to a feed.
    pub fn of(&self, feed: &Feed) -> &[AppliedOverride] {
        let key = feed.key();
        self.feeds
            .iter()
            .find(|(known, _)| known.key() == key)
            .map_or(&[], |(_, applied)| applied)
    }
}

/// Where a Subscription is bound, and why not elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionState {
    /// The clusters and what each gets of the replicas.
    pub bindings: Arc<Bindings>,
    /// Whether a FeedInventory counts: while it cannot be seen, the Subscription is held.
    pub inventory: bool,
    /// Clusters that were not chosen.
    pub excluded: Vec<Exclusion>,
}

impl SubscriptionState {
    /// Whether the other says the same, as far as can be told without looking at every binding.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bindings, &other.bindings) && self.inventory == other.inventory && self.excluded == other.excluded
    }
}

/// A cluster's durable facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Name, namespace, id and labels.
    pub cluster: Arc<Cluster>,
    /// `EdgeCluster` or `StandardCluster`; free text, may be empty.
    pub cluster_type: String,
}

/// What one cluster gets. Clusters with the same content share one.
#[derive(Debug)]
pub struct ClusterState {
    /// Descriptions by `<sub-namespace>.<sub-name>`.
    pub descriptions: BTreeMap<String, Arc<DescriptionState>>,
    tree: NewObject,
}

impl ClusterState {
    /// Builds the directory's tree.
    pub fn new(descriptions: BTreeMap<String, Arc<DescriptionState>>) -> Self {
        let tree = tree::cluster_tree(&descriptions);
        ClusterState { descriptions, tree }
    }

    /// The tree id of `clusters/<ns>/`: the cluster's desired state.
    pub fn id(&self) -> ObjectId {
        self.tree.id
    }
}

impl PartialEq for ClusterState {
    fn eq(&self, other: &Self) -> bool {
        self.tree.id == other.tree.id
    }
}

/// Which overrides applied in one cluster. Clusters with the same share one.
#[derive(Debug)]
pub struct ClusterProvenance {
    /// By `<sub-namespace>.<sub-name>`, without the Descriptions that no override applied to.
    pub descriptions: BTreeMap<String, Arc<ProvenanceState>>,
    files: Vec<Leaf>,
    tree: NewObject,
}

impl ClusterProvenance {
    /// Builds the directory's files and tree.
    pub fn new(descriptions: BTreeMap<String, Arc<ProvenanceState>>) -> Self {
        let (files, tree) = tree::provenance_tree(&descriptions);
        ClusterProvenance {
            descriptions,
            files,
            tree,
        }
    }

    /// The tree id of `provenance/<ns>/`.
    pub fn id(&self) -> ObjectId {
        self.tree.id
    }
}

impl PartialEq for ClusterProvenance {
    fn eq(&self, other: &Self) -> bool {
        self.tree.id == other.tree.id
    }
}

/// Everything on the state branch. What is there once for each cluster is in maps that share what did not change: a copy costs nothing, and two
/// states are compared by what differs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Levels of directories, one hexadecimal digit each, above the directories and files that are keyed by cluster.
    pub fan_out: u8,
    /// What clusters get, by dedicated namespace.
    pub clusters: OrdMap<Arc<str>, Arc<ClusterState>>,
    /// Provenance, keyed as `clusters`.
    pub provenance: OrdMap<Arc<str>, Arc<ClusterProvenance>>,
    /// Subscriptions by (namespace, name).
    pub subscriptions: BTreeMap<(String, String), SubscriptionState>,
    /// Clusters by dedicated namespace.
    pub managed_clusters: OrdMap<Arc<str>, Arc<ClusterRecord>>,
    /// Registrations and tokens: public parts only.
    pub registrations: Registrations,
}

impl State {
    /// The Description of a cluster by its directory name.
    pub fn description(&self, cluster: &str, directory: &str) -> Option<&Arc<DescriptionState>> {
        self.clusters.get(cluster)?.descriptions.get(directory)
    }

    /// The provenance of a Description.
    pub fn provenance_of(&self, cluster: &str, directory: &str) -> Option<&Arc<ProvenanceState>> {
        self.provenance.get(cluster)?.descriptions.get(directory)
    }

    /// The path of `clusters/<ns>` with the directories above it.
    pub fn cluster_path(&self, cluster: &str) -> String {
        format!("clusters/{}{cluster}", tree::above(self.fan_out, cluster))
    }

    /// The tree id of `clusters/<ns>/`: the cluster's desired state.
    pub fn cluster_tree(&self, cluster: &str) -> ObjectId {
        self.clusters.get(cluster).map_or(ObjectId::EMPTY_TREE, |state| state.id())
    }
}

/// The directory of a Subscription below `clusters/<ns>/`. Namespaces hold no dots, so the first one separates.
pub fn description_directory(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// Namespace and name of the Subscription that a directory stands for.
pub fn subscription_of(directory: &str) -> Option<(&str, &str)> {
    directory.split_once('.')
}

/// Builds a Description's files and trees.
pub fn describe(digest: ObjectId, feeds: Vec<FeedState>, files: BTreeMap<String, Leaf>) -> DescriptionState {
    let file = Leaf::new(files::description_file(digest, &feeds));
    let (id, trees) = tree::description_trees(&file, &files);
    DescriptionState {
        digest,
        feeds,
        files,
        file,
        trees,
        id,
    }
}
