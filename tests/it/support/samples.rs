//! The YAML that tests push: small Clusternet objects, as text, because text is what people push.

use serde_json::{Value, json};

/// A feed by kind and name in namespace `shop`.
pub(crate) fn feed(api_version: &str, kind: &str, name: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "namespace": "shop", "name": name })
}

/// The feed of a ConfigMap in namespace `shop`.
pub(crate) fn config_map_feed(name: &str) -> Value {
    feed("v1", "ConfigMap", name)
}

/// The feed of a cluster-scoped object.
pub(crate) fn cluster_feed(api_version: &str, kind: &str, name: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "name": name })
}

/// A Subscription in namespace `shop` of these feeds for the clusters with these labels; no labels means all clusters.
pub(crate) fn subscription(name: &str, labels: &[(&str, &str)], feeds: &[Value]) -> String {
    let labels: serde_json::Map<String, Value> = labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let affinity = if labels.is_empty() {
        json!({})
    } else {
        json!({ "matchLabels": labels })
    };
    document(&json!({
        "apiVersion": "apps.clusternet.io/v1alpha1", "kind": "Subscription",
        "metadata": { "namespace": "shop", "name": name },
        "spec": { "subscribers": [{ "clusterAffinity": affinity }], "feeds": feeds },
    }))
}

/// A ConfigMap in namespace `shop` with one entry, `greeting`.
pub(crate) fn config_map(name: &str, greeting: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  namespace: shop\n  name: {name}\ndata:\n  greeting: {greeting}\n")
}

/// A Namespace.
pub(crate) fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

/// A Localization in this dedicated namespace with one patch of a ConfigMap in namespace `shop`.
pub(crate) fn localization(namespace: &str, name: &str, config_map: &str, patch_type: &str, patch: &str) -> String {
    document(&json!({
        "apiVersion": "apps.clusternet.io/v1alpha1", "kind": "Localization",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "feed": config_map_feed(config_map), "overrides": [{ "name": "patch", "type": patch_type, "value": patch }] },
    }))
}

/// A ManagedCluster with a label `name` of its own name.
pub(crate) fn managed_cluster(name: &str, id: &str) -> String {
    document(&json!({
        "apiVersion": "clusters.clusternet.io/v1beta1", "kind": "ManagedCluster",
        "metadata": { "namespace": format!("clusternet-{name}"), "name": name, "labels": { "name": name } },
        "spec": { "clusterId": id, "syncMode": "Pull" },
    }))
}

/// JSON is YAML; the document separator lets several stand in one file.
pub(crate) fn document(value: &Value) -> String {
    format!("---\n{value:#}\n")
}

/// The Namespace `shop` for all clusters: what every other Subscription of the tests needs.
pub(crate) fn base() -> String {
    subscription("base", &[], &[cluster_feed("v1", "Namespace", "shop")]) + "---\n" + &namespace("shop")
}

/// A Subscription `name` for the clusters with these labels, and the ConfigMap of the same name that it feeds.
pub(crate) fn greeting(name: &str, labels: &[(&str, &str)], greeting: &str) -> String {
    subscription(name, labels, &[config_map_feed(name)]) + "---\n" + &config_map(name, greeting)
}
