//! The versioned object store behind a front: objects in order, one revision counter, and a bounded history per collection for
//! watches. Owns no HTTP and no rules about objects. Writers never wait for watchers: whoever falls behind the history is told so.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::resource::ResourceId;
use crate::core::object::Object;

/// Objects in one collection's history; the oldest go first. A count alone would bound nothing: objects reach megabytes.
const HISTORY_BYTES: usize = 1 << 20;

/// A position in a collection: namespace (empty for cluster-scoped objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl ObjectName {
    /// A name in a namespace.
    pub fn new(namespace: Option<&str>, name: &str) -> ObjectName {
        ObjectName {
            namespace: namespace.unwrap_or_default().into(),
            name: name.into(),
        }
    }
}

/// An object as it is kept: compact JSON text, because as a tree of small maps it takes ten times the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored(Arc<str>);

impl Stored {
    pub(crate) fn of(object: &Value) -> Stored {
        Stored(object.to_string().into())
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The object as a tree.
    pub fn value(&self) -> Value {
        // What was written by `of` is JSON; the other arm is never taken.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    fn shared(&self) -> Arc<Value> {
        Arc::new(self.value())
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is different.
    Modified,
    /// It is gone; the object is its last state under the revision of the removal.
    Deleted,
}

/// One entry of a collection's history.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision that the change made.
    pub revision: u64,
    /// Whom it happened to.
    pub name: ObjectName,
    /// What happened.
    pub kind: ChangeKind,
    /// The object after the change.
    pub object: Stored,
    /// The object before it, so that a watch with a selector can tell who left the selection.
    pub previous: Option<Stored>,
}

impl Change {
    fn bytes(&self) -> usize {
        self.object.text().len()
    }
}

/// A piece of a collection's history.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The changes, oldest first.
    pub items: Vec<Change>,
    /// Everything up to this revision is included.
    pub up_to: u64,
}

/// The position is older than the history that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes after revision {asked} are no longer kept, the oldest known is {oldest}")]
pub struct Expired {
    /// The position asked for.
    pub asked: u64,
    /// The oldest position from which the history is complete.
    pub oldest: u64,
}

/// A consistent view of a collection.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Revision of the view.
    pub revision: u64,
    /// Objects ordered by namespace and name.
    pub items: Vec<Stored>,
}

/// The store; share it in an `Arc`.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    revisions: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    revision: u64,
    /// Nothing is known about changes up to here.
    origin: u64,
    history: usize,
    collections: BTreeMap<ResourceId, Collection>,
}

#[derive(Debug)]
struct Collection {
    objects: BTreeMap<ObjectName, Stored>,
    changes: VecDeque<Change>,
    /// Of the objects in `changes`.
    history_bytes: usize,
    /// The history is complete for positions from here on.
    complete_from: u64,
    changed: watch::Sender<u64>,
}

impl Collection {
    fn new(origin: u64) -> Collection {
        Collection {
            objects: BTreeMap::new(),
            changes: VecDeque::new(),
            history_bytes: 0,
            complete_from: origin,
            changed: watch::Sender::new(origin),
        }
    }

    fn record(&mut self, change: Change, limit: usize) {
        let revision = change.revision;
        self.history_bytes += change.bytes();
        self.changes.push_back(change);
        while self.changes.len() > limit || (self.history_bytes > HISTORY_BYTES && self.changes.len() > 1) {
            let Some(dropped) = self.changes.pop_front() else { break };
            self.history_bytes -= dropped.bytes();
            self.complete_from = dropped.revision;
        }
        self.changed.send_replace(revision);
    }

    fn in_namespace<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Stored> {
        self.in_namespace_after(namespace, None)
    }

    fn in_namespace_after<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<&ObjectName>,
    ) -> impl Iterator<Item = &'a Stored> {
        self.range_after(namespace, after).map(|(_, object)| object)
    }

    fn named_after<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<&ObjectName>,
    ) -> impl Iterator<Item = (ObjectName, Stored)> {
        self.range_after(namespace, after)
            .map(|(name, object)| (name.clone(), object.clone()))
    }

    fn range_after<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<&ObjectName>,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a Stored)> {
        let start = match (after, namespace) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => Bound::Included(ObjectName::new(Some(namespace), "")),
            (None, None) => Bound::Unbounded,
        };
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| namespace.is_none_or(|namespace| *key.namespace == *namespace))
    }
}

impl Store {
    /// An empty store whose revisions begin above `origin` and that keeps up to `history` changes and [`HISTORY_BYTES`] per collection.
    ///
    /// A server whose objects do not survive a restart passes a number that grows with every start (microseconds since 1970), so
    /// that clients with a revision from before the restart are told to list again instead of missing changes.
    pub fn new(origin: u64, history: usize) -> Store {
        Store {
            state: Mutex::new(State {
                revision: origin,
                origin,
                history: history.max(1),
                collections: BTreeMap::new(),
            }),
            revisions: watch::Sender::new(origin),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Follows the latest revision, for whoever persists or projects the store.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    /// One object.
    pub fn get(&self, resource: &ResourceId, namespace: Option<&str>, name: &str) -> Option<Arc<Value>> {
        let state = self.lock();
        let stored = state
            .collections
            .get(resource)?
            .objects
            .get(&ObjectName::new(namespace, name))
            .cloned();
        drop(state);
        Some(stored?.shared())
    }

    /// The objects of a collection, of one namespace or of all.
    pub fn list(&self, resource: &ResourceId, namespace: Option<&str>) -> Listing {
        self.list_after(resource, namespace, None)
    }

    /// The objects after a position.
    pub fn list_after(&self, resource: &ResourceId, namespace: Option<&str>, after: Option<&ObjectName>) -> Listing {
        let state = self.lock();
        let items = state.collections.get(resource);
        Listing {
            revision: state.revision,
            items: items.map_or_else(Vec::new, |items| {
                items.in_namespace_after(namespace, after).cloned().collect()
            }),
        }
    }

    /// The objects after a position as they were at a revision, worked out backwards from the history.
    pub fn list_at(
        &self,
        resource: &ResourceId,
        namespace: Option<&str>,
        after: Option<&ObjectName>,
        revision: u64,
    ) -> Result<Vec<Stored>, Expired> {
        let mut state = self.lock();
        let collection = state.collection(resource);
        if revision < collection.complete_from {
            return Err(Expired {
                asked: revision,
                oldest: collection.complete_from,
            });
        }
        let start = collection.changes.partition_point(|change| change.revision <= revision);
        if start == collection.changes.len() {
            return Ok(collection.in_namespace_after(namespace, after).cloned().collect());
        }
        let mut items: BTreeMap<ObjectName, Stored> = collection.named_after(namespace, after).collect();
        let is_listed = |name: &ObjectName| {
            namespace.is_none_or(|namespace| *name.namespace == *namespace) && after.is_none_or(|after| name > after)
        };
        for change in collection
            .changes
            .range(start..)
            .rev()
            .filter(|change| is_listed(&change.name))
        {
            match &change.previous {
                Some(previous) => drop(items.insert(change.name.clone(), previous.clone())),
                None => drop(items.remove(&change.name)),
            }
        }
        Ok(items.into_values().collect())
    }

    /// Every object of every collection with the revision, for a snapshot.
    pub fn everything(&self) -> (u64, Vec<(ResourceId, Stored)>) {
        let state = self.lock();
        let collections = state.collections.iter();
        let objects =
            collections.flat_map(|(id, collection)| collection.objects.values().map(move |object| (id.clone(), object.clone())));
        (state.revision, objects.collect())
    }

    /// Follows the collection's latest revision; wakes watches.
    pub fn follow(&self, resource: &ResourceId) -> watch::Receiver<u64> {
        self.lock().collection(resource).changed.subscribe()
    }

    /// At most `limit` changes after a revision, oldest first.
    pub fn changes_after(&self, resource: &ResourceId, revision: u64, limit: usize) -> Result<Changes, Expired> {
        let mut state = self.lock();
        let latest = state.revision;
        let collection = state.collection(resource);
        if revision < collection.complete_from {
            return Err(Expired {
                asked: revision,
                oldest: collection.complete_from,
            });
        }
        let start = collection.changes.partition_point(|change| change.revision <= revision);
        let items: Vec<Change> = collection.changes.iter().skip(start).take(limit).cloned().collect();
        let truncated = start + items.len() < collection.changes.len();
        let up_to = match items.last() {
            Some(last) if truncated => last.revision,
            _ => latest.max(revision),
        };
        Ok(Changes { items, up_to })
    }

    /// Creates or replaces an object that somebody else owns; the same content again changes nothing. The store sets
    /// `metadata.resourceVersion`; what the object says there is ignored. True when something changed.
    pub fn upsert(&self, resource: &ResourceId, object: Object) -> bool {
        let name = ObjectName::new(object.namespace(), object.name());
        let mut object = object.into_value();
        self.write(|transaction| {
            let current = transaction.state.collection(resource).objects.get(&name).cloned();
            let unchanged = current.is_some_and(|current| same_but_revision(&current, &mut object));
            if !unchanged {
                transaction.put(resource, object);
            }
            !unchanged
        })
    }

    /// Removes an object; true when there was one.
    pub fn remove(&self, resource: &ResourceId, namespace: Option<&str>, name: &str) -> bool {
        self.write(|transaction| transaction.remove(resource, namespace, name).is_some())
    }

    /// Runs reads and writes as one step that nobody sees half-done. There is no roll-back: decide first, then write.
    pub fn write<T>(&self, run: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
        let mut state = self.lock();
        let before = state.revision;
        let answer = run(&mut Transaction { state: &mut state });
        let after = state.revision;
        drop(state);
        if after != before {
            self.revisions.send_if_modified(|latest| {
                let newer = after > *latest;
                *latest = after.max(*latest);
                newer
            });
        }
        answer
    }
}

impl State {
    fn collection(&mut self, resource: &ResourceId) -> &mut Collection {
        let origin = self.origin;
        self.collections
            .entry(resource.clone())
            .or_insert_with(|| Collection::new(origin))
    }
}

/// Exclusive access to the store.
#[derive(Debug)]
pub struct Transaction<'a> {
    state: &'a mut State,
}

impl Transaction<'_> {
    /// One object.
    pub fn get(&self, resource: &ResourceId, namespace: Option<&str>, name: &str) -> Option<Arc<Value>> {
        let collection = self.state.collections.get(resource)?;
        collection.objects.get(&ObjectName::new(namespace, name)).map(Stored::shared)
    }

    /// The objects of a collection, of one namespace or of all.
    pub fn list(&self, resource: &ResourceId, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let collection = self.state.collections.get(resource);
        collection.map_or_else(Vec::new, |collection| {
            collection.in_namespace(namespace).map(Stored::shared).collect()
        })
    }

    /// The collections that hold an object in the namespace.
    pub fn collections_in(&self, namespace: &str) -> Vec<ResourceId> {
        let collections = self.state.collections.iter();
        collections
            .filter(|(_, collection)| collection.in_namespace(Some(namespace)).next().is_some())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Creates or replaces the object under a new revision, which is written into its metadata.
    pub fn put(&mut self, resource: &ResourceId, mut object: Value) -> Arc<Value> {
        let revision = self.next_revision(&mut object);
        let name = name_of(&object);
        let stored = Stored::of(&object);
        let history = self.state.history;
        let collection = self.state.collection(resource);
        let previous = collection.objects.insert(name.clone(), stored.clone());
        let change = Change {
            revision,
            name,
            kind: if previous.is_some() {
                ChangeKind::Modified
            } else {
                ChangeKind::Added
            },
            object: stored,
            previous,
        };
        collection.record(change, history);
        Arc::new(object)
    }

    /// Takes over an object of an earlier run with the revision that it has; watches do not see it.
    pub fn load(&mut self, resource: &ResourceId, object: Value) {
        let name = name_of(&object);
        self.state.collection(resource).objects.insert(name, Stored::of(&object));
    }

    /// Removes the object; its last state is returned under the revision of the removal.
    pub fn remove(&mut self, resource: &ResourceId, namespace: Option<&str>, name: &str) -> Option<Arc<Value>> {
        let name = ObjectName::new(namespace, name);
        let previous = self.state.collections.get_mut(resource)?.objects.remove(&name)?;
        let mut last = previous.value();
        let revision = self.next_revision(&mut last);
        let history = self.state.history;
        let change = Change {
            revision,
            name,
            kind: ChangeKind::Deleted,
            object: Stored::of(&last),
            previous: Some(previous),
        };
        self.state.collection(resource).record(change, history);
        Some(Arc::new(last))
    }

    fn next_revision(&mut self, object: &mut Value) -> u64 {
        self.state.revision += 1;
        set_revision(object, &self.state.revision.to_string());
        self.state.revision
    }
}

fn name_of(object: &Value) -> ObjectName {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    ObjectName::new(text("/metadata/namespace"), text("/metadata/name").unwrap_or_default())
}

fn set_revision(object: &mut Value, revision: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_owned()));
    }
}

/// Whether the new object has the same text once it is given the revision of the current one.
fn same_but_revision(current: &Stored, new: &mut Value) -> bool {
    // Kept objects are written with sorted keys, so the metadata's revision is found without reading the rest.
    let Some(revision) = revision_in(current.text()) else {
        return false;
    };
    set_revision(new, revision);
    Stored::of(new) == *current
}

/// The revision in an object's text. A text elsewhere in the object that looks the same only makes the comparison fail.
fn revision_in(text: &str) -> Option<&str> {
    let metadata = &text[text.find(r#""metadata":{"#)?..];
    let after = metadata.split_once(r#""resourceVersion":""#)?.1;
    after.split_once('"').map(|(revision, _)| revision)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn pods() -> ResourceId {
        ResourceId {
            group: "".into(),
            plural: "pods".into(),
        }
    }

    fn pod(name: &str, value: &str) -> Object {
        Object::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"}, "x": value,
        }))
        .unwrap()
    }

    #[test]
    fn the_same_again_is_no_change() {
        let store = Store::new(100, 10);
        assert!(store.upsert(&pods(), pod("web", "1")));
        assert!(!store.upsert(&pods(), pod("web", "1")));
        assert_eq!(store.revision(), 101);
        assert!(store.upsert(&pods(), pod("web", "2")));
        assert!(store.remove(&pods(), Some("a"), "web"));
        assert!(!store.remove(&pods(), Some("a"), "web"));
        let kinds: Vec<_> = store
            .changes_after(&pods(), 100, 9)
            .unwrap()
            .items
            .iter()
            .map(|c| c.kind)
            .collect();
        assert_eq!(kinds, [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted]);
    }

    #[test]
    fn who_falls_behind_is_told() {
        let store = Store::new(0, 3);
        for n in 0..10 {
            store.upsert(&pods(), pod("web", &n.to_string()));
        }
        assert_eq!(
            store.changes_after(&pods(), 6, 9).unwrap_err(),
            Expired { asked: 6, oldest: 7 }
        );
        assert_eq!(store.changes_after(&pods(), 7, 9).unwrap().items.len(), 3);
        assert!(store.changes_after(&pods(), 10, 9).unwrap().items.is_empty());
    }

    #[test]
    fn large_objects_make_the_history_shorter() {
        let store = Store::new(0, 1_000);
        let large = "x".repeat(HISTORY_BYTES / 4);
        for n in 0..10 {
            store.upsert(&pods(), pod("web", &format!("{n}{large}")));
        }
        assert_eq!(store.changes_after(&pods(), 7, 100).unwrap().items.len(), 3);
        assert_eq!(store.changes_after(&pods(), 6, 100).unwrap_err().oldest, 7);
        store.upsert(&pods(), pod("web", &large.repeat(8)));
        assert_eq!(
            store.changes_after(&pods(), 10, 100).unwrap().items.len(),
            1,
            "the newest stays, however large"
        );
    }

    #[test]
    fn a_list_of_an_earlier_revision_is_what_it_was_then() {
        let store = Store::new(0, 10);
        for name in ["a", "b", "c"] {
            store.upsert(&pods(), pod(name, "1"));
        }
        let then = store.revision();
        store.upsert(&pods(), pod("b", "2"));
        store.remove(&pods(), Some("a"), "c");
        store.upsert(&pods(), pod("b", "3"));
        store.upsert(&pods(), pod("d", "1"));
        store.remove(&pods(), Some("a"), "a");
        store.upsert(&pods(), pod("a", "9"));
        let seen = |after: Option<&ObjectName>, revision| -> Vec<(String, String)> {
            let items = store.list_at(&pods(), Some("a"), after, revision).unwrap();
            let text = |object: &Value, pointer: &str| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
            let pair = |item: Stored| (text(&item.value(), "/metadata/name"), text(&item.value(), "/x"));
            items.into_iter().map(pair).collect()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        assert_eq!(seen(None, then), pairs(&[("a", "1"), ("b", "1"), ("c", "1")]));
        let after = ObjectName::new(Some("a"), "a");
        assert_eq!(seen(Some(&after), then), pairs(&[("b", "1"), ("c", "1")]));
        assert_eq!(seen(None, store.revision()), pairs(&[("a", "9"), ("b", "3"), ("d", "1")]));
        for n in 0..20 {
            store.upsert(&pods(), pod("b", &format!("x{n}")));
        }
        assert!(store.list_at(&pods(), Some("a"), None, then).is_err());
    }

    #[test]
    fn lists_are_ordered_and_bounded_by_namespace() {
        let store = Store::new(0, 3);
        for (namespace, name) in [("b", "x"), ("a", "z"), ("a", "y"), ("ab", "w")] {
            let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}});
            store.upsert(&pods(), Object::from_value(object).unwrap());
        }
        let names = |namespace| -> Vec<String> {
            let items = store.list(&pods(), namespace).items;
            items
                .iter()
                .map(|item| item.value()["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(None), ["y", "z", "w", "x"]);
        assert_eq!(names(Some("a")), ["y", "z"]);
        assert!(names(Some("c")).is_empty());
    }
}
