//! kubectl as the judge: what people write means to Branchline what it means to kubectl, and what Branchline writes means to kubectl what
//! it meant to Branchline.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::process::{branchline, command, run};
use crate::support::samples::{config_map_feed, managed_cluster, subscription};
use crate::support::scratch;
use crate::support::tools::tool;

/// Renders a folder with this file and a Subscription of ConfigMap `odd`; returns the manifest's path.
fn render(folder: &Path, name: &str, content: &str) -> PathBuf {
    let source = folder.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(
        source.join("subscription.yaml"),
        subscription("odd", &[], &[config_map_feed("odd")]),
    )
    .unwrap();
    std::fs::write(source.join(name), content).unwrap();
    let clusters = folder.join("clusters.yaml");
    std::fs::write(&clusters, managed_cluster("a", "00000000-0000-4000-8000-00000000000a")).unwrap();
    let out = folder.join("out");
    run(branchline(folder)
        .arg("render")
        .arg(&source)
        .arg("--clusters")
        .arg(&clusters)
        .arg("--out")
        .arg(&out))
    .ok();
    out.join("clusters/clusternet-a/shop.odd/manifests/configmap_shop_odd.yaml")
}

/// What kubectl reads from a file.
fn as_kubectl_reads(file: &Path) -> Value {
    let home = file.parent().unwrap();
    let output = run(command(&tool("kubectl"), home)
        .args(["label", "--local", "-o", "json", "read=yes", "-f"])
        .arg(file));
    serde_json::from_str(&output.ok()).unwrap()
}

/// Strings that some YAML reader takes for something else.
const NASTY: [&str; 69] = [
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "Y",
    "NO",
    "true",
    "null",
    "~",
    "",
    " ",
    "0644",
    "0o644",
    "1_000",
    "0b101",
    "0x1F",
    "1e3",
    ".inf",
    ".NaN",
    "-0",
    "+1",
    "08",
    "12:30:45",
    "2001-01-01",
    "<<",
    "=",
    "-",
    "--- ",
    "...",
    "- a",
    "? a",
    ": a",
    "a: b",
    "a #b",
    "#a",
    "&a",
    "*a",
    "!a",
    "|",
    ">",
    "%a",
    "@a",
    "`a",
    "\"a\"",
    "'a'",
    "{a}",
    "[a]",
    "a,b",
    "tab\there",
    "line\nbreak",
    "line\n\n\nbreaks\n",
    "\nleading",
    " leading space",
    "trailing space ",
    "trailing\n\n",
    "carriage\rreturn",
    "\u{85}next line",
    "\u{2028}separator",
    "\u{feff}mark",
    "\u{7f}",
    "back\\slash",
    "ümläut",
    "日本",
    "🚀",
    "a\n  indented\nb",
    "key: |\n  block\n",
    "---\nkind: Evil\n",
];

#[test]
fn strings_that_look_like_something_else_stay_strings() {
    let folder = scratch("strings");
    let data: serde_json::Map<String, Value> = NASTY
        .iter()
        .enumerate()
        .map(|(number, text)| (format!("k{number}"), json!(text)))
        .collect();
    let annotations: serde_json::Map<String, Value> = NASTY.iter().map(|text| ((*text).to_owned(), json!("key"))).collect();
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "shop", "name": "odd", "annotations": annotations }, "data": data,
    });
    let manifest = render(folder.path(), "odd.json", &object.to_string());
    let mut read = as_kubectl_reads(&manifest);
    read["metadata"].as_object_mut().unwrap().remove("labels");
    assert_eq!(read, object);
}

#[test]
fn scalars_and_merges_mean_what_they_mean_to_kubectl() {
    let source = "\
apiVersion: v1
kind: ConfigMap
metadata: {namespace: shop, name: odd}
x-anchors:
  base: &base {a: 1, b: two}
values:
  booleans: [yes, no, on, off, y, n, true, False, TRUE]
  strings: ['yes', \"no\", !!str 12]
  nulls: [null, ~, ]
  integers: [0644, 0o17, 1_000, 0x1F, 0b101, -12, +7, 9007199254740993]
  floats: [1.5, 1e3, -2.5e-3, 6.]
  times: [2001-01-01, 12:30:45]
  merged: {<<: *base, b: three}
  folded: >-
    one
    two

    three
  literal: |+
    kept

  quoted: \"a\\tb\\u00e9\"
";
    let folder = scratch("scalars");
    let manifest = render(folder.path(), "odd.yaml", source);
    assert_eq!(
        as_kubectl_reads(&manifest),
        as_kubectl_reads(&folder.path().join("source/odd.yaml"))
    );
}
