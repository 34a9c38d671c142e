//! Properties of apply for generated objects.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{PatchContext, record_update, server_side_apply};
use super::{by, plain};

const PODS: &str = "Pod";

fn ctx(manager: &str) -> PatchContext<'_> {
    PatchContext {
        api_version: "v1",
        kind: PODS,
        ..by(manager)
    }
}

/// A container; its name begins with `prefix`.
fn container(prefix: &'static str) -> impl Strategy<Value = Value> {
    let env = proptest::collection::btree_map("[A-C]", "[0-1]", 0..3);
    ("[a-d]", proptest::option::of("[m-n]"), env, any::<bool>()).prop_map(move |(name, image, env, ports)| {
        let env: Vec<Value> = env
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let mut out = json!({"name": format!("{prefix}{name}"), "env": env});
        if let Some(image) = image {
            out["image"] = json!(image);
        }
        if ports {
            out["ports"] = json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]);
        }
        out
    })
}

/// A pod with labels and containers whose names begin with `prefix`, so that two prefixes give disjoint fields.
fn pod(prefix: &'static str) -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let containers = proptest::collection::vec(container(prefix), 0..4);
    (labels, containers).prop_map(move |(labels, mut containers)| {
        let labels: Map<String, Value> = labels.into_iter().map(|(k, v)| (format!("{prefix}{k}"), json!(v))).collect();
        let mut seen = BTreeSet::new();
        containers.retain(|container| seen.insert(container["name"].to_string()));
        let metadata = json!({"name": "p", "labels": labels});
        json!({"apiVersion": "v1", "kind": PODS, "metadata": metadata, "spec": {"containers": containers}})
    })
}

fn apply(live: Option<&Value>, applied: &Value, manager: &str, force: bool) -> Value {
    server_side_apply(live, applied, &ctx(manager), force).unwrap()
}

/// Whether everything in `part` is in `whole`: maps by key, lists of named items by name and port.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part))),
        (Value::Array(whole), Value::Array(part)) => part.iter().all(|part| whole.iter().any(|whole| contains(whole, part))),
        (whole, part) => whole == part,
    }
}

/// The object with its lists sorted and without times: an apply that changes nothing has none.
fn unordered(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(unordered).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| *key != "time")
            .map(|(key, value)| (key.clone(), unordered(value)))
            .collect(),
        value => value.clone(),
    }
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in pod("a"), second in pod("a")) {
        let live = apply(None, &first, "one", false);
        let once = apply(Some(&live), &second, "two", true);
        let later = PatchContext { now: "2030-01-01T00:00:00Z", ..ctx("two") };
        prop_assert_eq!(server_side_apply(Some(&once), &second, &later, false).unwrap(), once);
    }

    #[test]
    fn disjoint_applies_commute(one in pod("a"), two in pod("b")) {
        let first = apply(Some(&apply(None, &one, "one", false)), &two, "two", false);
        let second = apply(Some(&apply(None, &two, "two", false)), &one, "one", false);
        prop_assert_eq!(unordered(&first), unordered(&second));
    }

    #[test]
    fn forced_values_are_in_the_object(one in pod("a"), two in pod("a"), three in pod("a")) {
        let live = record_update(None, one, &ctx("creator"));
        let live = apply(Some(&live), &two, "two", true);
        let live = apply(Some(&live), &three, "three", true);
        prop_assert!(contains(&live, &three), "{live} lacks some of {three}");
    }

    #[test]
    fn applying_nothing_removes_what_only_i_applied(one in pod("a"), two in pod("b")) {
        let live = apply(Some(&apply(None, &one, "one", false)), &two, "two", false);
        let nothing = json!({"apiVersion": "v1", "kind": PODS, "metadata": {"name": "p"}});
        let left = apply(Some(&live), &nothing, "two", false);
        // Empty maps and lists are nobody's once they have been emptied, so they do not count.
        prop_assert_eq!(pruned(&plain(&left)), pruned(&one));
    }

    #[test]
    fn updates_own_exactly_what_they_change(one in pod("a"), two in pod("a")) {
        let live = apply(None, &one, "one", false);
        let updated = record_update(Some(&live), two.clone(), &ctx("two"));
        prop_assert_eq!(plain(&updated), two.clone());
        // Whoever applies what is there has no conflict with anybody.
        prop_assert!(server_side_apply(Some(&updated), &two, &ctx("three"), false).is_ok());
    }
}

/// Without empty maps and lists.
pub(super) fn pruned(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(items) => items.iter().map(pruned).filter(|item| !empty(item)).collect(),
        Value::Object(map) => {
            let children = map.iter().map(|(key, value)| (key.clone(), pruned(value)));
            Value::Object(children.filter(|(_, value)| !empty(value)).collect())
        }
        value => value.clone(),
    }
}
