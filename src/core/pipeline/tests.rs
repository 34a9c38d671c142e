//! The pure core as people see it: source files and clusters in, the state branch's files and diagnostics out.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod bundles;
mod charts;
mod listing;
mod properties;
mod strays;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use super::*;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{self, ParseCache};
use crate::core::schedule::{Cluster, Live};
use crate::core::state::{self, ClusterRecord};
use crate::core::tree::{EntryMode, FileEntry, FileTree};
use crate::core::yaml::Limits;

mod dividing;

/// Files and what they came to.
type Indexed = (BTreeMap<String, String>, Arc<Snapshot>, Vec<Diagnostic>);

/// A repository and a fleet that change from run to run.
#[derive(Default)]
struct World {
    files: BTreeMap<String, String>,
    clusters: BTreeMap<String, Vec<(&'static str, &'static str)>>,
    live: BTreeMap<Arc<str>, Live>,
    state: State,
    contents: BTreeMap<ObjectId, Vec<u8>>,
    diagnostics: Vec<Diagnostic>,
    pending: Vec<Pending>,
    fan_out: u8,
    parses: ParseCache,
    memory: Memory,
    /// The files that were read last and what they came to: as long as they are the same, so is the snapshot.
    read: Option<Indexed>,
}

impl World {
    fn new(clusters: &[(&str, &[(&'static str, &'static str)])]) -> Self {
        let clusters = clusters
            .iter()
            .map(|(name, labels)| ((*name).to_owned(), labels.to_vec()))
            .collect();
        World {
            clusters,
            ..World::default()
        }
    }

    fn write(&mut self, path: &str, text: &str) -> &mut Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    fn remove(&mut self, path: &str) -> &mut Self {
        assert!(self.files.remove(path).is_some(), "{path} is not there");
        self
    }

    fn index(&mut self) -> (Arc<Snapshot>, Vec<Diagnostic>) {
        if let Some((files, snapshot, diagnostics)) = &self.read
            && *files == self.files
        {
            return (snapshot.clone(), diagnostics.clone());
        }
        let entry = |text: &String| FileEntry {
            mode: EntryMode::File,
            id: ObjectId::hash(ObjectKind::Blob, text.as_bytes()),
            size: text.len() as u64,
        };
        let tree = FileTree {
            files: self.files.iter().map(|(path, text)| (path.clone(), entry(text))).collect(),
            ..FileTree::default()
        };
        let limits = Limits::default();
        let load = |id| {
            let text = self.files.values().find(|text| entry(text).id == id).unwrap();
            Ok::<_, Infallible>(text.clone().into_bytes())
        };
        self.parses.fill(&tree, &limits, load).unwrap();
        let (snapshot, diagnostics) = index::build(&tree, &self.parses, &limits);
        let snapshot = Arc::new(snapshot);
        self.read = Some((self.files.clone(), snapshot.clone(), diagnostics.clone()));
        (snapshot, diagnostics)
    }

    fn outcome(&mut self, previous: &State) -> Outcome {
        let (snapshot, mut diagnostics) = self.index();
        let records = self.clusters.iter().map(|(name, labels)| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            ClusterRecord {
                cluster: Cluster::new(name, None, None, labels).into(),
                cluster_type: String::new(),
            }
        });
        let mut fleet = derive_fleet(records, &snapshot, previous);
        fleet.fleet.live.clone_from(&self.live);
        let inputs = Inputs {
            snapshot: &snapshot,
            fleet: &fleet,
            previous,
            settings: RenderSettings::default(),
            fan_out: self.fan_out,
        };
        let mut outcome = run(&inputs, &mut self.memory);
        assert_eq!(verify(&inputs, &outcome), [], "the independent checker");
        diagnostics.append(&mut outcome.diagnostics);
        outcome.diagnostics = diagnostics;
        outcome
    }

    fn run(&mut self) -> &mut Self {
        let previous = std::mem::take(&mut self.state);
        let outcome = self.outcome(&previous);
        for (_, leaf) in state::paths(&outcome.state) {
            if let Some(bytes) = leaf.bytes {
                self.contents.insert(leaf.id, bytes.to_vec());
            }
        }
        self.state = outcome.state;
        self.diagnostics = outcome.diagnostics;
        self.pending = outcome.pending;
        self
    }

    fn paths(&self) -> Vec<String> {
        let delivered = |path: &String| path.contains("/manifests/");
        state::paths(&self.state)
            .into_iter()
            .map(|(path, _)| path)
            .filter(delivered)
            .collect()
    }

    fn text(&self, path: &str) -> String {
        let (_, leaf) = state::paths(&self.state)
            .into_iter()
            .find(|(known, _)| known == path)
            .unwrap_or_else(|| panic!("no {path}"));
        String::from_utf8(self.contents[&leaf.id].clone()).unwrap()
    }

    fn codes(&self) -> Vec<(&str, &str, u64)> {
        self.diagnostics
            .iter()
            .map(|d| (d.code.as_str(), d.file.as_str(), d.line))
            .collect()
    }
}

const TWO: &[(&str, &[(&str, &str)])] = &[("east", &[("env", "prod")]), ("west", &[("env", "prod"), ("tier", "edge")])];

fn subscription(name: &str, selector: &str, feeds: &[&str]) -> String {
    let feeds: String = feeds
        .iter()
        .map(|name| format!("  - {{apiVersion: v1, kind: ConfigMap, namespace: shop, name: {name}}}\n"))
        .collect();
    let feeds = if feeds.is_empty() { "    []\n".to_owned() } else { feeds };
    format!(
        "apiVersion: apps.clusternet.io/v1alpha1\nkind: Subscription\nmetadata: {{name: {name}, namespace: apps}}\nspec:\n  \
         subscribers:\n  - clusterAffinity: {{matchLabels: {selector}}}\n  feeds:\n{feeds}"
    )
}

fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{key: {value}}}\n")
}

fn localization(name: &str, policy: &str, priority: i64, patch_type: &str, value: &str) -> String {
    format!(
        "apiVersion: apps.clusternet.io/v1alpha1\nkind: Localization\nmetadata: {{name: {name}, namespace: clusternet-east}}\nspec:\n  \
         overridePolicy: {policy}\n  priority: {priority}\n  feed: {{apiVersion: v1, kind: ConfigMap, namespace: shop, name: web}}\n  \
         overrides:\n  - name: {name}\n    type: {patch_type}\n    value: '{value}'\n"
    )
}

const EAST: &str = "clusters/clusternet-east/apps.web/manifests/configmap_shop_web.yaml";
const WEST: &str = "clusters/clusternet-west/apps.web/manifests/configmap_shop_web.yaml";

fn web() -> World {
    let mut world = World::new(TWO);
    world
        .write("sub.yaml", &subscription("web", "{env: prod}", &["web"]))
        .write("web.yaml", &config("web", "one"))
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    world
}

#[test]
fn delivers_to_the_clusters_that_match() {
    let mut world = web();
    assert_eq!(world.paths(), [EAST, WEST]);
    world.write("sub.yaml", &subscription("web", "{tier: edge}", &["web"])).run();
    assert_eq!(world.paths(), [WEST]);
    assert!(world.text("subscriptions/apps/web.yaml").contains("LabelsDoNotMatch"));
    world.remove("sub.yaml").run();
    assert!(world.paths().is_empty());
}

#[test]
fn a_second_run_changes_no_byte_and_renders_nothing() {
    let mut world = web();
    let (before, renders) = (state::build(&world.state).root, world.memory.renders.render_count());
    world.run();
    assert_eq!(state::build(&world.state).root, before);
    assert_eq!(world.memory.renders.render_count(), renders);
    world.write("README.md", "text").write("notes.txt", "more").run();
    assert_eq!(state::build(&world.state).root, before);
}

#[test]
fn what_does_not_parse_is_held() {
    let mut world = web();
    let before = state::build(&world.state).root;
    world.write("web.yaml", "apiVersion: v1\nkind: [\n").run();
    assert_eq!(state::build(&world.state).root, before, "a feed is held");
    assert!(
        world
            .codes()
            .iter()
            .any(|(code, file, line)| (*code, *file) == ("parse-failure", "web.yaml") && *line > 0)
    );
    world
        .write("web.yaml", &config("web", "two"))
        .write("sub.yaml", "kind: {\n")
        .run();
    let held = state::build(&world.state).root;
    assert_eq!(
        held, before,
        "a Subscription that no parsed file defines is held whole: {:?}",
        world.diagnostics
    );
    world.write("sub.yaml", &subscription("web", "{env: prod}", &["web"])).run();
    assert!(world.text(EAST).contains("two") && world.codes().is_empty());
}

#[test]
fn a_held_subscription_gives_a_new_cluster_nothing() {
    let mut world = web();
    world.clusters.insert("north".to_owned(), vec![("env", "prod")]);
    world.write("sub.yaml", "kind: {\n").run();
    assert_eq!(world.paths(), [EAST, WEST]);
    assert!(world.text("subscriptions/apps/web.yaml").contains("SubscriptionHeld"));
}

#[test]
fn a_missing_feed_is_an_error_and_is_kept() {
    let mut world = web();
    world.remove("web.yaml").run();
    assert_eq!(world.paths(), [EAST, WEST]);
    assert_eq!(world.codes(), [("missing-feed", "sub.yaml", 8)]);
    world.write("sub.yaml", &subscription("web", "{env: prod}", &[])).run();
    assert!(world.paths().is_empty(), "taking it out of feeds is an act");
}

#[test]
fn a_selector_that_suddenly_matches_nothing_keeps_the_last_placement() {
    let mut world = web();
    world.write("sub.yaml", &subscription("web", "{env: prdo}", &["web"])).run();
    assert_eq!(world.paths(), [EAST, WEST]);
    assert_eq!(world.codes()[0].0, "placement-kept");
}

#[test]
fn overrides_apply_in_clusternets_order() {
    let mut world = web();
    let global = localization("g", "ApplyNow", 1000, "MergePatch", r#"{"data":{"key":"global","g":"1"}}"#)
        .replace("kind: Localization", "kind: Globalization")
        .replace(", namespace: clusternet-east", "");
    world.write("g.yaml", &global);
    world
        .write(
            "l.yaml",
            &localization(
                "l",
                "ApplyNow",
                0,
                "JSONPatch",
                r#"[{"op":"replace","path":"/data/key","value":"local"}]"#,
            ),
        )
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    assert!(
        world.text(EAST).contains("key: local") && world.text(EAST).contains("g: \"1\""),
        "{}",
        world.text(EAST)
    );
    assert!(world.text(WEST).contains("key: global"));
    let provenance = world.text("provenance/clusternet-east/apps.web.yaml");
    assert!(
        provenance.contains("Globalization") && provenance.contains("/data/key"),
        "{provenance}"
    );
    world.remove("g.yaml").remove("l.yaml").run();
    assert!(world.text(EAST).contains("key: one"));
}

#[test]
fn equal_priorities_go_by_name_and_higher_ones_come_last() {
    let mut world = web();
    let mut order = Vec::new();
    for (name, priority) in [("z", 7), ("b", 500), ("a", 500), ("m", 1000)] {
        let patch = format!(r#"{{"data":{{"key":"{name}"}}}}"#);
        world.write(
            &format!("{name}.yaml"),
            &localization(name, "ApplyNow", priority, "MergePatch", &patch),
        );
    }
    for name in ["m", "b", "a", "z"] {
        world.run();
        order.push(
            world
                .text(EAST)
                .lines()
                .find(|line| line.contains("key:"))
                .unwrap()
                .trim()
                .to_owned(),
        );
        world.remove(&format!("{name}.yaml"));
    }
    assert_eq!(order, ["key: m", "key: b", "key: a", "key: z"]);
}

#[test]
fn a_bad_patch_holds_only_its_feed_in_its_clusters() {
    let mut world = web();
    world
        .write("sub.yaml", &subscription("web", "{env: prod}", &["web", "other"]))
        .write("other.yaml", &config("other", "a"));
    world.write(
        "l.yaml",
        &localization(
            "l",
            "ApplyNow",
            1,
            "JSONPatch",
            r#"[{"op":"test","path":"/data/key","value":"no"}]"#,
        ),
    );
    world.write("web.yaml", &config("web", "two")).run();
    assert!(world.text(EAST).contains("one") && world.text(WEST).contains("two"));
    assert_eq!(world.codes(), [("patch-failure", "l.yaml", 9)]);
    assert_eq!(world.paths().len(), 4, "the other feed goes on");
    world
        .write("l.yaml", &localization("l", "ApplyNow", 1, "StrategicMergePatch", "a: b"))
        .run();
    assert!(
        world.text(EAST).contains("one"),
        "an override of no known type holds its feed"
    );
    assert_eq!(world.codes(), [("invalid-field", "l.yaml", 10)]);
}

#[test]
fn an_override_in_a_broken_file_holds_what_it_applied_to() {
    let mut world = web();
    world
        .write(
            "l.yaml",
            &localization("l", "ApplyNow", 1, "MergePatch", r#"{"data":{"key":"east"}}"#),
        )
        .run();
    world
        .write("l.yaml", "kind: [\n")
        .write("web.yaml", &config("web", "two"))
        .run();
    assert!(
        world.text(EAST).contains("key: east"),
        "the override may stand in the file that does not parse"
    );
    assert!(world.text(WEST).contains("two"));
}

#[test]
fn an_override_of_nothing_is_a_warning() {
    let mut world = web();
    let wrong = localization("l", "ApplyNow", 1, "MergePatch", "a: b").replace("namespace: shop", "namespace: shpo");
    world.write("l.yaml", &wrong).run();
    assert_eq!(world.codes(), [("override-without-feed", "l.yaml", 7)]);
    assert!(world.diagnostics[0].hint.starts_with("there is ConfigMap shop/web; "));
}

#[test]
fn a_missing_path_skips_the_entry_with_a_warning() {
    let mut world = web();
    world
        .write(
            "l.yaml",
            &localization("l", "ApplyNow", 1, "JSONPatch", r#"[{"op":"remove","path":"/spec/none"}]"#),
        )
        .run();
    assert_eq!(world.codes(), [("patch-missing-path", "l.yaml", 9)]);
    assert!(!world.diagnostics[0].is_error());
}

#[test]
fn a_finding_follows_the_text_that_it_is_about() {
    let mut world = web();
    let skipped = localization("l", "ApplyNow", 1, "JSONPatch", r#"[{"op":"remove","path":"/spec/none"}]"#);
    world.write("l.yaml", &skipped).run();
    assert_eq!(world.codes(), [("patch-missing-path", "l.yaml", 9)]);
    let before = state::build(&world.state).root;
    world.write("l.yaml", &format!("# why\n\n{skipped}")).run();
    assert_eq!(world.codes(), [("patch-missing-path", "l.yaml", 11)]);
    world
        .write("l.yaml", &skipped.replace("  priority", "\n  # more\n  priority"))
        .run();
    assert_eq!(world.codes(), [("patch-missing-path", "l.yaml", 11)]);
    world.remove("l.yaml").write("moved.yaml", &skipped).run();
    assert_eq!(world.codes(), [("patch-missing-path", "moved.yaml", 9)]);
    assert_eq!(state::build(&world.state).root, before);
}

/// Each dialect with a patch that sets `/data/key` to `later`.
const DIALECTS: [(&str, &str); 5] = [
    ("Helm", r#"{"data":{"key":"later"}}"#),
    ("MergePatch", r#"{"data":{"key":"later"}}"#),
    ("JSONPatch", r#"[{"op":"replace","path":"/data/key","value":"later"}]"#),
    ("FieldMergePatch", r#"{"key":"later"}"#),
    ("FieldJSONPatch", r#"[{"op":"replace","path":"/key","value":"later"}]"#),
];

/// A Localization of any type; the Field types patch the YAML text in `/data/conf`.
fn patching(policy: &str, patch_type: &str, value: &str) -> String {
    let field = "    fieldPath: /data/conf\n    fieldFormat: YAML\n";
    localization("l", policy, 1, patch_type, value) + if patch_type.starts_with("Field") { field } else { "" }
}

fn with_conf(value: &str) -> String {
    config("web", value).replace("data: {key", "data: {conf: 'key: one', key")
}

#[test]
fn apply_later_waits_for_the_next_change_in_every_dialect() {
    for (patch_type, value) in DIALECTS {
        let mut world = web();
        world.write("web.yaml", &with_conf("one")).run();
        world.write("l.yaml", &patching("ApplyLater", patch_type, value)).run();
        assert!(!world.text(EAST).contains("later"), "{patch_type}");
        assert_eq!(world.pending.len(), 1, "{patch_type}");
        world.write("web.yaml", &with_conf("two")).run();
        assert!(world.text(EAST).contains("key: later") && world.pending.is_empty());
        world.write("l.yaml", &patching("ApplyNow", patch_type, value)).run();
        world.remove("l.yaml").run();
        assert!(
            !world.text(EAST).contains("later"),
            "removing the override removes its effect: {patch_type}"
        );
    }
}

#[test]
fn provenance_names_every_field_in_every_dialect() {
    for (patch_type, value) in DIALECTS {
        let mut world = web();
        world
            .write("web.yaml", &with_conf("one"))
            .write("l.yaml", &patching("ApplyNow", patch_type, value))
            .run();
        assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
        let field = if patch_type.starts_with("Field") {
            "/data/conf"
        } else {
            "/data/key"
        };
        let provenance = world.text("provenance/clusternet-east/apps.web.yaml");
        assert!(provenance.contains(&format!("- {field}\n")), "{patch_type}: {provenance}");
    }
}

#[test]
fn entries_without_effect_stand_in_the_provenance_too() {
    let mut world = web();
    let blank =
        "  - name: blank\n    type: Helm\n    value: ' '\n  - name: comment\n    type: MergePatch\n    value: '# later'\n";
    let skipped = localization(
        "skipped",
        "ApplyNow",
        1,
        "JSONPatch",
        r#"[{"op":"remove","path":"/spec/none"}]"#,
    );
    world.write("l.yaml", &(skipped + blank)).run();
    assert_eq!(world.codes(), [("patch-missing-path", "l.yaml", 9)]);
    let provenance = world.text("provenance/clusternet-east/apps.web.yaml");
    for name in ["skipped", "blank", "comment"] {
        assert!(provenance.contains(&format!("name: {name}")), "{provenance}");
    }
    assert!(!provenance.contains("fields:\n"), "{provenance}");
}

#[test]
fn values_of_overrides_are_read_as_kubectl_reads_yaml() {
    let mut world = web();
    world
        .write(
            "l.yaml",
            &localization("l", "ApplyNow", 1, "MergePatch", "{immutable: yes, data: {mode: 0644}}"),
        )
        .run();
    assert!(world.text(EAST).contains("immutable: true"), "{}", world.text(EAST));
    assert!(world.text(EAST).contains("mode: 420"), "{}", world.text(EAST));
}

#[test]
fn a_field_patch_says_what_is_missing_or_malformed() {
    let mut world = web();
    let bare = localization("l", "ApplyNow", 1, "FieldMergePatch", "{a: 1}");
    world.write("l.yaml", &bare).run();
    let codes = [("invalid-field", "l.yaml", 9), ("invalid-field", "l.yaml", 9)];
    assert_eq!(world.codes(), codes, "{:?}", world.diagnostics);
    assert!(world.diagnostics[0].message.contains("fieldPath") && world.diagnostics[1].message.contains("fieldFormat"));
    let malformed = format!("{bare}    fieldPath: data.key\n    fieldFormat: TOML\n");
    world.write("l.yaml", &malformed).run();
    assert_eq!(
        world.codes(),
        [("invalid-field", "l.yaml", 12), ("invalid-field", "l.yaml", 13)]
    );
    let missing = format!("{bare}    fieldPath: /data/none\n    fieldFormat: JSON\n");
    world.write("l.yaml", &missing).run();
    assert_eq!(world.codes(), [("patch-failure", "l.yaml", 9)]);
    assert_eq!(world.diagnostics[0].field, "/data/none");
    assert!(world.text(EAST).contains("key: one"));
}

#[test]
fn a_patch_of_the_wrong_shape_is_reported_without_any_cluster() {
    let mut world = World::new(&[]);
    let entries = "  - {name: list, type: MergePatch, value: '[1]'}\n  - {name: map, type: JSONPatch, value: '{a: 1}'}\n\
                   \x20 - {name: text, type: Helm, value: words}\n";
    world.write("web.yaml", &config("web", "one"));
    world
        .write(
            "l.yaml",
            &(localization("l", "ApplyNow", 1, "MergePatch", "{a: 1}") + entries),
        )
        .run();
    let lines: Vec<u64> = world.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.line).collect();
    assert_eq!(lines, [12, 13, 14], "{:?}", world.diagnostics);
}

#[test]
fn one_object_has_one_owner_per_cluster() {
    let mut world = web();
    world
        .write("sub2.yaml", &subscription("again", "{tier: edge}", &["web"]))
        .run();
    assert_eq!(
        world.paths(),
        [EAST, WEST],
        "the owner in the previous state keeps it though `again` comes first by name"
    );
    assert_eq!(world.codes()[0].0, "object-conflict");
    world.remove("sub.yaml").run();
    assert_eq!(
        world.paths(),
        ["clusters/clusternet-west/apps.again/manifests/configmap_shop_web.yaml"]
    );
}

#[test]
fn unsupported_and_unknown_fields_hold_the_subscription() {
    let mut world = web();
    let other = subscription("web", "{tier: edge}", &["web"]).replace("spec:\n", "spec:\n  schedulerName: mine\n");
    world.write("sub.yaml", &other).run();
    assert_eq!(world.codes(), [("unsupported", "sub.yaml", 5)]);
    assert_eq!(world.paths(), [EAST, WEST]);
    let typo = subscription("web", "{tier: edge}", &["web"]).replace("matchLabels", "matchLabel");
    world.write("sub.yaml", &typo).run();
    assert_eq!(world.codes(), [("unknown-field", "sub.yaml", 6)]);
    assert_eq!(world.paths(), [EAST, WEST]);
}

#[test]
fn duplicates_name_both_places_and_are_held() {
    let mut world = web();
    world.write("copy.yaml", &config("web", "copy")).run();
    assert!(world.text(EAST).contains("one"));
    let codes: Vec<_> = world.codes().iter().map(|(code, file, _)| (*code, *file)).collect();
    assert_eq!(
        codes,
        [
            ("duplicate-object", "copy.yaml"),
            ("duplicate-object", "web.yaml"),
            ("missing-feed", "sub.yaml")
        ]
    );
    assert!(world.diagnostics[0].message.contains("web.yaml:1"));
}

#[test]
fn plain_secrets_are_refused() {
    let mut world = web();
    let sub = subscription("web", "{env: prod}", &["web"]).replace("ConfigMap", "Secret");
    world
        .write("sub.yaml", &sub)
        .write("web.yaml", &config("web", "aGk=").replace("ConfigMap", "Secret"))
        .run();
    assert_eq!(world.codes(), [("plain-secret", "web.yaml", 1)]);
    assert!(world.paths().is_empty());
}

#[test]
fn hub_labels_outrank_and_are_held() {
    let mut world = web();
    let cluster =
        "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {name: east, labels: {env: test}}\n";
    world.write("hub/east.yaml", cluster).run();
    assert_eq!(world.paths(), [WEST]);
    world.write("hub/east.yaml", "kind: [\n").run();
    assert_eq!(world.paths(), [WEST], "labels that cannot be seen stay");
}

#[test]
fn a_state_read_back_is_the_state() {
    let mut world = web();
    world
        .write(
            "l.yaml",
            &localization("l", "ApplyNow", 1, "MergePatch", r#"{"data":{"key":"east"}}"#),
        )
        .run();
    let files: BTreeMap<String, ObjectId> = state::paths(&world.state)
        .into_iter()
        .map(|(path, leaf)| (path, leaf.id))
        .collect();
    let read = state::read(&files, &mut |id| Ok(world.contents[&id].clone())).unwrap();
    assert_eq!(state::build(&read).root, state::build(&world.state).root);
    let outcome = world.outcome(&read);
    assert_eq!(
        state::build(&outcome.state).root,
        state::build(&world.state).root,
        "a restart is a no-op"
    );
}
