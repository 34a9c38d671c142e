//! What an agent reports about the Descriptions of its cluster. Decides nothing about delivery.

use serde::{Deserialize, Serialize};

/// The most objects that a report lists for one Description; the ones that need attention come first.
pub const MAX_REPORTED_OBJECTS: usize = 1_000;
/// The longest reason or message in a report, in bytes; longer text is cut where it is made.
pub const MAX_MESSAGE_BYTES: usize = 1_024;

/// The state of one Description in one cluster, as its agent saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescriptionReport {
    /// `<Subscription namespace>.<Subscription name>`, the Description's directory on the state branch.
    pub name: String,
    /// What came of it as a whole.
    pub phase: Phase,
    /// Why the phase is what it is; empty when all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// One entry per object, those that are not well first, at most [`MAX_REPORTED_OBJECTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectReport>,
}

/// Clusternet's phases of a Description.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing has been tried yet.
    Pending,
    /// Every object is as described.
    Success,
    /// At least one object could not be applied.
    Failure,
    /// The first apply is running.
    Installing,
    /// A later apply is running.
    Upgrading,
    /// The objects are being removed.
    Uninstalling,
    /// A newer Description took its place.
    Superseded,
    /// Not known, or a phase that this version does not have.
    #[serde(other)]
    Unknown,
}

/// What became of one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReport {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `Deployment`.
    pub kind: String,
    /// Namespace; none for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// What the last run did with it.
    pub outcome: ObjectOutcome,
    /// What the API server said, or why nothing was done; empty when all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a run did with an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ObjectOutcome {
    /// Written.
    Applied,
    /// Already as described.
    Unchanged,
    /// Removed.
    Pruned,
    /// Refused by the API server.
    Failed,
    /// Held back until something else is ready.
    Waiting,
    /// Left alone on purpose.
    NotApplied,
    /// An outcome that this version does not have.
    #[serde(other)]
    Unknown,
}
