//! A source repository elsewhere: fetched and pushed to through git's own ssh transport, with a line that can go down.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::support::fleet::{Fleet, Hub, STATE};
use crate::support::repository::GitRepo;
use crate::support::samples::{base, greeting};
use crate::support::{holds, scratch, wait_until};

/// A folder with a program `ssh` that runs on this machine what git wants to run elsewhere, unless a file `down` or `hangs` lies beside it.
struct Line {
    folder: TempDir,
}

impl Line {
    fn new() -> Self {
        let folder = scratch("line");
        let ssh = folder.path().join("ssh");
        let script = "#!/bin/sh\n\
            if [ -e \"$(dirname \"$0\")/down\" ]; then echo 'the line is down' >&2; exit 255; fi\n\
            if [ -e \"$(dirname \"$0\")/hangs\" ]; then touch \"$(dirname \"$0\")/hanging\"; exec sleep 90; fi\n\
            for last; do :; done\n\
            exec sh -c \"$last\"\n";
        fs::write(&ssh, script).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        Line { folder }
    }

    fn goes_down(&self) {
        fs::write(self.folder.path().join("down"), "").unwrap();
    }

    /// From here on nothing comes through, and nobody is told.
    fn hangs(&self) {
        fs::write(self.folder.path().join("hangs"), "").unwrap();
        wait_until("git hangs on the line", || {
            holds(self.folder.path().join("hanging").exists(), "nobody has called yet")
        });
    }

    fn comes_back(&self) {
        fs::remove_file(self.folder.path().join("down")).unwrap();
    }
}

/// A fleet of cluster a whose hub reaches the repository over the line, with ConfigMap `one` applied and the state branch pushed.
fn fleet_over(line: &Line) -> Fleet {
    let repo = GitRepo::with(&[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))]);
    let hub = Hub::prepare("hub", &repo)
        .reading(&format!("ssh://nowhere.invalid{}", repo.bare().display()))
        .with_programs(line.folder.path())
        .with("--poll=1");
    let fleet = Fleet::of(repo, hub, &["a"]);
    fleet.wait_greeting(0, "one", Some("first"));
    wait_pushed(&fleet, "first");
    fleet
}

/// Waits until the repository has a state branch in which ConfigMap `one` of cluster a says so.
#[track_caller]
fn wait_pushed(fleet: &Fleet, text: &str) {
    wait_until("the state branch is pushed", || {
        let commit = fleet.state().ok_or_else(|| fleet.hub.log())?;
        let path = "clusters/clusternet-a/shop.one/manifests/configmap_shop_one.yaml";
        let there = fleet.repo.files(&commit).iter().any(|file| file == path);
        holds(there && fleet.repo.show(&commit, path).contains(text), fleet.hub.log())
    });
}

#[test]
fn a_remote_repository_is_fetched_and_gets_the_state_branch() {
    let line = Line::new();
    let fleet = fleet_over(&line);
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.wait_greeting(0, "one", Some("second"));
    wait_pushed(&fleet, "second");
}

#[test]
fn a_line_that_is_down_stops_nothing_that_runs_and_no_restart() {
    let line = Line::new();
    let mut fleet = fleet_over(&line);
    let logged = fleet.hub.log().len();
    line.goes_down();
    wait_until("the hub says that it cannot fetch", || {
        let log = fleet.hub.log();
        holds(log[logged..].contains("the line is down"), log)
    });
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.hub.kill();
    fleet.hub.launch();
    fleet.hub.wait_alive();
    fleet.hub.wait_cluster("a", "True");
    assert_eq!(fleet.greeting(0, "one").as_deref(), Some("first"));

    line.comes_back();
    fleet.wait_greeting(0, "one", Some("second"));
    wait_pushed(&fleet, "second");
}

#[test]
fn commits_that_could_not_be_pushed_are_pushed_after_a_restart() {
    let line = Line::new();
    let mut fleet = fleet_over(&line);
    let before = fleet.state();
    line.goes_down();
    // A token is a durable fact: a commit of the state branch that has nothing to do with the source.
    fleet.hub.join(&[]);
    fleet.hub.kill();
    fleet.hub.launch();
    fleet.hub.wait_alive();
    assert_eq!(fleet.state(), before);
    line.comes_back();
    wait_until("the commit is pushed", || holds(fleet.state() != before, fleet.hub.log()));
}

#[test]
fn a_hub_without_its_data_goes_on_from_the_remote_state_branch() {
    let line = Line::new();
    let mut fleet = fleet_over(&line);
    let state = fleet.state();
    fleet.hub.kill();
    fs::remove_dir_all(fleet.hub.data()).unwrap();
    fleet.hub.start_again();
    fleet.hub.wait_cluster("a", "True");
    assert_eq!(fleet.state(), state, "the recovery wrote a commit");
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.wait_greeting(0, "one", Some("second"));
    wait_pushed(&fleet, "second");
}

#[test]
fn a_foreign_commit_on_the_remote_state_branch_stops_the_hub_with_advice() {
    let line = Line::new();
    let mut fleet = fleet_over(&line);
    let foreign = fleet.repo.commit_by_hand(STATE);
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    let named = |fleet: &Fleet| fleet.hub.log().contains("foreign commit") && fleet.hub.log().contains(&foreign);
    wait_until("the hub names the foreign commit", || holds(named(&fleet), fleet.hub.log()));
    assert_eq!(fleet.state().as_ref(), Some(&foreign), "the hub wrote over a foreign commit");

    // Neither does a restart write over it: the two histories have parted, and only a person can say which one counts.
    fleet.hub.kill();
    fleet.hub.launch();
    assert_ne!(fleet.hub.process().wait_exit(), Some(0));
    assert_eq!(fleet.state(), Some(foreign), "the restarted hub wrote over a foreign commit");
}

#[test]
fn a_line_that_hangs_holds_up_neither_reads_nor_the_end() {
    let line = Line::new();
    let mut fleet = fleet_over(&line);
    line.hangs();
    let begun = std::time::Instant::now();
    // A token is a commit: it is written here while the line hangs.
    fleet.hub.join(&[]);
    fleet.hub.wait_cluster("a", "True");
    fleet.hub.process().signal("TERM");
    assert_eq!(fleet.hub.process().wait_exit(), Some(0), "{}", fleet.hub.log());
    assert!(begun.elapsed().as_secs() < 90, "the end came when the line did");
}
