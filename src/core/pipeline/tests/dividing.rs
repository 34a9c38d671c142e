//! Dividing, FeedInventories and taints from files to the state branch and back.

use super::*;

const WORKLOAD: &str =
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {replicas: 6, template: {}}\n";

fn divided(kind: &str) -> String {
    let spec = format!("spec:\n  schedulingStrategy: Dividing\n  dividingScheduling: {{type: {kind}}}\n");
    subscription("web", "{env: prod}", &["web"])
        .replace("spec:\n", &spec)
        .replace("apiVersion: v1, kind: ConfigMap", "apiVersion: apps/v1, kind: Deployment")
}

fn dividing() -> World {
    let mut world = World::new(TWO);
    world.write("sub.yaml", &divided("Static")).write("web.yaml", WORKLOAD).run();
    assert!(world.codes().is_empty(), "{:?}", world.diagnostics);
    world
}

const WEB_EAST: &str = "clusters/clusternet-east/apps.web/manifests/deployment.apps_shop_web.yaml";

#[test]
fn a_share_is_the_last_override_and_follows_the_total() {
    let mut world = dividing();
    let local = localization("l", "ApplyNow", 1000, "MergePatch", r#"{"spec":{"replicas":50}}"#);
    world
        .write(
            "l.yaml",
            &local.replace("apiVersion: v1, kind: ConfigMap", "apiVersion: apps/v1, kind: Deployment"),
        )
        .run();
    assert!(world.text(WEB_EAST).contains("replicas: 3"), "{}", world.text(WEB_EAST));
    assert!(
        world
            .text("provenance/clusternet-east/apps.web.yaml")
            .contains("kind: Subscription")
    );
    world.write("web.yaml", &WORKLOAD.replace('6', "9")).run();
    assert!(world.text(WEB_EAST).contains("replicas: 5"));
    world.write("web.yaml", "kind: [\n").run();
    assert!(
        world.text(WEB_EAST).contains("replicas: 5"),
        "a feed that cannot be read keeps its shares"
    );
    assert!(world.text("subscriptions/apps/web.yaml").contains("- 5\n    - 4\n"));
}

#[test]
fn replicas_are_read_back_and_keep_dynamic_dividing_still() {
    let mut world = dividing();
    world.write("sub.yaml", &divided("Dynamic")).run();
    assert!(
        world.codes().is_empty(),
        "what was placed stays where it is, whatever fits: {:?}",
        world.diagnostics
    );
    let files: BTreeMap<String, ObjectId> = state::paths(&world.state)
        .into_iter()
        .map(|(path, leaf)| (path, leaf.id))
        .collect();
    let read = state::read(&files, &mut |id| Ok(world.contents[&id].clone())).unwrap();
    assert_eq!(read.subscriptions, world.state.subscriptions);
    assert_eq!(
        state::build(&world.outcome(&read).state).root,
        state::build(&world.state).root
    );
}

#[test]
fn many_bindings_are_read_back_from_their_shards() {
    let mut world = World::new(&[]);
    for n in 0..1_500 {
        world.clusters.insert(format!("c{n}"), vec![("env", "prod")]);
    }
    world
        .write("sub.yaml", &divided("Static"))
        .write("web.yaml", &WORKLOAD.replace('6', "2000"))
        .run();
    let files: BTreeMap<String, ObjectId> = state::paths(&world.state)
        .into_iter()
        .map(|(path, leaf)| (path, leaf.id))
        .collect();
    assert!(files.keys().any(|path| path.starts_with("subscriptions/apps/web/")));
    let read = state::read(&files, &mut |id| Ok(world.contents[&id].clone())).unwrap();
    let shares = |state: &State| {
        let bindings = state.subscriptions.values().next().unwrap().bindings.clone();
        (
            bindings.clusters.len(),
            bindings.replicas.values().flat_map(|shares| shares.values()).sum::<i64>(),
        )
    };
    assert_eq!(shares(&read), (1_500, 2_000));
    assert_eq!(read.subscriptions, world.state.subscriptions);
}

const INVENTORY: &str = "apiVersion: apps.clusternet.io/v1alpha1\nkind: FeedInventory\nmetadata: {name: web, namespace: apps}\nspec:\n  feeds:\n  \
                         - {apiVersion: apps/v1, kind: Deployment, namespace: shop, name: web, desiredReplicas: 10, replicaJsonPath: /spec/size}\n";

#[test]
fn a_feed_inventory_says_where_replicas_stand() {
    let mut world = dividing();
    world.write("inventory.yaml", INVENTORY).run();
    assert!(world.text(WEB_EAST).contains("size: 5") && world.text(WEB_EAST).contains("replicas: 6"));
    world.write("inventory.yaml", "kind: [\n").run();
    assert!(
        world.text(WEB_EAST).contains("size: 5"),
        "a FeedInventory that cannot be read holds"
    );
    world
        .write("inventory.yaml", &INVENTORY.replace(", replicaJsonPath: /spec/size", ""))
        .run();
    assert!(world.text(WEB_EAST).contains("size: 5"));
    assert_eq!(world.codes(), [("invalid-field", "inventory.yaml", 6)]);
    let strangers = INVENTORY.replace("name: web, desired", "name: wbe, desired");
    world.write("inventory.yaml", &strangers).run();
    assert_eq!(world.codes(), [("inventory-without-feed", "inventory.yaml", 6)]);
    world
        .write(
            "inventory.yaml",
            &INVENTORY.replace("{name: web, namespace: apps}", "{name: nobody, namespace: apps}"),
        )
        .run();
    assert_eq!(world.codes(), [("inventory-without-subscription", "inventory.yaml", 3)]);
}

#[test]
fn a_share_that_cannot_be_written_holds_its_feed() {
    let mut world = dividing();
    world
        .write("inventory.yaml", &INVENTORY.replace("/spec/size", "/spec/pool/size"))
        .run();
    assert_eq!(world.codes(), [("share-not-written", "sub.yaml", 5)]);
    assert!(world.text(WEB_EAST).contains("replicas: 3"), "{}", world.text(WEB_EAST));
    let gone = localization("l", "ApplyNow", 1, "MergePatch", r#"{"spec":null}"#);
    let gone = gone.replace("apiVersion: v1, kind: ConfigMap", "apiVersion: apps/v1, kind: Deployment");
    world.write("inventory.yaml", "").write("l.yaml", &gone).run();
    assert_eq!(world.codes(), [("share-not-written", "sub.yaml", 5)]);
    assert!(world.text(WEB_EAST).contains("replicas: 3"));
}

#[test]
fn what_a_secret_holds_is_not_told_where_it_is_no_number() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: web, namespace: shop}\nstringData: {size: hunter2}\n";
    let inventory = "apiVersion: apps.clusternet.io/v1alpha1\nkind: FeedInventory\nmetadata: {name: web, namespace: apps}\nspec:\n  feeds:\n  \
                     - {apiVersion: v1, kind: Secret, namespace: shop, name: web, replicaJsonPath: /stringData/size}\n";
    let sub = divided("Static").replace("apiVersion: apps/v1, kind: Deployment", "apiVersion: v1, kind: Secret");
    let mut world = World::new(TWO);
    world
        .write("sub.yaml", &sub)
        .write("web.yaml", secret)
        .write("inventory.yaml", inventory)
        .run();
    assert_eq!(world.codes(), [("invalid-field", "web.yaml", 1)]);
    assert!(
        !world.diagnostics[0].to_string().contains("hunter2"),
        "{:?}",
        world.diagnostics
    );
}

#[test]
fn replicas_that_fit_nowhere_are_told_with_what_is_known_of_the_room() {
    let mut world = World::new(TWO);
    world.write("sub.yaml", &divided("Dynamic")).write("web.yaml", WORKLOAD).run();
    assert_eq!(world.codes(), [("replicas-do-not-fit", "sub.yaml", 10)]);
    assert!(
        world.diagnostics[0]
            .hint
            .starts_with("nothing is known of the clusters' room")
    );
    let allocatable = [("pods".to_owned(), crate::core::quantity::Quantity::parse("2").unwrap())];
    let live = Live {
        allocatable: allocatable.into_iter().collect(),
        ..Live::default()
    };
    world.live.insert("clusternet-east".into(), live);
    world.run();
    assert_eq!(world.codes(), [("replicas-do-not-fit", "sub.yaml", 10)]);
    let found = &world.diagnostics[0];
    assert!(
        found.message.starts_with("4 of 6") && found.hint.starts_with("ask for fewer"),
        "{found}"
    );
}

#[test]
fn a_replica_count_that_is_none_holds_its_feed() {
    let mut world = dividing();
    world.write("web.yaml", &WORKLOAD.replace('6', "many")).run();
    assert_eq!(world.codes(), [("invalid-field", "web.yaml", 1)]);
    assert!(world.text(WEB_EAST).contains("replicas: 3"));
}

#[test]
fn taints_of_hub_clusters_count_and_are_held() {
    let mut world = web();
    let cluster = |taints: &str| {
        format!(
            "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {{name: east}}\nspec:\n  taints: [{taints}]\n"
        )
    };
    world.write("hub/east.yaml", &cluster("{key: gone, effect: NoExecute}")).run();
    assert_eq!(world.paths(), [WEST]);
    assert!(
        world
            .text("managedclusters/clusternet-east.yaml")
            .contains("effect: NoExecute")
    );
    world.write("hub/east.yaml", "kind: [\n").run();
    assert_eq!(world.paths(), [WEST], "taints that cannot be seen stay");
    world.write("hub/east.yaml", &cluster("{key: gone, effect: Never}")).run();
    assert_eq!(
        (world.codes(), world.paths()),
        (vec![("invalid-field", "hub/east.yaml", 5)], vec![WEST.to_owned()])
    );
}

#[test]
fn what_is_wrong_with_a_subscription_is_placed_at_its_field() {
    let dynamic = |field: &str| {
        let spec = format!(
            "spec:\n  schedulingStrategy: Dividing\n  dividingScheduling:\n    type: Dynamic\n    dynamicDividing:\n      {field}\n"
        );
        divided("x").replace(
            "spec:\n  schedulingStrategy: Dividing\n  dividingScheduling: {type: x}\n",
            &spec,
        )
    };
    let static_weights = |weight: &str| {
        divided("Static").replace(
            "matchLabels: {env: prod}}",
            &format!("matchLabels: {{env: prod}}}}\n    weight: {weight}"),
        )
    };
    let spec = |field: &str| subscription("web", "{env: prod}", &["web"]).replace("spec:\n", &format!("spec:\n  {field}\n"));
    let term = "preference: {matchExpressions: [{key: a, operator: Exists}]}";
    let cases = [
        (spec("schedulingStrategy: Divide"), "/spec/schedulingStrategy"),
        (divided("Fair"), "/spec/dividingScheduling/type"),
        (spec("preemptionPolicy: Always"), "/spec/preemptionPolicy"),
        (
            spec("clusterTolerations: [{key: a, operator: In}]"),
            "/spec/clusterTolerations/0/operator",
        ),
        (spec("schedulingBySubGroup: true"), "/spec/subscribers/0/subGroupStrategy"),
        (static_weights("-1"), "/spec/subscribers/0/weight"),
        (static_weights("0"), "/spec/subscribers/0/weight"),
        (
            dynamic("strategy: Random"),
            "/spec/dividingScheduling/dynamicDividing/strategy",
        ),
        (
            dynamic("minClusters: -1"),
            "/spec/dividingScheduling/dynamicDividing/minClusters",
        ),
        (
            dynamic("maxClusters: 0"),
            "/spec/dividingScheduling/dynamicDividing/maxClusters",
        ),
        (
            dynamic("{minClusters: 3, maxClusters: 2}"),
            "/spec/dividingScheduling/dynamicDividing/minClusters",
        ),
        (
            dynamic("topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]"),
            "/spec/dividingScheduling/dynamicDividing/topologySpreadConstraints/0/maxSkew",
        ),
        (
            dynamic("topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Never}]"),
            "/spec/dividingScheduling/dynamicDividing/topologySpreadConstraints/0/whenUnsatisfiable",
        ),
        (
            dynamic(&format!("preferredClusters: [{{weight: 101, {term}}}]")),
            "/spec/dividingScheduling/dynamicDividing/preferredClusters/0/weight",
        ),
    ];
    for (text, field) in cases {
        let mut world = dividing();
        let before = world.paths();
        world.write("sub.yaml", &text).run();
        let errors: Vec<&Diagnostic> = world.diagnostics.iter().filter(|found| found.is_error()).collect();
        let [error] = errors[..] else {
            panic!("{text}\n{:?}", world.diagnostics)
        };
        assert_eq!((error.code.as_str(), error.field.as_str()), ("invalid-field", field));
        assert!(error.line > 3 && !error.hint.is_empty(), "{error}");
        assert_eq!(world.paths(), before, "the Subscription is held");
    }
}
