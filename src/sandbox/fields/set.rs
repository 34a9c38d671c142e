//! A set of paths, the content of `fieldsV1`. Owns the set operations; knows nothing of objects, and of types only which
//! fields are declared.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::Step;
use super::schema::{Schema, TypeId};

/// A set of paths as a tree. Invariant: every node is a member or has something below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    nodes: BTreeMap<Step, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// A set of paths of field names.
    pub(super) fn of_fields(paths: &[&[&str]]) -> FieldSet {
        let mut set = FieldSet::default();
        for path in paths {
            let path: Vec<Step> = path.iter().map(|name| Step::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Adds a path; the empty path is nothing.
    pub(super) fn insert(&mut self, path: &[Step]) {
        let Some((step, rest)) = path.split_first() else { return };
        let node = self.nodes.entry(step.clone()).or_default();
        match rest {
            [] => node.member = true,
            rest => node.below.insert(rest),
        }
    }

    /// Whether no path is in the set.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether the path of this one step is in the set.
    pub(super) fn has_step(&self, step: &Step) -> bool {
        self.nodes.get(step).is_some_and(|node| node.member)
    }

    /// The paths below a step, if there are any.
    pub(super) fn below(&self, step: &Step) -> Option<&FieldSet> {
        self.nodes.get(step).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Paths in either set.
    pub(super) fn union(&self, other: &FieldSet) -> FieldSet {
        let mut out = self.clone();
        for (step, node) in &other.nodes {
            let mine = out.nodes.entry(step.clone()).or_default();
            mine.member |= node.member;
            mine.below = mine.below.union(&node.below);
        }
        out
    }

    /// Paths in both sets.
    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.filter(|step, node| match other.nodes.get(step) {
            Some(theirs) => Node {
                member: node.member && theirs.member,
                below: node.below.intersection(&theirs.below),
            },
            None => Node::default(),
        })
    }

    /// Paths that are not in `other`; paths below a member of `other` stay.
    pub(super) fn difference(&self, other: &FieldSet) -> FieldSet {
        self.filter(|step, node| match other.nodes.get(step) {
            Some(theirs) => Node {
                member: node.member && !theirs.member,
                below: node.below.difference(&theirs.below),
            },
            None => node.clone(),
        })
    }

    /// Paths that are neither in `other` nor below a member of it.
    pub(super) fn without_trees(&self, other: &FieldSet) -> FieldSet {
        self.filter(|step, node| match other.nodes.get(step) {
            Some(theirs) if theirs.member => Node::default(),
            Some(theirs) => Node {
                member: node.member,
                below: node.below.without_trees(&theirs.below),
            },
            None => node.clone(),
        })
    }

    /// Makes declared struct fields that have members below them members too, so that removing all of a struct's fields
    /// removes the struct.
    pub(super) fn with_declared_parents(&self, schema: &Schema, kind: Option<TypeId>) -> FieldSet {
        let atom = kind.map(|kind| schema.atom(kind));
        let map = atom.and_then(|atom| atom.map.as_ref());
        let list = atom.and_then(|atom| atom.list.as_ref());
        self.filter(|step, node| {
            let (declared, child) = match (step, map, list) {
                (Step::Field(name), Some(map), _) => (map.fields.contains_key(name), map.child(name)),
                (Step::Key(_), _, Some(list)) => (false, Some(list.element)),
                _ => (false, None),
            };
            let member = node.member || (declared && !node.below.is_empty());
            Node {
                member,
                below: node.below.with_declared_parents(schema, child),
            }
        })
    }

    fn filter(&self, keep: impl Fn(&Step, &Node) -> Node) -> FieldSet {
        let kept = self.nodes.iter().map(|(step, node)| (step.clone(), keep(step, node)));
        FieldSet {
            nodes: kept.filter(|(_, node)| !node.is_empty()).collect(),
        }
    }

    /// All paths, each level's members before what is below them.
    pub(super) fn paths(&self) -> Vec<Vec<Step>> {
        let members = self
            .nodes
            .iter()
            .filter(|(_, node)| node.member)
            .map(|(step, _)| vec![step.clone()]);
        let mut out: Vec<Vec<Step>> = members.collect();
        for (step, node) in &self.nodes {
            for mut path in node.below.paths() {
                path.insert(0, step.clone());
                out.push(path);
            }
        }
        out
    }

    /// The `fieldsV1` form.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(
            self.nodes
                .iter()
                .map(|(step, node)| (step.encode(), node_json(node)))
                .collect(),
        )
    }

    /// Reads the `fieldsV1` form.
    pub(super) fn from_json(json: &Value) -> Result<FieldSet, String> {
        let Value::Object(map) = json else {
            return Err(format!("fieldsV1 is an object, this is {json}"));
        };
        let mut set = FieldSet::default();
        for (key, value) in map.iter().filter(|(key, _)| *key != ".") {
            let Some(step) = Step::parse(key)? else { continue };
            let below = FieldSet::from_json(value)?;
            let member = below.is_empty() || value.get(".").is_some();
            set.nodes.insert(step, Node { member, below });
        }
        Ok(set)
    }
}

fn node_json(node: &Node) -> Value {
    let mut json = node.below.to_json();
    if let (true, false, Value::Object(map)) = (node.member, node.below.is_empty(), &mut json) {
        map.insert(".".to_owned(), Value::Object(Map::new()));
    }
    json
}
