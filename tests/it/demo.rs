//! `branchline demo`: a whole fleet in one process, used as a new user would.

use std::path::Path;

use crate::support::apiserver::kubectl;
use crate::support::process::{Output, Process, branchline, command, run};
use crate::support::samples::{base, greeting};
use crate::support::{holds, scratch, wait_until};

fn git(directory: &Path, arguments: &[&str]) -> Output {
    let mut git = command(Path::new("git"), directory);
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "A User")
            .env(format!("GIT_{role}_EMAIL"), "user@example.com");
    }
    run(git.args(arguments))
}

fn start(directory: &Path) -> Process {
    let mut demo = branchline(directory);
    demo.arg("demo")
        .arg("--dir")
        .arg(directory.join("demo"))
        .args(["--clusters", "2"]);
    Process::start("demo", demo, &directory.join("log"))
}

#[test]
fn a_push_to_the_demo_is_seen_in_its_clusters_and_again_after_a_restart() {
    let directory = scratch("demo");
    let (source, kubeconfig) = (directory.path().join("demo/source"), directory.path().join("demo/kubeconfig"));
    let mut demo = start(directory.path());
    wait_until("there is a kubeconfig", || holds(kubeconfig.is_file(), demo.log()));
    let clusters = |what: &str, wanted: usize| {
        wait_until(what, || {
            let output = kubectl(
                &kubeconfig,
                &["--context", "hub", "get", "managedclusters", "-A", "--no-headers"],
            );
            let ready = output.stdout.lines().filter(|line| line.contains("True")).count();
            holds(ready == wanted, format!("{output:?}"))
        });
    };
    clusters("two clusters are ready", 2);

    std::fs::write(source.join("it.yaml"), base() + &greeting("it", &[], "hello")).unwrap();
    git(&source, &["add", "it.yaml"]).ok();
    git(&source, &["commit", "--quiet", "-m", "it"]).ok();
    git(&source, &["push", "--quiet"]).ok();
    for context in ["edge-1", "edge-2"] {
        wait_until("the object is in the cluster", || {
            let output = kubectl(
                &kubeconfig,
                &[
                    "--context",
                    context,
                    "-n",
                    "shop",
                    "get",
                    "configmap",
                    "it",
                    "-o",
                    "jsonpath={.data.greeting}",
                ],
            );
            holds(output.stdout == "hello", format!("{output:?}"))
        });
    }

    let uid = [
        "--context",
        "edge-1",
        "-n",
        "shop",
        "get",
        "configmap",
        "it",
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let before = kubectl(&kubeconfig, &uid).ok();
    demo.signal("TERM");
    assert_eq!(demo.wait_exit(), Some(0));
    let mut demo = start(directory.path());
    clusters("two clusters are ready again", 2);
    assert_eq!(kubectl(&kubeconfig, &uid).ok(), before);
    demo.signal("INT");
    assert_eq!(demo.wait_exit(), Some(0));
}
