//! The paths that lead to clusters: a cluster's tunnel, or a request that is passed on. Pure; refuses every spelling that two servers could
//! read differently.

use http::{Method, Uri, Version};

use crate::core::access::Refusal;
use crate::core::reach::Target;
use crate::tunnel::dial::SOCKETS_PATH;

/// The short way to a cluster's API server; the cluster follows.
pub const CLUSTERS_PATH: &str = "/clusters/";

/// What a path asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SocketPath {
    /// The cluster's tunnel.
    Tunnel {
        /// The cluster as the path names it.
        cluster: String,
    },
    /// A request that is passed on.
    Proxied(Proxied),
}

/// A request for something in a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxied {
    /// The cluster as the path names it: id, name or dedicated namespace.
    pub cluster: String,
    /// The cluster's own API server, or a service.
    pub target: Target,
    /// Path and query there; begins with a slash.
    pub rest: String,
}

/// Reads a request's target; `None` when it leads to no cluster.
pub fn parse(method: &Method, uri: &Uri, version: Version) -> Option<Result<SocketPath, Refusal>> {
    let path = uri.path();
    let read: fn(&str, Option<&str>) -> Result<SocketPath, Refusal> = match () {
        () if path.starts_with(SOCKETS_PATH) => socket,
        () if path.starts_with(CLUSTERS_PATH) => cluster,
        () => return None,
    };
    let below = path.strip_prefix(SOCKETS_PATH).or_else(|| path.strip_prefix(CLUSTERS_PATH))?;
    Some(check(method, uri, version, below).and_then(|()| read(below, uri.query())))
}

fn check(method: &Method, uri: &Uri, version: Version, below: &str) -> Result<(), Refusal> {
    if method == Method::CONNECT {
        let message = "CONNECT asks a proxy for a connection to a host, and this is none; kubectl port-forward leads to pods";
        return Err(Refusal::new(405, "MethodNotAllowed", message));
    }
    // In HTTP/2 every target has an authority.
    if uri.authority().is_some() && version < Version::HTTP_2 {
        return Err(bad("the request's target is an absolute URL; send the path alone"));
    }
    if let Some(problem) = ambiguity(below) {
        return Err(bad(problem));
    }
    match below.is_empty() {
        true => Err(Refusal::new(
            404,
            "NotFound",
            "the path names no cluster; `kubectl get managedclusters -A` lists them",
        )),
        false => Ok(()),
    }
}

/// `<cluster>`, `<cluster>/proxy/direct/…`, `<cluster>/proxy/https/<host[:port]>/…`; nothing is redirected for a slash too many or too few.
fn socket(below: &str, query: Option<&str>) -> Result<SocketPath, Refusal> {
    let (cluster, proxy) = split(below);
    if proxy == "/" {
        return Ok(SocketPath::Tunnel {
            cluster: cluster.to_owned(),
        });
    }
    let Some((target, path)) = proxy.strip_prefix("/proxy/").map(split_target) else {
        return Err(not_found(&proxy[1..], ""));
    };
    let target = target
        .parse()
        .map_err(|error| not_found(&proxy[1..], &format!(": {error}")))?;
    Ok(proxied(cluster, target, path, query))
}

/// `<cluster>/…`
fn cluster(below: &str, query: Option<&str>) -> Result<SocketPath, Refusal> {
    let (cluster, path) = split(below);
    Ok(proxied(cluster, Target::Direct, path, query))
}

fn proxied(cluster: &str, target: Target, path: &str, query: Option<&str>) -> SocketPath {
    let rest = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    SocketPath::Proxied(Proxied {
        cluster: cluster.to_owned(),
        target,
        rest,
    })
}

/// The first segment, and the rest from its slash on; a slash alone where there is no rest.
fn split(path: &str) -> (&str, &str) {
    match path.find('/') {
        Some(at) => path.split_at(at),
        None => (path, "/"),
    }
}

/// `direct` or `<scheme>/<host[:port]>`, and the rest from its slash on.
fn split_target(path: &str) -> (&str, &str) {
    let (first, rest) = split(path);
    if first == "direct" || rest == "/" {
        return (first, rest);
    }
    let (host, _) = split(&rest[1..]);
    let end = first.len() + 1 + host.len();
    match path.len() == end {
        true => (path, "/"),
        false => path.split_at(end),
    }
}

fn not_found(asked: &str, why: &str) -> Refusal {
    let message = format!(
        "a cluster's socket has no {asked:?}{why}; what there is: proxy/direct/<path at the cluster's API server>, \
         proxy/https/<host[:port]>/<path at a service>, proxy/http/…"
    );
    Refusal::new(404, "NotFound", message)
}

/// What makes a path mean different things to different servers, if anything does.
fn ambiguity(path: &str) -> Option<&'static str> {
    if path.starts_with('/') || path.contains("//") {
        return Some("the path has an empty segment (//)");
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2f") || lower.contains("%5c") || lower.contains("%00") || lower.contains('\\') {
        return Some("the path has an encoded slash, a backslash or an encoded zero byte");
    }
    let dots = lower.replace("%2e", ".");
    dots.split('/')
        .any(|segment| segment == "." || segment == "..")
        .then_some("the path has a dot segment (. or ..)")
}

fn bad(problem: &str) -> Refusal {
    Refusal::new(
        400,
        "BadRequest",
        format!("{problem}: refused, because servers could read it differently"),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn read(target: &str) -> Result<SocketPath, Refusal> {
        parse(&Method::GET, &target.parse().unwrap(), Version::HTTP_11).unwrap()
    }

    fn proxied(target: &str) -> (String, String, String) {
        match read(target).unwrap() {
            SocketPath::Proxied(Proxied { cluster, target, rest }) => (cluster, target.to_string(), rest),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        for path in ["c1", "c1/"] {
            let tunnel = SocketPath::Tunnel {
                cluster: "c1".to_owned(),
            };
            assert_eq!(read(&format!("{SOCKETS_PATH}{path}")).unwrap(), tunnel);
        }
        for (path, target, rest) in [
            ("proxy/direct", "direct", "/"),
            ("proxy/direct/", "direct", "/"),
            ("proxy/direct?a=b", "direct", "/?a=b"),
            (
                "proxy/direct/api/v1/pods?watch=1&x=//..",
                "direct",
                "/api/v1/pods?watch=1&x=//..",
            ),
            (
                "proxy/direct/apis/rbac/system:basic-user...",
                "direct",
                "/apis/rbac/system:basic-user...",
            ),
            ("proxy/https/web.shop.svc", "https/web.shop.svc:443", "/"),
            ("proxy/https/web.shop.svc/", "https/web.shop.svc:443", "/"),
            ("proxy/http/web:8080/a/b/?q=1", "http/web:8080", "/a/b/?q=1"),
            ("proxy/http/[::1]:8080/a", "http/[::1]:8080", "/a"),
        ] {
            let wanted = ("c1".to_owned(), target.to_owned(), rest.to_owned());
            assert_eq!(proxied(&format!("{SOCKETS_PATH}c1/{path}")), wanted, "{path}");
        }
        for (path, cluster, rest) in [
            ("edge-1", "edge-1", "/"),
            ("edge-1/", "edge-1", "/"),
            ("edge-1/api/v1/pods?limit=1", "edge-1", "/api/v1/pods?limit=1"),
            ("edge-1/proxy/direct", "edge-1", "/proxy/direct"),
        ] {
            let wanted = (cluster.to_owned(), "direct".to_owned(), rest.to_owned());
            assert_eq!(proxied(&format!("{CLUSTERS_PATH}{path}")), wanted, "{path}");
        }
        for path in ["/api/v1", "/clusters", "/apis/proxies.clusternet.io/v1alpha1/sockets"] {
            assert!(
                parse(&Method::GET, &path.parse().unwrap(), Version::HTTP_11).is_none(),
                "{path}"
            );
        }
        for path in [
            "proxy/directory",
            "proxy",
            "proxy/",
            "status",
            "proxy/ftp/a",
            "proxy/https",
            "proxy/https/",
            "proxy/http/a@b/",
        ] {
            assert_eq!(read(&format!("{SOCKETS_PATH}c1/{path}")).unwrap_err().code, 404, "{path}");
        }
    }

    #[test]
    fn tricks_are_refused() {
        for trick in [
            "/a", "..", "a//b", "%2e%2E/x", "a/.%2e/b", "a/%2E", "./a", "a%2fb", "a%5Cb", "a%00",
        ] {
            for begin in [format!("{SOCKETS_PATH}c1/proxy/direct/"), format!("{CLUSTERS_PATH}c1/")] {
                assert_eq!(read(&format!("{begin}{trick}")).unwrap_err().code, 400, "{trick}");
            }
        }
        assert_eq!(read(&format!("{SOCKETS_PATH}../x")).unwrap_err().code, 400);
        assert_eq!(read("/clusters//api").unwrap_err().code, 400);
        assert_eq!(read(&format!("https://hub{SOCKETS_PATH}c1")).unwrap_err().code, 400);
        for nobody in [SOCKETS_PATH, CLUSTERS_PATH, "/clusters/?a=b"] {
            assert_eq!(read(nobody).unwrap_err().code, 404, "{nobody}");
        }
        let connect = parse(&Method::CONNECT, &"/clusters/c1/api".parse().unwrap(), Version::HTTP_11);
        assert_eq!(connect.unwrap().unwrap_err().code, 405);
        let uri: Uri = format!("https://hub{SOCKETS_PATH}c1").parse().unwrap();
        let http2 = parse(&Method::GET, &uri, Version::HTTP_2);
        assert!(http2.unwrap().is_ok(), "in HTTP/2 there is always an authority");
    }

    /// Bytes that lead somewhere more often than arbitrary ones would.
    fn targets() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            Just(SOCKETS_PATH.to_owned()),
            Just(CLUSTERS_PATH.to_owned()),
            Just("/proxy/direct".to_owned()),
            Just("/proxy/https/".to_owned()),
            Just("/proxy/http/".to_owned()),
            prop::sample::select(vec![
                "..", ".", "%2e", "%2F", "%", "?", "#", ":443", "[::1]", "@", "\\", ";", "*", "//"
            ])
            .prop_map(str::to_owned),
            "[a-z0-9.-]{1,8}",
            any::<String>(),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Whatever it is, it is answered; and what is passed on has one meaning.
    fn check_any(target: &[u8]) {
        let Ok(uri) = Uri::try_from(target) else {
            return;
        };
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let Some(Ok(SocketPath::Proxied(asked))) = parse(&Method::GET, &uri, version) else {
                continue;
            };
            let at_cluster: Uri = asked.rest.parse().unwrap();
            assert_eq!(at_cluster.path_and_query().unwrap().as_str(), asked.rest);
            let segments: Vec<&str> = at_cluster.path().split('/').skip(1).collect();
            let (_, inner) = segments.split_last().unwrap();
            assert!(inner.iter().all(|segment| !segment.is_empty()), "{asked:?}");
            assert!(!segments.iter().any(|segment| [".", ".."].contains(segment)), "{asked:?}");
            assert!(!asked.cluster.contains(['/', '?', '\\']), "{asked:?}");
            let again = format!("{SOCKETS_PATH}{}/proxy/{}{}", asked.cluster, asked.target, asked.rest);
            assert_eq!(
                read(&again).unwrap(),
                SocketPath::Proxied(asked),
                "written out, it is read the same"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn any_target_is_answered_and_means_one_thing(target in targets()) {
            check_any(target.as_bytes());
        }

        #[test]
        fn any_bytes_are_answered(begin in prop::sample::select(vec!["", SOCKETS_PATH, CLUSTERS_PATH]), rest: Vec<u8>) {
            check_any(&[begin.as_bytes(), &rest].concat());
        }
    }
}
