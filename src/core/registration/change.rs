//! What people change of a cluster through the hub's API: its labels and taints. What `hub/` in git says outranks it, and what the agent or the
//! hub states is not for people to change. Pure decisions; nothing is written here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::core::access::Refusal;
use crate::core::index::{ClusterDefinition, read_labels, read_taints};
use crate::core::node_labels;
use crate::core::object::Object;
use crate::core::selector::{CLUSTER_ID_LABEL, CLUSTER_NAME_LABEL, Labels, MAX_LABELS};
use crate::core::state::registrations::Registration;
use crate::core::taint::Taint;

/// A change of a cluster's labels and taints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterChange {
    /// Labels to set, or to take away.
    pub labels: BTreeMap<String, Option<String>>,
    /// The taints that people set from now on, if they change.
    pub taints: Option<Vec<Taint>>,
}

impl ClusterChange {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.taints.is_none()
    }
}

/// The durable facts that a change was made from: it is refused where they are others by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    labels: Labels,
    taints: Vec<crate::core::api::cluster::Taint>,
}

impl Basis {
    /// Those of a registration.
    pub fn of(known: &Registration) -> Self {
        Basis {
            labels: known.labels.clone(),
            taints: known.taints.clone(),
        }
    }
}

fn invalid(name: &str, field: &str, why: &str) -> Refusal {
    let message = format!("ManagedCluster.clusters.clusternet.io {name:?} is invalid: {field}: {why}");
    Refusal {
        field: Some(Box::new((field.to_owned(), why.to_owned()))),
        ..Refusal::new(422, "Invalid", message)
    }
}

/// What turns a ManagedCluster as it is shown into what somebody wants it to be. `live` are taints that the hub itself adds.
pub fn change(shown: &Object, wanted: &Object, live: Option<&Taint>) -> Result<ClusterChange, Refusal> {
    let name = shown.name();
    check_rest(shown, wanted)?;
    let read = |object: &Object| -> Result<Labels, Refusal> {
        let (labels, wrong) = read_labels(object);
        match wrong.first() {
            Some(wrong) => Err(invalid(name, "metadata.labels", &wrong.message)),
            None => Ok(labels),
        }
    };
    let (before, after) = (read(shown)?, read(wanted)?);
    let gone = before
        .keys()
        .filter(|key| !after.contains_key(*key))
        .map(|key| (key.clone(), None));
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    let labels = gone
        .chain(set.map(|(key, value)| (key.clone(), Some(value.clone()))))
        .collect();
    let taints = |object: &Object| -> Result<Vec<Taint>, Refusal> {
        let mut taints = read_taints(object)
            .map_err(|wrong| invalid(name, "spec.taints", &wrong.message))?
            .unwrap_or_default();
        taints.retain(|taint| live.is_none_or(|live| (&taint.key, taint.effect) != (&live.key, live.effect)));
        Ok(taints)
    };
    let (before, after) = (taints(shown)?, taints(wanted)?);
    Ok(ClusterChange {
        labels,
        taints: (before != after).then_some(after),
    })
}

/// Everything besides labels and taints stays as it is. Annotations are not kept, and `status` is not for people to write.
fn check_rest(shown: &Object, wanted: &Object) -> Result<(), Refusal> {
    let name = shown.name();
    if shown.key() != wanted.key() {
        return Err(invalid(name, "metadata", "kind, namespace and name cannot be changed"));
    }
    let spec = |object: &Object| {
        let mut spec = object.pointer("/spec").cloned().unwrap_or_default();
        spec.as_object_mut().map(|spec| spec.remove("taints"));
        spec
    };
    let (before, after) = (spec(shown), spec(wanted));
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (before, after) = (fields(&before), fields(&after));
    let differs = before
        .keys()
        .chain(after.keys())
        .find(|field| before.get(*field) != after.get(*field));
    match differs {
        Some(field) => Err(invalid(
            name,
            &format!("spec.{field}"),
            "cannot be changed: it comes with the cluster's registration; labels and spec.taints can",
        )),
        None => Ok(()),
    }
}

/// Carries a change out, or says why not and leaves everything as it was.
pub(super) fn apply(
    known: &mut Registration,
    change: &ClusterChange,
    basis: Option<&Basis>,
    stated: Option<&ClusterDefinition>,
) -> Result<(), Refusal> {
    let name = known.cluster_name.clone();
    if basis.is_some_and(|basis| *basis != Basis::of(known)) {
        let message = format!(
            "Operation cannot be fulfilled on managedclusters.clusters.clusternet.io {name:?}: the object has been modified; \
             please apply your changes to the latest version and try again"
        );
        return Err(Refusal::new(409, "Conflict", message));
    }
    for key in change.labels.keys() {
        check_key(&name, key, stated)?;
    }
    let mut labels = known.labels.clone();
    for (key, value) in &change.labels {
        match value {
            Some(value) => drop(labels.insert(key.clone(), value.clone())),
            None => drop(labels.remove(key)),
        }
    }
    if labels.len() > MAX_LABELS {
        let why = format!("{} labels are too many; at most {MAX_LABELS}", labels.len());
        return Err(invalid(&name, "metadata.labels", &why));
    }
    if let Some(taints) = &change.taints {
        if let Some(definition) = stated.filter(|definition| definition.taints.is_some()) {
            return Err(invalid(&name, "spec.taints", &by_git(definition)));
        }
        known.taints = taints.iter().map(Taint::spec).collect();
    }
    known.labels = labels;
    Ok(())
}

fn by_git(definition: &ClusterDefinition) -> String {
    let place = &definition.definition;
    format!(
        "{}:{} states it and outranks what is set here; edit that, commit and push",
        place.file, place.line
    )
}

fn check_key(name: &str, key: &str, stated: Option<&ClusterDefinition>) -> Result<(), Refusal> {
    let field = format!("metadata.labels[{key}]");
    if [CLUSTER_ID_LABEL, CLUSTER_NAME_LABEL].contains(&key) {
        return Err(invalid(name, &field, "is the cluster's identity and cannot be changed"));
    }
    if key.starts_with(node_labels::PREFIX) {
        let why = "comes from the cluster's nodes and its agent's --labels, which would set it again";
        return Err(invalid(name, &field, why));
    }
    match stated.filter(|definition| definition.labels.contains_key(key)) {
        Some(definition) => Err(invalid(name, &field, &by_git(definition))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn cluster(labels: &Value, taints: &Value) -> Object {
        Object::from_value(json!({
            "apiVersion": "clusters.clusternet.io/v1beta1", "kind": "ManagedCluster",
            "metadata": {"namespace": "clusternet-east", "name": "east", "labels": labels, "annotations": {"a": "b"}},
            "spec": {"clusterId": "1", "syncMode": "Pull", "taints": taints}, "status": {"x": 1},
        }))
        .unwrap()
    }

    fn taint(key: &str) -> Value {
        json!({"key": key, "effect": "NoSchedule"})
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let shown = cluster(&json!({"a": "1", "b": "2"}), &json!([taint("live"), taint("mine")]));
        let live = Taint::parse(&serde_json::from_value(taint("live")).unwrap()).unwrap();
        assert!(change(&shown, &shown, Some(&live)).unwrap().is_empty());
        // The hub's own taint is neither kept as a person's nor taken away by one.
        let wanted = cluster(&json!({"a": "3", "c": "4"}), &json!([taint("mine"), taint("new")]));
        let found = change(&shown, &wanted, Some(&live)).unwrap();
        let labels =
            [("a", Some("3")), ("b", None), ("c", Some("4"))].map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(found.labels, BTreeMap::from(labels));
        let keys: Vec<_> = found.taints.unwrap().into_iter().map(|taint| taint.key).collect();
        assert_eq!(keys, ["mine", "new"]);
    }

    #[test]
    fn nothing_else_can_be_changed() {
        let shown = cluster(&json!({}), &json!([]));
        for (pointer, value, word) in [
            ("/spec/syncMode", json!("Push"), "spec.syncMode"),
            ("/metadata/name", json!("west"), "kind, namespace and name"),
            ("/metadata/labels", json!({"a": "no spaces"}), "metadata.labels"),
            ("/spec/taints", json!([{"key": "a", "effect": "Never"}]), "spec.taints"),
        ] {
            let mut wanted = shown.as_value().clone();
            *wanted.pointer_mut(pointer).unwrap() = value;
            let refusal = change(&shown, &Object::from_value(wanted).unwrap(), None).unwrap_err();
            assert!(refusal.code == 422 && refusal.message.contains(word), "{refusal}");
        }
        let mut wanted = shown.as_value().clone();
        wanted["status"] = json!({"x": 2});
        wanted["metadata"]["annotations"] = json!({});
        assert!(change(&shown, &Object::from_value(wanted).unwrap(), None).unwrap().is_empty());
    }
}
