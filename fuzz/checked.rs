//! What must hold of any request, whatever bytes it is made of: shared by the fuzz target and by an ordinary test, which know no other rules.
//!
//! The rules are written down here a second time, as a server behind the hub would read the request, and not in the words of the code that they
//! are held against.

use std::net::IpAddr;

use branchline::core::access::attributes::{Attributes, ClusterNames, Target as AskedFor};
use branchline::core::access::impersonation::{Asked, asked as impersonated};
use branchline::core::ids::ClusterId;
use branchline::core::reach::Target;
use branchline::core::request_query::{FieldSelector, Query};
use branchline::hub::passed_request::{class_of, decided_on, prepare};
use branchline::hub::socket_path::{Proxied, SocketPath, parse};
use branchline::tunnel::http::{asks_for_upgrade, remove_caller_credentials, remove_hop_by_hop};
use branchline::wire::header::RequestClass;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// The two ways to a cluster, as the API has them.
const WAYS: [&str; 2] = ["/apis/proxies.clusternet.io/v1alpha1/sockets/", "/clusters/"];
const CLUSTER: &str = "6b0a4fd2-6f3e-4f3c-9c55-0d9a1f0c7a11";
const SENDER: &str = "192.0.2.7";
/// What belongs to one connection (RFC 9110, 7.6.1, and RFC 9112), whether Connection names it or not.
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// As many as the hub's HTTP server lets through.
const MOST_HEADERS: usize = 100;

/// Reads `METHOD target [HTTP/2.0]` and a line for each header, and checks whatever request that makes.
pub(crate) fn check(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(without_return);
    let Some(mut request) = lines.next().and_then(request_line) else {
        return;
    };
    for (name, value) in lines.filter_map(header).take(MOST_HEADERS) {
        request.headers_mut().append(name, value);
    }
    is_answered(&request);
    match parse(request.method(), request.uri(), request.version()) {
        None => assert!(!leads_to_clusters(request.uri()), "{request:?}"),
        Some(Err(refusal)) => assert!(
            (400..500).contains(&refusal.code) && !refusal.message.is_empty(),
            "{refusal:?}"
        ),
        Some(Ok(path)) => {
            assert!(leads_to_clusters(request.uri()), "{request:?}");
            has_one_meaning(&request);
            if let SocketPath::Proxied(asked) = path {
                is_passed_on(request, &asked);
            }
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Nothing where a server of HTTP would refuse the line itself.
fn request_line(line: &[u8]) -> Option<Request<()>> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(words.next()?).ok()?;
    *request.version_mut() = match words.next() {
        Some(b"HTTP/2.0") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    Some(request)
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
}

fn leads_to_clusters(uri: &Uri) -> bool {
    WAYS.iter().any(|way| uri.path().starts_with(way))
}

/// What decides and words a refusal has an answer to anything.
fn is_answered(request: &Request<()>) {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let attributes = Attributes::of_request(request.method().as_str(), path, query);
    let words = [
        attributes.to_string(),
        attributes.forbidden_to("ann"),
        attributes.rule_that_grants(),
    ];
    assert!(words.iter().all(|words| !words.is_empty()), "{words:?}");
    if let AskedFor::Resource(asked) = &attributes.target {
        let segments = [Some(&asked.resource), asked.namespace.as_ref(), asked.subresource.as_ref()];
        let is_segment = |text: &&String| !text.is_empty() && !text.contains('/');
        assert!(segments.iter().flatten().all(is_segment), "{asked:?}");
    }
    reads_its_query_once(&attributes, query);
    let texts = request.headers().iter();
    let texts = texts.map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_bytes()).ok()));
    match impersonated(texts) {
        Ok(Asked::Nothing) => assert!(!request.headers().keys().any(|name| name.as_str().starts_with("impersonate-"))),
        Ok(Asked::Act(wanted)) => assert!(!wanted.user.name.is_empty() && !wanted.rights().is_empty(), "{wanted:?}"),
        Ok(Asked::Credential(credential)) => assert!(credential.token.is_some() || credential.certificate.is_some()),
        Err(refusal) => assert!((400..500).contains(&refusal.code), "{refusal:?}"),
    }
}

/// A list that goes on is no list, and one that selects a name is about that name alone.
fn reads_its_query_once(attributes: &Attributes, query: &str) {
    let query = Query::parse(query);
    let selector = query.get("fieldSelector").map(FieldSelector::parse);
    let AskedFor::Resource(asked) = &attributes.target else {
        return;
    };
    if attributes.verb == "list" {
        assert!(!query.flag("watch"), "{attributes:?}");
    }
    let selected = selector.and_then(Result::ok);
    let selected = selected.as_ref().and_then(|selector| selector.exact("metadata.name"));
    if let ("list", Some(selected)) = (attributes.verb.as_str(), selected.filter(|name| !name.is_empty())) {
        assert_eq!(asked.name.as_deref(), Some(selected));
    }
}

/// However often a server merges slashes, or decodes before it looks for segments, it sees these segments.
fn has_one_meaning(request: &Request<()>) {
    let uri = request.uri();
    assert!(
        uri.authority().is_none() || request.version() == Version::HTTP_2,
        "absolute form: {uri}"
    );
    assert_ne!(request.method(), Method::CONNECT);
    let way = WAYS.iter().find_map(|way| uri.path().strip_prefix(way));
    let segments: Vec<&str> = way.unwrap_or_default().split('/').collect();
    let (_, before) = segments.split_last().unwrap_or((&"", &[]));
    assert!(
        !segments[0].is_empty() && before.iter().all(|segment| !segment.is_empty()),
        "{uri}"
    );
    for segment in segments.iter().map(|segment| decoded(segment.as_bytes())) {
        assert!(![&b"."[..], b".."].contains(&&segment[..]), "a dot segment: {uri}");
        assert!(!segment.iter().any(|byte| b"/\\\0".contains(byte)), "what separates: {uri}");
    }
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        bytes.push(escaped.map_or(*byte, |(high, low)| (high * 16 + low) as u8));
        rest = if escaped.is_some() { &rest[3..] } else { after };
    }
    bytes
}

/// What is sent is what was decided on, and nothing of what the sender asserts goes along.
fn is_passed_on(mut request: Request<()>, asked: &Proxied) {
    let received = request.headers().clone();
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let decided = decided_on(&request, asked);
    let (attributes, upgrade, class) = (decided.attributes(), decided.upgrade, class_of(&request));
    is_decided_as_sent(&request, asked, &attributes);
    let (id, sender): (ClusterId, IpAddr) = (CLUSTER.parse().unwrap(), SENDER.parse().unwrap());
    prepare(&mut request, &id, &asked.rest, sender).unwrap();

    let sent = request.uri();
    assert!(sent.authority().is_none() && sent.path().starts_with('/'), "{sent}");
    assert_eq!(sent.path_and_query().unwrap().as_str(), asked.rest);
    let bare = asked.rest.strip_prefix('/').unwrap();
    assert!(target.ends_with(bare), "{target} was asked for, {sent} is sent");
    if asked.target == Target::Direct {
        let seen = Attributes::of_request(request.method().as_str(), sent.path(), sent.query().unwrap_or_default());
        assert_eq!(seen, attributes, "decided on {}", asked.rest);
    }
    assert_eq!(asks_for_upgrade(request.headers()), upgrade);
    assert_eq!(class == RequestClass::Upgrade, upgrade);
    assert_eq!(class_of(&request), class);
    carries_nothing_of_its_sender(&received, request.headers(), upgrade);
    agent_sees_the_same(request.headers());
}

/// A write is never decided on as a read; and who takes a connection over needs the right to create.
fn is_decided_as_sent(request: &Request<()>, asked: &Proxied, attributes: &Attributes) {
    let decided = decided_on(request, asked);
    let cluster = ClusterNames::unknown(&asked.cluster);
    let socket = cluster.socket(&decided).verb;
    let is_write = ["POST", "PUT", "PATCH", "DELETE"].contains(&decided.method);
    assert!(
        !is_write || !["", "get", "list", "watch"].contains(&&*socket),
        "{socket}: {request:?}"
    );
    if decided.upgrade && attributes.verb != "watch" {
        assert_eq!(
            (socket.as_str(), &*cluster.virtual_cluster(&decided).verb),
            ("create", "create")
        );
    }
}

fn carries_nothing_of_its_sender(received: &HeaderMap, sent: &HeaderMap, upgrade: bool) {
    for (name, own) in [("host", CLUSTER), ("x-forwarded-for", SENDER)] {
        let values: Vec<&HeaderValue> = sent.get_all(name).iter().collect();
        assert_eq!(values, [own]);
    }
    for (name, value) in sent {
        let is_of_upgrade = upgrade && ["connection", "upgrade"].contains(&name.as_str());
        if is_of_upgrade || ["host", "x-forwarded-for"].contains(&name.as_str()) {
            continue;
        }
        assert!(!is_asserted(name.as_str()), "{name} survives");
        assert!(!OF_CONNECTION.contains(&name.as_str()), "{name} survives");
        assert!(
            !is_named_by_connection(received, name),
            "Connection names {name}, which survives"
        );
        match name.as_str() {
            "sec-websocket-protocol" => assert!(!has_token(value), "a token survives: {value:?}"),
            _ => assert!(received.get_all(name).iter().any(|old| old == value), "nobody sent {name}"),
        }
    }
}

/// Websocket clients that can set no headers bring a bearer token so (k8s.io/apiserver, authentication/request/websocket).
fn has_token(value: &HeaderValue) -> bool {
    let text = value.as_bytes().to_ascii_lowercase();
    let token = b"base64url.bearer.authorization.k8s.io.";
    text.windows(token.len()).any(|window| window == token)
}

fn is_asserted(name: &str) -> bool {
    let begins = ["impersonate-", "x-remote-", "x-forwarded-"];
    ["authorization", "forwarded", "x-real-ip"].contains(&name) || begins.iter().any(|begin| name.starts_with(begin))
}

fn is_named_by_connection(received: &HeaderMap, name: &HeaderName) -> bool {
    let values = received.get_all("connection").into_iter();
    let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// The agent removes the same again: there must be nothing left that it would read otherwise.
fn agent_sees_the_same(sent: &HeaderMap) {
    let mut again = sent.clone();
    remove_caller_credentials(&mut again);
    remove_hop_by_hop(&mut again);
    assert_eq!(&again, sent);
}
