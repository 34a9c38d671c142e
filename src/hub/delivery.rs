//! Git objects for one agent: what an offer brings along, from memory or from the repository, and what a `Want` may have. Content is served only if it is reachable from the tree
//! that was offered to that certificate's cluster; anything else is missing, just like an unknown id.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::state::{self, ClusterState, NewObject};
use crate::core::tree::{EntryMode, TreeEntry, parse_git_tree};
use crate::git::{Contents, Repo, RepoError};
use crate::wire::content::ContentObject;

/// An offer brings at most this much along; the agent asks for the rest.
const OFFER_BYTES: usize = 8 << 20;
/// The most objects that an offer brings along.
const OFFER_OBJECTS: usize = 16_000;

/// The objects of one state of a cluster that are not in another, up to the limits of one offer. `None` where memory does not hold them all: then
/// [`difference`] finds them in the repository.
pub fn additions(before: Option<&ClusterState>, now: &ClusterState) -> Option<Vec<ContentObject>> {
    let mut bytes = 0;
    let fits = |object: &NewObject| {
        let fits = bytes < OFFER_BYTES;
        bytes += object.bytes.len();
        fits
    };
    let objects = state::additions(before, now)?
        .into_iter()
        .take(OFFER_OBJECTS)
        .take_while(fits);
    let content = |object: NewObject| ContentObject {
        id: object.id,
        kind: object.kind,
        content: Bytes::from_owner(object.bytes),
    };
    Some(objects.map(content).collect())
}

/// The objects below `tree` that are not below `base`, trees before what is in them, up to the limits of one offer. Blocks.
pub fn difference(repo: &Repo, base: Option<ObjectId>, tree: ObjectId) -> Result<Vec<ContentObject>, RepoError> {
    let mut walk = Walk {
        contents: repo.contents()?,
        seen: HashSet::new(),
        found: Vec::new(),
        bytes: 0,
    };
    walk.changed(base, tree)?;
    Ok(walk.found)
}

struct Walk {
    contents: Contents,
    seen: HashSet<ObjectId>,
    found: Vec<ContentObject>,
    bytes: usize,
}

impl Walk {
    fn full(&self) -> bool {
        self.bytes >= OFFER_BYTES || self.found.len() >= OFFER_OBJECTS
    }

    fn add(&mut self, id: ObjectId, expected: ObjectKind) -> Result<Option<Bytes>, RepoError> {
        if self.full() || !self.seen.insert(id) {
            return Ok(None);
        }
        let Some((kind, bytes)) = load(&self.contents, id, expected)? else {
            return Ok(None);
        };
        self.bytes += bytes.len();
        let content = Bytes::from(bytes);
        self.found.push(ContentObject {
            id,
            kind,
            content: content.clone(),
        });
        Ok(Some(content))
    }

    fn changed(&mut self, base: Option<ObjectId>, tree: ObjectId) -> Result<(), RepoError> {
        if base == Some(tree) {
            return Ok(());
        }
        let Some(bytes) = self.add(tree, ObjectKind::Tree)? else {
            return Ok(());
        };
        let before = match base {
            Some(base) => load(&self.contents, base, ObjectKind::Tree)?
                .map(|(_, bytes)| bytes)
                .unwrap_or_default(),
            None => Vec::new(),
        };
        // What this hub wrote parses; an unreadable base only means that more is sent.
        let before = parse_git_tree(&before).unwrap_or_default();
        let before: HashMap<&[u8], &TreeEntry> = before.iter().map(|old| (old.name.as_slice(), old)).collect();
        for entry in parse_git_tree(&bytes).unwrap_or_default() {
            let known = before
                .get(entry.name.as_slice())
                .filter(|old| old.mode == entry.mode)
                .map(|old| old.id);
            if known == Some(entry.id) {
                continue;
            }
            match entry.mode {
                EntryMode::Directory => self.changed(known, entry.id)?,
                EntryMode::File => drop(self.add(entry.id, ObjectKind::Blob)?),
                EntryMode::Symlink | EntryMode::Submodule => {}
            }
        }
        Ok(())
    }
}

fn load(contents: &Contents, id: ObjectId, expected: ObjectKind) -> Result<Option<(ObjectKind, Vec<u8>)>, RepoError> {
    if id == ObjectId::EMPTY_TREE {
        return Ok(Some((ObjectKind::Tree, Vec::new())));
    }
    Ok(contents.object(id)?.filter(|(kind, _)| *kind == expected))
}

/// Every id that is reachable from a tree. Blocks.
pub fn reachable(repo: &Repo, tree: ObjectId) -> Result<HashSet<ObjectId>, RepoError> {
    let contents = repo.contents()?;
    let mut found = HashSet::from([tree]);
    let mut open = vec![tree];
    while let Some(tree) = open.pop() {
        let bytes = load(&contents, tree, ObjectKind::Tree)?
            .map(|(_, bytes)| bytes)
            .unwrap_or_default();
        for entry in parse_git_tree(&bytes).unwrap_or_default() {
            if found.insert(entry.id) && entry.mode == EntryMode::Directory {
                open.push(entry.id);
            }
        }
    }
    Ok(found)
}

/// The contents of wanted ids; those that are not allowed or not there come back apart. Blocks.
pub fn wanted(
    repo: &Repo,
    allowed: &HashSet<ObjectId>,
    ids: &[ObjectId],
) -> Result<(Vec<ContentObject>, Vec<ObjectId>), RepoError> {
    let contents = repo.contents()?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for id in ids {
        let object = if allowed.contains(id) && *id == ObjectId::EMPTY_TREE {
            Some((ObjectKind::Tree, Vec::new()))
        } else if allowed.contains(id) {
            contents.object(*id)?
        } else {
            None
        };
        match object {
            Some((kind, bytes)) => found.push(ContentObject {
                id: *id,
                kind,
                content: Bytes::from(bytes),
            }),
            None => missing.push(*id),
        }
    }
    Ok((found, missing))
}
