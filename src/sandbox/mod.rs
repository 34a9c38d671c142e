//! The sandbox: a Kubernetes-style API server in memory for demonstrations, simulations and tests. It has discovery, OpenAPI, CRUD,
//! the four kinds of patches with real `managedFields`, watches, tables, finalizers, namespaces and custom resources. It has no
//! admission, no defaulting, no controllers, no garbage collector and no RBAC: everybody may do everything, and nothing runs.
//!
//! `server` and `keeper` touch the world (a socket, a file), `api` reads clock and randomness; everything else is pure.

mod api;
mod builtin;
mod custom;
mod deletion;
pub mod fields;
mod keeper;
mod metadata;
mod printers;
mod reviews;
mod scale;
mod server;
mod snapshot;
mod writing;

use std::fmt::Display;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use api::Api;
pub use keeper::{KeepError, keep, load_snapshot, save_snapshot};
pub use snapshot::{SNAPSHOT_VERSION, Snapshot, SnapshotObject};

use crate::core::object::Object;
use crate::kubeapi::{Backend, Front, RequestContext, ResponseBody, ServerVersion};

/// What a sandbox starts with.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// UID of the namespace `kube-system`, which is the cluster's identity; the other namespaces' UIDs follow from it.
    pub kube_system_uid: Uuid,
    /// Objects of an earlier run; its namespaces keep their UIDs.
    pub snapshot: Option<Snapshot>,
}

/// An API server in memory; clones are the same server.
#[derive(Debug, Clone)]
pub struct Sandbox {
    front: Arc<Front<Api>>,
}

/// The Kubernetes version that a sandbox says it is.
fn version() -> ServerVersion {
    ServerVersion {
        major: "1".to_owned(),
        minor: "35".to_owned(),
        git_version: "v1.35.0+branchline-sandbox".to_owned(),
        platform: format!("{}/{}", std::env::consts::OS, architecture()),
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Sandbox {
    /// A sandbox with the four namespaces of a new cluster, or with the objects of a snapshot.
    pub fn new(options: SandboxOptions) -> Sandbox {
        let snapshot = options.snapshot.unwrap_or_default();
        let api = Api::new(snapshot.revision, version());
        import(&api, snapshot);
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            add_namespace(&api, name, &options.kube_system_uid);
        }
        Sandbox {
            front: Arc::new(Front::new(Arc::new(api), CancellationToken::new())),
        }
    }

    /// The same server, whose watches end when the token is cancelled.
    fn ending_with(&self, shutdown: CancellationToken) -> Sandbox {
        Sandbox {
            front: Arc::new(Front::new(self.front.backend().clone(), shutdown)),
        }
    }

    /// Answers one request.
    pub async fn handle<Q>(&self, request: Request<Q>, context: RequestContext) -> Response<ResponseBody>
    where
        Q: Body + Send,
        Q::Data: Send,
        Q::Error: Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.front.handle(request, context).await
    }

    /// Stores an object of a built-in or custom kind as it is, status included, and gives it a UID and a creation time if it has
    /// none. False when the kind is not served. For what a real cluster's kubelets and controllers would write, such as a Node.
    pub fn place(&self, object: Object) -> bool {
        let api = self.front.backend();
        let (group, version) = (
            object.group().to_owned(),
            object.api_version().rsplit('/').next().map(str::to_owned),
        );
        let catalog = api.catalog();
        let Some(resource) = catalog.find_kind(&group, version.as_deref().unwrap_or_default(), object.kind()) else {
            return false;
        };
        let mut value = object.into_value();
        let (uid, now) = (Uuid::new_v4().to_string(), api::now_text());
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.entry("uid").or_insert_with(|| json!(uid));
            metadata.entry("creationTimestamp").or_insert_with(|| json!(now));
        }
        api.store().write(|transaction| {
            transaction.put(&resource.id, value);
            api.refresh_catalog(transaction);
        });
        true
    }

    /// Follows the revision: whoever keeps the objects waits for it.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.front.backend().store().revisions()
    }

    /// All objects as a value.
    pub fn export(&self) -> Snapshot {
        let (revision, objects) = self.front.backend().store().everything();
        let objects = objects.into_iter().map(|(id, object)| SnapshotObject {
            group: id.group.to_string(),
            plural: id.plural.to_string(),
            object: object.value(),
        });
        Snapshot {
            version: SNAPSHOT_VERSION,
            revision,
            objects: objects.collect(),
        }
    }
}

fn import(api: &Api, snapshot: Snapshot) {
    api.store().write(|transaction| {
        for entry in snapshot.objects {
            transaction.load(&builtin::id_of(&entry.group, &entry.plural), entry.object);
        }
        api.refresh_catalog(transaction);
    });
}

fn add_namespace(api: &Api, name: &str, kube_system_uid: &Uuid) {
    let namespaces = builtin::id_of("", "namespaces");
    let uid = match name {
        "kube-system" => *kube_system_uid,
        other => Uuid::new_v5(kube_system_uid, other.as_bytes()),
    };
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "uid": uid.to_string(), "creationTimestamp": api::now_text(),
            "labels": {"kubernetes.io/metadata.name": name},
        },
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    });
    api.store().write(|transaction| {
        if transaction.get(&namespaces, None, name).is_none() {
            transaction.put(&namespaces, namespace);
        }
    });
}
