//! Answers what users ask about themselves, by the same policy that lets their requests in: `kubectl auth can-i` and `kubectl auth whoami`. Pure.

use serde_json::{Value, json};

use crate::core::access::User;
use crate::core::access::attributes::{Attributes, ClusterNames, ResourceAttributes, Target};
use crate::core::access::rbac::{Policy, PolicyRule};
use crate::core::state::registrations::Registrations;
use crate::kubeapi::ApiError;

/// The question with its answer.
pub(super) fn answer(question: &Value, user: &User, policy: &Policy, registrations: &Registrations) -> Result<Value, ApiError> {
    let mut answer = question.clone();
    answer["status"] = match question["kind"].as_str() {
        Some("SelfSubjectReview") => json!({"userInfo": {"username": user.name, "groups": user.groups}}),
        Some("SelfSubjectRulesReview") => rules(question, user, policy),
        Some("SelfSubjectAccessReview") => access(question, user, policy, registrations)?,
        _ => {
            return Err(ApiError::bad_request(
                "the question's kind is missing or is not one that is answered here",
            ));
        }
    };
    Ok(answer)
}

fn access(question: &Value, user: &User, policy: &Policy, registrations: &Registrations) -> Result<Value, ApiError> {
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
    Ok(match policy.decide(user, &as_decided_on(&attributes, registrations)) {
        Some(by) => json!({"allowed": true, "reason": by.to_string()}),
        None => {
            json!({"allowed": false, "reason": format!("no rule grants it; this one would: {}", attributes.rule_that_grants())})
        }
    })
}

/// A question about a cluster is answered as a request for it would be: rules may name it by another word, or in its namespace.
fn as_decided_on(asked: &Attributes, registrations: &Registrations) -> Attributes {
    let known = match &asked.target {
        Target::Resource(resource) => {
            let names = resource
                .name
                .as_ref()
                .and_then(|name| ClusterNames::find(registrations, name));
            names.and_then(|names| names.standing_for(resource))
        }
        Target::Path(_) => None,
    };
    Attributes {
        verb: asked.verb.clone(),
        target: known.map_or_else(|| asked.target.clone(), Target::Resource),
    }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use super::*;
    use crate::core::access::rbac::{AccessKey, AccessObjects, Binding, Role, Subject};

    const ID: &str = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";

    /// A policy in which carol may get the cluster that is called east, by a rule in its dedicated namespace.
    fn policy() -> Policy {
        let key = |kind: &str| AccessKey {
            kind: kind.to_owned(),
            namespace: "clusternet-east".to_owned(),
            name: "look".to_owned(),
        };
        let one = |text: &str| vec![text.to_owned()];
        let rule = PolicyRule {
            verbs: one("get"),
            api_groups: one("branchline.io"),
            resources: one("clusters/proxy"),
            resource_names: one("east"),
            non_resource_urls: Vec::new(),
        };
        let role = Role {
            rules: vec![rule],
            ..Role::default()
        };
        let binding = Binding {
            subjects: vec![Subject::User("carol".to_owned())],
            role: key("Role"),
        };
        Policy::new(&AccessObjects {
            roles: [(key("Role"), Arc::new(role))].into(),
            bindings: [(key("RoleBinding"), Arc::new(binding))].into(),
        })
    }

    #[test]
    fn a_question_about_a_cluster_is_answered_as_a_request_for_it() {
        let mut registrations = Registrations::default();
        let known: crate::core::state::registrations::Registration = serde_json::from_value(json!({
            "clusterId": ID, "clusterName": "east", "dedicatedNamespace": "clusternet-east", "decision": "Approved", "keyDigest": "",
        }))
        .unwrap();
        registrations.clusters.insert(known.cluster_id.clone(), known);
        let carol = User {
            name: "carol".to_owned(),
            ..User::default()
        };
        let may = |verb: &str, name: &str| {
            let resource =
                json!({"group": "branchline.io", "resource": "clusters", "subresource": "proxy", "verb": verb, "name": name});
            let question = json!({"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": resource}});
            let answer = answer(&question, &carol, &policy(), &registrations).unwrap();
            answer["status"]["allowed"].as_bool().unwrap()
        };
        assert_eq!([may("get", "east"), may("get", ID)], [true, true]);
        assert_eq!([may("delete", "east"), may("get", "west"), may("get", "")], [false; 3]);
    }
}
