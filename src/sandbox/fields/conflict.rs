//! What stands against an apply and how Kubernetes says it: message and `Status` causes. Decides nothing.

use serde_json::{Value, json};

use super::managed::Operation;

/// One field that another manager has and the applied object would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Name of the other manager.
    pub manager: String,
    /// How it wrote the field.
    pub operation: Operation,
    /// The API version it wrote in.
    pub api_version: String,
    /// The subresource it wrote through, or empty.
    pub subresource: String,
    /// The field, for example `.spec.template.spec.containers[name="web"].image`.
    pub field: String,
}

/// Why an apply is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Other managers have fields with other values; HTTP 409, reason `Conflict`.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The request itself is wrong; HTTP 400, reason `BadRequest`.
    #[error("{0}")]
    Invalid(String),
    /// The applied object does not fit its type; Kubernetes answers HTTP 500 with this text.
    #[error("{0}")]
    NotOfType(String),
}

impl Conflict {
    /// The other manager as messages name it, for example `"kubectl-client-side-apply" using apps/v1`.
    fn named_manager(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

/// Kubernetes' message for these conflicts.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.named_manager(),
            only.field
        );
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        let manager = conflict.named_manager();
        if last.as_ref() != Some(&manager) {
            lines.push(format!("conflicts with {manager}:"));
            last = Some(manager);
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The `details.causes` of the `Status` that answers a conflict.
pub fn conflict_causes(conflicts: &[Conflict]) -> Value {
    let cause = |conflict: &Conflict| {
        json!({
            "reason": "FieldManagerConflict",
            "message": format!("conflict with {}", conflict.named_manager()),
            "field": conflict.field,
        })
    };
    Value::Array(conflicts.iter().map(cause).collect())
}
