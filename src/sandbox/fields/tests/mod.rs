//! The patch engine by tables of cases and by properties.
#![expect(clippy::unwrap_used, reason = "tests")]

mod apply;
mod properties;
mod strategic;

use serde_json::Value;

use super::PatchContext;

/// YAML as JSON, so that cases read like manifests.
fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// A request by `manager` for a Deployment.
fn by(manager: &str) -> PatchContext<'_> {
    PatchContext {
        api_version: "apps/v1",
        kind: "Deployment",
        manager,
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    }
}

/// The `fieldsV1` of a manager, or null.
fn fields_of(object: &Value, manager: &str) -> Value {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entry = entries.into_iter().flatten().find(|entry| entry["manager"] == manager);
    entry.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

/// The object without its managers.
fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}
