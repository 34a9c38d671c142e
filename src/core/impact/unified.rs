//! One object's change as a unified diff, as `diff -u` writes it. Values of Secrets are hidden on both sides.

use similar::TextDiff;

use crate::core::conceal::{conceal_change, is_secret};
use crate::core::yaml::{self, Limits};

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// The diff from one text to another; a side without a path is not there. Empty where nothing that may be shown differs.
pub fn unified(before: Option<(&str, &[u8])>, after: Option<(&str, &[u8])>) -> String {
    let name = |side: Option<(&str, &[u8])>, prefix: &str| match side {
        Some((path, _)) => format!("{prefix}/{path}"),
        None => "/dev/null".to_owned(),
    };
    let text =
        |side: Option<(&str, &[u8])>| String::from_utf8_lossy(side.map(|(_, bytes)| bytes).unwrap_or_default()).into_owned();
    let (old, new) = concealed(text(before), text(after));
    let diff = TextDiff::from_lines(&old, &new);
    let mut unified = diff.unified_diff();
    unified.context_radius(CONTEXT).header(&name(before, "a"), &name(after, "b"));
    unified.to_string()
}

/// Both texts as they may be shown. A text that cannot be read may be a Secret, so that nothing of it is shown.
fn concealed(before: String, after: String) -> (String, String) {
    let read = |text: &str| match text {
        "" => Ok(serde_json::Value::Null),
        text => yaml::parse_value(text, &Limits::default()),
    };
    let (Ok(old), Ok(new)) = (read(&before), read(&after)) else {
        let hide = |text: &str| if text.is_empty() { "" } else { "(not readable)\n" }.to_owned();
        return (hide(&before), hide(&after));
    };
    if !is_secret(&old) && !is_secret(&new) {
        return (before, after);
    }
    let (old, new) = conceal_change(&old, &new);
    let write = |value: &serde_json::Value| match value {
        serde_json::Value::Null => String::new(),
        value => yaml::emit(value),
    };
    (write(&old), write(&new))
}
