//! Overrides that change nothing because what they name is not there: the feed, or the cluster whose dedicated namespace they are in. Says what
//! it may have been meant to be. Applies none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::Findings;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectKey;
use crate::core::index::{Override, OverrideKind, Reading, Snapshot};
use crate::core::schedule::{Cluster, Fleet};
use crate::core::text::{edit_distance, nearest};

/// For how many namespaces near names are looked for in one run: each is compared with every cluster.
const MOST_COMPARED: usize = 10;

/// What was found near to namespaces that no cluster has, as long as the clusters are the same.
#[derive(Default)]
pub(super) struct NearNames {
    clusters: OrdMap<Arc<str>, Arc<Cluster>>,
    found: BTreeMap<String, Vec<String>>,
}

impl NearNames {
    fn of(&mut self, namespace: &str) -> Vec<String> {
        let names = self.clusters.keys().map(|name| &**name);
        let known = self.found.entry(namespace.to_owned());
        known.or_insert_with(|| nearest(namespace, names)).clone()
    }

    /// Keeps what was found if the clusters are the same, whatever is known of each.
    fn follow(&mut self, fleet: &Fleet, wanted: &BTreeSet<&str>) {
        let same = |change| matches!(change, DiffItem::Update { .. });
        if !self.clusters.diff(&fleet.clusters).all(same) {
            self.found.clear();
        }
        self.clusters = fleet.clusters.clone();
        self.found.retain(|namespace, _| wanted.contains(namespace.as_str()));
    }
}

/// Reports overrides of no feed and Localizations that are for no cluster.
pub(super) fn report(snapshot: &Snapshot, fleet: &Fleet, near: &mut NearNames, findings: &mut Findings) {
    let valid = || snapshot.overrides.values().filter_map(Reading::valid);
    for applied in valid().filter(|_| !snapshot.incomplete) {
        if !snapshot.feeds.contains_key(&applied.feed) && !snapshot.unusable.contains(&applied.feed) {
            findings.add(for_no_feed(applied, snapshot));
        }
    }
    let local = |applied: &&Arc<Override>| applied.kind == OverrideKind::Localization;
    let stray = |applied: &&Arc<Override>| !fleet.clusters.contains_key(applied.namespace.as_str());
    let strays: Vec<&Arc<Override>> = valid().filter(local).filter(stray).collect();
    let namespaces: BTreeSet<&str> = strays.iter().map(|applied| applied.namespace.as_str()).collect();
    let compared: BTreeSet<&str> = namespaces.into_iter().take(MOST_COMPARED).collect();
    near.follow(fleet, &compared);
    for applied in strays {
        let names = compared
            .contains(applied.namespace.as_str())
            .then(|| near.of(&applied.namespace));
        findings.add(for_no_cluster(applied, names));
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

fn for_no_cluster(applied: &Override, near: Option<Vec<String>>) -> Diagnostic {
    let message = format!(
        "no cluster has the dedicated namespace {:?}, so the Localization is for nobody",
        applied.namespace
    );
    let hint = match near {
        None => "compare it with the dedicated namespaces of the ManagedClusters".to_owned(),
        Some(names) if names.is_empty() => {
            "no cluster is registered yet; a Localization may be written before its cluster joins".to_owned()
        }
        Some(names) => format!("near names: {}", names.join(", ")),
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
