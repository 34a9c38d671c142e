//! A websocket's binary messages as a byte stream, with keep-alive. Knows nothing of what the bytes are.
//!
//! Both sides send a Ping when the timer says so; everything that comes counts as a sign of life. A peer that was silent too long is
//! reported as [`io::ErrorKind::TimedOut`], which ends the tunnel: so a half-open connection is found from both ends, whatever
//! the network does with the packets.
//!
//! Payload goes straight between the connection and whoever reads or writes, and nothing is kept while nothing comes. Reading and writing are one
//! task's business, which is woken for both; an answer that could not be written at once goes out with its next write or flush.

mod frame;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use bytes::{Buf, BytesMut};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::{KeepAlive, Role, TunnelSettings};
use frame::{Fault, Head, Kind, MAX_CONTROL, MAX_HEAD, head_length, read_head, unmask, write_head};

/// The longest payload that is sent in a frame.
const MAX_PAYLOAD: usize = 64 << 10;
/// So much is gathered before it goes out. What is longer than half of it is not copied.
const STAGE: usize = 16 << 10;
/// What every server puts behind the client's key (RFC 6455 §1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The status of a Close without complaint (RFC 6455 §7.4.1).
const NORMAL_CLOSURE: u16 = 1000;

/// What a server answers to the key of a client's handshake (RFC 6455 §4.2.2).
pub(super) fn accept_key(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// A byte stream over a websocket.
#[derive(Debug)]
pub struct WebSocketBytes<IO> {
    io: IO,
    role: Role,
    reading: Reading,
    /// Whether a message was begun and not ended.
    in_message: bool,
    /// What is to go out next: whole frames, and at the end perhaps the head of one whose payload is still `promised`.
    staged: BytesMut,
    /// Bytes of payload that the last head has announced and that were not written yet. No other frame may come before them.
    promised: usize,
    /// What goes out as soon as nothing is promised: a Pong, or the Close.
    answer: Option<(Kind, BytesMut)>,
    closed: bool,
    keep_alive: KeepAlive,
    timer: Pin<Box<Sleep>>,
    pinged: Instant,
    heard: Instant,
}

/// Where in the peer's frames the next byte stands.
#[derive(Debug)]
enum Reading {
    Head { bytes: [u8; MAX_HEAD], read: usize },
    Payload { head: Head, read: usize },
    Control { head: Head, payload: BytesMut },
    Ended,
}

impl Reading {
    const START: Reading = Reading::Head {
        bytes: [0; MAX_HEAD],
        read: 0,
    };
}

impl<IO> WebSocketBytes<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Speaks the websocket protocol over a connection whose handshake is done.
    pub fn new(io: IO, role: Role, settings: &TunnelSettings) -> Self {
        let now = Instant::now();
        WebSocketBytes {
            io,
            role,
            reading: Reading::START,
            in_message: false,
            staged: BytesMut::new(),
            promised: 0,
            answer: None,
            closed: false,
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

    /// A Ping is left out while something waits to be written: that says as much.
    fn ping(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.staged.is_empty() && self.promised == 0 && !self.closed {
            self.stage(Kind::Ping, &[]);
            self.push(cx)?;
        }
        Ok(())
    }

    /// Puts a whole frame behind what is staged.
    fn stage(&mut self, kind: Kind, payload: &[u8]) {
        write_head(self.role, kind, payload.len(), &mut self.staged);
        self.staged.extend_from_slice(payload);
    }

    /// Puts the answer to a control frame behind what is staged, once it may stand there and there is room: a peer may ask on and on and read no
    /// answer.
    fn stage_answer(&mut self) {
        if self.promised == 0
            && self.staged.len() < STAGE
            && let Some((kind, payload)) = self.answer.take()
        {
            self.stage(kind, &payload);
        }
    }

    /// Writes all that is staged, and the answer that had no room yet.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stage_answer();
        while self.staged.has_remaining() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.staged))?;
            self.staged.advance(not_zero(written)?);
            self.stage_answer();
        }
        // Thousands of tunnels lie idle.
        self.staged = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Sends what is staged as far as the connection takes it; the rest goes with the next write or flush.
    fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let drained = self.poll_drain(cx)?;
        if drained.is_ready() {
            let _ = Pin::new(&mut self.io).poll_flush(cx)?;
        }
        Ok(())
    }

    /// Writes the staged bytes with promised ones behind them; how many of those were taken.
    fn poll_write_promised(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(self.promised)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let pieces = [IoSlice::new(&self.staged), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces))?;
            let staged = not_zero(written)?.min(self.staged.len());
            self.staged.advance(staged);
            if written > staged {
                self.promised -= written - staged;
                self.stage_answer();
                return Poll::Ready(Ok(written - staged));
            }
        }
    }

    /// Reads bytes of the peer into `target`; none of them means that the connection has ended.
    fn poll_take(&mut self, cx: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(target);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let taken = buffer.filled().len();
        if taken > 0 {
            self.heard = Instant::now();
        }
        Poll::Ready(Ok(taken))
    }

    /// Reads on until the next byte is one of a message's payload, or nothing follows.
    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &self.reading {
                Reading::Head { .. } => ready!(self.poll_head(cx))?,
                Reading::Control { .. } => ready!(self.poll_control(cx))?,
                Reading::Payload { head, read } if *read == head.length => self.reading = Reading::START,
                Reading::Payload { .. } | Reading::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Reading::Head { mut bytes, mut read } = self.reading else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let needed = if read < 2 { 2 } else { head_length([bytes[0], bytes[1]]) };
            if read == needed {
                break;
            }
            match self.poll_take(cx, &mut bytes[read..needed])? {
                Poll::Ready(0) => return Poll::Ready(Err(cut_off())),
                Poll::Ready(taken) => read += taken,
                Poll::Pending => {
                    self.reading = Reading::Head { bytes, read };
                    return Poll::Pending;
                }
            }
        }
        let head = read_head(&bytes[..read], self.role).map_err(invalid)?;
        self.reading = self.begin(head).map_err(invalid)?;
        Poll::Ready(Ok(()))
    }

    /// What comes behind a head.
    fn begin(&mut self, head: Head) -> Result<Reading, Fault> {
        match (head.kind, self.in_message) {
            (Kind::Close | Kind::Ping | Kind::Pong, _) => {
                let payload = BytesMut::new();
                return Ok(Reading::Control { head, payload });
            }
            (Kind::Binary, false) | (Kind::Continuation, true) => self.in_message = !head.is_final,
            (Kind::Text, _) => return Err(Fault("text, where only bytes are spoken")),
            (Kind::Binary, true) => return Err(Fault("a message within another")),
            (Kind::Continuation, false) => return Err(Fault("the rest of a message that never began")),
        }
        Ok(Reading::Payload { head, read: 0 })
    }

    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut piece = [0; MAX_CONTROL];
        loop {
            let Reading::Control { head, payload } = &self.reading else {
                return Poll::Ready(Ok(()));
            };
            let left = head.length - payload.len();
            if left == 0 {
                break;
            }
            let taken = ready!(self.poll_take(cx, &mut piece[..left]))?;
            if taken == 0 {
                return Poll::Ready(Err(cut_off()));
            }
            if let Reading::Control { payload, .. } = &mut self.reading {
                payload.extend_from_slice(&piece[..taken]);
            }
        }
        if let Reading::Control { head, mut payload } = std::mem::replace(&mut self.reading, Reading::START) {
            unmask(&mut payload, head.mask, 0);
            self.obey(cx, head.kind, payload)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Answers a Ping with its payload and a Close with a Close. Of two Pings that wait the later one is answered (RFC 6455 §5.5.3).
    fn obey(&mut self, cx: &mut Context<'_>, kind: Kind, payload: BytesMut) -> io::Result<()> {
        match kind {
            Kind::Ping if !self.closed => {
                self.answer = Some((Kind::Pong, payload));
                self.stage_answer();
                self.push(cx)
            }
            Kind::Close => {
                self.reading = Reading::Ended;
                self.close();
                // A peer that has left already hears no answer.
                let _ = self.push(cx);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Sees to it that a Close goes out, once.
    fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.answer = Some((Kind::Close, BytesMut::from(&NORMAL_CLOSURE.to_be_bytes()[..])));
        }
        self.stage_answer();
    }
}

impl<IO> AsyncRead for WebSocketBytes<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_keep_alive(cx)?;
        ready!(self.poll_payload(cx))?;
        let Reading::Payload { head, read } = self.reading else {
            return Poll::Ready(Ok(()));
        };
        let left = head.length - read;
        let before = buffer.filled().len();
        let taken = match buffer.remaining() {
            0 => return Poll::Ready(Ok(())),
            // Straight into the reader's memory, which need not be zeroed first.
            room if room <= left => {
                ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
                buffer.filled().len() - before
            }
            _ => {
                let taken = ready!(self.poll_take(cx, buffer.initialize_unfilled_to(left)))?;
                buffer.advance(taken);
                taken
            }
        };
        if taken == 0 {
            return Poll::Ready(Err(cut_off()));
        }
        self.heard = Instant::now();
        unmask(&mut buffer.filled_mut()[before..], head.mask, read);
        self.reading = Reading::Payload {
            head,
            read: read + taken,
        };
        Poll::Ready(Ok(()))
    }
}

impl<IO> AsyncWrite for WebSocketBytes<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_keep_alive(cx)?;
        if self.promised > 0 || bytes.is_empty() {
            return self.poll_write_promised(cx, bytes);
        }
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let payload = &bytes[..bytes.len().min(MAX_PAYLOAD)];
        if payload.len() > STAGE / 2 {
            let role = self.role;
            write_head(role, Kind::Binary, payload.len(), &mut self.staged);
            self.promised = payload.len();
            return self.poll_write_promised(cx, payload);
        }
        if self.staged.len() + payload.len() > STAGE {
            ready!(self.poll_drain(cx))?;
        }
        self.stage(Kind::Binary, payload);
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn not_zero(written: usize) -> io::Result<usize> {
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

fn invalid(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended without a close")
}

fn silent(keep_alive: KeepAlive) -> io::Error {
    let message = format!("the peer was silent for {:?}: the connection is dead", keep_alive.dead_after);
    io::Error::new(io::ErrorKind::TimedOut, message)
}

#[cfg(test)]
mod tests;
