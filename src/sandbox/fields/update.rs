//! Records who changed what: the ownership step that apply and update share, and the record of creates, updates and patches.
//! Never merges objects.

use serde_json::{Map, Value};

use super::PatchContext;
use super::conflict::Conflict;
use super::kind::KindSchema;
use super::managed::{self, Claim, Managed, ManagerId, Operation};
use super::path::{Step, same};
use super::set::FieldSet;
use super::walk::{Comparison, compare};

/// An empty object.
pub(super) fn nothing() -> Value {
    Value::Object(Map::new())
}

/// Fields that no manager ever has: they name the object or belong to the server.
pub(super) fn unmanaged() -> FieldSet {
    let metadata = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let mut set = FieldSet::of_fields(&[&["apiVersion"], &["kind"], &["metadata"]]);
    for name in metadata {
        set.insert(&[Step::field("metadata"), Step::field(name)]);
    }
    set
}

impl KindSchema {
    /// Takes changed and removed fields from all managers but `me`; without `force` changed fields of others are conflicts.
    pub(super) fn take_over(
        &self,
        (old, new): (&Value, &Value),
        managed: &mut Managed,
        me: Option<&ManagerId>,
        resets: &FieldSet,
        force: bool,
    ) -> Result<Comparison, Vec<Conflict>> {
        let changes = compare(&self.schema, self.root, old, new).without_trees(resets);
        let written = changes.modified.union(&changes.added);
        let others = || managed.iter().filter(|(id, _)| Some(*id) != me);
        let conflicts: Vec<Conflict> = others()
            .flat_map(|(id, claim)| conflicts_of(id, claim, &claim.set.intersection(&written)))
            .collect();
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        for (_, claim) in managed.iter_mut().filter(|(id, _)| Some(*id) != me) {
            claim.set = claim.set.difference(&written).difference(&changes.removed);
        }
        managed.retain(|_, claim| !claim.set.is_empty());
        Ok(changes)
    }

    /// Records an update by `manager` in `managed`.
    pub(super) fn record_changes(&self, (old, new): (&Value, &Value), managed: &mut Managed, ctx: &PatchContext<'_>) {
        let resets = self.reset_fields(ctx.subresource);
        // With force there are no conflicts to report.
        let changes = self.take_over((old, new), managed, None, &resets, true).unwrap_or_default();
        let set = changes
            .modified
            .union(&changes.added)
            .without_trees(&resets)
            .difference(&unmanaged());
        if set.is_empty() {
            return;
        }
        let id = ManagerId::new(ctx.manager, Operation::Update, ctx.api_version, ctx.subresource);
        let before = managed.remove(&id).map(|claim| claim.set).unwrap_or_default();
        let time = Some(managed::whole_seconds(ctx.now));
        managed.insert(
            id,
            Claim {
                set: before.union(&set),
                api_version: ctx.api_version.to_owned(),
                time,
            },
        );
    }

    /// [`super::record_update`] for this kind.
    pub fn record(&self, old: Option<&Value>, new: Value, ctx: &PatchContext<'_>) -> Value {
        let mut new = new;
        let mut managed = managers_of(old, managed::take(&mut new).as_ref(), ctx);
        self.restore(&mut new, old, ctx.subresource);
        managed::take(&mut new);
        // An object that nobody manages stays so until it is applied; a new one is managed from its first moment.
        if managed.is_empty() && old.is_some() {
            return new;
        }
        let before = without_managers(old);
        self.record_changes((&before, &new), &mut managed, ctx);
        managed::limit_updaters(&mut managed);
        managed::put(&mut new, &managed);
        keep_times(old, new)
    }
}

fn conflicts_of(id: &ManagerId, claim: &Claim, set: &FieldSet) -> Vec<Conflict> {
    let conflict = |path: Vec<Step>| Conflict {
        manager: id.manager.clone(),
        operation: id.operation,
        api_version: claim.api_version.clone(),
        subresource: id.subresource.clone(),
        field: path.iter().map(Step::to_string).collect(),
    };
    set.paths().into_iter().map(conflict).collect()
}

/// The managers before an update: those the client sends, or else those of the live object. Through a subresource, and
/// for a client that knows nothing of managers, always those of the live object.
fn managers_of(old: Option<&Value>, sent: Option<&Value>, ctx: &PatchContext<'_>) -> Managed {
    let live = || managed::decode(old.and_then(|old| old.pointer("/metadata/managedFields"))).unwrap_or_default();
    if !ctx.subresource.is_empty() {
        return live();
    }
    if managed::is_reset(sent) {
        return Managed::new();
    }
    managed::decode(sent)
        .ok()
        .filter(|managed| !managed.is_empty())
        .unwrap_or_else(live)
}

/// A copy of an object without its managers; nothing is the empty object.
pub(super) fn without_managers(object: Option<&Value>) -> Value {
    let mut object = object.cloned().unwrap_or_else(nothing);
    managed::take(&mut object);
    object
}

/// Gives `new` the old times if nothing but times changed, so that the write is none.
pub(super) fn keep_times(old: Option<&Value>, new: Value) -> Value {
    match old {
        Some(old) if same(&without_times(old), &without_times(&new)) => old.clone(),
        _ => new,
    }
}

fn without_times(object: &Value) -> Value {
    let mut object = object.clone();
    let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
        entry.remove("time");
    }
    object
}
