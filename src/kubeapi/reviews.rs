//! The questions of `kubectl auth can-i` and `whoami` as resources: they are created, answered and never stored.

use super::resource::Resource;
use super::table::Columns;

/// The questions that clients ask about themselves.
pub fn review_resources() -> Vec<Resource> {
    let review = |group: &str, kind: &str, plural: &str| {
        Resource::new(group, "v1", kind, plural, false)
            .with_verbs(&["create"])
            .printed(Columns::NameAndAge)
    };
    vec![
        review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews"),
        review("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        review("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    ]
}
