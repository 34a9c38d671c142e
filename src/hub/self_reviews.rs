//! Answers what users ask about themselves, by the same policy that lets their requests in: `kubectl auth can-i` and `kubectl auth whoami`. Pure.

use serde_json::{Value, json};

use crate::core::access::User;
use crate::core::access::attributes::{Attributes, ResourceAttributes, Target};
use crate::core::access::rbac::{Policy, PolicyRule};
use crate::kubeapi::ApiError;

/// The question with its answer.
pub(super) fn answer(question: &Value, user: &User, policy: &Policy) -> Result<Value, ApiError> {
    let mut answer = question.clone();
    answer["status"] = match question["kind"].as_str() {
        Some("SelfSubjectReview") => json!({"userInfo": {"username": user.name, "groups": user.groups}}),
        Some("SelfSubjectRulesReview") => rules(question, user, policy),
        Some("SelfSubjectAccessReview") => access(question, user, policy)?,
        _ => {
            return Err(ApiError::bad_request(
                "the question's kind is missing or is not one that is answered here",
            ));
        }
    };
    Ok(answer)
}

fn access(question: &Value, user: &User, policy: &Policy) -> Result<Value, ApiError> {
    let text = |pointer: &str| {
        question
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let some = |pointer: &str| Some(text(pointer)).filter(|text| !text.is_empty());
    let attributes = if question.pointer("/spec/resourceAttributes").is_some_and(Value::is_object) {
        let of = |field: &str| format!("/spec/resourceAttributes/{field}");
        Attributes {
            verb: text(&of("verb")),
            target: Target::Resource(ResourceAttributes {
                group: text(&of("group")),
                namespace: some(&of("namespace")),
                resource: text(&of("resource")),
                subresource: some(&of("subresource")),
                name: some(&of("name")),
                alias: None,
            }),
        }
    } else if question.pointer("/spec/nonResourceAttributes").is_some_and(Value::is_object) {
        Attributes {
            verb: text("/spec/nonResourceAttributes/verb"),
            target: Target::Path(text("/spec/nonResourceAttributes/path")),
        }
    } else {
        return Err(ApiError::bad_request(
            "spec names neither resourceAttributes nor nonResourceAttributes: say what it is about",
        ));
    };
    Ok(match policy.decide(user, &attributes) {
        Some(by) => json!({"allowed": true, "reason": by.to_string()}),
        None => {
            json!({"allowed": false, "reason": format!("no rule grants it; this one would: {}", attributes.rule_that_grants())})
        }
    })
}

fn rules(question: &Value, user: &User, policy: &Policy) -> Value {
    let namespace = question
        .pointer("/spec/namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let all = policy.rules_of(user, namespace);
    let of_resources = all.iter().filter(|rule| !rule.resources.is_empty());
    let of_paths = all.iter().filter(|rule| !rule.non_resource_urls.is_empty());
    json!({
        "resourceRules": of_resources.map(resource_rule).collect::<Vec<_>>(),
        "nonResourceRules": of_paths.map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls})).collect::<Vec<_>>(),
        "incomplete": false,
    })
}

fn resource_rule(rule: &PolicyRule) -> Value {
    json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources, "resourceNames": rule.resource_names})
}
