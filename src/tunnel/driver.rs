//! The one task that owns a tunnel's multiplexer. It opens streams on request, hands over those that the peer opens, and closes.
//!
//! ```text
//! running ── close() or nobody left ──► closing (go-away sent, at most `close_timeout`) ──► ended
//!    └────── connection lost, peer left, peer silent ────────────────────────────────────────► ended (token cancelled)
//! ```

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::io::AsyncWrite as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::handle::{OpenRequest, TunnelHandle};
use super::relief::{Relief, Relieved, relieve};
use super::stream::{Slots, TunnelStream};
use super::{Role, Tunnel, TunnelSettings};

/// Open requests that wait for the driver; each holds a slot already, so a short queue bounds nothing but memory.
const OPEN_QUEUE: usize = 32;

/// So many streams may wait for their answer before each further one is acknowledged when it comes; well below the 256 that yamux allows.
const ANSWERED_LATE: usize = 128;

pub(super) struct Driver<IO> {
    connection: yamux::Connection<Compat<Relieved<IO>>>,
    relief: Relief,
    requests: mpsc::Receiver<OpenRequest>,
    waiting: Option<OpenRequest>,
    incoming: mpsc::Sender<TunnelStream>,
    inbound: Arc<Semaphore>,
    /// How many streams of the peer are served.
    accepted: usize,
    closed: CancellationToken,
    close: CancellationToken,
    ended: CancellationToken,
    close_timeout: std::time::Duration,
}

impl<IO> Driver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(super) fn new(io: IO, role: Role, settings: &TunnelSettings) -> (Self, Tunnel) {
        let mode = match role {
            Role::Hub => yamux::Mode::Server,
            Role::Agent => yamux::Mode::Client,
        };
        let (request_sender, requests) = mpsc::channel(OPEN_QUEUE);
        let (incoming, incoming_receiver) = mpsc::channel(settings.accepted_streams);
        let inbound = Arc::new(Semaphore::new(settings.accepted_streams));
        let handle = TunnelHandle::new(request_sender, Arc::clone(&inbound), settings);
        let (io, relief) = relieve(io, settings.split_send);
        let driver = Driver {
            connection: yamux::Connection::new(io.compat(), settings.yamux(), mode),
            relief,
            requests,
            waiting: None,
            incoming,
            inbound,
            accepted: settings.accepted_streams,
            closed: handle.closed(),
            close: handle.close_token(),
            ended: handle.ended_token(),
            close_timeout: settings.close_timeout,
        };
        let tunnel = Tunnel {
            handle,
            incoming: incoming_receiver,
        };
        (driver, tunnel)
    }

    /// Boxed, as is what is left to do at the end: a future has room for everything that was ever moved into it, and this one stands for as
    /// long as the tunnel.
    pub(super) async fn run(mut self: Box<Self>) {
        // Also when this task is dropped with its runtime.
        let _closed = self.closed.clone().drop_guard();
        let _ended = self.ended.clone().drop_guard();
        let close = self.close.clone();
        let ended = tokio::select! {
            ended = poll_fn(|cx| self.poll(cx)) => ended,
            () = close.cancelled() => Ok(Ended::Abandoned),
        };
        // Before the connection goes: a stream that wakes up then must see that the tunnel is gone, not an orderly end, and one that
        // waits is not woken by the multiplexer while it closes.
        self.closed.cancel();
        match ended {
            Ok(Ended::ByPeer) => debug!("the peer closed the tunnel"),
            Ok(Ended::Abandoned) => Box::pin(self.close_gracefully()).await,
            Err(error) => debug!(error = %error, "the tunnel broke"),
        }
    }

    async fn close_gracefully(&mut self) {
        self.relief.flush_always();
        let closing = poll_fn(|cx| self.connection.poll_close(cx));
        match tokio::time::timeout(self.close_timeout, closing).await {
            Ok(Ok(())) => debug!("tunnel closed"),
            Ok(Err(error)) => debug!(error = %error, "the tunnel broke while it was closed"),
            Err(_) => debug!("the peer did not take the close in time; the connection is cut"),
        }
    }

    /// Reads and writes as far as possible, then opens what was asked for, until nothing more can be done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, yamux::ConnectionError>> {
        loop {
            self.relief.begin();
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    self.take_in(stream, cx);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(Ended::ByPeer)),
                Poll::Pending if self.relief.grant() => continue,
                Poll::Pending => {}
            }
            match self.poll_open(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(Ended::Abandoned)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.relief.flush() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Opens one stream; `false` when nobody is left who could ask for one or take one in.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, yamux::ConnectionError>> {
        if self.waiting.is_none() {
            self.waiting = match self.requests.poll_recv(cx) {
                Poll::Ready(Some(request)) => Some(request),
                Poll::Ready(None) if self.incoming.is_closed() => return Poll::Ready(Ok(false)),
                // The keep-alive timer wakes this task again, so an abandoned tunnel is noticed then.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            };
        }
        let stream = ready!(self.connection.poll_new_outbound(cx))?;
        if let Some(request) = self.waiting.take() {
            // Whoever asked may have given up; the stream has sent nothing yet and is simply dropped.
            let _ = request.send(stream);
        }
        Poll::Ready(Ok(true))
    }

    /// Hands a stream of the peer over, or resets it (by dropping it) when there are too many.
    fn take_in(&mut self, mut stream: yamux::Stream, cx: &mut Context<'_>) {
        let Ok(slot) = Arc::clone(&self.inbound).try_acquire_owned() else {
            debug!("the peer opened more streams than are served; one was reset");
            return;
        };
        // An empty write acknowledges the stream at once. Without it the acknowledgement waits for the first byte of the answer, which saves a
        // frame; but an opener with 256 slow requests could not open another stream.
        if self.inbound.available_permits() + ANSWERED_LATE < self.accepted {
            let _ = Pin::new(&mut stream).poll_write(cx, &[]);
        }
        let stream = TunnelStream::new(stream, Slots::inbound(slot), self.closed.clone());
        if self.incoming.try_send(stream).is_err() {
            debug!("nobody takes the peer's streams; one was reset");
        }
    }
}

enum Ended {
    ByPeer,
    Abandoned,
}
