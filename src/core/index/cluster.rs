//! ManagedClusters below `hub/`: what people say about a cluster. Joins nothing with what agents report.

use serde_json::Value;

use super::kinds::{DNS_HINT, invalid, unknown_field, unsupported};
use super::{Definition, Reading, Snapshot};
use crate::core::api::CLUSTERS_GROUP;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ClusterId, InvalidClusterId, is_dns_name};
use crate::core::object::{Object, type_name};
use crate::core::selector::{Labels, check_label};
use crate::core::taint::Taint;

/// A ManagedCluster below `hub/`: what people say about a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDefinition {
    /// Name.
    pub name: String,
    /// The dedicated namespace, where it states one.
    pub namespace: Option<String>,
    /// The cluster id that is approved ahead of its first contact.
    pub cluster_id: Option<ClusterId>,
    /// Labels.
    pub labels: Labels,
    /// Taints, where it states any; an empty list takes away what was there.
    pub taints: Option<Vec<Taint>>,
    /// Where it is defined.
    pub definition: Definition,
}

/// A taint that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTaint {
    /// JSON pointer in the ManagedCluster.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// The taints of a ManagedCluster, in its order; `None` where it states none.
pub fn read_taints(object: &Object) -> Result<Option<Vec<Taint>>, InvalidTaint> {
    let at = |index: usize, field: &str, message: String| InvalidTaint {
        pointer: format!("/spec/taints/{index}{field}"),
        message,
    };
    let list = match object.pointer("/spec/taints") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(InvalidTaint {
                pointer: "/spec/taints".to_owned(),
                message: "taints are a list".to_owned(),
            });
        }
    };
    let mut taints: Vec<Taint> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let spec = serde_json::from_value(value.clone()).map_err(|error| at(index, "", error.to_string()))?;
        let taint = Taint::parse(&spec).map_err(|invalid| at(index, &format!("/{}", invalid.field), invalid.message))?;
        if taints
            .iter()
            .any(|known| (&known.key, known.effect) == (&taint.key, taint.effect))
        {
            let message = format!("a second taint with key {} and effect {}", taint.key, taint.effect.as_str());
            return Err(at(index, "/key", message));
        }
        taints.push(taint);
    }
    Ok(Some(taints))
}

fn read_stated_taints(definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<Vec<Taint>> {
    read_taints(&definition.object).unwrap_or_else(|wrong| {
        out.push(invalid(definition, &wrong.pointer, wrong.message, "correct the taint"));
        None
    })
}

/// Adds an object below `hub/`.
pub(super) fn add_hub_object(snapshot: &mut Snapshot, definition: &Definition, out: &mut Vec<Diagnostic>) {
    let object = &definition.object;
    if (object.group(), object.kind()) != (CLUSTERS_GROUP, "ManagedCluster") {
        out.push(unsupported(definition, "/kind", &format!("{} below hub/", object.kind())));
        return;
    }
    let before = out.len();
    let cluster = read_cluster(definition, out).filter(|_| out.len() == before);
    let reading = cluster.map_or(Reading::Unreadable, |cluster| Reading::Valid(cluster.into()));
    let name = object.name().to_owned();
    if let Some(known) = snapshot.clusters.get_mut(&name) {
        let message = format!("ManagedCluster {name} is defined more than once below hub/");
        let diagnostic = Diagnostic::error("duplicate-object", message).hint("keep one");
        out.push(definition.locate(diagnostic, "/metadata/name"));
        *known = Reading::Unreadable;
    } else {
        snapshot.clusters.insert(name, reading);
    }
}

fn read_cluster(definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<ClusterDefinition> {
    let object = &definition.object;
    if !is_dns_name(object.name(), 63, true) {
        out.push(invalid(
            definition,
            "/metadata/name",
            format!("{:?} is not a cluster name", object.name()),
            DNS_HINT,
        ));
    }
    if let Some(namespace) = object.namespace().filter(|namespace| !is_dns_name(namespace, 63, false)) {
        out.push(invalid(
            definition,
            "/metadata/namespace",
            format!("{namespace:?} is not a namespace name"),
            DNS_HINT,
        ));
    }
    check_spec(definition, out);
    Some(ClusterDefinition {
        name: object.name().to_owned(),
        namespace: object.namespace().map(str::to_owned),
        cluster_id: read_cluster_id(definition, out),
        labels: read_stated_labels(definition, out),
        taints: read_stated_taints(definition, out),
        definition: definition.clone(),
    })
}

fn check_spec(definition: &Definition, out: &mut Vec<Diagnostic>) {
    const KNOWN: [&str; 4] = ["clusterId", "clusterType", "syncMode", "taints"];
    let spec = definition.object.pointer("/spec").unwrap_or(&Value::Null);
    if !spec.is_null() && !spec.is_object() {
        let message = format!("spec is a mapping, this is {}", type_name(spec));
        out.push(invalid(
            definition,
            "/spec",
            message,
            "write clusterId, taints and so on below spec",
        ));
    }
    for (field, _) in spec.as_object().into_iter().flatten() {
        if !KNOWN.contains(&field.as_str()) {
            out.push(unknown_field(definition, &format!("/spec/{field}")));
        }
    }
    let modes = ["Push", "Pull", "Dual"].map(Value::from);
    if let Some(mode) = spec.get("syncMode").filter(|mode| !modes.contains(mode)) {
        let message = format!("{mode} is no syncMode");
        out.push(invalid(definition, "/spec/syncMode", message, "use Pull: agents always pull"));
    }
}

fn read_cluster_id(definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<ClusterId> {
    let stated = definition.object.pointer("/spec/clusterId")?;
    let read = match stated.as_str() {
        Some(id) => id.parse().map_err(|error: InvalidClusterId| error.to_string()),
        None => Err(format!("a cluster id is text, this is {}", type_name(stated))),
    };
    read.map_err(|message| {
        let hint = "kubectl get ns kube-system -o jsonpath={.metadata.uid}";
        out.push(invalid(definition, "/spec/clusterId", message, hint));
    })
    .ok()
}

/// A label that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLabel {
    /// JSON pointer in the ManagedCluster.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// The labels of a ManagedCluster, and those that cannot be read: they decide about placements, so none is lost in silence.
pub fn read_labels(object: &Object) -> (Labels, Vec<InvalidLabel>) {
    let stated = object.pointer("/metadata/labels").unwrap_or(&Value::Null);
    let mut labels = Labels::new();
    let mut invalid = Vec::new();
    if !stated.is_null() && !stated.is_object() {
        invalid.push(InvalidLabel {
            pointer: "/metadata/labels".to_owned(),
            message: format!("labels are a mapping, this is {}", type_name(stated)),
        });
    }
    for (key, value) in stated.as_object().into_iter().flatten() {
        let text = value.as_str().ok_or_else(|| {
            let kind = type_name(value);
            format!("the value of a label is text, this is {kind}: quote it")
        });
        match text.and_then(|text| check_label(key, text).map(|()| text)) {
            Ok(text) => drop(labels.insert(key.clone(), text.to_owned())),
            Err(message) => invalid.push(InvalidLabel {
                pointer: format!("/metadata/labels/{}", key.replace('~', "~0").replace('/', "~1")),
                message,
            }),
        }
    }
    (labels, invalid)
}

fn read_stated_labels(definition: &Definition, out: &mut Vec<Diagnostic>) -> Labels {
    let (labels, wrong) = read_labels(&definition.object);
    let wrong = wrong.into_iter();
    out.extend(wrong.map(|wrong| invalid(definition, &wrong.pointer, wrong.message, "correct the label")));
    labels
}
