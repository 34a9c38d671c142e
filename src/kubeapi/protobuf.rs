//! Kubernetes' protobuf encoding of request bodies, because kubectl's typed commands (`kubectl create deployment …`) send nothing
//! else: from bytes to the JSON that the same objects have. Pure. Answers are always JSON, which those clients accept.
//!
//! Field numbers come from `protobuf.txt` (written by `tests/tools/merge-schema`). A line is `kind <apiVersion> <Kind> <type>` or
//! `type <name> <number>=<JSON name>[?]:<expression> …`; `?` marks fields that JSON leaves out when empty, the name `^` an embedded
//! struct. Expressions: `s b i d y` scalars, `T M` times, `Q` quantity, `I` int or string, `J` raw JSON, `[]E` list, `{}E` map, `LE`
//! a list wrapped in a message, else a type.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("protobuf.txt");
static TYPES: LazyLock<Types> = LazyLock::new(|| Types::parse(TABLE));

/// Content type of such bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages; real objects stay below 20.
const DEPTH: usize = 64;

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    /// The bytes end early or contradict the encoding.
    #[error("the protobuf body is malformed")]
    Malformed,
    /// A kind that is not in the table.
    #[error("no protobuf definition of {kind} in {api_version} is known here; send JSON")]
    UnknownKind {
        /// `apiVersion` of the body.
        api_version: String,
        /// `kind` of the body.
        kind: String,
    },
}

struct Types {
    kinds: HashMap<(&'static str, &'static str), &'static str>,
    messages: HashMap<&'static str, HashMap<u64, Field>>,
}

#[derive(Clone, Copy)]
struct Field {
    name: &'static str,
    optional: bool,
    expression: &'static str,
}

impl Types {
    fn parse(table: &'static str) -> Types {
        let mut types = Types {
            kinds: HashMap::new(),
            messages: HashMap::new(),
        };
        for line in table.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("kind"), Some(version)) => {
                    if let (Some(kind), Some(name)) = (words.next(), words.next()) {
                        types.kinds.insert((version, kind), name);
                    }
                }
                (Some("type"), Some(name)) => {
                    types.messages.insert(name, words.filter_map(field).collect());
                }
                _ => {}
            }
        }
        types
    }
}

fn field(text: &'static str) -> Option<(u64, Field)> {
    let (number, rest) = text.split_once('=')?;
    let (name, expression) = rest.split_once(':')?;
    let field = Field {
        name: name.trim_end_matches('?'),
        optional: name.ends_with('?'),
        expression,
    };
    Some((number.parse().ok()?, field))
}

/// The object in a request body.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for entry in entries(envelope) {
        match entry? {
            (1, Wire::Bytes(bytes)) => {
                for entry in entries(bytes) {
                    match entry? {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    // DeleteOptions carry the version of what they delete.
    let version = if kind == "DeleteOptions" { "v1" } else { api_version.as_str() };
    let Some(name) = TYPES.kinds.get(&(version, kind.as_str())) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = message(name, raw, DEPTH)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Number(u64),
    Double(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in the order of the bytes.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), ProtobufError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let entry = next_entry(&mut bytes).ok_or(ProtobufError::Malformed);
        if entry.is_err() {
            bytes = &[];
        }
        Some(entry)
    })
}

fn next_entry<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let key = varint(bytes)?;
    let wire = match key & 7 {
        0 => Wire::Number(varint(bytes)?),
        1 => Wire::Double(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Wire::Bytes(take(bytes, length)?)
        }
        5 => Wire::Number(u64::from(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?))),
        _ => return None,
    };
    Some((key >> 3, wire))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed)
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Malformed)?;
    let fields = TYPES.messages.get(name);
    let mut object = Map::new();
    for entry in entries(bytes) {
        let (number, wire) = entry?;
        if let Some(field) = fields.and_then(|fields| fields.get(&number)) {
            add(&mut object, *field, &wire, depth)?;
        }
    }
    Ok(object)
}

fn add(object: &mut Map<String, Value>, field: Field, wire: &Wire<'_>, depth: usize) -> Result<(), ProtobufError> {
    if let Some(element) = field.expression.strip_prefix("[]") {
        let item = value(element, wire, depth)?;
        let list = object.entry(field.name).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(item);
        }
        return Ok(());
    }
    if let Some(element) = field.expression.strip_prefix("{}") {
        let (key, item) = map_entry(element, wire, depth)?;
        let map = object.entry(field.name).or_insert_with(|| json!({}));
        if let Some(map) = map.as_object_mut() {
            map.insert(key, item);
        }
        return Ok(());
    }
    let found = value(field.expression, wire, depth)?;
    match found {
        Value::Object(embedded) if field.name == "^" => object.extend(embedded),
        Value::Null => {}
        found if field.optional && is_zero(&found) => {}
        found => {
            object.insert(field.name.to_owned(), found);
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

fn map_entry(element: &str, wire: &Wire<'_>, depth: usize) -> Result<(String, Value), ProtobufError> {
    let Wire::Bytes(bytes) = wire else {
        return Err(ProtobufError::Malformed);
    };
    let mut key = String::new();
    let mut item = value(element, &Wire::Bytes(&[]), depth)?;
    for entry in entries(bytes) {
        match entry? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => item = value(element, &wire, depth)?,
            _ => {}
        }
    }
    Ok((key, item))
}

fn value(expression: &str, wire: &Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    match (expression, wire) {
        ("s", Wire::Bytes(bytes)) => Ok(json!(text(bytes)?)),
        ("b", Wire::Number(number)) => Ok(json!(*number != 0)),
        ("i", Wire::Number(number)) => Ok(json!(number.cast_signed())),
        ("d", Wire::Double(bits)) => Ok(json!(f64::from_bits(*bits))),
        ("y", Wire::Bytes(bytes)) => Ok(json!(STANDARD.encode(bytes))),
        ("T" | "M", Wire::Bytes(bytes)) => time(bytes),
        ("Q", Wire::Bytes(bytes)) => first_text(bytes),
        ("I", Wire::Bytes(bytes)) => int_or_string(bytes),
        ("J", Wire::Bytes(bytes)) => raw_json(bytes),
        (other, Wire::Bytes(bytes)) => match other.strip_prefix('L') {
            Some(element) if !TYPES.messages.contains_key(other) => wrapped_list(element, bytes, depth),
            _ => message(other, bytes, depth).map(Value::Object),
        },
        _ => Err(ProtobufError::Malformed),
    }
}

fn wrapped_list(element: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    entries(bytes).map(|entry| value(element, &entry?.1, depth)).collect()
}

/// Seconds and nanoseconds; an empty message is no time at all.
fn time(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    for entry in entries(bytes) {
        match entry? {
            (1, Wire::Number(number)) => seconds = number.cast_signed(),
            (2, Wire::Number(number)) => nanos = i32::try_from(number.cast_signed()).unwrap_or(0),
            _ => {}
        }
    }
    // Go's zero time lies in the year 1.
    if bytes.is_empty() || seconds <= 0 {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Malformed)?;
    Ok(json!(time.to_string()))
}

fn first_text(bytes: &[u8]) -> Result<Value, ProtobufError> {
    match entries(bytes).next() {
        Some(entry) => value("s", &entry?.1, DEPTH),
        None => Ok(json!("0")),
    }
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for entry in entries(bytes) {
        match entry? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(found)) => number = found.cast_signed(),
            (3, Wire::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(string) } else { json!(number) })
}

fn raw_json(bytes: &[u8]) -> Result<Value, ProtobufError> {
    match entries(bytes).next() {
        Some(entry) => match entry?.1 {
            Wire::Bytes(raw) => serde_json::from_slice(raw).map_err(|_| ProtobufError::Malformed),
            _ => Err(ProtobufError::Malformed),
        },
        None => Ok(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// `kubectl create namespace shop` as kubectl 1.32 sends it.
    #[test]
    fn a_namespace_from_kubectl() {
        let body = b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x1c\n\x14\n\x04shop\x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\0\x1a\x02\n\0\x1a\0\"\0";
        let object = decode(body).unwrap();
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {}, "status": {}})
        );
    }

    #[test]
    fn every_type_of_the_table_is_defined() {
        for fields in TYPES.messages.values() {
            for field in fields.values() {
                let name = field
                    .expression
                    .trim_start_matches("[]")
                    .trim_start_matches("{}")
                    .trim_start_matches("[]");
                assert!(!name.contains('.') || TYPES.messages.contains_key(name), "{name}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for body in [&b"k8s\0\xff"[..], b"{}", b"k8s\0\n\x0f\n\x02v1", b"", b"k8s\0"] {
            assert!(decode(body).is_err(), "{body:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let pod = b"k8s\0\n\x09\n\x02v1\x12\x03Pod\x12";
            let _ = decode(&[&pod[..], &[u8::try_from(bytes.len() % 128).unwrap_or(0)], &bytes].concat());
            let _ = decode(&bytes);
        }
    }
}
