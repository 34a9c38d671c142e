//! What reading any of our kinds from a source object takes: typed specs, and diagnostics that name the field.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Definition;
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;

/// Reads a typed `spec`; unknown and malformed fields become diagnostics and `None`.
pub(super) fn read_spec<T: DeserializeOwned>(definition: &Definition, diagnostics: &mut Vec<Diagnostic>) -> Option<T> {
    let before = diagnostics.len();
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    for (field, _) in definition.object.fields().filter(|(field, _)| !known.contains(field)) {
        diagnostics.push(unknown_field(definition, &format!("/{field}")));
    }
    let (result, unknown) = parse_spec::<T>(definition.object.pointer("/spec").cloned().unwrap_or_default());
    diagnostics.extend(unknown.iter().map(|pointer| unknown_field(definition, pointer)));
    match result {
        Ok(typed) => (diagnostics.len() == before).then_some(typed),
        Err((pointer, message)) => {
            let diagnostic = Diagnostic::error("invalid-field", message).field(&*pointer);
            diagnostics.push(definition.locate(diagnostic.hint("see the field's type in Clusternet's API"), &pointer));
            None
        }
    }
}

/// A typed spec, or the pointer and the problem of what has the wrong type; and the pointers of fields that are not known.
pub(super) fn parse_spec<T: DeserializeOwned>(spec: Value) -> (Result<T, (String, String)>, Vec<String>) {
    let mut unknown = Vec::new();
    let mut note =
        |path: serde_ignored::Path<'_>| unknown.push(format!("/spec/{}", path.to_string().replace('.', "/").replace("/?", "")));
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_ignored::Deserializer::new(spec, &mut note);
    let result = T::deserialize(serde_path_to_error::Deserializer::new(reader, &mut track));
    let result = result.map_err(|error| (pointer_of(&track.path().to_string()), error.to_string()));
    (result, unknown)
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

/// A feed with the namespace that its object is looked up in.
pub(super) fn placed(feed: &Feed) -> Feed {
    let key = super::with_default_namespace(feed.key());
    Feed {
        namespace: key.namespace,
        ..feed.clone()
    }
}
