//! `branchline kubeconfig`: contexts for the hub and for each cluster that a user may reach, on stdout or merged into a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::client::{HubAccess, default_kubeconfig};
use super::output::Output;
use super::token::parse_ttl;
use super::{CliError, files, runtime};
use crate::core::kubeconfig::{HUB_CONTEXT, HubEntry, KubeconfigError, Reachable, merge};
use crate::core::text::counted;
use crate::core::yaml;

/// Arguments of `branchline kubeconfig`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Make a certificate for this user, in place of the credential that asks; takes the right to impersonate user and groups
    #[arg(long, value_name = "U")]
    user: Option<String>,
    /// A group of that user; may be repeated
    #[arg(long, value_name = "G", requires = "user")]
    group: Vec<String>,
    /// How long the certificate lives: 12h, 90d, at most 366d
    #[arg(long, default_value = "90d", value_parser = parse_ttl, requires = "user")]
    ttl: u64,
    /// What the names of contexts and clusters begin with, for files that have several hubs
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Put the contexts into KUBECONFIG (its first file) or ~/.kube/config; what else is there stays
    #[arg(long)]
    merge: bool,
    #[command(flatten)]
    hub: HubAccess,
}

/// Runs the command.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    let (config, clusters) = runtime()?.block_on(contexts(args))?;
    if !args.merge {
        out.text(&yaml::emit(&config));
        out.note(&format!(
            "{}; next: put this into a file, or add --merge",
            counted(clusters, "cluster")
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let path = default_kubeconfig();
    merge_into(&path, &config)?;
    out.line(&format!(
        "{}: contexts for the hub and {}",
        path.display(),
        counted(clusters, "cluster")
    ));
    out.note(&format!(
        "next: kubectl --context {}{HUB_CONTEXT} get managedclusters -A",
        args.prefix
    ));
    Ok(ExitCode::SUCCESS)
}

/// The new kubeconfig, and for how many clusters.
async fn contexts(args: &Args) -> Result<(Value, usize), CliError> {
    let mut entry = hub_entry(&args.hub)?;
    let client = args.hub.connect().await?;
    let acting_as: Vec<&str> = args.user.iter().chain(&args.group).map(String::as_str).collect();
    let answer = client.send_as(&acting_as, Method::GET, "reachableclusters", None).await?;
    let clusters = reachable(&answer);
    if let Some(user) = &args.user {
        let (csr, key) = signing_request().map_err(|error| CliError::failed("no key can be made", "").because(error))?;
        let asked = json!({"user": user, "groups": args.group, "ttlSeconds": args.ttl, "csr": csr});
        let made = client.send(Method::POST, "usercertificates", Some(asked)).await?;
        let certificate = made["certificate"].as_str().unwrap_or_default();
        entry.user = json!({"client-certificate-data": STANDARD.encode(certificate), "client-key-data": STANDARD.encode(&key)});
        entry.user_name.clone_from(user);
    }
    Ok((entry.contexts(&clusters, &args.prefix), clusters.len()))
}

fn reachable(answer: &Value) -> Vec<Reachable> {
    let mut names = vec![HUB_CONTEXT.to_owned()];
    let items = answer["items"].as_array().into_iter().flatten();
    let clusters = items.map(|item| {
        let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        // Names are the clusters' own choice.
        let name = Some(text("name"))
            .filter(|name| !names.contains(name))
            .unwrap_or_else(|| text("id"));
        names.push(name.clone());
        Reachable {
            name,
            path: text("path"),
        }
    });
    clusters.collect()
}

/// The private key never leaves this machine.
fn signing_request() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((request.pem()?, key.serialize_pem()))
}

fn hub_entry(hub: &HubAccess) -> Result<HubEntry, CliError> {
    let path = std::path::absolute(hub.path()).map_err(|error| unusable(&hub.path(), error))?;
    let folder = path.parent().unwrap_or(Path::new("/")).display().to_string();
    HubEntry::read(&load(&path)?, hub.context(), &folder).map_err(|error| unusable(&path, error))
}

fn unusable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    let hint = "name the hub's kubeconfig with --kubeconfig, or its data directory with --data";
    CliError::usage(format!("{} cannot be used", path.display()), hint).because(error)
}

/// Null for a file that is not there.
fn load(path: &Path) -> Result<Value, CliError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        read => read.map_err(|error| unusable(path, error))?,
    };
    let parsed = yaml::parse_value(&text, &yaml::Limits::default());
    parsed.map_err(|problem| {
        let place = format!("line {}: {}", problem.line, problem.message);
        unusable(path, KubeconfigError::Malformed(place))
    })
}

fn merge_into(path: &Path, config: &Value) -> Result<(), CliError> {
    let merged = merge(load(path)?, config).map_err(|error| {
        let hint = match error {
            KubeconfigError::Taken { .. } => "choose other names with --prefix",
            KubeconfigError::Missing { .. } | KubeconfigError::Malformed(_) => "repair the file, or name another in KUBECONFIG",
        };
        CliError::failed(format!("nothing was written to {}", path.display()), hint).because(error)
    })?;
    // A link stays one.
    let target: PathBuf = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    files::replace_private(&target, yaml::emit(&merged).as_bytes())
        .map_err(|error| CliError::failed(format!("{} cannot be written", path.display()), "").because(error))
}
