//! Request paths of a Kubernetes API server as values. Pure; knows no resource by name except `namespaces`.

use percent_encoding::percent_decode_str;

/// What a request path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/`: the list of paths.
    Root,
    /// `/version`.
    Version,
    /// `/healthz`, `/livez`, `/readyz` and the checks below them.
    Health {
        /// `healthz`, `livez` or `readyz`.
        endpoint: String,
        /// A single check, if one was named.
        check: Option<String>,
    },
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: all named groups.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`: the resources of one version.
    GroupVersion {
        /// Group, empty for the core group.
        group: String,
        /// Version.
        version: String,
    },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/api/v1` or `/openapi/v3/apis/<group>/<version>`.
    OpenApi {
        /// Group, empty for the core group.
        group: String,
        /// Version.
        version: String,
    },
    /// Objects.
    Resource(ResourcePath),
    /// Anything else.
    Unknown,
}

/// A path to a collection, an object or a subresource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourcePath {
    /// Group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, if the path names one.
    pub namespace: Option<String>,
    /// Plural resource name.
    pub resource: String,
    /// Object name, if the path names one.
    pub name: Option<String>,
    /// `status`, `scale`, … if the path names one; deeper paths are kept with their slashes.
    pub subresource: Option<String>,
}

impl Route {
    /// Reads a path (without the query).
    pub fn parse(path: &str) -> Route {
        let Some(segments) = segments(path) else {
            return Route::Unknown;
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            [] => Route::Root,
            ["version"] => Route::Version,
            [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] => Route::Health {
                endpoint: (*endpoint).to_owned(),
                check: (!check.is_empty()).then(|| check.join("/")),
            },
            ["openapi", "v2"] => Route::OpenApiV2,
            ["openapi", "v3"] => Route::OpenApiIndex,
            ["openapi", "v3", rest @ ..] => openapi(rest),
            ["api"] => Route::CoreVersions,
            ["apis"] => Route::Groups,
            ["apis", group] => Route::Group((*group).to_owned()),
            ["api", version, rest @ ..] => below_version("", version, rest),
            ["apis", group, version, rest @ ..] => below_version(group, version, rest),
            _ => Route::Unknown,
        }
    }
}

/// Decoded first, as kube-apiserver and the rules do it: an encoded slash separates like any other.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    Some(segments.map(str::to_owned).collect())
}

fn openapi(rest: &[&str]) -> Route {
    let (group, version) = match rest {
        ["api", version] => ("", version),
        ["apis", group, version] => (*group, version),
        _ => return Route::Unknown,
    };
    Route::OpenApi {
        group: group.to_owned(),
        version: (*version).to_owned(),
    }
}

fn below_version(group: &str, version: &str, rest: &[&str]) -> Route {
    let path = |namespace: Option<&str>, resource: &str, rest: &[&str]| {
        Route::Resource(ResourcePath {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.map(str::to_owned),
            resource: resource.to_owned(),
            name: rest.first().map(|name| (*name).to_owned()),
            subresource: (rest.len() > 1).then(|| rest[1..].join("/")),
        })
    };
    match rest {
        [] => Route::GroupVersion {
            group: group.to_owned(),
            version: version.to_owned(),
        },
        ["namespaces", _, "status" | "finalize"] => path(None, "namespaces", &rest[1..]),
        ["namespaces", namespace, resource, rest @ ..] => path(Some(namespace), resource, rest),
        [resource, rest @ ..] => path(None, resource, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> (String, String, String, String, String, String) {
        let Route::Resource(path) = Route::parse(path) else {
            return Default::default();
        };
        let text = |part: Option<String>| part.unwrap_or_default();
        (
            path.group,
            path.version,
            text(path.namespace),
            path.resource,
            text(path.name),
            text(path.subresource),
        )
    }

    fn parts(parts: [&str; 6]) -> (String, String, String, String, String, String) {
        let [a, b, c, d, e, f] = parts.map(str::to_owned);
        (a, b, c, d, e, f)
    }

    #[test]
    fn objects() {
        assert_eq!(resource("/api/v1/pods"), parts(["", "v1", "", "pods", "", ""]));
        assert_eq!(resource("/api/v1/namespaces/"), parts(["", "v1", "", "namespaces", "", ""]));
        assert_eq!(
            resource("/api/v1/namespaces/shop"),
            parts(["", "v1", "", "namespaces", "shop", ""])
        );
        assert_eq!(
            resource("/api/v1/namespaces/shop/status"),
            parts(["", "v1", "", "namespaces", "shop", "status"])
        );
        assert_eq!(
            resource("/apis/apps/v1/namespaces/shop/deployments/web/scale"),
            parts(["apps", "v1", "shop", "deployments", "web", "scale"])
        );
        assert_eq!(
            resource("/api/v1/namespaces/shop%2Fpods/web"),
            parts(["", "v1", "shop", "pods", "web", ""])
        );
        assert_eq!(
            resource("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"),
            parts(["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", ""])
        );
    }

    #[test]
    fn everything_else() {
        assert_eq!(Route::parse("/"), Route::Root);
        assert_eq!(Route::parse("/apis/apps"), Route::Group("apps".to_owned()));
        assert_eq!(
            Route::parse("/openapi/v3/apis/apps/v1"),
            Route::OpenApi {
                group: "apps".to_owned(),
                version: "v1".to_owned()
            }
        );
        assert_eq!(
            Route::parse("/readyz/ping"),
            Route::Health {
                endpoint: "readyz".to_owned(),
                check: Some("ping".to_owned())
            }
        );
        assert_eq!(Route::parse("/metrics"), Route::Unknown);
        assert_eq!(Route::parse("/%ff"), Route::Unknown);
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_a_route(path in "(/|api|apis|v1|namespaces|a|%2[fF]|%|é|\\.\\.){0,12}") {
            Route::parse(&path);
        }
    }
}
