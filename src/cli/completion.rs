//! `branchline completion`, and the answers to a shell that asks what may come next: commands, options, and the names of clusters, of a running hub
//! or of the source. Whatever fails on the way leaves nothing to choose from, because a person is in the middle of a line.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::engine::{CompletionCandidate, complete};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use http::Method;
use serde_json::Value;

use crate::core::index::ParseCache;

use super::client::HubAccess;
use super::output::Output;
use super::{Cli, CliError, runtime, source};

/// Set by the scripts, together with the words of the line.
const ASKED: &str = "BRANCHLINE_COMPLETE";
/// Under this name kubectl asks what may follow `kubectl branchline`.
const FOR_KUBECTL: &str = "kubectl_complete-branchline";
/// How kubectl is told to offer no files: cobra's `ShellCompDirectiveNoFileComp`.
const NO_FILES: &str = ":4";
/// How long a person waits for names.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `branchline completion`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    /// bash 4 or newer
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Prints the script that a shell reads when it starts.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell
        .write_registration(ASKED, "branchline", "branchline", "branchline", &mut script)
        .map_err(|error| CliError::failed("the script cannot be made", "").because(error))?;
    out.line(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Answers when a shell asks; `None` where the arguments are a command to run.
pub(super) fn answer(arguments: &[OsString]) -> Option<ExitCode> {
    let name = Path::new(arguments.first()?).file_name()?;
    if name == FOR_KUBECTL {
        return Some(answer_kubectl(arguments));
    }
    let directory = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(Cli::command).var(ASKED);
    match asked.try_complete(arguments.iter().cloned(), directory.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        Err(error) => {
            // Nothing can be told to a person whose terminal is gone.
            let _ = error.print();
            Some(ExitCode::from(2))
        }
    }
}

/// The last argument is the word that is being typed; one line for each candidate, as cobra's programs print them.
fn answer_kubectl(words: &[OsString]) -> ExitCode {
    let directory = std::env::current_dir().ok();
    let last = words.len().saturating_sub(1).max(1);
    let found = complete(&mut Cli::command(), words.to_vec(), last, directory.as_deref()).unwrap_or_default();
    let mut out = Output::new();
    for candidate in found {
        let help = candidate.get_help().map_or_else(String::new, |help| {
            format!("\t{}", help.to_string().lines().next().unwrap_or_default())
        });
        out.line(&format!("{}{help}", candidate.get_value().display()));
    }
    out.line(NO_FILES);
    ExitCode::SUCCESS
}

/// Clusters that a running hub knows, those that wait included.
pub(super) fn clusters_of_hub() -> Vec<CompletionCandidate> {
    as_candidates(names_from_hub(&Line::typed()).unwrap_or_default())
}

/// Clusters that a source and what else is named on the line have.
pub(super) fn clusters_of_source() -> Vec<CompletionCandidate> {
    as_candidates(names_from_source(&Line::typed()).unwrap_or_default())
}

fn as_candidates(mut names: Vec<String>) -> Vec<CompletionCandidate> {
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn names_from_hub(line: &Line) -> Result<Vec<String>, CliError> {
    let access = HubAccess {
        kubeconfig: line.value("--kubeconfig").map(Into::into),
        context: line.value("--context"),
        data: line.value("--data").map(Into::into),
    };
    let status = runtime()?.block_on(async {
        let asked = async { access.connect().await?.send(Method::GET, "status", None).await };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Ok(Value::Null))
    })?;
    let of = |list: &str| status[list].as_array().cloned().unwrap_or_default();
    let known = of("clusters").into_iter().chain(of("waiting"));
    Ok(known
        .filter_map(|cluster| cluster["name"].as_str().map(str::to_owned))
        .collect())
}

fn names_from_source(line: &Line) -> Result<Vec<String>, CliError> {
    let (files, contents) = source::open(
        line.value("--source").as_deref().unwrap_or("."),
        line.value("--path").as_deref().unwrap_or_default(),
    )?;
    let (snapshot, _) = source::index(&files, &contents, &mut ParseCache::default())?;
    let (previous, _) = source::read_previous(line.value("--previous").as_deref())?;
    let clusters = line.value("--clusters");
    let fleet = source::fleet(clusters.as_deref().map(Path::new), &previous, &[&snapshot])?;
    Ok(fleet.records.iter().map(|record| record.cluster.name.to_string()).collect())
}

/// The line as far as it is typed.
struct Line(Vec<OsString>);

impl Line {
    fn typed() -> Self {
        Line(std::env::args_os().collect())
    }

    /// The value of an option, as `--name VALUE` or `--name=VALUE`.
    fn value(&self, option: &str) -> Option<String> {
        let Line(words) = self;
        let text = |word: &OsStr| word.to_string_lossy().into_owned();
        let at = |(index, word): (usize, &OsString)| {
            let word = text(word);
            match word.strip_prefix(option)? {
                "" => words.get(index + 1).map(|next| text(next)),
                rest => rest.strip_prefix('=').map(str::to_owned),
            }
        };
        words.iter().enumerate().find_map(at).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_options_are_found_in_an_unfinished_line() {
        let line = Line(
            ["b", "deny", "--data", "d", "--context=c", "--kubeconfig"]
                .map(Into::into)
                .to_vec(),
        );
        assert_eq!(line.value("--data").as_deref(), Some("d"));
        assert_eq!(line.value("--context").as_deref(), Some("c"));
        assert_eq!(line.value("--kubeconfig"), None);
        assert_eq!(line.value("--dat"), None);
    }
}
