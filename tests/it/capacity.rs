//! Live facts through a real hub: room that agents find in their clusters divides replicas, clusters that are gone get nothing new.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::apiserver::ApiServer;
use crate::support::fleet::{Fleet, Hub, STATE};
use crate::support::repository::GitRepo;
use crate::support::samples::{base, document, feed, greeting};
use crate::support::whole_hub::{Candidate, WholeHub, config, home};
use crate::support::{holds, wait_until};

const WEB: &str = "apps/v1/Deployment/shop/web";
const SUBSCRIPTION: &str = "/apis/apps.clusternet.io/v1alpha1/namespaces/shop/subscriptions";
const UNSCHEDULABLE: &str = "clusters.clusternet.io/unschedulable";

/// A Deployment whose replicas request one CPU each on a node with an SSD, and the Subscription that divides them by room.
fn web(replicas: i64) -> String {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [
        {"name": "web", "image": "web", "resources": {"requests": {"cpu": "1"}}}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let subscription = json!({"apiVersion": "apps.clusternet.io/v1alpha1", "kind": "Subscription",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"schedulingStrategy": "Dividing", "dividingScheduling": {"type": "Dynamic"},
            "subscribers": [{"clusterAffinity": {}}], "feeds": [feed("apps/v1", "Deployment", "web")]}});
    document(&deployment) + &document(&subscription)
}

fn send(server: &ApiServer, method: &str, path: &str, content: &Value) {
    let content_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let answer = server.send(method, path, content_type, content);
    assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
}

/// A node that is ready, with this many CPUs and an SSD.
fn add_node(server: &ApiServer, name: &str, cpus: i64) {
    let offers = json!({"cpu": cpus.to_string(), "memory": "8Gi", "pods": "110"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"disk": "ssd"}}, "status": {
        "capacity": offers, "allocatable": offers, "conditions": [{"type": "Ready", "status": "True"}]}});
    send(server, "POST", "/api/v1/nodes", &node);
    // The API server taints a new node as not ready, and a controller takes that away.
    send(
        server,
        "PATCH",
        &format!("/api/v1/nodes/{name}"),
        &json!({"spec": {"taints": null}}),
    );
}

/// A pod on this node that requests one CPU.
fn add_pod(server: &ApiServer, node: &str) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    send(server, "POST", "/api/v1/namespaces/default/serviceaccounts", &account);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy"}, "spec": {"nodeName": node, "containers": [
        {"name": "busy", "image": "busy", "resources": {"requests": {"cpu": "1"}}}]}});
    send(server, "POST", "/api/v1/namespaces/default/pods", &pod);
}

/// Waits until the Deployment has these replicas in each cluster's API server.
fn wait_replicas(fleet: &Fleet, want: [i64; 2]) {
    wait_until(&format!("the clusters have {want:?} replicas"), || {
        let found = [0, 1].map(|cluster: usize| {
            let object = fleet.servers[cluster].get("/apis/apps/v1/namespaces/shop/deployments/web");
            object.map_or(-1, |object| object["spec"]["replicas"].as_i64().unwrap_or(-1))
        });
        holds(
            found == want,
            format!("{found:?}\n{}\n{}", fleet.hub.log(), fleet.agents[0].log()),
        )
    });
}

fn bindings(fleet: &Fleet, name: &str) -> Value {
    let subscription = fleet.hub.get(&format!("{SUBSCRIPTION}/{name}")).unwrap_or_default();
    subscription["status"]["bindingClusters"].clone()
}

fn wait_bindings(fleet: &Fleet, name: &str, want: &[&str]) {
    wait_until(&format!("{name} is bound to {want:?}"), || {
        let found = bindings(fleet, name);
        holds(found == json!(want), format!("{found}\n{}", fleet.hub.log()))
    });
}

/// Kills the hub and starts it again; nothing is written while agents come back and for some seconds after.
fn restart(fleet: &mut Fleet, back: &[&str]) {
    let before = fleet.state();
    fleet.hub.kill();
    fleet.hub.start_again();
    back.iter().for_each(|name| fleet.hub.wait_cluster(name, "True"));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(
        fleet.state(),
        before,
        "{}",
        fleet.repo.in_bare(&["log", "-2", "-p", STATE]).ok()
    );
}

#[test]
fn replicas_are_divided_by_the_room_that_agents_find() {
    let mut fleet = Fleet::start(&["a", "b"]);
    add_node(&fleet.servers[0], "one", 4);
    add_pod(&fleet.servers[0], "one");
    add_node(&fleet.servers[1], "one", 8);
    add_node(&fleet.servers[0], "slow", 64);
    let slow = json!({"metadata": {"labels": {"disk": "hdd"}}});
    send(&fleet.servers[0], "PATCH", "/api/v1/nodes/slow", &slow);
    add_node(&fleet.servers[1], "cordoned", 64);
    send(
        &fleet.servers[1],
        "PATCH",
        "/api/v1/nodes/cordoned",
        &json!({"spec": {"unschedulable": true}}),
    );
    fleet
        .repo
        .push("four replicas", &[("base.yaml", &base()), ("web.yaml", &web(4))]);
    wait_replicas(&fleet, [1, 3]);

    // No pod of the four exists, and still nobody takes their room for free.
    fleet.repo.push("more than fits", &[("web.yaml", &web(20))]);
    wait_replicas(&fleet, [3, 8]);
    let status = fleet.hub.command(&["status"]);
    let warning = "9 of 20 replicas of Deployment.apps shop/web fit into no cluster";
    assert!(status.stderr.contains(warning), "{status:?}");
    let recorded = fleet.repo.show("branchline/state", "subscriptions/shop/web.yaml");
    assert!(recorded.contains("capacity:"), "the decision can be repeated: {recorded}");

    restart(&mut fleet, &["a", "b"]);
    assert_eq!(bindings(&fleet, "web"), json!(["clusternet-a/a", "clusternet-b/b"]));

    add_node(&fleet.servers[0], "two", 4);
    wait_replicas(&fleet, [7, 8]);
    let message = fleet.repo.in_bare(&["log", "-1", "--format=%B", STATE]).ok();
    assert!(message.contains("Trigger: live"), "{message}");
}

#[test]
fn a_cluster_that_is_gone_gets_nothing_new_and_keeps_what_it_has() {
    let repo = GitRepo::with(&[("README.md", "A fleet.\n")]);
    let hub = Hub::prepare("hub", &repo).with("--unready-grace=4");
    let mut fleet = Fleet::of(repo, hub, &["a", "b"]);
    let both = ["clusternet-a/a", "clusternet-b/b"];
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("old.yaml", &greeting("old", &[], "hello"))],
    );
    fleet.wait_greeting(1, "old", Some("hello"));
    let taints = |fleet: &Fleet| fleet.hub.managed_cluster("b").unwrap_or_default()["spec"]["taints"].clone();
    assert_eq!(taints(&fleet), Value::Null);

    let state = fleet.state();
    fleet.agents[1].kill();
    wait_until("cluster b is tainted", || {
        let found = taints(&fleet);
        let want = json!([{"key": UNSCHEDULABLE, "value": "TunnelClosed", "effect": "NoSchedule"}]);
        holds(found == want, found.to_string())
    });
    assert_eq!(fleet.state(), state, "a live fact is not written");
    fleet.repo.push("second", &[("new.yaml", &greeting("new", &[], "hello"))]);
    wait_bindings(&fleet, "new", &["clusternet-a/a"]);
    assert_eq!(bindings(&fleet, "old"), json!(both));
    let record = fleet.repo.show("branchline/state", "managedclusters/clusternet-b.yaml");
    assert!(!record.contains("taints"), "{record}");

    // Within the grace nobody knows of the taint, after it everybody: the placements are the same.
    restart(&mut fleet, &["a"]);
    wait_until("cluster b is tainted again", || {
        holds(taints(&fleet)[0]["value"] == "NeverConnected", taints(&fleet).to_string())
    });
    assert_eq!(bindings(&fleet, "old"), json!(both));
    assert_eq!(bindings(&fleet, "new"), json!(["clusternet-a/a"]));

    fleet.agents[1].launch();
    wait_bindings(&fleet, "new", &both);
    fleet.wait_greeting(1, "new", Some("hello"));
    assert_eq!(taints(&fleet), Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_know_the_question_is_estimated() {
    let repo = GitRepo::with(&[("web.yaml", &web(6)), ("base.yaml", &base())]);
    let home = home();
    let hub = WholeHub::start(config(&repo, &home)).await;
    let agent = Candidate::new(1, "old");
    let certificate = agent.certificate(&hub, Some(&hub.token(None).await)).await;
    let status = json!({"healthz": true, "allocatable": {"cpu": "4", "memory": "8Gi"}});
    let _joined = agent.join(&hub, &certificate, json!({"status": status})).await.unwrap();
    hub.until("the agent is connected", |status| status["clusters"][0]["connected"] == true)
        .await;
    repo.push("another", &[("README.md", "another\n"), ("web.yaml", &web(5))]);
    let status = hub
        .until("what was estimated is placed", |status| {
            status["diagnostics"].to_string().contains("1 of 5 replicas")
        })
        .await;
    let (_, subscription) = hub.admin(Method::GET, &format!("{SUBSCRIPTION}/web"), &Value::Null).await;
    assert_eq!(
        subscription["status"]["replicas"][WEB],
        json!([4]),
        "{subscription:#} {status:#}"
    );
    hub.stop().await;
}
