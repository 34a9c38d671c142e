//! Where commands write: results to stdout, everything about them to stderr; colours only on a terminal, `NO_COLOR` honoured.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

use crate::core::diagnostic::Diagnostic;

use super::CliError;

/// The terminal.
#[derive(Debug)]
pub(super) struct Output {
    colours: bool,
    result_colours: bool,
    /// What kept a result from being written whole.
    broken: Option<io::Error>,
}

impl Output {
    /// The process's own streams.
    pub(super) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output {
            colours: wanted && io::stderr().is_terminal(),
            result_colours: wanted && io::stdout().is_terminal(),
            broken: None,
        }
    }

    /// A line of the result.
    pub(super) fn line(&mut self, text: &str) {
        let written = writeln!(io::stdout(), "{text}");
        self.note_written(written);
    }

    /// Text of the result as it is.
    pub(super) fn text(&mut self, text: &str) {
        let written = io::stdout().write_all(text.as_bytes());
        self.note_written(written);
    }

    /// A reader that has gone away (`| head`) has what it wanted; anything else leaves a result that is not whole.
    fn note_written(&mut self, written: io::Result<()>) {
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.broken.get_or_insert(error);
        }
    }

    /// The end of the result: fails if not all of it was written.
    pub(super) fn finish(&mut self) -> Result<(), CliError> {
        let flushed = io::stdout().flush();
        self.note_written(flushed);
        let hint = "what was written is not whole: is the disk full?";
        match self.broken.take() {
            Some(error) => Err(CliError::failed("the result cannot be written", hint).because(error)),
            None => Ok(()),
        }
    }

    /// A unified diff as a result.
    pub(super) fn diff(&mut self, text: &str) {
        if !self.result_colours {
            return self.text(text);
        }
        for line in text.lines() {
            match line.chars().next() {
                Some('+') => self.line(&format!("\x1b[32m{line}\x1b[0m")),
                Some('-') => self.line(&format!("\x1b[31m{line}\x1b[0m")),
                Some('@') => self.line(&format!("\x1b[36m{line}\x1b[0m")),
                _ => self.line(line),
            }
        }
    }

    /// A remark beside the result.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Diagnostics, one a line.
    pub(super) fn diagnostics(&mut self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            let text = diagnostic.to_string();
            let (word, colour) = if diagnostic.is_error() {
                ("error: ", "31")
            } else {
                ("warning: ", "33")
            };
            self.note(&self.coloured(&text, word, colour));
        }
    }

    /// An error with its causes and its hint.
    pub(super) fn problem(&mut self, error: &CliError) {
        let mut text = format!("error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some errors below say their cause themselves, with what to do about it.
            if !text.contains(&cause_text) {
                text.push_str(&format!(": {cause_text}"));
            }
            source = cause.source();
        }
        if !error.hint().is_empty() {
            text.push_str(&format!(" ({})", error.hint()));
        }
        self.note(&self.coloured(&text, "error: ", "31"));
    }

    fn coloured(&self, text: &str, word: &str, colour: &str) -> String {
        if self.colours {
            text.replacen(word, &format!("\x1b[{colour}m{word}\x1b[0m"), 1)
        } else {
            text.to_owned()
        }
    }
}

/// `1 error`, `2 errors`.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

/// Rows under a header, columns padded as kubectl pads them.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([header[column].len()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: String = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}   "))
            .collect();
        format!("{}\n", padded.trim_end())
    };
    let mut text = line(header.to_vec());
    rows.iter()
        .for_each(|row| text.push_str(&line(row.iter().map(String::as_str).collect())));
    text
}
