//! Localizations and Globalizations from source objects: typed, checked, with every patch parsed. Applies none of them.

use serde_json::Value;

use super::Definition;
use super::bundle::is_bundle;
use super::helm::is_chart;
use super::kinds::{invalid, placed, read_spec};
use super::operations;
use crate::core::api::overrides::{OverrideConfig, OverrideSpec};
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::object::{Object, type_name};
use crate::core::selector::Selector;
use crate::core::yaml::{self, Limits};

/// The priority of an override that states none.
const DEFAULT_PRIORITY: i64 = 500;

/// Globalizations apply before Localizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OverrideKind {
    /// For every cluster that its selector matches.
    Globalization,
    /// For the cluster whose dedicated namespace it lives in.
    Localization,
    /// A Subscription's dividing: a cluster's share of the replicas. No file defines one.
    Dividing,
}

impl OverrideKind {
    /// From the kind's spelling.
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "Globalization" => Some(OverrideKind::Globalization),
            "Localization" => Some(OverrideKind::Localization),
            _ => None,
        }
    }

    /// The kind's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            OverrideKind::Globalization => "Globalization",
            OverrideKind::Localization => "Localization",
            OverrideKind::Dividing => "Subscription",
        }
    }
}

/// When a changed override takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// With the commit.
    ApplyNow,
    /// With the next change of the Subscription's feeds, placement or other overrides.
    ApplyLater,
}

/// An override that can be carried out.
#[derive(Debug, Clone)]
pub struct Override {
    /// Globalization or Localization.
    pub kind: OverrideKind,
    /// Namespace; empty for a Globalization.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Higher applies later and wins.
    pub priority: i64,
    /// When it takes effect.
    pub policy: Policy,
    /// The object that it changes.
    pub feed: ObjectKey,
    /// Globalization: the clusters that it is for; `None` means all.
    pub selector: Option<Selector>,
    /// Patches in order.
    pub entries: Vec<Entry>,
    /// Digest of the whole object.
    pub digest: ObjectId,
    /// Where it is defined.
    pub definition: Definition,
}

/// One patch.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Position in `spec.overrides`.
    pub index: usize,
    /// Its name; may be empty.
    pub name: String,
    /// Its dialect.
    pub kind: PatchKind,
    /// Whether it changes the HelmChart itself instead of its values.
    pub chart: bool,
    /// The patch itself.
    pub value: Value,
}

/// The dialects of patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchKind {
    /// No patch at all: the value is blank, or only a comment.
    Blank,
    /// Values over values, as the `helm` program merges them.
    Helm,
    /// RFC 7386.
    MergePatch,
    /// RFC 6902 in the dialect of evanphx/json-patch v4.
    JsonPatch,
    /// A merge patch to the text that a field holds.
    FieldMergePatch(FieldText),
    /// A JSON patch to the text that a field holds.
    FieldJsonPatch(FieldText),
}

/// A field that holds JSON or YAML as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldText {
    /// Keys and list indices on the way to it. Keys that hold a `/` cannot be named, as in Clusternet.
    pub path: Vec<String>,
    /// How the text is read and written.
    pub format: FieldFormat,
}

/// How a field's text is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFormat {
    /// JSON, written with four spaces of indentation.
    Json,
    /// YAML.
    Yaml,
}

/// An override that cannot be carried out: it holds its feed in the clusters that it is for.
#[derive(Debug, Clone)]
pub struct BrokenOverride {
    /// Globalization or Localization.
    pub kind: OverrideKind,
    /// Namespace; empty for a Globalization.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The object that it would change.
    pub feed: ObjectKey,
    /// The clusters that it is for, as far as that can be read; `None` means all.
    pub selector: Option<Selector>,
}

/// Reads a Localization or Globalization; nothing where it cannot be carried out.
pub(super) fn read(kind: OverrideKind, key: &ObjectKey, definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<Override> {
    let before = out.len();
    let spec = read_spec::<OverrideSpec>(definition, out);
    name_entries(definition, &mut out[before..]);
    if kind == OverrideKind::Globalization && definition.object.namespace().is_some() {
        let (pointer, message) = (
            "/metadata/namespace",
            "a Globalization is in no namespace: this one has no effect",
        );
        let diagnostic = Diagnostic::warning("no-effect", message).field(pointer);
        let hint = "take it out; what is for one cluster is a Localization in its dedicated namespace";
        out.push(definition.locate(diagnostic.hint(hint), pointer));
    }
    let reading = spec.and_then(|spec| read_override(&spec, kind, key, definition, out));
    reading.filter(|_| out[before..].iter().all(|diagnostic| !diagnostic.is_error()))
}

/// Says which entry a finding about a field of it is about.
fn name_entries(definition: &Definition, found: &mut [Diagnostic]) {
    for diagnostic in found {
        let mut tokens = diagnostic
            .field
            .strip_prefix("/spec/overrides/")
            .into_iter()
            .flat_map(|rest| rest.split('/'));
        let Some(index) = tokens.next().and_then(|token| token.parse::<usize>().ok()) else {
            continue;
        };
        let name = definition.object.pointer(&format!("/spec/overrides/{index}/name"));
        let name = entry_name(name.and_then(Value::as_str).unwrap_or_default(), index);
        diagnostic.message = format!("{name}: {}", diagnostic.message);
    }
}

/// What can still be known of an override that cannot be carried out: its feed and whom it is for.
pub(super) fn broken(kind: OverrideKind, key: &ObjectKey, object: &Object) -> Option<BrokenOverride> {
    let feed: Feed = serde_json::from_value(object.pointer("/spec/feed")?.clone()).ok()?;
    let affinity = object
        .pointer("/spec/clusterAffinity")
        .cloned()
        .and_then(|value| serde_json::from_value(value).ok());
    let selector = affinity.and_then(|affinity| Selector::parse(&affinity).ok());
    Some(BrokenOverride {
        kind,
        namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
        feed: placed(&feed).key(),
        selector,
    })
}

fn read_override(
    spec: &OverrideSpec,
    kind: OverrideKind,
    key: &ObjectKey,
    definition: &Definition,
    out: &mut Vec<Diagnostic>,
) -> Option<Override> {
    let policy = read_policy(spec, definition, out)?;
    let priority = spec.priority.unwrap_or(DEFAULT_PRIORITY);
    if !(0..=1000).contains(&priority) {
        out.push(invalid(
            definition,
            "/spec/priority",
            format!("priority {priority} is out of range"),
            "use 0 to 1000",
        ));
    }
    if kind == OverrideKind::Localization && spec.cluster_affinity.is_some() {
        let message = "a Localization is for the cluster whose dedicated namespace it is in, not for those of a selector";
        let hint = "take clusterAffinity out, or make it a Globalization";
        out.push(invalid(definition, "/spec/clusterAffinity", message, hint));
    }
    let feed = placed(&spec.feed).key();
    if is_bundle(&feed) {
        let hint = "name the objects in it, each in an override of its own";
        out.push(invalid(
            definition,
            "/spec/feed",
            "a Bundle itself cannot be overridden",
            hint,
        ));
    }
    let selector = match spec.cluster_affinity.as_ref().map(Selector::parse).transpose() {
        Ok(selector) => selector,
        Err(error) => {
            out.push(invalid(
                definition,
                &format!("/spec/clusterAffinity{}", error.pointer),
                error.message,
                "correct the selector",
            ));
            None
        }
    };
    if spec.overrides.is_empty() {
        let pointer = "/spec/overrides";
        let diagnostic = Diagnostic::warning("no-effect", "an override without entries changes nothing").field(pointer);
        out.push(definition.locate(diagnostic.hint("add an entry, or remove the override"), pointer));
    }
    let mut reader = EntryReader { definition, out };
    let entries = spec.overrides.iter().enumerate();
    let entries = entries
        .filter_map(|(index, config)| reader.read(config, index, is_chart(&feed)))
        .collect();
    Some(Override {
        kind,
        namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
        priority,
        policy,
        feed,
        selector,
        entries,
        digest: definition.digest,
        definition: definition.clone(),
    })
}

fn read_policy(spec: &OverrideSpec, definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<Policy> {
    match spec.override_policy.as_deref() {
        None | Some("" | "ApplyNow") => Some(Policy::ApplyNow),
        Some("ApplyLater") => Some(Policy::ApplyLater),
        Some(other) => {
            let message = format!("unknown overridePolicy {other:?}");
            out.push(invalid(
                definition,
                "/spec/overridePolicy",
                message,
                "use ApplyNow or ApplyLater",
            ));
            None
        }
    }
}

/// An override's entries: their definition, and what was found.
struct EntryReader<'a> {
    definition: &'a Definition,
    out: &'a mut Vec<Diagnostic>,
}

const CORRECT_THE_PATCH: &str = "correct the patch; the feed keeps its last result";

impl EntryReader<'_> {
    /// Everything is checked, so that people see all that is wrong with an entry at once.
    fn read(&mut self, config: &OverrideConfig, index: usize, of_chart: bool) -> Option<Entry> {
        let place = Place {
            pointer: format!("/spec/overrides/{index}"),
            name: entry_name(&config.name, index),
        };
        self.note_idle_fields(config, &place, of_chart);
        let kind = self.read_kind(config, &place);
        let value = self.read_value(config, &place);
        let (kind, value) = (kind?, value?);
        let kind = if value.is_null() { PatchKind::Blank } else { kind };
        if let Some(problem) = shape_problem(&kind, &value).or_else(|| operations_problem(&kind, &value)) {
            self.refuse(&place, "value", &problem, CORRECT_THE_PATCH);
            return None;
        }
        Some(Entry {
            index,
            name: config.name.clone(),
            kind,
            chart: config.override_chart,
            value,
        })
    }

    fn refuse(&mut self, place: &Place, field: &str, message: &str, hint: &str) {
        let (pointer, message) = (format!("{}/{field}", place.pointer), format!("{}: {message}", place.name));
        self.out.push(invalid(self.definition, &pointer, message, hint));
    }

    /// Fields that are right by themselves and change nothing in this entry.
    fn note_idle_fields(&mut self, config: &OverrideConfig, place: &Place, of_chart: bool) {
        let whole = ["Helm", "JSONPatch", "MergePatch"].contains(&config.patch_type.as_str());
        let only_field = "has an effect only in a FieldJSONPatch or FieldMergePatch";
        for (field, idle, why) in [
            ("fieldPath", whole && !config.field_path.is_empty(), only_field),
            ("fieldFormat", whole && !config.field_format.is_empty(), only_field),
            (
                "overrideChart",
                config.override_chart && !of_chart,
                "is for HelmCharts, and the feed is none",
            ),
        ] {
            if idle {
                let pointer = format!("{}/{field}", place.pointer);
                let message = format!("{}: {field} {why}", place.name);
                let diagnostic = Diagnostic::warning("no-effect", message).field(&*pointer);
                let hint = match field {
                    "overrideChart" => "take overrideChart out; until then the entry is skipped",
                    _ => "take it out, or correct the type",
                };
                self.out.push(self.definition.locate(diagnostic.hint(hint), &pointer));
            }
        }
    }

    /// The patch as kubectl reads YAML; null where there is none.
    fn read_value(&mut self, config: &OverrideConfig, place: &Place) -> Option<Value> {
        if config.value.trim().is_empty() {
            return Some(Value::Null);
        }
        match yaml::parse_value(&config.value, &Limits::default()) {
            Ok(value) => Some(value),
            Err(problem) => {
                let line = problem.line;
                let message = format!("line {line} of the value is neither YAML nor JSON: {}", problem.message);
                self.refuse(place, "value", &message, CORRECT_THE_PATCH);
                None
            }
        }
    }

    fn read_kind(&mut self, config: &OverrideConfig, place: &Place) -> Option<PatchKind> {
        Some(match config.patch_type.as_str() {
            "Helm" => PatchKind::Helm,
            "MergePatch" => PatchKind::MergePatch,
            "JSONPatch" => PatchKind::JsonPatch,
            "FieldMergePatch" => PatchKind::FieldMergePatch(self.read_field(config, place)?),
            "FieldJSONPatch" => PatchKind::FieldJsonPatch(self.read_field(config, place)?),
            "StrategicMergePatch" => {
                let message = "a StrategicMergePatch is not carried out, as in Clusternet";
                self.refuse(place, "type", message, "write it as MergePatch or JSONPatch");
                return None;
            }
            other => {
                let hint = "use MergePatch, JSONPatch, FieldJSONPatch, FieldMergePatch or Helm";
                self.refuse(place, "type", &format!("unknown override type {other:?}"), hint);
                return None;
            }
        })
    }

    fn read_field(&mut self, config: &OverrideConfig, place: &Place) -> Option<FieldText> {
        let path = self.read_path(config, place);
        let format = match config.field_format.as_str() {
            "JSON" => Some(FieldFormat::Json),
            "YAML" => Some(FieldFormat::Yaml),
            other => {
                let message = match other {
                    "" => format!("a {} needs a fieldFormat", config.patch_type),
                    other => format!("unknown fieldFormat {other:?}"),
                };
                self.refuse(place, "fieldFormat", &message, "use JSON or YAML");
                None
            }
        };
        Some(FieldText {
            path: path?,
            format: format?,
        })
    }

    fn read_path(&mut self, config: &OverrideConfig, place: &Place) -> Option<Vec<String>> {
        let path = config.field_path.as_str();
        let tokens: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        if path.starts_with('/') && tokens.iter().all(|token| !token.is_empty()) {
            return Some(tokens);
        }
        let message = match path {
            "" => format!("a {} needs a fieldPath", config.patch_type),
            path => format!("{path:?} is no path to a field"),
        };
        let hint = "write keys and list indices with a / before each, as in /data/server.conf";
        self.refuse(place, "fieldPath", &message, hint);
        None
    }
}

/// An entry in messages.
struct Place {
    pointer: String,
    name: String,
}

/// What a patch of this dialect has to be, where the value is something else.
fn shape_problem(kind: &PatchKind, value: &Value) -> Option<String> {
    let want = match kind {
        PatchKind::Blank => return None,
        PatchKind::Helm | PatchKind::MergePatch | PatchKind::FieldMergePatch(_) if value.is_object() => return None,
        PatchKind::JsonPatch | PatchKind::FieldJsonPatch(_) if value.is_array() => return None,
        PatchKind::Helm => "values are a mapping",
        PatchKind::MergePatch | PatchKind::FieldMergePatch(_) => "a merge patch is a mapping",
        PatchKind::JsonPatch | PatchKind::FieldJsonPatch(_) => "a JSON patch is a list of operations",
    };
    Some(format!("{want}, this is {}", type_name(value)))
}

fn operations_problem(kind: &PatchKind, value: &Value) -> Option<String> {
    match kind {
        PatchKind::JsonPatch | PatchKind::FieldJsonPatch(_) => operations::problem(value.as_array()?),
        PatchKind::Blank | PatchKind::Helm | PatchKind::MergePatch | PatchKind::FieldMergePatch(_) => None,
    }
}

fn entry_name(name: &str, index: usize) -> String {
    format!("entry {} ({index})", quoted(name))
}

/// An entry's name for messages.
pub fn quoted(name: &str) -> String {
    if name.is_empty() {
        "without a name".to_owned()
    } else {
        format!("{name:?}")
    }
}
