//! Nodes, namespaces, configuration, storage and events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{count, name, or};
use crate::kubeapi::table::{ColumnDefinition, Columns, age, age_of, column, list, name_column, number, text, wide};

const AGE: ColumnDefinition = column("Age", "string");

pub(in super::super) const NAMESPACES: Columns =
    Columns::Computed(&[name_column(), column("Status", "string"), AGE], |object, now| {
        vec![name(object), json!(text(object, "/status/phase")), age_of(object, now)]
    });

pub(in super::super) const CONFIG_MAPS: Columns =
    Columns::Computed(&[name_column(), column("Data", "string"), AGE], |object, now| {
        let entries = count(object, "/data") + count(object, "/binaryData");
        vec![name(object), json!(entries.to_string()), age_of(object, now)]
    });

pub(in super::super) const SECRETS: Columns = Columns::Computed(
    &[name_column(), column("Type", "string"), column("Data", "string"), AGE],
    |object, now| {
        let entries = count(object, "/data").to_string();
        vec![
            name(object),
            json!(or(object, "/type", "Opaque")),
            json!(entries),
            age_of(object, now),
        ]
    },
);

pub(in super::super) const SERVICE_ACCOUNTS: Columns =
    Columns::Computed(&[name_column(), AGE], |object, now| vec![name(object), age_of(object, now)]);

pub(in super::super) const NODES: Columns = Columns::Computed(
    &[
        name_column(),
        column("Status", "string"),
        column("Roles", "string"),
        AGE,
        column("Version", "string"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    |object, now| {
        vec![
            name(object),
            json!(node_status(object)),
            json!(node_roles(object)),
            age_of(object, now),
            json!(text(object, "/status/nodeInfo/kubeletVersion")),
            json!(node_address(object, "InternalIP")),
            json!(node_address(object, "ExternalIP")),
            json!(or(object, "/status/nodeInfo/osImage", "<unknown>")),
            json!(or(object, "/status/nodeInfo/kernelVersion", "<unknown>")),
            json!(or(object, "/status/nodeInfo/containerRuntimeVersion", "<unknown>")),
        ]
    },
);

pub(in super::super) const EVENTS: Columns = Columns::Computed(
    &[
        column("Last Seen", "string"),
        column("Type", "string"),
        column("Reason", "string"),
        column("Object", "string"),
        wide("Subobject"),
        wide("Source"),
        column("Message", "string"),
        wide("First Seen"),
        wide("Count"),
        ColumnDefinition {
            format: "name",
            ..wide("Name")
        },
    ],
    event_row,
);

pub(in super::super) const PERSISTENT_VOLUMES: Columns = Columns::Computed(
    &[
        name_column(),
        column("Capacity", "string"),
        column("Access Modes", "string"),
        column("Reclaim Policy", "string"),
        column("Status", "string"),
        column("Claim", "string"),
        column("StorageClass", "string"),
        column("VolumeAttributesClass", "string"),
        column("Reason", "string"),
        AGE,
        wide("VolumeMode"),
    ],
    |object, now| {
        let claim = object.pointer("/spec/claimRef").map_or_else(String::new, |claim| {
            format!("{}/{}", text(claim, "/namespace"), text(claim, "/name"))
        });
        vec![
            name(object),
            json!(or(object, "/spec/capacity/storage", "0")),
            json!(access_modes(object, "/spec/accessModes")),
            json!(or(object, "/spec/persistentVolumeReclaimPolicy", "Retain")),
            json!(volume_phase(object)),
            json!(claim),
            json!(text(object, "/spec/storageClassName")),
            json!(or(object, "/spec/volumeAttributesClassName", "<unset>")),
            json!(text(object, "/status/reason")),
            age_of(object, now),
            json!(or(object, "/spec/volumeMode", "Filesystem")),
        ]
    },
);

pub(in super::super) const PERSISTENT_VOLUME_CLAIMS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Status", "string"),
        column("Volume", "string"),
        column("Capacity", "string"),
        column("Access Modes", "string"),
        column("StorageClass", "string"),
        column("VolumeAttributesClass", "string"),
        AGE,
        wide("VolumeMode"),
    ],
    |object, now| {
        let bound = !text(object, "/spec/volumeName").is_empty();
        let when_bound = |text: String| if bound { text } else { String::new() };
        vec![
            name(object),
            json!(volume_phase(object)),
            json!(text(object, "/spec/volumeName")),
            json!(when_bound(or(object, "/status/capacity/storage", "0").to_owned())),
            json!(when_bound(access_modes(object, "/status/accessModes"))),
            json!(text(object, "/spec/storageClassName")),
            json!(or(object, "/spec/volumeAttributesClassName", "<unset>")),
            age_of(object, now),
            json!(or(object, "/spec/volumeMode", "Filesystem")),
        ]
    },
);

pub(in super::super) const STORAGE_CLASSES: Columns = Columns::Computed(
    &[
        name_column(),
        column("Provisioner", "string"),
        column("ReclaimPolicy", "string"),
        column("VolumeBindingMode", "string"),
        column("AllowVolumeExpansion", "string"),
        AGE,
    ],
    |object, now| {
        let is_default = text(object, "/metadata/annotations/storageclass.kubernetes.io~1is-default-class") == "true";
        let suffix = if is_default { " (default)" } else { "" };
        let expands = object
            .pointer("/allowVolumeExpansion")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        vec![
            json!(format!("{}{suffix}", text(object, "/metadata/name"))),
            json!(text(object, "/provisioner")),
            json!(or(object, "/reclaimPolicy", "Delete")),
            json!(or(object, "/volumeBindingMode", "Immediate")),
            json!(expands),
            age_of(object, now),
        ]
    },
);

pub(in super::super) const LEASES: Columns =
    Columns::Computed(&[name_column(), column("Holder", "string"), AGE], |object, now| {
        vec![name(object), json!(text(object, "/spec/holderIdentity")), age_of(object, now)]
    });

pub(in super::super) const PRIORITY_CLASSES: Columns = Columns::Computed(
    &[
        name_column(),
        column("Value", "integer"),
        column("Global-Default", "boolean"),
        AGE,
        column("PreemptionPolicy", "string"),
    ],
    |object, now| {
        let global = object.pointer("/globalDefault").and_then(Value::as_bool).unwrap_or(false);
        vec![
            name(object),
            json!(number(object, "/value")),
            json!(global),
            age_of(object, now),
            json!(or(object, "/preemptionPolicy", "PreemptLowerPriority")),
        ]
    },
);

pub(in super::super) const RUNTIME_CLASSES: Columns =
    Columns::Computed(&[name_column(), column("Handler", "string"), AGE], |object, now| {
        vec![name(object), json!(text(object, "/handler")), age_of(object, now)]
    });

pub(in super::super) const CONTROLLER_REVISIONS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Controller", "string"),
        column("Revision", "string"),
        AGE,
    ],
    |object, now| {
        let owner = list(object, "/metadata/ownerReferences")
            .iter()
            .find(|owner| owner["controller"] == true);
        let controller = owner.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let group = crate::core::ids::group_of(text(owner, "/apiVersion"));
                format!("{}.{group}/{}", text(owner, "/kind").to_lowercase(), text(owner, "/name"))
            },
        );
        let revision = number(object, "/revision").to_string();
        vec![name(object), json!(controller), json!(revision), age_of(object, now)]
    },
);

pub(in super::super) const RESOURCE_QUOTAS: Columns = Columns::Computed(
    &[name_column(), column("Request", "string"), column("Limit", "string"), AGE],
    |object, now| {
        let used_of_hard = |limits: bool| -> String {
            let hard = object.pointer("/status/hard").and_then(Value::as_object);
            let chosen = hard
                .into_iter()
                .flatten()
                .filter(|(key, _)| key.starts_with("limits.") == limits);
            chosen
                .map(|(key, hard)| {
                    let used = object
                        .pointer("/status/used")
                        .and_then(|used| used.get(key))
                        .and_then(Value::as_str);
                    format!("{key}: {}/{}", used.unwrap_or("0"), hard.as_str().unwrap_or("0"))
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        vec![
            name(object),
            json!(used_of_hard(false)),
            json!(used_of_hard(true)),
            age_of(object, now),
        ]
    },
);

pub(in super::super) const WEBHOOKS: Columns =
    Columns::Computed(&[name_column(), column("Webhooks", "integer"), AGE], |object, now| {
        vec![name(object), json!(count(object, "/webhooks")), age_of(object, now)]
    });

fn node_status(object: &Value) -> String {
    let ready = list(object, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&json!(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(object: &Value) -> String {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            _ => None,
        })
        .collect();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn node_address<'a>(object: &'a Value, kind: &str) -> &'a str {
    let address = list(object, "/status/addresses")
        .iter()
        .find(|address| text(address, "/type") == kind);
    address.map_or("<none>", |address| text(address, "/address"))
}

fn event_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let since = |pointers: &[&str]| {
        let time = pointers
            .iter()
            .find_map(|pointer| object.pointer(pointer).and_then(Value::as_str));
        json!(age(time, now))
    };
    let target = match (
        text(object, "/involvedObject/kind").to_lowercase(),
        text(object, "/involvedObject/name"),
    ) {
        (kind, "") => kind,
        (kind, name) => format!("{kind}/{name}"),
    };
    let component = or(object, "/source/component", text(object, "/reportingComponent"));
    let host = or(object, "/source/host", text(object, "/reportingInstance"));
    let source = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    let count = number(object, "/series/count").max(number(object, "/count")).max(1);
    vec![
        since(&["/series/lastObservedTime", "/lastTimestamp", "/firstTimestamp", "/eventTime"]),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(target),
        json!(text(object, "/involvedObject/fieldPath")),
        json!(source),
        json!(text(object, "/message").trim()),
        since(&["/firstTimestamp", "/eventTime"]),
        json!(count),
        name(object),
    ]
}

fn volume_phase(object: &Value) -> &str {
    match object.pointer("/metadata/deletionTimestamp") {
        Some(_) => "Terminating",
        None => or(object, "/status/phase", "Pending"),
    }
}

fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = list(object, pointer).iter().filter_map(Value::as_str);
    modes
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect::<Vec<_>>()
        .join(",")
}
