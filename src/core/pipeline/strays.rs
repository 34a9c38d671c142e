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

/// How many near names are told.
const TOLD: usize = 3;

/// Up to three names that resemble a text most.
pub fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut ranked: BTreeSet<(usize, &str)> = BTreeSet::new();
    for name in names {
        let worst = ranked.last().map_or(0, |(distance, _)| *distance);
        // As many letters as one is longer than the other differ at least.
        if ranked.len() == TOLD && cut(text).len().abs_diff(cut(name).len()) > worst {
            continue;
        }
        ranked.insert((edit_distance(text, name), name));
        if ranked.len() > TOLD {
            ranked.pop_last();
        }
    }
    ranked.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// How much of a name is compared.
const COMPARED: usize = 64;

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(COMPARED)]
}

/// Levenshtein's distance over bytes, of at most the first 64 of each.
fn edit_distance(a: &str, b: &str) -> usize {
    // What both begin and end with does not count: the names of a fleet differ in little.
    let (mut a, mut b) = (cut(a), cut(b));
    let begins = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    (a, b) = (&a[begins..], &b[begins..]);
    let ends = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    (a, b) = (&a[..a.len() - ends], &b[..b.len() - ends]);
    let mut row: [usize; COMPARED + 1] = std::array::from_fn(|at| at);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(text: &str, names: &[&str]) -> Vec<String> {
        nearest(text, names.iter().copied())
    }

    #[test]
    fn the_nearest_names_are_told() {
        assert_eq!(
            near("berln", &["tokyo", "berlin", "paris", "bern", "merlin"]),
            ["berlin", "bern", "merlin"]
        );
        assert_eq!(
            near("edge-17", &["edge-1", "edge-171", "edge-7"]),
            ["edge-1", "edge-171", "edge-7"]
        );
        assert_eq!(near("x", &[]), [""; 0]);
        let long = "a".repeat(100);
        assert_eq!(near(&long, &["b", &long]), [long.as_str(), "b"]);
    }

    /// By the definition, letter by letter.
    fn plain_distance(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) => {
                let substituted = plain_distance(a_rest, b_rest) + usize::from(x != y);
                substituted
                    .min(1 + plain_distance(a, b_rest))
                    .min(1 + plain_distance(a_rest, b))
            }
        }
    }

    proptest! {
        #[test]
        fn distances_are_levenshteins(a in "[ab-]{0,6}", b in "[ab-]{0,6}") {
            prop_assert_eq!(edit_distance(&a, &b), plain_distance(a.as_bytes(), b.as_bytes()));
        }

        #[test]
        fn nobody_nearer_is_passed_over(text in "[ab]{0,8}", names in prop::collection::btree_set("[ab]{0,8}", 0..9)) {
            let mut ranked: Vec<(usize, &str)> = names.iter().map(|name| (edit_distance(&text, name), name.as_str())).collect();
            ranked.sort_unstable();
            let want: Vec<String> = ranked.iter().take(TOLD).map(|(_, name)| (*name).to_owned()).collect();
            prop_assert_eq!(nearest(&text, names.iter().map(String::as_str)), want);
        }
    }
}
