//! The sandbox's patch engine beside a real API server: every step of a script goes to both, with the real object before the step as the
//! engine's live object. What a manager owns must come out the same, to the last path; so must conflicts and their messages.
//!
//! The engine sets no defaults. So an applied object has to be within the real one, and an update is recorded from the object as the real
//! server stored it.

use std::collections::BTreeSet;

use branchline::sandbox::fields::{
    ApplyError, KindSchema, PatchContext, conflict_causes, conflict_message, json_patch, merge_patch, strategic_merge_patch,
};
use serde_json::{Value, json};

use super::apiserver::ApiServer;
use super::{holds, wait_until};

const NOW: &str = "2026-01-01T00:00:00Z";

/// One object in a real API server and how it got there.
pub(crate) struct Twin {
    server: &'static ApiServer,
    collection: String,
    name: String,
    api_version: String,
    kind: String,
    schema: KindSchema,
    /// The object as the real server has it.
    pub(crate) live: Option<Value>,
    /// Whether the kind has no defaults, so that objects must be equal.
    exact: bool,
    /// Whether steps may fail for reasons that are no concern of the engine: values that the real server does not accept.
    tolerant: bool,
}

impl Twin {
    pub(crate) fn new(collection: &str, object: &Value) -> Twin {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
        Twin {
            server: ApiServer::shared(),
            collection: collection.to_owned(),
            name: text("/metadata/name"),
            schema: KindSchema::of(&text("/apiVersion"), &text("/kind")),
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            live: None,
            exact: false,
            tolerant: false,
        }
    }

    /// A custom resource, by the schema of its definition, which has no defaults.
    pub(crate) fn custom(collection: &str, definition: &Value, object: &Value) -> Twin {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        Twin {
            schema: KindSchema::custom(object["kind"].as_str().unwrap(), schema, true),
            exact: true,
            ..Twin::new(collection, object)
        }
    }

    /// Objects must be equal.
    pub(crate) fn exact(self) -> Twin {
        Twin { exact: true, ..self }
    }

    /// Steps may be refused by the real server.
    pub(crate) fn tolerant(self) -> Twin {
        Twin { tolerant: true, ..self }
    }

    fn context<'a>(&'a self, manager: &'a str, subresource: &'a str) -> PatchContext<'a> {
        PatchContext {
            api_version: &self.api_version,
            kind: &self.kind,
            manager,
            subresource,
            now: NOW,
        }
    }

    fn path(&self, subresource: &str, query: &str) -> String {
        let subresource = if subresource.is_empty() {
            String::new()
        } else {
            format!("/{subresource}")
        };
        format!("{}/{}{subresource}?{query}", self.collection, self.name)
    }

    /// Applies in both; true if both did, false if both refused with the same words.
    #[track_caller]
    pub(crate) fn apply_to(&mut self, subresource: &str, manager: &str, applied: &Value, force: bool) -> bool {
        let path = self.path(subresource, &format!("fieldManager={manager}&force={force}"));
        let answer = self.server.send("PATCH", &path, "application/apply-patch+yaml", applied);
        let ours = self
            .schema
            .apply(self.live.as_ref(), applied, &self.context(manager, subresource), force);
        match ours {
            Ok(_) if self.tolerant && answer.status == 422 => false,
            Ok(ours) => {
                assert!(answer.status < 300, "refused by the real server only: {}", answer.body);
                self.compare(&ours, answer.json());
                true
            }
            Err(ApplyError::Conflicts(conflicts)) => {
                let status = answer.json();
                assert_eq!(status["message"], conflict_message(&conflicts), "{}", answer.body);
                // The real server takes the managers in the order of a Go map, which is none.
                let causes = |causes: &Value| {
                    causes
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(Value::to_string)
                        .collect::<BTreeSet<_>>()
                };
                assert_eq!(causes(&status["details"]["causes"]), causes(&conflict_causes(&conflicts)));
                assert_eq!(answer.status, 409);
                false
            }
            Err(ApplyError::Invalid(message)) => {
                assert_eq!(
                    (answer.json()["message"].as_str(), answer.status),
                    (Some(message.as_str()), 400)
                );
                false
            }
            Err(ApplyError::NotOfType(message)) => {
                // The real server finds problems in the order of a Go map, which is none.
                let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
                let real = answer.json();
                assert_eq!(
                    (lines(real["message"].as_str().unwrap()), answer.status),
                    (lines(&message), 500)
                );
                false
            }
        }
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, manager: &str, applied: &Value) -> bool {
        self.apply_to("", manager, applied, false)
    }

    #[track_caller]
    pub(crate) fn force(&mut self, manager: &str, applied: &Value) {
        assert!(self.apply_to("", manager, applied, true));
    }

    #[track_caller]
    pub(crate) fn create(&mut self, manager: &str, object: &Value) {
        let path = format!("{}?fieldManager={manager}", self.collection);
        let answer = self.server.send("POST", &path, "application/json", object);
        assert_eq!(answer.status, 201, "{}", answer.body);
        self.record(manager, "", None, answer.json());
    }

    /// Replaces the live object by what `edit` makes of it.
    #[track_caller]
    pub(crate) fn update(&mut self, manager: &str, subresource: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.live.clone().unwrap();
        edit(&mut object);
        let path = self.path(subresource, &format!("fieldManager={manager}"));
        let answer = self.server.send("PUT", &path, "application/json", &object);
        if self.tolerant && answer.status == 422 {
            return;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let sent = object.pointer("/metadata/managedFields").cloned();
        self.record(manager, subresource, sent, answer.json());
    }

    /// Patches in both with one of the three patch types.
    #[track_caller]
    pub(crate) fn patch(&mut self, manager: &str, dialect: &str, patch: &Value) {
        let path = self.path("", &format!("fieldManager={manager}"));
        let answer = self
            .server
            .send("PATCH", &path, &format!("application/{dialect}+json"), patch);
        let live = self.live.as_ref().unwrap();
        let ours = match dialect {
            "strategic-merge-patch" => strategic_merge_patch(live, patch, &self.api_version, &self.kind),
            "merge-patch" => Ok(merge_patch(live, patch)),
            _ => json_patch(live, patch),
        };
        let ours = match ours {
            Ok(_) if self.tolerant && answer.status == 422 => return,
            Ok(ours) => ours,
            Err(problem) => return assert!(answer.status >= 400, "refused by the engine only: {problem}"),
        };
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_within(&served(&ours), &served(&answer.json()));
        let sent = ours.pointer("/metadata/managedFields").cloned();
        self.record(manager, "", sent, answer.json());
    }

    /// Records the step from the live object to the one that the real server stored.
    #[track_caller]
    fn record(&mut self, manager: &str, subresource: &str, sent: Option<Value>, real: Value) {
        let mut new = real.clone();
        match sent {
            Some(sent) => new["metadata"]["managedFields"] = sent,
            None => drop(new["metadata"].as_object_mut().unwrap().remove("managedFields")),
        }
        if self.kind == "Service" && self.live.is_none() {
            // Allocated after the fields were recorded.
            let spec = new["spec"].as_object_mut().unwrap();
            spec.retain(|field, _| !["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"].contains(&field.as_str()));
        }
        let ours = self
            .schema
            .record(self.live.as_ref(), new, &self.context(manager, subresource));
        self.compare(&ours, real);
    }

    #[track_caller]
    fn compare(&mut self, ours: &Value, real: Value) {
        assert_eq!(pretty(&managers(ours)), pretty(&managers(&real)), "managers of {}", self.name);
        match self.exact {
            true => assert_eq!(pretty(&served(ours)), pretty(&served(&real))),
            false => assert_within(&served(ours), &served(&real)),
        }
        self.live = Some(real);
    }
}

/// The managed fields without the values of times, sorted: entries of one second are in no order that matters.
fn managers(object: &Value) -> Value {
    let mut entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    for entry in &mut entries {
        if let Some(time) = entry.get_mut("time") {
            *time = json!("…");
        }
    }
    entries.sort_by_key(Value::to_string);
    Value::Array(entries)
}

/// The object without what the server itself writes.
fn served(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "namespace",
            "managedFields",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
        ] {
            metadata.remove(field);
        }
    }
    object
}

/// Everything of `part` but empty values is in `whole`, list items in the same order.
#[track_caller]
fn assert_within(part: &Value, whole: &Value) {
    assert!(
        is_within(part, whole),
        "not all of\n{}\nis in\n{}",
        pretty(part),
        pretty(whole)
    );
}

fn is_within(part: &Value, whole: &Value) -> bool {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().all(|(key, part)| match whole.get(key) {
            Some(whole) => is_within(part, whole),
            None => nothing(part),
        }),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(part, whole)| is_within(part, whole))
        }
        (part, whole) => part == whole,
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

pub(crate) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub(crate) fn deployment(name: &str, spec: &str) -> Value {
    let mut object = yaml(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}}}"
    ));
    object["spec"] = yaml(spec);
    object
}

/// A schema with every way to merge.
pub(crate) const RULED: &str = "{type: object, properties: {
  set: {type: array, x-kubernetes-list-type: set, items: {type: string}},
        numbers: {type: array, x-kubernetes-list-type: set, items: {type: integer}},
        items: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name, port], items: {type: object, required: [name],
          properties: {name: {type: string}, port: {type: integer, default: 80}, value: {x-kubernetes-int-or-string: true}, deep: {type: object,
          additionalProperties: {type: array, items: {type: string}}}}}},
        atom: {type: object, x-kubernetes-map-type: atomic, properties: {a: {type: string}, b: {type: string}}},
        plain: {type: array, items: {type: object, properties: {a: {type: string}}}},
        when: {type: string, format: date-time},
        inner: {type: object, properties: {free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {known: {type: object,
          properties: {x: {type: string}}}}}}}}}";

/// A custom resource definition whose version has this schema below `spec`.
pub(crate) fn definition(plural: &str, kind: &str, spec: &str) -> Value {
    let schema = yaml(&format!(
        "{{type: object, properties: {{spec: {spec}, status: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}"
    ));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.engine.test")},
        "spec": {
            "group": "engine.test", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}],
        }
    })
}

/// Makes the kind and waits until it is served.
pub(crate) fn define(definition: &Value) -> String {
    let server = ApiServer::shared();
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let answer = server.send("POST", path, "application/json", definition);
    assert_eq!(answer.status, 201, "{}", answer.body);
    let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
    let collection = format!("/apis/engine.test/v1/namespaces/default/{plural}");
    wait_until("the kind is served", || {
        let answer = server.client().get(&collection)?;
        holds(answer.status == 200, answer.body)
    });
    collection
}

pub(crate) fn custom(kind: &str, name: &str, spec: &str) -> Value {
    let mut object = yaml(&format!(
        "{{apiVersion: engine.test/v1, kind: {kind}, metadata: {{name: {name}}}}}"
    ));
    object["spec"] = yaml(spec);
    object
}
