//! Clusternet's ways of leading a Kubernetes client elsewhere by the path alone: to templates in its shadow API, or into a cluster. The rules for
//! templates are those of its client-go wrapper (`pkg/wrappers/clientgo`); where that takes a resource or name that begins with `v` for a
//! version (`/apis/storage.k8s.io/v1/volumeattachments/x`), these do not.

use super::PROXIES_GROUP;
use crate::core::ids::ClusterId;

/// Where Clusternet's hubs keep templates.
const SHADOW: &str = "/apis/shadow/v1alpha1/";

/// The path of a template for the path of its kind; `None` where the request stays as it is: discovery, and Clusternet's own groups. `base` is the
/// path of the server's URL, empty for most.
pub fn shadow_path(base: &str, path: &str) -> Option<String> {
    let base = base.trim_end_matches('/');
    let below = path.strip_prefix(base)?;
    let parts: Vec<&str> = below.strip_prefix('/')?.split('/').collect();
    let rest = match parts.as_slice() {
        ["api", "v1", rest @ ..] => rest,
        ["apis", group, version, rest @ ..] if version.starts_with('v') && !is_clusternet(group) => rest,
        _ => return None,
    };
    let is_resource = rest.iter().any(|part| !part.is_empty());
    is_resource.then(|| format!("{base}{SHADOW}{}", rest.join("/")))
}

/// `apps.clusternet.io` and the like; no group below those.
fn is_clusternet(group: &str) -> bool {
    group.strip_suffix(".clusternet.io").is_some_and(|label| !label.contains('.'))
}

/// The path of a cluster's own API on the hub for a path there.
pub fn socket_path(cluster: &ClusterId, path: &str) -> String {
    format!("/apis/{PROXIES_GROUP}/v1alpha1/sockets/{cluster}/proxy/direct{path}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn templates_have_paths_of_their_own() {
        for (path, wanted) in [
            ("/api/v1/namespaces/x/pods", Some("/apis/shadow/v1alpha1/namespaces/x/pods")),
            ("/api/v1/namespaces", Some("/apis/shadow/v1alpha1/namespaces")),
            (
                "/apis/apps/v1/namespaces/x/deployments/y/scale",
                Some("/apis/shadow/v1alpha1/namespaces/x/deployments/y/scale"),
            ),
            (
                "/apis/storage.k8s.io/v1/volumeattachments/x",
                Some("/apis/shadow/v1alpha1/volumeattachments/x"),
            ),
            ("/apis/a.b.clusternet.io/v1/things", Some("/apis/shadow/v1alpha1/things")),
            ("/apis/apps.clusternet.io/v1alpha1/subscriptions", None),
            (
                "/apis/proxies.clusternet.io/v1alpha1/sockets/c/proxy/direct/api/v1/pods",
                None,
            ),
            ("/api", None),
            ("/api/v1", None),
            ("/api/v1/", None),
            ("/apis/apps/v1", None),
            ("/apis", None),
            ("/version", None),
            ("/openapi/v3/apis/apps/v1", None),
        ] {
            assert_eq!(shadow_path("", path).as_deref(), wanted, "{path}");
            let below = |path: &str| format!("/some/base{path}");
            assert_eq!(shadow_path("/some/base//", &below(path)), wanted.map(below), "{path}");
        }
        assert_eq!(shadow_path("/base", "/api/v1/pods"), None, "another server's");
    }

    #[test]
    fn a_cluster_is_reached_by_its_socket() {
        let id: ClusterId = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b".parse().unwrap();
        assert_eq!(
            socket_path(&id, "/api/v1/pods"),
            "/apis/proxies.clusternet.io/v1alpha1/sockets/0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b/proxy/direct/api/v1/pods"
        );
    }
}
