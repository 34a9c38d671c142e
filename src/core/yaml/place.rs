//! Lines of fields: where a JSON pointer stands in a file. Reads no value.

use std::ops::Range;

use granit_parser::{Event, Parser};

use super::split_documents;

/// A file's text with the places of its documents, so that finding a field takes the time of one document, however many there are.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    text: String,
    /// The line on which each document begins, and where it is.
    documents: Vec<(u64, Range<usize>)>,
}

impl Source {
    /// Of a file that could be read.
    pub fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).trim_start_matches('\u{feff}').to_owned();
        let documents = split_documents(&text);
        Source { text, documents }
    }

    /// The line of the value at a JSON pointer in the document that starts at `line`; the nearest parent's where it is missing.
    pub fn locate(&self, line: u64, pointer: &str) -> u64 {
        let after = self.documents.partition_point(|(start, _)| *start <= line);
        let Some((begins, range)) = after.checked_sub(1).and_then(|at| self.documents.get(at)) else {
            return line;
        };
        let wanted: Vec<String> = pointer
            .split('/')
            .skip(1)
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
            .collect();
        locate_in(&self.text[range.clone()], &wanted).map_or(line, |found| begins + found - 1)
    }
}

/// The same in a text that is looked at once.
pub fn locate(file: &[u8], line: u64, pointer: &str) -> u64 {
    Source::new(file).locate(line, pointer)
}

/// Where an open collection stands while the events are walked.
enum Frame {
    Mapping { key: Option<String> },
    Sequence { index: usize },
}

/// Follows the events to the wanted path; remembers the line of the deepest part of it that is there.
fn locate_in(text: &str, wanted: &[String]) -> Option<u64> {
    let mut stack: Vec<Frame> = Vec::new();
    let mut best: Option<(usize, u64)> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        let line = span.start.line() as u64;
        let is_node = matches!(
            event,
            Event::Scalar(..) | Event::MappingStart(..) | Event::SequenceStart(..) | Event::Alias(..)
        );
        if is_node && take_key(&mut stack, &event) {
            note_key(&stack, wanted, line, &mut best);
            continue;
        }
        if is_node {
            note_key(&stack, wanted, line, &mut best);
        }
        match event {
            Event::MappingStart(..) => stack.push(Frame::Mapping { key: None }),
            Event::SequenceStart(..) => stack.push(Frame::Sequence { index: 0 }),
            Event::MappingEnd | Event::SequenceEnd => {
                stack.pop();
                finish_value(&mut stack);
            }
            Event::Scalar(..) | Event::Alias(..) => finish_value(&mut stack),
            _ => {}
        }
    }
    best.map(|(_, line)| line)
}

fn take_key(stack: &mut [Frame], event: &Event<'_>) -> bool {
    let Some(Frame::Mapping { key: key @ None }) = stack.last_mut() else {
        return false;
    };
    *key = Some(match event {
        Event::Scalar(text, ..) => text.to_string(),
        _ => String::new(),
    });
    true
}

fn finish_value(stack: &mut [Frame]) {
    match stack.last_mut() {
        Some(Frame::Mapping { key }) => *key = None,
        Some(Frame::Sequence { index }) => *index += 1,
        None => {}
    }
}

fn note_key(stack: &[Frame], wanted: &[String], line: u64, best: &mut Option<(usize, u64)>) {
    let on_path = stack.len() <= wanted.len()
        && stack.iter().zip(wanted).all(|(frame, want)| match frame {
            Frame::Mapping { key } => key.as_deref() == Some(want.as_str()),
            Frame::Sequence { index } => index.to_string() == *want,
        });
    if on_path && best.is_none_or(|(depth, _)| stack.len() > depth) {
        *best = Some((stack.len(), line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_lines_by_pointer() {
        let file = b"x: 1\n---\nspec:\n  feeds:\n  - kind: A\n    name: a\n  - kind: B\n    name: b\n";
        assert_eq!(locate(file, 3, "/spec/feeds/1/name"), 8);
        assert_eq!(locate(file, 3, "/spec/feeds/1"), 7);
        assert_eq!(locate(file, 3, "/spec/missing"), 3);
        assert_eq!(locate(file, 3, ""), 3);
    }

    #[test]
    fn each_document_is_found_by_its_line() {
        let file: String = (0..100).map(|n| format!("---\n# {n}\na: {n}\n")).collect();
        let source = Source::new(format!("\u{feff}{file}").as_bytes());
        for n in 0..100 {
            assert_eq!(source.locate(3 * n + 3, "/a"), 3 * n + 3);
        }
    }
}
