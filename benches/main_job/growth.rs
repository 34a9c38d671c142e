//! How the cost of one run grows with the fleet: read, index, place and render, build the tree, write and commit; through the library, for
//! fleets of three sizes, cold and after one Localization has changed.

use std::time::Instant;

use branchline::core::ids::ObjectId;
use branchline::core::index::{self, ParseCache, Snapshot};
use branchline::core::pipeline::{self, Inputs, Outcome};
use branchline::core::render::{RenderCache, RenderSettings};
use branchline::core::schedule::Cluster;
use branchline::core::state::{self, ClusterRecord, State};
use branchline::core::yaml::Limits;
use branchline::git::{Commit, Repo};

use crate::figures::{heading, ms_between};
use crate::support::repository::GitRepo;
use crate::support::samples::{config_map, config_map_feed, document, feed, localization, subscription};

const FLEETS: [usize; 3] = [10, 100, 1_000];
const SUBSCRIPTIONS: usize = 10;
/// Warm runs; the middle one is printed.
const ROUNDS: usize = 5;
const REFERENCE: &str = "refs/heads/branchline/state";
const PHASES: [&str; 6] = ["read", "index", "compute", "build", "write", "all"];

/// Milliseconds by phase, the sum last.
type Times = [f64; 6];

pub(crate) fn run() {
    heading("one run of the pure core with its commit, by fleet size");
    println!(
        "{SUBSCRIPTIONS} Subscriptions of a ConfigMap and a Deployment for every cluster, one Localization per cluster; ms, ratio to the row above"
    );
    let titles: Vec<String> = PHASES.iter().map(|phase| format!("{phase:>16}")).collect();
    println!("{:<22}{}{:>10}{:>12}", "clusters", titles.concat(), "objects", "bytes");
    let measured: Vec<[(Times, (usize, usize)); 2]> = FLEETS.iter().map(|clusters| measure(*clusters)).collect();
    for (kind, which) in [("cold", 0), ("warm", 1)] {
        let mut before: Option<Times> = None;
        for (clusters, results) in FLEETS.iter().zip(&measured) {
            let (times, (objects, bytes)) = results[which];
            let ratios = before.map(|before| std::array::from_fn::<f64, 6, _>(|at| times[at] / before[at]));
            let cells: Vec<String> = (0..6).map(|at| cell(times[at], ratios.map(|ratios| ratios[at]))).collect();
            println!(
                "{:<22}{}{objects:>10}{bytes:>12}",
                format!("{kind} {clusters}"),
                cells.concat()
            );
            before = Some(times);
        }
    }
}

fn cell(time: f64, ratio: Option<f64>) -> String {
    let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio:.1}x)"));
    format!("{:>16}", format!("{time:.2}{ratio}"))
}

fn measure(clusters: usize) -> [(Times, (usize, usize)); 2] {
    let git = source(clusters);
    let mut hub = HubCore::new(&git, clusters);
    let cold = hub.run_once();
    let mut warm: Vec<(Times, (usize, usize))> = Vec::new();
    for round in 0..ROUNDS {
        let (path, text) = local(clusters / 2, &format!("changed-{round}"));
        git.push("one", &[(&path, &text)]);
        warm.push(hub.run_once());
    }
    warm.sort_by(|a, b| a.0[5].total_cmp(&b.0[5]));
    [cold, warm[ROUNDS / 2]]
}

fn source(clusters: usize) -> GitRepo {
    let mut files = Vec::new();
    for number in 0..SUBSCRIPTIONS {
        let (name, deployment) = (
            format!("app-{number}"),
            feed("apps/v1", "Deployment", &format!("app-{number}")),
        );
        let text = [
            subscription(&name, &[], &[config_map_feed(&name), deployment]),
            document(&serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"namespace": "shop", "name": name},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "web", "image": "nginx:1.29", "ports": [{"containerPort": 80}]}]}}}})),
            format!("---\n{}", config_map(&name, "hello")),
        ];
        files.push((format!("apps/{name}.yaml"), text.concat()));
    }
    files.extend((0..clusters).map(|cluster| local(cluster, "first")));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    GitRepo::with(&files)
}

fn local(cluster: usize, value: &str) -> (String, String) {
    let patch = format!("{{\"data\": {{\"cluster\": \"{value}-{cluster}\"}}}}");
    let text = localization(&format!("clusternet-edge-{cluster}"), "own", "app-0", "MergePatch", &patch);
    (format!("clusters/{cluster}.yaml"), text)
}

/// What the hub's writer holds between runs.
struct HubCore {
    repo: Repo,
    records: Vec<ClusterRecord>,
    parses: ParseCache,
    renders: RenderCache,
    state: State,
    head: Option<ObjectId>,
}

impl HubCore {
    fn new(git: &GitRepo, clusters: usize) -> Self {
        let records = (0..clusters).map(|number| {
            let id = format!("0d0c9d5f-7a77-4a9e-8b7c-{number:012x}").parse().ok();
            let labels = [("region".to_owned(), "eu".to_owned())].into_iter().collect();
            ClusterRecord {
                cluster: Cluster::new(&format!("edge-{number}"), None, id, labels),
                cluster_type: "EdgeCluster".to_owned(),
            }
        });
        HubCore {
            repo: Repo::open(&git.bare()).unwrap(),
            records: records.collect(),
            parses: ParseCache::default(),
            renders: RenderCache::default(),
            state: State::default(),
            head: None,
        }
    }

    /// The same steps as the hub's writer takes.
    fn run_once(&mut self) -> (Times, (usize, usize)) {
        let begin = Instant::now();
        let limits = Limits::default();
        let source = self.repo.resolve("refs/heads/main").unwrap().unwrap();
        let files = self.repo.files(source, "").unwrap();
        let contents = self.repo.contents().unwrap();
        let read = Instant::now();
        self.parses.fill(&files, &limits, |id| contents.blob(id)).unwrap();
        let (snapshot, diagnostics) = index::build(&files, &self.parses, &limits);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let indexed = Instant::now();
        let outcome = self.compute(&snapshot);
        let computed = Instant::now();
        let tree = state::build(&outcome.state);
        let built = Instant::now();
        let written = self.repo.write_objects(&tree.objects).unwrap();
        let commit = Commit {
            reference: REFERENCE,
            parent: self.head,
            tree: tree.root,
            message: "bench",
            time: 0,
        };
        self.head = Some(self.repo.commit(&commit).unwrap());
        self.state = outcome.state;
        let moments = [begin, read, indexed, computed, built, Instant::now()];
        let mut times: Times = std::array::from_fn(|at| moments.get(at + 1).map_or(0.0, |end| ms_between(moments[at], *end)));
        times[5] = ms_between(moments[0], moments[5]);
        (times, written)
    }

    fn compute(&mut self, snapshot: &Snapshot) -> Outcome {
        let fleet = pipeline::derive_fleet(self.records.iter().cloned(), snapshot, &self.state);
        let inputs = Inputs {
            snapshot,
            fleet: &fleet,
            previous: &self.state,
            settings: RenderSettings::default(),
        };
        let outcome = pipeline::run(&inputs, &mut self.renders);
        assert!(outcome.diagnostics.is_empty(), "{:?}", outcome.diagnostics);
        outcome
    }
}
