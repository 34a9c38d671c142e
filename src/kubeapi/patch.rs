//! JSON patches (RFC 6902) and JSON merge patches (RFC 7386) of plain values. Knows nothing of Kubernetes types.

use serde_json::{Map, Value};

/// `live` after a JSON merge patch (RFC 7386): null removes, objects merge, all else replaces.
pub fn merge_patch(live: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut out = live.as_object().cloned().unwrap_or_else(Map::new);
    for (key, value) in patch {
        match value {
            Value::Null => drop(out.remove(key)),
            value => {
                let merged = merge_patch(out.get(key).unwrap_or(&Value::Null), value);
                out.insert(key.clone(), merged);
            }
        }
    }
    Value::Object(out)
}

/// `live` after a JSON patch, a list of operations; the first operation that fails fails all.
pub fn json_patch(live: &Value, patch: &Value) -> Result<Value, String> {
    let operations = patch.as_array().ok_or("a JSON patch is a list of operations")?;
    let mut out = live.clone();
    for (index, operation) in operations.iter().enumerate() {
        apply(&mut out, operation).map_err(|problem| format!("operation {index} of the JSON patch: {problem}"))?;
    }
    Ok(out)
}

fn apply(target: &mut Value, operation: &Value) -> Result<(), String> {
    let text = |name: &str| {
        let value = operation.get(name).and_then(Value::as_str);
        value.ok_or_else(|| format!("field `{name}` is missing or not a string"))
    };
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| "field `value` is missing".to_owned())
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => replace(target, path, value()?),
        "move" => {
            let moved = remove(target, text("from")?)?;
            add(target, path, moved)
        }
        "copy" => {
            let copied = find(target, text("from")?)?.clone();
            add(target, path, copied)
        }
        "test" => test(target, path, operation.get("value").unwrap_or(&Value::Null)),
        other => Err(format!("`{other}` is not one of add, remove, replace, move, copy, test")),
    }
}

fn find<'v>(target: &'v Value, path: &str) -> Result<&'v Value, String> {
    target.pointer(path).ok_or_else(|| missing(path))
}

fn missing(path: &str) -> String {
    format!("there is nothing at {path:?}")
}

fn test(target: &Value, path: &str, wanted: &Value) -> Result<(), String> {
    match target.pointer(path) {
        Some(found) if same(found, wanted) => Ok(()),
        None if wanted.is_null() => Ok(()),
        found => Err(format!(
            "testing value {path} failed: it is {}, not {wanted}",
            found.unwrap_or(&Value::Null)
        )),
    }
}

fn replace(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    *target.pointer_mut(path).ok_or_else(|| missing(path))? = value;
    Ok(())
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = parent(target, path)?;
    match parent {
        Value::Object(map) => drop(map.insert(last, value)),
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let at = index(&last, list.len() + 1).ok_or_else(|| missing(path))?;
            list.insert(at, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = parent(target, path)?;
    let removed = match parent {
        Value::Object(map) => map.remove(&last),
        Value::Array(list) => index(&last, list.len()).map(|at| list.remove(at)),
        _ => None,
    };
    removed.ok_or_else(|| missing(path))
}

/// The container that a path points into, and the last part of the path, unescaped.
fn parent<'v>(target: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), String> {
    let (parent, last) = path
        .rsplit_once('/')
        .ok_or_else(|| format!("path {path:?} does not begin with `/`"))?;
    let parent = target.pointer_mut(parent).ok_or_else(|| missing(path))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

/// A list index below `end`, without sign or leading zero.
fn index(text: &str, end: usize) -> Option<usize> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|at| plain && *at < end)
}

/// Whether a `test` holds: numbers are compared by value (RFC 6902, section 4.6).
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => one == two || (one.is_f64() != two.is_f64() && one.as_f64() == two.as_f64()),
        (Value::Array(one), Value::Array(two)) => one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two)),
        (Value::Object(one), Value::Object(two)) => {
            let is_same = |(key, value): (&String, &Value)| two.get(key).is_some_and(|other| same(value, other));
            one.len() == two.len() && one.iter().all(is_same)
        }
        (one, two) => one == two,
    }
}
