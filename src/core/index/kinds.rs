//! What reading any of our kinds from a source object takes: typed specs, and diagnostics that name the field.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::Definition;
use crate::core::api::subscription::Feed;
use crate::core::api::{APPS_VERSION, BRANCHLINE_GROUP, BRANCHLINE_VERSION};
use crate::core::diagnostic::Diagnostic;
use crate::core::object::type_name;

/// Reads a typed `spec`; unknown and malformed fields become diagnostics and `None`.
pub(super) fn read_spec<T: DeserializeOwned>(definition: &Definition, diagnostics: &mut Vec<Diagnostic>) -> Option<T> {
    let before = diagnostics.len();
    check_version(definition, diagnostics);
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    for (field, _) in definition.object.fields().filter(|(field, _)| !known.contains(field)) {
        diagnostics.push(unknown_field(definition, &format!("/{field}")));
    }
    let spec = definition.object.pointer("/spec").cloned().unwrap_or_default();
    if spec.is_null() {
        let message = format!("a {} without a spec says nothing", definition.object.kind());
        diagnostics.push(invalid(definition, "/spec", message, "add the spec"));
        return None;
    }
    if !spec.is_object() {
        let message = format!("the spec is a mapping, this is {}", type_name(&spec));
        let hint = "write each field with a name and a colon, and no dash before it";
        diagnostics.push(invalid(definition, "/spec", message, hint));
        return None;
    }
    let (result, unknown) = parse_spec::<T>(spec);
    diagnostics.extend(unknown.iter().map(|pointer| unknown_field(definition, pointer)));
    match result {
        Ok(typed) => (diagnostics.len() == before).then_some(typed),
        Err((pointer, message)) => {
            let hint = type_hint(&message);
            diagnostics.push(invalid(definition, &pointer, message, hint));
            None
        }
    }
}

/// Each of our kinds exists in one version.
fn check_version(definition: &Definition, diagnostics: &mut Vec<Diagnostic>) {
    let object = &definition.object;
    let version = match object.group() {
        BRANCHLINE_GROUP => BRANCHLINE_VERSION,
        _ => APPS_VERSION,
    };
    if object.api_version() != version {
        let message = format!("unknown apiVersion {:?} of a {}", object.api_version(), object.kind());
        diagnostics.push(invalid(definition, "/apiVersion", message, &format!("write {version}")));
    }
}

/// What to do about a value that serde refuses.
fn type_hint(message: &str) -> &'static str {
    if message.starts_with("missing field") {
        "add the field"
    } else if message.starts_with("invalid type: null") {
        "give it a value, or take the field out"
    } else if message.ends_with("expected a boolean") {
        "write true or false, without quotes"
    } else if ["map", "sequence"]
        .iter()
        .any(|kind| message == format!("invalid type: {kind}, expected a string"))
    {
        "write it as text: put a | after the colon"
    } else if message.ends_with("expected a string") {
        "write text; a number, true, false, yes or no has to be quoted to be text"
    } else if message.contains("expected i32") || message.contains("expected i64") {
        "write a whole number from -2147483648 to 2147483647, without quotes"
    } else if message.ends_with("expected a mapping") {
        "write a mapping: each of its fields with a name and a colon"
    } else if message.contains("expected a sequence") {
        "write a list: every item begins with a dash"
    } else {
        "write the field as Clusternet's API has it"
    }
}

/// A typed `spec`, or the pointer and the problem of what has the wrong type; and the pointers of fields that are not known.
pub(super) fn parse_spec<T: DeserializeOwned>(spec: Value) -> (Result<T, (String, String)>, Vec<String>) {
    parse_at("/spec", spec)
}

/// The same for what stands at another pointer of the object.
pub(super) fn parse_at<T: DeserializeOwned>(place: &str, value: Value) -> (Result<T, (String, String)>, Vec<String>) {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(pointer_of_unknown(place, &path));
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_ignored::Deserializer::new(value, &mut note);
    let result = T::deserialize(serde_path_to_error::Deserializer::new(reader, &mut track));
    let result = result.map_err(|error| (pointer_of(place, &track.path()), plain(&error.to_string())));
    (result, unknown)
}

/// Our types have no name for people.
fn plain(message: &str) -> String {
    match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected a mapping"),
        None => message.to_owned(),
    }
}

fn pointer_of(place: &str, path: &serde_path_to_error::Path) -> String {
    path.iter().fold(place.to_owned(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => below(&pointer, key),
        Segment::Unknown => pointer,
    })
}

fn pointer_of_unknown(place: &str, path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => place.to_owned(),
        Path::Seq { parent, index } => format!("{}/{index}", pointer_of_unknown(place, parent)),
        Path::Map { parent, key } => below(&pointer_of_unknown(place, parent), key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            pointer_of_unknown(place, parent)
        }
    }
}

/// The JSON pointer of a key below another pointer.
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn unknown_field(definition: &Definition, pointer: &str) -> Diagnostic {
    let field = pointer.rsplit('/').next().unwrap_or_default();
    let message = format!("unknown field {field:?}");
    let hint = match (definition.object.kind(), pointer) {
        ("HelmChart", "/spec/values") => "give values in a Localization or Globalization, with an entry of type Helm",
        _ => "check its spelling and its place",
    };
    definition.locate(Diagnostic::error("unknown-field", message).field(pointer).hint(hint), pointer)
}

pub(super) fn unsupported(definition: &Definition, pointer: &str, what: &str) -> Diagnostic {
    let diagnostic = Diagnostic::error("unsupported", format!("{what} is not carried out by this version")).field(pointer);
    definition.locate(diagnostic.hint("take it out; until then the last result stays"), pointer)
}

pub(super) fn invalid(definition: &Definition, pointer: &str, message: impl Into<String>, hint: &str) -> Diagnostic {
    definition.locate(Diagnostic::error("invalid-field", message).field(pointer).hint(hint), pointer)
}

pub(super) const DNS_HINT: &str = "use lower-case letters, digits and dashes (RFC 1123)";

/// A feed with the namespace that its object is looked up in.
pub fn placed(feed: &Feed) -> Feed {
    let key = super::with_default_namespace(feed.key());
    Feed {
        namespace: key.namespace,
        ..feed.clone()
    }
}
