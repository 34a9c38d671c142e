//! `metadata.managedFields` decoded: who manages which fields. Owns the form, the order and the ten-manager limit of the
//! entries; never looks at the rest of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// More update managers than this are merged into one, the oldest first.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager that the oldest updates are merged into.
const ANCIENT: &str = "ancient-changes";

/// How a manager wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Everything else.
    Update,
}

impl Operation {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells entries apart. Appliers are the same manager in every API version, so theirs is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ManagerId {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl ManagerId {
    pub(super) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> ManagerId {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        ManagerId {
            manager: manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

/// What a manager has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) set: FieldSet,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
}

/// All managers of an object.
pub(super) type Managed = BTreeMap<ManagerId, Claim>;

/// Takes `metadata.managedFields` out of an object.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Whether a client asks to forget all managers: an empty list, or one empty entry.
pub(super) fn is_reset(entries: Option<&Value>) -> bool {
    let empty_entry = |entry: &Value| entry.as_object().is_some_and(Map::is_empty);
    match entries.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => empty_entry(one),
        _ => false,
    }
}

/// Reads the entries.
pub(super) fn decode(entries: Option<&Value>) -> Result<Managed, String> {
    let entries = match entries {
        None | Some(Value::Null) => return Ok(Managed::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err("metadata.managedFields is not a list".to_owned()),
    };
    entries
        .iter()
        .enumerate()
        .map(|(index, entry)| decode_entry(entry, index))
        .collect()
}

fn decode_entry(entry: &Value, index: usize) -> Result<(ManagerId, Claim), String> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        other => {
            return Err(format!(
                "operation is `{other}`, not `Apply` or `Update`, in managed fields entry {index}"
            ));
        }
    };
    match (text("apiVersion"), text("fieldsType")) {
        ("", _) => return Err(format!("missing apiVersion in managed fields entry {index}")),
        (_, "FieldsV1") => {}
        (_, "") => return Err(format!("missing fieldsType in managed fields entry {index}")),
        (_, other) => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
    }
    let id = ManagerId {
        manager: text("manager").to_owned(),
        operation,
        api_version: if operation == Operation::Apply {
            String::new()
        } else {
            text("apiVersion").to_owned()
        },
        subresource: text("subresource").to_owned(),
    };
    let set = FieldSet::from_json(entry.get("fieldsV1").unwrap_or(&json!({})))?;
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok((
        id,
        Claim {
            set,
            api_version: text("apiVersion").to_owned(),
            time,
        },
    ))
}

/// Writes the entries into an object, in Kubernetes' order; no managers, no field.
pub(super) fn put(object: &mut Value, managed: &Managed) {
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else { return };
    metadata.remove("managedFields");
    if !managed.is_empty() {
        metadata.insert("managedFields".to_owned(), encode(managed));
    }
}

fn encode(managed: &Managed) -> Value {
    let mut entries: Vec<(&ManagerId, &Claim)> = managed.iter().collect();
    entries.sort_by_key(|(id, claim)| {
        (
            id.operation,
            seconds(claim.time.as_deref()),
            &id.manager,
            &claim.api_version,
            &id.subresource,
        )
    });
    Value::Array(entries.into_iter().map(|(id, claim)| encode_entry(id, claim)).collect())
}

fn encode_entry(id: &ManagerId, claim: &Claim) -> Value {
    let mut entry = json!({
        "apiVersion": claim.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": claim.set.to_json(),
        "manager": id.manager,
        "operation": id.operation.as_str(),
    });
    if let Some(fields) = entry.as_object_mut() {
        if !id.subresource.is_empty() {
            fields.insert("subresource".to_owned(), Value::from(id.subresource.as_str()));
        }
        if let Some(time) = &claim.time {
            fields.insert("time".to_owned(), Value::from(time.as_str()));
        }
    }
    entry
}

/// Seconds since the epoch; an absent or unreadable time is the oldest.
fn seconds(time: Option<&str>) -> i64 {
    time.and_then(|time| time.parse::<jiff::Timestamp>().ok())
        .map_or(0, jiff::Timestamp::as_second)
}

/// The time as Kubernetes writes it: UTC, whole seconds.
pub(super) fn whole_seconds(now: &str) -> String {
    match now.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => now.to_owned(),
    }
}

/// Merges the oldest updates of one API version while there are too many update managers.
pub(super) fn limit_updaters(managed: &mut Managed) {
    let mut updaters: Vec<ManagerId> = managed
        .keys()
        .filter(|id| id.operation == Operation::Update)
        .cloned()
        .collect();
    updaters.sort_by_key(|id| (managed.get(id).map(|claim| seconds(claim.time.as_deref())), id.clone()));
    let mut count = updaters.len();
    let mut firsts: BTreeMap<String, ManagerId> = BTreeMap::new();
    for id in updaters {
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        let Some(version) = managed.get(&id).map(|claim| claim.api_version.clone()) else {
            continue;
        };
        let Some(first) = firsts.get(&version) else {
            firsts.insert(version, id);
            continue;
        };
        let bucket = ManagerId::new(ANCIENT, Operation::Update, &version, "");
        if let (Some(claim), Some(older)) = (managed.remove(&id), managed.remove(&bucket).or_else(|| managed.remove(first))) {
            managed.insert(
                bucket,
                Claim {
                    set: older.set.union(&claim.set),
                    ..claim
                },
            );
        }
        count -= 1;
    }
}
