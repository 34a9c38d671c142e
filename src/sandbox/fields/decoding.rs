//! Reads a request's object by its type, as an API server's decoder does: fields that the type does not have are dropped and named,
//! a value of another type is an error. Never defaults; knows nothing of Kubernetes' rules about values.

use serde_json::Value;

use super::kind::KindSchema;
use super::schema::{Forms, Scalar, Schema, TypeId};

/// A value that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistyped {
    /// The field with list positions, `spec.containers[0].image`.
    pub field: String,
    /// What the field takes: `string`, `integer`, `boolean`, `array` or `object`.
    pub wanted: &'static str,
    /// What was sent: `string`, `number`, `bool`, `array` or `object`.
    pub found: &'static str,
}

impl KindSchema {
    /// Drops the fields that the kind does not have and returns their paths.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, Mistyped> {
        let mut decoder = Decoder {
            schema: &self.schema,
            unknown: Vec::new(),
        };
        decoder.visit(self.root, object, "")?;
        Ok(decoder.unknown)
    }
}

struct Decoder<'a> {
    schema: &'a Schema,
    unknown: Vec<String>,
}

impl Decoder<'_> {
    fn visit(&mut self, kind: TypeId, value: &mut Value, path: &str) -> Result<(), Mistyped> {
        let atom = self.schema.atom(kind);
        let forms = atom.forms(Some(value));
        match (value, forms) {
            (Value::Null, _) => Ok(()),
            (Value::Object(fields), Forms { map: true, .. }) => {
                let Some(map) = &atom.map else { return Ok(()) };
                fields.retain(|name, _| {
                    let known = map.child(name).is_some();
                    if !known {
                        self.unknown.push(joined(path, name));
                    }
                    known
                });
                for (name, child) in fields.iter_mut() {
                    if let Some(kind) = map.child(name) {
                        self.visit(kind, child, &joined(path, name))?;
                    }
                }
                Ok(())
            }
            (Value::Array(items), Forms { list: true, .. }) => {
                let Some(list) = &atom.list else { return Ok(()) };
                for (at, item) in items.iter_mut().enumerate() {
                    self.visit(list.element, item, &format!("{path}[{at}]"))?;
                }
                Ok(())
            }
            (value, Forms { scalar: true, .. }) => scalar(atom.scalar, value, path),
            (value, forms) => Err(mistyped(path, if forms.list { "array" } else { "object" }, value)),
        }
    }
}

fn joined(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

fn scalar(wanted: Option<Scalar>, value: &Value, path: &str) -> Result<(), Mistyped> {
    match (wanted, value) {
        (Some(Scalar::Text), Value::String(_))
        | (Some(Scalar::Number), Value::Number(_))
        | (Some(Scalar::Boolean), Value::Bool(_))
        | (Some(Scalar::Any) | None, Value::String(_) | Value::Number(_) | Value::Bool(_)) => Ok(()),
        (Some(Scalar::Number), _) => Err(mistyped(path, "integer", value)),
        (Some(Scalar::Boolean), _) => Err(mistyped(path, "boolean", value)),
        _ => Err(mistyped(path, "string", value)),
    }
}

fn mistyped(path: &str, wanted: &'static str, value: &Value) -> Mistyped {
    Mistyped {
        field: path.to_owned(),
        wanted,
        found: match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_dropped_and_named() {
        let mut object =
            json!({"metadata": {"name": "a"}, "spec": {"replica": 1, "template": {"spec": {"containers": [{"img": "x"}]}}}});
        let unknown = KindSchema::of("apps/v1", "Deployment").decode(&mut object).unwrap();
        assert_eq!(unknown, ["spec.replica", "spec.template.spec.containers[0].img"]);
        assert_eq!(
            object,
            json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [{}]}}}})
        );
    }

    #[test]
    fn another_type_is_an_error() {
        let mut object = json!({"spec": {"containers": [{"image": true}]}});
        let error = KindSchema::of("v1", "Pod").decode(&mut object).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.wanted, error.found),
            ("spec.containers[0].image", "string", "bool")
        );
    }

    #[test]
    fn open_maps_take_anything() {
        let mut object = json!({"data": {"a": "b"}, "metadata": {"annotations": {"x/y": "z"}}});
        assert!(KindSchema::of("v1", "ConfigMap").decode(&mut object).unwrap().is_empty());
        let mut object = json!({"apiVersion": "a/v1", "kind": "B", "spec": {"anything": [{"goes": 1}]}});
        assert!(KindSchema::of("a/v1", "B").decode(&mut object).unwrap().is_empty());
    }
}
