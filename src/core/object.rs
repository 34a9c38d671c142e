//! A Kubernetes object as JSON with typed accessors. Owns nothing of any kind's schema.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::ids::{ObjectKey, group_of};

/// A Kubernetes object: a JSON object that has `apiVersion`, `kind` and `metadata.name` as non-empty strings.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(transparent)]
pub struct Object(Value);

/// Why a JSON value is not a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    /// Not a JSON object at all.
    #[error("a Kubernetes object is a mapping, this is {0}")]
    NotAMapping(&'static str),
    /// A needed field is missing, empty or not a string.
    #[error("{field} {problem}")]
    Field {
        /// Dotted path of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Object {
    /// Checks the shape that every Kubernetes object has.
    pub fn from_value(value: Value) -> Result<Self, NotAnObject> {
        if !value.is_object() {
            return Err(NotAnObject::NotAMapping(type_name(&value)));
        }
        require_text(&value, "/apiVersion", "apiVersion")?;
        require_text(&value, "/kind", "kind")?;
        require_text(&value, "/metadata/name", "metadata.name")?;
        match value.pointer("/metadata/namespace") {
            None | Some(Value::String(_)) => Ok(Object(value)),
            Some(_) => Err(NotAnObject::Field {
                field: "metadata.namespace",
                problem: "is not a string",
            }),
        }
    }

    /// The whole object as JSON.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// The JSON itself.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// `apiVersion`, for example `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// API group, empty for the core group.
    pub fn group(&self) -> &str {
        group_of(self.api_version())
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`; an empty one counts as none.
    pub fn namespace(&self) -> Option<&str> {
        Some(self.text("/metadata/namespace")).filter(|namespace| !namespace.is_empty())
    }

    /// Group, kind, namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            group: self.group().to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().map(str::to_owned),
            name: self.name().to_owned(),
        }
    }

    /// `metadata.labels` as an iterator over pairs whose value is a string.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.string_map("/metadata/labels")
    }

    /// The value at a JSON pointer.
    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// The top-level map, for reading.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value))
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn string_map(&self, pointer: &str) -> impl Iterator<Item = (&str, &str)> {
        let map: Option<&Map<String, Value>> = self.0.pointer(pointer).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .filter_map(|(key, value)| value.as_str().map(|value| (key.as_str(), value)))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Object::from_value(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What kind of JSON a value is, in words that fit an error message.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn require_text(value: &Value, pointer: &str, field: &'static str) -> Result<(), NotAnObject> {
    match value.pointer(pointer) {
        None | Some(Value::Null) => Err(NotAnObject::Field {
            field,
            problem: "is missing",
        }),
        Some(Value::String(text)) if text.is_empty() => Err(NotAnObject::Field {
            field,
            problem: "is empty",
        }),
        Some(Value::String(_)) => Ok(()),
        Some(_) => Err(NotAnObject::Field {
            field,
            problem: "is not a string",
        }),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_identity() {
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}});
        let object = Object::from_value(value).unwrap();
        assert_eq!(object.key().to_string(), "Deployment.apps shop/web");
    }

    #[test]
    fn names_the_missing_field() {
        let error = Object::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap"})).unwrap_err();
        assert_eq!(error.to_string(), "metadata.name is missing");
        assert!(
            Object::from_value(json!([1]))
                .unwrap_err()
                .to_string()
                .ends_with("this is a list")
        );
    }
}
