//! Snapshot + registrations + previous state → the next [`State`], with every diagnostic. The composition of the pure core: place,
//! render, hold what cannot be decided, keep one owner for each object.
//!
//! Held, not removed: what git cannot say at the moment (a file that does not parse, a missing feed, a broken patch) keeps its last result.

mod bind;
mod feeds;
mod fleet;
mod overrides;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{Reading, Snapshot, Subscription};
use crate::core::render::{RenderCache, RenderSettings};
use crate::core::schedule::{self, Fleet, Placement};
use crate::core::state::{State, SubscriptionState, description_directory};

pub use fleet::{FleetResult, derive as derive_fleet};
pub use overrides::nearest;

/// What a run starts from.
pub struct Inputs<'a> {
    /// What the source repository says.
    pub snapshot: &'a Snapshot,
    /// The clusters as [`derive_fleet`] gives them.
    pub fleet: &'a FleetResult,
    /// The state before.
    pub previous: &'a State,
    /// What people allow.
    pub settings: RenderSettings,
}

/// An ApplyLater change that waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pending {
    /// Dedicated namespace.
    pub cluster: String,
    /// Subscription, `<namespace>/<name>`.
    pub subscription: String,
    /// The feed whose bytes would change.
    pub feed: String,
}

/// What a run gives.
pub struct Outcome {
    /// The next state.
    pub state: State,
    /// Findings of placing and rendering, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// ApplyLater changes that wait.
    pub pending: Vec<Pending>,
}

/// Runs the pure core once.
pub fn run(inputs: &Inputs<'_>, cache: &mut RenderCache) -> Outcome {
    cache.begin_run();
    let mut findings = Findings::default();
    findings.extend(inputs.fleet.diagnostics.iter().cloned());
    let placements = place_all(inputs, &mut findings);
    let overrides = overrides::OverrideIndex::build(inputs.snapshot, &inputs.fleet.fleet, &mut findings);
    let bound = bind::bind_all(inputs, &placements, &overrides, cache, &mut findings);
    let subscriptions = placements
        .iter()
        .map(|placed| (placed.key.clone(), status(&placed.placement, &inputs.fleet.fleet)))
        .collect();
    let state = State {
        clusters: bound.clusters,
        provenance: bound.provenance,
        subscriptions,
        managed_clusters: inputs.fleet.records.clone(),
        registrations: inputs.previous.registrations.clone(),
    };
    Outcome {
        state,
        diagnostics: findings.into_vec(),
        pending: bound.pending.into_iter().collect(),
    }
}

/// Diagnostics, each once: clusters that share a fault share its message.
#[derive(Default)]
struct Findings {
    diagnostics: BTreeSet<Diagnostic>,
}

impl Findings {
    fn add(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.insert(diagnostic);
    }

    fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.diagnostics.extend(diagnostics);
    }

    fn into_vec(self) -> Vec<Diagnostic> {
        self.diagnostics.into_iter().collect()
    }
}

/// A Subscription with its placement; without a definition it is held whole.
struct Placed {
    key: (String, String),
    directory: String,
    subscription: Option<Arc<Subscription>>,
    placement: Placement,
}

fn place_all(inputs: &Inputs<'_>, findings: &mut Findings) -> Vec<Placed> {
    let mut placed = Vec::new();
    for (key, reading) in &inputs.snapshot.subscriptions {
        let previous = previous_clusters(inputs.previous, key);
        let (subscription, placement) = match reading {
            Reading::Unreadable => (None, schedule::hold(&inputs.fleet.fleet, &previous)),
            Reading::Valid(subscription) => {
                let placement = schedule::place(subscription, &inputs.fleet.fleet, &previous);
                report_placement(subscription, &placement, findings);
                (Some(subscription.clone()), placement)
            }
        };
        placed.push(Placed {
            directory: description_directory(&key.0, &key.1),
            key: key.clone(),
            subscription,
            placement,
        });
    }
    if inputs.snapshot.incomplete {
        hold_undefined(inputs, &mut placed, findings);
    }
    placed.sort_by(|a, b| a.key.cmp(&b.key));
    placed
}

/// While some file does not parse, a Subscription that no parsed file defines may stand in it.
fn hold_undefined(inputs: &Inputs<'_>, placed: &mut Vec<Placed>, findings: &mut Findings) {
    for key in inputs
        .previous
        .subscriptions
        .keys()
        .filter(|key| !inputs.snapshot.subscriptions.contains_key(*key))
    {
        let message = "no file that parses defines this Subscription; it keeps its last result";
        let object = format!("Subscription.apps.clusternet.io {}/{}", key.0, key.1);
        let hint = "correct the files that do not parse; to remove it, remove it in a tree that parses";
        findings.add(Diagnostic::error("held", message).object(object).hint(hint));
        let placement = schedule::hold(&inputs.fleet.fleet, &previous_clusters(inputs.previous, key));
        placed.push(Placed {
            directory: description_directory(&key.0, &key.1),
            key: key.clone(),
            subscription: None,
            placement,
        });
    }
}

fn previous_clusters(previous: &State, key: &(String, String)) -> BTreeSet<String> {
    previous
        .subscriptions
        .get(key)
        .map(|state| state.bindings.keys().cloned().collect())
        .unwrap_or_default()
}

fn report_placement(subscription: &Subscription, placement: &Placement, findings: &mut Findings) {
    let definition = &subscription.definition;
    let pointer = "/spec/subscribers";
    if placement.kept {
        let message = format!(
            "no cluster matches any more; the last placement on {} clusters stays",
            placement.clusters.len()
        );
        let hint = "correct the selector; to undeploy, delete the Subscription";
        findings.add(definition.locate(
            Diagnostic::error("placement-kept", message).field(pointer).hint(hint),
            pointer,
        ));
    } else if placement.clusters.is_empty() {
        let diagnostic = Diagnostic::warning("no-cluster-matches", "no cluster matches").field(pointer);
        findings.add(definition.locate(
            diagnostic.hint("compare the selector with the labels of the ManagedClusters"),
            pointer,
        ));
    }
}

fn status(placement: &Placement, fleet: &Fleet) -> SubscriptionState {
    let name = |namespace: &String| {
        fleet
            .clusters
            .get(namespace)
            .map(|cluster| cluster.name.clone())
            .unwrap_or_default()
    };
    let bindings: BTreeMap<String, String> = placement
        .clusters
        .iter()
        .map(|namespace| (namespace.clone(), name(namespace)))
        .collect();
    SubscriptionState {
        bindings,
        excluded: placement.excluded.clone(),
    }
}

/// The pointer of a feed in its Subscription.
fn feed_pointer(subscription: &Subscription, feed: &Feed) -> String {
    let feeds = subscription
        .definition
        .object
        .pointer("/spec/feeds")
        .and_then(serde_json::Value::as_array);
    let matches = |value: &serde_json::Value| value["name"] == feed.name.as_str() && value["kind"] == feed.kind.as_str();
    let index = feeds.into_iter().flatten().position(matches).unwrap_or_default();
    format!("/spec/feeds/{index}")
}

#[cfg(test)]
mod tests;
