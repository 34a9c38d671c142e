//! What a run of the pure core costs with its commit, by fleet size: read, index, place and render, build the tree, write; cold, and after one
//! change of each kind. Through the library, in the steps of the hub's writer.
//!
//! `cargo bench --bench fleet`, or only some sizes: `cargo bench --bench fleet -- 1000 100000`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a bench looks at the clock and at /proc")]

#[path = "../main_job/figures.rs"]
#[expect(dead_code, reason = "shared with the bench of the main job")]
mod figures;
mod hub;
mod source;
#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "what the tests stand on; a bench needs a part of it")]
mod support;

use figures::{goal, heading, line, print_machine};
use hub::{HubCore, Run};
use source::Source;

const FLEETS: [usize; 3] = [1_000, 10_000, 100_000];
/// Warm runs of a kind; the middle one is printed.
const ROUNDS: usize = 5;
/// The size that the goals are for.
const GOALS_AT: usize = 100_000;

/// A kind of change: what it is called, what it does in a round, and its goals in ms and bytes.
struct Change {
    title: &'static str,
    make: fn(usize, &mut Source, &mut HubCore),
    milliseconds: f64,
    bytes: f64,
}

const CHANGES: [Change; 5] = [
    Change {
        title: "one Localization",
        make: |round, source, hub| source.localize(hub.clusters() / 2, round),
        milliseconds: 20.0,
        bytes: 100_000.0,
    },
    Change {
        title: "a label of one cluster",
        make: |round, _, hub| hub.label(hub.clusters() / 3, round),
        milliseconds: 20.0,
        bytes: 100_000.0,
    },
    Change {
        title: "a README",
        make: |round, source, _| source.push("README.md", &format!("round {round}\n")),
        milliseconds: 5.0,
        bytes: 0.0,
    },
    Change {
        title: "a feed of all",
        make: |round, source, _| source.feed_of_all(round),
        milliseconds: 3_000.0,
        bytes: f64::INFINITY,
    },
    Change {
        title: "one of 10,000 files",
        make: |round, source, _| source.one_of_many(round),
        milliseconds: f64::INFINITY,
        bytes: 0.0,
    },
];

fn main() {
    let (options, sizes): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    // `cargo bench` passes this; `cargo test --benches` only wants to know that it builds.
    if !options.iter().any(|option| option == "--bench") {
        return;
    }
    let sizes: Vec<usize> = sizes.iter().map(|size| size.parse().unwrap()).collect();
    print_machine();
    let mut before = None;
    for clusters in if sizes.is_empty() { FLEETS.to_vec() } else { sizes } {
        before = Some(measure(clusters, before));
    }
}

/// Measures one size; the figures go beside those of the size before.
fn measure(clusters: usize, before: Option<Vec<Run>>) -> Vec<Run> {
    heading(&format!("{clusters} clusters, 10 objects for each, of 5 sets of overrides"));
    println!("{:<24}{}", "", Run::titles());
    let mut source = Source::new();
    let mut hub = HubCore::new(&source, clusters);
    let mut runs = vec![hub.run_once()];
    let peak = peak_mib();
    settle();
    for change in &CHANGES {
        let round = |round| {
            (change.make)(round, &mut source, &mut hub);
            hub.run_once()
        };
        let mut rounds: Vec<Run> = (0..ROUNDS).map(round).collect();
        rounds.sort_by(|a, b| a.total().total_cmp(&b.total()));
        runs.push(rounds.swap_remove(ROUNDS / 2));
    }
    let titles = std::iter::once("cold").chain(CHANGES.iter().map(|change| change.title));
    for (at, (title, run)) in titles.zip(&runs).enumerate() {
        println!("{title:<24}{}", run.cells(before.as_ref().map(|before| &before[at])));
    }
    line("peak memory of the cold run", &format!("{peak:.0} MiB"));
    if clusters == GOALS_AT {
        judge(&runs, peak);
    }
    runs
}

/// Waits until the disk has what the cold run wrote: every later file waits for it otherwise.
fn settle() {
    let synced = std::process::Command::new("sync").status().unwrap();
    assert!(synced.success(), "sync: {synced}");
}

fn judge(runs: &[Run], peak: f64) {
    goal("cold", runs[0].total() / 1000.0, 6.0, "s");
    goal("peak memory", peak, 1024.0, "MiB");
    for (change, run) in CHANGES.iter().zip(&runs[1..]) {
        if change.milliseconds.is_finite() {
            goal(change.title, run.total(), change.milliseconds, "ms");
        }
        if change.bytes.is_finite() && change.bytes > 0.0 {
            goal(
                &format!("{}: written", change.title),
                run.bytes() as f64 / 1000.0,
                change.bytes / 1000.0,
                "kB",
            );
        }
    }
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}
