//! Which part of the hub answers a path. Who may ask for what is decided at the gate.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};

use super::acceptor::Acceptor;
use super::answer::refused;
use super::api::HubApi;
use super::body::{BODY_TIMEOUT, whole};
use super::endpoints::{ADMIN_PATH, Endpoints, REGISTRATION_PATH};
use super::gate::{Admitted, Gate};
use super::listener::{Application, Peer};
use super::metrics::Metrics;
use super::proxy::Proxy;
use super::registry::Registry;
use super::socket_path::{self, SocketPath};
use super::user_access::UserAccess;
use crate::core::access::{Refusal, User};
use crate::core::text::printable;
use crate::kubeapi::{Backend as _, Front, RequestContext, Resource, Route};
use crate::tunnel::http::{Body, full, stream};

/// The hub behind its port.
#[derive(Debug)]
pub struct Router {
    /// Lets requests in.
    pub gate: Arc<Gate>,
    /// Takes tunnels in.
    pub acceptor: Acceptor<Registry>,
    /// Passes requests on to clusters.
    pub proxy: Proxy<Registry>,
    /// Registration and administration.
    pub endpoints: Endpoints,
    /// What people need for their kubeconfigs.
    pub user_access: UserAccess,
    /// The read-only API.
    pub front: Front<HubApi>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Application for Router {
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        match socket_path::parse(request.method(), request.uri(), request.version()) {
            Some(Ok(SocketPath::Tunnel { cluster })) => return self.acceptor.answer(&peer, &cluster, request),
            Some(Ok(SocketPath::Proxied(asked))) => return self.proxy.answer(&peer, &asked, request).await,
            Some(Err(refusal)) => return refused(&refusal),
            None => {}
        }
        let path = request.uri().path();
        if path == REGISTRATION_PATH && request.method() == Method::POST {
            return self.endpoints.register(&peer, request).await;
        }
        if is_public(path) {
            let caller = self.gate.caller(&peer, request.headers(), None).await;
            let context = caller.map(|caller| context(caller.user, None)).unwrap_or_default();
            return self.front.handle(request, context).await.map(stream);
        }
        let unserved = self.unserved(path);
        match (self.admit(&peer, request).await, unserved) {
            // Also for those who have no right to it: no right would help.
            (Ok(_) | Err(Refusal { code: 403, .. }), Some(refusal)) => refused(&refusal),
            (Ok((admitted, request)), None) => {
                let lease = Arc::clone(&admitted.lease);
                lease.bind(self.own(admitted, request).await)
            }
            (Err(refusal), _) => refused(&refusal),
        }
    }
}

/// The largest request to the hub's API, as in Kubernetes; administration has less to say.
fn body_limit(path: &str) -> usize {
    if path.starts_with(ADMIN_PATH) { 256 << 10 } else { 3 << 20 }
}

/// Paths that tell nothing about anybody's clusters to whom the hub does not know; load balancers and probes have no certificate.
fn is_public(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz", "/version"].contains(&path)
}

fn context(user: User, sender: Option<String>) -> RequestContext {
    RequestContext {
        user: user.name,
        groups: user.groups,
        sender,
    }
}

impl Router {
    /// A request is let in when it is whole. Whoever may not ask is refused at its head; whoever loses the right while the body comes, then.
    async fn admit(&self, peer: &Peer, request: Request<Incoming>) -> Result<(Admitted, Request<Bytes>), Refusal> {
        let admitted = self.gate.admit(peer, &request).await?;
        if request.body().is_end_stream() {
            return Ok((admitted, request.map(|_| Bytes::new())));
        }
        let (head, body) = request.into_parts();
        let body = whole(body, body_limit(head.uri.path()), BODY_TIMEOUT);
        let body = admitted.lease.during(body).await??;
        let request = Request::from_parts(head, body);
        Ok((self.gate.admit(peer, &request).await?, request))
    }

    /// Why there is nothing to be had at a path that leads to objects which clusters have and the hub does not.
    fn unserved(&self, path: &str) -> Option<Refusal> {
        let Route::Resource(asked) = Route::parse(path) else {
            return None;
        };
        let catalog = self.front.backend().catalog();
        let is_asked = |resource: &Arc<Resource>| (&*resource.group, &*resource.plural) == (&*asked.group, &*asked.resource);
        if path.starts_with(ADMIN_PATH) || catalog.iter().any(is_asked) {
            return None;
        }
        let resource = printable(&asked.resource);
        let message =
            format!("the hub itself has no {resource}: use the context of a cluster; `branchline kubeconfig` writes them");
        Some(Refusal::new(404, "NotFound", message))
    }

    /// What the hub answers itself.
    async fn own(&self, admitted: Admitted, request: Request<Bytes>) -> Response<Body> {
        let (path, actor) = (request.uri().path(), admitted.actor());
        if UserAccess::serves(request.method(), path) {
            return self.user_access.answer(&admitted.user, &actor, &request).await;
        }
        if path.starts_with(ADMIN_PATH) && path.len() > ADMIN_PATH.len() {
            return self.endpoints.administer(&admitted.user, &actor, &request).await;
        }
        if path == "/metrics" {
            let mut response = Response::new(full(self.metrics.text()));
            let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return response;
        }
        let context = context(admitted.user, actor.sender);
        self.front.handle(request.map(Full::new), context).await.map(stream)
    }
}
