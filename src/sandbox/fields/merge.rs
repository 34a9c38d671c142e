//! Merges an applied value into a live one by their type: maps by key, lists by item, all else is replaced. Decides nothing
//! about ownership.

use serde_json::Value;

use super::path::Step;
use super::schema::{Forms, Keys, ListType, MapType, Schema, TypeId};
use super::walk::{item_step, items};

/// The merged value, or why a list cannot be merged.
pub(super) fn merge(schema: &Schema, kind: TypeId, live: &Value, applied: &Value) -> Result<Value, String> {
    let atom = schema.atom(kind);
    match (atom.forms(Some(applied)), &atom.map, &atom.list) {
        (Forms { map: true, .. }, Some(map), _) if !map.atomic => merge_maps(schema, map, live, applied),
        (
            Forms {
                map: false,
                scalar: false,
                ..
            },
            _,
            Some(list),
        ) if list.keys != Keys::Atomic => merge_lists(schema, list, live, applied),
        _ => Ok(applied.clone()),
    }
}

fn merge_maps(schema: &Schema, map: &MapType, live: &Value, applied: &Value) -> Result<Value, String> {
    let Some(old) = live.as_object().filter(|live| !live.is_empty()) else {
        return Ok(applied.clone());
    };
    let mut out = old.clone();
    for (key, value) in applied.as_object().into_iter().flatten() {
        let merged = match old.get(key) {
            Some(old) => merge(schema, map.child(key).unwrap_or(schema.deduced()), old, value)
                .map_err(|problem| format!(".{key}{problem}"))?,
            None => value.clone(),
        };
        out.insert(key.clone(), merged);
    }
    Ok(Value::Object(out))
}

fn merge_lists(schema: &Schema, list: &ListType, live: &Value, applied: &Value) -> Result<Value, String> {
    let (old, new) = (items(Some(live)), items(Some(applied)));
    if old.is_empty() {
        return Ok(applied.clone());
    }
    let merger = ListMerger {
        schema,
        list,
        old: named(schema, list, old)?,
        new: named(schema, list, new)?,
        out: Vec::with_capacity(old.len().max(new.len())),
        merged: Vec::new(),
    };
    merger.run().map(Value::Array)
}

fn named<'v>(schema: &Schema, list: &ListType, items: &'v [Value]) -> Result<Vec<(Step, &'v Value)>, String> {
    let name = |(index, item)| match item_step(schema, list, item) {
        Ok(step) => Ok((step, item)),
        Err(problem) => Err(format!(": element {index}: {problem}")),
    };
    items.iter().enumerate().map(name).collect()
}

/// Interleaves two lists: items of both sides in the applied order, items of one side where they stood.
struct ListMerger<'a> {
    schema: &'a Schema,
    list: &'a ListType,
    old: Vec<(Step, &'a Value)>,
    new: Vec<(Step, &'a Value)>,
    out: Vec<Value>,
    merged: Vec<Step>,
}

impl ListMerger<'_> {
    fn run(mut self) -> Result<Vec<Value>, String> {
        let shared: Vec<Step> = self
            .new
            .iter()
            .map(|(step, _)| step.clone())
            .filter(|step| self.in_old(step))
            .collect();
        let mut shared = shared.into_iter();
        let mut next_shared = shared.next();
        let (mut i, mut j) = (0, 0);
        while i < self.old.len() || j < self.new.len() {
            if let (Some((old, _)), Some((new, _))) = (self.old.get(i), self.new.get(j)) {
                if old == new {
                    self.take_new(j)?;
                    (i, j) = (i + 1, j + 1);
                    next_shared = shared.next();
                    continue;
                }
                if self.in_new(old) && next_shared.as_ref().is_some_and(|next| next != old) {
                    i += 1;
                    continue;
                }
            }
            if let Some((old, value)) = self.old.get(i) {
                if !self.in_new(old) {
                    self.out.push((*value).clone());
                    i += 1;
                    continue;
                }
                if self.merged.contains(old) {
                    i += 1;
                }
            }
            if let Some((new, _)) = self.new.get(j) {
                if next_shared.as_ref() == Some(new) {
                    next_shared = shared.next();
                }
                self.take_new(j)?;
                j += 1;
            }
        }
        Ok(self.out)
    }

    /// Emits an applied item, merged with the live item of that name if there is exactly one.
    fn take_new(&mut self, index: usize) -> Result<(), String> {
        let Some((step, value)) = self.new.get(index) else {
            return Ok(());
        };
        let mut namesakes = self.old.iter().filter(|(old, _)| old == step);
        let merged = match (namesakes.next(), namesakes.next()) {
            (Some((_, old)), None) => merge(self.schema, self.list.element, old, value)?,
            _ => (*value).clone(),
        };
        self.merged.push(step.clone());
        self.out.push(merged);
        Ok(())
    }

    fn in_old(&self, step: &Step) -> bool {
        self.old.iter().any(|(old, _)| old == step)
    }

    fn in_new(&self, step: &Step) -> bool {
        self.new.iter().any(|(new, _)| new == step)
    }
}
