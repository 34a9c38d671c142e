//! `branchline agent`: connects one cluster to the hub.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::logging::{self, LogFormat};
use super::{CliError, stop_on_signal};
use crate::agent::{self, AgentConfig, AgentError, CredentialsPlace, Trust};
use crate::cluster::{Access, SURVEY_INTERVAL};
use crate::core::access::limits::{ImpersonationLimits, NamePattern};
use crate::core::reach::{Pattern, Reachable};
use crate::tunnel::TunnelSettings;
use crate::tunnel::backoff::Backoff;
use crate::tunnel::dial::HubAddress;

/// How often a registration that waits for approval asks again.
const PENDING_INTERVAL: Duration = Duration::from_secs(3);
/// Threads for name lookups and files, the only work that blocks.
const BLOCKING_THREADS: usize = 4;

/// Arguments of `branchline agent`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The hub's address, for example https://hub.example.com:6443
    #[arg(long, value_name = "URL")]
    hub: String,
    /// Bootstrap token; needed until the cluster is registered
    #[arg(long, value_name = "T", env = "BRANCHLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Hash of the hub's CA, as `branchline token create --print-join` prints it
    #[arg(long, value_name = "sha256:…", conflicts_with = "ca_file")]
    ca_hash: Option<String>,
    /// The hub's CA certificate, PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name that the cluster gets on the hub
    #[arg(long, value_name = "N")]
    name: String,
    /// The cluster's namespace on the hub [default: clusternet-<name>]
    #[arg(long, value_name = "NS", default_value = "", hide_default_value = true)]
    namespace: String,
    /// Labels that the cluster asks for; they count when it is approved, those below node.clusternet.io/ also later
    #[arg(long, value_name = "k=v,…", value_delimiter = ',')]
    labels: Vec<String>,
    /// The cluster's type, `EdgeCluster` or `StandardCluster`
    #[arg(long, value_name = "TYPE", default_value = "StandardCluster")]
    cluster_type: String,
    /// The cluster's kubeconfig; without it the agent uses the service account of its pod
    #[arg(long, value_name = "F")]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig [default: its current one]
    #[arg(long, value_name = "CONTEXT", requires = "kubeconfig")]
    context: Option<String>,
    /// Service that users may reach through the tunnel, for example grafana.monitoring.svc:3000 or *.svc; may be repeated. Without a port
    /// every port [default: none but the API server]
    #[arg(long, value_name = "HOST[:PORT]")]
    allow_proxy_to: Vec<Pattern>,
    /// File for the agent's key and certificate [default: Secret branchline-system/branchline-agent in the cluster]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Users that the hub may have impersonated here, names or beginnings with *; those of Kubernetes itself (system:…) only where a pattern
    /// begins with system:
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "*")]
    allow_users: Vec<NamePattern>,
    /// Groups that the hub may have impersonated here, in the same form; system:masters only by its full name
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "*")]
    allow_groups: Vec<NamePattern>,
    /// Format of the log on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Runs the command until SIGINT or SIGTERM.
pub(super) fn run(args: Args) -> Result<ExitCode, CliError> {
    logging::start(args.log_format);
    let config = resolve(args)?;
    // One thread is enough for one cluster, and keeps the idle agent small.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(super::EVENT_INTERVAL)
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| CliError::failed("the runtime cannot be started", "check the limits of the process").because(error))?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(&stop)?;
        agent::run(config, stop).await.map_err(explain)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn resolve(args: Args) -> Result<AgentConfig, CliError> {
    let join_line = "copy the line that `branchline token create --print-join` prints";
    let usage = |error: &dyn std::fmt::Display| CliError::usage(error.to_string(), join_line);
    Ok(AgentConfig {
        hub: HubAddress::parse(&args.hub).map_err(|error| usage(&error))?,
        trust: trust(args.ca_hash.as_deref(), args.ca_file)?,
        token: args.token.filter(|token| !token.is_empty()),
        name: args.name,
        namespace: args.namespace,
        cluster_type: args.cluster_type,
        labels: labels(&args.labels)?,
        access: match args.kubeconfig {
            Some(path) => Access::Kubeconfig {
                path,
                context: args.context,
            },
            None => Access::InCluster,
        },
        reachable: Reachable::new(args.allow_proxy_to),
        credentials: args.credentials.map_or(CredentialsPlace::Secret, CredentialsPlace::File),
        backoff: Backoff::default(),
        pending_interval: PENDING_INTERVAL,
        survey_interval: SURVEY_INTERVAL,
        tunnel: TunnelSettings::agent(),
        impersonation: Arc::new(ImpersonationLimits {
            users: args.allow_users,
            groups: args.allow_groups,
        }),
    })
}

fn trust(hash: Option<&str>, file: Option<PathBuf>) -> Result<Trust, CliError> {
    match (hash, file) {
        (Some(hash), _) => {
            let hash = hash.parse();
            hash.map(Trust::Hash)
                .map_err(|error: agent::InvalidCaHash| CliError::usage(error.to_string(), "copy it from the join line"))
        }
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path);
            text.map(Trust::Certificates).map_err(|error| {
                CliError::failed(format!("{} cannot be read", path.display()), "name the hub's ca.crt").because(error)
            })
        }
        (None, None) => Ok(Trust::Remembered),
    }
}

fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let pairs = pairs.iter().filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(CliError::usage(
                format!("--labels: {pair:?} is not of the form key=value"),
                "for example --labels region=eu,stage=prod",
            )),
        })
        .collect()
}

fn explain(error: AgentError) -> CliError {
    let hint = match &error {
        AgentError::Register(_) => "ask whoever runs the hub: `branchline token list`, `kubectl get clusterregistrationrequests`",
        AgentError::NoTrust => "add --ca-hash sha256:… or --ca-file FILE",
        _ => "",
    };
    CliError::failed("the agent cannot go on", hint).because(error)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn labels_are_pairs() {
        let texts = ["region=eu".to_owned(), String::new(), "node.clusternet.io/x=".to_owned()];
        let read = labels(&texts).unwrap();
        assert_eq!((read["region"].as_str(), read.len()), ("eu", 2));
        assert_eq!(labels(&["eu".to_owned()]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn trust_is_stated_or_remembered() {
        assert_eq!(trust(None, None).unwrap(), Trust::Remembered);
        assert_eq!(trust(Some("sha256:12"), None).unwrap_err().exit_code(), 2);
    }
}
