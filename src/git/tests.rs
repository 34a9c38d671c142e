//! Against real repositories in temporary directories.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::core::ids::ObjectKind;
use crate::core::state::NewObject;
use crate::core::tree::write_git_tree;

fn object(kind: ObjectKind, bytes: Vec<u8>) -> NewObject {
    NewObject {
        kind,
        id: ObjectId::hash(kind, &bytes),
        bytes: Arc::from(bytes),
    }
}

/// A tree of `count` files.
fn tree(count: usize) -> (ObjectId, Vec<NewObject>) {
    let blobs: Vec<NewObject> = (0..count)
        .map(|n| object(ObjectKind::Blob, format!("content {n}\n").repeat(n % 50).into_bytes()))
        .collect();
    let names: Vec<String> = (0..count).map(|n| format!("f{n}.yaml")).collect();
    let tree = object(
        ObjectKind::Tree,
        write_git_tree(names.iter().zip(&blobs).map(|(name, blob)| (name.as_str(), false, blob.id))),
    );
    let id = tree.id;
    (id, blobs.into_iter().chain([tree]).collect())
}

#[test]
fn writes_packs_that_git_accepts_and_moves_refs_by_compare_and_swap() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::init_bare(folder.path()).unwrap();
    for count in [3, 300] {
        let (id, objects) = tree(count);
        assert!(repo.write_objects(&objects).unwrap().0 > 0);
        assert_eq!(repo.write_objects(&objects).unwrap(), (0, 0), "nothing is written twice");
        let reference = format!("refs/heads/b{count}");
        let mut commit = Commit {
            reference: &reference,
            parent: None,
            tree: id,
            message: "one\n",
            time: 1,
        };
        let first = repo.commit(&commit).unwrap();
        assert!(
            matches!(repo.commit(&commit), Err(WriteError::Moved { .. })),
            "the ref exists already"
        );
        commit.parent = Some(first);
        commit.time = 2;
        let second = repo.commit(&commit).unwrap();
        assert!(
            matches!(repo.commit(&commit), Err(WriteError::Moved { .. })),
            "the parent is not the head any more"
        );
        assert_eq!(repo.resolve(&reference).unwrap(), Some(second));
        assert_eq!(repo.files(second, "").unwrap().files.len(), count);
    }
    let check = std::process::Command::new("git")
        .args(["--git-dir", folder.path().to_str().unwrap(), "fsck", "--strict"])
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Repo::open(folder.path()), Err(RepoError::Open { .. })));
    let repo = Repo::init_bare(folder.path()).unwrap();
    assert_eq!(repo.resolve("refs/heads/none").unwrap(), None);
    assert!(repo.rev_parse("none").unwrap_err().to_string().contains("none"));
}
