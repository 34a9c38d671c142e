//! What a file's objects are, each by itself: typed and checked, with what is to be said about it. Knows no other file, so that a reading is
//! kept for as long as path and content stay, and files are read side by side.

use std::sync::Arc;

use super::bundle::{self, Bundle};
use super::inventory::{self, FeedInventory};
use super::overrides::{self, BrokenOverride, Override, OverrideKind};
use super::subscription::{self, Subscription};
use super::{Definition, HUB_DIRECTORY, ParsedFile, Reading, WRITTEN_BY_THE_HUB, helm, identity, is_ours, misplaced};
use crate::core::api::{APPS_GROUP, BRANCHLINE_GROUP};
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectKey;

/// A file's objects in the order in which they stand.
#[derive(Debug)]
pub(super) struct FileReading {
    /// Everything that counts for the fleet.
    pub(super) items: Vec<Item>,
    /// What configures the hub itself.
    pub(super) hub: Vec<Definition>,
    /// The file itself, for what could not be parsed in it.
    pub(super) parsed: Arc<ParsedFile>,
}

/// One object.
#[derive(Debug)]
pub(super) struct Item {
    /// The identity under which it is looked up.
    pub(super) key: ObjectKey,
    /// Where it is defined.
    pub(super) definition: Definition,
    /// What it is.
    pub(super) content: Content,
    /// What is wrong with it.
    pub(super) findings: Vec<Diagnostic>,
}

/// What an object is to the hub.
#[derive(Debug)]
pub(super) enum Content {
    /// Something that a Subscription may name.
    Feed,
    /// A feed of our own kinds that cannot be carried out.
    Unusable,
    /// A folder that a Subscription may name, without its objects.
    Bundle(Bundle),
    Subscription(Reading<Subscription>),
    Inventory(Reading<FeedInventory>),
    Override(OverrideKind, Arc<Override>),
    /// An override that cannot be carried out, with what is known of it.
    Broken(OverrideKind, Option<BrokenOverride>),
    /// Of our groups and not for here; whether it may be a misspelt definition of anything.
    Misplaced(bool),
}

/// Reads what a file at this path holds.
pub(super) fn read_file(path: &str, parsed: &Arc<ParsedFile>) -> FileReading {
    let file: Arc<str> = path.into();
    let definitions = parsed.objects.iter().map(|object| Definition {
        object: Arc::clone(&object.object),
        digest: object.digest,
        file: Arc::clone(&file),
        line: object.line,
        inside: Arc::clone(&object.inside),
        text: parsed.text.clone(),
    });
    let (mut items, mut hub) = (Vec::new(), Vec::new());
    if path.starts_with(HUB_DIRECTORY) {
        hub.extend(definitions);
    } else {
        items.extend(definitions.map(read_object));
    }
    FileReading {
        items,
        hub,
        parsed: Arc::clone(parsed),
    }
}

fn read_object(definition: Definition) -> Item {
    let key = identity(&definition.object);
    let mut findings = Vec::new();
    let content = read_content(&key, &definition, &mut findings);
    Item {
        key,
        definition,
        content,
        findings,
    }
}

fn read_content(key: &ObjectKey, definition: &Definition, out: &mut Vec<Diagnostic>) -> Content {
    match (key.group.as_str(), key.kind.as_str()) {
        (APPS_GROUP, "Subscription") => Content::Subscription(subscription::read(key, definition, out)),
        (APPS_GROUP, "FeedInventory") => Content::Inventory(inventory::read(definition, out)),
        (APPS_GROUP, "HelmChart") => match helm::is_usable(definition, out) {
            true => Content::Feed,
            false => Content::Unusable,
        },
        (BRANCHLINE_GROUP, "Bundle") => bundle::read(definition, out).map_or(Content::Unusable, Content::Bundle),
        (group, kind) => match OverrideKind::of(kind).filter(|_| group == APPS_GROUP) {
            Some(kind) => match overrides::read(kind, key, definition, out) {
                Some(value) => Content::Override(kind, value.into()),
                None => Content::Broken(kind, overrides::broken(kind, key, &definition.object)),
            },
            None if is_ours(group) => {
                out.push(misplaced(definition));
                Content::Misplaced(!WRITTEN_BY_THE_HUB.contains(&kind))
            }
            None => Content::Feed,
        },
    }
}
