//! A cluster's own credentials, which count in that cluster alone: Clusternet's extras, and tokens of its ServiceAccounts.

use base64::prelude::{BASE64_STANDARD, Engine};
use branchline::cluster::{ClusternetLayer, install_tls_provider};
use branchline::core::access::token_file::token_line;
use serde_json::json;

use crate::authorisation::{bind, ended, user_of};
use crate::impersonation::who;
use crate::support::apiserver::{ApiServer, TOKEN, kubectl};
use crate::support::fleet::{Fleet, Hub};
use crate::support::https::Client;
use crate::support::node::read_head;
use crate::support::repository::GitRepo;
use crate::support::{holds, wait_until};

/// The group `people` and the ServiceAccount `robot` reach every cluster, and nobody who is known may reach cluster a.
const ACCESS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: people}
rules: [{apiGroups: [proxies.clusternet.io], resources: [sockets/proxy], verbs: ['*']}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: people}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: people}
subjects: [{kind: Group, name: people}, {kind: ServiceAccount, name: robot, namespace: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: anonymous}
rules: [{apiGroups: [proxies.clusternet.io], resources: [sockets/proxy], resourceNames: [a], verbs: [get, create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: anonymous}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: anonymous}
subjects: [{kind: Group, name: 'system:unauthenticated'}]
";

/// A fleet of clusters a and b, whose hub has written JSON lines.
fn fleet() -> Fleet {
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let hub = Hub::prepare("hub", &repo).with("--log-format=json");
    Fleet::of(repo, hub, &["a", "b"])
}

/// The client with Clusternet's extras, by the last part of their names.
fn carrying(client: Client, extras: &[(&str, &str)]) -> Client {
    let client = client.with_header("Impersonate-User", "clusternet");
    extras.iter().fold(client, |client, (key, value)| {
        client.with_header(&format!("Impersonate-Extra-Clusternet-{key}"), value)
    })
}

fn nobody(hub: &Hub) -> Client {
    Client::new(hub.port(), &hub.ca(), None)
}

/// A kubeconfig of the shape that Clusternet's documentation has: how the hub knows the user, and the cluster's token as an extra.
fn clusternet_kubeconfig(hub: &Hub, socket: &str, user: (&str, &str), token: &str) -> std::path::PathBuf {
    let (field, value) = user;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "child",
        "clusters": [{"name": "child", "cluster": {
            "server": format!("https://127.0.0.1:{}{socket}", hub.port()),
            "certificate-authority-data": BASE64_STANDARD.encode(hub.ca()),
        }}],
        "users": [{"name": "child", "user": {field: value, "as": "clusternet", "as-user-extra": {"clusternet-token": [token]}}}],
        "contexts": [{"name": "child", "context": {"cluster": "child", "user": "child"}}],
    });
    let file = hub.admin().with_file_name(format!("{field}.kubeconfig"));
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// A new ServiceAccount's token.
pub(crate) fn account_token(server: &ApiServer, name: &str) -> String {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    assert_eq!(server.send("POST", ACCOUNTS, "application/json", &account).status, 201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = server.send("POST", &format!("{ACCOUNTS}/{name}/token"), "application/json", &request);
    token.json()["status"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_service_account_reaches_its_own_cluster_while_it_is_there() {
    let fleet = fleet();
    let (a, b) = (fleet.socket(0), fleet.socket(1));
    let robot = account_token(&fleet.servers[0], "robot");
    let stranger = account_token(&fleet.servers[0], "stranger");
    account_token(&fleet.servers[1], "robot");
    let client = |token: &str| nobody(&fleet.hub).with_bearer(token);
    let (status, name, groups) = who(&client(&robot), &a);
    assert_eq!((status, name.as_str()), (201, "system:serviceaccount:default:robot"));
    assert!(groups.contains(&"system:serviceaccounts:default".to_owned()), "{groups:?}");
    assert_eq!(
        who(&client(&robot), &b).0,
        401,
        "another cluster, though it has an account of that name"
    );
    assert_eq!(client(&robot).get("/apis").unwrap().status, 401, "the hub's own API");
    assert_eq!(who(&client(&stranger), &a).0, 403, "an account without a right at the hub");
    let (claims, _) = robot.rsplit_once('.').unwrap();
    assert_eq!(
        who(&client(&format!("{claims}.AAAA")), &a).0,
        401,
        "a signature that is not the cluster's"
    );
    let as_other = client(&robot).with_header("Impersonate-User", "olga");
    assert_eq!(
        who(&as_other, &a).0,
        403,
        "in the cluster it has no right to be somebody else"
    );

    bind(
        &fleet.servers[0],
        "robot",
        "cluster-admin",
        &["system:serviceaccount:default:robot"],
        &[],
    );
    let config_maps = format!("{a}/api/v1/namespaces/default/configmaps");
    wait_until("the account may look in its cluster", || {
        let status = client(&robot).get(&config_maps)?.status;
        holds(status == 200, status.to_string())
    });
    assert_eq!(who(&as_other, &a).1, "olga", "there it may now");

    let mut watch = client(&robot).open(&format!("{config_maps}?watch=true")).unwrap();
    assert!(read_head(&mut watch).unwrap().starts_with("HTTP/1.1 200"));
    let removed = fleet.servers[0].send("DELETE", &format!("{ACCOUNTS}/robot"), "application/json", &json!({}));
    assert_eq!(removed.status, 200);
    wait_until("the account is gone", || {
        let status = who(&client(&robot), &a).0;
        holds(status == 401, status.to_string())
    });
    ended(watch);
    assert!(!fleet.hub.log().contains(claims) && !fleet.agents[0].log().contains(claims));
}

#[test]
fn clusternets_extras_speak_for_themselves_in_their_cluster() {
    let fleet = fleet();
    let (a, b) = (fleet.socket(0), fleet.socket(1));
    let people = user_of(&fleet.hub, "zoe", "people");
    let (status, name, _) = who(&carrying(people.clone(), &[("Token", TOKEN)]), &b);
    assert_eq!((status, name.as_str()), (201, "token-user"));
    assert_eq!(who(&carrying(people.clone(), &[("Token", "wrong")]), &b).0, 401);
    let as_other = carrying(people.clone(), &[("Token", TOKEN), ("Impersonate-User", "olga")]);
    assert_eq!(who(&as_other, &b).0, 403, "the token has no right there to be somebody else");

    let identity = fleet.servers[1].authority().client("by-certificate", "its-group");
    let pem = |text: &str| BASE64_STANDARD.encode(text);
    let (certificate, key) = (pem(&identity.certificate), pem(&identity.key));
    let by_certificate = carrying(people.clone(), &[("Certificate", &certificate), ("PrivateKey", &key)]);
    let (status, name, groups) = who(&by_certificate, &b);
    assert_eq!((status, name.as_str()), (201, "by-certificate"));
    assert_eq!(groups, ["its-group", "system:authenticated"]);
    assert_eq!(
        who(&by_certificate, &a).0,
        401,
        "b's certificate says nothing to a, and nobody stands in for it"
    );
    let (no_pem, other) = (pem("no certificate"), pem("no key"));
    let broken = carrying(people.clone(), &[("Certificate", &no_pem), ("PrivateKey", &other)]);
    assert_eq!(who(&broken, &b).0, 400);
    let stranger = carrying(user_of(&fleet.hub, "mallory", "strangers"), &[("Token", TOKEN)]);
    assert_eq!(who(&stranger, &b).0, 403, "a cluster's credential opens no way to it");

    let log = fleet.hub.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let audit: Vec<_> = lines.filter(|line| line["message"] == "audit").collect();
    let inside = |line: &&serde_json::Value| line["credential"] == "token" && line["impersonated"] == "olga";
    let line = audit
        .iter()
        .find(inside)
        .expect("whom the credential impersonates in the cluster is told");
    assert_eq!((&line["user"], &line["code"]), (&json!("zoe"), &json!(403)));
    let line = audit
        .iter()
        .find(|line| line["credential"] == "certificate" && line["code"] == 201)
        .unwrap();
    assert_eq!((&line["user"], &line["cluster"]), (&json!("zoe"), &json!("b")));
    for secret in [TOKEN, &key, &certificate, identity.key.lines().nth(1).unwrap()] {
        assert!(!log.contains(secret) && !fleet.agents.iter().any(|agent| agent.log().contains(secret)));
    }
}

#[test]
fn without_a_credential_of_the_hub_nobody_gets_to_a_cluster_unless_a_flag_says_so() {
    let mut fleet = fleet();
    let (a, b) = (fleet.socket(0), fleet.socket(1));
    let version = format!("{a}/version");
    let refused = carrying(nobody(&fleet.hub), &[("Token", TOKEN)]).get(&version).unwrap();
    assert!(
        refused.status == 401 && refused.body.contains("--allow-anonymous-cluster-credentials"),
        "{refused:?}"
    );
    fleet.hub.kill();
    let unused = Hub::prepare("unused", &fleet.repo);
    let tokens = fleet.hub.admin().with_file_name("tokens.csv");
    std::fs::write(&tokens, token_line("of-zoe", "zoe", &["people".to_owned()], None)).unwrap();
    let mut hub = std::mem::replace(&mut fleet.hub, unused)
        .with("--allow-anonymous-cluster-credentials")
        .with(&format!("--token-auth-file={}", tokens.display()));
    hub.start_again();
    for (socket, client) in [(&a, nobody(&hub)), (&b, nobody(&hub).with_bearer("of-zoe"))] {
        let client = carrying(client, &[("Token", TOKEN)]);
        wait_until("the agents are back", || {
            let status = client.get(&format!("{socket}/version"))?.status;
            holds(status == 200, status.to_string())
        });
    }
    let code = |client: Client, path: &str| client.get(path).unwrap().status;
    let carried = || carrying(nobody(&hub), &[("Token", TOKEN)]);
    assert_eq!(code(carried(), &format!("{b}/version")), 403, "the rule is for a alone");
    assert_eq!(code(nobody(&hub), &version), 401, "without any credential");
    assert_eq!(
        code(carrying(nobody(&hub), &[("Token", "wrong")]), &version),
        401,
        "the cluster's own guard"
    );
    let service = a.replace("/direct", "/http/127.0.0.1:1/");
    let refused = carried().get(&service).unwrap();
    assert!(
        refused.status == 403 && refused.body.contains("for a service"),
        "services ask for no credential of the cluster: {refused:?}"
    );
    let own = "/apis/apps.clusternet.io/v1alpha1/subscriptions";
    assert_ne!(code(carried(), own), 200, "the hub's own API");

    for (socket, user) in [(&a, ("username", "system:anonymous")), (&b, ("token", "of-zoe"))] {
        let kubeconfig = clusternet_kubeconfig(&hub, socket, user, TOKEN);
        let told = kubectl(&kubeconfig, &["auth", "whoami", "-o=jsonpath={.status.userInfo.username}"]).ok();
        assert_eq!(told, "token-user", "{user:?}");
    }
}

#[test]
fn kube_gets_into_a_cluster_by_a_layer() {
    install_tls_provider();
    let fleet = fleet();
    let (hub, id) = (&fleet.hub, fleet.servers[1].cluster_id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ask = |layer: ClusternetLayer| {
        runtime.block_on(async {
            let config = kube::config::Kubeconfig::read_from(hub.admin()).unwrap();
            let options = kube::config::KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(config, &options).await.unwrap();
            let builder = kube::client::ClientBuilder::try_from(config).unwrap();
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
            let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews?pretty=false");
            let request = request
                .header("Content-Type", "application/json")
                .body(review.into_bytes())
                .unwrap();
            let answer: serde_json::Value = builder.with_layer(&layer).build().request(request).await.unwrap();
            answer["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
        })
    };
    let layer = ClusternetLayer::into_cluster(id.parse().unwrap());
    assert_eq!(ask(layer.clone()), "branchline:admin");
    assert_eq!(ask(layer.with_cluster_token(TOKEN).unwrap()), "token-user");
}
