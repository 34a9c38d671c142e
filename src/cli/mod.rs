//! The command line: one command per file, each `Args` + `run`. Everything that a person reads is written here.

mod agent;
mod approve;
mod check;
mod client;
mod cluster;
mod completion;
mod demo;
mod error;
mod files;
mod hub;
mod hub_credentials;
mod kubeconfig;
mod logging;
mod output;
mod plan;
mod render;
mod source;
mod status;
mod token;
mod why;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
    /// Renders what every cluster would get, without a hub, network or cluster
    Render(render::Args),
    /// Checks a source folder or commit and prints its diagnostics
    Check(check::Args),
    /// Shows what a push would do to the fleet
    Plan(plan::Args),
    /// Explains an object in a cluster: which override set which field, and why the cluster was chosen
    Why(why::Args),
    /// Runs a whole fleet in one process, to try everything out
    Demo(demo::Args),
    /// Runs the hub
    Hub(Box<hub::Args>),
    /// Connects one cluster to the hub
    Agent(Box<agent::Args>),
    /// Writes kubectl contexts for the hub and each cluster that a user may reach
    Kubeconfig(kubeconfig::Args),
    /// Bootstrap tokens of agents
    Token(token::Args),
    /// Lets a cluster that waits, or its new key, into the fleet
    Approve(approve::ApproveArgs),
    /// Refuses a cluster that waits, or the new key of a known one
    Deny(approve::DenyArgs),
    /// Forgets clusters
    Cluster(cluster::Args),
    /// Prints the completion script of a shell, which knows the names of clusters
    Completion(completion::Args),
    /// Shows what the hub follows, which clusters are in sync and what is wrong
    Status(status::Args),
}

/// Parses the arguments, runs the command and gives its exit code: 0 all well, 1 errors, 2 wrong usage.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.collect();
    if let Some(code) = completion::answer(&arguments) {
        return code;
    }
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
    match run(cli.command, &mut out).and_then(|code| out.finish().map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            out.problem(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command, out: &mut Output) -> Result<ExitCode, CliError> {
    match command {
        Command::Render(args) => render::run(&args, out),
        Command::Check(args) => check::run(&args, out),
        Command::Plan(args) => plan::run(&args, out),
        Command::Why(args) => why::run(&args, out),
        Command::Demo(args) => demo::run(&args, out),
        Command::Hub(args) => hub::run(*args, out),
        Command::Agent(args) => agent::run(*args),
        Command::Kubeconfig(args) => kubeconfig::run(&args, out),
        Command::Token(args) => token::run(args, out),
        Command::Approve(args) => approve::approve(&args, out),
        Command::Deny(args) => approve::deny(&args, out),
        Command::Cluster(args) => cluster::run(&args, out),
        Command::Completion(args) => completion::run(&args, out),
        Command::Status(args) => status::run(&args, out),
    }
}

/// Threads that move bytes. More of them would not make a hub faster: deciding and committing is one thread's work, and each thread costs memory.
const MOST_WORKERS: usize = 8;
/// Threads that read repositories and wait for the git program. A push to a thousand clusters must not start a thousand of them.
const BLOCKING_THREADS: usize = 8;

/// Tasks that run before sockets are looked at again. With tokio's 61 a small request waits for milliseconds behind the tasks of a large transfer,
/// which wake each other all the time.
const EVENT_INTERVAL: u32 = 7;

/// The asynchronous runtime of a command.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MOST_WORKERS))
        .max_blocking_threads(BLOCKING_THREADS)
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build();
    built.map_err(|error| CliError::failed("the runtime cannot be started", "").because(error))
}

/// Cancels the token at SIGINT or SIGTERM; a second signal ends the process at once.
fn stop_on_signal(stop: &CancellationToken) -> Result<(), CliError> {
    let failed = |error| CliError::failed("signals cannot be listened for", "").because(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                stop.cancel();
            } else {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

/// Under a name that begins with `kubectl-` the binary is a kubectl plugin, and its help says how it is called.
fn program_name(first: &OsString) -> OsString {
    let name = Path::new(first).file_name().unwrap_or_default().to_string_lossy();
    match name.strip_prefix("kubectl-") {
        Some(plugin) => format!("kubectl {}", plugin.replace('_', "-")).into(),
        None => first.clone(),
    }
}
