//! Bundles: a folder as one feed, object by object, held and removed by the same rules as feeds that are listed.

use super::*;

const BUNDLE: &str =
    "apiVersion: branchline.io/v1alpha1\nkind: Bundle\nmetadata: {name: base, namespace: shop}\nspec: {path: base}\n";
const DESCRIPTION: &str = "clusters/clusternet-east/apps.web/description.yaml";

/// A Subscription of a Bundle alone.
fn of_bundle() -> String {
    subscription("web", "{env: prod}", &["x"]).replace(
        "apiVersion: v1, kind: ConfigMap, namespace: shop, name: x",
        "apiVersion: branchline.io/v1alpha1, kind: Bundle, namespace: shop, name: base",
    )
}

fn folder() -> World {
    let mut world = World::new(TWO);
    world
        .write("sub.yaml", &of_bundle())
        .write("bundle.yaml", BUNDLE)
        .write("base/web.yaml", &config("web", "one"))
        .write("base/deep/more.yaml", &(config("a", "one") + "---\n" + &config("b", "one")))
        .write("basement/other.yaml", &config("other", "one"))
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    world
}

fn east(world: &World) -> Vec<String> {
    let mine = |path: &String| path.starts_with("clusters/clusternet-east/");
    let name = |path: String| {
        path.rsplit('/')
            .next()
            .unwrap()
            .replace("configmap_shop_", "")
            .replace(".yaml", "")
    };
    world.paths().into_iter().filter(mine).map(name).collect()
}

#[test]
fn every_object_of_the_folder_is_a_manifest_of_its_own() {
    let mut world = folder();
    assert_eq!(east(&world), ["a", "b", "web"]);
    assert!(world.text(DESCRIPTION).contains("bundle: shop/base"));
    world
        .write(
            "l.yaml",
            &localization("l", "ApplyNow", 1, "MergePatch", r#"{"data":{"key":"east"}}"#),
        )
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    assert!(world.text(EAST).contains("key: east") && world.text(WEST).contains("key: one"));
    assert!(world.text("provenance/clusternet-east/apps.web.yaml").contains("name: web"));
}

#[test]
fn moving_an_object_within_the_folder_changes_no_byte() {
    let mut world = folder();
    let before = state::build(&world.state).root;
    world
        .remove("base/web.yaml")
        .write("base/a/first.yaml", &config("web", "one"))
        .run();
    assert_eq!(state::build(&world.state).root, before);
}

#[test]
fn an_object_that_left_the_folder_is_removed_unless_its_file_may_hold_it() {
    let mut world = folder();
    world.write("base/deep/more.yaml", "kind: [\n").run();
    assert_eq!(east(&world), ["a", "b", "web"], "the file may define them still");
    world.write("base/deep/more.yaml", &config("a", "two")).run();
    assert_eq!(east(&world), ["a", "web"], "a tree that parses says that b is gone");
    world
        .write("basement/other.yaml", "kind: [\n")
        .remove("base/deep/more.yaml")
        .run();
    assert_eq!(
        east(&world),
        ["a", "web"],
        "while any file does not parse, absence says nothing"
    );
    world.write("basement/other.yaml", &config("a", "moved")).run();
    assert_eq!(east(&world), ["web"], "it stands elsewhere now");
}

#[test]
fn what_is_wrong_with_one_object_holds_that_object() {
    let mut world = folder();
    world
        .write("base/copy.yaml", &config("a", "copy"))
        .write("base/web.yaml", &config("web", "two"))
        .run();
    assert_eq!(east(&world), ["a", "b", "web"]);
    assert_eq!(
        world.codes().iter().map(|(code, ..)| *code).collect::<Vec<_>>(),
        ["duplicate-object", "duplicate-object"]
    );
    assert!(world.text(EAST).contains("two"));
    world.remove("base/copy.yaml");
    world.write(
        "l.yaml",
        &localization("l", "ApplyNow", 1, "JSONPatch", r#"[{"op":"nonsense","path":"/a"}]"#),
    );
    world.write("base/web.yaml", &config("web", "three")).run();
    assert!(world.text(EAST).contains("two") && world.text(WEST).contains("three"));
}

#[test]
fn a_bundle_that_is_gone_or_wrong_holds_all_of_it() {
    let mut world = folder();
    world.remove("bundle.yaml").run();
    assert_eq!(
        (east(&world).len(), world.codes()),
        (3, vec![("missing-feed", "sub.yaml", 8)])
    );
    world
        .write("bundle.yaml", &BUNDLE.replace("path: base", "path: ../base"))
        .run();
    assert_eq!(
        world.codes(),
        [("invalid-field", "bundle.yaml", 4), ("missing-feed", "sub.yaml", 8)]
    );
    world.write("bundle.yaml", &BUNDLE.replace("path: base", "path: bsae")).run();
    assert_eq!(
        world.codes(),
        [("empty-bundle", "bundle.yaml", 4), ("missing-feed", "sub.yaml", 8)]
    );
    world.write("bundle.yaml", &BUNDLE.replace("path: base", "dir: base")).run();
    assert_eq!(world.codes()[0], ("unknown-field", "bundle.yaml", 4));
    assert_eq!(east(&world), ["a", "b", "web"]);
    world.write("sub.yaml", &subscription("web", "{env: prod}", &[])).run();
    assert!(east(&world).is_empty(), "taking it out of feeds is an act");
}

#[test]
fn a_kustomization_in_the_folder_holds_it() {
    let mut world = folder();
    world.write("base/deep/kustomization.yaml", "resources: [more.yaml]\n");
    world.write("base/web.yaml", &config("web", "two")).run();
    assert_eq!(
        world.codes(),
        [("unsupported", "bundle.yaml", 4), ("missing-feed", "sub.yaml", 8)]
    );
    assert!(world.diagnostics[0].message.contains("base/deep/kustomization.yaml"));
    assert!(world.text(EAST).contains("one"));
    world
        .remove("base/deep/kustomization.yaml")
        .write("kustomization.yaml", "resources: [base]\n")
        .run();
    assert_eq!(world.codes(), [("kustomization", "kustomization.yaml", 0)]);
    assert!(!world.diagnostics[0].is_error() && world.text(EAST).contains("two"));
}

#[test]
fn an_object_in_a_folder_and_in_a_feed_is_delivered_once() {
    let mut world = folder();
    let listed = of_bundle() + "  - {apiVersion: v1, kind: ConfigMap, namespace: shop, name: web}\n";
    world.write("sub.yaml", &listed).run();
    assert_eq!(
        (east(&world).len(), world.codes()),
        (3, vec![("duplicate-feed", "sub.yaml", 8)])
    );
    world.write("base/web.yaml", "kind: [\n").run();
    assert_eq!(east(&world), ["a", "b", "web"]);
}

#[test]
fn two_feeds_that_end_as_one_object_are_a_conflict() {
    let mut world = folder();
    world.write(
        "base/other.yaml",
        &config("web", "away").replace("namespace: shop", "namespace: away"),
    );
    let moves = localization("l", "ApplyNow", 1, "MergePatch", r#"{"metadata":{"namespace":"shop"}}"#);
    world
        .write(
            "l.yaml",
            &moves.replace("namespace: shop, name: web", "namespace: away, name: web"),
        )
        .run();
    assert_eq!(world.codes(), [("object-conflict", "sub.yaml", 8)]);
    assert_eq!(east(&world), ["a", "b", "web"]);
}

#[test]
fn a_bundle_itself_cannot_be_overridden() {
    let mut world = folder();
    let wrong = localization("l", "ApplyNow", 1, "MergePatch", "a: b").replace(
        "apiVersion: v1, kind: ConfigMap, namespace: shop, name: web",
        "apiVersion: branchline.io/v1alpha1, kind: Bundle, namespace: shop, name: base",
    );
    world.write("l.yaml", &wrong).run();
    assert_eq!(world.codes(), [("invalid-field", "l.yaml", 7)]);
}

#[test]
fn a_workload_of_a_folder_is_divided_like_any_other() {
    let mut world = folder();
    let workload = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {replicas: 6}\n";
    let dividing = of_bundle()
        .replace(
            "  subscribers:",
            "  schedulingStrategy: Dividing\n  dividingScheduling: {type: Static}\n  subscribers:\n  - clusterAffinity: {matchLabels: {tier: edge}}\n    weight: 1",
        )
        .replace("matchLabels: {env: prod}}", "matchLabels: {env: prod}}\n    weight: 1");
    world
        .write("base/deployment.yaml", workload)
        .write("sub.yaml", &dividing)
        .run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    let replicas = |world: &World, cluster: &str| {
        let path = format!("clusters/clusternet-{cluster}/apps.web/manifests/deployment.apps_shop_web.yaml");
        let text = world.text(&path);
        text.lines().find(|line| line.contains("replicas")).unwrap().trim().to_owned()
    };
    assert_eq!(
        (replicas(&world, "east"), replicas(&world, "west")),
        ("replicas: 2".into(), "replicas: 4".into())
    );
    world.write("base/web.yaml", "kind: [\n").run();
    assert_eq!(
        (replicas(&world, "east"), replicas(&world, "west")),
        ("replicas: 2".into(), "replicas: 4".into())
    );
    assert_eq!(east(&world).len(), 4);
}
