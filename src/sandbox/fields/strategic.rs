//! Strategic merge patches: lists with a merge key merge by it, and the `$` directives delete, replace, retain and order.
//! Follows Kubernetes' `strategicpatch` as its API server calls it: nulls that match nothing are dropped. Knows only types.

use serde_json::{Map, Value};

use super::kind::KindSchema;
use super::schema::{PatchStrategy, Schema, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

impl KindSchema {
    /// [`super::strategic_merge_patch`] for this kind.
    pub fn strategic_merge(&self, live: &Value, patch: &Value) -> Result<Value, String> {
        if !self.built_in {
            return Err("strategic merge patch is not supported for custom resources; use a merge patch or apply".to_owned());
        }
        let (Value::Object(live), Value::Object(patch)) = (live, patch) else {
            return Err("a strategic merge patch is an object that patches an object".to_owned());
        };
        let merger = Merger { schema: &self.schema };
        merger
            .merge_map(live.clone(), patch.clone(), Some(self.root))
            .map(Value::Object)
    }
}

struct Merger<'a> {
    schema: &'a Schema,
}

/// What a patch needs to know of one field: its strategy, and the type that its value's children have.
struct FieldMeta {
    strategy: PatchStrategy,
    kind: Option<TypeId>,
}

impl Merger<'_> {
    fn field(&self, kind: Option<TypeId>, name: &str) -> FieldMeta {
        let map = kind.and_then(|kind| self.schema.atom(kind).map.as_ref());
        let strategy = map
            .and_then(|map| map.fields.get(name))
            .map(|field| field.patch.clone())
            .unwrap_or_default();
        FieldMeta {
            strategy,
            kind: map.and_then(|map| map.child(name)),
        }
    }

    fn list_field(&self, kind: Option<TypeId>, name: &str) -> FieldMeta {
        let FieldMeta { strategy, kind } = self.field(kind, name);
        let list = kind.and_then(|kind| self.schema.atom(kind).list.as_ref());
        FieldMeta {
            strategy,
            kind: list.map(|list| list.element),
        }
    }

    fn merge_map(&self, mut live: Object, mut patch: Object, kind: Option<TypeId>) -> Result<Object, String> {
        if let Some(directive) = patch.remove(PATCH) {
            return match directive.as_str() {
                Some("replace") => Ok(cleaned_map(patch)),
                Some("delete") => Ok(Map::new()),
                _ => Err(format!(
                    "unknown patch type: {directive}; a map knows \"replace\" and \"delete\""
                )),
            };
        }
        retain_keys(&mut live, &mut patch)?;
        self.merge_ordered_lists(&mut live, &mut patch, kind)?;
        for (key, value) in patch {
            self.merge_field(&mut live, &key, value, kind)?;
        }
        Ok(live)
    }

    fn merge_field(&self, live: &mut Object, key: &str, patch: Value, kind: Option<TypeId>) -> Result<(), String> {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (live.get_mut(name), patch) {
                items.retain(|item| !gone.contains(item));
            }
            return Ok(());
        }
        if patch.is_null() {
            live.remove(key);
            return Ok(());
        }
        let merged = match (live.get_mut(key).map(Value::take), patch) {
            (Some(Value::Object(old)), Value::Object(patch)) => {
                let meta = self.field(kind, key);
                Some(Value::Object(match meta.strategy.replace {
                    true => cleaned_map(patch),
                    false => self.merge_map(old, patch, meta.kind)?,
                }))
            }
            (Some(Value::Array(old)), Value::Array(patch)) => {
                Some(Value::Array(self.merge_list(old, patch, &self.list_field(kind, key))?))
            }
            (_, patch) => cleaned(patch),
        };
        match merged {
            Some(merged) => live.insert(key.to_owned(), merged),
            None => live.remove(key),
        };
        Ok(())
    }

    /// Merges the lists whose order the patch demands, and takes them out of the patch.
    fn merge_ordered_lists(&self, live: &mut Object, patch: &mut Object, kind: Option<TypeId>) -> Result<(), String> {
        let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
        for directive in directives {
            let name = &directive[SET_ORDER.len()..];
            let wanted = list_of(patch.remove(&directive), &directive)?.unwrap_or_default();
            let old = list_of(live.get(name).cloned(), name)?;
            let new = list_of(patch.remove(name), name)?;
            let meta = self.list_field(kind, name);
            let key = meta.strategy.merge_key.as_deref();
            check_order(new.as_deref().unwrap_or_default(), &wanted, key)?;
            let server_order = old.clone().unwrap_or_default();
            let patch_order = new.clone().unwrap_or_default();
            let merged = match (old, new) {
                (Some(old), Some(new)) => self.merge_list(old, new, &meta)?,
                (Some(old), None) => old,
                (None, Some(new)) => new.into_iter().filter_map(cleaned).collect(),
                (None, None) => continue,
            };
            same_types(&server_order, &patch_order)?;
            live.insert(name.to_owned(), Value::Array(ordered(merged, &wanted, &server_order, key)?));
        }
        Ok(())
    }

    fn merge_list(&self, old: Vec<Value>, patch: Vec<Value>, meta: &FieldMeta) -> Result<Vec<Value>, String> {
        if !meta.strategy.merge {
            return Ok(patch.into_iter().filter_map(cleaned).collect());
        }
        if old.is_empty() && patch.is_empty() {
            return Ok(old);
        }
        same_types(&old, &patch)?;
        let Some(key) = meta.strategy.merge_key.as_deref() else {
            let mut both = old.clone();
            for value in patch.iter().filter(|value| !old.contains(value)) {
                if !both.contains(value) {
                    both.push(value.clone());
                }
            }
            return ordered(both, &patch, &old, None);
        };
        let (old, patch) = apply_item_directives(old, patch, key)?;
        let merged = self.merge_items(old.clone(), patch.clone(), key, meta.kind)?;
        ordered(merged, &patch, &old, Some(key))
    }

    fn merge_items(&self, mut old: Vec<Value>, patch: Vec<Value>, key: &str, kind: Option<TypeId>) -> Result<Vec<Value>, String> {
        for item in patch {
            let name = merge_key_of(&item, key)?.clone();
            let Value::Object(item) = item else { continue };
            match old.iter_mut().find(|old| old.get(key) == Some(&name)) {
                Some(Value::Object(old)) => *old = self.merge_map(std::mem::take(old), item, kind)?,
                _ => old.push(Value::Object(cleaned_map(item))),
            }
        }
        Ok(old)
    }
}

/// Carries out `$retainKeys`: fields of the live map that are not in the list go.
fn retain_keys(live: &mut Object, patch: &mut Object) -> Result<(), String> {
    let bad = || "invalid patch format of retainKeys: it is a list with all fields that the patch sets".to_owned();
    let Some(list) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let list = list.as_array().ok_or_else(bad)?;
    let listed = |key: &str| list.iter().any(|item| item.as_str() == Some(key));
    let directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch
        .iter()
        .any(|(key, value)| !value.is_null() && !directive(key) && !listed(key))
    {
        return Err(bad());
    }
    live.retain(|key, _| listed(key));
    Ok(())
}

/// Carries out `$patch` in list items: deletions at once; `replace` anywhere drops what was there.
fn apply_item_directives(old: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), String> {
    let (mut old, mut plain, mut replace) = (old, Vec::new(), false);
    for item in patch {
        match item.get(PATCH).map(Value::as_str) {
            None => plain.push(item),
            Some(Some("delete")) => {
                let gone = merge_key_of(&item, key)?;
                old.retain(|old| old.get(key) != Some(gone));
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => return Err("merging lists cannot yet be specified in the patch".to_owned()),
            Some(_) => {
                return Err(format!(
                    "unknown patch type in {item}; a list item knows \"delete\" and \"replace\""
                ));
            }
        }
    }
    Ok(if replace {
        (plain.into_iter().filter_map(cleaned).collect(), Vec::new())
    } else {
        (old, plain)
    })
}

/// Orders a merged list: items that the patch names in its order, the others in the live order, interleaved by the latter.
fn ordered(merged: Vec<Value>, wanted: &[Value], server: &[Value], key: Option<&str>) -> Result<Vec<Value>, String> {
    let name = |value: &Value| match key {
        Some(key) => merge_key_of(value, key).cloned(),
        None => Ok(value.clone()),
    };
    let names = |list: &[Value]| list.iter().map(name).collect::<Result<Vec<Value>, String>>();
    let (wanted, server) = (names(wanted)?, names(server)?);
    let place = |list: &[Value], name: &Value| list.iter().position(|other| other == name);
    let mut named = Vec::with_capacity(merged.len());
    for value in merged {
        named.push((name(&value)?, value));
    }
    let (mut right, mut left): (Vec<_>, Vec<_>) = named.into_iter().partition(|(name, _)| wanted.contains(name));
    right.sort_by_key(|(name, _)| place(&wanted, name));
    left.sort_by_key(|(name, _)| place(&server, name));
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some((one, _)), Some((two, _))) = (left.peek(), right.peek()) {
        let before = matches!((place(&server, one), place(&server, two)), (Some(one), Some(two)) if one < two);
        out.extend(if before { left.next() } else { right.next() }.map(|(_, value)| value));
    }
    out.extend(left.chain(right).map(|(_, value)| value));
    Ok(out)
}

/// The items of the patch list stand in the demanded order, and all of them are in it.
fn check_order(patch: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), String> {
    if patch.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let name = |value: &Value| match key {
        Some(key) => merge_key_of(value, key).cloned(),
        None => Ok(value.clone()),
    };
    let mut order = wanted.iter();
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        let item_name = name(item)?;
        if !order.any(|wanted| name(wanted).is_ok_and(|wanted| wanted == item_name)) {
            return Err(format!(
                "The order in patch list:\n{patch:?}\n doesn't match {SET_ORDER} list:\n{wanted:?}\n"
            ));
        }
    }
    Ok(())
}

fn list_of(value: Option<Value>, name: &str) -> Result<Option<Vec<Value>>, String> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(other) => Err(format!("expected a list in {name:?}, got {other}")),
    }
}

fn merge_key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, String> {
    item.get(key)
        .ok_or_else(|| format!("map: {item} does not contain declared merge key: {key}"))
}

/// The items of both lists are of one type, which is not a list.
fn same_types(old: &[Value], patch: &[Value]) -> Result<(), String> {
    let items = || old.iter().chain(patch);
    let first = items().next().ok_or("no elements in any of the given slices")?;
    if first.is_array() {
        return Err("lists of lists are not supported".to_owned());
    }
    match items().all(|item| std::mem::discriminant(item) == std::mem::discriminant(first)) {
        true => Ok(()),
        false => Err(format!("list element types are not identical: {old:?} {patch:?}")),
    }
}

/// A value from a patch without nulls and directives; `None` if it is a directive itself.
fn cleaned(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(Value::Object(cleaned_map(map))),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(cleaned).collect())),
        value => Some(value),
    }
}

fn cleaned_map(map: Object) -> Object {
    let directive = |key: &str| key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM);
    let kept = map.into_iter().filter(|(key, value)| !value.is_null() && !directive(key));
    kept.filter_map(|(key, value)| Some((key, cleaned(value)?))).collect()
}
