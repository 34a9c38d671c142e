//! What a server serves: resource types, and the catalog that finds them by path, for discovery and for OpenAPI.

use std::sync::Arc;

use serde_json::Value;

use super::table::Columns;

/// Which collection an object is stored in; the version is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// Group, empty for the core group.
    pub group: Arc<str>,
    /// Plural resource name.
    pub plural: Arc<str>,
}

/// Makes what a resource shows of an object that is stored for another; `None` where it shows nothing of it.
pub type View = fn(Value) -> Option<Value>;

/// A served resource type in one version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Where its objects are stored.
    pub id: ResourceId,
    /// Group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind in its own spelling.
    pub kind: String,
    /// Plural resource name, as in paths.
    pub plural: String,
    /// Singular name for command lines.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Short names for command lines.
    pub short_names: Vec<String>,
    /// `all` and the like.
    pub categories: Vec<String>,
    /// Verbs that discovery announces and the front lets through.
    pub verbs: &'static [&'static str],
    /// `status` and the like that are served below objects.
    pub subresources: Vec<Subresource>,
    /// How lists are printed.
    pub columns: Columns,
    /// Fields besides name and namespace that field selectors may name.
    pub selectable: Vec<String>,
    /// Whether strategic merge patches are understood, which takes merge keys: true for Kubernetes' own kinds only.
    pub strategic: bool,
    /// Name of the OpenAPI component that describes it; empty when any object is accepted.
    pub schema: String,
    /// What it shows of the stored objects, where these are another resource's.
    pub view: Option<View>,
    /// Differs when the schema of a custom resource differs, so that clients read it again.
    pub schema_digest: u64,
}

/// A subresource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// `status` or `scale`.
    pub name: String,
    /// Kind of what it exchanges, if not the resource's own.
    pub kind: Option<SubresourceKind>,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// The kind that a subresource exchanges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubresourceKind {
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
}

/// Verbs of a resource that clients may change.
pub const READ_WRITE: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Verbs of a resource that clients may only look at.
pub const READ_ONLY: &[&str] = &["get", "list", "watch"];
/// Verbs of `status` and `scale`.
pub const SUBRESOURCE: &[&str] = &["get", "patch", "update"];

impl Resource {
    /// A resource with the usual verbs, printed by name and age. The singular is the kind in lower case.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Resource {
        Resource {
            id: ResourceId {
                group: group.into(),
                plural: plural.into(),
            },
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_ascii_lowercase(),
            namespaced,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: READ_WRITE,
            subresources: Vec::new(),
            columns: Columns::NameAndAge,
            selectable: Vec::new(),
            strategic: false,
            schema: String::new(),
            view: None,
            schema_digest: 0,
        }
    }

    /// With short names.
    #[must_use]
    pub fn short(mut self, names: &[&str]) -> Resource {
        self.short_names = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// In categories.
    #[must_use]
    pub fn in_categories(mut self, names: &[&str]) -> Resource {
        self.categories = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Printed with these columns.
    #[must_use]
    pub fn printed(mut self, columns: Columns) -> Resource {
        self.columns = columns;
        self
    }

    /// Showing the objects of another resource in another form: nothing is stored twice, and revisions and watches are those of the other.
    #[must_use]
    pub fn seen_as(mut self, stored: ResourceId, view: View) -> Resource {
        self.id = stored;
        self.view = Some(view);
        self
    }

    /// What this resource shows of a stored object.
    pub fn see(&self, stored: Value) -> Option<Value> {
        match self.view {
            None => Some(stored),
            Some(view) => view(stored),
        }
    }

    /// With these verbs.
    #[must_use]
    pub fn with_verbs(mut self, verbs: &'static [&'static str]) -> Resource {
        self.verbs = verbs;
        self
    }

    /// With a `status` subresource.
    #[must_use]
    pub fn with_status(self) -> Resource {
        self.with_subresource("status", None, SUBRESOURCE)
    }

    /// With a subresource.
    #[must_use]
    pub fn with_subresource(mut self, name: &str, kind: Option<SubresourceKind>, verbs: &'static [&'static str]) -> Resource {
        self.subresources.push(Subresource {
            name: name.to_owned(),
            kind,
            verbs,
        });
        self
    }

    /// With fields that field selectors may name.
    #[must_use]
    pub fn selectable_by(mut self, fields: &[&str]) -> Resource {
        self.selectable = fields.iter().map(|field| (*field).to_owned()).collect();
        self
    }

    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `deployments.apps`, `pods`: how messages name the resource.
    pub fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// Whether discovery announces the verb.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

/// The resource types that a server serves at one moment: a shared base and what was added to it (custom resources).
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    base: Arc<Vec<Arc<Resource>>>,
    added: Vec<Arc<Resource>>,
}

impl Catalog {
    /// A catalog of the given resources; the first version of a group is its preferred one.
    pub fn new(resources: Vec<Resource>) -> Catalog {
        Catalog {
            base: Arc::new(resources.into_iter().map(Arc::new).collect()),
            added: Vec::new(),
        }
    }

    /// The same base with other additions.
    #[must_use]
    pub fn with_added(&self, added: Vec<Arc<Resource>>) -> Catalog {
        Catalog {
            base: self.base.clone(),
            added,
        }
    }

    /// All resources, base first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.base.iter().chain(&self.added)
    }

    /// The resource of a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.iter()
            .find(|resource| resource.plural == plural && resource.group == group && resource.version == version)
    }

    /// The resource of a kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.iter()
            .find(|resource| resource.kind == kind && resource.group == group && resource.version == version)
    }

    /// Groups in order of appearance, each with its versions in order of preference.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for resource in self.iter() {
            let (group, version) = (resource.group.as_str(), resource.version.as_str());
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, versions)) if versions.contains(&version) => {}
                Some((_, versions)) => versions.push(version),
                None => groups.push((group, vec![version])),
            }
        }
        groups
    }

    /// The resources of one group and version.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.iter()
            .filter(move |resource| resource.group == group && resource.version == version)
    }
}
