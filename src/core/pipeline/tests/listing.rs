//! What stays although a Subscription lists it no more.

use super::*;

#[test]
fn a_misspelt_feed_removes_nothing_until_the_list_is_right() {
    let mut world = World::new(TWO);
    world
        .write("web.yaml", &config("web", "one"))
        .write("other.yaml", &config("other", "one"));
    world
        .write("s.yaml", &subscription("s", "{env: prod}", &["web", "other"]))
        .run();
    world.write("s.yaml", &subscription("s", "{env: prod}", &["wbe"])).run();
    for _ in 0..2 {
        assert_eq!(world.paths().len(), 4, "both stay in both clusters: {:?}", world.diagnostics);
        let codes: Vec<&str> = world.codes().iter().map(|(code, _, _)| *code).collect();
        assert_eq!(
            codes,
            ["removal-waits", "removal-waits", "missing-feed"],
            "{:?}",
            world.diagnostics
        );
        world.run();
    }
    world.clusters.insert("north".to_owned(), vec![("env", "prod")]);
    world.run();
    assert_eq!(world.paths().len(), 4, "a cluster that joins gets nothing that is not listed");
    world.write("s.yaml", &subscription("s", "{env: prod}", &["web"])).run();
    assert_eq!(world.paths().len(), 3, "with the right list what was taken out goes");
    world
        .remove("web.yaml")
        .write("s.yaml", &subscription("s", "{env: prod}", &["web", "other"]))
        .run();
    world.write("s.yaml", &subscription("s", "{env: prod}", &["web"])).run();
    assert_eq!(
        world.paths().len(),
        3,
        "a feed that was delivered and is gone is no misspelling: the other goes"
    );
}

#[test]
fn a_misspelt_workload_keeps_its_replicas() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {replicas: 5}\n";
    let sub = |name: &str| {
        let dividing = "  schedulingStrategy: Dividing\n  dividingScheduling: {type: Static}\n  feeds:\n";
        let feed = format!("  - {{apiVersion: apps/v1, kind: Deployment, namespace: shop, name: {name}}}\n");
        subscription("s", "{env: prod}", &[]).replace("  feeds:\n    []\n", &(dividing.to_owned() + &feed))
    };
    let mut world = World::new(TWO);
    world.write("web.yaml", deployment).write("s.yaml", &sub("web")).run();
    let replicas = |world: &World| {
        world.state.subscriptions.values().next().unwrap().bindings.replicas["apps/v1/Deployment/shop/web"].clone()
    };
    let before = (
        replicas(&world),
        world.text("clusters/clusternet-east/apps.s/manifests/deployment.apps_shop_web.yaml"),
    );
    world.write("s.yaml", &sub("wbe")).run();
    let after = (
        replicas(&world),
        world.text("clusters/clusternet-east/apps.s/manifests/deployment.apps_shop_web.yaml"),
    );
    assert_eq!(before, after);
}
