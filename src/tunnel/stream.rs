//! One stream of a tunnel: its state, which the tunnel's driver shares with whoever holds it, and the reader and writer. Takes its place in the
//! tunnel's limits as long as it lives; dropped without a shutdown it is reset.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// A stream of a tunnel. `shutdown` ends it in order; dropping it before resets it, and the peer's reads fail.
#[derive(Debug)]
pub struct TunnelStream(Arc<Stream>);

impl TunnelStream {
    pub(super) fn new(shared: Arc<Stream>, slots: Slots) -> Self {
        shared.lock().hold(slots);
        TunnelStream(shared)
    }

    /// Puts bytes before everything that will be written; they go out with it, or with a flush. Nothing may have been written yet, and they must be
    /// far fewer than a stream may send unasked.
    pub(super) fn begin_with(&mut self, prelude: &[u8]) {
        self.0.lock().begin_with(prelude, &self.0.connection.spare);
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
        let polled = self.0.lock().poll_write(cx, pieces, &self.0.connection.spare);
        let (written, queues) = ready!(polled)?;
        self.queue(queues);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let queues = self.0.lock().flush();
        self.queue(queues);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = self.0.lock().finish();
        self.queue(finished?);
        Poll::Ready(Ok(()))
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
