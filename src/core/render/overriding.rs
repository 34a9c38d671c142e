//! One override's entries onto a feed, in order: what each set, what was skipped, what is wrong. The dialects have files of their own.

use serde_json::Value;

use super::field_patch::{self, FieldError};
use super::json_patch::{self, PatchError};
use super::{AppliedOverride, helm_values, merge_patch, release};
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::is_dns_name;
use crate::core::index::{ChartProblem, Entry, Override, OverrideKind, PatchKind, identity, is_chart, quoted};
use crate::core::object::Object;

/// What overrides change: an object, or a HelmChart with the values that overrides give it.
pub(super) struct Subject {
    pub(super) object: Value,
    is_chart: bool,
    /// A HelmChart's values; none before the first override that gives some.
    pub(super) values: Option<Value>,
}

impl Subject {
    /// The feed as it stands in git.
    pub(super) fn new(object: &Object) -> Self {
        let key = identity(object);
        let is_chart = is_chart(&key);
        let mut value = object.as_value().clone();
        if let (true, Some(namespace)) = (is_chart, key.namespace) {
            value["metadata"]["namespace"] = Value::from(namespace);
        }
        Subject {
            object: value,
            is_chart,
            values: None,
        }
    }

    /// The final object: a HelmChart ends as a HelmRelease.
    pub(super) fn finish(self) -> Result<Value, ChartProblem> {
        if self.is_chart {
            release::release(&self.object, self.values)
        } else {
            Ok(self.object)
        }
    }
}

/// Why an entry changed nothing.
enum Trouble {
    /// It needs something that is not there: it is left out with a warning.
    Skipped {
        field: String,
        message: String,
        hint: &'static str,
    },
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

    fn of_chart(problem: ChartProblem) -> Self {
        Trouble::Failed {
            field: problem.pointer,
            message: problem.message,
        }
    }

    /// A JSON patch's trouble with what `target` names.
    fn of_json_patch(error: PatchError, target: &str) -> Self {
        match error {
            PatchError::MissingPath { operation, pointer } => Trouble::Skipped {
                message: format!("operation {operation} needs a path that {target} does not have"),
                field: pointer,
                hint: "correct the path, or add its parent first",
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
                message: format!("there is no text at {field} of {feed}"),
                field,
                hint: "put text into the field, or take the entry out",
            },
            FieldError::Wrong(message) => Trouble::Failed { field, message },
            FieldError::Patch(error) => match Trouble::of_json_patch(error, &format!("the text at {field} of {feed}")) {
                Trouble::Skipped { message, hint, .. } => Trouble::Skipped { field, message, hint },
                Trouble::Failed { message, .. } => Trouble::Failed { field, message },
            },
        }
    }
}

/// Applies every entry, or says why the feed is held.
pub(super) fn apply_override(
    subject: &mut Subject,
    applied: &Override,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<AppliedOverride, Box<Diagnostic>> {
    let mut entries = Vec::with_capacity(applied.entries.len());
    for entry in &applied.entries {
        let mut fields = Vec::new();
        match apply_entry(subject, applied, entry, &mut fields) {
            Ok(()) => {}
            Err(_) if applied.kind == OverrideKind::Dividing => return Err(Box::new(share_failure(applied, entry))),
            Err(Trouble::Skipped { field, message, hint }) => {
                diagnostics.push(skipped(applied, entry, &field, &message, hint));
            }
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
fn apply_entry(subject: &mut Subject, applied: &Override, entry: &Entry, fields: &mut Vec<String>) -> Result<(), Trouble> {
    match (subject.is_chart, entry.chart) {
        (true, false) => apply_to_values(subject, applied, entry, fields),
        (true, true) => apply_to_chart(subject, applied, entry, fields),
        (false, false) => apply_to_object(subject, applied, entry, fields),
        // The index has said so.
        (false, true) => Ok(()),
    }
}

fn apply_to_object(subject: &mut Subject, applied: &Override, entry: &Entry, fields: &mut Vec<String>) -> Result<(), Trouble> {
    let mut changed = subject.object.clone();
    let mut set = Vec::new();
    patch(&mut changed, entry, &applied.feed.to_string(), &mut set)?;
    check_identity(&changed, &subject.object).map_err(Trouble::failed)?;
    subject.object = changed;
    fields.append(&mut set);
    Ok(())
}

/// As an object; type Helm merges it, and what decides the release stays.
fn apply_to_chart(subject: &mut Subject, applied: &Override, entry: &Entry, fields: &mut Vec<String>) -> Result<(), Trouble> {
    let mut changed = subject.object.clone();
    let mut set = Vec::new();
    if entry.kind == PatchKind::Helm {
        let (target, patch) = mappings(&mut changed, &entry.value)?;
        merge_patch::apply(target, patch, &mut set);
    } else {
        patch(&mut changed, entry, &applied.feed.to_string(), &mut set)?;
    }
    check_identity(&changed, &subject.object).map_err(Trouble::failed)?;
    release::check_chart(&changed, &subject.object).map_err(Trouble::of_chart)?;
    subject.object = changed;
    fields.append(&mut set);
    Ok(())
}

fn apply_to_values(subject: &mut Subject, applied: &Override, entry: &Entry, fields: &mut Vec<String>) -> Result<(), Trouble> {
    let mut set = Vec::new();
    let values = match subject.values.clone() {
        None => first_values(applied, entry, &mut set)?,
        Some(mut values) => {
            patch(&mut values, entry, &format!("the values of {}", applied.feed), &mut set)?;
            Some(values)
        }
    };
    if values.as_ref().is_some_and(|values| !values.is_object()) {
        return Err(Trouble::failed("values are a mapping, and the result is none"));
    }
    subject.values = values;
    fields.append(&mut release::below_values(set));
    Ok(())
}

/// The first values are taken as they are, nulls included: they remove the chart's defaults. A JSON patch has nothing to change yet.
fn first_values(applied: &Override, entry: &Entry, fields: &mut Vec<String>) -> Result<Option<Value>, Trouble> {
    let nothing = || format!("no override before it gives values to {}", applied.feed);
    match &entry.kind {
        PatchKind::Blank => Ok(None),
        PatchKind::Helm | PatchKind::MergePatch => {
            let mut values = Value::Object(Mapping::new());
            let (target, patch) = mappings(&mut values, &entry.value)?;
            helm_values::apply(target, patch, fields);
            Ok(Some(values))
        }
        PatchKind::JsonPatch => Err(Trouble::Skipped {
            field: release::VALUES.to_owned(),
            message: nothing(),
            hint: "give the values first, with an entry of type Helm or MergePatch",
        }),
        PatchKind::FieldMergePatch(_) | PatchKind::FieldJsonPatch(_) => Err(Trouble::failed(nothing())),
    }
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
    let object = Object::from_value(changed.clone()).map_err(|error| format!("the result is no Kubernetes object: {error}"))?;
    let moved = object
        .namespace()
        .filter(|_| changed.pointer(NAMESPACE) != before.pointer(NAMESPACE));
    match moved.filter(|namespace| !is_dns_name(namespace, 63, false)) {
        Some(namespace) => Err(format!("{namespace:?} is not a namespace name")),
        None => Ok(()),
    }
}

const NAMESPACE: &str = "/metadata/namespace";

/// Where an entry stands in its override.
pub(super) fn entry_pointer(entry: &Entry) -> String {
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

/// A share that cannot be written holds the feed: without it the cluster would get all replicas, and the total would not add up.
fn share_failure(applied: &Override, entry: &Entry) -> Diagnostic {
    let path = entry.value.pointer("/0/path").and_then(Value::as_str).unwrap_or_default();
    let message = format!(
        "a cluster's share of the replicas of {} cannot be written: what is above {path} is not there",
        applied.feed
    );
    let diagnostic = Diagnostic::error("share-not-written", message).field(path);
    let hint = "correct replicaJsonPath in the FeedInventory, or the override that removes the field; until then the feed keeps its last result";
    applied.definition.locate(diagnostic.hint(hint), "/spec/schedulingStrategy")
}

fn skipped(applied: &Override, entry: &Entry, field: &str, message: &str, hint: &str) -> Diagnostic {
    let message = format!("entry {} ({}) is skipped: {message}", quoted(&entry.name), entry.index);
    let diagnostic = Diagnostic::warning("patch-missing-path", message).field(field);
    applied.definition.locate(diagnostic.hint(hint), &entry_pointer(entry))
}
