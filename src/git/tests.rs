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

/// Bytes that do not compress.
fn random(length: usize) -> Vec<u8> {
    let hash = |n: usize| *ObjectId::hash(ObjectKind::Blob, &n.to_le_bytes()).as_bytes();
    (0..length).step_by(20).flat_map(hash).collect()
}

/// A tree of `count` files.
fn tree(count: usize) -> (ObjectId, Vec<NewObject>) {
    let blobs: Vec<NewObject> = (0..count)
        .map(|n| match n % 3 {
            0 => object(ObjectKind::Blob, random(n * 7)),
            _ => object(ObjectKind::Blob, format!("content {n}\n").repeat(n % 50).into_bytes()),
        })
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
        let missing = repo.missing(objects.clone()).unwrap();
        assert!(!missing.is_empty());
        let reference = format!("refs/heads/b{count}");
        let mut commit = Commit {
            reference: &reference,
            parent: None,
            tree: id,
            message: "one\n",
            author: None,
            time: 1,
        };
        let first = repo.commit(&missing, &commit).unwrap();
        assert_eq!(repo.missing(objects).unwrap(), [], "everything is there");
        assert!(
            matches!(repo.commit(&[], &commit), Err(WriteError::Moved { .. })),
            "the ref exists already"
        );
        commit.parent = Some(first);
        commit.time = 2;
        let second = repo.commit(&[], &commit).unwrap();
        assert!(
            matches!(repo.commit(&[], &commit), Err(WriteError::Moved { .. })),
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

#[test]
fn packs_are_joined_once_they_are_many() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::init_bare(folder.path()).unwrap();
    let mut parent = None;
    for round in 0..52 {
        assert!(!repo.needs_repack() || round > 50, "{round} packs are few");
        let blobs: Vec<NewObject> = (0..30)
            .map(|n| object(ObjectKind::Blob, format!("round {round} content {n}\n").into_bytes()))
            .collect();
        let names: Vec<String> = (0..30).map(|n| format!("f{n}.yaml")).collect();
        let entries = names.iter().zip(&blobs).map(|(name, blob)| (name.as_str(), false, blob.id));
        let tree = object(ObjectKind::Tree, write_git_tree(entries));
        let root = tree.id;
        let objects: Vec<NewObject> = blobs.into_iter().chain([tree]).collect();
        let commit = Commit {
            reference: "refs/heads/state",
            parent,
            tree: root,
            message: "round\n",
            author: None,
            time: round,
        };
        parent = Some(repo.commit(&objects, &commit).unwrap());
    }
    assert!(repo.needs_repack());
    Git::new(repo.path()).unwrap().repack().unwrap();
    assert!(!repo.needs_repack());
    let head = parent.unwrap();
    assert_eq!(repo.files(head, "").unwrap().files.len(), 30);
    assert_eq!(repo.ahead(head, None).unwrap(), (52, Some(0)));
}

#[test]
fn a_lock_that_a_killed_process_left_goes_once_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::init_bare(folder.path()).unwrap();
    let lock = folder.path().join("refs/heads/state.lock");
    std::fs::write(&lock, "").unwrap();
    assert!(!repo.remove_stale_lock("refs/heads/state"), "somebody may be writing");
    let file = std::fs::File::options().write(true).open(&lock).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(120))
        .unwrap();
    assert!(repo.remove_stale_lock("refs/heads/state") && !lock.exists());
}
