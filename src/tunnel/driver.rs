//! The one task that owns a tunnel's connection. It sends what streams have queued, in turns, hands over what comes, and closes.
//!
//! ```text
//! running ── close() or nobody left ──► closing (go-away sent, at most `close_timeout`) ──► ended
//!    └────── connection lost, peer left, peer silent ────────────────────────────────────────► ended (token cancelled)
//! ```
//!
//! It always reads, whatever waits to be written: what may come is bounded by the streams' windows. So two ends never wait for each other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::connection::{Connection, Received};
use super::frame::{Fault, HEAD, Head, Kind};
use super::handle::TunnelHandle;
use super::stream::{Stream, TunnelStream};
use super::stream_state::Slots;
use super::{Role, Tunnel, TunnelSettings};

/// The longest body that is taken.
const MAX_BODY: usize = 1 << 20;
/// So many frames are taken in before it is looked whether something can be sent.
const FRAMES_AT_ONCE: usize = 16;
/// After so many bytes, or after this time, it is measured again how far away the peer is.
const MEASURE_BYTES: usize = 16 << 20;
const MEASURE_TIME: Duration = Duration::from_secs(60);

pub(super) struct Driver<IO> {
    io: IO,
    connection: Arc<Connection>,
    sending: Option<Sending>,
    receiving: Receiving,
    incoming: mpsc::Sender<TunnelStream>,
    inbound: Arc<Semaphore>,
    /// When the peer was asked for a sign of life, and whether it has answered.
    asked: Option<Instant>,
    answered: bool,
    since_asked: usize,
    closed: CancellationToken,
    close: CancellationToken,
    ended: CancellationToken,
    close_timeout: Duration,
}

/// A frame on its way out.
struct Sending {
    head: [u8; HEAD],
    body: BytesMut,
    sent: usize,
}

/// Where in the peer's frames the next byte stands.
enum Receiving {
    Head { bytes: [u8; HEAD], read: usize },
    Body { head: Head, body: BytesMut },
}

const NEXT: Receiving = Receiving::Head {
    bytes: [0; HEAD],
    read: 0,
};

enum Ended {
    ByPeer,
    Abandoned,
}

/// Why a tunnel broke.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl<IO> Driver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(super) fn new(io: IO, role: Role, settings: &TunnelSettings) -> (Self, Tunnel) {
        let (incoming, incoming_receiver) = mpsc::channel(settings.accepted_streams);
        let inbound = Arc::new(Semaphore::new(settings.accepted_streams));
        let connection = Arc::new(Connection::new(role, settings.window_headroom));
        let handle = TunnelHandle::new(Arc::clone(&connection), Arc::clone(&inbound), settings);
        let driver = Driver {
            io,
            connection,
            sending: None,
            receiving: NEXT,
            incoming,
            inbound,
            asked: None,
            answered: true,
            since_asked: 0,
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
        let lost = Lost(Arc::clone(&self.connection));
        let close = self.close.clone();
        let ended = tokio::select! {
            ended = poll_fn(|cx| self.poll(cx)) => ended,
            () = close.cancelled() => Ok(Ended::Abandoned),
        };
        self.closed.cancel();
        match ended {
            Ok(Ended::ByPeer) => debug!("the peer closed the tunnel"),
            Ok(Ended::Abandoned) => Box::pin(self.close_gracefully()).await,
            Err(error) => debug!(error = %error, "the tunnel broke"),
        }
        drop(lost);
    }

    async fn close_gracefully(&mut self) {
        let patience = self.close_timeout;
        let goodbye = async {
            poll_fn(|cx| self.poll_send(cx)).await?;
            self.sending = Some(Sending {
                head: Head::GOODBYE.encode(),
                body: BytesMut::new(),
                sent: 0,
            });
            poll_fn(|cx| self.poll_send(cx)).await?;
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await
        };
        match tokio::time::timeout(patience, goodbye).await {
            Ok(Ok(())) => debug!("tunnel closed"),
            Ok(Err(error)) => debug!(error = %error, "the tunnel broke while it was closed"),
            Err(_) => debug!("the peer did not take the close in time; the connection is cut"),
        }
    }

    /// Reads and writes as far as possible.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, Broken>> {
        let mut idle = self.sending.is_none();
        loop {
            let mut may_read = true;
            for _ in 0..FRAMES_AT_ONCE {
                match self.poll_receive(cx)? {
                    Poll::Ready(Some(ended)) => return Poll::Ready(Ok(ended)),
                    Poll::Ready(None) => idle = false,
                    Poll::Pending => {
                        may_read = false;
                        break;
                    }
                }
            }
            if self.connection.is_abandoned() && self.incoming.is_closed() {
                // The keep-alive timer wakes this task, so that is noticed in any case.
                return Poll::Ready(Ok(Ended::Abandoned));
            }
            self.measure()?;
            idle &= !self.connection.has_frames();
            let sent = self.poll_send(cx)?;
            if !may_read && (sent.is_pending() || self.connection.wait(cx)) {
                if idle {
                    // Woken by the clock.
                    self.connection.spare.let_go();
                }
                return Poll::Pending;
            }
        }
    }

    /// Asks the peer for a sign of life now and then, to learn how far away it is.
    fn measure(&mut self) -> Result<(), Fault> {
        let due = self.asked.is_none_or(|asked| asked.elapsed() >= MEASURE_TIME) || self.since_asked >= MEASURE_BYTES;
        if due && self.answered {
            (self.since_asked, self.answered) = (0, false);
            self.asked = Some(Instant::now());
            self.connection.ask()?;
        }
        Ok(())
    }

    /// Sends all that is queued, and flushes.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(sending) = &mut self.sending {
                ready!(sending.poll(cx, &mut self.io))?;
            }
            if let Some(sent) = self.sending.take() {
                self.connection.spare.keep(sent.body);
            }
            self.sending = self.connection.next().map(|(head, body)| Sending { head, body, sent: 0 });
            if self.sending.is_none() {
                return Pin::new(&mut self.io).poll_flush(cx);
            }
        }
    }

    /// Takes one frame in; what it says of the tunnel's end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Ended>, Broken>> {
        loop {
            match &mut self.receiving {
                Receiving::Head { bytes, read } if *read < HEAD => {
                    let mut buffer = ReadBuf::new(&mut bytes[*read..]);
                    ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
                    match (buffer.filled().len(), *read) {
                        (0, 0) => return Poll::Ready(Ok(Some(Ended::ByPeer))),
                        (0, _) => return Poll::Ready(Err(cut_off())),
                        (taken, _) => *read += taken,
                    }
                }
                Receiving::Head { bytes, .. } => {
                    let head = Head::decode(*bytes)?;
                    self.receiving = Receiving::Body { head, body: room(head)? };
                }
                Receiving::Body { head, body } => {
                    let left = body_length(*head) - body.len();
                    if left > 0 {
                        let mut rest = body.limit(left);
                        let taken = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut rest))?;
                        if taken == 0 {
                            return Poll::Ready(Err(cut_off()));
                        }
                        continue;
                    }
                    let (head, body) = (*head, std::mem::take(body).freeze());
                    self.receiving = NEXT;
                    return Poll::Ready(self.take_in(head, body));
                }
            }
        }
    }

    fn take_in(&mut self, head: Head, body: Bytes) -> Result<Option<Ended>, Broken> {
        self.since_asked += body.len();
        match self.connection.receive(head, body)? {
            Received::Nothing => {}
            Received::End => return Ok(Some(Ended::ByPeer)),
            Received::Answer => {
                if let (Some(asked), false) = (self.asked, self.answered) {
                    self.connection.answered(asked.elapsed());
                    self.answered = true;
                }
            }
            Received::Stream(stream) => self.hand_over(stream)?,
        }
        Ok(None)
    }

    /// Hands a stream of the peer over, or refuses it when there are too many.
    fn hand_over(&self, stream: Arc<Stream>) -> Result<(), Fault> {
        let Ok(slot) = Arc::clone(&self.inbound).try_acquire_owned() else {
            debug!("the peer opened more streams than are served; one was reset");
            return self.connection.refuse(&stream);
        };
        let stream = TunnelStream::new(stream, Slots::inbound(slot));
        if self.incoming.try_send(stream).is_err() {
            debug!("nobody takes the peer's streams; one was reset");
        }
        Ok(())
    }
}

impl Sending {
    fn poll<IO: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut IO) -> Poll<io::Result<()>> {
        loop {
            let rest = match self.sent.checked_sub(HEAD) {
                None => &self.head[self.sent..],
                Some(sent) => &self.body[sent..],
            };
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut *io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
    }
}

/// Breaks the streams off when the driver ends, however it does.
struct Lost(Arc<Connection>);

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn body_length(head: Head) -> usize {
    match head.kind {
        Kind::Data => head.length as usize,
        Kind::WindowUpdate | Kind::Ping | Kind::GoAway => 0,
    }
}

/// Room for a frame's body.
fn room(head: Head) -> Result<BytesMut, Fault> {
    match body_length(head) {
        length if length > MAX_BODY => Err(Fault("a frame that is longer than 1 MiB")),
        length => Ok(BytesMut::with_capacity(length)),
    }
}

fn cut_off() -> Broken {
    Broken::Io(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection ended within a frame",
    ))
}
