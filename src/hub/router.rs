//! Which part of the hub answers a path. Decides who may ask for what, passes the rest on.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, Request, Response, header};
use hyper::body::Incoming;

use super::acceptor::Acceptor;
use super::answer::refused;
use super::api::HubApi;
use super::endpoints::{ADMIN_PATH, Endpoints, REGISTRATION_PATH};
use super::listener::{Application, Peer};
use super::metrics::Metrics;
use super::proxy::Proxy;
use super::registry::Registry;
use super::socket_path::{self, SocketPath};
use crate::core::access::authorize_user;
use crate::kubeapi::{Front, RequestContext};
use crate::tunnel::http::{Body, full, stream};

/// The hub behind its port.
#[derive(Debug)]
pub struct Router {
    /// Takes tunnels in.
    pub acceptor: Acceptor<Registry>,
    /// Passes requests on to clusters.
    pub proxy: Proxy<Registry>,
    /// Registration and administration.
    pub endpoints: Endpoints,
    /// The read-only API.
    pub front: Front<HubApi>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Application for Router {
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        match socket_path::parse(request.uri(), request.version()) {
            Some(Ok(SocketPath::Tunnel { cluster })) => return self.acceptor.answer(&peer, &cluster, request),
            Some(Ok(SocketPath::Direct { cluster, rest })) => return self.proxy.answer(&peer, &cluster, &rest, request).await,
            Some(Err(refusal)) => return refused(&refusal),
            None => {}
        }
        let path = request.uri().path();
        if path == REGISTRATION_PATH && request.method() == Method::POST {
            return self.endpoints.register(&peer, request).await;
        }
        if path.starts_with(ADMIN_PATH) && path.len() > ADMIN_PATH.len() {
            return self.endpoints.administer(&peer, request).await;
        }
        self.read(&peer, request).await
    }
}

/// Paths that tell nothing about anybody's clusters; load balancers and probes have no certificate.
fn is_public(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz", "/version"].contains(&path)
}

impl Router {
    async fn read(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        let identity = peer.identity(SystemTime::now());
        let path = request.uri().path().to_owned();
        let context = if is_public(&path) {
            RequestContext::default()
        } else {
            match authorize_user(&identity, &format!("{} {path}", request.method())) {
                Ok(user) => RequestContext {
                    user: user.name.clone(),
                    groups: user.groups.clone(),
                },
                Err(refusal) => return refused(&refusal),
            }
        };
        if path == "/metrics" {
            let mut response = Response::new(full(self.metrics.text()));
            let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return response;
        }
        self.front.handle(request, context).await.map(stream)
    }
}
