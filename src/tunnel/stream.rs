//! One stream of a tunnel as tokio's reader and writer. Holds its slot in the tunnel's limits as long as it lives; dropped without a
//! shutdown it is reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream of a tunnel. `shutdown` ends it in order; dropping it before resets it, and the peer's reads fail.
#[derive(Debug)]
pub struct TunnelStream {
    // Boxed, because queues of streams allocate room for many of them per tunnel.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    stream: Compat<yamux::Stream>,
    /// What goes out before anything else, in one frame with the first bytes that are written.
    prelude: Bytes,
    shut_down: bool,
    tunnel: CancellationToken,
    /// Polled wherever the stream waits: the multiplexer wakes no waiting stream while it closes.
    tunnel_closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _slots: Slots,
}

/// The places that a stream takes in the limits; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slots {
    _tunnel: OwnedSemaphorePermit,
    _process: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(super) fn inbound(tunnel: OwnedSemaphorePermit) -> Self {
        Slots {
            _tunnel: tunnel,
            _process: None,
        }
    }

    pub(super) fn outbound(tunnel: OwnedSemaphorePermit, process: OwnedSemaphorePermit) -> Self {
        Slots {
            _tunnel: tunnel,
            _process: Some(process),
        }
    }
}

impl TunnelStream {
    pub(super) fn new(stream: yamux::Stream, slots: Slots, tunnel: CancellationToken) -> Self {
        TunnelStream {
            inner: Box::new(Inner {
                stream: stream.compat(),
                prelude: Bytes::new(),
                shut_down: false,
                tunnel_closed: Box::pin(tunnel.clone().cancelled_owned()),
                tunnel,
                _slots: slots,
            }),
        }
    }
}

impl TunnelStream {
    /// Puts bytes before everything that will be written. Nothing may have been written yet.
    pub(super) fn begin_with(&mut self, prelude: Bytes) {
        self.inner.prelude = prelude;
    }
}

impl Inner {
    /// Writes what is left of the prelude, with `bytes` behind it; how many of those were taken. With bytes, none of them taken means that it
    /// has to be called again.
    fn poll_begin(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let together = [&self.prelude, bytes].concat();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &together))?;
        let begun = written.min(self.prelude.len());
        self.prelude.advance(begun);
        Poll::Ready(Ok(written - begun))
    }

    /// Writes the prelude where nothing follows it.
    fn poll_prelude(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.prelude.is_empty() {
            ready!(self.poll_begin(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// The multiplexer reports a reset and a lost connection as the end of the stream. A body that ends by closing would then look
    /// complete although it was cut, so both are told apart here.
    fn broke_off(&self) -> bool {
        self.stream.get_ref().is_closed() && (!self.shut_down || self.tunnel.is_cancelled())
    }

    /// What a stream that would wait does instead when its tunnel has ended.
    fn waits<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.tunnel_closed.as_mut().poll(cx));
        Poll::Ready(Err(broken()))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the stream was reset or its tunnel was lost")
}

impl AsyncRead for TunnelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if Pin::new(&mut self.inner.stream).poll_read(cx, buffer)?.is_pending() {
            return self.inner.waits(cx);
        }
        let ended = buffer.filled().len() == before && buffer.remaining() > 0;
        if ended && self.inner.broke_off() {
            return Poll::Ready(Err(broken()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        while !self.inner.prelude.is_empty() {
            match self.inner.poll_begin(cx, bytes) {
                Poll::Pending => return self.inner.waits(cx),
                Poll::Ready(Ok(0)) => {}
                written => return written,
            }
        }
        match Pin::new(&mut self.inner.stream).poll_write(cx, bytes) {
            Poll::Pending => self.inner.waits(cx),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.poll_prelude(cx))?;
        Pin::new(&mut self.inner.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inner.shut_down {
            return Poll::Ready(Ok(()));
        }
        ready!(self.inner.poll_prelude(cx))?;
        ready!(Pin::new(&mut self.inner.stream).poll_shutdown(cx))?;
        self.inner.shut_down = true;
        Poll::Ready(Ok(()))
    }
}
