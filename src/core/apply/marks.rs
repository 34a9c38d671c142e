//! The marks that say an object is ours. They are added when an object is applied, never stored on the state branch.

use serde_json::{Map, Value, json};

/// Label on every object that Branchline applies, for selecting them.
pub const MANAGED_LABEL: &str = "branchline.io/managed";
/// Annotation that names the Description: `<subscription namespace>.<subscription name>`.
pub const DESCRIPTION_ANNOTATION: &str = "branchline.io/description";

/// Puts the marks on an object.
pub fn mark(object: &mut Value, sub: &str) {
    let Some(metadata) = member(object, "metadata") else {
        return;
    };
    if let Some(labels) = entry(metadata, "labels") {
        labels.insert(MANAGED_LABEL.to_owned(), json!("true"));
    }
    if let Some(annotations) = entry(metadata, "annotations") {
        annotations.insert(DESCRIPTION_ANNOTATION.to_owned(), json!(sub));
    }
}

/// Whether a live object carries our marks: only then may it be deleted. Which Description they name does not matter, because a kill can
/// come between the moment when an object's move to another one is recorded and the moment when the new mark is written.
pub fn is_ours(live: &Value) -> bool {
    let labels = live.pointer("/metadata/labels");
    let annotations = live.pointer("/metadata/annotations");
    labels.and_then(|l| l.get(MANAGED_LABEL)).and_then(Value::as_str) == Some("true")
        && annotations.and_then(|a| a.get(DESCRIPTION_ANNOTATION)).is_some()
}

fn member<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    object.as_object_mut()?.get_mut(name)?.as_object_mut()
}

/// The map below `name`; one that is null is replaced, as the API server reads it.
fn entry<'a>(map: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let value = map.entry(name.to_owned()).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_added_beside_what_is_there() {
        let mut object = json!({"metadata": {"name": "a", "labels": {"app": "web"}, "annotations": null}});
        assert!(!is_ours(&object));
        mark(&mut object, "shop.web");
        assert_eq!(object["metadata"]["labels"]["app"], "web");
        assert!(is_ours(&object));
        assert_eq!(object["metadata"]["annotations"][DESCRIPTION_ANNOTATION], "shop.web");
    }
}
