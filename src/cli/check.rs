//! `branchline check`: diagnostics of a source, nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::core::diagnostic::Diagnostic;
use crate::core::index::ParseCache;
use crate::core::pipeline::{self, Memory};

use super::output::{Output, count};
use super::{CliError, source};

/// Arguments of `branchline check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder, or a repository and a revision as repo@rev
    source: String,
    /// ManagedClusters as YAML; without it those of STATE count, or those below hub/
    #[arg(long, value_name = "FILE")]
    clusters: Option<PathBuf>,
    #[command(flatten)]
    reading: source::Options,
    /// Output format of the diagnostics
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// How diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One line each on stderr
    Text,
    /// One JSON document on stdout
    Json,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    let (files, contents) = source::open(&args.source, &args.reading.path)?;
    let (snapshot, diagnostics) = source::index(&files, &contents, &mut ParseCache::default())?;
    let (previous, _) = source::read_previous(args.reading.previous.as_deref())?;
    let clusters = source::fleet(args.clusters.as_deref(), &previous, &[&snapshot])?;
    let no_fleet = clusters.records.is_empty();
    let settings = args.reading.settings();
    let (mut outcome, fleet) = source::run(&snapshot, diagnostics, clusters, &previous, settings, &mut Memory::default());
    let mut diagnostics = std::mem::take(&mut outcome.diagnostics);
    let inputs = source::inputs(&snapshot, &fleet, &previous, settings);
    diagnostics.extend(pipeline::verify(&inputs, &outcome));
    if no_fleet {
        // Without clusters nothing can be said about who gets what.
        diagnostics.retain(|found| !NEEDS_CLUSTERS.contains(&found.code.as_str()));
    }
    let code = report(&diagnostics, args.output, out);
    if args.output == Format::Text {
        let clusters = count(fleet.records.len(), "cluster");
        out.note(&format!(
            "{} for {clusters}: {}",
            count(snapshot.subscriptions.len(), "Subscription"),
            summary(&diagnostics)
        ));
        if no_fleet {
            out.note("overrides were not tried: add --clusters FILE with the ManagedClusters");
        }
        out.note(&format!("next: branchline render {} --clusters FILE --out DIR", args.source));
    }
    Ok(code)
}

/// What can only be said of a fleet.
const NEEDS_CLUSTERS: [&str; 4] = [
    "no-cluster-matches",
    "localization-for-no-cluster",
    "replicas-do-not-fit",
    "too-few-clusters",
];

/// Prints diagnostics and gives the exit code that they mean.
pub(super) fn report(diagnostics: &[Diagnostic], format: Format, out: &mut Output) -> ExitCode {
    match format {
        Format::Text => out.diagnostics(diagnostics),
        Format::Json => out.line(&serde_json::json!({ "diagnostics": diagnostics }).to_string()),
    }
    ExitCode::from(u8::from(diagnostics.iter().any(Diagnostic::is_error)))
}

/// `no errors`, `1 error, 2 warnings`.
pub(super) fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|found| found.is_error()).count();
    let warnings = diagnostics.len() - errors;
    match (errors, warnings) {
        (0, 0) => "no errors".to_owned(),
        (0, warnings) => format!("no errors, {}", count(warnings, "warning")),
        (errors, 0) => count(errors, "error"),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    }
}
