//! Registrations and bootstrap tokens as they stand on the state branch: public parts only, no private key, no token.

use std::collections::BTreeMap;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::core::api::cluster::Taint;
use crate::core::ids::ClusterId;
use crate::core::selector::Labels;

/// How a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The cluster belongs to the fleet.
    Approved,
    /// It was refused.
    Denied,
    /// A person has to decide.
    Pending,
}

/// One cluster's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// UID of the cluster's `kube-system` namespace.
    pub cluster_id: ClusterId,
    /// The ManagedCluster's name.
    pub cluster_name: String,
    /// Its namespace on the hub.
    pub dedicated_namespace: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_type: String,
    /// Labels as they were approved; below `node.clusternet.io/` as the cluster reported them last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// Taints that people set through the hub's API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// When it first asked, RFC 3339; absent where an earlier version did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<String>,
    /// How it stands.
    pub decision: Decision,
    /// `sha256:` digest of the registered public key.
    pub key_digest: String,
    /// A new key that waits for `branchline approve --replace-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_key_digest: Option<String>,
}

/// One bootstrap token: its digest only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// The part before the dot; not secret.
    pub id: String,
    /// `sha256:` digest of the whole token.
    pub digest: String,
    /// When it expires, RFC 3339; `None` for one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Everything below `registrations/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registrations {
    /// By cluster id.
    pub clusters: OrdMap<ClusterId, Registration>,
    /// By token id.
    pub tokens: BTreeMap<String, Token>,
}

impl Registrations {
    /// The cluster that a word means: the one with this id, else the one with this name. A cluster chooses its name itself, so a word that looks
    /// like an id is none.
    pub fn called(&self, word: &str) -> Option<&Registration> {
        match word.parse::<ClusterId>() {
            Ok(id) => self.clusters.get(&id),
            Err(_) => self.clusters.values().find(|known| known.cluster_name == word),
        }
    }

    /// The cluster that has a name or a dedicated namespace already.
    pub fn holder(&self, name: &str, namespace: &str) -> Option<&Registration> {
        self.clusters
            .values()
            .find(|known| known.cluster_name == name || known.dedicated_namespace == namespace)
    }
}
