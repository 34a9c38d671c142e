//! What may be written through the hub's API: labels, taints and removal of ManagedClusters, and decisions about registrations. From a request to
//! an edit; the writer carries it out. Everything else is owned by git.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::api::HubApi;
use crate::core::access::{Actor, Refusal};
use crate::core::ids::ClusterId;
use crate::core::object::Object;
use crate::core::readiness::UNSCHEDULABLE;
use crate::core::registration::{self, Approval, Basis, Edit, Edited, change};
use crate::core::state::registrations::{Decision, Registration};
use crate::core::taint::Taint;
use crate::kubeapi::patch::{json_patch, merge_patch};
use crate::kubeapi::{Action, ApiError, Backend, Cause, DeleteOptions, Outcome, PatchType, Target, WriteOptions, Written};

/// How long an answer waits until the API shows what was committed.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// A refusal in the front's form.
fn refused(refusal: Refusal) -> ApiError {
    ApiError::new(refusal.code, refusal.reason, refusal.message)
}

/// The same with the field at fault set apart, which is what `kubectl edit` shows.
fn refused_for(target: &Target<'_>, refusal: Refusal) -> ApiError {
    match refusal.field {
        Some(field) => {
            let (field, message) = *field;
            let reason = "FieldValueInvalid";
            ApiError::invalid(target.resource, target.name, vec![Cause { reason, message, field }])
        }
        None => refused(refusal),
    }
}

impl HubApi {
    /// Labels and taints of a ManagedCluster.
    pub(super) async fn change_cluster(
        &self,
        target: &Target<'_>,
        action: Action,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let shown = self.shown(target)?;
        let wanted = changed(&shown, action, target)?;
        let pinned = check_version(&shown, &wanted, target)?;
        let known = self.registration(&shown, target)?;
        let object = |value: &Value| Object::from_value(value.clone()).map_err(|error| ApiError::bad_request(error.to_string()));
        let (shown_object, wanted_object) = (object(&shown)?, object(&wanted)?);
        let change = change(&shown_object, &wanted_object, live_taint(&shown_object, &known).as_ref());
        let change = change.map_err(|refusal| refused_for(target, refusal))?;
        let warnings = warnings(&shown, &wanted);
        if change.is_empty() {
            return Ok(Written {
                outcome: Outcome::Updated(shown),
                warnings,
            });
        }
        let edit = Edit::Change {
            cluster: known.cluster_id.clone(),
            change,
            basis: pinned.then(|| Basis::of(&known)),
        };
        self.carry_out(target, edit, options).await?;
        let outcome = match options.dry_run {
            true => Arc::new(wanted),
            false => self
                .once(target, |object| same_facts(object, &wanted))
                .await
                .unwrap_or(Arc::new(wanted)),
        };
        Ok(Written {
            outcome: Outcome::Updated(outcome),
            warnings,
        })
    }

    /// Forgets a cluster, where the request says that what it runs may stay.
    pub(super) async fn remove_cluster(
        &self,
        target: &Target<'_>,
        asked: &DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let shown = self.shown(target)?;
        check_preconditions(&shown, asked, target)?;
        if asked.propagation.as_deref() != Some("Orphan") {
            let given = Value::from(asked.propagation.clone().unwrap_or_default());
            let detail = format!(
                "say what becomes of the objects that the hub gave the cluster. --cascade=orphan forgets the cluster and leaves them. To have \
                 them removed first, take the cluster out of the Subscriptions' selectors and wait until `kubectl get desc -n {}` is empty",
                target.namespace.unwrap_or_default()
            );
            let cause = Cause::invalid("propagationPolicy", &given, &detail);
            return Err(ApiError::invalid(target.resource, target.name, vec![cause]));
        }
        let known = self.registration(&shown, target)?;
        self.forget(target, shown, &known, options).await
    }

    /// A decision about a registration, in Clusternet's fields.
    pub(super) async fn decide(&self, target: &Target<'_>, action: Action, options: &WriteOptions) -> Result<Written, ApiError> {
        let shown = self.shown(target)?;
        let wanted = changed(&shown, action, target)?;
        check_version(&shown, &wanted, target)?;
        let known = self.registration(&shown, target)?;
        let Some(edit) = decision(&shown, &wanted, &known, target)? else {
            return Ok(Outcome::Updated(shown).into());
        };
        self.carry_out(target, edit, options).await?;
        let outcome = match options.dry_run {
            true => Arc::new(wanted),
            false => {
                let before = shown.pointer("/metadata/resourceVersion").cloned();
                let moved = |object: &Value| object.pointer("/metadata/resourceVersion").cloned() != before;
                self.once(target, moved).await.unwrap_or(Arc::new(wanted))
            }
        };
        Ok(Outcome::Updated(outcome).into())
    }

    /// Forgets a request that was not granted.
    pub(super) async fn forget_request(
        &self,
        target: &Target<'_>,
        asked: &DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let shown = self.shown(target)?;
        check_preconditions(&shown, asked, target)?;
        let known = self.registration(&shown, target)?;
        if known.decision == Decision::Approved {
            let why = format!(
                "the request of cluster {:?} was granted; kubectl delete mcls -n {} {} --cascade=orphan forgets the cluster",
                known.cluster_name, known.dedicated_namespace, known.cluster_name
            );
            return Err(ApiError::conflict(target.resource, target.name, &why));
        }
        self.forget(target, shown, &known, options).await
    }

    async fn forget(
        &self,
        target: &Target<'_>,
        shown: Arc<Value>,
        known: &Registration,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let edit = Edit::Remove {
            cluster: known.cluster_id.clone(),
        };
        self.carry_out(target, edit, options).await?;
        if !options.dry_run {
            // Ends with nothing as soon as there is no such object.
            self.once(target, |_| false).await;
        }
        Ok(Outcome::Deleted(shown).into())
    }

    fn shown(&self, target: &Target<'_>) -> Result<Arc<Value>, ApiError> {
        self.store()
            .get(&target.resource.id, target.namespace, target.name)
            .ok_or_else(|| ApiError::not_found(target.resource, target.name))
    }

    /// The registration behind a ManagedCluster or a request.
    fn registration(&self, object: &Value, target: &Target<'_>) -> Result<Registration, ApiError> {
        let id = object.pointer("/spec/clusterId").and_then(Value::as_str);
        let id: Option<ClusterId> = id.and_then(|id| id.parse().ok());
        let revision = self.revisions.borrow();
        let known = id.and_then(|id| revision.state.registrations.clusters.get(&id).cloned());
        known.ok_or_else(|| ApiError::not_found(target.resource, target.name))
    }

    /// Has the writer carry an edit out, or only asks the same rules whether it would.
    async fn carry_out(&self, target: &Target<'_>, edit: Edit, options: &WriteOptions) -> Result<(), ApiError> {
        if options.dry_run {
            let revision = self.revisions.borrow().clone();
            let mut registrations = revision.state.registrations.clone();
            let tried = registration::apply(&mut registrations, &edit, &revision.snapshot.clusters, Approval::Manual);
            return tried.map(drop).map_err(|refusal| refused_for(target, refusal));
        }
        let actor = Actor {
            user: options.user.clone(),
            sender: options.sender.clone(),
        };
        tracing::info!(
            user = actor.user,
            by = actor.sender,
            edit = edit.trigger(),
            "a change through the API"
        );
        match self
            .editor
            .edit_for(&actor, edit)
            .await
            .map_err(|refusal| refused_for(target, refusal))?
        {
            Edited::Registration(_) | Edited::Token => Ok(()),
        }
    }

    /// The object once it is as wanted; nothing when that takes too long.
    async fn once(&self, target: &Target<'_>, wanted: impl Fn(&Value) -> bool) -> Option<Arc<Value>> {
        let mut changed = self.store().follow(&target.resource.id);
        let look = async {
            loop {
                let found = self.store().get(&target.resource.id, target.namespace, target.name)?;
                if wanted(&found) {
                    return Some(found);
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(SHOWN_WITHIN, look).await.ok().flatten()
    }
}

/// The taint that the hub itself shows on a cluster: one that neither its registration nor git has.
fn live_taint(shown: &Object, known: &Registration) -> Option<Taint> {
    let taints = crate::core::index::read_taints(shown).ok().flatten().unwrap_or_default();
    let stated = |taint: &Taint| {
        known
            .taints
            .iter()
            .any(|own| own.key == taint.key && own.effect == taint.effect.as_str())
    };
    taints.into_iter().find(|taint| taint.key == UNSCHEDULABLE && !stated(taint))
}

/// The object as the request wants it.
fn changed(shown: &Value, action: Action, target: &Target<'_>) -> Result<Value, ApiError> {
    match action {
        Action::Update(object) => Ok(object),
        Action::Patch(PatchType::Merge, patch) => Ok(merge_patch(shown, &patch)),
        Action::Patch(PatchType::Json, patch) => json_patch(shown, &patch)
            .map_err(|problem| ApiError::new(422, "Invalid", format!("the server rejected our request: {problem}"))),
        Action::Patch(PatchType::Strategic | PatchType::Apply, _) => Err(ApiError::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
        ])),
        Action::Create(_) | Action::Delete(_) => Err(ApiError::method_not_allowed_because(
            target.resource,
            target.name,
            "cannot be made here",
        )),
    }
}

/// Whether the request is about one very revision, which has to be the current one.
fn check_version(shown: &Value, wanted: &Value, target: &Target<'_>) -> Result<bool, ApiError> {
    let version = |object: &Value| {
        object
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    match (version(wanted), version(shown)) {
        (Some(wanted), Some(current)) if wanted != current && !wanted.is_empty() => {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            Err(ApiError::conflict(target.resource, target.name, why))
        }
        (wanted, _) => Ok(wanted.is_some()),
    }
}

fn check_preconditions(shown: &Value, asked: &DeleteOptions, target: &Target<'_>) -> Result<(), ApiError> {
    for (pointer, wanted) in [
        ("/metadata/uid", &asked.uid),
        ("/metadata/resourceVersion", &asked.resource_version),
    ] {
        let current = shown.pointer(pointer).and_then(Value::as_str);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| Some(*wanted) != current) {
            let why = format!(
                "Precondition failed: {pointer} is {}, not {wanted}",
                current.unwrap_or_default()
            );
            return Err(ApiError::conflict(target.resource, target.name, &why));
        }
    }
    Ok(())
}

/// Whether labels and taints are those.
fn same_facts(object: &Value, wanted: &Value) -> bool {
    let labels = |object: &Value| object.pointer("/metadata/labels").cloned();
    let keys = |object: &Value| -> Vec<Value> {
        let taints = object
            .pointer("/spec/taints")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        taints.into_iter().filter(|taint| taint["key"] != UNSCHEDULABLE).collect()
    };
    labels(object) == labels(wanted) && keys(object) == keys(wanted)
}

/// What of a request is not kept.
fn warnings(shown: &Value, wanted: &Value) -> Vec<String> {
    const OF_KUBECTL: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let annotations = |object: &Value| {
        let mut all = object
            .pointer("/metadata/annotations")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        all.remove(OF_KUBECTL);
        all
    };
    let text = "annotations of ManagedClusters are not kept; only labels and spec.taints are";
    (annotations(shown) != annotations(wanted))
        .then(|| text.to_owned())
        .into_iter()
        .collect()
}

/// What a changed registration request says: its result, or what becomes of the new key that waits.
fn decision(shown: &Value, wanted: &Value, known: &Registration, target: &Target<'_>) -> Result<Option<Edit>, ApiError> {
    let text = |object: &Value, field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let cluster = known.cluster_id.clone();
    let invalid = |field: &str, detail: &str| {
        let value = wanted
            .pointer(&format!("/{}", field.replace('.', "/")))
            .cloned()
            .unwrap_or_default();
        Err(ApiError::invalid(
            target.resource,
            target.name,
            vec![Cause::invalid(field, &value, detail)],
        ))
    };
    if shown.get("spec") != wanted.get("spec") {
        return invalid("spec", "comes from the cluster; status.result decides about it");
    }
    let (result, before) = (text(wanted, "/status/result"), text(shown, "/status/result"));
    let (key, waiting) = (text(wanted, "/status/keyDigest"), text(wanted, "/status/pendingKeyDigest"));
    if result != before {
        return match result.as_str() {
            "Approved" => Ok(Some(Edit::Approve { cluster, key })),
            "Denied" => Ok(Some(Edit::Deny { cluster })),
            _ => invalid("status.result", "is Approved or Denied"),
        };
    }
    if key != text(shown, "/status/keyDigest") {
        return Ok(Some(Edit::Approve { cluster, key }));
    }
    match (waiting.as_str(), text(shown, "/status/pendingKeyDigest").as_str()) {
        (now, then) if now == then => Ok(None),
        ("", _) => Ok(Some(Edit::Deny { cluster })),
        _ => invalid("status.pendingKeyDigest", "can only be removed, which refuses the new key"),
    }
}
