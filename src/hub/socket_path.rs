//! The paths below `…/sockets/`: a cluster's tunnel, or a request that is passed on to the cluster. Pure; refuses every spelling that
//! two servers could read differently.

use http::{Uri, Version};

use crate::core::access::Refusal;
use crate::tunnel::dial::SOCKETS_PATH;

/// What a path below [`SOCKETS_PATH`] asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SocketPath {
    /// The cluster's tunnel.
    Tunnel {
        /// The cluster as the path names it.
        cluster: String,
    },
    /// A request to the cluster's own API server.
    Direct {
        /// The cluster as the path names it.
        cluster: String,
        /// Path and query at the API server; begins with a slash.
        rest: String,
    },
}

/// Reads a request's target; `None` when it is not about sockets.
pub fn parse(uri: &Uri, version: Version) -> Option<Result<SocketPath, Refusal>> {
    let below = uri.path().strip_prefix(SOCKETS_PATH)?;
    Some(check(uri, version, below))
}

fn check(uri: &Uri, version: Version, below: &str) -> Result<SocketPath, Refusal> {
    // In HTTP/2 every target has an authority.
    if uri.authority().is_some() && version < Version::HTTP_2 {
        return Err(bad("the request's target is an absolute URL; send the path alone"));
    }
    if let Some(problem) = ambiguity(below) {
        return Err(bad(problem));
    }
    match below.split_once('/') {
        None => Ok(SocketPath::Tunnel {
            cluster: below.to_owned(),
        }),
        Some((cluster, "")) => Ok(SocketPath::Tunnel {
            cluster: cluster.to_owned(),
        }),
        Some((cluster, proxy)) => Ok(SocketPath::Direct {
            cluster: cluster.to_owned(),
            rest: direct(proxy, uri.query())?,
        }),
    }
}

fn direct(proxy: &str, query: Option<&str>) -> Result<String, Refusal> {
    let Some(path) = proxy
        .strip_prefix("proxy/direct")
        .filter(|path| path.is_empty() || path.starts_with('/'))
    else {
        return Err(Refusal::new(
            404,
            "NotFound",
            format!("a cluster's socket has no {proxy:?}; what there is: proxy/direct/<path at the cluster's API server>"),
        ));
    };
    let path = if path.is_empty() { "/" } else { path };
    Ok(match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    })
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
    use super::*;

    fn read(target: &str) -> Result<SocketPath, Refusal> {
        parse(&target.parse().unwrap(), Version::HTTP_11).unwrap()
    }

    #[test]
    fn paths_are_taken_apart() {
        let tunnel = read("/apis/proxies.clusternet.io/v1alpha1/sockets/c1").unwrap();
        assert_eq!(
            tunnel,
            SocketPath::Tunnel {
                cluster: "c1".to_owned()
            }
        );
        for (path, wanted) in [
            ("proxy/direct", "/"),
            ("proxy/direct/", "/"),
            ("proxy/direct/api/v1/pods?watch=1&x=//..", "/api/v1/pods?watch=1&x=//.."),
            (
                "proxy/direct/apis/rbac/system:basic-user...",
                "/apis/rbac/system:basic-user...",
            ),
        ] {
            let SocketPath::Direct { cluster, rest } = read(&format!("{SOCKETS_PATH}c1/{path}")).unwrap() else {
                panic!("not a request for a cluster");
            };
            assert_eq!((cluster.as_str(), rest.as_str()), ("c1", wanted));
        }
        assert!(parse(&"/api/v1".parse().unwrap(), Version::HTTP_11).is_none());
        assert_eq!(read(&format!("{SOCKETS_PATH}c1/proxy/directory")).unwrap_err().code, 404);
        assert_eq!(read(&format!("{SOCKETS_PATH}c1/proxy/https/10.0.0.1")).unwrap_err().code, 404);
    }

    #[test]
    fn tricks_are_refused() {
        for trick in [
            "/a", "..", "a//b", "%2e%2E/x", "a/.%2e/b", "a/%2E", "./a", "a%2fb", "a%5Cb", "a%00",
        ] {
            let refusal = read(&format!("{SOCKETS_PATH}c1/proxy/direct/{trick}")).unwrap_err();
            assert_eq!(refusal.code, 400, "{trick}");
        }
        assert_eq!(read(&format!("{SOCKETS_PATH}../x")).unwrap_err().code, 400);
        assert_eq!(read(&format!("https://hub{SOCKETS_PATH}c1")).unwrap_err().code, 400);
        let http2 = parse(&format!("https://hub{SOCKETS_PATH}c1").parse().unwrap(), Version::HTTP_2);
        assert!(http2.unwrap().is_ok(), "in HTTP/2 there is always an authority");
    }
}
