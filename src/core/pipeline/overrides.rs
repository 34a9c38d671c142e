//! Which overrides apply to a feed in a cluster, in Clusternet's order: Globalizations by ascending priority, then Localizations; ties by
//! namespace and name, so that the same commit always gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Findings;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::index::{BrokenOverride, Override, OverrideKind, Reading, Snapshot};
use crate::core::render::AppliedOverride;
use crate::core::schedule::{Cluster, Fleet};

/// Overrides by feed.
#[derive(Default)]
pub(super) struct OverrideIndex<'a> {
    global: HashMap<&'a ObjectKey, Vec<Arc<Override>>>,
    local: HashMap<(&'a ObjectKey, &'a str), Vec<Arc<Override>>>,
    broken: HashMap<&'a ObjectKey, Vec<&'a BrokenOverride>>,
    snapshot: Option<&'a Snapshot>,
}

impl<'a> OverrideIndex<'a> {
    /// Indexes the snapshot's overrides and reports Localizations that are for no cluster.
    pub(super) fn build(snapshot: &'a Snapshot, fleet: &Fleet, findings: &mut Findings) -> Self {
        let mut index = OverrideIndex {
            snapshot: Some(snapshot),
            ..OverrideIndex::default()
        };
        let mut valid: Vec<&'a Arc<Override>> = snapshot.overrides.values().filter_map(Reading::valid).collect();
        valid.sort_by(|a, b| (a.priority, &a.namespace, &a.name).cmp(&(b.priority, &b.namespace, &b.name)));
        for applied in valid {
            let defined = snapshot.feeds.contains_key(&applied.feed) || snapshot.unusable.contains(&applied.feed);
            if !defined && !snapshot.incomplete {
                findings.add(for_no_feed(applied, snapshot));
            }
            match applied.kind {
                OverrideKind::Globalization => index.global.entry(&applied.feed).or_default().push(applied.clone()),
                OverrideKind::Dividing => {}
                OverrideKind::Localization => {
                    let key = (&applied.feed, applied.namespace.as_str());
                    index.local.entry(key).or_default().push(applied.clone());
                    if !fleet.clusters.contains_key(applied.namespace.as_str()) {
                        findings.add(for_no_cluster(applied, fleet));
                    }
                }
            }
        }
        for broken in &snapshot.broken_overrides {
            index.broken.entry(&broken.feed).or_default().push(broken);
        }
        index
    }

    /// The overrides of a feed in a cluster, in the order in which they apply.
    pub(super) fn applying(&self, feed: &ObjectKey, cluster: &Cluster) -> Vec<Arc<Override>> {
        let matches = |applied: &&Arc<Override>| {
            applied
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(&cluster.labels))
        };
        let global = self.global.get(feed).into_iter().flatten().filter(matches);
        let local = self.local.get(&(feed, &*cluster.namespace)).into_iter().flatten();
        global.chain(local).cloned().collect()
    }

    /// The Globalizations of a feed, in the order in which they apply where their selectors match.
    pub(super) fn global(&self, feed: &ObjectKey) -> &[Arc<Override>] {
        self.global.get(feed).map_or(&[], Vec::as_slice)
    }

    /// The Localizations of a feed in a cluster.
    pub(super) fn local(&self, feed: &ObjectKey, namespace: &str) -> Vec<Arc<Override>> {
        self.local.get(&(feed, namespace)).cloned().unwrap_or_default()
    }

    /// Digests of all Localizations by namespace and name.
    pub(super) fn locals(&self) -> BTreeMap<(String, String), ObjectId> {
        let all = self.local.values().flatten();
        all.map(|applied| ((applied.namespace.clone(), applied.name.clone()), applied.digest))
            .collect()
    }

    /// For each override that cannot be carried out, whether it is for a cluster.
    pub(super) fn broken_for(&self, feed: &ObjectKey, cluster: &Cluster) -> impl Iterator<Item = bool> {
        self.broken
            .get(feed)
            .into_iter()
            .flatten()
            .map(|broken| is_for(broken, cluster))
    }

    /// Whether an override that cannot be carried out, or that cannot be seen at the moment, keeps the feed at its last result.
    pub(super) fn holds(&self, feed: &ObjectKey, cluster: &Cluster, before: &[AppliedOverride]) -> bool {
        let broken = self
            .broken
            .get(feed)
            .into_iter()
            .flatten()
            .any(|broken| is_for(broken, cluster));
        broken || before.iter().any(|applied| self.is_unseen(applied))
    }

    fn is_unseen(&self, applied: &AppliedOverride) -> bool {
        let (Some(snapshot), Some(kind)) = (self.snapshot, OverrideKind::of(applied.kind)) else {
            return false;
        };
        match snapshot
            .overrides
            .get(&(kind, applied.namespace.clone(), applied.name.clone()))
        {
            Some(Reading::Valid(_)) => false,
            Some(Reading::Unreadable) => true,
            None => snapshot.incomplete,
        }
    }
}

fn is_for(broken: &BrokenOverride, cluster: &Cluster) -> bool {
    match broken.kind {
        OverrideKind::Localization => *broken.namespace == *cluster.namespace,
        OverrideKind::Dividing => false,
        OverrideKind::Globalization => broken
            .selector
            .as_ref()
            .is_none_or(|selector| selector.matches(&cluster.labels)),
    }
}

fn for_no_feed(applied: &Override, snapshot: &Snapshot) -> Diagnostic {
    let hint = near_feed(snapshot, &applied.feed).map_or_else(
        || "correct the feed, or remove the override".to_owned(),
        |near| format!("there is {near}; check the feed's name, namespace and group"),
    );
    let message = format!("no file defines {}, so the override changes nothing", applied.feed);
    let diagnostic = Diagnostic::warning("override-without-feed", message)
        .field("/spec/feed")
        .hint(hint);
    applied.definition.locate(diagnostic, "/spec/feed")
}

fn for_no_cluster(applied: &Override, fleet: &Fleet) -> Diagnostic {
    let message = format!(
        "no cluster has the dedicated namespace {:?}, so the Localization is for nobody",
        applied.namespace
    );
    let hint = match nearest(&applied.namespace, fleet.clusters.keys().map(|namespace| &**namespace)) {
        names if names.is_empty() => {
            "no cluster is registered yet; a Localization may be written before its cluster joins".to_owned()
        }
        names => format!("near names: {}", names.join(", ")),
    };
    let diagnostic = Diagnostic::warning("localization-for-no-cluster", message)
        .field("/metadata/namespace")
        .hint(hint);
    applied.definition.locate(diagnostic, "/metadata/namespace")
}

/// The object that a reference to none was meant for: the same kind and name, or one with a name of which a third at most differs.
pub(super) fn near_feed<'s>(snapshot: &'s Snapshot, missing: &ObjectKey) -> Option<&'s ObjectKey> {
    let of_kind = || snapshot.feeds.keys().filter(|key| key.kind == missing.kind);
    let close =
        |key: &&ObjectKey| key.namespace == missing.namespace && 3 * edit_distance(&key.name, &missing.name) <= key.name.len();
    of_kind()
        .find(|key| key.name == missing.name)
        .or_else(|| of_kind().find(close))
}

/// Up to three names that resemble a text most.
pub fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut ranked: BTreeMap<(usize, &str), ()> = BTreeMap::new();
    for name in names {
        ranked.insert((edit_distance(text, name), name), ());
        if ranked.len() > 3 {
            ranked.pop_last();
        }
    }
    ranked.into_keys().map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein's distance over bytes, of at most the first 64 of each.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], &b.as_bytes()[..b.len().min(64)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
