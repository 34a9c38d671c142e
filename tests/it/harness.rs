//! The tests' own ground: real API servers come up, are refused to strangers, survive a restart; repositories hold what they should; the
//! relay holds back and cuts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use crate::support::apiserver::{ApiServer, ControllerManager, TOKEN, kubectl};
use crate::support::https::Client;
use crate::support::node::{Node, add_echo_pod};
use crate::support::process::{Process, branchline, command, run};
use crate::support::relay::Relay;
use crate::support::repository::GitRepo;
use crate::support::{holds, scratch, wait_until};

#[test]
fn an_api_server_knows_its_users_and_keeps_its_data() {
    let server = ApiServer::start("restarted");
    let version = server.kubectl(&["version", "-o", "json"]).ok();
    assert!(version.contains("v1.35.4"), "{version}");
    let id = server.cluster_id();

    let token = server.kubeconfig_for_token("token.kubeconfig", TOKEN);
    let refused = kubectl(&token, &["get", "namespaces"]).fails_with(1);
    assert!(refused.contains("token-user") && refused.contains("Forbidden"), "{refused}");
    let anonymous = Client::new(server.port(), &server.authority().certificate(), None);
    assert_eq!(anonymous.get("/api/v1/namespaces").unwrap().status, 403);
    assert_eq!(
        anonymous
            .clone()
            .with_bearer("wrong")
            .get("/api/v1/namespaces")
            .unwrap()
            .status,
        401
    );
    let stranger = server.authority().client("stranger", "nobody");
    let stranger = Client::new(server.port(), &server.authority().certificate(), Some(&stranger));
    assert_eq!(stranger.get("/api/v1/namespaces").unwrap().status, 403);

    server.stop();
    assert!(anonymous.get("/readyz").is_err());
    server.start_again();
    assert_eq!(server.cluster_id(), id);
}

#[test]
fn the_audit_log_tells_who_changed_what() {
    let server = ApiServer::shared();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "audited" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "token-user" }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(server.send("POST", bindings, "application/json", &binding).status, 201);
    let token = server.kubeconfig_for_token("audited.kubeconfig", TOKEN);
    // The authorizer learns of the binding through a watch.
    wait_until("the token may write", || {
        let output = kubectl(
            &token,
            &[
                "create",
                "configmap",
                "audited",
                "--as",
                "alice",
                "--as-group",
                "system:masters",
            ],
        );
        holds(output.code == Some(0), output.stderr)
    });
    let audit = server.audit();
    let write = audit.iter().find(|event| event.is_write() && event.code == 201).unwrap();
    assert_eq!((write.verb.as_str(), write.user.as_str()), ("create", "token-user"));
    assert_eq!(write.impersonated.as_deref(), Some("alice"));
    assert!(
        write.uri.starts_with("/api/v1/namespaces/default/configmaps"),
        "{}",
        write.uri
    );
}

#[test]
fn a_pod_without_containers_echoes_and_logs() {
    let server = ApiServer::start("echoing");
    add_echo_pod(&server);
    let path = "/api/v1/namespaces/default/pods/echo/exec?command=x&stdin=true&stdout=true";
    let (head, mut stream) = server.client().upgrade(path, "SPDY/3.1").unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"ping").unwrap();
    let mut answer = [0u8; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    assert_eq!(server.kubectl(&["logs", "echo"]).ok(), "first line\n");
}

#[test]
fn a_node_runs_a_process_for_each_container() {
    let server = ApiServer::start("noded");
    let node = Node::start(&server, "one");
    let script = "echo first; echo second; echo $GREETING > greeting; exec sleep 1000";
    let container = json!({ "command": ["sh", "-c", script], "env": [{ "name": "GREETING", "value": "hello" }] });
    node.run(&server, "talker", &container);
    wait_until("it has printed both lines", || {
        let logs = server.kubectl(&["logs", "talker", "--tail=1"]).ok();
        holds(logs == "second\n", logs)
    });
    assert!(server.kubectl(&["logs", "talker", "--timestamps"]).ok().contains("Z first\n"));
    assert_eq!(server.kubectl(&["exec", "talker", "--", "cat", "greeting"]).ok(), "hello\n");
    let refused = server.kubectl(&["exec", "talker", "--", "sh", "-c", "exit 7"]).fails_with(7);
    assert!(refused.contains("exit code 7"), "{refused}");
    server.kubectl(&["delete", "pod", "talker"]).ok();
}

#[test]
fn controllers_make_service_accounts() {
    let server = ApiServer::start("controlled");
    let _controllers = ControllerManager::start(&server);
    wait_until("the default ServiceAccount exists", || {
        server
            .get("/api/v1/namespaces/default/serviceaccounts/default")
            .ok_or_else(|| "it does not exist".to_owned())
    });
}

#[test]
fn a_repository_holds_odd_entries_beside_plain_ones() {
    let repo = GitRepo::with(&[("a/b.yaml", "kind: A\n")]);
    repo.put_symlink("link.yaml", "a/b.yaml");
    repo.put_submodule("module");
    repo.put_bytes(b"caf\xe9.yaml", b"kind: B\n");
    let commit = repo.push("odd", &[]);
    assert_eq!(repo.reference("refs/heads/main"), Some(commit));
    let listing = repo.in_bare(&["ls-tree", "-r", "main"]).ok();
    for expected in ["100644 blob", "120000 blob", "160000 commit", "caf\\351.yaml"] {
        assert!(listing.contains(expected), "{expected} is not in\n{listing}");
    }
    repo.push_removal("less", &["link.yaml"]);
    assert_eq!(repo.files("main").len(), 3);
    assert_eq!(repo.show("main", "a/b.yaml"), "kind: A\n");
}

#[test]
fn a_relay_holds_and_cuts() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let relay = Relay::to(listener.local_addr().unwrap().port());
    let mut client = TcpStream::connect(("127.0.0.1", relay.port())).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut received = [0u8; 1];

    relay.hold();
    client.write_all(b"x").unwrap();
    server.set_nonblocking(true).unwrap();
    assert!(server.read(&mut received).is_err(), "a byte came through a held relay");
    relay.open();
    server.set_nonblocking(false).unwrap();
    server.read_exact(&mut received).unwrap();

    relay.cut();
    assert!(matches!(server.read(&mut received), Ok(0) | Err(_)));
    assert_eq!(relay.accepted(), 1);
}

#[test]
fn a_process_is_stopped_and_its_log_kept() {
    let directory = scratch("process");
    let mut shell = command("sh".as_ref(), directory.path());
    shell.args(["-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"]);
    let mut process = Process::start("sh", shell, &directory.path().join("log"));
    process.wait_log("ready");
    process.signal("TERM");
    assert_eq!(process.wait_exit(), Some(3));
    assert_eq!(process.log(), "ready\nbye\n");
}

#[test]
fn the_program_under_test_starts() {
    let home = scratch("home");
    run(branchline(home.path()).arg("--version")).ok();
}
