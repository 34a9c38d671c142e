//! A cluster's tree, read into what it asks for: which content is still missing, and the objects once nothing is. Fetches nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::inventory::Inventory;
use super::plan::{Content, Desired, Wanted};
use crate::core::ids::ObjectId;
use crate::core::object::Object;
use crate::core::tree::{EntryMode, TreeEntry, parse_git_tree};
use crate::core::yaml::{self, Limits};

const DESCRIPTION: &str = "description.yaml";
const MANIFESTS: &str = "manifests";
/// Files that are read without the help of other cores.
const READ_BY_ONE: usize = 64;
/// The only deployer that this version carries out.
const GENERIC: &str = "Generic";

/// Content by id, as far as it is at hand.
#[derive(Debug, Default)]
pub struct Contents {
    objects: HashMap<ObjectId, Box<[u8]>>,
}

/// What a tree comes to.
#[derive(Debug, PartialEq)]
pub enum Laid {
    /// These objects are needed before more can be said.
    Missing(Vec<ObjectId>),
    /// Everything is at hand.
    Complete(Wanted),
}

impl Contents {
    /// Adds content whose id was checked.
    pub fn add(&mut self, id: ObjectId, bytes: &[u8]) {
        self.objects.insert(id, bytes.into());
    }

    /// Lets go of everything that the tree does not need any more: all but its directories and the files that are still to be applied.
    pub fn keep_for(&mut self, root: ObjectId, inventory: &Inventory) {
        let mut needed = Survey::of(root, self, inventory).needed;
        self.objects.retain(|id, _| needed.remove(id));
        self.objects.shrink_to_fit();
    }

    fn get(&self, id: ObjectId) -> Option<&[u8]> {
        match id {
            ObjectId::EMPTY_TREE => Some(&[]),
            id => self.objects.get(&id).map(|bytes| &**bytes),
        }
    }
}

/// Reads the tree. A Description that this version cannot carry out is refused as a whole, never in part.
pub fn lay_out(root: ObjectId, contents: &Contents, inventory: &Inventory) -> Laid {
    let survey = Survey::of(root, contents, inventory);
    if !survey.missing.is_empty() {
        return Laid::Missing(survey.missing.into_iter().collect());
    }
    let mut wanted = Wanted {
        refused: survey.refused,
        ..Wanted::default()
    };
    let files: usize = survey.subs.iter().map(|sub| sub.files.len()).sum();
    let read: Vec<_> = match files {
        // What a worker costs in memory is worth it for a large tree only.
        ..=READ_BY_ONE => survey.subs.into_iter().map(|sub| read_sub(sub, contents)).collect(),
        _ => survey.subs.into_par_iter().map(|sub| read_sub(sub, contents)).collect(),
    };
    for (name, refusal, objects) in read {
        if let Some(refusal) = refusal {
            wanted.refused.entry(name.clone()).or_insert(refusal);
        }
        wanted.objects.extend(objects);
        wanted.subs.insert(name);
    }
    Laid::Complete(wanted)
}

/// A Description's name, why it is refused, and its objects.
fn read_sub(sub: Sub, contents: &Contents) -> (String, Option<String>, Vec<Desired>) {
    let (order, refusal) = match order_of(&sub, contents) {
        Ok(order) => (order, None),
        Err(refusal) => (HashMap::new(), Some(refusal)),
    };
    let desired = |file: File| Desired {
        order: order.get(&file.path).copied().unwrap_or(u32::MAX),
        sub: sub.name.clone(),
        content: match file.applied {
            true => Content::NotFetched,
            false => contents.get(file.blob).map_or(Content::NotFetched, parse),
        },
        path: file.path,
        blob: file.blob,
    };
    let objects = sub.files.into_iter().map(desired).collect();
    (sub.name, refusal, objects)
}

/// One pass over the directories.
#[derive(Default)]
struct Survey {
    missing: BTreeSet<ObjectId>,
    needed: BTreeSet<ObjectId>,
    refused: BTreeMap<String, String>,
    subs: Vec<Sub>,
}

struct Sub {
    name: String,
    description: Option<ObjectId>,
    files: Vec<File>,
}

struct File {
    path: String,
    blob: ObjectId,
    applied: bool,
}

impl Survey {
    fn of(root: ObjectId, contents: &Contents, inventory: &Inventory) -> Self {
        let mut survey = Survey::default();
        let by_path = inventory.by_path();
        let applied = |sub: &str, path: &str, blob: ObjectId| by_path.get(&(sub, path)).is_some_and(|(_, entry)| entry.has(blob));
        for entry in survey.entries("", root, contents) {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            match entry.mode {
                EntryMode::Directory => survey.read_sub(name, entry.id, contents, &applied),
                _ => survey.refuse(&name, "the hub sent a file where only directories are expected"),
            }
        }
        survey
    }

    fn read_sub(&mut self, name: String, tree: ObjectId, contents: &Contents, applied: &dyn Fn(&str, &str, ObjectId) -> bool) {
        let mut sub = Sub {
            description: None,
            files: Vec::new(),
            name,
        };
        for entry in self.entries(&sub.name, tree, contents) {
            match (entry.mode, entry.name.as_slice()) {
                (EntryMode::File, name) if name == DESCRIPTION.as_bytes() => sub.description = Some(entry.id),
                (EntryMode::Directory, name) if name == MANIFESTS.as_bytes() => {
                    for file in self.entries(&sub.name, entry.id, contents) {
                        let path = format!("{MANIFESTS}/{}", String::from_utf8_lossy(&file.name));
                        let applied = applied(&sub.name, &path, file.id);
                        let blob = file.id;
                        sub.files.push(File { path, blob, applied });
                    }
                }
                (_, other) => {
                    let other = String::from_utf8_lossy(other).into_owned();
                    self.refuse(
                        &sub.name,
                        &format!("{other} is not carried out by this version of the agent; use a newer agent"),
                    );
                }
            }
        }
        self.need_files(&sub, contents);
        self.subs.push(sub);
    }

    /// The files that are not applied yet, and the description that gives their order.
    fn need_files(&mut self, sub: &Sub, contents: &Contents) {
        let pending: Vec<ObjectId> = sub.files.iter().filter(|file| !file.applied).map(|file| file.blob).collect();
        let description = sub.description.filter(|_| !pending.is_empty());
        for id in pending.into_iter().chain(description) {
            self.needed.insert(id);
            if contents.get(id).is_none() {
                self.missing.insert(id);
            }
        }
    }

    fn entries(&mut self, sub: &str, tree: ObjectId, contents: &Contents) -> Vec<TreeEntry> {
        self.needed.insert(tree);
        let Some(bytes) = contents.get(tree) else {
            self.missing.insert(tree);
            return Vec::new();
        };
        parse_git_tree(bytes).unwrap_or_else(|error| {
            self.refuse(sub, &format!("directory {tree}: {error}"));
            Vec::new()
        })
    }

    fn refuse(&mut self, sub: &str, why: &str) {
        self.refused.entry(sub.to_owned()).or_insert_with(|| why.to_owned());
    }
}

#[derive(Deserialize)]
struct DescriptionFile {
    #[serde(default)]
    deployer: String,
    #[serde(default)]
    feeds: Vec<FeedFile>,
}

#[derive(Deserialize)]
struct FeedFile {
    #[serde(default)]
    manifest: String,
}

/// The place of each file among the feeds, or why the Description is refused. Files that it does not name come last.
fn order_of(sub: &Sub, contents: &Contents) -> Result<HashMap<String, u32>, String> {
    let Some(bytes) = sub.description.and_then(|id| contents.get(id)) else {
        return Ok(HashMap::new());
    };
    let description: Result<DescriptionFile, String> =
        read_one(bytes).and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()));
    match description {
        Ok(description) if description.deployer == GENERIC => Ok(places(&description.feeds)),
        Ok(description) => Err(format!(
            "deployer {} is not carried out by this version of the agent",
            description.deployer
        )),
        Err(error) => Err(format!("{DESCRIPTION}: {error}")),
    }
}

fn places(feeds: &[FeedFile]) -> HashMap<String, u32> {
    let named = feeds.iter().zip(0u32..).filter(|(feed, _)| !feed.manifest.is_empty());
    named
        .map(|(feed, place)| {
            let file = feed.manifest.rsplit('/').next().unwrap_or_default();
            (format!("{MANIFESTS}/{file}"), place)
        })
        .collect()
}

fn parse(bytes: &[u8]) -> Content {
    let object = read_one(bytes).and_then(|value| Object::from_value(value).map_err(|error| error.to_string()));
    match object {
        Ok(object) => Content::Object(object),
        Err(why) => Content::Broken(why),
    }
}

fn read_one(bytes: &[u8]) -> Result<Value, String> {
    let mut documents = yaml::parse_yaml(bytes, &Limits::default()).map_err(|problem| problem.message)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => document.value.map_err(|problem| problem.message),
        (Some(_), false) => Err("holds more than one object".to_owned()),
        (None, _) => Err("is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::core::ids::ObjectKind;
    use crate::core::tree::write_git_tree;

    struct Tree {
        contents: Contents,
        root: ObjectId,
        directories: Vec<ObjectId>,
        blob: ObjectId,
    }

    fn put(contents: &mut Contents, kind: ObjectKind, bytes: &[u8]) -> ObjectId {
        let id = ObjectId::hash(kind, bytes);
        contents.add(id, bytes);
        id
    }

    fn tree(deployer: &str, extra: bool) -> Tree {
        let mut contents = Contents::default();
        let manifest = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        let blob = put(&mut contents, ObjectKind::Blob, manifest);
        let text = format!("deployer: {deployer}\nfeeds:\n- manifest: manifests/other.yaml\n- manifest: configmap_a.yaml\n");
        let description = put(&mut contents, ObjectKind::Blob, text.as_bytes());
        let bytes = write_git_tree([("configmap_a.yaml", false, blob)]);
        let manifests = put(&mut contents, ObjectKind::Tree, &bytes);
        let mut entries = vec![("description.yaml", false, description), ("manifests", true, manifests)];
        if extra {
            entries.push(("releases", true, ObjectId::EMPTY_TREE));
        }
        let sub = put(&mut contents, ObjectKind::Tree, &write_git_tree(entries));
        let root = put(&mut contents, ObjectKind::Tree, &write_git_tree([("shop.web", true, sub)]));
        let directories = vec![root, sub, manifests];
        Tree {
            contents,
            root,
            directories,
            blob,
        }
    }

    fn complete(tree: &Tree) -> Wanted {
        match lay_out(tree.root, &tree.contents, &Inventory::default()) {
            Laid::Complete(wanted) => wanted,
            Laid::Missing(ids) => panic!("missing {ids:?}"),
        }
    }

    #[test]
    fn a_tree_becomes_objects_in_feed_order() {
        let wanted = complete(&tree("Generic", false));
        assert_eq!(wanted.objects[0].path, "manifests/configmap_a.yaml");
        assert_eq!((wanted.objects[0].order, wanted.refused.len()), (1, 0));
        assert!(matches!(&wanted.objects[0].content, Content::Object(object) if object.name() == "a"));
        let empty = lay_out(ObjectId::EMPTY_TREE, &Contents::default(), &Inventory::default());
        assert_eq!(empty, Laid::Complete(Wanted::default()));
    }

    #[test]
    fn what_is_missing_is_asked_for_level_by_level() {
        let full = tree("Generic", false);
        let mut known = Contents::default();
        let mut rounds = 0;
        while let Laid::Missing(ids) = lay_out(full.root, &known, &Inventory::default()) {
            ids.iter().for_each(|id| known.add(*id, full.contents.get(*id).unwrap()));
            rounds += 1;
        }
        assert_eq!(rounds, 4, "root, Descriptions, their directories, the files");
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_as_a_whole() {
        assert!(complete(&tree("Helm", false)).refused["shop.web"].contains("deployer Helm"));
        assert!(complete(&tree("Generic", true)).refused["shop.web"].contains("releases"));
    }

    #[test]
    fn only_directories_and_pending_files_are_kept() {
        let mut full = tree("Generic", false);
        full.contents.keep_for(full.root, &Inventory::default());
        assert!(full.contents.get(full.blob).is_some());
        let wanted = complete(&full);
        let plan = super::super::plan(target(full.root), wanted, &Inventory::default(), &|_, _| {
            super::super::Scope::Namespaced
        });
        let mut inventory = plan.record;
        inventory
            .entries
            .values_mut()
            .for_each(|entry| entry.applied = Some(full.blob));
        full.contents.keep_for(full.root, &inventory);
        assert!(full.contents.get(full.blob).is_none());
        assert!(full.directories.iter().all(|id| full.contents.get(*id).is_some()));
    }

    fn target(tree: ObjectId) -> super::super::Target {
        super::super::Target {
            epoch: 1,
            generation: 1,
            tree,
        }
    }
}
