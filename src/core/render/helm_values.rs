//! Values over values as the `helm` program merges them (`CoalesceTables`): the override wins, mappings merge, lists are replaced.

use serde_json::{Map, Value};

use super::json_pointer_of;

/// Merges `patch` over `values`; `fields` receives the pointers of what it set or removed. A null removes the key where there is one and
/// is kept where there is none, because there it removes the chart's own default.
pub(super) fn apply(values: &mut Map<String, Value>, patch: &Map<String, Value>, fields: &mut Vec<String>) {
    merge(values, patch, "", fields);
}

fn merge(values: &mut Map<String, Value>, patch: &Map<String, Value>, path: &str, fields: &mut Vec<String>) {
    for (key, value) in patch {
        let pointer = json_pointer_of(path, key);
        match (values.get_mut(key), value) {
            (Some(Value::Object(current)), Value::Object(nested)) => merge(current, nested, &pointer, fields),
            (Some(_), Value::Null) => {
                values.remove(key);
                fields.push(pointer);
            }
            (_, value) => {
                values.insert(key.clone(), value.clone());
                fields.push(pointer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn check(values: Value, patch: Value, want: Value, want_fields: &[&str]) {
        let mut values = values;
        let mut fields = Vec::new();
        apply(values.as_object_mut().unwrap(), patch.as_object().unwrap(), &mut fields);
        assert_eq!(values, want);
        assert_eq!(fields, want_fields);
    }

    #[test]
    fn the_override_wins_and_mappings_merge() {
        check(
            json!({"image": {"tag": "1", "pull": "Always"}, "args": [1, 2]}),
            json!({"image": {"tag": "2"}, "args": [3]}),
            json!({"image": {"tag": "2", "pull": "Always"}, "args": [3]}),
            &["/args", "/image/tag"],
        );
        check(json!({"a": {"b": 1}}), json!({"a": 2}), json!({"a": 2}), &["/a"]);
        check(json!({"a": 2}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), &["/a"]);
    }

    #[test]
    fn a_null_removes_what_is_there_and_else_stays_for_the_chart() {
        check(json!({"a": 1}), json!({"a": null}), json!({}), &["/a"]);
        check(json!({"a": {"b": 1}}), json!({"a": null}), json!({}), &["/a"]);
        check(json!({}), json!({"a": null}), json!({"a": null}), &["/a"]);
        check(json!({}), json!({"a": {"b/c": null}}), json!({"a": {"b/c": null}}), &["/a"]);
        check(
            json!({"a": {}}),
            json!({"a": {"b/c": null}}),
            json!({"a": {"b/c": null}}),
            &["/a/b~1c"],
        );
    }
}
