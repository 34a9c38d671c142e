//! One stream of a tunnel: its state, which the tunnel's driver shares with whoever holds it, and the reader and writer. Takes its place in the
//! tunnel's limits as long as it lives; dropped without a shutdown it is reset.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::frame::{Fault, Head};
use super::stream_state::{Slots, State, Turn};
use super::window::Traffic;

/// What the driver and the stream's holder share.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    connection: Arc<Connection>,
    state: Mutex<State>,
}

impl Stream {
    /// A stream that we open, if `first` is [`SYN`], or accept.
    pub(super) fn new(id: u32, first: u16, connection: Arc<Connection>) -> Self {
        Stream {
            id,
            connection,
            state: Mutex::new(State::new(first)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what came for it; whether it is over with that.
    pub(super) fn receive(&self, head: Head, body: Bytes) -> Result<bool, Fault> {
        let mut state = self.lock();
        let over = state.receive(head, body)?;
        let wakers = state.wakers();
        drop(state);
        wakers.wake();
        Ok(over)
    }

    /// What it sends when it is its turn; `None` where it has changed its mind.
    pub(super) fn turn(&self, traffic: &Traffic, headroom: &mut usize) -> Option<Turn> {
        self.lock().turn(self.id, traffic, headroom)
    }

    /// The tunnel is lost.
    pub(super) fn lose(&self) {
        let mut state = self.lock();
        state.break_off();
        let wakers = state.wakers();
        drop(state);
        wakers.wake();
    }

    /// Whether it broke off.
    pub(super) fn is_broken(&self) -> bool {
        self.lock().is_broken()
    }

    /// What its window has grown by.
    pub(super) fn grown(&self) -> usize {
        self.lock().grown()
    }
}

/// A stream of a tunnel. `shutdown` ends what is written in order. Dropped before both ends have done so it is reset: the peer reads what was written
/// before, and its writes fail.
#[derive(Debug)]
pub struct TunnelStream(Arc<Stream>);

impl TunnelStream {
    pub(super) fn new(shared: Arc<Stream>, slots: Slots) -> Self {
        shared.lock().hold(slots);
        TunnelStream(shared)
    }

    /// Puts bytes behind what was written that go out with what is written next, or with a flush; how many of them there was room for.
    pub(super) fn stage(&self, bytes: &[u8]) -> usize {
        self.0.lock().stage(bytes, &self.0.connection.spare)
    }

    /// Writes all of this.
    pub(super) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| self.poll_send(cx, &[IoSlice::new(bytes)])).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn poll_send(&self, cx: &Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = self.0.lock().poll_write(cx, pieces, &self.0.connection.spare);
        let (written, queues) = ready!(polled)?;
        self.queue(queues);
        Poll::Ready(Ok(written))
    }

    /// Sends what was staged.
    pub(super) fn push(&self) {
        let queues = self.0.lock().flush();
        self.queue(queues);
    }

    /// Nothing more will be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        let finished = self.0.lock().finish();
        self.queue(finished?);
        Ok(())
    }

    /// The next bytes as they came; none at the end.
    pub(super) fn poll_chunk(&self, cx: &Context<'_>) -> Poll<io::Result<Bytes>> {
        let polled = self.0.lock().poll_chunk(cx);
        let (chunk, queues) = ready!(polled)?;
        self.queue(queues);
        Poll::Ready(Ok(chunk))
    }

    /// Puts bytes back that were read.
    pub(super) fn put_back(&self, bytes: Bytes) {
        self.0.lock().put_back(bytes);
    }

    /// Whether the peer has finished, and everything is read.
    pub(super) fn is_ended(&self) -> bool {
        self.0.lock().is_ended()
    }

    /// Waits until it breaks off: the peer has reset it, the tunnel is lost, or it was aborted.
    pub(super) async fn over(&self) {
        poll_fn(|cx| self.0.lock().poll_over(cx)).await;
    }

    /// What breaks it off, whoever holds it.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle(Arc::downgrade(&self.0))
    }

    /// Lets the driver know that there is something to send.
    fn queue(&self, queues: bool) {
        if queues {
            self.0.connection.queue(&self.0);
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.0.lock().poll_read(cx, buffer);
        self.queue(ready!(read)?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.push();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}

/// Breaks a stream off while somebody else holds it, who may stand still: the peer hears of it at once, and what was not read is lost.
#[derive(Debug)]
pub struct AbortHandle(Weak<Stream>);

impl AbortHandle {
    /// Breaks it off.
    pub fn abort(&self) {
        let Some(stream) = self.0.upgrade() else { return };
        let mut state = stream.lock();
        let (queues, received) = state.abort();
        let wakers = state.wakers();
        drop(state);
        if queues {
            stream.connection.queue(&stream);
        }
        wakers.wake();
        drop(received);
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let (queues, left) = state.leave();
        let is_done = state.is_done();
        drop(state);
        self.queue(queues);
        if is_done {
            self.0.connection.forget(self.0.id);
        }
        drop(left);
    }
}
