//! A whole hub in this process over repositories that somebody empties, moves, damages, rewrites or writes to, and a remote that comes and goes.

use std::path::Path;
use std::time::Duration;

use branchline::git::RepositoryUrl;
use branchline::hub::HubConfig;
use serde_json::{Value, json};

use crate::support::process::{command, run};
use crate::support::repository::GitRepo;
use crate::support::whole_hub::{Candidate, Joined, WholeHub, config, home};

const STATE: &str = "refs/heads/branchline/state";

fn shop(value: u32) -> String {
    format!(
        "apiVersion: apps.clusternet.io/v1alpha1
kind: Subscription
metadata: {{name: web, namespace: shop}}
spec:
  subscribers: [{{clusterAffinity: {{}}}}]
  feeds: [{{apiVersion: v1, kind: ConfigMap, name: web, namespace: shop}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: web, namespace: shop}}
data: {{a: '{value}'}}
"
    )
}

fn source() -> GitRepo {
    GitRepo::with(&[("web.yaml", &shop(1))])
}

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

fn is_well(status: &Value) -> bool {
    status["problems"] == json!([]) && !status["source"].is_null()
}

/// Registers a cluster and joins as its agent.
async fn join(hub: &WholeHub) -> (Candidate, String, Joined) {
    let token = hub.token(None).await;
    let east = Candidate::new(1, "east");
    let certificate = east.certificate(hub, Some(&token)).await;
    let agent = east.join(hub, &certificate, json!({})).await.unwrap();
    (east, certificate, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_not_there_yet_or_any_more_says_so_and_comes_back() {
    let (source, home) = (GitRepo::empty(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let status = hub
        .until("it says that there is no branch", |status| status["problems"] != json!([]))
        .await;
    assert!(
        problems(&status).contains("main") && problems(&status).contains("push a first commit"),
        "{status}"
    );
    let (code, told) = hub.ready().await;
    assert_eq!(code, 500, "it has nothing to go by yet");
    assert!(told.contains("reason withheld") && !told.contains("main"), "{told}");
    let (_, told) = hub.admin(http::Method::GET, "/readyz?verbose", &json!(null)).await;
    assert!(told.to_string().contains("push a first commit"), "{told}");
    source.push("first", &[("web.yaml", &shop(1))]);
    hub.until("the first commit is in", is_well).await;
    let (_, _, mut agent) = join(&hub).await;
    let first = agent.offer().await.tree;

    // The branch is renamed away.
    source.in_bare(&["branch", "-m", "main", "trunk"]).ok();
    let status = hub
        .until("it says which branches there are", |status| {
            problems(status).contains("trunk")
        })
        .await;
    assert_eq!(status["clusters"][0]["desired"], json!(first), "the last good state stays");
    assert_eq!(hub.ready().await.0, 200, "tunnels and reads go on");
    source.in_bare(&["branch", "-m", "trunk", "main"]).ok();
    hub.until("it is well again", is_well).await;

    // The whole repository is away for a while.
    let (bare, away) = (source.bare(), source.bare().with_extension("away"));
    std::fs::rename(&bare, &away).unwrap();
    let status = hub
        .until("it says that it cannot open it", |status| {
            problems(status).contains("cannot open")
        })
        .await;
    assert_eq!(status["clusters"][0]["desired"], json!(first));
    std::fs::rename(&away, &bare).unwrap();
    hub.until("it is well again", is_well).await;
    source.push("second", &[("web.yaml", &shop(2))]);
    let second = agent.offer().await.tree;
    assert_ne!(second, first);

    // History is rewritten.
    source.in_clone(&["reset", "--quiet", "--soft", "HEAD~1"]).ok();
    source.in_clone(&["push", "--quiet", "--force", "origin", "main"]).ok();
    assert_eq!(agent.offer().await.tree, first);
    hub.stop().await;
}

/// The loose file of an object in a bare repository.
fn loose(repo: &GitRepo, id: &str) -> std::path::PathBuf {
    repo.bare().join("objects").join(&id[..2]).join(&id[2..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_leaves_the_last_good_state_until_it_is_whole_again() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let before = hub.until("it is well", is_well).await;
    // The object's file is taken away before the ref moves.
    source.put("web.yaml", &shop(2));
    source.commit("second");
    let blob = source.in_clone(&["rev-parse", "HEAD:web.yaml"]).ok().trim().to_owned();
    source.in_clone(&["push", "--quiet", "origin", "HEAD:refs/heads/beside"]).ok();
    source.in_bare(&["unpack-objects", "-q"]);
    let file = loose(&source, &blob);
    let kept = std::fs::read(&file).expect("small pushes are stored loose");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, b"damaged").unwrap();
    let head = source.head();
    source.in_bare(&["update-ref", "refs/heads/main", &head]).ok();
    let status = hub
        .until("it names the object", |status| problems(status).contains(&blob))
        .await;
    assert!(problems(&status).contains("the last good state stays"), "{status}");
    assert_eq!(status["commit"], before["commit"]);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, kept).unwrap();
    hub.until("the commit is in", |status| {
        is_well(status) && status["source"] == json!(head)
    })
    .await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_that_did_not_write_last_stops_and_goes_on_serving() {
    let (source, first_home, second_home) = (source(), home(), home());
    let first = WholeHub::start(config(&source, &first_home)).await;
    let (_, _, mut agent) = join(&first).await;
    let tree = agent.offer().await.tree;
    let second = WholeHub::start(config(&source, &second_home)).await;
    second.until("the second hub is well", is_well).await;
    let epoch = second.status().await["epoch"].as_u64().unwrap();
    assert!(
        epoch > first.status().await["epoch"].as_u64().unwrap(),
        "a hub that takes over has a higher epoch"
    );
    // The second hub writes: a token is a commit.
    second.token(None).await;
    let status = first
        .until("the first hub has noticed", |status| {
            problems(status).contains("foreign commit")
        })
        .await;
    assert!(problems(&status).contains("restart this hub to take over"), "{status}");
    assert_eq!(first.ready().await.0, 500);
    let (code, answer) = first.admin(http::Method::POST, "tokens", &json!({})).await;
    assert!(
        code == 503 && answer["message"].as_str().unwrap().contains("foreign commit"),
        "{code} {answer}"
    );
    source.push("third", &[("web.yaml", &shop(3))]);
    second
        .until("the second hub has it", |status| {
            status["clusters"][0]["desired"] != json!(tree)
        })
        .await;
    let status = first.status().await;
    assert_eq!(status["clusters"][0]["desired"], json!(tree), "nothing new is offered");
    assert_eq!(status["clusters"][0]["connected"], json!(true), "tunnels stay");
    first.stop().await;
    let first = WholeHub::start(config(&source, &first_home)).await;
    let status = first.until("a restart takes over", is_well).await;
    assert!(status["epoch"].as_u64().unwrap() > epoch, "{status}");
    first.token(None).await;
    second
        .until("now the second one stops", |status| {
            problems(status).contains("foreign commit")
        })
        .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_is_put_back_is_taken_up_with_a_higher_epoch() {
    let (source, home) = (source(), home());
    let hub = WholeHub::start(config(&source, &home)).await;
    let (east, certificate, mut agent) = join(&hub).await;
    let offered = agent.offer().await;
    let kept = source.reference(STATE).unwrap();
    source.push("second", &[("web.yaml", &shop(2))]);
    let newer = agent.offer().await;
    hub.stop().await;
    source.in_bare(&["update-ref", STATE, &kept]).ok();
    source.push("third", &[("web.yaml", &shop(3))]);
    let hub = WholeHub::start(config(&source, &home)).await;
    let hello = json!({"held": newer.tree, "applied": newer.tree, "epoch": newer.epoch, "generation": newer.generation});
    let mut agent = east.join(&hub, &certificate, hello).await.unwrap();
    let third = loop {
        let offer = agent.offer().await;
        if offer.tree != offered.tree {
            break offer;
        }
    };
    assert!(
        (third.epoch, third.generation) > (newer.epoch, newer.generation),
        "an agent would refuse {third:?}"
    );
    hub.stop().await;
}

/// A remote state repository beside the source. Git takes a path where people give it an ssh or https URL.
fn with_remote(mut config: HubConfig, remote: &Path) -> HubConfig {
    config.state_repo = Some(RepositoryUrl::Remote(remote.display().to_string()));
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_pushed_first_is_delivered_once_the_remote_has_it() {
    let (source, remote, home) = (source(), GitRepo::empty(), home());
    let hub = WholeHub::start(with_remote(config(&source, &home), &remote.bare())).await;
    hub.until("the first state is pushed", |status| {
        is_well(status) && status["unpushed"].is_null()
    })
    .await;
    let (_, _, mut agent) = join(&hub).await;
    let first = agent.offer().await;
    hub.until("everything is pushed", |status| status["unpushed"].is_null()).await;
    let away = remote.bare().with_extension("away");
    std::fs::rename(remote.bare(), &away).unwrap();

    // It follows from the pushed parent and this source commit alone, so it is delivered ahead of the push.
    source.push("second", &[("web.yaml", &shop(2))]);
    let second = agent.offer().await;
    assert_ne!(second.tree, first.tree);
    let status = hub
        .until("it says what the remote lacks", |status| {
            status["unpushed"][0] == json!(1) && status["problems"] != json!([])
        })
        .await;
    assert!(problems(&status).contains("cannot be pushed"), "{status}");
    assert!(status["unpushed"][1].as_str().unwrap().starts_with("20"), "{status}");

    // The next one stands on a commit that the remote lacks.
    source.push("third", &[("web.yaml", &shop(3))]);
    hub.until("it is written", |status| status["unpushed"][0] == json!(2)).await;
    let waits = tokio::time::timeout(Duration::from_millis(500), agent.offer()).await;
    assert!(waits.is_err(), "delivered before the push: {waits:?}");

    // A restart knows what the remote lacks and pushes it.
    hub.stop().await;
    let hub = WholeHub::start(with_remote(config(&source, &home), &remote.bare())).await;
    let status = hub.until("it remembers", |status| status["unpushed"][0] == json!(2)).await;
    assert!(!status["commit"].is_null());
    std::fs::rename(&away, remote.bare()).unwrap();
    hub.until("everything is pushed", |status| {
        status["unpushed"].is_null() && is_well(status)
    })
    .await;
    assert_eq!(
        remote.reference(STATE),
        Some(hub.status().await["commit"].as_str().unwrap().to_owned())
    );
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_branch_of_the_source_is_never_the_state_branch() {
    let (source, home) = (source(), home());
    for remote in [false, true] {
        let mut config = config(&source, &home);
        config.state_branch = "main".to_owned();
        if remote {
            config.source = RepositoryUrl::Remote(source.bare().display().to_string());
        }
        let error = WholeHub::try_start(config).await.err().expect("it does not start");
        let said = branchline::core::text::with_causes(&error);
        assert!(said.contains("both main") && said.contains("--state-branch"), "{said}");
    }
    let copy = home.path().join("data/repository.git");
    assert!(!copy.join("refs/heads/main").exists(), "nothing was taken for its own");
}

/// From now on each push waits in the remote until somebody makes the directory that this gives back.
fn hold_pushes(remote: &GitRepo) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let hook = remote.bare().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\nuntil rmdir pass 2>/dev/null; do sleep 0.02; done\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    remote.bare().join("pass")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_come_faster_than_pushes_do_not_hold_up_what_is_pushed() {
    let (source, remote, home) = (source(), GitRepo::empty(), home());
    let hub = WholeHub::start(with_remote(config(&source, &home), &remote.bare())).await;
    let (_, _, mut agent) = join(&hub).await;
    agent.offer().await;
    hub.until("everything is pushed", |status| status["unpushed"].is_null()).await;
    let pass = hold_pushes(&remote);
    source.push("second", &[("web.yaml", &shop(2))]);
    agent.offer().await;
    let mut before = hub.status().await["generation"].as_u64().unwrap();
    for value in 3..6 {
        // Written while the push of the one before is under way.
        source.push("next", &[("web.yaml", &shop(value))]);
        let written = hub
            .until("the next one is written", |status| {
                status["generation"].as_u64() > Some(before) && status["unpushed"][0] == json!(2)
            })
            .await;
        std::fs::create_dir(&pass).unwrap();
        hub.until("the one before is pushed", |status| status["unpushed"][0] == json!(1))
            .await;
        if value > 3 {
            assert_eq!(agent.offer().await.generation, before, "what is pushed is delivered");
        }
        before = written["generation"].as_u64().unwrap();
    }
    std::fs::create_dir(&pass).unwrap();
    assert_eq!(agent.offer().await.generation, before);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_somebody_else_on_the_remote_stops_the_writing() {
    let (source, remote, home) = (source(), GitRepo::empty(), home());
    let hub = WholeHub::start(with_remote(config(&source, &home), &remote.bare())).await;
    let (_, _, mut agent) = join(&hub).await;
    agent.offer().await;
    hub.until("everything is pushed", |status| status["unpushed"].is_null()).await;
    // A push that came through without the hub hearing of it is not foreign.
    source.push("second", &[("web.yaml", &shop(2))]);
    agent.offer().await;
    hub.until("everything is pushed", |status| status["unpushed"].is_null()).await;
    let copy = home.path().join("data/state.git");
    let git = |arguments: &[&str]| {
        let mut git = command("git".as_ref(), &copy);
        run(git.args(arguments)).ok()
    };
    git(&["update-ref", "refs/remotes/state/branchline/state", &format!("{STATE}~1")]);
    source.push("third", &[("web.yaml", &shop(3))]);
    agent.offer().await;
    hub.until("everything is pushed", |status| {
        is_well(status) && status["unpushed"].is_null()
    })
    .await;

    remote.push("foreign", &[("README.md", "mine\n")]);
    remote.in_bare(&["update-ref", STATE, "refs/heads/main"]).ok();
    source.push("fourth", &[("web.yaml", &shop(4))]);
    let status = hub
        .until("it stops", |status| problems(status).contains("foreign commit"))
        .await;
    assert!(problems(&status).contains("push --force"), "{status}");
    assert_eq!(hub.ready().await.0, 500);
    hub.stop().await;
    let again = WholeHub::try_start(with_remote(config(&source, &home), &remote.bare())).await;
    assert!(
        again.err().is_some_and(|error| error.to_string().contains("foreign commit")),
        "it does not start over it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_gives_the_same_hub() {
    let (source, remote, home, other) = (source(), GitRepo::empty(), home(), home());
    let hub = WholeHub::start(with_remote(config(&source, &home), &remote.bare())).await;
    let (east, certificate, mut agent) = join(&hub).await;
    let offer = agent.offer().await;
    let before = hub.until("everything is pushed", |status| status["unpushed"].is_null()).await;
    hub.stop().await;
    let mut config = with_remote(config(&source, &other), &remote.bare());
    config.ca_dir = home.path().join("ca");
    let hub = WholeHub::start(config).await;
    // Known from the first moment, before any run is over.
    let hello = json!({"held": offer.tree, "applied": offer.tree, "epoch": offer.epoch, "generation": offer.generation});
    let mut agent = east.join(&hub, &certificate, hello).await.unwrap();
    agent.next().await;
    let status = hub.until("it is well", is_well).await;
    assert_eq!(
        (&status["commit"], &status["generation"]),
        (&before["commit"], &before["generation"]),
        "no commit was made"
    );
    assert!(status["epoch"].as_u64() > before["epoch"].as_u64());
    let nothing = tokio::time::timeout(Duration::from_millis(300), agent.receiver.receive()).await;
    assert!(nothing.is_err(), "an agent in sync is told nothing: {nothing:?}");
    hub.stop().await;
}
