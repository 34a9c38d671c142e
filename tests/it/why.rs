//! `branchline why` as scripts meet it: exit codes, the JSON, near names, where the clusters come from, secrets.

use serde_json::Value;

use crate::tour::Tour;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_answer_as_json_has_every_step_with_its_place() {
    let tour = Tour::start();
    let answer = json(
        &tour
            .run(&["why", "berlin", "cm/web", "-n", "shop", "/data/greeting", "-o", "json"])
            .ok(),
    );
    assert_eq!(answer["cluster"], "clusternet-berlin/berlin");
    assert_eq!(answer["subscriptions"][0]["outcome"], "Chosen");
    let chain = &answer["delivery"]["fields"][0];
    assert_eq!(
        (&chain["field"], &chain["value"]),
        (&"/data/greeting".into(), &"guten Tag".into())
    );
    let steps: Vec<(&str, u64)> = chain["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["value"].as_str().unwrap(), step["line"].as_u64().unwrap()))
        .collect();
    assert_eq!(steps, [("hello", 5), ("bonjour", 10), ("guten Tag", 23)]);
    let entry = &answer["delivery"]["entries"][1];
    assert_eq!(
        (&entry["kind"], &entry["type"], &entry["priority"]),
        (&"Localization".into(), &"JSONPatch".into(), &500.into())
    );
}

#[test]
fn what_is_not_there_is_wrong_usage_with_near_names() {
    let tour = Tour::start();
    for (arguments, said) in [
        (["why", "berln", "configmap/web"].as_slice(), "near names: berlin"),
        (&["why", "berlin", "configmap/wbe"], "ConfigMap shop/web"),
        (
            &["why", "berlin", "service/agent", "-n", "shop"],
            "neither the source nor the cluster has service/agent in namespace shop",
        ),
        (
            &["why", "berlin", "configmap/web", "data.greetin"],
            "near names: /data/greeting",
        ),
        (&["why", "berlin", "serviceaccount"], "is not KIND/NAME"),
        (
            &["why", "berlin", "configmap/web", "--source", "nowhere"],
            "neither a folder nor repo@rev",
        ),
    ] {
        let text = tour.run(arguments).fails_with(2);
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn the_clusters_of_a_state_are_enough() {
    let tour = Tour::start();
    let state = tour.scratch("state").display().to_string();
    tour.run(&["render", ".", "--clusters", "hub/clusters.yaml", "--out", &state])
        .ok();
    std::fs::remove_dir_all(tour.folder().join("hub")).unwrap();
    let without = tour.run(&["why", "berlin", "configmap/web"]).fails_with(2);
    assert!(without.contains("add --clusters FILE"), "{without}");
    let with = tour.run(&["why", "berlin", "configmap/web", "--previous", &state]).ok();
    assert!(with.contains("guten Tag"), "{with}");
}

#[test]
fn an_object_that_is_held_is_told_so_and_the_exit_code_is_1() {
    let tour = Tour::start();
    let state = tour.scratch("state").display().to_string();
    tour.run(&["render", ".", "--clusters", "hub/clusters.yaml", "--out", &state])
        .ok();
    let overrides = tour.folder().join("shop/overrides.yaml");
    let text = std::fs::read_to_string(&overrides).unwrap();
    std::fs::write(&overrides, text.replace("path: /data/greeting", "path: data")).unwrap();
    let said = tour
        .run(&["why", "berlin", "configmap/web", "data.greeting", "--previous", &state])
        .fails_with(1);
    for part in [
        "held: the last result stays",
        "now: \"guten Tag\"",
        "next: correct the errors above",
        "shop/overrides.yaml:25: error: Localization.apps.clusternet.io clusternet-berlin/greeting",
        "entry \"greeting\" (0)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_secret_is_explained_without_its_values() {
    let tour = Tour::start();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\nstringData: {password: hunter2}\n";
    let feed = "apiVersion: apps.clusternet.io/v1alpha1\nkind: Subscription\nmetadata: {name: s, namespace: shop}\nspec:\n  subscribers:\n  \
                - clusterAffinity: {}\n  feeds:\n  - {apiVersion: v1, kind: Secret, namespace: shop, name: db}\n---\n\
                apiVersion: apps.clusternet.io/v1alpha1\nkind: Localization\nmetadata: {name: s, namespace: clusternet-paris}\nspec:\n  \
                feed: {apiVersion: v1, kind: Secret, namespace: shop, name: db}\n  overrides:\n  \
                - {name: other, type: MergePatch, value: '{\"stringData\":{\"password\":\"swordfish\"}}'}\n";
    std::fs::write(tour.folder().join("secret.yaml"), format!("{secret}---\n{feed}")).unwrap();
    for format in ["text", "json"] {
        let asked = [
            "why",
            "paris",
            "secret/db",
            "stringData.password",
            "--allow-plain-secrets",
            "-o",
            format,
        ];
        let said = tour.run(&asked).ok();
        assert!(
            said.contains("***") && !said.contains("hunter2") && !said.contains("swordfish"),
            "{said}"
        );
    }
    let refused = tour.run(&["why", "paris", "secret/db"]).fails_with(1);
    assert!(
        refused.contains("--allow-plain-secrets") && !refused.contains("hunter2"),
        "{refused}"
    );
}

fn later(priority: u32, currency: &str) -> String {
    format!(
        "apiVersion: apps.clusternet.io/v1alpha1\nkind: Localization\nmetadata: {{name: later, namespace: clusternet-paris}}\nspec:\n  \
         overridePolicy: ApplyLater\n  priority: {priority}\n  feed: {{apiVersion: v1, kind: ConfigMap, namespace: shop, name: web}}\n  \
         overrides:\n  - {{name: later, type: MergePatch, value: '{{\"data\":{{\"currency\":\"{currency}\"}}}}'}}\n"
    )
}

#[test]
fn a_change_that_waits_is_told_with_its_commit() {
    let tour = Tour::start();
    let state = tour.scratch("state").display().to_string();
    tour.run(&["render", ".", "--clusters", "hub/clusters.yaml", "--out", &state])
        .ok();
    let since = |source: &str| {
        let asked = [
            "why",
            "paris",
            "configmap/web",
            "-n",
            "shop",
            "data.currency",
            "--source",
            source,
        ];
        let mut asked = asked.to_vec();
        asked.extend(["--previous", &state, "-o", "json"]);
        json(&tour.run(&asked).ok())["delivery"]["since"].clone()
    };
    let of = |commit: &str| {
        let found = since(&format!(".@{commit}"));
        (found["commit"].as_str().map(str::to_owned), found["atLeast"].clone())
    };
    tour.commit(&[("later.yaml", &later(1, "USD"))]);
    tour.commit(&[("later.yaml", "# withdrawn\n")]);
    assert_eq!(since(".@HEAD"), Value::Null, "nothing waits");
    let begun = tour.commit(&[("later.yaml", &later(1, "USD"))]);
    assert_eq!(of("HEAD"), (Some(begun.clone()), false.into()));
    tour.commit(&[("README.md", "1\n")]);
    tour.commit(&[("later.yaml", &later(2, "CHF"))]);
    let moved = tour.commit(&[("later.yaml", "# moved\n"), ("other/later.yaml", &later(2, "CHF"))]);
    assert_eq!(of("HEAD"), (Some(begun.clone()), false.into()), "it never stopped waiting");
    let text = tour
        .run(&[
            "why",
            "paris",
            "configmap/web",
            "-n",
            "shop",
            "--source",
            ".@HEAD",
            "--previous",
            &state,
        ])
        .ok();
    assert!(
        text.contains("waits for the next change, since 20") && text.contains(&format!("commit {}", &begun[..7])),
        "{text}"
    );
    for number in 0..60 {
        tour.commit(&[("notes.yaml", &format!("# {number}\n"))]);
    }
    let (commit, at_least) = of("HEAD");
    assert_eq!(at_least, true, "the log is followed so far and no further");
    assert_ne!(commit, Some(moved));
    std::fs::write(tour.folder().join("later.yaml"), later(1, "USD")).unwrap();
    tour.run(&[
        "render",
        ".",
        "--clusters",
        "hub/clusters.yaml",
        "--out",
        &state,
        "--previous",
        &state,
    ])
    .ok();
    let checked_out = tour.commit(&[("later.yaml", "# withdrawn\n"), ("other/later.yaml", "# withdrawn\n")]);
    assert_eq!(since(".")["committed"], false, "the folder has what {checked_out} has not");
}
