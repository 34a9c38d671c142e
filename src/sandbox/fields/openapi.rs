//! The table of types as OpenAPI v3 components, with the list and patch extensions that kubectl merges by. Decides nothing.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::schema::{Atom, Field, Keys, ListType, MapType, Scalar, Schema, TypeId};

/// The component that describes a built-in kind; `None` for kinds that are not in the table.
pub fn component_of(api_version: &str, kind: &str) -> Option<String> {
    let schema = Schema::built_in();
    let id = schema.kind(api_version, kind)?;
    Writer::new(schema).named.get(&id).map(|name| component(name))
}

/// A reference to the component of object metadata.
pub fn metadata_reference() -> Value {
    reference("ObjectMeta")
}

/// The components that these built-in kinds need, and that of object metadata.
pub fn components(kinds: &[(String, String)]) -> Map<String, Value> {
    let schema = Schema::built_in();
    let mut writer = Writer::new(schema);
    let mut wanted = writer.metadata();
    wanted.extend(kinds.iter().filter_map(|(api_version, kind)| schema.kind(api_version, kind)));
    while let Some(id) = wanted.pop() {
        wanted.extend(writer.describe(id));
    }
    for (api_version, kind) in kinds {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let name = schema.kind(api_version, kind).and_then(|id| writer.named.get(&id).copied());
        let entry = name.and_then(|name| writer.done.get_mut(&component(name)));
        if let Some(map) = entry.and_then(Value::as_object_mut) {
            let gvk = json!([{"group": group, "version": version, "kind": kind}]);
            map.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
        }
    }
    writer.done.into_iter().collect()
}

fn component(name: &str) -> String {
    format!("io.k8s.{name}")
}

fn reference(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/components/schemas/{}", component(name))}]})
}

struct Writer<'a> {
    schema: &'a Schema,
    named: HashMap<TypeId, &'a str>,
    done: BTreeMap<String, Value>,
}

impl<'a> Writer<'a> {
    fn new(schema: &'a Schema) -> Writer<'a> {
        let named = schema
            .names()
            .filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() > 1);
        Writer {
            schema,
            named: named.map(|(name, id)| (id, name)).collect(),
            done: BTreeMap::new(),
        }
    }

    fn metadata(&self) -> Vec<TypeId> {
        self.schema.named("ObjectMeta").into_iter().collect()
    }

    /// Writes the component of a struct; what it refers to is still to be written.
    fn describe(&mut self, id: TypeId) -> Vec<TypeId> {
        let Some(name) = self.named.get(&id).map(|name| component(name)) else {
            return Vec::new();
        };
        if self.done.contains_key(&name) {
            return Vec::new();
        }
        let mut referred = Vec::new();
        let written = match &self.schema.atom(id).map {
            Some(map) => self.structure(map, &mut referred),
            None => json!({"type": "object"}),
        };
        self.done.insert(name, written);
        referred
    }

    fn structure(&self, map: &MapType, referred: &mut Vec<TypeId>) -> Value {
        let mut written = json!({"type": "object"});
        if map.atomic {
            written["x-kubernetes-map-type"] = json!("atomic");
        }
        if let Some(element) = map.element {
            written["additionalProperties"] = self.inline(element, referred);
        }
        if !map.fields.is_empty() {
            let fields = map.fields.iter();
            let properties: Map<String, Value> = fields
                .map(|(name, field)| (name.clone(), self.property(field, referred)))
                .collect();
            written["properties"] = Value::Object(properties);
        }
        written
    }

    fn property(&self, field: &Field, referred: &mut Vec<TypeId>) -> Value {
        let mut written = self.inline(field.kind, referred);
        if let Some(default) = &field.default {
            written["default"] = default.clone();
        }
        let patch = &field.patch;
        let strategies = [
            ("merge", patch.merge),
            ("replace", patch.replace),
            ("retainKeys", patch.retain_keys),
        ];
        let strategies: Vec<&str> = strategies
            .into_iter()
            .filter(|(_, holds)| *holds)
            .map(|(name, _)| name)
            .collect();
        if !strategies.is_empty() {
            written["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
        }
        if let Some(key) = &field.patch.merge_key {
            written["x-kubernetes-patch-merge-key"] = json!(key);
        }
        written
    }

    fn inline(&self, id: TypeId, referred: &mut Vec<TypeId>) -> Value {
        if let Some(name) = self.named.get(&id) {
            referred.push(id);
            return reference(name);
        }
        match self.schema.atom(id) {
            Atom {
                scalar: Some(_),
                list: Some(_),
                ..
            } => json!({"x-kubernetes-preserve-unknown-fields": true, "type": "object"}),
            Atom {
                scalar: Some(scalar), ..
            } => scalar_schema(*scalar),
            Atom { list: Some(list), .. } => self.list(list, referred),
            Atom { map: Some(map), .. } => self.structure(map, referred),
            _ => json!({"type": "object"}),
        }
    }

    fn list(&self, list: &ListType, referred: &mut Vec<TypeId>) -> Value {
        let mut written = json!({"type": "array", "items": self.inline(list.element, referred)});
        let kind = match &list.keys {
            Keys::Atomic => "atomic",
            Keys::Value => "set",
            Keys::Fields(keys) => {
                written["x-kubernetes-list-map-keys"] = json!(keys);
                "map"
            }
        };
        written["x-kubernetes-list-type"] = json!(kind);
        written
    }
}

fn scalar_schema(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Text => json!({"type": "string"}),
        Scalar::Number => json!({"type": "integer"}),
        Scalar::Boolean => json!({"type": "boolean"}),
        Scalar::Any => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let kinds = [("apps/v1".to_owned(), "Deployment".to_owned())];
        let components = components(&kinds);
        let text = Value::Object(components.clone()).to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(components.contains_key(name), "{name}");
        }
        let deployment = &components[&component_of("apps/v1", "Deployment").unwrap()];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
        let containers = &components["io.k8s.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    }
}
