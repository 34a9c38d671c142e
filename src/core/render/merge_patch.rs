//! JSON Merge Patch (RFC 7386) as evanphx/json-patch carries it out, which Clusternet uses.

use serde_json::{Map, Value};

use super::json_pointer_of;

/// Applies a merge patch; `fields` receives the pointers of what it set or removed.
pub(super) fn apply(target: &mut Map<String, Value>, patch: &Map<String, Value>, fields: &mut Vec<String>) {
    merge_into(target, patch, "", fields);
}

fn merge_into(target: &mut Map<String, Value>, patch: &Map<String, Value>, path: &str, fields: &mut Vec<String>) {
    for (key, value) in patch {
        let pointer = json_pointer_of(path, key);
        match (target.get_mut(key), value) {
            (_, Value::Null) => {
                target.remove(key);
                fields.push(pointer);
            }
            (Some(Value::Object(current)), Value::Object(nested)) => merge_into(current, nested, &pointer, fields),
            // What replaces a mapping and is none is taken as it is, nulls within lists included.
            (Some(current @ Value::Object(_)), value) => {
                current.clone_from(value);
                fields.push(pointer);
            }
            (_, value) => {
                let mut value = value.clone();
                prune_nulls(&mut value);
                target.insert(key.clone(), value);
                fields.push(pointer);
            }
        }
    }
}

/// Nulls in a subtree that is newly added mean "absent"; null items of a list stay.
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn check(target: Value, patch: Value, want: Value, want_fields: &[&str]) {
        let mut target = target;
        let mut fields = Vec::new();
        apply(target.as_object_mut().unwrap(), patch.as_object().unwrap(), &mut fields);
        assert_eq!(
            (target, fields),
            (want, want_fields.iter().map(|f| (*f).to_owned()).collect())
        );
    }

    #[test]
    fn follows_rfc_7386() {
        check(
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"b": 3, "c": null}}),
            json!({"a": {"b": 3}}),
            &["/a/b", "/a/c"],
        );
        check(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}), &["/a"]);
        check(
            json!({}),
            json!({"a": {"b": null, "c": {"d": 1}}}),
            json!({"a": {"c": {"d": 1}}}),
            &["/a"],
        );
        check(json!({"a": 1}), json!({"a": {"x/y": 1}}), json!({"a": {"x/y": 1}}), &["/a"]);
        check(
            json!({"a": {}}),
            json!({"a": {"x/y": 1}}),
            json!({"a": {"x/y": 1}}),
            &["/a/x~1y"],
        );
        check(
            json!({"a": {}, "b": [1]}),
            json!({"a": [null, {"c": null}], "b": [null, {"c": null}]}),
            json!({"a": [null, {"c": null}], "b": [null, {}]}),
            &["/a", "/b"],
        );
    }
}
