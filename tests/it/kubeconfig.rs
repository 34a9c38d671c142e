//! `branchline kubeconfig`: the contexts that it writes, used by the real kubectl.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::apiserver::kubectl;
use crate::support::fleet::{Fleet, Hub};
use crate::support::process::{Output, branchline, run};
use crate::support::repository::GitRepo;
use crate::support::scratch;

/// The group `dev` reads Subscriptions and may look into cluster a; lead may make certificates for zoe in two groups, and for nobody else.
const ACCESS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: dev}
rules:
- {apiGroups: [apps.clusternet.io], resources: [subscriptions], verbs: [get, list, watch]}
- {apiGroups: [branchline.io], resources: [clusters/proxy], resourceNames: [a], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: dev}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dev}
subjects: [{kind: Group, name: dev}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lead}
rules:
- {apiGroups: [branchline.io], resources: [usercertificates], verbs: [create]}
- {apiGroups: [''], resources: [users], resourceNames: [zoe], verbs: [impersonate]}
- {apiGroups: [''], resources: [groups], resourceNames: [dev, ops], verbs: [impersonate]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lead}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lead}
subjects: [{kind: User, name: lead}]
";

/// Runs the command with this file as KUBECONFIG.
fn kubeconfig(file: &Path, arguments: &[&str]) -> Output {
    let folder = file.parent().unwrap();
    run(branchline(folder).env("KUBECONFIG", file).arg("kubeconfig").args(arguments))
}

fn names(config: &Value, list: &str) -> Vec<String> {
    let entries = config[list].as_array().into_iter().flatten();
    entries.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

fn read(file: &Path) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn contexts_lead_to_the_hub_and_to_what_the_user_may_reach() {
    let repo = GitRepo::with(&[("hub/access.yaml", ACCESS)]);
    let hub = Hub::prepare("hub", &repo);
    let fleet = Fleet::of(repo, hub, &["a", "b"]);
    let directory = scratch("kubeconfig");
    let own = |name: &str| directory.path().join(name);
    let admin = fleet.hub.admin();
    let whole: Value = serde_saphyr::from_str(&kubeconfig(&admin, &[]).ok()).unwrap();
    assert_eq!(names(&whole, "contexts"), ["hub", "a", "b"]);

    let write = |from: &Path, to: &Path, arguments: &[&str]| fs::write(to, kubeconfig(from, arguments).ok()).unwrap();
    let (lead, zoe) = (own("lead"), own("zoe"));
    write(&admin, &lead, &["--user=lead", "--ttl=1h"]);
    write(&lead, &zoe, &["--user=zoe", "--group=dev", "--group=ops"]);
    assert_eq!(
        names(&read(&zoe), "contexts"),
        ["hub", "a"],
        "of the clusters that zoe may reach"
    );
    let who = [
        "--context=a",
        "auth",
        "whoami",
        "-o=jsonpath={.status.userInfo.username} {.status.userInfo.groups}",
    ];
    let told = kubectl(&zoe, &who).ok();
    assert_eq!(told, r#"zoe ["dev","ops","system:authenticated"]"#);
    kubectl(&zoe, &["--context=hub", "get", "subscriptions", "-A"]).ok();
    let refused = kubectl(&zoe, &["--context=hub", "get", "managedclusters", "-A"]).fails_with(1);
    assert!(refused.contains("Forbidden"), "{refused}");

    for (arguments, lacking) in [
        (["--user=mallory", "--group=dev"], "users \"mallory\" is forbidden"),
        (
            ["--user=zoe", "--group=branchline:admins"],
            "groups \"branchline:admins\" is forbidden",
        ),
    ] {
        let refused = kubeconfig(&lead, &arguments).fails_with(1);
        assert!(refused.contains(lacking), "{refused}");
    }
    let agent = format!("--user=branchline:cluster:{}", fleet.servers[0].cluster_id());
    for (arguments, reason) in [
        ([agent.as_str(), "--group=branchline:agents"], "when they register"),
        (
            ["--user=branchline:cluster:x", "--group=branchline:agents"],
            "is not understood",
        ),
        (["--user=system:admin", "--group=dev"], "begins with system:"),
        (
            ["--user=zoe", "--group=branchline:admins"],
            "branchline token user --group branchline:admins",
        ),
    ] {
        let refused = kubeconfig(&admin, &arguments).fails_with(1);
        assert!(refused.contains(reason), "{refused}");
    }
    let refused = kubeconfig(&zoe, &["--user=zoe", "--group=dev"]).fails_with(1);
    assert!(
        refused.contains("users \"zoe\" is forbidden"),
        "whoever has one cannot prolong it: {refused}"
    );
}

#[test]
fn merging_keeps_what_is_there_and_takes_nothing_that_belongs_elsewhere() {
    let fleet = Fleet::start(&["a"]);
    let directory = scratch("merge");
    let file = directory.path().join("config");
    let other = "kind: Config\napiVersion: v1\ncurrent-context: work\nclusters: [{name: work, cluster: {server: 'https://work'}}]\n\
                 contexts: [{name: work, context: {cluster: work, user: me}}]\nusers: [{name: me, user: {token: t}}]\n";
    fs::write(&file, other).unwrap();
    let admin = fleet.hub.admin();
    let merge = |arguments: &[&str]| {
        let from = format!("--kubeconfig={}", admin.display());
        kubeconfig(&file, &[&[from.as_str(), "--merge"], arguments].concat())
    };
    merge(&[]).ok();
    let merged = read(&file);
    assert_eq!(names(&merged, "contexts"), ["work", "hub", "a"]);
    assert_eq!(
        (&merged["current-context"], &merged["users"][0]["user"]["token"]),
        (&"work".into(), &"t".into())
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    kubectl(&file, &["--context=hub", "get", "managedclusters", "-A"]).ok();
    let bytes = fs::read(&file).unwrap();
    merge(&[]).ok();
    assert_eq!(fs::read(&file).unwrap(), bytes, "once more changes nothing");

    fs::write(&file, other.replace("work", "hub")).unwrap();
    let refused = merge(&[]).fails_with(1);
    assert!(
        refused.contains("belongs elsewhere") && refused.contains("--prefix"),
        "{refused}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), other.replace("work", "hub"));
    merge(&["--prefix=shop-"]).ok();
    assert_eq!(names(&read(&file), "contexts"), ["hub", "shop-hub", "shop-a"]);
}
