//! Ownership: applies, conflicts, updates, resets, custom resources.

use serde_json::{Value, json};

use super::super::{ApplyError, KindSchema, PatchContext, conflict_causes, record_update, server_side_apply};
use super::{by, fields_of, plain, yaml};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1', ports: [{containerPort: 80}]}
";

fn apply(live: Option<&Value>, applied: &Value, manager: &str) -> Value {
    server_side_apply(live, applied, &by(manager), false).unwrap()
}

fn conflicts(live: &Value, applied: &Value, manager: &str) -> String {
    server_side_apply(Some(live), applied, &by(manager), false)
        .unwrap_err()
        .to_string()
}

fn deployment(rest: &str) -> Value {
    let head = yaml("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}}");
    super::super::merge_patch(&head, &yaml(rest))
}

#[test]
fn the_first_apply_creates_the_object_and_owns_what_it_sets() {
    let object = apply(None, &yaml(WEB), "branchline");
    assert_eq!(plain(&object), yaml(WEB));
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "branchline", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {
                        "f:metadata": {"f:labels": {"f:app": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                            ".": {}, "f:name": {}, "f:image": {},
                            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}
                        }}}
                    }
                }
            }
        }])
    );
}

#[test]
fn the_same_apply_again_changes_nothing_even_later() {
    let object = apply(None, &yaml(WEB), "branchline");
    let later = PatchContext {
        now: "2027-01-01T00:00:00Z",
        ..by("branchline")
    };
    assert_eq!(server_side_apply(Some(&object), &yaml(WEB), &later, false).unwrap(), object);
}

#[test]
fn another_value_by_another_applier_is_a_conflict_and_force_takes_over() {
    let object = apply(None, &yaml(WEB), "one");
    let other = deployment("spec: {replicas: 3}");
    assert_eq!(
        conflicts(&object, &other, "two"),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let forced = server_side_apply(Some(&object), &other, &by("two"), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(fields_of(&forced, "two"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields_of(&forced, "one")["f:spec"].get("f:replicas"), None);
}

#[test]
fn conflicts_are_told_in_the_words_of_kubernetes() {
    let created = record_update(None, yaml(WEB), &by("kubectl-client-side-apply"));
    let other = deployment("spec: {replicas: 3}");
    assert_eq!(
        conflicts(&created, &other, "x"),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let other = deployment("spec: {replicas: 3, template: {spec: {containers: [{name: web, image: 'nginx:2'}]}}}");
    let Err(ApplyError::Conflicts(found)) = server_side_apply(Some(&created), &other, &by("x"), false) else {
        panic!("no conflicts");
    };
    assert_eq!(
        super::super::conflict_message(&found),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n- \
         .spec.template.spec.containers[name=\"web\"].image"
    );
    assert_eq!(
        conflict_causes(&found)[1],
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-client-side-apply\" using apps/v1",
               "field": ".spec.template.spec.containers[name=\"web\"].image"})
    );
}

#[test]
fn equal_values_are_shared_and_stay_until_the_last_owner_lets_go() {
    let replicas = deployment("spec: {replicas: 2}");
    let none = deployment("metadata: {labels: {a: b}}");
    let object = apply(None, &yaml(WEB), "one");
    let shared = apply(Some(&object), &replicas, "two");
    assert_eq!(fields_of(&shared, "one")["f:spec"]["f:replicas"], json!({}));
    let left = apply(Some(&shared), &none, "two");
    assert_eq!(left["spec"]["replicas"], 2);
    let mut without = yaml(WEB);
    without["spec"].as_object_mut().unwrap().remove("replicas");
    let gone = apply(Some(&left), &without, "one");
    assert_eq!(gone["spec"].get("replicas"), None);
}

#[test]
fn what_is_no_longer_applied_goes_items_and_whole_structs_too() {
    let two = deployment(
        "spec: {strategy: {type: Recreate}, template: {spec: {containers: [{name: a, image: a}, {name: b, image: b}]}}}",
    );
    let one = deployment("spec: {template: {spec: {containers: [{name: b, image: b}]}}}");
    let object = apply(None, &two, "me");
    assert_eq!(plain(&apply(Some(&object), &one, "me")), one);
}

#[test]
fn an_item_that_another_manager_added_a_field_to_stays_with_that_field() {
    let mine = deployment("spec: {template: {spec: {containers: [{name: a, image: a}, {name: b, image: b}]}}}");
    let theirs = deployment("spec: {template: {spec: {containers: [{name: b, tty: true}]}}}");
    let object = apply(Some(&apply(None, &mine, "me")), &theirs, "them");
    let less = deployment("spec: {template: {spec: {containers: [{name: a, image: a}]}}}");
    let left = apply(Some(&object), &less, "me");
    let containers = &left["spec"]["template"]["spec"]["containers"];
    assert_eq!(*containers, json!([{"name": "a", "image": "a"}, {"name": "b", "tty": true}]));
}

#[test]
fn an_update_takes_changed_fields_from_appliers_and_only_those() {
    let object = apply(None, &yaml(WEB), "applier");
    let mut scaled = object.clone();
    scaled["spec"]["replicas"] = json!(5);
    let updated = record_update(Some(&object), scaled, &by("kubectl-edit"));
    assert_eq!(fields_of(&updated, "kubectl-edit"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields_of(&updated, "applier")["f:spec"].get("f:replicas"), None);
    assert_eq!(
        conflicts(&updated, &yaml(WEB), "applier"),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn an_update_that_changes_nothing_keeps_times() {
    let object = record_update(None, yaml(WEB), &by("me"));
    let later = PatchContext {
        now: "2027-01-01T00:00:00Z",
        ..by("me")
    };
    assert_eq!(record_update(Some(&object), object.clone(), &later), object);
}

#[test]
fn a_create_records_new_parents_but_not_those_that_always_exist() {
    let object = record_update(None, yaml(WEB), &by("kubectl-create"));
    let fields = fields_of(&object, "kubectl-create");
    assert_eq!(fields["f:metadata"], json!({"f:labels": {".": {}, "f:app": {}}}));
    assert_eq!(
        fields["f:spec"]["f:template"]["f:metadata"],
        json!({"f:labels": {".": {}, "f:app": {}}})
    );
    assert_eq!(fields["f:spec"].get("."), None);
}

#[test]
fn managers_are_reset_by_an_empty_list_and_kept_when_the_client_sends_none() {
    let object = apply(None, &yaml(WEB), "me");
    let mut sent = plain(&object);
    assert_eq!(record_update(Some(&object), sent.clone(), &by("x")), object);
    for reset in [json!([]), json!([{}])] {
        sent["metadata"]["managedFields"] = reset;
        assert_eq!(record_update(Some(&object), sent.clone(), &by("x")), plain(&object));
    }
    let claimed = apply(Some(&plain(&object)), &yaml(WEB), "me");
    assert_eq!(fields_of(&claimed, "before-first-apply")["f:spec"]["f:replicas"], json!({}));
}

#[test]
fn status_and_spec_are_written_through_their_own_resources_only() {
    let mut with_status = yaml(WEB);
    with_status["status"] = json!({"replicas": 7});
    let object = apply(None, &with_status, "me");
    assert_eq!(object.get("status"), None);
    assert_eq!(fields_of(&object, "me").get("f:status"), None);
    let mut reported = plain(&object);
    reported["status"] = json!({"replicas": 7});
    reported["spec"]["replicas"] = json!(9);
    let status = PatchContext {
        subresource: "status",
        ..by("controller")
    };
    let object = record_update(Some(&object), reported, &status);
    assert_eq!(
        (&object["spec"]["replicas"], &object["status"]["replicas"]),
        (&json!(2), &json!(7))
    );
    let entry = &object["metadata"]["managedFields"][1];
    assert_eq!(
        (&entry["subresource"], &entry["fieldsV1"]),
        (&json!("status"), &json!({"f:status": {"f:replicas": {}}}))
    );
}

#[test]
fn what_kubernetes_refuses_is_refused() {
    let check = |object: Value, want: &str| {
        assert_eq!(
            server_side_apply(None, &object, &by("me"), false).unwrap_err().to_string(),
            want
        );
    };
    check(
        yaml("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, managedFields: []}}"),
        "metadata.managedFields must be nil",
    );
    check(
        yaml("{apiVersion: v1, kind: Pod, metadata: {name: a}}"),
        "invalid object type: v1, Kind=Pod",
    );
    check(
        deployment("spec: {replica: 3}"),
        "failed to create typed patch object (shop/web; apps/v1, Kind=Deployment): .spec.replica: field not declared in schema",
    );
    check(
        deployment("spec: {template: {spec: {containers: [{name: a}, {name: a}]}}}"),
        "failed to create typed patch object (shop/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate \
         entries for key [name=\"a\"]",
    );
    check(
        deployment("spec: {replicas: two}"),
        "failed to create typed patch object (shop/web; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or \
         float), got string",
    );
}

#[test]
fn custom_resources_have_atomic_lists_granular_maps_and_known_metadata() {
    let ctx = |manager| PatchContext {
        api_version: "example.org/v1",
        kind: "Widget",
        ..by(manager)
    };
    let head = "{apiVersion: example.org/v1, kind: Widget, metadata: {name: w, finalizers: [a]}, spec: ";
    let one = yaml(&format!("{head} {{list: [1, 2], map: {{x: 1}}}}}}"));
    let two = yaml(&format!("{}{{map: {{y: 1}}}}}}", head.replace("[a]", "[b]")));
    let object = server_side_apply(None, &one, &ctx("one"), false).unwrap();
    let object = server_side_apply(Some(&object), &two, &ctx("two"), false).unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!(["a", "b"]));
    assert_eq!(object["spec"], json!({"list": [1, 2], "map": {"x": 1, "y": 1}}));
    assert_eq!(
        fields_of(&object, "one"),
        json!({
            "f:metadata": {"f:finalizers": {"v:\"a\"": {}}},
            "f:spec": {".": {}, "f:list": {}, "f:map": {".": {}, "f:x": {}}}
        })
    );
    let other = yaml(&format!("{head} {{list: [1]}}}}"));
    let refused = server_side_apply(Some(&object), &other, &ctx("two"), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.list"
    );
}

#[test]
fn kubectl_takes_over_from_its_own_client_side_apply() {
    let mut created = yaml(WEB);
    let note = plain(&created).to_string();
    created["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": note});
    let object = record_update(None, created, &by("kubectl-client-side-apply"));
    let mut next = yaml(WEB);
    next["spec"]["replicas"] = json!(4);
    let applied = apply(Some(&object), &next, "kubectl");
    assert_eq!(applied["spec"]["replicas"], 4);
    let note = &applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(serde_json::from_str::<Value>(note.as_str().unwrap()).unwrap(), next);
    assert!(conflicts(&object, &next, "other").contains(".spec.replicas"));
}

#[test]
fn more_than_ten_update_managers_become_ancient_changes() {
    let mut object = yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}");
    object = record_update(
        None,
        object,
        &PatchContext {
            api_version: "v1",
            kind: "ConfigMap",
            ..by("m00")
        },
    );
    for index in 1..15 {
        let (manager, now) = (format!("m{index:02}"), format!("2026-01-01T00:00:{index:02}Z"));
        let mut next = object.clone();
        next["data"][&manager] = json!("x");
        let ctx = PatchContext {
            api_version: "v1",
            kind: "ConfigMap",
            now: &now,
            ..by(&manager)
        };
        object = record_update(Some(&object), next, &ctx);
    }
    let managers: Vec<&str> = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["manager"].as_str().unwrap())
        .collect();
    assert_eq!(managers.len(), 10);
    assert_eq!((managers[0], managers[9]), ("ancient-changes", "m14"));
    assert_eq!(fields_of(&object, "ancient-changes")["f:data"]["f:m03"], json!({}));
}

#[test]
fn every_served_kind_is_in_the_table() {
    for (version, kind) in [
        ("v1", "Pod"),
        ("v1", "Service"),
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("v1", "Namespace"),
        ("v1", "Node"),
        ("v1", "Endpoints"),
        ("v1", "Event"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "CronJob"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
        ("networking.k8s.io/v1", "Ingress"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("coordination.k8s.io/v1", "Lease"),
    ] {
        assert!(KindSchema::of(version, kind).built_in, "{version} {kind}");
    }
    assert!(!KindSchema::of("example.org/v1", "Pod").built_in);
}
