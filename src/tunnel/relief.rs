//! Keeps two multiplexers from waiting for each other for ever.
//!
//! Yamux stops reading while its answer to a Ping waits to be written. When both directions are saturated and both ends have such an
//! answer waiting, neither reads, so neither can write: the tunnel is stuck (seen in 1 of 3 tunnels within a minute on narrow
//! pipes). The driver notices that the multiplexer did not read in a round, and lets it write the rest of the frame under way
//! and the answer into a bounded buffer here; then it reads again, and the other end's writes go on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Room beyond one frame: its header, the answer, and the next header.
const BESIDES_THE_FRAME: usize = 1 << 10;
/// How many frames may be taken beyond what the connection takes. A correct peer causes one in ten seconds, and none once it is dead.
const MOST_FRAMES: usize = 4;

/// The driver's side.
#[derive(Debug)]
pub(super) struct Relief {
    shared: Arc<Shared>,
    frame: usize,
}

/// The connection with the bounded buffer in front of its writes.
#[derive(Debug)]
pub(super) struct Relieved<IO> {
    io: IO,
    buffer: BytesMut,
    shared: Arc<Shared>,
}

/// Both sides live in one task; the atomics only make it `Send`.
#[derive(Debug, Default)]
struct Shared {
    has_read: AtomicBool,
    /// Written, but not flushed.
    unflushed: AtomicBool,
    /// A flush is carried out now; otherwise it is only noted.
    flushes: AtomicBool,
    granted: AtomicUsize,
    buffered: AtomicUsize,
}

/// A connection, and what relieves it, for frames of at most `frame` bytes.
pub(super) fn relieve<IO>(io: IO, frame: usize) -> (Relieved<IO>, Relief) {
    let shared = Arc::new(Shared::default());
    let relieved = Relieved {
        io,
        buffer: BytesMut::new(),
        shared: Arc::clone(&shared),
    };
    (relieved, Relief { shared, frame })
}

impl Relief {
    /// Begins a round of the multiplexer.
    pub(super) fn begin(&self) {
        self.shared.has_read.store(false, Ordering::Relaxed);
    }

    /// After rounds that ended in waiting: whether something is written that has to go out, and the next round sends it. The multiplexer asks for
    /// a flush after each frame; carried out once at the end, frames that belong together go out in one piece.
    pub(super) fn flush(&self) -> bool {
        let tried = self.shared.flushes.swap(false, Ordering::Relaxed);
        let flush = !tried && self.shared.unflushed.load(Ordering::Relaxed);
        self.shared.flushes.store(flush, Ordering::Relaxed);
        flush
    }

    /// From now on every flush is carried out.
    pub(super) fn flush_always(&self) {
        self.shared.flushes.store(true, Ordering::Relaxed);
    }

    /// After a round that ended in waiting: whether the multiplexer did not even try to read, and another round makes sense
    /// because it may write now.
    pub(super) fn grant(&self) -> bool {
        let grant = self.frame + BESIDES_THE_FRAME;
        let has_read = self.shared.has_read.load(Ordering::Relaxed);
        let is_full = self.shared.buffered.load(Ordering::Relaxed) > (MOST_FRAMES - 1) * grant;
        if has_read || is_full || self.shared.granted.load(Ordering::Relaxed) > 0 {
            return false;
        }
        self.shared.granted.store(grant, Ordering::Relaxed);
        true
    }
}

impl<IO: AsyncWrite + Unpin> Relieved<IO> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.buffer.has_remaining() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.advance(written);
            self.shared.buffered.store(self.buffer.len(), Ordering::Relaxed);
        }
        self.buffer = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn write_through(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn buffer(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let granted = self.shared.granted.load(Ordering::Relaxed);
        let taken = bytes.len().min(granted);
        if taken == 0 {
            return Poll::Pending;
        }
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.shared.granted.store(granted - taken, Ordering::Relaxed);
        self.shared.buffered.store(self.buffer.len(), Ordering::Relaxed);
        Poll::Ready(Ok(taken))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Relieved<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.has_read.store(true, Ordering::Relaxed);
        self.shared.granted.store(0, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Relieved<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.write_through(cx, bytes) {
            Poll::Pending => self.buffer(bytes),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shared.flushes.load(Ordering::Relaxed) {
            self.shared.unflushed.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.shared.unflushed.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn poll_write<IO: AsyncWrite + Unpin>(io: &mut IO, bytes: &[u8]) -> Poll<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(io).poll_write(&mut cx, bytes).map(Result::unwrap)
    }

    #[tokio::test]
    async fn whoever_does_not_read_may_write_and_all_arrives_in_order() {
        let (near, mut far) = tokio::io::duplex(4);
        let (mut near, relief) = relieve(near, 8);
        relief.begin();
        assert_eq!(poll_write(&mut near, b"abcdef"), Poll::Ready(4));
        assert_eq!(poll_write(&mut near, b"ef"), Poll::Pending, "the connection is full");
        assert!(relief.grant(), "and nobody read");
        assert_eq!(poll_write(&mut near, b"ef"), Poll::Ready(2));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            Pin::new(&mut near)
                .poll_read(&mut cx, &mut ReadBuf::new(&mut [0]))
                .is_pending()
        );
        assert_eq!(poll_write(&mut near, b"gh"), Poll::Pending, "whoever reads waits as usual");
        assert!(!relief.grant());
        let mut all = [0; 6];
        relief.flush_always();
        let (flushed, read) = tokio::join!(near.flush(), far.read_exact(&mut all));
        flushed.unwrap();
        read.unwrap();
        assert_eq!(&all, b"abcdef");
    }

    #[test]
    fn the_buffer_is_bounded() {
        let (near, _far) = tokio::io::duplex(1);
        let (mut near, relief) = relieve(near, 8);
        let frame = vec![0; 1 << 20];
        let mut taken = 0;
        for _ in 0..100 {
            relief.begin();
            if relief.grant() {
                while let Poll::Ready(written) = poll_write(&mut near, &frame) {
                    taken += written;
                }
            }
        }
        assert!(taken <= MOST_FRAMES * (8 + BESIDES_THE_FRAME) + 1, "{taken}");
    }
}
