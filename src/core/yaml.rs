//! YAML and JSON text to JSON values and back, read as kubectl reads them and written so that kubectl reads them back
//! unchanged. Limits stand in front of the parser. Owns no kind's schema.

mod place;

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Number, Value};

pub use place::{Source, locate};

/// What one source file may cost. A breach is a problem of that file alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Documents in one file.
    pub documents: usize,
    /// Nesting of mappings and lists.
    pub depth: usize,
    /// Nodes in one document, after aliases are expanded.
    pub nodes: usize,
    /// Aliases (`*name`) in one document.
    pub aliases: usize,
}

impl Default for Limits {
    /// Far above what people write: the largest CRD bundles are near 5 MB and 200,000 nodes.
    fn default() -> Self {
        Limits {
            file_bytes: 16 << 20,
            documents: 20_000,
            depth: 64,
            nodes: 1_000_000,
            aliases: 1_000,
        }
    }
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The line on which its first content stands, counted from 1.
    pub line: u64,
    /// The value, or why there is none.
    pub value: Result<Value, Problem>,
}

/// Why text could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, counted from 1; 0 where the whole file is meant.
    pub line: u64,
    /// Stable code: `parse-failure` or `limit-exceeded`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

/// Reads every document of a YAML file. Empty and comment-only documents are left out, as kubectl does.
pub fn parse_yaml(bytes: &[u8], limits: &Limits) -> Result<Vec<Document>, Problem> {
    let text = decode(bytes, limits)?;
    let chunks = split_documents(text);
    if chunks.len() > limits.documents {
        return Err(too_many_documents(limits));
    }
    Ok(chunks
        .into_iter()
        .filter_map(|(line, range)| parse_document(&text[range], line, limits))
        .collect())
}

/// Reads every document of a JSON file: one value after the other.
pub fn parse_json(bytes: &[u8], limits: &Limits) -> Result<Vec<Document>, Problem> {
    let text = decode(bytes, limits)?;
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let (mut counted, mut begins) = (0, 1);
    loop {
        let start = stream.byte_offset();
        // Lines are counted on from the last document: a file may hold many.
        begins += line_at(&text[counted..], start - counted) - 1;
        counted = start;
        let line = begins + first_content_line(&text[start..], 0) - 1;
        match stream.next() {
            None => return Ok(documents),
            Some(Ok(value)) => documents.push(Document { line, value: Ok(value) }),
            Some(Err(error)) => {
                // Its lines are those of the file.
                let line = error.line() as u64;
                documents.push(Document {
                    line,
                    value: Err(parse_failure(line, &error)),
                });
                return Ok(documents);
            }
        }
        if documents.len() > limits.documents {
            return Err(too_many_documents(limits));
        }
    }
}

/// Reads a single YAML value, for example the text of an override. YAML 1.1 as kubectl understands it.
pub fn parse_value(text: &str, limits: &Limits) -> Result<Value, Problem> {
    if text.len() as u64 > limits.file_bytes {
        return Err(too_large(text.len() as u64, limits));
    }
    read_value(text, 1, limits)
}

/// Writes a value as one YAML document that kubectl reads back to the same value.
pub fn emit(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX >> 1, prefer_block_scalars: true };
    // Writing a JSON value into a String has no way to fail; JSON is YAML too should the writer ever refuse.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_else(|_| format!("{value}\n"))
}

fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, Problem> {
    if bytes.len() as u64 > limits.file_bytes {
        return Err(too_large(bytes.len() as u64, limits));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = line_at(&valid, valid.len());
        let message = format!("not UTF-8 text: invalid byte at offset {}", error.valid_up_to());
        Problem {
            line,
            code: "parse-failure",
            message,
            hint: "save the file as UTF-8, or list it in .branchlineignore",
        }
    })?;
    Ok(text.trim_start_matches('\u{feff}'))
}

/// The problem of a file that is larger than allowed; also raised before a file is read at all.
pub fn too_large(size: u64, limits: &Limits) -> Problem {
    let message = format!("the file has {size} bytes, at most {} are read", limits.file_bytes);
    Problem {
        line: 0,
        code: "limit-exceeded",
        message,
        hint: "split the file, or list it in .branchlineignore",
    }
}

fn too_many_documents(limits: &Limits) -> Problem {
    let message = format!("the file has more than {} documents", limits.documents);
    Problem {
        line: 0,
        code: "limit-exceeded",
        message,
        hint: "split the file",
    }
}

/// Cuts a stream at its document markers. A line that begins with `---` or `...` ends a document wherever it stands, block scalars
/// included (YAML 1.2, rule `c-forbidden`), so no parser is needed for this.
fn split_documents(text: &str) -> Vec<(u64, Range<usize>)> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut offset, mut line) = (0, 1, 0, 1);
    for row in text.split_inclusive('\n') {
        if is_marker(row, "---") || is_marker(row, "...") {
            chunks.push((start_line, start..offset));
            // What follows `--- ` on the same line belongs to the next document.
            start = offset + 3;
            start_line = line;
        }
        offset += row.len();
        line += 1;
    }
    chunks.push((start_line, start..text.len()));
    chunks
}

fn is_marker(row: &str, marker: &str) -> bool {
    row.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn parse_document(text: &str, line: u64, limits: &Limits) -> Option<Document> {
    let offset = text.split_inclusive('\n').position(has_content)?;
    let value = read_value(text, line, limits);
    (value != Ok(Value::Null)).then(|| Document {
        line: line + offset as u64,
        value,
    })
}

fn has_content(row: &str) -> bool {
    let row = row.trim();
    !row.is_empty() && !row.starts_with(['#', '%'])
}

fn read_value(text: &str, line: u64, limits: &Limits) -> Result<Value, Problem> {
    // Directives (`%YAML 1.1`) carry nothing that the reading depends on.
    let directives = text.split_inclusive('\n').take_while(|row| !has_content(row));
    let skipped: Vec<&str> = directives.filter(|row| row.starts_with('%')).collect();
    let body = if skipped.is_empty() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.replacen('%', "#", skipped.len()))
    };
    let mut value = serde_saphyr::from_str_with_options::<Option<Value>>(&body, options(limits))
        .map_err(|error| describe(&error, line))?
        .unwrap_or_default();
    normalise_numbers(&mut value);
    Ok(value)
}

fn options(limits: &Limits) -> serde_saphyr::Options {
    let mut options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: limits.depth,
            max_nodes: limits.nodes,
            max_events: limits.nodes.saturating_mul(3),
            max_aliases: limits.aliases,
            max_total_scalar_bytes: usize::try_from(limits.file_bytes).unwrap_or(usize::MAX),
        },
    };
    options.alias_limits.max_total_replayed_events = 100_000;
    options
}

fn describe(error: &serde_saphyr::Error, line: u64) -> Problem {
    let at = error
        .location()
        .map_or(line, |location| line + location.line().saturating_sub(1));
    let mut problem = parse_failure(at, error);
    if ["budget", "limit exceeded", "recursion"]
        .iter()
        .any(|word| problem.message.contains(word))
    {
        problem.code = "limit-exceeded";
        problem.hint = "the file nests deeper or expands further than is read; simplify it, or list it in .branchlineignore";
    }
    problem
}

fn parse_failure(line: u64, error: &dyn std::fmt::Display) -> Problem {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    // The parser counts lines from the document's start; the line of the file is given beside the message.
    let message = first.split(" at line ").next().unwrap_or(first);
    // What the parser advises is for programmers.
    let message = message.split(", set ").next().unwrap_or(message).chars().take(300).collect();
    Problem {
        line,
        code: "parse-failure",
        message,
        hint: "correct the YAML; until then what the file defined keeps its last result",
    }
}

/// kubectl turns YAML into JSON, where `1.0` and `1e3` are the integers 1 and 1000.
fn normalise_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(integer) = integral(number) {
                *number = integer;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise_numbers),
        Value::Object(fields) => fields.values_mut().for_each(normalise_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn integral(number: &Number) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: above it a float no longer names one integer
    let float = number
        .as_f64()
        .filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT)?;
    format!("{float:.0}").parse::<i64>().ok().map(Number::from)
}

fn line_at(text: &str, offset: usize) -> u64 {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|b| **b == b'\n')
        .count() as u64
}

fn first_content_line(text: &str, offset: usize) -> u64 {
    let blank = text[offset..].len() - text[offset..].trim_start().len();
    line_at(text, offset + blank)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn values(text: &str) -> Vec<Value> {
        parse_yaml(text.as_bytes(), &Limits::default())
            .unwrap()
            .into_iter()
            .map(|d| d.value.unwrap())
            .collect()
    }

    #[test]
    fn reads_scalars_as_kubectl_does() {
        let text = "a: yes\nb: 0644\nc: 1_000\nd: 1.0\ne: 1e3\nf: 'yes'\ng: 1.5\n";
        let want = json!({"a": true, "b": 420, "c": 1000, "d": 1, "e": 1000, "f": "yes", "g": 1.5});
        assert_eq!(values(text), [want]);
    }

    #[test]
    fn skips_empty_documents_and_knows_lines() {
        let text = "# nothing\n---\n\na: 1\n---\n# only a comment\n---\nb: |\n  x\n...\n---\nc: 3\n";
        let documents = parse_yaml(text.as_bytes(), &Limits::default()).unwrap();
        let found: Vec<_> = documents.iter().map(|d| (d.line, d.value.clone().unwrap())).collect();
        assert_eq!(found, [(4, json!({"a": 1})), (8, json!({"b": "x\n"})), (12, json!({"c": 3}))]);
    }

    #[test]
    fn each_json_value_knows_its_line() {
        let documents = parse_json(
            b"\n{\"a\": 1}\n\n\n{\n\"b\": 2} {\"c\": 3}\n{\n\"d\": nothing}\n",
            &Limits::default(),
        )
        .unwrap();
        let lines: Vec<(u64, bool)> = documents.iter().map(|d| (d.line, d.value.is_ok())).collect();
        assert_eq!(lines, [(2, true), (5, true), (6, true), (8, false)]);
    }

    #[test]
    fn one_bad_document_leaves_the_others() {
        let documents = parse_yaml(b"a: 1\n---\nb: [1\nc: 2\n---\nd: 4\n", &Limits::default()).unwrap();
        assert_eq!(documents.len(), 3);
        let problem = documents[1].value.clone().unwrap_err();
        assert_eq!((problem.code, problem.line > 2), ("parse-failure", true));
    }

    #[test]
    fn limits_stop_bombs() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        let problem = parse_yaml(bomb.as_bytes(), &Limits::default())
            .unwrap()
            .remove(0)
            .value
            .unwrap_err();
        assert_eq!(problem.code, "limit-exceeded", "{problem:?}");
        let deep = "[".repeat(10_000);
        let problem = parse_yaml(deep.as_bytes(), &Limits::default())
            .unwrap()
            .remove(0)
            .value
            .unwrap_err();
        assert!(problem.line > 0);
        let json = parse_json("[".repeat(10_000).as_bytes(), &Limits::default()).unwrap();
        assert!(json[0].value.is_err());
        let limits = Limits {
            file_bytes: 10,
            ..Limits::default()
        };
        assert_eq!(parse_yaml(b"a: 01234567890", &limits).unwrap_err().code, "limit-exceeded");
    }

    #[test]
    fn what_the_parser_advises_to_programmers_is_left_out() {
        let problem = values_or_problem("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((problem.line, problem.message.as_str()), (3, "duplicate mapping key: a"));
    }

    fn values_or_problem(text: &str) -> Result<Value, Problem> {
        parse_yaml(text.as_bytes(), &Limits::default()).unwrap().remove(0).value
    }

    #[test]
    fn refuses_what_is_not_text() {
        let problem = parse_yaml(b"a: 1\nb: \xff\xfe", &Limits::default()).unwrap_err();
        assert_eq!((problem.line, problem.code), (2, "parse-failure"));
    }

    #[test]
    fn emits_what_it_reads() {
        let nasty = json!({"yes": "no", "y": "0644", "n": "1e3", "<<": "~", "empty": "", "multi": "a\nb\n", "long": "x ".repeat(200),
            "tab": "\ta", "colon": "a: b", "hash": "a #b", "list": [], "map": {}, "nested": [{"a": [1, null, true]}], "cr": "a\r\nb"});
        assert_eq!(values(&emit(&nasty)), [nasty]);
    }
}
