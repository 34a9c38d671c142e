//! The `scale` subresource: replicas of a workload or a custom resource as `autoscaling/v1` Scale. Pure but for the transaction.

use serde_json::{Map, Value, json};

use super::builtin;
use super::metadata::text;
use crate::kubeapi::table::list;
use crate::kubeapi::{ApiError, Target, Transaction};

/// Where the numbers are.
struct Paths {
    spec: Vec<String>,
    status: Vec<String>,
    selector: Option<Vec<String>>,
}

/// The Scale of an object.
pub(super) fn read(target: &Target<'_>, object: &Value, transaction: &Transaction<'_>) -> Result<Value, ApiError> {
    let paths = paths(target, transaction)?;
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let number = |path: &[String]| follow(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({"replicas": number(&paths.status)});
    if let Some(selector) = selector_text(object, &paths) {
        status["selector"] = json!(selector);
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(&paths.spec)}, "status": status,
    }))
}

/// The object with the replicas of a Scale.
pub(super) fn write(
    target: &Target<'_>,
    object: &Value,
    scale: &Value,
    transaction: &Transaction<'_>,
) -> Result<Value, ApiError> {
    let paths = paths(target, transaction)?;
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let cause = crate::kubeapi::Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(ApiError::invalid(target.resource, target.name, vec![cause]));
    }
    let mut object = object.clone();
    let mut place = &mut object;
    for segment in &paths.spec {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[segment.as_str()];
    }
    *place = json!(replicas);
    Ok(object)
}

fn paths(target: &Target<'_>, transaction: &Transaction<'_>) -> Result<Paths, ApiError> {
    let split = |path: &str| -> Vec<String> { path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect() };
    if builtin::is_built_in(target.resource) {
        return Ok(Paths {
            spec: split("spec.replicas"),
            status: split("status.replicas"),
            selector: None,
        });
    }
    let definitions = builtin::id_of("apiextensions.k8s.io", "customresourcedefinitions");
    let definition = transaction.get(&definitions, None, &target.resource.qualified());
    let definition = definition.ok_or_else(ApiError::no_such_path)?;
    let versions = list(&definition, "/spec/versions").iter();
    let mut versions = versions.filter(|version| text(version, "/name") == target.resource.version);
    let scale = versions.next().and_then(|version| version.pointer("/subresources/scale"));
    let scale = scale.ok_or_else(ApiError::no_such_path)?;
    let selector = text(scale, "/labelSelectorPath");
    Ok(Paths {
        spec: split(text(scale, "/specReplicasPath")),
        status: split(text(scale, "/statusReplicasPath")),
        selector: (!selector.is_empty()).then(|| split(selector)),
    })
}

fn follow<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, segment| value.get(segment))
}

fn selector_text(object: &Value, paths: &Paths) -> Option<String> {
    if let Some(path) = &paths.selector {
        return follow(object, path).and_then(Value::as_str).map(str::to_owned);
    }
    let labels = object
        .pointer("/spec/selector/matchLabels")
        .or_else(|| object.pointer("/spec/selector"));
    let pairs = labels?.as_object()?.iter();
    let pairs: Vec<String> = pairs
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}
