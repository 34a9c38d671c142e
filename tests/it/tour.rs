//! The README's walk-through over `fixtures/tour`: 46 objects of many kinds, four clusters, and a change to plan. Each transcript is a file below
//! `fixtures/tour/want`, and those that the README shows stand there word by word. `UPDATE_FIXTURES=1` writes `want` anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::process::{Output, branchline, run};
use crate::support::repository::GitRepo;
use crate::support::scratch;

/// The repository of the walk-through: branch `main`, and a branch `next` with the change.
pub(crate) struct Tour {
    repo: GitRepo,
    scratch: tempfile::TempDir,
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tour")
}

/// Every file below a folder: path and text.
fn files(folder: &Path) -> Vec<(String, String)> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn borrowed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

impl Tour {
    pub(crate) fn start() -> Self {
        let repo = GitRepo::empty();
        repo.push("first", &borrowed(&files(&fixture().join("source"))));
        repo.put_all(&borrowed(&files(&fixture().join("next"))));
        repo.commit("next");
        repo.in_clone(&["push", "--quiet", "origin", "HEAD:refs/heads/next"]).ok();
        repo.in_clone(&["checkout", "--quiet", "--force", "--detach", "origin/main"])
            .ok();
        Tour {
            repo,
            scratch: scratch("tour"),
        }
    }

    /// Runs a command in the clone, where `main` is checked out.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = branchline(self.scratch.path());
        run(command.current_dir(self.repo.clone_directory()).args(arguments))
    }

    /// Stages files and commits them on top of `main`; returns the commit.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        self.repo.put_all(files);
        self.repo.commit("edit");
        self.repo.head()
    }

    /// The checked-out folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.repo.clone_directory()
    }

    /// A place for a command's output.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

/// What a person at a terminal sees.
fn transcript(tour: &Tour, line: &str) -> String {
    let line = line.replace("OUT", &tour.scratch("out").display().to_string());
    let arguments: Vec<&str> = line.split(' ').skip(1).collect();
    let output = tour.run(&arguments);
    let text = format!(
        "$ {line}\n{}{}exit code {}\n",
        output.stdout,
        output.stderr,
        output.code.unwrap()
    );
    text.replace(&tour.scratch("out").display().to_string(), "OUT")
}

/// File, command, and whether the README shows it.
const LINES: [(&str, &str, bool); 9] = [
    ("check", "branchline check .", true),
    ("render", "branchline render . --clusters hub/clusters.yaml --out OUT", true),
    ("why", "branchline why berlin configmap/web data.greeting", true),
    ("why-not", "branchline why lab deployment/web", true),
    ("why-release", "branchline why paris helmrelease/grafana", false),
    ("plan", "branchline plan HEAD..origin/next", true),
    ("plan-cluster", "branchline plan HEAD..origin/next --cluster paris", true),
    ("plan-markdown", "branchline plan HEAD..origin/next -o markdown", false),
    ("plan-json", "branchline plan HEAD..origin/next -o json", false),
];

#[test]
fn every_transcript_is_true() {
    let tour = Tour::start();
    for (name, line, _) in LINES {
        let file = fixture().join("want").join(format!("{name}.txt"));
        let found = transcript(&tour, line);
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&file).unwrap(), "{}", file.display());
    }
}

#[test]
fn the_readme_shows_what_the_commands_print() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for (name, _, _) in LINES.iter().filter(|(_, _, shown)| *shown) {
        let text = fs::read_to_string(fixture().join("want").join(format!("{name}.txt"))).unwrap();
        let text = text.lines().filter(|line| !line.starts_with("exit code "));
        let block: String = text
            .map(|line| {
                if line.is_empty() {
                    "\n".to_owned()
                } else {
                    format!("    {line}\n")
                }
            })
            .collect();
        assert!(
            readme.contains(&block),
            "the README's transcript of {name} is another:\n{block}"
        );
    }
}

#[test]
fn the_repository_has_many_kinds() {
    let all: String = files(&fixture().join("source"))
        .into_iter()
        .map(|(_, text)| format!("\n{text}"))
        .collect();
    let kinds: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    let distinct: std::collections::BTreeSet<&&str> = kinds.iter().collect();
    assert!(
        kinds.len() >= 40 && distinct.len() >= 25,
        "{} objects of {} kinds",
        kinds.len(),
        distinct.len()
    );
}
