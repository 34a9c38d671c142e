//! The planner: what to record, what to apply in which wave, what to delete last. Every choice is made here; the executor has none.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::claims::{Claims, Leftovers, located};
use super::inventory::{Entry, Inventory, Position};
use super::marks::mark;
use super::order::{FOUNDATIONS, is_definition, rank_of};
use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::object::Object;

/// The offer that is to be carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Epoch of the hub that made the offer.
    pub epoch: u64,
    /// Generation of the state branch's commit.
    pub generation: u64,
    /// The cluster's tree in it.
    pub tree: ObjectId,
}

/// Everything that a tree asks for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Wanted {
    /// Every Description in the tree, those without objects included.
    pub subs: BTreeSet<String>,
    /// Descriptions that cannot be carried out at all, with the reason: nothing of them is written or deleted.
    pub refused: BTreeMap<String, String>,
    /// Every object.
    pub objects: Vec<Desired>,
    /// Feeds that are charts, which this version does not render.
    pub unrendered: Vec<Unrendered>,
}

/// A chart: nothing of it is written, and it is never called applied.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Unrendered {
    /// Its Description.
    pub sub: String,
    /// The HelmChart.
    pub key: ObjectKey,
    /// The HelmChart's `apiVersion`.
    pub api_version: String,
}

impl Wanted {
    /// `apiVersion` and kind of everything that may have to be written.
    pub fn kinds(&self) -> BTreeSet<(&str, &str)> {
        let objects = self.objects.iter().filter_map(|desired| match &desired.content {
            Content::Object(object) => Some(object),
            _ => None,
        });
        objects.map(|object| (object.api_version(), object.kind())).collect()
    }
}

/// One file of the tree.
#[derive(Clone, PartialEq, Debug)]
pub struct Desired {
    /// Its Description.
    pub sub: String,
    /// Its path relative to the Description's directory.
    pub path: String,
    /// Its content's id.
    pub blob: ObjectId,
    /// Its content.
    pub content: Content,
    /// Place among its Description's feeds; starts earlier within a wave.
    pub order: u32,
}

/// The content of a desired file.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// Not fetched, because the inventory has it as applied.
    NotFetched,
    /// The object.
    Object(Object),
    /// Bytes that are no object, and why.
    Broken(String),
}

/// Where objects of a kind live, as far as the cluster has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// Outside namespaces.
    Cluster,
    /// The cluster does not know the kind yet.
    Unknown,
}

/// What to do, in order.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// The offer.
    pub target: Target,
    /// Old ∪ new: to be saved before the first step.
    pub record: Inventory,
    /// The steps; each begins when the one before has ended.
    pub steps: Vec<Step>,
    /// What has failed before anything was sent.
    pub failures: Vec<Failure>,
    /// Charts, which hold nothing else back.
    pub unrendered: Vec<Unrendered>,
    /// Every Description of the tree.
    pub subs: BTreeSet<String>,
    /// Left alone until the cluster knows their kind: they may be objects that the tree asks for.
    pub undecided: Vec<Removal>,
    /// Identities under which objects are also recorded that have another one now: forgotten at the end.
    pub superseded: Vec<ObjectKey>,
}

/// A failure that is known without asking the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The Description that it holds back.
    pub sub: String,
    /// The object, where it is known which.
    pub object: Option<(ObjectKey, String)>,
    /// Why.
    pub message: String,
}

/// One step. Everything in it runs at once.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Write these objects.
    Apply(Vec<Apply>),
    /// Wait until these CustomResourceDefinitions are established.
    Establish(Vec<ObjectKey>),
    /// Delete these objects, or look after those that are kept.
    Prune(Vec<Removal>),
}

/// One object to write.
#[derive(Clone, PartialEq, Debug)]
pub struct Apply {
    /// Identity in the inventory.
    pub key: ObjectKey,
    /// Its Description.
    pub sub: String,
    /// The blob that it comes from.
    pub blob: ObjectId,
    /// The object with its ownership marks, as it is sent.
    pub body: Value,
}

/// One object that nothing asks for any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    /// Identity in the inventory.
    pub key: ObjectKey,
    /// `apiVersion` to delete it with.
    pub api_version: String,
    /// The Description that it belonged to; while that one fails, the removal waits.
    pub sub: String,
    /// Never delete it: forget it once it is gone or belongs to somebody else.
    pub keep: bool,
}

/// Compares what is wanted with what was written. `scope` says where kinds live; it is asked with group and kind.
pub fn plan(target: Target, wanted: Wanted, inventory: &Inventory, scope: &dyn Fn(&str, &str) -> Scope) -> Plan {
    let Wanted {
        subs,
        refused,
        objects,
        unrendered,
    } = wanted;
    let sorted = sort_out(objects, &refused, inventory, scope);
    let mut failures: Vec<Failure> = refused.iter().map(|(sub, why)| Failure::of_sub(sub, why)).collect();
    failures.extend(sorted.failures);
    let leftovers = sorted.claims.leftovers(inventory, &sorted.broken_paths);
    let steps = build_steps(sorted.applies, &leftovers.removals);
    let mut record = old_and_new(inventory, &sorted.pending, &leftovers);
    record.empty = subs.clone();
    record.entries.values().for_each(|entry| {
        record.empty.remove(&entry.sub);
    });
    let Leftovers {
        undecided, superseded, ..
    } = leftovers;
    let nothing_to_do = steps.is_empty() && failures.is_empty() && unrendered.is_empty() && undecided.is_empty();
    record.position = Position {
        epoch: target.epoch,
        generation: target.generation,
        applied: nothing_to_do.then_some(target.tree),
    };
    Plan {
        target,
        record,
        steps,
        failures,
        unrendered,
        subs,
        undecided,
        superseded,
    }
}

/// Desired files, told apart.
struct SortedOut<'a> {
    /// What the tree asks for.
    claims: Claims<'a>,
    /// What has to be written, with its place in its Description.
    applies: Vec<(u32, Apply)>,
    /// Inventory entries of what has to be written.
    pending: Vec<(ObjectKey, Entry)>,
    failures: Vec<Failure>,
    /// Files whose object is not known: their old entries must not be pruned, whichever Description has them.
    broken_paths: BTreeSet<String>,
}

fn sort_out<'a>(
    mut objects: Vec<Desired>,
    refused: &BTreeMap<String, String>,
    inventory: &Inventory,
    scope: &'a dyn Fn(&str, &str) -> Scope,
) -> SortedOut<'a> {
    let by_path = inventory.by_path();
    let mut sorted = SortedOut {
        claims: Claims::new(scope),
        applies: Vec::new(),
        pending: Vec::new(),
        failures: Vec::new(),
        broken_paths: BTreeSet::new(),
    };
    objects.sort_by(|a, b| (&a.sub, &a.path).cmp(&(&b.sub, &b.path)));
    let mut candidates: BTreeMap<ObjectKey, Vec<(Desired, Object)>> = BTreeMap::new();
    for mut desired in objects {
        let known = by_path.get(&(desired.sub.as_str(), desired.path.as_str()));
        if let Some((key, _)) = known.filter(|(_, entry)| entry.has(desired.blob)) {
            sorted.claims.add(key);
            continue;
        }
        if refused.contains_key(&desired.sub) {
            known.iter().for_each(|(key, _)| sorted.claims.add(key));
            sorted.broken_paths.insert(desired.path);
            continue;
        }
        match std::mem::replace(&mut desired.content, Content::NotFetched) {
            Content::Object(object) => {
                let key = located(object.key(), scope);
                candidates.entry(key).or_default().push((desired, object));
            }
            Content::NotFetched => sorted.broken(desired, "its content was not delivered; it is asked for again".to_owned()),
            Content::Broken(why) => sorted.broken(desired, why),
        }
    }
    let owners = owners(inventory, scope);
    for (key, rivals) in candidates {
        let owner = owners.get(&key).copied();
        sorted.choose(key, rivals, owner);
    }
    sorted
}

/// The Description that each recorded object belongs to, by the identity that the cluster gives the object.
fn owners<'a>(inventory: &'a Inventory, scope: &dyn Fn(&str, &str) -> Scope) -> BTreeMap<ObjectKey, &'a str> {
    let entries = inventory.entries.iter();
    entries
        .map(|(key, entry)| (located(key.clone(), scope), entry.sub.as_str()))
        .collect()
}

impl SortedOut<'_> {
    fn broken(&mut self, desired: Desired, why: String) {
        let message = format!("{}/{}: {why}", desired.sub, desired.path);
        self.failures.push(Failure {
            sub: desired.sub,
            object: None,
            message,
        });
        self.broken_paths.insert(desired.path);
    }

    /// One Description may own an object: the one that has it keeps it, else the first by name.
    fn choose(&mut self, key: ObjectKey, mut rivals: Vec<(Desired, Object)>, owner: Option<&str>) {
        if self.claims.contains(&key) {
            rivals
                .into_iter()
                .for_each(|(rival, object)| self.duplicate(&key, rival, &object));
            return;
        }
        let at = rivals.iter().position(|(d, _)| Some(d.sub.as_str()) == owner).unwrap_or(0);
        let (desired, object) = rivals.remove(at);
        rivals
            .into_iter()
            .for_each(|(rival, object)| self.duplicate(&key, rival, &object));
        self.claims.add(&key);
        self.pending.push((
            key.clone(),
            Entry {
                sub: desired.sub.clone(),
                path: desired.path,
                api_version: object.api_version().to_owned(),
                applied: None,
                kept: false,
            },
        ));
        let mut body = object.into_value();
        settle(&mut body, key.namespace.as_deref());
        mark(&mut body, &desired.sub);
        let (sub, blob) = (desired.sub, desired.blob);
        self.applies.push((desired.order, Apply { key, sub, blob, body }));
    }

    fn duplicate(&mut self, key: &ObjectKey, rival: Desired, object: &Object) {
        self.failures.push(Failure {
            sub: rival.sub,
            object: Some((key.clone(), object.api_version().to_owned())),
            message: format!(
                "{key} is already part of another Description of this cluster; feed it through one Subscription only"
            ),
        });
    }
}

impl Failure {
    fn of_sub(sub: &str, why: &str) -> Self {
        Failure {
            sub: sub.to_owned(),
            object: None,
            message: why.to_owned(),
        }
    }
}

/// The body says the namespace that the identity says: the API server refuses a cluster-scoped object that names one.
fn settle(body: &mut Value, namespace: Option<&str>) {
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    match namespace {
        Some(namespace) => metadata.insert("namespace".to_owned(), Value::from(namespace)),
        None => metadata.remove("namespace"),
    };
}

/// Old ∪ new, where whatever may be written or deleted from now on no longer counts as applied.
fn old_and_new(inventory: &Inventory, pending: &[(ObjectKey, Entry)], leftovers: &Leftovers) -> Inventory {
    let mut record = inventory.clone();
    for removal in &leftovers.removals {
        if let Some(entry) = record.entries.get_mut(&removal.key) {
            entry.applied = None;
            entry.kept = removal.keep;
        }
    }
    let undecided = leftovers.undecided.iter().map(|removal| &removal.key);
    for key in undecided.chain(&leftovers.superseded) {
        if let Some(entry) = record.entries.get_mut(key) {
            entry.applied = None;
        }
    }
    record.entries.extend(pending.iter().cloned());
    record
}

fn build_steps(applies: Vec<(u32, Apply)>, removals: &[Removal]) -> Vec<Step> {
    let mut waves: BTreeMap<u8, Vec<(u32, Apply)>> = BTreeMap::new();
    for (order, apply) in applies {
        waves.entry(rank(&apply.key)).or_default().push((order, apply));
    }
    let mut steps = Vec::new();
    for (rank, mut wave) in waves {
        wave.sort_by(|(a, x), (b, y)| (a, &x.key).cmp(&(b, &y.key)));
        let wave: Vec<Apply> = wave.into_iter().map(|(_, apply)| apply).collect();
        let is_crd = |apply: &&Apply| is_definition(&apply.key.group, &apply.key.kind);
        let definitions: Vec<ObjectKey> = wave.iter().filter(is_crd).map(|apply| apply.key.clone()).collect();
        steps.push(Step::Apply(wave));
        if rank == FOUNDATIONS && !definitions.is_empty() {
            steps.push(Step::Establish(definitions));
        }
    }
    let mut last: BTreeMap<u8, Vec<Removal>> = BTreeMap::new();
    for removal in removals {
        last.entry(rank(&removal.key)).or_default().push(removal.clone());
    }
    steps.extend(last.into_values().rev().map(Step::Prune));
    steps
}

fn rank(key: &ObjectKey) -> u8 {
    rank_of(&key.group, &key.kind)
}
