//! Which kinds are applied before which. The order is Helm's install order, cut into waves: within a wave everything runs at once.

/// Namespaces, definitions and what schedules pods: everything else may need them.
pub(super) const FOUNDATIONS: u8 = 0;
/// Whatever no other rank names: custom resources and kinds that are not in the table.
const OTHERS: u8 = 9;
/// What can refuse other requests as soon as it exists; its own workload has to run first.
const INTERCEPTORS: u8 = 10;

/// The wave in which a kind is applied; it is pruned in the reverse order.
pub fn rank_of(group: &str, kind: &str) -> u8 {
    match (group, kind) {
        ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => FOUNDATIONS,
        ("scheduling.k8s.io", "PriorityClass") | ("node.k8s.io", "RuntimeClass") => FOUNDATIONS,
        ("storage.k8s.io", _) => FOUNDATIONS,
        ("", "ResourceQuota" | "LimitRange") => 2,
        ("networking.k8s.io", "NetworkPolicy") | ("policy", "PodDisruptionBudget") => 2,
        ("", "ServiceAccount" | "Secret" | "ConfigMap" | "PersistentVolume" | "PersistentVolumeClaim") => 3,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => 4,
        ("rbac.authorization.k8s.io", _) => 5,
        ("", "Service" | "Endpoints") | ("discovery.k8s.io", "EndpointSlice") => 6,
        ("", "Pod" | "ReplicationController") | ("apps" | "batch", _) => 7,
        ("autoscaling", _) | ("networking.k8s.io", "IngressClass" | "Ingress") => 8,
        ("apiregistration.k8s.io" | "admissionregistration.k8s.io", _) => INTERCEPTORS,
        _ => OTHERS,
    }
}

/// Kinds whose deletion takes other people's data with it: they are reported, never deleted.
pub fn is_never_pruned(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("", "Namespace" | "PersistentVolumeClaim") | ("apiextensions.k8s.io", "CustomResourceDefinition")
    )
}

/// Whether an object of this kind defines other kinds.
pub(super) fn is_definition(group: &str, kind: &str) -> bool {
    group == "apiextensions.k8s.io" && kind == "CustomResourceDefinition"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_come_first_and_webhooks_last() {
        let kinds = [
            ("", "Namespace"),
            ("", "ServiceAccount"),
            ("rbac.authorization.k8s.io", "ClusterRole"),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
            ("", "Service"),
            ("apps", "Deployment"),
            ("networking.k8s.io", "Ingress"),
            ("example.org", "Widget"),
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ];
        let ranks: Vec<u8> = kinds.iter().map(|(group, kind)| rank_of(group, kind)).collect();
        assert!(ranks.is_sorted() && ranks[0] < ranks[1], "{ranks:?}");
    }
}
