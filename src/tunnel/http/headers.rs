//! Which headers may not pass a proxy. Pure; knows headers only.

use http::header::{
    AUTHORIZATION, CONNECTION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

/// Whether a request asks to take the connection over (exec, attach, port-forward, websockets).
pub fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// Removes what belongs to one connection only. An upgrade's own two headers stay.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let upgrade = asks_for_upgrade(headers).then(|| headers.remove(UPGRADE)).flatten();
    let named: Vec<HeaderName> = connection_options(headers).filter_map(|option| option.parse().ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

/// Removes everything by which a caller could pose as somebody: credentials, impersonation, what front proxies assert.
pub fn remove_caller_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| asserts_identity(name.as_str()))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
}

fn asserts_identity(name: &str) -> bool {
    name.starts_with("impersonate-") || name.starts_with("x-remote-")
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        pairs.iter().map(parse).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let mut plain = headers(&[
            ("connection", "keep-alive, X-Mine"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut plain);
        assert_eq!(names(&plain), ["accept"]);
        let mut upgrade = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("te", "trailers")]);
        remove_hop_by_hop(&mut upgrade);
        assert_eq!(names(&upgrade), ["connection", "upgrade"]);
        let mut half = headers(&[("upgrade", "SPDY/3.1")]);
        remove_hop_by_hop(&mut half);
        assert!(half.is_empty(), "an Upgrade that Connection does not name is no upgrade");
    }

    #[test]
    fn nobody_poses_as_somebody_else() {
        let mut forged = headers(&[
            ("Authorization", "Bearer x"),
            ("Impersonate-User", "root"),
            ("impersonate-extra-scopes", "all"),
            ("X-Remote-Group", "system:masters"),
            ("x-remote-extra-a", "b"),
            ("user-agent", "kubectl"),
        ]);
        remove_caller_credentials(&mut forged);
        assert_eq!(names(&forged), ["user-agent"]);
    }
}
