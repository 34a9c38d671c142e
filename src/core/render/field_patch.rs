//! Patches to the text that a field holds, such as a configuration file in a ConfigMap: read, patch, write back in the same format.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::json_patch::{self, PatchError};
use super::{json_pointer_of, merge_patch};
use crate::core::index::{FieldFormat, FieldText, PatchKind};
use crate::core::object::type_name;
use crate::core::yaml::{self, Limits};

/// Why a field was not patched. The document is left as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    /// There is no text to patch: Clusternet skips the entry.
    Empty,
    /// The patch does not fit the text's content.
    Patch(PatchError),
    /// The field is missing or no text, or its text is not what the format says.
    Wrong(String),
}

/// The field as a JSON pointer.
pub(super) fn pointer_of(text: &FieldText) -> String {
    text.path
        .iter()
        .fold(String::new(), |path, token| json_pointer_of(&path, token))
}

/// Patches the text at a field; `kind` says in which dialect.
pub(super) fn apply(document: &mut Value, text: &FieldText, kind: &PatchKind, patch: &Value) -> Result<(), FieldError> {
    let field = find(document, &text.path).map_err(FieldError::Wrong)?;
    let Value::String(held) = field else {
        return Err(FieldError::Wrong(format!("the field holds {}, not text", type_name(field))));
    };
    if held.trim().is_empty() {
        return Err(FieldError::Empty);
    }
    let mut content = read(held, text.format)?;
    patch_content(&mut content, kind, patch)?;
    *held = write(&content, text.format);
    Ok(())
}

fn find<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Value, String> {
    let mut current = document;
    for token in path {
        let kind = type_name(current);
        let next = match current {
            Value::Object(map) => map.get_mut(token),
            Value::Array(items) => {
                let index: usize = token.parse().map_err(|_| format!("{token:?} is not a list index"))?;
                items.get_mut(index)
            }
            _ => return Err(format!("the path goes on with {token:?} below {kind}")),
        };
        current = next.ok_or_else(|| format!("there is no {token:?} on the path to the field"))?;
    }
    Ok(current)
}

fn read(text: &str, format: FieldFormat) -> Result<Value, FieldError> {
    match format {
        FieldFormat::Json => {
            serde_json::from_str(text).map_err(|error| FieldError::Wrong(format!("the field's text is not JSON: {error}")))
        }
        FieldFormat::Yaml => yaml::parse_value(text, &Limits::default())
            .map_err(|problem| FieldError::Wrong(format!("the field's text is not YAML: {}", problem.message))),
    }
}

fn patch_content(content: &mut Value, kind: &PatchKind, patch: &Value) -> Result<(), FieldError> {
    let scalar = || FieldError::Wrong("the field's text holds neither a mapping nor a list".to_owned());
    match (content, kind, patch) {
        (Value::Object(content), PatchKind::FieldMergePatch(_), Value::Object(patch)) => {
            merge_patch::apply(content, patch, &mut Vec::new());
            Ok(())
        }
        (Value::Array(_), PatchKind::FieldMergePatch(_), _) => Err(FieldError::Wrong(
            "the field's text holds a list, and a merge patch changes mappings; use FieldJSONPatch".to_owned(),
        )),
        (content @ (Value::Object(_) | Value::Array(_)), PatchKind::FieldJsonPatch(_), patch) => {
            json_patch::apply(content, patch, &mut Vec::new()).map_err(FieldError::Patch)
        }
        _ => Err(scalar()),
    }
}

fn write(content: &Value, format: FieldFormat) -> String {
    match format {
        FieldFormat::Json => indented(content),
        FieldFormat::Yaml => yaml::emit(content),
    }
}

/// JSON with four spaces, the form in which Clusternet writes it.
fn indented(content: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    // Writing a JSON value into memory has no way to fail.
    if content.serialize(&mut serializer).is_err() {
        return content.to_string();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn field(path: &str, format: FieldFormat) -> FieldText {
        FieldText {
            path: path.split('/').skip(1).map(str::to_owned).collect(),
            format,
        }
    }

    fn patched(
        text: Value,
        path: &str,
        kind: fn(FieldText) -> PatchKind,
        format: FieldFormat,
        patch: Value,
    ) -> Result<Value, FieldError> {
        let mut document = json!({"data": {"server.conf": text}, "list": ["{}"]});
        let field = field(path, format);
        apply(&mut document, &field, &kind(field.clone()), &patch).map(|()| document["data"]["server.conf"].take())
    }

    fn check(text: &str, kind: fn(FieldText) -> PatchKind, format: FieldFormat, patch: Value, want: &str) {
        let result = patched(json!(text), "/data/server.conf", kind, format, patch);
        assert_eq!(result, Ok(json!(want)));
    }

    fn wrong(text: Value, path: &str, kind: fn(FieldText) -> PatchKind, format: FieldFormat, want: &str) {
        let patch = match kind(field(path, format)) {
            PatchKind::FieldMergePatch(_) => json!({"a": 1}),
            _ => json!([{"op": "add", "path": "/a", "value": 1}]),
        };
        match patched(text, path, kind, format, patch) {
            Err(FieldError::Wrong(message)) => assert!(message.contains(want), "{message}"),
            other => assert!(matches!(other, Err(FieldError::Wrong(_))), "{other:?}"),
        }
    }

    use FieldFormat::{Json, Yaml};
    use PatchKind::{FieldJsonPatch, FieldMergePatch};

    #[test]
    fn json_keeps_the_four_space_form() {
        check(
            r#"{"zone":"default","server":{"port":8080,"names":["a"]},"none":{}}"#,
            FieldMergePatch,
            Json,
            json!({"zone": "zone-1"}),
            "{\n    \"none\": {},\n    \"server\": {\n        \"names\": [\n            \"a\"\n        ],\n        \
             \"port\": 8080\n    },\n    \"zone\": \"zone-1\"\n}",
        );
        check(
            "[1, 2]",
            FieldJsonPatch,
            Json,
            json!([{"op": "remove", "path": "/0"}]),
            "[\n    2\n]",
        );
    }

    #[test]
    fn yaml_is_read_and_written_as_kubectl_does() {
        check(
            "# comment\nport: 0644\non: yes\n",
            FieldMergePatch,
            Yaml,
            json!({"host": "yes"}),
            "host: \"yes\"\n\"on\": true\nport: 420\n",
        );
        check(
            "a: {b: 1}\n",
            FieldJsonPatch,
            Yaml,
            json!([{"op": "replace", "path": "/a/c", "value": 2}]),
            "a:\n  b: 1\n  c: 2\n",
        );
    }

    #[test]
    fn what_cannot_be_patched_is_said() {
        wrong(json!("{}"), "/data/other.conf", FieldMergePatch, Json, "no \"other.conf\"");
        wrong(json!(8080), "/data/server.conf", FieldMergePatch, Json, "a number, not text");
        wrong(
            json!({"a": 1}),
            "/data/server.conf",
            FieldJsonPatch,
            Yaml,
            "a mapping, not text",
        );
        wrong(json!("a: 1"), "/data/server.conf", FieldMergePatch, Json, "not JSON");
        wrong(json!("a: [1"), "/data/server.conf", FieldMergePatch, Yaml, "not YAML");
        wrong(
            json!("just words"),
            "/data/server.conf",
            FieldMergePatch,
            Yaml,
            "neither a mapping",
        );
        wrong(json!("[1]"), "/data/server.conf", FieldMergePatch, Json, "use FieldJSONPatch");
        wrong(json!("{}"), "/list/first", FieldMergePatch, Json, "not a list index");
        wrong(json!("{}"), "/list/1", FieldMergePatch, Json, "no \"1\"");
        wrong(json!("{}"), "/data/server.conf/more", FieldMergePatch, Json, "below a string");
        let missing = patched(
            json!("{}"),
            "/data/server.conf",
            FieldJsonPatch,
            Json,
            json!([{"op": "remove", "path": "/a"}]),
        );
        assert!(matches!(missing, Err(FieldError::Patch(PatchError::MissingPath { .. }))));
        assert_eq!(
            patched(json!(" "), "/data/server.conf", FieldMergePatch, Json, json!({})),
            Err(FieldError::Empty)
        );
    }

    #[test]
    fn the_pointer_of_a_field_is_escaped() {
        assert_eq!(pointer_of(&field("/data/a~b", Json)), "/data/a~0b");
        let mut document = json!({"list": ["{}"]});
        let first = field("/list/0", Json);
        apply(&mut document, &first, &FieldMergePatch(first.clone()), &json!({})).unwrap();
        assert_eq!(document, json!({"list": ["{}"]}));
    }
}
