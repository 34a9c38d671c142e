//! What the writer publishes: one accepted state with everything that the rest of the hub needs of it. Values only.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::core::access::rbac::Policy;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::index::Snapshot;
use crate::core::pipeline::Pending;
use crate::core::state::{ClusterState, State};

/// One accepted state.
#[derive(Debug, Clone, Default)]
pub struct Revision {
    /// The state branch's head.
    pub commit: Option<ObjectId>,
    /// Grows with each takeover or recovery.
    pub epoch: u64,
    /// Grows with each commit.
    pub generation: u64,
    /// The source commit.
    pub source: Option<ObjectId>,
    /// The state.
    pub state: Arc<State>,
    /// What the source repository says.
    pub snapshot: Arc<Snapshot>,
    /// Findings of the last run.
    pub diagnostics: Arc<Vec<Diagnostic>>,
    /// ApplyLater changes that wait, in their order.
    pub pending: Arc<Vec<Pending>>,
    /// Each cluster's desired tree as agents are offered it, by cluster id. While a commit has to be pushed first, those of one before it.
    pub trees: OrdMap<ClusterId, ObjectId>,
    /// The generation of `trees`.
    pub offered: u64,
    /// What keeps the hub from writing the state branch.
    pub stopped: Option<String>,
    /// What keeps the hub from following the source or writing the state branch; empty when all is well.
    pub problems: Arc<Vec<String>>,
    /// Who may do what on the hub.
    pub policy: Arc<Policy>,
    /// How many commits the remote state branch lacks, and since when (RFC 3339).
    pub unpushed: Option<(u64, String)>,
}

impl Revision {
    /// Whether another revision of the same outcome says nothing else.
    pub fn says_the_same(&self, other: &Revision) -> bool {
        let told = |revision: &Revision| (revision.problems.clone(), revision.stopped.clone(), revision.unpushed.clone());
        self.trees.ptr_eq(&other.trees) && Arc::ptr_eq(&self.policy, &other.policy) && told(self) == told(other)
    }

    /// What waits in a cluster of a Subscription, `<namespace>/<name>`.
    pub fn waiting(&self, cluster: &str, subscription: &str) -> &[Pending] {
        let key = |change: &Pending| (change.cluster.as_str(), change.subscription.as_str()).cmp(&(cluster, subscription));
        let begin = self.pending.partition_point(|change| key(change).is_lt());
        let rest = &self.pending[begin..];
        &rest[..rest.partition_point(|change| key(change).is_eq())]
    }

    /// What a cluster gets by this tree, if this is the state that has it.
    pub fn cluster_state(&self, cluster: &ClusterId, tree: ObjectId) -> Option<Arc<ClusterState>> {
        let registration = self.state.registrations.clusters.get(cluster)?;
        let state = self.state.clusters.get(&*registration.dedicated_namespace)?;
        (state.id() == tree).then(|| Arc::clone(state))
    }

    /// The desired tree of a cluster.
    pub fn tree(&self, cluster: &ClusterId) -> ObjectId {
        self.trees.get(cluster).copied().unwrap_or(ObjectId::EMPTY_TREE)
    }
}

/// Brings the desired trees of the clusters that have an id from one state to another.
pub fn follow_trees(trees: &mut OrdMap<ClusterId, ObjectId>, before: &State, now: &State) {
    let mut namespaces: BTreeSet<&Arc<str>> = BTreeSet::new();
    for change in before.managed_clusters.diff(&now.managed_clusters) {
        let (old, namespace) = match change {
            DiffItem::Add(namespace, _) => (None, namespace),
            DiffItem::Remove(namespace, old) => (Some(old), namespace),
            DiffItem::Update { old, new } => (Some(old.1), new.0),
        };
        if let Some(id) = old.and_then(|old| old.cluster.id.as_ref()) {
            trees.remove(id);
        }
        namespaces.insert(namespace);
    }
    namespaces.extend(before.clusters.diff(&now.clusters).map(|change| match change {
        DiffItem::Add(namespace, _) | DiffItem::Remove(namespace, _) => namespace,
        DiffItem::Update { new, .. } => new.0,
    }));
    for namespace in namespaces {
        if let Some(id) = now
            .managed_clusters
            .get(namespace)
            .and_then(|record| record.cluster.id.clone())
        {
            trees.insert(id, now.cluster_tree(namespace));
        }
    }
}
