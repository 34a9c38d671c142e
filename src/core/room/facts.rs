//! What a node or a pod says about room: the few fields of core/v1 that count, everything else is dropped while it is read.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Requests;
use super::nodes::{Affinity, NAME_FIELD, NodeRules};
use crate::core::api::cluster::Taint as TaintSpec;
use crate::core::api::subscription::Toleration as TolerationSpec;
use crate::core::quantity::Quantity;
use crate::core::selector::Labels;
use crate::core::taint::{Effect, Taint};

/// The taint of a cordoned node.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// A node.
#[derive(Debug, Deserialize)]
pub struct NodeFacts {
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    unschedulable: bool,
    taints: Vec<TaintSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    allocatable: BTreeMap<String, String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl NodeFacts {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Its labels, and its name for terms that ask for that.
    pub(super) fn labels(&self) -> Labels {
        let mut labels = self.metadata.labels.clone();
        labels.insert(NAME_FIELD.to_owned(), self.metadata.name.clone());
        labels
    }

    /// Whether it is ready. One that is not takes nothing, whatever a pod tolerates.
    pub fn is_ready(&self) -> bool {
        let is_ready = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        self.status.conditions.iter().any(is_ready)
    }

    /// Its taints; a node that is cordoned counts as having the taint that says so.
    pub(super) fn taints(&self) -> Vec<Taint> {
        let cordoned = TaintSpec {
            key: CORDONED.to_owned(),
            value: String::new(),
            effect: Effect::NoSchedule.as_str().to_owned(),
            time_added: None,
        };
        let cordoned = Some(&cordoned).filter(|_| self.spec.unschedulable);
        let stated = self.spec.taints.iter().chain(cordoned);
        stated.filter_map(|taint| Taint::parse(taint).ok()).collect()
    }

    /// What it offers to pods.
    pub fn allocatable(&self) -> Requests {
        quantities(&self.status.allocatable)
    }
}

/// A pod.
#[derive(Debug, Deserialize)]
pub struct PodFacts {
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    overhead: BTreeMap<String, String>,
    resources: Resources,
    node_selector: BTreeMap<String, String>,
    affinity: Affinity,
    tolerations: Vec<TolerationSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    resources: Resources,
    restart_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

impl PodFacts {
    /// The node that it is on.
    pub fn node(&self) -> Option<&str> {
        Some(self.spec.node_name.as_str()).filter(|name| !name.is_empty())
    }

    /// What it asks of its node.
    pub(super) fn rules(&self) -> NodeRules {
        NodeRules {
            node_selector: self.spec.node_selector.clone(),
            node_selector_terms: self.spec.affinity.terms(),
            tolerations: self.spec.tolerations.clone(),
        }
    }

    /// Whether it gave back what it took.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// What it requests, as Kubernetes' scheduler counts: containers and sidecars add up, each other init container runs beside the sidecars
    /// before it, requests of the pod as a whole outrank both, overhead comes on top.
    pub fn requests(&self) -> Requests {
        let mut sum = Requests::new();
        for container in &self.spec.containers {
            add(&mut sum, &quantities(&container.resources.requests));
        }
        let (mut sidecars, mut peak) = (Requests::new(), Requests::new());
        for container in &self.spec.init_containers {
            let mut own = quantities(&container.resources.requests);
            if container.restart_policy == "Always" {
                add(&mut sidecars, &own);
                continue;
            }
            add(&mut own, &sidecars);
            raise(&mut peak, &own);
        }
        add(&mut sum, &sidecars);
        raise(&mut sum, &peak);
        sum.extend(quantities(&self.spec.resources.requests));
        add(&mut sum, &quantities(&self.spec.overhead));
        sum
    }
}

/// What cannot be read counts as nothing: an API server lets no such thing in.
fn quantities(texts: &BTreeMap<String, String>) -> Requests {
    let read = texts
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text)?)));
    read.collect()
}

fn add(sum: &mut Requests, more: &Requests) {
    for (name, amount) in more {
        let of = sum.entry(name.clone()).or_default();
        *of = *of + *amount;
    }
}

fn raise(to: &mut Requests, least: &Requests) {
    for (name, amount) in least {
        let of = to.entry(name.clone()).or_default();
        *of = (*amount).max(*of);
    }
}
