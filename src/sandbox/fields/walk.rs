//! Walks a value by its type: which paths it has, what differs between two values, what is left without some paths, and
//! how list items are named. Pure functions; never writes `managedFields`.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::path::{Scalar, Step, same};
use super::schema::{Forms, Keys, ListType, MapType, Schema, TypeId};
use super::set::FieldSet;

/// What a struct that Go's encoder always writes is when it is absent.
static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// Names an item of a list that is no atom.
pub(super) fn item_step(schema: &Schema, list: &ListType, item: &Value) -> Result<Step, String> {
    match &list.keys {
        Keys::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        Keys::Value => set_item_step(item),
        Keys::Fields(names) => keyed_item_step(schema, list, names, item),
    }
}

fn set_item_step(item: &Value) -> Result<Step, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
        value => Ok(Step::Item(Scalar(value.clone()))),
    }
}

fn keyed_item_step(schema: &Schema, list: &ListType, names: &[String], item: &Value) -> Result<Step, String> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let declared = schema.atom(list.element).map.as_ref();
    let default = |name: &String| {
        declared
            .and_then(|map| map.fields.get(name))
            .and_then(|field| field.default.as_ref())
    };
    let present = names
        .iter()
        .filter_map(|name| Some((name.clone(), fields.get(name).or_else(|| default(name))?.clone())));
    let keys: Vec<(String, Value)> = present.collect();
    if keys.is_empty() {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any \
             key fields)",
            names.join(" ")
        ));
    }
    Ok(Step::key(keys))
}

/// The items of a value if it is a list.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The paths that a value sets when it is applied.
pub(super) fn paths_of(schema: &Schema, kind: TypeId, value: &Value) -> FieldSet {
    let mut collector = Collector {
        schema,
        path: Vec::new(),
        set: FieldSet::default(),
    };
    collector.visit(kind, value);
    collector.set
}

struct Collector<'a> {
    schema: &'a Schema,
    path: Vec<Step>,
    set: FieldSet,
}

impl Collector<'_> {
    fn visit(&mut self, kind: TypeId, value: &Value) {
        let atom = self.schema.atom(kind);
        match (atom.forms(Some(value)), &atom.map, &atom.list) {
            (Forms { map: true, .. }, Some(map), _) if !map.atomic => self.visit_map(map, value),
            (
                Forms {
                    map: false,
                    scalar: false,
                    ..
                },
                _,
                Some(list),
            ) if list.keys != Keys::Atomic => self.visit_list(list, value),
            _ => self.set.insert(&self.path),
        }
    }

    fn visit_map(&mut self, map: &MapType, value: &Value) {
        for (key, child) in value.as_object().into_iter().flatten() {
            self.path.push(Step::field(key));
            self.visit(map.child(key).unwrap_or(self.schema.deduced()), child);
            let empty = child.is_null() || child.as_object().is_some_and(Map::is_empty);
            if empty || !map.fields.contains_key(key) {
                self.set.insert(&self.path);
            }
            self.path.pop();
        }
    }

    fn visit_list(&mut self, list: &ListType, value: &Value) {
        let named: Vec<(Step, &Value)> = items(Some(value))
            .iter()
            .filter_map(|item| Some((item_step(self.schema, list, item).ok()?, item)))
            .collect();
        for (step, item) in &named {
            // Items that share a name are one thing: nothing below them can be told apart.
            let alone = named.iter().filter(|(other, _)| other == step).count() == 1;
            self.path.push(step.clone());
            if alone {
                self.visit(list.element, item);
            }
            self.set.insert(&self.path);
            self.path.pop();
        }
    }
}

/// What changed from one value to another.
#[derive(Debug, Clone, Default)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Comparison {
    /// The comparison without these trees.
    pub(super) fn without_trees(&self, trees: &FieldSet) -> Comparison {
        Comparison {
            removed: self.removed.without_trees(trees),
            modified: self.modified.without_trees(trees),
            added: self.added.without_trees(trees),
        }
    }
}

/// Compares two values of a type.
pub(super) fn compare(schema: &Schema, kind: TypeId, old: &Value, new: &Value) -> Comparison {
    let mut comparer = Comparer {
        schema,
        path: Vec::new(),
        out: Comparison::default(),
    };
    comparer.visit(kind, Some(old), Some(new));
    comparer.out
}

struct Comparer<'a> {
    schema: &'a Schema,
    path: Vec<Step>,
    out: Comparison,
}

impl Comparer<'_> {
    fn visit(&mut self, kind: TypeId, old: Option<&Value>, new: Option<&Value>) {
        let atom = self.schema.atom(kind);
        let (before, after) = (atom.forms(old), atom.forms(new));
        let mut leaf = false;
        if new.is_none() || (old.is_some() && before != after) {
            leaf = self.visit_as(kind, before, old, new);
        }
        if new.is_some() {
            leaf = self.visit_as(kind, after, old, new);
        }
        match (leaf, old, new) {
            (false, None, _) => self.out.added.insert(&self.path),
            (false, _, None) => self.out.removed.insert(&self.path),
            _ => {}
        }
    }

    /// Visits in one form; true if the value is a leaf in it.
    fn visit_as(&mut self, kind: TypeId, forms: Forms, old: Option<&Value>, new: Option<&Value>) -> bool {
        let atom = self.schema.atom(kind);
        match (forms, &atom.map, &atom.list) {
            (Forms { map: true, .. }, Some(map), _) if !map.atomic && (has_fields(old) || has_fields(new)) => {
                self.visit_maps(map, old, new);
                false
            }
            (
                Forms {
                    map: false,
                    scalar: false,
                    ..
                },
                _,
                Some(list),
            ) if list.keys != Keys::Atomic && !(items(old).is_empty() && items(new).is_empty()) => {
                self.visit_lists(list, old, new);
                false
            }
            _ => {
                self.leaf(old, new);
                true
            }
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            (Some(old), Some(new)) if !same(old, new) => self.out.modified.insert(&self.path),
            _ => {}
        }
    }

    fn visit_maps(&mut self, map: &MapType, old: Option<&Value>, new: Option<&Value>) {
        let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
        let mut keys: Vec<&String> = old.into_iter().chain(new).flat_map(Map::keys).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let kind = map.child(key).unwrap_or(self.schema.deduced());
            let always = map.fields.get(key).is_some_and(|field| field.always);
            let stand_in = always.then(|| self.stand_in(kind));
            let (old, new) = (child(old, key, stand_in), child(new, key, stand_in));
            self.path.push(Step::field(key));
            self.visit(kind, old, new);
            self.path.pop();
        }
    }

    /// What Go's encoder writes for an empty field of this type.
    fn stand_in(&self, kind: TypeId) -> &'static Value {
        match self.schema.atom(kind).map {
            Some(_) => &EMPTY,
            None => &Value::Null,
        }
    }

    fn visit_lists(&mut self, list: &ListType, old: Option<&Value>, new: Option<&Value>) {
        let old = self.by_step(list, items(old));
        let new = self.by_step(list, items(new));
        let added = new
            .iter()
            .filter(|(step, _)| !old.iter().any(|(other, _)| other == step))
            .map(|(step, _)| step);
        for step in old.iter().map(|(step, _)| step).chain(added) {
            self.path.push(step.clone());
            self.visit_items(list, group(&old, step), group(&new, step));
            self.path.pop();
        }
    }

    /// Compares the items that share a name; more than one on a side are compared as one atom.
    fn visit_items(&mut self, list: &ListType, old: &[&Value], new: &[&Value]) {
        match (old, new) {
            (old, new) if old.len() <= 1 && new.len() <= 1 => {
                self.visit(list.element, old.first().copied(), new.first().copied());
            }
            (old, new) if old.len() >= 2 && new.len() >= 2 => {
                if old.len() != new.len() || old.iter().zip(new).any(|(old, new)| !same(old, new)) {
                    self.out.modified.insert(&self.path);
                }
            }
            ([_, _, ..], new) => {
                if let Some(new) = new.first() {
                    self.visit(list.element, None, Some(new));
                }
                self.out.removed.insert(&self.path);
            }
            (old, _) => {
                if let Some(old) = old.first() {
                    self.visit(list.element, Some(old), None);
                }
                self.out.added.insert(&self.path);
            }
        }
    }

    fn by_step<'v>(&self, list: &ListType, items: &'v [Value]) -> Vec<(Step, Vec<&'v Value>)> {
        let mut out: Vec<(Step, Vec<&Value>)> = Vec::with_capacity(items.len());
        for item in items {
            let Ok(step) = item_step(self.schema, list, item) else {
                continue;
            };
            match out.iter_mut().find(|(other, _)| *other == step) {
                Some((_, values)) => values.push(item),
                None => out.push((step, vec![item])),
            }
        }
        out
    }
}

fn group<'g, 'v>(groups: &'g [(Step, Vec<&'v Value>)], step: &Step) -> &'g [&'v Value] {
    groups
        .iter()
        .find(|(other, _)| other == step)
        .map_or(&[], |(_, values)| values.as_slice())
}

fn has_fields(value: Option<&Value>) -> bool {
    value.and_then(Value::as_object).is_some_and(|map| !map.is_empty())
}

/// A map's child, or what stands in for it when the map is there and the child is not.
fn child<'v>(map: Option<&'v Map<String, Value>>, key: &str, stand_in: Option<&'v Value>) -> Option<&'v Value> {
    map.and_then(|map| map.get(key).or(stand_in))
}

/// What is left of a value without these paths; what has been emptied is null, as Kubernetes leaves it, so that a parent that
/// somebody else applied is still there.
pub(super) fn remove(schema: &Schema, kind: TypeId, value: &Value, paths: &FieldSet) -> Value {
    let atom = schema.atom(kind);
    match (atom.forms(Some(value)), &atom.map, &atom.list) {
        (Forms { map: true, .. }, Some(map), _) => remove_fields(schema, map, value, paths),
        (
            Forms {
                map: false,
                scalar: false,
                ..
            },
            _,
            Some(list),
        ) => remove_items(schema, list, value, paths),
        _ => value.clone(),
    }
}

fn remove_fields(schema: &Schema, map: &MapType, value: &Value, paths: &FieldSet) -> Value {
    if map.atomic {
        return Value::Null;
    }
    let mut out = Map::new();
    for (key, child) in value.as_object().into_iter().flatten() {
        let step = Step::field(key);
        if paths.has_step(&step) {
            continue;
        }
        let kept = match paths.below(&step) {
            Some(below) => remove(schema, map.child(key).unwrap_or(schema.deduced()), child, below),
            None => child.clone(),
        };
        out.insert(key.clone(), kept);
    }
    if out.is_empty() { Value::Null } else { Value::Object(out) }
}

fn remove_items(schema: &Schema, list: &ListType, value: &Value, paths: &FieldSet) -> Value {
    if list.keys == Keys::Atomic {
        return Value::Null;
    }
    let keep = |item: &Value| match item_step(schema, list, item) {
        Ok(step) if paths.has_step(&step) => None,
        Ok(step) => match paths.below(&step) {
            Some(below) => Some(remove(schema, list.element, item, below)),
            None => Some(item.clone()),
        },
        Err(_) => Some(item.clone()),
    };
    let out: Vec<Value> = items(Some(value)).iter().filter_map(keep).collect();
    if out.is_empty() { Value::Null } else { Value::Array(out) }
}
