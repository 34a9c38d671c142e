//! Places every Subscription, in the order of their priority, and puts into words what people should know about it. Renders nothing.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::listing::{self, Listing};
use super::memory::LastPlacements;
use super::{Findings, Inputs, Outcome};
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{self, Demands, Reading, Subscription};
use crate::core::schedule::check::{self, Violation};
use crate::core::schedule::{self, Bindings, Exclusion, Fleet, Placement, Reason, Remark, Request};
use crate::core::state::{State, SubscriptionState, description_directory};
use crate::core::text::counted;

/// A Subscription with its placement; without a definition it is held whole.
#[derive(Clone)]
pub struct Placed {
    /// Namespace and name.
    pub key: (String, String),
    /// Its directory below `clusters/<ns>/`.
    pub directory: String,
    /// What it says; `None` where it is held whole.
    pub subscription: Option<Arc<Subscription>>,
    /// What its feeds ask for, in their order.
    pub demands: Demands,
    /// Keys of feeds that are listed no more and stay all the same: see [`super::listing`].
    pub(super) unlisted: BTreeSet<Arc<str>>,
    /// Whether a FeedInventory counts.
    pub(super) inventory: bool,
    /// Whether it was placed before.
    pub(super) known: bool,
    /// Where it goes.
    pub placement: Placement,
}

impl Placed {
    /// `<namespace>/<name>`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.key.0, self.key.1)
    }
}

/// Places all, by priority and then by namespace and name; the result is in the latter order.
pub(super) fn place_all(inputs: &Inputs<'_>, last: &LastPlacements<'_>, findings: &mut Findings) -> Vec<Placed> {
    let mut order: Vec<_> = inputs.snapshot.subscriptions.iter().collect();
    order.sort_by_key(|(_, reading)| Reverse(reading.valid().map_or(0, |subscription| subscription.priority)));
    let place = |(key, reading): (&(String, String), &Reading<Subscription>)| match reading {
        Reading::Unreadable => hold(inputs, key),
        Reading::Valid(subscription) => place(inputs, last, key, subscription, findings),
    };
    let mut placed: Vec<Placed> = order.into_iter().map(place).collect();
    if inputs.snapshot.incomplete {
        hold_undefined(inputs, &mut placed, findings);
    }
    placed.sort_by(|a, b| a.key.cmp(&b.key));
    placed
}

fn place(
    inputs: &Inputs<'_>,
    last: &LastPlacements<'_>,
    key: &(String, String),
    subscription: &Arc<Subscription>,
    findings: &mut Findings,
) -> Placed {
    let previous = previous(inputs.previous, key);
    let mut found = Vec::new();
    let listing = listing::read(inputs, subscription, had_inventory(inputs, key), &mut found);
    findings.extend(found);
    let Some(Listing { demands, unlisted }) = listing else {
        return hold(inputs, key);
    };
    let request = Request {
        subscription,
        demands: &demands,
        fleet: &inputs.fleet.fleet,
        previous: &previous,
        known: inputs.previous.subscriptions.contains_key(key),
    };
    let known = last.placement(key, &request, &previous).cloned();
    let was_known = request.known;
    let mut placement = known.unwrap_or_else(|| schedule::place(&request));
    if placement.bound == previous {
        // Who compares sees at once that nothing moved.
        placement.bound = previous.clone();
    }
    report(subscription, &placement, &inputs.fleet.fleet, findings);
    Placed {
        key: key.clone(),
        directory: description_directory(&key.0, &key.1),
        subscription: Some(subscription.clone()),
        demands,
        unlisted,
        inventory: subscription.divides() && index::inventory_of(inputs.snapshot, subscription).is_some(),
        known: was_known,
        placement,
    }
}

fn had_inventory(inputs: &Inputs<'_>, key: &(String, String)) -> bool {
    inputs.previous.subscriptions.get(key).is_some_and(|state| state.inventory)
}

fn hold(inputs: &Inputs<'_>, key: &(String, String)) -> Placed {
    Placed {
        key: key.clone(),
        directory: description_directory(&key.0, &key.1),
        subscription: None,
        demands: Demands::new(),
        unlisted: BTreeSet::new(),
        inventory: had_inventory(inputs, key),
        known: true,
        placement: schedule::hold(&inputs.fleet.fleet, &previous(inputs.previous, key)),
    }
}

/// While some file does not parse, a Subscription that no parsed file defines may stand in it.
fn hold_undefined(inputs: &Inputs<'_>, placed: &mut Vec<Placed>, findings: &mut Findings) {
    let defined = &inputs.snapshot.subscriptions;
    for key in inputs.previous.subscriptions.keys().filter(|key| !defined.contains_key(*key)) {
        let message = "no file that parses defines this Subscription; it keeps its last result";
        let object = format!("Subscription.apps.clusternet.io {}/{}", key.0, key.1);
        let hint = "correct the files that do not parse; to remove it, remove it in a tree that parses";
        findings.add(Diagnostic::error("held", message).object(object).hint(hint));
        placed.push(hold(inputs, key));
    }
}

pub(super) fn previous(previous: &State, key: &(String, String)) -> Arc<Bindings> {
    let state = previous.subscriptions.get(key);
    state.map(|state| state.bindings.clone()).unwrap_or_default()
}

/// Where a Subscription is bound, for the state branch.
pub(super) fn status(placed: &Placed) -> SubscriptionState {
    SubscriptionState {
        bindings: placed.placement.bound.clone(),
        inventory: placed.inventory,
        excluded: placed.placement.excluded.clone(),
    }
}

/// Holds every placement against the rules with the independent checker, and every cluster against "one object, one owner".
pub fn verify(inputs: &Inputs<'_>, outcome: &Outcome) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for placed in &outcome.placed {
        let Some(subscription) = &placed.subscription else { continue };
        let request = Request {
            subscription,
            demands: &placed.demands,
            fleet: &inputs.fleet.fleet,
            previous: &previous(inputs.previous, &placed.key),
            known: inputs.previous.subscriptions.contains_key(&placed.key),
        };
        let broken = check::check(&request, &placed.placement);
        found.extend(
            broken
                .iter()
                .map(|violation| subscription.definition.locate(broken_rule(violation), "/spec")),
        );
    }
    for (cluster, state) in &outcome.state.clusters {
        let descriptions = || state.descriptions.values();
        let files = descriptions().flat_map(|description| description.files.keys().cloned());
        let releases = descriptions().flat_map(|description| description.feeds.iter().filter_map(|feed| feed.installs.as_ref()));
        let releases = releases.map(|release| format!("Helm release {release}"));
        let twice = check::check_owners(cluster, files.chain(releases));
        found.extend(twice.iter().map(broken_rule));
    }
    found
}

fn broken_rule(violation: &Violation) -> Diagnostic {
    let hint = "this is a fault of Branchline: please report it with the source and the clusters";
    Diagnostic::error("check-failed", violation.to_string()).hint(hint)
}

fn report(subscription: &Subscription, placement: &Placement, fleet: &Fleet, findings: &mut Findings) {
    let pointer = "/spec/subscribers";
    let mut add = |diagnostic: Diagnostic, pointer: &str| {
        findings.add(subscription.definition.locate(diagnostic.field(pointer), pointer));
    };
    if let Some(unfit) = &placement.kept {
        let bound = counted(placement.bound.clusters.len(), "cluster");
        let message = format!(
            "no cluster fits any more ({}); the last placement on {bound} stays",
            reasons(unfit)
        );
        let hint = "correct the Subscription or the clusters; to undeploy, delete the Subscription";
        add(Diagnostic::error("placement-kept", message).hint(hint), pointer);
    } else if placement.bound.clusters.is_empty() && !placement.excluded.iter().all(has_remark) {
        let message = match placement.excluded.is_empty() {
            true => "no cluster matches".to_owned(),
            false => format!("no cluster matches ({})", reasons(&placement.excluded)),
        };
        let hint = "compare the selector and tolerations with the labels and taints of the ManagedClusters";
        add(Diagnostic::warning("no-cluster-matches", message).hint(hint), pointer);
    }
    for remark in &placement.remarks {
        let (diagnostic, pointer) = put_into_words(remark, subscription, fleet);
        add(diagnostic, &pointer);
    }
}

/// Whether a remark of its own says what left these clusters out.
fn has_remark(exclusion: &Exclusion) -> bool {
    matches!(
        exclusion.reason,
        Reason::NoCapacity | Reason::NoWeight | Reason::NothingToDivide
    )
}

/// `3 LabelsDoNotMatch, 1 TaintNotTolerated`.
fn reasons(exclusions: &[Exclusion]) -> String {
    let counts = exclusions.iter();
    let counts = counts.map(|exclusion| format!("{} {}", exclusion.count, exclusion.reason.as_str()));
    counts.collect::<Vec<_>>().join(", ")
}

/// Whether some cluster says what it offers, or how much more fits.
fn is_any_room_known(fleet: &Fleet) -> bool {
    let mut live = fleet.live.values();
    live.any(|live| !live.allocatable.is_empty() || !live.fits.is_empty())
}

fn put_into_words(remark: &Remark, subscription: &Subscription, fleet: &Fleet) -> (Diagnostic, String) {
    let known = |key: &str| subscription.feeds.iter().find(|feed| feed.status_key() == key);
    let feed_pointer = |key: &str| known(key).map_or_else(String::new, |feed| super::feed_pointer(subscription, feed));
    let named = |key: &str| known(key).map_or_else(|| key.to_owned(), ToString::to_string);
    let warning = |code: &str, message: String, hint: &str| Diagnostic::warning(code, message).hint(hint);
    match remark {
        Remark::Unplaced { feed, missing, total } => {
            let message = format!("{missing} of {total} replicas of {} fit into no cluster", named(feed));
            let hint = match is_any_room_known(fleet) {
                true => "ask for fewer, request less, or add clusters with room (status.allocatable)",
                false => {
                    "nothing is known of the clusters' room; offline, give the fleet with its status: kubectl get managedclusters -A -o yaml"
                }
            };
            (warning("replicas-do-not-fit", message, hint), feed_pointer(feed))
        }
        Remark::Stranded { feed, replicas } => {
            let message = format!(
                "{replicas} replicas of {} stay where a NoExecute taint sends them away: they fit nowhere else",
                named(feed)
            );
            let hint = "add room elsewhere; they move as soon as there is some";
            (warning("replicas-wait-for-room", message, hint), feed_pointer(feed))
        }
        Remark::GroupTooSmall {
            subscriber,
            wanted,
            found,
        } => {
            let message = format!("the subgroup asks for {}, {found} fit", counted(*wanted, "cluster"));
            let pointer = format!("/spec/subscribers/{subscriber}/subGroupStrategy/minClusters");
            (
                warning("too-few-clusters", message, "lower minClusters or add clusters"),
                pointer,
            )
        }
        Remark::FewClusters { feed, wanted, found } => {
            let message = format!(
                "minClusters is {wanted}, but {} has replicas in {}",
                named(feed),
                counted(*found, "cluster")
            );
            let pointer = "/spec/dividingScheduling/dynamicDividing/minClusters".to_owned();
            (
                warning("too-few-clusters", message, "lower minClusters, or add replicas or clusters"),
                pointer,
            )
        }
        Remark::NothingToDivide => {
            let message = "no feed has replicas, so Dynamic dividing binds no cluster".to_owned();
            let hint = "use Replication, or say in a FeedInventory where the replicas of a feed stand";
            (warning("nothing-to-divide", message, hint), "/spec/feeds".to_owned())
        }
        Remark::NoWeight => {
            let message = "the clusters that match have no weight between them, so nothing can be divided".to_owned();
            let hint = "give a weight to a subscriber that matches";
            (warning("no-weight", message, hint), "/spec/subscribers".to_owned())
        }
    }
}
