//! Holds an applied value against its type and says, in Kubernetes' words, what does not fit. Changes nothing.

use serde_json::Value;

use super::path::Step;
use super::schema::{Forms, Keys, ListType, MapType, Scalar, Schema, TypeId};
use super::walk::item_step;

/// `Ok` or Kubernetes' text: one problem on a line, or a list of them.
pub(super) fn validate(schema: &Schema, kind: TypeId, value: &Value) -> Result<(), String> {
    let mut validator = Validator {
        schema,
        path: Vec::new(),
        problems: Vec::new(),
    };
    validator.visit(kind, value);
    match validator.problems.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Validator<'a> {
    schema: &'a Schema,
    path: Vec<Step>,
    problems: Vec<String>,
}

impl Validator<'_> {
    fn visit(&mut self, kind: TypeId, value: &Value) {
        let atom = self.schema.atom(kind);
        match (atom.forms(Some(value)), &atom.map, &atom.list, atom.scalar) {
            (_, _, _, _) if value.is_null() => {}
            (Forms { map: true, .. }, Some(map), _, _) => self.visit_map(map, value),
            (Forms { scalar: true, .. }, _, _, Some(scalar)) => self.visit_scalar(scalar, value),
            (_, _, Some(list), _) => self.visit_list(list, value),
            _ => {}
        }
    }

    fn visit_map(&mut self, map: &MapType, value: &Value) {
        let Value::Object(fields) = value else {
            return self.problem(format!("expected map, got {}", shown(value)));
        };
        for (key, child) in fields {
            self.path.push(Step::field(key));
            match map.child(key) {
                Some(kind) => self.visit(kind, child),
                None => self.problem("field not declared in schema".to_owned()),
            }
            self.path.pop();
        }
    }

    fn visit_list(&mut self, list: &ListType, value: &Value) {
        let Value::Array(items) = value else {
            return self.problem(format!("expected list, got {}", shown(value)));
        };
        let mut seen = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let step = match list.keys {
                Keys::Atomic => Ok(Step::Index(index)),
                _ => item_step(self.schema, list, item),
            };
            let step = match step {
                Ok(step) => step,
                Err(problem) => return self.problem(format!("element {index}: {problem}")),
            };
            if seen.contains(&step) {
                self.problem(format!("duplicate entries for key {step}"));
            }
            seen.push(step.clone());
            self.path.push(step);
            self.visit(list.element, item);
            self.path.pop();
        }
    }

    fn visit_scalar(&mut self, scalar: Scalar, value: &Value) {
        let wanted = match (scalar, value) {
            (Scalar::Text, Value::String(_)) | (Scalar::Number, Value::Number(_)) | (Scalar::Boolean, Value::Bool(_)) => return,
            (Scalar::Any, Value::String(_) | Value::Number(_) | Value::Bool(_)) => return,
            (Scalar::Text, value) => format!("expected string, got &value.valueUnstructured{{Value:{}}}", literal(value)),
            (Scalar::Number, value) => format!("expected numeric (int or float), got {}", go_type(value)),
            (Scalar::Boolean, value) => format!("expected boolean, got {}", shown(value)),
            (Scalar::Any, value) => format!("expected any scalar, got {}", shown(value)),
        };
        self.problem(wanted);
    }

    fn problem(&mut self, text: String) {
        let path: String = self.path.iter().map(Step::to_string).collect();
        self.problems.push(match path.as_str() {
            "" => text,
            path => format!("{path}: {text}"),
        });
    }
}

/// A value as Go prints the wrapper around it with `%v`.
fn shown(value: &Value) -> String {
    format!("&{{{}}}", plain(value))
}

fn plain(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(plain).collect())),
        Value::Object(map) => {
            format!(
                "map[{}]",
                joined(map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect())
            )
        }
        value => value.to_string(),
    }
}

/// A value as Go prints it with `%#v`.
fn literal(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Array(items) => format!("[]interface {{}}{{{}}}", joined(items.iter().map(literal).collect())),
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| format!("{key:?}:{}", literal(value))).collect();
            format!("map[string]interface {{}}{{{}}}", joined(fields))
        }
        value => value.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
