//! A state branch's tree → [`State`]. Manifests are known by id only; everything else is read, each distinct content once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::files::{self, DescriptionFile, ProvenanceFile};
use super::registrations::{Registration, Token};
use super::{ClusterProvenance, ClusterState, DescriptionState, FeedState, Leaf, ProvenanceState, State, tree};
use crate::core::ids::ObjectId;
use crate::core::render::{MANIFESTS, RELEASES};
use crate::core::yaml::{self, Limits};

/// Why a state branch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A content could not be loaded.
    #[error("cannot load {path}")]
    Load {
        /// Path on the state branch.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file is not what this build writes.
    #[error("{path} is not a file that Branchline wrote: {message}")]
    Malformed {
        /// Path on the state branch.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The branch was written by another format version.
    #[error("layout.yaml states version {found}, this build reads {}", files::LAYOUT_VERSION)]
    Layout {
        /// The version found.
        found: String,
    },
}

/// The most levels of directories: 65,536 directories.
pub const MAX_FAN_OUT: u8 = 4;

/// Loads a content by id.
pub type Load<'a> = dyn FnMut(ObjectId) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Reads a state from its files by path. An empty tree is an empty state.
pub fn read(files: &BTreeMap<String, ObjectId>, load: &mut Load<'_>) -> Result<State, ReadError> {
    let mut reader = Reader {
        load,
        state: State::default(),
        descriptions: HashMap::new(),
        slots: BTreeMap::new(),
        provenance: BTreeMap::new(),
        provenances: HashMap::new(),
    };
    if let Some(id) = files.get(files::LAYOUT_FILE) {
        reader.check_layout(*id)?;
    }
    for (path, id) in files {
        reader.add(path, *id)?;
    }
    reader.finish()
}

struct Reader<'a, 'b> {
    load: &'a mut Load<'b>,
    state: State,
    descriptions: HashMap<ObjectId, Arc<DescriptionFile>>,
    /// Per (cluster, directory): the description's content and the ids of manifests and releases.
    slots: BTreeMap<(String, String), Slot>,
    provenance: BTreeMap<Arc<str>, BTreeMap<String, Arc<ProvenanceState>>>,
    /// Each distinct file once.
    provenances: HashMap<ObjectId, Arc<ProvenanceState>>,
}

/// What was found so far of one Description's directory.
type Slot = (Option<ObjectId>, BTreeMap<String, Leaf>);

impl Reader<'_, '_> {
    fn value(&mut self, path: &str, id: ObjectId) -> Result<Value, ReadError> {
        let bytes = (self.load)(id).map_err(|source| ReadError::Load {
            path: path.to_owned(),
            source,
        })?;
        let text = String::from_utf8_lossy(&bytes);
        yaml::parse_value(&text, &Limits::default()).map_err(|problem| malformed(path, problem.message))
    }

    fn typed<T: DeserializeOwned>(&mut self, path: &str, id: ObjectId) -> Result<T, ReadError> {
        serde_json::from_value(self.value(path, id)?).map_err(|error| malformed(path, error.to_string()))
    }

    fn check_layout(&mut self, id: ObjectId) -> Result<(), ReadError> {
        let layout = self.value(files::LAYOUT_FILE, id)?;
        let fan_out = u8::try_from(layout["clusterFanOut"].as_u64().unwrap_or(0));
        match (layout["version"].as_u64(), fan_out) {
            (Some(files::LAYOUT_VERSION), Ok(fan_out @ ..=MAX_FAN_OUT)) => self.state.fan_out = fan_out,
            _ => {
                return Err(ReadError::Layout {
                    found: layout["version"].to_string(),
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, id: ObjectId) -> Result<(), ReadError> {
        let mut parts: Vec<&str> = path.split('/').collect();
        let keyed_by_cluster = match parts[..] {
            ["clusters" | "managedclusters" | "provenance", ..] => Some(1),
            ["registrations", "clusters", ..] => Some(2),
            _ => None,
        };
        if let Some(at) = keyed_by_cluster {
            // The levels of the fan-out say nothing.
            parts.drain(at.min(parts.len())..(at + usize::from(self.state.fan_out)).min(parts.len()));
        }
        match parts[..] {
            ["clusters", cluster, directory, "description.yaml"] => self.slot(cluster, directory).0 = Some(id),
            ["clusters", cluster, directory, below @ (MANIFESTS | RELEASES), file] => {
                self.slot(cluster, directory)
                    .1
                    .insert(format!("{below}/{file}"), Leaf::known(id));
            }
            ["managedclusters", _] => {
                let value = self.value(path, id)?;
                let record =
                    files::read_managed_cluster(&value).ok_or_else(|| malformed(path, "no ManagedCluster".to_owned()))?;
                self.state
                    .managed_clusters
                    .insert(record.cluster.namespace.clone(), record.into());
            }
            ["provenance", cluster, file] => {
                let provenance = match self.provenances.get(&id) {
                    Some(known) => known.clone(),
                    None => Arc::new(files::read_provenance(self.typed::<ProvenanceFile>(path, id)?)),
                };
                self.provenances.insert(id, provenance.clone());
                let directory = stem(file).to_owned();
                self.provenance
                    .entry(cluster.into())
                    .or_default()
                    .insert(directory, provenance);
            }
            ["subscriptions", namespace, file] => {
                let read = files::read_subscription(&self.value(path, id)?);
                let state = self.subscription(namespace, stem(file));
                Arc::make_mut(&mut state.bindings).add(Arc::unwrap_or_clone(read.bindings));
                state.excluded = read.excluded;
                state.inventory = read.inventory;
            }
            ["subscriptions", namespace, name, _] => {
                let value = self.value(path, id)?;
                files::add_bindings(self.subscription(namespace, name), Some(&value));
            }
            ["registrations", "clusters", _] => {
                let registration: Registration = self.typed(path, id)?;
                self.state
                    .registrations
                    .clusters
                    .insert(registration.cluster_id.clone(), registration);
            }
            ["registrations", "tokens", _] => {
                let token: Token = self.typed(path, id)?;
                self.state.registrations.tokens.insert(token.id.clone(), token);
            }
            _ => {}
        }
        Ok(())
    }

    fn slot(&mut self, cluster: &str, directory: &str) -> &mut Slot {
        self.slots.entry((cluster.to_owned(), directory.to_owned())).or_default()
    }

    fn subscription(&mut self, namespace: &str, name: &str) -> &mut super::SubscriptionState {
        self.state
            .subscriptions
            .entry((namespace.to_owned(), name.to_owned()))
            .or_default()
    }

    fn finish(mut self) -> Result<State, ReadError> {
        let mut clusters: BTreeMap<Arc<str>, BTreeMap<String, Arc<DescriptionState>>> = BTreeMap::new();
        let mut known: HashMap<ObjectId, Arc<DescriptionState>> = HashMap::new();
        for ((cluster, directory), (file, files)) in std::mem::take(&mut self.slots) {
            let path = format!("clusters/{cluster}/{directory}/description.yaml");
            let id = file.ok_or_else(|| malformed(&path, "the file is missing".to_owned()))?;
            let description = self.description(&path, id, files)?;
            let description = known.entry(description.id).or_insert_with(|| description.into()).clone();
            clusters.entry(cluster.into()).or_default().insert(directory, description);
        }
        self.state.clusters = shared(clusters, ClusterState::new, ClusterState::id);
        self.state.provenance = shared(self.provenance, ClusterProvenance::new, ClusterProvenance::id);
        Ok(self.state)
    }

    fn description(&mut self, path: &str, id: ObjectId, files: BTreeMap<String, Leaf>) -> Result<DescriptionState, ReadError> {
        let parsed = match self.descriptions.get(&id) {
            Some(parsed) => parsed.clone(),
            None => {
                let parsed: Arc<DescriptionFile> = Arc::new(self.typed(path, id)?);
                self.descriptions.insert(id, parsed.clone());
                parsed
            }
        };
        let unnamed = || malformed(path, "a feed names neither a manifest nor a release".to_owned());
        let feeds = parsed.feeds.iter().map(|file| file.read().ok_or_else(unnamed));
        let feeds: Vec<FeedState> = feeds.collect::<Result<_, _>>()?;
        let file = Leaf::known(id);
        let (tree_id, trees) = tree::description_trees(&file, &files);
        Ok(DescriptionState {
            digest: parsed.digest,
            feeds,
            files,
            file,
            trees,
            id: tree_id,
        })
    }
}

/// Clusters with the same content share it.
fn shared<D, T>(clusters: BTreeMap<Arc<str>, D>, new: fn(D) -> T, id: fn(&T) -> ObjectId) -> OrdMap<Arc<str>, Arc<T>> {
    let mut known: HashMap<ObjectId, Arc<T>> = HashMap::new();
    let mut share = |content: T| known.entry(id(&content)).or_insert_with(|| content.into()).clone();
    let clusters = clusters
        .into_iter()
        .map(|(namespace, content)| (namespace, share(new(content))));
    clusters.collect()
}

fn malformed(path: &str, message: String) -> ReadError {
    ReadError::Malformed {
        path: path.to_owned(),
        message,
    }
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".yaml").unwrap_or(file)
}
