//! `kubectl auth can-i` and `whoami`: a sandbox lets everybody do everything, and says so. Pure.

use serde_json::{Value, json};

use crate::kubeapi::{Resource, WriteOptions};

/// Whether a resource is a question that is answered and not stored.
pub(super) fn is_review(resource: &Resource) -> bool {
    matches!(resource.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
}

/// The question with its answer.
pub(super) fn answer(question: &Value, options: &WriteOptions) -> Value {
    let mut answer = question.clone();
    answer["status"] = match question.get("kind").and_then(Value::as_str) {
        Some("SelfSubjectReview") => json!({"userInfo": {"username": options.user, "groups": options.groups}}),
        Some("SelfSubjectRulesReview") => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({"allowed": true, "reason": "a sandbox has no access rules"}),
    };
    answer
}
