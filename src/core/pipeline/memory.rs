//! What one run leaves for the next, and what of the next follows from it: which placements stay, and which clusters have to be bound anew. A
//! run without memory gives the same result; where anything is not as it should be (a file that does not parse, an override that cannot be
//! carried out) every cluster is looked at again once the source has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::bind::Notes;
use super::feeds::Resolved;
use super::overrides::OverrideIndex;
use super::strays::NearNames;
use super::{Inputs, Placed};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{Demand, Reading, Snapshot};
use crate::core::render::{RenderCache, RenderSettings};
use crate::core::schedule::{self, Bindings, Cluster, Fleet, Placement, Request};
use crate::core::state::{ClusterProvenance, ClusterRecord, ClusterState, DescriptionState, ProvenanceState, State};

type SubscriptionKey = (String, String);

/// What one run leaves for the next.
#[derive(Default)]
pub struct Memory {
    /// Rendered feeds.
    pub renders: RenderCache,
    pub(super) shared: Shared,
    pub(super) near: NearNames,
    last: Option<Last>,
}

struct Last {
    state: State,
    /// Which snapshot that was; held weakly, so that an old one goes as soon as nobody needs it.
    snapshot: Weak<Snapshot>,
    settings: RenderSettings,
    healthy: bool,
    fleet: Fleet,
    placed: BTreeMap<SubscriptionKey, Placed>,
    standing: Standing,
    notes: Notes,
}

/// What the overrides and feeds of a run come to, apart from where they go.
#[derive(Default)]
pub(super) struct Standing {
    /// Digest of each Subscription's feeds and their Globalizations.
    subscriptions: BTreeMap<SubscriptionKey, ObjectId>,
    /// Digests of the Localizations by namespace and name.
    locals: BTreeMap<(String, String), ObjectId>,
}

/// A cluster as it was and as it is.
type Change = (Option<Arc<ClusterRecord>>, Option<Arc<ClusterRecord>>);

/// The clusters whose facts changed.
pub(super) enum Changed {
    /// Nothing is known of before.
    All,
    These {
        /// What git says of them.
        records: Vec<Change>,
        /// What is known of them at the moment. It decides where things go, and nothing of what goes there.
        live: Vec<Arc<ClusterRecord>>,
    },
}

/// The clusters that are bound anew.
pub(super) enum Affected {
    All,
    These(BTreeSet<Arc<str>>),
}

/// The placements before, for one run.
pub(super) struct LastPlacements<'a> {
    last: Option<&'a Last>,
    changed: &'a Changed,
}

/// Values that clusters share, as long as some state has them.
#[derive(Default)]
pub(super) struct Shared {
    descriptions: HashMap<ObjectId, Weak<DescriptionState>>,
    provenances: HashMap<ObjectId, Weak<ProvenanceState>>,
    clusters: HashMap<ObjectId, Weak<ClusterState>>,
    cluster_provenances: HashMap<ObjectId, Weak<ClusterProvenance>>,
}

fn share<T>(known: &mut HashMap<ObjectId, Weak<T>>, id: ObjectId, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(value) = known.get(&id).and_then(Weak::upgrade) {
        return value;
    }
    let value = Arc::new(make());
    known.insert(id, Arc::downgrade(&value));
    value
}

impl Shared {
    pub(super) fn description(&mut self, key: ObjectId, make: impl FnOnce() -> DescriptionState) -> Arc<DescriptionState> {
        share(&mut self.descriptions, key, make)
    }

    pub(super) fn provenance(&mut self, key: ObjectId, make: impl FnOnce() -> ProvenanceState) -> Arc<ProvenanceState> {
        share(&mut self.provenances, key, make)
    }

    /// A cluster's Descriptions; the value of the state before if it is the same.
    pub(super) fn cluster(
        &mut self,
        descriptions: BTreeMap<String, Arc<DescriptionState>>,
        before: Option<&Arc<ClusterState>>,
    ) -> Option<Arc<ClusterState>> {
        if descriptions.is_empty() {
            return None;
        }
        let cluster = ClusterState::new(descriptions);
        if let Some(before) = before.filter(|before| ***before == cluster) {
            return Some(before.clone());
        }
        Some(share(&mut self.clusters, cluster.id(), || cluster))
    }

    /// A cluster's provenance, likewise.
    pub(super) fn cluster_provenance(
        &mut self,
        descriptions: BTreeMap<String, Arc<ProvenanceState>>,
        before: Option<&Arc<ClusterProvenance>>,
    ) -> Option<Arc<ClusterProvenance>> {
        if descriptions.is_empty() {
            return None;
        }
        let provenance = ClusterProvenance::new(descriptions);
        if let Some(before) = before.filter(|before| ***before == provenance) {
            return Some(before.clone());
        }
        Some(share(&mut self.cluster_provenances, provenance.id(), || provenance))
    }

    /// Lets go of what no state has any more.
    fn tidy(&mut self) {
        self.descriptions.retain(|_, value| value.strong_count() > 0);
        self.provenances.retain(|_, value| value.strong_count() > 0);
        self.clusters.retain(|_, value| value.strong_count() > 0);
        self.cluster_provenances.retain(|_, value| value.strong_count() > 0);
    }
}

impl Memory {
    /// The clusters whose facts changed since the last run.
    pub(super) fn changed_clusters(&self, inputs: &Inputs<'_>) -> Changed {
        let Some(last) = &self.last else {
            return Changed::All;
        };
        let differs = last
            .state
            .managed_clusters
            .diff(&inputs.fleet.records)
            .map(|change| match change {
                DiffItem::Add(_, now) => (None, Some(now.clone())),
                DiffItem::Update { old, new } => (Some(old.1.clone()), Some(new.1.clone())),
                DiffItem::Remove(_, old) => (Some(old.clone()), None),
            });
        let (was, now) = (&last.fleet.live, &inputs.fleet.fleet.live);
        let live = if was == now { Vec::new() } else { differing(was, now) };
        let live = live.into_iter().filter_map(|namespace| inputs.fleet.records.get(namespace));
        Changed::These {
            records: differs.collect(),
            live: live.cloned().collect(),
        }
    }

    pub(super) fn placements<'a>(&'a self, changed: &'a Changed) -> LastPlacements<'a> {
        LastPlacements {
            last: self.last.as_ref(),
            changed,
        }
    }

    /// What the feeds and overrides come to.
    pub(super) fn standing(resolved: &[Resolved<'_>], overrides: &OverrideIndex<'_>) -> Standing {
        let digest = |resolved: &Resolved<'_>| {
            let mut text = format!("{}\n", resolved.placed.subscription.is_none());
            resolved.describe(&mut text);
            for (feed, _, demand) in resolved.defined() {
                for applied in overrides.global(&feed.key()) {
                    text.push_str(&format!("{} ", applied.digest));
                }
                // A placement that is kept keeps its shares, also while they are no longer written.
                if let Some((_, Demand::Divided(workload))) = demand.and_then(|place| resolved.placed.demands.get(place)) {
                    text.push_str(&workload.pointer);
                }
                text.push('\n');
            }
            (resolved.placed.key.clone(), ObjectId::hash(ObjectKind::Blob, text.as_bytes()))
        };
        Standing {
            subscriptions: resolved.iter().map(digest).collect(),
            locals: overrides.locals(),
        }
    }

    /// The clusters that may get something else than before.
    pub(super) fn affected(
        &self,
        inputs: &Inputs<'_>,
        changed: &Changed,
        placements: &[Placed],
        standing: &Standing,
    ) -> Affected {
        let follows = |last: &&Last| {
            let is_healthy = || last.healthy && is_healthy(inputs.snapshot);
            last.is_before(inputs) && (last.has_read(inputs.snapshot) || is_healthy())
        };
        let (Some(last), Changed::These { records, .. }) = (self.last.as_ref().filter(follows), changed) else {
            return Affected::All;
        };
        // What was worth a note is looked at again, so that the note says where things stand now.
        let mut affected: BTreeSet<Arc<str>> = match last.has_read(inputs.snapshot) {
            true => BTreeSet::new(),
            false => last.notes.keys().cloned().collect(),
        };
        for (before, now) in records {
            affected.extend(before.iter().chain(now).map(|record| record.cluster.namespace.clone()));
        }
        let locals = differing(&last.standing.locals, &standing.locals);
        affected.extend(locals.into_iter().map(|(namespace, _)| Arc::from(namespace.as_str())));
        for key in differing(&last.standing.subscriptions, &standing.subscriptions) {
            affected.extend(last.placed.get(key).into_iter().flat_map(clusters_of).cloned());
        }
        for placed in placements {
            let before = last.placed.get(&placed.key);
            let same_feeds = last.standing.subscriptions.get(&placed.key) == standing.subscriptions.get(&placed.key);
            let same_hold = |before: &&Placed| before.placement.kept.is_some() == placed.placement.kept.is_some();
            match before.filter(same_hold).filter(|_| same_feeds) {
                None => affected.extend(before.into_iter().chain([placed]).flat_map(clusters_of).cloned()),
                Some(before) => affected.extend(moved(&before.placement.bound, &placed.placement.bound)),
            }
        }
        for (key, placed) in &last.placed {
            if !standing.subscriptions.contains_key(key) {
                affected.extend(clusters_of(placed).cloned());
            }
        }
        Affected::These(affected)
    }

    pub(super) fn remember(
        &mut self,
        inputs: &Inputs<'_>,
        state: &State,
        placements: &[Placed],
        standing: Standing,
        notes: Notes,
    ) {
        self.shared.tidy();
        self.last = Some(Last {
            state: state.clone(),
            snapshot: Arc::downgrade(inputs.snapshot),
            settings: inputs.settings,
            healthy: is_healthy(inputs.snapshot),
            fleet: inputs.fleet.fleet.clone(),
            placed: placements.iter().map(|placed| (placed.key.clone(), placed.clone())).collect(),
            standing,
            notes,
        });
    }

    /// What was worth a note in the last run, if clusters are left out of this one.
    pub(super) fn take_notes(&mut self) -> Notes {
        self.last
            .as_mut()
            .map(|last| std::mem::take(&mut last.notes))
            .unwrap_or_default()
    }
}

impl Last {
    /// Whether that run was over this very snapshot: then nothing that git says has changed, held or not.
    fn has_read(&self, snapshot: &Arc<Snapshot>) -> bool {
        std::ptr::eq(self.snapshot.as_ptr(), Arc::as_ptr(snapshot))
    }

    /// Whether a run begins where this one ended.
    fn is_before(&self, inputs: &Inputs<'_>) -> bool {
        let previous = inputs.previous;
        self.settings == inputs.settings
            && self.state.clusters.ptr_eq(&previous.clusters)
            && self.state.provenance.ptr_eq(&previous.provenance)
    }
}

impl LastPlacements<'_> {
    /// The placement before, if placing anew would give the same.
    pub(super) fn placement(&self, key: &SubscriptionKey, request: &Request<'_>, previous: &Arc<Bindings>) -> Option<&Placement> {
        let Changed::These { records, live } = self.changed else {
            return None;
        };
        let last = self.last?;
        let known = last.placed.get(key)?;
        let subscription = known.subscription.as_ref()?;
        let same = subscription.definition.digest == request.subscription.definition.digest
            && known.demands == *request.demands
            && known.known == request.known
            && Arc::ptr_eq(&known.placement.bound, previous);
        let is_unmoved =
            |before: &Cluster, now: &Cluster| schedule::is_unmoved(request, &known.placement, &last.fleet, before, now);
        let unmoved = |(before, now): &Change| match (before, now) {
            (Some(before), Some(now)) => is_unmoved(&before.cluster, &now.cluster),
            _ => false,
        };
        let unmoved_live = |record: &Arc<ClusterRecord>| is_unmoved(&record.cluster, &record.cluster);
        (same && records.iter().all(unmoved) && live.iter().all(unmoved_live)).then_some(&known.placement)
    }
}

/// Whether nothing of the source is held: then what a cluster gets follows from the digests of what is for it.
fn is_healthy(snapshot: &Snapshot) -> bool {
    let readable = snapshot
        .overrides
        .values()
        .all(|reading| matches!(reading, Reading::Valid(_)));
    readable
        && !snapshot.incomplete
        && snapshot.broken_overrides.is_empty()
        && snapshot.duplicates.is_empty()
        && snapshot.unusable.is_empty()
}

fn clusters_of(placed: &Placed) -> impl Iterator<Item = &Arc<str>> {
    placed.placement.bound.clusters.keys()
}

/// The clusters whose part in a placement changed.
fn moved(before: &Arc<Bindings>, now: &Arc<Bindings>) -> BTreeSet<Arc<str>> {
    if Arc::ptr_eq(before, now) {
        return BTreeSet::new();
    }
    let mut moved: BTreeSet<Arc<str>> = differing(&before.clusters, &now.clusters).into_iter().cloned().collect();
    let none = BTreeMap::new();
    for feed in before.replicas.keys().chain(now.replicas.keys()) {
        let (old, new) = (before.replicas.get(feed), now.replicas.get(feed));
        moved.extend(differing(old.unwrap_or(&none), new.unwrap_or(&none)).into_iter().cloned());
    }
    moved
}

/// The keys whose values differ.
fn differing<'a, K: Ord, V: PartialEq>(before: &'a BTreeMap<K, V>, now: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let changed = now.iter().filter(|(key, value)| before.get(key) != Some(value));
    let gone = before.keys().filter(|key| !now.contains_key(key));
    changed.map(|(key, _)| key).chain(gone).collect()
}

/// Maps that share what did not change.
pub(super) type PerCluster<T> = OrdMap<Arc<str>, Arc<T>>;
