//! Two states → what going from one to the other does to the fleet: objects created, changed and deleted, replicas moved, clusters joined and
//! left. Computes no state: it only compares, by the ids of trees and blobs, so equal clusters cost one look.

mod unified;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use crate::core::api::subscription::Feed;
use crate::core::apply::is_never_pruned;
use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::render::RELEASES;
use crate::core::state::{DescriptionState, FeedState, Leaf, State, SubscriptionState, subscription_of};

pub use unified::unified;

/// What happens to an object, the most dangerous first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It goes.
    Delete,
    /// Its content becomes another.
    Change,
    /// Its content stays, another Subscription delivers it.
    Move,
    /// It comes.
    Create,
}

impl Action {
    /// The word for people and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Delete => "delete",
            Action::Change => "change",
            Action::Move => "move",
            Action::Create => "create",
        }
    }
}

/// An object on one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The directory of the Description below `clusters/<ns>/`.
    pub directory: String,
    /// The file below it.
    pub file: String,
    /// Its content.
    pub leaf: Leaf,
}

impl Side {
    /// The Subscription that delivers it, `<namespace>/<name>`.
    pub fn subscription(&self) -> String {
        let (namespace, name) = subscription_of(&self.directory).unwrap_or_default();
        format!("{namespace}/{name}")
    }
}

/// One object's change, in every cluster where it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// The object as it stands in the cluster.
    pub object: ObjectKey,
    /// How it was.
    pub before: Option<Side>,
    /// How it will be.
    pub after: Option<Side>,
    /// The clusters' dedicated namespaces, in order.
    pub clusters: Vec<String>,
}

impl Change {
    /// Whether a person should look twice: anything that goes, and what happens to kinds that take other people's data with them.
    pub fn is_dangerous(&self) -> bool {
        self.action == Action::Delete || (self.action != Action::Create && self.is_protected())
    }

    /// Whether agents leave an object of this kind in place and report it.
    pub fn is_protected(&self) -> bool {
        is_never_pruned(&self.object.group, &self.object.kind)
    }

    /// The side that says what it is: the later one.
    pub fn side(&self) -> Option<&Side> {
        self.after.as_ref().or(self.before.as_ref())
    }

    fn rank(&self) -> (bool, Action, bool, &ObjectKey, Reverse<usize>, Option<&str>) {
        let directory = self.side().map(|side| side.directory.as_str());
        let clusters = Reverse(self.clusters.len());
        (
            !self.is_dangerous(),
            self.action,
            !self.is_protected(),
            &self.object,
            clusters,
            directory,
        )
    }
}

/// What becomes of the replicas of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaMove {
    /// The Subscription, `<namespace>/<name>`.
    pub subscription: String,
    /// The feed's key in `status.replicas`.
    pub feed: Arc<str>,
    /// Dedicated namespace, replicas before and after; `None` where the cluster has no share.
    pub clusters: Vec<(Arc<str>, Option<i64>, Option<i64>)>,
}

/// Clusters that a Subscription gains and loses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingChange {
    /// The Subscription, `<namespace>/<name>`.
    pub subscription: String,
    /// Dedicated namespaces that join.
    pub joins: Vec<Arc<str>>,
    /// Dedicated namespaces that leave.
    pub leaves: Vec<Arc<str>>,
}

/// What going from one state to another does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Impact {
    /// Objects, the dangerous ones first.
    pub changes: Vec<Change>,
    /// Replicas that move.
    pub replicas: Vec<ReplicaMove>,
    /// Clusters that join and leave.
    pub bindings: Vec<BindingChange>,
}

impl Impact {
    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.replicas.is_empty() && self.bindings.is_empty()
    }

    /// The dedicated namespaces of the clusters where something happens.
    pub fn clusters(&self) -> BTreeSet<&str> {
        let objects = self
            .changes
            .iter()
            .flat_map(|change| change.clusters.iter().map(String::as_str));
        let replicas = self
            .replicas
            .iter()
            .flat_map(|moved| moved.clusters.iter().map(|(cluster, _, _)| &**cluster));
        let bindings = self
            .bindings
            .iter()
            .flat_map(|changed| changed.joins.iter().chain(&changed.leaves));
        objects.chain(replicas).chain(bindings.map(|cluster| &**cluster)).collect()
    }

    /// What happens in one cluster.
    #[must_use]
    pub fn only(mut self, namespace: &str) -> Self {
        self.changes
            .retain(|change| change.clusters.iter().any(|cluster| cluster == namespace));
        self.changes
            .iter_mut()
            .for_each(|change| change.clusters = vec![namespace.to_owned()]);
        for moved in &mut self.replicas {
            moved.clusters.retain(|(cluster, _, _)| &**cluster == namespace);
        }
        self.replicas.retain(|moved| !moved.clusters.is_empty());
        for changed in &mut self.bindings {
            changed.joins.retain(|cluster| &**cluster == namespace);
            changed.leaves.retain(|cluster| &**cluster == namespace);
        }
        self.bindings
            .retain(|changed| !(changed.joins.is_empty() && changed.leaves.is_empty()));
        self
    }
}

/// Compares two states.
pub fn compare(before: &State, after: &State) -> Impact {
    let mut collected = Collected::default();
    let clusters: BTreeSet<&Arc<str>> = before.clusters.keys().chain(after.clusters.keys()).collect();
    for namespace in clusters {
        collected.add_cluster(namespace, before, after);
    }
    let mut impact = Impact {
        changes: collected.changes,
        ..Impact::default()
    };
    impact.changes.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let subscriptions: BTreeSet<_> = before.subscriptions.keys().chain(after.subscriptions.keys()).collect();
    for key in subscriptions {
        let sides = [before.subscriptions.get(key), after.subscriptions.get(key)];
        impact.compare_subscription(&format!("{}/{}", key.0, key.1), sides);
    }
    impact
}

impl Impact {
    fn compare_subscription(&mut self, subscription: &str, [before, after]: [Option<&SubscriptionState>; 2]) {
        let bound = |state: Option<&SubscriptionState>| -> BTreeSet<Arc<str>> {
            state
                .into_iter()
                .flat_map(|state| state.bindings.clusters.keys().cloned())
                .collect()
        };
        let (was, will) = (bound(before), bound(after));
        if was != will {
            self.bindings.push(BindingChange {
                subscription: subscription.to_owned(),
                joins: will.difference(&was).cloned().collect(),
                leaves: was.difference(&will).cloned().collect(),
            });
        }
        let feeds = [before, after]
            .into_iter()
            .flatten()
            .flat_map(|state| state.bindings.replicas.keys());
        for feed in feeds.collect::<BTreeSet<_>>() {
            let share = |state: Option<&SubscriptionState>, cluster| state?.bindings.replicas.get(feed)?.get(cluster).copied();
            let moved = was.union(&will).filter_map(|cluster| {
                let (from, to) = (share(before, cluster), share(after, cluster));
                (from != to).then(|| (cluster.clone(), from, to))
            });
            let clusters: Vec<_> = moved.collect();
            if !clusters.is_empty() {
                self.replicas.push(ReplicaMove {
                    subscription: subscription.to_owned(),
                    feed: feed.clone(),
                    clusters,
                });
            }
        }
    }
}

/// An object in one cluster: its directory, its feed, its content.
type Held<'s> = (&'s str, &'s Feed, &'s Leaf);
/// What makes two clusters' changes the same: file, and directory and content on each side.
type ChangeKey = (String, Option<(String, ObjectId)>, Option<(String, ObjectId)>);

#[derive(Default)]
struct Collected {
    changes: Vec<Change>,
    known: HashMap<ChangeKey, usize>,
    /// The changes between two trees of a cluster: most clusters of a large fleet share theirs.
    between: HashMap<(ObjectId, ObjectId), Vec<usize>>,
}

impl Collected {
    fn add_cluster(&mut self, namespace: &str, before: &State, after: &State) {
        let trees = (before.cluster_tree(namespace), after.cluster_tree(namespace));
        if trees.0 == trees.1 {
            return;
        }
        let changes = match self.between.get(&trees) {
            Some(known) => known.clone(),
            None => {
                let found = self.find(&objects(before, namespace), &objects(after, namespace));
                self.between.insert(trees, found.clone());
                found
            }
        };
        for index in changes {
            self.changes[index].clusters.push(namespace.to_owned());
        }
    }

    fn find(&mut self, before: &BTreeMap<&str, Held<'_>>, after: &BTreeMap<&str, Held<'_>>) -> Vec<usize> {
        let files: BTreeSet<&&str> = before.keys().chain(after.keys()).collect();
        let differs = |file: &&&str| {
            let side = |(directory, _, leaf): &Held<'_>| (directory.to_string(), leaf.id);
            before.get(**file).map(side) != after.get(**file).map(side)
        };
        let changed: Vec<&str> = files.into_iter().filter(differs).copied().collect();
        changed
            .into_iter()
            .filter_map(|file| self.change(file, before.get(file), after.get(file)))
            .collect()
    }

    /// The change's position, a new one where no cluster had it before.
    fn change(&mut self, file: &str, before: Option<&Held<'_>>, after: Option<&Held<'_>>) -> Option<usize> {
        let id = |(directory, _, leaf): &Held<'_>| ((*directory).to_owned(), leaf.id);
        let key = (file.to_owned(), before.map(id), after.map(id));
        if let Some(known) = self.known.get(&key) {
            return Some(*known);
        }
        let side = |(directory, _, leaf): &Held<'_>| Side {
            directory: (*directory).to_owned(),
            file: file.to_owned(),
            leaf: (*leaf).clone(),
        };
        let (_, feed, _) = after.or(before)?;
        self.changes.push(Change {
            action: match (before, after) {
                (Some(_), None) => Action::Delete,
                (None, _) => Action::Create,
                (Some(before), Some(after)) if before.2.id == after.2.id => Action::Move,
                (Some(_), Some(_)) => Action::Change,
            },
            object: final_key(feed, file),
            before: before.map(side),
            after: after.map(side),
            clusters: Vec::new(),
        });
        self.known.insert(key, self.changes.len() - 1);
        Some(self.changes.len() - 1)
    }
}

/// A cluster's objects by file: no file is in two Descriptions of a cluster, because each object has one owner there.
fn objects<'s>(state: &'s State, namespace: &str) -> BTreeMap<&'s str, Held<'s>> {
    let cluster = state.clusters.get(namespace);
    let descriptions = cluster.into_iter().flat_map(|cluster| &cluster.descriptions);
    let held = |(directory, description): (&'s String, &'s Arc<DescriptionState>)| {
        let of = move |feed: &'s FeedState| {
            let leaf = description.files.get(&feed.path)?;
            Some((feed.path.as_str(), (directory.as_str(), &feed.feed, leaf)))
        };
        description.feeds.iter().filter_map(of)
    };
    descriptions.flat_map(held).collect()
}

/// The object as it stands in the cluster: a chart is a HelmRelease there, and an override may have moved an object to another namespace, which
/// the file's name says.
fn final_key(feed: &Feed, file: &str) -> ObjectKey {
    let mut key = feed.key();
    if file.starts_with(RELEASES) {
        key.kind = "HelmRelease".to_owned();
        return key;
    }
    let parts: Vec<&str> = file.split('_').collect();
    key.namespace = match parts[..] {
        [_, namespace, _] => Some(
            percent_encoding::percent_decode_str(namespace)
                .decode_utf8_lossy()
                .into_owned(),
        ),
        [_, _] => None,
        // A name that was cut says nothing.
        _ => key.namespace,
    };
    key
}

#[cfg(test)]
mod tests;
