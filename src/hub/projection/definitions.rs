//! What git defines → the objects that the hub's API shows of it, each with file and line. Values in, values out.

use serde_json::{Map, Value, json};

use super::SOURCE_ANNOTATION;
use crate::core::api::APPS_VERSION;
use crate::core::conceal::conceal;
use crate::core::ids::ObjectKey;
use crate::core::index::{Definition, Demand, Demands, Snapshot, Subscription, delivered, demands};

/// Where Clusternet keeps its Manifests.
pub(super) const RESERVED_NAMESPACE: &str = "clusternet-reserved";

/// An object as it stands in git, with where.
pub(super) fn with_source(definition: &Definition) -> Value {
    let mut object = definition.object.as_value().clone();
    add_source(&mut object, definition);
    object
}

fn add_source(object: &mut Value, definition: &Definition) {
    let place = json!(format!("{}:{}", definition.file, definition.line));
    if let Some(metadata) = object["metadata"].as_object_mut() {
        let annotations = metadata.entry("annotations").or_insert(Value::Null);
        if !annotations.is_object() {
            *annotations = Value::Object(Map::new());
        }
        annotations[SOURCE_ANNOTATION] = place;
    }
}

/// Whether an object is shown as another definition was.
pub(super) fn shows_the_same(one: &Definition, other: &Definition) -> bool {
    one.digest == other.digest && (&one.file, one.line) == (&other.file, other.line)
}

/// A kind of ours that lives in a namespace.
pub(super) fn in_namespace(key: &ObjectKey, definition: &Definition) -> Value {
    let mut object = with_source(definition);
    object["metadata"]["namespace"] = json!(key.namespace);
    object
}

/// The name of the Manifest of a feed: `deployment.apps.shop.web`.
pub(super) fn manifest_name(key: &ObjectKey) -> String {
    let parts = [
        &*key.kind.to_ascii_lowercase(),
        &key.group,
        key.namespace.as_deref().unwrap_or_default(),
        &key.name,
    ];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(".")
}

/// A feed as Clusternet's Manifest, the values of Secrets concealed.
pub(super) fn manifest(key: &ObjectKey, definition: &Definition) -> Value {
    let mut labels = json!({
        "apps.clusternet.io/config.group": key.group, "apps.clusternet.io/config.kind": key.kind,
        "apps.clusternet.io/config.version": definition.object.api_version().rsplit('/').next(),
    });
    for (label, value) in [("name", Some(&key.name)), ("namespace", key.namespace.as_ref())] {
        if let Some(value) = value.filter(|value| value.len() <= 63) {
            labels[format!("apps.clusternet.io/config.{label}")] = json!(value);
        }
    }
    let mut object = json!({
        "apiVersion": APPS_VERSION, "kind": "Manifest",
        "metadata": {"namespace": RESERVED_NAMESPACE, "name": manifest_name(key), "labels": labels},
        "template": conceal(definition.object.as_value()),
    });
    add_source(&mut object, definition);
    object
}

/// What a Subscription that divides replicas has to divide; `None` for one that does not, or where that cannot be said.
pub(super) fn feed_inventory(snapshot: &Snapshot, subscription: &Subscription) -> Option<Value> {
    if !subscription.divides() {
        return None;
    }
    let demands = demands(snapshot, subscription, false, &mut Vec::new())?;
    Some(json!({
        "apiVersion": APPS_VERSION, "kind": "FeedInventory",
        "metadata": {
            "namespace": subscription.namespace, "name": subscription.name,
            "annotations": {SOURCE_ANNOTATION: format!("{}:{}", subscription.definition.file, subscription.definition.line)},
        },
        "spec": {"feeds": orders(snapshot, subscription, &demands)},
    }))
}

fn orders(snapshot: &Snapshot, subscription: &Subscription, demands: &Demands) -> Vec<Value> {
    let feeds = delivered(snapshot, subscription);
    let order = |(feed, (_, demand)): (_, &(_, Demand))| {
        let mut order = json!(feed);
        if let Demand::Divided(workload) = demand {
            let requests: Map<String, Value> = workload
                .requests
                .iter()
                .map(|(resource, amount)| (resource.clone(), json!(amount.to_string())))
                .collect();
            order["desiredReplicas"] = json!(workload.total);
            order["replicaJsonPath"] = json!(workload.pointer);
            order["replicaRequirements"] = json!({"resources": {"requests": requests}});
        }
        order
    };
    feeds.iter().map(AsRef::as_ref).zip(demands).map(order).collect()
}
