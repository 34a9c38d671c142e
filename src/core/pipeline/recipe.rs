//! What decides each feed's bytes in one cluster, for explanations: its source, the overrides in order, what holds it. Renders nothing and
//! chooses nothing: it looks up what binding looks up.

use std::sync::Arc;

use super::dividing::ShareOverrides;
use super::feeds::resolve;
use super::overrides::OverrideIndex;
use super::{Findings, Inputs, Placed};
use crate::core::api::subscription::Feed;
use crate::core::index::{Definition, Override};
use crate::core::schedule::{Explanation, Request, explain};
use crate::core::state::FeedState;

/// What one feed in one cluster is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The feed.
    pub feed: Feed,
    /// The Bundle that it comes from, `<namespace>/<name>`.
    pub bundle: Option<String>,
    /// The object; `None` where git cannot say at the moment, so that the last result stays.
    pub source: Option<Definition>,
    /// The overrides in the order in which they apply, the share of divided replicas last.
    pub overrides: Vec<Arc<Override>>,
    /// Whether an override that cannot be carried out keeps the last result.
    pub held: bool,
}

/// The feeds of a Subscription as a cluster gets or would get them; nothing where there is no such cluster.
pub fn recipes(inputs: &Inputs<'_>, placed: &Placed, namespace: &str) -> Vec<Recipe> {
    let Some(cluster) = inputs.fleet.fleet.clusters.get(namespace) else {
        return Vec::new();
    };
    let previous = inputs.previous.description(namespace, &placed.directory).cloned();
    let provenance = inputs.previous.provenance_of(namespace, &placed.directory).cloned();
    if placed.subscription.is_none() {
        return previous.iter().flat_map(|previous| &previous.feeds).map(held_whole).collect();
    }
    let mut unheard = Findings::default();
    let overrides = OverrideIndex::build(inputs.snapshot);
    let mut shares = ShareOverrides::default();
    let mut recipes = Vec::new();
    let resolved = resolve(inputs.snapshot, placed, &mut unheard);
    resolved.for_each_wanted(inputs.snapshot, previous.as_deref(), |feed, source, bundle| {
        let before = provenance.as_ref().map_or(&[][..], |provenance| provenance.of(feed));
        let mut applying = overrides.applying(&feed.key(), cluster);
        applying.extend(source.and_then(|(_, demand)| shares.of(placed, feed, demand, cluster)));
        recipes.push(Recipe {
            feed: feed.clone(),
            bundle: bundle.cloned(),
            source: source.map(|(definition, _)| definition.clone()),
            overrides: applying,
            held: overrides.holds(&feed.key(), cluster, before),
        });
    });
    recipes
}

/// Why a Subscription is or is not in a cluster; nothing where it is held whole or there is no such cluster.
pub fn explain_cluster(inputs: &Inputs<'_>, placed: &Placed, namespace: &str) -> Option<Explanation> {
    let request = Request {
        subscription: placed.subscription.as_ref()?,
        demands: &placed.demands,
        fleet: &inputs.fleet.fleet,
        previous: &super::placing::previous(inputs.previous, &placed.key),
        known: inputs.previous.subscriptions.contains_key(&placed.key),
    };
    explain(&request, namespace)
}

fn held_whole(state: &FeedState) -> Recipe {
    Recipe {
        feed: state.feed.clone(),
        bundle: state.bundle.clone(),
        source: None,
        overrides: Vec::new(),
        held: true,
    }
}
