//! Subscriptions and what clusters get of them → the objects that the hub's API shows. Values in, values out.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::registry::{Live, seconds};
use super::super::revision::Revision;
use super::definitions::with_source;
use super::events::Notice;
use super::objects::Condition;
use crate::core::api::APPS_VERSION;
use crate::core::index::Reading;
use crate::core::pipeline::Pending;
use crate::core::schedule::Cluster;
use crate::core::state::{DescriptionState, FeedState, binding_status, subscription_of};
use crate::core::status::{DescriptionReport, ObjectOutcome, Phase};
use crate::core::text::counted;

/// What is known of a Description besides its content.
pub(super) enum Reported<'a> {
    /// The agent has reported this about the content that is desired.
    Now(&'a DescriptionReport),
    /// What it reported last is about an older content.
    Before,
    /// It has reported nothing.
    Never,
}

impl Reported<'_> {
    /// Whether the desired content is applied and well.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Reported::Now(report) if report.phase == Phase::Success)
    }

    /// Why it is not well, if so.
    pub(super) fn failure(&self) -> Option<&DescriptionReport> {
        match self {
            Reported::Now(report) if report.phase == Phase::Failure => Some(report),
            _ => None,
        }
    }

    fn status(&self, live: Option<&Live>) -> Value {
        let waits = match (self, live.is_some_and(Live::is_connected)) {
            (Reported::Now(report), _) => return reported_status(report),
            (_, false) => "it is delivered when the agent is back",
            (Reported::Before, true) => "a newer content is being delivered",
            (Reported::Never, true) => "the agent has not reported it yet",
        };
        json!({"phase": "Pending", "reason": waits})
    }
}

fn reported_status(report: &DescriptionReport) -> Value {
    let well = report.objects.iter().filter(|object| is_well(object.outcome)).count();
    json!({
        "phase": report.phase, "reason": report.reason, "objects": format!("{well}/{}", report.objects.len()),
        "manifestStatuses": report.objects.iter().map(|object| json!({
            "apiVersion": object.api_version, "kind": object.kind, "namespace": object.namespace, "name": object.name,
            "observedStatus": {"outcome": object.outcome, "message": object.message},
        })).collect::<Vec<_>>(),
    })
}

/// Most objects of one Description that events name.
const MOST_NOTICED: usize = 8;

/// What of a report is worth an event.
pub(super) fn notices(reported: &Reported<'_>) -> Vec<Notice> {
    let report = match reported {
        Reported::Now(report) => report,
        Reported::Before | Reported::Never => return Vec::new(),
    };
    let wrong = report
        .objects
        .iter()
        .filter(|object| !is_well(object.outcome) && object.outcome != ObjectOutcome::Waiting);
    let mut notices: Vec<Notice> = wrong
        .take(MOST_NOTICED)
        .map(|object| {
            let place = object.namespace.iter().chain([&object.name]).map(String::as_str);
            let place = place.collect::<Vec<_>>().join("/");
            let reason = if object.outcome == ObjectOutcome::Failed {
                "Failed"
            } else {
                "NotApplied"
            };
            Notice::warning(reason, format!("{} {place}: {}", object.kind, object.message))
        })
        .collect();
    match report.phase {
        Phase::Success => notices.push(Notice::normal("Applied", "everything is applied")),
        Phase::Failure if notices.is_empty() => notices.push(Notice::warning("Failed", &*report.reason)),
        _ => {}
    }
    notices
}

fn is_well(outcome: ObjectOutcome) -> bool {
    matches!(
        outcome,
        ObjectOutcome::Applied | ObjectOutcome::Unchanged | ObjectOutcome::Pruned
    )
}

/// The labels by which Clusternet's clients find what belongs to a Subscription or a cluster.
fn labels(cluster: &Cluster, directory: &str) -> Value {
    let (namespace, name) = subscription_of(directory).unwrap_or_default();
    let mut labels = json!({
        "apps.clusternet.io/subs.namespace": namespace, "apps.clusternet.io/config.kind": "Subscription",
        "clusters.clusternet.io/cluster-name": cluster.name,
    });
    if name.len() <= 63 {
        labels["apps.clusternet.io/subs.name"] = json!(name);
    }
    if let Some(id) = &cluster.id {
        labels["clusters.clusternet.io/cluster-id"] = json!(id);
    }
    labels
}

/// A Description with what its agent says of it.
pub(super) fn description(
    cluster: &Cluster,
    directory: &str,
    state: &DescriptionState,
    reported: &Reported<'_>,
    (live, conditions): (Option<&Live>, Vec<Value>),
) -> Value {
    let feeds = state.feeds.iter().map(|state| json!(state.feed));
    let mut status = reported.status(live);
    if !conditions.is_empty() {
        status["conditions"] = Value::Array(conditions);
    }
    json!({
        "apiVersion": APPS_VERSION, "kind": "Description",
        "metadata": {"namespace": cluster.namespace, "name": directory, "labels": labels(cluster, directory)},
        "spec": {"deployer": state.deployer(), "feeds": feeds.collect::<Vec<_>>()}, "status": status,
    })
}

/// How many changes that wait are named.
const NAMED: usize = 3;

/// That ApplyLater changes wait, and since when; nothing where none does.
pub(super) fn pending<'p>(waiting: impl Iterator<Item = &'p Pending> + Clone) -> Option<Condition> {
    let count = waiting.clone().count();
    let named: Vec<String> = waiting.take(NAMED).map(ToString::to_string).collect();
    let more = match count.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("the next change brings {}{more}", named.join("; "));
    (count > 0).then(|| Condition::new("Pending", "True", "ApplyLater", message))
}

/// The name of the HelmRelease of a feed in one cluster.
pub(super) fn release_name(directory: &str, feed: &FeedState) -> String {
    let namespace = feed.feed.namespace.as_deref().unwrap_or("default");
    format!("{directory}.{namespace}.{}", feed.feed.name)
}

/// A HelmRelease: what the state branch says of it, less its values, which may be long; with where these stand and what the agent says.
pub(super) fn helm_release(
    cluster: &Cluster,
    directory: &str,
    feed: &FeedState,
    (release, path): (&Value, &str),
    reported: &Reported<'_>,
) -> Value {
    let mut spec = release.get("spec").cloned().unwrap_or_default();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("values");
    }
    let about = match reported {
        Reported::Now(report) => report.objects.iter().find(|object| {
            (object.kind.as_str(), &object.name) == ("HelmChart", &feed.feed.name) && object.namespace == feed.feed.namespace
        }),
        _ => None,
    };
    let status = about.map_or_else(
        || json!({}),
        |object| json!({"phase": object.outcome, "description": object.message}),
    );
    json!({
        "apiVersion": APPS_VERSION, "kind": "HelmRelease",
        "metadata": {
            "namespace": cluster.namespace, "name": release_name(directory, feed), "labels": labels(cluster, directory),
            "annotations": {"branchline.io/state": path},
        },
        "spec": spec, "status": status,
    })
}

/// How far a Subscription is.
pub(super) struct Progress<'a> {
    /// In how many clusters it is applied.
    pub(super) done: usize,
    /// In how many it fails, with a few of them: name and reason.
    pub(super) failing: (usize, Vec<(String, String)>),
    /// A few clusters that wait.
    pub(super) waiting: Vec<&'a str>,
    /// What is wrong with it in git.
    pub(super) errors: &'a [String],
    /// When it came.
    pub(super) born: Option<Timestamp>,
}

/// A Subscription as it stands in git, with where it is bound, in how many clusters it is applied, and what is wrong with it.
pub(super) fn subscription(
    revision: &Revision,
    key: &(String, String),
    conditions: Vec<Value>,
    progress: &Progress<'_>,
) -> Value {
    let reading = revision.snapshot.subscriptions.get(key).and_then(Reading::valid);
    let mut object = match reading {
        Some(subscription) => with_source(&subscription.definition),
        None => json!({"apiVersion": APPS_VERSION, "kind": "Subscription", "metadata": {"name": key.1}}),
    };
    object["metadata"]["namespace"] = json!(key.0);
    if let Some(born) = progress.born {
        object["metadata"]["creationTimestamp"] = json!(seconds(born));
    }
    let state = revision.state.subscriptions.get(key);
    let mut status = state.map(|state| binding_status(&state.bindings)).unwrap_or_default();
    let desired = state.map_or(0, |state| state.bindings.clusters.len());
    status.remove("capacity");
    status.entry("bindingClusters").or_insert_with(|| json!([]));
    status.insert("desiredReleases".to_owned(), json!(desired));
    status.insert("completedReleases".to_owned(), json!(progress.done));
    status.insert("conditions".to_owned(), Value::Array(conditions));
    object["status"] = Value::Object(status);
    object
}

/// Whether git's word on a Subscription is carried out, and whether the clusters have it.
pub(super) fn subscription_conditions(desired: usize, progress: &Progress<'_>) -> [Condition; 2] {
    let valid = match progress.errors.first() {
        None => Condition::new("Valid", "True", "Rendered", "carried out as it stands in git"),
        Some(first) => Condition::new("Valid", "False", "Held", first.clone()),
    };
    [valid, synced(desired, progress)]
}

fn synced(desired: usize, progress: &Progress<'_>) -> Condition {
    let condition = |status, reason, message: String| Condition::new("Synced", status, reason, message);
    let (failing, sample) = &progress.failing;
    if let Some((_, reason)) = sample.first() {
        let names: Vec<&str> = sample.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!(
            "fails in {failing} of {}: {}: {reason}",
            counted(desired, "cluster"),
            names.join(", ")
        );
        return condition("False", "Failed", message);
    }
    match desired.saturating_sub(progress.done) {
        0 if desired == 0 => condition("True", "NoClusters", "no cluster is selected".to_owned()),
        0 if desired == 1 => condition("True", "Applied", "applied in 1 cluster".to_owned()),
        0 => condition("True", "Applied", format!("applied in all {desired} clusters")),
        left => {
            let names = progress.waiting.join(", ");
            let clusters = counted(desired, "cluster");
            condition(
                "False",
                "Waiting",
                format!("not applied yet in {left} of {clusters}: {names}"),
            )
        }
    }
}
