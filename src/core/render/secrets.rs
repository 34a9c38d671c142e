//! Secrets never reach the state branch in the clear unless people allow it: neither from the source nor by an override. Encrypts nothing.

use serde_json::Value;

use super::overriding::entry_pointer;
use super::{AppliedOverride, RenderSettings};
use crate::core::conceal::{filled_field, is_secret};
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{Definition, Override, quoted};

const HINT: &str = "create it in the cluster by other means, or start with --allow-plain-secrets";

/// Refuses a Secret with plain data as it stands in git.
pub(super) fn check_source(feed: &Definition, settings: RenderSettings) -> Result<(), Box<Diagnostic>> {
    let object = feed.object.as_value();
    if !is_secret(object) || settings.allow_plain_secrets {
        return Ok(());
    }
    if object.get("sops").is_some() {
        let diagnostic =
            Diagnostic::error("unsupported", "SOPS-encrypted Secrets are not decrypted by this version").field("/sops");
        return Err(Box::new(
            feed.locate(diagnostic.hint("until then the last result stays"), "/sops"),
        ));
    }
    let Some(pointer) = filled_field(object) else {
        return Ok(());
    };
    let message = "a Secret with plain data would stand in the state branch for everybody to read";
    let diagnostic = Diagnostic::error("plain-secret", message).field(&*pointer).hint(HINT);
    Err(Box::new(feed.locate(diagnostic, &pointer)))
}

/// Refuses an override after which a Secret has plain data; else gives back what it did.
pub(super) fn check_override(
    object: &Value,
    applied: &Override,
    provenance: AppliedOverride,
    settings: RenderSettings,
) -> Result<AppliedOverride, Box<Diagnostic>> {
    let allowed = settings.allow_plain_secrets || !is_secret(object);
    let Some(pointer) = filled_field(object).filter(|_| !allowed) else {
        return Ok(provenance);
    };
    let sets = |fields: &Vec<String>| fields.iter().any(|field| field.is_empty() || field.starts_with(&pointer));
    let position = provenance.entries.iter().position(|(_, _, fields)| sets(fields));
    let entry = position.and_then(|position| applied.entries.get(position));
    let (who, place) = match entry {
        Some(entry) => (
            format!("entry {} ({})", quoted(&entry.name), entry.index),
            entry_pointer(entry),
        ),
        None => ("it".to_owned(), "/spec/overrides".to_owned()),
    };
    let message = format!(
        "{who} puts plain data into {}, which would stand in the state branch for everybody to read",
        applied.feed
    );
    let diagnostic = Diagnostic::error("plain-secret", message).field(&*pointer).hint(HINT);
    Err(Box::new(applied.definition.locate(diagnostic, &place)))
}
