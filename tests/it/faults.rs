//! What breaks in the middle: hub and agents killed, tunnels held and cut, API servers down, data lost. Nothing is lost, nothing leaks,
//! nothing is done twice, and what is not touched goes on.

use std::collections::BTreeSet;

use crate::support::fleet::{Agent, Fleet, Hub, STATE};
use crate::support::relay::Relay;
use crate::support::repository::GitRepo;
use crate::support::samples::{base, config_map, config_map_feed, greeting, subscription};
use crate::support::{holds, wait_until};

/// Generations of the state branch's commits, oldest first.
fn generations(repo: &GitRepo) -> Vec<u64> {
    let log = repo
        .in_bare(&["log", "--reverse", "--format=%(trailers:key=Generation,valueonly)", STATE])
        .ok();
    log.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// What may be seen of a change from outside, in the order in which it comes to pass.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Pushed,
    Committed,
    AppliedOnce,
    AppliedEverywhere,
}

fn wait_phase(fleet: &Fleet, phase: Phase, before: Option<&str>, greeting: &str) {
    let arrived = |cluster| fleet.greeting(cluster, "one").as_deref() == Some(greeting);
    wait_until(&format!("{phase:?} of {greeting}"), || {
        let reached = match phase {
            Phase::Pushed => true,
            Phase::Committed => fleet.state().as_deref() != before,
            Phase::AppliedOnce => arrived(0) || arrived(1),
            Phase::AppliedEverywhere => arrived(0) && arrived(1),
        };
        holds(reached, fleet.hub.log())
    });
}

#[test]
fn a_hub_killed_at_any_phase_of_a_change_finishes_it_after_its_restart() {
    let mut fleet = Fleet::start(&["a", "b"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    wait_phase(&fleet, Phase::AppliedEverywhere, None, "first");

    let phases = [Phase::Pushed, Phase::Committed, Phase::AppliedOnce, Phase::AppliedEverywhere];
    for (round, phase) in phases.into_iter().enumerate() {
        let before = fleet.state();
        let text = format!("round-{round}");
        fleet.repo.push(&text, &[("one.yaml", &greeting("one", &[], &text))]);
        wait_phase(&fleet, phase, before.as_deref(), &text);
        fleet.hub.kill();
        fleet.hub.start_again();
        wait_phase(&fleet, Phase::AppliedEverywhere, None, &text);
    }
    let generations = generations(&fleet.repo);
    assert!(
        generations.is_sorted_by(|a, b| a < b),
        "generations do not grow: {generations:?}"
    );
    let commits: BTreeSet<String> = fleet
        .repo
        .in_bare(&["log", "--format=%T", STATE])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(
        commits.len(),
        generations.len(),
        "a commit of the state branch changed nothing"
    );
}

#[test]
fn a_change_pushed_while_the_hub_is_down_is_carried_out_when_it_is_back() {
    let mut fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    fleet.hub.kill();
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.hub.start_again();
    fleet.wait_greeting(0, "one", Some("second"));
}

/// One Subscription of so many ConfigMaps that applying them takes a while.
fn many(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|number| format!("many-{number:04}")).collect();
    let feeds: Vec<_> = names.iter().map(|name| config_map_feed(name)).collect();
    let objects: Vec<String> = names.iter().map(|name| config_map(name, "hello")).collect();
    subscription("many", &[], &feeds) + "---\n" + &objects.join("---\n")
}

const MANY: usize = 800;

#[test]
fn an_agent_killed_while_it_applies_or_prunes_leaks_and_loses_nothing() {
    let mut fleet = Fleet::start(&["a"]);
    fleet.repo.push("base", &[("base.yaml", &base())]);
    wait_until("the namespace is there", || {
        fleet.servers[0].get("/api/v1/namespaces/shop").ok_or_else(|| fleet.hub.log())
    });

    fleet.repo.push("many", &[("many.yaml", &many(MANY))]);
    wait_until("the apply has begun", || {
        holds(!fleet.config_maps(0).is_empty(), fleet.agents[0].log())
    });
    fleet.agents[0].kill();
    let half = fleet.config_maps(0).len();
    assert!(half < MANY, "the agent was killed too late");
    // What it had applied of this change must not stay behind when the change is taken back while it is down.
    fleet.repo.push_removal("none", &["many.yaml"]);
    fleet.agents[0].launch();
    wait_until("what half a change left behind is pruned", || {
        holds(fleet.config_maps(0).is_empty(), fleet.agents[0].log())
    });

    fleet.repo.push("many again", &[("many.yaml", &many(MANY))]);
    wait_until("all are applied", || {
        holds(fleet.config_maps(0).len() == MANY, fleet.agents[0].log())
    });
    fleet.repo.push_removal("none again", &["many.yaml"]);
    wait_until("the prune has begun", || {
        holds(fleet.config_maps(0).len() < MANY, fleet.agents[0].log())
    });
    fleet.agents[0].kill();
    assert!(!fleet.config_maps(0).is_empty(), "the agent was killed too late");
    fleet.agents[0].launch();
    wait_until("the prune is finished", || {
        holds(fleet.config_maps(0).is_empty(), fleet.agents[0].log())
    });
}

#[test]
fn an_agent_killed_in_the_middle_of_an_apply_finishes_it() {
    let mut fleet = Fleet::start(&["a"]);
    fleet.repo.push("many", &[("base.yaml", &base()), ("many.yaml", &many(MANY))]);
    wait_until("the apply has begun", || {
        holds(!fleet.config_maps(0).is_empty(), fleet.agents[0].log())
    });
    fleet.agents[0].kill();
    assert!(fleet.config_maps(0).len() < MANY, "the agent was killed too late");
    fleet.agents[0].launch();
    wait_until("all are applied", || {
        holds(fleet.config_maps(0).len() == MANY, fleet.agents[0].log())
    });
}

/// A fleet whose agents reach the hub through a relay.
fn behind_a_relay(names: &[&str]) -> (Fleet, Relay) {
    let repo = GitRepo::with(&[("base.yaml", &base())]);
    let hub = Hub::prepare("hub", &repo);
    let relay = Relay::to(hub.port());
    let hub = hub.advertising(relay.port());
    (Fleet::of(repo, hub, names), relay)
}

#[test]
fn a_tunnel_that_falls_silent_is_noticed_by_both_ends_and_comes_back() {
    let (fleet, relay) = behind_a_relay(&["a"]);
    fleet.repo.push("first", &[("one.yaml", &greeting("one", &[], "first"))]);
    fleet.wait_greeting(0, "one", Some("first"));
    let connections = relay.accepted();

    relay.hold();
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.hub.wait_cluster("a", "Unknown");
    wait_until("the agent dials again", || {
        holds(relay.accepted() > connections, fleet.agents[0].log())
    });
    assert_eq!(fleet.greeting(0, "one").as_deref(), Some("first"));

    relay.open();
    fleet.wait_greeting(0, "one", Some("second"));
    fleet.hub.wait_cluster("a", "True");
}

#[test]
fn a_tunnel_that_is_cut_comes_back_with_what_it_missed() {
    let (fleet, relay) = behind_a_relay(&["a", "b"]);
    fleet.repo.push("first", &[("one.yaml", &greeting("one", &[], "first"))]);
    fleet.wait_greeting(0, "one", Some("first"));
    relay.cut();
    for name in ["a", "b"] {
        fleet.hub.wait_cluster(name, "Unknown");
    }
    let before = fleet.state();
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    wait_until("the hub commits although nobody is there", || {
        holds(fleet.state() != before, fleet.hub.log())
    });
    relay.open();
    fleet.wait_greeting(0, "one", Some("second"));
    fleet.wait_greeting(1, "one", Some("second"));
}

#[test]
fn an_api_server_that_is_down_keeps_its_tunnel_and_is_told_so() {
    let fleet = Fleet::start(&["a", "b"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    fleet.servers[0].stop();
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.wait_greeting(1, "one", Some("second"));
    fleet.hub.wait_cluster("a", "False");
    let cluster = fleet.hub.managed_cluster("a").unwrap();
    assert_eq!(cluster["status"]["healthz"], false, "{cluster:#}");
    assert!(!fleet.agents[0].log().contains("tunnel lost"), "{}", fleet.agents[0].log());
    fleet.servers[0].start_again();
    fleet.wait_greeting(0, "one", Some("second"));
    fleet.hub.wait_cluster("a", "True");
}

#[test]
fn a_hub_without_its_data_is_the_same_hub_while_it_has_repository_and_ca() {
    let mut fleet = Fleet::start(&["a", "b"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    fleet.wait_greeting(1, "one", Some("first"));
    let (state, ca) = (fleet.state(), fleet.hub.ca());

    fleet.hub.kill();
    std::fs::remove_dir_all(fleet.hub.data()).unwrap();
    fleet.hub.start_again();
    fleet.wait_all_ready();
    assert_eq!(fleet.hub.ca(), ca);
    assert_eq!(fleet.state(), state, "the recovery wrote a commit");

    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.wait_greeting(0, "one", Some("second"));
    fleet.wait_greeting(1, "one", Some("second"));
    let generations = generations(&fleet.repo);
    assert!(
        generations.is_sorted_by(|a, b| a < b),
        "generations do not grow: {generations:?}"
    );
}

#[test]
fn a_commit_by_somebody_else_on_the_state_branch_stops_the_hub_with_advice() {
    let fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    let foreign = fleet.repo.commit_by_hand(STATE);

    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    wait_until("the hub names the foreign commit", || {
        holds(fleet.hub.log().contains(&foreign[..7]), fleet.hub.log())
    });
    assert_eq!(
        fleet.state().as_deref(),
        Some(foreign.as_str()),
        "the hub wrote over a foreign commit"
    );
    assert_eq!(fleet.greeting(0, "one").as_deref(), Some("first"));
}

#[test]
fn of_two_hubs_on_one_state_branch_one_stops_with_advice() {
    let fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    let mut second = Hub::prepare("second-hub", &fleet.repo);
    second.launch();
    wait_until("one of the two stops writing", || {
        fleet.repo.push("again", &[("one.yaml", &greeting("one", &[], "again"))]);
        let logs = fleet.hub.log() + &second.log();
        holds(logs.contains("foreign"), logs)
    });
    let parents = fleet.repo.in_bare(&["log", "--format=%P", STATE]).ok();
    assert!(
        parents.lines().all(|line| line.split(' ').count() <= 1),
        "the state branch is not a line:\n{parents}"
    );
}

#[test]
fn an_orderly_end_lets_go_of_tunnels_and_is_quick_to_come_back() {
    let mut fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    fleet.hub.process().signal("TERM");
    assert_eq!(fleet.hub.process().wait_exit(), Some(0));
    fleet.hub.start_again();
    fleet.hub.wait_cluster("a", "True");
    fleet.agents[0].process().signal("TERM");
    assert_eq!(fleet.agents[0].process().wait_exit(), Some(0));
    fleet.hub.wait_cluster("a", "Unknown");
}

#[test]
fn one_dead_cluster_delays_no_other() {
    let mut fleet = Fleet::start(&["a", "b"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    fleet.wait_greeting(1, "one", Some("first"));
    // Not killed but stopped: its tunnel is open and takes nothing.
    fleet.agents[0].process().signal("STOP");
    fleet.repo.push("second", &[("one.yaml", &greeting("one", &[], "second"))]);
    fleet.wait_greeting(1, "one", Some("second"));
    assert_eq!(fleet.greeting(0, "one").as_deref(), Some("first"));
    fleet.agents[0].process().signal("CONT");
    fleet.wait_greeting(0, "one", Some("second"));
}

#[test]
fn two_agents_of_one_cluster_do_no_harm() {
    let mut fleet = Fleet::start(&["a"]);
    fleet.repo.push(
        "first",
        &[("base.yaml", &base()), ("one.yaml", &greeting("one", &[], "first"))],
    );
    fleet.wait_greeting(0, "one", Some("first"));
    let join = fleet.hub.join(&[]);
    let mut double = Agent::prepare("a", &join, &fleet.servers[0]);
    double.launch();
    wait_until("the second agent has been heard", || {
        holds(double.log().contains("connected to the hub"), double.log())
    });
    for round in 0..5 {
        let text = format!("round-{round}");
        fleet.repo.push(&text, &[("one.yaml", &greeting("one", &[], &text))]);
        fleet.wait_greeting(0, "one", Some(&text));
    }
    fleet.agents[0].kill();
    fleet.repo.push("last", &[("one.yaml", &greeting("one", &[], "last"))]);
    fleet.wait_greeting(0, "one", Some("last"));
}
