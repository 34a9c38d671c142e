//! The paths that lead through the hub: a cluster by its id, its name or its namespace, and services beside its API server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use http::Method;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::apiserver::ApiServer;
use crate::support::fleet::{Agent, Fleet, Hub};
use crate::support::https::Response;
use crate::support::node::{read_head, tls};
use crate::support::reach::Reach;
use crate::support::repository::GitRepo;
use crate::support::whole_hub::{Candidate, WholeHub, config, home};
use crate::support::{holds, wait_until};

#[test]
fn a_cluster_goes_by_its_id_its_name_and_its_namespace() {
    let reach = Reach::shared();
    let hub = reach.fleet.hub.client();
    let id = reach.fleet.servers[1].cluster_id();
    let socket = "/apis/proxies.clusternet.io/v1alpha1/sockets";
    for begin in [
        format!("/clusters/{id}"),
        "/clusters/b".to_owned(),
        "/clusters/clusternet-b".to_owned(),
        format!("/clusters/{}", id.to_uppercase()),
        format!("{socket}/{id}/proxy/direct"),
        format!("{socket}/b/proxy/direct"),
    ] {
        let nodes = hub.get(&format!("{begin}/api/v1/nodes")).unwrap();
        assert_eq!(nodes.json()["items"][0]["metadata"]["name"], "node-b", "{begin}: {nodes:?}");
        for slash in ["", "/"] {
            let root = hub.get(&format!("{begin}{slash}")).unwrap();
            assert!(root.status == 200 && root.body.contains("/apis"), "{begin}{slash}: {root:?}");
        }
    }
    let kubeconfig = reach.fleet.hub.kubeconfig("short", "/clusters/b/");
    let nodes = crate::support::apiserver::kubectl(&kubeconfig, &["get", "nodes", "-o", "name"]).ok();
    assert_eq!(nodes, "node/node-b\n");
}

/// The message of a `Status` with this code.
#[track_caller]
fn message(response: &Response, code: u16) -> String {
    let status = response.json();
    assert!(
        response.status == code && status["kind"] == "Status" && status["code"] == code,
        "{response:?}"
    );
    status["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_word_that_means_no_cluster_is_answered_with_near_ones() {
    let reach = Reach::shared();
    let hub = reach.fleet.hub.client();
    for path in [
        "/clusters/bb/api",
        "/apis/proxies.clusternet.io/v1alpha1/sockets/bb/proxy/direct/api",
    ] {
        let unknown = message(&hub.get(path).unwrap(), 404);
        assert!(unknown.contains("\"bb\"") && unknown.contains("there is b"), "{unknown}");
    }
}

#[tokio::test]
async fn a_word_that_means_two_clusters_means_neither() {
    let (repo, home) = (GitRepo::with(&[("README.md", "A fleet.\n")]), home());
    let hub = WholeHub::start(config(&repo, &home)).await;
    let token = hub.token(None).await;
    // The second takes the first one's namespace for its name.
    for (number, name) in [(1, "edge"), (2, "clusternet-edge")] {
        Candidate::new(number, name).certificate(&hub, Some(&token)).await;
    }
    hub.until("both are registered", |status| {
        status["clusters"].as_array().is_some_and(|clusters| clusters.len() == 2)
    })
    .await;
    let (code, status) = hub.admin(Method::GET, "/clusters/clusternet-edge/api", &Value::Null).await;
    let said = status["message"].as_str().unwrap();
    assert!(code == 409 && status["reason"] == "Conflict", "{status}");
    assert!(said.contains("00000001-") && said.contains("00000002-"), "{said}");
    let (code, status) = hub.admin(Method::GET, "/clusters/edge/api", &Value::Null).await;
    assert!(
        code == 503 && status["message"].as_str().unwrap().contains("is offline since"),
        "{status}"
    );
    hub.stop().await;
}

/// A service that answers each request with its head, and echoes upgraded connections.
fn service(tls: Option<Arc<ServerConfig>>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let tls = tls.clone();
            std::thread::spawn(move || match tls {
                None => respond(socket),
                Some(tls) => respond(StreamOwned::new(ServerConnection::new(tls).unwrap(), socket)),
            });
        }
    });
    port
}

fn respond(mut stream: impl Read + Write) {
    // A connection that breaks is the business of the one who asked.
    let Ok(head) = read_head(&mut stream) else { return };
    if head.to_ascii_lowercase().contains("upgrade: test") {
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n");
        let mut piece = [0; 4];
        let _ = stream.read_exact(&mut piece).and_then(|()| stream.write_all(&piece));
        return;
    }
    let length = head.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Mine: kept\r\nConnection: close\r\n\r\n{head}"
    );
}

/// A hub and a cluster whose agent was started with these arguments.
fn fleet_with(server: ApiServer, arguments: &[String]) -> Fleet {
    let repo = GitRepo::with(&[("README.md", "A fleet.\n")]);
    let hub = Hub::start(&repo);
    let agent = Agent::prepare("a", &hub.join(&[]), &server);
    let mut agent = arguments.iter().fold(agent, |agent, argument| agent.with(argument));
    agent.launch();
    hub.wait_cluster("a", "True");
    Fleet {
        repo,
        hub,
        agents: vec![agent],
        servers: vec![server],
    }
}

#[test]
fn services_are_reached_where_the_owner_of_the_cluster_lets_requests_through() {
    let server = ApiServer::start("serving");
    let foreign = ApiServer::start("foreign");
    let (plain, secure, untrusted) = (service(None), service(Some(tls(&server))), service(Some(tls(&foreign))));
    let allowed = [plain, secure, untrusted].map(|port| format!("--allow-proxy-to=127.0.0.1:{port}"));
    let fleet = fleet_with(server, &allowed);
    let hub = fleet.hub.client();
    let socket = format!(
        "/apis/proxies.clusternet.io/v1alpha1/sockets/{}/proxy",
        fleet.servers[0].cluster_id()
    );
    for (scheme, port) in [("http", plain), ("https", secure)] {
        let answer = hub.get(&format!("{socket}/{scheme}/127.0.0.1:{port}/a/b/?q=1"));
        let answer = answer.unwrap();
        assert!(
            answer.status == 200 && answer.body.starts_with("GET /a/b/?q=1 HTTP/1.1\r\n"),
            "{answer:?}"
        );
        let head = answer.body.to_ascii_lowercase();
        assert!(head.contains(&format!("host: 127.0.0.1:{port}")), "{head}");
        for header in ["authorization:", "impersonate-", "x-remote-", "the-agents-token"] {
            assert!(!head.contains(header), "{header} went to the service: {head}");
        }
        for slash in ["", "/"] {
            let root = hub.get(&format!("{socket}/{scheme}/127.0.0.1:{port}{slash}")).unwrap();
            assert!(root.body.starts_with("GET / HTTP/1.1\r\n"), "{root:?}");
        }
    }
    let (head, mut stream) = hub.upgrade(&format!("{socket}/http/127.0.0.1:{plain}/ws"), "test").unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"ping").unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"ping");

    let other = hub
        .get(&format!("{socket}/http/127.0.0.1:{}/", crate::support::free_port()))
        .unwrap();
    let said = message(&other, 403);
    assert!(said.contains("--allow-proxy-to 127.0.0.1:"), "{said}");
    let stranger = message(&hub.get(&format!("{socket}/https/127.0.0.1:{untrusted}/")).unwrap(), 502);
    assert!(stranger.contains("certificate"), "{stranger}");
    let missing = message(&hub.get(&format!("{socket}/ftp/127.0.0.1:21/")).unwrap(), 404);
    assert!(missing.contains("proxy/https/<host[:port]>"), "{missing}");
}

#[test]
fn no_service_is_reached_unless_the_owner_says_so() {
    let reach = Reach::shared();
    let socket = reach.fleet.socket(0).replace("/direct", "");
    let port = service(None);
    for target in [format!("http/127.0.0.1:{port}"), format!("http/localhost:{port}/x")] {
        let said = message(&reach.fleet.hub.client().get(&format!("{socket}/{target}")).unwrap(), 403);
        assert!(said.contains("--allow-proxy-to"), "{said}");
    }
    wait_until("the tunnel is as healthy as before", || {
        let answer = reach.fleet.hub.client().get("/clusters/a/version")?;
        holds(answer.status == 200, answer.body)
    });
}
