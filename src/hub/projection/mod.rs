//! Keeps the objects that the hub's API shows equal to what is known. A view: nothing is decided here, and nothing is kept elsewhere.
//!
//! Work follows the change. A revision is compared with the one before it, a cluster's live facts with those that were shown, both by pointer;
//! what differs is shown again, and Subscriptions, whose status is a sum over clusters, at most ten times a second.

mod objects;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::objects::Reported;
use super::live_facts::LiveFacts;
use super::metrics::Metrics;
use super::readiness::{Readiness, ready};
use super::registry::{Live, Registry};
use super::revision::Revision;
use crate::core::api::{APPS_GROUP, CLUSTERS_GROUP};
use crate::core::ids::{ClusterId, ObjectId, ObjectKey};
use crate::core::index::{Definition, OverrideKind, Reading, is_chart};
use crate::core::object::Object;
use crate::core::state::{DescriptionState, description_directory, subscription_of};
use crate::core::status::DescriptionReport;
use crate::core::taint::Taint;
use crate::kubeapi::{ResourceId, Store};

/// How often readiness is looked at without any news, and clusters whose news found the queue full.
const TICK: Duration = Duration::from_secs(10);
/// Subscriptions that change again and again are shown at most this often.
const PAUSE: Duration = Duration::from_millis(100);

type Key = (String, String);

/// Keeps the store equal to what is known.
pub struct Projection {
    store: Arc<Store>,
    registry: Arc<Registry>,
    facts: Arc<LiveFacts>,
    metrics: Arc<Metrics>,
    /// What is shown.
    revision: Arc<Revision>,
    clusters: HashMap<String, Shown>,
    /// Errors by Subscription, `<namespace>/<name>`.
    errors: HashMap<String, Vec<String>>,
    /// In how many clusters a Subscription is applied.
    done: HashMap<Key, usize>,
    /// Subscriptions that have to be shown again.
    stale: BTreeSet<Key>,
    shown_at: Instant,
}

/// What is shown of one cluster.
#[derive(Default)]
struct Shown {
    live: Option<Arc<Live>>,
    readiness: Option<Readiness>,
    taint: Option<Taint>,
    /// Descriptions whose content changed after the agent's last report.
    outdated: BTreeSet<String>,
    /// Descriptions that are applied and well.
    done: BTreeSet<String>,
}

fn resource(group: &str, plural: &str) -> ResourceId {
    ResourceId {
        group: group.into(),
        plural: plural.into(),
    }
}

impl Projection {
    /// A projection into an empty store.
    pub fn new(store: Arc<Store>, registry: Arc<Registry>, facts: Arc<LiveFacts>, metrics: Arc<Metrics>) -> Self {
        Projection {
            store,
            registry,
            facts,
            metrics,
            revision: Arc::default(),
            clusters: HashMap::new(),
            errors: HashMap::new(),
            done: HashMap::new(),
            stale: BTreeSet::new(),
            shown_at: Instant::now(),
        }
    }

    /// Follows revisions and live facts until the token ends.
    pub async fn run(
        mut self,
        mut revisions: watch::Receiver<Arc<Revision>>,
        mut changed: mpsc::Receiver<ClusterId>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        let first = revisions.borrow_and_update().clone();
        self.show_revision(first);
        loop {
            let due = self.shown_at + PAUSE;
            tokio::select! {
                () = stop.cancelled() => return,
                moved = revisions.changed() => match moved {
                    Ok(()) => {
                        let revision = revisions.borrow_and_update().clone();
                        self.show_revision(revision);
                    }
                    Err(_) => return,
                },
                cluster = changed.recv() => {
                    let Some(cluster) = cluster else { return };
                    self.show_news_of(&cluster);
                }
                () = tokio::time::sleep_until(due), if !self.stale.is_empty() => self.show_stale(),
                _ = ticks.tick() => self.look_around(),
            }
        }
    }

    fn show_revision(&mut self, revision: Arc<Revision>) {
        let before = std::mem::replace(&mut self.revision, revision.clone());
        if !Arc::ptr_eq(&before.diagnostics, &revision.diagnostics) {
            self.read_errors(&revision);
        }
        if !Arc::ptr_eq(&before.state, &revision.state) || !before.trees.ptr_eq(&revision.trees) {
            self.show_clusters(&before, &revision);
            self.show_registrations(&before, &revision);
        }
        if !Arc::ptr_eq(&before.state, &revision.state) || !Arc::ptr_eq(&before.snapshot, &revision.snapshot) {
            self.note_subscriptions(&before, &revision);
        }
        if before.pending != revision.pending {
            self.show_waiting(&before, &revision);
        }
        if !Arc::ptr_eq(&before.snapshot, &revision.snapshot) {
            self.show_overrides(&before, &revision);
            self.show_charts(&before, &revision);
        }
        self.show_stale();
    }

    /// Sorts errors by Subscription once, and marks those whose errors are others than before.
    fn read_errors(&mut self, revision: &Revision) {
        let marker = format!("Subscription.{APPS_GROUP} ");
        let mut errors: HashMap<String, Vec<String>> = HashMap::new();
        for found in revision.diagnostics.iter().filter(|found| found.is_error()) {
            if let Some((_, name)) = found.object.rsplit_once(&marker) {
                errors.entry(name.to_owned()).or_default().push(found.to_string());
            }
        }
        let before = std::mem::replace(&mut self.errors, errors);
        for name in before.keys().chain(self.errors.keys()) {
            if before.get(name) != self.errors.get(name) {
                let key = name
                    .split_once('/')
                    .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
                self.stale.extend(key);
            }
        }
    }

    fn show_clusters(&mut self, before: &Revision, now: &Revision) {
        let time = Timestamp::now();
        for namespace in &changed_namespaces(before, now) {
            let namespace: &str = namespace;
            let record = now.state.managed_clusters.get(namespace);
            let earlier = before.state.managed_clusters.get(namespace);
            let mut changed = self.changed_descriptions(namespace, before, now);
            let tree = |revision: &Revision| record.and_then(|record| revision.trees.get(record.cluster.id.as_ref()?).copied());
            // The report may have been here before the revision.
            changed.extend(self.take_up_to_date(namespace, tree(now)));
            if record != earlier || tree(before) != tree(now) {
                self.show_cluster(namespace, time);
            }
            self.show_descriptions(namespace, &changed);
            match (record, earlier) {
                (None, Some(earlier)) => {
                    self.store.remove(
                        &resource(CLUSTERS_GROUP, "managedclusters"),
                        Some(namespace),
                        &earlier.cluster.name,
                    );
                    self.clusters.remove(namespace);
                }
                (Some(record), Some(earlier)) if record.cluster.name != earlier.cluster.name => {
                    self.store.remove(
                        &resource(CLUSTERS_GROUP, "managedclusters"),
                        Some(namespace),
                        &earlier.cluster.name,
                    );
                }
                _ => {}
            }
        }
    }

    /// The Descriptions of a cluster that came, went or changed; what was reported of a content that changed is out of date.
    fn changed_descriptions(&mut self, namespace: &str, before: &Revision, now: &Revision) -> Vec<String> {
        static NONE: BTreeMap<String, Arc<DescriptionState>> = BTreeMap::new();
        let old = before
            .state
            .clusters
            .get(namespace)
            .map_or(&NONE, |state| &state.descriptions);
        let new = now.state.clusters.get(namespace).map_or(&NONE, |state| &state.descriptions);
        let differs = |name: &&String| match (old.get(*name), new.get(*name)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new) && old.id != new.id,
            _ => true,
        };
        let changed: Vec<String> = keys(old, new).into_iter().filter(differs).cloned().collect();
        let outdated = &mut self.clusters.entry(namespace.to_owned()).or_default().outdated;
        outdated.extend(changed.iter().filter(|name| old.contains_key(*name)).cloned());
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
    fn show_news_of(&mut self, cluster: &ClusterId) {
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
        self.show_cluster(namespace, now);
        self.show_descriptions(namespace, &changed);
    }

    fn id_of(&self, namespace: &str) -> Option<ClusterId> {
        self.revision.state.managed_clusters.get(namespace)?.cluster.id.clone()
    }

    fn show_cluster(&mut self, namespace: &str, now: Timestamp) {
        let Some(record) = self.revision.state.managed_clusters.get(namespace) else {
            return;
        };
        let shown = self.clusters.entry(namespace.to_owned()).or_default();
        let live = shown.live.as_deref();
        let readiness = ready(live, now);
        let id = record.cluster.id.as_ref();
        shown.taint = id.and_then(|id| self.facts.note(id, &readiness, now));
        let object = objects::managed_cluster(&self.revision, record, live, &readiness, shown.taint.as_ref());
        shown.readiness = Some(readiness);
        put(&self.store, CLUSTERS_GROUP, "managedclusters", object);
    }

    fn show_descriptions(&mut self, namespace: &str, names: &[String]) {
        let shown = self.clusters.entry(namespace.to_owned()).or_default();
        let live = shown.live.as_deref();
        for name in names {
            let cluster = self
                .revision
                .state
                .managed_clusters
                .get(namespace)
                .map(|record| &record.cluster);
            let state = self.revision.state.description(namespace, name);
            let done = if let (Some(cluster), Some(state)) = (cluster, state) {
                let reported = match live.and_then(|live| live.descriptions.get(name)) {
                    None => Reported::Never,
                    Some(_) if shown.outdated.contains(name) => Reported::Before,
                    Some(report) => Reported::Now(report),
                };
                let object = objects::description(&self.revision, cluster, name, state, &reported, live);
                put(&self.store, APPS_GROUP, "descriptions", object);
                reported.is_done()
            } else {
                self.store
                    .remove(&resource(APPS_GROUP, "descriptions"), Some(namespace), name);
                shown.outdated.remove(name);
                false
            };
            let was_done = if done {
                !shown.done.insert(name.clone())
            } else {
                shown.done.remove(name)
            };
            if let (true, Some((namespace, name))) = (done != was_done, subscription_of(name)) {
                let key = (namespace.to_owned(), name.to_owned());
                let sum = self.done.entry(key.clone()).or_default();
                *sum = if done { *sum + 1 } else { sum.saturating_sub(1) };
                self.stale.insert(key);
            }
        }
    }

    fn show_registrations(&mut self, before: &Revision, now: &Revision) {
        let (old, new) = (&before.state.registrations.clusters, &now.state.registrations.clusters);
        for id in differing(old, new) {
            match new.get(id) {
                Some(registration) => put(
                    &self.store,
                    CLUSTERS_GROUP,
                    "clusterregistrationrequests",
                    objects::registration_request(registration),
                ),
                None => {
                    let requests = resource(CLUSTERS_GROUP, "clusterregistrationrequests");
                    self.store.remove(&requests, None, &format!("clusternet-{id}"));
                }
            }
        }
    }

    /// Shows the Descriptions of which something else waits than before, and marks their Subscriptions.
    fn show_waiting(&mut self, before: &Revision, now: &Revision) {
        let all = before.pending.iter().chain(now.pending.iter());
        let concerned: BTreeSet<(&str, &str)> = all
            .map(|change| (change.cluster.as_str(), change.subscription.as_str()))
            .collect();
        for (cluster, subscription) in concerned {
            if before.waiting(cluster, subscription) == now.waiting(cluster, subscription) {
                continue;
            }
            if let Some((namespace, name)) = subscription.split_once('/') {
                self.show_descriptions(cluster, &[description_directory(namespace, name)]);
                self.stale.insert((namespace.to_owned(), name.to_owned()));
            }
        }
    }

    /// Marks the Subscriptions that are bound or defined otherwise than before.
    fn note_subscriptions(&mut self, before: &Revision, now: &Revision) {
        let definition = |revision: &Revision, key: &Key| {
            let reading = revision.snapshot.subscriptions.get(key)?;
            reading.valid().map(|subscription| subscription.definition.digest)
        };
        for key in keys(&before.state.subscriptions, &now.state.subscriptions) {
            let bound = before.state.subscriptions.get(key) == now.state.subscriptions.get(key);
            if !bound || definition(before, key) != definition(now, key) {
                self.stale.insert(key.clone());
            }
        }
    }

    fn show_stale(&mut self) {
        self.shown_at = Instant::now();
        for key in std::mem::take(&mut self.stale) {
            if self.revision.state.subscriptions.contains_key(&key) {
                let done = self.done.get(&key).copied().unwrap_or_default();
                let errors = self
                    .errors
                    .get(&format!("{}/{}", key.0, key.1))
                    .map_or(&[][..], Vec::as_slice);
                let object = objects::subscription(&self.revision, &key, done, errors);
                put(&self.store, APPS_GROUP, "subscriptions", object);
            } else {
                self.store
                    .remove(&resource(APPS_GROUP, "subscriptions"), Some(&key.0), &key.1);
                self.done.remove(&key);
            }
        }
        self.count();
    }

    fn show_overrides(&mut self, before: &Revision, now: &Revision) {
        let (old, new) = (&before.snapshot.overrides, &now.snapshot.overrides);
        for key in keys(old, new) {
            let plural = match key.0 {
                OverrideKind::Globalization => "globalizations",
                OverrideKind::Localization => "localizations",
                OverrideKind::Dividing => continue,
            };
            let namespace = Some(key.1.as_str()).filter(|namespace| !namespace.is_empty());
            match (old.get(key).and_then(Reading::valid), new.get(key).and_then(Reading::valid)) {
                (Some(old), Some(new)) if old.digest == new.digest => {}
                (_, Some(new)) => put(&self.store, APPS_GROUP, plural, new.definition.object.as_value().clone()),
                (_, None) => drop(self.store.remove(&resource(APPS_GROUP, plural), namespace, &key.2)),
            }
        }
    }

    fn show_charts(&self, before: &Revision, now: &Revision) {
        let (old, new) = (charts(before), charts(now));
        for (key, chart) in &new {
            if old.get(key).map(|known| known.digest) != Some(chart.digest) {
                let mut object = chart.object.as_value().clone();
                object["metadata"]["namespace"] = serde_json::json!(key.namespace);
                put(&self.store, APPS_GROUP, "helmcharts", object);
            }
        }
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.store
                .remove(&resource(APPS_GROUP, "helmcharts"), key.namespace.as_deref(), &key.name);
        }
    }

    /// Looks at every cluster: one that fell silent sends no news of it.
    fn look_around(&mut self) {
        let now = Timestamp::now();
        let revision = Arc::clone(&self.revision);
        for namespace in revision.state.managed_clusters.keys() {
            self.show_news(namespace, now);
        }
        self.facts.retain(|id| revision.state.registrations.clusters.contains_key(id));
        self.count();
    }

    fn count(&self) {
        let as_gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let revision = &self.revision;
        let in_sync = |(id, desired): &(&ClusterId, &ObjectId)| {
            self.registry.get(id).and_then(|live| live.applied).as_ref() == Some(*desired)
        };
        self.metrics.tunnels.set(as_gauge(self.registry.connected()));
        self.metrics.clusters.set(as_gauge(revision.state.managed_clusters.len()));
        self.metrics
            .in_sync
            .set(as_gauge(revision.trees.iter().filter(in_sync).count()));
        self.metrics
            .errors
            .set(as_gauge(revision.diagnostics.iter().filter(|found| found.is_error()).count()));
        self.metrics
            .generation
            .set(i64::try_from(revision.generation).unwrap_or(i64::MAX));
    }
}

fn put(store: &Store, group: &str, plural: &str, value: Value) {
    // Everything shown has a kind and a name; what had not could not be read in the first place.
    if let Ok(object) = Object::from_value(value) {
        store.upsert(&resource(group, plural), object);
    }
}

/// The HelmCharts that can be carried out.
fn charts(revision: &Revision) -> BTreeMap<&ObjectKey, &Definition> {
    let feeds = revision.snapshot.feeds.iter();
    feeds.filter(|(key, _)| is_chart(key)).collect()
}

/// The keys whose values differ.
fn differing<'a, K: Ord, V: PartialEq>(before: &'a OrdMap<K, V>, now: &'a OrdMap<K, V>) -> Vec<&'a K> {
    let key = |change| match change {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    };
    before.diff(now).map(key).collect()
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

/// The keys of two maps, each once.
fn keys<'a, K: Ord, V>(one: &'a BTreeMap<K, V>, other: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    one.keys().chain(other.keys()).collect()
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
