//! Plans carried out against a real API server: waves, definitions, rejected objects, pruning, ownership, kills, many objects.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use branchline::agent::execute;
use branchline::cluster::{Access, Cluster, InventoryStore, SURVEY_INTERVAL, StatusCollector};
use branchline::core::apply::{
    Content, DESCRIPTION_ANNOTATION, Desired, Finished, Inventory, Outcomes, Progress, Scope, Step, Target, Wanted, plan, reports,
};
use branchline::core::ids::{ObjectId, ObjectKind};
use branchline::core::object::Object;
use branchline::core::status::{DescriptionReport, ObjectOutcome, Phase};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::apiserver::ApiServer;
use crate::support::scratch;

const PATIENCE: Duration = Duration::from_secs(30);

/// One agent's hands in one cluster.
struct Hands {
    cluster: Cluster,
    store: InventoryStore,
    inventory: Inventory,
    generation: u64,
}

impl Hands {
    async fn new(server: &ApiServer) -> Self {
        let access = Access::Kubeconfig {
            path: server.kubeconfig(),
            context: None,
        };
        let cluster = Cluster::connect(&access).await.unwrap();
        let (store, inventory) = InventoryStore::load(&cluster).await.unwrap();
        let generation = inventory.position.generation;
        Hands {
            cluster,
            store,
            inventory,
            generation,
        }
    }

    fn fetched(&self, objects: &[(&str, Value)]) -> Wanted {
        let by_path = self.inventory.by_path();
        let mut wanted = Wanted::default();
        for (sub, object) in objects {
            let mut desired = desired(sub, object);
            let known = by_path.get(&(*sub, desired.path.as_str()));
            if known.is_some_and(|(_, entry)| entry.has(desired.blob)) {
                desired.content = Content::NotFetched;
            }
            wanted.subs.insert((*sub).to_owned());
            wanted.objects.push(desired);
        }
        wanted
    }

    async fn planned(&mut self, objects: &[(&str, Value)]) -> branchline::core::apply::Plan {
        self.generation += 1;
        let kinds = objects
            .iter()
            .map(|(_, o)| (o["apiVersion"].as_str().unwrap(), o["kind"].as_str().unwrap()));
        self.cluster.discover(kinds.chain(self.inventory.kinds())).await.unwrap();
        let catalog = self.cluster.catalog();
        let target = Target {
            epoch: 1,
            generation: self.generation,
            tree: ObjectId::EMPTY_TREE,
        };
        let plan = plan(target, self.fetched(objects), &self.inventory, &|group, kind| {
            catalog.scope(group, kind)
        });
        self.store.save(&plan.record).await.unwrap();
        self.inventory = plan.record.clone();
        plan
    }

    /// Tries again as the agent does, until everything is carried out.
    async fn deliver_until_complete(&mut self, objects: &[(&str, Value)]) -> Finished {
        let tries = async {
            loop {
                let finished = self.deliver(objects).await;
                if finished.complete {
                    return finished;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, tries).await.expect("complete in time")
    }

    async fn deliver(&mut self, objects: &[(&str, Value)]) -> Finished {
        let plan = self.planned(objects).await;
        let finished = execute(&self.cluster, plan, &CancellationToken::new()).await.finished;
        self.store.save(&finished.inventory).await.unwrap();
        self.inventory = finished.inventory.clone();
        finished
    }
}

fn desired(sub: &str, object: &Value) -> Desired {
    let bytes = object.to_string();
    let meta = &object["metadata"];
    let path = format!("manifests/{}_{}_{}.yaml", object["kind"], meta["namespace"], meta["name"]);
    Desired {
        sub: sub.to_owned(),
        path,
        blob: ObjectId::hash(ObjectKind::Blob, bytes.as_bytes()),
        content: Content::Object(Object::from_value(object.clone()).unwrap()),
        order: 0,
    }
}

fn report(sub: &str, inventory: &Inventory, outcomes: &Outcomes) -> DescriptionReport {
    reports(&[sub.to_owned()].into(), inventory, outcomes).remove(0)
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn config(namespace: &str, name: &str, content: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"content": content}})
}

/// A definition with these versions, of which the last is the one that is served and stored.
fn definition(group: &str, scope: &str, versions: &[&str]) -> Value {
    let mut definition = widget_definition(group);
    let version = definition["spec"]["versions"][0].clone();
    let last = versions.last().copied();
    let versions = versions.iter().map(|name| {
        let mut version = version.clone();
        version["name"] = json!(name);
        version["served"] = json!(Some(*name) == last);
        version["storage"] = json!(Some(*name) == last);
        version
    });
    definition["spec"]["versions"] = versions.collect();
    definition["spec"]["scope"] = json!(scope);
    definition
}

fn widget_definition(group: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("widgets.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

fn at(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

#[tokio::test]
async fn a_definition_and_its_objects_go_in_one_delivery() {
    let server = ApiServer::start("waves");
    let mut hands = Hands::new(&server).await;
    let widget = json!({"apiVersion": "waves.example.org/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "waves"}, "spec": {"size": 1}});
    let all = [
        ("s.a", widget),
        ("s.a", config("waves", "settings", "1")),
        ("s.a", widget_definition("waves.example.org")),
        ("s.a", namespace("waves")),
        (
            "s.a",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "homeless"}}),
        ),
    ];
    let finished = hands.deliver(&all).await;
    assert!(finished.complete, "{:?}", finished.outcomes);
    let live = server.get("/apis/waves.example.org/v1/namespaces/waves/widgets/w").unwrap();
    assert_eq!(live["metadata"]["annotations"][DESCRIPTION_ANNOTATION], "s.a");
    assert_eq!(live["metadata"]["managedFields"][0]["manager"], "branchline");
    assert!(server.get(&at("default", "homeless")).is_some());

    let read = Hands::new(&server).await;
    assert_eq!(read.inventory, finished.inventory, "another agent reads the same inventory");
    let before = server.get(&at("waves", "settings")).unwrap()["metadata"]["resourceVersion"].clone();
    let again = hands.deliver(&all).await;
    assert!(again.complete && again.outcomes.subs().is_empty());
    assert_eq!(
        server.get(&at("waves", "settings")).unwrap()["metadata"]["resourceVersion"],
        before
    );
}

#[tokio::test]
async fn a_rejected_object_holds_back_its_own_prune_only() {
    let server = ApiServer::start("rejected");
    let mut hands = Hands::new(&server).await;
    let ns = ("s.ns", namespace("rejected"));
    let first = [
        ns.clone(),
        ("s.a", config("rejected", "old-a", "1")),
        ("s.b", config("rejected", "old-b", "1")),
    ];
    assert!(hands.deliver(&first).await.complete);
    let bad = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad", "namespace": "rejected"},
        "spec": {"ports": [{"port": 99999}], "clusterIP": "None"}});
    let unknown =
        json!({"apiVersion": "nowhere.example.org/v1", "kind": "Nothing", "metadata": {"name": "n", "namespace": "rejected"}});
    let typo =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "typo", "namespace": "rejected"}, "dota": {}});
    let homeless = config("no-such-namespace", "x", "1");
    let second = [
        ns,
        ("s.a", bad),
        ("s.a", config("rejected", "new-a", "1")),
        ("s.b", config("rejected", "new-b", "1")),
        ("s.c", unknown),
        ("s.d", typo),
        ("s.e", homeless),
    ];
    let finished = hands.deliver(&second).await;
    assert!(!finished.complete);
    for (name, there) in [("old-a", true), ("old-b", false), ("new-a", true), ("new-b", true)] {
        assert_eq!(server.get(&at("rejected", name)).is_some(), there, "{name}");
    }
    let reasons: BTreeMap<&str, String> = ["s.a", "s.b", "s.c", "s.d", "s.e"]
        .map(|sub| (sub, report(sub, &finished.inventory, &finished.outcomes)))
        .map(|(sub, report)| (sub, format!("{:?}: {}", report.phase, report.reason)))
        .into();
    assert!(reasons["s.a"].contains("spec.ports[0].port"), "{reasons:#?}");
    assert!(reasons["s.b"].starts_with("Success"), "{reasons:#?}");
    assert!(
        reasons["s.c"].contains("no kind Nothing in nowhere.example.org/v1"),
        "{reasons:#?}"
    );
    assert!(reasons["s.d"].contains("dota"), "{reasons:#?}");
    assert!(reasons["s.e"].contains("feed the Namespace too"), "{reasons:#?}");
}

#[tokio::test]
async fn only_what_carries_our_marks_is_deleted() {
    let server = ApiServer::start("pruned");
    let mut hands = Hands::new(&server).await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "pruned"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let all = [
        ("s.a", namespace("pruned")),
        ("s.a", claim),
        ("s.a", config("pruned", "gone", "1")),
        ("s.a", config("pruned", "taken", "1")),
        ("s.a", config("pruned", "moved", "1")),
    ];
    assert!(hands.deliver(&all).await.complete);
    server.kubectl(&["delete", "-n", "pruned", "configmap", "taken"]).ok();
    server.kubectl(&["create", "-n", "pruned", "configmap", "taken"]).ok();
    let finished = hands.deliver(&[("s.b", config("pruned", "moved", "1"))]).await;
    assert!(finished.complete, "{:?}", finished.outcomes);
    for (name, there) in [("gone", false), ("taken", true), ("moved", true)] {
        assert_eq!(server.get(&at("pruned", name)).is_some(), there, "{name}");
    }
    let report = report("s.a", &finished.inventory, &finished.outcomes);
    assert_eq!(report.phase, Phase::Success);
    let kept = report.objects.iter().filter(|o| o.outcome == ObjectOutcome::NotApplied);
    let kept: Vec<&str> = kept.map(|o| o.kind.as_str()).collect();
    assert_eq!(kept, ["ConfigMap", "Namespace", "PersistentVolumeClaim"]);
    assert!(server.get("/api/v1/namespaces/pruned/persistentvolumeclaims/data").is_some());
    assert_eq!(
        finished.inventory.entries.len(),
        3,
        "kept objects stay known, the one that was taken over does not"
    );
}

#[tokio::test]
async fn what_its_finalizers_keep_is_neither_applied_nor_gone() {
    let server = ApiServer::start("finalizers");
    let mut hands = Hands::new(&server).await;
    let (held, other) = (config("default", "held", "1"), config("default", "other", "1"));
    assert!(hands.deliver(&[("s.a", held), ("s.a", other)]).await.complete);
    let hold = |finalizers: &str| {
        let patch = format!("{{\"metadata\":{{\"finalizers\":{finalizers}}}}}");
        server
            .kubectl(&["patch", "configmap", "held", "--type=merge", "-p", &patch])
            .ok();
    };
    hold("[\"example.org/held\"]");
    server.kubectl(&["delete", "configmap", "held", "--wait=false"]).ok();
    let second = [
        ("s.a", config("default", "held", "2")),
        ("s.a", config("default", "other", "2")),
    ];
    let finished = hands.deliver(&second).await;
    let told = &reports(&finished.outcomes.subs(), &finished.inventory, &finished.outcomes)[0];
    assert!(!finished.complete && told.phase == Phase::Failure, "{told:?}");
    for expected in [
        "ConfigMap default/held: is being deleted since 20",
        "finalizers example.org/held",
    ] {
        assert!(told.reason.contains(expected), "{}", told.reason);
    }
    assert_eq!(server.get(&at("default", "other")).unwrap()["data"]["content"], "2");
    hold("[]");
    assert!(hands.deliver(&second).await.complete);
    assert_eq!(server.get(&at("default", "held")).unwrap()["data"]["content"], "2");

    hold("[\"example.org/held\"]");
    // The first time the delete is sent, the second time it was before.
    for _ in 0..2 {
        let finished = hands.deliver(&[]).await;
        let told = &reports(&finished.inventory.subs(), &finished.inventory, &finished.outcomes)[0];
        assert!(!finished.complete && told.phase == Phase::Installing, "{told:?}");
        assert!(told.reason.contains("finalizers example.org/held"), "{}", told.reason);
        let left: Vec<&str> = finished.inventory.entries.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(left, ["held"], "what it keeps up is not the rest");
    }
    hold("[]");
    let finished = hands.deliver(&[]).await;
    assert!(finished.complete && finished.inventory.entries.is_empty());
    assert!(server.get(&at("default", "held")).is_none());
}

#[tokio::test]
async fn a_cluster_scoped_object_that_states_a_namespace_is_changed_not_deleted() {
    let server = ApiServer::start("scopes");
    let mut hands = Hands::new(&server).await;
    let group = "scopes.example.org";
    let all = |size: u32| {
        let widget = json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "spec": {"size": size},
            "metadata": {"name": "w", "namespace": "stated"}});
        [("s.a", definition(group, "Cluster", &["v1"])), ("s.a", widget)]
    };
    for size in [1, 2, 3] {
        let finished = hands.deliver(&all(size)).await;
        assert!(finished.complete, "{:?}", finished.outcomes);
        let live = server.get("/apis/scopes.example.org/v1/widgets/w").expect("is there");
        assert_eq!(live["spec"]["size"], size);
    }
    assert_eq!(hands.inventory.entries.len(), 2);
}

#[tokio::test]
async fn an_object_whose_version_is_not_served_any_more_is_deleted_all_the_same() {
    let server = ApiServer::start("versions");
    let mut hands = Hands::new(&server).await;
    let group = "versions.example.org";
    let widget =
        json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}});
    let first = [("s.a", definition(group, "Namespaced", &["v1"])), ("s.a", widget)];
    assert!(hands.deliver(&first).await.complete);
    let second = [("s.a", definition(group, "Namespaced", &["v1", "v2"]))];
    hands.deliver_until_complete(&second).await;
    assert_eq!(hands.inventory.entries.len(), 1);
    let path = "/apis/versions.example.org/v2/namespaces/default/widgets";
    let served = async {
        loop {
            // It may also say for a while that its storage is being initialised.
            let answer = server.client().get(path).unwrap();
            if answer.status == 200 {
                return answer.json();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let list = tokio::time::timeout(PATIENCE, served).await.expect("served in time");
    assert_eq!(list["items"], json!([]), "nothing is left behind");
}

/// An API server that never establishes a definition, and says when it is asked about one.
async fn never_established(asked: Arc<Notify>) -> Cluster {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |request: Request<Incoming>| {
        let asked = Arc::clone(&asked);
        async move {
            let path = request.uri().path().to_owned();
            let answer = match (request.method().as_str(), path.as_str()) {
                (_, "/api") => json!({"kind": "APIGroupDiscoveryList", "items": []}),
                (_, "/apis") => {
                    let kind = json!({"group": "apiextensions.k8s.io", "version": "v1", "kind": "CustomResourceDefinition"});
                    let resource = json!({"resource": "customresourcedefinitions", "scope": "Cluster", "responseKind": kind});
                    json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "apiextensions.k8s.io"},
                        "versions": [{"version": "v1", "resources": [resource]}]}]})
                }
                (method, _) => {
                    if method == "GET" {
                        asked.notify_one();
                    }
                    json!({"metadata": {"name": "widgets.example.org"}})
                }
            };
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer.to_string()))))
        }
    };
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = hyper::service::service_fn(answer.clone());
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    let directory = scratch("never-established");
    let path = directory.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    Cluster::connect(&Access::Kubeconfig { path, context: None }).await.unwrap()
}

#[tokio::test]
async fn a_run_that_is_not_wanted_any_more_does_not_wait_for_definitions() {
    let asked = Arc::new(Notify::new());
    let cluster = never_established(Arc::clone(&asked)).await;
    let definition = widget_definition("example.org");
    cluster
        .discover([("apiextensions.k8s.io/v1", "CustomResourceDefinition")])
        .await
        .unwrap();
    let wanted = Wanted {
        subs: ["s.a".to_owned()].into(),
        objects: vec![desired("s.a", &definition)],
        ..Wanted::default()
    };
    let target = Target {
        epoch: 1,
        generation: 1,
        tree: ObjectId::EMPTY_TREE,
    };
    let plan = plan(target, wanted, &Inventory::default(), &|_, _| Scope::Cluster);
    let stop = CancellationToken::new();
    let newer_offer = async {
        asked.notified().await;
        stop.cancel();
    };
    let both = futures::future::join(execute(&cluster, plan, &stop), newer_offer);
    let (run, ()) = tokio::time::timeout(PATIENCE, both).await.expect("ended by the newer offer");
    assert!(!run.finished.complete);
    let entry = run.finished.inventory.entries.values().next().unwrap();
    assert_eq!(entry.applied, None, "it is applied and waited for once more");
}

#[tokio::test]
async fn killed_after_any_step_nothing_leaks() {
    let server = ApiServer::start("killed");
    let mut hands = Hands::new(&server).await;
    let first = [
        ("s.a", namespace("killed")),
        ("s.a", config("killed", "a", "1")),
        ("s.a", config("killed", "b", "1")),
    ];
    assert!(hands.deliver(&first).await.complete);
    let second = [
        ("s.a", namespace("killed")),
        ("s.a", config("killed", "b", "2")),
        ("s.b", config("killed", "c", "1")),
    ];
    for kill_after in 0..3 {
        let mut killed = Hands::new(&server).await;
        let plan = killed.planned(&second).await;
        let mut progress = Progress::start(plan);
        for _ in 0..kill_after {
            if let Some(Step::Apply(items)) = progress.next_step() {
                for item in items {
                    let halt = CancellationToken::new();
                    killed.cluster.apply(&item.key, &item.body, &halt).await.unwrap();
                }
            }
        }
    }
    let mut hands = Hands::new(&server).await;
    assert_eq!(hands.inventory.position.applied, None, "a change is under way");
    assert!(
        hands.deliver(&[("s.a", namespace("killed"))]).await.complete,
        "the change was taken back"
    );
    for name in ["a", "b", "c"] {
        assert!(server.get(&at("killed", name)).is_none(), "{name} leaked");
    }
}

#[tokio::test]
async fn five_thousand_objects_are_remembered_in_bounded_shards() {
    let server = ApiServer::start("sharded");
    let mut hands = Hands::new(&server).await;
    let mut all: Vec<(&str, Value)> = vec![("s.a", namespace("sharded"))];
    all.extend((0..5000).map(|n| ("s.a", config("sharded", &format!("settings-{n:04}"), "1"))));
    hands.planned(&all).await;
    let path = "/api/v1/namespaces/branchline-system/configmaps?labelSelector=branchline.io/inventory=true";
    let maps = server.get(path).unwrap();
    let sizes: Vec<usize> = maps["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|map| map["data"].to_string().len())
        .collect();
    assert!(sizes.len() >= 4 && sizes.iter().all(|size| *size < 700_000), "{sizes:?}");
    let reader = Hands::new(&server).await;
    assert_eq!(reader.inventory, hands.inventory);
    // Somebody deletes the first shard, which also says how far the agent had come.
    let maps = "/api/v1/namespaces/branchline-system/configmaps/branchline-inventory";
    assert_eq!(server.send("DELETE", maps, "application/json", &json!({})).status, 200);
    let mut reader = Hands::new(&server).await;
    let left = reader.inventory.entries.len();
    assert!(left > 0 && left < hands.inventory.entries.len(), "{left}");
    reader.store.save(&hands.inventory).await.unwrap();
    let mut reader = Hands::new(&server).await;
    assert_eq!(reader.inventory, hands.inventory, "gaps are filled");
    assert!(reader.deliver(&[]).await.complete);
    let maps = server.get(path).unwrap();
    assert_eq!(
        maps["items"].as_array().unwrap().len(),
        1,
        "shards that are not needed go away"
    );
}

#[tokio::test]
async fn an_api_server_that_is_down_is_said_so_and_nothing_is_lost() {
    let server = ApiServer::start("down");
    let mut hands = Hands::new(&server).await;
    let mut status = StatusCollector::new(hands.cluster.clone(), Duration::from_secs(30), SURVEY_INTERVAL);
    let up = status.collect().await;
    assert!(
        up.readyz && up.livez && up.k8s_version.starts_with("v1.") && up.message.is_empty(),
        "{up:?}"
    );
    assert_eq!(up.service_cidr, "10.96.0.0/16");
    let plan = hands.planned(&[("s.a", config("default", "later", "1"))]).await;
    server.stop();
    let run = execute(&hands.cluster, plan, &CancellationToken::new()).await;
    let why = run.unreachable.unwrap();
    assert!(why.contains("does not answer"), "{why}");
    let report = report("s.a", &run.finished.inventory, &run.finished.outcomes);
    assert_eq!(
        (report.phase, report.objects[0].outcome),
        (Phase::Installing, ObjectOutcome::Waiting)
    );
    let down = status.collect().await;
    assert!(!down.readyz && down.message.contains("does not answer"), "{down:?}");
    assert_eq!(down.conditions[0]["status"], "False");
    server.start_again();
    assert!(hands.deliver(&[("s.a", config("default", "later", "1"))]).await.complete);
}

/// Not a test of speed: prints how long 1,000 objects take beside a client that sends nothing but the applies.
#[tokio::test]
async fn a_thousand_objects_beside_a_bare_client() {
    let server = ApiServer::start("thousand");
    let mut hands = Hands::new(&server).await;
    let warm: Vec<_> = (0..50)
        .map(|n| ("s.warm", config("default", &format!("warm-{n}"), "1")))
        .collect();
    assert!(hands.deliver(&warm).await.complete);
    let bare = Hands::new(&server).await;
    for at_once in [8, 24, 64] {
        let objects = (0..1000).map(|n| desired("s.x", &config("default", &format!("bare-{at_once}-{n}"), "1")));
        let started = Instant::now();
        let done = stream::iter(objects).map(|object| async {
            let Content::Object(object) = object.content else { return };
            let key = object.key();
            let halt = CancellationToken::new();
            bare.cluster.apply(&key, &object.into_value(), &halt).await.unwrap();
        });
        done.buffer_unordered(at_once).collect::<Vec<()>>().await;
        println!("bare client, {at_once} at once: {:?}", started.elapsed());
    }
    let mut all = warm.clone();
    all.extend((0..1000).map(|n| ("s.many", config("default", &format!("many-{n}"), "1"))));
    let started = Instant::now();
    let finished = hands.deliver(&all).await;
    println!("delivery with plan and inventory: {:?}", started.elapsed());
    assert!(finished.complete);
    let started = Instant::now();
    all.push(("s.one", config("default", "one", "1")));
    assert!(hands.deliver(&all).await.complete);
    println!("one more object: {:?}", started.elapsed());
}
