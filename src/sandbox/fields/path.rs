//! One step of a path into an object, as `managedFields` writes it and as messages show it. Knows nothing of types.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

/// One step: a field, an item of a list by its key fields, an item of a set, or a position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Field(String),
    Key(Vec<(String, Scalar)>),
    Item(Scalar),
    Index(usize),
}

/// A value that identifies a list item; numbers compare by what they are worth, as Kubernetes compares them.
#[derive(Debug, Clone)]
pub(super) struct Scalar(pub(super) Value);

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(one), Value::Number(two)) => match (one.as_i64(), two.as_i64()) {
                (Some(one), Some(two)) => one.cmp(&two),
                _ => one.as_f64().unwrap_or_default().total_cmp(&two.as_f64().unwrap_or_default()),
            },
            (Value::String(one), Value::String(two)) => one.cmp(two),
            (Value::Bool(one), Value::Bool(two)) => one.cmp(two),
            (one, two) => rank(one).cmp(&rank(two)).then_with(|| one.to_string().cmp(&two.to_string())),
        }
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// Equality that does not tell `1` from `1.0`.
pub(super) fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(_), Value::Number(_)) => Scalar(one.clone()) == Scalar(two.clone()),
        (Value::Array(one), Value::Array(two)) => one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two)),
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one
                    .iter()
                    .all(|(key, value)| two.get(key).is_some_and(|other| same(value, other)))
        }
        (one, two) => one == two,
    }
}

impl Step {
    /// A field step.
    pub(super) fn field(name: &str) -> Step {
        Step::Field(name.to_owned())
    }

    /// The name of a field step.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Step::Field(name) => Some(name),
            _ => None,
        }
    }

    /// Reads one key of a `fieldsV1` object; `None` for a kind of step that a newer server may have written.
    pub(super) fn parse(text: &str) -> Result<Option<Step>, String> {
        let Some((kind, rest)) = text.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
            return Err(format!(
                "`{text}` is not a path element: it has no `f:`, `k:`, `v:` or `i:` in front"
            ));
        };
        let bad = |error: serde_json::Error| format!("`{text}` is not a path element: {error}");
        Ok(Some(match kind {
            "f" => Step::Field(rest.to_owned()),
            "v" => Step::Item(Scalar(serde_json::from_str(rest).map_err(bad)?)),
            "k" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).map_err(bad)?;
                Step::key(fields.into_iter().collect())
            }
            "i" => Step::Index(rest.parse().map_err(|_| format!("`{text}` is not a path element"))?),
            _ => return Ok(None),
        }))
    }

    /// A key step; key fields are always in the order of their names.
    pub(super) fn key(mut fields: Vec<(String, Value)>) -> Step {
        fields.sort_by(|one, two| one.0.cmp(&two.0));
        Step::Key(fields.into_iter().map(|(name, value)| (name, Scalar(value))).collect())
    }

    /// The step as a key of a `fieldsV1` object.
    pub(super) fn encode(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Item(value) => format!("v:{}", value.0),
            Step::Index(index) => format!("i:{index}"),
            Step::Key(fields) => {
                let fields: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", Value::Object(fields))
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Item(value) => write!(f, "[={}]", value.0),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
                write!(f, "[{}]", fields.join(","))
            }
        }
    }
}
