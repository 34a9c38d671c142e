//! The hub's own API through the real kubectl: what is in sync, what is not and why; discovery, explanations, lists and watches; what may be
//! written and what git owns. The agents speak the protocol and nothing more.

use std::path::PathBuf;
use std::time::Duration;

use branchline::hub::HubConfig;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::apiserver;
use crate::support::process::Output;
use crate::support::repository::GitRepo;
use crate::support::whole_hub::{Candidate, Joined, WholeHub, config, home};
use crate::support::{holds, wait_until};

const SHOP: &str = "apiVersion: apps.clusternet.io/v1alpha1
kind: Subscription
metadata: {name: web, namespace: shop}
spec:
  subscribers: [{clusterAffinity: {}}]
  feeds:
  - {apiVersion: v1, kind: ConfigMap, name: web, namespace: shop}
  - {apiVersion: apps.clusternet.io/v1alpha1, kind: HelmChart, name: mysql, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data: {a: '1'}
---
apiVersion: apps.clusternet.io/v1alpha1
kind: HelmChart
metadata: {name: mysql, namespace: shop}
spec: {repo: 'https://charts.example.org', chart: mysql, version: 9.1.8, targetNamespace: db}
";

const MORE: &str = "apiVersion: apps.clusternet.io/v1alpha1
kind: Subscription
metadata: {name: share, namespace: shop}
spec:
  schedulingStrategy: Dividing
  dividingScheduling: {type: Static}
  subscribers: [{clusterAffinity: {matchLabels: {nobody: here}}}]
  feeds: [{apiVersion: apps/v1, kind: Deployment, name: api, namespace: shop}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  replicas: 6
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: api, image: api, resources: {requests: {cpu: 100m}}}]}
---
apiVersion: apps.clusternet.io/v1alpha1
kind: Globalization
metadata: {name: all}
spec:
  priority: 300
  overrides: [{name: a, type: MergePatch, value: '{\"data\":{\"b\":\"2\"}}'}]
  feed: {apiVersion: v1, kind: ConfigMap, name: web, namespace: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: unfed, namespace: shop}
stringData: {password: hunter2}
";

/// A hub over a repository with a shop, and its administrator's kubectl.
pub(crate) struct Shop {
    pub(crate) source: GitRepo,
    pub(crate) home: TempDir,
    pub(crate) hub: WholeHub,
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        Shop::open_with(|_| {}).await
    }

    /// The same with another configuration of the hub.
    pub(crate) async fn open_with(change: impl FnOnce(&mut HubConfig)) -> Shop {
        let (source, home) = (GitRepo::with(&[("shop.yaml", SHOP), ("more.yaml", MORE)]), home());
        let mut config = config(&source, &home);
        change(&mut config);
        let hub = WholeHub::start(config).await;
        hub.until("the source was read", |status| status["source"].is_string()).await;
        Shop { source, home, hub }
    }

    /// Stops the hub and starts it again on the same data.
    pub(crate) async fn restart(self) -> Shop {
        let Shop { source, home, hub } = self;
        hub.stop().await;
        let hub = WholeHub::start(config(&source, &home)).await;
        Shop { source, home, hub }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("data/admin.kubeconfig")
    }

    /// Runs kubectl while the hub goes on in other threads.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        tokio::task::block_in_place(|| apiserver::kubectl(&self.kubeconfig(), arguments))
    }

    /// Writes a file for kubectl; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Waits until kubectl prints what is wanted.
    pub(crate) fn wait(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        tokio::task::block_in_place(|| {
            wait_until(&format!("kubectl {arguments:?} is as wanted"), || {
                let output = apiserver::kubectl(&self.kubeconfig(), arguments);
                holds(wanted(&output.stdout), format!("{}{}", output.stdout, output.stderr))?;
                Ok(output.stdout)
            })
        })
    }

    /// A cluster whose tunnel stands and whose API server is ready.
    pub(crate) async fn join(&self, number: u8, name: &str) -> Joined {
        let token = self.hub.token(None).await;
        let candidate = Candidate::new(number, name);
        let certificate = candidate.certificate(&self.hub, Some(&token)).await;
        let status = json!({"status": {"k8sVersion": "v1.35.4", "livez": true, "readyz": true, "healthz": true}});
        candidate.join(&self.hub, &certificate, status).await.unwrap()
    }
}

/// Reports one Description of what was offered last.
async fn report(agent: &mut Joined, applied: bool, description: Value) {
    let offer = loop {
        let offer = agent.offer().await;
        if offer.tree != branchline::core::ids::ObjectId::EMPTY_TREE {
            break offer;
        }
    };
    let report = json!({
        "epoch": offer.epoch, "generation": offer.generation, "tree": offer.tree, "held": true, "applied": applied,
        "descriptions": [description],
    });
    let report = branchline::wire::control::ToHub::Report(serde_json::from_value(report).unwrap());
    agent.sender.send(&report, b"").await.unwrap();
}

fn well() -> Value {
    json!({"name": "shop.web", "phase": "Success", "objects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "web", "outcome": "Applied"},
    ]})
}

fn broken() -> Value {
    json!({"name": "shop.web", "phase": "Failure", "reason": "1 of 2 objects fail", "objects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "web", "outcome": "Failed",
            "message": "ConfigMap shop/web: namespaces \"shop\" not found"},
        {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "other", "outcome": "Applied"},
    ]})
}

/// The words of the row that begins with a word.
fn row<'t>(table: &'t str, word: &str) -> Vec<&'t str> {
    let line = table.lines().find(|line| line.split_whitespace().any(|cell| cell == word));
    line.unwrap_or_else(|| panic!("no {word} in\n{table}"))
        .split_whitespace()
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_say_what_is_in_sync_what_is_not_and_why() {
    let shop = Shop::open().await;
    let (mut east, mut west) = (shop.join(1, "east").await, shop.join(2, "west").await);
    report(&mut east, true, well()).await;
    report(&mut west, false, broken()).await;

    let clusters = shop.wait(&["get", "mcls", "-A"], |out| {
        out.contains("1 of 1 fail") && out.contains("1/1")
    });
    let east_row = row(&clusters, "east");
    assert_eq!(
        (east_row[4], &east_row[5..8]),
        ("v1.35.4", &["True", "True", "1/1"][..]),
        "{clusters}"
    );
    assert!(!clusters.contains("<unknown>"), "{clusters}");
    let west_row = row(&clusters, "west");
    assert_eq!(&west_row[5..8], ["True", "False", "0/1"], "{clusters}");

    let subscriptions = shop.wait(&["get", "subs", "-A", "-o", "wide"], |out| {
        out.contains("fails in 1 of 2 clusters: west")
    });
    let web = row(&subscriptions, "web");
    assert_eq!(&web[..6], ["shop", "web", "2", "1", "False", "True"], "{subscriptions}");
    for word in ["Replication", "east,west", "shop.yaml:1", "ConfigMap shop/web"] {
        assert!(subscriptions.contains(word), "{word}: {subscriptions}");
    }
    assert!(row(&subscriptions, "share").contains(&"Dividing"), "{subscriptions}");

    let descriptions = shop.kubectl(&["get", "desc", "-n", "clusternet-west"]).ok();
    let cells = row(&descriptions, "shop.web");
    assert_eq!(&cells[1..4], ["Helm", "Failure", "1/2"], "{descriptions}");
    assert!(descriptions.contains("1 of 2 objects fail"), "{descriptions}");
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_has_content_and_selectors() {
    let shop = Shop::open().await;
    let (mut east, mut west) = (shop.join(1, "east").await, shop.join(2, "west").await);
    report(&mut east, true, well()).await;
    report(&mut west, false, broken()).await;
    shop.wait(&["get", "mcls", "-A"], |out| {
        out.contains("1 of 1 fail") && out.contains("1/1")
    });

    let names = |what: &str, more: &[&str]| shop.kubectl(&[&["get", what, "-A", "-o", "name"], more].concat()).ok();
    assert_eq!(
        names("desc", &["--field-selector=status.phase=Failure"]),
        "description.apps.clusternet.io/shop.web\n"
    );
    assert_eq!(names("base", &[]).lines().count(), 2);
    assert_eq!(
        names("mcls", &["-l", "clusters.clusternet.io/cluster-name=east"])
            .lines()
            .count(),
        1
    );
    let id = "spec.clusterId=00000002-7a77-4a9e-8b7c-6e1b7b6f1a2b";
    assert!(names("mcls", &["--field-selector", id]).ends_with("/west\n"));
    assert!(names("clsrr", &["--field-selector", id]).contains("clusternet-00000002"));
    let unknown = shop
        .kubectl(&["get", "mcls", "-A", "--field-selector=spec.color=red"])
        .fails_with(1);
    assert!(unknown.contains("field label not supported: spec.color"), "{unknown}");

    for (what, words) in [
        ("base", vec!["shop.web", "east", "ConfigMap shop/web, HelmChart shop/mysql"]),
        (
            "hr",
            vec!["shop.web.shop.mysql", "mysql", "9.1.8", "https://charts.example.org"],
        ),
        ("charts", vec!["shop", "mysql", "9.1.8", "shop.yaml:15"]),
        ("glob", vec!["all", "ConfigMap shop/web", "300", "ApplyNow", "more.yaml:20"]),
        (
            "manifests",
            vec!["clusternet-reserved", "deployment.apps.shop.api", "more.yaml:10"],
        ),
        ("finv", vec!["share", "Deployment shop/api", "6", "more.yaml:1"]),
        ("clsrr", vec!["east", "Approved"]),
        ("ns", vec!["shop", "clusternet-east", "default", "Active"]),
    ] {
        let table = shop.kubectl(&["get", what, "-A"]).ok();
        for word in words {
            assert!(table.contains(word), "{what}: no {word} in\n{table}");
        }
    }
    let secret = shop
        .kubectl(&[
            "get",
            "manifests",
            "-n",
            "clusternet-reserved",
            "secret.shop.unfed",
            "-o",
            "yaml",
        ])
        .ok();
    assert!(secret.contains("password") && !secret.contains("hunter2"), "{secret}");
    let all = shop.kubectl(&["get", "clusternet", "-A"]).ok();
    assert!(
        all.contains("managedcluster.clusters.clusternet.io/east") && all.contains("feedinventory"),
        "{all}"
    );
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages_outlive_the_hub() {
    let shop = Shop::open().await;
    let mut east = shop.join(1, "east").await;
    report(&mut east, true, well()).await;
    let born = |what: &str, namespace: &str, name: &str| {
        let path = "jsonpath={.metadata.creationTimestamp}";
        shop.wait(&["get", what, "-n", namespace, name, "-o", path], |out| out.ends_with('Z'))
    };
    let all = [
        ("mcls", "clusternet-east", "east"),
        ("ns", "", "clusternet-east"),
        ("subs", "shop", "web"),
        ("desc", "clusternet-east", "shop.web"),
        ("base", "clusternet-east", "shop.web"),
    ];
    let before = all.map(|(what, namespace, name)| born(what, namespace, name));
    // Ages are told in whole seconds: the next one has to be another.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let shop = shop.restart().await;
    let born = |what: &str, namespace: &str, name: &str| {
        let path = "jsonpath={.metadata.creationTimestamp}";
        shop.wait(&["get", what, "-n", namespace, name, "-o", path], |out| out.ends_with('Z'))
    };
    assert_eq!(all.map(|(what, namespace, name)| born(what, namespace, name)), before);
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_are_discovered_and_explained() {
    let shop = Shop::open().await;
    let kinds = shop.kubectl(&["api-resources", "-o", "wide"]).ok();
    for line in [
        ["managedclusters", "mcls", "clusters.clusternet.io/v1beta1"],
        ["subscriptions", "sub,subs", "apps.clusternet.io/v1alpha1"],
        ["clusterregistrationrequests", "clsrr", "clusters.clusternet.io/v1beta1"],
        ["helmcharts", "chart,charts", "apps.clusternet.io/v1alpha1"],
    ] {
        assert_eq!(row(&kinds, line[0])[..3], line, "{kinds}");
    }
    let explained = shop.kubectl(&["explain", "subs.spec.feeds"]).ok();
    for word in [
        "KIND:       Subscription",
        "<[]Feed>",
        "Kind of the object.",
        "in which they are applied",
    ] {
        assert!(explained.contains(word), "{word}: {explained}");
    }
    for kind in [
        "subs",
        "mcls",
        "clsrr",
        "desc",
        "base",
        "loc",
        "glob",
        "charts",
        "hr",
        "manifests",
        "finv",
        "ns",
        "events",
    ] {
        let explained = shop.kubectl(&["explain", kind, "--recursive"]).ok();
        assert!(
            explained.contains("metadata\t<ObjectMeta>") && !explained.contains("<empty>"),
            "{kind}: {explained}"
        );
    }
    let spread = shop
        .kubectl(&["explain", "subs.spec.dividingScheduling.dynamicDividing.strategy"])
        .ok();
    assert!(spread.contains("Binpack"), "{spread}");
    let file = shop.write("shop.yaml", SHOP);
    let file = file.as_str();
    let dry = shop.kubectl(&["apply", "--dry-run=client", "-f", file]);
    assert!(
        dry.stdout
            .contains("subscription.apps.clusternet.io/web configured (dry run)"),
        "{dry:?}"
    );
    let (code, old) = shop.hub.admin(Method::GET, "/openapi/v2", &Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(
        old["definitions"]["io.clusternet.SubscriptionSpec"]["properties"]["feeds"]["items"]["allOf"][0]["$ref"],
        "#/definitions/io.clusternet.Feed"
    );
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_ends_with_events_that_say_what_to_do() {
    let shop = Shop::open().await;
    let (mut east, mut west) = (shop.join(1, "east").await, shop.join(2, "west").await);
    report(&mut east, true, well()).await;
    report(&mut west, false, broken()).await;
    let of = |what: &str, namespace: &str, name: &str, word: &str| {
        let text = shop.wait(&["describe", what, "-n", namespace, name], |out| out.contains(word));
        text.split_once("Events:")
            .map(|(_, events)| events.to_owned())
            .unwrap_or_default()
    };
    let events = of("desc", "clusternet-west", "shop.web", "namespaces \"shop\" not found");
    assert!(
        events.contains("Warning") && events.contains("ConfigMap shop/web: ConfigMap shop/web: namespaces"),
        "{events}"
    );
    let events = of("mcls", "clusternet-west", "west", "1 of 1 fail: shop.web");
    assert!(
        events.contains("ManagedClusterReady") && events.contains("Failed"),
        "{events}"
    );
    let events = of("subs", "shop", "web", "fails in 1 of 2 clusters: west");
    assert!(events.contains("Warning"), "{events}");
    // What git cannot say is told with file and line.
    shop.source.push(
        "a misspelt feed",
        &[("shop.yaml", &SHOP.replace("ConfigMap, name: web", "ConfigMap, name: wbe"))],
    );
    let events = of("subs", "shop", "web", "Held");
    assert!(events.contains("shop.yaml:7: error"), "{events}");
    // A cluster that goes away says since when.
    west.handle.close().await;
    let events = of("mcls", "clusternet-west", "west", "TunnelClosed");
    assert!(events.contains("the agent's tunnel ended at"), "{events}");

    let warnings = shop
        .kubectl(&[
            "get",
            "events",
            "-A",
            "--field-selector=type=Warning,involvedObject.kind=ManagedCluster",
        ])
        .ok();
    assert!(
        warnings.contains("managedcluster/west") && !warnings.contains("managedcluster/east"),
        "{warnings}"
    );
    let new = shop
        .kubectl(&[
            "get",
            "events.events.k8s.io",
            "-n",
            "clusternet-west",
            "-o",
            "jsonpath={.items[*].regarding.kind}",
        ])
        .ok();
    assert!(new.contains("ManagedCluster") && new.contains("Description"), "{new}");
    let printed = shop
        .kubectl(&[
            "events",
            "-n",
            "clusternet-west",
            "--for",
            "description.apps.clusternet.io/shop.web",
        ])
        .ok();
    assert!(printed.contains("namespaces \"shop\" not found"), "{printed}");
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_git_owns_is_refused_with_the_file_and_line_to_edit() {
    let shop = Shop::open().await;
    let mut east = shop.join(1, "east").await;
    report(&mut east, true, well()).await;
    shop.wait(&["get", "desc", "-n", "clusternet-east"], |out| out.contains("Success"));
    let bare = shop.source.bare();
    let edit = |place: &str| format!("edit {place} in {}, commit and push", bare.display());
    let sub = "subscriptions.apps.clusternet.io \"web\" is owned by git: ".to_owned() + &edit("shop.yaml:1");
    let of_sub = "is made by the hub of a Subscription: ".to_owned() + &edit("shop.yaml:1");
    let cases: [(&[&str], &str); 10] = [
        (&["delete", "subs", "-n", "shop", "web"], &sub),
        (&["label", "subs", "-n", "shop", "web", "a=b"], &sub),
        (
            &[
                "patch",
                "subs",
                "-n",
                "shop",
                "web",
                "--type=merge",
                "-p",
                "{\"spec\":{\"priority\":1}}",
                "--dry-run=server",
            ],
            &sub,
        ),
        (&["annotate", "glob", "all", "a=b"], &edit("more.yaml:20")),
        (&["delete", "chart", "-n", "shop", "mysql"], &edit("shop.yaml:15")),
        (
            &["delete", "manifest", "-n", "clusternet-reserved", "configmap.shop.web"],
            &edit("shop.yaml:10"),
        ),
        (&["delete", "desc", "-n", "clusternet-east", "shop.web"], &of_sub),
        (&["delete", "hr", "-n", "clusternet-east", "shop.web.shop.mysql"], &of_sub),
        (&["delete", "subs", "-n", "shop", "--all"], "web\" is owned by git"),
        (
            &["create", "namespace", "new"],
            "come and go with the clusters and the objects of the source repository",
        ),
    ];
    for (arguments, message) in cases {
        let refused = shop.kubectl(arguments).fails_with(1);
        assert!(
            refused.contains("MethodNotAllowed") && refused.contains(message),
            "{arguments:?}: {refused}"
        );
    }
    let new = shop.write("new.yaml", &SHOP.replace("name: web", "name: other"));
    let refused = shop.kubectl(&["create", "-f", &new]).fails_with(1);
    assert!(refused.contains("is owned by git: add it to"), "{refused}");
    let refused = shop.kubectl(&["apply", "-f", &shop.write("shop.yaml", SHOP)]).fails_with(1);
    assert!(refused.contains(&edit("shop.yaml:1")), "{refused}");
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_go_on_where_they_began_and_watches_resume() {
    let shop = Shop::open().await;
    for number in 1..=5 {
        drop(shop.join(number, &format!("c{number}")).await);
    }
    shop.wait(&["get", "mcls", "-A", "-o", "name"], |out| out.lines().count() == 5);
    let chunks = shop.kubectl(&["get", "mcls", "-A", "-o", "name", "--chunk-size=2"]).ok();
    assert_eq!(chunks.lines().count(), 5);
    let path = "/apis/clusters.clusternet.io/v1beta1/managedclusters";
    let get = async |query: &str| shop.hub.admin(Method::GET, &format!("{path}?{query}"), &Value::Null).await;
    let (_, first) = get("limit=2").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (revision, token) = (
        text(&first["metadata"]["resourceVersion"]),
        text(&first["metadata"]["continue"]),
    );
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // A cluster joins while the list is read: what is left of the list does not know it, a watch from there does.
    drop(shop.join(6, "c0").await);
    drop(shop.join(7, "c9").await);
    shop.wait(&["get", "mcls", "-A", "-o", "name"], |out| out.lines().count() == 7);
    let (_, rest) = get(&format!("limit=10&continue={token}")).await;
    let names: Vec<String> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| text(&item["metadata"]["name"]))
        .collect();
    assert_eq!(
        (names, text(&rest["metadata"]["resourceVersion"])),
        (["c3", "c4", "c5"].map(str::to_owned).into(), revision.clone())
    );
    let (code, refused) = get("limit=1&continue=bm9uc2Vuc2U").await;
    assert_eq!((code, &refused["reason"]), (400, &json!("BadRequest")));
    let (_, exact) = get(&format!("resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!(exact["items"].as_array().unwrap().len(), 5);
    // A watch shows what came since; a position of another life is too old.
    let watch = async |query: String| {
        let (code, body) = get(&format!("watch=true&timeoutSeconds=1&{query}")).await;
        let lines = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        (
            code,
            lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<Value>>(),
        )
    };
    let (_, events) = watch(format!("resourceVersion={revision}")).await;
    let added: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "ADDED")
        .map(|event| &event["object"]["metadata"]["name"])
        .collect();
    assert_eq!(added, ["c0", "c9"]);
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let (_, events) = watch(query.to_owned()).await;
    let bookmark = events.iter().find(|event| event["type"] == "BOOKMARK").unwrap();
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(events.iter().take_while(|event| event["type"] == "ADDED").count(), 7);
    let (_, events) = watch("resourceVersion=1".to_owned()).await;
    assert_eq!(
        (&events[0]["type"], &events[0]["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "{events:?}"
    );
    shop.hub.stop().await;
}
