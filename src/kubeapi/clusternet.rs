//! Clusternet's kinds as resources: names, short names and printer columns as its custom resource definitions have
//! them, in their order; what is in sync stands behind them in columns of ours. Pure.

use super::clusternet_schema::component_of;
use super::resource::{READ_ONLY, Resource};
use super::table::{Columns, PathColumn};

const APPS: &str = "apps.clusternet.io";
const CLUSTERS: &str = "clusters.clusternet.io";

type ColumnRow<'a> = (&'a str, &'a str, &'a str, i32);

const AGE: ColumnRow<'static> = ("Age", "date", ".metadata.creationTimestamp", 0);

/// The read-only resources of a hub.
pub fn clusternet_resources() -> Vec<Resource> {
    let mut resources = app_resources();
    resources.extend(cluster_resources());
    for resource in &mut resources {
        resource.schema = component_of(&resource.kind).unwrap_or_default();
    }
    resources
}

fn app_resources() -> Vec<Resource> {
    let chart = [
        ("Chart", "string", ".spec.chart", 0),
        ("Version", "string", ".spec.version", 0),
        ("Repo", "string", ".spec.repo", 0),
        ("Status", "string", ".status.phase", 0),
        AGE,
    ];
    let description = [
        ("Deployer", "string", ".spec.deployer", 0),
        ("Status", "string", ".status.phase", 0),
        AGE,
        ("Reason", "string", ".status.reason", 1),
    ];
    let subscription = [
        AGE,
        ("Bound", "integer", ".status.desiredReleases", 0),
        ("Applied", "integer", ".status.completedReleases", 0),
        ("Valid", "string", r#".status.conditions[?(@.type=="Valid")].status"#, 0),
    ];
    vec![
        app("Base", "bases", true, &[], &[AGE]),
        app("Description", "descriptions", true, &["desc"], &description),
        app("FeedInventory", "feedinventories", true, &["finv"], &[AGE]),
        app("Globalization", "globalizations", false, &["glob", "global"], &[AGE]),
        app("HelmChart", "helmcharts", true, &["chart", "charts"], &chart),
        app("HelmRelease", "helmreleases", true, &["hr"], &chart),
        app("Localization", "localizations", true, &["loc", "local"], &[AGE]),
        app("Manifest", "manifests", true, &[], &[AGE]),
        app("Subscription", "subscriptions", true, &["sub", "subs"], &subscription),
    ]
}

fn cluster_resources() -> Vec<Resource> {
    let request = [
        ("Cluster ID", "string", ".spec.clusterId", 0),
        ("Status", "string", ".status.result", 0),
        AGE,
    ];
    let cluster = [
        ("Cluster ID", "string", ".spec.clusterId", 0),
        ("Cluster Type", "string", ".spec.clusterType", 100),
        ("Sync Mode", "string", ".spec.syncMode", 0),
        ("Kubernetes", "string", ".status.k8sVersion", 0),
        ("Status", "string", r#".status.conditions[?(@.type=="Ready")].status"#, 0),
        AGE,
        ("Agent Version", "string", ".status.agentVersion", 100),
        ("Synced", "string", r#".status.conditions[?(@.type=="Synced")].status"#, 0),
    ];
    let registration = "ClusterRegistrationRequest";
    vec![
        resource(CLUSTERS, "v1beta1", registration, "clusterregistrationrequests", false)
            .short(&["clsrr"])
            .printed(columns(&request)),
        resource(CLUSTERS, "v1beta1", "ManagedCluster", "managedclusters", true)
            .short(&["mcls"])
            .printed(columns(&cluster)),
    ]
}

fn app(kind: &str, plural: &str, namespaced: bool, short: &[&str], rows: &[ColumnRow<'_>]) -> Resource {
    resource(APPS, "v1alpha1", kind, plural, namespaced)
        .short(short)
        .printed(columns(rows))
}

fn resource(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Resource {
    Resource::new(group, version, kind, plural, namespaced)
        .in_categories(&["clusternet"])
        .with_verbs(READ_ONLY)
}

fn columns(rows: &[ColumnRow<'_>]) -> Columns {
    let columns = rows.iter().filter_map(|(name, kind, path, priority)| {
        let column = PathColumn::new(name, kind, path)?;
        Some(PathColumn {
            priority: *priority,
            ..column
        })
    });
    Columns::Paths(columns.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_path_parses() {
        let mut printed = 0;
        for resource in clusternet_resources() {
            if let Columns::Paths(columns) = &resource.columns {
                printed += columns.len();
            }
        }
        assert_eq!(printed, 34);
    }
}
