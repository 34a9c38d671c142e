//! Registrations + what `hub/` says about clusters → the fleet. What people say in git outranks what the agent reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ClusterId;
use crate::core::index::{ClusterDefinition, Reading, Snapshot};
use crate::core::registration;
use crate::core::schedule::{Cluster, Fleet};
use crate::core::state::registrations::{Registration, Registrations};
use crate::core::state::{ClusterRecord, State};

/// The clusters and what is wrong with what git says about them.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct FleetResult {
    /// Clusters for placing.
    pub fleet: Fleet,
    /// The same with what the state branch says besides.
    pub records: OrdMap<Arc<str>, Arc<ClusterRecord>>,
    /// Findings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Derives the fleet from registered clusters. While a file does not parse, a cluster that no parsed file of `hub/` defines keeps the labels
/// and taints that the previous state names: absence never deletes.
pub fn derive(registered: impl IntoIterator<Item = ClusterRecord>, snapshot: &Snapshot, previous: &State) -> FleetResult {
    let mut result = FleetResult::default();
    for record in registered {
        result.add(record, snapshot, previous);
    }
    result
}

impl FleetResult {
    fn add(&mut self, mut record: ClusterRecord, snapshot: &Snapshot, previous: &State) {
        let before = previous.managed_clusters.get(&record.cluster.namespace);
        match snapshot.clusters.get(&*record.cluster.name) {
            Some(Reading::Valid(definition)) => {
                if let Some(diagnostic) = contradiction(definition, &record.cluster) {
                    self.diagnostics.push(diagnostic);
                    keep_facts(&mut record, before);
                } else {
                    record.cluster = overlay(&record.cluster, definition).into();
                }
            }
            Some(Reading::Unreadable) => keep_facts(&mut record, before),
            None if snapshot.incomplete => keep_facts(&mut record, before),
            None => {}
        }
        // What is as it was stays the same value, so that whoever compares sees at once that nothing changed.
        let record = match before {
            Some(before) if **before == record => before.clone(),
            _ => Arc::new(record),
        };
        let namespace = &record.cluster.namespace;
        self.fleet.clusters.insert(namespace.clone(), record.cluster.clone());
        self.records.insert(namespace.clone(), record);
    }

    fn remove(&mut self, namespace: &str) {
        self.fleet.clusters.remove(namespace);
        self.records.remove(namespace);
    }
}

/// Derives the fleets of a hub, each from the one before: the work follows the registrations that changed.
#[derive(Default)]
pub struct FleetFollower {
    registrations: OrdMap<ClusterId, Registration>,
    definitions: BTreeMap<String, Reading<ClusterDefinition>>,
    /// The last result, if the next one follows from it.
    result: Option<FleetResult>,
}

impl FleetFollower {
    /// The fleet as [`derive`] gives it.
    pub fn follow(&mut self, registrations: &Registrations, snapshot: &Snapshot, previous: &State) -> FleetResult {
        let now = &registrations.clusters;
        let known = self.result.take().filter(|_| self.definitions == snapshot.clusters);
        let result = match known {
            Some(mut result) => {
                let changed: Vec<_> = self.registrations.diff(now).map(sides).collect();
                for (old, _) in &changed {
                    old.iter().for_each(|old| result.remove(&old.dedicated_namespace));
                }
                for record in changed.iter().filter_map(|(_, new)| registration::record((*new)?)) {
                    result.add(record, snapshot, previous);
                }
                result
            }
            None => derive(registration::approved(registrations), snapshot, previous),
        };
        self.registrations = now.clone();
        self.definitions.clone_from(&snapshot.clusters);
        // Findings belong to clusters that are looked at anew each time, and so does what is held.
        let follows = result.diagnostics.is_empty() && !snapshot.incomplete;
        self.result = follows.then(|| result.clone());
        result
    }
}

/// A registration as it was and as it is.
fn sides<'a>(change: DiffItem<'a, 'a, ClusterId, Registration>) -> (Option<&'a Registration>, Option<&'a Registration>) {
    match change {
        DiffItem::Add(_, new) => (None, Some(new)),
        DiffItem::Remove(_, old) => (Some(old), None),
        DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
    }
}

fn keep_facts(record: &mut ClusterRecord, before: Option<&Arc<ClusterRecord>>) {
    if let Some(before) = before {
        let cluster = Arc::make_mut(&mut record.cluster);
        cluster.labels.clone_from(&before.cluster.labels);
        cluster.taints.clone_from(&before.cluster.taints);
    }
}

fn overlay(cluster: &Cluster, definition: &ClusterDefinition) -> Cluster {
    let mut labels = cluster.labels.clone();
    labels.extend(definition.labels.clone());
    let taints = definition.taints.clone().unwrap_or_else(|| cluster.taints.clone());
    Cluster::new(&cluster.name, Some(&cluster.namespace), cluster.id.clone(), labels).with_taints(taints)
}

/// A definition that names another id or namespace than the cluster has speaks about another cluster.
fn contradiction(definition: &ClusterDefinition, cluster: &Cluster) -> Option<Diagnostic> {
    let error = |field: &str, stated: &str, has: &str| {
        let message = format!("states {stated}, but the registered cluster has {has}");
        let hint = "correct the file, or remove the registered cluster first";
        let diagnostic = Diagnostic::error("cluster-mismatch", message).field(field).hint(hint);
        Some(definition.definition.locate(diagnostic, field))
    };
    match (&definition.cluster_id, &cluster.id) {
        (Some(stated), Some(has)) if stated != has => return error("/spec/clusterId", stated.as_str(), has.as_str()),
        _ => {}
    }
    match &definition.namespace {
        Some(stated) if **stated != *cluster.namespace => error("/metadata/namespace", stated, &cluster.namespace),
        _ => None,
    }
}
