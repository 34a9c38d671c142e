//! HelmChart feeds: values and chart overrides end in a HelmRelease, and nothing else does.

use super::*;

const RELEASE: &str = "clusters/clusternet-east/apps.db/releases/helmrelease.apps.clusternet.io_shop_mysql.yaml";

fn chart(spec: &str) -> String {
    format!(
        "apiVersion: apps.clusternet.io/v1alpha1\nkind: HelmChart\nmetadata:\n  name: mysql\n  namespace: shop\nspec:\n  \
         repo: https://charts.example.org\n  chart: mysql\n  targetNamespace: db\n{spec}"
    )
}

fn override_of_chart(kind: &str, priority: i64, entries: &str) -> String {
    let namespace = if kind == "Localization" {
        ", namespace: clusternet-east"
    } else {
        ""
    };
    format!(
        "apiVersion: apps.clusternet.io/v1alpha1\nkind: {kind}\nmetadata: {{name: mysql{namespace}}}\nspec:\n  priority: {priority}\n  \
         feed: {{apiVersion: apps.clusternet.io/v1alpha1, kind: HelmChart, namespace: shop, name: mysql}}\n  overrides:\n{entries}"
    )
}

fn entry(patch_type: &str, chart: bool, value: &str) -> String {
    format!(
        "  - name: {}\n    type: {patch_type}\n    overrideChart: {chart}\n    value: '{value}'\n",
        patch_type.to_lowercase()
    )
}

fn database() -> World {
    let mut world = World::new(TWO);
    let sub = subscription("db", "{env: prod}", &["web"]).replace(
        "  feeds:\n",
        "  feeds:\n  - {apiVersion: apps.clusternet.io/v1alpha1, kind: HelmChart, namespace: shop, name: mysql}\n",
    );
    world
        .write("sub.yaml", &sub)
        .write("web.yaml", &config("web", "one"))
        .write("chart.yaml", &chart("  version: 9.2.0\n"))
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    world
}

fn release(world: &World) -> serde_json::Value {
    crate::core::yaml::parse_value(&world.text(RELEASE), &Limits::default()).unwrap()
}

#[test]
fn a_chart_becomes_a_release_beside_the_manifests() {
    let world = database();
    let release = release(&world);
    assert_eq!(release["kind"], "HelmRelease");
    assert_eq!(release["spec"]["version"], "9.2.0");
    assert_eq!(release["spec"]["values"], serde_json::json!({}));
    let description = world.text("clusters/clusternet-east/apps.db/description.yaml");
    assert!(description.contains("deployer: Helm"), "{description}");
    assert!(
        description.contains("release: helmrelease.apps.clusternet.io_shop_mysql.yaml"),
        "{description}"
    );
    assert!(
        description.find("HelmChart") < description.find("ConfigMap"),
        "feeds in order: {description}"
    );
    assert_eq!(world.paths().len(), 2, "the other feed is a manifest in both clusters");
}

#[test]
fn values_merge_and_overrides_of_the_chart_change_the_chart() {
    let mut world = database();
    let global = entry(
        "Helm",
        false,
        r#"{"image":{"tag":"1"},"primary":{"persistence":null},"list":[1,2]}"#,
    ) + &entry(
        "Helm",
        true,
        r#"{"spec":{"version":"9.1.0"},"metadata":{"labels":{"a":"global","b":"global"}}}"#,
    );
    let local = entry("JSONPatch", false, r#"[{"op":"add","path":"/list/-","value":3}]"#)
        + &entry("MergePatch", false, r#"{"image":{"tag":"2"}}"#)
        + &entry(
            "JSONPatch",
            true,
            r#"[{"op":"replace","path":"/spec/version","value":"9.1.8"}]"#,
        )
        + &entry(
            "MergePatch",
            true,
            r#"{"metadata":{"labels":{"b":null}},"spec":{"wait":true}}"#,
        );
    world
        .write("g.yaml", &override_of_chart("Globalization", 1000, &global))
        .write("l.yaml", &override_of_chart("Localization", 0, &local))
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    let release = release(&world);
    assert_eq!(release["metadata"]["labels"], serde_json::json!({"a": "global"}));
    let values = serde_json::json!({"image": {"tag": "2"}, "primary": {"persistence": null}, "list": [1, 2, 3]});
    assert_eq!(
        release["spec"]["values"], values,
        "a null stays: it removes the chart's default"
    );
    assert_eq!(
        (&release["spec"]["version"], &release["spec"]["wait"]),
        (&"9.1.8".into(), &true.into())
    );
    let provenance = world.text("provenance/clusternet-east/apps.db.yaml");
    for field in [
        "/spec/values/list/2",
        "/spec/values/image/tag",
        "/spec/version",
        "/metadata/labels/b",
        "/spec/wait",
    ] {
        assert!(provenance.contains(&format!("- {field}\n")), "{field}: {provenance}");
    }
}

#[test]
fn what_decides_the_release_cannot_be_overridden() {
    for value in [
        r#"{"spec":{"chart":"other"}}"#,
        r#"{"spec":{"targetNamespace":"other"}}"#,
        r#"{"spec":{"nonsense":1}}"#,
    ] {
        let mut world = database();
        world
            .write("chart.yaml", &chart("  version: 9.9.9\n"))
            .write("l.yaml", &override_of_chart("Localization", 1, &entry("Helm", true, value)))
            .write("web.yaml", &config("web", "two"))
            .run();
        assert_eq!(world.codes(), [("patch-failure", "l.yaml", 8)], "{value}");
        assert_eq!(release(&world)["spec"]["version"], "9.2.0", "the feed is held: {value}");
        assert!(
            world
                .text("clusters/clusternet-east/apps.db/manifests/configmap_shop_web.yaml")
                .contains("two")
        );
        assert!(
            world.text(&RELEASE.replace("east", "west")).contains("9.9.9"),
            "the other cluster goes on"
        );
    }
}

#[test]
fn a_json_patch_before_any_values_is_skipped_with_a_warning() {
    let mut world = database();
    let patch = entry("JSONPatch", false, r#"[{"op":"add","path":"/a","value":1}]"#);
    world.write("l.yaml", &override_of_chart("Localization", 1, &patch)).run();
    assert_eq!(world.codes(), [("patch-missing-path", "l.yaml", 8)]);
    assert_eq!(release(&world)["spec"]["values"], serde_json::json!({}));
}

#[test]
fn override_chart_on_another_object_is_skipped_with_a_warning() {
    let mut world = web();
    let local = localization("l", "ApplyNow", 1, "MergePatch", r#"{"data":{"key":"x"}}"#) + "    overrideChart: true\n";
    world.write("l.yaml", &local).run();
    assert_eq!(world.codes(), [("no-effect", "l.yaml", 12)]);
    assert!(world.text(EAST).contains("key: one"));
}

#[test]
fn a_chart_that_cannot_be_carried_out_is_held() {
    let mut world = database();
    let bad = chart("  version: 9.2.0\n  timeoutSeconds: soon\n").replace("https://charts", "charts");
    world.write("chart.yaml", &bad).run();
    assert_eq!(
        world.codes(),
        [("invalid-field", "chart.yaml", 11), ("missing-feed", "sub.yaml", 8)]
    );
    assert_eq!(release(&world)["spec"]["repo"], "https://charts.example.org");
    world
        .write("chart.yaml", &chart("  nonsense: 1\n").replace("https://charts", "charts"))
        .run();
    assert_eq!(world.codes()[0], ("unknown-field", "chart.yaml", 10));
    world
        .write(
            "chart.yaml",
            &chart("")
                .replace("https://charts", "charts")
                .replace("Namespace: db", "Namespace: a b"),
        )
        .run();
    assert_eq!(
        world.codes()[..2],
        [("invalid-field", "chart.yaml", 7), ("invalid-field", "chart.yaml", 9)]
    );
}

#[test]
fn a_chart_in_the_default_namespace_need_not_say_so() {
    let mut world = database();
    let bare = |text: String| {
        text.replace("  namespace: shop\n", "")
            .replace("kind: HelmChart, namespace: shop", "kind: HelmChart")
    };
    for path in ["chart.yaml", "sub.yaml"] {
        let text = bare(world.files[path].clone());
        world.write(path, &text);
    }
    let local = override_of_chart("Localization", 1, &entry("Helm", false, r#"{"a":1}"#));
    world.write("l.yaml", &bare(local)).run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    assert!(world.text(&RELEASE.replace("_shop_", "_default_")).contains("a: 1"));
}

#[test]
fn a_release_read_back_is_the_release() {
    let mut world = database();
    let files: BTreeMap<String, ObjectId> = state::paths(&world.state)
        .into_iter()
        .map(|(path, leaf)| (path, leaf.id))
        .collect();
    let read = state::read(&files, &mut |id| Ok(world.contents[&id].clone())).unwrap();
    assert_eq!(state::build(&read).root, state::build(&world.state).root);
    let outcome = world.outcome(&read);
    assert_eq!(state::build(&outcome.state).root, state::build(&world.state).root);
}

/// A Subscription of one HelmChart, and the chart; both charts install `db/mysql`.
fn chart_of(sub: &str, namespace: &str) -> String {
    let feed = format!("  - {{apiVersion: apps.clusternet.io/v1alpha1, kind: HelmChart, namespace: {namespace}, name: mysql}}\n");
    let chart = chart("").replace("namespace: shop", &format!("namespace: {namespace}"));
    subscription(sub, "{env: prod}", &[]).replace("    []\n", "") + &feed + "---\n" + &chart
}

fn releases(world: &World) -> Vec<String> {
    let paths = state::paths(&world.state).into_iter().map(|(path, _)| path);
    let east = paths.filter_map(|path| path.strip_prefix("clusters/clusternet-east/").map(str::to_owned));
    east.filter_map(|path| {
        path.split_once("/releases/helmrelease.apps.clusternet.io_")
            .map(|(sub, file)| format!("{sub} {file}"))
    })
    .collect()
}

#[test]
fn two_charts_of_one_release_in_one_cluster_are_an_error_and_the_owner_keeps_it() {
    let mut world = World::new(TWO);
    world.write("z.yaml", &chart_of("zoo", "shop")).run();
    assert_eq!(releases(&world), ["apps.zoo shop_mysql.yaml"]);
    world.write("a.yaml", &chart_of("ape", "other")).run();
    assert_eq!(
        releases(&world),
        ["apps.zoo shop_mysql.yaml"],
        "the owner in the previous state keeps it"
    );
    assert_eq!(world.codes(), [("object-conflict", "a.yaml", 8)], "{:?}", world.diagnostics);
    assert!(world.diagnostics[0].message.contains("installs the Helm release db/mysql"));
    world.state = State::default();
    world.memory = Memory::default();
    world.run();
    assert_eq!(
        releases(&world),
        ["apps.ape other_mysql.yaml"],
        "else the first by namespace and name"
    );
    let elsewhere = chart_of("ape", "other").replace("targetNamespace: db", "targetNamespace: db2");
    world.write("a.yaml", &elsewhere).run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    assert_eq!(releases(&world).len(), 2);
}

#[test]
fn two_charts_of_one_release_in_one_subscription_are_an_error_and_the_delivered_one_keeps_it() {
    let mut world = World::new(TWO);
    world.write("s.yaml", &chart_of("s", "shop")).run();
    let ahead = "  feeds:\n  - {apiVersion: apps.clusternet.io/v1alpha1, kind: HelmChart, namespace: other, name: mysql}\n";
    let second = chart("").replace("namespace: shop", "namespace: other");
    let both = chart_of("s", "shop").replace("  feeds:\n", ahead) + "---\n" + &second;
    world.write("s.yaml", &both).run();
    assert_eq!(releases(&world), ["apps.s shop_mysql.yaml"]);
    assert_eq!(world.codes(), [("object-conflict", "s.yaml", 8)], "{:?}", world.diagnostics);
}

#[test]
fn a_held_chart_keeps_its_release_from_another() {
    let mut world = World::new(TWO);
    world.write("z.yaml", &chart_of("zoo", "shop")).run();
    let broken = chart_of("zoo", "shop").replace("repo: https", "repo: gopher");
    world
        .write("z.yaml", &broken)
        .write("a.yaml", &chart_of("ape", "other"))
        .run();
    assert_eq!(releases(&world), ["apps.zoo shop_mysql.yaml"]);
}
