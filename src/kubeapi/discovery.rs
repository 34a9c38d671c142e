//! Discovery documents from a catalog: the old per-version lists and the aggregated ones. Pure.

use serde_json::{Map, Value, json};

use super::resource::{Catalog, Resource, Subresource};

/// Content type of aggregated discovery.
pub(crate) const AGGREGATED_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    })
}

/// `/apis`.
pub(crate) fn groups(catalog: &Catalog) -> Value {
    let groups: Vec<Value> = named_groups(catalog)
        .map(|(name, versions)| group_entry(name, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`; `None` when the group is not served.
pub(crate) fn group(catalog: &Catalog, name: &str) -> Option<Value> {
    let (_, versions) = named_groups(catalog).find(|(group, _)| *group == name)?;
    let mut entry = group_entry(name, &versions);
    let map = entry.as_object_mut()?;
    map.insert("kind".to_owned(), json!("APIGroup"));
    map.insert("apiVersion".to_owned(), json!("v1"));
    Some(entry)
}

fn named_groups(catalog: &Catalog) -> impl Iterator<Item = (&str, Vec<&str>)> {
    catalog.groups().into_iter().filter(|(name, _)| !name.is_empty())
}

fn group_entry(name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/api/v1` and `/apis/<group>/<version>`; `None` when that version is not served.
pub(crate) fn resources(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let mut api_version = None;
    let mut entries = Vec::new();
    for resource in catalog.of_version(group, version) {
        api_version.get_or_insert_with(|| resource.api_version());
        entries.push(resource_entry(resource));
        entries.extend(resource.subresources.iter().map(|below| subresource_entry(resource, below)));
    }
    let api_version = api_version?;
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": entries}))
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced, "kind": resource.kind,
        "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    if let Some(map) = entry.as_object_mut() {
        map.insert("storageVersionHash".to_owned(), json!(""));
    }
    entry
}

fn add_names(entry: &mut Value, resource: &Resource) {
    let Some(map) = entry.as_object_mut() else { return };
    for (key, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !names.is_empty() {
            map.insert(key.to_owned(), json!(names));
        }
    }
}

fn subresource_entry(resource: &Resource, below: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, below.name), "singularName": "", "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": below.verbs,
    });
    if let (Some(kind), Some(map)) = (&below.kind, entry.as_object_mut()) {
        map.insert("group".to_owned(), json!(kind.group));
        map.insert("version".to_owned(), json!(kind.version));
        map.insert("kind".to_owned(), json!(kind.kind));
    }
    entry
}

/// Aggregated discovery of the core group (`/api`) or of all named groups (`/apis`).
pub(crate) fn aggregated(catalog: &Catalog, core: bool) -> Value {
    let items: Vec<Value> = catalog
        .groups()
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| aggregated_group(catalog, name, &versions))
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(catalog: &Catalog, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = catalog
                .of_version(group, version)
                .map(|resource| aggregated_entry(resource))
                .collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = match group {
        "" => json!({"creationTimestamp": null}),
        name => json!({"name": name, "creationTimestamp": null}),
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural, "singularResource": resource.singular,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    let below: Vec<Value> = resource
        .subresources
        .iter()
        .map(|below| aggregated_below(resource, below))
        .collect();
    if let (false, Some(map)) = (below.is_empty(), entry.as_object_mut()) {
        map.insert("subresources".to_owned(), Value::Array(below));
    }
    entry
}

fn aggregated_below(resource: &Resource, below: &Subresource) -> Value {
    let kind = match &below.kind {
        Some(kind) => json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
        None => json!({"group": resource.group, "version": resource.version, "kind": resource.kind}),
    };
    json!({"subresource": below.name, "responseKind": kind, "verbs": below.verbs})
}

/// `/`: the paths that are served.
pub(crate) fn paths(catalog: &Catalog) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in named_groups(catalog) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    let mut document = Map::new();
    document.insert("paths".to_owned(), json!(paths));
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::resource::SUBRESOURCE;
    use super::*;

    fn catalog() -> Catalog {
        Catalog::new(vec![
            Resource::new("", "v1", "Pod", "pods", true).short(&["po"]).with_status(),
            Resource::new("apps", "v1", "Deployment", "deployments", true)
                .in_categories(&["all"])
                .with_subresource("scale", None, SUBRESOURCE),
        ])
    }

    #[test]
    fn both_forms_name_the_same() {
        let list = resources(&catalog(), "apps", "v1").unwrap();
        assert_eq!(list["groupVersion"], "apps/v1");
        assert_eq!(list["resources"][0]["singularName"], "deployment");
        assert_eq!(list["resources"][1]["name"], "deployments/scale");
        let aggregated = aggregated(&catalog(), false);
        let entry = &aggregated["items"][0]["versions"][0]["resources"][0];
        assert_eq!(
            (&entry["resource"], &entry["categories"][0]),
            (&json!("deployments"), &json!("all"))
        );
        assert!(group(&catalog(), "batch").is_none());
        assert_eq!(
            group(&catalog(), "apps").unwrap()["preferredVersion"]["groupVersion"],
            "apps/v1"
        );
    }
}
