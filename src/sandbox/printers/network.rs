//! Services, ingresses and policies.

use serde_json::{Value, json};

use super::{count, joined, labels, name, or, selector, shortened};
use crate::kubeapi::table::{ColumnDefinition, Columns, age_of, column, list, name_column, number, text, wide};

const AGE: ColumnDefinition = column("Age", "string");

pub(in super::super) const SERVICES: Columns = Columns::Computed(
    &[
        name_column(),
        column("Type", "string"),
        column("Cluster-IP", "string"),
        column("External-IP", "string"),
        column("Port(s)", "string"),
        AGE,
        wide("Selector"),
    ],
    |object, now| {
        vec![
            name(object),
            json!(or(object, "/spec/type", "ClusterIP")),
            json!(or(object, "/spec/clusterIP", "<none>")),
            json!(external_address(object)),
            json!(service_ports(object)),
            age_of(object, now),
            json!(labels(object, "/spec/selector")),
        ]
    },
);

pub(in super::super) const ENDPOINTS: Columns =
    Columns::Computed(&[name_column(), column("Endpoints", "string"), AGE], |object, now| {
        vec![name(object), json!(endpoints(object)), age_of(object, now)]
    });

pub(in super::super) const ENDPOINT_SLICES: Columns = Columns::Computed(
    &[
        name_column(),
        column("AddressType", "string"),
        column("Ports", "string"),
        column("Endpoints", "string"),
        AGE,
    ],
    |object, now| {
        let ports: Vec<String> = list(object, "/ports")
            .iter()
            .map(|port| number(port, "/port").to_string())
            .collect();
        let addresses: Vec<String> = list(object, "/endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "/addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        vec![
            name(object),
            json!(text(object, "/addressType")),
            json!(listed(ports)),
            json!(listed(addresses)),
            age_of(object, now),
        ]
    },
);

pub(in super::super) const INGRESSES: Columns = Columns::Computed(
    &[
        name_column(),
        column("Class", "string"),
        column("Hosts", "string"),
        column("Address", "string"),
        column("Ports", "string"),
        AGE,
    ],
    |object, now| {
        vec![
            name(object),
            json!(or(object, "/spec/ingressClassName", "<none>")),
            json!(hosts(object)),
            json!(addresses(object)),
            json!(if count(object, "/spec/tls") > 0 { "80, 443" } else { "80" }),
            age_of(object, now),
        ]
    },
);

pub(in super::super) const INGRESS_CLASSES: Columns = Columns::Computed(
    &[
        name_column(),
        column("Controller", "string"),
        column("Parameters", "string"),
        AGE,
    ],
    |object, now| {
        let parameters = object.pointer("/spec/parameters").map_or_else(
            || "<none>".to_owned(),
            |parameters| {
                let group = text(parameters, "/apiGroup");
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", text(parameters, "/kind"), text(parameters, "/name"))
            },
        );
        vec![
            name(object),
            json!(text(object, "/spec/controller")),
            json!(parameters),
            age_of(object, now),
        ]
    },
);

pub(in super::super) const NETWORK_POLICIES: Columns =
    Columns::Computed(&[name_column(), column("Pod-Selector", "string"), AGE], |object, now| {
        vec![
            name(object),
            json!(selector(object, "/spec/podSelector")),
            age_of(object, now),
        ]
    });

pub(in super::super) const DISRUPTION_BUDGETS: Columns = Columns::Computed(
    &[
        name_column(),
        column("Min Available", "string"),
        column("Max Unavailable", "string"),
        column("Allowed Disruptions", "integer"),
        AGE,
    ],
    |object, now| {
        let bound = |pointer: &str| match object.pointer(pointer) {
            None => "N/A".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        vec![
            name(object),
            json!(bound("/spec/minAvailable")),
            json!(bound("/spec/maxUnavailable")),
            json!(number(object, "/status/disruptionsAllowed")),
            age_of(object, now),
        ]
    },
);

fn external_address(object: &Value) -> String {
    let external = list(object, "/spec/externalIPs");
    let external: Vec<String> = external.iter().filter_map(|ip| ip.as_str().map(str::to_owned)).collect();
    match (text(object, "/spec/type"), external.is_empty()) {
        ("ExternalName", _) => text(object, "/spec/externalName").to_owned(),
        ("LoadBalancer", _) => {
            let all: Vec<String> = std::iter::once(addresses(object))
                .filter(|text| !text.is_empty())
                .chain(external)
                .collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        (_, true) => "<none>".to_owned(),
        (_, false) => external.join(","),
    }
}

fn addresses(object: &Value) -> String {
    let entries = list(object, "/status/loadBalancer/ingress").iter();
    entries
        .map(|entry| or(entry, "/ip", text(entry, "/hostname")))
        .collect::<Vec<_>>()
        .join(",")
}

fn service_ports(object: &Value) -> String {
    let ports = list(object, "/spec/ports").iter().map(|port| {
        let protocol = or(port, "/protocol", "TCP");
        match (number(port, "/port"), number(port, "/nodePort")) {
            (port, 0) => format!("{port}/{protocol}"),
            (port, node_port) => format!("{port}:{node_port}/{protocol}"),
        }
    });
    match ports.collect::<Vec<_>>().join(",") {
        none if none.is_empty() => "<none>".to_owned(),
        ports => ports,
    }
}

fn hosts(object: &Value) -> String {
    let hosts = joined(object, "/spec/rules", "/host", "\n");
    let named: Vec<String> = hosts.lines().filter(|host| !host.is_empty()).map(str::to_owned).collect();
    match named.is_empty() {
        true => "*".to_owned(),
        false => shortened(named, count(object, "/spec/rules"), 3),
    }
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        let ports: Vec<String> = match list(subset, "/ports") {
            [] => vec![String::new()],
            ports => ports.iter().map(|port| format!(":{}", number(port, "/port"))).collect(),
        };
        for port in ports {
            all.extend(
                list(subset, "/addresses")
                    .iter()
                    .map(|address| format!("{}{port}", text(address, "/ip"))),
            );
        }
    }
    match all.len() {
        0 => "<none>".to_owned(),
        total => shortened(all, total, 3),
    }
}

fn listed(texts: Vec<String>) -> String {
    match texts.len() {
        0 => "<unset>".to_owned(),
        total => shortened(texts, total, 3),
    }
}
