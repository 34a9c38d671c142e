//! The source repository as the hub meets it: empty, without the branch, rewritten, gone for a while.

use std::fs;

use crate::support::fleet::{Fleet, Hub};
use crate::support::repository::GitRepo;
use crate::support::samples::{base, greeting};
use crate::support::{holds, wait_until};

#[test]
fn an_empty_repository_is_said_so_and_its_first_push_is_followed() {
    let repo = GitRepo::empty();
    let mut hub = Hub::prepare("hub", &repo);
    hub.launch();
    hub.wait_alive();
    wait_until("the hub says what is missing", || {
        let status = hub.command(&["status"]);
        let said = status.stdout.contains("no branch \"main\"") && status.stdout.contains("push a first commit");
        holds(said && status.code == Some(1), format!("{status:?}"))
    });
    let fleet = Fleet::of(repo, hub, &["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
}

#[test]
fn a_branch_that_is_deleted_deletes_nothing() {
    let fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    let state = fleet.state();
    let logged = fleet.hub.log().len();
    fleet.repo.in_bare(&["update-ref", "-d", "refs/heads/main"]).ok();
    wait_until("the hub says that the branch is missing", || {
        let log = fleet.hub.log();
        holds(log[logged..].contains("main"), log)
    });
    assert_eq!(fleet.state(), state);
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.wait_greeting(0, "one", Some("second"));
}

#[test]
fn a_forced_push_is_followed() {
    let fleet = Fleet::start(&["a"]);
    let first = fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.repo.push(
        "second",
        &[
            ("one.yaml", &greeting("one", &[], "second")),
            ("two.yaml", &greeting("two", &[], "second")),
        ],
    );
    fleet.wait_greeting(0, "one", Some("second"));
    fleet.wait_greeting(0, "two", Some("second"));

    fleet
        .repo
        .in_clone(&["push", "--quiet", "--force", "origin", &format!("{first}:refs/heads/main")])
        .ok();
    fleet.wait_greeting(0, "one", Some("first"));
    fleet.wait_greeting(0, "two", None);
}

#[test]
fn a_repository_that_vanishes_deletes_nothing_and_is_found_again() {
    let fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    let away = fleet.repo.bare().with_extension("away");
    let logged = fleet.hub.log().len();
    fs::rename(fleet.repo.bare(), &away).unwrap();
    wait_until("the hub says that it cannot read the repository", || {
        let log = fleet.hub.log();
        holds(log[logged..].contains("bare.git"), log)
    });
    assert_eq!(fleet.greeting(0, "one").as_deref(), Some("first"));
    fleet.hub.wait_cluster("a", "True");
    fs::rename(&away, fleet.repo.bare()).unwrap();
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.wait_greeting(0, "one", Some("second"));
}
