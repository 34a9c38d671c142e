//! Overrides from source objects, and how any kind of ours is read: typed, checked, honest about what this version does not carry out.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Definition, Reading, Snapshot};
use crate::core::api::overrides::{OverrideConfig, OverrideSpec};
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::object::Object;
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
    /// Patches in order; blank ones are left out.
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
    /// The patch itself.
    pub value: Value,
}

/// The dialects that are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PatchKind {
    /// RFC 7386.
    MergePatch,
    /// RFC 6902 in the dialect of evanphx/json-patch v4.
    JsonPatch,
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

/// Reads a typed `spec`; unknown and malformed fields become diagnostics and `None`.
pub(super) fn read_spec<T: DeserializeOwned>(definition: &Definition, diagnostics: &mut Vec<Diagnostic>) -> Option<T> {
    let before = diagnostics.len();
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    for (field, _) in definition.object.fields().filter(|(field, _)| !known.contains(field)) {
        diagnostics.push(unknown_field(definition, &format!("/{field}")));
    }
    let spec = definition.object.pointer("/spec").cloned().unwrap_or_default();
    let mut unknown = Vec::new();
    let mut note =
        |path: serde_ignored::Path<'_>| unknown.push(format!("/spec/{}", path.to_string().replace('.', "/").replace("/?", "")));
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_ignored::Deserializer::new(spec, &mut note);
    let result = T::deserialize(serde_path_to_error::Deserializer::new(reader, &mut track));
    diagnostics.extend(unknown.iter().map(|pointer| unknown_field(definition, pointer)));
    match result {
        Ok(typed) => (diagnostics.len() == before).then_some(typed),
        Err(error) => {
            let pointer = pointer_of(&track.path().to_string());
            let diagnostic = Diagnostic::error("invalid-field", error.to_string()).field(&*pointer);
            diagnostics.push(definition.locate(diagnostic.hint("see the field's type in Clusternet's API"), &pointer));
            None
        }
    }
}

fn pointer_of(path: &str) -> String {
    let path = path.replace('[', ".").replace(']', "");
    if path == "." {
        "/spec".to_owned()
    } else {
        format!("/spec/{}", path.trim_start_matches('.').replace('.', "/"))
    }
}

pub(super) fn unknown_field(definition: &Definition, pointer: &str) -> Diagnostic {
    let field = pointer.rsplit('/').next().unwrap_or_default();
    let message = format!("unknown field {field:?}");
    definition.locate(
        Diagnostic::error("unknown-field", message)
            .field(pointer)
            .hint("check its spelling and its place"),
        pointer,
    )
}

pub(super) fn unsupported(definition: &Definition, pointer: &str, what: &str) -> Diagnostic {
    let diagnostic = Diagnostic::error("unsupported", format!("{what} is not carried out by this version")).field(pointer);
    definition.locate(diagnostic.hint("take it out; until then the last result stays"), pointer)
}

pub(super) fn invalid(definition: &Definition, pointer: &str, message: impl Into<String>, hint: &str) -> Diagnostic {
    definition.locate(Diagnostic::error("invalid-field", message).field(pointer).hint(hint), pointer)
}

pub(super) const DNS_HINT: &str = "use lower-case letters, digits and dashes (RFC 1123)";

/// Adds a Localization or Globalization; one that cannot be carried out holds its feed where it would apply.
pub(super) fn add_override(
    snapshot: &mut Snapshot,
    kind: OverrideKind,
    key: &ObjectKey,
    definition: &Definition,
    out: &mut Vec<Diagnostic>,
) {
    let namespace = key.namespace.clone().unwrap_or_default();
    let before = out.len();
    let reading = match read_spec::<OverrideSpec>(definition, out) {
        Some(spec) => read_override(&spec, kind, key, definition, out).filter(|_| out.len() == before),
        None => None,
    };
    match reading {
        Some(value) => drop(
            snapshot
                .overrides
                .insert((kind, namespace, key.name.clone()), Reading::Valid(value.into())),
        ),
        None => {
            snapshot
                .broken_overrides
                .extend(broken(kind, &namespace, key, &definition.object));
            snapshot
                .overrides
                .insert((kind, namespace, key.name.clone()), Reading::Unreadable);
        }
    }
}

/// What can still be known of an override that cannot be carried out: its feed and whom it is for.
fn broken(kind: OverrideKind, namespace: &str, key: &ObjectKey, object: &Object) -> Option<BrokenOverride> {
    let feed: Feed = serde_json::from_value(object.pointer("/spec/feed")?.clone()).ok()?;
    let affinity = object
        .pointer("/spec/clusterAffinity")
        .cloned()
        .and_then(|value| serde_json::from_value(value).ok());
    let selector = affinity.and_then(|affinity| Selector::parse(&affinity).ok());
    Some(BrokenOverride {
        kind,
        namespace: namespace.to_owned(),
        name: key.name.clone(),
        feed: feed.key(),
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
        out.push(unknown_field(definition, "/spec/clusterAffinity"));
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
    let entries = spec
        .overrides
        .iter()
        .enumerate()
        .filter_map(|(index, config)| read_entry(config, index, definition, out))
        .collect();
    Some(Override {
        kind,
        namespace: key.namespace.clone().unwrap_or_default(),
        name: key.name.clone(),
        priority,
        policy,
        feed: spec.feed.key(),
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

fn read_entry(config: &OverrideConfig, index: usize, definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<Entry> {
    let pointer = format!("/spec/overrides/{index}");
    let kind = match config.patch_type.as_str() {
        "MergePatch" => PatchKind::MergePatch,
        "JSONPatch" => PatchKind::JsonPatch,
        known @ ("Helm" | "FieldJSONPatch" | "FieldMergePatch") => {
            out.push(unsupported(
                definition,
                &format!("{pointer}/type"),
                &format!("override type {known}"),
            ));
            return None;
        }
        other => {
            let hint = "use MergePatch, JSONPatch, FieldJSONPatch, FieldMergePatch or Helm";
            out.push(invalid(
                definition,
                &format!("{pointer}/type"),
                format!("unknown override type {other:?}"),
                hint,
            ));
            return None;
        }
    };
    if config.override_chart {
        out.push(unsupported(definition, &format!("{pointer}/overrideChart"), "overrideChart"));
        return None;
    }
    if config.value.trim().is_empty() {
        return None;
    }
    match yaml::parse_value(&config.value, &Limits::default()) {
        Ok(value) => Some(Entry {
            index,
            name: config.name.clone(),
            kind,
            value,
        }),
        Err(problem) => {
            let message = format!(
                "entry {} ({index}): the value is neither YAML nor JSON: {}",
                quoted(&config.name),
                problem.message
            );
            out.push(invalid(
                definition,
                &format!("{pointer}/value"),
                message,
                "correct the patch; the feed keeps its last result",
            ));
            None
        }
    }
}

/// An entry's name for messages.
pub fn quoted(name: &str) -> String {
    if name.is_empty() {
        "without a name".to_owned()
    } else {
        format!("{name:?}")
    }
}
