//! The built-in resource types of a sandbox, shared by all sandboxes of a process: names as Kubernetes has them, columns, and which
//! of them have a status. A new kind is one line here.

use std::sync::LazyLock;

use super::fields::component_of;
use super::printers as show;
use crate::kubeapi::table::Columns;
use crate::kubeapi::{Catalog, Resource, ResourceId, SUBRESOURCE, SubresourceKind, review_resources};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::new(all()));

/// The shared table.
pub(super) fn catalog() -> &'static Catalog {
    &CATALOG
}

/// Whether a resource is one of the table's, not a custom one.
pub(super) fn is_built_in(resource: &Resource) -> bool {
    CATALOG.find(&resource.group, &resource.version, &resource.plural).is_some()
}

/// The resource type of a kind that the rules of this module speak of.
pub(super) fn id_of(group: &str, plural: &str) -> ResourceId {
    ResourceId {
        group: group.into(),
        plural: plural.into(),
    }
}

fn all() -> Vec<Resource> {
    let mut resources = [
        core(),
        core_storage(),
        apps(),
        batch(),
        access(),
        networking(),
        policy(),
        others(),
        extensions(),
        review_resources(),
    ]
    .concat();
    for resource in &mut resources {
        resource.strategic = true;
        resource.schema = component_of(&resource.api_version(), &resource.kind).unwrap_or_default();
    }
    resources
}

fn namespaced(group_version: &str, kind: &str, plural: &str, short: &[&str], columns: Columns) -> Resource {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    Resource::new(group, version, kind, plural, true)
        .short(short)
        .printed(columns)
}

fn cluster(group_version: &str, kind: &str, plural: &str, short: &[&str], columns: Columns) -> Resource {
    let mut resource = namespaced(group_version, kind, plural, short, columns);
    resource.namespaced = false;
    resource
}

/// With the `scale` subresource of workloads.
fn scaled(resource: Resource) -> Resource {
    let kind = SubresourceKind {
        group: "autoscaling".to_owned(),
        version: "v1".to_owned(),
        kind: "Scale".to_owned(),
    };
    resource.with_subresource("scale", Some(kind), SUBRESOURCE)
}

fn core() -> Vec<Resource> {
    let pod_fields = [
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
    ];
    let event_fields = [
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];
    let all = &["all"];
    vec![
        namespaced("v1", "ConfigMap", "configmaps", &["cm"], show::CONFIG_MAPS),
        namespaced("v1", "Endpoints", "endpoints", &["ep"], show::ENDPOINTS),
        namespaced("v1", "Event", "events", &["ev"], show::EVENTS).selectable_by(&event_fields),
        namespaced("v1", "LimitRange", "limitranges", &["limits"], Columns::NameAndCreation),
        cluster("v1", "Namespace", "namespaces", &["ns"], show::NAMESPACES)
            .with_status()
            .selectable_by(&["status.phase"]),
        cluster("v1", "Node", "nodes", &["no"], show::NODES)
            .with_status()
            .selectable_by(&["spec.unschedulable"]),
        namespaced("v1", "Pod", "pods", &["po"], show::PODS)
            .in_categories(all)
            .with_status()
            .selectable_by(&pod_fields),
        namespaced("v1", "PodTemplate", "podtemplates", &[], Columns::NameAndAge),
        scaled(
            namespaced(
                "v1",
                "ReplicationController",
                "replicationcontrollers",
                &["rc"],
                show::REPLICA_SETS,
            )
            .in_categories(all)
            .with_status()
            .selectable_by(&["status.replicas"]),
        ),
        namespaced("v1", "ResourceQuota", "resourcequotas", &["quota"], show::RESOURCE_QUOTAS).with_status(),
        namespaced("v1", "Secret", "secrets", &[], show::SECRETS).selectable_by(&["type"]),
        namespaced("v1", "ServiceAccount", "serviceaccounts", &["sa"], show::SERVICE_ACCOUNTS),
        namespaced("v1", "Service", "services", &["svc"], show::SERVICES)
            .in_categories(all)
            .with_status()
            .selectable_by(&["spec.clusterIP", "spec.type"]),
    ]
}

fn core_storage() -> Vec<Resource> {
    let storage = "storage.k8s.io/v1";
    vec![
        namespaced(
            "v1",
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            &["pvc"],
            show::PERSISTENT_VOLUME_CLAIMS,
        )
        .with_status(),
        cluster(
            "v1",
            "PersistentVolume",
            "persistentvolumes",
            &["pv"],
            show::PERSISTENT_VOLUMES,
        )
        .with_status(),
        cluster(storage, "CSIDriver", "csidrivers", &[], Columns::NameAndAge),
        cluster(storage, "CSINode", "csinodes", &[], Columns::NameAndAge),
        cluster(storage, "StorageClass", "storageclasses", &["sc"], show::STORAGE_CLASSES),
        cluster(storage, "VolumeAttachment", "volumeattachments", &[], Columns::NameAndAge).with_status(),
    ]
}

fn apps() -> Vec<Resource> {
    let workload = |kind: &str, plural: &str, short: &str, columns: Columns| {
        namespaced("apps/v1", kind, plural, &[short], columns)
            .in_categories(&["all"])
            .with_status()
    };
    vec![
        namespaced(
            "apps/v1",
            "ControllerRevision",
            "controllerrevisions",
            &[],
            show::CONTROLLER_REVISIONS,
        ),
        workload("DaemonSet", "daemonsets", "ds", show::DAEMON_SETS),
        scaled(workload("Deployment", "deployments", "deploy", show::DEPLOYMENTS)),
        scaled(workload("ReplicaSet", "replicasets", "rs", show::REPLICA_SETS)).selectable_by(&["status.replicas"]),
        scaled(workload("StatefulSet", "statefulsets", "sts", show::STATEFUL_SETS)),
    ]
}

fn batch() -> Vec<Resource> {
    vec![
        namespaced("batch/v1", "CronJob", "cronjobs", &["cj"], show::CRON_JOBS)
            .in_categories(&["all"])
            .with_status(),
        namespaced("batch/v1", "Job", "jobs", &[], show::JOBS)
            .in_categories(&["all"])
            .with_status()
            .selectable_by(&["status.successful"]),
        namespaced(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            &["hpa"],
            show::AUTOSCALERS,
        )
        .in_categories(&["all"])
        .with_status(),
    ]
}

fn access() -> Vec<Resource> {
    let rbac = "rbac.authorization.k8s.io/v1";
    vec![
        cluster(rbac, "ClusterRoleBinding", "clusterrolebindings", &[], show::ROLE_BINDINGS),
        cluster(rbac, "ClusterRole", "clusterroles", &[], show::CLUSTER_ROLES),
        namespaced(rbac, "RoleBinding", "rolebindings", &[], show::ROLE_BINDINGS),
        namespaced(rbac, "Role", "roles", &[], show::CLUSTER_ROLES),
        cluster(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
            &["csr"],
            show::CERTIFICATES,
        )
        .with_status()
        .selectable_by(&["spec.signerName"]),
    ]
}

fn networking() -> Vec<Resource> {
    let networking = "networking.k8s.io/v1";
    vec![
        cluster(networking, "IngressClass", "ingressclasses", &[], show::INGRESS_CLASSES),
        namespaced(networking, "Ingress", "ingresses", &["ing"], show::INGRESSES).with_status(),
        namespaced(
            networking,
            "NetworkPolicy",
            "networkpolicies",
            &["netpol"],
            show::NETWORK_POLICIES,
        ),
        namespaced(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "endpointslices",
            &[],
            show::ENDPOINT_SLICES,
        ),
    ]
}

fn policy() -> Vec<Resource> {
    vec![
        namespaced(
            "policy/v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            &["pdb"],
            show::DISRUPTION_BUDGETS,
        )
        .with_status(),
        cluster(
            "scheduling.k8s.io/v1",
            "PriorityClass",
            "priorityclasses",
            &["pc"],
            show::PRIORITY_CLASSES,
        ),
        cluster("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", &[], show::RUNTIME_CLASSES),
    ]
}

fn others() -> Vec<Resource> {
    let admission = "admissionregistration.k8s.io/v1";
    let webhooks =
        |kind: &str, plural: &str| cluster(admission, kind, plural, &[], show::WEBHOOKS).in_categories(&["api-extensions"]);
    vec![
        namespaced("coordination.k8s.io/v1", "Lease", "leases", &[], show::LEASES),
        webhooks("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        webhooks("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ]
}

fn extensions() -> Vec<Resource> {
    let definitions = cluster(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        show::CRDS,
    );
    vec![definitions.in_categories(&["api-extensions"]).with_status()]
}
