//! One field's way from the source over each override entry to its final value, found by rendering the feed entry by entry.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::query::concerns;
use super::{Place, Texts};
use crate::core::conceal::conceal;
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{Definition, Override, OverrideKind, Policy};
use crate::core::pipeline::Recipe;
use crate::core::render::{AppliedOverride, RenderSettings, Rendered, render};
use crate::core::yaml::{self, Limits};

/// One entry of an override that applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryUse {
    /// `Globalization`, `Localization`, or `Subscription` for a share of divided replicas.
    pub kind: &'static str,
    /// Namespace; empty for a Globalization.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The override's priority.
    pub priority: i64,
    /// `ApplyNow` or `ApplyLater`.
    pub policy: &'static str,
    /// Position in `spec.overrides`.
    pub index: usize,
    /// The entry's name.
    pub entry: String,
    /// The dialect as the override states it.
    #[serde(rename = "type")]
    pub patch_type: String,
    /// Where the entry stands.
    #[serde(flatten)]
    pub place: Place,
    /// The fields that it set; none where it was without effect.
    pub fields: Vec<String>,
}

/// One step of a field: who set it to what.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Position among the entries; `None` for the source.
    pub entry: Option<usize>,
    /// Where that stands.
    #[serde(flatten)]
    pub place: Place,
    /// The value after it; `None` where the field is not there.
    pub value: Option<Value>,
}

/// A field's way to its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chain {
    /// JSON pointer.
    pub field: String,
    /// The source first, then each entry that concerned it, in order.
    pub steps: Vec<Step>,
    /// The value that the cluster gets; `None` where the field is not there.
    pub value: Option<Value>,
}

/// A feed rendered entry by entry.
pub(super) struct Replay {
    pub(super) entries: Vec<EntryUse>,
    /// The object before the first entry and after each; a step that failed and what follows are missing.
    states: Vec<Value>,
    /// What the last render said.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// The id of the final manifest, if every entry went well.
    pub(super) id: Option<crate::core::ids::ObjectId>,
    place: Place,
    source: Definition,
}

impl Replay {
    /// Renders a feed with ever more of its overrides.
    pub(super) fn of(recipe: &Recipe, settings: RenderSettings, texts: &dyn Texts) -> Option<Self> {
        let source = recipe.source.clone()?;
        let mut whole = render(&source, &recipe.overrides, settings);
        let mut replay = Replay {
            entries: Vec::new(),
            states: Vec::new(),
            diagnostics: std::mem::take(&mut whole.diagnostics),
            id: whole.manifest.as_ref().map(|manifest| manifest.id),
            place: texts.place(&source, ""),
            source,
        };
        replay.push(&render(&replay.source, &[], settings));
        for (position, applied) in recipe.overrides.iter().enumerate() {
            let before = &recipe.overrides[..position];
            for length in 1..=applied.entries.len() {
                let rendered = render(&replay.source, &with_first(before, applied, length), settings);
                let fields = rendered
                    .provenance
                    .last()
                    .map(|last| set_by(last, length))
                    .unwrap_or_default();
                replay.entries.push(entry_use(applied, length - 1, fields));
                replay.push(&rendered);
            }
        }
        Some(replay)
    }

    fn push(&mut self, rendered: &Rendered) {
        let value = rendered.manifest.as_ref().and_then(|manifest| read_manifest(&manifest.bytes));
        self.states.extend(value.filter(|_| self.states.len() == self.entries.len()));
    }

    /// Every field that some entry set.
    pub(super) fn overridden(&self) -> BTreeSet<String> {
        self.entries.iter().flat_map(|entry| entry.fields.iter().cloned()).collect()
    }

    /// The object after the last entry that went well.
    pub(super) fn last(&self) -> Option<&Value> {
        self.states.last()
    }

    /// The way of one field; values are hidden where they are secret.
    pub(super) fn chain(&self, field: &str, delivered: Option<&Value>, texts: &dyn Texts) -> Chain {
        let shown: Vec<Value> = self.states.iter().map(conceal).collect();
        let mut steps = Vec::new();
        steps.extend(shown.first().map(|object| Step {
            entry: None,
            place: Place {
                line: texts.place(&self.source, field).line,
                ..self.place.clone()
            },
            value: object.pointer(field).cloned(),
        }));
        for (index, entry) in self.entries.iter().enumerate() {
            let [before, after] = [self.states.get(index), self.states.get(index + 1)];
            let changed = before.and_then(|object| object.pointer(field)) != after.and_then(|object| object.pointer(field));
            let named = entry.fields.iter().any(|set| concerns(set, field));
            if after.is_some() && (changed || named) {
                steps.push(Step {
                    entry: Some(index),
                    place: entry.place.clone(),
                    value: shown[index + 1].pointer(field).cloned(),
                });
            }
        }
        Chain {
            field: field.to_owned(),
            steps,
            value: delivered.and_then(|object| conceal(object).pointer(field).cloned()),
        }
    }
}

/// A manifest as JSON; nothing where it is none of ours.
pub(super) fn read_manifest(bytes: &[u8]) -> Option<Value> {
    yaml::parse_value(&String::from_utf8_lossy(bytes), &Limits::default()).ok()
}

/// The overrides before one, and its first entries.
fn with_first(before: &[Arc<Override>], applied: &Override, length: usize) -> Vec<Arc<Override>> {
    let mut part = applied.clone();
    part.entries.truncate(length);
    before.iter().cloned().chain([Arc::new(part)]).collect()
}

fn set_by(applied: &AppliedOverride, length: usize) -> Vec<String> {
    let entry = applied.entries.get(length - 1);
    entry.map(|(_, _, fields)| fields.clone()).unwrap_or_default()
}

fn entry_use(applied: &Override, position: usize, fields: Vec<String>) -> EntryUse {
    let entry = &applied.entries[position];
    let pointer = match applied.kind {
        OverrideKind::Dividing => "/spec/dividingScheduling".to_owned(),
        OverrideKind::Globalization | OverrideKind::Localization => format!("/spec/overrides/{}", entry.index),
    };
    let stated = applied
        .definition
        .object
        .pointer(&format!("{pointer}/type"))
        .and_then(Value::as_str);
    EntryUse {
        kind: applied.kind.as_str(),
        namespace: applied.namespace.clone(),
        name: applied.name.clone(),
        priority: applied.priority,
        policy: match applied.policy {
            Policy::ApplyNow => "ApplyNow",
            Policy::ApplyLater => "ApplyLater",
        },
        index: entry.index,
        entry: entry.name.clone(),
        patch_type: stated.unwrap_or_default().to_owned(),
        place: Place::of(&applied.definition, &pointer),
        fields,
    }
}
