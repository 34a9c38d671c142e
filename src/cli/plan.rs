//! `branchline plan`: what a push would do to the fleet. Both sides are rendered for the same clusters, the later one on top of the earlier one's
//! state, because that is what the hub does.

mod json;
mod markdown;
mod terminal;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap_complete::ArgValueCandidates;

use crate::core::diagnostic::Diagnostic;
use crate::core::impact::{Change, Impact, Side, compare, unified};
use crate::core::index::{ParseCache, Snapshot};
use crate::core::pipeline::{FleetResult, Memory, Outcome, Pending};
use crate::core::render::RenderSettings;
use crate::core::schedule::{Cluster, Fleet};
use crate::core::state::State;
use crate::core::tree::FileTree;
use crate::core::why::cluster_named;

use super::completion::clusters_of_source;
use super::output::Output;
use super::source::{Clusters, Contents};
use super::{CliError, source};

/// Arguments of `branchline plan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes, as those of kubectl diff: 0 nothing to do, 1 something changes, 2 the plan cannot be made, or the later side has errors \
                  that the earlier one has not."
)]
pub(super) struct Args {
    /// BASE..HEAD, two commits; or BASE alone, a commit against the folder SOURCE as it is
    #[arg(value_name = "BASE[..HEAD]", default_value = "HEAD")]
    range: String,
    /// The repository, and with BASE alone the folder
    #[arg(long, value_name = "REPO", default_value = ".")]
    source: String,
    /// ManagedClusters as YAML; without it those of STATE count, or those below hub/
    #[arg(long, value_name = "FILE")]
    clusters: Option<PathBuf>,
    #[command(flatten)]
    reading: source::Options,
    /// One cluster's full diff
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(clusters_of_source))]
    cluster: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For a pull request
    Markdown,
    /// One JSON document
    Json,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    let plan = make(args).map_err(|error| error.exiting(2))?;
    match args.output {
        Format::Json => out.line(&json::document(&plan)?.to_string()),
        Format::Markdown => out.text(&markdown::document(&plan)?),
        Format::Text => terminal::print(&plan, args, out)?,
    }
    let worse = plan.findings.iter().any(Diagnostic::is_error);
    Ok(ExitCode::from(if worse { 2 } else { u8::from(!plan.impact.is_empty()) }))
}

/// Everything that is said about a push.
struct Plan {
    /// The two sides as they were asked for; without a later commit it is the folder.
    range: (String, Option<String>),
    fleet: Fleet,
    /// The state after the push.
    state: State,
    /// The only cluster that is looked at.
    only: Option<Cluster>,
    impact: Impact,
    /// Subscriptions that are held whole after the push.
    held: Vec<String>,
    /// ApplyLater changes that wait after the push.
    pending: Vec<Pending>,
    /// Findings of the later side that the earlier one has not.
    findings: Vec<Diagnostic>,
    /// How many findings of the earlier side are gone.
    settled: usize,
    /// Contents that neither side made.
    previous: Option<Contents>,
}

impl Plan {
    /// What is compared, in words.
    fn title(&self) -> String {
        match &self.range {
            (base, Some(head)) => format!("{base}..{head}"),
            (base, None) => format!("{base} against the folder"),
        }
    }

    /// A cluster's name.
    fn name(&self, namespace: &str) -> String {
        self.fleet
            .clusters
            .get(namespace)
            .map_or_else(|| namespace.to_owned(), |cluster| cluster.name.to_string())
    }

    /// A change that waits, with the cluster's name.
    fn waits(&self, pending: &Pending) -> String {
        let named = Pending {
            cluster: self.name(&pending.cluster),
            ..pending.clone()
        };
        format!("pending: {named}")
    }

    /// The names of clusters in order.
    fn names<'n>(&self, namespaces: impl IntoIterator<Item = &'n str>) -> Vec<String> {
        namespaces.into_iter().map(|namespace| self.name(namespace)).collect()
    }

    /// A change as a unified diff, with the paths of one cluster.
    fn diff(&self, change: &Change, cluster: &str) -> Result<String, CliError> {
        let side = |side: &Option<Side>| -> Result<Option<(String, Vec<u8>)>, CliError> {
            let Some(side) = side else { return Ok(None) };
            let path = format!("{}/{}/{}", self.state.cluster_path(cluster), side.directory, side.file);
            let bytes = match (&side.leaf.bytes, &self.previous) {
                (Some(bytes), _) => bytes.to_vec(),
                (None, Some(contents)) => contents
                    .load(side.leaf.id)
                    .map_err(|error| unreadable(&path).because(error))?,
                (None, None) => return Err(unreadable(&path)),
            };
            Ok(Some((path, bytes)))
        };
        let (before, after) = (side(&change.before)?, side(&change.after)?);
        Ok(unified(
            before.as_ref().map(|(path, bytes)| (path.as_str(), bytes.as_slice())),
            after.as_ref().map(|(path, bytes)| (path.as_str(), bytes.as_slice())),
        ))
    }
}

fn unreadable(path: &str) -> CliError {
    CliError::failed(
        format!("cannot read {path} of the previous state"),
        "name the state that it was made from",
    )
    .exiting(2)
}

/// One side of the comparison.
struct Indexed {
    snapshot: Arc<Snapshot>,
    diagnostics: Vec<Diagnostic>,
}

fn make(args: &Args) -> Result<Plan, CliError> {
    let (base, head) = sides(&args.range)?;
    // The later side is what a hub would make of it after the earlier one: only what differs is parsed and rendered.
    let (mut parses, mut memory) = (ParseCache::default(), Memory::default());
    let mut before = index(source::open_commit(&args.source, base, &args.reading.path)?, &mut parses)?;
    let later = match head {
        Some(head) => source::open_commit(&args.source, head, &args.reading.path)?,
        None => source::open(&args.source, &args.reading.path)?,
    };
    let mut after = index(later, &mut parses)?;
    let (previous, contents) = source::read_previous(args.reading.previous.as_deref())?;
    let clusters = source::fleet(args.clusters.as_deref(), &previous, &[&before.snapshot, &after.snapshot])?;
    let settings = args.reading.settings();
    let registered = clusters.records.clone();
    let (was, _) = side(&mut before, clusters.clone(), &previous, settings, &mut memory);
    let (mut will, fleet) = side(&mut after, clusters, &was.state, settings, &mut memory);
    let log = match head {
        Some(head) => source::log_of(&args.source, head, &args.reading.path),
        None => source::log(&args.source, &args.reading.path),
    };
    let inputs = source::inputs(&after.snapshot, &fleet, &was.state, settings);
    source::date(&mut will, &inputs, &registered, log)?;
    let only = args.cluster.as_deref().map(|name| cluster_named(&fleet.fleet, name).cloned());
    let only = only
        .transpose()
        .map_err(|error| CliError::usage(error.to_string(), error.hint()))?;
    let impact = compare(&was.state, &will.state);
    let (findings, settled) = news(&was.diagnostics, &will.diagnostics);
    let held = will.placed.iter().filter(|placed| placed.subscription.is_none());
    let held = held.map(|placed| format!("{}/{}", placed.key.0, placed.key.1)).collect();
    let concerns = |pending: &Pending| only.as_ref().is_none_or(|cluster| *cluster.namespace == *pending.cluster);
    Ok(Plan {
        range: (base.to_owned(), head.map(str::to_owned)),
        impact: match &only {
            Some(cluster) => impact.only(&cluster.namespace),
            None => impact,
        },
        held,
        pending: will.pending.into_iter().filter(concerns).collect(),
        only,
        fleet: fleet.fleet,
        state: will.state,
        findings,
        settled,
        previous: contents,
    })
}

/// BASE and HEAD, or BASE alone. An empty side is `HEAD`, as for git.
fn sides(range: &str) -> Result<(&str, Option<&str>), CliError> {
    if range.contains("...") {
        let hint = "write BASE..HEAD; for what a branch adds since it left main: $(git merge-base main HEAD)..HEAD";
        return Err(CliError::usage(format!("{range}: three dots are not supported"), hint));
    }
    Ok(match range.split_once("..") {
        None => (or_head(range), None),
        Some((base, head)) => (or_head(base), Some(or_head(head))),
    })
}

fn or_head(side: &str) -> &str {
    if side.is_empty() { "HEAD" } else { side }
}

fn index((files, contents): (FileTree, Contents), parses: &mut ParseCache) -> Result<Indexed, CliError> {
    let (snapshot, diagnostics) = source::index(&files, &contents, parses)?;
    Ok(Indexed { snapshot, diagnostics })
}

fn side(
    indexed: &mut Indexed,
    clusters: Clusters,
    previous: &State,
    settings: RenderSettings,
    memory: &mut Memory,
) -> (Outcome, FleetResult) {
    let diagnostics = std::mem::take(&mut indexed.diagnostics);
    source::run(&indexed.snapshot, diagnostics, clusters, previous, settings, memory)
}

/// The findings that only the later side has, and how many only the earlier one had. A finding that moved to another line is the same.
fn news(before: &[Diagnostic], after: &[Diagnostic]) -> (Vec<Diagnostic>, usize) {
    let without_line = |found: &Diagnostic| Diagnostic {
        line: 0,
        ..found.clone()
    };
    let [old, new]: [BTreeSet<Diagnostic>; 2] = [before, after].map(|found| found.iter().map(without_line).collect());
    let found = after.iter().filter(|found| !old.contains(&without_line(found)));
    (found.cloned().collect(), old.difference(&new).count())
}

/// Two names of a Subscription where it changes hands.
fn delivered_by(change: &Change) -> (Option<String>, Option<String>) {
    let name = |side: &Option<Side>| side.as_ref().map(Side::subscription);
    (name(&change.before), name(&change.after))
}

/// A share of replicas.
fn share(replicas: Option<i64>) -> String {
    replicas.map_or_else(|| "-".to_owned(), |replicas| replicas.to_string())
}

/// What the fleet gets to do, in numbers: distinct changes, and objects over all clusters.
struct Totals {
    create: usize,
    change: usize,
    delete: usize,
    hand_over: usize,
    objects: usize,
}

fn totals(impact: &Impact) -> Totals {
    use crate::core::impact::Action;
    let count = |action| impact.changes.iter().filter(|change| change.action == action).count();
    Totals {
        create: count(Action::Create),
        change: count(Action::Change),
        delete: count(Action::Delete),
        hand_over: count(Action::Move),
        objects: impact.changes.iter().map(|change| change.clusters.len()).sum(),
    }
}

/// The first clusters' names, and that there are more.
fn some_names(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        many if many > SHOWN => format!("{}, … and {} more", names[..SHOWN].join(", "), many - SHOWN),
        _ => names.join(", "),
    }
}

/// Namespaces as text.
fn texts(namespaces: &[Arc<str>]) -> impl Iterator<Item = &str> {
    namespaces.iter().map(|namespace| &**namespace)
}
