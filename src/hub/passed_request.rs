//! A request on its way to a cluster: what is decided on, and what goes out. Pure, so that both can be held against each other for whatever comes
//! (`fuzz/`).

use std::net::IpAddr;

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

use super::socket_path::Proxied;
use crate::core::access::Refusal;
use crate::core::access::attributes::ProxiedRequest;
use crate::core::ids::ClusterId;
use crate::core::reach::Target;
use crate::core::request_query::Query;
use crate::tunnel::http::{asks_for_upgrade, remove_caller_credentials, remove_hop_by_hop};
use crate::wire::header::RequestClass;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What a request asks of the cluster, for those who decide.
pub fn decided_on<'a, B>(request: &'a Request<B>, asked: &'a Proxied) -> ProxiedRequest<'a> {
    ProxiedRequest {
        method: request.method().as_str(),
        // A service's paths may look like an API server's and mean something else.
        target: if asked.target == Target::Direct { &asked.rest } else { "/" },
        upgrade: asks_for_upgrade(request.headers()),
    }
}

/// The same for those who look into it later, with the service that it is about.
pub(super) fn audited<'a, B>(request: &'a Request<B>, asked: &'a Proxied, path: &'a mut String) -> ProxiedRequest<'a> {
    let direct = decided_on(request, asked);
    if asked.target == Target::Direct {
        return direct;
    }
    *path = format!("/{}{}", asked.target, asked.rest);
    ProxiedRequest { target: path, ..direct }
}

/// How long the request's stream may live. To be asked before [`prepare`], like all that decides.
pub fn class_of<B>(request: &Request<B>) -> RequestClass {
    if asks_for_upgrade(request.headers()) {
        return RequestClass::Upgrade;
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match query.flag("watch") || query.flag("follow") {
        true => RequestClass::Watch,
        false => RequestClass::Short,
    }
}

/// Makes the request what the cluster shall see: path and query there, nothing of what its sender asserts, and the address that it came from.
/// An error when `rest` is no path; one that [`super::socket_path`] gave always is.
pub fn prepare<B>(request: &mut Request<B>, id: &ClusterId, rest: &str, sender: IpAddr) -> Result<(), Refusal> {
    let target: Uri = rest
        .parse()
        .map_err(|error| Refusal::new(400, "BadRequest", format!("the path {rest:?} is no path: {error}")))?;
    *request.uri_mut() = target;
    let headers = request.headers_mut();
    remove_caller_credentials(headers);
    remove_hop_by_hop(headers);
    remove_what_proxies_say(headers);
    if let Ok(host) = HeaderValue::from_str(id.as_str()) {
        headers.insert(HOST, host);
    }
    // The cluster's audit log then has the user's address, as behind any other proxy.
    if let Ok(address) = HeaderValue::from_str(&sender.to_string()) {
        headers.insert(FORWARDED_FOR, address);
    }
    Ok(())
}

/// All of `X-Forwarded-*`, not the well-known ones alone: some proxies say who the user is there (`X-Forwarded-User`, `X-Forwarded-Client-Cert`), and
/// services believe it.
fn remove_what_proxies_say(headers: &mut HeaderMap) {
    headers.remove(FORWARDED);
    headers.remove(REAL_IP);
    let names = headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-"));
    for name in names.cloned().collect::<Vec<HeaderName>>() {
        headers.remove(name);
    }
}
