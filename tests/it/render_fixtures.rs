//! `branchline render` case by case: `fixtures/render/<case>/{source,clusters.yaml,want}`, and `before` where a case needs a previous state,
//! with `clusters-before.yaml` where the clusters were others then.
//! `UPDATE_FIXTURES=1` writes `want` anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::process::{Output, branchline, run};
use crate::support::scratch;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/render")
}

/// Every file below a folder by its path.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
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

fn render(source: &Path, clusters: &Path, previous: Option<&Path>, out: &Path) -> Output {
    let mut command = branchline(out.parent().unwrap());
    command
        .arg("render")
        .arg(source)
        .arg("--clusters")
        .arg(clusters)
        .arg("--out")
        .arg(out);
    if let Some(previous) = previous {
        command.arg("--previous").arg(previous);
    }
    run(&mut command)
}

/// What a case gives: the tree, and what was said about it without the advice at the end.
fn outcome(case: &Path, directory: &Path) -> BTreeMap<String, String> {
    let clusters = case.join("clusters.yaml");
    let before = case.join("before");
    let previous = before.exists().then(|| {
        let previous = directory.join("previous");
        let earlier = Some(case.join("clusters-before.yaml")).filter(|path| path.exists());
        render(&before, earlier.as_ref().unwrap_or(&clusters), None, &previous).ok();
        previous
    });
    let out = directory.join("out");
    let output = render(&case.join("source"), &clusters, previous.as_deref(), &out);
    let mut found = files(&out);
    let again = directory.join("again");
    render(&case.join("source"), &clusters, Some(&out), &again);
    assert_eq!(files(&again), found, "{}: a second run changes nothing", case.display());
    let said: Vec<&str> = output.stderr.lines().filter(|line| !line.starts_with("next: ")).collect();
    found.insert(
        "stderr.txt".to_owned(),
        format!("{}\nexit code {}\n", said.join("\n"), output.code.unwrap()),
    );
    found
}

#[test]
fn every_case_gives_what_it_says() {
    for case in fs::read_dir(cases()).unwrap() {
        let case = case.unwrap().path();
        let directory = scratch("fixture");
        let found = outcome(&case, directory.path());
        let want = case.join("want");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            let _ = fs::remove_dir_all(&want);
            for (path, text) in &found {
                let file = want.join(path);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
        }
        let wanted = files(&want);
        let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&wanted), "{}", case.display());
        for (path, text) in &found {
            assert_eq!(text, &wanted[path], "{}: {path}", case.display());
        }
    }
}
