//! One object's change as a unified diff, as `diff -u` writes it. Values of Secrets are hidden on both sides.

use imara_diff::{Algorithm, Diff, Hunk, InternedInput, Token};

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
    let hunks: Vec<Hunk> = diff.hunks().collect();
    let mut unified = format!("--- {}\n+++ {}\n", name(before, "a"), name(after, "b"));
    for near in hunks.chunk_by(|one, next| next.before.start - one.before.end <= 2 * CONTEXT) {
        print(&mut unified, near, &input);
    }
    unified
}

/// Prints changes that share their context, under one header. (The library's own printer gets the header wrong where a first change is four to
/// six lines from the beginning.)
fn print(out: &mut String, hunks: &[Hunk], input: &InternedInput<&str>) {
    let (Some(first), Some(last)) = (hunks.first(), hunks.last()) else {
        return;
    };
    let lead = first.before.start.min(CONTEXT);
    let trail = (input.before.len() as u32 - last.before.end).min(CONTEXT);
    let old = first.before.start - lead..last.before.end + trail;
    let new = first.after.start - lead..last.after.end + trail;
    out.push_str(&format!("@@ -{} +{} @@\n", range(&old), range(&new)));
    let mut next = old.start;
    for hunk in hunks {
        print_lines(out, ' ', &input.before, next..hunk.before.start, input);
        print_lines(out, '-', &input.before, hunk.before.clone(), input);
        print_lines(out, '+', &input.after, hunk.after.clone(), input);
        next = hunk.before.end;
    }
    print_lines(out, ' ', &input.before, next..old.end, input);
}

/// Lines as a hunk's header names them: a side without lines by the line before it.
fn range(lines: &std::ops::Range<u32>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        number => format!("{},{number}", lines.start + 1),
    }
}

fn print_lines(out: &mut String, mark: char, side: &[Token], lines: std::ops::Range<u32>, input: &InternedInput<&str>) {
    for token in &side[lines.start as usize..lines.end as usize] {
        let line = input.interner[*token];
        out.push(mark);
        out.push_str(line);
        if !line.ends_with('\n') {
            out.push_str("\n\\ No newline at end of file\n");
        }
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
