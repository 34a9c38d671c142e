//! Commits and contents from the object database. Symlinks, submodules, filters and LFS pointers are seen as what they are, never followed.

use std::collections::BTreeMap;

use git2::{ObjectType, Odb, Oid, Repository};

use super::{Repo, RepoError, oid};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{Format, IGNORE_FILE, parse_ignore_file};
use crate::core::tree::{EntryMode, FileEntry, FileTree, parse_git_tree};

/// Directories nest at most this deep; deeper ones are not read and reported as unreadable.
const MAX_DEPTH: usize = 100;

impl Repo {
    /// Every file below a path of a commit. An empty path means the whole commit.
    pub fn files(&self, commit: ObjectId, path: &str) -> Result<FileTree, RepoError> {
        self.contents()?.files(commit, path)
    }

    /// The ids of all files of a commit by path; for the state branch, whose names are all UTF-8.
    pub fn file_ids(&self, commit: ObjectId) -> Result<BTreeMap<String, ObjectId>, RepoError> {
        Ok(self
            .files(commit, "")?
            .files
            .into_iter()
            .map(|(path, entry)| (path, entry.id))
            .collect())
    }

    /// A reader of contents that keeps the repository open; for one run.
    pub fn contents(&self) -> Result<Contents, RepoError> {
        Ok(Contents {
            repository: self.handle()?,
        })
    }
}

/// Reads objects by id.
pub struct Contents {
    repository: Repository,
}

impl Contents {
    /// Every file below a path of a commit. An empty path means the whole commit.
    pub fn files(&self, commit: ObjectId, path: &str) -> Result<FileTree, RepoError> {
        let odb = self.repository.odb().map_err(RepoError::git("open the object database"))?;
        let root = tree_at(&self.repository, commit, path)?;
        let mut files = FileTree::default();
        walk(&odb, root, &mut String::new(), 0, &mut files)?;
        if let Some(entry) = files.files.get(IGNORE_FILE) {
            let bytes = load(&odb, entry.id)?;
            files.ignored = Some(parse_ignore_file(&String::from_utf8_lossy(&bytes)));
        }
        Ok(files)
    }

    /// A blob's bytes.
    pub fn blob(&self, id: ObjectId) -> Result<Vec<u8>, RepoError> {
        let odb = self.repository.odb().map_err(RepoError::git("open the object database"))?;
        load(&odb, id)
    }

    /// Any object with its kind; `None` where the repository does not have it.
    pub fn object(&self, id: ObjectId) -> Result<Option<(ObjectKind, Vec<u8>)>, RepoError> {
        let odb = self.repository.odb().map_err(RepoError::git("open the object database"))?;
        match odb.read(oid(id)) {
            Ok(object) => {
                let kind = match object.kind() {
                    ObjectType::Tree => ObjectKind::Tree,
                    ObjectType::Commit => ObjectKind::Commit,
                    _ => ObjectKind::Blob,
                };
                Ok(Some((kind, object.data().to_vec())))
            }
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(RepoError::git(format!("read object {id}"))(error)),
        }
    }
}

/// The tree at a path of a commit.
pub(super) fn tree_at(repository: &Repository, commit: ObjectId, path: &str) -> Result<Oid, RepoError> {
    let doing = || format!("read commit {commit}");
    let found = repository.find_commit(oid(commit)).map_err(RepoError::git(doing()))?;
    let tree = found.tree().map_err(RepoError::git(doing()))?;
    let path = path.trim_matches('/');
    if path.is_empty() || path == "." {
        return Ok(tree.id());
    }
    let missing = || RepoError::NoPath {
        commit,
        path: path.to_owned(),
    };
    let entry = tree.get_path(std::path::Path::new(path)).map_err(|_| missing())?;
    if entry.kind() == Some(ObjectType::Tree) {
        Ok(entry.id())
    } else {
        Err(missing())
    }
}

fn load(odb: &Odb<'_>, id: ObjectId) -> Result<Vec<u8>, RepoError> {
    let object = odb.read(oid(id)).map_err(RepoError::git(format!("read object {id}")))?;
    Ok(object.data().to_vec())
}

fn walk(odb: &Odb<'_>, tree: Oid, prefix: &mut String, depth: usize, files: &mut FileTree) -> Result<(), RepoError> {
    if depth > MAX_DEPTH {
        files
            .unreadable
            .push(format!("{prefix} (more than {MAX_DEPTH} directories deep)"));
        return Ok(());
    }
    let doing = || format!("read tree {tree}");
    let object = odb.read(tree).map_err(RepoError::git(doing()))?;
    let entries =
        parse_git_tree(object.data()).map_err(|error| RepoError::git(doing())(git2::Error::from_str(&error.to_string())))?;
    for entry in entries {
        let Ok(name) = std::str::from_utf8(&entry.name) else {
            files
                .unreadable
                .push(format!("{prefix}{}", String::from_utf8_lossy(&entry.name)));
            continue;
        };
        let length = prefix.len();
        prefix.push_str(name);
        if entry.mode == EntryMode::Directory {
            prefix.push('/');
            walk(odb, oid(entry.id), prefix, depth + 1, files)?;
        } else {
            // Only what may be parsed needs its size, and a header costs a look-up.
            let sized = entry.mode == EntryMode::File && Format::of_path(name).is_some();
            let size = if sized { size_of(odb, entry.id)? } else { 0 };
            files.files.insert(
                prefix.clone(),
                FileEntry {
                    mode: entry.mode,
                    id: entry.id,
                    size,
                },
            );
        }
        prefix.truncate(length);
    }
    Ok(())
}

fn size_of(odb: &Odb<'_>, id: ObjectId) -> Result<u64, RepoError> {
    let (size, _) = odb
        .read_header(oid(id))
        .map_err(RepoError::git(format!("read object {id}")))?;
    Ok(size as u64)
}

impl Repo {
    /// How many commits of a branch a remote lacks that was last seen at `seen`, and when the oldest of them was made (seconds since 1970).
    pub fn ahead(&self, head: ObjectId, seen: Option<ObjectId>) -> Result<(u64, Option<i64>), RepoError> {
        let repository = self.handle()?;
        let mut walk = repository.revwalk().map_err(RepoError::git("walk commits"))?;
        walk.push(oid(head)).map_err(RepoError::git("walk commits"))?;
        if let Some(seen) = seen {
            walk.hide(oid(seen)).map_err(RepoError::git("walk commits"))?;
        }
        let (mut count, mut oldest) = (0, None);
        for id in walk {
            let id = id.map_err(RepoError::git("walk commits"))?;
            let commit = repository
                .find_commit(id)
                .map_err(RepoError::git(format!("read commit {id}")))?;
            let time = commit.time().seconds();
            count += 1;
            oldest = Some(oldest.map_or(time, |oldest: i64| oldest.min(time)));
        }
        Ok((count, oldest))
    }

    /// Whether a commit is another one or stands before it.
    pub fn leads_to(&self, earlier: ObjectId, later: ObjectId) -> Result<bool, RepoError> {
        let descends = || {
            self.handle()?
                .graph_descendant_of(oid(later), oid(earlier))
                .map_err(RepoError::git("walk commits"))
        };
        Ok(earlier == later || descends()?)
    }
}
