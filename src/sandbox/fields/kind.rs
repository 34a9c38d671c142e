//! A kind's type together with the fields that a write through a subresource leaves alone. Owns the choice of the type for a
//! request; decides nothing about values.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::custom::custom_schema;
use super::schema::{Schema, TypeId};
use super::set::FieldSet;

/// Where a kind's types are: in the table, or in its own schema.
#[derive(Debug, Clone)]
pub(super) enum Types {
    BuiltIn(&'static Schema),
    Custom(Arc<Schema>),
}

impl Deref for Types {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            Types::BuiltIn(schema) => schema,
            Types::Custom(schema) => schema,
        }
    }
}

/// What the engine knows of a kind. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KindSchema {
    pub(super) schema: Types,
    pub(super) root: TypeId,
    pub(super) built_in: bool,
    /// Whether the kind has a status that only the subresource writes.
    status: bool,
    kind: String,
}

impl KindSchema {
    /// A built-in kind, or a custom resource of which only the metadata is known: its lists are atomic, its maps granular.
    pub fn of(api_version: &str, kind: &str) -> KindSchema {
        let schema = Schema::built_in();
        let known = schema.kind(api_version, kind);
        let root = known.or_else(|| schema.named("CustomResource")).unwrap_or(schema.deduced());
        let declared = schema.atom(root).map.as_ref();
        KindSchema {
            schema: Types::BuiltIn(schema),
            root,
            built_in: known.is_some(),
            status: declared.is_some_and(|map| map.fields.contains_key("status")),
            kind: kind.to_owned(),
        }
    }

    /// A custom kind by its definition: the version's `openAPIV3Schema`, and whether it has the status subresource.
    pub fn custom(kind: &str, openapi: &Value, status: bool) -> KindSchema {
        let (schema, root) = custom_schema(openapi);
        KindSchema {
            schema: Types::Custom(Arc::new(schema)),
            root,
            built_in: false,
            status,
            kind: kind.to_owned(),
        }
    }

    /// The trees that a write through `subresource` never changes and never manages.
    pub(super) fn reset_fields(&self, subresource: &str) -> FieldSet {
        let paths: &[&[&str]] = match (subresource, self.kind.as_str()) {
            ("", _) if self.status => &[&["status"]],
            ("finalize", "Namespace") => &[&["status"]],
            ("status", "Deployment") if self.built_in => &[&["spec"], &["metadata", "labels"]],
            ("status", "Pod") if self.built_in => &[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ],
            ("status", "CustomResourceDefinition" | "ValidatingAdmissionPolicy") if self.built_in => &[&["spec"], &["metadata"]],
            ("status", _) => &[&["spec"]],
            _ => &[],
        };
        FieldSet::of_fields(paths)
    }

    /// Puts back what a write through `subresource` may not change.
    pub(super) fn restore(&self, object: &mut Value, old: Option<&Value>, subresource: &str) {
        let empty = Value::Object(Map::new());
        let old = old.unwrap_or(&empty);
        if subresource == "status" && !self.built_in {
            let mut restored = old.clone();
            set_or_remove(&mut restored, "status", object.get("status").cloned());
            *object = restored;
            return;
        }
        for path in self.reset_fields(subresource).paths() {
            let names: Vec<&str> = path.iter().filter_map(super::path::Step::name).collect();
            match names.as_slice() {
                [field] => set_or_remove(object, field, old.get(*field).cloned()),
                [parent, field] => {
                    let value = old.get(*parent).and_then(|parent| parent.get(*field)).cloned();
                    if let Some(parent) = object.get_mut(*parent) {
                        set_or_remove(parent, field, value);
                    }
                }
                _ => {}
            }
        }
    }
}

fn set_or_remove(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    match value {
        Some(value) => object.insert(field.to_owned(), value),
        None => object.remove(field),
    };
}
