//! Directories as values: git's tree format, and a flat map from path to content id. Reads no repository.

use std::collections::BTreeMap;

use ignore::gitignore::Gitignore;

use super::ids::ObjectId;

/// What a tree entry is, from git's mode bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EntryMode {
    /// A regular file, executable or not.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its content is the target's path.
    Symlink,
    /// A submodule: a commit of another repository.
    Submodule,
}

impl EntryMode {
    /// From git's octal mode, `None` for a mode that git does not write.
    pub fn from_bits(bits: u32) -> Option<Self> {
        match bits & 0o170_000 {
            0o100_000 => Some(EntryMode::File),
            0o040_000 => Some(EntryMode::Directory),
            0o120_000 => Some(EntryMode::Symlink),
            0o160_000 => Some(EntryMode::Submodule),
            _ => None,
        }
    }
}

/// One entry of a git tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeEntry {
    /// What it is.
    pub mode: EntryMode,
    /// Its name: bytes, because git does not ask for UTF-8.
    pub name: Vec<u8>,
    /// The id of its content.
    pub id: ObjectId,
}

/// Bytes that are not a git tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a git tree: broken entry at byte {0}")]
pub struct BrokenTree(usize);

/// Parses the content of a git tree object: `<octal mode> <name>\0<20 bytes>` repeated.
pub fn parse_git_tree(mut bytes: &[u8]) -> Result<Vec<TreeEntry>, BrokenTree> {
    let total = bytes.len();
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (entry, rest) = parse_entry(bytes).ok_or(BrokenTree(total - bytes.len()))?;
        entries.push(entry);
        bytes = rest;
    }
    Ok(entries)
}

fn parse_entry(bytes: &[u8]) -> Option<(TreeEntry, &[u8])> {
    let space = bytes.iter().position(|b| *b == b' ')?;
    let bits = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
    let rest = &bytes[space + 1..];
    let end = rest.iter().position(|b| *b == 0)?;
    let id: [u8; 20] = rest.get(end + 1..end + 21)?.try_into().ok()?;
    let name = rest[..end].to_vec();
    if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
        return None;
    }
    let entry = TreeEntry {
        mode: EntryMode::from_bits(bits)?,
        name,
        id: ObjectId::from_bytes(id),
    };
    Some((entry, &rest[end + 21..]))
}

/// Writes the content of a git tree object of files and directories, in git's order (a directory sorts as if its name ended in `/`).
pub fn write_git_tree<'a>(entries: impl IntoIterator<Item = (&'a str, bool, ObjectId)>) -> Vec<u8> {
    let mut sorted: Vec<(String, &str, bool, ObjectId)> = entries
        .into_iter()
        .map(|(name, directory, id)| {
            (
                if directory { format!("{name}/") } else { name.to_owned() },
                name,
                directory,
                id,
            )
        })
        .collect();
    sorted.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let mut bytes = Vec::with_capacity(sorted.len() * 48);
    for (_, name, directory, id) in sorted {
        bytes.extend_from_slice(if directory { b"40000 " } else { b"100644 " });
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

/// One file of a source tree: what it is and where its content is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileEntry {
    /// Regular file, symlink or submodule; never a directory.
    pub mode: EntryMode,
    /// Content id.
    pub id: ObjectId,
    /// Content length in bytes; 0 for submodules.
    pub size: u64,
}

/// Every file below a directory, by its path relative to it, `/`-separated. Paths that are not UTF-8 are kept apart with a lossy spelling.
#[derive(Clone, Debug, Default)]
pub struct FileTree {
    /// Files by path.
    pub files: BTreeMap<String, FileEntry>,
    /// Lossy spellings of paths that are not UTF-8; nothing below them is read.
    pub unreadable: Vec<String>,
    /// Paths that are not read, from the tree's ignore file.
    pub ignored: Option<Gitignore>,
}

impl FileTree {
    /// Whether the tree's ignore file excludes a path or one of its parents.
    pub fn is_ignored(&self, path: &str) -> bool {
        self.ignored
            .as_ref()
            .is_some_and(|rules| rules.matched_path_or_any_parents(path, false).is_ignore())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::ids::ObjectKind;
    use super::*;

    #[test]
    fn writes_what_git_writes_and_reads_it_back() {
        let blob = ObjectId::hash(ObjectKind::Blob, b"");
        let bytes = write_git_tree([
            ("a", true, ObjectId::EMPTY_TREE),
            ("a.yaml", false, blob),
            ("a-b", false, blob),
        ]);
        let names: Vec<_> = parse_git_tree(&bytes)
            .unwrap()
            .into_iter()
            .map(|e| String::from_utf8(e.name).unwrap())
            .collect();
        assert_eq!(names, ["a-b", "a.yaml", "a"]);
    }

    #[test]
    fn refuses_broken_trees() {
        assert_eq!(parse_git_tree(b"100644 a").unwrap_err(), BrokenTree(0));
        assert!(parse_git_tree(b"100644 ..\0aaaaaaaaaaaaaaaaaaaa").is_err());
        assert!(parse_git_tree(b"100644 a/b\0aaaaaaaaaaaaaaaaaaaa").is_err());
    }
}
