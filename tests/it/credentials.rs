//! By what users prove who they are, against a hub process: static tokens.

use std::fs;
use std::time::{Duration, SystemTime};

use branchline::core::access::token_file::token_line;

use crate::authorisation::ended;
use crate::support::fleet::Hub;
use crate::support::https::Client;
use crate::support::node::read_head;
use crate::support::process::{branchline, command, run};
use crate::support::repository::GitRepo;
use crate::support::tools::tool;
use crate::support::{holds, scratch, wait_until};

/// The group `people` reads Subscriptions.
pub(crate) const ACCESS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: people}
rules:
- {apiGroups: [apps.clusternet.io], resources: [subscriptions], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: people}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: people}
subjects: [{kind: Group, name: people}]
";
/// A list of the hub's own API.
pub(crate) const SUBSCRIPTIONS: &str = "/apis/apps.clusternet.io/v1alpha1/subscriptions";

/// A client with a bearer token and no certificate.
pub(crate) fn with_token(hub: &Hub, token: &str) -> Client {
    Client::new(hub.port(), &hub.ca(), None).with_bearer(token)
}

/// The code that a GET gets.
pub(crate) fn code(client: &Client, path: &str) -> u16 {
    client.get(path).unwrap().status
}

/// The code with the message of a refusal.
pub(crate) fn refusal(client: &Client, path: &str) -> (u16, String) {
    let answer = client.get(path).unwrap();
    let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
    (answer.status, message)
}

#[test]
fn static_tokens_count_while_their_line_stands() {
    let directory = scratch("tokens");
    let file = directory.path().join("tokens.csv");
    let make = |user: &str, group: &str| {
        let file = file.to_str().unwrap();
        let arguments = ["token", "user", "--user", user, "--group", group, "--file", file];
        run(branchline(directory.path()).args(arguments)).ok().trim().to_owned()
    };
    let (alice, bob, late) = (make("alice", "people"), make("bob", "nobody"), make("late", "people"));
    let mut lines: Vec<String> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    assert!(
        !lines.concat().contains(&alice) && lines[0].contains(",alice,,people,20"),
        "{lines:?}"
    );
    let (line, _) = lines[2].rsplit_once(',').unwrap();
    lines[2] = format!("{line},2026-01-01T00:00:00Z");
    let write = |lines: &[String]| fs::write(&file, lines.join("\n") + "\n").unwrap();
    write(&lines);
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let mut hub = Hub::prepare("hub", &repo).with(&format!("--token-auth-file={}", file.display()));
    hub.start_again();
    let client = |token: &str| with_token(&hub, token);
    let (alice, bob) = (client(&alice), client(&bob));
    assert_eq!((code(&alice, SUBSCRIPTIONS), code(&bob, SUBSCRIPTIONS)), (200, 403));
    for (nobody, why) in [
        (client("garbage"), "not known here"),
        (client(&late), "has expired"),
        (client("").with_header("X-Remote-User", "branchline:admin"), "Bearer TOKEN"),
    ] {
        let (status, message) = refusal(&nobody, SUBSCRIPTIONS);
        assert!(status == 401 && message.contains(why), "{status} {message}");
    }
    let watch = |client: &Client| {
        let mut watch = client.open(&format!("{SUBSCRIPTIONS}?watch=true")).unwrap();
        let head = read_head(&mut watch).unwrap();
        holds(head.starts_with("HTTP/1.1 200"), head).map(|()| watch)
    };
    let alices = watch(&alice).unwrap();
    lines.push(String::new());
    let sues = wait_until("a token that ends soon opens a watch", || {
        let soon = (SystemTime::now() + Duration::from_secs(5)).try_into().unwrap();
        lines[3] = token_line("soon", "sue", &["people".to_owned()], Some(soon));
        write(&lines);
        watch(&client("soon"))
    });

    write(&[&lines[..], &["a-token-in-the-clear,eve".to_owned()]].concat());
    assert_eq!(code(&alice, SUBSCRIPTIONS), 200, "a broken file takes nobody out");
    let log = hub.log();
    assert!(log.contains("line 5") && !log.contains("a-token-in-the-clear"), "{log}");
    write(&lines[1..]);
    assert_eq!(code(&alice, SUBSCRIPTIONS), 401, "the next request after a line is taken out");
    assert_eq!(code(&bob, SUBSCRIPTIONS), 403);
    ended(alices);
    ended(sues);
    assert_eq!(refusal(&client("soon"), SUBSCRIPTIONS).0, 401);
}

#[test]
fn kubectl_says_why_it_gets_nothing() {
    let directory = scratch("tokens");
    let file = |name: &str| directory.path().join(name);
    fs::write(file("tokens.csv"), token_line("secret", "bob", &["people".to_owned()], None)).unwrap();
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let mut hub = Hub::prepare("hub", &repo).with(&format!("--token-auth-file={}", file("tokens.csv").display()));
    hub.start_again();
    fs::write(file("ca.pem"), hub.ca()).unwrap();
    let refused = |path: &str, arguments: &[&str]| {
        let mut kubectl = command(&tool("kubectl"), directory.path());
        kubectl.args(["--kubeconfig=/dev/null", "--token=secret"]);
        kubectl.arg(format!("--certificate-authority={}", file("ca.pem").display()));
        kubectl.arg(format!("--server=https://127.0.0.1:{}{path}", hub.port()));
        run(kubectl.args(arguments)).fails_with(1)
    };
    for arguments in [&["get", "pods"][..], &["version"], &["explain", "pod"]] {
        let why = refused("/clusters/berlin", arguments);
        assert!(
            why.contains("User \"bob\" cannot") && why.contains("below hub/"),
            "{arguments:?}: {why}"
        );
    }
    for path in ["/api/v1/secrets", "/apis/apps/v1/namespaces/a/deployments/b?limit=1"] {
        let why = refused("", &["get", "--raw", path]);
        assert!(
            why.contains("NotFound") && why.contains("use the context of a cluster"),
            "{path}: {why}"
        );
    }
    let why = refused("", &["get", "managedclusters"]);
    assert!(
        why.contains("Forbidden") && why.contains("below hub/"),
        "what the hub has takes a right: {why}"
    );
}

#[test]
fn a_token_file_that_cannot_be_used_stops_the_start_with_its_line() {
    let directory = scratch("tokens");
    let file = directory.path().join("tokens.csv");
    fs::write(&file, "# people\na-token-in-the-clear,eve\n").unwrap();
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let mut hub = Hub::prepare("hub", &repo).with(&format!("--token-auth-file={}", file.display()));
    hub.launch();
    assert_eq!(hub.process().wait_exit(), Some(1));
    let log = hub.log();
    assert!(
        log.contains("tokens.csv") && log.contains("line 2") && log.contains("branchline token user"),
        "{log}"
    );
    assert!(!log.contains("a-token-in-the-clear"), "{log}");
}
