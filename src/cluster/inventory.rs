//! The inventory's home: ConfigMaps in the agent's namespace, written only where they changed.
//!
//! Every write carries the resource version that was read, so that two agents on one cluster notice each other.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::SYSTEM_NAMESPACE;
use super::client::Cluster;
use super::error::ApiError;
use crate::core::apply::{BrokenInventory, Inventory, decode_shards, encode_shards};
use crate::core::ids::{ObjectId, ObjectKind};

const NAME: &str = "branchline-inventory";
const LABEL: &str = "branchline.io/inventory";
const KEY: &str = "inventory.jsonl";
const CONFIGMAPS: &str = "/api/v1/namespaces/branchline-system/configmaps";
/// Shards that are written at the same time.
const WRITES_AT_ONCE: usize = 8;

/// Why the inventory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused or could not be reached.
    #[error("inventory in namespace {SYSTEM_NAMESPACE}: {}", .0.explain())]
    Api(#[from] ApiError),
    /// What is stored is no inventory.
    #[error("inventory in namespace {SYSTEM_NAMESPACE}: {0}")]
    Broken(#[from] BrokenInventory),
    /// The inventory cannot be put into text.
    #[error("inventory cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    /// Somebody else wrote it in between.
    #[error("inventory in namespace {SYSTEM_NAMESPACE} was changed by somebody else; run one agent per cluster")]
    Conflict,
}

#[derive(Deserialize)]
struct List {
    items: Vec<ConfigMap>,
}

#[derive(Deserialize)]
struct ConfigMap {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

/// One shard as it is stored.
#[derive(Clone)]
struct Stored {
    version: String,
    digest: ObjectId,
}

/// The inventory's place in one cluster.
pub struct InventoryStore {
    cluster: Cluster,
    stored: BTreeMap<usize, Stored>,
}

impl InventoryStore {
    /// Reads what is there; nothing at all is an empty inventory.
    pub async fn load(cluster: &Cluster) -> Result<(Self, Inventory), StoreError> {
        let list: List = cluster.get(&format!("{CONFIGMAPS}?labelSelector={LABEL}%3Dtrue")).await?;
        let mut texts = BTreeMap::new();
        let mut stored = BTreeMap::new();
        for mut map in list.items {
            let Some(index) = index_of(&map.metadata.name) else {
                continue;
            };
            let text = map.data.remove(KEY).unwrap_or_default();
            let digest = digest(&text);
            stored.insert(
                index,
                Stored {
                    version: map.metadata.resource_version,
                    digest,
                },
            );
            texts.insert(index, text);
        }
        // Without the first shard nothing says how far the agent had come, and the others still say what is ours.
        let first = (!texts.is_empty() && !texts.contains_key(&0)).then_some("");
        let inventory = decode_shards(first.into_iter().chain(texts.values().map(String::as_str)))?;
        let cluster = cluster.clone();
        Ok((InventoryStore { cluster, stored }, inventory))
    }

    /// Makes what is stored equal to the inventory. Added shards come first and surplus ones go last, so that no cut loses an entry.
    pub async fn save(&mut self, inventory: &Inventory) -> Result<(), StoreError> {
        let texts = encode_shards(inventory, self.stored.len())?;
        let count = texts.len();
        let changed = texts
            .into_iter()
            .enumerate()
            .filter(|(index, text)| self.stored.get(index).is_none_or(|stored| stored.digest != digest(text)));
        let (added, kept): (Vec<_>, Vec<_>) = changed.partition(|(index, _)| !self.stored.contains_key(index));
        self.write_all(added).await?;
        self.write_all(kept).await?;
        let surplus: Vec<usize> = self.stored.keys().copied().filter(|index| *index >= count).collect();
        for index in surplus {
            self.delete(index).await?;
        }
        Ok(())
    }

    async fn write_all(&mut self, shards: Vec<(usize, String)>) -> Result<(), StoreError> {
        let writes = shards.into_iter().map(|(index, text)| {
            let (cluster, version) = (self.cluster.clone(), self.stored.get(&index).map(|s| s.version.clone()));
            async move {
                let stored = write(&cluster, index, &text, version).await?;
                Ok::<_, StoreError>((index, stored))
            }
        });
        let written: Vec<(usize, Stored)> = stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).try_collect().await?;
        self.stored.extend(written);
        Ok(())
    }

    async fn delete(&mut self, index: usize) -> Result<(), StoreError> {
        let path = format!("{CONFIGMAPS}/{}", name_of(index));
        match self
            .cluster
            .write(Method::DELETE, &path, "application/json", Vec::new())
            .await
        {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => {
                self.stored.remove(&index);
                Ok(())
            }
        }
    }
}

async fn write(cluster: &Cluster, index: usize, text: &str, version: Option<String>) -> Result<Stored, StoreError> {
    let digest = digest(text);
    let path = format!("{CONFIGMAPS}/{}", name_of(index));
    let answer = match &version {
        Some(version) => {
            let body = body(index, text, Some(version));
            match cluster.write_briefly(Method::PUT, &path, body).await {
                Err(error) if error.is_not_found() => create(cluster, index, text).await,
                answer => answer.map_err(StoreError::from),
            }
        }
        None => create(cluster, index, text).await,
    };
    let bytes = answer.map_err(conflict)?;
    let map: ConfigMap = cluster.read(&path, &bytes)?;
    Ok(Stored {
        version: map.metadata.resource_version,
        digest,
    })
}

async fn create(cluster: &Cluster, index: usize, text: &str) -> Result<bytes::Bytes, StoreError> {
    match cluster.write_briefly(Method::POST, CONFIGMAPS, body(index, text, None)).await {
        Err(error) if error.is_not_found() => {
            cluster.ensure_system_namespace().await?;
            Ok(cluster
                .write_briefly(Method::POST, CONFIGMAPS, body(index, text, None))
                .await?)
        }
        answer => Ok(answer?),
    }
}

fn conflict(error: StoreError) -> StoreError {
    match error {
        StoreError::Api(error) if error.is_conflict() => StoreError::Conflict,
        error => error,
    }
}

fn body(index: usize, text: &str, version: Option<&str>) -> Vec<u8> {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {KEY: text},
        "metadata": {"name": name_of(index), "namespace": SYSTEM_NAMESPACE, "labels": {LABEL: "true"}}});
    if let Some(version) = version {
        map["metadata"]["resourceVersion"] = Value::from(version);
    }
    map.to_string().into_bytes()
}

fn name_of(index: usize) -> String {
    match index {
        0 => NAME.to_owned(),
        index => format!("{NAME}-{index}"),
    }
}

fn index_of(name: &str) -> Option<usize> {
    match name.strip_prefix(NAME)? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse().ok(),
    }
}

fn digest(text: &str) -> ObjectId {
    ObjectId::hash(ObjectKind::Blob, text.as_bytes())
}

impl Cluster {
    /// Makes the agent's namespace if it is not there.
    pub async fn ensure_system_namespace(&self) -> Result<(), ApiError> {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}});
        let body = body.to_string().into_bytes();
        match self.write(Method::POST, "/api/v1/namespaces", "application/json", body).await {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indexes_agree() {
        for index in [0, 1, 17] {
            assert_eq!(index_of(&name_of(index)), Some(index));
        }
        assert_eq!(index_of("branchline-inventory-x"), None);
    }
}
