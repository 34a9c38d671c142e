//! Deletion: finalizers, namespaces with all that is in them, definitions with all their objects. Pure but for the transaction.

use std::sync::Arc;

use serde_json::{Value, json};

use super::builtin;
use super::metadata::text;
use super::writing::Writer;
use crate::kubeapi::table::list;
use crate::kubeapi::{ApiError, DeleteOptions, Outcome, ResourceId, Transaction};

/// Namespaces that every cluster has.
pub(super) const PERMANENT: &[&str] = &["default", "kube-public", "kube-system"];

/// Whether an object whose deletion was asked for has nothing left that holds it.
pub(super) fn is_finished(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some() && !is_held(object)
}

fn is_held(object: &Value) -> bool {
    let is_namespace = text(object, "/kind") == "Namespace" && text(object, "/apiVersion") == "v1";
    !list(object, "/metadata/finalizers").is_empty() || (is_namespace && !list(object, "/spec/finalizers").is_empty())
}

impl Writer<'_, '_> {
    /// DELETE. The propagation policy is accepted and makes no difference: no garbage collector follows owner references here.
    pub(super) fn delete(&mut self, options: &DeleteOptions) -> Result<Outcome, ApiError> {
        let live = self.existing()?;
        self.check_preconditions(&live, options)?;
        let resource = self.resource();
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        if is_namespace && PERMANENT.contains(&self.target.name) {
            return Err(ApiError::forbidden(
                resource,
                self.target.name,
                "this namespace may not be deleted",
            ));
        }
        let marked = marked(&live, self.birth.now);
        if self.options.dry_run {
            return Ok(if is_held(&live) {
                Outcome::Updated(live)
            } else {
                Outcome::Deleted(live)
            });
        }
        let id = &self.target.resource.id;
        let is_definition = resource.group == "apiextensions.k8s.io" && resource.plural == "customresourcedefinitions";
        if !is_held(&live) && !is_definition {
            return Ok(Outcome::Deleted(remove(self.transaction, id, &live)));
        }
        let marked = match live.pointer("/metadata/deletionTimestamp") {
            Some(_) => live,
            None => self.transaction.put(id, marked),
        };
        if is_namespace {
            empty_namespace(self.transaction, self.target.name, self.birth.now);
        }
        if is_definition {
            empty_definition(self.transaction, &marked, self.birth.now);
        }
        Ok(Outcome::Updated(marked))
    }

    fn check_preconditions(&self, live: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
        for (what, wanted, pointer) in [
            ("UID", &options.uid, "/metadata/uid"),
            ("ResourceVersion", &options.resource_version, "/metadata/resourceVersion"),
        ] {
            let found = text(live, pointer);
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
                let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
                return Err(ApiError::conflict(self.resource(), self.target.name, &why));
            }
        }
        Ok(())
    }
}

/// The object with its deletion under way.
fn marked(live: &Value, now: &str) -> Value {
    let mut object = live.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("deletionTimestamp".to_owned(), json!(now));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".to_owned(), json!(generation + 1));
        }
    }
    if text(&object, "/kind") == "Namespace" {
        object["status"] = json!({"phase": "Terminating"});
    }
    object
}

/// Takes the object out of the store, and whatever waited for it: its namespace or its definition.
pub(super) fn remove(transaction: &mut Transaction<'_>, id: &ResourceId, object: &Arc<Value>) -> Arc<Value> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
    let last = transaction.remove(id, namespace, text(object, "/metadata/name"));
    if let Some(namespace) = namespace {
        finish_namespace(transaction, namespace);
    }
    finish_definition(transaction, id);
    last.unwrap_or_else(|| object.clone())
}

/// Removes or marks everything in the namespace, then the namespace itself if nothing is left.
fn empty_namespace(transaction: &mut Transaction<'_>, namespace: &str, now: &str) {
    for id in transaction.collections_in(namespace) {
        remove_all(transaction, &id, Some(namespace), now);
    }
    finish_namespace(transaction, namespace);
}

fn remove_all(transaction: &mut Transaction<'_>, id: &ResourceId, namespace: Option<&str>, now: &str) {
    for object in transaction.list(id, namespace) {
        let home = object.pointer("/metadata/namespace").and_then(Value::as_str);
        if !is_held(&object) {
            transaction.remove(id, home, text(&object, "/metadata/name"));
        } else if object.pointer("/metadata/deletionTimestamp").is_none() {
            transaction.put(id, marked(&object, now));
        }
    }
}

/// A terminating namespace without content loses its own finalizer and goes, unless somebody else's finalizer holds it.
fn finish_namespace(transaction: &mut Transaction<'_>, namespace: &str) {
    let namespaces = builtin::id_of("", "namespaces");
    let Some(object) = transaction.get(&namespaces, None, namespace) else {
        return;
    };
    let terminating = object.pointer("/metadata/deletionTimestamp").is_some();
    if !terminating || !transaction.collections_in(namespace).is_empty() {
        return;
    }
    if !list(&object, "/metadata/finalizers").is_empty() {
        let mut emptied = Value::clone(&object);
        emptied["spec"] = json!({});
        if emptied != *object {
            transaction.put(&namespaces, emptied);
        }
        return;
    }
    transaction.remove(&namespaces, None, namespace);
}

/// Removes or marks all objects of the definition, then the definition itself if nothing is left.
fn empty_definition(transaction: &mut Transaction<'_>, definition: &Value, now: &str) {
    let id = builtin::id_of(text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    remove_all(transaction, &id, None, now);
    finish_definition(transaction, &id);
}

fn finish_definition(transaction: &mut Transaction<'_>, id: &ResourceId) {
    let definitions = builtin::id_of("apiextensions.k8s.io", "customresourcedefinitions");
    let name = format!("{}.{}", id.plural, id.group);
    let Some(definition) = transaction.get(&definitions, None, &name) else {
        return;
    };
    let terminating = definition.pointer("/metadata/deletionTimestamp").is_some();
    if terminating && !is_held(&definition) && transaction.list(id, None).is_empty() {
        transaction.remove(&definitions, None, &name);
    }
}
