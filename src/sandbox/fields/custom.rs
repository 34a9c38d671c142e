//! Types of custom resources, from the OpenAPI schema of a CustomResourceDefinition's version. Follows Kubernetes' conversion:
//! declared properties are struct fields, `x-kubernetes-list-type` and `-map-type` say what is granular, all else is deduced.

use serde_json::Value;

use super::schema::{Atom, Field, Keys, ListType, MapType, PatchStrategy, Scalar, Schema, TypeId};

/// The schema of one custom kind and its root.
pub(super) fn custom_schema(openapi: &Value) -> (Schema, TypeId) {
    let mut converter = Converter {
        schema: Schema::of_custom_resources().clone(),
    };
    let mut atom = converter.atom(openapi, false);
    if let Some(map) = &mut atom.map {
        converter.declare_object(map);
    }
    let root = converter.schema.add(atom);
    (converter.schema, root)
}

struct Converter {
    schema: Schema,
}

impl Converter {
    fn kind(&mut self, openapi: &Value, preserve: bool) -> TypeId {
        let atom = self.atom(openapi, preserve);
        self.schema.add(atom)
    }

    /// `preserve` holds for everything below a schema that preserves unknown fields.
    fn atom(&mut self, openapi: &Value, preserve: bool) -> Atom {
        let preserve = preserve || openapi["x-kubernetes-preserve-unknown-fields"] == true;
        match openapi["type"].as_str().unwrap_or_default() {
            "object" => Atom {
                map: Some(self.map(openapi, preserve)),
                ..Atom::default()
            },
            "array" => Atom {
                list: Some(self.list(openapi, preserve)),
                ..Atom::default()
            },
            "integer" | "number" => scalar(Scalar::Number),
            "boolean" => scalar(Scalar::Boolean),
            "string" if matches!(openapi["format"].as_str(), None | Some("" | "byte")) => scalar(Scalar::Text),
            "string" => scalar(Scalar::Any),
            _ => Atom {
                scalar: Some(Scalar::Any),
                list: Some(self.list(openapi, preserve)),
                map: Some(self.map(openapi, preserve)),
            },
        }
    }

    fn map(&mut self, openapi: &Value, preserve: bool) -> MapType {
        let mut map = MapType {
            atomic: openapi["x-kubernetes-map-type"] == "atomic",
            ..MapType::default()
        };
        for (name, property) in openapi["properties"].as_object().into_iter().flatten() {
            let kind = self.kind(property, preserve);
            map.fields.insert(name.clone(), field(kind, property.get("default").cloned()));
        }
        map.element = match &openapi["additionalProperties"] {
            Value::Bool(false) => None,
            Value::Bool(true) => Some(self.schema.deduced()),
            Value::Null if preserve || map.fields.is_empty() => Some(self.schema.deduced()),
            Value::Null => None,
            schema => Some(self.kind(schema, preserve)),
        };
        if openapi["x-kubernetes-embedded-resource"] == true {
            self.declare_object(&mut map);
        }
        map
    }

    fn list(&mut self, openapi: &Value, preserve: bool) -> ListType {
        let element = match &openapi["items"] {
            Value::Null => self.schema.untyped(),
            items => self.kind(items, preserve),
        };
        let keys = match openapi["x-kubernetes-list-type"].as_str() {
            Some("set") => Keys::Value,
            Some("map") => Keys::Fields(
                openapi["x-kubernetes-list-map-keys"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            ),
            _ => Keys::Atomic,
        };
        ListType { element, keys }
    }

    /// Declares what every Kubernetes object has.
    fn declare_object(&self, map: &mut MapType) {
        for (name, kind) in [("apiVersion", "s"), ("kind", "s"), ("metadata", "ObjectMeta")] {
            if let Some(kind) = self.schema.named(kind) {
                map.fields.insert(name.to_owned(), field(kind, None));
            }
        }
    }
}

fn scalar(scalar: Scalar) -> Atom {
    Atom {
        scalar: Some(scalar),
        ..Atom::default()
    }
}

fn field(kind: TypeId, default: Option<Value>) -> Field {
    Field {
        kind,
        default,
        always: false,
        patch: PatchStrategy::default(),
    }
}
