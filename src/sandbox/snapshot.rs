//! A sandbox's objects as a value that can be written to a file and read back. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything a sandbox needs to carry on after a restart: objects with their UIDs and revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Snapshot {
    /// Layout of this document; 1.
    pub version: u32,
    /// The latest revision.
    pub revision: u64,
    /// Objects by resource type.
    pub objects: Vec<SnapshotObject>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotObject {
    /// Group of the resource type.
    pub group: String,
    /// Plural name of the resource type.
    pub plural: String,
    /// The object.
    pub object: Value,
}

/// The layout that this program writes.
pub const SNAPSHOT_VERSION: u32 = 1;
