//! Shows what git defines: overrides, HelmCharts, Manifests, FeedInventories, and the namespaces in which people find things.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::revision::Revision;
use super::definitions::{self, RESERVED_NAMESPACE, shows_the_same};
use super::objects;
use super::{Projection, keys, put, resource};
use crate::core::api::APPS_GROUP;
use crate::core::ids::ObjectKey;
use crate::core::index::{Definition, Override, OverrideKind, Reading, is_chart};

impl Projection {
    /// Shows what the source says, where that is something else than before.
    pub(super) fn show_source(&mut self, before: &Revision, now: &Revision) {
        self.show_overrides(before, now);
        self.show_feeds(before, now);
        self.show_inventories(before, now);
        self.show_stated_clusters(before, now);
        self.show_source_namespaces(now);
    }

    fn show_overrides(&self, before: &Revision, now: &Revision) {
        let (old, new) = (&before.snapshot.overrides, &now.snapshot.overrides);
        for key in keys(old, new) {
            let plural = match key.0 {
                OverrideKind::Globalization => "globalizations",
                OverrideKind::Localization => "localizations",
                OverrideKind::Dividing => continue,
            };
            let namespace = Some(key.1.as_str()).filter(|namespace| !namespace.is_empty());
            let valid = |of: &BTreeMap<_, Reading<Override>>| of.get(key).and_then(Reading::valid).cloned();
            match (valid(old), valid(new)) {
                (Some(old), Some(new)) if shows_the_same(&old.definition, &new.definition) => {}
                (_, Some(new)) => {
                    let mut object = definitions::with_source(&new.definition);
                    if let Some(namespace) = namespace {
                        object["metadata"]["namespace"] = namespace.into();
                    }
                    put(&self.store, APPS_GROUP, plural, object);
                }
                (_, None) => drop(self.store.remove(&resource(APPS_GROUP, plural), namespace, &key.2)),
            }
        }
    }

    /// HelmCharts as themselves, every other feed as a Manifest.
    fn show_feeds(&self, before: &Revision, now: &Revision) {
        let (old, new) = (&before.snapshot.feeds, &now.snapshot.feeds);
        for (key, definition) in new {
            if old.get(key).is_some_and(|known| shows_the_same(known, definition)) {
                continue;
            }
            let (plural, object) = shown_feed(key, definition);
            put(&self.store, APPS_GROUP, plural, object);
        }
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            if is_chart(key) {
                let charts = resource(APPS_GROUP, "helmcharts");
                self.store.remove(&charts, key.namespace.as_deref(), &key.name);
            } else {
                let manifests = resource(APPS_GROUP, "manifests");
                self.store
                    .remove(&manifests, Some(RESERVED_NAMESPACE), &definitions::manifest_name(key));
            }
        }
    }

    fn show_inventories(&self, before: &Revision, now: &Revision) {
        let of = |revision: &Revision, key| {
            let subscription = revision.snapshot.subscriptions.get(key).and_then(Reading::valid)?;
            definitions::feed_inventory(&revision.snapshot, subscription)
        };
        for key in keys(&before.snapshot.subscriptions, &now.snapshot.subscriptions) {
            match of(now, key) {
                Some(inventory) => put(&self.store, APPS_GROUP, "feedinventories", inventory),
                None => {
                    let inventories = resource(APPS_GROUP, "feedinventories");
                    self.store.remove(&inventories, Some(&key.0), &key.1);
                }
            }
        }
    }

    /// Where git speaks about a cluster on another line than before, that is all that differs.
    fn show_stated_clusters(&mut self, before: &Revision, now: &Revision) {
        let place = |revision: &Revision, name: &str| {
            let stated = revision.snapshot.clusters.get(name)?.valid()?;
            Some((Arc::clone(&stated.definition.file), stated.definition.line))
        };
        let time = jiff::Timestamp::now();
        let moved: BTreeSet<&str> = keys(&before.snapshot.clusters, &now.snapshot.clusters)
            .into_iter()
            .map(String::as_str)
            .filter(|name| place(before, name) != place(now, name))
            .collect();
        if moved.is_empty() {
            return;
        }
        let concerned = now
            .state
            .managed_clusters
            .iter()
            .filter(|(_, record)| moved.contains(&*record.cluster.name));
        for (namespace, _) in concerned {
            self.show_cluster(namespace, time);
        }
    }

    fn show_source_namespaces(&mut self, now: &Revision) {
        let snapshot = &now.snapshot;
        let mut named: BTreeSet<String> = ["default", RESERVED_NAMESPACE].map(str::to_owned).into();
        named.extend(snapshot.subscriptions.keys().map(|(namespace, _)| namespace.clone()));
        named.extend(snapshot.overrides.keys().map(|(_, namespace, _)| namespace.clone()));
        let charts = snapshot.feeds.keys().filter(|key| is_chart(key));
        named.extend(charts.filter_map(|key| key.namespace.clone()));
        named.remove("");
        let before = std::mem::replace(&mut self.source_namespaces, named);
        let changed: Vec<String> = before.symmetric_difference(&self.source_namespaces).cloned().collect();
        changed.iter().for_each(|namespace| self.show_namespace(namespace));
    }

    /// A namespace is there as long as a cluster has it or git names it.
    pub(super) fn show_namespace(&self, name: &str) {
        let state = &self.revision.state;
        let record = state.managed_clusters.get(name);
        if record.is_none() && !self.source_namespaces.contains(name) {
            self.store.remove(&resource("", "namespaces"), None, name);
            return;
        }
        let id = record.and_then(|record| record.cluster.id.as_ref());
        let registration = id.and_then(|id| state.registrations.clusters.get(id));
        put(&self.store, "", "namespaces", objects::namespace(name, registration));
    }
}

fn shown_feed(key: &ObjectKey, definition: &Definition) -> (&'static str, serde_json::Value) {
    match is_chart(key) {
        true => ("helmcharts", definitions::in_namespace(key, definition)),
        false => ("manifests", definitions::manifest(key, definition)),
    }
}
