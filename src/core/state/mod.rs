//! The state branch as a value: what the hub decided, cluster by cluster. [`files`] maps it to YAML, [`tree`] to git objects,
//! [`read`] back again. Touches no repository.

mod files;
mod message;
mod read;
pub mod registrations;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::api::subscription::Feed;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::render::AppliedOverride;
use crate::core::schedule::{Bindings, Cluster, Exclusion};
use registrations::Registrations;

pub use files::{LAYOUT_FILE, LAYOUT_VERSION, binding_status, managed_cluster_object};
pub use message::CommitMessage;
pub use read::{Load, ReadError, read};
pub use tree::{NewObject, StateTree, build, paths};

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

/// A cluster's durable facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Name, namespace, id and labels.
    pub cluster: Cluster,
    /// `EdgeCluster` or `StandardCluster`; free text, may be empty.
    pub cluster_type: String,
}

/// Everything on the state branch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Descriptions by dedicated namespace and `<sub-namespace>.<sub-name>`.
    pub clusters: BTreeMap<String, BTreeMap<String, Arc<DescriptionState>>>,
    /// Provenance, keyed as `clusters`; without the Descriptions that no override applied to.
    pub provenance: BTreeMap<String, BTreeMap<String, Arc<ProvenanceState>>>,
    /// Subscriptions by (namespace, name).
    pub subscriptions: BTreeMap<(String, String), SubscriptionState>,
    /// Clusters by dedicated namespace.
    pub managed_clusters: BTreeMap<Arc<str>, ClusterRecord>,
    /// Registrations and tokens: public parts only.
    pub registrations: Registrations,
}

impl State {
    /// The Description of a cluster by its directory name.
    pub fn description(&self, cluster: &str, directory: &str) -> Option<&Arc<DescriptionState>> {
        self.clusters.get(cluster)?.get(directory)
    }

    /// The provenance of a Description.
    pub fn provenance_of(&self, cluster: &str, directory: &str) -> Option<&Arc<ProvenanceState>> {
        self.provenance.get(cluster)?.get(directory)
    }

    /// The tree id of `clusters/<ns>/`: the cluster's desired state.
    pub fn cluster_tree(&self, cluster: &str) -> ObjectId {
        self.clusters
            .get(cluster)
            .map_or(ObjectId::EMPTY_TREE, |descriptions| tree::cluster_tree(descriptions).id)
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
