//! `branchline cluster`: what is done to a cluster of the fleet.

use std::process::ExitCode;

use clap_complete::ArgValueCandidates;
use http::Method;

use super::approve::encode;
use super::client::HubAccess;
use super::completion::clusters_of_hub;
use super::output::Output;
use super::{CliError, runtime};

/// Arguments of `branchline cluster`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Forgets a cluster: its tunnel ends and it gets nothing more
    Remove(RemoveArgs),
}

/// Arguments of `branchline cluster remove`.
#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// Name or id of the cluster
    #[arg(add = ArgValueCandidates::new(clusters_of_hub))]
    cluster: String,
    /// Say that what the hub gave the cluster stays there
    #[arg(long, required = true)]
    keep_objects: bool,
    #[command(flatten)]
    hub: HubAccess,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    let Command::Remove(args) = &args.command;
    runtime()?.block_on(async {
        let path = format!("clusters/{}", encode(&args.cluster));
        let answer = args.hub.connect().await?.send(Method::DELETE, &path, None).await?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default();
        out.line(&format!(
            "cluster {} ({}) is forgotten; its objects stay",
            text("clusterName"),
            text("clusterId")
        ));
        out.note("next: stop its agent, or let it in again with branchline token create --print-join");
        Ok(ExitCode::SUCCESS)
    })
}
