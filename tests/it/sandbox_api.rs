//! What clients other than kubectl rely on: watches, pages, representations, preconditions, and a sandbox that comes back after a
//! restart with the same objects. Asked without a socket.

use std::time::Duration;

use branchline::kubeapi::{RequestContext, ResponseBody};
use branchline::sandbox::{Sandbox, SandboxOptions, keep, load_snapshot};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::scratch;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn sandbox() -> Sandbox {
    Sandbox::new(SandboxOptions {
        kube_system_uid: uuid::Uuid::from_u128(1),
        snapshot: None,
    })
}

async fn send(sandbox: &Sandbox, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response<ResponseBody> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    sandbox.handle(request, RequestContext::default()).await
}

async fn ask(sandbox: &Sandbox, method: &str, path: &str, body: Value) -> (u16, Value) {
    let headers = [("content-type", patch_type(method)), ("accept", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = send(sandbox, method, path, &headers, body.as_bytes()).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn patch_type(method: &str) -> &'static str {
    match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    }
}

async fn get(sandbox: &Sandbox, path: &str) -> Value {
    ask(sandbox, "GET", path, Value::Null).await.1
}

fn config_map(name: &str, label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": label}}})
}

async fn create(sandbox: &Sandbox, name: &str, label: &str) -> Value {
    let (status, object) = ask(sandbox, "POST", CONFIG_MAPS, config_map(name, label)).await;
    assert_eq!(status, 201, "{object}");
    object
}

async fn relabel(sandbox: &Sandbox, name: &str, label: &str) {
    let patch = json!({"metadata": {"labels": {"app": label}}});
    assert_eq!(ask(sandbox, "PATCH", &format!("{CONFIG_MAPS}/{name}"), patch).await.0, 200);
}

/// A watch that is read event by event.
struct Watch {
    body: ResponseBody,
    events: Vec<Value>,
}

impl Watch {
    async fn open(sandbox: &Sandbox, query: &str) -> Watch {
        let response = send(sandbox, "GET", &format!("{CONFIG_MAPS}?watch=1&{query}"), &[], b"").await;
        assert_eq!(response.status(), 200);
        Watch {
            body: response.into_body(),
            events: Vec::new(),
        }
    }

    /// The next event; `None` when the server ended the watch.
    async fn next(&mut self) -> Option<Value> {
        while self.events.is_empty() {
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame()).await;
            let chunk = frame.expect("an event in time")?.unwrap().into_data().unwrap();
            let lines = chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            self.events = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
        }
        Some(self.events.remove(0))
    }

    async fn next_as(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_sees_objects_enter_and_leave_its_selection() {
    let sandbox = sandbox();
    create(&sandbox, "a", "web").await;
    let mut watch = Watch::open(&sandbox, "labelSelector=app%3Dweb").await;
    assert_eq!(watch.next_as().await, event("ADDED", "a"));
    create(&sandbox, "b", "db").await;
    relabel(&sandbox, "b", "web").await;
    assert_eq!(watch.next_as().await, event("ADDED", "b"));
    relabel(&sandbox, "a", "db").await;
    let left = watch.next().await.unwrap();
    assert_eq!(
        (&left["type"], &left["object"]["metadata"]["labels"]["app"]),
        (&json!("DELETED"), &json!("web"))
    );
    ask(&sandbox, "DELETE", &format!("{CONFIG_MAPS}/b"), Value::Null).await;
    assert_eq!(watch.next_as().await, event("DELETED", "b"));
}

#[tokio::test]
async fn a_watch_goes_on_where_a_list_ended() {
    let sandbox = sandbox();
    create(&sandbox, "a", "web").await;
    let list = get(&sandbox, CONFIG_MAPS).await;
    create(&sandbox, "b", "web").await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::open(&sandbox, &format!("resourceVersion={revision}&timeoutSeconds=1")).await;
    assert_eq!(watch.next_as().await, event("ADDED", "b"));
    assert_eq!(watch.next().await, None, "timeoutSeconds ends it");
    let (status, error) = ask(
        &sandbox,
        "GET",
        &format!("{CONFIG_MAPS}?watch=1&resourceVersion=99999"),
        Value::Null,
    )
    .await;
    assert_eq!((status, &error["reason"]), (504, &json!("Timeout")));
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let sandbox = sandbox();
    create(&sandbox, "a", "web").await;
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = Watch::open(&sandbox, query).await;
    assert_eq!(watch.next_as().await, event("ADDED", "a"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    create(&sandbox, "b", "web").await;
    assert_eq!(watch.next_as().await, event("ADDED", "b"));
}

#[tokio::test]
async fn a_slow_watch_is_told_to_start_over_and_holds_nobody_up() {
    let sandbox = sandbox();
    let mut watch = Watch::open(&sandbox, "").await;
    create(&sandbox, "a", "0").await;
    for label in 1..1_000 {
        relabel(&sandbox, "a", &label.to_string()).await;
    }
    let end = watch.next().await.unwrap();
    assert_eq!((&end["type"], &end["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let sandbox = sandbox();
    for name in ["a", "b", "c", "d", "e"] {
        create(&sandbox, name, "x").await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = get(&sandbox, &format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
        names.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["metadata"]["name"].clone()),
        );
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
        assert_eq!(page["metadata"]["remainingItemCount"], json!(5 - names.len()));
    }
    assert_eq!(Value::Array(names), json!(["a", "b", "c", "d", "e"]));
    assert_eq!(
        ask(&sandbox, "GET", &format!("{CONFIG_MAPS}?continue=x"), Value::Null)
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn metadata_alone_can_be_asked_for() {
    let sandbox = sandbox();
    create(&sandbox, "a", "x").await;
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let response = send(&sandbox, "GET", CONFIG_MAPS, &[("accept", accept)], b"").await;
    let list: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    let response = send(&sandbox, "GET", CONFIG_MAPS, &[("accept", "text/html")], b"").await;
    assert_eq!(response.status(), 406);
}

#[tokio::test]
async fn deletion_minds_preconditions_and_finalizers() {
    let sandbox = sandbox();
    let object = create(&sandbox, "a", "x").await;
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = json!({"preconditions": {"uid": "other"}});
    assert_eq!(ask(&sandbox, "DELETE", &path, wrong).await.0, 409);
    ask(
        &sandbox,
        "PATCH",
        &path,
        json!({"metadata": {"finalizers": ["example.com/hold"]}}),
    )
    .await;
    let right = json!({"preconditions": {"uid": object["metadata"]["uid"]}});
    let (status, held) = ask(&sandbox, "DELETE", &path, right).await;
    assert_eq!((status, held["metadata"]["deletionTimestamp"].is_string()), (200, true));
    ask(&sandbox, "PATCH", &path, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(ask(&sandbox, "GET", &path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_namespace_goes_when_the_last_finalizer_in_it_goes() {
    let sandbox = sandbox();
    ask(&sandbox, "POST", "/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    ask(&sandbox, "POST", "/api/v1/namespaces/shop/configmaps", held).await;
    ask(
        &sandbox,
        "POST",
        "/api/v1/namespaces/shop/configmaps",
        json!({"metadata": {"name": "free"}}),
    )
    .await;
    ask(&sandbox, "DELETE", "/api/v1/namespaces/shop", Value::Null).await;
    assert_eq!(
        get(&sandbox, "/api/v1/namespaces/shop").await["status"]["phase"],
        "Terminating"
    );
    assert_eq!(get(&sandbox, "/api/v1/namespaces/shop/configmaps/free").await["code"], 404);
    let (status, error) = ask(
        &sandbox,
        "POST",
        "/api/v1/namespaces/shop/configmaps",
        json!({"metadata": {"name": "new"}}),
    )
    .await;
    assert_eq!(
        (status, &error["details"]["causes"][0]["reason"]),
        (403, &json!("NamespaceTerminating"))
    );
    let release = json!({"metadata": {"finalizers": []}});
    ask(&sandbox, "PATCH", "/api/v1/namespaces/shop/configmaps/held", release).await;
    assert_eq!(get(&sandbox, "/api/v1/namespaces/shop").await["code"], 404);
}

#[tokio::test]
async fn one_of_two_racing_updates_loses() {
    let sandbox = sandbox();
    let object = create(&sandbox, "a", "x").await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut first = object.clone();
    first["data"] = json!({"by": "first"});
    let mut second = object;
    second["data"] = json!({"by": "second"});
    assert_eq!(ask(&sandbox, "PUT", &path, first).await.0, 200);
    let (status, error) = ask(&sandbox, "PUT", &path, second).await;
    assert_eq!((status, &error["reason"]), (409, &json!("Conflict")));
    let unchanged = get(&sandbox, &path).await;
    let (_, again) = ask(&sandbox, "PUT", &path, unchanged.clone()).await;
    assert_eq!(
        again["metadata"]["resourceVersion"], unchanged["metadata"]["resourceVersion"],
        "no change, no revision"
    );
}

#[tokio::test]
async fn a_restarted_sandbox_carries_on() {
    let directory = scratch("sandbox-file");
    let path = directory.path().join("sandbox.json");
    assert_eq!(load_snapshot(&path).unwrap(), None);
    let before = sandbox();
    let cancel = CancellationToken::new();
    let keeper = tokio::spawn(keep(before.clone(), path.clone(), cancel.clone()));
    let object = create(&before, "a", "x").await;
    let namespaces = get(&before, "/api/v1/namespaces").await["items"].clone();
    cancel.cancel();
    keeper.await.unwrap().unwrap();

    let after = Sandbox::new(SandboxOptions {
        kube_system_uid: uuid::Uuid::from_u128(1),
        snapshot: load_snapshot(&path).unwrap(),
    });
    assert_eq!(get(&after, &format!("{CONFIG_MAPS}/a")).await, object);
    assert_eq!(get(&after, "/api/v1/namespaces").await["items"], namespaces);
    let mut watch = Watch::open(&after, "resourceVersion=1").await;
    assert_eq!(
        watch.next().await.unwrap()["object"]["code"],
        410,
        "the history did not survive"
    );
    std::fs::write(&path, "{").unwrap();
    assert!(
        load_snapshot(&path)
            .unwrap_err()
            .to_string()
            .contains("delete it to start with an empty sandbox")
    );
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_status() {
    let sandbox = sandbox();
    let path = format!("{CONFIG_MAPS}/a");
    create(&sandbox, "a", "x").await;
    for (method, path, media_type, body, status) in [
        ("POST", CONFIG_MAPS, "application/json", "{", 400),
        ("POST", CONFIG_MAPS, "text/plain", "{}", 415),
        (
            "POST",
            CONFIG_MAPS,
            "application/vnd.kubernetes.protobuf",
            "k8s\0garbage",
            400,
        ),
        (
            "POST",
            CONFIG_MAPS,
            "application/json",
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}"#,
            400,
        ),
        ("POST", CONFIG_MAPS, "application/json", "[]", 400),
        ("PATCH", &path, "application/apply-patch+yaml", "{}", 422),
        ("PATCH", &path, "text/plain", "{}", 415),
        ("PUT", &path, "application/json", r#"{"metadata":{"name":"b"}}"#, 400),
        ("POST", &path, "application/json", "{}", 405),
        ("POST", "/version", "application/json", "{}", 405),
        ("DELETE", "/api/v1/nodes/x", "application/json", "", 404),
    ] {
        let response = send(&sandbox, method, path, &[("content-type", media_type)], body.as_bytes()).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path} {body}");
        let answer: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Failure")));
    }
    let large = vec![b' '; 3 * 1024 * 1024 + 1];
    let response = send(&sandbox, "POST", CONFIG_MAPS, &[("content-type", "application/json")], &large).await;
    assert_eq!(response.status().as_u16(), 413);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selection() {
    let sandbox = sandbox();
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
        create(&sandbox, name, label).await;
    }
    let path = format!("{CONFIG_MAPS}?labelSelector=app%3Dx");
    assert_eq!(
        ask(&sandbox, "DELETE", &format!("{path}&dryRun=All"), Value::Null).await.0,
        200
    );
    assert_eq!(get(&sandbox, CONFIG_MAPS).await["items"].as_array().unwrap().len(), 3);
    let (status, deleted) = ask(&sandbox, "DELETE", &path, Value::Null).await;
    assert_eq!((status, deleted["items"].as_array().unwrap().len()), (200, 2));
    let left = get(&sandbox, CONFIG_MAPS).await;
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_watch_in_tables_names_its_columns_once() {
    let sandbox = sandbox();
    create(&sandbox, "a", "x").await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = send(&sandbox, "GET", &format!("{CONFIG_MAPS}?watch=1"), &accept, b"").await;
    let mut watch = Watch {
        body: response.into_body(),
        events: Vec::new(),
    };
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    create(&sandbox, "b", "x").await;
    let second = watch.next().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test]
async fn what_kubelets_would_write_can_be_placed() {
    let sandbox = sandbox();
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": ""}},
        "status": {
            "capacity": {"cpu": "4", "memory": "8Gi"}, "nodeInfo": {"kubeletVersion": "v1.35.0"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let node = branchline::core::object::Object::from_value(node).unwrap();
    assert!(sandbox.place(node));
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = send(&sandbox, "GET", "/api/v1/nodes", &accept, b"").await;
    let table: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let cells = &table["rows"][0]["cells"];
    assert_eq!(
        (&cells[0], &cells[1], &cells[2], &cells[4]),
        (&json!("n1"), &json!("Ready"), &json!("worker"), &json!("v1.35.0"))
    );
    let strange = json!({"apiVersion": "example.com/v1", "kind": "Strange", "metadata": {"name": "s"}});
    assert!(!sandbox.place(branchline::core::object::Object::from_value(strange).unwrap()));
}
