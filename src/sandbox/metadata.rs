//! What an API server fills into and demands of `metadata`: names, generation, protected fields. Pure; time, UIDs and random
//! suffixes are passed in.

use serde_json::{Map, Value, json};

use super::builtin;
use crate::kubeapi::{ApiError, Cause, Resource};

/// What the server gives to a new object.
#[derive(Debug, Clone)]
pub(super) struct Birth<'a> {
    pub(super) uid: &'a str,
    pub(super) now: &'a str,
    /// Five characters for `generateName`.
    pub(super) suffix: &'a str,
}

/// The metadata as a map, made if missing.
pub(super) fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let map = object
        .as_object_mut()
        .ok_or_else(|| ApiError::bad_request("the request body is not an object"))?;
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata
        .as_object_mut()
        .ok_or_else(|| ApiError::bad_request("metadata is not an object"))
}

/// The text at a pointer, empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Checks or fills in `apiVersion` and `kind`.
pub(super) fn check_kind(object: &mut Value, resource: &Resource) -> Result<(), ApiError> {
    let api_version = resource.api_version();
    let (given_version, given_kind) = (text(object, "/apiVersion").to_owned(), text(object, "/kind").to_owned());
    if !given_version.is_empty() && given_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "{given_kind} in version {:?} cannot be handled as a {}: the kind in the data does not match",
            resource.version, resource.kind
        )));
    }
    let map = object
        .as_object_mut()
        .ok_or_else(|| ApiError::bad_request("the request body is not an object"))?;
    map.insert("apiVersion".to_owned(), json!(api_version));
    map.insert("kind".to_owned(), json!(resource.kind));
    Ok(())
}

/// The namespace of the path is that of the object.
pub(super) fn check_namespace(object: &mut Value, namespace: Option<&str>) -> Result<(), ApiError> {
    let given = text(object, "/metadata/namespace").to_owned();
    let metadata = metadata(object)?;
    match namespace {
        Some(namespace) if given.is_empty() || given == namespace => {
            metadata.insert("namespace".to_owned(), json!(namespace));
            Ok(())
        }
        None if given.is_empty() => {
            metadata.remove("namespace");
            Ok(())
        }
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Gives a new object its name and identity.
pub(super) fn prepare_create(object: &mut Value, resource: &Resource, birth: &Birth<'_>) -> Result<(), ApiError> {
    if !text(object, "/metadata/resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if text(object, "/metadata/name").is_empty() {
        let prefix = text(object, "/metadata/generateName").to_owned();
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(resource, "", vec![cause]));
        }
        metadata(object)?.insert("name".to_owned(), json!(format!("{prefix}{}", birth.suffix)));
    }
    check_names(object, resource)?;
    let metadata = metadata(object)?;
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(birth.uid));
    metadata.insert("creationTimestamp".to_owned(), json!(birth.now));
    match has_generation(resource) {
        true => metadata.insert("generation".to_owned(), json!(1)),
        false => metadata.remove("generation"),
    };
    Ok(())
}

/// Kinds whose changes are counted: workloads, policies, webhooks, custom resource definitions and custom resources.
pub(super) fn has_generation(resource: &Resource) -> bool {
    const COUNTED: &[&str] = &[
        "cronjobs",
        "customresourcedefinitions",
        "daemonsets",
        "deployments",
        "endpointslices",
        "ingressclasses",
        "ingresses",
        "jobs",
        "mutatingwebhookconfigurations",
        "networkpolicies",
        "poddisruptionbudgets",
        "pods",
        "podtemplates",
        "priorityclasses",
        "replicasets",
        "replicationcontrollers",
        "statefulsets",
        "validatingwebhookconfigurations",
    ];
    !builtin::is_built_in(resource) || COUNTED.contains(&resource.plural.as_str())
}

/// Empty maps and lists in the metadata, and empty data, are the same as none.
pub(super) fn drop_empty(object: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Null => true,
        _ => false,
    };
    if let Some(map) = object.as_object_mut() {
        map.retain(|key, value| !(matches!(key.as_str(), "data" | "binaryData") && is_empty(value)));
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !is_empty(value));
    }
}

/// Null fields of built-in kinds are the same as none.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Protected metadata of an update is that of the live object; a different UID or revision is a conflict.
pub(super) fn prepare_update(new: &mut Value, live: &Value, resource: &Resource) -> Result<(), ApiError> {
    let name = text(live, "/metadata/name");
    let given_uid = text(new, "/metadata/uid");
    let live_uid = text(live, "/metadata/uid");
    if !given_uid.is_empty() && given_uid != live_uid {
        let why = format!("Precondition failed: UID in precondition: {given_uid}, UID in object meta: {live_uid}");
        return Err(ApiError::conflict(resource, name, &why));
    }
    let given_revision = text(new, "/metadata/resourceVersion");
    if !given_revision.is_empty() && given_revision != text(live, "/metadata/resourceVersion") {
        return Err(modified(resource, name));
    }
    let metadata = metadata(new)?;
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "selfLink",
    ] {
        match live.pointer(&format!("/metadata/{field}")) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    check_labels(new, resource)
}

/// Kubernetes' sentence for a lost race.
pub(super) fn modified(resource: &Resource, name: &str) -> ApiError {
    ApiError::conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// Counts the generation up when anything but metadata and status is different.
pub(super) fn count_generation(new: &mut Value, live: &Value, resource: &Resource) {
    if !has_generation(resource) || !spec_differs(new, live) {
        return;
    }
    let generation = live.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
}

fn spec_differs(new: &Value, live: &Value) -> bool {
    let (Some(new), Some(live)) = (new.as_object(), live.as_object()) else {
        return true;
    };
    let counts = |key: &String| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    new.iter()
        .filter(|(key, _)| counts(key))
        .any(|(key, value)| live.get(key) != Some(value))
        || live.keys().filter(|key| counts(key)).any(|key| !new.contains_key(key))
}

fn check_names(object: &Value, resource: &Resource) -> Result<(), ApiError> {
    let name = text(object, "/metadata/name");
    if let Some(problem) = name_problem(name, resource) {
        let cause = Cause::invalid("metadata.name", &json!(name), problem);
        return Err(ApiError::invalid(resource, name, vec![cause]));
    }
    check_labels(object, resource)
}

/// Labels and annotations are maps of texts, and label values are short and plain.
fn check_labels(object: &Value, resource: &Resource) -> Result<(), ApiError> {
    let name = text(object, "/metadata/name");
    for field in ["labels", "annotations"] {
        let entries = object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        if let Some((key, _)) = entries.into_iter().flatten().find(|(_, value)| !value.is_string()) {
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal a value that is not a string into \
                 metadata.{field} (key {key:?})",
                resource.kind, resource.version, resource.kind
            )));
        }
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let bad = labels
        .into_iter()
        .flatten()
        .find(|(_, value)| !is_label_value(value.as_str().unwrap_or_default()));
    match bad {
        Some((_, value)) => Err(ApiError::invalid(
            resource,
            name,
            vec![Cause::invalid("metadata.labels", value, LABEL_VALUE)],
        )),
        None => Ok(()),
    }
}

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
     and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
     end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
     alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and \
     end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn name_problem(name: &str, resource: &Resource) -> Option<&'static str> {
    let is_rbac = resource.group == "rbac.authorization.k8s.io";
    match (resource.group.as_str(), resource.plural.as_str()) {
        _ if is_rbac => (name.contains(['/', '%']) || name == "." || name == "..").then_some("may not contain '/' or '%'"),
        ("", "namespaces") if name.len() > 63 => Some("must be no more than 63 characters"),
        ("", "namespaces") => (!is_dns_label(name)).then_some(LABEL),
        ("", "services") if name.len() > 63 => Some("must be no more than 63 characters"),
        ("", "services") => {
            let starts_with_letter = name.starts_with(|c: char| c.is_ascii_lowercase());
            (!is_dns_label(name) || !starts_with_letter).then_some(SERVICE)
        }
        _ if name.len() > 253 => Some("must be no more than 253 characters"),
        _ => (!name.split('.').all(is_dns_label)).then_some(SUBDOMAIN),
    }
}

fn is_dns_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || c == '-')
}

fn is_label_value(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| plain(c) || matches!(c, '-' | '_' | '.');
    text.is_empty() || (text.len() <= 63 && text.starts_with(plain) && text.ends_with(plain) && text.chars().all(inner))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn config_maps() -> Resource {
        Resource::new("", "v1", "ConfigMap", "configmaps", true)
    }

    fn birth() -> Birth<'static> {
        Birth {
            uid: "u",
            now: "2026-01-01T00:00:00Z",
            suffix: "abcde",
        }
    }

    #[test]
    fn names_are_made_and_checked() {
        let mut object = json!({"metadata": {"generateName": "web-"}});
        prepare_create(&mut object, &config_maps(), &birth()).unwrap();
        assert_eq!(object["metadata"]["name"], "web-abcde");
        for bad in ["Web", "-a", "a_b", "a..b"] {
            let mut object = json!({"metadata": {"name": bad}});
            let error = prepare_create(&mut object, &config_maps(), &birth()).unwrap_err();
            assert_eq!((error.code, error.reason), (422, "Invalid"), "{bad}");
        }
        let error = prepare_create(&mut json!({}), &config_maps(), &birth()).unwrap_err();
        assert_eq!(
            error.message,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
        );
    }

    #[test]
    fn an_old_revision_is_a_conflict() {
        let live = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}});
        let mut new = json!({"metadata": {"name": "a", "resourceVersion": "6"}});
        let error = prepare_update(&mut new, &live, &config_maps()).unwrap_err();
        assert_eq!((error.code, error.reason), (409, "Conflict"));
        let mut new = json!({"metadata": {"name": "a", "uid": "other"}});
        assert!(prepare_update(&mut new, &live, &config_maps()).is_err());
        let mut new = json!({"metadata": {"name": "a"}});
        prepare_update(&mut new, &live, &config_maps()).unwrap();
        assert_eq!(new["metadata"]["uid"], "u");
    }
}
