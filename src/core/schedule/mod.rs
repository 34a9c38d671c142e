//! Snapshot + fleet + previous placement → [`Placement`]: which clusters a Subscription is bound to, and why others are not.
//!
//! This version carries out Replication by label selectors; what else the API declares is refused by the index.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::api::DEDICATED_NAMESPACE_PREFIX;
use crate::core::ids::ClusterId;
use crate::core::index::Subscription;
use crate::core::selector::Labels;

/// Label that every ManagedCluster carries: its cluster id.
pub const CLUSTER_ID_LABEL: &str = "clusters.clusternet.io/cluster-id";
/// Label that every ManagedCluster carries: its name.
pub const CLUSTER_NAME_LABEL: &str = "clusters.clusternet.io/cluster-name";

/// A cluster as far as placing needs it: durable facts only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// Dedicated namespace on the hub; its key everywhere.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity; `None` for a cluster that is only planned.
    pub id: Option<ClusterId>,
    /// Labels that people and registration set, with the two that every cluster carries.
    pub labels: Labels,
}

impl Cluster {
    /// A cluster with the two labels that every ManagedCluster carries; without a namespace it gets `clusternet-<name>`.
    pub fn new(name: &str, namespace: Option<&str>, id: Option<ClusterId>, mut labels: Labels) -> Self {
        labels.insert(CLUSTER_NAME_LABEL.to_owned(), name.to_owned());
        if let Some(id) = &id {
            labels.insert(CLUSTER_ID_LABEL.to_owned(), id.to_string());
        }
        let namespace = namespace.map_or_else(|| format!("{DEDICATED_NAMESPACE_PREFIX}{name}"), str::to_owned);
        Cluster {
            namespace,
            name: name.to_owned(),
            id,
            labels,
        }
    }

    /// `<namespace>/<name>`, as in `status.bindingClusters`.
    pub fn binding(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// All clusters by dedicated namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fleet {
    /// Clusters by dedicated namespace.
    pub clusters: BTreeMap<String, Cluster>,
}

impl FromIterator<Cluster> for Fleet {
    fn from_iter<I: IntoIterator<Item = Cluster>>(clusters: I) -> Self {
        Fleet {
            clusters: clusters
                .into_iter()
                .map(|cluster| (cluster.namespace.clone(), cluster))
                .collect(),
        }
    }
}

/// Why a cluster was not chosen. Reasons name durable inputs only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Reason {
    /// No subscriber's selector matches the cluster's labels.
    LabelsDoNotMatch,
    /// The Subscription is held, and the cluster was not bound before.
    SubscriptionHeld,
}

impl Reason {
    /// The word for status and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::LabelsDoNotMatch => "LabelsDoNotMatch",
            Reason::SubscriptionHeld => "SubscriptionHeld",
        }
    }
}

/// Clusters that one reason left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exclusion {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: usize,
    /// The first ten bindings, in order.
    pub names: Vec<String>,
}

/// Where a Subscription goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// Dedicated namespaces, in order.
    pub clusters: BTreeSet<String>,
    /// Why the others were not chosen.
    pub excluded: Vec<Exclusion>,
    /// No cluster matches any more, so the last placement stays.
    pub kept: bool,
}

/// How many names a reason lists.
const NAMES_PER_REASON: usize = 10;

/// Places a Subscription by its selectors. A selector that suddenly matches nothing keeps the previous placement: absence never
/// deletes.
pub fn place(subscription: &Subscription, fleet: &Fleet, previous: &BTreeSet<String>) -> Placement {
    let chosen = |cluster: &&Cluster| {
        subscription
            .selectors
            .iter()
            .any(|selector| selector.matches(&cluster.labels))
    };
    let clusters: BTreeSet<String> = fleet
        .clusters
        .values()
        .filter(chosen)
        .map(|cluster| cluster.namespace.clone())
        .collect();
    let kept: BTreeSet<String> = previous
        .iter()
        .filter(|namespace| fleet.clusters.contains_key(*namespace))
        .cloned()
        .collect();
    let nothing_fits = clusters.is_empty() && !kept.is_empty();
    let clusters = if nothing_fits { kept } else { clusters };
    let excluded = exclusions(fleet, &clusters, Reason::LabelsDoNotMatch);
    Placement {
        clusters,
        excluded,
        kept: nothing_fits,
    }
}

/// The placement of a held Subscription: where it was, as far as the clusters still exist.
pub fn hold(fleet: &Fleet, previous: &BTreeSet<String>) -> Placement {
    let clusters: BTreeSet<String> = previous
        .iter()
        .filter(|namespace| fleet.clusters.contains_key(*namespace))
        .cloned()
        .collect();
    let excluded = exclusions(fleet, &clusters, Reason::SubscriptionHeld);
    Placement {
        clusters,
        excluded,
        kept: false,
    }
}

fn exclusions(fleet: &Fleet, chosen: &BTreeSet<String>, reason: Reason) -> Vec<Exclusion> {
    let mut left_out = fleet
        .clusters
        .values()
        .filter(|cluster| !chosen.contains(&cluster.namespace))
        .peekable();
    if left_out.peek().is_none() {
        return Vec::new();
    }
    let mut exclusion = Exclusion {
        reason,
        count: 0,
        names: Vec::new(),
    };
    for cluster in left_out {
        exclusion.count += 1;
        if exclusion.names.len() < NAMES_PER_REASON {
            exclusion.names.push(cluster.binding());
        }
    }
    vec![exclusion]
}
