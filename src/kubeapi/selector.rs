//! Label selectors in the text form of query parameters: parsing and matching. Pure.

use std::fmt;

use serde_json::Value;

/// A selector that does not parse; the texts are Kubernetes' own where clients show them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {0}")]
pub struct SelectorError(String);

/// All requirements have to hold; an empty selector matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        let requirements = split_outside_parentheses(text)?
            .into_iter()
            .map(requirement)
            .collect::<Result<_, _>>()?;
        Ok(LabelSelector {
            requirements,
            text: text.to_owned(),
        })
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object's labels satisfy the selector.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.requirements.iter().all(|requirement| {
            let value = labels.and_then(|labels| labels.get(&requirement.key)).and_then(Value::as_str);
            requirement.test.holds(value)
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|refused| refused != value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Greater(bound) => number().is_some_and(|number| number > *bound),
            Test::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, SelectorError> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => return Err(SelectorError(format!("found ')' without '(' in {text:?}"))),
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(SelectorError(format!("found '(' without ')' in {text:?}")));
    }
    parts.push(&text[start..]);
    if text.trim().is_empty() {
        parts.clear();
    }
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let text = text.trim();
    let (key, test) = if let Some(key) = text.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, Test::In(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = text.split_once('>') {
        (key, Test::Greater(number(value)?))
    } else if let Some((key, value)) = text.split_once('<') {
        (key, Test::Less(number(value)?))
    } else if let Some((head, values)) = text.split_once('(') {
        set_requirement(head, values)?
    } else {
        (text, Test::Exists)
    };
    Ok(Requirement {
        key: valid_key(key.trim(), text)?,
        test,
    })
}

fn set_requirement<'a>(head: &'a str, values: &str) -> Result<(&'a str, Test), SelectorError> {
    let values = values.trim_end().trim_end_matches(')');
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
    match head.trim().rsplit_once(char::is_whitespace) {
        Some((key, "in")) => Ok((key, Test::In(values))),
        Some((key, "notin")) => Ok((key, Test::NotIn(values))),
        _ => Err(SelectorError(format!(
            "found '(', expected: in, notin, =, ==, != after {head:?}"
        ))),
    }
}

fn number(text: &str) -> Result<i64, SelectorError> {
    text.trim()
        .parse()
        .map_err(|_| SelectorError(format!("{text:?}: for 'Gt', 'Lt' operators, the value must be an integer")))
}

fn valid_key(key: &str, requirement: &str) -> Result<String, SelectorError> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !key.is_empty() && key.chars().all(known) {
        return Ok(key.to_owned());
    }
    Err(SelectorError(format!(
        "<nil>: Invalid value: {key:?} in {requirement:?}: name part must consist of alphanumeric characters, '-', '_' or '.', \
         and must start and end with an alphanumeric character"
    )))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn selects(selector: &str) -> bool {
        let object = json!({"metadata": {"name": "web", "labels": {"app": "web", "tier": "front", "n": "5"}}});
        LabelSelector::parse(selector).unwrap().matches(&object)
    }

    #[test]
    fn label_operators() {
        for selector in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "none!=x",
            "app in (db, web)",
            "app notin (db)",
            "none notin (x)",
            "tier",
            "!none",
            "n>4",
            "n<6",
            "app=web,tier in (front,back),!none",
        ] {
            assert!(selects(selector), "{selector}");
        }
        for selector in [
            "app=db",
            "none=",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "none",
            "!app",
            "n>5",
            "app>1",
        ] {
            assert!(!selects(selector), "{selector}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for selector in ["app in (a", "a)", "app foo (a)", "n>x", "=b", "a b", ",a"] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-z/!=<>(), é\\-]{0,40}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                selector.matches(&json!({"metadata": {"labels": {"a": "b"}}}));
            }
        }
    }
}
