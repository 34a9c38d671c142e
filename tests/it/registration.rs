//! Who gets in: tokens, the pinned CA, certificates of others, noise on the port. Each refusal says why, and the hub goes on.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::{Value, json};

use crate::support::apiserver::{ApiServer, POWERLESS, kubectl};
use crate::support::fleet::{Agent, Hub, Join};
use crate::support::https::{Body, Client};
use crate::support::node::add_node;
use crate::support::pki::{Authority, Identity};
use crate::support::repository::GitRepo;
use crate::support::samples::{base, greeting};
use crate::support::{holds, wait_until};

const REQUESTS: &str = "/apis/clusters.clusternet.io/v1beta1/clusterregistrationrequests";

fn hub() -> (GitRepo, Hub) {
    let repo = GitRepo::with(&[("README.md", "Nothing yet.\n")]);
    let hub = Hub::start(&repo);
    (repo, hub)
}

/// An agent with this way to join; its API server is the shared one, because it never gets as far as to use it.
fn refused_agent(join: &Join) -> Agent {
    let mut agent = Agent::prepare("stranger", join, ApiServer::shared());
    agent.launch();
    agent
}

#[track_caller]
fn says(agent: &Agent, words: &[&str]) {
    wait_until(&format!("the agent says {words:?}"), || {
        let log = agent.log();
        holds(words.iter().all(|word| log.contains(word)), log)
    });
}

#[test]
fn a_wrong_token_is_refused_with_advice() {
    let (_repo, hub) = hub();
    let mut join = hub.join(&[]);
    join.token = "aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
    let agent = refused_agent(&join);
    says(&agent, &["token", "branchline token create"]);
    assert!(hub.managed_cluster("stranger").is_none());
}

#[test]
fn an_expired_and_a_revoked_token_are_refused() {
    let (_repo, hub) = hub();
    let short = hub.join(&["--ttl", "1s"]);
    wait_until("the token has expired", || {
        let list = hub.command(&["token", "list"]).ok();
        holds(list.contains("expired"), list)
    });
    let agent = refused_agent(&short);
    says(&agent, &["expired", "branchline token create"]);

    let revoked = hub.join(&[]);
    let id = revoked.token.split('.').next().unwrap();
    assert!(hub.command(&["token", "list"]).ok().contains(id));
    hub.command(&["token", "revoke", id]).ok();
    assert!(!hub.command(&["token", "list"]).ok().contains(id));
    let agent = refused_agent(&revoked);
    says(&agent, &["token", "branchline token create"]);
    assert!(hub.managed_cluster("stranger").is_none());
}

#[test]
fn only_digests_of_tokens_are_stored() {
    let (repo, hub) = hub();
    let token = hub.join(&[]).token;
    let secret = token.split('.').nth(1).unwrap();
    let found = repo.in_bare(&["grep", "--fixed-strings", secret, "branchline/state"]);
    assert_eq!(found.code, Some(1), "the state branch holds the token: {found:?}");
    let found = crate::support::process::run(std::process::Command::new("grep").args(["-r", secret]).arg(hub.data()));
    assert_eq!(found.code, Some(1), "the data directory holds the token: {found:?}");
}

#[test]
fn a_hub_with_another_ca_is_not_told_the_token() {
    let (_repo, hub) = hub();
    let mut join = hub.join(&[]);
    join.ca_hash = format!("sha256:{}", "0".repeat(64));
    let agent = refused_agent(&join);
    says(&agent, &["sha256:0000", "hub"]);
    assert!(hub.managed_cluster("stranger").is_none());
}

#[test]
fn a_certificate_of_another_authority_opens_nothing() {
    let (_repo, hub) = hub();
    let impostor = Authority::new("branchline").client("alice", "branchline:admins");
    let client = Client::new(hub.port(), &hub.ca(), Some(&impostor));
    // A TLS alert or a 401: refused either way.
    let answer = client.get("/apis/clusters.clusternet.io/v1beta1/managedclusters");
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 401), "{answer:?}");
    assert_eq!(
        hub.client()
            .get("/apis/clusters.clusternet.io/v1beta1/managedclusters")
            .unwrap()
            .status,
        200
    );
}

#[test]
fn nobody_without_a_certificate_reads_anything() {
    let (_repo, hub) = hub();
    let nobody = Client::new(hub.port(), &hub.ca(), None);
    for path in [
        "/apis/clusters.clusternet.io/v1beta1/managedclusters",
        "/apis/apps.clusternet.io/v1alpha1/subscriptions",
        "/apis/proxies.clusternet.io/v1alpha1/sockets/00000000-0000-4000-8000-000000000000/proxy/direct/api/v1/secrets",
        "/apis/proxies.clusternet.io/v1alpha1/sockets/00000000-0000-4000-8000-000000000000",
    ] {
        let answer = nobody.get(path).unwrap();
        assert!([401, 403].contains(&answer.status), "{path}: {answer:?}");
        assert_eq!(answer.json()["kind"], "Status", "{path}: {answer:?}");
        assert!(
            answer.json()["message"].as_str().is_some_and(|message| message.len() > 10),
            "{path}: {answer:?}"
        );
    }
    // The last one ends when no clock counts any more.
    let claims = format!(r#"{{"sub":"system:serviceaccount:a:b","exp":{}}}"#, u64::MAX);
    let beyond = format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims));
    for token in ["aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaa", &beyond] {
        let answer = nobody
            .clone()
            .with_bearer(token)
            .get("/apis/clusters.clusternet.io/v1beta1/managedclusters");
        assert_eq!(answer.unwrap().status, 401, "{token}");
    }
}

#[test]
fn garbage_and_silence_on_the_port_harm_nobody() {
    let (_repo, hub) = hub();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(("127.0.0.1", hub.port())).unwrap());
        let mut noisy = TcpStream::connect(("127.0.0.1", hub.port())).unwrap();
        noisy.write_all(&[0xff; 4096]).unwrap();
        let mut answer = Vec::new();
        // It may be closed or reset.
        let _ = noisy.read_to_end(&mut answer);
    }
    let plain = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    TcpStream::connect(("127.0.0.1", hub.port()))
        .unwrap()
        .write_all(plain)
        .unwrap();
    assert_eq!(hub.client().get("/readyz").unwrap().status, 200);
}

#[test]
fn a_name_that_another_cluster_has_is_refused_and_says_whose_it_is() {
    let (_repo, hub) = hub();
    let (first, second) = (ApiServer::start("first"), ApiServer::shared());
    let join = hub.join(&[]);
    let mut owner = Agent::prepare("taken", &join, &first);
    owner.launch();
    hub.wait_cluster("taken", "True");
    let mut late = Agent::prepare("taken", &join, second);
    late.launch();
    says(&late, &["taken", &first.cluster_id()]);
    hub.wait_cluster("taken", "True");
}

#[test]
fn by_hand_a_cluster_waits_until_a_person_decides() {
    let repo = GitRepo::with(&[("README.md", "Nothing yet.\n")]);
    let mut hub = Hub::prepare("hub", &repo).with("--approval=manual");
    hub.start_again();
    let server = ApiServer::start("waiting");
    let mut agent = Agent::prepare("waiting", &hub.join(&[]), &server);
    agent.launch();
    says(&agent, &["branchline approve waiting"]);
    let request = format!("{REQUESTS}/clusternet-{}", server.cluster_id());
    assert!(hub.get(&request).unwrap()["status"]["result"].is_null());
    hub.command(&["approve", "waiting"]).ok();
    hub.wait_cluster("waiting", "True");
    assert_eq!(hub.get(&request).unwrap()["status"]["result"], "Approved");

    let mut refused = Agent::prepare("refused", &hub.join(&[]), ApiServer::shared());
    refused.launch();
    says(&refused, &["branchline approve refused"]);
    hub.command(&["deny", "refused"]).ok();
    says(&refused, &["denied"]);
    assert!(hub.managed_cluster("refused").is_none());
}

#[test]
fn a_new_key_of_a_known_cluster_waits_for_a_person() {
    let (_repo, hub) = hub();
    let server = ApiServer::start("rekeyed");
    let join = hub.join(&[]);
    let mut agent = Agent::prepare("rekeyed", &join, &server);
    agent.launch();
    hub.wait_cluster("rekeyed", "True");
    agent.kill();
    let secret = "/api/v1/namespaces/branchline-system/secrets/branchline-agent";
    let body = Body::default();
    assert_eq!(server.client().request("DELETE", secret, body).unwrap().status, 200);

    agent.launch();
    says(&agent, &["branchline approve --replace-key rekeyed"]);
    hub.wait_cluster("rekeyed", "Unknown");
    hub.command(&["approve", "--replace-key", "rekeyed"]).ok();
    hub.wait_cluster("rekeyed", "True");
}

#[test]
fn an_agent_without_rights_in_its_cluster_says_which_it_lacks() {
    let (_repo, hub) = hub();
    let server = ApiServer::shared();
    let mut agent = Agent::prepare("powerless", &hub.join(&[]), server)
        .with_kubeconfig(&server.kubeconfig_for_token("powerless.kubeconfig", POWERLESS));
    agent.launch();
    says(
        &agent,
        &["powerless-user", "cannot get resource", "give the agent's user that right"],
    );
    assert!(hub.managed_cluster("powerless").is_none());
}

#[test]
fn a_cluster_that_cannot_be_reached_is_named() {
    let (_repo, hub) = hub();
    let server = ApiServer::start("down");
    let mut agent = Agent::prepare("down", &hub.join(&[]), &server);
    server.stop();
    agent.launch();
    says(&agent, &[&format!("127.0.0.1:{}", server.port())]);
    server.start_again();
    hub.wait_cluster("down", "True");
}

#[test]
fn a_certificate_opens_only_the_tunnel_of_its_own_cluster() {
    let (_repo, hub) = hub();
    let server = ApiServer::start("owner");
    let mut agent = Agent::prepare("owner", &hub.join(&[]), &server);
    agent.launch();
    hub.wait_cluster("owner", "True");
    let secret = server
        .get("/api/v1/namespaces/branchline-system/secrets/branchline-agent")
        .unwrap();
    let identity = identity_of(&secret);
    let client = Client::new(hub.port(), &hub.ca(), Some(&identity));
    let own = format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{}", server.cluster_id());
    // Its own socket asks for a websocket, so it may go on; everything else is not for agents.
    assert_eq!(client.get(&own).unwrap().status, 400);
    for path in [
        "/apis/proxies.clusternet.io/v1alpha1/sockets/00000000-0000-4000-8000-000000000000",
        "/apis/clusters.clusternet.io/v1beta1/managedclusters",
        &format!("{own}/proxy/direct/api"),
    ] {
        let answer = client.get(path).unwrap();
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
}

/// How many commits on the state branch reports of labels have made.
fn commits_for_labels(repo: &GitRepo) -> usize {
    let messages = repo.in_bare(&["log", "--format=%B", "branchline/state"]).ok();
    messages.lines().filter(|line| *line == "Trigger: labels").count()
}

/// Waits until kubectl shows this value of `node.clusternet.io/gpu` on the hub; returns all labels.
#[track_caller]
fn wait_gpu(hub: &Hub, value: &str) -> Value {
    wait_until(&format!("the ManagedCluster has gpu={value}"), || {
        let arguments = [
            "-n",
            "clusternet-labelled",
            "get",
            "managedclusters",
            "labelled",
            "-o",
            "json",
        ];
        let output = kubectl(&hub.admin(), &arguments);
        let cluster: Value = serde_json::from_str(&output.stdout).map_err(|_| output.stderr)?;
        let labels = cluster["metadata"]["labels"].clone();
        holds(labels["node.clusternet.io/gpu"] == value, labels.to_string())?;
        Ok(labels)
    })
}

#[test]
fn labels_of_nodes_reach_the_managed_cluster_and_decide_what_it_gets() {
    let fast = greeting("fast", &[("node.clusternet.io/gpu", "yes")], "hello");
    let repo = GitRepo::with(&[("base.yaml", &base()), ("fast.yaml", &fast)]);
    let hub = Hub::start(&repo);
    let server = ApiServer::start("labelled");
    add_node(
        &server,
        "worker",
        &json!({"node.clusternet.io/gpu": "yes", "example.com/rack": "7"}),
    );
    let mut agent = Agent::prepare("labelled", &hub.join(&[]), &server);
    agent.launch();
    let labels = wait_gpu(&hub, "yes");
    assert!(
        labels["example.com/rack"].is_null() && labels["name"] == "labelled",
        "{labels}"
    );
    wait_until("the ConfigMap that wants a GPU is there", || {
        let found = server.get("/api/v1/namespaces/shop/configmaps/fast").ok_or("there is none")?;
        holds(found["data"]["greeting"] == "hello", found.to_string())
    });
    assert_eq!(commits_for_labels(&repo), 1);

    // An agent looks at the nodes when it starts: the same again is no commit, another value is one.
    for (value, commits) in [("yes", 1), ("no", 2)] {
        agent.kill();
        hub.wait_cluster("labelled", "Unknown");
        let label = format!("node.clusternet.io/gpu={value}");
        server.kubectl(&["label", "node", "worker", "--overwrite", &label]).ok();
        agent.launch();
        hub.wait_cluster("labelled", "True");
        wait_gpu(&hub, value);
        assert_eq!(commits_for_labels(&repo), commits, "{}", hub.log());
    }
}

/// Key and certificate in an agent's Secret.
fn identity_of(secret: &Value) -> Identity {
    let text = BASE64_STANDARD
        .decode(secret["data"]["credentials.json"].as_str().unwrap())
        .unwrap();
    let credentials: Value = serde_json::from_slice(&text).unwrap();
    Identity {
        certificate: credentials["certificate"].as_str().unwrap().to_owned(),
        key: credentials["key"].as_str().unwrap().to_owned(),
    }
}
