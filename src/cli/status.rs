//! `branchline status`: what the hub follows, which clusters are in sync, and what is wrong with file and line.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::client::HubAccess;
use super::output::{Output, table};
use super::{CliError, runtime};
use crate::core::diagnostic::Diagnostic;

/// Arguments of `branchline status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(flatten)]
    hub: HubAccess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// Runs the command. The exit code is 1 while something is wrong.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    runtime()?.block_on(async {
        let status = args.hub.connect().await?.send(Method::GET, "status", None).await?;
        let diagnostics: Vec<Diagnostic> = serde_json::from_value(status["diagnostics"].clone()).unwrap_or_default();
        let problems: Vec<&str> = status["problems"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let failing = status["failing"]["count"].as_u64().unwrap_or_default();
        let wrong = !problems.is_empty() || failing > 0 || diagnostics.iter().any(Diagnostic::is_error);
        if args.output == Format::Json {
            out.line(&status.to_string());
        } else {
            print(&status, &diagnostics, &problems, out);
        }
        Ok(ExitCode::from(u8::from(wrong)))
    })
}

fn print(status: &Value, diagnostics: &[Diagnostic], problems: &[&str], out: &mut Output) {
    let short = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| "-".to_owned(), |id| id.chars().take(10).collect())
    };
    out.line(&format!(
        "source {}  state {}  epoch {}  generation {}",
        short(&status["source"]),
        short(&status["commit"]),
        status["epoch"],
        status["generation"]
    ));
    if let Some(unpushed) = status["unpushed"].as_array() {
        out.line(&format!(
            "the remote state branch lacks {} commits since {}",
            unpushed[0],
            unpushed[1].as_str().unwrap_or_default()
        ));
    }
    let rows = status["clusters"].as_array().into_iter().flatten().map(|cluster| {
        let connected = cluster["connected"] == true;
        let sync = match (connected, cluster["applied"] == cluster["desired"]) {
            (_, true) => "in sync",
            (true, false) => "behind",
            (false, false) => "unknown",
        };
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let agent = if connected {
            format!("connected since {}", text(&cluster["since"]))
        } else {
            "offline".to_owned()
        };
        vec![
            text(&cluster["name"]),
            text(&cluster["namespace"]),
            agent,
            sync.to_owned(),
            short(&cluster["desired"]),
        ]
    });
    out.text(&table(&["NAME", "NAMESPACE", "AGENT", "STATE", "DESIRED"], rows.collect()));
    for waiting in status["waiting"].as_array().into_iter().flatten() {
        let (name, key) = (waiting["name"].as_str().unwrap_or_default(), waiting["newKey"].as_str());
        out.line(&match key {
            Some(key) => {
                format!("waiting: a new key of cluster {name}, {key}: branchline approve {name} --replace-key, or deny {name}")
            }
            None => {
                let key = waiting["key"].as_str().unwrap_or_default();
                format!("waiting: cluster {name}: branchline approve {name}, or deny {name}; its key is {key}")
            }
        });
    }
    for pending in status["pending"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.line(&format!("pending: {pending}"));
    }
    print_failing(&status["failing"], out);
    problems.iter().for_each(|problem| out.line(&format!("problem: {problem}")));
    out.diagnostics(diagnostics);
    out.note("next: kubectl get managedclusters,subscriptions,descriptions -A");
}

/// What agents could not apply.
fn print_failing(failing: &Value, out: &mut Output) {
    let first = failing["first"].as_array().map(Vec::as_slice).unwrap_or_default();
    for description in first {
        let text = |field: &str| description[field].as_str().unwrap_or_default();
        let (cluster, name, reason) = (text("cluster"), text("description"), text("reason"));
        out.line(&format!("failing: cluster {cluster}, Description {name}: {reason}"));
    }
    let more = failing["count"]
        .as_u64()
        .unwrap_or_default()
        .saturating_sub(first.len() as u64);
    if more > 0 {
        out.line(&format!(
            "failing: {more} more Descriptions; kubectl get descriptions -A shows them all"
        ));
    }
}
