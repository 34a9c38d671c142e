//! A request's query and its field selector, read once and in one way: whoever decides about a request and whoever answers it must not read two
//! things in it. The rules are kube-apiserver's (`url.ParseQuery`, `runtime.Convert_Slice_string_To_bool`, `fields.ParseSelector`).

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The decoded query: the first value of each name.
#[derive(Debug, Clone, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Decodes `a=b&c=d`. A pair that cannot be decoded is none.
    pub fn parse(text: &str) -> Query {
        let mut first = BTreeMap::new();
        for (name, value) in text.split('&').filter(|text| !text.is_empty()).filter_map(pair) {
            first.entry(name).or_insert(value);
        }
        Query(first)
    }

    /// The value of a parameter that is present and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the parameter is there at all, as in `?verbose`.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Kubernetes takes any value but `0` and `false` for true, also none.
    pub fn flag(&self, name: &str) -> bool {
        let is_on = |value: &String| value != "0" && !value.eq_ignore_ascii_case("false");
        self.0.get(name).is_some_and(is_on)
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    if text.contains(';') {
        return None;
    }
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Some((decode(name)?, decode(value)?))
}

fn decode(text: &str) -> Option<String> {
    let mut escaped = text.split('%').skip(1);
    let is_whole = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !escaped.all(is_whole) {
        return None;
    }
    Some(percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned())
}

/// Equality tests on single fields; all have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One `field=value` or `field!=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// Dotted path.
    pub field: String,
    /// Value that the field is compared with.
    pub value: String,
    /// True for `=`, false for `!=`.
    pub equal: bool,
}

/// A text that is no field selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: invalid field selector: {0:?}; can't understand {1:?}")]
pub struct InvalidFieldSelector(String, String);

impl FieldSelector {
    /// Reads `a=b,c!=d`. In values `\,`, `\=` and `\\` stand for what follows the backslash.
    pub fn parse(text: &str) -> Result<FieldSelector, InvalidFieldSelector> {
        let terms = split_terms(text).into_iter().filter(|term| !term.is_empty());
        let terms = terms.map(|term| {
            let found = field_term(term);
            found.ok_or_else(|| InvalidFieldSelector(text.to_owned(), term.to_owned()))
        });
        Ok(FieldSelector {
            terms: terms.collect::<Result<_, _>>()?,
        })
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether the object's fields satisfy the selector; a missing field is the empty text.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (field_text(object, &term.field) == term.value) == term.equal)
    }

    /// The value that a field has to have in everything that matches, if one is stated.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|term| term.equal && term.field == field);
        term.map(|term| term.value.as_str())
    }
}

fn field_text(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, segment| value.get(segment));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Splits at commas that no backslash stands before.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut begin, mut is_escaped) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        if character == ',' && !is_escaped {
            terms.push(&text[begin..at]);
            begin = at + 1;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    terms.push(&text[begin..]);
    terms
}

/// The operator that stands first separates.
fn field_term(term: &str) -> Option<FieldTerm> {
    let at = term.find('=')?;
    let (field, equal) = match term[..at].strip_suffix('!') {
        Some(field) => (field, false),
        None => (&term[..at], true),
    };
    let value = &term[at + 1..];
    let value = if equal {
        value.strip_prefix('=').unwrap_or(value)
    } else {
        value
    };
    Some(FieldTerm {
        field: field.to_owned(),
        value: unescape(value)?,
        equal,
    })
}

fn unescape(value: &str) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().filter(|next| ['\\', ',', '='].contains(next))?),
            ',' | '=' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What Go's `url.Values.Get` gives for the same queries.
    #[test]
    fn the_first_value_that_can_be_decoded_counts() {
        for (query, wanted) in [
            ("a=1&a=2", Some("1")),
            ("%61=1&a=2", Some("1")),
            ("a=%zz&a=2", Some("2")),
            ("a=1;b&a=2", Some("2")),
            ("a=x+y%2Cz", Some("x y,z")),
            ("a=%4", None),
            ("a=", None),
            ("b=1", None),
        ] {
            assert_eq!(Query::parse(query).get("a"), wanted, "{query}");
        }
        for (query, wanted) in [
            ("watch", true),
            ("watch=", true),
            ("watch=1&watch=0", true),
            ("w%61tch=1", true),
            ("watch=0&watch=1", false),
            ("watch=FALSE", false),
            ("watch=False", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(query).flag("watch"), wanted, "{query}");
        }
    }

    #[test]
    fn field_selectors_are_read_as_kubernetes_reads_them() {
        let exact = |text: &str| FieldSelector::parse(text).unwrap().exact("metadata.name").map(str::to_owned);
        for (text, wanted) in [
            ("metadata.name=web", Some("web")),
            ("metadata.name==web", Some("web")),
            ("a=b,metadata.name=web", Some("web")),
            ("metadata.name!=web", None),
            (" metadata.name=web", None),
            ("metadata.name=a\\,b", Some("a,b")),
            ("", None),
        ] {
            assert_eq!(exact(text).as_deref(), wanted, "{text}");
        }
        for wrong in [
            "metadata.name",
            "a=b=c",
            "a=b\\x",
            "a=b\\",
            "metadata.namespace!=x\\,metadata.name=web",
        ] {
            assert!(FieldSelector::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_of_objects() {
        let object = serde_json::json!({"metadata": {"name": "web"}, "spec": {"n": 3}});
        for (selector, matches) in [
            ("metadata.name=web", true),
            ("metadata.name!=web", false),
            ("spec.n=3,spec.x=", true),
        ] {
            assert_eq!(
                FieldSelector::parse(selector).unwrap().matches(&object),
                matches,
                "{selector}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z=!,;&%+\\\\0-9é]{0,40}") {
            let _ = Query::parse(&text).flag("a");
            let _ = FieldSelector::parse(&text);
        }
    }
}
