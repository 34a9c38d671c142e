//! Which recorded objects the tree still asks for. A kind's scope may have been unknown when an object was recorded and be known now, or the
//! other way round: two identities then mean one live object, and it must never be deleted because of the one while it is asked for by the other.

use std::collections::{BTreeMap, BTreeSet};

use super::inventory::Inventory;
use super::order::is_never_pruned;
use super::plan::{Removal, Scope};
use crate::core::ids::ObjectKey;

/// Namespace of namespaced objects that name none, as for kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// The identity that the cluster gives an object: a namespace where its kind has one, none where it has not.
pub(super) fn located(mut key: ObjectKey, scope: &dyn Fn(&str, &str) -> Scope) -> ObjectKey {
    match scope(&key.group, &key.kind) {
        Scope::Cluster => key.namespace = None,
        Scope::Namespaced => key.namespace = Some(key.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())),
        Scope::Unknown => {}
    }
    key
}

/// What the tree asks for, by the identity that the cluster gives it, with the identity that the inventory has it under.
pub(super) struct Claims<'a> {
    scope: &'a dyn Fn(&str, &str) -> Scope,
    keys: BTreeMap<ObjectKey, ObjectKey>,
}

/// What the inventory holds that the tree does not ask for under the same identity.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Nothing asks for these.
    pub(super) removals: Vec<Removal>,
    /// These may be objects that the tree asks for; only the kind's scope can tell.
    pub(super) undecided: Vec<Removal>,
    /// These are other names of objects that the tree asks for.
    pub(super) superseded: Vec<ObjectKey>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(scope: &'a dyn Fn(&str, &str) -> Scope) -> Self {
        let keys = BTreeMap::new();
        Claims { scope, keys }
    }

    pub(super) fn add(&mut self, key: &ObjectKey) {
        let located = located(key.clone(), self.scope);
        self.keys.entry(located).or_insert_with(|| key.clone());
    }

    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.keys.contains_key(key)
    }

    /// Tells apart what is recorded and not asked for under its identity, without the entries of these files.
    pub(super) fn leftovers(&self, inventory: &Inventory, broken_paths: &BTreeSet<String>) -> Leftovers {
        let names: BTreeSet<_> = self.keys.keys().map(|key| (&key.group, &key.kind, &key.name)).collect();
        let mut leftovers = Leftovers::default();
        for (key, entry) in &inventory.entries {
            let is_known = (self.scope)(&key.group, &key.kind) != Scope::Unknown;
            match self.claimant(key) {
                Some(claimant) if claimant == key => {}
                Some(_) => leftovers.superseded.push(key.clone()),
                None if broken_paths.contains(&entry.path) => {}
                None => {
                    let may_be_asked_for = !is_known && names.contains(&(&key.group, &key.kind, &key.name));
                    let list = if may_be_asked_for {
                        &mut leftovers.undecided
                    } else {
                        &mut leftovers.removals
                    };
                    list.push(Removal {
                        key: key.clone(),
                        api_version: entry.api_version.clone(),
                        sub: entry.sub.clone(),
                        keep: is_never_pruned(&key.group, &key.kind),
                    });
                }
            }
        }
        leftovers
    }

    /// Under which identity the tree asks for the object that this one certainly is.
    fn claimant(&self, key: &ObjectKey) -> Option<&ObjectKey> {
        let located = located(key.clone(), self.scope);
        // Without a namespace it is the object in the default one or the cluster-scoped one: in either case the same.
        let twin = match located.namespace.as_deref() {
            None => Some(Some(DEFAULT_NAMESPACE.to_owned())),
            Some(DEFAULT_NAMESPACE) => Some(None),
            Some(_) => None,
        };
        let twin = twin.filter(|_| (self.scope)(&key.group, &key.kind) == Scope::Unknown);
        self.keys.get(&located).or_else(|| {
            self.keys.get(&ObjectKey {
                namespace: twin?,
                ..located
            })
        })
    }
}
