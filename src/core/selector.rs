//! Label selectors: a checked form of `LabelSelector` and whether it matches. Owns no cluster.

use std::collections::BTreeMap;

use crate::core::api::subscription::{ClusterSelectorTerm, LabelRequirement, LabelSelector};
use crate::core::ids::is_dns_name;

/// Label that every ManagedCluster carries: its cluster id.
pub const CLUSTER_ID_LABEL: &str = "clusters.clusternet.io/cluster-id";
/// Label that every ManagedCluster carries: its name.
pub const CLUSTER_NAME_LABEL: &str = "clusters.clusternet.io/cluster-name";

/// Labels of a cluster.
pub type Labels = BTreeMap<String, String>;

/// The most labels that a cluster may ask for, and the most that it may report later.
pub const MAX_LABELS: usize = 64;

/// Checks a label as the API server does: `[prefix/]name`, the prefix a DNS subdomain, name and value at most 63 characters.
pub fn check_label(key: &str, value: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let word = |text: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inside)
    };
    if !word(name) || prefix.is_some_and(|prefix| !is_dns_name(prefix, 253, true)) {
        return Err(format!(
            "{key:?} is not a label key: an optional DNS prefix with a slash, then at most 63 letters, digits, '-', '_' or '.'"
        ));
    }
    if !value.is_empty() && !word(value) {
        return Err(format!(
            "{value:?} is not a value for label {key:?}: at most 63 letters, digits, '-', '_' or '.', letters or digits at both ends"
        ));
    }
    Ok(())
}

/// A label selector whose operators and values were checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    /// The label is an integer above this one.
    Above(String, i64),
    /// The label is an integer below this one.
    Below(String, i64),
}

/// What is wrong with a selector, and where below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidSelector {
    /// JSON pointer below the selector.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl Selector {
    /// Checks operators and values as the API server does (`k8s.io/apimachinery`, `LabelSelectorAsSelector`).
    pub fn parse(selector: &LabelSelector) -> Result<Self, InvalidSelector> {
        let mut requirements: Vec<Requirement> = Vec::new();
        for (key, value) in &selector.match_labels {
            check_label(key, value).map_err(|message| InvalidSelector {
                pointer: format!("/matchLabels/{}", key.replace('~', "~0").replace('/', "~1")),
                message,
            })?;
            requirements.push(Requirement::In(key.clone(), vec![value.clone()]));
        }
        for (index, expression) in selector.match_expressions.iter().enumerate() {
            requirements.push(parse_requirement(expression, index)?);
        }
        Ok(Selector { requirements })
    }

    /// Whether all requirements hold; a selector without any matches everything.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
            Requirement::Above(key, bound) => number(labels, key).is_some_and(|value| value > *bound),
            Requirement::Below(key, bound) => number(labels, key).is_some_and(|value| value < *bound),
        })
    }

    /// Checks a node selector term: `Gt` and `Lt` besides the other operators, `metadata.name` as its only field, and at least one
    /// requirement, because a term without any matches nothing. `name` is the label that holds the name.
    pub fn parse_term(term: &ClusterSelectorTerm, name: &str) -> Result<Self, InvalidSelector> {
        let mut requirements = Vec::new();
        for (index, expression) in term.match_expressions.iter().enumerate() {
            requirements.push(parse_term_requirement(expression, index)?);
        }
        for (index, field) in term.match_fields.iter().enumerate() {
            let place = |error: InvalidSelector| InvalidSelector {
                pointer: error.pointer.replace("matchExpressions", "matchFields"),
                ..error
            };
            if field.key != "metadata.name" {
                return Err(place(InvalidSelector {
                    pointer: format!("/matchExpressions/{index}/key"),
                    message: format!("{:?} is not a field that can be selected; metadata.name is", field.key),
                }));
            }
            let name = LabelRequirement {
                key: name.to_owned(),
                ..field.clone()
            };
            requirements.push(parse_requirement(&name, index).map_err(place)?);
        }
        if requirements.is_empty() {
            return Err(InvalidSelector {
                pointer: String::new(),
                message: "a preference without requirements matches nothing".to_owned(),
            });
        }
        Ok(Selector { requirements })
    }
}

fn number(labels: &Labels, key: &str) -> Option<i64> {
    labels.get(key)?.parse().ok()
}

fn parse_term_requirement(expression: &LabelRequirement, index: usize) -> Result<Requirement, InvalidSelector> {
    let above = match expression.operator.as_str() {
        "Gt" => true,
        "Lt" => false,
        _ => return parse_requirement(expression, index),
    };
    let bound = match expression.values.as_slice() {
        [bound] => bound.parse::<i64>().ok(),
        _ => None,
    };
    let bound = bound.ok_or_else(|| InvalidSelector {
        pointer: format!("/matchExpressions/{index}/values"),
        message: format!("operator {} needs one integer", expression.operator),
    })?;
    let key = expression.key.clone();
    Ok(if above {
        Requirement::Above(key, bound)
    } else {
        Requirement::Below(key, bound)
    })
}

fn parse_requirement(expression: &LabelRequirement, index: usize) -> Result<Requirement, InvalidSelector> {
    let invalid = |field: &str, message: String| InvalidSelector {
        pointer: format!("/matchExpressions/{index}/{field}"),
        message,
    };
    let (key, values) = (expression.key.clone(), expression.values.clone());
    check_label(&key, "").map_err(|message| invalid("key", message))?;
    for value in &values {
        check_label(&key, value).map_err(|message| invalid("values", message))?;
    }
    match (expression.operator.as_str(), values.is_empty()) {
        ("In", false) => Ok(Requirement::In(key, values)),
        ("NotIn", false) => Ok(Requirement::NotIn(key, values)),
        ("Exists", true) => Ok(Requirement::Exists(key)),
        ("DoesNotExist", true) => Ok(Requirement::DoesNotExist(key)),
        ("In" | "NotIn", true) => Err(invalid("values", format!("operator {} needs values", expression.operator))),
        ("Exists" | "DoesNotExist", false) => Err(invalid("values", format!("operator {} takes no values", expression.operator))),
        (other, _) => Err(invalid(
            "operator",
            format!("unknown operator {other:?}; use In, NotIn, Exists or DoesNotExist"),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn check(selector: &str, labels: &[(&str, &str)], want: bool) {
        let selector: LabelSelector = serde_json::from_str(selector).unwrap();
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(
            Selector::parse(&selector).unwrap().matches(&labels),
            want,
            "{selector:?} {labels:?}"
        );
    }

    #[test]
    fn matches_as_kubernetes_does() {
        check("{}", &[], true);
        check(r#"{"matchLabels":{"a":"1"}}"#, &[("a", "1"), ("b", "2")], true);
        check(r#"{"matchLabels":{"a":"1"}}"#, &[("a", "2")], false);
        check(
            r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["1"]}]}"#,
            &[],
            true,
        );
        check(
            r#"{"matchExpressions":[{"key":"a","operator":"In","values":["1","2"]}]}"#,
            &[("a", "2")],
            true,
        );
        check(
            r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#,
            &[("b", "2")],
            false,
        );
        check(
            r#"{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}"#,
            &[("b", "2")],
            true,
        );
    }

    #[test]
    fn names_the_bad_operator() {
        let selector: LabelSelector =
            serde_json::from_str(r#"{"matchExpressions":[{"key":"a","operator":"Gt","values":["1"]}]}"#).unwrap();
        let invalid = Selector::parse(&selector).unwrap_err();
        assert_eq!(invalid.pointer, "/matchExpressions/0/operator");
    }

    #[test]
    fn labels_are_checked_as_kubernetes_does() {
        for (key, value) in [("a", ""), ("node.clusternet.io/zone", "eu_1.a-b"), ("A.b_c", "X")] {
            assert_eq!(check_label(key, value), Ok(()));
        }
        for (key, value) in [
            ("", "x"),
            ("-a", "x"),
            ("a/b/c", "x"),
            ("A/b", "x"),
            ("a", "x y"),
            ("a", "-x"),
            ("\u{1b}[1m", "x"),
        ] {
            assert!(check_label(key, value).is_err(), "{key:?} {value:?}");
        }
        let long = "a".repeat(64);
        assert!(check_label(&long, "").is_err() && check_label("a", &long).is_err());
    }
}
