//! Errors as people see them: what failed, why, what to do, and the exit code. The one place where errors from below are turned into words.

use std::error::Error;
use std::fmt;

/// A command that did not do its job.
#[derive(Debug)]
pub struct CliError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: String,
    exit_code: u8,
}

impl CliError {
    /// The command was called wrongly: exit code 2.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        CliError {
            message: message.into(),
            source: None,
            hint: hint.into(),
            exit_code: 2,
        }
    }

    /// The command failed: exit code 1.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        CliError {
            message: message.into(),
            source: None,
            hint: hint.into(),
            exit_code: 1,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with another exit code, for commands that give 1 a meaning of its own.
    #[must_use]
    pub fn exiting(mut self, exit_code: u8) -> Self {
        self.exit_code = exit_code;
        self
    }

    /// The exit code.
    pub const fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// What to do; may be empty.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}
