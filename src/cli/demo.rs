//! `branchline demo`: source repository, hub, agents and sandboxes in one process. What it keeps in its folder lets it carry on later.
//!
//! ```text
//! DIR/repository.git  what DIR/source pushes to       DIR/hub       the hub's data directory
//! DIR/source          a clone: edit, commit, push     DIR/clusters  per cluster: objects, kubeconfig, credentials
//! DIR/kubeconfig      contexts hub, edge-1, edge-2 …
//! ```

mod clusters;
mod repository;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::HubClient;
use super::logging::{self, LogFormat};
use super::output::Output;
use super::{CliError, hub as hub_command, runtime, stop_on_signal};
use crate::core::registration::Approval;
use crate::core::render::RenderSettings;
use crate::git::RepositoryUrl;
use crate::hub::{Hub, HubConfig, UserCredentials};

/// How long the first line may wait for all clusters to be in sync.
const SYNC_PATIENCE: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `branchline demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keep everything in this folder and carry on from it; a temporary one, removed at the end, when left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Number of clusters
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=200))]
    clusters: u16,
    /// Form of the log lines; logging begins with RUST_LOG
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// Runs the command until SIGINT or SIGTERM.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, CliError> {
    if std::env::var_os("RUST_LOG").is_some() {
        logging::start(args.log_format);
    }
    let failed = |error| CliError::failed("no folder for the demo", "name one with --dir").because(error);
    let temporary = if args.dir.is_none() {
        Some(tempfile::tempdir().map_err(failed)?)
    } else {
        None
    };
    let folder = args
        .dir
        .clone()
        .or_else(|| temporary.as_ref().map(|folder| folder.path().to_owned()))
        .unwrap_or_default();
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(&stop)?;
        let demo = Demo::start(&folder, args.clusters, &stop).await?;
        demo.wait_for_sync(&stop).await;
        if !stop.is_cancelled() {
            demo.explain(args.dir.is_some(), out);
        }
        stop.cancelled().await;
        demo.finish().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// A demo that runs.
struct Demo {
    folder: PathBuf,
    clusters: u16,
    hub: Hub,
    client: HubClient,
    tasks: TaskTracker,
}

impl Demo {
    async fn start(folder: &Path, clusters: u16, stop: &CancellationToken) -> Result<Demo, CliError> {
        repository::prepare(folder)?;
        let hub = start_hub(folder, stop).await?;
        let client = HubClient::open(hub.admin_kubeconfig.clone(), None).await?;
        let tasks = TaskTracker::new();
        let mut token = None;
        let mut members = Vec::new();
        for number in 1..=clusters {
            let name = format!("edge-{number}");
            let home = folder.join("clusters").join(&name);
            if token.is_none() && !clusters::has_credentials(&home) {
                let answer = client
                    .send(
                        Method::POST,
                        "tokens",
                        Some(json!({"ttlSeconds": 600, "description": "demo"})),
                    )
                    .await?;
                token = answer["token"].as_str().map(str::to_owned);
            }
            members.push(clusters::start(&name, &home, &hub, token.clone(), &tasks, stop).await?);
        }
        tasks.close();
        write_kubeconfig(folder, &hub, &members)?;
        Ok(Demo {
            folder: folder.to_owned(),
            clusters,
            hub,
            client,
            tasks,
        })
    }

    /// Waits until every cluster has applied what it should have; a demo that needs longer is explained as it is.
    async fn wait_for_sync(&self, stop: &CancellationToken) {
        let synced = async {
            while !self.is_synced().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(SYNC_PATIENCE, synced) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn is_synced(&self) -> bool {
        let Ok(status) = self.client.send(Method::GET, "status", None).await else {
            return false;
        };
        let clusters = status["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let done = |cluster: &Value| cluster["connected"] == true && cluster["applied"] == cluster["desired"];
        clusters.iter().filter(|cluster| done(cluster)).count() >= usize::from(self.clusters)
    }

    fn explain(&self, kept: bool, out: &mut Output) {
        let folder = self.folder.display();
        out.line(&format!(
            "A hub with {} clusters is running. Each cluster is a sandbox: an API server in memory that stores objects\n\
             and answers kubectl; it has no admission, defaulting, controllers or RBAC, so nothing in it runs.\n",
            self.clusters
        ));
        out.line(&format!("  export KUBECONFIG={folder}/kubeconfig"));
        out.line("  kubectl --context hub get managedclusters -A");
        out.line("  kubectl --context hub get subscriptions,descriptions -A");
        out.line("  kubectl --context edge-1 -n guestbook get configmap guestbook -o yaml\n");
        out.line("Change something and push it:\n");
        out.line(&format!("  cd {folder}/source"));
        out.line("  sed -i 's/greeting: hello/greeting: good morning/' guestbook/app.yaml");
        out.line("  git commit -am 'a new greeting' && git push");
        out.line("  kubectl --context edge-2 -n guestbook get configmap guestbook -o jsonpath='{.data.greeting}{\"\\n\"}'\n");
        out.line(&format!(
            "What the hub made of it: git -C {folder}/repository.git log --stat branchline/state"
        ));
        out.line(&format!(
            "What is wrong, if anything: branchline status --data {folder}/hub\n"
        ));
        let end = if kept {
            "starting it again carries on"
        } else {
            "everything is removed then; --dir DIR keeps it"
        };
        out.line(&format!("Ctrl-C ends the demo; {end}."));
    }

    async fn finish(self) {
        self.tasks.wait().await;
        self.hub.finished().await;
    }
}

async fn start_hub(folder: &Path, stop: &CancellationToken) -> Result<Hub, CliError> {
    let data = folder.join("hub");
    let config = HubConfig {
        source: RepositoryUrl::Local(repository::path(folder)),
        branch: None,
        path: String::new(),
        ca_dir: data.join("ca"),
        data,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, remembered_port(folder))),
        advertise: Vec::new(),
        state_branch: "branchline/state".to_owned(),
        state_repo: None,
        poll: Duration::from_secs(30),
        approval: Approval::Automatic,
        render: RenderSettings::default(),
        cluster_fan_out: None,
        certificate_lifetime: Duration::from_secs(90 * 24 * 3600),
        unready_grace: Duration::from_secs(90),
        credentials: UserCredentials::default(),
    };
    let hub = match Hub::start(config.clone(), stop.clone()).await {
        // Somebody else has the port of the last time: any other will do, and the kubeconfig is written anew.
        Err(crate::hub::HubError::Listen { .. }) if config.listen.port() != 0 => {
            let any = HubConfig {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                ..config
            };
            Hub::start(any, stop.clone()).await
        }
        other => other,
    };
    let hub = hub.map_err(hub_command::explain)?;
    write(&folder.join("port"), hub.address.port().to_string().as_bytes())?;
    Ok(hub)
}

/// The port of the last time, so that kubeconfigs that were copied elsewhere stay right; 0 the first time.
fn remembered_port(folder: &Path) -> u16 {
    std::fs::read_to_string(folder.join("port"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

/// The administrator's kubeconfig with a context for each cluster beside the hub's.
fn write_kubeconfig(folder: &Path, hub: &Hub, members: &[clusters::Member]) -> Result<(), CliError> {
    let failed = || CliError::failed("the kubeconfig cannot be written", "check the demo's folder");
    let text = std::fs::read_to_string(&hub.admin_kubeconfig).map_err(|error| failed().because(error))?;
    let mut config = crate::core::yaml::parse_value(&text, &crate::core::yaml::Limits::default())
        .map_err(|problem| failed().because(problem.message))?;
    let authority = config
        .pointer("/clusters/0/cluster/certificate-authority-data")
        .cloned()
        .unwrap_or_default();
    for member in members {
        let server = format!(
            "{}/apis/proxies.clusternet.io/v1alpha1/sockets/{}/proxy/direct",
            hub.urls[0], member.id
        );
        let cluster = json!({"name": member.name, "cluster": {"server": server, "certificate-authority-data": authority}});
        let context = json!({"name": member.name, "context": {"cluster": member.name, "user": "branchline-admin"}});
        config["clusters"]
            .as_array_mut()
            .into_iter()
            .for_each(|list| list.push(cluster.clone()));
        config["contexts"]
            .as_array_mut()
            .into_iter()
            .for_each(|list| list.push(context.clone()));
    }
    write(&folder.join("kubeconfig"), crate::core::yaml::emit(&config).as_bytes())
}

/// Writes a file that only its owner reads.
fn write(path: &Path, content: &[u8]) -> Result<(), CliError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error| CliError::failed(format!("cannot write {}", path.display()), "check the demo's folder").because(error);
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(content).map_err(failed)
}
