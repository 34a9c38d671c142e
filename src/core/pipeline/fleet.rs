//! Registrations + what `hub/` says about clusters → the fleet. What people say in git outranks what the agent reported.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

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
    /// Which snapshot that was, and whether nothing was held in it.
    snapshot: Weak<Snapshot>,
    complete: bool,
    /// The last result, if the next one follows from it.
    result: Option<FleetResult>,
}

impl FleetFollower {
    /// The fleet as [`derive`] gives it.
    pub fn follow(&mut self, registrations: &Registrations, snapshot: &Arc<Snapshot>, previous: &State) -> FleetResult {
        let now = &registrations.clusters;
        // What is held was held by the state before, which the last result became: the same snapshot says the same of it.
        let is_same = std::ptr::eq(self.snapshot.as_ptr(), Arc::as_ptr(snapshot));
        let follows = is_same || (self.complete && self.definitions == snapshot.clusters);
        let known = self.result.take().filter(|_| follows);
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
        if !is_same {
            self.definitions.clone_from(&snapshot.clusters);
            self.snapshot = Arc::downgrade(snapshot);
            self.complete = !snapshot.incomplete;
        }
        // Findings belong to clusters that are looked at anew each time.
        self.result = result.diagnostics.is_empty().then(|| result.clone());
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::core::state::registrations::Decision;

    fn registration(number: u8, label: u8) -> Registration {
        Registration {
            cluster_id: format!("0d0c9d5f-7a77-4a9e-8b7c-{number:012x}").parse().unwrap(),
            cluster_name: format!("edge-{number}"),
            dedicated_namespace: format!("clusternet-edge-{number}"),
            cluster_type: String::new(),
            labels: [("label".to_owned(), label.to_string())].into(),
            taints: Vec::new(),
            registered: None,
            decision: Decision::Approved,
            key_digest: String::new(),
            pending_key_digest: None,
        }
    }

    proptest! {
        /// Registrations come, change and go, the source moves now and then, and some of it cannot be read.
        #[test]
        fn a_fleet_that_is_followed_is_the_one_that_is_derived(
            steps in prop::collection::vec((0..4u8, prop::option::weighted(0.8, 0..3u8), prop::option::weighted(0.3, any::<bool>())), 1..20)
        ) {
            let (mut follower, mut registrations, mut previous) = (FleetFollower::default(), Registrations::default(), State::default());
            let mut snapshot = Arc::new(Snapshot::default());
            for (number, label, moved) in steps {
                let known = registration(number, label.unwrap_or_default());
                match label {
                    Some(_) => drop(registrations.clusters.insert(known.cluster_id.clone(), known)),
                    None => drop(registrations.clusters.remove(&known.cluster_id)),
                }
                if let Some(incomplete) = moved {
                    snapshot = Arc::new(Snapshot { incomplete, ..Snapshot::default() });
                }
                let followed = follower.follow(&registrations, &snapshot, &previous);
                let derived = derive(registration::approved(&registrations), &snapshot, &previous);
                prop_assert_eq!(&followed, &derived);
                previous.managed_clusters = followed.records;
            }
        }
    }
}
