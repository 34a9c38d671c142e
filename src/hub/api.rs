//! The hub's read-only Kubernetes API: a [`Backend`] over the projected store. What git owns is changed in git, and a refusal says where.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::kinds;
use super::revision::Revision;
use crate::core::api::APPS_GROUP;
use crate::core::ids::ObjectKey;
use crate::core::index::{Definition, Reading};
use crate::kubeapi::{
    Action, ApiError, Backend, Catalog, HealthCheck, ServerVersion, Store, Target, WriteOptions, Written, clusternet_schemas,
    read_only,
};

/// The Kubernetes version whose API conventions are followed.
const KUBERNETES_MINOR: &str = "35";

/// What stands behind the hub's front.
#[derive(Debug)]
pub struct HubApi {
    catalog: Arc<Catalog>,
    store: Arc<Store>,
    revisions: watch::Receiver<Arc<Revision>>,
}

impl HubApi {
    /// An API over a store that somebody else fills.
    pub fn new(store: Arc<Store>, revisions: watch::Receiver<Arc<Revision>>) -> Self {
        HubApi {
            catalog: Arc::new(Catalog::new(kinds::resources())),
            store,
            revisions,
        }
    }
}

impl Backend for HubApi {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn version(&self) -> ServerVersion {
        ServerVersion {
            major: "1".to_owned(),
            minor: KUBERNETES_MINOR.to_owned(),
            git_version: format!("v1.{KUBERNETES_MINOR}.0+branchline-{}", env!("CARGO_PKG_VERSION")),
            platform: format!(
                "{}/{}",
                std::env::consts::OS,
                std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64")
            ),
        }
    }

    /// Alive means that it answers; ready means besides that it has read a source and can write the state branch. A source that is away for a
    /// while makes nobody unready: tunnels and reads go on, and the problem is in the status.
    fn health(&self, endpoint: &str) -> Vec<HealthCheck> {
        let mut checks = vec![HealthCheck {
            name: "ping".to_owned(),
            failure: None,
        }];
        if endpoint == "readyz" {
            let revision = self.revisions.borrow();
            let waits = || match revision.problems.first() {
                Some(problem) => problem.clone(),
                None => "the first run is not over".to_owned(),
            };
            let failure = revision.stopped.clone().or_else(|| revision.source.is_none().then(waits));
            checks.push(HealthCheck {
                name: "writer".to_owned(),
                failure,
            });
        }
        checks
    }

    fn schemas(&self, group: &str, version: &str) -> Map<String, Value> {
        clusternet_schemas(group, version)
    }

    fn refusal(&self, target: &Target<'_>) -> ApiError {
        let revision = self.revisions.borrow().clone();
        let place = place(&revision, target).map(|(file, line)| format!("edit {file}:{line} in the source repository and push"));
        let hint = match (&*target.resource.id.plural, place) {
            (_, Some(place)) => place,
            ("managedclusters", None) => "write its labels below hub/ in the source repository and push".to_owned(),
            ("clusterregistrationrequests", None) => "use branchline approve or branchline deny".to_owned(),
            ("descriptions", None) => {
                "it is rendered from a Subscription; change that in the source repository and push".to_owned()
            }
            (_, None) => "add it to the source repository and push".to_owned(),
        };
        read_only(target, &hint)
    }

    fn write(&self, target: &Target<'_>, _action: Action, _options: &WriteOptions) -> Result<Written, ApiError> {
        Err(self.refusal(target))
    }
}

/// File and line where git defines what a write is about.
fn place(revision: &Revision, target: &Target<'_>) -> Option<(String, u64)> {
    let key = (target.namespace.unwrap_or_default().to_owned(), target.name.to_owned());
    let at = |definition: &Definition| (definition.file.to_string(), definition.line);
    match &*target.resource.id.plural {
        "subscriptions" => revision
            .snapshot
            .subscriptions
            .get(&key)
            .and_then(Reading::valid)
            .map(|found| at(&found.definition)),
        "localizations" | "globalizations" => {
            let mut overrides = revision.snapshot.overrides.values().filter_map(Reading::valid);
            overrides
                .find(|found| (&found.namespace, &found.name) == (&key.0, &key.1))
                .map(|found| at(&found.definition))
        }
        "helmcharts" => {
            let chart = ObjectKey {
                group: APPS_GROUP.to_owned(),
                kind: "HelmChart".to_owned(),
                namespace: Some(key.0),
                name: key.1,
            };
            revision.snapshot.feeds.get(&chart).map(at)
        }
        _ => None,
    }
}
