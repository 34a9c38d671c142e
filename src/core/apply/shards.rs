//! The inventory as the texts that are kept in the cluster: JSON lines, spread over shards by identity. Stores nothing itself.
//!
//! A save may be cut off between two shards. Added shards are therefore written first and surplus ones deleted last, shards are read as a
//! union, and an object that two of them tell apart counts as pending: it is applied once more, which is always right.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::inventory::{Entry, Inventory, Position};
use crate::core::ids::{ObjectId, ObjectKey, group_of};

/// Longest text of one shard, in bytes: half of what a ConfigMap may hold.
pub const SHARD_LIMIT: usize = 512 * 1024;
/// Shards are added above this average, so that chance does not push one over the limit.
const CROWDED: usize = 192 * 1024;
/// Up to [`FINE`] shards, they are added above this average already: a change of one object writes one shard, twice.
const COMFORTABLE: usize = 32 * 1024;
/// Below this average shards are taken away. Far below the others, so that the number does not swing.
const SPARSE: usize = 8 * 1024;
/// How many shards an inventory is spread over for the sake of small writes alone.
const FINE: usize = 32;

/// One object, as a line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    sub: String,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<ObjectId>,
    api_version: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    kept: bool,
}

/// The first line of the first shard.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    epoch: u64,
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied: Option<ObjectId>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    empty: BTreeSet<String>,
}

const FORMAT: u32 = 1;

/// Text that is not an inventory.
#[derive(Debug, thiserror::Error)]
pub enum BrokenInventory {
    /// A line that cannot be read.
    #[error("line {line} of inventory shard {shard} cannot be read")]
    Line {
        /// Which shard.
        shard: usize,
        /// Which line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a newer version.
    #[error("the inventory has format {0}, this version reads format {FORMAT}; use the newer agent that wrote it")]
    Format(u32),
}

/// The texts of all shards, given how many there were. Equal inventories give equal texts.
pub fn encode_shards(inventory: &Inventory, previous: usize) -> Result<Vec<String>, serde_json::Error> {
    let mut lines = Vec::with_capacity(inventory.entries.len());
    for (key, entry) in &inventory.entries {
        lines.push((spread(key), serde_json::to_string(&line_of(key, entry))?));
    }
    let head = serde_json::to_string(&head_of(inventory))?;
    let total = head.len() + lines.iter().map(|(_, line)| line.len() + 1).sum::<usize>();
    let mut count = fitting_count(previous, total);
    loop {
        let shards = fill(&head, &lines, count);
        let longest = shards.iter().map(String::len).max().unwrap_or_default();
        if longest <= SHARD_LIMIT || count > lines.len() {
            return Ok(shards);
        }
        count *= 2;
    }
}

/// A power of two, so that growing moves every second entry at most, and entries only ever move to new shards.
fn fitting_count(previous: usize, total: usize) -> usize {
    let mut count = previous.max(1).next_power_of_two();
    while total / count > CROWDED || (count < FINE && total / count > COMFORTABLE) {
        count *= 2;
    }
    while count > 1 && total / count < SPARSE {
        count /= 2;
    }
    count
}

fn fill(head: &str, lines: &[(u64, String)], count: usize) -> Vec<String> {
    let mut shards = vec![String::new(); count];
    shards[0] = format!("{head}\n");
    for (spread, line) in lines {
        let shard = &mut shards[(*spread % count as u64) as usize];
        shard.push_str(line);
        shard.push('\n');
    }
    shards
}

/// FNV-1a over the identity: stable for ever, because stored shards depend on it.
fn spread(key: &ObjectKey) -> u64 {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let parts = [&key.group, &key.kind, namespace, &key.name];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn line_of(key: &ObjectKey, entry: &Entry) -> Line {
    Line {
        sub: entry.sub.clone(),
        path: entry.path.clone(),
        blob: entry.applied,
        api_version: entry.api_version.clone(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        kept: entry.kept,
    }
}

fn head_of(inventory: &Inventory) -> Head {
    Head {
        format: FORMAT,
        epoch: inventory.position.epoch,
        generation: inventory.position.generation,
        applied: inventory.position.applied,
        empty: inventory.empty.clone(),
    }
}

/// Reads the shards back; the first one has the head.
pub fn decode_shards<'a>(shards: impl IntoIterator<Item = &'a str>) -> Result<Inventory, BrokenInventory> {
    let mut inventory = Inventory::default();
    for (shard, text) in shards.into_iter().enumerate() {
        for (line, content) in text.lines().enumerate() {
            let broken = |source| BrokenInventory::Line {
                shard,
                line: line + 1,
                source,
            };
            if (shard, line) == (0, 0) {
                take_head(&mut inventory, serde_json::from_str(content).map_err(broken)?)?;
            } else {
                take_line(&mut inventory, serde_json::from_str(content).map_err(broken)?);
            }
        }
    }
    if inventory.entries.values().any(|entry| entry.applied.is_none() && !entry.kept) {
        inventory.position.applied = None;
    }
    Ok(inventory)
}

fn take_head(inventory: &mut Inventory, head: Head) -> Result<(), BrokenInventory> {
    if head.format != FORMAT {
        return Err(BrokenInventory::Format(head.format));
    }
    inventory.position = Position {
        epoch: head.epoch,
        generation: head.generation,
        applied: head.applied,
    };
    inventory.empty = head.empty;
    Ok(())
}

fn take_line(inventory: &mut Inventory, line: Line) {
    let key = ObjectKey {
        group: group_of(&line.api_version).to_owned(),
        kind: line.kind,
        namespace: line.namespace,
        name: line.name,
    };
    let entry = Entry {
        sub: line.sub,
        path: line.path,
        api_version: line.api_version,
        applied: line.blob,
        kept: line.kept,
    };
    let Some(twin) = inventory.entries.get_mut(&key) else {
        inventory.entries.insert(key, entry);
        return;
    };
    if *twin != entry {
        twin.applied = None;
        twin.kept = false;
    }
}
