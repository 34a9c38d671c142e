//! The binary as a kubectl plugin, and what shells are told while a line is typed: with the real bash and the real kubectl.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use branchline::core::registration::Approval;
use http::Method;
use serde_json::json;

use crate::hub_api::Shop;
use crate::support::process::{Output, branchline, command, run};
use crate::support::scratch;
use crate::support::tools::tool;
use crate::support::whole_hub::Candidate;
use crate::tour::Tour;

/// A folder of programs with the binary under all its names.
fn programs() -> tempfile::TempDir {
    let folder = scratch("programs");
    for name in ["branchline", "kubectl-branchline", "kubectl_complete-branchline"] {
        symlink(env!("CARGO_BIN_EXE_branchline"), folder.path().join(name)).unwrap();
    }
    folder
}

/// A command that finds those programs first.
fn beside(program: &Path, programs: &Path) -> Command {
    let mut command = command(program, programs);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", programs.display()));
    command
}

/// What bash offers for the last of these words.
fn bash(programs: &Path, directory: &Path, words: &[&str]) -> Output {
    const SCRIPT: &str = "set -e; source <(branchline completion bash); COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
        _clap_complete_branchline branchline \"${COMP_WORDS[COMP_CWORD]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = beside(Path::new("bash"), programs);
    bash.current_dir(directory).args(["--norc", "-c", SCRIPT, "bash"]).args(words);
    run(&mut bash)
}

#[test]
fn bash_is_told_commands_options_and_the_clusters_of_the_source() {
    let (tour, programs) = (Tour::start(), programs());
    let offered = |words: &[&str]| {
        let said = bash(programs.path(), &tour.folder(), words).ok();
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(offered(&["branchline", "pl"]), ["plan"]);
    assert_eq!(offered(&["branchline", "why", ""])[..4], ["berlin", "lab", "paris", "tokyo"]);
    assert_eq!(offered(&["branchline", "plan", "--cluster", "p"]), ["paris"]);
    assert!(offered(&["branchline", "render", "--cl"]).contains(&"--clusters".to_owned()));
    for shell in ["zsh", "fish"] {
        let script = tour.run(&["completion", shell]).ok();
        assert!(script.contains("BRANCHLINE_COMPLETE"), "{script}");
        let mut asked = branchline(programs.path());
        asked.current_dir(tour.folder()).env("BRANCHLINE_COMPLETE", shell);
        asked.env("_CLAP_COMPLETE_INDEX", "2").args(["--", "branchline", "why", "b"]);
        assert_eq!(run(&mut asked).ok().lines().next(), Some("berlin"), "{shell}");
    }
}

#[test]
fn kubectl_runs_the_plugin_and_completes_its_line() {
    let (tour, programs) = (Tour::start(), programs());
    let kubectl = |arguments: &[&str]| {
        let mut kubectl = beside(&tool("kubectl"), programs.path());
        run(kubectl.current_dir(tour.folder()).args(arguments))
    };
    assert!(
        kubectl(&["branchline", "check", "."])
            .stderr
            .contains("4 Subscriptions for 4 clusters")
    );
    let help = kubectl(&["branchline", "--help"]).ok();
    assert!(help.contains("Usage: kubectl branchline"), "{help}");
    kubectl(&["branchline", "plan", "HEAD..origin/next"]).fails_with(1);
    let offered = kubectl(&["__complete", "branchline", "why", ""]).ok();
    assert!(
        offered.starts_with("berlin\nlab\nparis\ntokyo\n") && offered.contains(":4"),
        "{offered}"
    );
    let offered = kubectl(&["__complete", "branchline", "ren"]).ok();
    assert!(offered.starts_with("render\tRenders what every cluster"), "{offered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_of_a_running_hub_are_offered_where_it_is_asked_about_them() {
    let shop = Shop::open_with(|config| config.approval = Approval::Manual).await;
    let token = shop.hub.token(None).await;
    Candidate::new(1, "east").register(&shop.hub, Some(&token)).await;
    let (programs, kubeconfig) = (programs(), shop.kubeconfig());
    let kubeconfig = kubeconfig.display().to_string();
    let offered = |command: &str, kubeconfig: &str| {
        let words = ["branchline", command, "--kubeconfig", kubeconfig, ""];
        tokio::task::block_in_place(|| bash(programs.path(), programs.path(), &words)).ok()
    };
    assert!(offered("approve", &kubeconfig).starts_with("east"), "one that waits");
    let mut status = branchline(programs.path());
    status.args(["status", "--kubeconfig", &kubeconfig]);
    let said = tokio::task::block_in_place(|| run(&mut status)).stdout;
    assert!(said.contains("waiting: cluster east: branchline approve east"), "{said}");
    shop.hub.admin(Method::POST, "clusters/east/approve", &json!({})).await;
    assert!(
        offered("deny", &kubeconfig).starts_with("east"),
        "one that belongs to the fleet"
    );
    assert!(
        !offered("deny", "/nowhere").contains("east"),
        "no hub, no names, and no noise"
    );
    shop.hub.stop().await;
}
