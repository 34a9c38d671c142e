//! Server-side apply: merge, drop what the manager no longer applies and nobody else has, take ownership. Never stores.

use serde_json::Value;

use super::PatchContext;
use super::conflict::{ApplyError, Conflict};
use super::kind::KindSchema;
use super::managed::{self, Claim, Managed, ManagerId, Operation};
use super::merge::merge;
use super::path::{Step, same};
use super::schema::{Forms, Keys, TypeId};
use super::set::FieldSet;
use super::update::{keep_times, unmanaged, without_managers};
use super::validate::validate;
use super::walk::{compare, paths_of, remove};

/// Where client-side apply keeps what it applied last.
const LAST_APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
/// The only manager that takes over from client-side apply.
const KUBECTL: &str = "kubectl";
/// Manages what was there before the first apply to an object without managers.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The outcome of a merge: the new object and its managers.
struct Applied {
    object: Value,
    managed: Managed,
}

impl KindSchema {
    /// [`super::server_side_apply`] for this kind.
    pub fn apply(&self, live: Option<&Value>, applied: &Value, ctx: &PatchContext<'_>, force: bool) -> Result<Value, ApplyError> {
        self.check(applied, ctx)?;
        let before = without_managers(live);
        let managed = self.managers_before(live, &before, ctx)?;
        let outcome = match self.attempt(&before, applied, managed.clone(), ctx, force) {
            Err(ApplyError::Conflicts(conflicts)) if ctx.manager == KUBECTL => {
                match self.beyond_last_applied(&before, conflicts, ctx) {
                    conflicts if conflicts.is_empty() => self.attempt(&before, applied, managed, ctx, true)?,
                    conflicts => return Err(ApplyError::Conflicts(conflicts)),
                }
            }
            outcome => outcome?,
        };
        Ok(self.finish(live, applied, outcome, ctx))
    }

    fn check(&self, applied: &Value, ctx: &PatchContext<'_>) -> Result<(), ApplyError> {
        let text = |name: &str| applied.get(name).and_then(Value::as_str).unwrap_or_default();
        if (text("apiVersion"), text("kind")) != (ctx.api_version, ctx.kind) {
            let found = format!("{}, Kind={}", text("apiVersion"), text("kind"));
            return Err(ApplyError::Invalid(format!("invalid object type: {found}")));
        }
        if applied
            .pointer("/metadata/managedFields")
            .is_some_and(|entries| !entries.is_null())
        {
            return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
        }
        validate(&self.schema, self.root, applied).map_err(|problem| {
            let part = |pointer| applied.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let name = format!("{}/{}", part("/metadata/namespace"), part("/metadata/name"));
            // The core group shows as an empty name before the slash.
            let slash = if ctx.api_version.contains('/') { "" } else { "/" };
            let kind = format!("{slash}{}, Kind={}", ctx.api_version, ctx.kind);
            ApplyError::NotOfType(format!("failed to create typed patch object ({name}; {kind}): {problem}"))
        })
    }

    /// The managers of the live object; what nobody manages gets a manager of its own.
    fn managers_before(&self, live: Option<&Value>, before: &Value, ctx: &PatchContext<'_>) -> Result<Managed, ApplyError> {
        let entries = live.and_then(|live| live.pointer("/metadata/managedFields"));
        let mut managed = managed::decode(entries)
            .map_err(|problem| ApplyError::Invalid(format!("failed to decode managed fields: {problem}")))?;
        if managed.is_empty() && live.is_some() {
            let ctx = PatchContext {
                manager: BEFORE_FIRST_APPLY,
                ..*ctx
            };
            self.record_changes((&super::update::nothing(), before), &mut managed, &ctx);
        }
        Ok(managed)
    }

    fn attempt(
        &self,
        live: &Value,
        applied: &Value,
        mut managed: Managed,
        ctx: &PatchContext<'_>,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let me = ManagerId::new(ctx.manager, Operation::Apply, ctx.api_version, ctx.subresource);
        let merged = merge(&self.schema, self.root, live, applied)
            .map_err(|problem| ApplyError::NotOfType(format!("failed to merge config: {problem}")))?;
        let resets = self.reset_fields(ctx.subresource);
        let set = paths_of(&self.schema, self.root, applied).without_trees(&resets);
        let last = managed.remove(&me);
        let time = last.as_ref().and_then(|last| last.time.clone());
        managed.insert(
            me.clone(),
            Claim {
                set,
                api_version: ctx.api_version.to_owned(),
                time,
            },
        );
        let object = match &last {
            Some(last) => self.prune(merged, &managed, &last.set),
            None => merged,
        };
        self.take_over((live, &object), &mut managed, Some(&me), &resets, force)
            .map_err(ApplyError::Conflicts)?;
        let changed = !same(live, &object);
        if let Some(mine) = managed.get_mut(&me) {
            mine.set = mine.set.difference(&unmanaged());
            if changed {
                mine.time = Some(managed::whole_seconds(ctx.now));
            }
        }
        managed.retain(|_, claim| !claim.set.is_empty());
        Ok(Applied {
            object: if changed { object } else { live.clone() },
            managed,
        })
    }

    /// Removes what the manager applied last and applies no more, unless somebody has it or something in it.
    fn prune(&self, merged: Value, managed: &Managed, last: &FieldSet) -> Value {
        let (schema, root) = (&*self.schema, self.root);
        let with_parents = |set: &FieldSet| set.with_declared_parents(schema, Some(root));
        let strip = |paths: &FieldSet| remove(schema, root, &merged, paths);
        let last = with_parents(last);
        let all = with_parents(&paths_of(schema, root, &merged));

        let left = with_parents(&paths_of(schema, root, &strip(&last)));
        let owned = managed
            .values()
            .fold(FieldSet::default(), |owned, claim| owned.union(&claim.set));
        let pruned = strip(&all.difference(&left.union(&with_parents(&owned))));

        // Only what this manager applied may go; removing a parent must not take fields that were never applied.
        let left = with_parents(&paths_of(schema, root, &pruned));
        strip(&all.difference(&left).intersection(&last))
    }

    /// The conflicts that client-side apply, as it noted in its annotation, has not caused itself.
    fn beyond_last_applied(&self, live: &Value, conflicts: Vec<Conflict>, ctx: &PatchContext<'_>) -> Vec<Conflict> {
        let noted = live
            .pointer(LAST_APPLIED)
            .and_then(Value::as_str)
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(noted) = noted.filter(|noted| noted.get("apiVersion").and_then(Value::as_str) == Some(ctx.api_version)) else {
            return conflicts;
        };
        let changes = compare(&self.schema, self.root, &noted, live);
        let noted = paths_of(&self.schema, self.root, &noted);
        let noted = noted
            .difference(&changes.modified)
            .difference(&changes.added)
            .difference(&changes.removed);
        let noted: Vec<String> = noted
            .paths()
            .iter()
            .map(|path| path.iter().map(Step::to_string).collect::<String>())
            .collect();
        conflicts
            .into_iter()
            .filter(|conflict| !noted.contains(&conflict.field))
            .collect()
    }

    fn finish(&self, live: Option<&Value>, applied: &Value, outcome: Applied, ctx: &PatchContext<'_>) -> Value {
        let Applied { mut object, managed } = outcome;
        if self.built_in {
            self.drop_nulls(self.root, &mut object);
        }
        self.restore(&mut object, live, ctx.subresource);
        if let (KUBECTL, Some(note)) = (ctx.manager, object.pointer_mut(LAST_APPLIED)) {
            *note = Value::from(noted(applied));
        }
        managed::put(&mut object, &managed);
        keep_times(live, object)
    }

    /// Drops null fields of structs and maps, as decoding into a built-in type does.
    fn drop_nulls(&self, kind: TypeId, value: &mut Value) {
        let atom = self.schema.atom(kind);
        match (atom.forms(Some(value)), &atom.map, &atom.list, value) {
            (
                Forms {
                    scalar: false,
                    map: true,
                    ..
                },
                Some(map),
                _,
                Value::Object(fields),
            ) if atom.scalar.is_none() => {
                fields.retain(|_, value| !value.is_null());
                for (key, value) in fields.iter_mut() {
                    self.drop_nulls(map.child(key).unwrap_or(self.schema.deduced()), value);
                }
            }
            (_, _, Some(list), Value::Array(items)) if list.keys != Keys::Atomic || atom.scalar.is_none() => {
                items.iter_mut().for_each(|item| self.drop_nulls(list.element, item));
            }
            _ => {}
        }
    }
}

/// What client-side apply would note of this object: all of it but the note.
fn noted(applied: &Value) -> String {
    let mut applied = applied.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    format!("{applied}\n")
}
