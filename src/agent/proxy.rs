//! Requests that come through the tunnel: served as HTTP/1.1, sent on to the cluster's API server in the name of the user in the stream's
//! header, or by the cluster's own credential there. The API server decides what that user may do; whatever the request itself claims about identity is thrown away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::json;

use super::impersonate::{Name, name_of};
use crate::cluster::{ApiError, Cluster};
use crate::core::access::limits::ImpersonationLimits;
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
pub(super) async fn serve_stream(mut stream: TunnelStream, cluster: Cluster, limits: Arc<ImpersonationLimits>) {
    let header = match tokio::time::timeout(HEADER_TIMEOUT, read_header(&mut stream)).await {
        Ok(Ok(StreamHeader::Proxy(header))) => Arc::new(header),
        Ok(Ok(other)) => return tracing::warn!(?other, "the hub opened a stream that no agent serves"),
        Ok(Err(error)) => return tracing::debug!(%error, "a stream broke off before its header"),
        Err(_) => return tracing::debug!("a stream sent no header"),
    };
    let service = service_fn(move |request| {
        let (header, cluster, limits) = (header.clone(), cluster.clone(), limits.clone());
        async move { Ok::<_, Infallible>(answer(request, &header, &cluster, &limits).await) }
    });
    if let Err(error) = serve(stream, service).await {
        tracing::debug!(%error, "a proxied connection ended early");
    }
}

async fn answer(
    request: Request<Incoming>,
    header: &ProxyHeader,
    cluster: &Cluster,
    limits: &ImpersonationLimits,
) -> Response<Body> {
    let refused = |message: &str| problem(StatusCode::FORBIDDEN, "Forbidden", message);
    if header.target != DIRECT {
        return refused(&format!(
            "target {:?} is not served by this agent, only {DIRECT:?}",
            header.target
        ));
    }
    let name = match name_of(header, limits) {
        Ok(name) => name,
        Err(why) => return refused(&why),
    };
    match send_on(request, name, cluster).await {
        Ok(response) => response,
        Err(error @ ApiError::Credential { .. }) => problem(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
        Err(error) => problem(
            StatusCode::BAD_GATEWAY,
            "ServiceUnavailable",
            &format!("agent: {}", error.explain()),
        ),
    }
}

async fn send_on(mut request: Request<Incoming>, name: Name, cluster: &Cluster) -> Result<Response<Body>, ApiError> {
    let caller = asks_for_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let headers = request.headers_mut();
    remove_caller_credentials(headers);
    remove_hop_by_hop(headers);
    headers.remove(http::header::HOST);
    let mut response = match name {
        Name::Impersonated(identity) => {
            headers.extend(identity);
            cluster.forward(request.map(stream_body)).await?
        }
        Name::Own(credential, impersonated) => {
            headers.extend(impersonated);
            cluster.forward_as(&credential, request.map(stream_body)).await?
        }
    };
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
