//! Roles, bindings, certificates and custom resource definitions.

use serde_json::{Value, json};

use super::name;
use crate::kubeapi::table::{ColumnDefinition, Columns, age_of, column, list, name_column, text, wide};

const AGE: ColumnDefinition = column("Age", "string");

/// Roles show when they were created rather than their age.
pub(in super::super) const CLUSTER_ROLES: Columns = Columns::NameAndCreation;
/// So do custom resource definitions.
pub(in super::super) const CRDS: Columns = Columns::NameAndCreation;

pub(in super::super) const ROLE_BINDINGS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Role", "string"),
        AGE,
        wide("Users"),
        wide("Groups"),
        wide("ServiceAccounts"),
    ],
    |object, now| {
        vec![
            name(object),
            json!(format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"))),
            age_of(object, now),
            json!(subjects(object, "User")),
            json!(subjects(object, "Group")),
            json!(subjects(object, "ServiceAccount")),
        ]
    },
);

pub(in super::super) const CERTIFICATES: Columns = Columns::Computed(
    &[
        name_column(),
        AGE,
        column("SignerName", "string"),
        column("Requestor", "string"),
        column("RequestedDuration", "string"),
        column("Condition", "string"),
    ],
    |object, now| {
        let kinds: Vec<&str> = list(object, "/status/conditions")
            .iter()
            .map(|entry| text(entry, "/type"))
            .collect();
        let mut condition = if kinds.is_empty() {
            "Pending".to_owned()
        } else {
            kinds.join(",")
        };
        if !text(object, "/status/certificate").is_empty() {
            condition.push_str(",Issued");
        }
        let seconds = object.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
        let duration = seconds.map_or_else(|| "<none>".to_owned(), crate::kubeapi::table::human_duration);
        vec![
            name(object),
            age_of(object, now),
            json!(text(object, "/spec/signerName")),
            json!(text(object, "/spec/username")),
            json!(duration),
            json!(condition),
        ]
    },
);

fn subjects(object: &Value, kind: &str) -> String {
    let subjects = list(object, "/subjects")
        .iter()
        .filter(|subject| text(subject, "/kind") == kind);
    subjects
        .map(|subject| match (kind, text(subject, "/namespace")) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", text(subject, "/name")),
            _ => text(subject, "/name").to_owned(),
        })
        .collect::<Vec<_>>()
        .join(", ")
}
