//! Acting as others in a cluster (`--as`, `--as-group`): by the hub's rules, within the word of the cluster's owner, and never by what a
//! request says about itself in other headers.

use serde_json::{Value, json};

use crate::authorisation::user_of;
use crate::credentials::{SUBSCRIPTIONS, code};
use crate::support::apiserver::kubectl;
use crate::support::fleet::{Agent, Fleet, Hub};
use crate::support::https::{Body, Client};
use crate::support::repository::GitRepo;
use crate::support::{holds, wait_until};

/// The group `people` reads Subscriptions and reaches every cluster; alice may act as others.
const ACCESS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: people}
rules:
- {apiGroups: [apps.clusternet.io], resources: [subscriptions], verbs: [get, list, watch]}
- {apiGroups: [proxies.clusternet.io], resources: [sockets/proxy], verbs: ['*']}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: people}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: people}
subjects: [{kind: Group, name: people}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: act}
rules: [{apiGroups: [''], resources: [users, groups, serviceaccounts], verbs: [impersonate]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: act}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: act}
subjects: [{kind: User, name: alice}]
";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Whom the cluster takes a request for.
pub(crate) fn who(client: &Client, socket: &str) -> (u16, String, Vec<String>) {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let body = Body {
        content_type: "application/json",
        content: &review,
    };
    let answer = client.request("POST", &format!("{socket}{WHO}"), body).unwrap();
    let info = &answer.json()["status"]["userInfo"];
    let groups = info["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned);
    (
        answer.status,
        info["username"].as_str().unwrap_or_default().to_owned(),
        groups.collect(),
    )
}

#[test]
fn what_a_request_says_about_itself_never_reaches_the_cluster() {
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let hub = Hub::prepare("hub", &repo);
    let fleet = Fleet::of(repo, hub, &["a"]);
    let zoe = user_of(&fleet.hub, "zoe", "people")
        .with_bearer("of-somebody")
        .with_header("X-Remote-User", "root")
        .with_header("X-Remote-Group", "system:masters")
        .with_header("X-Remote-Extra-Scopes", "all")
        .with_header("Proxy-Authorization", "Basic cm9vdDpyb290")
        .with_header("Keep-Alive", "timeout=5")
        .with_header("X-Forwarded-For", "10.9.8.7");
    let (status, name, groups) = who(&zoe, &fleet.socket(0));
    assert_eq!((status, name.as_str()), (201, "zoe"));
    assert_eq!(groups, ["people", "system:authenticated"]);
    let audit = fleet.servers[0].audit();
    let asked = audit.iter().find(|event| event.uri == WHO).unwrap();
    assert_eq!((asked.user.as_str(), asked.impersonated.as_deref()), ("agent", Some("zoe")));
}

#[test]
fn acting_as_others_takes_the_hubs_rules_and_the_owners_word() {
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let hub = Hub::prepare("hub", &repo);
    let mut fleet = Fleet::of(repo, hub, &["a"]);
    let socket = fleet.socket(0);
    let alice = || user_of(&fleet.hub, "alice", "people");
    let act = |client: Client, user: &str, group: &str| {
        client
            .with_header("Impersonate-User", user)
            .with_header("Impersonate-Group", group)
    };
    let (status, name, groups) = who(&act(alice(), "bob", "dev"), &socket);
    assert_eq!((status, name.as_str()), (201, "bob"));
    assert!(
        groups.contains(&"dev".to_owned()) && !groups.contains(&"people".to_owned()),
        "{groups:?}"
    );
    let kubeconfig = fleet.hub.kubeconfig("a", &socket);
    let whoami = [
        "auth",
        "whoami",
        "--as=olga",
        "--as-group=ops",
        "-o=jsonpath={.status.userInfo}",
    ];
    let told = kubectl(&kubeconfig, &whoami).ok();
    assert!(
        told.contains("\"olga\"") && told.contains("\"ops\"") && !told.contains("branchline:admin"),
        "{told}"
    );
    let zoe = user_of(&fleet.hub, "zoe", "people");
    let refused = act(zoe, "bob", "dev").get(&format!("{socket}/version")).unwrap();
    assert!(
        refused.status == 403 && refused.body.contains("cannot impersonate resource"),
        "{refused:?}"
    );
    assert_eq!(
        code(&act(alice(), "bob", "dev"), SUBSCRIPTIONS),
        403,
        "at the hub bob's rights count"
    );
    for (user, group, flag) in [
        ("bob", "system:masters", "--allow-groups"),
        ("bob", "system:nodes", "--allow-groups"),
        ("system:admin", "dev", "--allow-users"),
    ] {
        let refused = act(alice(), user, group).get(&format!("{socket}/version")).unwrap();
        assert!(
            refused.status == 403 && refused.body.contains(flag) && refused.body.contains("owner"),
            "{refused:?}"
        );
    }

    fleet.agents[0].kill();
    let join = fleet.hub.join(&[]);
    let mut agent = Agent::prepare("a", &join, &fleet.servers[0]).with("--allow-groups=people,system:masters");
    agent.launch();
    let alice = || user_of(&fleet.hub, "alice", "people");
    wait_until("the owner's word counts", || {
        let (status, _, groups) = who(&act(alice(), "bob", "system:masters"), &socket);
        holds(
            status == 201 && groups.contains(&"system:masters".to_owned()),
            format!("{status} {groups:?}"),
        )
    });
    assert_eq!(
        who(&act(alice(), "bob", "dev"), &socket).0,
        403,
        "a list that is stated is the whole list"
    );
}
