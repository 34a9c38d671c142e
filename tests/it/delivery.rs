//! The main job, end to end: `git push` → rendered → tunnel → applied in real clusters, followed through updates and removals.

use serde_json::{Value, json};

use crate::support::fleet::Fleet;
use crate::support::samples::{
    base, cluster_feed, config_map, config_map_feed, document, feed, greeting, localization, namespace, subscription,
};
use crate::support::{holds, wait_until};

#[test]
fn a_push_is_applied_updated_and_pruned_where_it_belongs() {
    let fleet = Fleet::start(&["a", "b"]);
    fleet.repo.push(
        "first",
        &[
            ("base.yaml", &base()),
            ("everywhere.yaml", &greeting("everywhere", &[], "hello")),
            ("only-b.yaml", &greeting("only-b", &[("name", "b")], "hello")),
            (
                "local.yaml",
                &localization("clusternet-b", "other", "everywhere", "MergePatch", "data: {greeting: moin}"),
            ),
        ],
    );
    fleet.wait_greeting(0, "everywhere", Some("hello"));
    fleet.wait_greeting(1, "everywhere", Some("moin"));
    fleet.wait_greeting(1, "only-b", Some("hello"));
    assert_eq!(fleet.config_maps(0), ["everywhere"]);

    fleet
        .repo
        .push("update", &[("only-b.yaml", &greeting("only-b", &[("name", "b")], "changed"))]);
    fleet.wait_greeting(1, "only-b", Some("changed"));

    fleet.repo.push_removal("Subscription gone", &["only-b.yaml"]);
    fleet.wait_greeting(1, "only-b", None);
    let no_feeds = subscription("everywhere", &[], &[]);
    fleet.repo.push(
        "feed gone",
        &[("everywhere.yaml", &(no_feeds + "---\n" + &config_map("everywhere", "hello")))],
    );
    fleet.wait_greeting(0, "everywhere", None);
    fleet.wait_greeting(1, "everywhere", None);

    assert!(fleet.servers[0].get("/api/v1/namespaces/shop").is_some());
    assert!(fleet.repo.show("branchline/state", "README.md").len() > 20);
}

#[test]
fn a_custom_resource_arrives_in_the_push_that_brings_its_definition() {
    let fleet = Fleet::start(&["a"]);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "widgets", "singular": "widget", "kind": "Widget" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": { "type": "object", "properties": { "size": { "type": "integer" } } } } } } }],
        },
    });
    let widget = json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "namespace": "shop", "name": "one" }, "spec": { "size": 3 } });
    // The resource stands before its definition and before its namespace, in the feeds and in the files.
    let feeds = [
        feed("example.com/v1", "Widget", "one"),
        cluster_feed("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.example.com"),
        cluster_feed("v1", "Namespace", "shop"),
    ];
    fleet.repo.push(
        "widgets",
        &[
            ("a.yaml", &(subscription("widgets", &[], &feeds) + &document(&widget))),
            ("b.yaml", &(document(&definition) + "---\n" + &namespace("shop"))),
        ],
    );
    let widget = wait_until("the Widget is there", || {
        fleet.servers[0]
            .get("/apis/example.com/v1/namespaces/shop/widgets/one")
            .ok_or_else(|| fleet.agents[0].log())
    });
    assert_eq!(widget["spec"]["size"], 3);
}

#[test]
fn a_broken_file_keeps_the_last_good_state_and_stops_nothing_else() {
    let fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "good",
        &[
            ("base.yaml", &base()),
            ("one.yaml", &greeting("one", &[], "good")),
            ("two.yaml", &greeting("two", &[], "good")),
        ],
    );
    fleet.wait_greeting(0, "one", Some("good"));
    fleet.wait_greeting(0, "two", Some("good"));

    fleet.repo.push(
        "bad",
        &[("one.yaml", "kind: [\n"), ("two.yaml", &greeting("two", &[], "better"))],
    );
    fleet.wait_greeting(0, "two", Some("better"));
    assert_eq!(fleet.greeting(0, "one").as_deref(), Some("good"));
    wait_until("the hub names file and line", || {
        holds(fleet.hub.log().contains("one.yaml:"), fleet.hub.log())
    });

    fleet.repo.push("mended", &[("one.yaml", &greeting("one", &[], "mended"))]);
    fleet.wait_greeting(0, "one", Some("mended"));
}

#[test]
fn a_chart_is_reported_as_not_applied_and_holds_nothing_back() {
    let fleet = Fleet::start(&["a"]);
    let chart = json!({"apiVersion": "apps.clusternet.io/v1alpha1", "kind": "HelmChart", "metadata": {"namespace": "shop", "name": "db"},
        "spec": {"repo": "https://charts.example.org", "chart": "db", "version": "1.0.0", "targetNamespace": "db"}});
    let db = feed("apps.clusternet.io/v1alpha1", "HelmChart", "db");
    let (kept, gone) = (config_map_feed("kept"), config_map_feed("gone"));
    let app = subscription("app", &[], &[db.clone(), kept.clone(), gone]);
    let objects = document(&chart) + "---\n" + &config_map("kept", "hello") + "---\n" + &config_map("gone", "hello");
    fleet.repo.push(
        "a chart among other feeds",
        &[("base.yaml", &base()), ("app.yaml", &app), ("objects.yaml", &objects)],
    );
    fleet.wait_greeting(0, "kept", Some("hello"));
    fleet.wait_greeting(0, "gone", Some("hello"));
    fleet
        .repo
        .push("one feed gone", &[("app.yaml", &subscription("app", &[], &[db, kept]))]);
    fleet.wait_greeting(0, "gone", None);
    let descriptions = "/apis/apps.clusternet.io/v1alpha1/namespaces/clusternet-a/descriptions/shop.app";
    wait_until("the Description says what is not applied", || {
        let description = fleet.hub.get(descriptions).unwrap_or_default();
        let want = "HelmChart shop/db: NotApplied: charts are not rendered in this version";
        let said = description["status"]["phase"] == "Failure" && description["status"]["reason"] == want;
        holds(said && description["spec"]["deployer"] == "Helm", description.to_string())
    });
    let charts = "/apis/apps.clusternet.io/v1alpha1/namespaces/shop/helmcharts/db";
    assert_eq!(fleet.hub.get(charts).unwrap()["spec"]["version"], "1.0.0");
}

#[test]
fn a_change_larger_than_any_message_arrives_whole() {
    const COUNT: usize = 60;
    let fleet = Fleet::start(&["a"]);
    let names: Vec<String> = (0..COUNT).map(|number| format!("large-{number:02}")).collect();
    let feeds: Vec<Value> = names.iter().map(|name| config_map_feed(name)).collect();
    fleet.repo.put("base.yaml", &base());
    fleet.repo.put("large.yaml", &subscription("large", &[], &feeds));
    // Noise that compresses badly, 400 KB each: 24 MB in all, where a frame holds 16.
    let mut noise = 1u64;
    for name in &names {
        let mut text = String::with_capacity(400_000);
        while text.len() < 400_000 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text += &format!("{noise:016x}");
        }
        fleet.repo.put(&format!("{name}.yaml"), &config_map(name, &text));
    }
    fleet.repo.push("large", &[]);
    wait_until("all are applied", || {
        let found = fleet.config_maps(0).len();
        holds(
            found == COUNT,
            format!("{found} are there\n{}{}", fleet.hub.log(), fleet.agents[0].log()),
        )
    });
}

#[test]
fn every_mistake_at_once_stops_nothing_else_and_each_is_named() {
    let fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "good",
        &[
            ("base.yaml", &base()),
            ("one.yaml", &greeting("one", &[], "good")),
            ("two.yaml", &greeting("two", &[], "good")),
        ],
    );
    fleet.wait_greeting(0, "one", Some("good"));
    fleet.wait_greeting(0, "two", Some("good"));

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
    }
    fleet.repo.put("one.yaml", "kind: [\n");
    fleet.repo.put("two.yaml", &greeting("two", &[], "better"));
    fleet.repo.put("bomb.yaml", &bomb);
    fleet
        .repo
        .put("deep.yaml", &format!("a: {}{}\n", "[".repeat(10_000), "]".repeat(10_000)));
    fleet.repo.put(
        "twice.yaml",
        &(config_map("twice", "a") + "---\n" + &config_map("twice", "b")),
    );
    fleet
        .repo
        .put("lost.yaml", &subscription("lost", &[], &[config_map_feed("nowhere")]));
    fleet.repo.put_bytes(b"big.yaml", &vec![b'a'; 100 * 1024 * 1024]);
    fleet.repo.put_bytes(b"caf\xe9.yaml", b"kind: X\n");
    fleet.repo.put_symlink("link.yaml", "/etc/passwd");
    fleet.repo.put_submodule("vendor");
    fleet.repo.push("everything is wrong", &[]);
    fleet.wait_greeting(0, "two", Some("better"));
    assert_eq!(fleet.greeting(0, "one").as_deref(), Some("good"));
    let status = wait_until("the hub's status names each", || {
        let output = fleet.hub.command(&["status"]);
        let text = output.stdout + &output.stderr;
        holds(output.code == Some(1) && text.contains("one.yaml:1"), text.clone())?;
        Ok(text)
    });
    for file in [
        "bomb.yaml",
        "deep.yaml",
        "twice.yaml",
        "lost.yaml",
        "big.yaml",
        "caf",
        "link.yaml",
        "vendor",
    ] {
        assert!(status.contains(file), "{file} is not named in\n{status}");
    }
}

#[test]
fn an_object_that_the_api_server_rejects_is_reported_and_the_others_are_applied() {
    let fleet = Fleet::start(&["a"]);
    let bad = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "shop", "name": "bad" },
        "spec": { "ports": [{ "port": 700_000 }] },
    });
    let feeds = [feed("v1", "Service", "bad"), config_map_feed("beside")];
    let mixed = subscription("mixed", &[], &feeds) + "---\n" + &config_map("beside", "here") + &document(&bad);
    let other = greeting("other", &[], "here");
    fleet.repo.push(
        "mixed",
        &[("base.yaml", &base()), ("mixed.yaml", &mixed), ("other.yaml", &other)],
    );
    fleet.wait_greeting(0, "beside", Some("here"));
    fleet.wait_greeting(0, "other", Some("here"));

    let descriptions = "/apis/apps.clusternet.io/v1alpha1/namespaces/clusternet-a/descriptions";
    let failed = wait_until("the Description says what was rejected", || {
        let list = fleet.hub.get(descriptions).unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let failed = items.into_iter().find(|item| item["status"]["phase"] == "Failure");
        failed.ok_or_else(|| format!("{list:#}\n{}", fleet.agents[0].log()))
    });
    let text = failed["status"].to_string();
    assert!(text.contains("bad") && text.contains("700000"), "{text}");
    let status = fleet.hub.command(&["status"]).fails_with(1);
    let line = "failing: cluster a, Description shop.mixed: 1 of 2 objects failed; Service shop/bad: ";
    assert!(status.contains(line) && status.contains("700000"), "{status}");

    let mended = subscription("mixed", &[], &[config_map_feed("beside")]) + "---\n" + &config_map("beside", "mended");
    fleet.repo.push("mended", &[("mixed.yaml", &mended)]);
    fleet.wait_greeting(0, "beside", Some("mended"));
    wait_until("no Description has failed", || {
        let list: Value = fleet.hub.get(descriptions).unwrap_or_default();
        holds(!list.to_string().contains("\"Failure\""), format!("{list:#}"))
    });
    let status = fleet.hub.command(&["status"]).ok();
    assert!(!status.contains("failing"), "{status}");
}

#[test]
fn a_restart_of_hub_or_agent_does_nothing_when_all_is_in_sync() {
    let mut fleet = Fleet::start(&["a", "b"]);
    let one = greeting("one", &[], "hello");
    fleet.repo.push("one", &[("base.yaml", &base()), ("one.yaml", &one)]);
    fleet.wait_greeting(0, "one", Some("hello"));
    fleet.wait_greeting(1, "one", Some("hello"));
    wait_until("both agents have reported success", || {
        let phases: Vec<String> = ["a", "b"].iter().flat_map(|name| phases(&fleet, name)).collect();
        holds(
            phases.len() == 4 && phases.iter().all(|phase| phase == "Success"),
            format!("{phases:?}"),
        )
    });
    let state = fleet.state();
    let before = [fleet.writes(0), fleet.writes(1)];
    assert!(!before[0].is_empty() && !before[1].is_empty());

    fleet.hub.kill();
    fleet.hub.start_again();
    for agent in &mut fleet.agents {
        agent.kill();
        agent.launch();
    }
    fleet.wait_all_ready();
    assert_eq!(fleet.state(), state, "a restart wrote a commit");

    // A change for one cluster alone shows that both sides are at work again, and comes after anything that the restart might have set off.
    let two = greeting("two", &[("name", "b")], "hello");
    fleet.repo.push("two", &[("two.yaml", &two)]);
    fleet.wait_greeting(1, "two", Some("hello"));
    assert_eq!(
        fleet.writes(0),
        before[0],
        "a restart, or a change for another cluster, wrote to cluster a"
    );
    let later = fleet.writes(1).split_off(before[1].len());
    let unexpected: Vec<_> = later
        .iter()
        .filter(|event| !event.uri.contains("two") && !event.uri.contains("branchline-inventory"))
        .collect();
    assert!(unexpected.is_empty(), "a restart wrote to cluster b: {unexpected:#?}");
}

#[test]
fn a_new_layout_of_the_branch_moves_directories_and_applies_nothing_anew() {
    let mut fleet = Fleet::start(&["a"]);
    let one = greeting("one", &[], "hello");
    fleet.repo.push("one", &[("base.yaml", &base()), ("one.yaml", &one)]);
    fleet.wait_greeting(0, "one", Some("hello"));
    wait_until("the agent has reported success", || {
        let phases = phases(&fleet, "a");
        holds(
            phases.iter().filter(|phase| *phase == "Success").count() == 2,
            format!("{phases:?}"),
        )
    });
    let levels = |fleet: &Fleet| {
        let files = fleet.repo.files("branchline/state");
        let manifest = files.iter().find(|path| path.ends_with("configmap_shop_one.yaml"));
        manifest.map(|path| path.split("/clusternet-a/").next().unwrap_or_default().matches('/').count())
    };
    assert_eq!(levels(&fleet), Some(0));
    let before = fleet.writes(0);

    fleet.hub.kill();
    fleet.hub = fleet.hub.with("--cluster-fan-out=2");
    fleet.hub.start_again();
    wait_until("the branch is laid out anew", || {
        holds(levels(&fleet) == Some(2), format!("{:?}", levels(&fleet)))
    });
    fleet.wait_all_ready();
    fleet.repo.push("two", &[("two.yaml", &greeting("two", &[], "hello"))]);
    fleet.wait_greeting(0, "two", Some("hello"));
    let later = fleet.writes(0).split_off(before.len());
    let again: Vec<_> = later.iter().filter(|event| event.uri.contains("one")).collect();
    assert!(again.is_empty(), "the layout's change wrote to the cluster: {again:#?}");
    assert_eq!(levels(&fleet), Some(2));
}

/// The phases of a cluster's Descriptions, as the hub tells them.
fn phases(fleet: &Fleet, cluster: &str) -> Vec<String> {
    let path = format!("/apis/apps.clusternet.io/v1alpha1/namespaces/clusternet-{cluster}/descriptions");
    let list = fleet.hub.get(&path).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| item["status"]["phase"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn labels_below_hub_decide_where_things_go_and_outrank_the_agents() {
    let fleet = Fleet::start(&["a", "b"]);
    fleet.repo.push(
        "first",
        &[
            ("base.yaml", &base()),
            ("gold.yaml", &greeting("gold", &[("tier", "gold")], "hello")),
        ],
    );
    let labelled = |labels: &[(&str, &str)]| {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let id = fleet.servers[0].cluster_id();
        format!(
            "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata:\n  namespace: clusternet-a\n  name: a\n  labels: {{{}}}\n\
             spec: {{clusterId: {id}, syncMode: Pull}}\n",
            labels.join(", ")
        )
    };
    fleet.repo.push(
        "a is gold",
        &[("hub/clusters.yaml", &labelled(&[("name", "a"), ("tier", "gold")]))],
    );
    fleet.wait_greeting(0, "gold", Some("hello"));
    assert!(fleet.config_maps(1).is_empty());

    // Another cluster takes its place: without one, the last placement would stay.
    let other = greeting("gold", &[("name", "b")], "hello");
    fleet.repo.push("b instead", &[("gold.yaml", &other)]);
    fleet.wait_greeting(1, "gold", Some("hello"));
    fleet.wait_greeting(0, "gold", None);
}
