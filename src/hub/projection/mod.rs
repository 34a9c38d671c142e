//! Keeps the objects that the hub's API shows equal to what is known. A view: nothing is decided here, and nothing is kept elsewhere.
//!
//! Work follows the change. A revision is compared with the one before it, a cluster's live facts with those that were shown, both by pointer;
//! what differs is shown again, and Subscriptions, whose status is a sum over clusters, at most ten times a second.

mod applications;
mod births;
mod clusters;
mod definitions;
mod events;
mod git_kinds;
mod objects;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::applications::{Progress, subscription_conditions};
use self::births::Births;
use self::clusters::Shown;
use self::events::{About, Events, Notice};
use self::objects::Transitions;
use super::live_facts::LiveFacts;
use super::metrics::Metrics;
use super::registry::Registry;
use super::revision::Revision;
use crate::core::api::{APPS_GROUP, APPS_VERSION, CLUSTERS_GROUP};
use crate::core::ids::{ClusterId, ObjectId};
use crate::core::index::{Reading, Subscription};
use crate::core::object::Object;
use crate::core::state::description_directory;
use crate::core::text::with_causes;
use crate::git::{Contents, Repo, RepoError};
use crate::kubeapi::{ResourceId, Store};

/// How often readiness is looked at without any news, and clusters whose news found the queue full.
const TICK: Duration = Duration::from_secs(10);
/// Subscriptions that change again and again are shown at most this often.
const PAUSE: Duration = Duration::from_millis(100);
/// Clusters that are named where a Subscription is not everywhere yet.
const MOST_NAMED: usize = 3;
/// The annotation that says where git defines an object, `<file>:<line>`.
pub(super) const SOURCE_ANNOTATION: &str = "branchline.io/source";

type Key = (String, String);
/// Findings by Subscription, `<namespace>/<name>`.
type BySubscription = HashMap<String, Vec<String>>;

/// Keeps the store equal to what is known.
pub struct Projection {
    store: Arc<Store>,
    registry: Arc<Registry>,
    facts: Arc<LiveFacts>,
    metrics: Arc<Metrics>,
    /// Where the state branch is, for what a revision names and does not hold.
    repo: Option<Repo>,
    /// Open while something is shown: an open repository keeps packs that were deleted.
    contents: OnceCell<Option<Contents>>,
    /// What is shown.
    revision: Arc<Revision>,
    clusters: HashMap<String, Shown>,
    /// Errors by Subscription, `<namespace>/<name>`.
    errors: BySubscription,
    /// How far each Subscription is.
    progress: HashMap<Key, Sum>,
    /// Subscriptions that have to be shown again.
    stale: BTreeSet<Key>,
    shown_at: Instant,
    births: Births,
    events: Events,
    /// Warnings by Subscription, for events.
    warnings: BySubscription,
    /// Namespaces that git names.
    source_namespaces: BTreeSet<String>,
    /// When this began, and whether what it sees for the first time was there before.
    started: Timestamp,
    opening: bool,
}

/// A Subscription over all of its clusters.
#[derive(Default)]
struct Sum {
    /// In how many it is applied and well.
    done: usize,
    /// Dedicated namespaces of those where it fails.
    failing: BTreeSet<Arc<str>>,
    since: Transitions,
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
            repo: None,
            contents: OnceCell::new(),
            revision: Arc::default(),
            clusters: HashMap::new(),
            errors: HashMap::new(),
            progress: HashMap::new(),
            stale: BTreeSet::new(),
            shown_at: Instant::now(),
            births: Births::default(),
            events: Events::default(),
            warnings: HashMap::new(),
            source_namespaces: BTreeSet::new(),
            started: Timestamp::now(),
            opening: true,
        }
    }

    /// Reads what it needs of the state branch from this repository.
    #[must_use]
    pub fn reading(mut self, repo: Repo) -> Self {
        self.repo = Some(repo);
        self
    }

    fn contents(&self) -> Option<&Contents> {
        let open = || {
            let opened = self.repo.as_ref()?.contents();
            let told = |error: &RepoError| warn!(error = %with_causes(error), "the state branch cannot be read; some objects are shown without their content");
            opened.inspect_err(told).ok()
        };
        self.contents.get_or_init(open).as_ref()
    }

    /// Follows revisions and live facts until the token ends; `log` brings the log of the state branch as it was at the start.
    pub async fn run(
        mut self,
        mut revisions: watch::Receiver<Arc<Revision>>,
        mut changed: mpsc::Receiver<ClusterId>,
        mut log: oneshot::Receiver<String>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        let first = revisions.borrow_and_update().clone();
        self.show_revision(first);
        self.opening = false;
        let mut waits_for_log = true;
        loop {
            self.contents.take();
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
                log = &mut log, if waits_for_log => {
                    waits_for_log = false;
                    self.learn_births(&log.unwrap_or_default());
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
        if !Arc::ptr_eq(&before.snapshot, &revision.snapshot) {
            self.show_source(&before, &revision);
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
        self.show_stale();
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

    /// When something that is seen for the first time came; unknown for what was there before.
    fn now_unless_opening(&self) -> Option<Timestamp> {
        (!self.opening).then(Timestamp::now)
    }

    /// Shows everything that was there at the start again, with when it came.
    fn learn_births(&mut self, log: &str) {
        self.births.learn(log, self.started);
        let revision = Arc::clone(&self.revision);
        for (namespace, state) in &revision.state.clusters {
            let names: Vec<String> = state.descriptions.keys().cloned().collect();
            self.show_descriptions(namespace, &names);
        }
        self.stale.extend(revision.state.subscriptions.keys().cloned());
    }

    /// Sorts findings by Subscription once, and marks those whose findings are others than before.
    fn read_errors(&mut self, revision: &Revision) {
        let marker = format!("Subscription.{APPS_GROUP} ");
        let (mut errors, mut warnings): (BySubscription, BySubscription) = Default::default();
        for found in revision.diagnostics.iter() {
            let list = if found.is_error() { &mut errors } else { &mut warnings };
            if let Some((_, name)) = found.object.rsplit_once(&marker) {
                list.entry(name.to_owned()).or_default().push(found.to_string());
            }
        }
        let before = std::mem::replace(&mut self.errors, errors);
        let warned = std::mem::replace(&mut self.warnings, warnings);
        let names = before
            .keys()
            .chain(self.errors.keys())
            .chain(warned.keys())
            .chain(self.warnings.keys());
        for name in names {
            if before.get(name) != self.errors.get(name) || warned.get(name) != self.warnings.get(name) {
                let key = name
                    .split_once('/')
                    .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
                self.stale.extend(key);
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

    /// Marks the Subscriptions that are bound or defined otherwise than before.
    fn note_subscriptions(&mut self, before: &Revision, now: &Revision) {
        fn definition<'r>(revision: &'r Revision, key: &Key) -> Option<&'r Arc<Subscription>> {
            revision.snapshot.subscriptions.get(key).and_then(Reading::valid)
        }
        for key in keys(&before.state.subscriptions, &now.state.subscriptions) {
            let bound = before.state.subscriptions.get(key) == now.state.subscriptions.get(key);
            let defined = match (definition(before, key), definition(now, key)) {
                (Some(old), Some(new)) => definitions::shows_the_same(&old.definition, &new.definition),
                (None, None) => true,
                _ => false,
            };
            if !bound || !defined {
                self.stale.insert(key.clone());
            }
        }
    }

    fn show_stale(&mut self) {
        self.shown_at = Instant::now();
        for key in std::mem::take(&mut self.stale) {
            if self.revision.state.subscriptions.contains_key(&key) {
                self.show_subscription(&key);
            } else {
                self.store
                    .remove(&resource(APPS_GROUP, "subscriptions"), Some(&key.0), &key.1);
                self.progress.remove(&key);
                self.births.forget_subscription(&key);
                self.events.forget(&self.store, &about_subscription(&key));
            }
        }
    }

    fn show_subscription(&mut self, key: &Key) {
        let Some(state) = self.revision.state.subscriptions.get(key) else {
            return;
        };
        let now = Timestamp::now();
        let born = self.births.subscription(key, (!self.opening).then_some(now));
        let directory = description_directory(&key.0, &key.1);
        let mut sum = self.progress.remove(key).unwrap_or_default();
        let progress = Progress {
            done: sum.done,
            failing: (sum.failing.len(), self.name_failing(&sum, &directory)),
            waiting: self.name_waiting(&state.bindings.clusters, &directory, sum.done),
            errors: self.errors.get(&format!("{}/{}", key.0, key.1)).map_or(&[], Vec::as_slice),
            born,
        };
        let conditions = subscription_conditions(state.bindings.clusters.len(), &progress);
        let synced = &conditions[1];
        let mut notices: Vec<Notice> = progress.errors.iter().map(|error| Notice::warning("Held", error)).collect();
        let warnings = self.warnings.get(&format!("{}/{}", key.0, key.1));
        notices.extend(
            warnings
                .into_iter()
                .flatten()
                .map(|warning| Notice::warning("Warned", warning)),
        );
        match synced.status {
            "True" if synced.reason == "Applied" => notices.push(Notice::normal("Applied", &*synced.message)),
            _ if synced.reason == "Failed" => notices.push(Notice::warning("Failed", &*synced.message)),
            _ => {}
        }
        let name = format!("{}/{}", key.0, key.1);
        let waiting = self.revision.pending.iter().filter(|change| change.subscription == name);
        let conditions = conditions.into_iter().chain(applications::pending(waiting));
        let conditions = conditions.map(|condition| sum.since.note(&condition, now)).collect();
        let object = applications::subscription(&self.revision, key, conditions, &progress);
        put(&self.store, APPS_GROUP, "subscriptions", object);
        let uid = derived_uid(APPS_GROUP, "subscriptions", &key.0, &key.1);
        self.events.note(&self.store, &about_subscription(key), &uid, &notices, now);
        self.progress.insert(key.clone(), sum);
    }

    /// A few clusters where a Subscription fails, each with why.
    fn name_failing(&self, sum: &Sum, directory: &str) -> Vec<(String, String)> {
        let name = |namespace: &Arc<str>| {
            let cluster = &self.revision.state.managed_clusters.get(namespace)?.cluster;
            let live = self.clusters.get(&**namespace)?.live.as_ref()?;
            Some((cluster.name.to_string(), live.descriptions.get(directory)?.reason.clone()))
        };
        sum.failing.iter().take(MOST_NAMED).filter_map(name).collect()
    }

    /// A few clusters that have not applied a Subscription yet; looked for only where there are some.
    fn name_waiting<'b>(&self, bound: &'b BTreeMap<Arc<str>, Arc<str>>, directory: &str, done: usize) -> Vec<&'b str> {
        if done >= bound.len() {
            return Vec::new();
        }
        let waits = |namespace: &str| {
            self.clusters
                .get(namespace)
                .is_none_or(|shown| !shown.done.contains(directory))
        };
        let waiting = bound.iter().filter(|(namespace, _)| waits(namespace));
        waiting.map(|(_, name)| &**name).take(MOST_NAMED).collect()
    }

    /// Counts the fleet for `/metrics`, with every look around: it takes a look at every cluster.
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

fn put(store: &Store, group: &str, plural: &str, mut value: Value) {
    if value.pointer("/metadata/uid").is_none() {
        value["metadata"]["uid"] = json!(uid(group, plural, &value));
    }
    // Everything shown has a kind and a name; what had not could not be read in the first place.
    if let Ok(object) = Object::from_value(value) {
        store.upsert(&resource(group, plural), object);
    }
}

fn uid(group: &str, plural: &str, object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    derived_uid(group, plural, text("/metadata/namespace"), text("/metadata/name"))
}

/// Objects that nothing gives a UID get one that follows from their name, so that it is the same after each restart.
fn derived_uid(group: &str, plural: &str, namespace: &str, name: &str) -> String {
    let name = format!("{group}/{plural}/{namespace}/{name}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

fn about_subscription((namespace, name): &Key) -> About {
    About {
        api_version: APPS_VERSION,
        kind: "Subscription",
        namespace: namespace.clone(),
        name: name.clone(),
    }
}

/// The keys whose values differ.
fn differing<'a, K: Ord, V: PartialEq>(before: &'a OrdMap<K, V>, now: &'a OrdMap<K, V>) -> Vec<&'a K> {
    let key = |change| match change {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    };
    before.diff(now).map(key).collect()
}

/// The keys of two maps, each once.
fn keys<'a, K: Ord, V>(one: &'a BTreeMap<K, V>, other: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    one.keys().chain(other.keys()).collect()
}
