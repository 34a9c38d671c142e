//! kubectl, unmodified, against the hub: its own read-only API, and a child cluster through the tunnel.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::json;

use crate::support::apiserver::kubectl;
use crate::support::fleet::Fleet;
use crate::support::node::{add_echo_pod, read_head};
use crate::support::process::{Output, Process, command};
use crate::support::samples::{base, greeting};
use crate::support::tools::tool;
use crate::support::{holds, scratch, wait_until};

/// The path of a child's API on the hub.
fn through_the_tunnel(fleet: &Fleet, cluster: usize) -> String {
    format!("https://127.0.0.1:{}{}", fleet.hub.port(), fleet.socket(cluster))
}

/// Runs kubectl as the hub's administrator against a child.
fn in_child(fleet: &Fleet, arguments: &[&str]) -> Output {
    let server = through_the_tunnel(fleet, 0);
    kubectl(&fleet.hub.admin(), &[&["--server", &server], arguments].concat())
}

#[test]
fn the_childs_own_rules_decide_and_its_audit_log_names_the_person() {
    let fleet = Fleet::start(&["a"]);
    let refused = in_child(&fleet, &["get", "secrets"]).fails_with(1);
    assert!(
        refused.contains("Forbidden") && refused.contains("cannot list resource \"secrets\""),
        "{refused}"
    );
    fleet.let_admins_in();
    wait_until("the administrator may create", || {
        let output = in_child(&fleet, &["create", "configmap", "by-hand", "--from-literal=a=b"]);
        holds(output.code == Some(0), output.stderr)
    });
    let audit = fleet.servers[0].audit();
    let created = audit.iter().find(|event| {
        event.verb == "create" && event.uri.contains("/configmaps") && event.code == 201 && event.uri.contains("default")
    });
    let created = created.unwrap_or_else(|| panic!("{audit:#?}"));
    assert_eq!(created.user, "agent");
    assert!(
        created.impersonated.as_deref().is_some_and(|user| user != "agent"),
        "{created:?}"
    );

    assert_eq!(
        in_child(&fleet, &["get", "configmap", "by-hand", "-o", "jsonpath={.data.a}"]).ok(),
        "b"
    );
    in_child(&fleet, &["delete", "configmap", "by-hand"]).ok();
    let missing = in_child(&fleet, &["get", "configmap", "by-hand"]).fails_with(1);
    assert!(missing.contains("NotFound"), "{missing}");
}

#[test]
fn a_watch_through_the_tunnel_shows_each_change_when_it_happens() {
    let fleet = Fleet::start(&["a"]);
    fleet.let_admins_in();
    wait_until("the administrator may list", || {
        let output = in_child(&fleet, &["get", "configmaps"]);
        holds(output.code == Some(0), output.stderr)
    });
    let directory = scratch("watch");
    let mut watch: Command = command(&tool("kubectl"), directory.path());
    watch
        .arg("--kubeconfig")
        .arg(fleet.hub.admin())
        .args(["--server", &through_the_tunnel(&fleet, 0)]);
    watch.args(["get", "configmaps", "--watch", "--output-watch-events", "-o", "name"]);
    let mut watch = Process::start("kubectl watch", watch, &directory.path().join("log"));
    for name in ["one", "two"] {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let path = "/api/v1/namespaces/default/configmaps";
        assert_eq!(fleet.servers[0].send("POST", path, "application/json", &object).status, 201);
        watch.wait_log(&format!("configmap/{name}"));
    }
}

#[test]
fn a_watch_ends_when_its_tunnel_does() {
    let mut fleet = Fleet::start(&["a"]);
    fleet.let_admins_in();
    let id = fleet.servers[0].cluster_id();
    let path = format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{id}/proxy/direct/api/v1/namespaces?watch=true");
    let mut watch = wait_until("the watch is granted", || {
        let mut watch = fleet.hub.client().open(&path).map_err(|error| error.to_string())?;
        let head = read_head(&mut watch).map_err(|error| error.to_string())?;
        if head.starts_with("HTTP/1.1 200") {
            Ok(watch)
        } else {
            Err(head)
        }
    });
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("kube-system") {
        let mut piece = [0u8; 1024];
        let length = watch.read(&mut piece).unwrap();
        assert!(length > 0, "the watch ended by itself");
        seen.extend_from_slice(&piece[..length]);
    }
    fleet.agents[0].kill();
    // Closed, or cut off without TLS's goodbye; only a hang would be wrong.
    let ended = watch.read_to_end(&mut seen);
    assert!(
        ended
            .as_ref()
            .map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |_| true),
        "{ended:?}"
    );
}

#[test]
fn a_long_list_comes_through_whole() {
    let fleet = Fleet::start(&["a"]);
    fleet.let_admins_in();
    // Three times what one stream's window holds.
    let content = "x".repeat(256 * 1024);
    for name in ["one", "two", "three"] {
        let object =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "content": content } });
        let path = "/api/v1/namespaces/default/configmaps";
        assert_eq!(fleet.servers[0].send("POST", path, "application/json", &object).status, 201);
    }
    let list = wait_until("the administrator may list", || {
        let output = in_child(&fleet, &["get", "configmaps", "-o", "json"]);
        if output.code == Some(0) {
            Ok(output.stdout)
        } else {
            Err(output.stderr)
        }
    });
    assert_eq!(list.matches(&content).count(), 3);
}

#[test]
fn upgrades_and_logs_go_through_the_tunnel() {
    let fleet = Fleet::start(&["a"]);
    fleet.let_admins_in();
    add_echo_pod(&fleet.servers[0]);
    let id = fleet.servers[0].cluster_id();
    let socket = format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{id}/proxy/direct");
    let path = format!("{socket}/api/v1/namespaces/default/pods/echo/exec?command=x&stdin=true&stdout=true");
    let (head, mut stream) = wait_until("the upgrade is granted", || {
        let (head, stream) = fleet
            .hub
            .client()
            .upgrade(&path, "SPDY/3.1")
            .map_err(|error| error.to_string())?;
        if head.starts_with("HTTP/1.1 101") {
            Ok((head, stream))
        } else {
            Err(head)
        }
    });
    assert!(head.to_ascii_lowercase().contains("upgrade: spdy/3.1"), "{head}");
    for round in 0..20u8 {
        let sent = vec![round; 50_000];
        stream.write_all(&sent).unwrap();
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        assert!(received == sent, "round {round} came back changed");
    }

    let directory = scratch("logs");
    let mut logs: Command = command(&tool("kubectl"), directory.path());
    logs.arg("--kubeconfig")
        .arg(fleet.hub.admin())
        .args(["--server", &through_the_tunnel(&fleet, 0), "logs", "-f", "echo"]);
    Process::start("kubectl logs", logs, &directory.path().join("log")).wait_log("first line");
}

#[test]
fn the_hub_shows_clusters_subscriptions_and_descriptions() {
    let fleet = Fleet::start(&["a", "b"]);
    fleet.repo.push(
        "first",
        &[
            ("base.yaml", &base()),
            ("one.yaml", &greeting("one", &[("name", "b")], "hello")),
        ],
    );
    fleet.wait_greeting(1, "one", Some("hello"));
    let hub = |arguments: &[&str]| kubectl(&fleet.hub.admin(), arguments);

    let clusters = hub(&["get", "managedclusters", "-A"]).ok();
    assert!(
        clusters.contains("CLUSTER ID") && clusters.contains(&fleet.servers[0].cluster_id()),
        "{clusters}"
    );
    assert_eq!(
        hub(&[
            "get",
            "mcls",
            "-A",
            "-l",
            "name=b",
            "-o",
            "jsonpath={.items[*].metadata.name}"
        ])
        .ok(),
        "b"
    );
    let status = hub(&[
        "get",
        "mcls",
        "-n",
        "clusternet-a",
        "a",
        "-o",
        "jsonpath={.status.k8sVersion} {.status.platform}",
    ])
    .ok();
    assert_eq!(status, "v1.35.4 linux/amd64");
    let bindings = hub(&[
        "get",
        "subscriptions",
        "-n",
        "shop",
        "one",
        "-o",
        "jsonpath={.status.bindingClusters[*]}",
    ])
    .ok();
    assert_eq!(bindings, "clusternet-b/b");
    let descriptions = hub(&["get", "descriptions", "-n", "clusternet-b"]).ok();
    assert!(descriptions.contains("Generic"), "{descriptions}");
    let refused = hub(&["delete", "subscription", "-n", "shop", "one"]).fails_with(1);
    assert!(refused.contains("edit one.yaml:2"), "{refused}");
    let unknown = hub(&["get", "subscriptions", "-n", "shop", "nothing"]).fails_with(1);
    assert!(unknown.contains("NotFound"), "{unknown}");
}

#[test]
fn a_cluster_that_is_unknown_or_away_is_named_as_such() {
    let mut fleet = Fleet::start(&["a"]);
    let base = format!(
        "https://127.0.0.1:{}/apis/proxies.clusternet.io/v1alpha1/sockets",
        fleet.hub.port()
    );
    let unknown = format!("{base}/00000000-0000-4000-8000-000000000000/proxy/direct");
    let output = kubectl(&fleet.hub.admin(), &["--server", &unknown, "get", "--raw", "/api"]).fails_with(1);
    assert!(output.contains("00000000-0000-4000-8000-000000000000"), "{output}");

    let id = fleet.servers[0].cluster_id();
    fleet.agents[0].kill();
    let path = format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{id}/proxy/direct/version");
    let answer = wait_until("the hub says that the cluster is not connected", || {
        let answer = fleet.hub.client().get(&path)?;
        if answer.status == 503 {
            Ok(answer)
        } else {
            Err(format!("{answer:?}"))
        }
    });
    assert!(
        answer.json()["message"]
            .as_str()
            .is_some_and(|message| message.contains("\"a\" is offline")),
        "{answer:?}"
    );
}
