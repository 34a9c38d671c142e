//! Clusternet's kinds from source objects: typed, checked, and honest about what this version does not carry out.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::bundle::is_bundle;
use super::helm::is_chart;
use super::{Definition, Reading, Snapshot};
use crate::core::api::subscription::{Feed, SubscriptionSpec};
use crate::core::api::{APPS_GROUP, BRANCHLINE_GROUP, CLUSTERS_GROUP};
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ClusterId, ObjectKey, is_dns_name};
use crate::core::selector::{Labels, Selector, check_label};

/// A Subscription that can be carried out.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// A cluster is chosen when any of these matches.
    pub selectors: Vec<Selector>,
    /// Feeds in order, each once.
    pub feeds: Vec<Feed>,
    /// Where it is defined.
    pub definition: Definition,
}

/// A ManagedCluster below `hub/`: what people say about a cluster.
#[derive(Debug, Clone)]
pub struct ClusterDefinition {
    /// Name.
    pub name: String,
    /// The dedicated namespace, where it states one.
    pub namespace: Option<String>,
    /// The cluster id that is approved ahead of its first contact.
    pub cluster_id: Option<ClusterId>,
    /// Labels.
    pub labels: Labels,
}

/// Reads a typed `spec`; unknown and malformed fields become diagnostics and `None`.
pub(super) fn read_spec<T: DeserializeOwned>(definition: &Definition, diagnostics: &mut Vec<Diagnostic>) -> Option<T> {
    let before = diagnostics.len();
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    for (field, _) in definition.object.fields().filter(|(field, _)| !known.contains(field)) {
        diagnostics.push(unknown_field(definition, &format!("/{field}")));
    }
    let (result, unknown) = parse_spec::<T>(definition.object.pointer("/spec").cloned().unwrap_or_default());
    diagnostics.extend(unknown.iter().map(|pointer| unknown_field(definition, pointer)));
    match result {
        Ok(typed) => (diagnostics.len() == before).then_some(typed),
        Err((pointer, message)) => {
            let diagnostic = Diagnostic::error("invalid-field", message).field(&*pointer);
            diagnostics.push(definition.locate(diagnostic.hint("see the field's type in Clusternet's API"), &pointer));
            None
        }
    }
}

/// A typed spec, or the pointer and the problem of what has the wrong type; and the pointers of fields that are not known.
pub(super) fn parse_spec<T: DeserializeOwned>(spec: Value) -> (Result<T, (String, String)>, Vec<String>) {
    let mut unknown = Vec::new();
    let mut note =
        |path: serde_ignored::Path<'_>| unknown.push(format!("/spec/{}", path.to_string().replace('.', "/").replace("/?", "")));
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_ignored::Deserializer::new(spec, &mut note);
    let result = T::deserialize(serde_path_to_error::Deserializer::new(reader, &mut track));
    let result = result.map_err(|error| (pointer_of(&track.path().to_string()), error.to_string()));
    (result, unknown)
}

fn pointer_of(path: &str) -> String {
    let path = path.replace('[', ".").replace(']', "");
    if path == "." {
        "/spec".to_owned()
    } else {
        format!("/spec/{}", path.trim_start_matches('.').replace('.', "/"))
    }
}

pub(super) fn unknown_field(definition: &Definition, pointer: &str) -> Diagnostic {
    let field = pointer.rsplit('/').next().unwrap_or_default();
    let message = format!("unknown field {field:?}");
    definition.locate(
        Diagnostic::error("unknown-field", message)
            .field(pointer)
            .hint("check its spelling and its place"),
        pointer,
    )
}

pub(super) fn unsupported(definition: &Definition, pointer: &str, what: &str) -> Diagnostic {
    let diagnostic = Diagnostic::error("unsupported", format!("{what} is not carried out by this version")).field(pointer);
    definition.locate(diagnostic.hint("take it out; until then the last result stays"), pointer)
}

pub(super) fn invalid(definition: &Definition, pointer: &str, message: impl Into<String>, hint: &str) -> Diagnostic {
    definition.locate(Diagnostic::error("invalid-field", message).field(pointer).hint(hint), pointer)
}

/// Adds a Subscription; one that cannot be carried out is held whole.
pub(super) fn add_subscription(snapshot: &mut Snapshot, key: &ObjectKey, definition: &Definition, out: &mut Vec<Diagnostic>) {
    let before = out.len();
    let namespace = key.namespace.clone().unwrap_or_default();
    check_names(definition, &namespace, out);
    let read = read_spec::<SubscriptionSpec>(definition, out).and_then(|spec| {
        check_subscription(&spec, definition, out);
        let selectors = read_selectors(&spec, definition, out);
        let feeds = read_feeds(&spec, definition, out);
        let clean = out[before..].iter().all(|diagnostic| !diagnostic.is_error());
        clean.then(|| Subscription {
            namespace: namespace.clone(),
            name: key.name.clone(),
            selectors,
            feeds,
            definition: definition.clone(),
        })
    });
    let reading = read.map_or(Reading::Unreadable, |subscription| Reading::Valid(subscription.into()));
    snapshot.subscriptions.insert((namespace, key.name.clone()), reading);
}

/// Names become paths on the state branch and namespaces in clusters, so they follow Kubernetes' rules for both.
fn check_names(definition: &Definition, namespace: &str, out: &mut Vec<Diagnostic>) {
    if !is_dns_name(namespace, 63, false) {
        out.push(invalid(
            definition,
            "/metadata/namespace",
            format!("{namespace:?} is not a namespace name"),
            DNS_HINT,
        ));
    }
    // The state branch has a file `<name>.yaml` and may have a directory `<name>/` side by side.
    let name = definition.object.name();
    if !is_dns_name(name, 253, true) || name.ends_with(".yaml") {
        out.push(invalid(
            definition,
            "/metadata/name",
            format!("{name:?} is not a Subscription name"),
            DNS_HINT,
        ));
    }
}

pub(super) const DNS_HINT: &str = "use lower-case letters, digits and dashes (RFC 1123)";

fn check_subscription(spec: &SubscriptionSpec, definition: &Definition, out: &mut Vec<Diagnostic>) {
    let mut report = |pointer: &str, what: &str| out.push(unsupported(definition, pointer, what));
    match spec.scheduling_strategy.as_deref() {
        None | Some("" | "Replication") => {}
        Some("Dividing") => report("/spec/schedulingStrategy", "schedulingStrategy Dividing"),
        Some(_) => report("/spec/schedulingStrategy", "a schedulingStrategy other than Replication"),
    }
    if spec.dividing_scheduling.is_some() {
        report("/spec/dividingScheduling", "dividingScheduling");
    }
    if spec.scheduling_by_sub_group == Some(true) {
        report("/spec/schedulingBySubGroup", "schedulingBySubGroup");
    }
    if !matches!(spec.scheduler_name.as_deref(), None | Some("" | "default")) {
        report("/spec/schedulerName", "a schedulerName other than default");
    }
    if !matches!(
        spec.preemption_policy.as_deref(),
        None | Some("" | "PreemptLowerPriority" | "PreemptNever" | "Never")
    ) {
        report("/spec/preemptionPolicy", "this preemptionPolicy");
    }
    if !spec.cluster_tolerations.is_empty() {
        report("/spec/clusterTolerations", "clusterTolerations");
    }
    for (index, subscriber) in spec.subscribers.iter().enumerate() {
        if subscriber.sub_group_strategy.is_some() {
            report(&format!("/spec/subscribers/{index}/subGroupStrategy"), "subGroupStrategy");
        }
    }
}

fn read_selectors(spec: &SubscriptionSpec, definition: &Definition, out: &mut Vec<Diagnostic>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (index, subscriber) in spec.subscribers.iter().enumerate() {
        let pointer = format!("/spec/subscribers/{index}");
        match Selector::parse(&subscriber.cluster_affinity) {
            Ok(selector) => selectors.push(selector),
            Err(error) => out.push(invalid(
                definition,
                &format!("{pointer}/clusterAffinity{}", error.pointer),
                error.message,
                "correct the selector",
            )),
        }
        match subscriber.weight {
            Some(weight) if weight < 0 => {
                out.push(invalid(
                    definition,
                    &format!("{pointer}/weight"),
                    format!("weight {weight} is negative"),
                    "use 0 or more",
                ));
            }
            Some(_) => {
                let pointer = format!("{pointer}/weight");
                let diagnostic =
                    Diagnostic::warning("weight-without-dividing", "a weight has no effect with Replication").field(&*pointer);
                out.push(definition.locate(diagnostic.hint("take it out"), &pointer));
            }
            None => {}
        }
    }
    if spec.subscribers.is_empty() {
        out.push(invalid(
            definition,
            "/spec/subscribers",
            "no subscribers, so no cluster can be chosen",
            "add one with a clusterAffinity",
        ));
    }
    selectors
}

fn read_feeds(spec: &SubscriptionSpec, definition: &Definition, out: &mut Vec<Diagnostic>) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = Vec::new();
    for (index, feed) in spec.feeds.iter().enumerate() {
        let pointer = format!("/spec/feeds/{index}");
        let feed = &placed(feed);
        let key = feed.key();
        match (key.group.as_str(), key.kind.as_str()) {
            (APPS_GROUP | CLUSTERS_GROUP | BRANCHLINE_GROUP, kind) if !is_chart(&key) && !is_bundle(&key) => {
                out.push(invalid(
                    definition,
                    &pointer,
                    format!("{kind} cannot be a feed"),
                    "name a Kubernetes object",
                ));
            }
            _ if feeds.iter().any(|known| known.key() == key) => {
                let diagnostic = Diagnostic::warning("duplicate-feed", format!("{feed} is listed twice")).field(&*pointer);
                out.push(definition.locate(diagnostic.hint("list it once"), &pointer));
            }
            _ => feeds.push(feed.clone()),
        }
    }
    feeds
}

/// A feed with the namespace that its object is looked up in.
pub(super) fn placed(feed: &Feed) -> Feed {
    let key = super::with_default_namespace(feed.key());
    Feed {
        namespace: key.namespace,
        ..feed.clone()
    }
}

/// Adds an object below `hub/`.
pub(super) fn add_hub_object(snapshot: &mut Snapshot, definition: &Definition, out: &mut Vec<Diagnostic>) {
    let object = &definition.object;
    if (object.group(), object.kind()) != (CLUSTERS_GROUP, "ManagedCluster") {
        out.push(unsupported(definition, "/kind", &format!("{} below hub/", object.kind())));
        return;
    }
    let before = out.len();
    let cluster = read_cluster(definition, out).filter(|_| out.len() == before);
    let reading = cluster.map_or(Reading::Unreadable, |cluster| Reading::Valid(cluster.into()));
    let name = object.name().to_owned();
    if let Some(known) = snapshot.clusters.get_mut(&name) {
        let message = format!("ManagedCluster {name} is defined more than once below hub/");
        let diagnostic = Diagnostic::error("duplicate-object", message).hint("keep one");
        out.push(definition.locate(diagnostic, "/metadata/name"));
        *known = Reading::Unreadable;
    } else {
        snapshot.clusters.insert(name, reading);
    }
}

fn read_cluster(definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<ClusterDefinition> {
    let object = &definition.object;
    if !is_dns_name(object.name(), 63, true) {
        out.push(invalid(
            definition,
            "/metadata/name",
            format!("{:?} is not a cluster name", object.name()),
            DNS_HINT,
        ));
    }
    if let Some(namespace) = object.namespace().filter(|namespace| !is_dns_name(namespace, 63, false)) {
        out.push(invalid(
            definition,
            "/metadata/namespace",
            format!("{namespace:?} is not a namespace name"),
            DNS_HINT,
        ));
    }
    if object
        .pointer("/spec/taints")
        .and_then(Value::as_array)
        .is_some_and(|taints| !taints.is_empty())
    {
        out.push(unsupported(definition, "/spec/taints", "a cluster's taint"));
    }
    let known = ["clusterId", "clusterType", "syncMode", "taints"];
    for field in object
        .pointer("/spec")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(field, _)| field)
    {
        if !known.contains(&field.as_str()) {
            out.push(unknown_field(definition, &format!("/spec/{field}")));
        }
    }
    let cluster_id = match object
        .pointer("/spec/clusterId")
        .and_then(Value::as_str)
        .map(str::parse::<ClusterId>)
    {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(error)) => {
            out.push(invalid(
                definition,
                "/spec/clusterId",
                error.to_string(),
                "kubectl get ns kube-system -o jsonpath={.metadata.uid}",
            ));
            None
        }
    };
    Some(ClusterDefinition {
        name: object.name().to_owned(),
        namespace: object.namespace().map(str::to_owned),
        cluster_id,
        labels: read_labels(definition, out),
    })
}

fn read_labels(definition: &Definition, out: &mut Vec<Diagnostic>) -> Labels {
    let mut labels = Labels::new();
    for (key, value) in definition.object.labels() {
        match check_label(key, value) {
            Ok(()) => drop(labels.insert(key.to_owned(), value.to_owned())),
            Err(problem) => {
                let pointer = format!("/metadata/labels/{}", key.replace('~', "~0").replace('/', "~1"));
                out.push(invalid(definition, &pointer, problem, "correct the label"));
            }
        }
    }
    labels
}
