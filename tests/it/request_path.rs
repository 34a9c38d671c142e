//! What nobody should send, byte for byte, to a running hub with a cluster behind it: each is refused with a reason, or cut, and neither the
//! cluster's tunnel nor anybody else notices.

use std::io::{Read, Write};

use serde_json::Value;

use crate::support::dice::{Dice, number};
use crate::support::fleet::{Fleet, Hub};
use crate::support::relay::Relay;
use crate::support::repository::GitRepo;
use crate::support::{holds, wait_until};

/// A cluster `a` whose agent reaches the hub through a relay, which knows how often it had to connect.
struct Behind {
    fleet: Fleet,
    relay: Relay,
}

impl Behind {
    fn start() -> Self {
        let repo = GitRepo::with(&[("README.md", "A fleet.\n")]);
        let hub = Hub::prepare("hub", &repo);
        let relay = Relay::to(hub.port());
        let hub = hub.advertising(relay.port());
        let fleet = Fleet::of(repo, hub, &["a"]);
        fleet.let_admins_in();
        Behind { fleet, relay }
    }

    /// Sends bytes and gives the codes of the answers, with the text of all; a connection that is cut without an answer has none.
    fn send(&self, bytes: &[u8]) -> (Vec<u16>, String) {
        let text = self.fleet.hub.client().raw(bytes).unwrap_or_default();
        let heads = text.split("HTTP/1.1 ").skip(1);
        (heads.map(|head| head[..3].parse().unwrap()).collect(), text)
    }

    /// The cluster is reached, and its agent has never had to connect again.
    #[track_caller]
    fn is_as_healthy_as_before(&self, after: &str, connections: usize) {
        let answer = self.fleet.hub.client().get("/clusters/a/version").unwrap();
        assert_eq!(answer.status, 200, "after {after}: {}", answer.body);
        assert_eq!(self.relay.accepted(), connections, "after {after}");
    }
}

/// The message of a `Status` at the end of an answer.
#[track_caller]
fn message(text: &str) -> String {
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let status: Value = serde_json::from_str(body).unwrap_or_default();
    assert_eq!(status["kind"], "Status", "{text}");
    status["message"].as_str().unwrap().to_owned()
}

/// Target, the code it is answered with, and what the answer says.
const TARGETS: [(&str, u16, &str); 19] = [
    ("/clusters/a//api/v1", 400, "empty segment"),
    ("/clusters//a/api/v1", 400, "empty segment"),
    ("/clusters/a/%2e%2e/b/api", 400, "dot segment"),
    ("/clusters/a/%2E./api", 400, "dot segment"),
    ("/clusters/a/../b/api", 400, "dot segment"),
    ("/clusters/a/./api", 400, "dot segment"),
    ("/clusters/a/api%2fv1", 400, "encoded slash"),
    ("/clusters/a/api%5cv1", 400, "backslash"),
    ("/clusters/a/api%00", 400, "zero byte"),
    ("https://127.0.0.1/clusters/a/api", 400, "absolute URL"),
    ("http://elsewhere/clusters/a/api", 400, "absolute URL"),
    ("/clusters/", 404, "names no cluster"),
    ("/clusters/aa/api", 404, "there is a"),
    ("/clusters/%61/api", 404, "no cluster"),
    (
        "/apis/proxies.clusternet.io/v1alpha1/sockets/a/proxy/elsewhere/x",
        404,
        "proxy/direct/",
    ),
    ("/apis/proxies.clusternet.io/v1alpha1/sockets/a/status", 404, "proxy/direct/"),
    (
        "/apis/proxies.clusternet.io/v1alpha1/sockets/a/proxy/http/x@y/",
        404,
        "proxy/direct/",
    ),
    (
        "/apis/proxies.clusternet.io/v1alpha1/sockets/a/proxy/direct/%2e%2e/x",
        400,
        "dot segment",
    ),
    ("/apis/proxies.clusternet.io/v1alpha1/sockets/a", 400, "is not a cluster id"),
];

#[test]
fn targets_that_could_mean_two_things_are_refused_in_words() {
    let behind = Behind::start();
    let connections = behind.relay.accepted();
    for (target, code, reason) in TARGETS {
        for method in ["GET", "POST", "DELETE"] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let (codes, text) = behind.send(head.as_bytes());
            assert_eq!(codes, [code], "{method} {target}: {text}");
            let said = message(&text);
            assert!(said.contains(reason), "{method} {target}: {said}");
        }
        behind.is_as_healthy_as_before(target, connections);
    }
    shapes_that_servers_read_differently(&behind, connections);
    upgrades_to_nothing_known(&behind, connections);
    whatever_comes(&behind, connections);
}

/// A request to the cluster with these header lines, and this behind its head.
fn request(headers: &str, body: &str) -> Vec<u8> {
    let target = "/clusters/a/api/v1/namespaces/default/configmaps?dryRun=All";
    format!("POST {target} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n{headers}\r\n{body}").into_bytes()
}

fn shapes_that_servers_read_differently(behind: &Behind, connections: usize) {
    let smuggled = "GET /clusters/a/version HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"smuggled"}}"#;
    let chunked = format!("{:x}\r\n{map}\r\n0\r\n\r\n{smuggled}", map.len());
    // Taken by Transfer-Encoding alone; what follows is never read, whatever Content-Length says.
    for lengths in ["Content-Length: 4\r\n", ""] {
        for headers in [
            format!("{lengths}Transfer-Encoding: chunked\r\n"),
            format!("Transfer-Encoding: chunked\r\n{lengths}"),
        ] {
            let (codes, text) = behind.send(&request(&headers, &chunked));
            assert_eq!(codes, [201], "{headers}: {text}");
            assert!(text.to_ascii_lowercase().contains("connection: close"), "{headers}: {text}");
        }
    }
    let many = "X-Many: 1\r\n".repeat(1_000);
    let long = format!("X-Long: {}\r\n", "a".repeat(1 << 20));
    for (headers, body, code) in [
        ("Content-Length: 4\r\nContent-Length: 5\r\n", "{}  {}", 400),
        ("Content-Length: -1\r\n", "{}", 400),
        ("Content-Length: +2\r\n", "{}", 400),
        ("Content-Length: 0x2\r\n", "{}", 400),
        ("Content-Length: 2, 3\r\n", "{}", 400),
        ("Content-Length: 99999999999999999999999\r\n", "{}", 400),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n", 400),
        ("X-Folded: a\r\n b\r\nContent-Length: 2\r\n", "{}", 400),
        ("X-Folded: a\r\n\tContent-Length: 2\r\n", "{}", 400),
        (" X-Indented: a\r\nContent-Length: 2\r\n", "{}", 400),
        ("X-Bare: a\rX-Return: b\r\nContent-Length: 2\r\n", "{}", 400),
        ("X-Zero: a\0b\r\nContent-Length: 2\r\n", "{}", 400),
        ("No colon\r\nContent-Length: 2\r\n", "{}", 400),
        (": no name\r\nContent-Length: 2\r\n", "{}", 400),
        (&many, "", 431),
        (&long, "", 431),
    ] {
        let what = headers[..headers.len().min(60)].escape_debug().to_string();
        let (codes, text) = behind.send(&request(headers, body));
        assert_eq!(codes, [code], "{what}: {text}");
        behind.is_as_healthy_as_before(&what, connections);
    }
    for (line, codes) in [
        (
            "GET /clusters/a/version HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
            &[400][..],
        ),
        ("GET /clusters/a/version HTTP/3.0\r\n", &[400]),
        ("GET  /clusters/a/version  HTTP/1.1\r\n", &[400]),
        ("GET /clusters/a/version\r\n", &[400]),
        ("CONNECT /clusters/a/version HTTP/1.1\r\n", &[405]),
        ("CONNECT 127.0.0.1:22 HTTP/1.1\r\n", &[405]),
        ("OPTIONS * HTTP/1.1\r\n", &[404]),
    ] {
        let (got, text) = behind.send(format!("{line}Host: hub\r\nConnection: close\r\n\r\n").as_bytes());
        assert_eq!(got, codes, "{line}: {text}");
        behind.is_as_healthy_as_before(line, connections);
    }
    let far = format!("GET /clusters/a/{} HTTP/1.1\r\nHost: hub\r\n\r\n", "a".repeat(70_000));
    assert_eq!(behind.send(far.as_bytes()).0, [414]);
    // A body that stops being one reaches nobody.
    let (codes, text) = behind.send(&request("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"));
    assert!(codes.iter().all(|code| *code >= 400), "{text}");
    behind.is_as_healthy_as_before("a body that is none", connections);
}

fn upgrades_to_nothing_known(behind: &Behind, connections: usize) {
    let exec = "/clusters/a/api/v1/namespaces/default/pods/none/exec?command=ls&stdout=true";
    for (path, protocol, wanted) in [
        (exec, "nonsense/9", 404),
        (exec, "h2c", 404),
        ("/clusters/a/version", "nonsense/9", 200),
        ("/clusters/a/version", "h2c", 200),
        ("/clusters/none/version", "websocket", 404),
        ("/version", "nonsense/9", 200),
    ] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: {protocol}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nwhat the new protocol would say"
        );
        let (codes, text) = behind.send(head.as_bytes());
        assert_eq!(codes.first(), Some(&wanted), "{path} {protocol}: {text}");
        behind.is_as_healthy_as_before(&format!("an upgrade to {protocol}"), connections);
    }
}

const SEEDS: [&str; 5] = [
    "GET /clusters/a/api/v1/namespaces?limit=1 HTTP/1.1\r\nHost: hub\r\nAccept: application/json\r\n\r\n",
    "GET /apis/proxies.clusternet.io/v1alpha1/sockets/a/proxy/direct/version HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n",
    "POST /clusters/a/api/v1/namespaces/default/configmaps?dryRun=All HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n\
     Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "GET /clusters/a/api/v1/configmaps?watch=true&timeoutSeconds=1 HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
];

/// A request, hurt in some places.
fn hurt(dice: &mut Dice) -> Vec<u8> {
    const PIECES: [&[u8]; 12] = [
        b"\r\n",
        b"\r\n\r\n",
        b"//",
        b"%2e%2e/",
        b"\0",
        b" ",
        b":",
        b"Content-Length: 7\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
        b"\xff\xfe",
        b"Impersonate-User: system:admin\r\n",
    ];
    let mut bytes = dice.pick(&SEEDS).as_bytes().to_vec();
    for _ in 0..=dice.roll(6) {
        let at = dice.roll(bytes.len() as u64 + 1) as usize;
        match dice.roll(4) {
            0 => drop(bytes.splice(at..at, dice.pick(&PIECES).iter().copied())),
            1 => bytes.truncate(at.max(1)),
            2 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            _ => {
                let end = (at + dice.roll(16) as usize).min(bytes.len());
                bytes.drain(at..end);
                bytes.push(b'\n');
            }
        }
    }
    bytes
}

/// Requests that are hurt at random, on a connection each: `REQUEST_PATH_SEED` and `REQUEST_PATH_CASES` try others and more.
fn whatever_comes(behind: &Behind, connections: usize) {
    let seed = number("REQUEST_PATH_SEED", 20_261_121);
    let mut dice = Dice(seed);
    for case in 0..number("REQUEST_PATH_CASES", 300) {
        let bytes = hurt(&mut dice);
        let mut stream = behind.fleet.hub.client().connect().unwrap();
        // The hub may have heard enough before all is said.
        let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let timed_out =
            ended.is_err_and(|error| [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()));
        let what = format!("case {case} of seed {seed}: {}", bytes.escape_ascii());
        assert!(!timed_out, "the hub holds on to {what}");
        if case % 20 == 0 {
            behind.is_as_healthy_as_before(&what, connections);
        }
    }
    behind.is_as_healthy_as_before("all of them", connections);
}

#[test]
fn a_cluster_that_is_offline_is_said_to_be_so_at_once() {
    let mut behind = Behind::start();
    let kubeconfig = behind.fleet.hub.kubeconfig("offline", "/clusters/a");
    let nodes = || crate::support::apiserver::kubectl(&kubeconfig, &["get", "nodes"]);
    nodes().ok();
    behind.fleet.agents[0].kill();
    let client = behind.fleet.hub.client();
    let offline = wait_until("the hub notices", || {
        let answer = client.get("/clusters/a/version")?;
        holds(answer.status == 503, format!("{answer:?}"))?;
        Ok(answer.json())
    });
    let said = offline["message"].as_str().unwrap();
    assert!(
        said.contains("\"a\" is offline since 20") && said.contains("agent's log"),
        "{said}"
    );
    assert_eq!(offline["reason"], "ServiceUnavailable");
    let exec = "/clusters/a/api/v1/namespaces/default/pods/none/exec?command=ls&stdout=true";
    for protocol in ["SPDY/3.1", "websocket"] {
        let (head, _) = client.upgrade(exec, protocol).unwrap();
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    }
    // Without what it remembers of the cluster's API, kubectl leaves the reason out.
    let said = nodes().fails_with(1);
    assert!(said.contains("is offline since"), "{said}");
    behind.fleet.agents[0].launch();
    behind.fleet.wait_reachable(0);
}
