//! The hub's Kubernetes API: a [`Backend`] over the projected store. What git owns is changed in git, and a refusal says where; what may be
//! written is in [`super::writes`].

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::editing::Editor;
use super::kinds;
use super::projection::SOURCE_ANNOTATION;
use super::revision::Revision;
use super::self_reviews;
use crate::core::access::User;
use crate::core::api::APPS_GROUP;
use crate::core::state::subscription_of;
use crate::kubeapi::{
    Action, ApiError, Backend, Catalog, HealthCheck, Outcome, Resource, ServerVersion, Store, Target, WriteOptions, Written,
    clusternet_schemas,
};

/// The Kubernetes version whose API conventions are followed.
const KUBERNETES_MINOR: &str = "35";

/// What stands behind the hub's front.
#[derive(Debug)]
pub struct HubApi {
    catalog: Arc<Catalog>,
    store: Arc<Store>,
    pub(super) revisions: watch::Receiver<Arc<Revision>>,
    pub(super) editor: Editor,
    /// The source repository, for messages.
    source: String,
}

impl HubApi {
    /// An API over a store that somebody else fills.
    pub fn new(store: Arc<Store>, revisions: watch::Receiver<Arc<Revision>>, source: String, editor: Editor) -> Self {
        HubApi {
            catalog: Arc::new(Catalog::new(kinds::resources())),
            store,
            revisions,
            editor,
            source,
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
        clusternet_schemas(&self.catalog, group, version)
    }

    fn refusal(&self, target: &Target<'_>) -> ApiError {
        ApiError::method_not_allowed_because(target.resource, target.name, &self.owner(target))
    }

    async fn write(&self, target: &Target<'_>, action: Action, options: &WriteOptions) -> Result<Written, ApiError> {
        match (&*target.resource.plural, action) {
            ("managedclusters", Action::Delete(asked)) => self.remove_cluster(target, &asked, options).await,
            ("managedclusters", action @ (Action::Update(_) | Action::Patch(..))) => {
                self.change_cluster(target, action, options).await
            }
            ("clusterregistrationrequests", Action::Delete(asked)) => self.forget_request(target, &asked, options).await,
            ("clusterregistrationrequests", action @ (Action::Update(_) | Action::Patch(..))) => {
                self.decide(target, action, options).await
            }
            ("selfsubjectreviews" | "selfsubjectaccessreviews" | "selfsubjectrulesreviews", Action::Create(question)) => {
                let user = User {
                    name: options.user.clone(),
                    groups: options.groups.clone(),
                    ..User::default()
                };
                let revision = self.revisions.borrow().clone();
                let answer = self_reviews::answer(&question, &user, &revision.policy, &revision.state.registrations)?;
                Ok(Outcome::Created(Arc::new(answer)).into())
            }
            _ => Err(self.refusal(target)),
        }
    }
}

impl HubApi {
    /// Who owns what a write is about, and where it is changed.
    fn owner(&self, target: &Target<'_>) -> String {
        let source = &self.source;
        let of_git = |place: &str| format!("is owned by git: edit {place} in {source}, commit and push");
        let found = self.place(target.resource, target.namespace, target.name);
        match (&*target.resource.plural, found) {
            ("bases" | "descriptions" | "helmreleases", _) => match self.place_of_subscription(target.name) {
                Some(place) => format!("is made by the hub of a Subscription: edit {place} in {source}, commit and push"),
                None => format!("is made by the hub of a Subscription: change that in {source}, commit and push"),
            },
            ("clusterregistrationrequests", _) => {
                "is made by agents that register: `branchline approve`, `branchline deny` and its subresource status decide about it".to_owned()
            }
            ("namespaces", _) => "come and go with the clusters and the objects of the source repository that name them".to_owned(),
            ("events", _) => "is told by the hub".to_owned(),
            ("managedclusters", _) => {
                "comes with the registration of its agent: only labels, taints and its removal are decided here".to_owned()
            }
            (_, Some(place)) => of_git(&place),
            (_, None) => format!("is owned by git: add it to {source}, commit and push"),
        }
    }

    /// File and line where git defines an object.
    fn place(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Option<String> {
        let object = self.store.get(&resource.id, namespace, name)?;
        let annotations = object.pointer("/metadata/annotations")?;
        Some(annotations.get(SOURCE_ANNOTATION)?.as_str()?.to_owned())
    }

    /// Where git defines the Subscription that something in a dedicated namespace is named after.
    fn place_of_subscription(&self, name: &str) -> Option<String> {
        let (namespace, rest) = subscription_of(name)?;
        let subscriptions = self.catalog.find(APPS_GROUP, "v1alpha1", "subscriptions")?;
        // A HelmRelease's name goes on behind that of its Subscription.
        let parts: Vec<usize> = rest.match_indices('.').map(|(at, _)| at).chain([rest.len()]).collect();
        let mut names = parts.into_iter().rev().map(|end| &rest[..end]);
        names.find_map(|name| self.place(subscriptions, Some(namespace), name))
    }
}
