//! Objects as they may be shown: what a Secret holds is replaced by asterisks, before and after a change alike, so that neither a value nor
//! its digest reaches a terminal, a log or a pull request. Renders nothing.

use serde_json::Value;

/// What stands for a value.
pub const HIDDEN: &str = "***";
/// What stands for a value that changes, on its two sides.
const DIFFERS: [&str; 2] = ["*** (before)", "*** (after)"];
/// What of a Secret is no secret.
const OPEN: [&str; 5] = ["apiVersion", "kind", "metadata", "type", "immutable"];
/// kubectl's copy of the whole object.
const LAST_APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// Whether an object's values are hidden.
pub fn is_secret(object: &Value) -> bool {
    object["kind"] == "Secret" && object["apiVersion"] == "v1"
}

/// The pointer of the first field of an object that holds something to hide if it is a Secret.
pub fn filled_field(object: &Value) -> Option<String> {
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        value => value.is_null(),
    };
    let mut fields = object.as_object().into_iter().flatten();
    fields
        .find(|(name, value)| !OPEN.contains(&name.as_str()) && !is_empty(value))
        .map(|(name, _)| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
}

/// An object with its secrets hidden.
pub fn conceal(object: &Value) -> Value {
    let mut shown = object.clone();
    if is_secret(object) {
        hide_secrets(&mut shown, |_| HIDDEN);
    }
    shown
}

/// Both sides of a change with their secrets hidden; values that differ are marked as such.
pub fn conceal_change(before: &Value, after: &Value) -> (Value, Value) {
    let side = |own: &Value, other: &Value, mark: &'static str| {
        let mut shown = own.clone();
        if is_secret(own) || is_secret(other) {
            let differs = |pointer: &str| own.pointer(pointer) != other.pointer(pointer) && other.pointer(pointer).is_some();
            hide_secrets(&mut shown, |pointer| if differs(pointer) { mark } else { HIDDEN });
        }
        shown
    };
    (side(before, after, DIFFERS[0]), side(after, before, DIFFERS[1]))
}

fn hide_secrets<'m>(object: &mut Value, mark: impl Fn(&str) -> &'m str) {
    for (name, value) in object.as_object_mut().into_iter().flatten() {
        if !OPEN.contains(&name.as_str()) {
            hide(value, &format!("/{}", name.replace('~', "~0").replace('/', "~1")), &mark);
        }
    }
    if let Some(copy) = object.pointer_mut(LAST_APPLIED) {
        *copy = Value::from(mark(LAST_APPLIED));
    }
}

/// Keeps the keys of one mapping: people know a Secret by them.
fn hide<'m>(value: &mut Value, pointer: &str, mark: &impl Fn(&str) -> &'m str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                *value = Value::from(mark(&pointer));
            }
        }
        other => *other = Value::from(mark(pointer)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": data})
    }

    #[test]
    fn only_secrets_are_hidden_and_their_keys_stay() {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "x"}});
        assert_eq!(conceal(&config), config);
        assert_eq!(conceal(&secret(&json!({"a": "eA=="}))), secret(&json!({"a": "***"})));
        assert_eq!(conceal(&secret(&json!("eA=="))), secret(&json!("***")));
    }

    #[test]
    fn a_copy_of_the_object_in_an_annotation_is_hidden() {
        let mut object = secret(&json!({}));
        object["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": "{\"data\":1}", "team": "a"});
        let shown = conceal(&object);
        assert!(!shown.to_string().contains("data\\\":1"), "{shown}");
        assert_eq!(shown["metadata"]["annotations"]["team"], "a");
    }

    #[test]
    fn a_change_shows_that_values_differ_and_not_how() {
        let (before, after) = conceal_change(
            &secret(&json!({"same": "a", "other": "b", "gone": "c"})),
            &secret(&json!({"same": "a", "other": "x", "new": "d"})),
        );
        assert_eq!(before["data"], json!({"same": "***", "other": "*** (before)", "gone": "***"}));
        assert_eq!(after["data"], json!({"same": "***", "other": "*** (after)", "new": "***"}));
    }
}
