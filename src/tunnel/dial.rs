//! Dialling the hub: TCP, TLS, websocket, and errors that say which of them failed and what to do. Opens no stream and never
//! retries.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::websocket::{WebSocketBytes, accept_key};
use super::{Role, Tunnel, TunnelSettings, start};
use crate::core::ids::ClusterId;
use crate::net::Gathered;

/// Where the hub takes tunnels; the cluster's id follows.
pub const SOCKETS_PATH: &str = "/apis/proxies.clusternet.io/v1alpha1/sockets/";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REFUSAL: usize = 64 << 10;
const HTTPS_PORT: u16 = 443;

/// The hub's address, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubAddress {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What stands before every path, without a slash at its end; mostly empty.
    pub base_path: String,
}

/// An address that is not a hub's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not a hub's address ({problem}); it looks like https://hub.example.com:6443")]
pub struct InvalidHubAddress {
    url: String,
    problem: &'static str,
}

/// Why the hub could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No TCP connection.
    #[error("cannot connect to the hub at {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The hub's name cannot be used in TLS.
    #[error("the hub's name {host:?} is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: InvalidDnsNameError,
    },
    /// TLS failed: wrong CA, wrong name, expired certificate on either side.
    #[error("TLS with the hub at {address} failed ({hint})")]
    Tls {
        /// Host and port.
        address: String,
        /// What to do.
        hint: &'static str,
        /// What TLS said.
        #[source]
        source: io::Error,
    },
    /// The hub answered, but not with a tunnel.
    #[error("the hub at {address} refused the tunnel with {status}: {message}")]
    Refused {
        /// Host and port.
        address: String,
        /// HTTP status; 401 and 403 mean that this certificate will not be taken however often it is tried.
        status: StatusCode,
        /// What the hub said.
        message: String,
    },
    /// The connection broke before the hub answered.
    #[error("the hub at {address} broke the connection off before the tunnel stood")]
    Http {
        /// Host and port.
        address: String,
        /// What HTTP said.
        #[source]
        source: hyper::Error,
    },
    /// Something else than a hub answered.
    #[error("{address} answered as no hub does: {problem}; is it a proxy?")]
    NotAHub {
        /// Host and port.
        address: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// It took too long.
    #[error("the hub at {address} did not finish {stage} within {} s", .after.as_secs())]
    TimedOut {
        /// Host and port.
        address: String,
        /// What it was waited for.
        stage: &'static str,
        /// How long.
        after: Duration,
    },
}

impl HubAddress {
    /// Takes an `https://` or `wss://` address apart.
    pub fn parse(url: &str) -> Result<Self, InvalidHubAddress> {
        let invalid = |problem| InvalidHubAddress {
            url: url.to_owned(),
            problem,
        };
        let uri: Uri = url.parse().map_err(|_| invalid("not a URL"))?;
        if !matches!(uri.scheme_str(), Some("https" | "wss")) {
            return Err(invalid("its scheme is not https"));
        }
        let host = uri.host().ok_or_else(|| invalid("no host"))?;
        if uri.query().is_some() {
            return Err(invalid("it has a query"));
        }
        Ok(HubAddress {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(HTTPS_PORT),
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port as in an address; IPv6 in brackets.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Connects to the hub and speaks TLS. For the tunnel and for registration alike.
pub async fn connect(hub: &HubAddress, tls: Arc<rustls::ClientConfig>) -> Result<TlsStream<Gathered<TcpStream>>, DialError> {
    let name = ServerName::try_from(hub.host.clone()).map_err(|source| DialError::Name {
        host: hub.host.clone(),
        source,
    })?;
    let connecting = TcpStream::connect((hub.host.as_str(), hub.port));
    let socket = within(hub, "connecting", CONNECT_TIMEOUT, connecting)
        .await?
        .map_err(|source| DialError::Connect {
            address: hub.authority(),
            source,
        })?;
    // Small control messages must not wait for an acknowledgement. A socket that cannot be told so still works.
    let _ = socket.set_nodelay(true);
    let handshake = TlsConnector::from(tls).connect(name, Gathered::new(socket));
    within(hub, "the TLS handshake", HANDSHAKE_TIMEOUT, handshake)
        .await?
        .map_err(|source| tls_error(hub, source))
}

/// Dials the hub and starts the tunnel. `tls` carries the cluster's client certificate and trusts the hub's CA alone.
pub async fn dial(
    hub: &HubAddress,
    cluster: &ClusterId,
    tls: Arc<rustls::ClientConfig>,
    settings: &TunnelSettings,
) -> Result<Tunnel, DialError> {
    let stream = connect(hub, tls).await?;
    let upgrade = upgrade(hub, cluster, stream);
    let upgraded = within(hub, "the websocket handshake", HANDSHAKE_TIMEOUT, upgrade).await??;
    let bytes = WebSocketBytes::new(TokioIo::new(upgraded), Role::Agent, settings);
    Ok(start(bytes, Role::Agent, settings))
}

async fn upgrade(
    hub: &HubAddress,
    cluster: &ClusterId,
    stream: TlsStream<Gathered<TcpStream>>,
) -> Result<hyper::upgrade::Upgraded, DialError> {
    let broken = |source| http_error(hub, source);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the answer: as the upgraded connection, or with the sender below.
    tokio::spawn(connection.with_upgrades());
    let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
    let request = upgrade_request(hub, cluster, &key).map_err(|_| not_a_hub(hub, "its address makes no valid request"))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(hub, response).await);
    }
    if !accepts(response.headers(), &key) {
        return Err(not_a_hub(hub, "its websocket handshake is not for this request"));
    }
    hyper::upgrade::on(response).await.map_err(broken)
}

fn upgrade_request(hub: &HubAddress, cluster: &ClusterId, key: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    Request::builder()
        .method(Method::GET)
        .uri(format!("{}{SOCKETS_PATH}{cluster}", hub.base_path))
        .header(header::HOST, hub.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key)
        .body(Empty::new())
}

fn accepts(headers: &HeaderMap, key: &str) -> bool {
    let answer = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes());
    answer == Some(accept_key(key.as_bytes()).as_bytes())
}

async fn refused(hub: &HubAddress, response: Response<Incoming>) -> DialError {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
    let text = body.map(|body| body.to_bytes()).unwrap_or_default();
    DialError::Refused {
        address: hub.authority(),
        status,
        message: refusal_message(&text),
    }
}

/// The message of a Kubernetes Status, or the first line of whatever else came.
fn refusal_message(body: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = status.as_ref().and_then(|status| status["message"].as_str());
    match message {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body)
            .lines()
            .next()
            .unwrap_or("it gave no reason")
            .chars()
            .take(300)
            .collect(),
    }
}

fn tls_error(hub: &HubAddress, source: io::Error) -> DialError {
    DialError::Tls {
        address: hub.authority(),
        hint: tls_hint(&source),
        source,
    }
}

fn tls_hint(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription, CertificateError, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(problem)) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the hub's certificate has expired: check both clocks"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the hub's certificate is not valid yet: check both clocks"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the hub's certificate is for other names: start the hub with --advertise and this address"
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the hub's certificate is from another CA: check the address and --ca-hash"
            }
            _ => "the hub's certificate is not accepted",
        },
        Some(Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "this cluster's certificate has expired: it must be renewed"
        }
        Some(Error::AlertReceived(_)) => "the hub does not accept this cluster's certificate: is it from this hub's CA?",
        _ => "is it a hub, and is nothing in between that ends TLS?",
    }
}

fn http_error(hub: &HubAddress, source: hyper::Error) -> DialError {
    DialError::Http {
        address: hub.authority(),
        source,
    }
}

fn not_a_hub(hub: &HubAddress, problem: &'static str) -> DialError {
    DialError::NotAHub {
        address: hub.authority(),
        problem,
    }
}

async fn within<F: Future>(hub: &HubAddress, stage: &'static str, after: Duration, work: F) -> Result<F::Output, DialError> {
    tokio::time::timeout(after, work).await.map_err(|_| DialError::TimedOut {
        address: hub.authority(),
        stage,
        after,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let hub = HubAddress::parse("https://hub.example.com:6443/base/").unwrap();
        assert_eq!(
            (hub.host.as_str(), hub.port, hub.base_path.as_str()),
            ("hub.example.com", 6443, "/base")
        );
        let six = HubAddress::parse("wss://[::1]").unwrap();
        assert_eq!(six.authority(), "[::1]:443");
        for wrong in ["http://hub:80", "hub:6443", "https://", "https://hub?x=1", ""] {
            assert!(HubAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_says_what_the_hub_said() {
        assert_eq!(
            refusal_message(br#"{"kind":"Status","message":"no such cluster"}"#),
            "no such cluster"
        );
        assert_eq!(refusal_message(b"<html>\nmore"), "<html>");
        assert_eq!(refusal_message(b""), "it gave no reason");
    }
}
