//! Source files to objects, memoised by content id: a file that did not change is never parsed again.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use super::access::RBAC_GROUP;
use super::reading::{FileReading, read_file};
use crate::core::api::{APPS_GROUP, BRANCHLINE_GROUP, CLUSTERS_GROUP};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::object::Object;
use crate::core::tree::FileTree;
use crate::core::yaml::{self, Document, Limits, Problem};

/// What one file holds.
#[derive(Debug, Default)]
pub struct ParsedFile {
    /// Objects in the order in which they stand.
    pub objects: Vec<ParsedObject>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// The text itself, kept only where a diagnostic may have to point into an object's fields.
    pub text: Option<Arc<yaml::Source>>,
}

/// One object and where it stands.
#[derive(Debug, Clone)]
pub struct ParsedObject {
    /// The object.
    pub object: Arc<Object>,
    /// Digest of its canonical JSON.
    pub digest: ObjectId,
    /// Line of its document.
    pub line: u64,
    /// JSON pointer of the object in its document: empty unless it is an item of a list or a Manifest's template.
    pub inside: Arc<str>,
}

/// How a file's text is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// `.yaml`, `.yml`
    Yaml,
    /// `.json`
    Json,
}

impl Format {
    /// By the path's ending; `None` for files that are not read.
    pub fn of_path(path: &str) -> Option<Self> {
        match path.rsplit_once('.')?.1 {
            "yaml" | "yml" => Some(Format::Yaml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }
}

/// Contents that are in memory as text at the same time.
const PARSED_AT_ONCE: usize = 1_024;

/// Parsed files by content id, and what their objects are by path. A clone shares both.
#[derive(Debug, Default, Clone)]
pub struct ParseCache {
    files: HashMap<(ObjectId, Format), Arc<ParsedFile>>,
    readings: HashMap<String, (ObjectId, Arc<FileReading>)>,
}

impl ParseCache {
    /// Parses the contents of a tree that were never parsed before, and reads the objects of files that are new or changed; says how many
    /// contents were parsed. Loading is one after the other, everything else takes every core.
    pub fn fill<E>(
        &mut self,
        files: &FileTree,
        limits: &Limits,
        mut load: impl FnMut(ObjectId) -> Result<Vec<u8>, E>,
    ) -> Result<usize, E> {
        let missing = self.missing(files, limits);
        for portion in missing.chunks(PARSED_AT_ONCE) {
            let loaded: Result<Vec<_>, E> = portion.iter().map(|key| Ok((*key, load(key.0)?))).collect();
            let parsed = loaded?
                .into_par_iter()
                .map(|((id, format), bytes)| ((id, format), Arc::new(parse_file(&bytes, format, limits))));
            self.files.par_extend(parsed);
        }
        self.read(files);
        Ok(missing.len())
    }

    fn read(&mut self, files: &FileTree) {
        let unread: Vec<_> = super::source_files(files)
            .filter(|(path, entry, _)| self.reading(path, entry.id).is_none())
            .filter_map(|(path, entry, format)| Some((path, entry.id, self.files.get(&(entry.id, format))?)))
            .collect();
        let read = unread
            .into_par_iter()
            .map(|(path, id, parsed)| (path.to_owned(), (id, Arc::new(read_file(path, parsed)))));
        let read: Vec<_> = read.collect();
        self.readings.extend(read);
    }

    fn missing(&self, files: &FileTree, limits: &Limits) -> Vec<(ObjectId, Format)> {
        let mut missing: Vec<_> = super::source_files(files)
            .filter(|(_, entry, _)| entry.size <= limits.file_bytes)
            .map(|(_, entry, format)| (entry.id, format))
            .filter(|key| !self.files.contains_key(key))
            .collect();
        missing.sort_unstable_by_key(|(id, _)| *id);
        missing.dedup();
        missing
    }

    /// What a file's objects are, if this content was read at this path.
    pub(super) fn reading(&self, path: &str, id: ObjectId) -> Option<&FileReading> {
        let (of, reading) = self.readings.get(path)?;
        (*of == id).then_some(reading)
    }

    /// Forgets what the tree no longer names.
    pub fn retain(&mut self, files: &FileTree) {
        let live: std::collections::HashSet<ObjectId> = files.files.values().map(|entry| entry.id).collect();
        self.files.retain(|(id, _), _| live.contains(id));
        self.readings
            .retain(|path, (id, _)| files.files.get(path).is_some_and(|entry| entry.id == *id));
    }
}

/// How the file begins that Git LFS commits in place of a content.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

fn lfs_pointer() -> ParsedFile {
    let problem = Problem {
        line: 1,
        code: "lfs-pointer",
        message: "a Git LFS pointer; the content itself is not in the repository and is not fetched".to_owned(),
        hint: "commit the file without LFS, or list it in .branchlineignore",
    };
    ParsedFile {
        problems: vec![problem],
        ..ParsedFile::default()
    }
}

fn parse_file(bytes: &[u8], format: Format, limits: &Limits) -> ParsedFile {
    if bytes.starts_with(LFS_POINTER) {
        return lfs_pointer();
    }
    let documents = match format {
        Format::Yaml => yaml::parse_yaml(bytes, limits),
        Format::Json => yaml::parse_json(bytes, limits),
    };
    let mut file = ParsedFile::default();
    match documents {
        Err(problem) => file.problems.push(problem),
        Ok(documents) => documents.into_iter().for_each(|document| add_document(&mut file, document)),
    }
    let ours =
        |parsed: &ParsedObject| [APPS_GROUP, CLUSTERS_GROUP, BRANCHLINE_GROUP, RBAC_GROUP].contains(&parsed.object.group());
    if file.objects.iter().any(ours) {
        file.text = Some(yaml::Source::new(bytes).into());
    }
    file
}

fn add_document(file: &mut ParsedFile, document: Document) {
    match document.value {
        Err(problem) => file.problems.push(problem),
        Ok(value) => add_value(file, value, document.line, ""),
    }
}

fn add_value(file: &mut ParsedFile, mut value: Value, line: u64, inside: &str) {
    if let Some(items) = list_items(&mut value) {
        let items = items.into_iter().enumerate();
        items.for_each(|(index, item)| add_value(file, item, line, &format!("{inside}/items/{index}")));
        return;
    }
    if let Some(template) = manifest_template(&mut value) {
        return add_value(file, template, line, &format!("{inside}/template"));
    }
    match Object::from_value(value) {
        Ok(object) => {
            let digest = ObjectId::hash(ObjectKind::Blob, object.as_value().to_string().as_bytes());
            file.objects.push(ParsedObject {
                object: Arc::new(object),
                digest,
                line,
                inside: inside.into(),
            });
        }
        Err(error) => file.problems.push(Problem {
            line,
            code: "invalid-object",
            message: format!("not a Kubernetes object: {error}"),
            hint: "every document needs apiVersion, kind and metadata.name; list other files in .branchlineignore",
        }),
    }
}

/// `kind: List`, and typed lists such as `ConfigMapList`, stand for their items.
fn list_items(value: &mut Value) -> Option<Vec<Value>> {
    let kind = value.get("kind")?.as_str()?;
    if !kind.ends_with("List") || value.pointer("/metadata/name").is_some() {
        return None;
    }
    match value.get_mut("items")?.take() {
        Value::Array(items) => Some(items),
        other => Some(vec![other]),
    }
}

/// Clusternet's stored template counts as the object in it.
fn manifest_template(value: &mut Value) -> Option<Value> {
    let is_manifest = value.get("kind")?.as_str()? == "Manifest" && value.get("apiVersion")?.as_str()?.starts_with(APPS_GROUP);
    is_manifest.then(|| value.get_mut("template").map(Value::take))?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::core::tree::{EntryMode, FileEntry};

    fn names(text: &str) -> Vec<String> {
        let file = parse_file(text.as_bytes(), Format::Yaml, &Limits::default());
        assert!(file.problems.is_empty(), "{:?}", file.problems);
        file.objects.iter().map(|parsed| parsed.object.to_string()).collect()
    }

    #[test]
    fn flattens_lists_and_manifests() {
        let list = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n\
                    - {apiVersion: v1, kind: Secret, metadata: {name: b, namespace: ns}}\n";
        assert_eq!(names(list), ["ConfigMap a", "Secret ns/b"]);
        let manifest = "apiVersion: apps.clusternet.io/v1alpha1\nkind: Manifest\nmetadata: {name: x}\n\
                        template: {apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n";
        assert_eq!(names(manifest), ["Namespace shop"]);
    }

    #[test]
    fn of_10000_files_only_the_one_that_changed_is_parsed() {
        let mut texts: BTreeMap<String, String> = (0..10_000)
            .map(|n| {
                let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\n");
                (format!("{}/{n}.yaml", n % 100), text)
            })
            .collect();
        let mut cache = ParseCache::default();
        let mut parsed = |texts: &BTreeMap<String, String>| {
            let id = |text: &String| ObjectId::hash(ObjectKind::Blob, text.as_bytes());
            let entry = |(path, text): (&String, &String)| {
                let (mode, size) = (EntryMode::File, text.len() as u64);
                (
                    path.clone(),
                    FileEntry {
                        mode,
                        id: id(text),
                        size,
                    },
                )
            };
            let tree = FileTree {
                files: texts.iter().map(entry).collect(),
                ..FileTree::default()
            };
            let known: HashMap<ObjectId, &String> = texts.values().map(|text| (id(text), text)).collect();
            let mut loaded = 0;
            let load = |wanted| {
                loaded += 1;
                Ok::<_, Infallible>(known[&wanted].clone().into_bytes())
            };
            let Ok(count) = cache.fill(&tree, &Limits::default(), load);
            (count, loaded)
        };
        assert_eq!(parsed(&texts), (10_000, 10_000));
        assert_eq!(parsed(&texts), (0, 0), "nothing changed");
        if let Some(text) = texts.get_mut("7/4207.yaml") {
            text.push_str("data: {a: b}\n");
        }
        assert_eq!(parsed(&texts), (1, 1));
        let moved = texts.remove("7/4207.yaml").unwrap_or_default();
        texts.insert("moved.yaml".to_owned(), moved);
        texts.insert("README.md".to_owned(), "# nothing to read\n".to_owned());
        assert_eq!(parsed(&texts), (0, 0), "a file that moved has the same content");
    }

    #[test]
    fn objects_know_where_they_are_in_their_document() {
        let list = "kind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n\
                    - {apiVersion: apps.clusternet.io/v1alpha1, kind: Manifest, metadata: {name: m}, template: {apiVersion: v1, kind: Namespace, metadata: {name: shop}}}\n\
                    ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
        let file = parse_file(list.as_bytes(), Format::Yaml, &Limits::default());
        let inside: Vec<&str> = file.objects.iter().map(|parsed| &*parsed.inside).collect();
        assert_eq!(inside, ["/items/0", "/items/1/template", ""]);
    }

    #[test]
    fn a_pointer_of_git_lfs_says_what_it_is() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        let file = parse_file(pointer, Format::Yaml, &Limits::default());
        assert_eq!(file.problems[0].code, "lfs-pointer");
    }

    #[test]
    fn names_what_an_object_lacks() {
        let file = parse_file(
            b"apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n",
            Format::Yaml,
            &Limits::default(),
        );
        assert_eq!(file.problems[0].message, "not a Kubernetes object: metadata.name is missing");
    }
}
