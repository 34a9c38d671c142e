//! Whatever is killed whenever: in the end the clusters hold what git says, no more and no less, and the state branch is one line of commits.
//!
//! Actions are drawn from a fixed seed; `CHAOS_SEED` and `CHAOS_ROUNDS` try others and longer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::dice::{Dice, number};
use crate::support::fleet::{Fleet, STATE};
use crate::support::samples::{base, greeting};
use crate::support::{holds, wait_until};

/// What git says: which ConfigMap greets how, for cluster a, for b, or for both.
type Expected = BTreeMap<String, (u64, String)>;

fn push_something(fleet: &Fleet, dice: &mut Dice, round: u64, expected: &mut Expected) {
    for _ in 0..=dice.roll(12) {
        let name = format!("c{}", dice.roll(20));
        let file = format!("{name}.yaml");
        if dice.roll(3) == 0 && expected.remove(&name).is_some() {
            fleet.repo.remove(&file);
            continue;
        }
        let (place, text) = (dice.roll(3), format!("round-{round}"));
        let labels: &[(&str, &str)] = match place {
            0 => &[("name", "a")],
            1 => &[("name", "b")],
            _ => &[],
        };
        fleet.repo.put(&file, &greeting(&name, labels, &text));
        expected.insert(name, (place, text));
    }
    fleet.repo.push(&format!("round {round}"), &[]);
}

/// Kills something and starts it again, maybe with a change in between.
fn hurt(fleet: &mut Fleet, dice: &mut Dice, round: u64, expected: &mut Expected) {
    // No wait for anything to happen: the moment of the blow is what is varied.
    std::thread::sleep(Duration::from_millis(dice.roll(60)));
    let change_meanwhile = dice.roll(2) == 0;
    match dice.roll(4) {
        0 => {
            fleet.hub.kill();
            if change_meanwhile {
                push_something(fleet, dice, round, expected);
            }
            fleet.hub.start_again();
        }
        1 | 2 => {
            let victim = usize::from(dice.roll(2) == 0);
            fleet.agents[victim].kill();
            if change_meanwhile {
                push_something(fleet, dice, round, expected);
            }
            fleet.agents[victim].launch();
        }
        _ => {
            let victim = usize::from(dice.roll(2) == 0);
            fleet.servers[victim].stop();
            if change_meanwhile {
                push_something(fleet, dice, round, expected);
            }
            fleet.servers[victim].start_again();
        }
    }
}

/// Waits until a cluster holds exactly the ConfigMaps that are expected there.
#[track_caller]
fn wait_converged(fleet: &Fleet, cluster: usize, expected: &Expected) {
    let here = |place: u64| place == 2 || place == cluster as u64;
    let wanted: BTreeMap<String, String> = expected
        .iter()
        .filter(|(_, (place, _))| here(*place))
        .map(|(name, (_, text))| (name.clone(), text.clone()))
        .collect();
    wait_until(&format!("cluster {cluster} holds what git says"), || {
        let list = fleet.servers[cluster]
            .get("/api/v1/namespaces/shop/configmaps")
            .unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let found: BTreeMap<String, String> = items
            .iter()
            .map(|item| (text(&item["metadata"]["name"]), text(&item["data"]["greeting"])))
            .collect();
        holds(found == wanted, format!("found {found:#?}\nwanted {wanted:#?}"))
    });
}

#[test]
fn whatever_is_killed_whenever_the_clusters_end_up_with_what_git_says() {
    let seed = number("CHAOS_SEED", 42);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut fleet = Fleet::start(&["a", "b"]);
    let mut expected = Expected::new();
    fleet.repo.push("base", &[("base.yaml", &base())]);
    for round in 0..number("CHAOS_ROUNDS", 8) {
        push_something(&fleet, &mut dice, round, &mut expected);
        hurt(&mut fleet, &mut dice, round, &mut expected);
        if dice.roll(3) == 0 {
            (0..2).for_each(|cluster| wait_converged(&fleet, cluster, &expected));
        }
    }
    (0..2).for_each(|cluster| wait_converged(&fleet, cluster, &expected));
    fleet.wait_all_ready();
    let parents = fleet.repo.in_bare(&["log", "--format=%P", STATE]).ok();
    assert!(
        parents.lines().all(|line| line.split(' ').count() <= 1),
        "the state branch is not a line:\n{parents}"
    );
    fleet.repo.in_bare(&["fsck", "--no-dangling"]).ok();
}
