//! One object's change as a unified diff, as `diff -u` writes it. Values of Secrets are hidden on both sides.

use std::fmt::{self, Write};

use imara_diff::{Algorithm, Diff, InternedInput, Interner, Token, UnifiedDiffConfig, UnifiedDiffPrinter};

use crate::core::conceal::{conceal_change, is_secret};
use crate::core::yaml::{self, Limits};

/// Lines of context around a change.
const CONTEXT: u32 = 3;

/// The diff from one text to another; a side without a path is not there. Empty where nothing that may be shown differs.
pub fn unified(before: Option<(&str, &[u8])>, after: Option<(&str, &[u8])>) -> String {
    let name = |side: Option<(&str, &[u8])>, prefix: &str| match side {
        Some((path, _)) => format!("{prefix}/{path}"),
        None => "/dev/null".to_owned(),
    };
    let text =
        |side: Option<(&str, &[u8])>| String::from_utf8_lossy(side.map(|(_, bytes)| bytes).unwrap_or_default()).into_owned();
    let (old, new) = concealed(text(before), text(after));
    if old == new {
        return String::new();
    }
    let input = InternedInput::new(&*old, &*new);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let mut config = UnifiedDiffConfig::default();
    config.context_len(CONTEXT);
    let hunks = diff.unified_diff(&Printer(&input.interner), config, &input).to_string();
    format!("--- {}\n+++ {}\n{hunks}", name(before, "a"), name(after, "b"))
}

/// Prints lines and hunk headers as `diff -u` does.
struct Printer<'a>(&'a Interner<&'a str>);

impl Printer<'_> {
    fn line(&self, mut out: impl Write, mark: char, token: Token) -> fmt::Result {
        let line = self.0[token];
        write!(out, "{mark}{line}")?;
        match line.ends_with('\n') {
            true => Ok(()),
            false => writeln!(out, "\n\\ No newline at end of file"),
        }
    }
}

impl UnifiedDiffPrinter for Printer<'_> {
    fn display_header(&self, mut out: impl Write, before: u32, after: u32, before_lines: u32, after_lines: u32) -> fmt::Result {
        // A side without lines is named by the line before it.
        let first = |start: u32, lines: u32| start + u32::from(lines > 0);
        let range = |start: u32, lines: u32| match lines {
            1 => first(start, lines).to_string(),
            lines => format!("{},{lines}", first(start, lines)),
        };
        writeln!(out, "@@ -{} +{} @@", range(before, before_lines), range(after, after_lines))
    }

    fn display_context_token(&self, out: impl Write, token: Token) -> fmt::Result {
        self.line(out, ' ', token)
    }

    fn display_hunk(&self, mut out: impl Write, before: &[Token], after: &[Token]) -> fmt::Result {
        before.iter().try_for_each(|token| self.line(&mut out, '-', *token))?;
        after.iter().try_for_each(|token| self.line(&mut out, '+', *token))
    }
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
