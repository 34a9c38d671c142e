//! RBAC objects below `hub/`: who may do what on the hub. Reads them as kube-apiserver would take them, and keeps the last readable ones
//! while a file does not parse; decides nothing about requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::kinds::{invalid, parse_at, unknown_field};
use super::{Definition, Reading};
use crate::core::access::rbac::{AccessKey, AccessObjects, Binding, PolicyRule, Role, SERVICE_ACCOUNT_PREFIX, Subject};
use crate::core::api::subscription::LabelSelector;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::object::Object;
use crate::core::selector::{Labels, Selector};

/// The group of roles and bindings.
pub(super) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const RBAC_VERSION: &str = "rbac.authorization.k8s.io/v1";
/// The kinds that are read.
const KINDS: [&str; 4] = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// A role or a binding, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDefinition {
    /// What it says.
    pub body: AccessBody,
    /// Where it is defined.
    pub definition: Definition,
}

/// A role or a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessBody {
    /// Role or ClusterRole.
    Role(Arc<Role>),
    /// RoleBinding or ClusterRoleBinding.
    Binding(Arc<Binding>),
}

/// What `hub/` says about access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessReadings {
    /// Roles and bindings.
    pub objects: BTreeMap<AccessKey, Reading<AccessDefinition>>,
    /// Whether a file below `hub/` could not be read, so that absence says nothing.
    pub incomplete: bool,
}

/// The roles and bindings that count: what was readable last.
pub type Access = BTreeMap<AccessKey, Arc<AccessDefinition>>;

/// The roles and bindings that count now. What cannot be read keeps what it granted last, no more and no less: rights go when a commit
/// takes them out of a tree whose files below `hub/` all parse.
pub fn follow(previous: &Access, readings: &AccessReadings) -> (Access, Vec<Diagnostic>) {
    let mut access = Access::new();
    let mut kept = Vec::new();
    for (key, reading) in &readings.objects {
        match (reading, previous.get(key)) {
            (Reading::Valid(definition), _) => drop(access.insert(key.clone(), Arc::clone(definition))),
            (Reading::Unreadable, Some(before)) => drop(access.insert(key.clone(), Arc::clone(before))),
            (Reading::Unreadable, None) => {}
        }
    }
    if readings.incomplete {
        let absent = previous.iter().filter(|(key, _)| !readings.objects.contains_key(*key));
        for (key, before) in absent {
            access.insert(key.clone(), Arc::clone(before));
            kept.push(kept_rights(key));
        }
    }
    (access, kept)
}

fn kept_rights(key: &AccessKey) -> Diagnostic {
    let message =
        format!("no readable file below hub/ defines {key}, while one there cannot be read: what it granted last still counts");
    Diagnostic::warning("kept-access", message)
        .object(key)
        .hint("repair the file below hub/; then what is gone grants nothing any more")
}

/// The objects as JSON, from which [`read_kept`] makes the same again.
pub fn kept_text(access: &Access) -> String {
    let objects = access
        .values()
        .map(|definition| definition.definition.object.as_value().clone());
    Value::Array(objects.collect()).to_string()
}

/// Reads what [`kept_text`] wrote; what cannot be read grants nothing.
pub fn read_kept(text: &str) -> Access {
    let objects: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let objects = objects.into_iter().filter_map(|value| Object::from_value(value).ok());
    let read = objects.filter_map(|object| {
        let definition = Definition {
            digest: ObjectId::hash(ObjectKind::Blob, object.as_value().to_string().as_bytes()),
            object: Arc::new(object),
            file: "".into(),
            line: 0,
            inside: Arc::default(),
            text: None,
        };
        let (key, body) = read_access(&definition, &mut Vec::new());
        Some((key, AccessDefinition { body: body?, definition }.into()))
    });
    read.collect()
}

/// The objects for [`crate::core::access::rbac::Policy`].
pub fn access_objects(access: &Access) -> AccessObjects {
    let mut objects = AccessObjects::default();
    for (key, definition) in access {
        match &definition.body {
            AccessBody::Role(role) => drop(objects.roles.insert(key.clone(), Arc::clone(role))),
            AccessBody::Binding(binding) => drop(objects.bindings.insert(key.clone(), Arc::clone(binding))),
        }
    }
    objects
}

/// Whether an object below `hub/` is read here.
pub(super) fn is_access(definition: &Definition) -> bool {
    definition.object.group() == RBAC_GROUP && KINDS.contains(&definition.object.kind())
}

/// Adds a role or binding.
pub(super) fn add_access(readings: &mut AccessReadings, definition: &Definition, out: &mut Vec<Diagnostic>) {
    let (key, read) = read_access(definition, out);
    let reading = read.map_or(Reading::Unreadable, |body| {
        let definition = definition.clone();
        Reading::Valid(AccessDefinition { body, definition }.into())
    });
    if let Some(known) = readings.objects.get_mut(&key) {
        let message = format!("{key} is defined more than once below hub/; until one is left, what it granted last counts");
        let diagnostic = Diagnostic::error("duplicate-object", message).hint("keep one");
        out.push(definition.locate(diagnostic, "/metadata/name"));
        *known = Reading::Unreadable;
    } else {
        readings.objects.insert(key, reading);
    }
}

/// Reads a role or binding; `None` with diagnostics where a part of it would be taken for more or less than it says.
fn read_access(definition: &Definition, out: &mut Vec<Diagnostic>) -> (AccessKey, Option<AccessBody>) {
    let object = &definition.object;
    let key = AccessKey {
        kind: object.kind().to_owned(),
        namespace: object.namespace().unwrap_or_default().to_owned(),
        name: object.name().to_owned(),
    };
    let before = out.len();
    check_place(definition, &key, out);
    let body = match key.kind.as_str() {
        "ClusterRole" | "Role" => read_role(definition, &key, out).map(|role| AccessBody::Role(role.into())),
        _ => read_binding(definition, &key, out).map(|binding| AccessBody::Binding(binding.into())),
    };
    (key, body.filter(|_| out.len() == before))
}

fn check_place(definition: &Definition, key: &AccessKey, out: &mut Vec<Diagnostic>) {
    if definition.object.api_version() != RBAC_VERSION {
        let message = format!("unknown apiVersion {:?} of a {}", definition.object.api_version(), key.kind);
        out.push(invalid(definition, "/apiVersion", message, &format!("write {RBAC_VERSION}")));
    }
    let of_the_hub = key.kind.starts_with("Cluster");
    if of_the_hub && !key.namespace.is_empty() {
        let message = format!("a {} has no namespace", key.kind);
        out.push(invalid(definition, "/metadata/namespace", message, "take it out"));
    } else if !of_the_hub && key.namespace.is_empty() {
        let message = format!("a {} is in a namespace, and this one names none", key.kind);
        out.push(invalid(
            definition,
            "/metadata/namespace",
            message,
            "name the namespace, for example a cluster's dedicated one",
        ));
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoleFields {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
    #[serde(default)]
    aggregation_rule: Option<AggregationRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregationRule {
    #[serde(default)]
    cluster_role_selectors: Vec<LabelSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingFields {
    #[serde(default)]
    subjects: Option<Vec<SubjectFields>>,
    role_ref: RoleRef,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubjectFields {
    kind: String,
    #[serde(default)]
    api_group: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoleRef {
    #[serde(default)]
    api_group: String,
    kind: String,
    name: String,
}

/// The fields besides identity. A field that is not known makes the object unreadable: a misspelt `resourceNames` would grant every name.
fn read_fields<T: serde::de::DeserializeOwned>(definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<T> {
    let own = definition
        .object
        .fields()
        .filter(|(field, _)| !["apiVersion", "kind", "metadata"].contains(field));
    let fields: Map<String, Value> = own.map(|(field, value)| (field.to_owned(), value.clone())).collect();
    let (read, unknown) = parse_at::<T>("", Value::Object(fields));
    out.extend(unknown.iter().map(|pointer| unknown_field(definition, pointer)));
    read.map_err(|(pointer, message)| out.push(invalid(definition, &pointer, message, "write it as Kubernetes' RBAC has it")))
        .ok()
}

fn read_role(definition: &Definition, key: &AccessKey, out: &mut Vec<Diagnostic>) -> Option<Role> {
    let fields: RoleFields = read_fields(definition, out)?;
    let rules = fields.rules.unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        if let Some((field, message, hint)) = problem_of(rule, key) {
            out.push(invalid(definition, &format!("/rules/{index}{field}"), message, hint));
        }
    }
    let aggregation = match fields.aggregation_rule {
        Some(_) if key.kind == "Role" => {
            out.push(invalid(
                definition,
                "/aggregationRule",
                "a Role aggregates nothing",
                "use a ClusterRole",
            ));
            None
        }
        Some(rule) => Some(read_selectors(definition, &rule.cluster_role_selectors, out)),
        None => None,
    };
    let labels: Labels = definition
        .object
        .labels()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Some(Role {
        rules,
        labels,
        aggregation,
    })
}

fn read_selectors(definition: &Definition, stated: &[LabelSelector], out: &mut Vec<Diagnostic>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (index, selector) in stated.iter().enumerate() {
        match Selector::parse(selector) {
            Ok(selector) => selectors.push(selector),
            Err(wrong) => {
                let pointer = format!("/aggregationRule/clusterRoleSelectors/{index}{}", wrong.pointer);
                out.push(invalid(definition, &pointer, wrong.message, "correct the selector"));
            }
        }
    }
    selectors
}

/// What kube-apiserver would refuse in a rule (k8s.io/kubernetes, `pkg/apis/rbac/validation`).
fn problem_of(rule: &PolicyRule, key: &AccessKey) -> Option<(&'static str, &'static str, &'static str)> {
    let has_resources = !(rule.api_groups.is_empty() && rule.resources.is_empty() && rule.resource_names.is_empty());
    if rule.verbs.is_empty() {
        return Some((
            "/verbs",
            "a rule without verbs grants nothing",
            "list verbs, or take the rule out",
        ));
    }
    if !rule.non_resource_urls.is_empty() {
        let in_namespace = key.kind == "Role";
        return match (in_namespace, has_resources) {
            (true, _) => Some(("/nonResourceURLs", "a Role cannot grant paths", "use a ClusterRole")),
            (_, true) => Some((
                "/nonResourceURLs",
                "a rule is about resources or about paths",
                "write two rules",
            )),
            _ => None,
        };
    }
    if rule.api_groups.is_empty() {
        return Some((
            "/apiGroups",
            "a rule about resources names API groups",
            "list them; \"\" is the core group",
        ));
    }
    rule.resources
        .is_empty()
        .then_some(("/resources", "a rule about resources names resources", "list them"))
}

fn read_binding(definition: &Definition, key: &AccessKey, out: &mut Vec<Diagnostic>) -> Option<Binding> {
    let fields: BindingFields = read_fields(definition, out)?;
    let kinds: &[&str] = if key.kind == "RoleBinding" {
        &["ClusterRole", "Role"]
    } else {
        &["ClusterRole"]
    };
    let role = &fields.role_ref;
    if !["", RBAC_GROUP].contains(&role.api_group.as_str()) {
        let message = format!("{:?} has no roles", role.api_group);
        out.push(invalid(
            definition,
            "/roleRef/apiGroup",
            message,
            &format!("write {RBAC_GROUP}"),
        ));
    }
    if !kinds.contains(&role.kind.as_str()) {
        let message = format!("a {} refers to {}, not to {:?}", key.kind, kinds.join(" or "), role.kind);
        out.push(invalid(definition, "/roleRef/kind", message, "correct the kind"));
    }
    let mut subjects = Vec::new();
    for (index, stated) in fields.subjects.unwrap_or_default().iter().enumerate() {
        match read_subject(stated) {
            Ok(subject) => subjects.push(subject),
            Err((field, message)) => {
                let pointer = format!("/subjects/{index}/{field}");
                out.push(invalid(
                    definition,
                    &pointer,
                    message,
                    "subjects are of kind User, Group or ServiceAccount",
                ));
            }
        }
    }
    let namespace = if role.kind == "Role" {
        key.namespace.clone()
    } else {
        String::new()
    };
    Some(Binding {
        subjects,
        role: AccessKey {
            kind: role.kind.clone(),
            namespace,
            name: role.name.clone(),
        },
    })
}

fn read_subject(stated: &SubjectFields) -> Result<Subject, (&'static str, String)> {
    let group = if stated.kind == "ServiceAccount" { "" } else { RBAC_GROUP };
    if !["", group].contains(&stated.api_group.as_str()) {
        return Err(("apiGroup", format!("{:?} has no {}", stated.api_group, stated.kind)));
    }
    if stated.name.is_empty() {
        return Err(("name", "the name is empty".to_owned()));
    }
    match (stated.kind.as_str(), stated.namespace.as_str()) {
        ("User", _) => Ok(Subject::User(stated.name.clone())),
        ("Group", _) => Ok(Subject::Group(stated.name.clone())),
        ("ServiceAccount", "") => Err((
            "namespace",
            "a ServiceAccount is in a namespace, and this one names none".to_owned(),
        )),
        ("ServiceAccount", namespace) => Ok(Subject::User(format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", stated.name))),
        (kind, _) => Err(("kind", format!("{kind:?} is no kind of subject"))),
    }
}

/// Bindings whose role nobody defines grant nothing, which is rarely meant.
pub(super) fn check_roles(readings: &AccessReadings, out: &mut Vec<Diagnostic>) {
    for definition in readings.objects.values().filter_map(Reading::valid) {
        let AccessBody::Binding(binding) = &definition.body else {
            continue;
        };
        if !readings.incomplete && !readings.objects.contains_key(&binding.role) {
            let message = format!("{} is not defined below hub/, so this binding grants nothing", binding.role);
            let hint = "define it, or correct the name";
            let diagnostic = Diagnostic::warning("missing-role", message).field("/roleRef/name").hint(hint);
            out.push(definition.definition.locate(diagnostic, "/roleRef/name"));
        }
    }
}

#[cfg(test)]
mod tests;
