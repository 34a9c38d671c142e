//! Pods and what makes them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{condition_is_true, containers, count, labels, name, or, selector};
use crate::kubeapi::table::{
    ColumnDefinition, Columns, age, age_of, column, human_duration, list, name_column, number, text, wide,
};

const CONTAINERS: ColumnDefinition = wide("Containers");
const IMAGES: ColumnDefinition = wide("Images");
const SELECTOR: ColumnDefinition = wide("Selector");
const AGE: ColumnDefinition = column("Age", "string");

pub(in super::super) const DEPLOYMENTS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Ready", "string"),
        column("Up-to-date", "string"),
        column("Available", "string"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    |object, now| {
        let (names, images) = containers(object, "/spec/template/spec/containers");
        let ready = format!("{}/{}", number(object, "/status/readyReplicas"), wanted(object));
        let updated = number(object, "/status/updatedReplicas").to_string();
        let available = number(object, "/status/availableReplicas").to_string();
        let selector = selector(object, "/spec/selector");
        vec![
            name(object),
            json!(ready),
            json!(updated),
            json!(available),
            age_of(object, now),
            json!(names),
            json!(images),
            json!(selector),
        ]
    },
);

pub(in super::super) const STATEFUL_SETS: Columns = Columns::Computed(
    &[name_column(), column("Ready", "string"), AGE, CONTAINERS, IMAGES],
    |object, now| {
        let (names, images) = containers(object, "/spec/template/spec/containers");
        let ready = format!("{}/{}", number(object, "/status/readyReplicas"), wanted(object));
        vec![name(object), json!(ready), age_of(object, now), json!(names), json!(images)]
    },
);

pub(in super::super) const REPLICA_SETS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Desired", "integer"),
        column("Current", "integer"),
        column("Ready", "integer"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    |object, now| {
        let (names, images) = containers(object, "/spec/template/spec/containers");
        vec![
            name(object),
            json!(wanted(object)),
            json!(number(object, "/status/replicas")),
            json!(number(object, "/status/readyReplicas")),
            age_of(object, now),
            json!(names),
            json!(images),
            json!(selector_or_labels(object)),
        ]
    },
);

pub(in super::super) const DAEMON_SETS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Desired", "integer"),
        column("Current", "integer"),
        column("Ready", "integer"),
        column("Up-to-date", "integer"),
        column("Available", "integer"),
        column("Node Selector", "string"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    |object, now| {
        let (names, images) = containers(object, "/spec/template/spec/containers");
        vec![
            name(object),
            json!(number(object, "/status/desiredNumberScheduled")),
            json!(number(object, "/status/currentNumberScheduled")),
            json!(number(object, "/status/numberReady")),
            json!(number(object, "/status/updatedNumberScheduled")),
            json!(number(object, "/status/numberAvailable")),
            json!(labels(object, "/spec/template/spec/nodeSelector")),
            age_of(object, now),
            json!(names),
            json!(images),
            json!(selector(object, "/spec/selector")),
        ]
    },
);

pub(in super::super) const JOBS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Status", "string"),
        column("Completions", "string"),
        column("Duration", "string"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    |object, now| {
        let (names, images) = containers(object, "/spec/template/spec/containers");
        vec![
            name(object),
            json!(job_status(object)),
            json!(completions(object)),
            json!(job_duration(object, now)),
            age_of(object, now),
            json!(names),
            json!(images),
            json!(selector(object, "/spec/selector")),
        ]
    },
);

pub(in super::super) const CRON_JOBS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Schedule", "string"),
        column("Timezone", "string"),
        column("Suspend", "boolean"),
        column("Active", "integer"),
        column("Last Schedule", "string"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    |object, now| {
        let (names, images) = containers(object, "/spec/jobTemplate/spec/template/spec/containers");
        let last = object.pointer("/status/lastScheduleTime").and_then(Value::as_str);
        let suspend = object.pointer("/spec/suspend").and_then(Value::as_bool).unwrap_or(false);
        vec![
            name(object),
            json!(text(object, "/spec/schedule")),
            json!(or(object, "/spec/timeZone", "<none>")),
            json!(if suspend { "True" } else { "False" }),
            json!(count(object, "/status/active")),
            json!(last.map_or_else(|| "<none>".to_owned(), |last| age(Some(last), now))),
            age_of(object, now),
            json!(names),
            json!(images),
            json!(selector(object, "/spec/jobTemplate/spec/selector")),
        ]
    },
);

pub(in super::super) const AUTOSCALERS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Reference", "string"),
        column("MinPods", "string"),
        column("MaxPods", "string"),
        column("Replicas", "string"),
        AGE,
    ],
    |object, now| {
        let target = |field: &str| text(object, &format!("/spec/scaleTargetRef/{field}"));
        let minimum = object.pointer("/spec/minReplicas").and_then(Value::as_i64).unwrap_or(1);
        vec![
            name(object),
            json!(format!("{}/{}", target("kind"), target("name"))),
            json!(minimum.to_string()),
            json!(number(object, "/spec/maxReplicas").to_string()),
            json!(number(object, "/status/currentReplicas").to_string()),
            age_of(object, now),
        ]
    },
);

pub(in super::super) const PODS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Ready", "string"),
        column("Status", "string"),
        column("Restarts", "string"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    |object, now| {
        let statuses = list(object, "/status/containerStatuses");
        let ready = statuses.iter().filter(|status| status["ready"] == true).count();
        let restarts: i64 = statuses.iter().map(|status| number(status, "/restartCount")).sum();
        vec![
            name(object),
            json!(format!("{ready}/{}", count(object, "/spec/containers"))),
            json!(pod_status(object)),
            json!(restarts.to_string()),
            age_of(object, now),
            json!(or(object, "/status/podIP", "<none>")),
            json!(or(object, "/spec/nodeName", "<none>")),
            json!(or(object, "/status/nominatedNodeName", "<none>")),
            json!(readiness_gates(object)),
        ]
    },
);

/// Replicas asked for; Kubernetes defaults them to 1.
fn wanted(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

/// ReplicationControllers select by a plain map.
fn selector_or_labels(object: &Value) -> String {
    match text(object, "/kind") {
        "ReplicationController" => labels(object, "/spec/selector"),
        _ => selector(object, "/spec/selector"),
    }
}

fn pod_status(object: &Value) -> &str {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating";
    }
    let statuses = list(object, "/status/containerStatuses").iter().rev();
    let mut reason = or(object, "/status/reason", or(object, "/status/phase", "Pending"));
    for status in statuses {
        let waiting = text(status, "/state/waiting/reason");
        let terminated = text(status, "/state/terminated/reason");
        reason = [waiting, terminated]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or(reason);
    }
    reason
}

fn readiness_gates(object: &Value) -> String {
    let gates = list(object, "/spec/readinessGates");
    let ready = gates
        .iter()
        .filter(|gate| condition_is_true(object, text(gate, "/conditionType")));
    match gates.len() {
        0 => "<none>".to_owned(),
        all => format!("{}/{all}", ready.count()),
    }
}

fn job_status(object: &Value) -> &'static str {
    let terminating = object.pointer("/metadata/deletionTimestamp").is_some();
    let states = [
        ("Complete", condition_is_true(object, "Complete")),
        ("Failed", condition_is_true(object, "Failed")),
        ("Terminating", terminating),
        ("Suspended", condition_is_true(object, "Suspended")),
        ("FailureTarget", condition_is_true(object, "FailureTarget")),
        ("SuccessCriteriaMet", condition_is_true(object, "SuccessCriteriaMet")),
    ];
    states
        .into_iter()
        .find(|(_, holds)| *holds)
        .map_or("Running", |(state, _)| state)
}

fn completions(object: &Value) -> String {
    let succeeded = number(object, "/status/succeeded");
    let parallelism = object.pointer("/spec/parallelism").and_then(Value::as_i64);
    match (object.pointer("/spec/completions").and_then(Value::as_i64), parallelism) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn job_duration(object: &Value, now: Timestamp) -> String {
    let time = |pointer: &str| text(object, pointer).parse::<Timestamp>().ok();
    match (time("/status/startTime"), time("/status/completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => human_duration(end.unwrap_or(now).as_second() - start.as_second()),
    }
}
