//! Which overrides apply to a feed in a cluster, in Clusternet's order: Globalizations by ascending priority, then Localizations; ties by
//! namespace and name, so that the same commit always gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::index::{BrokenOverride, Override, OverrideKind, Reading, Snapshot};
use crate::core::render::AppliedOverride;
use crate::core::schedule::Cluster;

/// Overrides by feed.
#[derive(Default)]
pub(super) struct OverrideIndex<'a> {
    global: HashMap<&'a ObjectKey, Vec<Arc<Override>>>,
    local: HashMap<(&'a ObjectKey, &'a str), Vec<Arc<Override>>>,
    broken: HashMap<&'a ObjectKey, Vec<&'a BrokenOverride>>,
    snapshot: Option<&'a Snapshot>,
}

impl<'a> OverrideIndex<'a> {
    /// Indexes the snapshot's overrides.
    pub(super) fn build(snapshot: &'a Snapshot) -> Self {
        let mut index = OverrideIndex {
            snapshot: Some(snapshot),
            ..OverrideIndex::default()
        };
        let mut valid: Vec<&'a Arc<Override>> = snapshot.overrides.values().filter_map(Reading::valid).collect();
        valid.sort_by(|a, b| (a.priority, &a.namespace, &a.name).cmp(&(b.priority, &b.namespace, &b.name)));
        for applied in valid {
            match applied.kind {
                OverrideKind::Globalization => index.global.entry(&applied.feed).or_default().push(applied.clone()),
                OverrideKind::Dividing => {}
                OverrideKind::Localization => {
                    let key = (&applied.feed, applied.namespace.as_str());
                    index.local.entry(key).or_default().push(applied.clone());
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
