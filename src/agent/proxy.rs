//! Requests that come through the tunnel: sent on to the cluster's API server in the name of the user in the stream's
//! header, by the cluster's own credential there, or to a service that the cluster's owner allows, in nobody's. The API server decides what
//! that user may do; whatever the request itself claims about identity is thrown away.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::AgentConfig;
use super::impersonate::{Name, name_of};
use crate::cluster::{AccessError, ApiError, Cluster, Services};
use crate::core::access::limits::ImpersonationLimits;
use crate::core::reach::{Reachable, Service, Target};
use crate::tunnel::TunnelStream;
use crate::tunnel::control::read_header;
use crate::tunnel::http::{Body, full, remove_caller_credentials, remove_hop_by_hop, serve, stream as stream_body};
use crate::wire::header::{ProxyHeader, StreamHeader};

/// How long a stream may be open without saying what it is for.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where proxied requests may go.
#[derive(Clone, Debug)]
pub(super) struct Upstreams {
    cluster: Cluster,
    reachable: Arc<Reachable>,
    limits: Arc<ImpersonationLimits>,
    /// Only where the owner lets requests through to any: the system's certificates take memory.
    services: Option<Services>,
}

impl Upstreams {
    /// The API server, and the services that the owner lets requests through to.
    pub(super) async fn prepare(cluster: &Cluster, config: &AgentConfig) -> Result<Self, AccessError> {
        let services = match config.reachable.is_empty() {
            true => None,
            false => Some(Services::connect(&config.access).await?),
        };
        Ok(Upstreams {
            cluster: cluster.clone(),
            reachable: Arc::new(config.reachable.clone()),
            limits: Arc::clone(&config.impersonation),
            services,
        })
    }
}

/// Serves one stream that the hub opened, until it ends.
pub(super) async fn serve_stream(mut stream: TunnelStream, upstreams: Upstreams) {
    let header = match tokio::time::timeout(HEADER_TIMEOUT, read_header(&mut stream)).await {
        Ok(Ok(StreamHeader::Proxy(header))) => header,
        Ok(Ok(other)) => return tracing::warn!(?other, "the hub opened a stream that no agent serves"),
        Ok(Err(error)) => return tracing::debug!(%error, "a stream broke off before its header"),
        Err(_) => return tracing::debug!("a stream sent no header"),
    };
    let answered = serve(stream, header.body, |request| answer(request, &header, &upstreams));
    if let Err(error) = answered.await {
        tracing::debug!(%error, cause = ?std::error::Error::source(&error), "a proxied request ended early");
    }
}

async fn answer(request: Request<Body>, header: &ProxyHeader, upstreams: &Upstreams) -> Response<Body> {
    let answered = match header.target.parse() {
        Ok(Target::Direct) => to_api_server(request, header, upstreams).await,
        Ok(Target::Service(service)) => to_service(request, &service, upstreams).await,
        Err(error) => Err(Box::new(problem(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()))),
    };
    answered.unwrap_or_else(|problem| *problem)
}

/// An answer that is boxed because it is a problem and therefore rare.
type Answer = Result<Response<Body>, Box<Response<Body>>>;

async fn to_api_server(mut request: Request<Body>, header: &ProxyHeader, upstreams: &Upstreams) -> Answer {
    let name = name_of(header, &upstreams.limits).map_err(|why| refused(&why))?;
    clean(&mut request);
    let headers = request.headers_mut();
    let response = match name {
        Name::Impersonated(identity) => {
            headers.extend(identity);
            upstreams.cluster.forward(request).await
        }
        Name::Own(credential, impersonated) => {
            headers.extend(impersonated);
            upstreams.cluster.forward_as(&credential, request).await
        }
    };
    Ok(finish(response.map_err(|error| failed(&error))?))
}

/// Nobody's name goes along: a service has no use for the users of a cluster, and must not learn to trust such headers.
async fn to_service(mut request: Request<Body>, service: &Service, upstreams: &Upstreams) -> Answer {
    let services = upstreams.services.as_ref().filter(|_| upstreams.reachable.allows(service));
    let services = services.ok_or_else(|| {
        let authority = service.authority();
        refused(&format!(
            "the agent of this cluster lets nothing through to {authority}; the cluster's owner allows it with \
             `branchline agent --allow-proxy-to {authority}`"
        ))
    })?;
    clean(&mut request);
    let response = services.forward(service, request).await;
    Ok(finish(response.map_err(|error| failed(&error))?))
}

/// Leaves in a request what the next server may see.
fn clean(request: &mut Request<Body>) {
    let headers = request.headers_mut();
    remove_caller_credentials(headers);
    remove_hop_by_hop(headers);
    headers.remove(http::header::HOST);
}

/// An answer as it goes on; one that switches protocols keeps what says so.
fn finish(mut response: Response<Incoming>) -> Response<Body> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        remove_hop_by_hop(response.headers_mut());
    }
    response.map(stream_body)
}

fn refused(message: &str) -> Box<Response<Body>> {
    Box::new(problem(StatusCode::FORBIDDEN, "Forbidden", message))
}

fn failed(error: &ApiError) -> Box<Response<Body>> {
    Box::new(match error {
        ApiError::Credential { .. } => problem(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
        _ => {
            let message = format!("agent: {}", error.explain());
            problem(StatusCode::BAD_GATEWAY, "ServiceUnavailable", &message)
        }
    })
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
