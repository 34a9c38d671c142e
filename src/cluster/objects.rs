//! Writing and deleting objects of any kind: server-side apply, guarded deletes, waiting for definitions.

use std::time::Duration;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::client::{Cluster, METADATA_ONLY};
use super::discovery::{Resource, version_path};
use super::error::ApiError;
use crate::core::apply::is_ours;
use crate::core::ids::{ClusterId, ObjectKey};

/// Our name in `metadata.managedFields`.
pub const FIELD_MANAGER: &str = "branchline";
/// JSON is YAML, so the body is sent as it is.
const APPLY_PATCH: &str = "application/apply-patch+yaml";
/// Waits between tries of a request that failed for a passing reason.
const RETRY_DELAYS: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];
/// Longest wait that an API server can impose on one request; the whole run is tried again later anyway.
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// How long a kind whose definition was just established may still be answered with 404.
const FRESH_FOR: Duration = Duration::from_secs(10);
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(60);
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b':')
    .remove(b'~');

/// What came of a delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// The API server has marked it as deleted, and something keeps it there: what.
    Going(String),
    /// It is there without our marks: somebody else's.
    NotOurs,
}

impl Cluster {
    /// Server-side apply; conflicts are taken over, because git is the decision. Passing failures are tried again a few times, until `halt`. An
    /// object that is being deleted takes the change and goes nevertheless: that is a failure.
    pub async fn apply(&self, key: &ObjectKey, body: &Value, halt: &CancellationToken) -> Result<(), ApiError> {
        let api_version = body.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let resource = self.resource(api_version, &key.kind).await?;
        let path = object_path(api_version, &resource, key);
        let started = Instant::now();
        loop {
            match self.apply_until(&path, body, halt).await {
                Err(error) if resource.fresh && error.is_no_such_path() && started.elapsed() < FRESH_FOR => {
                    if !pause(RETRY_DELAYS[0], halt).await {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    /// Server-side apply of an object whose path is known.
    pub async fn apply_at(&self, path: &str, body: &Value) -> Result<(), ApiError> {
        self.apply_until(path, body, &CancellationToken::new()).await
    }

    async fn apply_until(&self, path: &str, body: &Value, halt: &CancellationToken) -> Result<(), ApiError> {
        let uri = format!("{path}?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict");
        let bytes = serde_json::to_vec(body).map_err(|error| self.unexpected(path, &error))?;
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let error = match self.write(Method::PATCH, &uri, APPLY_PATCH, bytes.clone()).await {
                Ok(answer) => return self.read::<Answer>(path, &answer)?.metadata.stays(),
                Err(error) => error,
            };
            let delay = delays.next().filter(|_| error.is_transient());
            let delay = delay.map(|delay| error.retry_after().unwrap_or(*delay).min(LONGEST_DELAY));
            match delay {
                Some(delay) if pause(delay, halt).await => {}
                _ => return Err(error),
            }
        }
    }

    /// Deletes an object if it is ours, together with what it owns, and exactly the one that was looked at.
    pub async fn delete_ours(&self, api_version: &str, key: &ObjectKey) -> Result<Deleted, ApiError> {
        let Some((path, live)) = self.look(api_version, key).await? else {
            return Ok(Deleted::Gone);
        };
        if !is_ours(&live) {
            return Ok(Deleted::NotOurs);
        }
        if let Some(why) = going(&live) {
            return Ok(Deleted::Going(why));
        }
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": live.pointer("/metadata/uid")}});
        let body = options.to_string().into_bytes();
        match self.write(Method::DELETE, &path, "application/json", body).await {
            // The answer is a Status, or the object as it was last, which says nothing of whether it is there still.
            Ok(answer) if going(&self.read(&path, &answer)?).is_none() => Ok(Deleted::Gone),
            Ok(_) => Ok(match self.look(api_version, key).await? {
                Some((_, live)) => going(&live).map_or(Deleted::Gone, Deleted::Going),
                None => Deleted::Gone,
            }),
            Err(error) if error.is_not_found() => Ok(Deleted::Gone),
            Err(error) => Err(error),
        }
    }

    /// Whether an object is there and ours.
    pub async fn is_there(&self, api_version: &str, key: &ObjectKey) -> Result<bool, ApiError> {
        Ok(self.look(api_version, key).await?.is_some_and(|(_, live)| is_ours(&live)))
    }

    /// Its path and metadata, or nothing. Objects outlive the version that they were written with: any version that is served shows them. A kind
    /// that is not served in any version has no objects.
    async fn look(&self, api_version: &str, key: &ObjectKey) -> Result<Option<(String, Value)>, ApiError> {
        let mut is_catalog_new = false;
        loop {
            let seen = self.catalog();
            let Some(path) = self.path_in_any_version(api_version, key).await? else {
                return Ok(None);
            };
            match self.get_as::<Value>(&path, METADATA_ONLY).await {
                Ok(live) => return Ok(Some((path, live))),
                Err(error) if error.is_no_such_path() && !is_catalog_new => self.refresh(&seen).await?,
                Err(error) if error.is_no_such_path() => return Err(error),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
            is_catalog_new = true;
        }
    }

    async fn path_in_any_version(&self, api_version: &str, key: &ObjectKey) -> Result<Option<String>, ApiError> {
        match self.resource(api_version, &key.kind).await {
            Ok(resource) => Ok(Some(object_path(api_version, &resource, key))),
            Err(ApiError::NoSuchKind { .. }) => {
                let catalog = self.catalog();
                let served = catalog.find_any(&key.group, &key.kind);
                Ok(served.map(|(version, resource)| object_path(version, resource, key)))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until a CustomResourceDefinition is in service, and remembers its kinds.
    pub async fn established(&self, name: &str) -> Result<(), ApiError> {
        let path = definition_path(name);
        let deadline = Instant::now() + ESTABLISH_TIMEOUT;
        let mut delay = Duration::from_millis(5);
        loop {
            let definition: Value = self.get(&path).await?;
            if let Some(message) = condition(&definition, "NamesAccepted", "False") {
                return Err(ApiError::NotEstablished(format!("its names are not accepted: {message}")));
            }
            if condition(&definition, "Established", "True").is_some() {
                self.learn(&definition);
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = ESTABLISH_TIMEOUT.as_secs();
                let message = format!("the API server has not established it within {seconds} s; see its status with kubectl");
                return Err(ApiError::NotEstablished(message));
            }
            sleep(delay).await;
            delay = (delay * 2).min(Duration::from_millis(500));
        }
    }

    /// The cluster's identity: the UID of its `kube-system` namespace.
    pub async fn cluster_id(&self) -> Result<ClusterId, ApiError> {
        let path = "/api/v1/namespaces/kube-system";
        let namespace: Value = self.get_as(path, METADATA_ONLY).await?;
        let uid = namespace.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        uid.parse().map_err(|error| self.unexpected(path, &error))
    }
}

/// `false`: halted meanwhile.
async fn pause(delay: Duration, halt: &CancellationToken) -> bool {
    halt.run_until_cancelled(sleep(delay)).await.is_some()
}

/// What an answer to a write says about the object.
#[derive(Deserialize, Default)]
struct Answer {
    #[serde(default)]
    metadata: Lifetime,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Lifetime {
    deletion_timestamp: Option<String>,
    finalizers: Vec<String>,
}

impl Lifetime {
    fn stays(self) -> Result<(), ApiError> {
        match self.deletion_timestamp {
            None => Ok(()),
            Some(since) => Err(ApiError::BeingDeleted {
                since,
                finalizers: self.finalizers,
            }),
        }
    }
}

/// What keeps an object that is marked as deleted.
fn going(live: &Value) -> Option<String> {
    let lifetime = live
        .get("metadata")
        .and_then(|metadata| Lifetime::deserialize(metadata).ok())?;
    lifetime.stays().err().map(|error| error.to_string())
}

fn definition_path(name: &str) -> String {
    let name = utf8_percent_encode(name, NAME);
    format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
}

/// The path of one object.
pub(super) fn object_path(api_version: &str, resource: &Resource, key: &ObjectKey) -> String {
    let version = version_path(api_version);
    let (plural, name) = (&resource.plural, utf8_percent_encode(&key.name, NAME));
    if !resource.namespaced {
        return format!("{version}/{plural}/{name}");
    }
    let namespace = utf8_percent_encode(key.namespace.as_deref().unwrap_or("default"), NAME);
    format!("{version}/namespaces/{namespace}/{plural}/{name}")
}

/// The message of a condition that has this status.
fn condition(object: &Value, kind: &str, status: &str) -> Option<String> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions
        .iter()
        .find(|c| c.get("type").and_then(Value::as_str) == Some(kind))?;
    let holds = found.get("status").and_then(Value::as_str) == Some(status);
    holds.then(|| found.get("message").and_then(Value::as_str).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_scope_and_cannot_be_escaped() {
        let mut key = ObjectKey {
            group: "rbac.authorization.k8s.io".into(),
            kind: "ClusterRole".into(),
            namespace: None,
            name: "system:x/../y".into(),
        };
        let mut resource = Resource {
            plural: "clusterroles".into(),
            namespaced: false,
            fresh: false,
        };
        let version = "rbac.authorization.k8s.io/v1";
        assert_eq!(
            object_path(version, &resource, &key),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:x%2F..%2Fy"
        );
        resource.namespaced = true;
        key.name = "a".into();
        assert_eq!(
            object_path("v1", &resource, &key),
            "/api/v1/namespaces/default/clusterroles/a"
        );
    }
}
