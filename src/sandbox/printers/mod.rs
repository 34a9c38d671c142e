//! The columns that kubectl users know for the built-in kinds. Pure. Where Kubernetes would have filled in a default before
//! printing, the cell shows that default, because the sandbox stores objects as they were sent.

mod access;
mod cluster;
mod network;
mod workload;

use serde_json::{Value, json};

pub(super) use access::{CERTIFICATES, CLUSTER_ROLES, CRDS, ROLE_BINDINGS};
pub(super) use cluster::{
    CONFIG_MAPS, CONTROLLER_REVISIONS, EVENTS, LEASES, NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES,
    PRIORITY_CLASSES, RESOURCE_QUOTAS, RUNTIME_CLASSES, SECRETS, SERVICE_ACCOUNTS, STORAGE_CLASSES, WEBHOOKS,
};
pub(super) use network::{
    DISRUPTION_BUDGETS, ENDPOINT_SLICES, ENDPOINTS, INGRESS_CLASSES, INGRESSES, NETWORK_POLICIES, SERVICES,
};
pub(super) use workload::{AUTOSCALERS, CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, STATEFUL_SETS};

use crate::kubeapi::table::{list, text};

/// The object's name.
fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

/// The text at a pointer, or what stands for none.
fn or<'a>(object: &'a Value, pointer: &str, otherwise: &'a str) -> &'a str {
    Some(text(object, pointer))
        .filter(|found| !found.is_empty())
        .unwrap_or(otherwise)
}

/// The texts below the entries of a list, joined.
fn joined(object: &Value, pointer: &str, below: &str, separator: &str) -> String {
    let entries = list(object, pointer).iter();
    entries.map(|entry| text(entry, below)).collect::<Vec<_>>().join(separator)
}

/// How many entries a map or list has.
fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// A map of labels as `a=b,c=d`.
fn labels(object: &Value, pointer: &str) -> String {
    let pairs = object.pointer(pointer).and_then(Value::as_object);
    let pairs = pairs.filter(|pairs| !pairs.is_empty());
    pairs.map_or_else(
        || "<none>".to_owned(),
        |pairs| {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(",")
        },
    )
}

/// A label selector in its text form.
fn selector(object: &Value, pointer: &str) -> String {
    let Some(selector) = object.pointer(pointer) else {
        return "<none>".to_owned();
    };
    let mut terms: Vec<String> = Vec::new();
    if count(selector, "/matchLabels") > 0 {
        terms.push(labels(selector, "/matchLabels"));
    }
    for requirement in list(selector, "/matchExpressions") {
        let key = text(requirement, "/key");
        let values: Vec<&str> = list(requirement, "/values").iter().filter_map(Value::as_str).collect();
        let values = values.join(",");
        terms.push(match text(requirement, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    match terms.is_empty() {
        true => "<none>".to_owned(),
        false => terms.join(","),
    }
}

/// Names and images of a pod template's containers.
fn containers(object: &Value, pointer: &str) -> (String, String) {
    (joined(object, pointer, "/name", ","), joined(object, pointer, "/image", ","))
}

/// Whether the status has a condition of this type that is true.
fn condition_is_true(object: &Value, kind: &str) -> bool {
    let conditions = list(object, "/status/conditions").iter();
    conditions
        .filter(|condition| text(condition, "/type") == kind)
        .any(|condition| text(condition, "/status") == "True")
}

/// At most three texts, and how many more there are of `total`.
fn shortened(texts: Vec<String>, total: usize, most: usize) -> String {
    let shown = texts.len().min(most);
    match total > shown {
        true => format!("{} + {} more...", texts[..shown].join(","), total - shown),
        false => texts.join(","),
    }
}
