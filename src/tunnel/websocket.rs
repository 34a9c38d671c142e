//! A websocket's binary messages as a byte stream, with keep-alive. Knows nothing of what the bytes are.
//!
//! Both sides send a Ping when the timer says so; everything that comes counts as a sign of life. A peer that was silent too long is
//! reported as [`io::ErrorKind::TimedOut`], which ends the tunnel: so a half-open connection is found from both ends, whatever
//! the network does with the packets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, protocol};

use super::{KeepAlive, Role, TunnelSettings};

/// The longest message that is sent; a peer that sends longer ones is refused.
const MAX_MESSAGE: usize = 64 << 10;
const RECEIVED_MESSAGE: usize = 256 << 10;
const WRITE_BUFFER: usize = 16 << 10;
const MAX_WRITE_BUFFER: usize = 256 << 10;

/// A byte stream over a websocket.
#[derive(Debug)]
pub struct WebSocketBytes<IO> {
    socket: WebSocketStream<IO>,
    unread: Bytes,
    keep_alive: KeepAlive,
    timer: Pin<Box<Sleep>>,
    pinged: Instant,
    heard: Instant,
}

impl<IO> WebSocketBytes<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Speaks the websocket protocol over a connection whose handshake is done.
    pub async fn new(io: IO, role: Role, settings: &TunnelSettings) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(settings.read_buffer)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(RECEIVED_MESSAGE))
            .max_frame_size(Some(RECEIVED_MESSAGE));
        let role = match role {
            Role::Hub => protocol::Role::Server,
            Role::Agent => protocol::Role::Client,
        };
        let socket = WebSocketStream::from_raw_socket(io, role, Some(config)).await;
        let now = Instant::now();
        WebSocketBytes {
            socket,
            unread: Bytes::new(),
            keep_alive: settings.keep_alive,
            timer: Box::pin(tokio::time::sleep_until(now + settings.keep_alive.ping_every)),
            pinged: now,
            heard: now,
        }
    }

    /// Sends the Ping that is due and fails when the peer was silent too long. Registers the timer's wake-up.
    fn poll_keep_alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.heard + self.keep_alive.dead_after {
                return Err(silent(self.keep_alive));
            }
            if now >= self.pinged + self.keep_alive.ping_every {
                self.pinged = now;
                self.ping(cx)?;
            }
            let next = (self.pinged + self.keep_alive.ping_every).min(self.heard + self.keep_alive.dead_after);
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    /// A Ping is left out while the connection takes no more bytes: what waits there says as much.
    fn ping(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Poll::Ready(ready) = Pin::new(&mut self.socket).poll_ready(cx) {
            ready.map_err(into_io)?;
            let ping = Message::Ping(Bytes::new());
            Pin::new(&mut self.socket).start_send(ping).map_err(into_io)?;
            if let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) {
                flushed.map_err(into_io)?;
            }
        }
        Ok(())
    }

    /// Takes messages until there are bytes; `false` at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while !self.unread.has_remaining() {
            let message = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(message) => message.map_err(into_io)?,
                None => return Poll::Ready(Ok(false)),
            };
            self.heard = Instant::now();
            match message {
                Message::Binary(bytes) => self.unread = bytes,
                Message::Text(_) => return Poll::Ready(Err(unexpected_text())),
                // The library answers a Ping and completes a Close by itself.
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl<IO> AsyncRead for WebSocketBytes<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_keep_alive(cx)?;
        if ready!(self.poll_fill(cx))? {
            let length = self.unread.remaining().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO> AsyncWrite for WebSocketBytes<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_keep_alive(cx)?;
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(into_io)?;
        let piece = &bytes[..bytes.len().min(MAX_MESSAGE)];
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        Pin::new(&mut self.socket).start_send(message).map_err(into_io)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(into_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(into_io)
    }
}

fn silent(keep_alive: KeepAlive) -> io::Error {
    let message = format!("the peer was silent for {:?}: the connection is dead", keep_alive.dead_after);
    io::Error::new(io::ErrorKind::TimedOut, message)
}

fn unexpected_text() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a text message came where only binary ones are spoken",
    )
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
