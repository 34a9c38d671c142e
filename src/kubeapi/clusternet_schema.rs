//! Fields of Clusternet's kinds for `kubectl explain` and client-side checks, from the table beside this file: a line is
//! `<type> <field> <expression> <description>`, expressions are `string integer boolean object`, `[]E`, `{}E` or a type; the field `.` stands for
//! the type itself. Pure.

use serde_json::{Map, Value, json};

use super::resource::{Catalog, Resource};

const TABLE: &str = include_str!("clusternet.txt");
const GROUP: &str = "io.clusternet.";

struct Line {
    owner: &'static str,
    field: &'static str,
    expression: &'static str,
    description: &'static str,
}

fn lines() -> impl Iterator<Item = Line> {
    TABLE.lines().filter_map(|line| {
        let mut words = line.splitn(4, ' ');
        Some(Line {
            owner: words.next()?,
            field: words.next()?,
            expression: words.next()?,
            description: words.next()?,
        })
    })
}

/// The component that describes a type; `None` for one that is not in the table.
pub fn component_of(kind: &str) -> Option<String> {
    lines().any(|line| line.owner == kind).then(|| format!("{GROUP}{kind}"))
}

/// OpenAPI components of the kinds of one group and version, and of what they refer to.
pub fn clusternet_schemas(catalog: &Catalog, group: &str, version: &str) -> Map<String, Value> {
    let mut components = Map::new();
    for line in lines() {
        let component = components
            .entry(format!("{GROUP}{}", line.owner))
            .or_insert_with(|| json!({"type": "object", "properties": {}}));
        if line.field == "." {
            component["description"] = json!(line.description);
            continue;
        }
        let mut property = schema(line.expression);
        property["description"] = json!(line.description);
        component["properties"][line.field] = property;
    }
    for resource in catalog.of_version(group, version) {
        if let Some(component) = components.get_mut(&resource.schema) {
            add_kind(component, resource);
        }
    }
    components
}

/// Makes a component that of a kind: what every object has, and which kind it is.
fn add_kind(component: &mut Value, resource: &Resource) {
    let (group, version) = (&resource.group, &resource.version);
    component["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": resource.kind}]);
    for (field, expression, description) in [
        ("apiVersion", "string", "Group and version of this form of the object."),
        ("kind", "string", "What kind of object this is."),
        ("metadata", "ObjectMeta", "Name, namespace, labels and annotations."),
    ] {
        let mut property = schema(expression);
        property["description"] = json!(description);
        component["properties"][field] = property;
    }
}

fn schema(expression: &str) -> Value {
    if let Some(element) = expression.strip_prefix("[]") {
        return json!({"type": "array", "items": schema(element)});
    }
    if let Some(element) = expression.strip_prefix("{}") {
        return json!({"type": "object", "additionalProperties": schema(element)});
    }
    match expression {
        "string" | "integer" | "boolean" => json!({"type": expression}),
        "object" => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        name => json!({"allOf": [{"$ref": format!("#/components/schemas/{GROUP}{name}")}]}),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let catalog = Catalog::new(super::super::clusternet_resources());
        let components = clusternet_schemas(&catalog, "apps.clusternet.io", "v1alpha1");
        for part in Value::Object(components.clone())
            .to_string()
            .split("#/components/schemas/")
            .skip(1)
        {
            let name = part.split('"').next().unwrap();
            assert!(components.contains_key(name), "{name}");
        }
        let subscription = &components["io.clusternet.Subscription"];
        assert_eq!(subscription["x-kubernetes-group-version-kind"][0]["version"], "v1alpha1");
        assert_eq!(component_of("Nothing"), None);
        for resource in catalog.iter() {
            let component = component_of(&resource.kind).unwrap();
            let described = components[&component]["description"].as_str();
            assert!(described.is_some_and(|text| text.ends_with('.')), "{component}");
        }
    }
}
