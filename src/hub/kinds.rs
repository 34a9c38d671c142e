//! The kinds that the hub's API serves and how they are printed: Clusternet's with what is in sync and why not, and the few of Kubernetes' own
//! that clients need to find their way. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::projection::SOURCE_ANNOTATION;
use crate::core::api::{APPS_GROUP, APPS_VERSION};
use crate::core::text::cut;
use crate::kubeapi::table::{ColumnDefinition, Columns, age, age_of, column, list, name_column, text, wide};
use crate::kubeapi::{READ_ONLY, Resource, ResourceId, clusternet_resources, component_of, review_resources};

/// Verbs of what the hub owns and people decide about.
const CHANGEABLE: &[&str] = &["delete", "get", "list", "patch", "update", "watch"];
/// Verbs of what is decided about in its status alone: a right to the object is none to decide.
const REMOVABLE: &[&str] = &["delete", "get", "list", "watch"];
/// How much of a reason fits into a table.
const REASON_BYTES: usize = 100;

/// Everything that is served.
pub(super) fn resources() -> Vec<Resource> {
    let mut all = vec![
        namespaces(),
        events("", "v1", "Event"),
        events("events.k8s.io", "v1", "NewEvent"),
    ];
    all.extend(clusternet_resources().into_iter().map(as_shown));
    all.extend(review_resources());
    all
}

/// Events in one of the two forms that Kubernetes has for them.
fn events(group: &str, version: &str, schema: &str) -> Resource {
    let about = if group.is_empty() { "involvedObject" } else { "regarding" };
    let fields = ["apiVersion", "kind", "namespace", "name", "uid"].map(|field| format!("{about}.{field}"));
    let fields: Vec<&str> = fields.iter().map(String::as_str).chain(["reason", "type"]).collect();
    let mut resource = Resource::new(group, version, "Event", "events", true)
        .short(&["ev"])
        .with_verbs(READ_ONLY)
        .selectable_by(&fields)
        .printed(EVENT);
    resource.schema = component_of(schema).unwrap_or_default();
    if group.is_empty() {
        return resource;
    }
    let stored = ResourceId {
        group: "".into(),
        plural: "events".into(),
    };
    resource.seen_as(stored, new_event_of)
}

/// An event in the newer form.
fn new_event_of(event: Value) -> Option<Value> {
    Some(json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": event.get("metadata")?,
        "eventTime": null, "regarding": event.get("involvedObject")?, "note": event.get("message")?,
        "reason": event.get("reason")?, "type": event.get("type")?, "reportingController": event.get("reportingComponent")?,
        "reportingInstance": event.get("reportingInstance")?, "deprecatedSource": event.get("source")?,
        "deprecatedCount": event.get("count")?, "deprecatedFirstTimestamp": event.get("firstTimestamp")?,
        "deprecatedLastTimestamp": event.get("lastTimestamp")?,
    }))
}

const EVENT: Columns = Columns::Computed(
    &[
        column("Last Seen", "string"),
        column("Type", "string"),
        column("Reason", "string"),
        column("Object", "string"),
        column("Message", "string"),
        wide("First Seen"),
        wide("Count"),
        wide("Name"),
    ],
    event_row,
);

/// Both forms have the same in fields of other names.
fn event_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let of = |old: &str, new: &str| object.pointer(old).cloned().unwrap_or_else(|| at(object, new));
    let since = |old, new| json!(age(of(old, new).as_str(), now));
    let about = of("/involvedObject", "/regarding");
    let kind = text(&about, "/kind").to_ascii_lowercase();
    vec![
        since("/lastTimestamp", "/deprecatedLastTimestamp"),
        at(object, "/type"),
        at(object, "/reason"),
        json!(format!("{kind}/{}", text(&about, "/name"))),
        of("/message", "/note"),
        since("/firstTimestamp", "/deprecatedFirstTimestamp"),
        of("/count", "/deprecatedCount"),
        name(object),
    ]
}

fn namespaces() -> Resource {
    const COLUMNS: &[ColumnDefinition] = &[
        name_column(),
        column("Status", "string"),
        column("Age", "string"),
        wide("Cluster"),
    ];
    let mut resource = Resource::new("", "v1", "Namespace", "namespaces", false)
        .short(&["ns"])
        .with_verbs(READ_ONLY)
        .selectable_by(&["status.phase"])
        .printed(Columns::Computed(COLUMNS, |object, now| {
            let cluster = object.pointer("/metadata/labels/clusters.clusternet.io~1cluster-name");
            vec![name(object), json!("Active"), age_of(object, now), json!(cluster)]
        }));
    resource.schema = component_of("Namespace").unwrap_or_default();
    resource
}

/// A kind of Clusternet's as this hub shows it.
fn as_shown(resource: Resource) -> Resource {
    match &*resource.plural {
        "bases" => {
            let stored = ResourceId {
                group: APPS_GROUP.into(),
                plural: "descriptions".into(),
            };
            resource.seen_as(stored, base_of).printed(BASE)
        }
        "descriptions" => resource
            .printed(DESCRIPTION)
            .selectable_by(&["spec.deployer", "status.phase"]),
        "managedclusters" => resource
            .with_verbs(CHANGEABLE)
            .printed(CLUSTER)
            .selectable_by(&["spec.clusterId", "spec.clusterType"]),
        "clusterregistrationrequests" => resource.with_verbs(REMOVABLE).with_status().printed(REQUEST).selectable_by(&[
            "spec.clusterId",
            "spec.clusterName",
            "status.result",
        ]),
        "subscriptions" => resource.printed(SUBSCRIPTION),
        "localizations" | "globalizations" => {
            resource
                .printed(OVERRIDE)
                .selectable_by(&["spec.feed.kind", "spec.feed.namespace", "spec.feed.name"])
        }
        "helmcharts" => resource.printed(CHART).selectable_by(&["spec.chart"]),
        "helmreleases" => resource.printed(RELEASE).selectable_by(&["spec.chart"]),
        "manifests" => resource.printed(MANIFEST),
        "feedinventories" => resource.printed(INVENTORY),
        _ => resource,
    }
}

/// A Base is a Description before its overrides: the feeds that one Subscription gives one cluster.
fn base_of(description: Value) -> Option<Value> {
    let (metadata, feeds) = (description.get("metadata")?, description.pointer("/spec/feeds")?);
    let mut base = json!({"apiVersion": APPS_VERSION, "kind": "Base", "metadata": metadata, "spec": {"feeds": feeds}});
    let uid = text(&description, "/metadata/uid").as_bytes();
    base["metadata"]["uid"] = json!(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, uid).to_string());
    Some(base)
}

fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

fn at(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or_default()
}

fn short(reason: &str) -> Value {
    json!(cut(reason, REASON_BYTES))
}

fn condition<'a>(object: &'a Value, kind: &str, field: &str) -> &'a str {
    let found = list(object, "/status/conditions")
        .iter()
        .find(|condition| condition["type"] == kind);
    found.map_or("", |condition| text(condition, field))
}

/// Why it is not as it should be: the first of these conditions that does not hold.
fn why(object: &Value, kinds: &[&str]) -> Value {
    let wrong = kinds
        .iter()
        .find(|kind| !matches!(condition(object, kind, "/status"), "True" | ""));
    short(wrong.map_or("", |kind| condition(object, kind, "/message")))
}

fn source(object: &Value) -> Value {
    json!(
        object
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(SOURCE_ANNOTATION))
    )
}

/// `3/4`.
fn share(done: &Value, all: &Value) -> Value {
    json!(format!("{done}/{all}"))
}

/// `Deployment shop/web`.
fn feed(feed: &Value) -> String {
    let parts = [text(feed, "/namespace"), text(feed, "/name")];
    let named: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{} {}", text(feed, "/kind"), named.join("/"))
}

fn feeds(object: &Value) -> Value {
    let names: Vec<String> = list(object, "/spec/feeds").iter().map(feed).collect();
    short(&names.join(", "))
}

const CLUSTER: Columns = Columns::Computed(
    &[
        name_column(),
        column("Cluster ID", "string"),
        column("Sync Mode", "string"),
        column("Kubernetes", "string"),
        column("Status", "string"),
        column("Synced", "string"),
        column("Applied", "string"),
        column("Age", "string"),
        column("Why", "string"),
        wide("Cluster Type"),
        wide("Agent Version"),
        wide("Taints"),
        wide("Source"),
    ],
    cluster_row,
);

fn cluster_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let taint = |taint: &Value| format!("{}:{}", text(taint, "/key"), text(taint, "/effect"));
    let taints: Vec<String> = list(object, "/spec/taints").iter().map(taint).collect();
    vec![
        name(object),
        at(object, "/spec/clusterId"),
        at(object, "/spec/syncMode"),
        at(object, "/status/k8sVersion"),
        json!(condition(object, "Ready", "/status")),
        json!(condition(object, "Synced", "/status")),
        share(
            &at(object, "/status/descriptions/applied"),
            &at(object, "/status/descriptions/desired"),
        ),
        age_of(object, now),
        why(object, &["SingleAgent", "Ready", "Synced"]),
        at(object, "/spec/clusterType"),
        at(object, "/status/agentVersion"),
        json!(taints.join(",")),
        source(object),
    ]
}

const REQUEST: Columns = Columns::Computed(
    &[
        name_column(),
        column("Cluster ID", "string"),
        column("Cluster", "string"),
        column("Status", "string"),
        column("Age", "string"),
        column("Why", "string"),
    ],
    |object, now| {
        let status = match (text(object, "/status/result"), object.pointer("/status/pendingKeyDigest")) {
            ("", _) => "Pending",
            ("Approved", Some(_)) => "NewKeyPending",
            (result, _) => result,
        };
        vec![
            name(object),
            at(object, "/spec/clusterId"),
            at(object, "/spec/clusterName"),
            json!(status),
            age_of(object, now),
            json!(text(object, "/status/errorMessage")),
        ]
    },
);

const SUBSCRIPTION: Columns = Columns::Computed(
    &[
        name_column(),
        column("Bound", "integer"),
        column("Applied", "integer"),
        column("Synced", "string"),
        column("Valid", "string"),
        column("Age", "string"),
        wide("Strategy"),
        wide("Feeds"),
        wide("Clusters"),
        wide("Source"),
        wide("Why"),
    ],
    |object, now| {
        let clusters = list(object, "/status/bindingClusters").iter().filter_map(Value::as_str);
        let clusters: Vec<&str> = clusters
            .take(10)
            .map(|binding| binding.rsplit('/').next().unwrap_or_default())
            .collect();
        let strategy = match text(object, "/spec/schedulingStrategy") {
            "" => "Replication",
            strategy => strategy,
        };
        vec![
            name(object),
            at(object, "/status/desiredReleases"),
            at(object, "/status/completedReleases"),
            json!(condition(object, "Synced", "/status")),
            json!(condition(object, "Valid", "/status")),
            age_of(object, now),
            json!(strategy),
            feeds(object),
            short(&clusters.join(",")),
            source(object),
            why(object, &["Valid", "Synced"]),
        ]
    },
);

const DESCRIPTION: Columns = Columns::Computed(
    &[
        name_column(),
        column("Deployer", "string"),
        column("Status", "string"),
        column("Objects", "string"),
        column("Age", "string"),
        column("Why", "string"),
        wide("Cluster"),
        wide("Feeds"),
    ],
    |object, now| {
        vec![
            name(object),
            at(object, "/spec/deployer"),
            at(object, "/status/phase"),
            at(object, "/status/objects"),
            age_of(object, now),
            short(text(object, "/status/reason")),
            at(object, "/metadata/labels/clusters.clusternet.io~1cluster-name"),
            feeds(object),
        ]
    },
);

const BASE: Columns = Columns::Computed(
    &[
        name_column(),
        column("Cluster", "string"),
        column("Feeds", "string"),
        column("Age", "string"),
    ],
    |object, now| {
        let cluster = at(object, "/metadata/labels/clusters.clusternet.io~1cluster-name");
        vec![name(object), cluster, feeds(object), age_of(object, now)]
    },
);

const OVERRIDE: Columns = Columns::Computed(
    &[
        name_column(),
        column("Feed", "string"),
        column("Priority", "integer"),
        column("Policy", "string"),
        column("Source", "string"),
        wide("Overrides"),
    ],
    |object, _| {
        let kinds = list(object, "/spec/overrides").iter().map(|entry| text(entry, "/type"));
        let or = |pointer: &str, default: Value| match at(object, pointer) {
            Value::Null => default,
            stated => stated,
        };
        vec![
            name(object),
            json!(feed(&at(object, "/spec/feed"))),
            or("/spec/priority", json!(500)),
            or("/spec/overridePolicy", json!("ApplyNow")),
            source(object),
            short(&kinds.collect::<Vec<_>>().join(",")),
        ]
    },
);

const CHART: Columns = Columns::Computed(
    &[
        name_column(),
        column("Chart", "string"),
        column("Version", "string"),
        column("Repo", "string"),
        column("Source", "string"),
    ],
    |object, _| {
        let mut row = chart_cells(object);
        row.push(source(object));
        row
    },
);

const RELEASE: Columns = Columns::Computed(
    &[
        name_column(),
        column("Chart", "string"),
        column("Version", "string"),
        column("Repo", "string"),
        column("Status", "string"),
        column("Age", "string"),
        wide("Why"),
    ],
    |object, now| {
        let mut row = chart_cells(object);
        row.extend([
            at(object, "/status/phase"),
            age_of(object, now),
            short(text(object, "/status/description")),
        ]);
        row
    },
);

fn chart_cells(object: &Value) -> Vec<Value> {
    let fields = ["/spec/chart", "/spec/version", "/spec/repo"].map(|pointer| at(object, pointer));
    std::iter::once(name(object)).chain(fields).collect()
}

const MANIFEST: Columns = Columns::Computed(
    &[
        name_column(),
        column("Kind", "string"),
        column("Object", "string"),
        column("Source", "string"),
    ],
    |object, _| {
        let inner = |field| text(object, &format!("/template/metadata/{field}"));
        // Not in a column of its own, which would be the second one of that name.
        let named = match inner("namespace") {
            "" => inner("name").to_owned(),
            namespace => format!("{namespace}/{}", inner("name")),
        };
        vec![name(object), at(object, "/template/kind"), json!(named), source(object)]
    },
);

const INVENTORY: Columns = Columns::Computed(
    &[
        name_column(),
        column("Feeds", "string"),
        column("Replicas", "integer"),
        column("Source", "string"),
    ],
    |object, _| {
        let replicas = list(object, "/spec/feeds")
            .iter()
            .filter_map(|feed| feed["desiredReplicas"].as_i64());
        vec![name(object), feeds(object), json!(replicas.sum::<i64>()), source(object)]
    },
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let now = Timestamp::UNIX_EPOCH;
        for resource in resources() {
            let columns = resource.columns.definitions();
            let cells = resource.columns.cells(&json!({}), now);
            assert_eq!(Some(cells.len()), columns.as_array().map(Vec::len), "{}", resource.plural);
        }
    }

    #[test]
    fn why_names_the_first_condition_that_does_not_hold() {
        let object = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "message": "a"}, {"type": "Synced", "status": "False", "message": "b"},
        ]}});
        assert_eq!(why(&object, &["SingleAgent", "Ready", "Synced"]), json!("b"));
        assert_eq!(why(&object, &["Ready"]), json!(""));
    }
}
