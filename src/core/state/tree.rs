//! State → git objects: the root tree's id and the blobs and trees below it that are new. [`TreeBuilder`] remembers the state before, so its
//! work follows what differs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use rayon::prelude::*;

use super::files;
use super::objects::Objects;
use super::registrations::Token;
use super::{DescriptionState, Leaf, NewObject, ProvenanceState, State, SubscriptionState};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::render::{MANIFESTS, RELEASES};
use crate::core::tree::write_git_tree;

/// The state branch's tree.
#[derive(Debug)]
pub struct StateTree {
    /// The root tree's id.
    pub root: ObjectId,
    /// Objects that may be new to the repository, each once.
    pub objects: Vec<NewObject>,
    /// The builder remembered no state before, so that `objects` are all that there are. Otherwise nearly all of them are new.
    pub anew: bool,
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

/// The files and the tree of `provenance/<ns>/`.
pub(super) fn provenance_tree(descriptions: &BTreeMap<String, Arc<ProvenanceState>>) -> (Vec<Leaf>, NewObject) {
    let files: Vec<Leaf> = descriptions
        .values()
        .map(|provenance| Leaf::new(files::provenance_file(provenance)))
        .collect();
    let names: Vec<String> = descriptions.keys().map(|name| format!("{name}.yaml")).collect();
    let entries: Vec<_> = names
        .iter()
        .zip(&files)
        .map(|(name, file)| (name.as_str(), false, file.id))
        .collect();
    let tree = tree(&entries);
    (files, tree)
}

/// A directory whose entries are known by id, fanned out in levels of one hexadecimal digit.
#[derive(Default)]
struct Directory {
    levels: u8,
    entries: BTreeMap<String, (bool, ObjectId)>,
    below: BTreeMap<String, Directory>,
    /// Its tree's id, unless something changed since.
    id: Option<ObjectId>,
}

impl Directory {
    fn new(levels: u8) -> Self {
        Directory {
            levels,
            ..Directory::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.below.is_empty()
    }

    /// Puts or removes the entry of a key; `shard` is the rest of the key's digest.
    fn set(&mut self, name: String, shard: &str, entry: Option<(bool, ObjectId)>) {
        self.id = None;
        let Some((digit, rest)) = shard.split_at_checked(1).filter(|_| self.levels > 0) else {
            match entry {
                Some(entry) => self.entries.insert(name, entry),
                None => self.entries.remove(&name),
            };
            return;
        };
        let levels = self.levels - 1;
        let below = self.below.entry(digit.to_owned()).or_insert_with(|| Directory::new(levels));
        below.set(name, rest, entry);
        if below.is_empty() {
            self.below.remove(digit);
        }
    }

    /// The id of its tree; trees that changed are added.
    fn tree(&mut self, objects: &mut Objects) -> ObjectId {
        if let Some(id) = self.id {
            return id;
        }
        let mut entries: Vec<(&str, bool, ObjectId)> = Vec::with_capacity(self.entries.len() + self.below.len());
        for (name, directory) in &mut self.below {
            entries.push((name, true, directory.tree(objects)));
        }
        entries.extend(
            self.entries
                .iter()
                .map(|(name, (is_tree, id))| (name.as_str(), *is_tree, *id)),
        );
        let id = objects.add(tree(&entries));
        self.id = Some(id);
        id
    }
}

/// Where an entry keyed by cluster stands: a digest of the key, of which each level takes one digit.
fn shard_of(key: &str) -> String {
    ObjectId::hash(ObjectKind::Blob, key.as_bytes()).to_string()
}

/// The directories above an entry keyed by cluster, each with its slash.
pub(super) fn above(fan_out: u8, key: &str) -> String {
    let shard = match fan_out {
        0 => String::new(),
        _ => shard_of(key),
    };
    let digits = shard.chars().take(fan_out.into());
    digits.map(|digit| format!("{digit}/")).collect()
}

/// Builds the trees of states, each from the one before. After an error of whoever writes the objects it has to begin anew.
#[derive(Default)]
pub struct TreeBuilder {
    /// There was a state before.
    begun: bool,
    state: State,
    clusters: Directory,
    managed_clusters: Directory,
    provenance: Directory,
    registrations: Directory,
    tokens: Directory,
    /// What was put together for the root the last time.
    top: HashSet<ObjectId>,
    /// The file of a Subscription, and the directory of its shards.
    subscriptions: HashMap<(String, String), (ObjectId, Option<ObjectId>)>,
}

impl TreeBuilder {
    /// Builds the tree of a state.
    pub fn build(&mut self, state: &State) -> StateTree {
        if self.state.fan_out != state.fan_out {
            *self = TreeBuilder::default();
            self.state.fan_out = state.fan_out;
            let directories = [
                &mut self.clusters,
                &mut self.managed_clusters,
                &mut self.provenance,
                &mut self.registrations,
            ];
            directories.into_iter().for_each(|directory| directory.levels = state.fan_out);
        }
        let anew = !std::mem::replace(&mut self.begun, true);
        let mut objects = Objects::default();
        self.follow_clusters(state, &mut objects);
        self.follow_records(state, &mut objects);
        let below = objects.list.len();
        let root = self.root(state, &mut objects);
        self.state = state.clone();
        let mut list = objects.list;
        let top = list.split_off(below);
        let ids = top.iter().map(|object| object.id).collect();
        let before = std::mem::replace(&mut self.top, ids);
        list.extend(top.into_iter().filter(|object| !before.contains(&object.id)));
        StateTree {
            root,
            objects: list,
            anew,
        }
    }

    fn follow_clusters(&mut self, state: &State, objects: &mut Objects) {
        for (namespace, cluster) in changes(&self.state.clusters, &state.clusters) {
            let before = self.state.clusters.get(namespace).map(Arc::as_ref);
            let entry = cluster.map(|cluster| (true, objects.cluster(cluster, before)));
            self.clusters.set(namespace.to_string(), &shard_of(namespace), entry);
        }
        for (namespace, provenance) in changes(&self.state.provenance, &state.provenance) {
            let before = self.state.provenance.get(namespace).map(Arc::as_ref);
            let entry = provenance.map(|provenance| (true, objects.provenance(provenance, before)));
            self.provenance.set(namespace.to_string(), &shard_of(namespace), entry);
        }
    }

    /// The files of which there is one for each cluster. Each is different, so all cores write them.
    fn follow_records(&mut self, state: &State, objects: &mut Objects) {
        let records = changes(&self.state.managed_clusters, &state.managed_clusters);
        let files = written(records, |namespace| namespace, |record| files::managed_cluster_file(record));
        put_files(&mut self.managed_clusters, files, objects);
        let registrations = changes(&self.state.registrations.clusters, &state.registrations.clusters);
        let files = written(registrations, |id| id.as_str(), files::emit_typed);
        put_files(&mut self.registrations, files, objects);
        self.follow_tokens(&state.registrations.tokens, objects);
    }

    fn follow_tokens(&mut self, tokens: &BTreeMap<String, Token>, objects: &mut Objects) {
        let before = &self.state.registrations.tokens;
        for id in before.keys().filter(|id| !tokens.contains_key(*id)) {
            self.tokens.set(format!("{id}.yaml"), "", None);
        }
        for (id, token) in tokens.iter().filter(|(id, token)| before.get(*id) != Some(token)) {
            let file = objects.leaf(&Leaf::new(files::emit_typed(token)));
            self.tokens.set(format!("{id}.yaml"), "", Some((false, file)));
        }
    }

    fn root(&mut self, state: &State, objects: &mut Objects) -> ObjectId {
        let mut entries = vec![
            ("README.md", false, objects.leaf(&Leaf::new(files::readme()))),
            (
                files::LAYOUT_FILE,
                false,
                objects.leaf(&Leaf::new(files::layout(state.fan_out))),
            ),
        ];
        let directories = [
            ("clusters", &mut self.clusters),
            ("managedclusters", &mut self.managed_clusters),
            ("provenance", &mut self.provenance),
        ];
        for (name, directory) in directories {
            if !directory.is_empty() {
                entries.push((name, true, directory.tree(objects)));
            }
        }
        if !state.subscriptions.is_empty() {
            entries.push(("subscriptions", true, self.subscriptions(state, objects)));
        }
        entries.extend(
            self.registrations(objects)
                .map(|registrations| ("registrations", true, registrations)),
        );
        objects.add(tree(&entries))
    }

    fn registrations(&mut self, objects: &mut Objects) -> Option<ObjectId> {
        let mut entries = Vec::new();
        if !self.registrations.is_empty() {
            entries.push(("clusters", true, self.registrations.tree(objects)));
        }
        if !self.tokens.is_empty() {
            entries.push(("tokens", true, self.tokens.tree(objects)));
        }
        (!entries.is_empty()).then(|| objects.add(tree(&entries)))
    }

    fn subscriptions(&mut self, state: &State, objects: &mut Objects) -> ObjectId {
        let before = std::mem::take(&mut self.subscriptions);
        let mut namespaces: BTreeMap<&str, Directory> = BTreeMap::new();
        for (key, subscription) in &state.subscriptions {
            let same = |earlier: &&SubscriptionState| earlier.is_same(subscription);
            let known = self.state.subscriptions.get(key).filter(same).and_then(|_| before.get(key));
            let (file, shards) = known
                .copied()
                .unwrap_or_else(|| subscription_objects(key, subscription, objects));
            let directory = namespaces.entry(&key.0).or_default();
            directory.set(format!("{}.yaml", key.1), "", Some((false, file)));
            if let Some(shards) = shards {
                directory.set(key.1.clone(), "", Some((true, shards)));
            }
            self.subscriptions.insert(key.clone(), (file, shards));
        }
        let entries: Vec<_> = namespaces
            .iter_mut()
            .map(|(namespace, directory)| (*namespace, true, directory.tree(objects)))
            .collect();
        objects.add(tree(&entries))
    }
}

fn subscription_objects(
    (namespace, name): &(String, String),
    subscription: &SubscriptionState,
    objects: &mut Objects,
) -> (ObjectId, Option<ObjectId>) {
    let (file, shards) = files::subscription_files(namespace, name, subscription);
    let mut directory = Directory::default();
    for (shard, bytes) in shards {
        let leaf = objects.leaf(&Leaf::new(bytes));
        directory.set(shard, "", Some((false, leaf)));
    }
    let below = (!directory.is_empty()).then(|| directory.tree(objects));
    (objects.leaf(&Leaf::new(file)), below)
}

/// What differs between two maps: the new value, or nothing where the entry is gone.
fn changes<'a, K: Ord, V: PartialEq>(before: &'a OrdMap<K, V>, now: &'a OrdMap<K, V>) -> Vec<(&'a K, Option<&'a V>)> {
    let changed = before.diff(now).map(|item| match item {
        DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => (key, Some(value)),
        DiffItem::Remove(key, _) => (key, None),
    });
    changed.collect()
}

/// Files by key; none where the entry is gone.
type Written<'a> = Vec<(&'a str, Option<Leaf>)>;

fn written<'a, K: Sync, V: Sync>(
    changed: Vec<(&'a K, Option<&'a V>)>,
    name: fn(&K) -> &str,
    file: fn(&V) -> Arc<[u8]>,
) -> Written<'a> {
    let write = |(key, value): (&'a K, Option<&'a V>)| (name(key), value.map(|value| Leaf::new(file(value))));
    match changed.len() {
        ..=1 => changed.into_iter().map(write).collect(),
        _ => changed.into_par_iter().map(write).collect(),
    }
}

fn put_files(directory: &mut Directory, files: Written<'_>, objects: &mut Objects) {
    for (key, file) in files {
        let entry = file.map(|leaf| (false, objects.leaf(&leaf)));
        directory.set(format!("{key}.yaml"), &shard_of(key), entry);
    }
}

/// Builds the whole tree of a state.
pub fn build(state: &State) -> StateTree {
    TreeBuilder::default().build(state)
}

/// Every file with its path: what `render --out` writes.
pub fn paths(state: &State) -> Vec<(String, Leaf)> {
    let mut all = vec![
        ("README.md".to_owned(), Leaf::new(files::readme())),
        (files::LAYOUT_FILE.to_owned(), Leaf::new(files::layout(state.fan_out))),
    ];
    let above = |namespace: &str| above(state.fan_out, namespace);
    for (namespace, cluster) in &state.clusters {
        for (directory, description) in &cluster.descriptions {
            let base = format!("clusters/{}{namespace}/{directory}", above(namespace));
            all.push((format!("{base}/description.yaml"), description.file.clone()));
            let files = description.files.iter();
            all.extend(files.map(|(path, leaf)| (format!("{base}/{path}"), leaf.clone())));
        }
    }
    for (namespace, provenance) in &state.provenance {
        let base = format!("provenance/{}{namespace}", above(namespace));
        let files = provenance.descriptions.keys().zip(&provenance.files);
        all.extend(files.map(|(name, file)| (format!("{base}/{name}.yaml"), file.clone())));
    }
    for (namespace, record) in &state.managed_clusters {
        let path = format!("managedclusters/{}{namespace}.yaml", above(namespace));
        all.push((path, Leaf::new(files::managed_cluster_file(record))));
    }
    for ((namespace, name), subscription) in &state.subscriptions {
        let (file, shards) = files::subscription_files(namespace, name, subscription);
        all.push((format!("subscriptions/{namespace}/{name}.yaml"), Leaf::new(file)));
        let shards = shards.into_iter();
        all.extend(shards.map(|(shard, bytes)| (format!("subscriptions/{namespace}/{name}/{shard}"), Leaf::new(bytes))));
    }
    for (id, registration) in &state.registrations.clusters {
        let path = format!("registrations/clusters/{}{id}.yaml", above(id.as_str()));
        all.push((path, Leaf::new(files::emit_typed(registration))));
    }
    for (id, token) in &state.registrations.tokens {
        all.push((format!("registrations/tokens/{id}.yaml"), Leaf::new(files::emit_typed(token))));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
