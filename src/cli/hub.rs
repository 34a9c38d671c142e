//! `branchline hub`: arguments to a validated configuration, signals to an orderly end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::logging::{self, LogFormat};
use super::output::Output;
use super::{CliError, runtime, stop_on_signal};
use crate::core::registration::Approval;
use crate::core::render::RenderSettings;
use crate::git::RepositoryUrl;
use crate::hub::{Hub, HubConfig, HubError};

/// Arguments of `branchline hub`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source repository: a path, file://, ssh://, user@host:path or https://
    #[arg(long, value_name = "URL")]
    source: String,
    /// Its branch; its default branch when left out
    #[arg(long, value_name = "B")]
    branch: Option<String>,
    /// Directory in it that is read
    #[arg(long, value_name = "P", default_value = "")]
    path: String,
    /// Data directory; everything in it can be lost
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the certificate authority's files are; DATA/ca when left out
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Address under which agents and people reach this hub, https://host:port; may be repeated
    #[arg(long, value_name = "URL")]
    advertise: Vec<String>,
    /// Name of the state branch
    #[arg(long, value_name = "B", default_value = "branchline/state")]
    state_branch: String,
    /// Repository of the state branch; the source repository when left out
    #[arg(long, value_name = "URL")]
    state_repo: Option<String>,
    /// Seconds between looks at the source's ref
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    poll: u64,
    /// Whether clusters with a valid token join at once or wait for `branchline approve`
    #[arg(long, value_enum, default_value_t = ApprovalMode::Automatic)]
    approval: ApprovalMode,
    /// Hours that an agent's certificate lives; it is renewed at two thirds
    #[arg(long, value_name = "HOURS", default_value_t = 90 * 24, value_parser = clap::value_parser!(u64).range(1..=87_600))]
    certificate_hours: u64,
    /// Seconds that a cluster may be not ready before nothing new goes there; what it has stays
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    unready_grace: u64,
    /// Let Secrets with plain data be feeds, so that they stand in the state branch
    #[arg(long)]
    allow_plain_secrets: bool,
    /// Levels of directories, one hexadecimal digit each, above what the state branch has once for each cluster: 2 keeps commits small from
    /// some thousand clusters on, 3 from some ten thousand. Another number than the branch has moves every file at the next commit
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u8).range(0..=i64::from(crate::core::state::MAX_FAN_OUT)))]
    cluster_fan_out: Option<u8>,
    #[command(flatten)]
    credentials: super::hub_credentials::CredentialArgs,
    /// Form of the log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ApprovalMode {
    Automatic,
    Manual,
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, CliError> {
    let log_format = args.log_format;
    let config = args.into_config()?;
    logging::start(log_format);
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(&stop)?;
        let data = config.data.clone();
        let hub = Hub::start(config, stop.clone()).await.map_err(explain)?;
        out.note(&format!("hub at {} (CA {})", hub.urls.join(", "), hub.ca_hash));
        out.note(&format!(
            "next: branchline token create --print-join --data {}",
            data.display()
        ));
        out.note(&format!(
            "      kubectl --kubeconfig {} get managedclusters -A",
            hub.admin_kubeconfig.display()
        ));
        hub.finished().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// A hub that did not start, with what to do about it.
pub(super) fn explain(error: HubError) -> CliError {
    let hint = match &error {
        HubError::Listen { .. } => "another program may use the port; choose another --listen",
        HubError::Source(_) => "check --source, --branch and --state-repo; git must be able to reach them without asking",
        HubError::Data(_) | HubError::Authority(_) => "check --data and --ca-dir",
        HubError::Oidc(_) => "check --oidc-issuer-url and --oidc-ca-file",
        HubError::Tokens(_) => "repair the file, or leave out --token-auth-file",
        HubError::Start(_) | HubError::Tls(_) | HubError::Thread(_) => "",
    };
    CliError::failed("the hub did not start", hint).because(error)
}

impl Args {
    fn into_config(self) -> Result<HubConfig, CliError> {
        let url = |text: &str, option: &str| {
            text.parse::<RepositoryUrl>()
                .map_err(|error| CliError::usage(format!("--{option} is not usable"), "").because(error))
        };
        let advertise = self
            .advertise
            .iter()
            .map(|url| check_advertised(url))
            .collect::<Result<Vec<_>, _>>()?;
        for (name, option) in [
            (self.branch.as_deref().unwrap_or("main"), "branch"),
            (self.state_branch.as_str(), "state-branch"),
        ] {
            if !crate::git::is_branch_name(name) {
                return Err(CliError::usage(
                    format!("--{option} {name:?} is not a branch name"),
                    "see git check-ref-format",
                ));
            }
        }
        if self.branch.as_deref() == Some(self.state_branch.as_str()) && self.state_repo.is_none() {
            return Err(CliError::usage(
                "--branch and --state-branch are the same",
                "the hub writes the state branch alone; name another",
            ));
        }
        Ok(HubConfig {
            source: url(&self.source, "source")?,
            branch: self.branch,
            path: self.path,
            ca_dir: self.ca_dir.unwrap_or_else(|| self.data.join("ca")),
            data: self.data,
            listen: self.listen,
            advertise,
            state_branch: self.state_branch,
            state_repo: self.state_repo.as_deref().map(|text| url(text, "state-repo")).transpose()?,
            poll: Duration::from_secs(self.poll),
            approval: if self.approval == ApprovalMode::Manual {
                Approval::Manual
            } else {
                Approval::Automatic
            },
            render: RenderSettings {
                allow_plain_secrets: self.allow_plain_secrets,
            },
            cluster_fan_out: self.cluster_fan_out,
            certificate_lifetime: Duration::from_secs(self.certificate_hours * 3600),
            unready_grace: Duration::from_secs(self.unready_grace),
            credentials: self.credentials.into_config()?,
        })
    }
}

fn check_advertised(url: &str) -> Result<String, CliError> {
    match crate::tunnel::dial::HubAddress::parse(url) {
        Ok(_) => Ok(url.to_owned()),
        Err(error) => Err(CliError::usage(format!("--advertise {url} is not usable"), "write https://host:port").because(error)),
    }
}
