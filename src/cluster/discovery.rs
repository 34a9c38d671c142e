//! Which kinds the API server serves, and under which path. Kept as one immutable snapshot that is replaced as a whole.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::client::Cluster;
use super::error::ApiError;
use crate::core::apply::Scope;
use crate::core::ids::group_of;

/// Asks for the whole catalog in one answer; a server older than 1.26 answers in the old form.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
/// Requests at once while the old form is read group by group.
const GROUPS_AT_ONCE: usize = 8;

/// Where objects of a kind are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// `deployments`.
    pub plural: String,
    /// Whether they live in namespaces.
    pub namespaced: bool,
    /// Known from its definition a moment ago: the API server may still answer 404 for it.
    pub fresh: bool,
}

/// All kinds that are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalog {
    /// `apiVersion` → kind → resource.
    versions: HashMap<String, HashMap<String, Resource>>,
}

impl Catalog {
    /// The resource of a kind.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.versions.get(api_version)?.get(kind)
    }

    /// The resource of a kind in some version that is served, with that `apiVersion`: always the same one.
    pub fn find_any(&self, group: &str, kind: &str) -> Option<(&str, &Resource)> {
        let of_group = self.versions.iter().filter(|(version, _)| group_of(version) == group);
        let served = of_group.filter_map(|(version, kinds)| Some((version.as_str(), kinds.get(kind)?)));
        served.max_by_key(|(version, _)| *version)
    }

    /// Where objects of a kind live, whichever version they have.
    pub fn scope(&self, group: &str, kind: &str) -> Scope {
        match self.find_any(group, kind) {
            Some((_, resource)) if resource.namespaced => Scope::Namespaced,
            Some(_) => Scope::Cluster,
            None => Scope::Unknown,
        }
    }

    fn add(&mut self, api_version: &str, kind: &str, plural: &str, namespaced: bool, fresh: bool) {
        let resource = Resource {
            plural: plural.to_owned(),
            namespaced,
            fresh,
        };
        self.versions
            .entry(api_version.to_owned())
            .or_default()
            .insert(kind.to_owned(), resource);
    }

    /// Adds the kinds that a CustomResourceDefinition defines.
    pub fn learn(&mut self, definition: &Value) {
        let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, kind, plural) = (text("/spec/group"), text("/spec/names/kind"), text("/spec/names/plural"));
        let namespaced = text("/spec/scope") == "Namespaced";
        let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
        for version in versions.into_iter().flatten() {
            let served = version.get("served").and_then(Value::as_bool).unwrap_or(false);
            if let Some(name) = version.get("name").and_then(Value::as_str).filter(|_| served) {
                self.add(&format!("{group}/{name}"), kind, plural, namespaced, true);
            }
        }
    }

    fn add_aggregated(&mut self, list: AggregatedList) {
        for group in list.items {
            for version in group.versions {
                let api_version = join(&group.metadata.name, &version.version);
                for resource in version.resources {
                    let namespaced = resource.scope == "Namespaced";
                    if let Some(kind) = resource.response_kind.filter(|kind| !kind.kind.is_empty()) {
                        self.add(&api_version, &kind.kind, &resource.resource, namespaced, false);
                    }
                }
            }
        }
    }

    fn add_list(&mut self, list: &ResourceList) {
        let objects = list.resources.iter().filter(|resource| !resource.name.contains('/'));
        for resource in objects {
            self.add(
                &list.group_version,
                &resource.kind,
                &resource.name,
                resource.namespaced,
                false,
            );
        }
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// The path of an API version's resources: `/api/v1`, `/apis/apps/v1`.
pub(super) fn version_path(api_version: &str) -> String {
    if api_version.contains('/') {
        format!("/apis/{api_version}")
    } else {
        format!("/api/{api_version}")
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AggregatedList {
    kind: String,
    items: Vec<AggregatedGroup>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AggregatedGroup {
    metadata: Named,
    versions: Vec<AggregatedVersion>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AggregatedVersion {
    version: String,
    resources: Vec<AggregatedResource>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AggregatedResource {
    resource: String,
    scope: String,
    response_kind: Option<ResponseKind>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseKind {
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Group {
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GroupVersion {
    group_version: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ResourceList {
    group_version: String,
    resources: Vec<ListedResource>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ListedResource {
    name: String,
    kind: String,
    namespaced: bool,
}

impl Cluster {
    /// The present snapshot.
    pub fn catalog(&self) -> std::sync::Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Makes sure that these kinds are looked up: reads the catalog again if one of them is missing. A kind that stays missing is no error here.
    pub async fn discover(&self, kinds: impl IntoIterator<Item = (&str, &str)>) -> Result<(), ApiError> {
        let before = self.catalog();
        let missing = kinds.into_iter().any(|(version, kind)| before.find(version, kind).is_none());
        if missing {
            self.refresh(&before).await?;
        }
        Ok(())
    }

    /// The resource of a kind; asks the API server when it is not known.
    pub async fn resource(&self, api_version: &str, kind: &str) -> Result<Resource, ApiError> {
        if let Some(resource) = self.catalog().find(api_version, kind) {
            return Ok(resource.clone());
        }
        self.discover([(api_version, kind)]).await?;
        self.catalog()
            .find(api_version, kind)
            .cloned()
            .ok_or_else(|| ApiError::NoSuchKind {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            })
    }

    /// Adds what a definition defines without asking again.
    pub(super) fn learn(&self, definition: &Value) {
        self.catalog.rcu(|catalog| {
            let mut next = Catalog::clone(catalog);
            next.learn(definition);
            next
        });
    }

    /// Reads the catalog anew, unless somebody else has done so since `seen` was taken.
    pub(super) async fn refresh(&self, seen: &std::sync::Arc<Catalog>) -> Result<(), ApiError> {
        let _one_at_a_time = self.refreshing.lock().await;
        if !std::sync::Arc::ptr_eq(seen, &self.catalog()) {
            return Ok(());
        }
        let mut catalog = Catalog::default();
        let (core, groups) = futures::join!(
            self.get_as::<Value>("/api", AGGREGATED),
            self.get_as::<Value>("/apis", AGGREGATED)
        );
        for (path, answer) in [("/api", core?), ("/apis", groups?)] {
            self.add_answer(&mut catalog, path, answer).await?;
        }
        self.catalog.store(std::sync::Arc::new(catalog));
        Ok(())
    }

    async fn add_answer(&self, catalog: &mut Catalog, path: &str, answer: Value) -> Result<(), ApiError> {
        let aggregated = answer.get("kind").and_then(Value::as_str) == Some("APIGroupDiscoveryList");
        if aggregated {
            let list: AggregatedList = serde_json::from_value(answer).map_err(|e| self.unexpected(path, &e))?;
            catalog.add_aggregated(list);
            return Ok(());
        }
        let versions = if path == "/api" {
            vec!["v1".to_owned()]
        } else {
            let list: GroupList = serde_json::from_value(answer).map_err(|e| self.unexpected(path, &e))?;
            let all = list.groups.into_iter().flat_map(|group| group.versions);
            all.map(|version| version.group_version).collect()
        };
        let lists = stream::iter(versions).map(async |version| self.get::<ResourceList>(&version_path(&version)).await);
        // One group whose backing service is down must not hide the others.
        let lists: Vec<_> = lists.buffer_unordered(GROUPS_AT_ONCE).collect().await;
        lists.iter().flatten().for_each(|list| catalog.add_list(list));
        match lists.into_iter().find_map(Result::err) {
            Some(error) if error.is_unreachable() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_the_aggregated_form() {
        let list = json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "apps"}, "versions": [{"version": "v1",
            "resources": [{"resource": "deployments", "scope": "Namespaced", "responseKind": {"group": "", "kind": "Deployment"}}]}]}]});
        let mut catalog = Catalog::default();
        catalog.add_aggregated(serde_json::from_value(list).unwrap());
        assert_eq!(catalog.find("apps/v1", "Deployment").unwrap().plural, "deployments");
        assert_eq!(catalog.scope("apps", "Deployment"), Scope::Namespaced);
        assert_eq!(catalog.scope("extensions", "Deployment"), Scope::Unknown);
    }

    #[test]
    fn reads_the_old_form_without_subresources() {
        let list = json!({"groupVersion": "v1", "resources": [{"name": "pods", "kind": "Pod", "namespaced": true},
            {"name": "pods/eviction", "kind": "Eviction", "namespaced": true}]});
        let mut catalog = Catalog::default();
        catalog.add_list(&serde_json::from_value(list).unwrap());
        assert!(catalog.find("v1", "Pod").is_some() && catalog.find("v1", "Eviction").is_none());
    }

    #[test]
    fn learns_served_versions_from_a_definition() {
        let definition = json!({"spec": {"group": "example.org", "scope": "Cluster", "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true}, {"name": "v0", "served": false}]}});
        let mut catalog = Catalog::default();
        catalog.learn(&definition);
        assert!(catalog.find("example.org/v1", "Widget").unwrap().fresh);
        assert!(catalog.find("example.org/v0", "Widget").is_none());
    }
}
