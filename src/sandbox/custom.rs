//! Custom resource definitions: what the server fills into them, and the resource types that they add. Pure.

use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata::text;
use crate::kubeapi::table::{Columns, PathColumn, list};
use crate::kubeapi::{ApiError, Cause, PrinterPath, Resource, SUBRESOURCE, SubresourceKind, fnv};

/// Checks a definition and fills in the names that Kubernetes derives.
pub(super) fn prepare(definition: &mut Value, resource: &Resource) -> Result<(), ApiError> {
    let name = text(definition, "/metadata/name").to_owned();
    let mut causes = Vec::new();
    for pointer in ["/spec/group", "/spec/names/plural", "/spec/names/kind", "/spec/scope"] {
        if text(definition, pointer).is_empty() {
            causes.push(Cause::required(pointer.trim_start_matches('/').replace('/', "."), ""));
        }
    }
    if list(definition, "/spec/versions").is_empty() {
        causes.push(Cause::invalid(
            "spec.versions",
            &json!([]),
            "must have exactly one version marked as storage version",
        ));
    }
    let expected = format!(
        "{}.{}",
        text(definition, "/spec/names/plural"),
        text(definition, "/spec/group")
    );
    if causes.is_empty() && name != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &json!(name), detail));
    }
    if !causes.is_empty() {
        return Err(ApiError::invalid(resource, &name, causes));
    }
    let kind = text(definition, "/spec/names/kind").to_owned();
    if let Some(names) = definition.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
        names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    }
    if let Some(spec) = definition.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    }
    Ok(())
}

/// Declares the definition accepted and established, which takes a real server a moment.
pub(super) fn establish(definition: &mut Value, now: &str) {
    let names = definition.pointer("/spec/names").cloned().unwrap_or_default();
    let storage = list(definition, "/spec/versions")
        .iter()
        .find(|version| version["storage"] == true);
    let stored = storage.map(|version| text(version, "/name").to_owned());
    let mut status = definition.get("status").cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = status.as_object_mut() {
        map.insert("acceptedNames".to_owned(), names);
        map.entry("storedVersions").or_insert_with(|| stored.into_iter().collect());
        map.entry("conditions").or_insert_with(|| {
            json!([
                {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
                 "lastTransitionTime": now},
                {"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                 "message": "the initial names have been accepted", "lastTransitionTime": now},
            ])
        });
    }
    if let Some(map) = definition.as_object_mut() {
        map.insert("status".to_owned(), status);
    }
}

/// The resource types of all definitions, one per served version, the highest version of a group first.
pub(super) fn resources<'a>(definitions: impl Iterator<Item = &'a Value>) -> Vec<Arc<Resource>> {
    let mut resources: Vec<Arc<Resource>> = definitions.flat_map(served).map(Arc::new).collect();
    resources.sort_by_key(|resource| {
        let (stability, major, minor) = version_rank(&resource.version);
        (
            resource.group.clone(),
            std::cmp::Reverse((stability, major, minor)),
            resource.plural.clone(),
        )
    });
    resources
}

fn served(definition: &Value) -> Vec<Resource> {
    let versions = list(definition, "/spec/versions")
        .iter()
        .filter(|version| version["served"] == true);
    versions.map(|version| resource(definition, version)).collect()
}

fn resource(definition: &Value, version: &Value) -> Resource {
    let names = |field: &str| text(definition, &format!("/spec/names/{field}"));
    let all = |field: &str| -> Vec<String> {
        let entries = list(definition, &format!("/spec/names/{field}")).iter();
        entries.filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
    };
    let mut resource = Resource::new(
        text(definition, "/spec/group"),
        text(version, "/name"),
        names("kind"),
        names("plural"),
        text(definition, "/spec/scope") == "Namespaced",
    );
    resource.schema = format!("{}.{}.{}", resource.group, resource.version, resource.kind);
    resource.schema_digest = fnv(version["schema"].to_string().as_bytes());
    resource.singular = names("singular").to_owned();
    resource.short_names = all("shortNames");
    resource.categories = all("categories");
    resource.columns = columns(version);
    resource.selectable = list(version, "/selectableFields")
        .iter()
        .map(|field| text(field, "/jsonPath").trim_start_matches('.').to_owned())
        .collect();
    if version.pointer("/subresources/status").is_some() {
        resource = resource.with_status();
    }
    if version.pointer("/subresources/scale").is_some() {
        let kind = SubresourceKind {
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
        };
        resource = resource.with_subresource("scale", Some(kind), SUBRESOURCE);
    }
    resource
}

fn columns(version: &Value) -> Columns {
    let declared = list(version, "/additionalPrinterColumns");
    if declared.is_empty() {
        return Columns::NameAndAge;
    }
    let columns = declared.iter().filter_map(|column| {
        Some(PathColumn {
            name: text(column, "/name").to_owned(),
            kind: text(column, "/type").to_owned(),
            format: text(column, "/format").to_owned(),
            description: text(column, "/description").to_owned(),
            priority: i32::try_from(column["priority"].as_i64().unwrap_or(0)).unwrap_or(0),
            path: PrinterPath::parse(text(column, "/jsonPath"))?,
        })
    });
    Columns::Paths(columns.collect())
}

/// Kubernetes' order of versions: `v2` above `v1` above `v2beta1` above `v1alpha1` above anything else.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    for (word, stability) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (stability, number(major), number(minor));
        }
    }
    match rest.parse() {
        Ok(major) => (3, major, 0),
        Err(_) => (0, 0, 0),
    }
}

/// The OpenAPI schema of a served version, if the definition has one.
pub(super) fn schema_of<'a>(definition: &'a Value, version: &str) -> Option<&'a Value> {
    let versions = list(definition, "/spec/versions").iter();
    let version = versions.into_iter().find(|entry| text(entry, "/name") == version)?;
    version.pointer("/schema/openAPIV3Schema")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": false},
                    {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}},
                    {"name": "v0", "served": false, "storage": false},
                ],
            },
        })
    }

    #[test]
    fn every_served_version_is_a_resource() {
        let mut definition = definition();
        let kind = Resource::new(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            false,
        );
        prepare(&mut definition, &kind).unwrap();
        establish(&mut definition, "2026-01-01T00:00:00Z");
        assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
        let resources = resources(std::iter::once(&definition));
        let versions: Vec<&str> = resources.iter().map(|resource| resource.version.as_str()).collect();
        assert_eq!(versions, ["v1", "v1beta1"]);
        assert_eq!(resources[0].singular, "widget");
        assert!(resources[0].subresource("status").is_some() && resources[1].subresource("status").is_none());
    }

    #[test]
    fn versions_are_ordered_as_in_kubernetes() {
        let mut versions = ["v1alpha1", "foo", "v10", "v2", "v2beta1", "v1beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v10", "v2", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }
}
