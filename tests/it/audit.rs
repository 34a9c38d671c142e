//! One line in the hub's log for each request to a cluster: who, where, what, how it went, how much came; and nothing that is secret.

use serde_json::{Value, json};

use crate::authorisation::user_of;
use crate::support::fleet::{Fleet, Hub};
use crate::support::https::{Body, Client};
use crate::support::node::read_head;
use crate::support::repository::GitRepo;
use crate::support::wait_until;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The line of the request whose object has this name, once it is there: it is written when the answer has ended.
fn line(hub: &Hub, name: &str) -> Value {
    wait_until(&format!("the request for {name} is in the log"), || {
        let log = hub.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut audit = lines.filter(|line| line["message"] == "audit" && line["name"] == name);
        audit.next().ok_or(log.clone())
    })
}

fn fields(line: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| line[name].clone()).collect()
}

#[test]
fn each_request_to_a_cluster_is_one_line_without_secrets() {
    let repo = GitRepo::with(&[("README.md", "A fleet.\n")]);
    let hub = Hub::prepare("hub", &repo).with("--log-format=json");
    let fleet = Fleet::of(repo, hub, &["a"]);
    fleet.let_admins_in();
    let (hub, socket) = (&fleet.hub, fleet.socket(0));
    let admin = hub.client();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}, "data": {"key": "in-the-body"}});
    let body = Body {
        content_type: "application/json",
        content: &object.to_string(),
    };
    let made = admin.request("POST", &format!("{socket}{CONFIG_MAPS}"), body).unwrap();
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(admin.get(&format!("{socket}{CONFIG_MAPS}/made")).unwrap().status, 200);
    let got = line(hub, "made");
    assert_eq!(
        fields(
            &got,
            &["user", "cluster", "verb", "resource", "namespace", "code", "impersonated"]
        ),
        json!(["branchline:admin", "a", "get", "configmaps", "default", 200, null])
    );
    assert!(
        got["bytes"].as_u64().is_some_and(|bytes| bytes > 100) && got["ms"].is_u64(),
        "{got}"
    );

    let stranger = user_of(hub, "mallory", "strangers");
    assert_eq!(stranger.get(&format!("{socket}{CONFIG_MAPS}/closed")).unwrap().status, 403);
    let refused = line(hub, "closed");
    assert_eq!(fields(&refused, &["user", "code", "bytes"]), json!(["mallory", 403, 0]));
    let nobody = Client::new(hub.port(), &hub.ca(), None).with_bearer("in-the-header");
    assert_eq!(nobody.get(&format!("{socket}{CONFIG_MAPS}/unknown")).unwrap().status, 401);
    assert_eq!(fields(&line(hub, "unknown"), &["user", "code"]), json!([null, 401]));
    let other = admin.clone().with_header("Impersonate-User", "olga");
    let exec = format!("{socket}/api/v1/namespaces/default/pods/none/exec?command=in-the-query&stdout=true");
    let (head, _) = other.upgrade(&exec, "SPDY/3.1").unwrap();
    assert!(head.contains(" 403 "), "{head}");
    let acted = line(hub, "none");
    assert_eq!(
        fields(&acted, &["user", "impersonated", "verb", "resource", "code"]),
        json!(["branchline:admin", "olga", "create", "pods/exec", 403])
    );

    let watched = format!("{socket}{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dwatched");
    let mut watch = admin.open(&watched).unwrap();
    assert!(read_head(&mut watch).unwrap().starts_with("HTTP/1.1 200"));
    assert!(
        !hub.log().contains("\"watched\""),
        "a line is written when the request has ended"
    );
    drop(watch);
    assert_eq!(fields(&line(hub, "watched"), &["verb", "code"]), json!(["watch", 200]));
    let log = hub.log();
    for secret in ["in-the-body", "in-the-header", "in-the-query", "PRIVATE KEY"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
