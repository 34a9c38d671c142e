//! Git objects of a state that follow from what differs from the state before: for the repository, and for an agent that has the one and is to
//! have the other.

use std::collections::HashSet;
use std::sync::Arc;

use super::{ClusterProvenance, ClusterState, DescriptionState, Leaf};
use crate::core::ids::{ObjectId, ObjectKind};

/// A git object with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// Blob or tree.
    pub kind: ObjectKind,
    /// Its id.
    pub id: ObjectId,
    /// Its content.
    pub bytes: Arc<[u8]>,
}

/// The objects that whoever has one state of a cluster lacks of the next, each once, trees before what is in them. `None` where this process does
/// not have the content of one of them, because another made it.
pub fn additions(before: Option<&ClusterState>, now: &ClusterState) -> Option<Vec<NewObject>> {
    let mut objects = Objects::default();
    if before != Some(now) {
        objects.cluster(now, before);
    }
    (!objects.elsewhere).then_some(objects.list)
}

/// New objects, each once.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) list: Vec<NewObject>,
    seen: HashSet<ObjectId>,
    /// The content of some is not here, only in the repository.
    elsewhere: bool,
}

impl Objects {
    pub(super) fn add(&mut self, object: NewObject) -> ObjectId {
        let id = object.id;
        if self.seen.insert(id) {
            self.list.push(object);
        }
        id
    }

    pub(super) fn leaf(&mut self, leaf: &Leaf) -> ObjectId {
        match &leaf.bytes {
            Some(bytes) => self.add(NewObject {
                kind: ObjectKind::Blob,
                id: leaf.id,
                bytes: bytes.clone(),
            }),
            None => {
                self.elsewhere = true;
                leaf.id
            }
        }
    }

    fn description(&mut self, description: &DescriptionState, before: Option<&DescriptionState>) {
        if self.seen.contains(&description.id) || before == Some(description) {
            return;
        }
        let has = |tree: &NewObject| before.is_some_and(|before| before.trees.iter().any(|known| known.id == tree.id));
        // The directory comes last there.
        for tree in description.trees.iter().rev().filter(|tree| !has(tree)) {
            self.add(tree.clone());
        }
        if before.is_none_or(|before| before.file != description.file) {
            self.leaf(&description.file);
        }
        for (path, leaf) in &description.files {
            let known = before.and_then(|before| before.files.get(path));
            if known.is_none_or(|known| known.id != leaf.id) {
                self.leaf(leaf);
            }
        }
    }

    pub(super) fn cluster(&mut self, cluster: &ClusterState, before: Option<&ClusterState>) -> ObjectId {
        if self.seen.contains(&cluster.tree.id) {
            return cluster.tree.id;
        }
        self.add(cluster.tree.clone());
        for (name, description) in &cluster.descriptions {
            let before = before.and_then(|before| before.descriptions.get(name));
            self.description(description, before.map(Arc::as_ref));
        }
        cluster.tree.id
    }

    pub(super) fn provenance(&mut self, provenance: &ClusterProvenance, before: Option<&ClusterProvenance>) -> ObjectId {
        if self.seen.contains(&provenance.tree.id) {
            return provenance.tree.id;
        }
        self.add(provenance.tree.clone());
        let known: HashSet<ObjectId> = before.iter().flat_map(|before| &before.files).map(|file| file.id).collect();
        for file in provenance.files.iter().filter(|file| !known.contains(&file.id)) {
            self.leaf(file);
        }
        provenance.tree.id
    }
}
