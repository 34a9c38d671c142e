//! The demo's repositories: a bare one made from the examples in this binary, and a clone of it for people to edit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CliError;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::state::NewObject;
use crate::core::tree::write_git_tree;
use crate::git::{Commit, Git, Repo};

/// `examples/repo`, file by file.
const EXAMPLES: [(&str, &str); 8] = [
    (".branchlineignore", include_str!("../../../examples/repo/.branchlineignore")),
    ("README.md", include_str!("../../../examples/repo/README.md")),
    (
        "guestbook/app.yaml",
        include_str!("../../../examples/repo/guestbook/app.yaml"),
    ),
    (
        "guestbook/overrides.yaml",
        include_str!("../../../examples/repo/guestbook/overrides.yaml"),
    ),
    (
        "guestbook/subscription.yaml",
        include_str!("../../../examples/repo/guestbook/subscription.yaml"),
    ),
    ("hub/clusters.yaml", include_str!("../../../examples/repo/hub/clusters.yaml")),
    (
        "monitoring/crd.yaml",
        include_str!("../../../examples/repo/monitoring/crd.yaml"),
    ),
    (
        "monitoring/subscription.yaml",
        include_str!("../../../examples/repo/monitoring/subscription.yaml"),
    ),
];

/// The bare repository that the hub reads.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("repository.git")
}

/// Makes both repositories unless they are there.
pub(super) fn prepare(folder: &Path) -> Result<(), CliError> {
    let failed = || {
        CliError::failed(
            "the demo's repository cannot be made",
            "is git installed, and the folder writable?",
        )
    };
    let bare = path(folder);
    let repo = Repo::init_bare(&bare).map_err(|error| failed().because(error))?;
    if repo
        .names_below("refs/heads/")
        .map_err(|error| failed().because(error))?
        .is_empty()
    {
        fill(&repo).map_err(|error| failed().because(error))?;
    }
    let clone = folder.join("source");
    if !clone.join(".git").exists() {
        let git = Git::new(repo.path()).map_err(|error| failed().because(error))?;
        git.clone_to(&bare, &clone).map_err(|error| failed().because(error))?;
    }
    Ok(())
}

fn fill(repo: &Repo) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut objects = Vec::new();
    let files = EXAMPLES
        .iter()
        .map(|(path, text)| (*path, add(&mut objects, ObjectKind::Blob, text.as_bytes().into())))
        .collect();
    let tree = add_tree(&mut objects, &files);
    let message = "The example repository\n";
    let time = jiff::Timestamp::now().as_second();
    let commit = Commit {
        reference: "refs/heads/main",
        parent: None,
        tree,
        message,
        author: None,
        time,
    };
    repo.commit(&objects, &commit)?;
    repo.set_default_branch("main")?;
    Ok(())
}

fn add(objects: &mut Vec<NewObject>, kind: ObjectKind, bytes: Arc<[u8]>) -> ObjectId {
    let id = ObjectId::hash(kind, &bytes);
    objects.push(NewObject { kind, id, bytes });
    id
}

fn add_tree(objects: &mut Vec<NewObject>, files: &BTreeMap<&str, ObjectId>) -> ObjectId {
    let mut below: BTreeMap<&str, BTreeMap<&str, ObjectId>> = BTreeMap::new();
    let mut entries: Vec<(&str, bool, ObjectId)> = Vec::new();
    for (path, id) in files {
        match path.split_once('/') {
            Some((directory, rest)) => drop(below.entry(directory).or_default().insert(rest, *id)),
            None => entries.push((path, false, *id)),
        }
    }
    for (directory, files) in &below {
        let id = add_tree(objects, files);
        entries.push((directory, true, id));
    }
    add(objects, ObjectKind::Tree, write_git_tree(entries).into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push(name);
            }
        }
    }

    #[test]
    fn the_binary_holds_every_example() {
        let mut found = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/repo"), "", &mut found);
        found.sort();
        let held: Vec<&str> = EXAMPLES.iter().map(|(path, _)| *path).collect();
        assert_eq!(found, held);
    }
}
