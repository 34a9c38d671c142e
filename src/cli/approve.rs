//! `branchline approve` and `branchline deny`: what waits for a person.

use std::process::ExitCode;

use clap_complete::ArgValueCandidates;
use http::Method;
use serde_json::json;

use super::client::HubAccess;
use super::completion::clusters_of_hub;
use super::output::Output;
use super::{CliError, runtime};

/// Arguments of `branchline approve`.
#[derive(Debug, clap::Args)]
pub(super) struct ApproveArgs {
    /// Name or id of the cluster
    #[arg(add = ArgValueCandidates::new(clusters_of_hub))]
    cluster: String,
    /// Let the new key that waits take the place of the registered one
    #[arg(long)]
    replace_key: bool,
    /// Only if this is the key that waits, as `branchline status` shows it
    #[arg(long, value_name = "sha256:…")]
    key: Option<String>,
    #[command(flatten)]
    hub: HubAccess,
}

/// Arguments of `branchline deny`.
#[derive(Debug, clap::Args)]
pub(super) struct DenyArgs {
    /// Name or id of the cluster
    #[arg(add = ArgValueCandidates::new(clusters_of_hub))]
    cluster: String,
    #[command(flatten)]
    hub: HubAccess,
}

/// Runs `branchline approve`.
pub(super) fn approve(args: &ApproveArgs, out: &mut Output) -> Result<ExitCode, CliError> {
    decide(
        &args.hub,
        &format!("clusters/{}/approve", encode(&args.cluster)),
        json!({"replaceKey": args.replace_key, "key": args.key}),
        "approved",
        out,
    )
}

/// Runs `branchline deny`.
pub(super) fn deny(args: &DenyArgs, out: &mut Output) -> Result<ExitCode, CliError> {
    decide(
        &args.hub,
        &format!("clusters/{}/deny", encode(&args.cluster)),
        json!({}),
        "denied",
        out,
    )
}

/// A name as a part of a path.
pub(super) fn encode(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
        .replace("%2E", ".")
}

fn decide(hub: &HubAccess, path: &str, body: serde_json::Value, done: &str, out: &mut Output) -> Result<ExitCode, CliError> {
    runtime()?.block_on(async {
        let answer = hub.connect().await?.send(Method::POST, path, Some(body)).await?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default();
        out.line(&format!("cluster {} ({}) {done}", text("clusterName"), text("clusterId")));
        out.note("next: branchline status");
        Ok(ExitCode::SUCCESS)
    })
}
