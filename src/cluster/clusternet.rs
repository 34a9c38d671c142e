//! Clusternet's client wrapper for users of kube: a [`tower::Layer`] for `kube::client::ClientBuilder::with_layer`, which leads each request of a
//! client for the hub into a cluster, or to the templates of a hub of Clusternet's.

use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Uri};
use tower::{Layer, Service};

use crate::core::access::impersonation::CLUSTERNET_USER;
use crate::core::api::paths::{shadow_path, socket_path};
use crate::core::ids::ClusterId;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const TOKEN: HeaderName = HeaderName::from_static("impersonate-extra-clusternet-token");

/// Where requests go instead.
#[derive(Clone, Debug)]
pub struct ClusternetLayer {
    destination: Destination,
    token: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
enum Destination {
    Templates { base: String },
    Cluster(ClusterId),
}

impl ClusternetLayer {
    /// Into a cluster, in the name of whom the client's credential of the hub says.
    pub fn into_cluster(id: ClusterId) -> Self {
        ClusternetLayer {
            destination: Destination::Cluster(id),
            token: None,
        }
    }

    /// To Clusternet's shadow API, as its client-go wrapper does it; `base` is the path of the server's URL. Kinds of Clusternet's own stay where
    /// they are. A hub of Branchline has no shadow API, because templates are files in git.
    pub fn to_templates(base: &str) -> Self {
        ClusternetLayer {
            destination: Destination::Templates { base: base.to_owned() },
            token: None,
        }
    }

    /// The same by a token of the cluster itself, in Clusternet's extras; `None` for a token that no header can carry.
    #[must_use]
    pub fn with_cluster_token(self, token: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(token).ok()?;
        value.set_sensitive(true);
        Some(ClusternetLayer {
            token: Some(value),
            ..self
        })
    }

    fn lead<B>(&self, request: &mut Request<B>) {
        let path = request.uri().path();
        let elsewhere = match &self.destination {
            Destination::Templates { base } => shadow_path(base, path),
            Destination::Cluster(id) => Some(socket_path(id, path)),
        };
        if let Some(uri) = elsewhere.and_then(|path| with_path(request.uri(), &path)) {
            *request.uri_mut() = uri;
        }
        if let Some(token) = &self.token {
            request.headers_mut().insert(USER, HeaderValue::from_static(CLUSTERNET_USER));
            request.headers_mut().insert(TOKEN, token.clone());
        }
    }
}

/// A path out of an URI and of characters that need no escape makes an URI again.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

impl<S> Layer<S> for ClusternetLayer {
    type Service = ClusternetService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ClusternetService {
            layer: self.clone(),
            inner,
        }
    }
}

/// What [`ClusternetLayer`] makes of a client.
#[derive(Clone, Debug)]
pub struct ClusternetService<S> {
    layer: ClusternetLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for ClusternetService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.layer.lead(&mut request);
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_the_path_changes() {
        let mut request = Request::get("https://hub:8443/api/v1/pods?watch=1").body(()).unwrap();
        ClusternetLayer::to_templates("").lead(&mut request);
        assert_eq!(request.uri(), "https://hub:8443/apis/shadow/v1alpha1/pods?watch=1");
        let mut own = Request::get("/apis/apps.clusternet.io/v1alpha1/subscriptions")
            .body(())
            .unwrap();
        ClusternetLayer::to_templates("").lead(&mut own);
        assert_eq!(own.uri(), "/apis/apps.clusternet.io/v1alpha1/subscriptions");
        assert!(own.headers().is_empty());
        assert!(ClusternetLayer::to_templates("").with_cluster_token("a\nb").is_none());
    }
}
