//! The JSONPath dialect of printer columns (`.status.conditions[?(@.type=="Ready")].status`): parsing and lookup. Pure.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrinterPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where { field: Vec<String>, equals: String },
}

impl PrinterPath {
    /// Reads a path; `None` when it is outside the dialect.
    pub fn parse(text: &str) -> Option<PrinterPath> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(inner) = rest.strip_prefix('[') {
                let end = closing_bracket(inner)?;
                (bracket(&inner[..end])?, &inner[end + 1..])
            } else {
                dotted(rest.strip_prefix('.').unwrap_or(rest))?
            };
            steps.push(step);
            rest = after;
        }
        Some(PrinterPath(steps))
    }

    /// All values that the path leads to.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        self.0.iter().fold(vec![object], |found, step| {
            found.into_iter().flat_map(|value| step.follow(value)).collect()
        })
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Field(name) => value.get(name).into_iter().collect(),
            Step::Index(index) => value.as_array().and_then(|list| at(list, *index)).into_iter().collect(),
            Step::All => children(value),
            Step::Where { field, equals } => children(value)
                .into_iter()
                .filter(|child| {
                    let found = field.iter().try_fold(*child, |value, name| value.get(name));
                    found.is_some_and(|found| text_of(found) == *equals)
                })
                .collect(),
        }
    }
}

/// A scalar as kubectl prints it; containers as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn at(list: &[Value], index: i64) -> Option<&Value> {
    let from_end = usize::try_from(index.unsigned_abs()).ok()?;
    match index {
        0.. => list.get(from_end),
        _ => list.len().checked_sub(from_end).and_then(|index| list.get(index)),
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn closing_bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, character)| match (quote, character) {
        (None, ']') => Some(at),
        (None, '"' | '\'') => {
            quote = Some(character);
            None
        }
        (Some(open), close) if open == close => {
            quote = None;
            None
        }
        _ => None,
    })
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(inner) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        let (field, equals) = filter.split_once("==")?;
        let field = field.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let equals = equals.trim();
        return Some(Step::Where {
            field,
            equals: unquoted(equals).unwrap_or(equals).to_owned(),
        });
    }
    inner.parse().ok().map(Step::Index)
}

fn unquoted(text: &str) -> Option<&str> {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

fn dotted(text: &str) -> Option<(Step, &str)> {
    let mut previous_was_backslash = false;
    let end = text
        .find(|character| {
            let ends = matches!(character, '.' | '[') && !previous_was_backslash;
            previous_was_backslash = character == '\\';
            ends
        })
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match name {
        "" => None,
        "*" => Some((Step::All, rest)),
        name => Some((Step::Field(name.replace("\\.", ".")), rest)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_values() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, want) in [
            (r#".status.conditions[?(@.type=="Ready")].status"#, "True"),
            (r#"{.status.conditions[?(@.type=='Other')].status}"#, "False"),
            (".status.conditions[-1].type", "Other"),
            (r".metadata.labels.a\.b/c", "x"),
            (r"$.metadata.labels['a.b/c']", "x"),
        ] {
            assert_eq!(PrinterPath::parse(path).unwrap().find(&object), [&json!(want)], "{path}");
        }
        assert_eq!(
            PrinterPath::parse(".status.conditions[*].type").unwrap().find(&object).len(),
            2
        );
        assert!(PrinterPath::parse(".a[?(x").is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in r#"[a-z.$@?*=()\[\]{}'"\\é0-9-]{0,30}"#) {
            if let Some(path) = PrinterPath::parse(&text) {
                path.find(&json!({"a": [{"b": "c"}]}));
            }
        }
    }
}
