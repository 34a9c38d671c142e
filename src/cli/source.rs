//! What `render` and `check` work on: a folder or `repo@rev`, ManagedClusters from a file, a previous state. Reads, decides nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{self, Format, IGNORE_FILE, ParseCache, Reading, Snapshot};
use crate::core::object::Object;
use crate::core::pipeline::{self, FleetResult, Inputs, Memory, Outcome};
use crate::core::quantity::Quantity;
use crate::core::registration;
use crate::core::render::RenderSettings;
use crate::core::schedule::{Cluster, Live};
use crate::core::state::{self, ClusterRecord, State};
use crate::core::tree::{EntryMode, FileEntry, FileTree};
use crate::core::yaml::{self, Limits};
use crate::git::{Log, Repo};

use super::CliError;

/// What every command takes that renders a source.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Directory in SOURCE that is read
    #[arg(long, value_name = "P", default_value = "")]
    pub(super) path: String,
    /// The state before, a folder made by `render --out` or repo@branch: where things are now, and what is held keeps it
    #[arg(long, value_name = "STATE")]
    pub(super) previous: Option<String>,
    /// Let Secrets with plain data be feeds; plan and why never show their values
    #[arg(long)]
    allow_plain_secrets: bool,
}

impl Options {
    /// What people allow.
    pub(super) fn settings(&self) -> RenderSettings {
        RenderSettings {
            allow_plain_secrets: self.allow_plain_secrets,
        }
    }
}

/// Where content comes from.
pub(super) enum Contents {
    /// Files that were read already.
    Folder(HashMap<ObjectId, Vec<u8>>),
    /// A repository's object database.
    Repository(crate::git::Contents),
}

impl Contents {
    /// A content by id.
    pub(super) fn load(&self, id: ObjectId) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Contents::Folder(files) => files.get(&id).cloned().ok_or_else(|| format!("no content {id}").into()),
            Contents::Repository(contents) => Ok(contents.blob(id)?),
        }
    }
}

/// Opens a folder or `repo@rev`.
pub(super) fn open(text: &str, path: &str) -> Result<(FileTree, Contents), CliError> {
    let folder = Path::new(text);
    if folder.is_dir() {
        return read_folder(&folder.join(path));
    }
    let Some((repository, revision)) = text.rsplit_once('@').filter(|(_, revision)| !revision.is_empty()) else {
        return Err(CliError::usage(
            format!("{text} is neither a folder nor repo@rev"),
            "for example: branchline check . or branchline check repo@main",
        ));
    };
    open_commit(repository, revision, path)
}

/// Opens a commit of a repository.
pub(super) fn open_commit(repository: &str, revision: &str, path: &str) -> Result<(FileTree, Contents), CliError> {
    let failed = |error| {
        CliError::usage(
            format!("cannot read {repository}@{revision}"),
            "name a repository's top folder and a revision of it, as in repo@rev",
        )
        .because(error)
    };
    let repo = Repo::open(Path::new(repository)).map_err(failed)?;
    let commit = repo.rev_parse(revision).map_err(failed)?;
    let files = repo.files(commit, path).map_err(failed)?;
    Ok((files, Contents::Repository(repo.contents().map_err(failed)?)))
}

/// The log of a source for [`pipeline::date`]: of the revision, or of what a folder's repository has checked out. Nothing where there is no
/// repository.
pub(super) fn log(text: &str, path: &str) -> Option<Log> {
    let (repository, revision) = match Path::new(text).is_dir() {
        true => (text, "HEAD"),
        false => text.rsplit_once('@')?,
    };
    log_of(repository, revision, path)
}

/// The log of a revision, likewise.
pub(super) fn log_of(repository: &str, revision: &str, path: &str) -> Option<Log> {
    let repo = Repo::open(Path::new(repository)).ok()?;
    let head = repo.rev_parse(revision).ok()?;
    repo.log(head, path, Limits::default(), ParseCache::default()).ok()
}

/// Says of ApplyLater changes since when they wait, as far as the log can tell.
pub(super) fn date(
    outcome: &mut Outcome,
    inputs: &Inputs<'_>,
    registered: &[ClusterRecord],
    log: Option<Log>,
) -> Result<(), CliError> {
    let unreadable = |error| CliError::failed("cannot read the source's log", "run git fsck").because(error);
    let log = log.into_iter().flatten();
    pipeline::date(&mut outcome.pending, inputs, &outcome.placed, registered, log).map_err(unreadable)
}

fn read_folder(folder: &Path) -> Result<(FileTree, Contents), CliError> {
    let (mut files, mut contents) = (FileTree::default(), HashMap::new());
    let failed = |error| {
        CliError::usage(
            format!("cannot read {}", folder.display()),
            "check the path and its permissions",
        )
        .because(error)
    };
    walk(folder, "", &mut files, &mut contents).map_err(failed)?;
    if let Some(bytes) = files.files.get(IGNORE_FILE).and_then(|entry| contents.get(&entry.id)) {
        files.ignored = Some(index::parse_ignore_file(&String::from_utf8_lossy(bytes)));
    }
    Ok((files, Contents::Folder(contents)))
}

fn walk(folder: &Path, prefix: &str, files: &mut FileTree, contents: &mut HashMap<ObjectId, Vec<u8>>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            files.unreadable.push(format!("{prefix}{}", name.to_string_lossy()));
            continue;
        };
        let (kind, path) = (entry.file_type()?, format!("{prefix}{name}"));
        if name == ".git" {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files, contents)?;
        } else if kind.is_symlink() {
            let link = FileEntry {
                mode: EntryMode::Symlink,
                id: ObjectId::hash(ObjectKind::Blob, path.as_bytes()),
                size: 0,
            };
            files.files.insert(path, link);
        } else if Format::of_path(name).is_some() || name == IGNORE_FILE || index::is_kustomization(name) {
            add_file(&entry.path(), path, files, contents)?;
        }
    }
    Ok(())
}

/// A file above the limit is noted with its size and not read.
fn add_file(file: &Path, path: String, files: &mut FileTree, contents: &mut HashMap<ObjectId, Vec<u8>>) -> std::io::Result<()> {
    let size = file.metadata()?.len();
    let bytes = if size > Limits::default().file_bytes {
        Vec::new()
    } else {
        std::fs::read(file)?
    };
    let id = ObjectId::hash(ObjectKind::Blob, &bytes);
    files.files.insert(
        path,
        FileEntry {
            mode: EntryMode::File,
            id,
            size,
        },
    );
    contents.insert(id, bytes);
    Ok(())
}

/// Parses a tree into a snapshot; what the cache knows is not parsed again.
pub(super) fn index(
    files: &FileTree,
    contents: &Contents,
    cache: &mut ParseCache,
) -> Result<(Arc<Snapshot>, Vec<Diagnostic>), CliError> {
    let limits = Limits::default();
    cache.fill(files, &limits, |id| {
        let unreadable = |error| CliError::failed(format!("cannot read content {id}"), "run git fsck").because(error);
        contents.load(id).map_err(unreadable)
    })?;
    let (snapshot, diagnostics) = index::build(files, cache, &limits);
    Ok((Arc::new(snapshot), diagnostics))
}

/// ManagedClusters as a file states them.
#[derive(Default, Clone)]
pub(super) struct Clusters {
    /// Durable facts.
    pub(super) records: Vec<ClusterRecord>,
    /// What their status says, by dedicated namespace.
    pub(super) live: BTreeMap<Arc<str>, Live>,
}

/// The fleet of a command that can do without `--clusters`: the file's clusters, else those of the previous state, else those that `hub/` defines.
pub(super) fn fleet(file: Option<&Path>, previous: &State, snapshots: &[&Snapshot]) -> Result<Clusters, CliError> {
    if let Some(file) = file {
        return read_clusters(file);
    }
    let registered = match registration::approved(&previous.registrations) {
        records if records.is_empty() => previous
            .managed_clusters
            .values()
            .map(|record| ClusterRecord::clone(record))
            .collect(),
        records => records,
    };
    if registered.is_empty() {
        return Ok(clusters_of(snapshots));
    }
    Ok(Clusters {
        records: registered,
        ..Clusters::default()
    })
}

/// The clusters that `hub/` defines, in the first snapshot that does. Their labels and taints come from each snapshot itself.
pub(super) fn clusters_of(snapshots: &[&Snapshot]) -> Clusters {
    let mut records: BTreeMap<&str, ClusterRecord> = BTreeMap::new();
    let defined = snapshots.iter().flat_map(|snapshot| snapshot.clusters.values());
    for known in defined.filter_map(Reading::valid) {
        let (id, labels) = (known.cluster_id.clone(), BTreeMap::new());
        records.entry(&known.name).or_insert_with(|| ClusterRecord {
            cluster: Cluster::new(&known.name, known.namespace.as_deref(), id, labels).into(),
            cluster_type: String::new(),
        });
    }
    Clusters {
        records: records.into_values().collect(),
        ..Clusters::default()
    }
}

/// Limits of the file with the clusters: a person's own file, and as long as the fleet is large.
const FLEET: Limits = Limits {
    file_bytes: 1 << 30,
    documents: 1_000_000,
    depth: 64,
    nodes: 100_000_000,
    aliases: 1_000,
};

const HOLDS_CLUSTERS: &str =
    "the file holds ManagedClusters as YAML documents, or as `kubectl get managedclusters -A -o yaml` prints them";

/// Reads ManagedClusters from a YAML file.
pub(super) fn read_clusters(path: &Path) -> Result<Clusters, CliError> {
    let wrong = |line: u64, message: String| CliError::usage(format!("{}:{line}: {message}", path.display()), HOLDS_CLUSTERS);
    let bytes = std::fs::read(path)
        .map_err(|error| CliError::usage(format!("cannot read {}", path.display()), "check --clusters").because(error))?;
    let documents = yaml::parse_yaml(&bytes, &FLEET).map_err(|problem| wrong(problem.line, problem.message))?;
    let mut clusters = Clusters::default();
    let (mut names, mut ids) = (HashSet::new(), HashSet::new());
    for document in documents {
        let value = document.value.map_err(|problem| wrong(problem.line, problem.message))?;
        let items = match value.get("items").and_then(serde_json::Value::as_array) {
            Some(items) => items.clone(),
            None => vec![value],
        };
        for item in items {
            let (record, live) = read_cluster(item).map_err(|message| wrong(document.line, message))?;
            let namespace = &record.cluster.namespace;
            if clusters.live.contains_key(namespace) {
                let other = clusters.records.iter().find(|other| other.cluster.namespace == *namespace);
                let other = other.map_or_else(String::new, |other| other.cluster.name.to_string());
                let message = format!("{other} and {} have the same namespace {namespace}", record.cluster.name);
                return Err(wrong(document.line, message));
            }
            let name = &record.cluster.name;
            if !names.insert(name.clone()) {
                return Err(wrong(document.line, format!("two clusters have the name {name}")));
            }
            if let Some(id) = record.cluster.id.as_ref().filter(|id| !ids.insert((*id).clone())) {
                return Err(wrong(
                    document.line,
                    format!("{name} has the clusterId {id} of another cluster"),
                ));
            }
            clusters.live.insert(namespace.clone(), live);
            clusters.records.push(record);
        }
    }
    if clusters.records.is_empty() {
        return Err(CliError::usage(
            format!("{} holds no cluster", path.display()),
            HOLDS_CLUSTERS,
        ));
    }
    Ok(clusters)
}

fn read_cluster(value: serde_json::Value) -> Result<(ClusterRecord, Live), String> {
    let object = Object::from_value(value).map_err(|error| error.to_string())?;
    if object.kind() != "ManagedCluster" {
        return Err(format!("{object} is no ManagedCluster"));
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(serde_json::Value::as_str);
    let id = text("/spec/clusterId")
        .map(str::parse)
        .transpose()
        .map_err(|error: crate::core::ids::InvalidClusterId| error.to_string())?;
    let taints = index::read_taints(&object).map_err(|wrong| format!("{object}: {}: {}", wrong.pointer, wrong.message))?;
    let (labels, invalid) = index::read_labels(&object);
    if let Some(wrong) = invalid.first() {
        return Err(format!("{object}: {}: {}", wrong.pointer, wrong.message));
    }
    let cluster = Cluster::new(object.name(), object.namespace(), id, labels).with_taints(taints.unwrap_or_default());
    if !crate::core::ids::is_dns_name(&cluster.namespace, 63, false) {
        return Err(format!("{object}: {:?} is not a namespace name", cluster.namespace));
    }
    let live = Live {
        allocatable: read_allocatable(&object)?,
        ..Live::default()
    };
    let record = ClusterRecord {
        cluster: cluster.into(),
        cluster_type: text("/spec/clusterType").unwrap_or_default().to_owned(),
    };
    Ok((record, live))
}

/// What the cluster's nodes offer, for the estimate of how many replicas fit.
fn read_allocatable(object: &Object) -> Result<BTreeMap<String, Quantity>, String> {
    let stated = object.pointer("/status/allocatable").and_then(serde_json::Value::as_object);
    let mut allocatable = BTreeMap::new();
    for (resource, value) in stated.into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quantity = Quantity::parse(&text);
        let quantity = quantity.ok_or_else(|| format!("{object}: /status/allocatable/{resource}: {value} is not a quantity"))?;
        allocatable.insert(resource.clone(), quantity);
    }
    Ok(allocatable)
}

/// A previous state with the contents of its files.
pub(super) fn read_previous(text: Option<&str>) -> Result<(State, Option<Contents>), CliError> {
    let Some(text) = text else {
        return Ok((State::default(), None));
    };
    let (files, contents) = open(text, "")?;
    if !files.files.contains_key(state::LAYOUT_FILE) {
        let message = format!("{text} holds no state: it has no {}", state::LAYOUT_FILE);
        return Err(CliError::usage(message, "name a folder made by render --out, or repo@branch"));
    }
    let ids = files.files.into_iter().map(|(path, entry)| (path, entry.id)).collect();
    let failed = |error| {
        CliError::usage(
            format!("{text} is no state that Branchline wrote"),
            "name a folder made by render --out, or repo@branch",
        )
        .because(error)
    };
    let state = state::read(&ids, &mut |id| contents.load(id)).map_err(failed)?;
    Ok((state, Some(contents)))
}

/// What a run goes by: the state before says how the directories are laid out.
pub(super) fn inputs<'a>(
    snapshot: &'a Arc<Snapshot>,
    fleet: &'a FleetResult,
    previous: &'a State,
    settings: RenderSettings,
) -> Inputs<'a> {
    Inputs {
        snapshot,
        fleet,
        previous,
        settings,
        fan_out: previous.fan_out,
    }
}

/// Runs the pure core over a snapshot; the index's diagnostics come first in the result's.
pub(super) fn run(
    snapshot: &Arc<Snapshot>,
    mut diagnostics: Vec<Diagnostic>,
    clusters: Clusters,
    previous: &State,
    settings: RenderSettings,
    memory: &mut Memory,
) -> (Outcome, FleetResult) {
    let mut fleet = pipeline::derive_fleet(clusters.records, snapshot, previous);
    fleet.fleet.live = clusters.live;
    let mut outcome = pipeline::run(&inputs(snapshot, &fleet, previous, settings), memory);
    diagnostics.append(&mut outcome.diagnostics);
    diagnostics.sort();
    outcome.diagnostics = diagnostics;
    (outcome, fleet)
}
