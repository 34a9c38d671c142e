//! STYLE as tests: who imports whom, what every file begins with, which names are not used. Reads the sources as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The import diagram: a module, and what it may name besides itself. Nothing points the other way.
const MAY_IMPORT: [(&str, &[&str]); 11] = [
    ("core", &[]),
    ("wire", &["core"]),
    ("git", &["wire", "core"]),
    ("net", &["core"]),
    ("tunnel", &["net", "wire", "core"]),
    ("kubeapi", &["wire", "core"]),
    ("cluster", &["net", "wire", "core"]),
    ("hub", &["git", "tunnel", "kubeapi", "cluster", "net", "wire", "core"]),
    ("agent", &["git", "tunnel", "kubeapi", "cluster", "net", "wire", "core"]),
    ("sandbox", &["git", "tunnel", "kubeapi", "cluster", "net", "wire", "core"]),
    (
        "cli",
        &[
            "hub", "agent", "sandbox", "git", "tunnel", "kubeapi", "cluster", "net", "wire", "core",
        ],
    ),
];

/// What `core` and `wire` must not name: they decide, others act.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "SystemTime::now",
    "Instant::now",
    "tokio::",
    "async fn",
    "rand::",
];

/// Names that say nothing about what is in the file.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "manager", "helper", "helpers", "misc", "shared"];

#[test]
fn imports_follow_the_diagram() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = top_module(&path);
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            assert!(
                ["lib", "main"].contains(&module.as_str()),
                "src/{module} is not in the diagram of tests/it/architecture.rs"
            );
            continue;
        };
        for named in crate_paths(&text) {
            if named != module && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{}: `{module}` may not import `{named}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn what_decides_touches_nothing() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !["core", "wire"].contains(&top_module(&path).as_str()) || path.ends_with("tests.rs") {
            continue;
        }
        // Unit tests may read fixtures.
        let decides = text.split("#[cfg(test)]").next().unwrap();
        let named = IMPURE
            .iter()
            .filter(|word| code_lines(decides).any(|line| line.contains(*word)));
        wrong.extend(named.map(|word| format!("{}: names `{word}`", path.display())));
    }
    assert!(wrong.is_empty(), "core and wire are pure:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not open with `//!`", path.display());
    }
}

#[test]
fn no_file_is_long() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= 650,
            "{} has {lines} lines: it owns more than one thing",
            path.display()
        );
    }
}

#[test]
fn no_file_has_an_empty_name() {
    for (path, _) in sources() {
        for part in path.with_extension("").components() {
            let part = part.as_os_str().to_string_lossy();
            assert!(
                !EMPTY_NAMES.contains(&part.as_ref()),
                "{}: `{part}` says nothing",
                path.display()
            );
        }
    }
}

#[test]
fn lints_are_expected_with_a_reason_never_allowed() {
    for (path, text) in sources() {
        for line in code_lines(&text) {
            assert!(
                !line.contains("#[allow(") && !line.contains("#![allow("),
                "{}: {line}",
                path.display()
            );
        }
    }
}

#[test]
fn one_file_starts_git() {
    let starts = |text: &str| code_lines(text).any(|line| line.contains("Command::new(\"git\")"));
    let files: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| !path.ends_with("tests.rs") && starts(text))
        .map(|(path, _)| path)
        .collect();
    assert!(files.len() <= 1, "git is started in more than one file: {files:?}");
}

#[test]
fn the_reader_of_imports_sees_groups_and_ignores_comments() {
    let text = "use crate::{core::ids, wire};\n// crate::hub is somebody else\nfn f() { crate::git::read(); }\nuse crate::{\n    tunnel::dial,\n};\n";
    let expected: BTreeSet<String> = ["core", "wire", "git", "tunnel"].map(str::to_owned).into();
    assert_eq!(crate_paths(text), expected);
}

/// The top-level modules that `crate::…` paths name, in single paths and in groups.
fn crate_paths(text: &str) -> BTreeSet<String> {
    let code: String = code_lines(text).collect::<Vec<_>>().join("\n");
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => named.extend(group_heads(group)),
            None => named.extend([identifier(rest)]),
        }
    }
    named.remove("");
    named
}

/// The first word of each item of a `{…}` group whose opening brace was read.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut heads = vec![identifier(group.trim_start())];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(identifier(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The lines without comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default())
}

/// `core` for src/core/ids.rs, `lib` for src/lib.rs.
fn top_module(path: &Path) -> String {
    let first = path.components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Every source file, by its path below src.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!files.is_empty(), "src has no sources");
    files
}
