//! Strategic merge patches. The cases' results were printed by `kubectl patch --local --type strategic`.

use serde_json::{Value, json};

use super::super::{json_patch, merge_patch, strategic_merge_patch};
use super::properties::pruned;

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

#[test]
fn strategic_merges_are_as_kubectl_does_them() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("strategic.json")).unwrap();
    for case in cases {
        let live = &case["live"];
        let merged = strategic_merge_patch(live, &case["patch"], text(live, "apiVersion"), text(live, "kind")).unwrap();
        // Empty structs do not count: kubectl's typed objects always print them.
        assert_eq!(pruned(&merged), case["want"], "{}", case["name"]);
    }
}

#[test]
fn wrong_directives_are_errors() {
    let check = |patch: Value, want: &str| {
        let live = json!({"spec": {"containers": [{"name": "a"}]}});
        let error = strategic_merge_patch(&live, &patch, "v1", "Pod").unwrap_err();
        assert!(error.contains(want), "{error}");
    };
    check(json!({"spec": {"$patch": "other"}}), "unknown patch type");
    check(json!({"spec": {"$retainKeys": ["a"], "b": 1}}), "retainKeys");
    check(
        json!({"spec": {"containers": [{"image": "a"}]}}),
        "does not contain declared merge key: name",
    );
    check(
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "c"}]}}),
        "doesn't match $setElementOrder/ list",
    );
    let refused = strategic_merge_patch(&json!({}), &json!({}), "example.org/v1", "Widget").unwrap_err();
    assert!(refused.contains("not supported for custom resources"), "{refused}");
}

#[test]
fn json_patches_follow_rfc_6902() {
    let check = |patch: Value, want: Result<Value, &str>| {
        let live = json!({"a": {"b~/": 1}, "l": [1, 2]});
        assert_eq!(json_patch(&live, &patch), want.map_err(str::to_owned), "{patch}");
    };
    check(
        json!([{"op": "add", "path": "/l/1", "value": 9}]),
        Ok(json!({"a": {"b~/": 1}, "l": [1, 9, 2]})),
    );
    check(
        json!([{"op": "add", "path": "/l/-", "value": 9}]),
        Ok(json!({"a": {"b~/": 1}, "l": [1, 2, 9]})),
    );
    check(
        json!([{"op": "remove", "path": "/a/b~0~1"}]),
        Ok(json!({"a": {}, "l": [1, 2]})),
    );
    check(
        json!([{"op": "move", "from": "/l", "path": "/a/l"}]),
        Ok(json!({"a": {"b~/": 1, "l": [1, 2]}})),
    );
    check(
        json!([{"op": "test", "path": "/l/0", "value": 1}, {"op": "replace", "path": "/l", "value": 0}]),
        Ok(json!({"a": {"b~/": 1}, "l": 0})),
    );
    check(
        json!([{"op": "replace", "path": "/x", "value": 0}]),
        Err("operation 0 of the JSON patch: there is nothing at \"/x\""),
    );
    check(
        json!([{"op": "test", "path": "/l/0", "value": 2}]),
        Err("operation 0 of the JSON patch: testing value /l/0 failed: it is 1, not 2"),
    );
    check(
        json!([{"op": "add", "path": "/l/3", "value": 9}]),
        Err("operation 0 of the JSON patch: there is nothing at \"/l/3\""),
    );
    check(json!({"op": "add"}), Err("a JSON patch is a list of operations"));
}

#[test]
fn merge_patches_follow_rfc_7386() {
    let live = json!({"a": {"b": 1, "c": 2}, "l": [1]});
    let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [2]});
    assert_eq!(merge_patch(&live, &patch), json!({"a": {"c": 2, "d": {"f": 1}}, "l": [2]}));
}
