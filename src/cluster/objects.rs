//! Writing and deleting objects of any kind: server-side apply, guarded deletes, waiting for definitions.

use std::time::Duration;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// It is gone, or going.
    Gone,
    /// It is there without our marks: somebody else's.
    NotOurs,
}

impl Cluster {
    /// Server-side apply; conflicts are taken over, because git is the decision. Passing failures are tried again a few times.
    pub async fn apply(&self, key: &ObjectKey, body: &Value) -> Result<(), ApiError> {
        let api_version = body.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let resource = self.resource(api_version, &key.kind).await?;
        let path = object_path(api_version, &resource, key);
        let started = Instant::now();
        loop {
            match self.apply_at(&path, body).await {
                Err(error) if resource.fresh && error.is_no_such_path() && started.elapsed() < FRESH_FOR => {
                    sleep(RETRY_DELAYS[0]).await;
                }
                result => return result,
            }
        }
    }

    /// Server-side apply of an object whose path is known.
    pub async fn apply_at(&self, path: &str, body: &Value) -> Result<(), ApiError> {
        let uri = format!("{path}?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict");
        let bytes = serde_json::to_vec(body).map_err(|error| self.unexpected(path, &error))?;
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let Err(error) = self.write(Method::PATCH, &uri, APPLY_PATCH, bytes.clone()).await else {
                return Ok(());
            };
            match delays.next() {
                Some(delay) if error.is_transient() => sleep(error.retry_after().unwrap_or(*delay).min(LONGEST_DELAY)).await,
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
        if live.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(Deleted::Gone);
        }
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": live.pointer("/metadata/uid")}});
        let body = options.to_string().into_bytes();
        match self.write(Method::DELETE, &path, "application/json", body).await {
            Ok(_) => Ok(Deleted::Gone),
            Err(error) if error.is_not_found() => Ok(Deleted::Gone),
            Err(error) => Err(error),
        }
    }

    /// Whether an object is there and ours.
    pub async fn is_there(&self, api_version: &str, key: &ObjectKey) -> Result<bool, ApiError> {
        Ok(self.look(api_version, key).await?.is_some_and(|(_, live)| is_ours(&live)))
    }

    /// Its path and metadata, or nothing. A kind that is not served any more has no objects.
    async fn look(&self, api_version: &str, key: &ObjectKey) -> Result<Option<(String, Value)>, ApiError> {
        let resource = match self.resource(api_version, &key.kind).await {
            Ok(resource) => resource,
            Err(ApiError::NoSuchKind { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = object_path(api_version, &resource, key);
        match self.get_as::<Value>(&path, METADATA_ONLY).await {
            Ok(live) => Ok(Some((path, live))),
            Err(error) if error.is_not_found() => Ok(None),
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
