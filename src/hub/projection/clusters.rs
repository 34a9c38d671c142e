//! Shows clusters and what each of them gets: ManagedClusters, Descriptions, HelmReleases. Follows revisions and agents' news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tracing::warn;

use super::super::readiness::{Readiness, ready};
use super::super::registry::{Live, seconds};
use super::super::revision::Revision;
use super::applications::{self, Reported};
use super::events::{About, Notice};
use super::objects::{self, ClusterFacts, Condition, Transitions, ready_condition, single_agent_condition, synced_condition};
use super::{Projection, derived_uid, differing, keys, put, resource};
use crate::core::api::{APPS_GROUP, APPS_VERSION, CLUSTERS_GROUP, CLUSTERS_VERSION};
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::render::RELEASES;
use crate::core::schedule::Cluster;
use crate::core::state::{ClusterState, DescriptionState, FeedState, subscription_of};
use crate::core::status::DescriptionReport;
use crate::core::taint::Taint;
use crate::core::text::with_causes;
use crate::core::yaml::{self, Limits};
use crate::git::RepoError;

/// What is shown of one cluster.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) live: Option<Arc<Live>>,
    readiness: Option<Readiness>,
    taint: Option<Taint>,
    /// Descriptions whose content changed after the agent's last report.
    outdated: BTreeSet<String>,
    /// Descriptions that are applied and well.
    pub(super) done: BTreeSet<String>,
    since: Transitions,
}

type Descriptions = BTreeMap<String, Arc<DescriptionState>>;

fn descriptions(state: Option<&Arc<ClusterState>>) -> &Descriptions {
    static NONE: Descriptions = Descriptions::new();
    state.map_or(&NONE, |state| &state.descriptions)
}

impl Projection {
    pub(super) fn show_clusters(&mut self, before: &Revision, now: &Revision) {
        let time = Timestamp::now();
        for namespace in &changed_namespaces(before, now) {
            let namespace: &str = namespace;
            let record = now.state.managed_clusters.get(namespace);
            let earlier = before.state.managed_clusters.get(namespace);
            let mut changed = self.changed_descriptions(namespace, before, now);
            let tree = |revision: &Revision| record.and_then(|record| revision.trees.get(record.cluster.id.as_ref()?).copied());
            // The report may have been here before the revision.
            changed.extend(self.take_up_to_date(namespace, tree(now)));
            self.show_descriptions(namespace, &changed);
            if record != earlier || tree(before) != tree(now) || !changed.is_empty() {
                self.show_cluster(namespace, time);
            }
            self.show_namespace(namespace);
            let gone = earlier.filter(|earlier| record.is_none_or(|record| record.cluster.name != earlier.cluster.name));
            if let Some(gone) = gone {
                let clusters = resource(CLUSTERS_GROUP, "managedclusters");
                self.store.remove(&clusters, Some(namespace), &gone.cluster.name);
                self.events.forget(&self.store, &about_cluster(namespace, &gone.cluster.name));
            }
            if record.is_none() {
                self.clusters.remove(namespace);
            }
        }
    }

    /// The Descriptions of a cluster that came, went or changed; what was reported of a content that changed is out of date.
    fn changed_descriptions(&mut self, namespace: &str, before: &Revision, now: &Revision) -> Vec<String> {
        let old = descriptions(before.state.clusters.get(namespace));
        let new = descriptions(now.state.clusters.get(namespace));
        let differs = |name: &&String| match (old.get(*name), new.get(*name)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new) && old.id != new.id,
            _ => true,
        };
        let changed: Vec<String> = keys(old, new).into_iter().filter(differs).cloned().collect();
        let outdated = &mut self.clusters.entry(namespace.to_owned()).or_default().outdated;
        outdated.extend(changed.iter().filter(|name| old.contains_key(*name)).cloned());
        for name in &changed {
            let releases = |of: &Descriptions| -> BTreeSet<String> {
                let feeds = of.get(name).into_iter().flat_map(|state| releases(state));
                feeds.map(|feed| applications::release_name(name, feed)).collect()
            };
            for gone in releases(old).difference(&releases(new)) {
                let collection = resource(APPS_GROUP, "helmreleases");
                self.store.remove(&collection, Some(namespace), gone);
            }
        }
        changed
    }

    /// The Descriptions that were out of date, once the agent's last report is about the desired tree.
    fn take_up_to_date(&mut self, namespace: &str, desired: Option<ObjectId>) -> BTreeSet<String> {
        let shown = self.clusters.entry(namespace.to_owned()).or_default();
        let reported = shown.live.as_ref().and_then(|live| live.reported);
        if desired.is_some() && reported == desired {
            std::mem::take(&mut shown.outdated)
        } else {
            BTreeSet::new()
        }
    }

    /// Shows what is new of a cluster's agent.
    pub(super) fn show_news_of(&mut self, cluster: &ClusterId) {
        let registrations = &self.revision.state.registrations.clusters;
        if let Some(namespace) = registrations.get(cluster).map(|known| known.dedicated_namespace.clone()) {
            self.show_news(&namespace, Timestamp::now());
        }
    }

    fn show_news(&mut self, namespace: &str, now: Timestamp) {
        let Some(id) = self.id_of(namespace) else { return };
        let live = self.registry.get(&id);
        let shown = self.clusters.entry(namespace.to_owned()).or_default();
        let readiness = ready(live.as_deref(), now);
        let taint = self.facts.note(&id, &readiness, now);
        let same = match (&shown.live, &live) {
            (Some(shown), Some(live)) => Arc::ptr_eq(shown, live),
            (None, None) => true,
            _ => false,
        };
        if same && shown.readiness.as_ref() == Some(&readiness) && shown.taint == taint {
            return;
        }
        let connected = |live: &Option<Arc<Live>>| live.as_ref().is_some_and(|live| live.is_connected());
        let mut changed = changed_reports(shown.live.as_deref(), live.as_deref());
        if connected(&shown.live) != connected(&live) {
            // What waits says for whom.
            let all = self.revision.state.clusters.get(namespace);
            changed = all.into_iter().flat_map(|state| state.descriptions.keys()).cloned().collect();
        }
        shown.live = live;
        changed.extend(self.take_up_to_date(namespace, self.revision.trees.get(&id).copied()));
        self.show_descriptions(namespace, &changed);
        self.show_cluster(namespace, now);
    }

    fn id_of(&self, namespace: &str) -> Option<ClusterId> {
        self.revision.state.managed_clusters.get(namespace)?.cluster.id.clone()
    }

    pub(super) fn show_cluster(&mut self, namespace: &str, now: Timestamp) {
        let Some(record) = self.revision.state.managed_clusters.get(namespace) else {
            return;
        };
        let all = descriptions(self.revision.state.clusters.get(namespace)).len();
        let shown = self.clusters.entry(namespace.to_owned()).or_default();
        let live = shown.live.as_deref();
        let readiness = ready(live, now);
        let id = record.cluster.id.as_ref();
        shown.taint = id.and_then(|id| self.facts.note(id, &readiness, now));
        let desired = id.map_or(ObjectId::EMPTY_TREE, |id| self.revision.tree(id));
        let counted = (all, shown.done.len());
        let found = [ready_condition(&readiness), synced_condition(live, desired, counted)];
        let found: Vec<Condition> = found.into_iter().chain(live.and_then(single_agent_condition)).collect();
        let conditions = found.iter().map(|condition| shown.since.note(condition, now)).collect();
        let facts = ClusterFacts {
            live,
            taint: shown.taint.as_ref(),
            conditions,
            descriptions: counted,
        };
        let object = objects::managed_cluster(&self.revision, record, facts);
        shown.readiness = Some(readiness);
        let uid = object
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        put(&self.store, CLUSTERS_GROUP, "managedclusters", object);
        let about = about_cluster(namespace, &record.cluster.name);
        self.events.note(&self.store, &about, &uid, &cluster_notices(&found), now);
    }

    pub(super) fn show_descriptions(&mut self, namespace: &str, names: &[String]) {
        let revision = Arc::clone(&self.revision);
        let record = revision.state.managed_clusters.get_key_value(namespace);
        for name in names {
            let state = revision.state.description(namespace, name);
            let (done, failing) = match (record, state) {
                (Some((_, record)), Some(state)) => self.show_description(&record.cluster, name, state),
                _ => self.remove_description(namespace, name),
            };
            let shown = self.clusters.entry(namespace.to_owned()).or_default();
            let was_done = if done {
                !shown.done.insert(name.clone())
            } else {
                shown.done.remove(name)
            };
            let key = record.map_or_else(|| namespace.into(), |(key, _)| Arc::clone(key));
            self.add_up(name, &key, (was_done, done), failing);
        }
    }

    /// Shows a Description and its releases; says whether it is applied and well, and whether it fails.
    fn show_description(&mut self, cluster: &Cluster, name: &str, state: &DescriptionState) -> (bool, bool) {
        let namespace = &*cluster.namespace;
        let born = self.births.description(namespace, name, self.now_unless_opening());
        let shown = self.clusters.entry(namespace.to_owned()).or_default();
        let live = shown.live.clone();
        let reported = match live.as_ref().and_then(|live| live.descriptions.get(name)) {
            None => Reported::Never,
            Some(_) if shown.outdated.contains(name) => Reported::Before,
            Some(report) => Reported::Now(report),
        };
        let subscription = subscription_of(name).map(|(namespace, name)| format!("{namespace}/{name}"));
        let waiting = self.revision.waiting(namespace, &subscription.unwrap_or_default());
        // The message says since when.
        let conditions = applications::pending(waiting.iter()).map(|condition| condition.to_json(None));
        let conditions = conditions.into_iter().collect();
        let mut object = applications::description(cluster, name, state, &reported, (live.as_deref(), conditions));
        objects::add_creation(&mut object, born.map(seconds).as_deref());
        put(&self.store, APPS_GROUP, "descriptions", object);
        for feed in releases(state) {
            let leaf = state.files.get(&feed.path);
            let release = leaf
                .and_then(|leaf| self.read(leaf.id, leaf.bytes.as_deref()))
                .unwrap_or_default();
            let path = format!("{}/{name}/{}", self.revision.state.cluster_path(namespace), feed.path);
            let mut object = applications::helm_release(cluster, name, feed, (&release, &path), &reported);
            objects::add_creation(&mut object, born.map(seconds).as_deref());
            put(&self.store, APPS_GROUP, "helmreleases", object);
        }
        let notices = applications::notices(&reported);
        let uid = derived_uid(APPS_GROUP, "descriptions", namespace, name);
        self.events.note(
            &self.store,
            &about_description(namespace, name),
            &uid,
            &notices,
            Timestamp::now(),
        );
        (reported.is_done(), reported.failure().is_some())
    }

    fn remove_description(&mut self, namespace: &str, name: &str) -> (bool, bool) {
        let descriptions = resource(APPS_GROUP, "descriptions");
        self.store.remove(&descriptions, Some(namespace), name);
        self.births.forget_description(namespace, name);
        self.events.forget(&self.store, &about_description(namespace, name));
        if let Some(shown) = self.clusters.get_mut(namespace) {
            shown.outdated.remove(name);
        }
        (false, false)
    }

    /// Counts a Description for its Subscription.
    fn add_up(&mut self, name: &str, cluster: &Arc<str>, (was_done, done): (bool, bool), failing: bool) {
        let Some((namespace, subscription)) = subscription_of(name) else {
            return;
        };
        let key = (namespace.to_owned(), subscription.to_owned());
        let sum = self.progress.entry(key.clone()).or_default();
        match (was_done, done) {
            (false, true) => sum.done += 1,
            (true, false) => sum.done = sum.done.saturating_sub(1),
            _ => {}
        }
        let failing_changed = match failing {
            true => sum.failing.insert(Arc::clone(cluster)),
            false => sum.failing.remove(cluster),
        };
        if was_done != done || failing_changed || failing {
            self.stale.insert(key);
        }
    }

    /// A file of the state branch as a value.
    fn read(&self, id: ObjectId, bytes: Option<&[u8]>) -> Option<Value> {
        let told = |error: &RepoError| warn!(%id, error = %with_causes(error), "an object of the state branch cannot be read");
        let read = || self.contents()?.blob(id).inspect_err(told).ok();
        let bytes = bytes.map_or_else(read, |bytes| Some(bytes.to_vec()))?;
        yaml::parse_yaml(&bytes, &Limits::default()).ok()?.pop()?.value.ok()
    }

    /// Looks at every cluster: one that fell silent sends no news of it.
    pub(super) fn look_around(&mut self) {
        let now = Timestamp::now();
        let revision = Arc::clone(&self.revision);
        for namespace in revision.state.managed_clusters.keys() {
            self.show_news(namespace, now);
        }
        self.facts.retain(|id| revision.state.registrations.clusters.contains_key(id));
        self.count();
    }
}

fn about_cluster(namespace: &str, name: &str) -> About {
    About {
        api_version: CLUSTERS_VERSION,
        kind: "ManagedCluster",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn about_description(namespace: &str, name: &str) -> About {
    About {
        api_version: APPS_VERSION,
        kind: "Description",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// What of a cluster's conditions is worth an event: not what it has to wait for, and not that a hub that has just started waits for its agent.
fn cluster_notices(conditions: &[Condition]) -> Vec<Notice> {
    let quiet = ["NeverConnected", "Applying", "Offline"];
    let told = conditions.iter().filter(|condition| !quiet.contains(&condition.reason));
    told.map(|condition| Notice {
        warning: condition.status != "True",
        reason: condition.reason,
        message: condition.message.clone(),
    })
    .collect()
}

/// The feeds of a Description that are charts.
fn releases(state: &DescriptionState) -> impl Iterator<Item = &FeedState> {
    state.feeds.iter().filter(|feed| feed.path.starts_with(RELEASES))
}

/// The clusters whose facts or Descriptions changed, or what their agents are offered.
fn changed_namespaces(before: &Revision, now: &Revision) -> BTreeSet<Arc<str>> {
    let mut changed: BTreeSet<Arc<str>> = differing(&before.state.managed_clusters, &now.state.managed_clusters)
        .into_iter()
        .chain(differing(&before.state.clusters, &now.state.clusters))
        .cloned()
        .collect();
    let offered = differing(&before.trees, &now.trees).into_iter();
    let known = offered.filter_map(|id| now.state.registrations.clusters.get(id));
    changed.extend(known.map(|known| Arc::from(known.dedicated_namespace.as_str())));
    changed
}

/// The names of Descriptions whose report is another than the one that was shown.
fn changed_reports(shown: Option<&Live>, live: Option<&Live>) -> Vec<String> {
    static NONE: BTreeMap<String, Arc<DescriptionReport>> = BTreeMap::new();
    let shown = shown.map_or(&NONE, |live| &*live.descriptions);
    let live = live.map_or(&NONE, |live| &*live.descriptions);
    let differs = |name: &&String| match (shown.get(*name), live.get(*name)) {
        (Some(shown), Some(live)) => !Arc::ptr_eq(shown, live),
        _ => true,
    };
    keys(shown, live).into_iter().filter(differs).cloned().collect()
}
