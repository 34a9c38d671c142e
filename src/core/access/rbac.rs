//! Roles and bindings as Kubernetes' RBAC has them (rbac.authorization.k8s.io/v1), and whether they allow a request, and by which rule.
//! The rules of matching are those of kube-apiserver's RBAC authorizer: rights only add up, nothing denies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::attributes::{Attributes, Target};
use super::{ADMINS, User};
use crate::core::selector::{Labels, Selector};

/// The group that every authenticated user is in.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of requests without any credential.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of requests without any credential.
pub const ANONYMOUS: &str = "system:anonymous";
/// What the user names of ServiceAccounts begin with; namespace, colon and name follow.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// What every authenticated user may read, as under kube-apiserver's ClusterRole `system:discovery`: it tells which kinds there are and
/// nothing about objects.
const DISCOVERY: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/openapi",
    "/openapi/*",
    "/version",
    "/version/",
    "/healthz",
    "/livez",
    "/readyz",
];

/// One rule of a Role or ClusterRole. Empty lists match nothing, but empty `resource_names` match every name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// `get`, `list`, …, `*`.
    pub verbs: Vec<String>,
    /// API groups; the empty text is the core group, `*` every one.
    pub api_groups: Vec<String>,
    /// Plural names, `resource/subresource`, `*/subresource`, `*`.
    pub resources: Vec<String>,
    /// Names of objects.
    pub resource_names: Vec<String>,
    /// Paths that are no resources, with `*` at their end as wildcard.
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

impl PolicyRule {
    /// Whether this rule allows the request.
    pub fn allows(&self, attributes: &Attributes) -> bool {
        let verb = holds(&self.verbs, &attributes.verb);
        verb && match &attributes.target {
            Target::Path(path) => self.non_resource_urls.iter().any(|url| matches_path(url, path)),
            Target::Resource(asked) => {
                holds(&self.api_groups, &asked.group)
                    && self.resources.iter().any(|resource| matches_resource(resource, asked))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| asked.is_named(name)))
            }
        }
    }
}

fn holds(list: &[String], asked: &str) -> bool {
    list.iter().any(|stated| stated == "*" || stated == asked)
}

fn matches_path(stated: &str, path: &str) -> bool {
    match stated.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => stated == path,
    }
}

fn matches_resource(stated: &str, asked: &super::attributes::ResourceAttributes) -> bool {
    if stated == "*" {
        return true;
    }
    match (stated.split_once('/'), asked.subresource.as_deref()) {
        (None, None) => stated == asked.resource,
        (Some((resource, stated)), Some(subresource)) => stated == subresource && (resource == "*" || resource == asked.resource),
        _ => false,
    }
}

/// Identity of a role or binding; the namespace is empty for those of the whole hub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccessKey {
    /// `ClusterRole`, `Role`, `ClusterRoleBinding` or `RoleBinding`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// A Role or ClusterRole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Role {
    /// Its own rules.
    pub rules: Vec<PolicyRule>,
    /// Labels, by which others aggregate it.
    pub labels: Labels,
    /// A ClusterRole with this has the rules of every ClusterRole that one of the selectors matches, in place of its own.
    pub aggregation: Option<Vec<Selector>>,
}

/// Whom a binding is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// A user by name. A ServiceAccount is the user `system:serviceaccount:<namespace>:<name>`.
    User(String),
    /// A group.
    Group(String),
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Whom it is for.
    pub subjects: Vec<Subject>,
    /// The role.
    pub role: AccessKey,
}

/// Every role and binding that counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessObjects {
    /// Roles.
    pub roles: BTreeMap<AccessKey, Arc<Role>>,
    /// Bindings.
    pub bindings: BTreeMap<AccessKey, Arc<Binding>>,
}

/// Why a request is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedBy {
    /// Membership of [`ADMINS`].
    Administrators,
    /// What every authenticated user may read, and ask about himself.
    Discovery,
    /// A rule of this role, by this binding.
    Rule {
        /// The binding.
        binding: AccessKey,
        /// The role.
        role: AccessKey,
        /// Which of the role's rules, counted from 0.
        rule: usize,
    },
}

impl std::fmt::Display for AllowedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AllowedBy::Administrators => write!(f, "group {ADMINS}"),
            AllowedBy::Discovery => write!(f, "discovery, which every authenticated user may read"),
            AllowedBy::Rule { binding, role, rule } => write!(f, "{binding}: rules/{rule} of {role}"),
        }
    }
}

/// What a binding grants, with its role looked up.
#[derive(Debug)]
struct Grant {
    binding: AccessKey,
    role: AccessKey,
    rules: Arc<[PolicyRule]>,
}

/// Roles and bindings, ready to be asked.
#[derive(Debug, Default)]
pub struct Policy {
    grants: Vec<Grant>,
    by_subject: HashMap<Subject, Vec<usize>>,
}

impl Policy {
    /// Looks up each binding's role. A binding whose role is not there grants nothing.
    pub fn new(objects: &AccessObjects) -> Self {
        let rules: BTreeMap<&AccessKey, Arc<[PolicyRule]>> = objects
            .roles
            .keys()
            .map(|key| (key, effective_rules(key, objects, &mut BTreeSet::new()).into()))
            .collect();
        let mut policy = Policy::default();
        for (key, binding) in &objects.bindings {
            let Some(rules) = rules.get(&binding.role) else { continue };
            for subject in &binding.subjects {
                let grants = policy.by_subject.entry(subject.clone()).or_default();
                grants.push(policy.grants.len());
            }
            policy.grants.push(Grant {
                binding: key.clone(),
                role: binding.role.clone(),
                rules: Arc::clone(rules),
            });
        }
        policy
    }

    /// By what the user may do this; `None` when nothing allows it.
    pub fn decide(&self, user: &User, attributes: &Attributes) -> Option<AllowedBy> {
        if user.groups.iter().any(|group| group == ADMINS) {
            return Some(AllowedBy::Administrators);
        }
        if is_discovery(user, attributes) || is_about_oneself(user, attributes) {
            return Some(AllowedBy::Discovery);
        }
        self.grants_of(user).find_map(|grant| grant.decide(attributes))
    }

    /// The rules that bindings give the user in a namespace, those for the whole hub included.
    pub fn rules_of(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let everything = || PolicyRule {
            verbs: vec!["*".to_owned()],
            api_groups: vec!["*".to_owned()],
            resources: vec!["*".to_owned()],
            resource_names: Vec::new(),
            non_resource_urls: vec!["*".to_owned()],
        };
        if user.groups.iter().any(|group| group == ADMINS) {
            return vec![everything()];
        }
        let reaches = |grant: &&Grant| grant.binding.namespace.is_empty() || grant.binding.namespace == namespace;
        let grants = self.grants_of(user).filter(reaches);
        grants.flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    fn grants_of(&self, user: &User) -> impl Iterator<Item = &Grant> {
        let own = Subject::User(user.name.clone());
        let all = implied_group(user).map(|group| Subject::Group(group.to_owned()));
        let groups: Vec<Subject> = user.groups.iter().cloned().map(Subject::Group).collect();
        std::iter::once(own)
            .chain(all)
            .chain(groups)
            .filter_map(|subject| self.by_subject.get(&subject))
            .flatten()
            .map(|index| &self.grants[*index])
    }
}

impl Grant {
    fn decide(&self, attributes: &Attributes) -> Option<AllowedBy> {
        let reaches = self.binding.namespace.is_empty() || attributes.namespace() == Some(&self.binding.namespace);
        let rule = reaches.then(|| self.rules.iter().position(|rule| rule.allows(attributes)))??;
        Some(AllowedBy::Rule {
            binding: self.binding.clone(),
            role: self.role.clone(),
            rule,
        })
    }
}

/// Whoever has a name is authenticated, as kube-apiserver counts it.
fn implied_group(user: &User) -> Option<&'static str> {
    let known = |group: &&str| !user.groups.iter().any(|known| known == group);
    let group = match user.name.as_str() {
        ANONYMOUS => UNAUTHENTICATED,
        _ => AUTHENTICATED,
    };
    Some(group).filter(known)
}

fn is_discovery(user: &User, attributes: &Attributes) -> bool {
    let Target::Path(path) = &attributes.target else {
        return false;
    };
    let reads = ["get", "head"].contains(&attributes.verb.as_str());
    reads && user.name != ANONYMOUS && DISCOVERY.iter().any(|url| matches_path(url, path))
}

/// What everybody may ask about himself, as under kube-apiserver's ClusterRole `system:basic-user`.
fn is_about_oneself(user: &User, attributes: &Attributes) -> bool {
    const REVIEWS: [(&str, &str); 3] = [
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ];
    let Target::Resource(asked) = &attributes.target else {
        return false;
    };
    let review = (asked.group.as_str(), asked.resource.as_str());
    attributes.verb == "create" && user.name != ANONYMOUS && REVIEWS.contains(&review)
}

/// A role's own rules, or those of the ClusterRoles that it aggregates, which may aggregate others in turn.
fn effective_rules(key: &AccessKey, objects: &AccessObjects, seen: &mut BTreeSet<AccessKey>) -> Vec<PolicyRule> {
    let Some(role) = objects.roles.get(key).filter(|_| seen.insert(key.clone())) else {
        return Vec::new();
    };
    let Some(selectors) = &role.aggregation else {
        return role.rules.clone();
    };
    let matches = |other: &Role| selectors.iter().any(|selector| selector.matches(&other.labels));
    let aggregated = objects
        .roles
        .iter()
        .filter(|(key, other)| key.kind == "ClusterRole" && matches(other));
    aggregated.flat_map(|(key, _)| effective_rules(key, objects, seen)).collect()
}
