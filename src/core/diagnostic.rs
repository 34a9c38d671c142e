//! What is wrong in people's YAML, as values: severity, place, object, field, why and what to do. Never an `Err`: the rest goes on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::printable;

/// Errors hold something back; warnings do not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is held back or not rendered.
    Error,
    /// Everything was rendered, but a person should look.
    Warning,
}

/// One finding. Serialises to the JSON that `check -o json` prints.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    /// File below the configured path, `/`-separated; empty where there is none.
    pub file: String,
    /// Line, counted from 1; 0 where there is none.
    pub line: u64,
    /// How bad it is.
    pub severity: Severity,
    /// Stable kebab-case code for scripts, for example `parse-failure`.
    pub code: String,
    /// The object concerned, `Deployment.apps shop/web`; empty where there is none.
    pub object: String,
    /// The field concerned, a JSON pointer or dotted path; empty where there is none.
    pub field: String,
    /// What is wrong and why.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Diagnostic {
    /// An error with code and message; the rest is added by the `with_…` methods.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    /// A warning with code and message.
    pub fn warning(code: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    fn new(severity: Severity, code: &str, message: String) -> Self {
        Diagnostic {
            file: String::new(),
            line: 0,
            severity,
            code: code.to_owned(),
            object: String::new(),
            field: String::new(),
            message,
            hint: String::new(),
        }
    }

    /// Sets file and line.
    #[must_use]
    pub fn at(mut self, file: &str, line: u64) -> Self {
        self.file = file.to_owned();
        self.line = line;
        self
    }

    /// Sets the object concerned.
    #[must_use]
    pub fn object(mut self, object: impl fmt::Display) -> Self {
        self.object = object.to_string();
        self
    }

    /// Sets the field concerned.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Sets what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Whether it holds something back.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line: error: object: field: message (hint)`, without the parts that are empty, on one line and safe for terminals: file names and
    /// messages quote what anybody may have pushed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, "{}: ", printable(file))?,
            (file, line) => write!(f, "{}:{line}: ", printable(file))?,
        }
        f.write_str(if self.is_error() { "error: " } else { "warning: " })?;
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{}: ", printable(part))?;
            }
        }
        f.write_str(&printable(&self.message))?;
        if !self.hint.is_empty() {
            write!(f, " ({})", printable(&self.hint))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_a_compiler_message() {
        let diagnostic = Diagnostic::error("missing-feed", "no file defines this feed")
            .at("apps/web.yaml", 7)
            .object("Subscription.apps.clusternet.io shop/web")
            .field("/spec/feeds/0")
            .hint("add the object or take it out of feeds");
        assert_eq!(
            diagnostic.to_string(),
            "apps/web.yaml:7: error: Subscription.apps.clusternet.io shop/web: /spec/feeds/0: no file defines this feed \
             (add the object or take it out of feeds)"
        );
    }

    #[test]
    fn a_file_name_writes_no_second_line() {
        let diagnostic = Diagnostic::error("parse", "bad \u{1b}[2J").at("a\nb.yaml:1: error: forged", 2);
        assert_eq!(diagnostic.to_string(), "a b.yaml:1: error: forged:2: error: bad  [2J");
    }
}
