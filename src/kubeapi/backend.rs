//! What a server puts behind the front: the objects, what may be written, and how it is. No HTTP.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::query::{DeleteOptions, WriteOptions};
use super::resource::{Catalog, Resource};
use super::store::Store;

/// The server behind a front. Reads are synchronous because everything is in memory; a write may have to wait for what keeps it.
pub trait Backend: Send + Sync + 'static {
    /// The resource types that are served now.
    fn catalog(&self) -> Arc<Catalog>;

    /// The objects.
    fn store(&self) -> &Arc<Store>;

    /// The answer to `/version`.
    fn version(&self) -> ServerVersion;

    /// Health checks by endpoint (`healthz`, `livez`, `readyz`): names and, if one fails, why.
    fn health(&self, endpoint: &str) -> Vec<HealthCheck>;

    /// OpenAPI components that the schemas of this group and version refer to, by component name.
    fn schemas(&self, group: &str, version: &str) -> Map<String, Value>;

    /// The error for a verb that the resource is not announced with.
    fn refusal(&self, target: &Target<'_>) -> ApiError {
        let _ = target;
        ApiError::method_not_allowed()
    }

    /// Carries out a change or says why not.
    fn write(
        &self,
        target: &Target<'_>,
        action: Action,
        options: &WriteOptions,
    ) -> impl Future<Output = Result<Written, ApiError>> + Send;

    /// The error for a subresource that is not served; a backend may explain why.
    fn no_subresource(&self, target: &Target<'_>) -> ApiError {
        let _ = target;
        ApiError::no_such_path()
    }

    /// Answers a read of a subresource other than `status`.
    fn read_subresource(&self, target: &Target<'_>) -> Result<Value, ApiError> {
        let _ = target;
        Err(ApiError::no_such_path())
    }
}

/// One health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Name, as in `/readyz/<name>`.
    pub name: String,
    /// Why it fails; `None` when it passes.
    pub failure: Option<String>,
}

/// What a write is about.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Resource type.
    pub resource: &'a Arc<Resource>,
    /// Namespace of the path.
    pub namespace: Option<&'a str>,
    /// Name of the path, empty for a create.
    pub name: &'a str,
    /// Subresource of the path.
    pub subresource: Option<&'a str>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// POST.
    Create(Value),
    /// PUT.
    Update(Value),
    /// PATCH.
    Patch(PatchType, Value),
    /// DELETE.
    Delete(DeleteOptions),
}

/// The four patch dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, with merge keys.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// From the content type of the request.
    pub fn from_media_type(media_type: &str) -> Option<PatchType> {
        match media_type {
            "application/json-patch+json" => Some(PatchType::Json),
            "application/merge-patch+json" => Some(PatchType::Merge),
            "application/strategic-merge-patch+json" => Some(PatchType::Strategic),
            "application/apply-patch+yaml" => Some(PatchType::Apply),
            _ => None,
        }
    }

    /// All content types, for the error message.
    pub const MEDIA_TYPES: &'static [&'static str] = &[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
}

/// What a write did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The object is new: 201.
    Created(Arc<Value>),
    /// The object as it is now: 200.
    Updated(Arc<Value>),
    /// The object is gone; its last state.
    Deleted(Arc<Value>),
}

/// The answer to a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// What was done.
    pub outcome: Outcome,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl From<Outcome> for Written {
    fn from(outcome: Outcome) -> Written {
        Written {
            outcome,
            warnings: Vec::new(),
        }
    }
}

/// The answer to `/version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// For example `1`.
    pub major: String,
    /// For example `35`.
    pub minor: String,
    /// For example `v1.35.0+branchline-sandbox`.
    pub git_version: String,
    /// For example `linux/amd64`.
    pub platform: String,
}

impl ServerVersion {
    /// The document, with the fields that clients expect.
    pub fn to_json(&self) -> Value {
        json!({
            "major": self.major, "minor": self.minor, "gitVersion": self.git_version, "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": self.platform,
        })
    }
}
