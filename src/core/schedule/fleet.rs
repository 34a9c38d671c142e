//! The clusters as placing sees them: durable facts, and beside them live ones that never reach the state branch by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::core::api::DEDICATED_NAMESPACE_PREFIX;
use crate::core::ids::ClusterId;
use crate::core::index::Workload;
use crate::core::quantity::Quantity;
use crate::core::selector::{CLUSTER_ID_LABEL, CLUSTER_NAME_LABEL, Labels};
use crate::core::taint::Taint;

/// A cluster as far as placing needs it: durable facts only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// Dedicated namespace on the hub; its key everywhere.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Identity; `None` for a cluster that is only planned.
    pub id: Option<ClusterId>,
    /// Labels that people and registration set, with the two that every cluster carries.
    pub labels: Labels,
    /// Taints that people set.
    pub taints: Vec<Taint>,
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
            namespace: namespace.into(),
            name: name.into(),
            id,
            labels,
            taints: Vec::new(),
        }
    }

    /// The same cluster with taints.
    #[must_use]
    pub fn with_taints(self, taints: Vec<Taint>) -> Self {
        Cluster { taints, ..self }
    }

    /// `<namespace>/<name>`, as in `status.bindingClusters`.
    pub fn binding(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What is known of a cluster at the moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Live {
    /// Taints besides those that people set, for example that the cluster is not ready.
    pub taints: Vec<Taint>,
    /// What its nodes offer, for the estimate of how many replicas fit.
    pub allocatable: BTreeMap<String, Quantity>,
    /// How many more replicas fit by feed key, where the agent was asked; outranks the estimate.
    pub fits: BTreeMap<Arc<str>, i64>,
    /// Nothing good was heard of it since this hub started, and it may still come back in time: what was placed before stays as it is, so that
    /// a restart changes nothing.
    pub returning: bool,
}

/// What is taken for the room of a cluster whose limits nothing states: as many replicas as a workload can have.
const UNBOUNDED: i64 = i32::MAX as i64;

impl Live {
    /// The estimate of how many replicas fit, for each feed on its own and with nothing subtracted: floor(min(allocatable / request)), capped by
    /// pods. Of a cluster that states nothing at all, nothing is expected.
    pub fn estimate(&self, workload: &Workload) -> i64 {
        if self.allocatable.is_empty() {
            return 0;
        }
        let pod = Quantity::parse("1").unwrap_or_default();
        let pods = self.allocatable.get("pods").and_then(|pods| pods.holds(pod));
        let by_request = workload.requests.iter().filter(|(_, request)| !request.is_zero());
        let by_request = by_request.map(|(resource, request)| {
            let offered = self.allocatable.get(resource).copied().unwrap_or_default();
            offered.holds(*request).unwrap_or(0)
        });
        by_request.chain(pods).min().unwrap_or(UNBOUNDED).min(UNBOUNDED)
    }
}

/// All clusters by dedicated namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fleet {
    /// Clusters by dedicated namespace.
    pub clusters: OrdMap<Arc<str>, Arc<Cluster>>,
    /// Live facts by dedicated namespace.
    pub live: BTreeMap<Arc<str>, Live>,
}

impl FromIterator<Cluster> for Fleet {
    fn from_iter<I: IntoIterator<Item = Cluster>>(clusters: I) -> Self {
        let clusters = clusters.into_iter();
        Fleet {
            clusters: clusters
                .map(|cluster| (cluster.namespace.clone(), Arc::new(cluster)))
                .collect(),
            live: BTreeMap::new(),
        }
    }
}
