//! Snapshot + registrations + previous state → the next [`State`], with every diagnostic. The composition of the pure core: place,
//! render, hold what cannot be decided, keep one owner for each object.
//!
//! Held, not removed: what git cannot say at the moment (a file that does not parse, a missing feed, a broken patch) keeps its last result.

mod asking;
mod bind;
mod dividing;
mod feeds;
mod fleet;
mod listing;
mod memory;
mod overrides;
mod owners;
mod placing;
mod recipe;
mod strays;
mod waiting;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{self, Snapshot, Subscription};
use crate::core::render::RenderSettings;
use crate::core::state::State;
use feeds::{Resolved, resolve};

pub use asking::{Need, Questions, questions, waits_for};
pub use fleet::{FleetFollower, FleetResult, derive as derive_fleet};
pub use memory::Memory;
pub use placing::{Placed, verify};
pub use recipe::{Recipe, explain_cluster, recipes};
pub use waiting::{Past, Since, date};

/// What a run starts from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// What the source repository says. The same value as in the run before says that nothing in it has changed.
    pub snapshot: &'a Arc<Snapshot>,
    /// The clusters as [`derive_fleet`] gives them.
    pub fleet: &'a FleetResult,
    /// The state before.
    pub previous: &'a State,
    /// What people allow.
    pub settings: RenderSettings,
    /// Levels of directories above those that are keyed by cluster.
    pub fan_out: u8,
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
    /// Since when; `None` where nobody looked at the log. A run leaves it open: see [`date`].
    pub since: Option<Since>,
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in {} (Subscription {}, ApplyLater",
            self.feed, self.cluster, self.subscription
        )?;
        match &self.since {
            Some(since) => write!(f, ", {since})"),
            None => f.write_str(")"),
        }
    }
}

/// What a run gives.
pub struct Outcome {
    /// The next state.
    pub state: State,
    /// Findings of placing and rendering, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// ApplyLater changes that wait.
    pub pending: Vec<Pending>,
    /// How every Subscription was placed.
    pub placed: Vec<Placed>,
}

/// Runs the pure core once. What `memory` has of the run before is used as far as the inputs follow from it; the result is the same without.
pub fn run(inputs: &Inputs<'_>, memory: &mut Memory) -> Outcome {
    let mut findings = Findings::default();
    findings.extend(inputs.fleet.diagnostics.iter().cloned());
    let changed = memory.changed_clusters(inputs);
    let placements = placing::place_all(inputs, &memory.placements(&changed), &mut findings);
    strays::report(inputs.snapshot, &inputs.fleet.fleet, &mut memory.near, &mut findings);
    let overrides = overrides::OverrideIndex::build(inputs.snapshot);
    let resolved: Vec<Resolved<'_>> = placements
        .iter()
        .map(|placed| resolve(inputs.snapshot, placed, &mut findings))
        .collect();
    let standing = Memory::standing(&resolved, &overrides);
    let affected = memory.affected(inputs, &changed, &placements, &standing);
    drop(changed);
    let bound = bind::bind(inputs, &resolved, &overrides, memory, affected);
    let subscriptions = placements
        .iter()
        .map(|placed| (placed.key.clone(), placing::status(placed)))
        .collect();
    let pending = bind::report(&bound.notes, inputs.fleet, &mut findings);
    let state = State {
        fan_out: inputs.fan_out,
        clusters: bound.clusters,
        provenance: bound.provenance,
        subscriptions,
        managed_clusters: inputs.fleet.records.clone(),
        registrations: inputs.previous.registrations.clone(),
    };
    memory.remember(inputs, &state, &placements, standing, bound.notes);
    Outcome {
        state,
        diagnostics: findings.into_vec(),
        pending,
        placed: placements,
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

/// The pointer of a feed in its Subscription; of all feeds where it is not listed.
fn feed_pointer(subscription: &Subscription, feed: &Feed) -> String {
    let feeds = subscription
        .definition
        .object
        .pointer("/spec/feeds")
        .and_then(serde_json::Value::as_array);
    let key = feed.key();
    let matches = |value: &serde_json::Value| {
        let same = value["name"] == feed.name.as_str() && value["kind"] == feed.kind.as_str();
        same && serde_json::from_value(value.clone()).is_ok_and(|stated: Feed| index::placed(&stated).key() == key)
    };
    match feeds.into_iter().flatten().position(matches) {
        Some(index) => format!("/spec/feeds/{index}"),
        None => "/spec/feeds".to_owned(),
    }
}

#[cfg(test)]
mod tests;
