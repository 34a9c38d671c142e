//! OpenAPI v3 documents from a catalog: enough for kubectl's validation, `explain`, `apply` and `diff`. Pure.

use serde_json::{Map, Value, json};

use super::backend::PatchType;
use super::resource::{Catalog, Resource};

/// `/openapi/v3`: one address per group and version; the digest in it changes with the content, so that clients may cache.
pub(crate) fn index(catalog: &Catalog) -> Value {
    let mut paths = Map::new();
    for (group, versions) in catalog.groups() {
        for version in versions {
            let path = path_of(group, version);
            let digest = digest(catalog, group, version);
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={digest}")}),
            );
        }
    }
    json!({"paths": paths})
}

fn path_of(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// A number that differs when the document differs: FNV-1a over what it is made from.
pub(crate) fn digest(catalog: &Catalog, group: &str, version: &str) -> String {
    let mut text = env!("CARGO_PKG_VERSION").to_owned();
    for resource in catalog.of_version(group, version) {
        let names = format!(
            "{} {} {} {:?}",
            resource.kind, resource.plural, resource.namespaced, resource.verbs
        );
        text.push_str(&format!("{names} {:?} {}\n", resource.subresources, resource.schema_digest));
    }
    format!("{:016X}", fnv(text.as_bytes()))
}

/// FNV-1a.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The document of one group and version; `None` when it is not served.
pub(crate) fn document(catalog: &Catalog, group: &str, version: &str, mut schemas: Map<String, Value>) -> Option<Value> {
    let mut paths = Map::new();
    for resource in catalog.of_version(group, version) {
        add_paths(&mut paths, resource);
        let (name, fallback) = component(resource);
        schemas.entry(name).or_insert(fallback);
    }
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": {"title": "Branchline", "version": env!("CARGO_PKG_VERSION")},
            "paths": paths, "components": {"schemas": schemas},
        })
    })
}

/// The component's name and what describes a kind whose fields are not known.
fn component(resource: &Resource) -> (String, Value) {
    let unknown = json!({
        "type": "object", "description": "", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
        },
        "x-kubernetes-group-version-kind": [gvk(resource)],
    });
    (component_name(resource), unknown)
}

fn component_name(resource: &Resource) -> String {
    if !resource.schema.is_empty() {
        return resource.schema.clone();
    }
    let mut group: Vec<&str> = resource.group.split('.').collect();
    group.reverse();
    format!("{}.{}.{}", group.join("."), resource.version, resource.kind)
}

fn gvk(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource) {
    let root = format!("/{}", path_of(&resource.group, &resource.version));
    let collection = match resource.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", resource.plural),
        false => format!("{root}/{}", resource.plural),
    };
    if resource.namespaced {
        let all = operations(resource, &[("get", "list")]);
        paths.insert(format!("{root}/{}", resource.plural), all);
    }
    let on_collection = [("get", "list"), ("post", "create"), ("delete", "deletecollection")];
    paths.insert(collection.clone(), operations(resource, &on_collection));
    let on_object = [("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")];
    paths.insert(format!("{collection}/{{name}}"), operations(resource, &on_object));
}

fn operations(resource: &Resource, verbs: &[(&str, &str)]) -> Value {
    let served = verbs.iter().filter(|(_, verb)| resource.allows(verb));
    served
        .map(|(method, verb)| ((*method).to_owned(), operation(resource, verb)))
        .collect::<Map<_, _>>()
        .into()
}

fn operation(resource: &Resource, verb: &str) -> Value {
    let action = match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    let schema = json!({"$ref": format!("#/components/schemas/{}", component_name(resource))});
    let mut operation = json!({
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(resource),
        "parameters": parameters(verb),
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
    });
    if let (Some(content), Some(map)) = (request_content(verb, &schema, resource), operation.as_object_mut()) {
        map.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    operation
}

fn parameters(verb: &str) -> Value {
    let names: &[&str] = match verb {
        "create" | "update" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        "list" => &[
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "watch",
        ],
        _ => &[],
    };
    names
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}))
        .collect()
}

fn request_content(verb: &str, schema: &Value, resource: &Resource) -> Option<Value> {
    match verb {
        "create" | "update" => Some(json!({"application/json": {"schema": schema}})),
        "patch" => Some(patch_types(resource)),
        _ => None,
    }
}

/// Clients choose the dialect of their patches by this list.
fn patch_types(resource: &Resource) -> Value {
    let types = PatchType::MEDIA_TYPES.iter();
    let understood = types.filter(|name| resource.strategic || !name.contains("strategic"));
    understood
        .map(|name| ((*name).to_owned(), json!({"schema": {"type": "object"}})))
        .collect::<Map<_, _>>()
        .into()
}

/// The old OpenAPI document, in JSON: the same components under their old address.
pub(crate) fn old_document(schemas: Map<String, Value>) -> Value {
    let definitions = Value::Object(schemas)
        .to_string()
        .replace("#/components/schemas/", "#/definitions/");
    let definitions: Value = serde_json::from_str(&definitions).unwrap_or_default();
    json!({
        "swagger": "2.0", "info": {"title": "Branchline", "version": env!("CARGO_PKG_VERSION")}, "paths": {}, "definitions": definitions,
    })
}

/// It in protobuf, which is the form that kubectl takes: the field `swagger` and nothing else.
pub(crate) const EMPTY_V2_PROTOBUF: &[u8] = b"\x0a\x032.0";
/// Content type of that form.
pub(crate) const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
