//! What the fuzz target of `fuzz/` checks, on its corpus and on requests that are generated here: without nightly and without a fuzzer.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "../../fuzz/checked.rs"]
mod checked;

#[test]
fn every_request_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/request_path");
    let requests: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!requests.is_empty());
    for request in requests {
        println!("{}", request.display());
        checked::check(&fs::read(request).unwrap());
    }
}

/// Pieces that mean something to whoever decides, between any others.
fn pieces(known: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(known).prop_map(|text| text.as_bytes().to_vec());
    let piece = prop_oneof![6 => known, 1 => "[a-z0-9.-]{1,8}".prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..4)];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

fn targets() -> impl Strategy<Value = Vec<u8>> {
    let begin = prop::sample::select(&[
        "/clusters/a",
        "/clusters/",
        "/apis/proxies.clusternet.io/v1alpha1/sockets/a/proxy/direct",
        "/apis/proxies.clusternet.io/v1alpha1/sockets/a/proxy/https/web",
        "/apis/proxies.clusternet.io/v1alpha1/sockets/",
        "https://hub/clusters/a",
        "/",
        "",
    ]);
    let rest = pieces(&[
        "/",
        "/api/v1",
        "/apis/apps/v1",
        "/watch",
        "/proxy",
        "/namespaces",
        "/default",
        "/pods",
        "/x",
        "/exec",
        "/..",
        "/.",
        "//",
        "%2e",
        "%2F",
        "%5c",
        "%00",
        "%",
        "\\",
        "?",
        "&",
        "=",
        ";",
        "#",
        "watch=1",
        "watch",
        "watch=0",
        "follow=true",
        "+",
        "fieldSelector=metadata.name",
        "%3d",
        "!=",
        ",",
        "direct",
        "http/",
        ":443",
        "@",
        "[::1]",
    ]);
    (begin, rest).prop_map(|(begin, rest)| [begin.as_bytes(), &rest].concat())
}

fn headers() -> impl Strategy<Value = Vec<u8>> {
    let name = pieces(&[
        "Connection",
        "Upgrade",
        "Authorization",
        "Impersonate-",
        "User",
        "Group",
        "Uid",
        "Extra-",
        "clusternet-token",
        "X-Remote-",
        "X-Mine",
        "Te",
        "Trailer",
        "Transfer-Encoding",
        "Keep-Alive",
        "Proxy-",
        "Host",
        "Forwarded",
        "X-Forwarded-",
        "For",
        "Sec-WebSocket-Protocol",
    ]);
    let whole = prop::sample::select(&[
        "Connection",
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Protocol",
        "Impersonate-User",
        "X-Mine",
        "Authorization",
    ]);
    let name = prop_oneof![3 => whole.prop_map(|name| name.as_bytes().to_vec()), 1 => name];
    let value = pieces(&[
        ",",
        ", ",
        "upgrade",
        "Upgrade",
        "SPDY/3.1",
        "websocket",
        "x-mine",
        "close",
        "host",
        "x-forwarded-for",
        "clusternet",
        "Bearer x",
        "base64url.bearer.authorization.k8s.io.",
        "v5.channel.k8s.io",
        "\u{e9}",
        " ",
    ]);
    (name, value).prop_map(|(name, value)| [&b"\n"[..], &name, b": ", &value].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn any_request(
        method in prop::sample::select(&["GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "x"]),
        target in targets(),
        version in prop::sample::select(&["HTTP/1.1", "HTTP/2.0"]),
        headers in prop::collection::vec(headers(), 0..8),
    ) {
        checked::check(&[method.as_bytes(), b" ", &target, b" ", version.as_bytes(), &headers.concat()].concat());
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        checked::check(&bytes);
    }
}
