//! Bad input of any kind: whatever stands in a field of a Subscription, an override or another object of ours, nothing panics, and an object
//! that is wrong changes nothing of what others render.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: shop}\nspec: {replicas: 5}\n";

/// A repository where everything is right.
fn good() -> World {
    let mut world = World::new(TWO);
    let deployment = "  - {apiVersion: apps/v1, kind: Deployment, namespace: shop, name: d}\n";
    world
        .write("s.yaml", &(subscription("good", "{env: prod}", &["c0", "c1"]) + deployment))
        .write("d.yaml", DEPLOYMENT)
        .write("c0.yaml", &config("c0", "'a: 1'"))
        .write("c1.yaml", &config("c1", "v"))
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    world
}

fn bad_subscription() -> Value {
    json!({
        "apiVersion": "apps.clusternet.io/v1alpha1", "kind": "Subscription", "metadata": {"name": "bad", "namespace": "apps"},
        "spec": {
            "schedulerName": "default", "schedulingBySubGroup": false, "schedulingStrategy": "Dividing", "priority": 1,
            "preemptionPolicy": "PreemptNever",
            "dividingScheduling": {"type": "Dynamic", "dynamicDividing": {
                "strategy": "Spread", "minClusters": 1, "maxClusters": 2,
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "env", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 1}],
                "preferredClusters": [{"weight": 1, "preference": {"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["1"]}]}}],
            }},
            "subscribers": [
                {"clusterAffinity": {"matchLabels": {"env": "prod"}}, "weight": 1, "subGroupStrategy": {"minClusters": 1}},
                {"clusterAffinity": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, "weight": 2},
            ],
            "clusterTolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
            "feeds": [
                {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "c0"},
                {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "d"},
            ],
        },
    })
}

fn bad_override(kind: &str, metadata: &Value) -> Value {
    let entry = |patch_type: &str, value: &str| json!({"name": "e", "type": patch_type, "value": value});
    let mut of_field = entry("FieldJSONPatch", r#"[{"op": "test", "path": "/a", "value": 1}]"#);
    of_field["fieldPath"] = json!("/data/key");
    of_field["fieldFormat"] = json!("YAML");
    json!({
        "apiVersion": "apps.clusternet.io/v1alpha1", "kind": kind, "metadata": metadata,
        "spec": {
            "overridePolicy": "ApplyNow", "priority": 7,
            "feed": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "c0"},
            "overrides": [
                entry("MergePatch", r#"{"data": {"a": "b"}}"#),
                entry("JSONPatch", r#"[{"op": "add", "path": "/data/b", "value": "c"}]"#),
                entry("Helm", r#"{"data": {"d": null}}"#),
                of_field,
            ],
        },
    })
}

fn bad_inventory() -> Value {
    json!({
        "apiVersion": "apps.clusternet.io/v1alpha1", "kind": "FeedInventory", "metadata": {"name": "bad", "namespace": "apps"},
        "spec": {"feeds": [{"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "c0", "desiredReplicas": 3,
            "replicaJsonPath": "/data/n", "replicaRequirements": {"resources": {"requests": {"cpu": "1"}}}}]},
    })
}

/// Words that mean something somewhere, numbers at the edges, and anything else.
fn leaf() -> impl Strategy<Value = Value> {
    let words = [
        "",
        "default",
        "Dividing",
        "Replication",
        "Static",
        "Dynamic",
        "Binpack",
        "In",
        "NotIn",
        "Lt",
        "DoNotSchedule",
        "ApplyLater",
        "Helm",
        "JSONPatch",
        "MergePatch",
        "FieldMergePatch",
        "JSON",
        "YAML",
        "shop",
        "c0",
        "c1",
        "d",
        "v1",
        "apps/v1",
        "Deployment",
        "HelmChart",
        "apps.clusternet.io/v1alpha1",
        "/",
        "/data",
        "/data/key",
        "/spec/replicas",
        "metadata",
        "~",
        "1e999",
        "-9223372036854775808",
        "yes",
        "\u{0}",
        "ü",
        "[",
        "{}",
        "[]",
        "a: &a [*a]",
    ];
    let numbers = [
        i64::MIN,
        i64::from(i32::MIN),
        -1,
        0,
        1,
        101,
        1001,
        i64::from(i32::MAX),
        i64::MAX,
    ];
    prop_oneof![
        4 => prop::sample::select(words.to_vec()).prop_map(Value::from),
        3 => prop::sample::select(numbers.to_vec()).prop_map(Value::from),
        2 => patch_text().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

/// The text of a patch in any dialect.
fn patch_text() -> impl Strategy<Value = String> {
    let path = || {
        prop::sample::select(vec![
            "",
            "/",
            "/data",
            "/data/key",
            "/metadata",
            "/metadata/name",
            "/kind",
            "/a/b",
            "/data/-",
            "/-1",
            "x",
        ])
    };
    let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test", "none"]);
    let operation = (op, path(), path(), 0..4u8).prop_map(|(op, path, from, value)| {
        let value = [json!(null), json!("v"), json!({"x": [1]}), json!([])][usize::from(value)].clone();
        json!({"op": op, "path": path, "from": from, "value": value})
    });
    let operations = prop::collection::vec(operation, 0..6).prop_map(|operations| Value::from(operations).to_string());
    let merged = prop::sample::select(vec![
        "metadata: {namespace: Bad}",
        "metadata: {name: other}",
        "metadata: null",
        "data: null",
        "data: {key: null}",
        "kind: Secret",
        "apiVersion: [1]",
        "status: {a: 1}",
        "'': {'/': 1}",
    ]);
    prop_oneof![operations, merged.prop_map(str::to_owned)]
}

fn anything() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        let keys = prop::sample::select(vec![
            "key",
            "name",
            "kind",
            "values",
            "type",
            "weight",
            "minClusters",
            "matchLabels",
            "",
            "a/b.c~",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// The pointers of everything in and below `spec`.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An object of ours with up to three fields that hold anything, or are gone.
fn mutated() -> impl Strategy<Value = Value> {
    let local = json!({"name": "bad", "namespace": "clusternet-east"});
    let mut global = bad_override("Globalization", &json!({"name": "bad"}));
    global["spec"]["clusterAffinity"] = json!({"matchLabels": {"tier": "edge"}});
    let objects = vec![
        bad_subscription(),
        bad_subscription(),
        bad_override("Localization", &local),
        global,
        bad_inventory(),
    ];
    let change = || (any::<prop::sample::Index>(), prop::option::weighted(0.85, anything()));
    (prop::sample::select(objects), prop::collection::vec(change(), 1..4)).prop_map(|(mut object, changes)| {
        for (place, value) in changes {
            let mut all = Vec::new();
            pointers(&object["spec"], "/spec", &mut all);
            let pointer = place.get(&all);
            match (value, pointer.rsplit_once('/')) {
                (Some(value), _) => object.pointer_mut(pointer).into_iter().for_each(|at| *at = value.clone()),
                (None, Some((parent, key))) => {
                    let parent = object.pointer_mut(parent).and_then(Value::as_object_mut);
                    parent.into_iter().for_each(|parent| drop(parent.remove(key)));
                }
                (None, None) => {}
            }
        }
        object
    })
}

/// Everything that clusters get from other Subscriptions, with the bytes' ids.
fn of_others(state: &State) -> Vec<(String, ObjectId)> {
    let files = state::paths(state).into_iter();
    files
        .filter(|(path, _)| path.starts_with("clusters/") && !path.contains("/apps.bad/"))
        .map(|(path, leaf)| (path, leaf.id))
        .collect()
}

proptest! {
    #[test]
    fn what_is_wrong_touches_nothing_else(object in mutated()) {
        let mut world = good();
        let before = of_others(&world.state);
        world.write("bad.json", &object.to_string()).run();
        let is_wrong = world.diagnostics.iter().any(|found| found.file == "bad.json" && found.is_error());
        let is_override = object["kind"].as_str().is_some_and(|kind| kind.ends_with("ization"));
        if is_wrong || !is_override {
            prop_assert_eq!(&of_others(&world.state), &before, "{:?}", world.diagnostics);
        }
        for found in &world.diagnostics {
            prop_assert!(found.line > 0 && !found.message.is_empty() && !found.hint.is_empty() && !found.object.is_empty(), "{found:?}");
        }
        let settled = state::build(&world.state).root;
        prop_assert_eq!(state::build(&world.run().state).root, settled, "a second run changes nothing");
    }
}

#[test]
fn a_patch_cannot_fill_the_memory_or_the_stack() {
    let mut world = good();
    let doubling: Vec<Value> = (0..64)
        .map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/x{n}")}))
        .collect();
    let nesting = (0..3_000).flat_map(|_| {
        [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/data", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/data"}),
        ]
    });
    let far = json!([{"op": "remove", "path": "/a".repeat(1 << 20)}]);
    for (patch, code) in [
        (Value::from(doubling), "patch-failure"),
        (nesting.collect(), "patch-failure"),
        (far, "patch-missing-path"),
    ] {
        let mut object = bad_override("Localization", &json!({"name": "bad", "namespace": "clusternet-east"}));
        object["spec"]["overrides"] = json!([{"name": "e", "type": "JSONPatch", "value": patch.to_string()}]);
        world.write("bad.json", &object.to_string()).run();
        let codes: Vec<&str> = world.diagnostics.iter().map(|found| found.code.as_str()).collect();
        assert_eq!(codes, [code]);
        assert!(world.diagnostics[0].to_string().len() < 3 << 20);
    }
}
