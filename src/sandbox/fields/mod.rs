//! Patches of Kubernetes objects as an API server carries them out: server-side apply with `managedFields`, updates,
//! strategic merge, JSON merge and JSON patches. Pure: no IO, no clock; the time comes in with the request. Owns field
//! ownership and list merging for built-in kinds and custom resources; never defaults, validates values or stores.
//!
//! The parts follow Kubernetes' structured-merge-diff: `schema` (types), `path` and `set` (field sets), `walk` and `merge`
//! (values by type), `managed` (entries), `apply` and `update` (the two ways to write).

mod apply;
mod conflict;
mod custom;
mod decoding;
mod kind;
mod managed;
mod merge;
mod openapi;
mod path;
mod schema;
mod set;
mod strategic;
#[cfg(test)]
mod tests;
mod update;
mod validate;
mod walk;

use serde_json::Value;

pub use crate::kubeapi::patch::{json_patch, merge_patch};
pub use conflict::{ApplyError, Conflict, conflict_causes, conflict_message};
pub use decoding::Mistyped;
pub use kind::KindSchema;
pub use managed::Operation;
pub use openapi::{component_of, components, metadata_reference};

/// Who writes, as what, when.
#[derive(Debug, Clone, Copy)]
pub struct PatchContext<'a> {
    /// The API version of the request, for example `apps/v1`.
    pub api_version: &'a str,
    /// The kind of the object.
    pub kind: &'a str,
    /// The field manager's name; empty becomes `unknown`.
    pub manager: &'a str,
    /// The subresource, or empty for the object itself.
    pub subresource: &'a str,
    /// The time of the request in RFC 3339.
    pub now: &'a str,
}

/// Server-side apply: the object that is to be stored, with its `managedFields`. The same configuration applied again
/// gives the same object, byte for byte. `live` is `None` if the object does not exist yet.
///
/// Fields that the subresource does not own (`status` of the object itself, `spec` through `status`) stay as they are in
/// `live`, whatever is applied.
pub fn server_side_apply(
    live: Option<&Value>,
    applied: &Value,
    ctx: &PatchContext<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    KindSchema::of(ctx.api_version, ctx.kind).apply(live, applied, ctx, force)
}

/// The object that is to be stored after a create (`old` is `None`), an update or any patch but apply: `new` with its
/// `managedFields` recorded, and with the fields that the subresource does not own as they are in `old`.
pub fn record_update(old: Option<&Value>, new: Value, ctx: &PatchContext<'_>) -> Value {
    KindSchema::of(ctx.api_version, ctx.kind).record(old, new, ctx)
}

/// `live` after a strategic merge patch. Only built-in kinds have one: Kubernetes answers HTTP 415 for custom resources.
pub fn strategic_merge_patch(live: &Value, patch: &Value, api_version: &str, kind: &str) -> Result<Value, String> {
    KindSchema::of(api_version, kind).strategic_merge(live, patch)
}
