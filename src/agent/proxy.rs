//! Requests that come through the tunnel: served as HTTP/1.1, sent on to the cluster's API server in the name of the user in the stream's
//! header. The API server decides what that user may do; whatever the request itself claims about identity is thrown away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::cluster::{ApiError, Cluster};
use crate::tunnel::TunnelStream;
use crate::tunnel::control::read_header;
use crate::tunnel::http::{
    Body, asks_for_upgrade, full, hand_over, remove_caller_credentials, remove_hop_by_hop, serve, stream as stream_body,
};
use crate::wire::header::{ProxyHeader, StreamHeader};

/// How long a stream may be open without saying what it is for.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The only target: the cluster's own API server.
const DIRECT: &str = "direct";

/// Serves one stream that the hub opened, until it ends.
pub(super) async fn serve_stream(mut stream: TunnelStream, cluster: Cluster) {
    let header = match tokio::time::timeout(HEADER_TIMEOUT, read_header(&mut stream)).await {
        Ok(Ok(StreamHeader::Proxy(header))) => Arc::new(header),
        Ok(Ok(other)) => return tracing::warn!(?other, "the hub opened a stream that no agent serves"),
        Ok(Err(error)) => return tracing::debug!(%error, "a stream broke off before its header"),
        Err(_) => return tracing::debug!("a stream sent no header"),
    };
    let service = service_fn(move |request| {
        let (header, cluster) = (header.clone(), cluster.clone());
        async move { Ok::<_, Infallible>(answer(request, &header, &cluster).await) }
    });
    if let Err(error) = serve(stream, service).await {
        tracing::debug!(%error, "a proxied connection ended early");
    }
}

async fn answer(request: Request<Incoming>, header: &ProxyHeader, cluster: &Cluster) -> Response<Body> {
    let refused = |message: &str| problem(StatusCode::FORBIDDEN, "Forbidden", message);
    if header.target != DIRECT {
        return refused(&format!(
            "target {:?} is not served by this agent, only {DIRECT:?}",
            header.target
        ));
    }
    let Some(identity) = impersonation(header) else {
        return refused(
            "the hub sent this request without a user, or with one that HTTP cannot carry; no request goes on in the agent's own name",
        );
    };
    match send_on(request, identity, cluster).await {
        Ok(response) => response,
        Err(error) => problem(
            StatusCode::BAD_GATEWAY,
            "ServiceUnavailable",
            &format!("agent: {}", error.explain()),
        ),
    }
}

async fn send_on(mut request: Request<Incoming>, identity: HeaderMap, cluster: &Cluster) -> Result<Response<Body>, ApiError> {
    let caller = asks_for_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let headers = request.headers_mut();
    remove_caller_credentials(headers);
    remove_hop_by_hop(headers);
    headers.remove(http::header::HOST);
    headers.extend(identity);
    let mut response = cluster.forward(request.map(stream_body)).await?;
    match caller {
        Some(caller) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            hand_over(caller, hyper::upgrade::on(&mut response));
        }
        Some(_) => {
            remove_hop_by_hop(response.headers_mut());
            // The caller may have sent data of the new protocol already, so its connection cannot be used again.
            response
                .headers_mut()
                .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        None => remove_hop_by_hop(response.headers_mut()),
    }
    Ok(response.map(stream_body))
}

/// The headers by which the API server knows for whom it works; nothing without a user.
fn impersonation(header: &ProxyHeader) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if header.user.is_empty() {
        return None;
    }
    headers.insert("impersonate-user", HeaderValue::from_str(&header.user).ok()?);
    for group in &header.groups {
        headers.append("impersonate-group", HeaderValue::from_str(group).ok()?);
    }
    for (name, values) in &header.extra {
        let name = format!("impersonate-extra-{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).ok()?;
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).ok()?);
        }
    }
    Some(headers)
}

/// A Kubernetes `Status`, so that kubectl prints the message.
fn problem(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16()});
    let mut response = Response::new(full(status.to_string()));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::header::RequestClass;

    fn header(user: &str) -> ProxyHeader {
        ProxyHeader {
            target: DIRECT.into(),
            user: user.into(),
            groups: vec!["branchline:admins".into(), "dev".into()],
            extra: BTreeMap::from([("example.org/scopes".to_owned(), vec!["view".to_owned()])]),
            class: RequestClass::Short,
        }
    }

    #[test]
    fn the_stream_header_becomes_impersonation() {
        let headers = impersonation(&header("alice")).unwrap();
        assert_eq!(headers["impersonate-user"], "alice");
        assert_eq!(headers.get_all("impersonate-group").iter().count(), 2);
        assert_eq!(headers["impersonate-extra-example%2eorg%2fscopes"], "view");
        assert!(impersonation(&header("")).is_none());
        assert!(impersonation(&header("al\r\nice")).is_none());
    }
}
