//! Registrations + what `hub/` says about clusters → the fleet. What people say in git outranks what the agent reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::diagnostic::Diagnostic;
use crate::core::index::{ClusterDefinition, Reading, Snapshot};
use crate::core::schedule::{Cluster, Fleet};
use crate::core::state::{ClusterRecord, State};

/// The clusters and what is wrong with what git says about them.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct FleetResult {
    /// Clusters for placing.
    pub fleet: Fleet,
    /// The same with what the state branch says besides.
    pub records: BTreeMap<Arc<str>, ClusterRecord>,
    /// Findings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Derives the fleet from registered clusters. While a file does not parse, a cluster that no parsed file of `hub/` defines keeps the labels
/// and taints that the previous state names: absence never deletes.
pub fn derive(registered: impl IntoIterator<Item = ClusterRecord>, snapshot: &Snapshot, previous: &State) -> FleetResult {
    let mut result = FleetResult::default();
    for mut record in registered {
        let before = previous.managed_clusters.get(&record.cluster.namespace);
        match snapshot.clusters.get(&*record.cluster.name) {
            Some(Reading::Valid(definition)) => {
                if let Some(diagnostic) = contradiction(definition, &record.cluster) {
                    result.diagnostics.push(diagnostic);
                    keep_facts(&mut record, before);
                } else {
                    record.cluster = overlay(record.cluster, definition);
                }
            }
            Some(Reading::Unreadable) => keep_facts(&mut record, before),
            None if snapshot.incomplete => keep_facts(&mut record, before),
            None => {}
        }
        result.records.insert(record.cluster.namespace.clone(), record);
    }
    result.fleet = result.records.values().map(|record| record.cluster.clone()).collect();
    result
}

fn keep_facts(record: &mut ClusterRecord, before: Option<&ClusterRecord>) {
    if let Some(before) = before {
        record.cluster.labels.clone_from(&before.cluster.labels);
        record.cluster.taints.clone_from(&before.cluster.taints);
    }
}

fn overlay(cluster: Cluster, definition: &ClusterDefinition) -> Cluster {
    let mut labels = cluster.labels;
    labels.extend(definition.labels.clone());
    let taints = definition.taints.clone().unwrap_or(cluster.taints);
    Cluster::new(&cluster.name, Some(&cluster.namespace), cluster.id, labels).with_taints(taints)
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
