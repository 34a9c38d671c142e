//! Which cluster and which object people mean, with near names where there is none. Explains nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::query::ObjectQuery;
use crate::core::ids::ObjectKey;
use crate::core::index::{is_bundle, is_chart};
use crate::core::pipeline::{Inputs, Outcome};
use crate::core::schedule::{Cluster, Fleet};
use crate::core::state::{FeedState, State};
use crate::core::text::nearest;

/// What was asked for and is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No cluster has the name or the dedicated namespace.
    #[error("there is no cluster {asked:?}")]
    Cluster {
        /// What was asked for.
        asked: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// Neither source nor cluster has the object.
    #[error("neither the source nor the cluster has {asked}")]
    Object {
        /// What was asked for.
        asked: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// Several objects have the name.
    #[error("{asked} is the name of more than one object")]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// The objects.
        near: Vec<String>,
    },
    /// The object has no such field, before or after its overrides.
    #[error("the object has no field {asked}")]
    Field {
        /// What was asked for.
        asked: String,
        /// Fields beside it.
        near: Vec<String>,
    },
}

impl NotFound {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            NotFound::Ambiguous { near, .. } => format!("say which with -n NAMESPACE or KIND.GROUP/NAME: {}", near.join(", ")),
            NotFound::Cluster { near, .. } if near.is_empty() => "add --clusters FILE with the ManagedClusters".to_owned(),
            NotFound::Cluster { near, .. } | NotFound::Object { near, .. } | NotFound::Field { near, .. } => {
                match near.is_empty() {
                    true => "check the spelling".to_owned(),
                    false => format!("near names: {}", near.join(", ")),
                }
            }
        }
    }
}

/// The cluster with a name or a dedicated namespace.
pub fn cluster_named<'f>(fleet: &'f Fleet, asked: &str) -> Result<&'f Cluster, NotFound> {
    let by_name = || fleet.clusters.values().find(|cluster| &*cluster.name == asked);
    let by_binding = || fleet.clusters.values().find(|cluster| cluster.binding() == asked);
    let found = by_name().or_else(|| fleet.clusters.get(asked)).or_else(by_binding);
    found.map(|cluster| &**cluster).ok_or_else(|| NotFound::Cluster {
        asked: asked.to_owned(),
        near: nearest(asked, fleet.clusters.values().map(|cluster| &*cluster.name)),
    })
}

/// The object that is asked for, as the source names it. What overrides move to another namespace is found by either.
pub fn object_named(
    inputs: &Inputs<'_>,
    outcome: &Outcome,
    cluster: &Cluster,
    asked: &ObjectQuery,
) -> Result<ObjectKey, NotFound> {
    let delivered = delivered(&outcome.state, cluster);
    let known = known(inputs, &delivered);
    let in_namespace = |key: &&ObjectKey| match &asked.namespace {
        None => true,
        Some(namespace) => {
            let lands = |state: &&FeedState| state.feed.key() == **key && lands_in(state, namespace);
            key.namespace.as_ref() == Some(namespace) || delivered.iter().any(lands)
        }
    };
    let named: Vec<&ObjectKey> = known.iter().filter(|key| asked.is(key)).filter(in_namespace).collect();
    let here = named
        .iter()
        .filter(|key| delivered.iter().any(|state| state.feed.key() == ***key));
    let here: Vec<&&ObjectKey> = here.collect();
    match (named.as_slice(), here.as_slice()) {
        ([one], _) => Ok((*one).clone()),
        (_, [one]) => Ok((**one).clone()),
        ([], _) => Err(unknown(asked, &known)),
        _ => Err(NotFound::Ambiguous {
            asked: asked.name.clone(),
            near: named.iter().take(5).map(ToString::to_string).collect(),
        }),
    }
}

fn delivered<'s>(state: &'s State, cluster: &Cluster) -> Vec<&'s FeedState> {
    let cluster = state.clusters.get(&*cluster.namespace);
    let descriptions = cluster.into_iter().flat_map(|cluster| cluster.descriptions.values());
    descriptions.flat_map(|description| &description.feeds).collect()
}

fn known(inputs: &Inputs<'_>, delivered: &[&FeedState]) -> BTreeSet<ObjectKey> {
    let snapshot = inputs.snapshot;
    let listed = snapshot.subscriptions.values().filter_map(|reading| reading.valid());
    let listed = listed.flat_map(|subscription| subscription.feeds.iter().map(|feed| feed.key()));
    let defined = snapshot
        .feeds
        .keys()
        .chain(&snapshot.duplicates)
        .chain(&snapshot.unusable)
        .cloned();
    let of_cluster = delivered.iter().map(|state| state.feed.key());
    defined
        .chain(listed)
        .chain(of_cluster)
        .filter(|key| !is_bundle(key))
        .collect()
}

/// Whether a file's name says that the object is in a namespace.
fn lands_in(state: &FeedState, namespace: &str) -> bool {
    let parts: Vec<&str> = state.path.split('_').collect();
    !is_chart(&state.feed.key()) && parts.len() == 3 && parts[1] == namespace
}

fn unknown(asked: &ObjectQuery, known: &BTreeSet<ObjectKey>) -> NotFound {
    let of_kind: Vec<&ObjectKey> = known.iter().filter(|key| asked.is_kind(key)).collect();
    let near: BTreeSet<String> = match of_kind.as_slice() {
        [] => known
            .iter()
            .filter(|key| key.name == asked.name)
            .map(ToString::to_string)
            .collect(),
        keys => {
            let names = nearest(&asked.name, keys.iter().map(|key| key.name.as_str()));
            keys.iter()
                .filter(|key| names.contains(&key.name))
                .map(ToString::to_string)
                .collect()
        }
    };
    let namespace = asked.namespace.as_ref().map(|namespace| format!(" in namespace {namespace}"));
    NotFound::Object {
        asked: format!("{asked}{}", namespace.unwrap_or_default()),
        near: near.into_iter().take(5).collect(),
    }
}

/// What stands beside a field that is not there.
pub(super) fn no_field(asked: &str, object: Option<&Value>) -> NotFound {
    let mut parent = asked;
    let mut near = Vec::new();
    while let Some((above, _)) = parent.rsplit_once('/') {
        parent = above;
        if let Some(Value::Object(map)) = object.and_then(|object| object.pointer(parent)) {
            let wanted = asked[parent.len()..].split('/').nth(1).unwrap_or_default();
            let names = nearest(wanted, map.keys().map(String::as_str));
            near = names
                .into_iter()
                .map(|name| format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1")))
                .collect();
            break;
        }
    }
    NotFound::Field {
        asked: asked.to_owned(),
        near,
    }
}
