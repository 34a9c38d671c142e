//! Serves a sandbox over plain HTTP on a listener that the caller bound, usually to a loopback port. Everybody may do everything:
//! `Impersonate-*` headers are read for messages and otherwise ignored.

use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Sandbox;
use crate::kubeapi::RequestContext;

/// How long open requests may take after the end was asked for; watches end at once.
const DRAIN: Duration = Duration::from_secs(2);
/// Clients get this long to send a request's head.
const HEAD: Duration = Duration::from_secs(30);

impl Sandbox {
    /// Answers requests until cancelled; open watches end then.
    pub async fn serve(&self, listener: TcpListener, cancel: CancellationToken) -> std::io::Result<()> {
        let sandbox = self.ending_with(cancel.child_token());
        let mut connections = JoinSet::new();
        let graceful = GracefulShutdown::new();
        loop {
            let stream = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match stream {
                Ok((stream, _)) => {
                    let connection = connection(&sandbox, stream);
                    let watched = graceful.watch(connection);
                    connections.spawn(async move {
                        // A client that goes away in the middle is its own affair.
                        let _ = watched.await;
                    });
                }
                Err(error) if is_passing(&error) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return Err(error),
            }
        }
        // Connections that are still busy after the drain time are dropped with the set.
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
        Ok(())
    }
}

fn connection(
    sandbox: &Sandbox,
    stream: TcpStream,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + use<> {
    let sandbox = sandbox.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let sandbox = sandbox.clone();
        async move {
            let context = context_of(&request);
            Ok::<_, std::convert::Infallible>(sandbox.handle(request, context).await)
        }
    });
    // A delayed small answer would wait for the other side's acknowledgement.
    let _ = stream.set_nodelay(true);
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
}

fn context_of(request: &Request<Incoming>) -> RequestContext {
    let headers = request.headers();
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).ok();
    RequestContext {
        user: headers
            .get("impersonate-user")
            .and_then(text)
            .unwrap_or_else(|| "sandbox".to_owned()),
        groups: headers.get_all("impersonate-group").iter().filter_map(text).collect(),
        sender: None,
    }
}

/// Errors of accepting that say nothing about the listener: the client is gone, or the process is short of file descriptors.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    let kinds = [
        Kind::ConnectionAborted,
        Kind::ConnectionReset,
        Kind::Interrupted,
        Kind::WouldBlock,
    ];
    kinds.contains(&error.kind()) || matches!(error.raw_os_error(), Some(23 | 24))
}
