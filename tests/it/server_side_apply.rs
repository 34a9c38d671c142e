//! The sandbox's patch engine beside a real API server: every step of a script goes to both, with the real object before the step as the
//! engine's live object. What a manager owns must come out the same, to the last path; so must conflicts and their messages.
//!
//! The engine sets no defaults. So an applied object has to be within the real one, and an update is recorded from the object as the real
//! server stored it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use branchline::sandbox::fields::{
    ApplyError, KindSchema, PatchContext, conflict_causes, conflict_message, json_patch, merge_patch, strategic_merge_patch,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};

use crate::support::apiserver::ApiServer;
use crate::support::{holds, wait_until};

const NOW: &str = "2026-01-01T00:00:00Z";

/// One object in a real API server and how it got there.
struct Twin {
    server: &'static ApiServer,
    collection: String,
    name: String,
    api_version: String,
    kind: String,
    schema: KindSchema,
    live: Option<Value>,
    /// Whether the kind has no defaults, so that objects must be equal.
    exact: bool,
    /// Whether steps may fail for reasons that are no concern of the engine: values that the real server does not accept.
    tolerant: bool,
}

impl Twin {
    fn new(collection: &str, object: &Value) -> Twin {
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

    /// A custom resource of a definition whose kinds have no defaults.
    fn custom(definition: &Value, object: &Value) -> Twin {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        Twin {
            schema: KindSchema::custom(object["kind"].as_str().unwrap(), schema, true),
            exact: true,
            ..Twin::new(&define(definition), object)
        }
    }

    fn exact(self) -> Twin {
        Twin { exact: true, ..self }
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
    fn apply_to(&mut self, subresource: &str, manager: &str, applied: &Value, force: bool) -> bool {
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
    fn apply(&mut self, manager: &str, applied: &Value) -> bool {
        self.apply_to("", manager, applied, false)
    }

    #[track_caller]
    fn force(&mut self, manager: &str, applied: &Value) {
        assert!(self.apply_to("", manager, applied, true));
    }

    #[track_caller]
    fn create(&mut self, manager: &str, object: &Value) {
        let path = format!("{}?fieldManager={manager}", self.collection);
        let answer = self.server.send("POST", &path, "application/json", object);
        assert_eq!(answer.status, 201, "{}", answer.body);
        self.record(manager, "", None, answer.json());
    }

    /// Replaces the live object by what `edit` makes of it.
    #[track_caller]
    fn update(&mut self, manager: &str, subresource: &str, edit: impl FnOnce(&mut Value)) {
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
    fn patch(&mut self, manager: &str, dialect: &str, patch: &Value) {
        let path = self.path("", &format!("fieldManager={manager}"));
        let answer = self
            .server
            .send("PATCH", &path, &format!("application/{dialect}+json"), patch);
        if self.tolerant && answer.status == 422 {
            return;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let live = self.live.as_ref().unwrap();
        let ours = match dialect {
            "strategic-merge-patch" => strategic_merge_patch(live, patch, &self.api_version, &self.kind).unwrap(),
            "merge-patch" => merge_patch(live, patch),
            _ => json_patch(live, patch).unwrap(),
        };
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

/// Everything of `part` is in `whole`, list items in the same order.
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
        Value::Null => true,
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

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str, spec: &str) -> Value {
    let mut object = yaml(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}}}"
    ));
    object["spec"] = yaml(spec);
    object
}

#[test]
fn deployments_change_hands_as_in_a_cluster() {
    let full = deployment(
        "hands",
        "{replicas: 2, selector: {matchLabels: {a: b}}, strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}, template: {metadata: \
         {labels: {a: b}}, spec: {containers: [{name: web, image: 'web:1', ports: [{containerPort: 80}], env: [{name: A, value: a}, {name: B, \
         valueFrom: {configMapKeyRef: {name: c, key: k}}}], resources: {limits: {cpu: '1'}}}, {name: side, image: 'side:1'}], volumes: [{name: v, \
         emptyDir: {}}], tolerations: [{key: t, operator: Exists}], nodeSelector: {disk: ssd}}}}",
    );
    let mut twin = Twin::new(DEPLOYMENTS, &full);
    assert!(twin.apply("branchline", &full));
    assert!(twin.apply("branchline", &full));
    assert!(!twin.apply("other", &deployment("hands", "{replicas: 3}")));
    assert!(twin.apply("other", &deployment("hands", "{replicas: 2, paused: true}")));
    twin.force("other", &deployment("hands", "{replicas: 4}"));
    let several = deployment(
        "hands",
        "{replicas: 9, template: {spec: {containers: [{name: web, image: 'web:2'}]}}}",
    );
    assert!(!twin.apply("third", &several));
    twin.update("kubectl-edit", "", |object| {
        object["spec"]["template"]["spec"]["containers"][1]["image"] = json!("side:2");
        object["metadata"]["labels"] = json!({"x": "y"});
    });
    assert!(!twin.apply("branchline", &full));
    twin.update("controller", "status", |object| {
        object["status"] =
            json!({"observedGeneration": 1, "replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    });
    twin.patch("kubectl-patch", "strategic-merge-patch", &json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "new"}, {"name": "web"}],
        "containers": [{"name": "new", "image": "new:1", "ports": [{"containerPort": 1}]}, {"name": "side", "$patch": "delete"}],
        "volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/v"}}],
    }}}}));
    twin.patch(
        "kubectl-patch",
        "merge-patch",
        &json!({"metadata": {"annotations": {"n": "m"}}, "spec": {"paused": null}}),
    );
    twin.patch(
        "jsonpatch",
        "json-patch",
        &json!([{"op": "add", "path": "/spec/template/spec/containers/0/env", "value": [{"name": "X"}]}]),
    );
    let less = deployment(
        "hands",
        "{replicas: 4, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: 'web:1'}]}}}",
    );
    twin.force("branchline", &less);
    twin.update("resetter", "", |object| object["metadata"]["managedFields"] = json!([{}]));
    twin.force("branchline", &less);
}

#[test]
fn a_create_records_what_the_server_stores() {
    let object = deployment(
        "created",
        "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: web, ports: \
         [{containerPort: 80}, {containerPort: 81, protocol: UDP}]}], imagePullSecrets: [{name: s}]}}}",
    );
    let mut twin = Twin::new(DEPLOYMENTS, &object);
    twin.create("kubectl-create", &object);
    assert!(!twin.apply("branchline", &deployment("created", "{replicas: 5}")));
    twin.update("kubectl-edit", "", |object| {
        object["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": "http"}});
    });

    let object = yaml(
        "{apiVersion: v1, kind: Service, metadata: {name: created, finalizers: [a/b], annotations: {}}, spec: {ports: [{port: 80, \
                       targetPort: web}, {name: u, port: 80, protocol: UDP}], selector: {a: b}}}",
    );
    let mut object = object;
    object["spec"]["ports"][0]["name"] = json!("w");
    let mut twin = Twin::new("/api/v1/namespaces/default/services", &object);
    twin.create("kubectl-create", &object);
    let mut applied = object.clone();
    applied["spec"]["ports"] = json!([{"port": 80, "name": "w", "targetPort": 8080}]);
    twin.force("branchline", &applied);
    assert!(twin.apply(
        "other",
        &yaml("{apiVersion: v1, kind: Service, metadata: {name: created, finalizers: [c/d]}}")
    ));
    twin.force(
        "branchline",
        &yaml("{apiVersion: v1, kind: Service, metadata: {name: created}, spec: {ports: [{port: 443, name: s}]}}"),
    );
}

#[test]
fn kinds_without_defaults_come_out_equal() {
    let map = |rest: &str| {
        yaml(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: equal, labels: {{a: b}}}}, {rest}}}"
        ))
    };
    let mut twin = Twin::new("/api/v1/namespaces/default/configmaps", &map("data: {}")).exact();
    assert!(twin.apply("one", &map("data: {x: '1', y: '2'}")));
    assert!(twin.apply("two", &map("data: {y: '2', z: '3'}")));
    assert!(twin.apply("one", &map("data: {x: '1'}")));
    assert!(!twin.apply("one", &map("data: {z: '4'}")));
    assert!(twin.apply("two", &yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: equal}}")));
    assert!(twin.apply("one", &yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: equal}}")));

    let role = |rules: &str| {
        yaml(&format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: equal}}, rules: {rules}}}"
        ))
    };
    let rule = "{apiGroups: [''], resources: [pods], verbs: [get]}";
    let mut twin = Twin::new("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role("[]")).exact();
    assert!(twin.apply("one", &role(&format!("[{rule}]"))));
    assert!(!twin.apply("two", &role(&format!("[{rule}, {rule}]"))));
    twin.force("two", &role(&format!("[{rule}, {rule}]")));
}

#[test]
fn refusals_have_the_words_of_kubernetes() {
    let mut twin = Twin::new(DEPLOYMENTS, &deployment("refused", "{}"));
    for spec in [
        "{replica: 3}",
        "{replicas: two}",
        "{paused: 1}",
        "{template: {spec: {containers: [{name: a}, {name: a}]}}}",
        "{template: {spec: {topologySpreadConstraints: [null]}}}",
        "{template: {spec: {containers: {name: a}}}}",
        "{template: {spec: {nodeName: 1}}}",
        "{selector: [a]}",
    ] {
        assert!(!twin.apply("me", &deployment("refused", spec)), "{spec}");
    }
    let mut managed = deployment("refused", "{}");
    managed["metadata"]["managedFields"] = json!([]);
    assert!(!twin.apply("me", &managed));
}

#[test]
fn kubectl_takes_over_its_own_annotation() {
    let mut object = yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: noted}, data: {x: '1', y: '1'}}");
    let mut twin = Twin::new("/api/v1/namespaces/default/configmaps", &object).exact();
    let note = object.to_string();
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": note});
    twin.create("kubectl-client-side-apply", &object);
    twin.update("editor", "", |object| object["data"]["y"] = json!("2"));
    let next = yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: noted}, data: {x: '2'}}");
    assert!(twin.apply("kubectl", &next));
    let next = yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: noted}, data: {x: '3', y: '3'}}");
    assert!(!twin.apply("kubectl", &next));
}

/// A schema with every way to merge.
const RULED: &str = "{type: object, properties: {
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
fn definition(plural: &str, kind: &str, spec: &str) -> Value {
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
fn define(definition: &Value) -> String {
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

fn custom(kind: &str, name: &str, spec: &str) -> Value {
    let mut object = yaml(&format!(
        "{{apiVersion: engine.test/v1, kind: {kind}, metadata: {{name: {name}}}}}"
    ));
    object["spec"] = yaml(spec);
    object
}

#[test]
fn custom_resources_without_a_schema_are_deduced() {
    let free = "{type: object, x-kubernetes-preserve-unknown-fields: true}";
    let definition = definition("frees", "Free", free);
    let free = |spec: &str| custom("Free", "f", spec);
    let mut twin = Twin::custom(&definition, &free("{}"));
    assert!(twin.apply(
        "one",
        &free("{list: [1, 2], map: {x: 1, y: {z: [a]}}, empty: {}, none: null, text: t}")
    ));
    assert!(twin.apply(
        "one",
        &free("{list: [1, 2], map: {x: 1, y: {z: [a]}}, empty: {}, none: null, text: t}")
    ));
    assert!(twin.apply("two", &free("{map: {w: 1, y: {q: 2}}}")));
    assert!(!twin.apply("two", &free("{map: {y: {z: [b]}}, list: [3]}")));
    twin.force("two", &free("{map: {y: {z: [b]}}, list: {now: map}}"));
    twin.update("editor", "", |object| object["spec"]["map"]["new"] = json!({"a": {"b": []}}));
    twin.patch(
        "editor",
        "merge-patch",
        &json!({"spec": {"map": {"x": null, "new": {"a": 1}}}}),
    );
    twin.update("controller", "status", |object| {
        object["status"] = json!({"conditions": [{"type": "Ready"}], "n": 1});
        object["spec"]["text"] = json!("ignored");
    });
    assert!(twin.apply("one", &free("{text: t}")));
    assert!(twin.apply("two", &free("{}")));
}

#[test]
fn custom_resources_merge_as_their_schema_says() {
    let definition = definition("ruleds", "Ruled", RULED);
    let ruled = |spec: &str| custom("Ruled", "r", spec);
    let mut twin = Twin::custom(&definition, &ruled("{}"));
    assert!(twin.apply("one", &ruled("{set: [a, b], numbers: [10, 9], items: [{name: x, port: 80, value: 1}, {name: x, port: 81}], atom: {a: a}, plain: [{a: b}]}")));
    assert!(twin.apply("two", &ruled("{set: [c, a], numbers: [1, 10], items: [{name: w, port: 80}, {name: x, port: 80, deep: {k: [v]}}], inner: {free: {known: {x: w}, q: {r: s}}}}")));
    assert!(!twin.apply(
        "two",
        &ruled("{set: [c], atom: {b: b}, items: [{name: x, port: 80, value: '2'}], plain: []}")
    ));
    twin.force(
        "two",
        &ruled("{set: [c], atom: {b: b}, items: [{name: x, port: 80, value: '2'}], when: '2020-01-01T00:00:00Z'}"),
    );
    twin.update("editor", "", |object| object["spec"]["items"][0]["value"] = json!(3));
    assert!(twin.apply("one", &ruled("{set: [a], items: [{name: x, port: 81}], inner: {}}")));
    assert!(twin.apply("two", &ruled("{}")));
    for wrong in [
        "{unknown: 1}",
        "{set: [a, a]}",
        "{items: [{port: 1}, {port: 1}]}",
        "{atom: {c: c}}",
        "{set: [{a: b}]}",
    ] {
        assert!(!twin.apply("three", &ruled(wrong)), "{wrong}");
    }
}

/// One step of a generated script.
#[derive(Debug, Clone)]
enum Step {
    Apply {
        manager: &'static str,
        force: bool,
        spec: Value,
    },
    Update {
        manager: &'static str,
        spec: Value,
    },
    Merge {
        manager: &'static str,
        spec: Value,
    },
}

fn steps(spec: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Vec<Step>> {
    let manager = || prop_oneof![Just("one"), Just("two"), Just("three")];
    let step = prop_oneof![
        4 => (manager(), any::<bool>(), spec.clone()).prop_map(|(manager, force, spec)| Step::Apply { manager, force, spec }),
        1 => (manager(), spec.clone()).prop_map(|(manager, spec)| Step::Update { manager, spec }),
        1 => (manager(), spec).prop_map(|(manager, spec)| Step::Merge { manager, spec }),
    ];
    prop::collection::vec(step, 3..10)
}

/// Some of these fields.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| (Just(name), prop::option::of(value)))
        .collect();
    fields
        .prop_map(|fields| {
            fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect()
        })
        .boxed()
}

/// A field that is always there.
fn with(object: BoxedStrategy<Value>, name: &'static str, value: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    (object, value)
        .prop_map(move |(mut object, value)| {
            object[name] = value;
            object
        })
        .boxed()
}

fn list(item: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop::collection::vec(item, 0..4).prop_map(Value::Array).boxed()
}

fn one_of(values: &[Value]) -> BoxedStrategy<Value> {
    prop::sample::select(values.to_vec()).boxed()
}

fn ruled_spec() -> BoxedStrategy<Value> {
    let letters = || one_of(&[json!("a"), json!("b"), json!("c"), json!("d")]);
    let digits = || one_of(&[json!(1), json!(9), json!(10)]);
    let deep = || object(vec![("k", list(letters())), ("l", list(letters()))]);
    let item = with(object(vec![("value", digits()), ("deep", deep())]), "port", digits());
    let free = object(vec![
        (
            "p",
            object(vec![
                ("q", letters()),
                ("r", list(digits())),
                ("s", object(vec![("t", digits())])),
            ]),
        ),
        (
            "q",
            one_of(&[json!(1), json!("x"), json!({}), json!({"y": 1}), json!([1]), json!([])]),
        ),
        ("known", object(vec![("x", letters())])),
    ]);
    object(vec![
        ("set", list(letters())),
        ("numbers", list(digits())),
        ("items", list(with(item, "name", letters()))),
        ("atom", object(vec![("a", letters()), ("b", letters())])),
        ("plain", list(object(vec![("a", letters())]))),
        ("inner", object(vec![("free", free)])),
    ])
}

/// Runs a script; steps that the real server refuses for reasons of its own are left out.
fn run(twin: &mut Twin, head: &Value, steps: Vec<Step>) {
    for step in steps {
        let mut object = head.clone();
        match step {
            Step::Apply { manager, force, spec } => {
                object["spec"] = spec;
                twin.apply_to("", manager, &object, force);
            }
            Step::Update { manager, spec } if twin.live.is_some() => twin.update(manager, "", |live| live["spec"] = spec),
            Step::Merge { manager, spec } if twin.live.is_some() => twin.patch(manager, "merge-patch", &json!({"spec": spec})),
            _ => {}
        }
    }
}

#[test]
fn generated_scripts_for_a_custom_resource_come_out_equal() {
    let definition = definition("randoms", "Random", RULED);
    let serial = AtomicUsize::new(0);
    let collection = define(&definition);
    script_runner()
        .run(&steps(ruled_spec()), |steps| {
            let head = custom("Random", &format!("r{}", serial.fetch_add(1, Ordering::Relaxed)), "{}");
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut twin = Twin {
                schema: KindSchema::custom("Random", schema, true),
                tolerant: true,
                ..Twin::new(&collection, &head).exact()
            };
            run(&mut twin, &head, steps);
            Ok(())
        })
        .unwrap();
}

/// The same scripts in every run.
fn script_runner() -> TestRunner {
    let cases = std::env::var("SCRIPTS")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(60);
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(3),
        ..Config::default()
    })
}
