//! `branchline why`: one object in one cluster, from the line of its source over each override to the value that the cluster gets.

use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::ArgValueCandidates;
use serde_json::Value;

use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectKey;
use crate::core::index::ParseCache;
use crate::core::pipeline::Memory;
use crate::core::schedule::{Cluster, Reason};
use crate::core::selector::{CLUSTER_ID_LABEL, CLUSTER_NAME_LABEL};
use crate::core::state::Leaf;
use crate::core::text::printable;
use crate::core::tree::FileTree;
use crate::core::why::{self, Answer, Chain, Delivery, EntryUse, Feeding, NotFound, ObjectQuery, Place, Standing, Texts};

use super::check::Format;
use super::completion::clusters_of_source;
use super::output::{Output, count};
use super::source::Contents;
use super::{CliError, source};

/// Arguments of `branchline why`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A cluster's name or dedicated namespace
    #[arg(add = ArgValueCandidates::new(clusters_of_source))]
    cluster: String,
    /// The object as KIND/NAME, for example deployment/web or deployments.apps/web
    #[arg(value_name = "KIND/NAME")]
    object: String,
    /// One field, as /data/greeting or data.greeting; without it every overridden one
    field: Option<String>,
    /// Namespace of the object
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// A folder, or a repository and a revision as repo@rev
    #[arg(long, default_value = ".")]
    source: String,
    /// ManagedClusters as YAML; without it those of STATE count, or those below hub/
    #[arg(long, value_name = "FILE")]
    clusters: Option<PathBuf>,
    #[command(flatten)]
    reading: source::Options,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Runs the command. The exit code is 1 where an error holds the object back.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    let asked = ObjectQuery::parse(&args.object, args.namespace.as_deref()).ok_or_else(|| {
        CliError::usage(
            format!("{:?} is not KIND/NAME", args.object),
            "for example: branchline why edge-1 deployment/web -n shop",
        )
    })?;
    let (files, contents) = source::open(&args.source, &args.reading.path)?;
    let (snapshot, diagnostics) = source::index(&files, &contents, &mut ParseCache::default())?;
    let (previous, previous_contents) = source::read_previous(args.reading.previous.as_deref())?;
    let clusters = source::fleet(args.clusters.as_deref(), &previous, &[&snapshot])?;
    let settings = args.reading.settings();
    let registered = clusters.records.clone();
    let (mut outcome, fleet) = source::run(&snapshot, diagnostics, clusters, &previous, settings, &mut Memory::default());
    let inputs = source::inputs(&snapshot, &fleet, &previous, settings);
    let texts = Stored {
        files: &files,
        contents: &contents,
        previous: previous_contents.as_ref(),
    };
    let cluster = why::cluster_named(&fleet.fleet, &args.cluster).map_err(unknown)?;
    outcome.pending.retain(|pending| *pending.cluster == *cluster.namespace);
    source::date(
        &mut outcome,
        &inputs,
        &registered,
        source::log(&args.source, &args.reading.path),
    )?;
    let object = why::object_named(&inputs, &outcome, cluster, &asked).map_err(unknown)?;
    let field = args.field.as_deref().map(why::field_pointer);
    let answer = why::explain(&inputs, &outcome, cluster, &object, field.as_deref(), &texts).map_err(unknown)?;
    match args.output {
        Format::Json => out.line(&serde_json::json!(answer).to_string()),
        Format::Text => print(&answer, cluster, args, out),
    }
    Ok(ExitCode::from(u8::from(answer.diagnostics.iter().any(Diagnostic::is_error))))
}

fn unknown(error: NotFound) -> CliError {
    CliError::usage(error.to_string(), error.hint())
}

/// The texts of the source and of both states.
struct Stored<'a> {
    files: &'a FileTree,
    contents: &'a Contents,
    previous: Option<&'a Contents>,
}

impl Texts for Stored<'_> {
    fn source(&self, file: &str) -> Option<Vec<u8>> {
        self.contents.load(self.files.files.get(file)?.id).ok()
    }

    fn state(&self, leaf: &Leaf) -> Option<Vec<u8>> {
        match &leaf.bytes {
            Some(bytes) => Some(bytes.to_vec()),
            None => self.previous?.load(leaf.id).ok(),
        }
    }
}

fn print(answer: &Answer, cluster: &Cluster, args: &Args, out: &mut Output) {
    let mut lines = vec![match &answer.source {
        Some(place) => format!("{} in {}, defined at {}", answer.object, answer.cluster, at(place)),
        None => format!("{} in {}, which no file that parses defines", answer.object, answer.cluster),
    }];
    if answer.subscriptions.is_empty() {
        lines.push("no Subscription feeds it".to_owned());
    }
    for feeding in &answer.subscriptions {
        lines.push(String::new());
        describe_feeding(feeding, cluster, &mut lines);
    }
    if let Some(delivery) = &answer.delivery {
        lines.push(String::new());
        describe_delivery(delivery, &mut lines);
    }
    lines.iter().for_each(|line| out.line(&printable(line)));
    out.diagnostics(&answer.diagnostics);
    out.note(&format!("next: {}", printable(&next(answer, cluster, args))));
}

fn at(place: &Place) -> String {
    format!("{}:{}", place.file, place.line)
}

fn describe_feeding(feeding: &Feeding, cluster: &Cluster, lines: &mut Vec<String>) {
    let place = feeding.place.as_ref().map(|place| format!(" at {}", at(place)));
    let bundle = feeding.bundle.as_ref().map(|bundle| format!(", in its Bundle {bundle}"));
    lines.push(format!(
        "Subscription {}/{}{} feeds it{}",
        feeding.namespace,
        feeding.name,
        place.unwrap_or_default(),
        bundle.unwrap_or_default()
    ));
    lines.extend(feeding.because.iter().map(|sentence| format!("  {sentence}")));
    for asking in &feeding.subscribers {
        let weight = asking.weight.map(|weight| format!(", weight {weight}")).unwrap_or_default();
        let verdict = if asking.matches { "matches" } else { "does not match" };
        lines.push(format!(
            "  {}: subscribers/{} asks for {}{weight}: {verdict}",
            at(&asking.place),
            asking.index,
            asking.cluster_affinity
        ));
    }
    if !feeding.subscribers.iter().any(|asking| asking.matches) {
        lines.push(format!("  {} has the labels {}", cluster.name, labels(cluster)));
    }
    let (others, names) = (feeding.elsewhere.count, feeding.elsewhere.names.join(", "));
    if others > 0 {
        let more = if others > feeding.elsewhere.names.len() { ", …" } else { "" };
        lines.push(format!("  elsewhere in {}: {names}{more}", count(others, "cluster")));
    }
}

fn labels(cluster: &Cluster) -> String {
    let own = cluster
        .labels
        .iter()
        .filter(|(key, _)| ![CLUSTER_NAME_LABEL, CLUSTER_ID_LABEL].contains(&key.as_str()));
    let pairs: Vec<String> = own.map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() {
        "(none)".to_owned()
    } else {
        pairs.join(",")
    }
}

fn describe_delivery(delivery: &Delivery, lines: &mut Vec<String>) {
    lines.push(match delivery.standing {
        Standing::Current => format!("delivered as {}", delivery.path),
        Standing::Pending => format!(
            "delivered as {}; what ApplyLater overrides set waits for the next change{}",
            delivery.path,
            delivery.since.as_ref().map(|since| format!(", {since}")).unwrap_or_default()
        ),
        Standing::Held => format!("held: the last result stays at {}", delivery.path),
    });
    for chain in &delivery.fields {
        lines.push(String::new());
        describe_chain(chain, delivery, lines);
    }
    let idle = |entry: &&EntryUse| entry.fields.is_empty();
    for entry in delivery.entries.iter().filter(idle) {
        lines.push(String::new());
        lines.push(format!("without effect: {}: {}", at(&entry.place), name_entry(entry)));
    }
    if delivery.entries.is_empty() && delivery.standing == Standing::Current {
        lines.push("no override applies to it".to_owned());
    }
}

fn describe_chain(chain: &Chain, delivery: &Delivery, lines: &mut Vec<String>) {
    lines.push(if chain.field.is_empty() {
        "the whole object".to_owned()
    } else {
        chain.field.clone()
    });
    for step in &chain.steps {
        let who = match step.entry.and_then(|index| delivery.entries.get(index)) {
            Some(entry) => name_entry(entry),
            None => "source".to_owned(),
        };
        lines.push(format!("  {}: {who}: {}", at(&step.place), show(step.value.as_ref())));
    }
    let word = match delivery.standing {
        Standing::Current => "final",
        Standing::Pending | Standing::Held => "now",
    };
    lines.push(format!("  {word}: {}", show(chain.value.as_ref())));
}

fn name_entry(entry: &EntryUse) -> String {
    let owner = match entry.namespace.as_str() {
        "" => format!("{} {}", entry.kind, entry.name),
        namespace => format!("{} {namespace}/{}", entry.kind, entry.name),
    };
    if entry.kind == "Subscription" {
        return format!("{owner}, the cluster's share of the replicas");
    }
    let name = crate::core::index::quoted(&entry.entry);
    let EntryUse {
        index,
        patch_type,
        priority,
        policy,
        ..
    } = entry;
    format!("{owner}, entry {name} ({index}, {patch_type}), priority {priority}, {policy}")
}

/// Longest value that is shown on a line; `-o json` has all of it.
const SHOWN: usize = 200;

fn show(value: Option<&Value>) -> String {
    value.map_or_else(
        || "(absent)".to_owned(),
        |value| crate::core::text::cut(&value.to_string(), SHOWN),
    )
}

fn next(answer: &Answer, cluster: &Cluster, args: &Args) -> String {
    let object = name_object(&answer.object);
    if answer.diagnostics.iter().any(Diagnostic::is_error) {
        return format!("correct the errors above, then: branchline check {}", args.source);
    }
    match (&answer.delivery, &args.field) {
        (None, _) if answer.subscriptions.is_empty() => format!("add {object} to the feeds of a Subscription"),
        (None, _) => format!(
            "change what the Subscription asks for, or {} of {}",
            what_left_it_out(answer),
            cluster.name
        ),
        (Some(_), None) => format!("branchline why {} {object} FIELD", cluster.name),
        (Some(delivery), Some(_)) => {
            let last = delivery.fields.iter().flat_map(|chain| &chain.steps).last();
            let last = last.map(|step| format!("edit {}, then: ", at(&step.place)));
            format!("{}branchline plan", last.unwrap_or_default())
        }
    }
}

/// What of a cluster left it out, where something of the cluster did.
fn what_left_it_out(answer: &Answer) -> &'static str {
    let outcome = answer.subscriptions.first().map(|feeding| feeding.outcome);
    match outcome.and_then(Reason::of) {
        Some(Reason::TaintNotTolerated) => "the taints",
        Some(Reason::NoCapacity) => "the room",
        _ => "the labels",
    }
}

/// As the command takes it.
fn name_object(object: &ObjectKey) -> String {
    let namespace = object.namespace.as_ref().map(|namespace| format!(" -n {namespace}"));
    format!(
        "{}/{}{}",
        object.kind.to_ascii_lowercase(),
        object.name,
        namespace.unwrap_or_default()
    )
}
