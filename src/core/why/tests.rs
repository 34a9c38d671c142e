//! `explain` over small sources: who set a field, why a cluster has an object or not, and what is never shown.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{self, ParseCache};
use crate::core::pipeline::Memory;
use crate::core::render::RenderSettings;
use crate::core::state::{ClusterRecord, State};
use crate::core::tree::{EntryMode, FileEntry, FileTree};
use crate::core::yaml::Limits;

const FEED: &str =
    "apiVersion: v1\nkind: KIND\nmetadata: {name: web, namespace: shop}\ndata:\n  greeting: hello\n  colour: grey\n";
const SUBSCRIPTION: &str = "apiVersion: apps.clusternet.io/v1alpha1\nkind: Subscription\nmetadata: {name: web, namespace: apps}\nspec:\n  \
     subscribers:\n  - clusterAffinity: {matchLabels: {region: eu}}\n  feeds:\n  - {apiVersion: v1, kind: KIND, namespace: shop, name: web}\n";

fn localization(name: &str, policy: &str, value: &serde_json::Value) -> String {
    format!(
        "apiVersion: apps.clusternet.io/v1alpha1\nkind: Localization\nmetadata: {{name: {name}, namespace: clusternet-a}}\nspec:\n  \
         overridePolicy: {policy}\n  feed: {{apiVersion: v1, kind: KIND, namespace: shop, name: web}}\n  overrides:\n  \
         - {{name: first, type: MergePatch, value: '{value}'}}\n"
    )
}

/// The source as one file; cluster `a` is in Europe, `b` is not.
struct Source(String);

impl Texts for Source {
    fn source(&self, _: &str) -> Option<Vec<u8>> {
        Some(self.0.clone().into_bytes())
    }

    fn state(&self, leaf: &Leaf) -> Option<Vec<u8>> {
        leaf.bytes.as_ref().map(|bytes| bytes.to_vec())
    }
}

impl Source {
    fn of(kind: &str, overrides: &[String]) -> Self {
        let parts = [FEED.to_owned(), SUBSCRIPTION.to_owned()]
            .into_iter()
            .chain(overrides.iter().cloned());
        Source(parts.collect::<Vec<_>>().join("---\n").replace("KIND", kind))
    }

    fn explain(&self, previous: &State, cluster: &str, field: Option<&str>) -> (Result<Answer, NotFound>, State) {
        let entry = FileEntry {
            mode: EntryMode::File,
            id: ObjectId::hash(ObjectKind::Blob, self.0.as_bytes()),
            size: self.0.len() as u64,
        };
        let tree = FileTree {
            files: BTreeMap::from([("all.yaml".to_owned(), entry)]),
            ..FileTree::default()
        };
        let (limits, mut cache) = (Limits::default(), ParseCache::default());
        cache
            .fill(&tree, &limits, |_| Ok::<_, Infallible>(self.0.clone().into_bytes()))
            .unwrap();
        let (snapshot, findings) = index::build(&tree, &cache, &limits);
        assert_eq!(findings, []);
        let record = |name: &str, region: &str| ClusterRecord {
            cluster: Cluster::new(name, None, None, BTreeMap::from([("region".to_owned(), region.to_owned())])).into(),
            cluster_type: String::new(),
        };
        let snapshot = Arc::new(snapshot);
        let fleet = pipeline::derive_fleet([record("a", "eu"), record("b", "us")], &snapshot, previous);
        let inputs = Inputs {
            snapshot: &snapshot,
            fleet: &fleet,
            previous,
            fan_out: 0,
            settings: RenderSettings {
                allow_plain_secrets: true,
            },
        };
        let outcome = pipeline::run(&inputs, &mut Memory::default());
        let kind = snapshot.feeds.keys().next().unwrap().kind.clone();
        let query = ObjectQuery::parse(&format!("{kind}/web"), None).unwrap();
        let answer = cluster_named(&fleet.fleet, cluster).and_then(|cluster| {
            let object = object_named(&inputs, &outcome, cluster, &query)?;
            explain(&inputs, &outcome, cluster, &object, field, self)
        });
        (answer, outcome.state)
    }
}

fn steps(answer: &Answer, field: &str) -> Vec<(Option<usize>, u64, Option<Value>)> {
    let delivery = answer.delivery.as_ref().unwrap();
    let chain = delivery.fields.iter().find(|chain| chain.field == field).unwrap();
    chain
        .steps
        .iter()
        .map(|step| (step.entry, step.place.line, step.value.clone()))
        .collect()
}

#[test]
fn a_field_is_followed_from_its_line_over_each_entry() {
    let source = Source::of(
        "ConfigMap",
        &[
            localization("l1", "ApplyNow", &json!({"data": {"greeting": "salut"}})),
            localization("l2", "ApplyNow", &json!({"data": {"greeting": "ça va", "colour": "blue"}})),
        ],
    );
    let answer = source.explain(&State::default(), "a", Some("/data/greeting")).0.unwrap();
    let want = [
        (None, 5, Some(json!("hello"))),
        (Some(0), 24, Some(json!("salut"))),
        (Some(1), 33, Some(json!("ça va"))),
    ];
    assert_eq!(steps(&answer, "/data/greeting"), want);
    let delivery = answer.delivery.unwrap();
    assert_eq!(
        (delivery.standing, &delivery.fields[0].value),
        (Standing::Current, &Some(json!("ça va")))
    );
    let all = source
        .explain(&State::default(), "clusternet-a", None)
        .0
        .unwrap()
        .delivery
        .unwrap();
    let fields: Vec<_> = all.fields.iter().map(|chain| chain.field.as_str()).collect();
    assert_eq!(fields, ["/data/colour", "/data/greeting"]);
}

#[test]
fn a_new_subtree_is_named_by_its_top_and_found_by_what_it_holds() {
    let patch = json!({"metadata": {"annotations": {"team": "web"}}});
    let source = Source::of("ConfigMap", &[localization("l1", "ApplyNow", &patch)]);
    let answer = source
        .explain(&State::default(), "a", Some("/metadata/annotations/team"))
        .0
        .unwrap();
    assert_eq!(
        steps(&answer, "/metadata/annotations/team").last().unwrap().2,
        Some(json!("web"))
    );
    let missing = source.explain(&State::default(), "a", Some("/data/greetin")).0.unwrap_err();
    assert!(missing.hint().contains("/data/greeting"), "{missing:?}");
}

#[test]
fn a_cluster_that_was_not_chosen_is_told_why_and_who_has_it() {
    let answer = Source::of("ConfigMap", &[]).explain(&State::default(), "b", None).0.unwrap();
    assert_eq!(answer.delivery, None);
    let [feeding] = answer.subscriptions.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (feeding.outcome, feeding.bound, feeding.subscribers[0].matches),
        ("LabelsDoNotMatch", false, false)
    );
    assert_eq!(feeding.elsewhere.names, ["a"]);
    let near = Source::of("ConfigMap", &[])
        .explain(&State::default(), "clusternet-c", None)
        .0
        .unwrap_err();
    assert!(
        matches!(&near, NotFound::Cluster { near, .. } if near == &["a", "b"]),
        "{near:?}"
    );
}

#[test]
fn an_override_that_waits_is_shown_as_pending() {
    let before = Source::of("ConfigMap", &[]).explain(&State::default(), "a", None).1;
    let source = Source::of(
        "ConfigMap",
        &[localization("l1", "ApplyLater", &json!({"data": {"greeting": "salut"}}))],
    );
    let delivery = source
        .explain(&before, "a", Some("/data/greeting"))
        .0
        .unwrap()
        .delivery
        .unwrap();
    assert_eq!(
        (delivery.standing, &delivery.fields[0].value),
        (Standing::Pending, &Some(json!("hello")))
    );
    assert_eq!(delivery.fields[0].steps.last().unwrap().value, Some(json!("salut")));
}

#[test]
fn a_patch_that_fails_leaves_the_last_result_and_says_so() {
    let before = Source::of("ConfigMap", &[]).explain(&State::default(), "a", None).1;
    let source = Source::of("ConfigMap", &[localization("l1", "ApplyNow", &json!({"kind": "Other"}))]);
    let answer = source.explain(&before, "a", Some("/data/greeting")).0.unwrap();
    assert_eq!(answer.delivery.unwrap().standing, Standing::Held);
    assert!(
        answer.diagnostics.iter().any(|found| found.code == "patch-failure"),
        "{:?}",
        answer.diagnostics
    );
}

#[test]
fn values_of_secrets_are_in_no_answer() {
    let source = Source::of(
        "Secret",
        &[localization("l1", "ApplyNow", &json!({"data": {"greeting": "c2FsdXQ="}}))],
    );
    for field in [None, Some(""), Some("/data"), Some("/data/greeting")] {
        let answer = source.explain(&State::default(), "a", field).0.unwrap();
        let text = serde_json::to_string(&answer).unwrap();
        assert!(
            text.contains("***") && !text.contains("hello") && !text.contains("c2FsdXQ"),
            "{text}"
        );
    }
}
