//! What holds for any history of a small repository: with memory and without, in any order of files, read back and run again.

use proptest::prelude::*;

use super::*;
use crate::core::quantity::Quantity;
use crate::core::state::{ClusterState, NewObject, TreeBuilder, additions};
use crate::core::taint::Taint;
use crate::core::yaml;

const BUNDLE: &str = "apiVersion: branchline.io/v1alpha1\nkind: Bundle\nmetadata: {name: base}\nspec: {path: PATH}\n";
const CHART: &str = "apiVersion: apps.clusternet.io/v1alpha1\nkind: HelmChart\nmetadata: {name: db}\nspec: \
                     {repo: oci://r, chart: db, version: 'VERSION', targetNamespace: db}\n";

/// A repository with every kind of feed, that edits start from.
fn seeded() -> World {
    let mut world = World::new(TWO);
    let bundle = "  - {apiVersion: branchline.io/v1alpha1, kind: Bundle, name: base}\n";
    world
        .write("s1.yaml", &(subscription("s1", "{env: prod}", &["c0", "c1", "c2"]) + bundle))
        .write("bundle.yaml", &BUNDLE.replace("PATH", "base"))
        .write("base/chart.yaml", &CHART.replace("VERSION", "1"));
    for name in ["c0", "c1", "c2"] {
        world.write(&format!("{name}.yaml"), &config(name, "v0"));
    }
    world.write("base/f0.yaml", &config("f0", "v0")).run();
    world
}

fn labels(label: &str) -> Vec<(&'static str, &'static str)> {
    match label {
        "prod" => vec![("env", "prod")],
        "edge" => vec![("env", "prod"), ("tier", "edge")],
        _ => Vec::new(),
    }
}

/// A cluster that comes, goes or changes its labels.
fn cluster_edit() -> impl Strategy<Value = (String, Option<String>)> {
    let name = prop::sample::select(vec!["east", "west", "north"]);
    let label = prop::option::weighted(0.8, prop::sample::select(vec!["prod", "edge", "none"]));
    (name, label).prop_map(|(name, label)| (format!("cluster:{name}"), label.map(str::to_owned)))
}

/// What is known of a cluster at the moment: nothing, or what it carries and holds. How many more replicas an agent says fit is not among it:
/// that is true for one placement.
fn live_edit() -> impl Strategy<Value = (String, Option<String>)> {
    let name = prop::sample::select(vec!["east", "west", "north"]);
    let facts = prop::sample::select(vec![
        "cpu=2",
        "cpu=9",
        "NoSchedule",
        "NoExecute",
        "PreferNoSchedule",
        "returning",
    ]);
    (name, prop::option::weighted(0.8, facts)).prop_map(|(name, facts)| (format!("live:{name}"), facts.map(str::to_owned)))
}

fn live(facts: &str) -> Live {
    let mut live = Live::default();
    match facts.strip_prefix("cpu=") {
        Some(cpu) => drop(live.allocatable.insert("cpu".to_owned(), Quantity::parse(cpu).unwrap())),
        None if facts == "returning" => live.returning = true,
        None => {
            let taint = serde_json::json!({"key": "unready", "effect": facts});
            live.taints
                .push(Taint::parse(&serde_json::from_value(taint).unwrap()).unwrap());
        }
    }
    live
}

/// A Subscription that divides a Deployment, the Deployment, and a Globalization of it or of a ConfigMap.
fn divided_edit() -> impl Strategy<Value = (String, Option<String>)> {
    let kinds = prop::sample::select(vec!["Static", "Dynamic", "Replication"]);
    let dividing = (kinds, any::<bool>()).prop_map(|(kind, groups)| {
        let strategy = match kind {
            "Replication" => "  schedulingStrategy: Replication\n".to_owned(),
            kind => format!("  schedulingStrategy: Dividing\n  dividingScheduling: {{type: {kind}}}\n"),
        };
        let by_group = if groups { "  schedulingBySubGroup: true\n" } else { "" };
        let group = if groups {
            "\n    subGroupStrategy: {minClusters: 1}"
        } else {
            ""
        };
        let text = subscription("s3", "{env: prod}", &["c0"]);
        let text = text.replace("spec:\n", &format!("spec:\n{strategy}{by_group}"));
        let text = text.replace("{env: prod}}", &format!("{{env: prod}}}}{group}"));
        (
            "s3.yaml".to_owned(),
            Some(text + "  - {apiVersion: apps/v1, kind: Deployment, namespace: shop, name: d}\n"),
        )
    });
    let deployment = (0..9u8).prop_map(|replicas| {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d, namespace: shop}}\nspec:\n  replicas: {replicas}\n  \
             template: {{spec: {{containers: [{{name: c, resources: {{requests: {{cpu: 1}}}}}}]}}}}\n"
        );
        ("d.yaml".to_owned(), Some(text))
    });
    let affinity = prop::sample::select(vec!["", "  clusterAffinity: {matchLabels: {tier: edge}}\n"]);
    let policy = prop::sample::select(vec!["ApplyNow", "ApplyLater"]);
    let patch = prop::sample::select(vec![
        r#"{"metadata":{"labels":{"a":"b"}}}"#,
        r#"{"spec":null}"#,
        r#"{"data":{"g":"1"}}"#,
    ]);
    let feed = prop::sample::select(vec![
        "apiVersion: apps/v1, kind: Deployment, namespace: shop, name: d",
        "apiVersion: v1, kind: ConfigMap, namespace: shop, name: c0",
    ]);
    let global = (affinity, policy, patch, feed).prop_map(|(affinity, policy, patch, feed)| {
        let text = format!(
            "apiVersion: apps.clusternet.io/v1alpha1\nkind: Globalization\nmetadata: {{name: g}}\nspec:\n  overridePolicy: {policy}\n{affinity}  \
             feed: {{{feed}}}\n  overrides:\n  - {{name: g, type: MergePatch, value: '{patch}'}}\n"
        );
        ("g.yaml".to_owned(), Some(text))
    });
    prop_oneof![2 => dividing, 2 => deployment, 2 => global]
}

/// One edit of a small repository.
fn edit() -> impl Strategy<Value = (String, Option<String>)> {
    let feed = (0..3u8, 0..3u8).prop_map(|(n, v)| (format!("c{n}.yaml"), Some(config(&format!("c{n}"), &format!("v{v}")))));
    let selectors = prop::sample::select(vec!["{env: prod}", "{tier: edge}", "{env: none}"]);
    let sub = (0..2u8, selectors, prop::collection::btree_set(0..4u8, 0..3)).prop_map(|(n, selector, feeds)| {
        let names: Vec<String> = feeds.iter().map(|n| format!("c{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let bundle = "  - {apiVersion: branchline.io/v1alpha1, kind: Bundle, name: base}\n";
        let of_bundle = if n == 1 && !names.is_empty() { bundle } else { "" };
        (
            format!("s{n}.yaml"),
            Some(subscription(&format!("s{n}"), selector, &names) + of_bundle),
        )
    });
    let policy = prop::sample::select(vec!["ApplyNow", "ApplyLater"]);
    let patch = prop::sample::select(vec![
        r#"{"data":{"key":"east"}}"#,
        r#"{"metadata":{"namespace":"moved"}}"#,
        r#"{"kind":"Secret"}"#,
    ]);
    let local = (policy, patch, 0..3usize).prop_map(|(policy, patch, comments)| {
        let text = localization("l", policy, 5, "MergePatch", patch).replace("name: web", "name: c1");
        ("l.yaml".to_owned(), Some("# why\n".repeat(comments) + &text))
    });
    let patched = prop::sample::select(DIALECTS.to_vec()).prop_map(|(patch_type, value)| {
        (
            "d.yaml".to_owned(),
            Some(patching("ApplyNow", patch_type, value).replace("name: web", "name: c2")),
        )
    });
    let in_folder =
        (0..3u8, 0..2u8).prop_map(|(n, v)| (format!("base/f{n}.yaml"), Some(config(&format!("f{n}"), &format!("v{v}")))));
    let chart = prop::sample::select(vec!["1", "2", "[]"])
        .prop_map(|version| ("base/chart.yaml".to_owned(), Some(CHART.replace("VERSION", version))));
    let bundle = prop::sample::select(vec!["base", ".", "none"])
        .prop_map(|path| ("bundle.yaml".to_owned(), Some(BUNDLE.replace("PATH", path))));
    let file = prop::sample::select(vec![
        "d.yaml",
        "g.yaml",
        "s3.yaml",
        "c0.yaml",
        "c1.yaml",
        "s0.yaml",
        "s1.yaml",
        "l.yaml",
        "d.yaml",
        "bundle.yaml",
        "base/f0.yaml",
        "base/f1.yaml",
        "base/chart.yaml",
    ]);
    let broken = file.clone().prop_map(|file| (file.to_owned(), Some("kind: [\n".to_owned())));
    let removed = file.prop_map(|file| (file.to_owned(), None));
    prop_oneof![4 => feed, 4 => sub, 2 => local, 2 => patched, 3 => in_folder, 1 => chart, 2 => bundle, 4 => divided_edit(), 2 => broken, 2 => removed]
}

/// Whether what an agent is sent, with what it has, is all that the next state of its cluster has; and what it is sent begins with the root.
fn lacks_nothing(before: Option<&ClusterState>, now: &ClusterState) -> bool {
    let ids = |objects: Vec<NewObject>| objects.into_iter().map(|object| object.id).collect::<Vec<ObjectId>>();
    let whole = |state| ids(additions(None, state).unwrap());
    let sent = ids(additions(before, now).unwrap());
    let has = before.map(whole).unwrap_or_default();
    let begins = sent.first().is_none_or(|first| *first == now.id());
    begins && whole(now).iter().all(|id| sent.contains(id) || has.contains(id))
}

proptest! {
    /// Memory makes nothing different: a run with warm caches gives the bytes of a run from the same previous state without any, and no
    /// object has two owners in a cluster.
    #[test]
    fn incremental_equals_full(edits in prop::collection::vec(prop_oneof![6 => edit(), 4 => cluster_edit(), 2 => live_edit()], 1..16), fan_out in 0..=state::MAX_FAN_OUT) {
        let mut world = seeded();
        world.fan_out = fan_out;
        let mut trees = TreeBuilder::default();
        let mut written = std::collections::BTreeSet::new();
        for (path, text) in edits {
            match (path.strip_prefix("cluster:"), text) {
                (Some(name), Some(label)) => drop(world.clusters.insert(name.to_owned(), labels(&label))),
                (Some(name), None) => drop(world.clusters.remove(name)),
                (None, text) => match (path.strip_prefix("live:").map(|name| Arc::from(format!("clusternet-{name}"))), text) {
                    (Some(namespace), Some(facts)) => drop(world.live.insert(namespace, live(&facts))),
                    (Some(namespace), None) => drop(world.live.remove(&namespace)),
                    (None, Some(text)) => drop(world.files.insert(path, text)),
                    (None, None) => drop(world.files.remove(&path)),
                },
            }
            let previous = world.state.clone();
            world.run();
            let mut cold = World { files: world.files.clone(), clusters: world.clusters.clone(), live: world.live.clone(), fan_out, ..World::default() };
            let full = cold.outcome(&previous);
            let whole = state::build(&full.state);
            let tree = trees.build(&world.state);
            prop_assert_eq!(whole.root, tree.root);
            written.extend(tree.objects.iter().map(|object| object.id));
            prop_assert!(whole.objects.iter().all(|object| written.contains(&object.id)), "an object was never written");
            prop_assert_eq!(&full.diagnostics, &world.diagnostics);
            prop_assert_eq!(&full.pending, &world.pending);
            for (cluster, state) in &world.state.clusters {
                let before = previous.clusters.get(cluster).map(Arc::as_ref);
                prop_assert!(lacks_nothing(before, state), "an agent that has what {} had is not told all", cluster);
                let all: Vec<&String> = state.descriptions.values().flat_map(|d| d.files.keys()).collect();
                let distinct: std::collections::BTreeSet<&&String> = all.iter().collect();
                prop_assert_eq!(all.len(), distinct.len(), "two owners in {}", cluster);
            }
        }
    }
    /// Neither the order nor the names of files matter, nor how documents are spread over them.
    #[test]
    fn the_order_of_files_does_not_matter(edits in prop::collection::vec(edit(), 1..12), reversed in any::<bool>()) {
        let mut world = seeded();
        edits.into_iter().filter_map(|(path, text)| Some((path, text?))).for_each(|(path, text)| drop(world.files.insert(path, text)));
        world.files.retain(|_, text| !text.contains("kind: ["));
        world.state = State::default();
        let mut other = World { clusters: world.clusters.clone(), ..World::default() };
        let (inside, outside): (Vec<_>, Vec<_>) = world.files.clone().into_iter().partition(|(path, _)| path.starts_with("base/"));
        for (folder, mut files) in [("base/", inside), ("", outside)] {
            if reversed {
                files.reverse();
            }
            let texts: Vec<String> = files.into_iter().map(|(_, text)| text).collect();
            other.files.insert(format!("{folder}all.yaml"), texts.join("\n---\n"));
        }
        prop_assert_eq!(state::build(&world.run().state).root, state::build(&other.run().state).root);
    }

    /// A rendered tree read back gives the same objects, and the next run from it changes nothing.
    #[test]
    fn a_tree_read_back_is_the_tree(edits in prop::collection::vec(edit(), 1..12), fan_out in 0..=state::MAX_FAN_OUT) {
        let mut world = seeded();
        world.fan_out = fan_out;
        for (path, text) in edits {
            match text {
                Some(text) => drop(world.files.insert(path, text)),
                None => drop(world.files.remove(&path)),
            }
            world.run();
        }
        let paths = state::paths(&world.state);
        let files: BTreeMap<String, ObjectId> = paths.iter().map(|(path, leaf)| (path.clone(), leaf.id)).collect();
        let read = state::read(&files, &mut |id| Ok(world.contents[&id].clone())).unwrap();
        prop_assert_eq!(state::build(&read).root, state::build(&world.state).root);
        for (namespace, state) in &read.clusters {
            for (directory, description) in &state.descriptions {
                let written = world.state.description(namespace, directory).unwrap();
                prop_assert_eq!(&description.feeds, &written.feeds);
            }
        }
        for (path, leaf) in paths.iter().filter(|(path, _)| path.contains("/manifests/") || path.contains("/releases/")) {
            let text = String::from_utf8(world.contents[&leaf.id].clone()).unwrap();
            let value = yaml::parse_value(&text, &Limits::default()).unwrap();
            prop_assert_eq!(yaml::emit(&value), text, "{}", path);
            prop_assert!(crate::core::object::Object::from_value(value).is_ok(), "{}", path);
        }
        let again = world.outcome(&read);
        prop_assert_eq!(state::build(&again.state).root, state::build(&read).root);
    }
}
