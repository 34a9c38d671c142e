//! Where the API server is and how to prove who we are: a kubeconfig file or the pod's own service account.

use crate::core::text::with_causes;
use std::path::PathBuf;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// How to reach the API server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// A kubeconfig file, with a context other than its current one if named.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// A context in it.
        context: Option<String>,
    },
    /// The service account of the pod that this process runs in.
    InCluster,
}

/// Why the way to the API server could not be worked out.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be read or lacks something.
    #[error("kubeconfig {path}: {message}; check the file and its current context with `kubectl --kubeconfig {path} version`")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Not in a pod.
    #[error("not inside a Kubernetes pod: {0}; name the cluster with --kubeconfig FILE")]
    NotInCluster(String),
    /// Certificates or credentials that cannot be used.
    #[error("credentials for {server}: {message}")]
    Credentials {
        /// The API server.
        server: String,
        /// What is wrong.
        message: String,
    },
}

impl Access {
    /// The client configuration that it stands for.
    pub(super) async fn load(&self) -> Result<Config, AccessError> {
        let mut config = match self {
            Access::Kubeconfig { path, context } => from_file(path, context.clone()).await?,
            Access::InCluster => Config::incluster().map_err(|e| AccessError::NotInCluster(with_causes(&e)))?,
        };
        // Watches and exec sessions are quiet for as long as they like; short requests have their own limit.
        config.read_timeout = None;
        config.write_timeout = None;
        Ok(config)
    }
}

async fn from_file(path: &PathBuf, context: Option<String>) -> Result<Config, AccessError> {
    let failed = |error: kube::config::KubeconfigError| AccessError::Kubeconfig {
        path: path.display().to_string(),
        message: with_causes(&error),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)
}
