//! Bad input case by case: what `branchline check` says and what `branchline render` makes of it, see `fixtures/check/README.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::process::{Output, branchline, run};
use crate::support::scratch;

type Files = BTreeMap<String, String>;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/check")
}

/// Every file below a folder by its path; none where it does not exist.
fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// A directory with the good repository, its state before and its state now.
struct Bench {
    directory: tempfile::TempDir,
    before: Files,
    good: Files,
}

impl Bench {
    fn new() -> Self {
        let directory = scratch("check");
        let mut bench = Bench {
            directory,
            before: Files::new(),
            good: Files::new(),
        };
        bench.before = bench.render(&cases().join("good/before"), None, "before");
        bench.good = bench.render(&cases().join("good/source"), Some("before"), "good");
        assert_eq!(bench.before.keys().collect::<Vec<_>>(), bench.good.keys().collect::<Vec<_>>());
        assert!(
            bench.before.iter().all(|(path, text)| bench.good[path] != *text),
            "every file has a newer content"
        );
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, verb: &str, source: &Path) -> std::process::Command {
        let mut command = branchline(self.directory.path());
        command
            .arg(verb)
            .arg(source)
            .arg("--clusters")
            .arg(cases().join("good/clusters.yaml"));
        command
    }

    /// The final objects that a source renders to.
    fn render(&self, source: &Path, previous: Option<&str>, out: &str) -> Files {
        let mut command = self.command("render", source);
        command.arg("--out").arg(self.path(out));
        if let Some(previous) = previous {
            command.arg("--previous").arg(self.path(previous));
        }
        let output = run(&mut command);
        assert!(matches!(output.code, Some(0 | 1)), "{}: {}", source.display(), output.stderr);
        let mut found = files(&self.path(out).join("clusters"));
        found.retain(|path, _| !path.ends_with("description.yaml"));
        found
    }

    fn check(&self, source: &Path) -> Output {
        run(self.command("check", source).arg("--previous").arg(self.path("before")))
    }

    /// The good repository with the case's files over it.
    fn source_of(&self, case: &Path) -> PathBuf {
        let source = self.path("source");
        let _ = fs::remove_dir_all(&source);
        for folder in [cases().join("good/source"), case.join("source")] {
            for (path, text) in files(&folder) {
                let file = source.join(path);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
        }
        source
    }

    /// How a render differs from that of the good repository.
    fn differences(&self, found: &Files) -> String {
        let mut text = String::new();
        for path in self
            .good
            .keys()
            .chain(found.keys())
            .collect::<std::collections::BTreeSet<_>>()
        {
            let what = match (found.get(path), self.good.get(path)) {
                (found, good) if found == good => continue,
                (None, _) => "left out",
                (_, None) => "added",
                (found, _) if found == self.before.get(path) => "held",
                _ => "changed",
            };
            writeln!(text, "  {what}: {path}").unwrap();
        }
        match text.is_empty() {
            true => "  no difference\n".to_owned(),
            false => text,
        }
    }

    fn outcome(&self, case: &Path) -> String {
        let source = self.source_of(case);
        let output = self.check(&source);
        speaks_clearly(&output, case);
        let said: Vec<&str> = output.stderr.lines().filter(|line| !line.starts_with("next: ")).collect();
        let after = self.differences(&self.render(&source, Some("before"), "after"));
        let alone = self.differences(&self.render(&source, None, "alone"));
        let code = output.code.unwrap();
        let said = said.join("\n");
        format!("{said}\nexit code {code}\n\nafter the state before:\n{after}\nwithout a state before:\n{alone}")
    }
}

/// Every finding says where and what to do, and the exit code is that of its severity.
#[track_caller]
fn speaks_clearly(output: &Output, case: &Path) {
    let is_finding = |line: &&str| line.contains("error: ") || line.contains("warning: ");
    let findings: Vec<&str> = output.stderr.lines().filter(is_finding).collect();
    let what = case.display();
    for finding in &findings {
        assert!(finding.ends_with(')') && finding.contains(" ("), "{what}: no hint: {finding}");
        if finding.contains(": no file that parses defines ") {
            // It is about what stands in no file any more.
            continue;
        }
        let place = finding.split(": ").next().unwrap();
        let line = place.rsplit(':').next().unwrap();
        assert!(line.parse::<u64>().is_ok(), "{what}: no line: {finding}");
        assert!(
            finding.contains(": /") || finding.contains("defined more than once") || finding.contains("not a Kubernetes object"),
            "{what}: no field: {finding}"
        );
    }
    let errors = findings.iter().any(|finding| finding.contains("error: "));
    assert_eq!(output.code, Some(i32::from(errors)), "{what}: {}", output.stderr);
}

#[test]
fn every_mistake_is_said_and_touches_nothing_else() {
    let bench = Bench::new();
    let mut wrong = Vec::new();
    for case in fs::read_dir(cases()).unwrap() {
        let case = case.unwrap().path();
        if !case.is_dir() || case.ends_with("good") {
            continue;
        }
        let found = bench.outcome(&case);
        let want = case.join("want.txt");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::write(&want, &found).unwrap();
        }
        let wanted = fs::read_to_string(&want).unwrap_or_default();
        if wanted != found {
            wrong.push(format!("{}:\n--- want\n{wanted}+++ found\n{found}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Too large to stand in a file of its own.
#[test]
fn a_patch_of_10001_operations_is_refused_where_it_stands() {
    let bench = Bench::new();
    let source = bench.source_of(Path::new("no such case"));
    let operations = vec![r#"{"op": "add", "path": "/data/a", "value": "b"}"#; 10_001].join(", ");
    let text = "apiVersion: apps.clusternet.io/v1alpha1\nkind: Localization\nmetadata: {name: bad, namespace: clusternet-paris}\nspec:\n  \
                feed: {apiVersion: v1, kind: ConfigMap, namespace: shop, name: config}\n  overrides:\n  - name: many\n    \
                type: JSONPatch\n    value: '[OPERATIONS]'\n";
    fs::write(source.join("bad.yaml"), text.replace("OPERATIONS", &operations)).unwrap();
    let output = bench.check(&source);
    speaks_clearly(&output, Path::new("10,001 operations"));
    let want = "bad.yaml:9: error: Localization.apps.clusternet.io clusternet-paris/bad: /spec/overrides/0/value: entry \"many\" (0): 10001 \
                operations, at most 10000 are carried out (correct the patch; the feed keeps its last result)\n";
    assert!(output.stderr.starts_with(want), "{}", output.stderr);
    let after = bench.differences(&bench.render(&source, Some("before"), "after"));
    assert_eq!(
        after,
        "  held: clusternet-paris/apps.web/manifests/configmap_shop_config.yaml\n"
    );
}
