//! The one port: takes connections, speaks TLS and HTTP/1.1 or HTTP/2 with them, says who each peer is. Knows no path.
//!
//! ```text
//! accepted ─► TLS (bounded in number and time) ─► HTTP ─► an Application's answers, or an upgrade that leaves this file
//! stop: no new connection ─► requests under way may end within `drain` ─► cut
//! ```

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::auth::{Authenticator, Credential};
use super::client_stream::ClientStream;
use super::tls::HTTP2;
use crate::core::access::Identity;
use crate::net::Gathered;
use crate::tunnel::http::{Body, empty};

/// How long to wait after the system refused to accept, mostly because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const MAX_HEADER_BYTES: usize = 128 << 10;
const MAX_HEADER_LIST: u32 = 128 << 10;
const HTTP2_STREAMS: u32 = 256;
/// What a client may have under way in one upload.
const HTTP2_STREAM_WINDOW: u32 = 256 << 10;
/// And in all uploads of one connection: more than one of them, so that one that stands still stops no other.
const HTTP2_CONNECTION_WINDOW: u32 = 16 * HTTP2_STREAM_WINDOW;
/// How many addresses are remembered, so that garbage from each is logged once.
const REMEMBERED_PEERS: usize = 1_024;

/// What answers the requests of a port.
pub trait Application: Send + Sync + 'static {
    /// The answer to one request.
    fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    credential: Credential,
}

impl Peer {
    /// Who it is by its certificate, at this time.
    pub fn identity(&self, now: SystemTime) -> Identity {
        self.credential.at(now)
    }

    /// Until when its certificate counts.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.credential.not_after()
    }
}

/// Limits and times of the port.
#[derive(Clone, Copy, Debug)]
pub struct PortSettings {
    /// Handshakes at once; further connections wait in the system's queue.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a client may take to begin, to finish a request's head, and to send the next request on a connection of HTTP/1.1.
    pub header_timeout: Duration,
    /// How often an HTTP/2 client is asked whether it is still there.
    pub http2_ping: Duration,
    /// How long a client may take to end a connection that the hub has ended.
    pub linger: Duration,
    /// How long requests under way may go on after the stop.
    pub drain: Duration,
}

impl Default for PortSettings {
    fn default() -> Self {
        PortSettings {
            handshakes: 512,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            http2_ping: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            drain: Duration::from_secs(5),
        }
    }
}

/// Serves the port until `stop`, then drains it.
pub async fn serve<A: Application>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    authenticator: Authenticator,
    application: Arc<A>,
    settings: PortSettings,
    stop: CancellationToken,
) {
    let port = Arc::new(Port {
        tls: TlsAcceptor::from(tls),
        authenticator,
        application,
        settings,
        stop,
        cut: CancellationToken::new(),
        noisy: Noisy::default(),
    });
    let connections = TaskTracker::new();
    let handshakes = Arc::new(Semaphore::new(settings.handshakes));
    while let Some((socket, address, turn)) = port.next(&listener, &handshakes).await {
        connections.spawn(Arc::clone(&port).connection(socket, address, turn));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(settings.drain, connections.wait()).await.is_err() {
        debug!(open = connections.len(), "connections that did not end in time are cut");
        port.cut.cancel();
        connections.wait().await;
    }
}

struct Port<A> {
    tls: TlsAcceptor,
    authenticator: Authenticator,
    application: Arc<A>,
    settings: PortSettings,
    stop: CancellationToken,
    cut: CancellationToken,
    noisy: Noisy,
}

impl<A: Application> Port<A> {
    /// The next connection and its turn to shake hands; `None` after the stop.
    async fn next(
        &self,
        listener: &TcpListener,
        handshakes: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let next = async {
            let turn = Arc::clone(handshakes).acquire_owned().await.ok()?;
            let (socket, address) = accept(listener).await;
            Some((socket, address, turn))
        };
        tokio::select! {
            next = next => next,
            () = self.stop.cancelled() => None,
        }
    }

    async fn connection(self: Arc<Self>, socket: TcpStream, address: SocketAddr, turn: OwnedSemaphorePermit) {
        // A socket that cannot be told so still works, only slower.
        let _ = socket.set_nodelay(true);
        let _ = SockRef::from(&socket).set_tcp_keepalive(&keep_alive());
        let handshake = tokio::time::timeout(self.settings.handshake_timeout, self.tls.accept(Gathered::new(socket)));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.noisy.report(address, &error),
            Err(_) => return self.noisy.report(address, &io::ErrorKind::TimedOut.into()),
        };
        drop(turn);
        let peer = Arc::new(self.peer(address, &stream));
        tokio::select! {
            () = self.http(stream, peer) => {}
            () = self.cut.cancelled() => {}
        }
    }

    fn peer(&self, address: SocketAddr, stream: &TlsStream<Gathered<TcpStream>>) -> Peer {
        let (_, session) = stream.get_ref();
        Peer {
            address,
            credential: self.authenticator.identify(session.peer_certificates(), SystemTime::now()),
        }
    }

    async fn http(&self, stream: TlsStream<Gathered<TcpStream>>, peer: Arc<Peer>) {
        let address = peer.address;
        // HTTP/2 in TLS is agreed on by ALPN (RFC 9113 §3.3).
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        let stream = ClientStream::new(stream, self.settings.header_timeout, self.settings.linger);
        let handed_over = stream.handed_over();
        let service = service_fn(move |request| {
            let (application, peer, handed_over) = (Arc::clone(&self.application), Arc::clone(&peer), Arc::clone(&handed_over));
            // Boxed, because hyper keeps room for the whole of it as long as the connection stands, also while it only passes a body on.
            Box::pin(async move { Ok::<_, Infallible>(answer(&*application, peer, request, &handed_over).await) })
        });
        // Boxed for each version: in one future there would be room for either.
        let ended = match is_http2 {
            true => {
                let connection = http2(&self.settings).serve_connection(TokioIo::new(stream), service);
                self.until_stopped(Box::pin(connection), |connection| connection.graceful_shutdown())
                    .await
            }
            false => {
                let connection = http1(&self.settings).serve_connection(TokioIo::new(stream), service);
                self.until_stopped(Box::pin(connection.with_upgrades()), |connection| {
                    connection.graceful_shutdown()
                })
                .await
            }
        };
        if let Err(error) = ended {
            debug!(peer = %address, error = %error, "a connection ended early");
        }
    }

    /// Serves a connection to its end; after the stop it takes no new request.
    async fn until_stopped<C>(&self, mut connection: Pin<Box<C>>, shut_down: impl Fn(Pin<&mut C>)) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                shut_down(connection.as_mut());
                connection.await
            }
        }
    }
}

async fn answer<A: Application>(
    application: &A,
    peer: Arc<Peer>,
    request: Request<Incoming>,
    handed_over: &AtomicBool,
) -> Response<Body> {
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let is_bare = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
    let mut response = application.answer(peer, request).await;
    if is_bare {
        response = without_body(response);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        handed_over.store(true, Ordering::Relaxed);
    } else if chunked {
        // It may have had a Content-Length besides, of which hyper leaves no trace. Whoever stands in front of this port and goes by that
        // sees other requests in what follows, so nothing may follow (RFC 9112 §6.1).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An answer to HEAD, which has no body (RFC 9110 §9.3.2); hyper sees to that with HTTP/1.1 alone.
fn without_body(response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| empty());
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response
}

/// A machine that is gone is noticed within a minute: a laptop that sleeps would otherwise hold its exec session, and its place, for hours.
fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3)
}

fn http1(settings: &PortSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
}

fn http2(settings: &PortSettings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .keep_alive_interval(settings.http2_ping);
    builder
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The peer's fault, and gone already.
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                warn!(error = %error, "no connection can be accepted; is the limit on open files too low?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Peers that sent something else than TLS, so that a port scanner fills no log.
#[derive(Default)]
struct Noisy {
    seen: Mutex<HashSet<IpAddr>>,
}

impl Noisy {
    fn report(&self, address: SocketAddr, error: &io::Error) {
        if self.is_new(address.ip()) {
            info!(peer = %address, error = %error, "a connection did not get through the TLS handshake; more from this address are logged at debug level");
        } else {
            debug!(peer = %address, error = %error, "a connection did not get through the TLS handshake");
        }
    }

    fn is_new(&self, address: IpAddr) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED_PEERS {
            seen.clear();
        }
        seen.insert(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_news_once_and_memory_is_bounded() {
        let noisy = Noisy::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        assert!(noisy.is_new(address(1)));
        assert!(!noisy.is_new(address(1)));
        (2..5_000).for_each(|number| {
            noisy.is_new(address(number));
        });
        assert!(noisy.seen.lock().unwrap_or_else(PoisonError::into_inner).len() <= REMEMBERED_PEERS);
    }
}
