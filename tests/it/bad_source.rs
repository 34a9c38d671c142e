//! What people push by mistake, through `branchline check` and `branchline render`: every mistake is named with file, line, object, reason
//! and hint, what it touches keeps its last good state, and nothing else changes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{Output, branchline, run};
use crate::support::repository::GitRepo;
use crate::support::samples::{config_map, config_map_feed, localization, managed_cluster, subscription};
use crate::support::scratch;

/// A source repository with two Subscriptions, `web` and `db`, for two clusters, and the state that it rendered to.
struct Case {
    repo: GitRepo,
    directory: TempDir,
}

impl Case {
    fn new() -> Self {
        let repo = GitRepo::with(&[
            (
                "web.yaml",
                &(subscription("web", &[], &[config_map_feed("web")]) + "---\n" + &config_map("web", "hello")),
            ),
            (
                "db.yaml",
                &(subscription("db", &[("name", "a")], &[config_map_feed("db")]) + "---\n" + &config_map("db", "hello")),
            ),
        ]);
        let case = Case {
            repo,
            directory: scratch("render"),
        };
        let clusters = managed_cluster("a", "00000000-0000-4000-8000-00000000000a")
            + &managed_cluster("b", "00000000-0000-4000-8000-00000000000b");
        fs::write(case.path("clusters.yaml"), clusters).unwrap();
        case.render("good", None).ok();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn source(&self) -> String {
        format!("{}@main", self.repo.bare().display())
    }

    /// Renders the pushed commit into the folder `out`.
    fn render(&self, out: &str, previous: Option<&str>) -> Output {
        let mut command = branchline(self.directory.path());
        command
            .arg("render")
            .arg(self.source())
            .arg("--clusters")
            .arg(self.path("clusters.yaml"))
            .arg("--out")
            .arg(self.path(out));
        if let Some(previous) = previous {
            command.arg("--previous").arg(self.path(previous));
        }
        run(&mut command)
    }

    /// The diagnostics for the pushed commit, and the exit code.
    fn check(&self) -> (Vec<Value>, Option<i32>) {
        let mut command = branchline(self.directory.path());
        command
            .arg("check")
            .arg(self.source())
            .arg("--clusters")
            .arg(self.path("clusters.yaml"))
            .args(["-o", "json"]);
        let output = run(&mut command);
        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (report["diagnostics"].as_array().unwrap().clone(), output.code)
    }

    /// The only error of the pushed commit; it says what, where, why and what to do.
    #[track_caller]
    fn only_error(&self, file: &str) -> Value {
        let (diagnostics, code) = self.check();
        assert_eq!(code, Some(1), "{diagnostics:#?}");
        let errors: Vec<&Value> = diagnostics.iter().filter(|d| d["severity"] == "error").collect();
        assert_eq!(errors.len(), 1, "{diagnostics:#?}");
        self.speaks_clearly(errors[0], file);
        errors[0].clone()
    }

    /// The only finding of the pushed commit, a warning.
    #[track_caller]
    fn only_warning(&self, file: &str) -> Value {
        let (diagnostics, code) = self.check();
        assert_eq!((diagnostics.len(), code), (1, Some(0)), "{diagnostics:#?}");
        assert_eq!(diagnostics[0]["severity"], "warning");
        self.speaks_clearly(&diagnostics[0], file);
        diagnostics[0].clone()
    }

    #[track_caller]
    fn speaks_clearly(&self, diagnostic: &Value, file: &str) {
        assert_eq!(diagnostic["file"], file, "{diagnostic:#}");
        for field in ["code", "message", "hint"] {
            assert!(
                diagnostic[field].as_str().is_some_and(|text| !text.is_empty()),
                "no {field}: {diagnostic:#}"
            );
        }
    }

    /// Rendering the pushed commit after the good state gives the same state, and exit code 1.
    #[track_caller]
    fn state_stays(&self) {
        self.state_changes_by(&[]);
    }

    /// Rendering the pushed commit after the good state differs from it in exactly these files of `clusters/`, exit code 1.
    #[track_caller]
    fn state_changes_by(&self, expected: &[&str]) {
        self.render("next", Some("good")).fails_with(1);
        let good = contents(&self.path("good/clusters"));
        let next = contents(&self.path("next/clusters"));
        let changed: Vec<&String> = good
            .keys()
            .chain(next.keys())
            .filter(|path| good.get(*path) != next.get(*path))
            .collect();
        let mut changed: Vec<&str> = changed.into_iter().map(String::as_str).collect();
        changed.sort_unstable();
        changed.dedup();
        assert_eq!(changed, expected);
    }
}

/// Every file below a folder, by relative path.
fn contents(root: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(
                    path.strip_prefix(root).unwrap().to_string_lossy().into_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    files
}

#[test]
fn an_object_that_no_api_server_takes_is_held() {
    let case = Case::new();
    let huge = subscription("web", &[], &[config_map_feed("web")]) + "---\n" + &config_map("web", &"x".repeat(4 << 20));
    case.repo.push("huge", &[("web.yaml", &huge)]);
    assert_eq!(case.only_error("web.yaml")["code"], "too-large");
    case.state_stays();
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let case = Case::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut render = branchline(case.directory.path());
    render
        .arg("render")
        .arg(case.source())
        .arg("--clusters")
        .arg(case.path("clusters.yaml"));
    let output = render.stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the result cannot be written"), "{said}");
}

#[test]
fn a_good_repository_renders_to_the_layout_and_again_to_the_same() {
    let case = Case::new();
    assert_eq!(case.check(), (Vec::new(), Some(0)));
    let files: Vec<String> = contents(&case.path("good/clusters")).into_keys().collect();
    assert_eq!(
        files,
        [
            "clusternet-a/shop.db/description.yaml",
            "clusternet-a/shop.db/manifests/configmap_shop_db.yaml",
            "clusternet-a/shop.web/description.yaml",
            "clusternet-a/shop.web/manifests/configmap_shop_web.yaml",
            "clusternet-b/shop.web/description.yaml",
            "clusternet-b/shop.web/manifests/configmap_shop_web.yaml",
        ]
    );
    case.repo.push("unrelated", &[("README.md", "words")]);
    case.render("again", Some("good")).ok();
    assert_eq!(contents(&case.path("good")), contents(&case.path("again")));
}

#[test]
fn unparsable_yaml_holds_what_its_file_defined() {
    let case = Case::new();
    let broken = subscription("web", &[], &[config_map_feed("web")]) + "---\n" + &config_map("web", "new") + "  broken: [\n";
    case.repo.push(
        "broken",
        &[
            ("web.yaml", &broken),
            ("db2.yaml", &subscription("db", &[("name", "a")], &[config_map_feed("db")])),
        ],
    );
    case.repo.push(
        "one more change",
        &[
            ("db2.yaml", "# moved\n"),
            (
                "db.yaml",
                &(subscription("db", &[("name", "a")], &[config_map_feed("db")]) + "---\n" + &config_map("db", "goodbye")),
            ),
        ],
    );
    let (diagnostics, code) = case.check();
    assert_eq!(code, Some(1));
    let error = diagnostics.iter().find(|d| d["code"] == "parse-failure");
    let error = error.unwrap_or_else(|| panic!("{diagnostics:#?}"));
    case.speaks_clearly(error, "web.yaml");
    assert!(error["line"].as_u64().unwrap() > 20, "{error:#}");
    case.state_changes_by(&[
        "clusternet-a/shop.db/description.yaml",
        "clusternet-a/shop.db/manifests/configmap_shop_db.yaml",
    ]);
}

#[test]
fn duplicate_objects_name_both_places() {
    let case = Case::new();
    case.repo.push("duplicate", &[("zz.yaml", &config_map("web", "other"))]);
    let (diagnostics, code) = case.check();
    assert_eq!(code, Some(1));
    let text = serde_json::to_string(&diagnostics).unwrap();
    assert!(text.contains("web.yaml") && text.contains("zz.yaml"), "{text}");
    assert!(diagnostics.iter().any(|d| d["object"] == "ConfigMap shop/web"), "{text}");
    case.state_stays();
}

#[test]
fn an_unknown_feed_is_an_error_on_its_subscription_and_is_kept() {
    let case = Case::new();
    case.repo.push(
        "gone",
        &[("db.yaml", &subscription("db", &[("name", "a")], &[config_map_feed("db")]))],
    );
    let error = case.only_error("db.yaml");
    assert!(error["object"].as_str().unwrap().contains("shop/db"), "{error:#}");
    case.state_stays();
}

#[test]
fn an_unknown_field_of_our_kinds_is_reported() {
    let case = Case::new();
    let text = subscription("db", &[("name", "a")], &[config_map_feed("db")])
        .replace("\"subscribers\"", "\"subscriberz\": [],\n    \"subscribers\"");
    case.repo
        .push("typo", &[("db.yaml", &(text + "---\n" + &config_map("db", "hello")))]);
    let (diagnostics, _) = case.check();
    assert!(
        diagnostics
            .iter()
            .any(|d| d.to_string().contains("subscriberz") && d["file"] == "db.yaml"),
        "{diagnostics:#?}"
    );
}

#[test]
fn a_patch_that_fails_holds_that_feed_there() {
    let case = Case::new();
    let patch = r#"[{"op":"test","path":"/data/greeting","value":"never"}]"#;
    case.repo.push(
        "patch",
        &[("loc.yaml", &localization("clusternet-a", "fails", "web", "JSONPatch", patch))],
    );
    let error = case.only_error("loc.yaml");
    assert!(error["object"].as_str().unwrap().contains("Localization"), "{error:#}");
    case.repo.push(
        "and a change",
        &[(
            "web.yaml",
            &(subscription("web", &[], &[config_map_feed("web")]) + "---\n" + &config_map("web", "new")),
        )],
    );
    case.state_changes_by(&[
        "clusternet-b/shop.web/description.yaml",
        "clusternet-b/shop.web/manifests/configmap_shop_web.yaml",
    ]);
}

#[test]
fn a_patch_on_a_missing_path_is_skipped_with_a_warning() {
    let case = Case::new();
    let patch = r#"[{"op":"remove","path":"/data/nothing"}]"#;
    case.repo.push(
        "patch",
        &[("loc.yaml", &localization("clusternet-a", "misses", "web", "JSONPatch", patch))],
    );
    let warning = case.only_warning("loc.yaml");
    assert!(warning.to_string().contains("/data/nothing"), "{warning:#}");
}

#[test]
fn a_localization_for_no_cluster_is_a_warning() {
    let case = Case::new();
    case.repo.push(
        "nowhere",
        &[(
            "loc.yaml",
            &localization("clusternet-zzz", "lost", "web", "MergePatch", "data: {a: b}"),
        )],
    );
    case.only_warning("loc.yaml");
}

#[test]
fn a_file_of_100_megabytes_is_refused_before_it_is_parsed() {
    let case = Case::new();
    case.repo.put_bytes(b"big.yaml", &vec![b'a'; 100 * 1024 * 1024]);
    case.repo.push("big", &[]);
    let error = case.only_error("big.yaml");
    assert!(
        error["message"].as_str().unwrap().contains("104857600") || error["message"].as_str().unwrap().contains("100"),
        "{error:#}"
    );
    case.state_stays();
}

#[test]
fn an_alias_bomb_is_refused() {
    let case = Case::new();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let references = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{references}]\n");
    }
    case.repo.push("bomb", &[("bomb.yaml", &bomb)]);
    case.only_error("bomb.yaml");
    case.state_stays();
}

#[test]
fn nesting_of_10000_levels_is_refused() {
    let case = Case::new();
    let deep = format!("a: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let json = format!("{}{}\n", "{\"a\":".repeat(10_000), "1".to_owned() + &"}".repeat(10_000));
    case.repo.push("deep", &[("deep.yaml", &deep)]);
    case.only_error("deep.yaml");
    case.repo.push_removal("not any more", &["deep.yaml"]);
    case.repo.push("deep", &[("deep.json", &json)]);
    case.only_error("deep.json");
    case.state_stays();
}

#[test]
fn symlinks_and_submodules_are_not_followed_and_said_so() {
    let case = Case::new();
    case.repo.put_symlink("link.yaml", "/etc/passwd");
    case.repo.put_submodule("vendor");
    case.repo.push("odd", &[]);
    let (diagnostics, code) = case.check();
    assert_eq!((diagnostics.len(), code), (2, Some(0)), "{diagnostics:#?}");
    for file in ["link.yaml", "vendor"] {
        assert!(diagnostics.iter().any(|d| d["file"] == file), "{file}: {diagnostics:#?}");
    }
}

#[test]
fn a_name_that_is_not_utf8_is_an_error_and_holds() {
    let case = Case::new();
    case.repo.put_bytes(b"caf\xe9.yaml", b"kind: X\n");
    case.repo.remove("db.yaml");
    case.repo.push("latin-1", &[]);
    let (diagnostics, code) = case.check();
    assert_eq!(code, Some(1), "{diagnostics:#?}");
    assert!(
        diagnostics.iter().any(|d| d["file"].as_str().unwrap().starts_with("caf")),
        "{diagnostics:#?}"
    );
    case.state_stays();
}

#[test]
fn what_this_version_does_not_carry_out_is_never_ignored() {
    let case = Case::new();
    let other = subscription("db", &[("name", "a")], &[config_map_feed("db")])
        .replace("\"subscribers\"", "\"schedulerName\": \"mine\",\n    \"subscribers\"");
    case.repo
        .push("scheduler", &[("db.yaml", &(other + "---\n" + &config_map("db", "new")))]);
    let error = case.only_error("db.yaml");
    assert!(error["message"].as_str().unwrap().contains("schedulerName"), "{error:#}");
    case.state_stays();
}

#[test]
fn wrong_usage_ends_with_2() {
    let directory = scratch("usage");
    run(branchline(directory.path()).args(["render"])).fails_with(2);
    let nothing = run(branchline(directory.path()).args(["check", "nowhere"]));
    assert_ne!(nothing.code, Some(0));
    assert!(nothing.stderr.contains("nowhere"), "{}", nothing.stderr);
}

#[test]
fn a_missing_revision_and_an_empty_repository_are_named() {
    let repo = GitRepo::empty();
    let directory = scratch("empty");
    let source = format!("{}@main", repo.bare().display());
    let output = run(branchline(directory.path()).arg("check").arg(source));
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("main"), "{}", output.stderr);
    assert!(output.stderr.trim_end().ends_with("repo@rev)"), "no hint: {}", output.stderr);
}
