//! Which headers may not pass a proxy. Pure; knows headers only.

use http::header::{
    AUTHORIZATION, CONNECTION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

/// Whether a request asks to take the connection over (exec, attach, port-forward, websockets).
pub fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Removes what belongs to one connection only. An upgrade's own two headers stay.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let upgrade = asks_for_upgrade(headers).then(|| headers.remove(UPGRADE)).flatten();
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
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

/// How websocket clients that can set no headers bring a bearer token to an API server (k8s.io/apiserver, authentication/request/websocket).
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Removes everything by which a caller could pose as somebody: credentials, impersonation, what front proxies assert.
pub fn remove_caller_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    remove_token_protocols(headers);
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| asserts_identity(name.as_str()))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
}

fn remove_token_protocols(headers: &mut HeaderMap) {
    let asked = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let texts: Vec<&[u8]> = asked.map(HeaderValue::as_bytes).collect();
    if !texts.iter().any(|text| contains(text, TOKEN_PROTOCOL.as_bytes())) {
        return;
    }
    let offered = texts.join(&b","[..]);
    let kept: Vec<&[u8]> = offered
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !contains(protocol, TOKEN_PROTOCOL.as_bytes()))
        .collect();
    match HeaderValue::from_bytes(&kept.join(&b", "[..])) {
        Ok(rest) if !rest.is_empty() => drop(headers.insert(SEC_WEBSOCKET_PROTOCOL, rest)),
        _ => drop(headers.remove(SEC_WEBSOCKET_PROTOCOL)),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn asserts_identity(name: &str) -> bool {
    name.starts_with("impersonate-") || name.starts_with("x-remote-")
}

/// Bytes, not text: a value with one odd byte in it names the other headers as well.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(CONNECTION).into_iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
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
        let mut odd = headers(&[("x-mine", "1"), ("accept", "*/*")]);
        odd.insert(CONNECTION, HeaderValue::from_bytes(b"\xff, X-Mine").unwrap());
        remove_hop_by_hop(&mut odd);
        assert_eq!(names(&odd), ["accept"], "what is no text hides nothing that stands beside it");
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

    #[test]
    fn a_token_among_websocket_protocols_is_a_credential() {
        let token = "base64url.bearer.authorization.k8s.io.dG9rZW4";
        for (asked, kept) in [
            (
                format!("{token}, v5.channel.k8s.io,v4.channel.k8s.io"),
                Some("v5.channel.k8s.io, v4.channel.k8s.io"),
            ),
            (
                format!("v5.channel.k8s.io,{}", token.to_uppercase()),
                Some("v5.channel.k8s.io"),
            ),
            (token.to_owned(), None),
            ("v5.channel.k8s.io".to_owned(), Some("v5.channel.k8s.io")),
        ] {
            let mut offered = headers(&[("sec-websocket-protocol", &asked)]);
            remove_caller_credentials(&mut offered);
            let left = offered.get(SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str().unwrap());
            assert_eq!(left, kept, "{asked}");
        }
    }
}
