//! Services beside the API server, reached with nothing of what the agent may do: no token, no certificate, nobody's name.

use http::{Request, Response, Uri, uri};
use hyper::body::Incoming;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tower::ServiceExt;

use super::access::{Access, AccessError};
use super::client::{Body, BoxError, Transport, call, http_client};
use super::error::ApiError;
use crate::core::reach::Service;
use crate::core::text::with_causes;

/// Connections that stay open between requests.
const IDLE_CONNECTIONS: usize = 8;

/// The way to services. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Services {
    transport: Transport,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Services {
    /// Prepares the client. It trusts the system's authorities and the one that signed the API server's certificate.
    pub async fn connect(access: &Access) -> Result<Self, AccessError> {
        super::install_tls_provider();
        let cluster = access.load().await?;
        let refused = |error: kube::Error| AccessError::Credentials {
            server: "services".to_owned(),
            message: with_causes(&error),
        };
        // A configuration of its own: everything in the cluster's that proves who we are stays out.
        let mut config = kube::Config::new(Uri::from_static("https://services.invalid"));
        config.read_timeout = None;
        config.write_timeout = None;
        config.root_cert = Some(trusted(cluster.root_cert.unwrap_or_default()));
        let client = http_client(&config, IDLE_CONNECTIONS).map_err(refused)?;
        Ok(Services {
            transport: Transport::new(client.map_err(BoxError::from)),
        })
    }

    /// Sends a request, whose target is path and query, and hands on whatever comes back. The answer's body streams.
    pub async fn forward(&self, service: &Service, mut request: Request<Body>) -> Result<Response<Incoming>, ApiError> {
        let unreachable = |error: &(dyn std::error::Error + 'static)| ApiError::Unreachable {
            server: service.authority(),
            message: with_causes(error),
        };
        *request.uri_mut() = absolute(service, request.uri()).map_err(|error| unreachable(&error))?;
        call(&self.transport, request).await.map_err(|error| unreachable(&*error))
    }
}

fn absolute(service: &Service, target: &Uri) -> http::Result<Uri> {
    let path = target.path_and_query().map_or("/", uri::PathAndQuery::as_str);
    Uri::builder()
        .scheme(service.scheme.as_str())
        .authority(service.authority())
        .path_and_query(path)
        .build()
}

/// The cluster's authorities and the system's; one of the latter that cannot be read is left out, as every other program does.
fn trusted(mut authorities: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a certificate of the system's trust store cannot be read");
    }
    let is_fit = |certificate: &CertificateDer<'static>| RootCertStore::empty().add(certificate.clone()).is_ok();
    authorities.extend(
        system
            .certs
            .into_iter()
            .filter(is_fit)
            .map(|certificate| certificate.to_vec()),
    );
    authorities
}
