//! What people ask for: `KIND/NAME` as kubectl takes it, and a field as a JSON pointer or a dotted path. Looks nothing up.

use std::fmt;

use crate::core::ids::ObjectKey;

/// Kubernetes' own short names of the kinds that people name most.
const SHORT: [(&str, &str); 14] = [
    ("cj", "cronjob"),
    ("cm", "configmap"),
    ("crd", "customresourcedefinition"),
    ("deploy", "deployment"),
    ("ds", "daemonset"),
    ("hpa", "horizontalpodautoscaler"),
    ("ing", "ingress"),
    ("netpol", "networkpolicy"),
    ("ns", "namespace"),
    ("pdb", "poddisruptionbudget"),
    ("pvc", "persistentvolumeclaim"),
    ("sa", "serviceaccount"),
    ("sts", "statefulset"),
    ("svc", "service"),
];

/// `KIND/NAME`, `KIND.GROUP/NAME`; the kind in any case, singular or plural.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectQuery {
    kind: String,
    group: Option<String>,
    /// The namespace, where one is asked for.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectQuery {
    /// Reads `KIND/NAME`; nothing where the text is something else.
    pub fn parse(text: &str, namespace: Option<&str>) -> Option<Self> {
        let (kind, name) = text
            .split_once('/')
            .filter(|(kind, name)| !kind.is_empty() && !name.is_empty())?;
        let (kind, group) = match kind.split_once('.') {
            Some((kind, group)) => (kind, Some(group.to_owned())),
            None => (kind, None),
        };
        Some(ObjectQuery {
            kind: kind.to_ascii_lowercase(),
            group,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }

    /// Whether an object is of the kind that is asked for. What a chart becomes is asked for by either name.
    pub fn is_kind(&self, key: &ObjectKey) -> bool {
        let kind = key.kind.to_ascii_lowercase();
        let plural = match kind.as_str() {
            kind if kind.ends_with('y') => format!("{}ies", &kind[..kind.len() - 1]),
            kind if kind.ends_with('s') => format!("{kind}es"),
            kind => format!("{kind}s"),
        };
        let asked = match self.kind.as_str() {
            "helmrelease" | "helmreleases" => "helmchart",
            asked => SHORT
                .iter()
                .find(|(short, _)| *short == asked)
                .map_or(asked, |(_, kind)| kind),
        };
        let is_group = self.group.as_ref().is_none_or(|group| *group == key.group);
        is_group && (asked == kind || asked == plural)
    }

    /// Whether this is the object that is asked for, the namespace apart.
    pub fn is(&self, key: &ObjectKey) -> bool {
        self.is_kind(key) && self.name == key.name
    }
}

impl fmt::Display for ObjectQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = self.group.as_ref().map(|group| format!(".{group}")).unwrap_or_default();
        write!(f, "{}{group}/{}", self.kind, self.name)
    }
}

/// A field as a JSON pointer: `/data/greeting`, `data.greeting`, `spec.containers[0].image`, `metadata.labels["a.b/c"]`, `metadata.labels.a\.b/c`.
pub fn field_pointer(text: &str) -> String {
    if text.starts_with('/') || text.is_empty() {
        return text.trim_end_matches('/').to_owned();
    }
    let tokens = path_tokens(text).into_iter().filter(|token| !token.is_empty());
    tokens.fold(String::new(), |pointer, token| {
        format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
    })
}

fn path_tokens(text: &str) -> Vec<String> {
    let mut tokens = vec![String::new()];
    let mut letters = text.chars().peekable();
    let mut quote: Option<char> = None;
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '.' | '[' | ']') => tokens.push(String::new()),
            (None, '\\') => tokens.last_mut().into_iter().for_each(|token| token.extend(letters.next())),
            (_, letter) => tokens.last_mut().into_iter().for_each(|token| token.push(letter)),
        }
    }
    tokens
}

/// Whether two pointers name the same field, or one a field that holds the other.
pub(super) fn concerns(set: &str, asked: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(set, asked) || below(asked, set)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn key(group: &str, kind: &str) -> ObjectKey {
        ObjectKey {
            group: group.into(),
            kind: kind.into(),
            namespace: None,
            name: "web".into(),
        }
    }

    #[test]
    fn kinds_are_named_as_for_kubectl() {
        for text in [
            "Deployment/web",
            "deployment/web",
            "deployments/web",
            "deployments.apps/web",
            "deploy/web",
        ] {
            assert!(
                ObjectQuery::parse(text, None).unwrap().is(&key("apps", "Deployment")),
                "{text}"
            );
        }
        assert!(
            ObjectQuery::parse("networkpolicies/web", None)
                .unwrap()
                .is(&key("", "NetworkPolicy"))
        );
        assert!(ObjectQuery::parse("ingresses/web", None).unwrap().is(&key("", "Ingress")));
        assert!(
            ObjectQuery::parse("helmrelease/web", None)
                .unwrap()
                .is(&key("apps.clusternet.io", "HelmChart"))
        );
        assert!(
            !ObjectQuery::parse("deployments.extensions/web", None)
                .unwrap()
                .is(&key("apps", "Deployment"))
        );
        assert_eq!(ObjectQuery::parse("web", None), None);
        assert_eq!(ObjectQuery::parse("/web", None), None);
    }

    #[test]
    fn fields_are_named_in_either_way() {
        for (text, pointer) in [
            ("/data/a.b", "/data/a.b"),
            ("data.greeting", "/data/greeting"),
            (".data.greeting", "/data/greeting"),
            ("spec.containers[0].image", "/spec/containers/0/image"),
            ("metadata.labels[\"a.b/c\"]", "/metadata/labels/a.b~1c"),
            ("metadata.labels.a\\.b/c", "/metadata/labels/a.b~1c"),
        ] {
            assert_eq!(field_pointer(text), pointer);
        }
    }

    #[test]
    fn a_field_concerns_what_holds_it_and_what_it_holds() {
        assert!(concerns("/data", "/data/a") && concerns("/data/a", "/data") && concerns("", "/data"));
        assert!(!concerns("/data/ab", "/data/a") && !concerns("/data/a", "/data/b"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_pointer(text in ".{0,40}") {
            let pointer = field_pointer(&text);
            prop_assert!(pointer.is_empty() || pointer.starts_with('/'));
        }
    }
}
