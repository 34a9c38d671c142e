//! Who may do what: a table of user × cluster × request with the code of every cell, against a hub, its agents and real API servers; and
//! what happens to those whose rights end while they are at it.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use branchline::core::access::token_file::token_line;
use branchline::hub::ca::CertificateAuthority;
use serde_json::json;

use crate::cluster_credentials::account_token;
use crate::credentials::{SUBSCRIPTIONS, with_token};
use crate::support::apiserver::ApiServer;
use crate::support::fleet::{Fleet, Hub};
use crate::support::https::{Body, Client, Stream};
use crate::support::issuer::{Issuer, changed, now};
use crate::support::node::read_head;
use crate::support::pki::{Authority, Identity};
use crate::support::repository::GitRepo;
use crate::support::{holds, scratch, wait_until};

/// What people push below `hub/`: alice and the ServiceAccount robot read and write cluster a as a socket, bob reads whatever is in the dedicated namespace of a,
/// the group `ops` and the issuer's group of that name may do everything everywhere but approve nothing, frank and the issuer's oscar may reach b,
/// where they may only look.
const ACCESS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cluster-a}
rules:
- {apiGroups: [proxies.clusternet.io], resources: [sockets/proxy], resourceNames: [a], verbs: [get, create, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: alice}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-a}
subjects: [{kind: User, name: alice}, {kind: ServiceAccount, name: robot, namespace: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: look, namespace: clusternet-a}
rules:
- {apiGroups: [branchline.io], resources: [clusters/proxy], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bob, namespace: clusternet-a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: look}
subjects: [{kind: User, name: bob}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: everything}
rules:
- {apiGroups: [proxies.clusternet.io], resources: ['*'], verbs: ['*']}
- {apiGroups: [apps.clusternet.io, clusters.clusternet.io], resources: ['*'], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ops}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: everything}
subjects: [{kind: Group, name: 'oidc:ops'}, {kind: Group, name: ops}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cluster-b}
rules:
- {apiGroups: [branchline.io], resources: [clusters/proxy], resourceNames: [b], verbs: ['*']}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: frank}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-b}
subjects: [{kind: User, name: frank}, {kind: User, name: oscar@example.org}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: tokens}
rules:
- {apiGroups: [branchline.io], resources: [tokens], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: nina}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tokens}
subjects: [{kind: User, name: nina}]
";

/// Every cell. Cluster a and b are connected, c is known but away, `ghost` is an id that nobody has. In every cluster the administrators,
/// `ops`, alice and bob may do everything, frank, oscar and the robot may look. olga has a certificate, tina a static token, olivia an issuer's
/// token, all in their `ops`; the issuer calls poser an administrator, which counts for the issuer's own group of that name alone. The token of
/// lapsed has expired, so has the issuer's of outdated, and the line of revoked was taken out; robot is an account of cluster a. The pod of `exec`
/// is not there, so 404 means that the cluster was asked. Whoever may read may `ask` there who it is, though that is a POST.
const TABLE: &str = "\
user      cluster  get  list watch create update patch delete collection exec websocket version  ask
admin     a        200  200  200   201    200    200   200    200        404  404       200      201
admin     b        200  200  200   201    200    200   200    200        404  404       200      201
admin     c        503  503  503   503    503    503   503    503        503  503       503      503
admin     ghost    404  404  404   404    404    404   404    404        404  404       404      404
alice     a        200  200  200   201    200    403   403    403        404  404       200      201
alice     b        403  403  403   403    403    403   403    403        403  403       403      403
alice     c        403  403  403   403    403    403   403    403        403  403       403      403
alice     ghost    403  403  403   403    403    403   403    403        403  403       403      403
bob       a        200  200  200   403    403    403   403    403        403  403       200      201
bob       b        403  403  403   403    403    403   403    403        403  403       403      403
bob       c        403  403  403   403    403    403   403    403        403  403       403      403
bob       ghost    403  403  403   403    403    403   403    403        403  403       403      403
olga      a        200  200  200   201    200    200   200    200        404  404       200      201
olga      b        200  200  200   201    200    200   200    200        404  404       200      201
olga      c        503  503  503   503    503    503   503    503        503  503       503      503
olga      ghost    404  404  404   404    404    404   404    404        404  404       404      404
tina      a        200  200  200   201    200    200   200    200        404  404       200      201
tina      b        200  200  200   201    200    200   200    200        404  404       200      201
tina      c        503  503  503   503    503    503   503    503        503  503       503      503
tina      ghost    404  404  404   404    404    404   404    404        404  404       404      404
olivia    a        200  200  200   201    200    200   200    200        404  404       200      201
olivia    b        200  200  200   201    200    200   200    200        404  404       200      201
olivia    c        503  503  503   503    503    503   503    503        503  503       503      503
olivia    ghost    404  404  404   404    404    404   404    404        404  404       404      404
frank     a        403  403  403   403    403    403   403    403        403  403       403      403
frank     b        200  200  200   403    403    403   403    403        403  403       200      201
frank     c        403  403  403   403    403    403   403    403        403  403       403      403
frank     ghost    403  403  403   403    403    403   403    403        403  403       403      403
oscar     a        403  403  403   403    403    403   403    403        403  403       403      403
oscar     b        200  200  200   403    403    403   403    403        403  403       200      201
oscar     c        403  403  403   403    403    403   403    403        403  403       403      403
oscar     ghost    403  403  403   403    403    403   403    403        403  403       403      403
robot     a        200  200  200   403    403    403   403    403        403  403       200      201
robot     b        401  401  401   401    401    401   401    401        401  401       401      401
robot     c        401  401  401   401    401    401   401    401        401  401       401      401
robot     ghost    401  401  401   401    401    401   401    401        401  401       401      401
stranger  a        403  403  403   403    403    403   403    403        403  403       403      403
stranger  b        403  403  403   403    403    403   403    403        403  403       403      403
stranger  c        403  403  403   403    403    403   403    403        403  403       403      403
stranger  ghost    403  403  403   403    403    403   403    403        403  403       403      403
poser     a        403  403  403   403    403    403   403    403        403  403       403      403
poser     b        403  403  403   403    403    403   403    403        403  403       403      403
poser     c        403  403  403   403    403    403   403    403        403  403       403      403
poser     ghost    403  403  403   403    403    403   403    403        403  403       403      403
expired   a        401  401  401   401    401    401   401    401        401  401       401      401
expired   b        401  401  401   401    401    401   401    401        401  401       401      401
expired   c        401  401  401   401    401    401   401    401        401  401       401      401
expired   ghost    401  401  401   401    401    401   401    401        401  401       401      401
foreign   a        401  401  401   401    401    401   401    401        401  401       401      401
foreign   b        401  401  401   401    401    401   401    401        401  401       401      401
foreign   c        401  401  401   401    401    401   401    401        401  401       401      401
foreign   ghost    401  401  401   401    401    401   401    401        401  401       401      401
nobody    a        401  401  401   401    401    401   401    401        401  401       401      401
nobody    b        401  401  401   401    401    401   401    401        401  401       401      401
nobody    c        401  401  401   401    401    401   401    401        401  401       401      401
nobody    ghost    401  401  401   401    401    401   401    401        401  401       401      401
garbage   a        401  401  401   401    401    401   401    401        401  401       401      401
garbage   b        401  401  401   401    401    401   401    401        401  401       401      401
garbage   c        401  401  401   401    401    401   401    401        401  401       401      401
garbage   ghost    401  401  401   401    401    401   401    401        401  401       401      401
lapsed    a        401  401  401   401    401    401   401    401        401  401       401      401
lapsed    b        401  401  401   401    401    401   401    401        401  401       401      401
lapsed    c        401  401  401   401    401    401   401    401        401  401       401      401
lapsed    ghost    401  401  401   401    401    401   401    401        401  401       401      401
outdated  a        401  401  401   401    401    401   401    401        401  401       401      401
outdated  b        401  401  401   401    401    401   401    401        401  401       401      401
outdated  c        401  401  401   401    401    401   401    401        401  401       401      401
outdated  ghost    401  401  401   401    401    401   401    401        401  401       401      401
revoked   a        401  401  401   401    401    401   401    401        401  401       401      401
revoked   b        401  401  401   401    401    401   401    401        401  401       401      401
revoked   c        401  401  401   401    401    401   401    401        401  401       401      401
revoked   ghost    401  401  401   401    401    401   401    401        401  401       401      401
";

/// The hub's own API for the same users.
const OWN_TABLE: &str = "\
user      healthz discovery subscriptions mcls-of-a metrics tokens new-token approve status
admin     200     200       200           200       200     200    201       404     200
alice     200     200       403           403       403     403    403       403     403
bob       200     200       403           403       403     403    403       403     403
olga      200     200       200           200       403     403    403       403     403
tina      200     200       200           200       403     403    403       403     403
olivia    200     200       200           200       403     403    403       403     403
frank     200     200       403           403       403     403    403       403     403
oscar     200     200       403           403       403     403    403       403     403
stranger  200     200       403           403       403     403    403       403     403
poser     200     200       403           403       403     403    403       403     403
expired   200     401       401           401       401     401    401       401     401
foreign   200     401       401           401       401     401    401       401     401
nobody    200     401       401           401       401     401    401       401     401
garbage   200     401       401           401       401     401    401       401     401
robot     200     401       401           401       401     401    401       401     401
lapsed    200     401       401           401       401     401    401       401     401
outdated  200     401       401           401       401     401    401       401     401
revoked   200     401       401           401       401     401    401       401     401
";

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GHOST: &str = "00000000-0000-4000-8000-000000000000";

/// The client of a user in the table.
fn client(hub: &Hub, user: &str) -> Client {
    let plain = Client::new(hub.port(), &hub.ca(), None);
    match user {
        "admin" => hub.client(),
        "nobody" => plain,
        "garbage" => plain.with_bearer("not.a.token"),
        "tina" | "lapsed" | "revoked" => plain.with_bearer(&static_token(user)),
        "foreign" => Client::new(
            hub.port(),
            &hub.ca(),
            Some(&Authority::new("elsewhere").client("admin", "branchline:admins")),
        ),
        "expired" => {
            let ago = Duration::from_secs(7200);
            issued(
                hub,
                "admin",
                "branchline:admins",
                SystemTime::now() - ago,
                Duration::from_secs(3600),
            )
        }
        "olga" => user_of(hub, "olga", "ops"),
        user => user_of(hub, user, "people"),
    }
}

fn static_token(user: &str) -> String {
    format!("the-static-token-of-{user}")
}

/// The token of a user in the table who comes by the issuer.
fn issuers_token(issuer: &Issuer, user: &str) -> String {
    let groups: &[&str] = match user {
        "olivia" => &["ops"],
        "poser" => &["branchline:admins", "system:masters"],
        _ => &[],
    };
    let claims = issuer.claims(user, groups);
    let claims = match user {
        "outdated" => changed(&claims, "exp", json!(now() - 3600)),
        _ => claims,
    };
    issuer.token("first", &claims)
}

/// Writes a token file with a line for each of these users.
fn write_tokens(file: &Path, users: &[&str]) {
    let line = |user: &&str| {
        let end = (*user == "lapsed").then(|| "2026-01-01T00:00:00Z".parse().unwrap());
        token_line(&static_token(user), user, &["ops".to_owned()], end) + "\n"
    };
    std::fs::write(file, users.iter().map(line).collect::<String>()).unwrap();
}

/// A client with a certificate of the hub.
pub(crate) fn user_of(hub: &Hub, user: &str, group: &str) -> Client {
    issued(hub, user, group, SystemTime::now(), Duration::from_secs(3600))
}

fn issued(hub: &Hub, user: &str, group: &str, from: SystemTime, lifetime: Duration) -> Client {
    let authority = CertificateAuthority::load_or_create(&hub.ca_directory(), SystemTime::now()).unwrap();
    let issued = authority.issue_user(user, group, from, lifetime).unwrap();
    let identity = Identity {
        certificate: issued.certificate_pem,
        key: issued.key_pem,
    };
    Client::new(hub.port(), &hub.ca(), Some(&identity))
}

/// A role in a child for users and groups.
pub(crate) fn bind(server: &ApiServer, name: &str, role: &str, users: &[&str], groups: &[&str]) {
    let subject =
        |kind: &'static str| move |name: &&str| json!({"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"});
    let subjects: Vec<_> = users
        .iter()
        .map(subject("User"))
        .chain(groups.iter().map(subject("Group")))
        .collect();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": subjects,
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(server.send("POST", path, "application/json", &binding).status, 201);
}

/// A fleet whose clusters let the users of the table in, with a ConfigMap `seed` to ask about.
fn fleet(names: &[&str]) -> Fleet {
    fleet_of(names, |hub| hub)
}

/// The same, with a hub that was prepared otherwise.
fn fleet_of(names: &[&str], prepare: impl FnOnce(Hub) -> Hub) -> Fleet {
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let hub = prepare(Hub::prepare("hub", &repo));
    let fleet = Fleet::of(repo, hub, names);
    for server in &fleet.servers {
        bind(
            server,
            "everything",
            "cluster-admin",
            &["alice", "bob"],
            &["branchline:admins", "ops", "oidc:ops"],
        );
        let look = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "look"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]});
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        assert_eq!(server.send("POST", roles, "application/json", &look).status, 201);
        bind(
            server,
            "looking",
            "look",
            &["frank", "oscar@example.org", "system:serviceaccount:default:robot"],
            &[],
        );
        let seed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed"}});
        assert_eq!(server.send("POST", CONFIG_MAPS, "application/json", &seed).status, 201);
    }
    fleet
}

/// The code that a request gets. Writes are dry runs, so that no cell depends on another.
fn send(client: &Client, socket: &str, request: &str) -> u16 {
    let seed = format!("{socket}{CONFIG_MAPS}/seed");
    let all = format!("{socket}{CONFIG_MAPS}");
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string();
    let exec = format!("{socket}/api/v1/namespaces/default/pods/none/exec?command=x&stdout=true");
    let with = |method: &str, path: String, content_type: &str, content: &str| {
        let body = Body { content_type, content };
        client.request(method, &path, body).unwrap().status
    };
    let upgraded = |method: &str, protocol: &str| {
        let (head, _) = client.upgrade_by(method, &exec, protocol).unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    };
    match request {
        "get" => with("GET", seed, "", ""),
        "list" => with("GET", all, "", ""),
        "watch" => with("GET", format!("{all}?watch=true&timeoutSeconds=1"), "", ""),
        "create" => with("POST", format!("{all}?dryRun=All"), "application/json", &object("another")),
        "update" => with("PUT", format!("{seed}?dryRun=All"), "application/json", &object("seed")),
        "patch" => with("PATCH", format!("{seed}?dryRun=All"), "application/merge-patch+json", "{}"),
        "delete" => with("DELETE", format!("{seed}?dryRun=All"), "", ""),
        "collection" => with("DELETE", format!("{all}?dryRun=All"), "", ""),
        "exec" => upgraded("POST", "SPDY/3.1"),
        "websocket" => upgraded("GET", "websocket"),
        "version" => with("GET", format!("{socket}/version"), "", ""),
        "ask" => {
            let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
            let path = format!("{socket}/apis/authentication.k8s.io/v1/selfsubjectreviews");
            with("POST", path, "application/json", &question)
        }
        other => panic!("no request is called {other}"),
    }
}

fn send_own(client: &Client, request: &str) -> u16 {
    let get = |path: &str| client.get(path).unwrap().status;
    let post = |path: &str| {
        let body = Body {
            content_type: "application/json",
            content: "{}",
        };
        client.request("POST", path, body).unwrap().status
    };
    match request {
        "healthz" => get("/healthz"),
        "discovery" => get("/apis"),
        "subscriptions" => get("/apis/apps.clusternet.io/v1alpha1/subscriptions"),
        "mcls-of-a" => get("/apis/clusters.clusternet.io/v1beta1/namespaces/clusternet-a/managedclusters"),
        "metrics" => get("/metrics"),
        "tokens" => get("/apis/branchline.io/v1alpha1/tokens"),
        "new-token" => post("/apis/branchline.io/v1alpha1/tokens"),
        "approve" => post("/apis/branchline.io/v1alpha1/clusters/nothing/approve"),
        "status" => get("/apis/branchline.io/v1alpha1/status"),
        other => panic!("no request is called {other}"),
    }
}

/// Asks for every cell. If one is otherwise, the failure shows the whole table as it came out.
fn check(wanted: &str, keys: usize, mut cell: impl FnMut(&[&str], &str) -> u16) {
    let mut lines = wanted.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let mut wrong = 0;
    let mut table = format!("{}\n", header.join("\t"));
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.len(), header.len(), "{line}");
        let mut row = words[..keys].join("\t");
        for (request, code) in header[keys..].iter().zip(&words[keys..]) {
            let got = cell(&words[..keys], request).to_string();
            let otherwise = got != *code;
            wrong += usize::from(otherwise);
            row += &format!("\t{got}{}", if otherwise { format!("(not {code})") } else { String::new() });
        }
        table += &format!("{row}\n");
    }
    assert_eq!(wrong, 0, "so many cells are otherwise:\n{table}");
}

#[test]
fn every_cell_of_the_table() {
    let directory = scratch("tokens");
    let file = directory.path().join("tokens.csv");
    write_tokens(&file, &["tina", "lapsed", "revoked"]);
    let issuer = Issuer::start();
    let mut fleet = fleet_of(&["a", "b", "c"], |hub| {
        let hub = hub.with(&format!("--token-auth-file={}", file.display()));
        issuer.taken_by(hub, directory.path())
    });
    assert_eq!(
        send_own(&client(&fleet.hub, "revoked"), "subscriptions"),
        200,
        "until it is revoked"
    );
    write_tokens(&file, &["tina", "lapsed"]);
    fleet.agents[2].kill();
    let ids: Vec<String> = fleet.servers.iter().map(ApiServer::cluster_id).collect();
    let version = format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{}/proxy/direct/version", ids[2]);
    wait_until("cluster c is away", || {
        let answer = fleet.hub.client().get(&version)?;
        holds(answer.status == 503, answer.body)
    });
    let rows = TABLE.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let users: std::collections::BTreeSet<&str> = rows.collect();
    let mut clients: std::collections::BTreeMap<&str, Client> =
        users.into_iter().map(|user| (user, client(&fleet.hub, user))).collect();
    let robot = Client::new(fleet.hub.port(), &fleet.hub.ca(), None).with_bearer(&account_token(&fleet.servers[0], "robot"));
    clients.insert("robot", robot);
    for user in ["olivia", "oscar", "poser", "outdated"] {
        clients.insert(user, with_token(&fleet.hub, &issuers_token(&issuer, user)));
    }
    check(TABLE, 2, |keys, request| {
        let id = match keys[1] {
            "ghost" => GHOST,
            name => &ids[["a", "b", "c"].iter().position(|known| *known == name).unwrap()],
        };
        let socket = format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{id}/proxy/direct");
        send(&clients[keys[0]], &socket, request)
    });
    let told = |word: &str| {
        let refused = clients["stranger"].get(&format!("/clusters/{word}/version")).unwrap();
        refused.body.replace(word, "WORD")
    };
    assert_eq!(
        told(&ids[0]),
        told(GHOST),
        "a refusal does not tell whether there is such a cluster"
    );
    assert_eq!(told("clusternet-a"), told("clusternet-x"));
    check(OWN_TABLE, 1, |keys, request| send_own(&clients[keys[0]], request));
}

#[test]
fn who_is_taken_out_of_git_is_out_at_once_and_a_broken_file_takes_nobody_out() {
    let fleet = fleet(&["a"]);
    let socket = format!(
        "/apis/proxies.clusternet.io/v1alpha1/sockets/{}/proxy/direct",
        fleet.servers[0].cluster_id()
    );
    let (alice, olga) = (client(&fleet.hub, "alice"), client(&fleet.hub, "olga"));
    let watching = |client: &Client, path: &str| {
        let mut watch = client.open(&format!("{path}?watch=true")).unwrap();
        assert!(read_head(&mut watch).unwrap().starts_with("HTTP/1.1 200"));
        watch
    };
    let in_cluster = format!("{socket}{CONFIG_MAPS}");
    let _before = [watching(&alice, &in_cluster), watching(&olga, SUBSCRIPTIONS)];

    let broken = fleet.repo.push("broken", &[("hub/access.yaml", "kind: [")]);
    wait_until("the hub has read the broken file", || {
        let status = fleet.hub.get("/apis/branchline.io/v1alpha1/status").unwrap();
        holds(status["source"] == json!(broken), status.to_string())
    });
    assert_eq!(send(&alice, &socket, "get"), 200);
    assert_eq!(send(&alice, &socket, "delete"), 403, "and nobody is let in by it");
    let mut hub = fleet.hub;
    hub.kill();
    hub.start_again();
    wait_until(
        "the agent is back, and alice may go on after a restart with the file still broken",
        || {
            let code = send(&alice, &socket, "get");
            holds(code == 200, code.to_string())
        },
    );
    let (watch, own) = (watching(&alice, &in_cluster), watching(&olga, SUBSCRIPTIONS));
    let tokens = "/apis/branchline.io/v1alpha1/tokens";
    let kept = || hub.client().get(tokens).unwrap().json()["items"].as_array().unwrap().len();
    let (mut held_back, before) = (holding_back(&client(&hub, "nina"), tokens, 2), kept());

    let ops = ACCESS
        .find("---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: cluster-b}")
        .unwrap();
    let without_bindings = ACCESS[..ops]
        .replace("kind: User, name: alice", "kind: User, name: anna")
        .replace("name: ops}]", "name: others}]");
    fleet.repo.push("they have left", &[("hub/access.yaml", &without_bindings)]);
    wait_until("alice is out", || {
        let code = send(&alice, &socket, "get");
        holds(code == 403, code.to_string())
    });
    ended(watch);
    ended(own);
    assert_eq!(send_own(&olga, "subscriptions"), 403);
    // The hub may have answered before the body came.
    let _ = held_back.write_all(b"{}");
    let head = read_head(&mut held_back).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 403"),
        "let in at its head, refused at its end: {head}"
    );
    assert_eq!(kept(), before);
}

/// A request that was let in and whose body the hub waits for.
fn holding_back(client: &Client, path: &str, length: usize) -> Stream {
    let mut stream = client.connect().unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    stream
}

/// Waits until the answer ends. In order or cut off, both are an end; a hang is what would be wrong.
pub(crate) fn ended(mut stream: Stream) {
    let ended = stream.read_to_end(&mut Vec::new());
    let hangs = ended
        .as_ref()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!hangs, "{ended:?}");
}
