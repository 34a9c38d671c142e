//! A whole hub in this process: who comes in and who does not, tunnels that end with their right, peers that
//! send what they like.

use std::time::Duration;

use branchline::core::registration::Approval;
use branchline::wire::control::{Report, ToAgent, ToHub};
use http::Method;
use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::repository::GitRepo;
use crate::support::whole_hub::{Candidate, WholeHub, config, home};

const WEB: &str = "apiVersion: apps.clusternet.io/v1alpha1
kind: Subscription
metadata: {name: web, namespace: shop}
spec:
  subscribers: [{clusterAffinity: {}}]
  feeds: [{apiVersion: v1, kind: ConfigMap, name: web, namespace: shop}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data: {a: '1'}
";

fn source() -> GitRepo {
    GitRepo::with(&[("web.yaml", WEB)])
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_let_in_until_they_expire_or_are_revoked() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    let expired = hub.token(Some(0)).await;
    for (token, why) in [
        (None, "no valid token"),
        (Some("nonsense"), "not known"),
        (Some("abcdef.0123456789abcdef"), "not known"),
        (Some(expired.as_str()), "expired"),
    ] {
        let (code, answer) = Candidate::new(9, "nine").register(&hub, token).await;
        assert!(code == 401 && message(&answer).contains(why), "{code} {answer}");
        assert!(message(&answer).contains("branchline token create"), "{answer}");
    }
    let east = Candidate::new(1, "east");
    east.certificate(&hub, Some(&token)).await;
    let id = token.split('.').next().unwrap();
    assert_eq!(hub.admin(Method::DELETE, &format!("tokens/{id}"), &Value::Null).await.0, 200);
    assert_eq!(Candidate::new(2, "west").register(&hub, Some(&token)).await.0, 401);
    // A registered key is known whatever came of the token that it came with.
    for token in [None, Some(token.as_str()), Some(expired.as_str())] {
        east.certificate(&hub, token).await;
    }
    let state = source.in_bare(&["grep", "-l", token.as_str(), "branchline/state"]);
    assert_eq!(state.stdout, "", "the token itself is nowhere");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_no_registration_is_refused_in_words() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    let east = Candidate::new(1, "east");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = east.body();
        change(&mut body);
        body.to_string().into_bytes()
    };
    let bad: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"garbage".to_vec(), 400, "body"),
        (vec![0xff; 1000], 400, "body"),
        (vec![b' '; 1 << 20], 413, "limit is 262144"),
        (b"{}".to_vec(), 400, "spec"),
        (
            with(&|body| body["metadata"]["annotations"] = json!({})),
            400,
            "branchline.io/certificate-signing-request",
        ),
        (
            with(&|body| body["metadata"]["annotations"]["branchline.io/certificate-signing-request"] = json!("-----BEGIN")),
            400,
            "not PEM",
        ),
        (
            with(&|body| body["spec"]["clusterId"] = json!("../../etc")),
            400,
            "cluster id",
        ),
        (with(&|body| body["spec"]["clusterName"] = json!("No Name")), 422, "No Name"),
        (with(&|body| body["spec"]["clusterNamespace"] = json!("../x")), 422, "../x"),
        (
            with(&|body| body["spec"]["clusterLabels"] = json!({"zone": "a b"})),
            422,
            "\"zone\"",
        ),
        (
            with(&|body| body["spec"]["clusterType"] = json!("\u{1b}[2J")),
            422,
            "cluster type",
        ),
    ];
    for (body, code, word) in bad {
        let (got, answer) = hub.post_registration(Some(&token), body).await;
        assert!(got == code && message(&answer).contains(word), "{word}: {got} {answer}");
    }
    assert_eq!(hub.status().await["clusters"], json!([]));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand_a_person_or_a_commit_decides() {
    let (source, home) = (source(), home());
    let mut config = config(&source, &home);
    config.approval = Approval::Manual;
    let hub = WholeHub::start(config).await;
    let token = hub.token(None).await;
    let (east, west, north) = (
        Candidate::new(1, "east"),
        Candidate::new(2, "west"),
        Candidate::new(3, "north"),
    );
    for waiting in [&east, &west, &north] {
        let (code, answer) = waiting.register(&hub, Some(&token)).await;
        assert_eq!((code, &answer["status"]["result"]), (201, &Value::Null), "{answer}");
        assert!(
            answer["status"]["errorMessage"]
                .as_str()
                .unwrap()
                .contains("branchline approve"),
            "{answer}"
        );
    }
    assert_eq!(hub.admin(Method::POST, "clusters/east/approve", &json!({})).await.0, 200);
    assert_eq!(hub.admin(Method::POST, "clusters/west/deny", &json!({})).await.0, 200);
    let (code, answer) = hub.admin(Method::POST, "clusters/nroth/approve", &json!({})).await;
    assert!(code == 404 && message(&answer).contains("north"), "{answer}");
    east.certificate(&hub, None).await;
    let (code, answer) = west.register(&hub, Some(&token)).await;
    assert!(code == 403 && message(&answer).contains("denied"), "{answer}");
    let stated = format!(
        "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {{name: north}}\nspec: {{clusterId: {}}}\n",
        north.cluster
    );
    source.push("let north in", &[("hub/north.yaml", &stated)]);
    hub.until("north is in", |status| status["clusters"].as_array().unwrap().len() == 2)
        .await;
    north.certificate(&hub, None).await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_ends_when_its_key_is_replaced() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    let (old, new) = (Candidate::new(1, "east"), Candidate::new(1, "east"));
    let certificate = old.certificate(&hub, Some(&token)).await;
    let mut standing = old.join(&hub, &certificate, json!({})).await.unwrap();
    assert!(matches!(standing.next().await, ToAgent::Welcome { .. }));
    let (_, answer) = new.register(&hub, Some(&token)).await;
    assert!(
        answer["status"]["errorMessage"].as_str().unwrap().contains("--replace-key"),
        "{answer}"
    );
    assert!(!standing.handle.is_closed(), "nobody has decided yet");
    let approved = hub
        .admin(Method::POST, "clusters/east/approve", &json!({"replaceKey": true}))
        .await;
    assert_eq!(approved.0, 200, "{}", approved.1);
    standing.closed().await;
    assert!(
        old.join(&hub, &certificate, json!({})).await.is_err(),
        "the old key is not let in again"
    );
    let certificate = new.certificate(&hub, None).await;
    let mut standing = new.join(&hub, &certificate, json!({})).await.unwrap();
    assert!(matches!(standing.next().await, ToAgent::Welcome { .. }));
    hub.stop().await;
}

/// The labels of ManagedCluster `east`, once they are as wanted.
async fn labels_of_east(hub: &WholeHub, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = "/apis/clusters.clusternet.io/v1beta1/namespaces/clusternet-east/managedclusters/east";
    let begun = std::time::Instant::now();
    loop {
        let (_, cluster) = hub.admin(Method::GET, path, &Value::Null).await;
        if wanted(&cluster) {
            return cluster["metadata"]["labels"].clone();
        }
        assert!(begun.elapsed() < PATIENCE, "gave up waiting until {what}: {cluster:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn generation(hub: &WholeHub) -> u64 {
    hub.status().await["generation"].as_u64().unwrap()
}

const GPU: &str = "node.clusternet.io/gpu";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_an_agent_reports_are_kept_when_they_differ() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    let east = Candidate::new(1, "east");
    let certificate = east.certificate(&hub, Some(&token)).await;
    let mut agent = east.join(&hub, &certificate, json!({})).await.unwrap();
    let mut long = serde_json::Map::from_iter([(GPU.to_owned(), json!("yes"))]);
    for (key, value) in [
        ("region", "eu"),
        ("node.clusternet.io/bad", "no spaces"),
        ("node.clusternet.io/a/b", "c"),
    ] {
        long.insert(key.to_owned(), json!(value));
    }
    let beat = |version: &str, labels: Value| -> ToHub {
        serde_json::from_value(json!({"type": "heartbeat", "status": {"k8sVersion": version}, "labels": labels})).unwrap()
    };
    agent.sender.send(&beat("v1", json!(long)), b"").await.unwrap();
    let labels = labels_of_east(&hub, "the label is there", |cluster| {
        cluster["metadata"]["labels"][GPU] == "yes"
    })
    .await;
    let keys: Vec<&String> = labels
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| !key.starts_with("clusters."))
        .collect();
    assert_eq!(keys, [GPU], "what is no label below the prefix stays outside");

    // The same again, and a hello without labels, change nothing: the token's commit is the only one.
    let before = generation(&hub).await;
    for (version, labels) in [("v2", json!({GPU: "yes"})), ("v3", Value::Null)] {
        let hello = json!({"status": {"k8sVersion": version}, "labels": labels});
        agent = east.join(&hub, &certificate, hello).await.unwrap();
        labels_of_east(&hub, "the hello came", |cluster| cluster["status"]["k8sVersion"] == version).await;
    }
    hub.token(None).await;
    assert_eq!(generation(&hub).await, before + 1);

    // What git says of the cluster outranks it, and is no reason to write.
    let stated = format!(
        "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {{name: east, labels: {{{GPU}: none}}}}\n"
    );
    source.push("no GPU", &[("hub/east.yaml", &stated)]);
    labels_of_east(&hub, "git's word counts", |cluster| {
        cluster["metadata"]["labels"][GPU] == "none"
    })
    .await;
    let before = generation(&hub).await;
    agent.sender.send(&beat("v4", json!({GPU: "yes"})), b"").await.unwrap();
    labels_of_east(&hub, "the heartbeat came", |cluster| cluster["status"]["k8sVersion"] == "v4").await;
    hub.token(None).await;
    assert_eq!(generation(&hub).await, before + 1);
    source.push_removal("as it is", &["hub/east.yaml"]);
    labels_of_east(&hub, "the agent's word counts", |cluster| {
        cluster["metadata"]["labels"][GPU] == "yes"
    })
    .await;

    // A report that there are none, in a hello, is one.
    let _agent = east.join(&hub, &certificate, json!({"labels": {}})).await.unwrap();
    labels_of_east(&hub, "the label is gone", |cluster| {
        cluster["metadata"]["labels"][GPU].is_null()
    })
    .await;
    let messages = source.in_bare(&["log", "--format=%B", "branchline/state"]).ok();
    assert_eq!(
        messages.lines().filter(|line| *line == "Trigger: labels").count(),
        2,
        "{messages}"
    );
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_talks_without_listening_stalls_nobody() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    let east = Candidate::new(1, "east");
    let certificate = east.certificate(&hub, Some(&token)).await;
    let mut agent = east.join(&hub, &certificate, json!({})).await.unwrap();
    let tree = agent.offer().await.tree;
    // It asks and asks and takes no answer: the hub goes on taking what it says, until it has had enough.
    let flood = async {
        let ids = vec![tree; 50_000];
        while agent.sender.send(&ToHub::Want { tree, ids: ids.clone() }, b"").await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("the hub stopped taking");
    agent.closed().await;
    let mut again = east.join(&hub, &certificate, json!({})).await.unwrap();
    assert_eq!(again.offer().await.tree, tree);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_reports_is_bounded_and_safe_to_show() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    let east = Candidate::new(1, "east");
    let certificate = east.certificate(&hub, Some(&token)).await;
    let hello = json!({"status": {"k8sVersion": "\u{1b}[2Jv1", "conditions": [{"type": "Ready", "status": "forged"}]}});
    let mut agent = east.join(&hub, &certificate, hello).await.unwrap();
    let offer = agent.offer().await;
    let description = |name: &str| json!({"name": name, "phase": "Failure", "reason": "line\n\u{1b}[31mERROR".repeat(1000)});
    let mut descriptions: Vec<Value> = (0..5_000)
        .map(|n| json!({"name": format!("made.up-{n}"), "phase": "Success"}))
        .collect();
    descriptions.push(description("shop.web"));
    let report: Report = serde_json::from_value(json!({
        "epoch": offer.epoch, "generation": offer.generation, "tree": offer.tree, "held": true, "applied": false, "descriptions": descriptions,
    }))
    .unwrap();
    agent.sender.send(&ToHub::Report(report), b"").await.unwrap();
    let path = "/apis/apps.clusternet.io/v1alpha1/descriptions";
    let shown = loop {
        let (_, list) = hub.admin(Method::GET, path, &Value::Null).await;
        if list["items"][0]["status"]["phase"] == "Failure" {
            break list;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(shown["items"].as_array().unwrap().len(), 1);
    let reason = shown["items"][0]["status"]["reason"].as_str().unwrap();
    assert!(reason.len() <= 1024 && !reason.contains(['\n', '\u{1b}']), "{reason:?}");
    let (_, clusters) = hub
        .admin(
            Method::GET,
            "/apis/clusters.clusternet.io/v1beta1/managedclusters",
            &Value::Null,
        )
        .await;
    assert!(
        !clusters.to_string().contains("forged") && !clusters.to_string().contains("\\u001b"),
        "{clusters}"
    );
    hub.stop().await;
}

/// What `kubectl get` would show of the Subscription, the Description and the cluster: applied in how many, its phase, whether in sync.
async fn at_a_glance(hub: &WholeHub) -> (u64, String, String) {
    let (_, subscription) = hub
        .admin(
            Method::GET,
            "/apis/apps.clusternet.io/v1alpha1/namespaces/shop/subscriptions/web",
            &Value::Null,
        )
        .await;
    let (_, description) = hub
        .admin(Method::GET, "/apis/apps.clusternet.io/v1alpha1/descriptions", &Value::Null)
        .await;
    let (_, cluster) = hub
        .admin(
            Method::GET,
            "/apis/clusters.clusternet.io/v1beta1/managedclusters",
            &Value::Null,
        )
        .await;
    let conditions = cluster["items"][0]["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let synced = conditions.iter().find(|condition| condition["type"] == "Synced");
    (
        subscription["status"]["completedReleases"].as_u64().unwrap_or(99),
        description["items"][0]["status"]["phase"]
            .as_str()
            .unwrap_or("none")
            .to_owned(),
        synced
            .and_then(|synced| synced["status"].as_str())
            .unwrap_or("none")
            .to_owned(),
    )
}

async fn shows(hub: &WholeHub, want: (u64, &str, &str)) {
    let begun = std::time::Instant::now();
    loop {
        let (applied, phase, synced) = at_a_glance(hub).await;
        if (applied, phase.as_str(), synced.as_str()) == want {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{applied} {phase} {synced} instead of {want:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_sync_is_seen_at_a_glance() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    let east = Candidate::new(1, "east");
    let certificate = east.certificate(&hub, Some(&token)).await;
    shows(&hub, (0, "Pending", "Unknown")).await;
    let mut agent = east.join(&hub, &certificate, json!({})).await.unwrap();
    let report = |offer: &branchline::wire::control::Offer, descriptions: Value| -> ToHub {
        let report = json!({"epoch": offer.epoch, "generation": offer.generation, "tree": offer.tree, "held": true, "applied": true,
            "descriptions": descriptions});
        ToHub::Report(serde_json::from_value(report).unwrap())
    };
    let offer = agent.offer().await;
    shows(&hub, (0, "Pending", "False")).await;
    let well = json!([{"name": "shop.web", "phase": "Success"}]);
    agent.sender.send(&report(&offer, well.clone()), b"").await.unwrap();
    shows(&hub, (1, "Success", "True")).await;
    // A newer content: what was reported is about the one before, until the agent says otherwise, also if only that it is the same as before.
    source.push("second", &[("web.yaml", &WEB.replace("'1'", "'2'"))]);
    let offer = agent.offer().await;
    shows(&hub, (0, "Pending", "False")).await;
    agent.sender.send(&report(&offer, json!([])), b"").await.unwrap();
    shows(&hub, (1, "Success", "True")).await;
    // The cluster goes away with everything applied; a content that comes meanwhile waits for it.
    agent.handle.close().await;
    shows(&hub, (1, "Success", "True")).await;
    source.push("third", &[("web.yaml", &WEB.replace("'1'", "'3'"))]);
    shows(&hub, (0, "Pending", "False")).await;
    source.push_removal("gone", &["web.yaml"]);
    shows(&hub, (99, "none", "False")).await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_shown_with_its_commit_before_and_after_a_restart() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let token = hub.token(None).await;
    Candidate::new(1, "east").certificate(&hub, Some(&token)).await;
    let waits = "apiVersion: apps.clusternet.io/v1alpha1\nkind: Localization\nmetadata: {name: later, namespace: clusternet-east}\nspec:\n  \
                 overridePolicy: ApplyLater\n  feed: {apiVersion: v1, kind: ConfigMap, name: web, namespace: shop}\n  overrides:\n  \
                 - {name: a, type: MergePatch, value: '{\"data\":{\"a\":\"2\"}}'}\n";
    let begun = source.push("later", &[("later.yaml", waits)]);
    let head = source.push("unrelated", &[("README.md", "hello\n")]);
    let mut hub = hub;
    let commit = format!("commit {}", &begun[..7]);
    for _ in 0..2 {
        // Nobody waits for the log: what waits is published first and dated then.
        hub.until("the unrelated commit is read", |status| {
            let pending = status["pending"][0].as_str().unwrap_or_default();
            status["source"] == head.as_str() && pending.contains(&commit)
        })
        .await;
        for path in [
            "/apis/apps.clusternet.io/v1alpha1/namespaces/clusternet-east/descriptions/shop.web",
            "/apis/apps.clusternet.io/v1alpha1/namespaces/shop/subscriptions/web",
        ] {
            hub.shown(path, |object| {
                let conditions = object["status"]["conditions"]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let waiting = conditions.iter().find(|condition| condition["type"] == "Pending");
                waiting.is_some_and(|waiting| waiting["message"].as_str().is_some_and(|message| message.contains(&commit)))
            })
            .await;
        }
        hub.stop().await;
        hub = WholeHub::start(config(&source, &home)).await;
    }
    hub.stop().await;
}
