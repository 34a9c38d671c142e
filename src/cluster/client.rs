//! Requests to one API server over kube's transport: address, TLS and credentials are kube's, the requests are our own plain JSON.

use crate::core::text::with_causes;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::ConfigExt;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

use super::access::{Access, AccessError};
use super::discovery::Catalog;
use super::error::{ApiError, Status};
use super::read_ahead::ReadAhead;
use crate::core::access::impersonation::ClusterCredential;
use crate::net::Gathered;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request body that may be streamed.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(super) type Transport = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

/// Longest wait for the answer to a short request. Above the API server's own limit for admission webhooks, 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// Connections that stay open between requests. More of them would only cost memory while nothing happens.
const IDLE_CONNECTIONS: usize = 64;
/// After this time an idle connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Most that is read of an answer ahead of whoever takes it, and the longest head of one.
const READ_AHEAD: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A shared connection is asked whether it is alive while requests wait on it: a dead one would hold all of them.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait for the answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// No single answer that we ask for is larger; a page of 100 nodes is 2 MB.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// Asks for an object's metadata without the rest. A server that does not know it answers with the whole object.
pub(super) const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// One API server. Cheap to clone; clones share connections and discovery.
#[derive(Clone)]
pub struct Cluster {
    /// With the kubeconfig's own impersonation, for what the agent does itself.
    own: Transport,
    /// Without, for requests that carry somebody else's name.
    plain: Transport,
    /// Without anything that proves who we are, for requests that bring a token of their own.
    nobody: Transport,
    /// The same as a configuration, for requests that bring a certificate: that is the connection's.
    nobodys: Arc<kube::Config>,
    server: Arc<str>,
    pub(super) catalog: Arc<ArcSwap<Catalog>>,
    pub(super) refreshing: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Prepares the client. Nothing is sent yet: an API server that is down is no error here.
    pub async fn connect(access: &Access) -> Result<Self, AccessError> {
        super::install_tls_provider();
        let config = access.load().await?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let refused = |error: kube::Error| AccessError::Credentials {
            server: server.clone(),
            message: with_causes(&error),
        };
        let client = http_client(&config, IDLE_CONNECTIONS).map_err(refused)?;
        let shared = shared_connection(&config).map_err(refused)?;
        let auth = || config.auth_layer().map_err(refused);
        let base = ServiceBuilder::new().layer(config.base_uri_layer());
        let plain = base.clone().option_layer(auth()?).map_err(BoxError::from).service(client);
        let nobodys = without_credentials(&config);
        let nobody = transport(&nobodys, IDLE_CONNECTIONS).map_err(refused)?;
        let extra = config.extra_headers_layer().map_err(refused)?;
        let own = base
            .option_layer(auth()?)
            .layer(extra)
            .map_err(BoxError::from)
            .service(shared);
        Ok(Cluster {
            own: BoxCloneSyncService::new(own),
            plain: BoxCloneSyncService::new(plain),
            nobody,
            nobodys: Arc::new(nobodys),
            server: server.as_str().into(),
            catalog: Arc::default(),
            refreshing: Arc::default(),
        })
    }

    /// The API server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends a request in somebody else's name, which its headers say, and hands on whatever comes back. The answer's body streams.
    pub async fn forward(&self, request: Request<Body>) -> Result<Response<Incoming>, ApiError> {
        let response = call(&self.plain, request).await;
        response.map_err(|error| self.unreachable(&*error))
    }

    /// The same by a credential that its sender brought. Nothing of the agent's own identity can get into it, and a certificate's connection is
    /// made for this request alone.
    pub async fn forward_as(
        &self,
        credential: &ClusterCredential,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ApiError> {
        let unusable = |message: String| ApiError::Credential {
            kind: credential.kind(),
            message,
        };
        let transport = match &credential.token {
            Some(token) => {
                let value = bearer(token).ok_or_else(|| unusable("it has characters that no header can carry".to_owned()))?;
                request.headers_mut().insert(AUTHORIZATION, value);
                self.nobody.clone()
            }
            None => self
                .by_certificate(credential)
                .map_err(|error| unusable(with_causes(&error)))?,
        };
        let response = call(&transport, request).await;
        response.map_err(|error| self.unreachable(&*error))
    }

    fn by_certificate(&self, credential: &ClusterCredential) -> Result<Transport, kube::Error> {
        let base64 = |pem: &Option<String>| pem.as_ref().map(|pem| STANDARD.encode(pem));
        let mut config = (*self.nobodys).clone();
        config.auth_info.client_certificate_data = base64(&credential.certificate);
        config.auth_info.client_key_data = base64(&credential.private_key).map(Into::into);
        transport(&config, 0)
    }

    /// A GET whose answer is JSON of this shape.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.get_as(path, "application/json").await
    }

    /// A GET with an own `Accept` header.
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str, accept: &str) -> Result<T, ApiError> {
        let request = Request::get(path).header(ACCEPT, accept).body(full(""));
        let bytes = self.send(path, request).await?;
        self.read(path, &bytes)
    }

    /// A GET whose answer is a short text.
    pub(super) async fn get_text(&self, path: &str) -> Result<String, ApiError> {
        let bytes = self.send(path, Request::get(path).body(full(""))).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A request with a JSON body; the answer's bytes.
    pub(super) async fn write(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Result<Bytes, ApiError> {
        let request = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
        self.send(path, request.header(CONTENT_TYPE, content_type).body(full(body)))
            .await
    }

    /// The same for a JSON object that need not be echoed: the answer has its metadata alone.
    pub(super) async fn write_briefly(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ApiError> {
        let request = Request::builder().method(method).uri(path).header(ACCEPT, METADATA_ONLY);
        self.send(path, request.header(CONTENT_TYPE, "application/json").body(full(body)))
            .await
    }

    /// Parses an answer.
    pub(super) fn read<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Result<T, ApiError> {
        serde_json::from_slice(bytes).map_err(|error| self.unexpected(path, &error))
    }

    async fn send(&self, path: &str, request: http::Result<Request<Body>>) -> Result<Bytes, ApiError> {
        let request = request.map_err(|error| self.unexpected(path, &error))?;
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request));
        let (code, bytes) = answer.await.map_err(|_| ApiError::Timeout {
            server: self.server.to_string(),
            seconds: REQUEST_TIMEOUT.as_secs(),
        })??;
        if code < 400 {
            return Ok(bytes);
        }
        Err(ApiError::Refused(status_of(code, &bytes)))
    }

    async fn exchange(&self, request: Request<Body>) -> Result<(u16, Bytes), ApiError> {
        let response = call(&self.own, request).await.map_err(|error| self.unreachable(&*error))?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        Ok((code, body.map_err(|error| self.unreachable(&*error))?.to_bytes()))
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> ApiError {
        ApiError::Unreachable {
            server: self.server.to_string(),
            message: with_causes(error),
        }
    }

    pub(super) fn unexpected(&self, path: &str, error: &dyn std::error::Error) -> ApiError {
        ApiError::Unexpected {
            server: self.server.to_string(),
            path: path.to_owned(),
            message: error.to_string(),
        }
    }
}

/// Boxed here, where all types are known: inside larger futures the compiler cannot prove that it may change threads.
pub(super) fn call(transport: &Transport, request: Request<Body>) -> BoxFuture<'static, Result<Response<Incoming>, BoxError>> {
    Box::pin(transport.clone().oneshot(request))
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The configuration without certificate, token and whatever else speaks for the agent.
fn without_credentials(config: &kube::Config) -> kube::Config {
    let mut config = config.clone();
    config.auth_info = kube::config::AuthInfo::default();
    config.headers = Vec::new();
    config
}

/// Requests by what the configuration has besides tokens.
fn transport(config: &kube::Config, idle: usize) -> Result<Transport, kube::Error> {
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .map_err(BoxError::from)
        .service(http_client(config, idle)?);
    Ok(BoxCloneSyncService::new(service))
}

pub(super) fn http_client(
    config: &kube::Config,
    idle: usize,
) -> Result<legacy::Client<impl legacy::connect::Connect + Clone + Send + Sync + 'static, Body>, kube::Error> {
    let connector = config.rustls_https_connector_with_connector(gathered(tcp()))?;
    let connector = connector.map_response(|stream| TokioIo::new(ReadAhead::new(TokioIo::new(stream))));
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(READ_AHEAD)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle)
        .build(connector))
}

/// For the agent's own requests: all of them share one HTTP/2 connection where the server speaks it. With HTTP/1.1 a hundred objects at once would
/// first wait for dozens of handshakes, whose signatures cost the API server as much as the objects do. Requests of users, which may be upgrades,
/// have no place here.
fn shared_connection(
    config: &kube::Config,
) -> Result<legacy::Client<impl legacy::connect::Connect + Clone + Send + Sync + 'static, Body>, kube::Error> {
    let mut builder = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    // What kube's own connector does, which offers HTTP/1.1 alone.
    if let Some(name) = config.tls_server_name.clone() {
        let name = ServerName::try_from(name).map_err(|error| kube::Error::Service(error.into()))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(builder.enable_all_versions().wrap_connector(gathered(tcp()))))
}

/// The same connections, read in large pieces.
fn gathered(
    connector: HttpConnector,
) -> impl Service<Uri, Response = TokioIo<Gathered<TcpStream>>, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static
{
    connector.map_response(|stream| TokioIo::new(Gathered::new(stream.into_inner())))
}

fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    // A machine that is gone is noticed within a minute, also by an exec session or a silent log.
    connector.set_keepalive(Some(Duration::from_secs(30)));
    connector.set_keepalive_interval(Some(Duration::from_secs(10)));
    connector.set_keepalive_retries(Some(3));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

/// The `Status` in an error's body; anything else becomes its message.
fn status_of(code: u16, body: &[u8]) -> Status {
    let is_status = |value: &Value| value.get("kind").and_then(Value::as_str) == Some("Status");
    let parsed = serde_json::from_slice::<Value>(body).ok().filter(is_status);
    let status: Option<Status> = parsed.and_then(|value| serde_json::from_value(value).ok());
    let mut status = status.unwrap_or_else(|| Status {
        message: String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned(),
        ..Status::default()
    });
    status.code = code;
    if status.message.is_empty() {
        status.message = format!("HTTP status {code}");
    }
    status
}
