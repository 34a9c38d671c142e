//! Placements → Descriptions: renders each feed for each bound cluster, keeps what is held, and gives every object one owner per cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::dividing::{ShareOverrides, is_undecided};
use super::feeds::{Resolved, resolve};
use super::overrides::OverrideIndex;
use super::{Findings, Inputs, Pending, Placed, feed_pointer};
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{Definition, Override, Policy, Subscription, is_bundle, is_chart};
use crate::core::render::{self, AppliedOverride, RenderCache};
use crate::core::schedule::Cluster;
use crate::core::state::{DescriptionState, FeedState, Leaf, ProvenanceState, State, describe};

type PerCluster<T> = BTreeMap<String, BTreeMap<String, Arc<T>>>;

/// What binding gives.
#[derive(Default)]
pub(super) struct Bound {
    pub(super) clusters: PerCluster<DescriptionState>,
    pub(super) provenance: PerCluster<ProvenanceState>,
    pub(super) pending: BTreeSet<Pending>,
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

/// One Subscription's feeds for one cluster.
struct Draft<'a> {
    placed: &'a Placed,
    candidates: Vec<Candidate>,
}

/// An object that a Subscription may not deliver, because another one has it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Conflict {
    /// Position of the Subscription.
    loser: usize,
    feed: Feed,
    bundle: Option<String>,
    /// What the feed ends as.
    file: String,
    /// Name of the Subscription that has it.
    winner: String,
}

impl Conflict {
    fn message(&self) -> String {
        let (feed, file) = (&self.feed, &self.file);
        let moved = !file.ends_with(&format!("/{}", render::file_name(&feed.key())));
        let object = match moved && !is_chart(&feed.key()) {
            true => format!("{feed} ends as {file}, which"),
            false => feed.to_string(),
        };
        format!("{object} is delivered by Subscription {} already", self.winner)
    }
}

struct Binder<'a> {
    inputs: &'a Inputs<'a>,
    overrides: &'a OverrideIndex<'a>,
    shares: ShareOverrides<'a>,
    cache: &'a mut RenderCache,
    findings: &'a mut Findings,
    descriptions: HashMap<ObjectId, Arc<DescriptionState>>,
    provenances: HashMap<ObjectId, Arc<ProvenanceState>>,
    conflicts: BTreeMap<Conflict, Vec<String>>,
    bound: Bound,
}

/// Renders every bound cluster.
pub(super) fn bind_all(
    inputs: &Inputs<'_>,
    placements: &[Placed],
    overrides: &OverrideIndex<'_>,
    cache: &mut RenderCache,
    findings: &mut Findings,
) -> Bound {
    let resolved: Vec<Resolved<'_>> = placements
        .iter()
        .map(|placed| resolve(inputs.snapshot, placed, findings))
        .collect();
    let mut per_cluster: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, placed) in placements.iter().enumerate() {
        placed
            .placement
            .bound
            .clusters
            .keys()
            .for_each(|cluster| per_cluster.entry(cluster).or_default().push(index));
    }
    let mut binder = Binder {
        inputs,
        overrides,
        shares: ShareOverrides::default(),
        cache,
        findings,
        descriptions: HashMap::new(),
        provenances: HashMap::new(),
        conflicts: BTreeMap::new(),
        bound: Bound::default(),
    };
    for (namespace, subscriptions) in per_cluster {
        if let Some(cluster) = inputs.fleet.fleet.clusters.get(namespace) {
            binder.bind_cluster(cluster, &subscriptions, &resolved);
        }
    }
    binder.report_conflicts(placements);
    binder.bound
}

impl<'a> Binder<'a> {
    fn bind_cluster(&mut self, cluster: &Cluster, subscriptions: &[usize], resolved: &[Resolved<'a>]) {
        let mut drafts: Vec<(usize, Draft<'_>)> = Vec::with_capacity(subscriptions.len());
        for index in subscriptions {
            drafts.push((*index, self.draft(cluster, &resolved[*index])));
        }
        self.settle_owners(cluster, &mut drafts);
        for (_, draft) in drafts {
            self.finish(cluster, draft);
        }
    }

    /// The Description stays as it is.
    fn keep_whole(&mut self, cluster: &Cluster, directory: &str) {
        let previous = self.inputs.previous;
        if let Some(description) = previous.description(&cluster.namespace, directory) {
            insert(&mut self.bound.clusters, cluster, directory, description.clone());
        }
        if let Some(provenance) = previous.provenance_of(&cluster.namespace, directory) {
            insert(&mut self.bound.provenance, cluster, directory, provenance.clone());
        }
    }

    fn draft(&mut self, cluster: &Cluster, resolved: &Resolved<'a>) -> Draft<'a> {
        let directory = &resolved.placed.directory;
        let previous = self.inputs.previous.description(&cluster.namespace, directory).cloned();
        let provenance = self.inputs.previous.provenance_of(&cluster.namespace, directory).cloned();
        let mut candidates = Vec::new();
        if resolved.placed.subscription.is_none() {
            let feeds = previous.iter().flat_map(|previous| &previous.feeds).map(|state| &state.feed);
            let before = |feed| provenance.as_ref().map_or(&[][..], |provenance| provenance.of(feed));
            candidates.extend(feeds.filter_map(|feed| held(feed, previous.as_deref(), before(feed))));
        }
        resolved.for_each_wanted(self.inputs.snapshot, previous.as_deref(), |feed, source, bundle| {
            let before = provenance.as_ref().map_or(&[][..], |provenance| provenance.of(feed));
            let decided = source.filter(|(_, demand)| !is_undecided(resolved.placed, *demand));
            let rendered = decided.and_then(|(source, demand)| {
                let share = self.shares.of(resolved.placed, feed, demand, cluster);
                self.render(cluster, feed, source, before, share)
            });
            let candidate = rendered.or_else(|| held(feed, previous.as_deref(), before));
            candidates.extend(candidate.map(|candidate| candidate.of_bundle(bundle)));
        });
        self.keep_one_each(resolved.placed, &mut candidates);
        Draft {
            placed: resolved.placed,
            candidates,
        }
    }

    /// Two feeds of one Subscription may end as the same object, where an override moves one to another namespace: the first has it.
    fn keep_one_each(&mut self, placed: &Placed, candidates: &mut Vec<Candidate>) {
        let distinct: HashSet<&str> = candidates.iter().map(|candidate| candidate.state.path.as_str()).collect();
        if distinct.len() == candidates.len() {
            return;
        }
        let mut seen = BTreeSet::new();
        let again: Vec<FeedState> = candidates
            .extract_if(.., |candidate| !seen.insert(candidate.state.path.clone()))
            .map(|candidate| candidate.state)
            .collect();
        for (state, subscription) in again.iter().zip(std::iter::repeat(placed.subscription.as_ref()).flatten()) {
            let message = format!(
                "{} ends as {}, which another feed of this Subscription is already",
                state.feed, state.path
            );
            let pointer = pointer_of(subscription, &state.feed, state.bundle.as_ref());
            let diagnostic = Diagnostic::error("object-conflict", message).field(&*pointer);
            let hint = "let overrides move only one of them there";
            self.findings
                .add(subscription.definition.locate(diagnostic.hint(hint), &pointer));
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
        let rendered = self.cache.render(source, &applying, self.inputs.settings);
        self.findings.extend(rendered.diagnostics.iter().cloned());
        let manifest = rendered.manifest.as_ref()?;
        let now = applying
            .iter()
            .filter(|applied| applied.policy == Policy::ApplyNow)
            .map(|applied| applied.digest);
        let state = FeedState {
            feed: feed.clone(),
            digest: render::input_digest(feed, source.digest, now),
            path: manifest.path.clone(),
            bundle: None,
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
    fn settle_owners(&mut self, cluster: &Cluster, drafts: &mut [(usize, Draft<'_>)]) {
        let mut claims: HashMap<&str, Vec<usize>> = HashMap::new();
        for (position, (_, draft)) in drafts.iter().enumerate() {
            draft
                .candidates
                .iter()
                .for_each(|candidate| claims.entry(&candidate.state.path).or_default().push(position));
        }
        let contested: Vec<(String, Vec<usize>)> = claims
            .into_iter()
            .filter(|(_, by)| by.len() > 1)
            .map(|(file, by)| (file.to_owned(), by))
            .collect();
        for (file, claimants) in contested {
            let owned = |position: &&usize| owns(self.inputs.previous, cluster, &drafts[**position].1.placed.directory, &file);
            let winner = claimants
                .iter()
                .find(owned)
                .or(claimants.first())
                .copied()
                .unwrap_or_default();
            let winner_name = subscription_name(drafts[winner].1.placed);
            for loser in claimants.into_iter().filter(|position| *position != winner) {
                let (index, draft) = &mut drafts[loser];
                for lost in draft.candidates.extract_if(.., |candidate| candidate.state.path == file) {
                    let conflict = Conflict {
                        loser: *index,
                        feed: lost.state.feed,
                        bundle: lost.state.bundle,
                        file: file.clone(),
                        winner: winner_name.clone(),
                    };
                    self.conflicts.entry(conflict).or_default().push(cluster.binding());
                }
            }
        }
    }

    fn finish(&mut self, cluster: &Cluster, draft: Draft<'_>) {
        let directory = &draft.placed.directory;
        let digest = description_digest(&draft.candidates);
        let previous = self.inputs.previous.description(&cluster.namespace, directory).cloned();
        if let Some(previous) = previous.filter(|previous| previous.digest == digest) {
            self.note_pending(cluster, &draft, &previous);
            return self.keep_whole(cluster, directory);
        }
        let key = content_key(&draft.candidates);
        let description = self
            .descriptions
            .entry(key)
            .or_insert_with(|| Arc::new(build_description(digest, &draft.candidates)));
        insert(&mut self.bound.clusters, cluster, directory, description.clone());
        let provenance = self
            .provenances
            .entry(key)
            .or_insert_with(|| Arc::new(build_provenance(&draft.candidates)));
        if !provenance.feeds.is_empty() {
            insert(&mut self.bound.provenance, cluster, directory, provenance.clone());
        }
    }

    /// Equal inputs, other bytes: an ApplyLater override waits for the next change.
    fn note_pending(&mut self, cluster: &Cluster, draft: &Draft<'_>, previous: &DescriptionState) {
        for candidate in &draft.candidates {
            let kept = previous
                .feeds
                .iter()
                .find(|known| known.feed.key() == candidate.state.feed.key());
            let kept = kept.and_then(|known| previous.files.get(&known.path));
            if kept.is_some_and(|leaf| leaf.id != candidate.leaf.id) {
                self.bound.pending.insert(Pending {
                    cluster: cluster.namespace.to_string(),
                    subscription: subscription_name(draft.placed),
                    feed: candidate.state.feed.to_string(),
                });
            }
        }
    }

    fn report_conflicts(&mut self, placements: &[Placed]) {
        for (conflict, clusters) in std::mem::take(&mut self.conflicts) {
            let Some(subscription) = &placements[conflict.loser].subscription else {
                continue;
            };
            let shown = clusters.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let more = clusters.len().saturating_sub(3);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            let message = format!("{}; left out here in {shown}{more}", conflict.message());
            let pointer = pointer_of(subscription, &conflict.feed, conflict.bundle.as_ref());
            let hint = "take the feed out of one of the two, or let their subscribers match different clusters";
            let diagnostic = Diagnostic::error("object-conflict", message).field(&*pointer).hint(hint);
            self.findings.add(subscription.definition.locate(diagnostic, &pointer));
        }
    }
}

fn insert<T>(map: &mut PerCluster<T>, cluster: &Cluster, directory: &str, value: Arc<T>) {
    map.entry(cluster.namespace.to_string())
        .or_default()
        .insert(directory.to_owned(), value);
}

/// Where a Subscription names an object, by itself or with its Bundle.
fn pointer_of(subscription: &Subscription, feed: &Feed, bundle: Option<&String>) -> String {
    let named = |listed: &&Feed| {
        let name = format!("{}/{}", listed.namespace.as_deref().unwrap_or_default(), listed.name);
        is_bundle(&listed.key()) && bundle == Some(&name)
    };
    feed_pointer(subscription, subscription.feeds.iter().find(named).unwrap_or(feed))
}

fn subscription_name(placed: &Placed) -> String {
    format!("{}/{}", placed.key.0, placed.key.1)
}

fn owns(previous: &State, cluster: &Cluster, directory: &str, file: &str) -> bool {
    previous
        .description(&cluster.namespace, directory)
        .is_some_and(|description| description.files.contains_key(file))
}

/// The feed as the previous state has it; nothing where it was never delivered.
fn held(feed: &Feed, previous: Option<&DescriptionState>, before: &[AppliedOverride]) -> Option<Candidate> {
    let previous = previous?;
    let state = previous.feeds.iter().find(|known| known.feed.key() == feed.key())?;
    let leaf = previous.files.get(&state.path)?.clone();
    Some(Candidate {
        state: state.clone(),
        leaf,
        applied: before.to_vec(),
    })
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
            "{}{} {} {}\n",
            candidate.state.digest,
            of_bundle(&candidate.state),
            candidate.state.path,
            candidate.leaf.id
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
