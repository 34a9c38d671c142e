//! One override's entries onto a feed, in order: what each set, what was skipped, what is wrong. The dialects have files of their own.

use serde_json::Value;

use super::AppliedOverride;
use super::field_patch::{self, FieldError};
use super::json_patch::{self, PatchError};
use super::{helm_values, merge_patch};
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{Entry, Override, PatchKind, quoted};
use crate::core::object::Object;

/// Why an entry changed nothing.
enum Trouble {
    /// It needs something that is not there: it is left out with a warning.
    Skipped { field: String, message: String },
    /// It is wrong: the feed is held.
    Failed { field: String, message: String },
}

impl Trouble {
    fn failed(message: impl Into<String>) -> Self {
        Trouble::Failed {
            field: String::new(),
            message: message.into(),
        }
    }

    /// A JSON patch's trouble with what `target` names.
    fn of_json_patch(error: PatchError, target: &str) -> Self {
        match error {
            PatchError::MissingPath { operation, pointer } => Trouble::Skipped {
                message: format!("operation {operation} needs a path that {target} does not have"),
                field: pointer,
            },
            PatchError::Invalid {
                operation,
                pointer,
                message,
            } => Trouble::Failed {
                message: match pointer.as_str() {
                    "" => message,
                    pointer => format!("operation {operation} at {pointer}: {message}"),
                },
                field: pointer,
            },
        }
    }

    /// A field patch's trouble with the text at `field`.
    fn of_field_patch(error: FieldError, field: String, feed: &str) -> Self {
        match error {
            FieldError::Empty => Trouble::Skipped {
                message: format!("the field {field} is empty"),
                field,
            },
            FieldError::Wrong(message) => Trouble::Failed { field, message },
            FieldError::Patch(error) => match Trouble::of_json_patch(error, &format!("the text at {field} of {feed}")) {
                Trouble::Skipped { message, .. } => Trouble::Skipped { field, message },
                Trouble::Failed { message, .. } => Trouble::Failed { field, message },
            },
        }
    }
}

/// Applies every entry, or says why the feed is held.
pub(super) fn apply_override(
    object: &mut Value,
    applied: &Override,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<AppliedOverride, Box<Diagnostic>> {
    let mut entries = Vec::with_capacity(applied.entries.len());
    for entry in &applied.entries {
        let mut fields = Vec::new();
        match apply_entry(object, applied, entry, &mut fields) {
            Ok(()) => {}
            Err(Trouble::Skipped { field, message }) => diagnostics.push(skipped(applied, entry, &field, &message)),
            Err(Trouble::Failed { field, message }) => return Err(Box::new(patch_failure(applied, entry, &field, &message))),
        }
        entries.push((entry.index, entry.name.clone(), fields));
    }
    Ok(AppliedOverride {
        kind: applied.kind.as_str(),
        namespace: applied.namespace.clone(),
        name: applied.name.clone(),
        entries,
    })
}

/// Applies one entry whole or not at all.
fn apply_entry(object: &mut Value, applied: &Override, entry: &Entry, fields: &mut Vec<String>) -> Result<(), Trouble> {
    let mut changed = object.clone();
    let mut set = Vec::new();
    patch(&mut changed, entry, &applied.feed.to_string(), &mut set)?;
    check_identity(&changed, object).map_err(Trouble::failed)?;
    *object = changed;
    fields.append(&mut set);
    Ok(())
}

fn patch(target: &mut Value, entry: &Entry, feed: &str, fields: &mut Vec<String>) -> Result<(), Trouble> {
    match &entry.kind {
        PatchKind::Blank => {}
        PatchKind::Helm => {
            let (values, patch) = mappings(target, &entry.value)?;
            helm_values::apply(values, patch, fields);
        }
        PatchKind::MergePatch => {
            let (target, patch) = mappings(target, &entry.value)?;
            merge_patch::apply(target, patch, fields);
        }
        PatchKind::JsonPatch => {
            json_patch::apply(target, &entry.value, fields).map_err(|error| Trouble::of_json_patch(error, feed))?;
        }
        PatchKind::FieldMergePatch(text) | PatchKind::FieldJsonPatch(text) => {
            let field = field_patch::pointer_of(text);
            field_patch::apply(target, text, &entry.kind, &entry.value)
                .map_err(|error| Trouble::of_field_patch(error, field.clone(), feed))?;
            fields.push(field);
        }
    }
    Ok(())
}

type Mapping = serde_json::Map<String, Value>;

fn mappings<'a>(target: &'a mut Value, patch: &'a Value) -> Result<(&'a mut Mapping, &'a Mapping), Trouble> {
    let patch = patch.as_object().ok_or_else(|| Trouble::failed("the patch is no mapping"))?;
    let target = target
        .as_object_mut()
        .ok_or_else(|| Trouble::failed("what it would change is no mapping"))?;
    Ok((target, patch))
}

/// An override may move an object to another namespace, but it may not turn it into another object.
fn check_identity(changed: &Value, before: &Value) -> Result<(), String> {
    for (pointer, field) in [
        ("/apiVersion", "apiVersion"),
        ("/kind", "kind"),
        ("/metadata/name", "metadata.name"),
    ] {
        if changed.pointer(pointer) != before.pointer(pointer) {
            return Err(format!("an override may not change {field}"));
        }
    }
    Object::from_value(changed.clone())
        .map(drop)
        .map_err(|error| format!("the result is no Kubernetes object: {error}"))
}

fn entry_pointer(entry: &Entry) -> String {
    format!("/spec/overrides/{}", entry.index)
}

fn patch_failure(applied: &Override, entry: &Entry, field: &str, message: &str) -> Diagnostic {
    let (name, index) = (quoted(&entry.name), entry.index);
    let message = format!("entry {name} ({index}) fails on {}: {message}", applied.feed);
    let field = match field {
        "" => entry_pointer(entry),
        field => field.to_owned(),
    };
    let diagnostic = Diagnostic::error("patch-failure", message).field(field);
    applied.definition.locate(
        diagnostic.hint("correct the patch; until then the feed keeps its last result"),
        &entry_pointer(entry),
    )
}

fn skipped(applied: &Override, entry: &Entry, field: &str, message: &str) -> Diagnostic {
    let message = format!("entry {} ({}) is skipped: {message}", quoted(&entry.name), entry.index);
    let diagnostic = Diagnostic::warning("patch-missing-path", message).field(field);
    applied.definition.locate(
        diagnostic.hint("correct the path, or add its parent first"),
        &entry_pointer(entry),
    )
}
