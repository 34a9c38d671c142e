//! The running hub's API for the other commands: a kubeconfig in, JSON out.

use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Request, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::CliError;
use crate::cluster::{Access, Cluster, full};

/// How long an answer may take. The hub itself waits a minute for the commit of a change, and some seconds until it shows.
const PATIENCE: Duration = Duration::from_secs(90);
/// The largest answer.
const ANSWER_LIMIT: usize = 64 << 20;

/// Which hub a command acts on.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct HubAccess {
    /// Kubeconfig of the hub; KUBECONFIG or ~/.kube/config when left out
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// The hub's data directory, for its admin.kubeconfig
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

/// A client of the hub.
pub(super) struct HubClient {
    cluster: Cluster,
}

impl HubAccess {
    /// Prepares the client; nothing is sent yet.
    pub(super) async fn connect(&self) -> Result<HubClient, CliError> {
        HubClient::open(self.path(), self.context.clone()).await
    }

    /// The kubeconfig that it goes by.
    pub(super) fn path(&self) -> PathBuf {
        let of_data = self.data.as_ref().map(|data| data.join("admin.kubeconfig"));
        of_data.or_else(|| self.kubeconfig.clone()).unwrap_or_else(default_kubeconfig)
    }

    /// The context that was stated.
    pub(super) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }
}

/// The first file of KUBECONFIG, else the one in the home directory.
pub(super) fn default_kubeconfig() -> PathBuf {
    let stated = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let first = std::env::split_paths(&stated).find(|path| !path.as_os_str().is_empty());
    first.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".kube").join("config"))
}

impl HubClient {
    /// Prepares a client for a kubeconfig; nothing is sent yet.
    pub(super) async fn open(path: PathBuf, context: Option<String>) -> Result<HubClient, CliError> {
        let access = Access::Kubeconfig { path, context };
        let hint = "name the hub's kubeconfig with --kubeconfig, or its data directory with --data";
        let cluster = Cluster::connect(&access)
            .await
            .map_err(|error| CliError::usage("no way to the hub", hint).because(error))?;
        Ok(HubClient { cluster })
    }

    /// The hub's address.
    pub(super) fn server(&self) -> &str {
        self.cluster.server()
    }

    /// One request below `/apis/branchline.io/v1alpha1/`.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, CliError> {
        self.send_as(&[], method, path, body).await
    }

    /// The same in the name of a user, if there is one, and its groups.
    pub(super) async fn send_as(
        &self,
        name_and_groups: &[&str],
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, CliError> {
        let uri = format!("/apis/branchline.io/v1alpha1/{path}");
        let bytes = body.map(|value| value.to_string()).unwrap_or_default();
        let unreachable = || {
            CliError::failed(
                format!("no answer from the hub at {}", self.server()),
                "is the hub running, and is this its kubeconfig?",
            )
        };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json");
        for (at, name) in name_and_groups.iter().enumerate() {
            request = request.header(if at == 0 { "impersonate-user" } else { "impersonate-group" }, *name);
        }
        let request = request.body(full(bytes)).map_err(|error| unreachable().because(error))?;
        let exchange = async {
            let response = self
                .cluster
                .forward(request)
                .await
                .map_err(|error| unreachable().because(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            Ok((status, body.map_err(|error| unreachable().because(error))?))
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        let (status, body) = answered.unwrap_or_else(|_| {
            Err(CliError::failed(
                format!("the hub at {} did not answer within {} s", self.server(), PATIENCE.as_secs()),
                "what was asked for may have been done all the same: branchline status",
            ))
        })?;
        let value: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let message = value["message"]
            .as_str()
            .map_or_else(|| format!("the hub answered {status}"), str::to_owned);
        Err(CliError::failed(message, ""))
    }
}
