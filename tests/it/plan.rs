//! `branchline plan` as scripts meet it: exit codes, the JSON, a folder against a commit, what is held, secrets, colours.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::process::{command, run};
use crate::tour::Tour;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn equal_sides_are_nothing_to_do() {
    let tour = Tour::start();
    for arguments in [
        ["plan", "HEAD..HEAD"].as_slice(),
        &["plan", "HEAD"],
        &["plan"],
        &["plan", "HEAD..", "--cluster", "lab"],
    ] {
        let output = tour.run(arguments);
        assert!(
            output.stderr.contains("next: branchline check .") && output.code == Some(0),
            "{output:?}"
        );
        assert!(
            format!("{}{}", output.stdout, output.stderr).contains("nothing to do"),
            "{output:?}"
        );
    }
    let document = json(&tour.run(&["plan", "-o", "json"]).ok());
    assert_eq!(
        (&document["changes"], &document["clusters"]["hit"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );
}

#[test]
fn changes_are_exit_code_1_and_counted_once() {
    let tour = Tour::start();
    let output = tour.run(&["plan", "HEAD..origin/next", "-o", "json"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let document = json(&output.stdout);
    let first = &document["changes"][0];
    assert_eq!(
        (&first["action"], &first["object"]["kind"]),
        (&"delete".into(), &"PersistentVolumeClaim".into())
    );
    assert_eq!((&first["dangerous"], &first["count"]), (&true.into(), &3.into()));
    let web = &document["replicas"][0];
    assert_eq!(web["feed"], "apps/v1/Deployment/shop/web");
    let tokyo = web["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["cluster"] == "tokyo")
        .unwrap();
    assert_eq!((&tokyo["from"], &tokyo["to"]), (&2.into(), &4.into()));
}

#[test]
fn a_folder_is_planned_before_anything_is_committed() {
    let tour = Tour::start();
    let config = tour.folder().join("shop/config.yaml");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("EUR", "JPY")).unwrap();
    let text = tour.run(&["plan", "HEAD", "--cluster", "tokyo"]).fails_with(1);
    assert!(text.contains("-  currency: EUR\n+  currency: JPY\n"), "{text}");
    let outside = tour.run(&["plan", "HEAD", "--cluster", "lab"]);
    assert_eq!(outside.code, Some(0), "lab does not get the shop: {outside:?}");
}

#[test]
fn what_breaks_is_exit_code_2_and_shows_what_is_held() {
    let tour = Tour::start();
    let broken = tour.commit(&[("shop/subscription.yaml", "kind: [\n")]);
    let text = tour.run(&["plan", &format!("origin/main..{broken}")]).fails_with(2);
    for part in [
        "nothing to do",
        "held: Subscription shop/shop keeps its last result",
        "shop/subscription.yaml:1: error:",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mended = tour.run(&["plan", &format!("{broken}..origin/main"), "-o", "json"]);
    assert_ne!(
        mended.code,
        Some(2),
        "the earlier side's errors are not the push's: {mended:?}"
    );
}

#[test]
fn what_cannot_be_planned_is_exit_code_2() {
    let tour = Tour::start();
    for (arguments, said) in [
        (["plan", "nope"].as_slice(), "revspec 'nope' not found"),
        (&["plan", "HEAD...HEAD"], "three dots"),
        (&["plan", "HEAD", "--cluster", "prais"], "near names: paris"),
        (&["plan", "HEAD", "--clusters", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (&["plan", "HEAD", "-o", "yaml"], "possible values"),
    ] {
        let text = tour.run(arguments).fails_with(2);
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn a_change_that_waits_is_pending_and_nothing_to_do() {
    let tour = Tour::start();
    let later = "apiVersion: apps.clusternet.io/v1alpha1\nkind: Localization\nmetadata: {name: later, namespace: clusternet-paris}\nspec:\n  \
                 overridePolicy: ApplyLater\n  feed: {apiVersion: v1, kind: ConfigMap, namespace: shop, name: web}\n  overrides:\n  \
                 - {name: later, type: MergePatch, value: '{\"data\":{\"currency\":\"USD\"}}'}\n";
    fs::write(tour.folder().join("later.yaml"), later).unwrap();
    let output = tour.run(&["plan"]);
    assert!(
        output
            .stderr
            .contains("pending: ConfigMap shop/web in paris (Subscription shop/shop, ApplyLater, in no commit yet)"),
        "{output:?}"
    );
    assert_eq!(output.code, Some(0));
}

#[test]
fn secrets_differ_without_being_shown() {
    let tour = Tour::start();
    let file = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: db, namespace: shop}}\nstringData: {{password: {value}}}\n---\n\
             apiVersion: apps.clusternet.io/v1alpha1\nkind: Subscription\nmetadata: {{name: s, namespace: shop}}\nspec:\n  subscribers:\n  \
             - clusterAffinity: {{}}\n  feeds:\n  - {{apiVersion: v1, kind: Secret, namespace: shop, name: db}}\n"
        )
    };
    let before = tour.commit(&[("secret.yaml", &file("hunter2"))]);
    let after = tour.commit(&[("secret.yaml", &file("swordfish"))]);
    let range = format!("{before}..{after}");
    for arguments in [
        ["-o", "text", "--cluster", "lab"],
        ["-o", "json", "--cluster", "lab"],
        ["-o", "markdown", "--cluster", "lab"],
    ] {
        let mut all = vec!["plan", &range, "--allow-plain-secrets"];
        all.extend(arguments);
        let text = tour.run(&all).fails_with(1);
        assert!(text.contains("*** (before)") && text.contains("*** (after)"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{text}");
    }
}

/// Runs a plan on a pseudo terminal, as util-linux' `script` gives one.
fn on_a_terminal(tour: &Tour, no_color: bool) -> String {
    let line = format!("{} plan HEAD..origin/next --cluster paris", env!("CARGO_BIN_EXE_branchline"));
    let mut script = command(Path::new("script"), &tour.folder());
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    if no_color {
        script.env("NO_COLOR", "1");
    }
    run(&mut script).fails_with(1)
}

#[test]
fn diffs_are_coloured_on_a_terminal_alone() {
    let tour = Tour::start();
    assert!(on_a_terminal(&tour, false).contains("\u{1b}[32m+"));
    assert!(!on_a_terminal(&tour, true).contains('\u{1b}'));
    let piped = tour.run(&["plan", "HEAD..origin/next", "--cluster", "paris"]).fails_with(1);
    assert!(!piped.contains('\u{1b}'), "{piped}");
}

#[test]
fn the_file_with_the_clusters_is_as_long_as_the_fleet_is_large() {
    let tour = Tour::start();
    let cluster = |number: usize| {
        format!(
            "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {{name: c{number}}}\nspec: {{syncMode: Pull}}\n"
        )
    };
    let all: Vec<String> = (0..20_001).map(cluster).collect();
    let file = tour.scratch("clusters.yaml");
    fs::write(&file, all.join("---\n")).unwrap();
    let output = tour.run(&["check", ".", "--clusters", &file.display().to_string()]);
    assert!(output.stderr.contains("for 20001 clusters"), "{output:?}");
}

#[test]
fn clusters_that_cannot_be_told_apart_are_wrong_usage() {
    let tour = Tour::start();
    let one = |name: &str, namespace: &str, id: u8| {
        format!(
            "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
             {{clusterId: 00000000-0000-4000-8000-00000000000{id}}}\n"
        )
    };
    for (text, said) in [
        (
            one("a", "n1", 1) + "---\n" + &one("b", "n1", 2),
            ":6: a and b have the same namespace n1",
        ),
        (
            one("a", "n1", 1) + "---\n" + &one("a", "n2", 2),
            ":6: two clusters have the name a",
        ),
        (
            one("a", "n1", 1) + "---\n" + &one("b", "n2", 1),
            ":6: b has the clusterId 00000000-0000-4000-8000-000000000001 of another cluster",
        ),
        ("# none\n".to_owned(), "clusters.yaml holds no cluster"),
    ] {
        let file = tour.scratch("clusters.yaml").display().to_string();
        fs::write(&file, text).unwrap();
        for command in ["check", "render"] {
            let output = tour.run(&[command, ".", "--clusters", &file]).fails_with(2);
            assert!(output.contains(said), "{said}: {output}");
        }
    }
}

#[test]
fn a_previous_state_is_one_that_was_rendered_and_names_the_fleet() {
    let tour = Tour::start();
    let state = tour.scratch("state").display().to_string();
    tour.run(&["render", ".", "--clusters", "hub/clusters.yaml", "--out", &state])
        .ok();
    for command in ["check", "plan"] {
        let source: &[&str] = if command == "check" { &["."] } else { &[] };
        let output = tour.run(&[&[command], source, &["--previous", "hub"]].concat()).fails_with(2);
        assert!(output.contains("hub holds no state: it has no layout.yaml"), "{output}");
    }
    fs::remove_dir_all(tour.folder().join("hub")).unwrap();
    let output = tour.run(&["check", ".", "--previous", &state]);
    assert!(output.stderr.contains("for 4 clusters: no errors"), "{output:?}");
}

#[test]
fn a_subscription_of_nothing_changes_placements_alone() {
    let tour = Tour::start();
    let empty = "apiVersion: apps.clusternet.io/v1alpha1\nkind: Subscription\nmetadata: {name: empty, namespace: shop}\nspec:\n  \
                 subscribers: [{clusterAffinity: {}}]\n  feeds: []\n";
    fs::write(tour.folder().join("empty.yaml"), empty).unwrap();
    let text = tour.run(&["plan"]).fails_with(1);
    assert!(text.contains("4 of 4 clusters: no object changes, placements do\n"), "{text}");
    assert!(
        text.contains("Subscription shop/empty: joins berlin, lab, paris, tokyo"),
        "{text}"
    );
}
