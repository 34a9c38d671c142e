//! `branchline render`: the state branch's tree from a source and clusters, offline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::core::index::ParseCache;
use crate::core::pipeline::Memory;
use crate::core::render::{MANIFESTS, RELEASES};
use crate::core::state::{self, Leaf, State};

use super::check::{self, Format};
use super::output::{Output, count};
use super::source::Contents;
use super::{CliError, source};

/// Arguments of `branchline render`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder, or a repository and a revision as repo@rev
    source: String,
    /// ManagedClusters as YAML
    #[arg(long, value_name = "FILE")]
    clusters: PathBuf,
    #[command(flatten)]
    reading: source::Options,
    /// Write exactly the state branch's tree to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Output format of the diagnostics
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    if args.output == Format::Json && args.out.is_none() {
        return Err(CliError::usage(
            "-o json needs --out DIR, because the manifests go to stdout otherwise",
            "add --out DIR, or use branchline check",
        ));
    }
    let (files, contents) = source::open(&args.source, &args.reading.path)?;
    let (snapshot, diagnostics) = source::index(&files, &contents, &mut ParseCache::default())?;
    let clusters = source::read_clusters(&args.clusters)?;
    let (previous, previous_contents) = source::read_previous(args.reading.previous.as_deref())?;
    let settings = args.reading.settings();
    let registered = clusters.records.clone();
    let (mut outcome, fleet) = source::run(&snapshot, diagnostics, clusters, &previous, settings, &mut Memory::default());
    let inputs = source::inputs(&snapshot, &fleet, &previous, settings);
    source::date(
        &mut outcome,
        &inputs,
        &registered,
        source::log(&args.source, &args.reading.path),
    )?;
    let written = load_all(&outcome.state, previous_contents.as_ref())?;
    match &args.out {
        Some(directory) => write_all(directory, &written)?,
        None => print_manifests(&written, out),
    }
    let code = check::report(&outcome.diagnostics, args.output, out);
    for pending in &outcome.pending {
        out.note(&format!("pending: {pending}"));
    }
    if args.output == Format::Text {
        let clusters = count(outcome.state.managed_clusters.len(), "cluster");
        out.note(&format!(
            "{} for {clusters}: {}",
            objects(&written),
            check::summary(&outcome.diagnostics)
        ));
        out.note(&match &args.out {
            Some(directory) => format!("next: git diff --no-index OLD {}", directory.display()),
            None => "next: add --out DIR for the state branch's whole tree".to_owned(),
        });
    }
    Ok(code)
}

/// Whether a path is that of a final object in this directory of a Description.
fn is_in(path: &str, directory: &str) -> bool {
    path.starts_with("clusters/") && path.rsplit('/').nth(1) == Some(directory)
}

/// How many final objects there are, for example `3 manifests and 1 release`.
fn objects(written: &[(String, Vec<u8>)]) -> String {
    let of = |directory| written.iter().filter(|(path, _)| is_in(path, directory)).count();
    match (count(of(MANIFESTS), "manifest"), of(RELEASES)) {
        (manifests, 0) => manifests,
        (manifests, releases) => format!("{manifests} and {}", count(releases, "release")),
    }
}

fn load_all(state: &State, previous: Option<&Contents>) -> Result<Vec<(String, Vec<u8>)>, CliError> {
    let load = |(path, leaf): (String, Leaf)| {
        let bytes = match (leaf.bytes, previous) {
            (Some(bytes), _) => bytes.to_vec(),
            (None, Some(contents)) => contents.load(leaf.id).map_err(|error| {
                CliError::failed(
                    format!("cannot read {path} of the previous state"),
                    "name the state that it was made from",
                )
                .because(error)
            })?,
            (None, None) => {
                return Err(CliError::failed(
                    format!("{path} is held but there is no previous state"),
                    "add --previous STATE",
                ));
            }
        };
        Ok((path, bytes))
    };
    state::paths(state).into_iter().map(load).collect()
}

fn print_manifests(files: &[(String, Vec<u8>)], out: &mut Output) {
    for (path, bytes) in files
        .iter()
        .filter(|(path, _)| is_in(path, MANIFESTS) || is_in(path, RELEASES))
    {
        out.text(&format!("---\n# {path}\n{}", String::from_utf8_lossy(bytes)));
    }
}

/// Writes the tree. A folder with anything else than an earlier render is refused, because files that are not in the tree are removed.
fn write_all(directory: &Path, files: &[(String, Vec<u8>)]) -> Result<(), CliError> {
    let failed = |error| {
        CliError::failed(
            format!("cannot write to {}", directory.display()),
            "check the path and its permissions",
        )
        .because(error)
    };
    let occupied = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !directory.join(state::LAYOUT_FILE).is_file() {
        let message = format!("{} holds something else than an earlier render", directory.display());
        return Err(CliError::usage(message, "name an empty or a new folder"));
    }
    for name in ["clusters", "managedclusters", "provenance", "registrations", "subscriptions"] {
        match std::fs::remove_dir_all(directory.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    for (path, bytes) in files {
        let file = directory.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&file, bytes).map_err(failed)?;
    }
    Ok(())
}
