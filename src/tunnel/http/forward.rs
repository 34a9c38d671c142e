//! One HTTP/1.1 request through one connection: streamed both ways, handed over when it is an upgrade. Never reuses the
//! connection, never buffers a body, never retries.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::HttpService;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::splice::hand_over_until;
use super::{Body, BoxError, headers, stream};

const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head, and most that is read ahead of whoever takes the body.
const MAX_HEADER_BYTES: usize = 256 << 10;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The connection broke, or what answered does not speak HTTP/1.1.
    #[error("the other side broke the request off")]
    Http(#[from] hyper::Error),
    /// The other side switched protocols unasked.
    #[error("the other side switched protocols although nobody asked for it")]
    UnaskedUpgrade,
}

/// Sends a request over its own connection and gives the answer as it comes. The request's URI may be absolute; its headers go out as
/// they are, so remove what may not pass before. An upgrade that is answered with 101 goes on in a task until both ends are
/// done; one that is answered otherwise closes both sides.
pub async fn forward<IO, B>(io: IO, request: Request<B>) -> Result<Response<Body>, ForwardError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    forward_until(io, request, CancellationToken::new()).await
}

/// The same, and the connection ends with the token, at once and whatever its reader and its writer do: they may both stand still.
pub async fn forward_until<IO, B>(
    io: IO,
    mut request: Request<B>,
    ended: CancellationToken,
) -> Result<Response<Body>, ForwardError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let caller = headers::asks_for_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    to_origin_form(&mut request);
    let (mut sender, connection) = client::Builder::new()
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(io))
        .await?;
    // Ends with the answer's body, with its reader, or as the connection that is handed over.
    let until = ended.clone();
    tokio::spawn(async move {
        tokio::select! {
            ended = connection.with_upgrades() => if let Err(error) = ended {
                debug!(error = %error, "a forwarded connection ended early");
            },
            () = until.cancelled() => debug!("a forwarded connection was cut"),
        }
    });
    let response = sender.send_request(request.map(stream)).await?;
    answer(response, caller, ended)
}

fn answer(
    mut response: Response<Incoming>,
    caller: Option<OnUpgrade>,
    ended: CancellationToken,
) -> Result<Response<Body>, ForwardError> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match caller {
        Some(caller) if switched => {
            hand_over_until(caller, hyper::upgrade::on(&mut response), ended);
            return Ok(response.map(stream));
        }
        None if switched => return Err(ForwardError::UnaskedUpgrade),
        _ => {}
    }
    headers::remove_hop_by_hop(response.headers_mut());
    if caller.is_some() {
        // The caller's connection is in doubt: it may have sent data of the new protocol already.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(stream))
}

/// A server, unlike a proxy, wants path and query alone, and HTTP/1.1 whatever the caller spoke.
fn to_origin_form<B>(request: &mut Request<B>) {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
}

/// Serves HTTP/1.1 on a connection: with `last` one request, so that the end goes out with the answer. An upgrade must not be called the last.
pub async fn serve<IO, S, B>(io: IO, service: S, last: bool) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    server::Builder::new()
        .keep_alive(!last)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await
}
