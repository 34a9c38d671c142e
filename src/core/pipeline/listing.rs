//! What a Subscription lists, and what stays although it is listed no more.
//!
//! Taking a feed out of `feeds` removes it. But while the list names a feed that no file defines and that was never delivered, nobody knows
//! whether what vanished from the list was taken out or misspelt: then it stays, until every feed is found. Absence never deletes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Inputs;
use super::feeds::is_defined;
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{self, Demand, Demands, Subscription, is_bundle};
use crate::core::state::{FeedState, description_directory};

/// What a Subscription's feeds come to.
pub(super) struct Listing {
    /// What the feeds ask for, those that are listed no more and stay at the end.
    pub(super) demands: Demands,
    /// Keys of the latter.
    pub(super) unlisted: BTreeSet<Arc<str>>,
}

/// Reads the list; nothing where the Subscription is held whole.
pub(super) fn read(
    inputs: &Inputs<'_>,
    subscription: &Subscription,
    inventory: bool,
    found: &mut Vec<Diagnostic>,
) -> Option<Listing> {
    let mut demands = index::demands(inputs.snapshot, subscription, inventory, found)?;
    let undefined = |feed: &&Feed| !is_defined(inputs.snapshot, feed);
    let undefined: Vec<&Feed> = subscription.feeds.iter().filter(undefined).collect();
    let mut unlisted = BTreeSet::new();
    if !undefined.is_empty() {
        let delivered = delivered(inputs, subscription);
        if let Some(unknown) = undefined.into_iter().find(|feed| !was_delivered(feed, &delivered)) {
            let listed = |key: &str| demands.iter().any(|(known, _)| **known == *key);
            let gone = delivered.iter().filter(|state| !listed(&state.feed.status_key()));
            let gone: Vec<&FeedState> = gone.copied().filter(|state| !in_listed_bundle(state, subscription)).collect();
            found.extend(gone.iter().map(|state| stays(subscription, &state.feed, unknown)));
            unlisted.extend(gone.iter().map(|state| Arc::from(state.feed.status_key())));
        }
    }
    demands.extend(unlisted.iter().map(|key: &Arc<str>| (key.clone(), Demand::Unknown)));
    Some(Listing { demands, unlisted })
}

/// Every feed that some cluster has of a Subscription, each once.
fn delivered<'i>(inputs: &Inputs<'i>, subscription: &Subscription) -> Vec<&'i FeedState> {
    let previous = inputs.previous;
    let state = previous
        .subscriptions
        .get(&(subscription.namespace.clone(), subscription.name.clone()));
    let bound = state.into_iter().flat_map(|state| state.bindings.clusters.keys());
    let directory = description_directory(&subscription.namespace, &subscription.name);
    let (mut looked, mut keys) = (BTreeSet::new(), BTreeSet::new());
    bound
        .filter_map(|namespace| previous.description(namespace, &directory))
        .filter(|description| looked.insert(Arc::as_ptr(description)))
        .flat_map(|description| &description.feeds)
        .filter(|state| keys.insert(state.feed.key()))
        .collect()
}

/// Whether some cluster has a feed, or something of it where it is a Bundle.
fn was_delivered(feed: &Feed, delivered: &[&FeedState]) -> bool {
    let (key, bundle) = (feed.key(), bundle_name(feed));
    match is_bundle(&key) {
        true => delivered.iter().any(|state| state.bundle.as_ref() == Some(&bundle)),
        false => delivered.iter().any(|state| state.feed.key() == key),
    }
}

/// Whether an object came from a Bundle that is listed still: then its folder says whether it is gone.
fn in_listed_bundle(state: &FeedState, subscription: &Subscription) -> bool {
    let is_it = |feed: &Feed| is_bundle(&feed.key()) && state.bundle.as_ref() == Some(&bundle_name(feed));
    subscription.feeds.iter().any(is_it)
}

/// A Bundle as a Description names it.
pub(super) fn bundle_name(feed: &Feed) -> String {
    format!("{}/{}", feed.namespace.as_deref().unwrap_or_default(), feed.name)
}

fn stays(subscription: &Subscription, feed: &Feed, unknown: &Feed) -> Diagnostic {
    let message = format!("{feed} is listed no more, and stays: no file defines {unknown}, which may be what it was meant to be");
    let hint = "correct the list; what is not in it is removed as soon as every feed is found";
    let diagnostic = Diagnostic::warning("removal-waits", message).field("/spec/feeds");
    subscription.definition.locate(diagnostic.hint(hint), "/spec/feeds")
}
