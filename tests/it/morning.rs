//! A morning's work with plain kubectl, git and nothing else: one of three clusters has a broken application; it is found, looked into, and mended by
//! a push. `cargo test --test it -- morning:: --nocapture` prints it as it would stand in a terminal.

use std::path::PathBuf;

use crate::support::apiserver::ControllerManager;
use crate::support::fleet::{Fleet, Hub};
use crate::support::process::{command, run};
use crate::support::reach::Reach;
use crate::support::repository::GitRepo;
use crate::support::tools::tool;
use crate::support::{holds, scratch, wait_until};

const NAMES: [&str; 3] = ["berlin", "paris", "tokyo"];

/// An application that says whether it reaches its database; everywhere on the node of its cluster.
const APPLICATION: &str = "\
apiVersion: apps.clusternet.io/v1alpha1
kind: Subscription
metadata: {name: web, namespace: default}
spec:
  subscribers: [{clusterAffinity: {}}]
  feeds: [{apiVersion: apps/v1, kind: Deployment, namespace: default, name: web}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: node-1
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: web
        env: [{name: DATABASE, value: db.internal}]
        command: [sh, -c, 'echo database=$DATABASE > web.conf; case $DATABASE in db.*) echo serving;; *) echo cannot reach $DATABASE;; esac; sleep 100000']
";

const PARIS: &str = "\
apiVersion: apps.clusternet.io/v1alpha1
kind: Localization
metadata: {name: database, namespace: clusternet-paris}
spec:
  feed: {apiVersion: apps/v1, kind: Deployment, namespace: default, name: web}
  overrides:
  - name: database
    type: JSONPatch
    value: |
      - {op: replace, path: /spec/template/spec/containers/0/env/0/value, value: bd.paris.internal}
";

/// What a person has: the clone of the source, a kubeconfig, and programs on the PATH.
struct Desk {
    source: PathBuf,
    kubeconfig: PathBuf,
    path: String,
}

impl Desk {
    /// Runs a line as a shell does, and prints both.
    fn run(&self, line: &str) -> String {
        let mut shell = command("/bin/sh".as_ref(), self.kubeconfig.parent().unwrap());
        shell.current_dir(&self.source).args(["-c", line]);
        let said = run(shell.env("PATH", &self.path).env("KUBECONFIG", &self.kubeconfig)).ok();
        println!("$ {line}\n{said}");
        said
    }

    fn every(&self, what: &str) -> String {
        self.run(&format!("for c in {}; do kubectl --context $c {what}; done", NAMES.join(" ")))
    }
}

#[test]
fn a_broken_application_is_found_over_three_clusters_and_mended_by_a_push() {
    let repo = GitRepo::with(&[("web/app.yaml", APPLICATION), ("web/paris.yaml", PARIS)]);
    let hub = Hub::prepare("hub", &repo);
    let reach = Reach::over(Fleet::of(repo, hub, &NAMES), &["1"; 3]);
    let _controllers: Vec<_> = reach.fleet.servers.iter().map(ControllerManager::start).collect();
    let home = scratch("desk");
    let desk = Desk {
        source: home.path().join("source"),
        kubeconfig: home.path().join("kubeconfig"),
        path: path_of(&["kubectl"]),
    };
    let cloned = ["clone", "-q", "-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
    run(command("git".as_ref(), home.path())
        .args(cloned)
        .arg(reach.fleet.repo.bare())
        .arg(&desk.source))
    .ok();
    desk.run(&format!(
        "branchline kubeconfig --kubeconfig {} > {}",
        reach.fleet.hub.admin().display(),
        desk.kubeconfig.display()
    ));
    let logs = "logs deployment/web";
    wait_until("the application runs everywhere", || {
        let said = desk.run(&format!(
            "for c in {}; do kubectl --context $c {logs}; done 2>&1 || true",
            NAMES.join(" ")
        ));
        holds(said.matches("serving").count() == 2 && said.contains("cannot reach"), said)
    });

    println!("--- the morning ---");
    let fleet = desk.run("kubectl --context hub get managedclusters -A");
    assert_eq!(fleet.matches("True").count(), 6, "three are ready and in sync: {fleet}");
    let applied = desk.run("kubectl --context hub get subscriptions,descriptions -A");
    assert!(
        applied.contains("3       3"),
        "what git says is applied everywhere: {applied}"
    );
    desk.every("get pods -o wide --no-headers");
    assert_eq!(desk.every(logs), "serving\ncannot reach bd.paris.internal\nserving\n");
    let value = desk.run("kubectl --context paris exec deployment/web -- cat web.conf");
    assert_eq!(value, "database=bd.paris.internal\n");
    desk.run("git fetch -q origin branchline/state:branchline/state");
    let why = desk.run("branchline why paris deployment/web --previous .@branchline/state");
    assert!(why.contains("web/paris.yaml:7"), "{why}");

    desk.run("sed -i s/bd.paris/db.paris/ web/paris.yaml && git commit -qam 'the database of paris' && git push -q");
    wait_until("the mended application runs in paris", || {
        let said = desk.run(
            "kubectl --context paris rollout status deployment/web --timeout=60s && kubectl --context paris logs deployment/web",
        );
        holds(said.ends_with("serving\n"), said)
    });
    assert_eq!(desk.every(logs), "serving\nserving\nserving\n");
    let log = desk
        .run("git fetch -q origin branchline/state:branchline/state && git log -1 --format='%an: %s' --stat branchline/state");
    assert!(log.contains("clusternet-paris"), "{log}");
    assert!(!log.contains("clusternet-berlin"), "{log}");
}

/// The system's PATH with the folders of these tools and of the tested binary before it.
fn path_of(tools: &[&str]) -> String {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_branchline"));
    let folders = tools.iter().map(|name| tool(name)).chain([binary]);
    let folders: Vec<String> = folders.map(|file| file.parent().unwrap().display().to_string()).collect();
    format!("{}:{}", folders.join(":"), std::env::var("PATH").unwrap_or_default())
}
