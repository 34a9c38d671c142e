//! Texts of peers and repositories made safe to show: bounded, on one line, without anything that a terminal or a log would obey.

mod near;

use std::borrow::Cow;

pub use near::{edit_distance, nearest};

/// Longest text of a peer that is kept, in bytes; longer ones are cut.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// An error with its causes, each said once: libraries often repeat a cause in their own message.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// A number of things, in the noun's singular or plural: `1 cluster`, `3 clusters`.
pub fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The text on one line: control characters (escape sequences among them) and characters that reorder what is shown become spaces.
pub fn printable(text: &str) -> Cow<'_, str> {
    let unsafe_to_show =
        |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.contains(unsafe_to_show) {
        Cow::Owned(text.replace(unsafe_to_show, " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text on one line, cut at [`MAX_MESSAGE_BYTES`] bytes between two characters, with an ellipsis when something is missing.
pub fn bounded(text: &str) -> String {
    cut(text, MAX_MESSAGE_BYTES)
}

/// The text on one line, cut at `most` bytes.
pub fn cut(text: &str, most: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= most {
        return printable(text).into_owned();
    }
    let end = (0..=most.saturating_sub(ELLIPSIS.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default();
    // A replaced character is never shorter than the space that stands for it.
    format!("{}{ELLIPSIS}", printable(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let cut = bounded(&"é".repeat(2000));
        assert!(cut.len() <= MAX_MESSAGE_BYTES && cut.ends_with('…'));
        assert_eq!(bounded("short"), "short");
    }

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        assert_eq!(
            printable("a\u{1b}[31mred\u{1b}[0m\r\nERROR forged\u{9b}2J\u{202e}x"),
            "a [31mred [0m  ERROR forged 2J x"
        );
        assert!(matches!(printable("grün ✓"), Cow::Borrowed(_)));
    }
}
