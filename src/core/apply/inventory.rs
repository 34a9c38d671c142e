//! What the agent has written to its cluster, object by object. Knows nothing of how it is stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::ids::{ObjectId, ObjectKey};

/// Everything that the agent has written, or is about to write, to its cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// Which offer this is the state of.
    pub position: Position,
    /// Objects by identity.
    pub entries: BTreeMap<ObjectKey, Entry>,
    /// Descriptions that have no object at all: kept so that they are still reported.
    pub empty: BTreeSet<String>,
}

/// How far the agent has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Epoch of the last offer taken.
    pub epoch: u64,
    /// Generation of the last offer taken.
    pub generation: u64,
    /// The tree that the cluster is known to be in; none while a change is under way or after a failure.
    pub applied: Option<ObjectId>,
}

/// One object that is ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The Description that it belongs to, `<subscription namespace>.<subscription name>`.
    pub sub: String,
    /// Its file, relative to the Description's directory.
    pub path: String,
    /// `apiVersion` that it is written and deleted with.
    pub api_version: String,
    /// The blob that was applied; none while a write or a delete may be under way.
    pub applied: Option<ObjectId>,
    /// Nothing asks for it any more, and its kind is never deleted.
    pub kept: bool,
}

impl Inventory {
    /// Entries by the file they come from.
    pub fn by_path(&self) -> BTreeMap<(&str, &str), (&ObjectKey, &Entry)> {
        self.entries
            .iter()
            .map(|(key, entry)| ((entry.sub.as_str(), entry.path.as_str()), (key, entry)))
            .collect()
    }

    /// `apiVersion` and kind of everything in it.
    pub fn kinds(&self) -> BTreeSet<(&str, &str)> {
        let entries = self.entries.iter();
        entries
            .map(|(key, entry)| (entry.api_version.as_str(), key.kind.as_str()))
            .collect()
    }

    /// The names of all Descriptions in it.
    pub fn subs(&self) -> BTreeSet<String> {
        let of_entries = self.entries.values().map(|entry| entry.sub.clone());
        of_entries.chain(self.empty.iter().cloned()).collect()
    }
}

impl Entry {
    /// Whether this very content is in the cluster already.
    pub fn has(&self, blob: ObjectId) -> bool {
        !self.kept && self.applied == Some(blob)
    }
}
