//! What the hub's writer holds between runs, and one run in its steps.

use std::sync::Arc;
use std::time::Instant;

use branchline::core::ids::ObjectId;
use branchline::core::index::{self, ParseCache, Snapshot};
use branchline::core::pipeline::{self, FleetFollower, Inputs, Memory, Outcome};
use branchline::core::render::RenderSettings;
use branchline::core::state::registrations::{Decision, Registration, Registrations};
use branchline::core::state::{State, TreeBuilder};
use branchline::core::yaml::Limits;
use branchline::git::{Commit, Repo};

use crate::figures::ms_between;
use crate::source::{SETS, Source};

/// What `branchline hub --cluster-fan-out` is recommended to be for large fleets.
const FAN_OUT: u8 = 3;
const REFERENCE: &str = "refs/heads/branchline/state";
const PHASES: [&str; 6] = ["read", "index", "compute", "build", "write", "all"];

/// Figures of one run.
#[derive(Clone)]
pub(crate) struct Run {
    /// Milliseconds by phase, the sum last.
    times: [f64; 6],
    /// Source files that were parsed.
    parsed: usize,
    objects: usize,
    bytes: usize,
}

impl Run {
    pub(crate) fn titles() -> String {
        let titles: String = PHASES.iter().map(|phase| format!("{phase:>18}")).collect();
        format!("{titles}{:>8}{:>10}{:>12}", "parsed", "objects", "bytes")
    }

    /// The figures, each with its ratio to those of another run.
    pub(crate) fn cells(&self, before: Option<&Run>) -> String {
        let cell = |at: usize| {
            let ratio = before.map_or(String::new(), |before| {
                format!(" ({:.1}x)", self.times[at] / before.times[at].max(0.001))
            });
            format!("{:>18}", format!("{:.2}{ratio}", self.times[at]))
        };
        let cells: String = (0..PHASES.len()).map(cell).collect();
        format!("{cells}{:>8}{:>10}{:>12}", self.parsed, self.objects, self.bytes)
    }

    pub(crate) fn total(&self) -> f64 {
        self.times[5]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

pub(crate) struct HubCore {
    repo: Repo,
    registrations: Registrations,
    parses: ParseCache,
    fleets: FleetFollower,
    memory: Memory,
    trees: TreeBuilder,
    state: State,
    head: Option<ObjectId>,
    /// Its tree.
    root: Option<ObjectId>,
}

impl HubCore {
    pub(crate) fn new(source: &Source, clusters: usize) -> Self {
        let registrations = Registrations {
            clusters: (0..clusters)
                .map(registration)
                .map(|known| (known.cluster_id.clone(), known))
                .collect(),
            ..Registrations::default()
        };
        HubCore {
            repo: Repo::open(&source.git.bare()).unwrap(),
            registrations,
            parses: ParseCache::default(),
            fleets: FleetFollower::default(),
            memory: Memory::default(),
            trees: TreeBuilder::default(),
            state: State::default(),
            head: None,
            root: None,
        }
    }

    pub(crate) fn clusters(&self) -> usize {
        self.registrations.clusters.len()
    }

    /// Moves a cluster to another set.
    pub(crate) fn label(&mut self, cluster: usize, round: usize) {
        let set = SETS[(cluster + round + 1) % SETS.len()].to_owned();
        let known = self
            .registrations
            .clusters
            .get_mut(&registration(cluster).cluster_id)
            .unwrap();
        known.labels.insert("set".to_owned(), set);
    }

    /// The same steps as the hub's writer takes.
    pub(crate) fn run_once(&mut self) -> Run {
        let begin = Instant::now();
        let limits = Limits::default();
        let source = self.repo.resolve("refs/heads/main").unwrap().unwrap();
        let files = self.repo.files(source, "").unwrap();
        let contents = self.repo.contents().unwrap();
        let read = Instant::now();
        let parsed = self.parses.fill(&files, &limits, |id| contents.blob(id)).unwrap();
        let (snapshot, diagnostics) = index::build(&files, &self.parses, &limits);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let indexed = Instant::now();
        let outcome = self.compute(&Arc::new(snapshot));
        let computed = Instant::now();
        let tree = self.trees.build(&outcome.state);
        let built = Instant::now();
        let objects = match tree.anew {
            true => self.repo.missing(tree.objects).unwrap(),
            false => tree.objects,
        };
        let bytes = objects.iter().map(|object| object.bytes.len()).sum();
        let changed = self.root != Some(tree.root);
        if changed {
            self.root = Some(tree.root);
            let commit = Commit {
                reference: REFERENCE,
                parent: self.head,
                tree: tree.root,
                message: "bench",
                author: None,
                time: 0,
            };
            self.head = Some(self.repo.commit(&objects, &commit).unwrap());
        }
        self.state = outcome.state;
        let moments = [begin, read, indexed, computed, built, Instant::now()];
        let mut times: [f64; 6] = std::array::from_fn(|at| moments.get(at + 1).map_or(0.0, |end| ms_between(moments[at], *end)));
        times[5] = ms_between(moments[0], moments[5]);
        Run {
            times,
            parsed,
            objects: if changed { objects.len() } else { 0 },
            bytes,
        }
    }

    fn compute(&mut self, snapshot: &Arc<Snapshot>) -> Outcome {
        let fleet = self.fleets.follow(&self.registrations, snapshot, &self.state);
        let inputs = Inputs {
            snapshot,
            fleet: &fleet,
            previous: &self.state,
            settings: RenderSettings::default(),
            fan_out: FAN_OUT,
        };
        let mut outcome = pipeline::run(&inputs, &mut self.memory);
        assert!(outcome.diagnostics.is_empty(), "{:?}", outcome.diagnostics);
        outcome.state.registrations = self.registrations.clone();
        outcome
    }
}

fn registration(number: usize) -> Registration {
    let labels = [("region", "eu"), ("set", SETS[number % SETS.len()])];
    Registration {
        cluster_id: format!("0d0c9d5f-7a77-4a9e-8b7c-{number:012x}").parse().unwrap(),
        cluster_name: format!("edge-{number}"),
        dedicated_namespace: format!("clusternet-edge-{number}"),
        cluster_type: "EdgeCluster".to_owned(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect(),
        taints: Vec::new(),
        registered: Some("2026-01-01T00:00:00Z".to_owned()),
        decision: Decision::Approved,
        key_digest: format!("sha256:{number:064x}"),
        pending_key_digest: None,
    }
}
