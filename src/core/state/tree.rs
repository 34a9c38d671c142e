//! State → git objects: the root tree's id and every blob and tree below it that this process made.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::files;
use super::{DescriptionState, Leaf, State};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::render::{MANIFESTS, RELEASES};
use crate::core::tree::write_git_tree;

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

/// The state branch's tree.
#[derive(Debug)]
pub struct StateTree {
    /// The root tree's id.
    pub root: ObjectId,
    /// Objects that may be new to the repository, each once.
    pub objects: Vec<NewObject>,
}

fn tree(entries: &[(&str, bool, ObjectId)]) -> NewObject {
    let bytes: Arc<[u8]> = write_git_tree(entries.iter().copied()).into();
    NewObject {
        kind: ObjectKind::Tree,
        id: ObjectId::hash(ObjectKind::Tree, &bytes),
        bytes,
    }
}

/// The tree of one Description's directory and those below it.
pub(super) fn description_trees(file: &Leaf, files: &BTreeMap<String, Leaf>) -> (ObjectId, Vec<NewObject>) {
    let mut entries = vec![("description.yaml", false, file.id)];
    let mut trees = Vec::new();
    for directory in [MANIFESTS, RELEASES] {
        let inside = |path| str::strip_prefix(path, directory)?.strip_prefix('/');
        let below = files.iter().filter_map(|(path, leaf)| Some((inside(path)?, false, leaf.id)));
        let below: Vec<_> = below.collect();
        if !below.is_empty() {
            let below = tree(&below);
            entries.push((directory, true, below.id));
            trees.push(below);
        }
    }
    let directory = tree(&entries);
    let id = directory.id;
    trees.push(directory);
    (id, trees)
}

/// The tree of `clusters/<ns>/`.
pub(super) fn cluster_tree(descriptions: &BTreeMap<String, Arc<DescriptionState>>) -> NewObject {
    let entries: Vec<_> = descriptions
        .iter()
        .map(|(name, description)| (name.as_str(), true, description.id))
        .collect();
    tree(&entries)
}

#[derive(Default)]
struct Builder {
    objects: Vec<NewObject>,
    seen: HashSet<ObjectId>,
}

impl Builder {
    fn add(&mut self, object: NewObject) -> ObjectId {
        let id = object.id;
        if self.seen.insert(id) {
            self.objects.push(object);
        }
        id
    }

    fn leaf(&mut self, leaf: &Leaf) {
        if let Some(bytes) = &leaf.bytes {
            self.add(NewObject {
                kind: ObjectKind::Blob,
                id: leaf.id,
                bytes: bytes.clone(),
            });
        }
    }

    fn description(&mut self, description: &DescriptionState) {
        if !self.seen.contains(&description.id) {
            self.leaf(&description.file);
            description.files.values().for_each(|leaf| self.leaf(leaf));
            for tree in &description.trees {
                self.add(tree.clone());
            }
        }
    }

    /// Builds nested trees from paths; `clusters/` comes ready-made.
    fn directory(&mut self, files: &[(&str, ObjectId)]) -> ObjectId {
        let mut entries: Vec<(&str, bool, ObjectId)> = Vec::new();
        let mut at = 0;
        while at < files.len() {
            let (path, id) = files[at];
            let Some((first, _)) = path.split_once('/') else {
                entries.push((path, false, id));
                at += 1;
                continue;
            };
            let end = at
                + files[at..]
                    .iter()
                    .take_while(|(path, _)| path.split_once('/').is_some_and(|(p, _)| p == first))
                    .count();
            let below: Vec<_> = files[at..end]
                .iter()
                .map(|(path, id)| (&path[first.len() + 1..], *id))
                .collect();
            let id = self.directory(&below);
            entries.push((first, true, id));
            at = end;
        }
        self.add(tree(&entries))
    }
}

/// Builds the whole tree. Descriptions bring their trees along, so the work is one hash per cluster and the small files.
pub fn build(state: &State) -> StateTree {
    let mut builder = Builder::default();
    let mut clusters = Vec::with_capacity(state.clusters.len());
    for (namespace, descriptions) in &state.clusters {
        descriptions.values().for_each(|description| builder.description(description));
        clusters.push((namespace.as_str(), true, builder.add(cluster_tree(descriptions))));
    }
    let files = small_files(state);
    files.iter().for_each(|(_, leaf)| builder.leaf(leaf));
    let below: Vec<_> = files.iter().map(|(path, leaf)| (path.as_str(), leaf.id)).collect();
    let mut entries = Vec::new();
    let clusters = tree(&clusters);
    if !state.clusters.is_empty() {
        entries.push(("clusters", true, builder.add(clusters)));
    }
    let mut rest: BTreeMap<&str, Vec<(&str, ObjectId)>> = BTreeMap::new();
    for (path, id) in below {
        match path.split_once('/') {
            None => entries.push((path, false, id)),
            Some((first, tail)) => rest.entry(first).or_default().push((tail, id)),
        }
    }
    let directories: Vec<_> = rest
        .iter()
        .map(|(name, files)| (*name, true, builder.directory(files)))
        .collect();
    entries.extend(directories);
    let root = builder.add(tree(&entries));
    StateTree {
        root,
        objects: builder.objects,
    }
}

/// Every file with its path: what `render --out` writes.
pub fn paths(state: &State) -> Vec<(String, Leaf)> {
    let mut all = small_files(state);
    for (namespace, descriptions) in &state.clusters {
        for (directory, description) in descriptions {
            let base = format!("clusters/{namespace}/{directory}");
            all.push((format!("{base}/description.yaml"), description.file.clone()));
            let files = description.files.iter();
            all.extend(files.map(|(path, leaf)| (format!("{base}/{path}"), leaf.clone())));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The files outside `clusters/`, sorted by path.
fn small_files(state: &State) -> Vec<(String, Leaf)> {
    let mut list = vec![
        ("README.md".to_owned(), files::readme()),
        (files::LAYOUT_FILE.to_owned(), files::layout()),
    ];
    for (namespace, record) in &state.managed_clusters {
        list.push((
            format!("managedclusters/{namespace}.yaml"),
            files::managed_cluster_file(record),
        ));
    }
    for (namespace, directories) in &state.provenance {
        for (directory, provenance) in directories {
            list.push((
                format!("provenance/{namespace}/{directory}.yaml"),
                files::provenance_file(provenance),
            ));
        }
    }
    for ((namespace, name), subscription) in &state.subscriptions {
        let (file, shards) = files::subscription_files(namespace, name, subscription);
        list.push((format!("subscriptions/{namespace}/{name}.yaml"), file));
        let shards = shards
            .into_iter()
            .map(|(shard, bytes)| (format!("subscriptions/{namespace}/{name}/{shard}"), bytes));
        list.extend(shards);
    }
    for (id, registration) in &state.registrations.clusters {
        list.push((format!("registrations/clusters/{id}.yaml"), files::emit_typed(registration)));
    }
    for (id, token) in &state.registrations.tokens {
        list.push((format!("registrations/tokens/{id}.yaml"), files::emit_typed(token)));
    }
    // Entries of one directory have to stand together, also beside a file whose name begins with the directory's.
    list.sort_by(|a, b| a.0.split('/').cmp(b.0.split('/')));
    list.into_iter().map(|(path, bytes)| (path, Leaf::new(bytes))).collect()
}
