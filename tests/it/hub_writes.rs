//! What may be written through the hub's API, with the real kubectl: labels, taints and removal of clusters, decisions about registrations. Each is
//! a commit in the user's name, and the hub that starts on it has nothing to add.

use branchline::core::registration::Approval;
use http::Method;
use serde_json::json;

use crate::hub_api::Shop;
use crate::support::process::{command, run};
use crate::support::tools::tool;
use crate::support::whole_hub::Candidate;

const STATE: &str = "refs/heads/branchline/state";
const EAST: [&str; 4] = ["mcls", "-n", "clusternet-east", "east"];

impl Shop {
    /// kubectl with a verb on the cluster east.
    fn east(&self, verb: &str, more: &[&str]) -> crate::support::process::Output {
        self.kubectl(&[&[verb], &EAST[..], more].concat())
    }

    fn head(&self) -> Option<String> {
        self.source.reference(STATE)
    }

    fn labels(&self) -> String {
        self.east("get", &["-o", "jsonpath={.metadata.labels}"]).ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_taints_are_commits_of_the_user() {
    let shop = Shop::open().await;
    let _east = shop.join(1, "east").await;
    shop.wait(&["get", "mcls", "-A"], |out| out.contains("east"));
    shop.east("label", &["nobody=here", "tier=gold"]).ok();
    assert!(
        shop.labels().contains(r#""tier":"gold""#),
        "the answer comes after the commit"
    );
    shop.wait(&["get", "subs", "-n", "shop", "share"], |out| {
        out.split_whitespace().any(|word| word == "1")
    });
    let author = shop.source.in_bare(&["log", "-1", "--format=%an <%ae> %cn", STATE]).ok();
    assert_eq!(
        author.trim(),
        "branchline:admin <branchline:admin@users.branchline.io> Branchline"
    );
    let file = shop.source.show(STATE, "managedclusters/clusternet-east.yaml");
    assert!(file.contains("tier: gold"), "{file}");

    shop.east("label", &["tier-"]).ok();
    assert!(!shop.labels().contains("tier"), "{}", shop.labels());
    let taint = r#"{"spec":{"taints":[{"key":"maintenance","value":"yes","effect":"NoSchedule"}]}}"#;
    shop.east("patch", &["--type=merge", "-p", taint]).ok();
    assert!(shop.east("get", &["-o", "wide"]).ok().contains("maintenance:NoSchedule"));
    let more = r#"[{"op":"test","path":"/spec/taints/0/key","value":"maintenance"},
        {"op":"add","path":"/metadata/labels/color","value":"blue"}]"#;
    shop.east("patch", &["--type=json", "-p", more]).ok();
    assert!(shop.labels().contains(r#""color":"blue""#));
    let mut edit = command(&tool("kubectl"), shop.home.path());
    edit.arg("--kubeconfig")
        .arg(shop.kubeconfig())
        .args(["edit", "mcls", "-n", "clusternet-east", "east"]);
    tokio::task::block_in_place(|| run(edit.env("KUBE_EDITOR", "sed -i s/blue/red/"))).ok();
    assert!(shop.labels().contains(r#""color":"red""#));
    let refused = shop.east("patch", &["--type=merge", "-p", r#"{"spec":{"clusterType":"Other"}}"#]);
    let why = "The ManagedCluster \"east\" is invalid: spec.clusterType: cannot be changed";
    assert!(
        refused.code == Some(1) && refused.stderr.contains(why),
        "kubectl prints the causes alone: {refused:?}"
    );
    let file = shop.write(
        "east.yaml",
        "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {name: east, namespace: clusternet-east, labels: {by: apply}}\n",
    );
    shop.kubectl(&["apply", "-f", &file]).ok();
    assert!(shop.labels().contains(r#""by":"apply""#));

    let (head, labels) = (shop.head(), shop.labels());
    let shop = shop.restart().await;
    shop.hub
        .until("the source was read", |status| status["source"].is_string())
        .await;
    assert_eq!((shop.head(), shop.labels()), (head, labels), "a restart changes nothing");
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_changed_is_refused_and_writes_nothing() {
    let shop = Shop::open().await;
    let _east = shop.join(1, "east").await;
    let stated = "apiVersion: clusters.clusternet.io/v1beta1\nkind: ManagedCluster\nmetadata: {name: east, labels: {tier: gold}}\nspec: {taints: []}\n";
    shop.source.push("state it", &[("hub/east.yaml", stated)]);
    shop.wait(&["get", "mcls", "-A", "-o", "wide"], |out| out.contains("hub/east.yaml:1"));
    let head = shop.head();
    let patch = |patch: &'static str| ["--type=merge", "-p", patch];
    let taints = patch(r#"{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}"#);
    let (mode, bad) = (
        patch(r#"{"spec":{"syncMode":"Push"}}"#),
        patch(r#"{"metadata":{"labels":{"a":"no spaces"}}}"#),
    );
    let cases: [(&str, &[&str], &str); 9] = [
        (
            "label",
            &["tier=silver", "--overwrite"],
            "hub/east.yaml:1 states it and outranks",
        ),
        ("patch", &taints, "hub/east.yaml:1 states it and outranks"),
        ("label", &["node.clusternet.io/gpu=no"], "comes from the cluster's nodes"),
        (
            "label",
            &["clusters.clusternet.io/cluster-name=west", "--overwrite"],
            "identity",
        ),
        ("label", &["a=b", "--resource-version=1"], "has been modified"),
        ("patch", &mode, "spec.syncMode"),
        ("patch", &bad, "metadata.labels"),
        ("delete", &[], "--cascade=orphan"),
        ("delete", &["--cascade=orphan"], "hub/east.yaml:1 states cluster"),
    ];
    for (verb, more, message) in cases {
        let refused = shop.east(verb, more).fails_with(1);
        assert!(refused.contains(message), "{verb} {more:?}: {refused}");
    }
    let annotated = shop.east("annotate", &["a=b"]);
    assert!(
        annotated.stderr.contains("annotations of ManagedClusters are not kept"),
        "{annotated:?}"
    );
    shop.east("label", &["dry=run", "--dry-run=server"]).ok();
    assert!(!shop.labels().contains("dry"));
    assert_eq!(shop.head(), head, "nothing of this is a commit");
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_are_decided_in_clusternets_fields() {
    let shop = Shop::open_with(|config| config.approval = Approval::Manual).await;
    let token = shop.hub.token(None).await;
    let (east, west) = (Candidate::new(1, "east"), Candidate::new(2, "west"));
    for candidate in [&east, &west] {
        candidate.register(&shop.hub, Some(&token)).await;
    }
    a_waiting_cluster_is_taken_for_no_other(&shop, &token, &east).await;
    let name = |candidate: &Candidate| format!("clusternet-{}", candidate.cluster);
    let pending = shop.wait(&["get", "clsrr"], |out| out.matches("Pending").count() == 2);
    assert!(pending.contains("branchline approve east"), "{pending}");
    let decide = |candidate: &Candidate, patch: &str| {
        let name = name(candidate);
        shop.kubectl(&["patch", "clsrr", &name, "--subresource=status", "--type=merge", "-p", patch])
    };
    let refused = decide(&west, r#"{"status":{"result":"Perhaps"}}"#).fails_with(1);
    assert!(
        refused.contains("status.result") && refused.contains("Approved or Denied"),
        "{refused}"
    );
    let wrong = format!("sha256:{}", "0".repeat(64));
    // A right to the object is none to its status.
    let whole = [
        "patch",
        "clsrr",
        &name(&east),
        "--type=merge",
        "-p",
        r#"{"status":{"result":"Approved"}}"#,
    ];
    let refused = shop.kubectl(&whole).fails_with(1);
    assert!(refused.contains("subresource status"), "{refused}");
    decide(&east, r#"{"status":{"result":"Approved"}}"#).ok();
    decide(&west, r#"{"status":{"result":"Denied"}}"#).ok();
    east.certificate(&shop.hub, None).await;
    let table = shop.kubectl(&["get", "clsrr"]).ok();
    assert!(table.contains("Approved") && table.contains("Denied"), "{table}");

    // A new key of a known cluster: refused, then another one let in by its digest.
    let refused = decide(&east, r#"{"status":{"result":"Denied"}}"#).fails_with(1);
    assert!(refused.contains("belongs to the fleet already"), "{refused}");
    Candidate::new(1, "east").register(&shop.hub, Some(&token)).await;
    shop.wait(&["get", "clsrr"], |out| out.contains("NewKeyPending"));
    decide(&east, r#"{"status":{"pendingKeyDigest":null}}"#).ok();
    assert!(!shop.kubectl(&["get", "clsrr"]).ok().contains("NewKeyPending"));
    east.certificate(&shop.hub, None).await;
    let new = Candidate::new(1, "east");
    new.register(&shop.hub, Some(&token)).await;
    shop.wait(&["get", "clsrr"], |out| out.contains("NewKeyPending"));
    let wrong = json!({"status": {"keyDigest": wrong}}).to_string();
    assert!(decide(&east, &wrong).fails_with(1).contains("look at it again"));
    let key = shop
        .kubectl(&["get", "clsrr", &name(&east), "-o", "jsonpath={.status.pendingKeyDigest}"])
        .ok();
    decide(&east, &json!({"status": {"keyDigest": key}}).to_string()).ok();
    new.certificate(&shop.hub, None).await;

    let refused = shop.kubectl(&["delete", "clsrr", &name(&east)]).fails_with(1);
    assert!(refused.contains("--cascade=orphan"), "{refused}");
    shop.kubectl(&["delete", "clsrr", &name(&west)]).ok();
    assert_eq!(shop.kubectl(&["get", "clsrr", "-o", "name"]).ok().lines().count(), 1);
    let authors = shop.source.in_bare(&["log", "--format=%an", STATE]).ok();
    assert!(authors.contains("admin") && authors.contains("Branchline"), "{authors}");
    shop.hub.stop().await;
}

/// Not by another key for its id, not by its id as a name, and not by an approval of another key than was looked at.
async fn a_waiting_cluster_is_taken_for_no_other(shop: &Shop, token: &str, east: &Candidate) {
    let swapped = Candidate::new(1, "east").register(&shop.hub, Some(token)).await;
    assert!(
        swapped.0 == 409 && swapped.1.to_string().contains("another key waits"),
        "{swapped:?}"
    );
    let namesake = Candidate::new(3, &east.cluster).register(&shop.hub, Some(token)).await;
    assert!(
        namesake.0 == 422 && namesake.1.to_string().contains("looks like an id"),
        "{namesake:?}"
    );
    let (wrong, name) = (format!("sha256:{}", "0".repeat(64)), format!("clusternet-{}", east.cluster));
    let other_key = json!({"status": {"result": "Approved", "keyDigest": wrong}}).to_string();
    shop.wait(&["get", "clsrr"], |out| out.contains(&name));
    let decided = shop.kubectl(&[
        "patch",
        "clsrr",
        &name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &other_key,
    ]);
    assert!(decided.fails_with(1).contains("look at it again"));
    let by_id = format!("clusters/{}/approve", east.cluster);
    let (code, answer) = shop.hub.admin(Method::POST, &by_id, &json!({"key": wrong})).await;
    assert!(code == 409 && answer.to_string().contains("look at it again"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_forgotten_and_its_tunnel_ends() {
    let shop = Shop::open().await;
    let (mut east, west) = (shop.join(1, "east").await, shop.join(2, "west").await);
    shop.wait(&["get", "desc", "-A", "-o", "name"], |out| out.lines().count() == 2);
    east.offer().await;
    shop.east("delete", &["--cascade=orphan", "--dry-run=server"]).ok();
    assert!(!east.handle.is_closed());
    shop.east("delete", &["--cascade=orphan"]).ok();
    east.closed().await;
    for what in ["mcls", "desc", "ns", "events", "clsrr"] {
        let left = shop.kubectl(&["get", what, "-A"]).ok();
        assert!(!left.contains("east"), "{what}: {left}");
    }
    let left = shop.source.files(STATE).join("\n");
    assert!(
        !left.contains("clusternet-east") && left.contains("clusternet-west"),
        "{left}"
    );
    let log = shop.source.in_bare(&["log", "-1", "--format=%an %B", STATE]).ok();
    assert!(
        log.starts_with("branchline:admin ") && log.contains("Trigger: removal"),
        "{log}"
    );

    let (code, answer) = shop.hub.admin(Method::DELETE, "clusters/wets", &json!({})).await;
    assert!(
        code == 404 && answer["message"].as_str().unwrap().contains("west"),
        "{answer}"
    );
    let kubeconfig = shop.kubeconfig();
    let remove = |more: &[&str]| {
        let mut remove = crate::support::process::branchline(shop.home.path());
        remove
            .args(["cluster", "remove", "west"])
            .args(more)
            .arg("--kubeconfig")
            .arg(&kubeconfig);
        tokio::task::block_in_place(|| run(&mut remove))
    };
    assert!(remove(&[]).fails_with(2).contains("--keep-objects"));
    assert!(remove(&["--keep-objects"]).ok().contains("cluster west"));
    west.closed().await;
    let head = shop.head();
    let shop = shop.restart().await;
    shop.hub
        .until("the source was read", |status| status["source"].is_string())
        .await;
    assert_eq!(shop.head(), head, "a restart changes nothing");
    assert_eq!(shop.hub.status().await["clusters"], json!([]));
    shop.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_may_ask_what_they_may() {
    let shop = Shop::open().await;
    let rules = "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: viewer}
rules: [{apiGroups: [clusters.clusternet.io], resources: [managedclusters], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: viewers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: bob}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: east}
rules: [{apiGroups: [clusters.clusternet.io], resources: [managedclusters], resourceNames: [east], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: east}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: east}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: carol}]
";
    shop.source.push("rules", &[("hub/rules.yaml", rules)]);
    shop.wait(&["auth", "can-i", "list", "mcls", "--as=bob"], |out| out == "yes\n");
    assert_eq!(shop.kubectl(&["auth", "can-i", "delete", "mcls"]).ok(), "yes\n");
    let no = shop.kubectl(&["auth", "can-i", "delete", "mcls", "--as=bob"]);
    assert!(no.code == Some(1) && no.stdout.starts_with("no"), "{no:?}");
    let all = shop.kubectl(&["auth", "can-i", "--list", "--as=bob"]).ok();
    assert!(
        all.contains("managedclusters.clusters.clusternet.io") && all.contains("[get list]"),
        "{all}"
    );
    let who = shop
        .kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"])
        .ok();
    assert_eq!(who, "branchline:admin");
    a_name_in_a_rule_holds_however_it_is_asked_for(&shop).await;
    shop.kubectl(&[
        "label",
        "mcls",
        "-n",
        "clusternet-east",
        "east",
        "a=b",
        "--as=olga",
        "--as-group=branchline:admins",
    ])
    .ok();
    let log = shop.source.in_bare(&["log", "-1", "--format=%an %B", STATE]).ok();
    assert!(
        log.starts_with("olga ") && log.contains("\nImpersonated-By: branchline:admin\n"),
        "{log}"
    );
    shop.hub.stop().await;
}

/// What is decided on and what is answered are the same selection.
async fn a_name_in_a_rule_holds_however_it_is_asked_for(shop: &Shop) {
    let (_east, _west) = (shop.join(1, "east").await, shop.join(2, "west").await);
    shop.wait(&["get", "mcls", "-A", "-o", "name"], |out| out.lines().count() == 2);
    let ask = |query: &str| {
        let path = format!("/apis/clusters.clusternet.io/v1beta1/managedclusters?{query}");
        shop.kubectl(&["get", "--raw", &path, "--as=carol"])
    };
    let (east, west) = ("fieldSelector=metadata.name%3Deast", "fieldSelector=metadata.name%3Dwest");
    for query in [east.to_owned(), format!("{east}&fieldSelector="), format!("{east}&{west}")] {
        let listed = ask(&query).ok();
        assert!(
            listed.contains("\"east\"") && !listed.contains("\"west\""),
            "{query}: {listed}"
        );
    }
    let hidden = format!("%66ieldSelector=metadata.name%3Dwest&{east}");
    let escaped = "fieldSelector=metadata.namespace!%3Dx%5C,metadata.name%3Deast".to_owned();
    for query in [String::new(), west.to_owned(), hidden, escaped] {
        let refused = ask(&query).fails_with(1);
        assert!(refused.contains("carol"), "{query}: {refused}");
    }
}
