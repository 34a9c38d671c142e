//! Which nodes a pod may be on, as Kubernetes' scheduler reads it: node selector, required node affinity, taints. Affinity to other pods, spread
//! over nodes and preferences are left to the cluster's own scheduler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::api::subscription::{ClusterSelectorTerm as NodeSelectorTerm, Toleration as TolerationSpec};
use crate::core::selector::{Labels, Selector};
use crate::core::taint::{Effect, Taint, Toleration};

/// The field of a node that a term may name; among the labels it stands for the name.
pub(super) const NAME_FIELD: &str = "metadata.name";

/// What a pod asks of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRules {
    /// Labels that it has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Terms of the required node affinity, one of which matches it; absent where nothing is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector_terms: Option<Vec<NodeSelectorTerm>>,
    /// Taints that do not matter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<TolerationSpec>,
}

/// The fields of a pod's spec that say it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodFields {
    node_selector: BTreeMap<String, String>,
    affinity: Affinity,
    tolerations: Vec<TolerationSpec>,
}

/// `affinity` of a pod, as far as it is about nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Affinity {
    node_affinity: NodeAffinity,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<Required>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Required {
    node_selector_terms: Vec<NodeSelectorTerm>,
}

impl Affinity {
    pub(super) fn terms(&self) -> Option<Vec<NodeSelectorTerm>> {
        let required = self.node_affinity.required.as_ref();
        required.map(|required| required.node_selector_terms.clone())
    }
}

impl NodeRules {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == NodeRules::default()
    }

    /// Reads them from the spec of a pod, or from what a FeedInventory says of one. The error is the field that cannot be read, and why.
    pub fn read(spec: &Value) -> Result<Self, (&'static str, String)> {
        let mut fields = serde_json::Map::new();
        for (name, pointer) in [
            ("nodeSelector", "/nodeSelector"),
            ("affinity", "/affinity"),
            ("tolerations", "/tolerations"),
        ] {
            let Some(value) = spec.get(name).filter(|value| !value.is_null()) else {
                continue;
            };
            let stated = without_nulls(value.clone());
            let alone = serde_json::json!({ name: stated });
            serde_json::from_value::<PodFields>(alone).map_err(|error| (pointer, error.to_string()))?;
            fields.insert(name.to_owned(), stated);
        }
        let read = serde_json::from_value::<PodFields>(Value::Object(fields));
        let rules = |fields: PodFields| NodeRules {
            node_selector: fields.node_selector,
            node_selector_terms: fields.affinity.terms(),
            tolerations: fields.tolerations,
        };
        read.map(rules).map_err(|error| ("", error.to_string()))
    }

    /// In a form that answers quickly.
    pub(super) fn prepare(&self) -> NodeFilter<'_> {
        let parse = |term: &NodeSelectorTerm| Selector::parse_term(term, NAME_FIELD).ok();
        NodeFilter {
            labels: &self.node_selector,
            // A term that Kubernetes refuses matches nothing.
            terms: self
                .node_selector_terms
                .as_ref()
                .map(|terms| terms.iter().filter_map(parse).collect()),
            tolerations: self
                .tolerations
                .iter()
                .filter_map(|spec| Toleration::parse(spec).ok())
                .collect(),
        }
    }
}

/// An API server takes a null for a field that is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let stated = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(stated.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// [`NodeRules`], checked.
pub(super) struct NodeFilter<'r> {
    labels: &'r BTreeMap<String, String>,
    terms: Option<Vec<Selector>>,
    tolerations: Vec<Toleration>,
}

impl NodeFilter<'_> {
    /// Whether a node with these labels, its name among them, and taints takes the pod.
    pub(super) fn admits(&self, labels: &Labels, taints: &[Taint]) -> bool {
        let keeps_out = |taint: &&Taint| matches!(taint.effect, Effect::NoSchedule | Effect::NoExecute);
        let tolerated = |taint: &Taint| self.tolerations.iter().any(|toleration| toleration.tolerates(taint));
        let matches = |terms: &Vec<Selector>| terms.iter().any(|term| term.matches(labels));
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(matches)
            && taints.iter().filter(keeps_out).all(tolerated)
    }
}
