//! The command line: one command per file, each `Args` + `run`. Everything that a person reads is written here.

mod agent;
mod check;
mod error;
mod logging;
mod output;
mod render;
mod source;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;
use output::Output;

/// Manages many Kubernetes clusters from one git repository.
#[derive(Debug, Parser)]
#[command(name = "branchline", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connects a cluster to the hub and applies what it gets from there
    Agent(agent::Args),
    /// Renders what every cluster would get, without a hub, network or cluster
    Render(render::Args),
    /// Checks a source folder or commit and prints its diagnostics
    Check(check::Args),
}

/// Parses the arguments, runs the command and gives its exit code: 0 all well, 1 errors, 2 wrong usage.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.collect();
    if let Some(first) = arguments.first_mut() {
        *first = program_name(first);
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be told to a person whose terminal is gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let mut out = Output::new();
    match run(cli.command, &mut out) {
        Ok(code) => code,
        Err(error) => {
            out.problem(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command, out: &mut Output) -> Result<ExitCode, CliError> {
    match command {
        Command::Agent(args) => agent::run(args),
        Command::Render(args) => render::run(&args, out),
        Command::Check(args) => check::run(&args, out),
    }
}

/// Under a name that begins with `kubectl-` the binary is a kubectl plugin, and its help says how it is called.
fn program_name(first: &OsString) -> OsString {
    let name = Path::new(first).file_name().unwrap_or_default().to_string_lossy();
    match name.strip_prefix("kubectl-") {
        Some(plugin) => format!("kubectl {}", plugin.replace('_', "-")).into(),
        None => first.clone(),
    }
}
