//! Placements → Descriptions: renders each feed for each bound cluster, keeps what is held, and gives every object one owner per cluster.
//!
//! Clusters whose inputs are equal (the Subscriptions that are bound to them, what each has now, the overrides and shares that are for them) are
//! one class, and a class is bound once: the work for a cluster more is to find out which class it is of.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::dividing::{ShareOverrides, is_undecided};
use super::feeds::Resolved;
use super::memory::{Affected, Memory, PerCluster};
use super::overrides::OverrideIndex;
use super::owners::{Claim, Conflict, claims, in_conflict, pointer_of, twice_in_one};
use super::{Findings, FleetResult, Inputs, Pending, Placed};
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKey, ObjectKind};
use crate::core::index::{Definition, Override, Policy};
use crate::core::render::{self, AppliedOverride};
use crate::core::schedule::Cluster;
use crate::core::state::{ClusterProvenance, ClusterState, DescriptionState, FeedState, Leaf, ProvenanceState, describe};

/// What binding gives.
pub(super) struct Bound {
    pub(super) clusters: PerCluster<ClusterState>,
    pub(super) provenance: PerCluster<ClusterProvenance>,
    pub(super) notes: Notes,
}

/// The classes of clusters about which there is something to say.
pub(super) type Notes = BTreeMap<Arc<str>, Arc<Class>>;

/// What clusters with equal inputs get, and what is to be said of it.
#[derive(Default)]
pub(super) struct Class {
    cluster: Option<Arc<ClusterState>>,
    provenance: Option<Arc<ClusterProvenance>>,
    diagnostics: Vec<Diagnostic>,
    /// Subscriptions and feeds whose change waits.
    pending: Vec<(String, String)>,
    conflicts: Vec<Conflict>,
}

impl Class {
    fn is_noteworthy(&self) -> bool {
        !(self.diagnostics.is_empty() && self.pending.is_empty() && self.conflicts.is_empty())
    }
}

/// A feed on its way into a Description.
struct Candidate {
    state: FeedState,
    leaf: Leaf,
    applied: Vec<AppliedOverride>,
}

impl Candidate {
    fn of_bundle(mut self, bundle: Option<&String>) -> Self {
        self.state.bundle = bundle.cloned();
        self
    }
}

/// What a cluster has of a Subscription, by feed.
struct Before<'s> {
    description: Option<&'s DescriptionState>,
    feeds: HashMap<ObjectKey, &'s FeedState>,
    applied: HashMap<ObjectKey, &'s [AppliedOverride]>,
}

impl<'s> Before<'s> {
    fn new(description: Option<&'s DescriptionState>, provenance: Option<&'s ProvenanceState>) -> Self {
        let feeds = description.into_iter().flat_map(|description| &description.feeds);
        let applied = provenance.into_iter().flat_map(|provenance| &provenance.feeds);
        Before {
            description,
            // Should a feed stand there twice, the first one counts.
            feeds: feeds.rev().map(|state| (state.feed.key(), state)).collect(),
            applied: applied
                .rev()
                .map(|(feed, applied)| (feed.key(), applied.as_slice()))
                .collect(),
        }
    }

    /// The overrides that applied to a feed.
    fn applied(&self, feed: &Feed) -> &'s [AppliedOverride] {
        self.applied.get(&feed.key()).copied().unwrap_or_default()
    }

    /// The feed as it is; nothing where it was never delivered.
    fn held(&self, feed: &Feed) -> Option<Candidate> {
        let state = *self.feeds.get(&feed.key())?;
        Some(Candidate {
            state: state.clone(),
            leaf: self.description?.files.get(&state.path)?.clone(),
            applied: self.applied(feed).to_vec(),
        })
    }
}

/// One Subscription's feeds for one cluster.
struct Draft<'a> {
    placed: &'a Placed,
    candidates: Vec<Candidate>,
}

/// What of one feed may differ from cluster to cluster.
struct Varying<'a> {
    key: ObjectKey,
    global: Vec<Arc<Override>>,
    shares: Option<&'a BTreeMap<Arc<str>, i64>>,
}

struct Binder<'a> {
    inputs: &'a Inputs<'a>,
    resolved: &'a [Resolved<'a>],
    overrides: &'a OverrideIndex<'a>,
    varying: Vec<Vec<Varying<'a>>>,
    /// Namespaces that some Localization is for.
    localized: HashSet<String>,
    shares: ShareOverrides<'a>,
    memory: &'a mut Memory,
    classes: HashMap<Vec<u8>, Arc<Class>>,
    /// The class that is being bound.
    class: Class,
    descriptions: BTreeMap<String, Arc<DescriptionState>>,
    provenances: BTreeMap<String, Arc<ProvenanceState>>,
}

/// Binds the clusters that may get something else than before; the others keep what they have.
pub(super) fn bind(
    inputs: &Inputs<'_>,
    resolved: &[Resolved<'_>],
    overrides: &OverrideIndex<'_>,
    memory: &mut Memory,
    affected: Affected,
) -> Bound {
    memory.renders.begin_run();
    let mut bound = Bound {
        clusters: inputs.previous.clusters.clone(),
        provenance: inputs.previous.provenance.clone(),
        notes: memory.take_notes(),
    };
    let bindings = match affected {
        Affected::All => {
            bound.notes.clear();
            all_bindings(inputs, resolved)
        }
        Affected::These(clusters) => bindings_of(clusters, resolved),
    };
    let mut binder = Binder {
        inputs,
        resolved,
        overrides,
        varying: resolved.iter().map(|resolved| varying(resolved, overrides)).collect(),
        localized: overrides.locals().into_keys().map(|(namespace, _)| namespace).collect(),
        shares: ShareOverrides::default(),
        memory,
        classes: HashMap::new(),
        class: Class::default(),
        descriptions: BTreeMap::new(),
        provenances: BTreeMap::new(),
    };
    let mut signature = Vec::new();
    for (namespace, subscriptions) in bindings {
        let class = match inputs.fleet.fleet.clusters.get(&namespace) {
            Some(cluster) => binder.class_of(cluster, &subscriptions, &mut signature),
            None => Arc::default(),
        };
        put(&mut bound.clusters, &namespace, class.cluster.as_ref());
        put(&mut bound.provenance, &namespace, class.provenance.as_ref());
        if class.is_noteworthy() {
            bound.notes.insert(namespace, class);
        } else {
            bound.notes.remove(&namespace);
        }
    }
    bound
}

/// Puts or removes a value, unless it is there already.
fn put<T>(map: &mut PerCluster<T>, namespace: &Arc<str>, value: Option<&Arc<T>>) {
    match (map.get(namespace), value) {
        (Some(before), Some(now)) if Arc::ptr_eq(before, now) => {}
        (_, Some(now)) => drop(map.insert(namespace.clone(), now.clone())),
        (Some(_), None) => drop(map.remove(namespace)),
        (None, None) => {}
    }
}

/// Positions of the Subscriptions that are bound to each cluster, and none for a cluster that has something and is bound no more.
type Bindings = BTreeMap<Arc<str>, Vec<usize>>;

fn all_bindings(inputs: &Inputs<'_>, resolved: &[Resolved<'_>]) -> Bindings {
    let previous = inputs.previous;
    let known = previous.clusters.keys().chain(previous.provenance.keys());
    let mut bindings: Bindings = known.map(|namespace| (namespace.clone(), Vec::new())).collect();
    for (position, resolved) in resolved.iter().enumerate() {
        for namespace in resolved.placed.placement.bound.clusters.keys() {
            match bindings.get_mut(namespace) {
                Some(positions) => positions.push(position),
                None => drop(bindings.insert(namespace.clone(), vec![position])),
            }
        }
    }
    bindings
}

fn bindings_of(clusters: BTreeSet<Arc<str>>, resolved: &[Resolved<'_>]) -> Bindings {
    let positions = |namespace: &Arc<str>| {
        let bound = |position: &usize| resolved[*position].placed.placement.bound.clusters.contains_key(namespace);
        (0..resolved.len()).filter(bound).collect()
    };
    clusters
        .into_iter()
        .map(|namespace| {
            let positions = positions(&namespace);
            (namespace, positions)
        })
        .collect()
}

fn varying<'a>(resolved: &Resolved<'a>, overrides: &OverrideIndex<'_>) -> Vec<Varying<'a>> {
    let defined = resolved.defined().map(|(feed, _, demand)| {
        let key = feed.key();
        let placed = resolved.placed;
        let demand = demand.and_then(|place| placed.demands.get(place));
        Varying {
            global: overrides.global(&key).to_vec(),
            shares: demand.and_then(|(feed, _)| placed.placement.bound.replicas.get(feed)),
            key,
        }
    });
    defined.collect()
}

impl<'a> Binder<'a> {
    /// The class of a cluster, bound at its first member. `signature` is room for what tells classes apart.
    fn class_of(&mut self, cluster: &Cluster, subscriptions: &[usize], signature: &mut Vec<u8>) -> Arc<Class> {
        self.sign(cluster, subscriptions, signature);
        if let Some(known) = self.classes.get(signature.as_slice()) {
            return known.clone();
        }
        let class = Arc::new(self.bind_cluster(cluster, subscriptions));
        self.classes.insert(signature.clone(), class.clone());
        class
    }

    /// Everything that what a cluster gets depends on and that may differ from cluster to cluster.
    fn sign(&self, cluster: &Cluster, subscriptions: &[usize], signature: &mut Vec<u8>) {
        signature.clear();
        let previous = self.inputs.previous;
        // Equal content may have several addresses; then it is bound once for each.
        let state = previous
            .clusters
            .get(&cluster.namespace)
            .map_or(0, |state| Arc::as_ptr(state).addr());
        let provenance = previous.provenance.get(&cluster.namespace);
        let provenance = provenance.map_or(0, |provenance| Arc::as_ptr(provenance).addr());
        signature.extend(state.to_le_bytes());
        signature.extend(provenance.to_le_bytes());
        let localized = self.localized.contains(&*cluster.namespace);
        for position in subscriptions {
            signature.extend(position.to_le_bytes());
            for varying in &self.varying[*position] {
                for applied in &varying.global {
                    let selector = applied.selector.as_ref();
                    let matches = selector.is_none_or(|selector| selector.matches(&cluster.labels));
                    signature.push(matches.into());
                }
                if localized {
                    for applied in self.overrides.local(&varying.key, &cluster.namespace) {
                        signature.extend(applied.digest.as_bytes());
                    }
                }
                if let Some(shares) = varying.shares {
                    let share = shares.get(&cluster.namespace).copied().unwrap_or(i64::MIN);
                    signature.extend(share.to_le_bytes());
                }
                signature.extend(self.overrides.broken_for(&varying.key, cluster).map(u8::from));
                signature.push(b'\n');
            }
        }
    }

    fn bind_cluster(&mut self, cluster: &Cluster, subscriptions: &[usize]) -> Class {
        let mut drafts: Vec<Draft<'_>> = Vec::with_capacity(subscriptions.len());
        for position in subscriptions {
            drafts.push(self.draft(cluster, &self.resolved[*position]));
        }
        self.settle_owners(cluster, &mut drafts);
        for draft in drafts {
            self.finish(cluster, draft);
        }
        let mut class = std::mem::take(&mut self.class);
        let previous = self.inputs.previous;
        let shared = &mut self.memory.shared;
        let descriptions = std::mem::take(&mut self.descriptions);
        class.cluster = shared.cluster(descriptions, previous.clusters.get(&cluster.namespace));
        let provenances = std::mem::take(&mut self.provenances);
        class.provenance = shared.cluster_provenance(provenances, previous.provenance.get(&cluster.namespace));
        class
    }

    /// The Description stays as it is.
    fn keep_whole(&mut self, cluster: &Cluster, directory: &str) {
        let previous = self.inputs.previous;
        if let Some(description) = previous.description(&cluster.namespace, directory) {
            self.descriptions.insert(directory.to_owned(), description.clone());
        }
        if let Some(provenance) = previous.provenance_of(&cluster.namespace, directory) {
            self.provenances.insert(directory.to_owned(), provenance.clone());
        }
    }

    fn draft(&mut self, cluster: &Cluster, resolved: &Resolved<'a>) -> Draft<'a> {
        let directory = &resolved.placed.directory;
        let previous = self.inputs.previous.description(&cluster.namespace, directory).cloned();
        let provenance = self.inputs.previous.provenance_of(&cluster.namespace, directory).cloned();
        let before = Before::new(previous.as_deref(), provenance.as_deref());
        let mut candidates = Vec::new();
        if resolved.placed.subscription.is_none() {
            let feeds = previous.iter().flat_map(|previous| &previous.feeds).map(|state| &state.feed);
            candidates.extend(feeds.filter_map(|feed| before.held(feed)));
        }
        resolved.for_each_wanted(self.inputs.snapshot, previous.as_deref(), |feed, source, bundle| {
            let decided = source.filter(|(_, demand)| !is_undecided(resolved.placed, *demand));
            let rendered = decided.and_then(|(source, demand)| {
                let share = self.shares.of(resolved.placed, feed, demand, cluster);
                self.render(cluster, feed, source, before.applied(feed), share)
            });
            let candidate = rendered.or_else(|| before.held(feed));
            candidates.extend(candidate.map(|candidate| candidate.of_bundle(bundle)));
        });
        self.keep_one_each(resolved.placed, previous.as_deref(), &mut candidates);
        Draft {
            placed: resolved.placed,
            candidates,
        }
    }

    /// Two feeds of one Subscription may end as the same object, where an override moves one to another namespace, or as the same Helm
    /// release: the one that is delivered keeps it, else the first has it.
    fn keep_one_each(&mut self, placed: &Placed, previous: Option<&DescriptionState>, candidates: &mut Vec<Candidate>) {
        let mut claimants: HashMap<Claim<&str>, usize> = HashMap::new();
        let all = candidates.iter().flat_map(|candidate| claims(&candidate.state));
        all.for_each(|claim| *claimants.entry(claim).or_default() += 1);
        let contested = claimants.into_iter().filter(|(_, by)| *by > 1);
        let contested: BTreeSet<Claim> = contested.map(|(claim, _)| claim.to_owned()).collect();
        let mut again: Vec<(FeedState, Claim)> = Vec::new();
        for claim in contested {
            let is_delivered = |candidate: &&Candidate| {
                let previous =
                    previous.and_then(|previous| previous.feeds.iter().find(|state| state.feed == candidate.state.feed));
                claim.is_of(&candidate.state) && previous.is_some_and(|state| claim.is_of(state))
            };
            let owner = candidates.iter().find(is_delivered).map(|owner| owner.state.feed.clone());
            let mut is_free = true;
            let loses = |candidate: &mut Candidate| {
                let is_owner = owner.as_ref().is_none_or(|owner| *owner == candidate.state.feed);
                claim.is_of(&candidate.state) && !(is_owner && std::mem::take(&mut is_free))
            };
            again.extend(
                candidates
                    .extract_if(.., loses)
                    .map(|candidate| (candidate.state, claim.clone())),
            );
        }
        for ((state, claim), subscription) in again.iter().zip(std::iter::repeat(placed.subscription.as_ref()).flatten()) {
            let pointer = pointer_of(subscription, &state.feed, state.bundle.as_ref());
            let diagnostic = twice_in_one(&state.feed, claim).field(&*pointer);
            self.class
                .diagnostics
                .push(subscription.definition.locate(diagnostic, &pointer));
        }
    }

    fn render(
        &mut self,
        cluster: &Cluster,
        feed: &Feed,
        source: &Definition,
        before: &[AppliedOverride],
        share: Option<Arc<Override>>,
    ) -> Option<Candidate> {
        let key = feed.key();
        if self.overrides.holds(&key, cluster, before) {
            return None;
        }
        let mut applying = self.overrides.applying(&key, cluster);
        applying.extend(share);
        let rendered = self.memory.renders.render(source, &applying, self.inputs.settings);
        self.class.diagnostics.extend(rendered.diagnostics.iter().cloned());
        let manifest = rendered.manifest.as_ref()?;
        let state = FeedState {
            feed: feed.clone(),
            digest: applied_digest(feed, source, &applying),
            path: manifest.path.clone(),
            bundle: None,
            installs: render::release_of(source),
        };
        let leaf = Leaf {
            id: manifest.id,
            bytes: Some(manifest.bytes.clone()),
        };
        Some(Candidate {
            state,
            leaf,
            applied: rendered.provenance.clone(),
        })
    }

    /// One object, two Subscriptions, one cluster: the owner in the previous state keeps it, else the first by namespace and name.
    fn settle_owners(&mut self, cluster: &Cluster, drafts: &mut [Draft<'_>]) {
        let mut claimants: HashMap<Claim<&str>, Vec<usize>> = HashMap::new();
        for (position, draft) in drafts.iter().enumerate() {
            let all = draft.candidates.iter().flat_map(|candidate| claims(&candidate.state));
            all.for_each(|claim| claimants.entry(claim).or_default().push(position));
        }
        let contested = claimants.into_iter().filter(|(_, by)| by.len() > 1);
        let contested: BTreeMap<Claim, Vec<usize>> = contested.map(|(claim, by)| (claim.to_owned(), by)).collect();
        for (claim, by) in contested {
            let previous = |position: usize| {
                let directory = &drafts[position].placed.directory;
                self.inputs.previous.description(&cluster.namespace, directory)
            };
            let owned = |position: &&usize| {
                let mut feeds = previous(**position).into_iter().flat_map(|previous| &previous.feeds);
                feeds.any(|state| claim.is_of(state))
            };
            let winner = by.iter().find(owned).or(by.first()).copied().unwrap_or_default();
            let winner_name = drafts[winner].placed.name();
            for loser in by.into_iter().filter(|position| *position != winner) {
                let draft = &mut drafts[loser];
                let lost = draft.candidates.extract_if(.., |candidate| claim.is_of(&candidate.state));
                let lost: Vec<FeedState> = lost.map(|candidate| candidate.state).collect();
                let subscription = draft.placed.subscription.as_ref();
                for (state, subscription) in lost.into_iter().zip(std::iter::repeat(subscription).flatten()) {
                    self.class.conflicts.push(Conflict {
                        subscription: subscription.clone(),
                        feed: state.feed,
                        bundle: state.bundle,
                        claim: claim.clone(),
                        winner: winner_name.clone(),
                    });
                }
            }
        }
    }

    fn finish(&mut self, cluster: &Cluster, draft: Draft<'_>) {
        let directory = &draft.placed.directory;
        let digest = description_digest(&draft.candidates);
        let previous = self.inputs.previous.description(&cluster.namespace, directory).cloned();
        if let Some(previous) = previous.filter(|previous| previous.digest == digest) {
            self.note_pending(&draft, &previous);
            return self.keep_whole(cluster, directory);
        }
        let key = content_key(&draft.candidates);
        let shared = &mut self.memory.shared;
        let description = shared.description(key, || build_description(digest, &draft.candidates));
        let provenance = shared.provenance(key, || build_provenance(&draft.candidates));
        self.descriptions.insert(directory.clone(), description);
        if !provenance.feeds.is_empty() {
            self.provenances.insert(directory.clone(), provenance);
        }
    }

    /// Equal inputs, other bytes: an ApplyLater override waits for the next change.
    fn note_pending(&mut self, draft: &Draft<'_>, previous: &DescriptionState) {
        let before = Before::new(Some(previous), None);
        for candidate in &draft.candidates {
            let kept = before.feeds.get(&candidate.state.feed.key());
            let kept = kept.and_then(|known| previous.files.get(&known.path));
            if kept.is_some_and(|leaf| leaf.id != candidate.leaf.id) {
                let pending = (draft.placed.name(), candidate.state.feed.to_string());
                self.class.pending.push(pending);
            }
        }
    }
}

/// What is to be said of all clusters: findings, each once, and what waits.
pub(super) fn report(notes: &Notes, fleet: &FleetResult, findings: &mut Findings) -> Vec<Pending> {
    let mut pending = BTreeSet::new();
    let mut conflicts: BTreeMap<_, (&Conflict, Vec<String>)> = BTreeMap::new();
    let mut told: HashSet<*const Class> = HashSet::new();
    for (namespace, class) in notes {
        if told.insert(Arc::as_ptr(class)) {
            findings.extend(class.diagnostics.iter().cloned());
        }
        pending.extend(class.pending.iter().map(|(subscription, feed)| Pending {
            cluster: namespace.to_string(),
            subscription: subscription.clone(),
            feed: feed.clone(),
            since: None,
        }));
        let binding = || fleet.fleet.clusters.get(namespace).map(|cluster| cluster.binding());
        for conflict in &class.conflicts {
            let known = conflicts.entry(conflict.key());
            known.or_insert((conflict, Vec::new())).1.extend(binding());
        }
    }
    for (conflict, clusters) in conflicts.into_values() {
        findings.add(in_conflict(conflict, &clusters));
    }
    pending.into_iter().collect()
}

/// Digest of what a feed's bytes follow from at once: while it is unchanged, what ApplyLater overrides set waits.
pub(super) fn applied_digest(feed: &Feed, source: &Definition, applying: &[Arc<Override>]) -> ObjectId {
    let now = applying.iter().filter(|applied| applied.policy == Policy::ApplyNow);
    render::input_digest(feed, source.digest, now.map(|applied| applied.digest))
}

fn description_digest(candidates: &[Candidate]) -> ObjectId {
    let mut text = String::from("v1");
    candidates
        .iter()
        .for_each(|candidate| text.push_str(&format!(" {}{}", candidate.state.digest, of_bundle(&candidate.state))));
    ObjectId::hash(ObjectKind::Blob, text.as_bytes())
}

/// The Bundle as a part of digests; without one they are what they were before there were Bundles.
fn of_bundle(state: &FeedState) -> String {
    state.bundle.as_ref().map(|bundle| format!("@{bundle}")).unwrap_or_default()
}

/// Names everything that a Description and its provenance are made from, so that clusters with equal content share both.
fn content_key(candidates: &[Candidate]) -> ObjectId {
    let mut text = String::new();
    for candidate in candidates {
        text.push_str(&format!(
            "{}{} {} {} {:?}\n",
            candidate.state.digest,
            of_bundle(&candidate.state),
            candidate.state.path,
            candidate.leaf.id,
            candidate.state.installs
        ));
        for applied in &candidate.applied {
            text.push_str(&format!("{} {} {}\n", applied.kind, applied.namespace, applied.name));
            applied
                .entries
                .iter()
                .for_each(|(index, name, fields)| text.push_str(&format!("{index} {name:?} {fields:?}\n")));
        }
    }
    ObjectId::hash(ObjectKind::Blob, text.as_bytes())
}

fn build_description(digest: ObjectId, candidates: &[Candidate]) -> DescriptionState {
    let feeds = candidates.iter().map(|candidate| candidate.state.clone()).collect();
    let files = candidates
        .iter()
        .map(|candidate| (candidate.state.path.clone(), candidate.leaf.clone()))
        .collect();
    describe(digest, feeds, files)
}

fn build_provenance(candidates: &[Candidate]) -> ProvenanceState {
    let overridden = candidates.iter().filter(|candidate| !candidate.applied.is_empty());
    ProvenanceState {
        feeds: overridden
            .map(|candidate| (candidate.state.feed.clone(), candidate.applied.clone()))
            .collect(),
    }
}
