//! Source tree → [`Snapshot`] and diagnostics: what the repository says, with references linked. Places and renders nothing.
//!
//! A snapshot is built from a [`FileTree`] and a [`ParseCache`], so a commit that touches one file parses one file.

mod access;
mod bundle;
mod cluster;
mod helm;
mod inventory;
mod kinds;
mod operations;
mod overrides;
mod parse;
mod reading;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rayon::slice::ParallelSliceMut;

use self::reading::{Content, FileReading, Item};

use crate::core::api::{APPS_GROUP, BRANCHLINE_GROUP};
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::object::Object;
use crate::core::tree::{EntryMode, FileEntry, FileTree};
use crate::core::yaml::{self, Limits};

pub use access::{
    Access, AccessBody, AccessDefinition, AccessReadings, access_objects, follow as follow_access, kept_text, read_kept,
};
pub use bundle::{Bundle, feed_of, is_bundle, is_kustomization};
pub use cluster::{ClusterDefinition, InvalidLabel, InvalidTaint, read_labels, read_taints};
pub use helm::{ChartProblem, is_chart, read_chart};
pub use inventory::{Demand, Demands, FeedInventory, Workload, delivered, demands, inventory_of};
pub use kinds::placed;
pub use operations::MAX_OPERATIONS;
pub use overrides::{BrokenOverride, Entry, FieldFormat, FieldText, Override, OverrideKind, PatchKind, Policy, quoted};
pub use parse::{Format, ParseCache, ParsedFile, ParsedObject};
pub use subscription::{Dynamic, SpreadConstraint, Strategy, Subscriber, Subscription};

/// The file that excludes paths, gitignore syntax, at the configured path's root.
pub const IGNORE_FILE: &str = ".branchlineignore";
/// The directory that configures the hub itself and is never a feed.
pub const HUB_DIRECTORY: &str = "hub/";

/// Where an object is defined.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The object.
    pub object: Arc<Object>,
    /// Digest of its canonical JSON.
    pub digest: ObjectId,
    /// File below the configured path.
    pub file: Arc<str>,
    /// Line of its document.
    pub line: u64,
    /// JSON pointer of the object in its document; empty for the document itself.
    pub inside: Arc<str>,
    /// The file's text, where diagnostics may have to point into the object's fields.
    pub text: Option<Arc<yaml::Source>>,
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.stands_as(other)
    }
}

impl Eq for Definition {}

impl Definition {
    /// Places a diagnostic at a field of this object.
    pub fn locate(&self, diagnostic: Diagnostic, pointer: &str) -> Diagnostic {
        diagnostic.at(&self.file, self.line_of(pointer)).object(&*self.object)
    }

    /// The line of a field, as far as the text is kept.
    fn line_of(&self, pointer: &str) -> u64 {
        let text = self.text.as_ref();
        text.map_or(self.line, |text| text.locate(self.line, &format!("{}{pointer}", self.inside)))
    }

    /// Whether diagnostics about this object would be placed as those about another definition of the same content.
    pub fn stands_as(&self, other: &Definition) -> bool {
        let same_text = match (&self.text, &other.text) {
            (Some(text), Some(other)) => Arc::ptr_eq(text, other),
            (None, None) => true,
            _ => false,
        };
        same_text && (&self.file, self.line, &self.inside) == (&other.file, other.line, &other.inside)
    }
}

/// A kind of ours that is defined, and whether it can be carried out.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// It can.
    Valid(Arc<T>),
    /// It is defined but cannot be carried out; diagnostics say why. What depends on it is held.
    Unreadable,
}

impl<T> Clone for Reading<T> {
    fn clone(&self) -> Self {
        match self {
            Reading::Valid(value) => Reading::Valid(Arc::clone(value)),
            Reading::Unreadable => Reading::Unreadable,
        }
    }
}

impl<T> Reading<T> {
    /// The value, if it can be carried out.
    pub fn valid(&self) -> Option<&Arc<T>> {
        match self {
            Reading::Valid(value) => Some(value),
            Reading::Unreadable => None,
        }
    }
}

/// What the source repository says.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every object that a Subscription may name.
    pub feeds: BTreeMap<ObjectKey, Definition>,
    /// Identities that are defined more than once: none of the definitions counts.
    pub duplicates: BTreeSet<ObjectKey>,
    /// Folders that a Subscription may name.
    pub bundles: BTreeMap<ObjectKey, Bundle>,
    /// Feeds of our own kinds that are defined but cannot be carried out; diagnostics say why.
    pub unusable: BTreeSet<ObjectKey>,
    /// Subscriptions by (namespace, name).
    pub subscriptions: BTreeMap<(String, String), Reading<Subscription>>,
    /// Globalizations and Localizations by (kind, namespace, name); namespace is empty for the former.
    pub overrides: BTreeMap<(OverrideKind, String, String), Reading<Override>>,
    /// Overrides that cannot be carried out but whose feed is known.
    pub broken_overrides: Vec<BrokenOverride>,
    /// FeedInventories by (namespace, name) of their Subscription.
    pub inventories: BTreeMap<(String, String), Reading<FeedInventory>>,
    /// ManagedClusters below `hub/`, by name.
    pub clusters: BTreeMap<String, Reading<ClusterDefinition>>,
    /// Roles and bindings below `hub/`.
    pub access: AccessReadings,
    /// Whether some file or document could not be parsed, so that absence says nothing.
    pub incomplete: bool,
}

/// Builds the snapshot of a tree whose contents are all in the cache (see [`ParseCache::missing`]).
pub fn build(files: &FileTree, cache: &ParseCache, limits: &Limits) -> (Snapshot, Vec<Diagnostic>) {
    let mut builder = Builder::default();
    builder.note_entries(files);
    for (path, entry, _) in source_files(files) {
        if entry.size > limits.file_bytes {
            builder.add_problem(path, &yaml::too_large(entry.size, limits));
        } else if let Some(reading) = cache.reading(path, entry.id) {
            builder.add_file(path, reading);
        }
    }
    builder.finish()
}

/// The files that are read, with how.
fn source_files(files: &FileTree) -> impl Iterator<Item = (&str, &FileEntry, Format)> {
    files
        .files
        .iter()
        .filter(|(_, entry)| entry.mode == EntryMode::File)
        .filter_map(|(path, entry)| {
            let format = Format::of_path(path)?;
            (!is_kustomization(path) && !files.is_ignored(path)).then_some((path.as_str(), entry, format))
        })
}

/// Reads a `.branchlineignore`; lines that are no patterns are left out.
pub fn parse_ignore_file(text: &str) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in text.lines() {
        // A line that is no glob excludes nothing, as in git.
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

#[derive(Default)]
struct Builder<'a> {
    items: Vec<&'a Item>,
    hub: Vec<&'a Definition>,
    diagnostics: Vec<Diagnostic>,
    kustomizations: Vec<String>,
    incomplete: bool,
    /// The same for files below `hub/` alone.
    hub_incomplete: bool,
}

impl<'a> Builder<'a> {
    fn note_entries(&mut self, files: &FileTree) {
        for (path, entry) in &files.files {
            let (what, code) = match entry.mode {
                EntryMode::Symlink => ("a symbolic link is not followed", "symlink"),
                EntryMode::Submodule => ("a submodule is not read", "submodule"),
                EntryMode::File if is_kustomization(path) && !files.is_ignored(path) => {
                    self.kustomizations.push(path.clone());
                    continue;
                }
                EntryMode::File | EntryMode::Directory => continue,
            };
            if !files.is_ignored(path) && (entry.mode == EntryMode::Submodule || Format::of_path(path).is_some()) {
                let hint = format!("commit the files themselves, or list the path in {IGNORE_FILE}");
                self.diagnostics.push(Diagnostic::warning(code, what).at(path, 0).hint(hint));
            }
        }
        for path in &files.unreadable {
            let hint = "rename the file; what it defined keeps its last result";
            self.diagnostics.push(
                Diagnostic::error("path-not-utf8", "the path is not UTF-8 and is not read")
                    .at(path, 0)
                    .hint(hint),
            );
            self.note_incomplete(path);
        }
    }

    fn note_incomplete(&mut self, path: &str) {
        self.incomplete = true;
        self.hub_incomplete |= path.starts_with(HUB_DIRECTORY);
    }

    fn add_problem(&mut self, path: &str, problem: &yaml::Problem) {
        self.note_incomplete(path);
        self.diagnostics.push(
            Diagnostic::error(problem.code, &*problem.message)
                .at(path, problem.line)
                .hint(problem.hint),
        );
    }

    fn add_file(&mut self, path: &str, reading: &'a FileReading) {
        let problems = &reading.parsed.problems;
        problems.iter().for_each(|problem| self.add_problem(path, problem));
        self.items.extend(&reading.items);
        self.hub.extend(&reading.hub);
    }

    fn finish(mut self) -> (Snapshot, Vec<Diagnostic>) {
        let mut snapshot = Snapshot {
            incomplete: self.incomplete,
            ..Snapshot::default()
        };
        let mut items = std::mem::take(&mut self.items);
        // Stable, so that definitions of one object stay in the order of their files.
        items.par_sort_by(|one, other| one.key.cmp(&other.key));
        let mut feeds = Vec::with_capacity(items.len());
        for same in items.chunk_by(|one, other| one.key == other.key) {
            match same {
                [item] => {
                    self.diagnostics.extend(item.findings.iter().cloned());
                    add_item(&mut snapshot, item, &mut feeds);
                }
                several => {
                    self.report_duplicates(several);
                    add_duplicates(&mut snapshot, several);
                }
            }
        }
        snapshot.feeds = feeds.into_iter().collect();
        bundle::link(&mut snapshot, &self.kustomizations, &mut self.diagnostics);
        snapshot.access.incomplete = self.hub_incomplete;
        for definition in std::mem::take(&mut self.hub) {
            if access::is_access(definition) {
                access::add_access(&mut snapshot.access, definition, &mut self.diagnostics);
            } else {
                cluster::add_hub_object(&mut snapshot, definition, &mut self.diagnostics);
            }
        }
        access::check_roles(&snapshot.access, &mut self.diagnostics);
        if !snapshot.incomplete {
            inventory::check_owners(&snapshot, &mut self.diagnostics);
        }
        (snapshot, self.diagnostics)
    }

    fn report_duplicates(&mut self, items: &[&Item]) {
        for (index, item) in items.iter().enumerate() {
            let (definition, other) = (&item.definition, &items[usize::from(index == 0)].definition);
            let message = format!(
                "defined more than once; the other definition is at {}:{}",
                other.file,
                other.line_of("")
            );
            let diagnostic = Diagnostic::error("duplicate-object", message).hint("keep one; until then its last result stays");
            self.diagnostics.push(definition.locate(diagnostic, ""));
        }
    }
}

/// Adds what is defined once. Feeds come in the order of their keys, and all at once in the end.
fn add_item(snapshot: &mut Snapshot, item: &Item, feeds: &mut Vec<(ObjectKey, Definition)>) {
    match &item.content {
        Content::Feed => feeds.push((item.key.clone(), item.definition.clone())),
        Content::Unusable => drop(snapshot.unusable.insert(item.key.clone())),
        Content::Bundle(bundle) => drop(snapshot.bundles.insert(item.key.clone(), bundle.clone())),
        Content::Subscription(reading) => drop(snapshot.subscriptions.insert(place(&item.key), reading.clone())),
        Content::Inventory(reading) => drop(snapshot.inventories.insert(place(&item.key), reading.clone())),
        Content::Override(kind, value) => {
            let reading = Reading::Valid(Arc::clone(value));
            snapshot.overrides.insert(override_place(*kind, &item.key), reading);
        }
        Content::Broken(kind, broken) => {
            snapshot.broken_overrides.extend(broken.clone());
            snapshot
                .overrides
                .insert(override_place(*kind, &item.key), Reading::Unreadable);
        }
        // It may be a misspelt definition of anything, so absence says nothing.
        Content::Misplaced(of_anything) => snapshot.incomplete |= of_anything,
    }
}

/// None of the definitions counts, and what depends on any of them is held.
fn add_duplicates(snapshot: &mut Snapshot, items: &[&Item]) {
    let Some(first) = items.first() else { return };
    snapshot.duplicates.insert(first.key.clone());
    match &first.content {
        Content::Subscription(_) => drop(snapshot.subscriptions.insert(place(&first.key), Reading::Unreadable)),
        Content::Inventory(_) => drop(snapshot.inventories.insert(place(&first.key), Reading::Unreadable)),
        Content::Override(kind, _) | Content::Broken(kind, _) => {
            let broken = items
                .iter()
                .filter_map(|item| overrides::broken(*kind, &item.key, &item.definition.object));
            snapshot.broken_overrides.extend(broken);
            snapshot
                .overrides
                .insert(override_place(*kind, &first.key), Reading::Unreadable);
        }
        Content::Feed | Content::Unusable | Content::Bundle(_) | Content::Misplaced(_) => {}
    }
}

/// Namespace and name.
fn place(key: &ObjectKey) -> (String, String) {
    (key.namespace.clone().unwrap_or_default(), key.name.clone())
}

fn override_place(kind: OverrideKind, key: &ObjectKey) -> (OverrideKind, String, String) {
    let (namespace, name) = place(key);
    (kind, namespace, name)
}

/// Kinds of ours that the hub writes for people to read.
const WRITTEN_BY_THE_HUB: [&str; 5] = ["Base", "Description", "HelmRelease", "ClusterRegistrationRequest", "Socket"];

/// Our groups, and whatever else ends like them: nobody but us and Clusternet has kinds there, so it is a misspelt one of ours.
fn is_ours(group: &str) -> bool {
    ["clusternet.io", BRANCHLINE_GROUP].iter().any(|domain| {
        let rest = group.strip_suffix(domain);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn misplaced(definition: &Definition) -> Diagnostic {
    let object = &definition.object;
    let kind = object.kind();
    let (message, hint) = match kind {
        "ManagedCluster" => ("a ManagedCluster is read only below hub/".to_owned(), "move the file to hub/"),
        "Manifest" => (
            "a Manifest without a template says nothing".to_owned(),
            "put the object into template, or commit the object itself",
        ),
        kind if WRITTEN_BY_THE_HUB.contains(&kind) => (
            format!("{kind} is written by the hub and is not read from the source"),
            "take it out of the source repository",
        ),
        kind => (
            format!("there is no kind {kind} in {}", object.api_version()),
            "apps.clusternet.io/v1alpha1 has Subscription, Localization, Globalization, HelmChart and FeedInventory, \
             branchline.io/v1alpha1 has Bundle; until then what no file defines keeps its last result",
        ),
    };
    let diagnostic = Diagnostic::error("misplaced-object", message).field("/kind").hint(hint);
    definition.locate(diagnostic, "/kind")
}

/// The identity under which an object is looked up. Kinds of ours that live in a namespace are in `default` where none is given,
/// as kubectl would place them.
pub fn identity(object: &Object) -> ObjectKey {
    with_default_namespace(object.key())
}

fn with_default_namespace(mut key: ObjectKey) -> ObjectKey {
    if key.group == APPS_GROUP && key.kind == "Globalization" {
        key.namespace = None;
    } else if key.group == APPS_GROUP || is_bundle(&key) {
        key.namespace.get_or_insert_with(|| "default".to_owned());
    }
    key
}
