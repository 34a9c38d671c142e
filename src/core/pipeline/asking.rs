//! What a run has to know of clusters at the moment: which feeds' replicas wait for room, and which Subscriptions wait for a cluster. Asks nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Inputs;
use super::listing::{self, Listing};
use crate::core::api::subscription::Feed;
use crate::core::index::{self, Snapshot, Subscription};
use crate::core::room::{NodeRules, Requests};
use crate::core::schedule::{self, Cluster, Request, wants};
use crate::core::state::State;

/// What one replica of a feed needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The feed.
    pub feed: Feed,
    /// What a replica requests.
    pub requests: Requests,
    /// What it asks of its node.
    pub nodes: NodeRules,
}

/// By dedicated namespace and feed key: what is asked about, and how many replicas the cluster was given before.
pub type Questions = BTreeMap<Arc<str>, BTreeMap<Arc<str>, (Arc<Need>, i64)>>;

/// Everything that this run would like to know; nothing while no Dynamic Subscription needs a new division.
pub fn questions(inputs: &Inputs<'_>) -> Questions {
    let mut all = Questions::new();
    for (key, reading) in &inputs.snapshot.subscriptions {
        let dynamic = |subscription: &&Arc<Subscription>| matches!(subscription.strategy, index::Strategy::Dynamic(_));
        if let Some(subscription) = reading.valid().filter(dynamic) {
            add(inputs, key, subscription, &mut all);
        }
    }
    all
}

fn add(inputs: &Inputs<'_>, key: &(String, String), subscription: &Subscription, all: &mut Questions) {
    let state = inputs.previous.subscriptions.get(key);
    let previous = state.map(|state| state.bindings.clone()).unwrap_or_default();
    // What is wrong with the demands is said when the Subscription is placed.
    let inventory = state.is_some_and(|state| state.inventory);
    let Some(Listing { demands, .. }) = listing::read(inputs, subscription, inventory, &mut Vec::new()) else {
        return;
    };
    let request = Request {
        subscription,
        demands: &demands,
        fleet: &inputs.fleet.fleet,
        previous: &previous,
        known: state.is_some(),
    };
    let Some(question) = schedule::question(&request) else {
        return;
    };
    let feeds: BTreeMap<String, Feed> = index::delivered(inputs.snapshot, subscription)
        .into_iter()
        .map(|feed| (feed.status_key(), feed.into_owned()))
        .collect();
    for (key, workload) in question.feeds {
        let Some(feed) = feeds.get(&**key).cloned() else { continue };
        let (requests, nodes) = (workload.requests.clone(), workload.nodes.clone());
        let need = Arc::new(Need { feed, requests, nodes });
        let shares = previous.replicas.get(key);
        for cluster in &question.clusters {
            let share = shares.and_then(|shares| shares.get(&cluster.namespace)).copied().unwrap_or(0);
            let of_cluster = all.entry(cluster.namespace.clone()).or_default();
            of_cluster.insert(key.clone(), (Arc::clone(&need), share));
        }
    }
}

/// Whether a Subscription wants a cluster that it does not have: then it matters that the cluster takes new things again.
pub fn waits_for(snapshot: &Snapshot, state: &State, cluster: &Cluster) -> bool {
    let bound = |key: &(String, String)| {
        let state = state.subscriptions.get(key);
        state.is_some_and(|state| state.bindings.clusters.contains_key(&cluster.namespace))
    };
    let mut subscriptions = snapshot.subscriptions.iter();
    subscriptions.any(|(key, reading)| {
        reading
            .valid()
            .is_some_and(|subscription| wants(subscription, &cluster.labels) && !bound(key))
    })
}
